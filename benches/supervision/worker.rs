//! Kernels in a worker process, beside the least that crosses a process border: a socket pair, a copy of memory, a process that is started.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustkernel::actors::{KernelRef, KernelSpec, Runtime};
use rustkernel::core::KernelError;
use rustkernel::core::clock::Clock;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::RecoveryPolicy;
use rustkernel::core::traits::{Context, Kernel};
use rustkernel::worker::{Domain, DomainConfig, Kernels, Remote, SharedSlice};
use tokio::time::timeout;

use crate::call::drive;
use crate::report::{Group, Report, Target};
use crate::rounds::{Sample, Side, nanos_per};
use crate::sides::Flavour;

const SMALL: usize = 64;
const LARGE: usize = 16 << 20;
/// The argument that makes this program the baseline's echo.
pub(crate) const ECHO: &str = "--echo";

/// Gives its input back; an empty one is never answered.
struct Echo;

impl Kernel for Echo {
    type Input = Vec<u8>;
    type Output = Vec<u8>;

    async fn execute(&mut self, input: &Vec<u8>, _: &mut Context<'_>) -> Result<Vec<u8>, KernelError> {
        while input.is_empty() {
            std::thread::park();
        }
        Ok(input.clone())
    }
}

/// Gives back a copy of its input, in shared memory as that is.
struct Copy;

impl Kernel for Copy {
    type Input = SharedSlice<u8>;
    type Output = SharedSlice<u8>;

    async fn execute(
        &mut self,
        input: &SharedSlice<u8>,
        _: &mut Context<'_>,
    ) -> Result<SharedSlice<u8>, KernelError> {
        SharedSlice::copy_of(input)
    }
}

pub(crate) fn kernels(kernels: &mut Kernels) {
    kernels.register("echo", |()| Ok(Echo));
    kernels.register("copy", |()| Ok(Copy));
}

/// The baseline's other process: what comes in on standard input, a socket, goes out again.
pub(crate) fn echo() {
    let socket: OwnedFd = rustix::io::dup(std::io::stdin()).unwrap();
    let mut socket = UnixStream::from(socket);
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = socket.read(&mut bytes) {
        if socket.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}

/// That process, and the way to it.
struct Peer {
    socket: UnixStream,
    process: Child,
}

impl Peer {
    fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("/proc/self/exe");
        let command = command.arg(ECHO).stdin(Stdio::from(OwnedFd::from(theirs)));
        Self { socket, process: command.spawn().unwrap() }
    }

    fn round_trip(&mut self) {
        let mut bytes = [7; SMALL];
        self.socket.write_all(&bytes).unwrap();
        self.socket.read_exact(&mut bytes).unwrap();
    }

    /// `count` round trips, `outstanding` at a time.
    fn pipelined(&mut self, count: usize, outstanding: usize) {
        let (mut sent, mut read, mut bytes) = (0, 0, [7; 64 * SMALL]);
        while read < count * SMALL {
            while sent < count && sent * SMALL < read + outstanding * SMALL {
                self.socket.write_all(&bytes[..SMALL]).unwrap();
                sent += 1;
            }
            read += self.socket.read(&mut bytes).unwrap();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn run(report: &mut Report) {
    if !report.wants("worker") {
        return;
    }
    calls(report);
    payload(report);
    deaths(report);
    hangs(report);
}

type EchoRef = KernelRef<Vec<u8>, Vec<u8>>;

fn config() -> DomainConfig {
    DomainConfig { max_deaths: u32::MAX, kill_after: Duration::from_millis(1), ..DomainConfig::default() }
}

fn spec(domain: &Domain, id: &str) -> KernelSpec<Remote<Vec<u8>, Vec<u8>>> {
    let recovery =
        RecoveryPolicy { max_restarts: u32::MAX, restart_delay: Duration::ZERO, ..RecoveryPolicy::default() };
    domain.kernel::<Echo>(id, "echo", &()).breaker(None).recovery(recovery)
}

/// A kernel in a domain of its own.
fn placed(runtime: &tokio::runtime::Runtime, config: DomainConfig) -> (Runtime, Domain, EchoRef) {
    runtime.block_on(async {
        let supervisor = Runtime::builder().build().await.unwrap();
        let domain = Domain::start("bench", config).unwrap();
        let kernel = supervisor.spawn(spec(&domain, "bench/echo")).await.unwrap();
        (supervisor, domain, kernel)
    })
}

fn calls(report: &mut Report) {
    for flavour in Flavour::BOTH {
        let runtime = flavour.runtime();
        let (supervisor, domain, kernel) = placed(&runtime, config());
        let again = spec(&domain, "bench/again").idempotent();
        let idempotent = runtime.block_on(supervisor.spawn(again)).unwrap();
        for outstanding in [1, 64] {
            let count = report.scale(10_000);
            let mut peer = Peer::start();
            let side = |name, kernel: &EchoRef| {
                let (runtime, kernel) = (&runtime, kernel.clone());
                Side::new(name, move || {
                    let call = || call(kernel.clone(), count / outstanding);
                    drive(runtime, outstanding, count / outstanding, call)
                })
            };
            let contenders = vec![
                (side("kernel in a worker process, idempotent", &idempotent), Target::Ratio(2.0)),
                (side("kernel in a worker process", &kernel), Target::Ratio(2.0)),
            ];
            report.run(Group {
                name: format!("worker: call of 64 B, {outstanding} outstanding, {}", flavour.name()),
                unit: "ns",
                rounds: 15,
                baseline: Side::new("socket pair, other process", || {
                    nanos_per(count, || match outstanding {
                        1 => (0..count).for_each(|_| peer.round_trip()),
                        _ => peer.pipelined(count, outstanding),
                    })
                }),
                contenders,
            });
        }
    }
}

async fn call(kernel: EchoRef, calls: usize) {
    for _ in 0..calls {
        kernel.call(vec![7; SMALL], Deadline::None).await.unwrap();
    }
}

fn payload(report: &mut Report) {
    let runtime = Flavour::MultiThread.runtime();
    let (supervisor, domain, kernel) = placed(&runtime, config());
    let copies =
        runtime.block_on(supervisor.spawn(domain.kernel::<Copy>("bench/copy", "copy", &()))).unwrap();
    let count = report.scale(50).min(10);
    let (source, mut there, mut back) = (vec![7_u8; LARGE], vec![0_u8; LARGE], vec![0_u8; LARGE]);
    report.run(Group {
        name: "worker: 16 MiB there and back".to_owned(),
        unit: "us",
        rounds: 15,
        baseline: Side::new("two copies of it in memory", || {
            nanos_per(count, || {
                for _ in 0..count {
                    there.copy_from_slice(&source);
                    back.copy_from_slice(std::hint::black_box(&there));
                    std::hint::black_box(&back);
                }
            }) / 1e3
        }),
        contenders: vec![
            (
                Side::new("SharedSlice, filled here and copied by a kernel in a worker process", || {
                    let source = vec![7_u8; LARGE];
                    nanos_per(count, || {
                        for _ in 0..count {
                            let input = domain.copy_of(&source).unwrap();
                            let answer = runtime.block_on(copies.call(input, Deadline::None)).unwrap();
                            assert_eq!(std::hint::black_box(&answer)[LARGE - 1], 7);
                        }
                    }) / 1e3
                }),
                Target::Ratio(1.5),
            ),
            (
                Side::new("Vec, echoed by a kernel in a worker process", || {
                    let mut buffer = Some(vec![7; LARGE]);
                    nanos_per(count, || {
                        for _ in 0..count {
                            let answer = kernel.call(buffer.take().unwrap(), Deadline::None);
                            buffer = Some(runtime.block_on(answer).unwrap());
                        }
                    }) / 1e3
                }),
                Target::Ratio(1.5),
            ),
        ],
    });
}

fn deaths(report: &mut Report) {
    let runtime = Flavour::MultiThread.runtime();
    let count = report.scale(50);
    for (spare, limit) in [(true, 5.0), (false, 50.0)] {
        let (_supervisor, domain, kernel) = placed(&runtime, DomainConfig { spare, ..config() });
        let warmth = if spare { "spare" } else { "cold" };
        report.run(Group {
            name: format!("worker: kill -9 to good answer, {warmth}"),
            unit: "ms",
            rounds: 5,
            baseline: Side::new("a process is started and echoes", || {
                nanos_per(count, || (0..count).for_each(|_| Peer::start().round_trip())) / 1e6
            }),
            contenders: vec![(
                Side::new("kernel in a worker process", || {
                    runtime
                        .block_on(runtime.spawn(strike(domain.clone(), kernel.clone(), count, spare)))
                        .unwrap()
                }),
                Target::Absolute(limit),
            )],
        });
    }
}

/// The median of `deaths`, in milliseconds.
async fn strike(domain: Domain, kernel: EchoRef, deaths: usize, spare: bool) -> f64 {
    let clock = Clock::system();
    let mut spans = Vec::with_capacity(deaths);
    for _ in 0..deaths {
        if spare {
            ready(&domain).await;
        }
        let pid = domain.status().pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).unwrap();
        let died = domain.status().deaths;
        let before = clock.now();
        kill_process(pid, Signal::KILL).unwrap();
        while domain.status().deaths == died || kernel.call(vec![1; SMALL], Deadline::None).await.is_err() {
            tokio::task::yield_now().await;
        }
        spans.push((clock.now() - before).as_secs_f64() * 1e3);
    }
    Sample::of(spans).median()
}

/// Waits until the spare one is up.
async fn ready(domain: &Domain) {
    while domain.status().spare.is_none() {
        tokio::task::yield_now().await;
    }
}

fn hangs(report: &mut Report) {
    let runtime = Flavour::MultiThread.runtime();
    let (_supervisor, domain, kernel) = placed(&runtime, config());
    let count = report.scale(50);
    let side = |name, waits_for_next| {
        let (runtime, domain, kernel) = (&runtime, domain.clone(), kernel.clone());
        Side::new(name, move || {
            let hang = hang(domain.clone(), kernel.clone(), count, waits_for_next);
            runtime.block_on(runtime.spawn(hang)).unwrap()
        })
    };
    report.run(Group {
        name: "worker: hang, time past the deadline".to_owned(),
        unit: "ms",
        rounds: 5,
        baseline: Side::new("tokio timeout of a pending future", || runtime.block_on(lateness(count))),
        contenders: vec![
            (side("to the typed answer", false), Target::Absolute(5.0)),
            (side("to the next good answer, spare", true), Target::Absolute(10.0)),
        ],
    });
}

const DEADLINE: Duration = Duration::from_millis(20);

/// The median of `hangs`, in milliseconds past the deadline.
async fn hang(domain: Domain, kernel: EchoRef, hangs: usize, waits_for_next: bool) -> f64 {
    let clock = Clock::system();
    let mut spans = Vec::with_capacity(hangs);
    for _ in 0..hangs {
        while kernel.call(vec![1; SMALL], Deadline::None).await.is_err() {}
        ready(&domain).await;
        let before = clock.now();
        let error = kernel.call(Vec::new(), DEADLINE).await.unwrap_err();
        assert_eq!(*error.kind(), KernelErrorKind::DeadlineExceeded, "asked for");
        if waits_for_next {
            while kernel.call(vec![1; SMALL], Deadline::None).await.is_err() {}
        }
        spans.push((clock.now() - before).saturating_sub(DEADLINE).as_secs_f64() * 1e3);
    }
    Sample::of(spans).median()
}

async fn lateness(waits: usize) -> f64 {
    let clock = Clock::system();
    let mut spans = Vec::with_capacity(waits);
    for _ in 0..waits {
        let before = clock.now();
        let _elapsed = timeout(DEADLINE, std::future::pending::<()>()).await;
        spans.push((clock.now() - before).saturating_sub(DEADLINE).as_secs_f64() * 1e3);
    }
    Sample::of(spans).median()
}
