//! One call: its time with 1 and with 64 callers, and its allocations.

use std::future::Future;
use std::hint::black_box;
use std::time::Duration;

use ractor::{Actor, ActorRef};
use rustkernel::actors::KernelRef;
use rustkernel::core::envelope::Deadline;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::alloc::count;
use crate::report::{Group, Report, Target};
use crate::rounds::{Side, nanos_per};
use crate::sides::{Ask, Bare, EchoActor, Flavour, Payload, actor_call, bare_call, bare_task, kernel};

/// Far enough that it never passes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) const INPUT: Payload = [7; 64];

/// Targets of a call without and with a deadline, for each number of callers.
const TARGETS: [(usize, f64, f64); 2] = [(1, 1.35, 1.6), (64, 1.15, 1.4)];

pub(crate) fn run(report: &mut Report) {
    for flavour in Flavour::BOTH {
        if report.wants("call") {
            times(report, flavour);
        }
    }
    if report.wants("allocations") {
        allocations(report);
    }
}

fn times(report: &mut Report, flavour: Flavour) {
    let runtime = flavour.runtime();
    let task = bare_task(&runtime);
    let (_supervisor, echo) = kernel(&runtime);
    let (actor, _) = runtime.block_on(Actor::spawn(None, EchoActor, ())).unwrap();
    for (callers, without, with) in TARGETS {
        let calls = report.scale(if callers == 1 { 32_768 } else { 131_072 }) / callers;
        let kernel_side = |name, deadline: Deadline| {
            let (runtime, echo) = (&runtime, &echo);
            Side::new(name, move || {
                drive(runtime, callers, calls, || call_kernel(echo.clone(), calls, deadline))
            })
        };
        let bare = || drive(&runtime, callers, calls, || call_task(task.clone(), calls));
        let ractor = || drive(&runtime, callers, calls, || call_actor(actor.clone(), calls));
        report.run(Group {
            name: format!("call, {callers} outstanding, {}", flavour.name()),
            unit: "ns",
            rounds: 31,
            baseline: Side::new("tokio mpsc + oneshot", bare),
            contenders: vec![
                (kernel_side("inline kernel, no deadline", Deadline::None), Target::Ratio(without)),
                (kernel_side("inline kernel, deadline", Deadline::Within(DEADLINE)), Target::Ratio(with)),
                (Side::new("ractor call", ractor), Target::None),
            ],
        });
    }
    actor.stop(None);
}

fn allocations(report: &mut Report) {
    let runtime = Flavour::CurrentThread.runtime();
    let task = bare_task(&runtime);
    let (_supervisor, echo) = kernel(&runtime);
    let (actor, _) = runtime.block_on(Actor::spawn(None, EchoActor, ())).unwrap();
    let calls = report.scale(32_768);
    let kernel_side = |name, deadline: Deadline| {
        let (runtime, echo) = (&runtime, &echo);
        Side::new(name, move || per_call(runtime, calls, call_kernel(echo.clone(), calls, deadline)))
    };
    let contenders = vec![
        (kernel_side("inline kernel, no deadline", Deadline::None), Target::Absolute(1.0)),
        (kernel_side("inline kernel, deadline", Deadline::Within(DEADLINE)), Target::Absolute(1.0)),
        (
            Side::new("ractor call", || per_call(&runtime, calls, call_actor(actor.clone(), calls))),
            Target::None,
        ),
    ];
    report.run(Group {
        name: "allocations per call".into(),
        unit: "allocations",
        rounds: 3,
        baseline: Side::new("tokio mpsc + oneshot", || {
            per_call(&runtime, calls, call_task(task.clone(), calls))
        }),
        contenders,
    });
    actor.stop(None);
}

async fn call_task(task: mpsc::Sender<Bare>, calls: usize) {
    for _ in 0..calls {
        black_box(bare_call(&task, black_box(INPUT)).await);
    }
}

async fn call_kernel(echo: KernelRef<Payload, Payload>, calls: usize, deadline: Deadline) {
    for _ in 0..calls {
        black_box(echo.call(black_box(INPUT), deadline).await.unwrap());
    }
}

async fn call_actor(actor: ActorRef<Ask>, calls: usize) {
    for _ in 0..calls {
        black_box(actor_call(&actor, black_box(INPUT)).await);
    }
}

/// Runs `callers` tasks at once and gives the nanoseconds a call.
pub(crate) fn drive<F>(runtime: &Runtime, callers: usize, calls: usize, caller: impl Fn() -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    nanos_per(callers * calls, || {
        let tasks: Vec<_> = (0..callers).map(|_| runtime.spawn(caller())).collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
    })
}

/// Allocations a call. The caller's own task is outside the count.
fn per_call(runtime: &Runtime, calls: usize, caller: impl Future<Output = ()>) -> f64 {
    let ((), counted) = count(|| runtime.block_on(caller));
    counted.allocations as f64 / calls as f64
}
