//! The gate in front of every kernel, and the breaker for everything else.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use rustkernel::core::clock::Clock;
use rustkernel::core::resilience::{CircuitBreaker, CircuitBreakerConfig, Outcome, ResilienceError};
use rustkernel::core::traits::Payload as _;

use crate::alloc::count;
use crate::call::INPUT;
use crate::gate::{Gate, Mode};
use crate::report::{Group, Report, Target};
use crate::rounds::{Side, nanos_per};
use crate::sides::{Flavour, kernel};

/// Two counters as a baseline breaker would keep them: the state, and the successes.
#[derive(Default)]
struct Counters {
    state: AtomicU64,
    successes: AtomicU64,
}

/// One value on a cache line of its own: what stands beside it in memory shall not decide a row.
#[repr(align(128))]
struct Alone<T>(T);

pub(crate) fn run(report: &mut Report) {
    if !report.wants("breaker") {
        return;
    }
    closed(report);
    contended(report);
    open(report);
    open_allocations(report);
}

fn closed(report: &mut Report) {
    let operations = report.scale(400_000);
    let counters = Alone(Counters::default());
    let gate = Alone(closed_gate());
    let breaker = CircuitBreaker::new(CircuitBreakerConfig::default());
    let runtime = Flavour::CurrentThread.runtime();
    report.run(Group {
        name: "breaker closed, success, 1 task".into(),
        unit: "ns",
        rounds: 31,
        baseline: Side::new("relaxed load + fetch_add", || {
            nanos_per(operations, || count_successes(&counters.0, operations))
        }),
        contenders: vec![
            (
                Side::new("gate: admit + observe", || {
                    nanos_per(operations, || pass_gate(&gate.0, operations))
                }),
                Target::Ratio(2.0),
            ),
            (
                Side::new("CircuitBreaker::call, ready future", || {
                    nanos_per(operations, || runtime.block_on(pass_breaker(&breaker, operations)))
                }),
                Target::None,
            ),
        ],
    });
}

fn contended(report: &mut Report) {
    let operations = report.scale(400_000);
    let counters = Alone(Counters::default());
    let gate = Alone(closed_gate());
    let breaker = CircuitBreaker::new(CircuitBreakerConfig::default());
    report.run(Group {
        name: "breaker closed, success, 2 tasks".into(),
        unit: "ns",
        rounds: 31,
        baseline: Side::new("relaxed load + fetch_add", || {
            two_threads(operations, || count_successes(&counters.0, operations))
        }),
        contenders: vec![
            (
                Side::new("gate: admit + observe", || {
                    two_threads(operations, || pass_gate(&gate.0, operations))
                }),
                Target::Ratio(1.0),
            ),
            (
                Side::new("CircuitBreaker::call, ready future", || {
                    two_threads(operations, || {
                        Flavour::CurrentThread.runtime().block_on(pass_breaker(&breaker, operations));
                    })
                }),
                Target::None,
            ),
        ],
    });
}

fn open(report: &mut Report) {
    let operations = report.scale(400_000);
    let counters = Alone(Counters { state: AtomicU64::new(3), ..Counters::default() });
    let gate = Alone(open_gate());
    let runtime = Flavour::CurrentThread.runtime();
    let (supervisor, echo) = kernel(&runtime);
    runtime.block_on(supervisor.breaker("bench/echo", rustkernel::actors::BreakerCommand::Isolate));
    report.run(Group {
        name: "breaker open, reject".into(),
        unit: "ns",
        rounds: 31,
        baseline: Side::new("load + branch", || {
            nanos_per(operations, || {
                let mut refused = 0_u64;
                for _ in 0..operations {
                    if black_box(&counters.0).state.load(Relaxed) >= 2 {
                        refused = black_box(refused + 1);
                    }
                }
            })
        }),
        contenders: vec![
            (
                Side::new("gate: admit", || {
                    nanos_per(operations, || {
                        let mut refused = 0_u64;
                        for _ in 0..operations {
                            if black_box(&gate.0).admit().is_err() {
                                refused = black_box(refused + 1);
                            }
                        }
                    })
                }),
                Target::Ratio(3.0),
            ),
            (
                Side::new("gate: admit + explain", || {
                    nanos_per(operations, || {
                        for _ in 0..operations {
                            explain_refusal(&gate.0);
                        }
                    })
                }),
                Target::None,
            ),
            (
                Side::new("KernelRef::try_call, refused with its input", || {
                    nanos_per(operations, || {
                        for _ in 0..operations {
                            let refused =
                                echo.try_call(black_box(INPUT), Duration::from_secs(10)).unwrap_err();
                            black_box(refused.input.size_bytes());
                        }
                    })
                }),
                Target::None,
            ),
        ],
    });
}

fn open_allocations(report: &mut Report) {
    let operations = report.scale(100_000);
    let gate = open_gate();
    let word = AtomicU64::new(3);
    let per_operation = |work: &dyn Fn()| {
        let ((), counted) = count(|| (0..operations).for_each(|_| work()));
        counted.allocations as f64 / operations as f64
    };
    report.run(Group {
        name: "breaker open, reject".into(),
        unit: "allocations",
        rounds: 3,
        baseline: Side::new("load + branch", || {
            per_operation(&|| {
                black_box(word.load(Relaxed) >= 2);
            })
        }),
        contenders: vec![(
            Side::new("gate: admit + explain", || per_operation(&|| explain_refusal(&gate))),
            Target::Absolute(0.0),
        )],
    });
}

fn closed_gate() -> Gate {
    Gate::new(Some(&CircuitBreakerConfig::default()))
}

fn open_gate() -> Gate {
    let gate = closed_gate();
    gate.publish(Mode::Open, 0, 1);
    gate
}

fn count_successes(counters: &Counters, operations: usize) {
    for _ in 0..operations {
        let counters = black_box(counters);
        if counters.state.load(Relaxed) == 0 {
            counters.successes.fetch_add(1, Relaxed);
        }
    }
}

fn pass_gate(gate: &Gate, operations: usize) {
    for _ in 0..operations {
        if let Ok(permit) = black_box(gate).admit() {
            black_box(gate).observe(permit, Outcome::Success, Duration::ZERO);
        }
    }
}

fn explain_refusal(gate: &Gate) {
    if let Err(refused) = black_box(gate).admit() {
        black_box(gate.explain(refused));
    }
}

async fn pass_breaker(breaker: &CircuitBreaker, operations: usize) {
    for _ in 0..operations {
        let result = breaker.call(|| async { Ok::<_, ResilienceError>(black_box(1)) }).await;
        black_box(result.is_ok());
    }
}

/// Nanoseconds an operation takes each of two threads that do it at the same time.
fn two_threads(operations: usize, work: impl Fn() + Sync) -> f64 {
    let start = Barrier::new(2);
    let timed = || {
        start.wait();
        let clock = Clock::system();
        let before = clock.now();
        work();
        (clock.now() - before).as_secs_f64() * 1e9 / operations as f64
    };
    thread::scope(|scope| {
        let other = scope.spawn(timed);
        let here = timed();
        here.max(other.join().unwrap())
    })
}
