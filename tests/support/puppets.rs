//! A worker process that does what it is told: the test's own program again, in worker mode.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::net::SocketType;
use rustix::process::{Pid, Signal, getpid, kill_process};
use rustkernel::actors::{KernelRef, KernelSpec, Runtime};
use rustkernel::core::clock::Clock;
use rustkernel::core::error::KernelError;
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};
use rustkernel::core::trace::{TraceContext, ambient_trace};
use rustkernel::core::traits::{CheckpointableKernel, Context, Kernel, Payload};
use rustkernel::worker::{Domain, DomainConfig, Kernels, Remote, WorkerCommand};
use serde::{Deserialize, Serialize};

/// What a [`Puppet`] is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Do {
    /// Count, and say how far it has come and in which process.
    Count,
    Echo(Vec<u8>),
    Panic,
    Fail,
    Exit(i32),
    /// The process sends itself this signal.
    Signal(i32),
    /// Ends only when it is cancelled.
    Wait,
    /// Panics when it is cancelled.
    PanicWhenLeft,
    /// Never ends.
    Hang,
    /// Writes this to its control socket.
    SayGarbage(Vec<u8>),
    /// Writes this to every socket it has of its supervising process.
    AnswerGarbage(Vec<u8>),
    /// Closes all of those but the control socket.
    HangUp,
    /// Fails, or panics, with a text of so many bytes.
    FailAtLength(usize),
    PanicAtLength(usize),
    /// Starts a process that reads its standard input to the end, and says what it was and whether it was told to be a worker.
    Child,
    /// Ends the process if the request has been run fewer times than this.
    DieUntil(u32),
    /// Say how many bytes lie unread in its sockets.
    Unread,
    /// Say this, so many times over.
    Repeat(Vec<u8>, usize),
}

impl Payload for Do {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Echo(bytes) | Self::Repeat(bytes, _) => bytes.capacity(),
            Self::Count
            | Self::Panic
            | Self::Fail
            | Self::Exit(_)
            | Self::Signal(_)
            | Self::Wait
            | Self::PanicWhenLeft
            | Self::Hang
            | Self::SayGarbage(_)
            | Self::AnswerGarbage(_)
            | Self::HangUp
            | Self::FailAtLength(_)
            | Self::PanicAtLength(_)
            | Self::Child
            | Self::DieUntil(_)
            | Self::Unread => 64,
        }
    }

    fn schema() -> String {
        "do".into()
    }
}

/// What it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) pid: u32,
    pub(crate) count: u64,
    pub(crate) attempt: u32,
    pub(crate) suspect: bool,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) echo: Vec<u8>,
}

impl Payload for Said {
    fn size_bytes(&self) -> usize {
        64 + self.echo.capacity()
    }

    fn schema() -> String {
        "said".into()
    }
}

pub(crate) struct Puppet(u64);

impl Kernel for Puppet {
    type Input = Do;
    type Output = Said;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<Said, KernelError> {
        let mut echo = Vec::new();
        match input {
            Do::Count => {}
            Do::Echo(bytes) => echo.clone_from(bytes),
            Do::Panic => std::panic::resume_unwind(Box::new("told to panic")),
            Do::FailAtLength(bytes) => return Err(KernelError::transient("x".repeat(*bytes))),
            Do::PanicAtLength(bytes) => std::panic::resume_unwind(Box::new("x".repeat(*bytes))),
            Do::Child => {
                let child = std::process::Command::new("/bin/cat").output();
                echo = child.map(|output| output.stdout).unwrap_or_else(|_| b"no child".to_vec());
            }
            Do::Fail => return Err(KernelError::transient("told to fail")),
            Do::Exit(code) => exit(*code),
            Do::Signal(signal) => raise(*signal),
            Do::Wait => wait(cx),
            Do::PanicWhenLeft => {
                wait(cx);
                std::panic::resume_unwind(Box::new("told to panic"));
            }
            Do::Hang => loop {
                std::thread::park();
            },
            Do::SayGarbage(bytes) => sockets(SocketType::SEQPACKET, |fd| {
                let _ = rustix::io::write(fd, bytes);
            }),
            Do::AnswerGarbage(bytes) => sockets(SocketType::STREAM, |fd| {
                let _ = rustix::io::write(fd, bytes);
            }),
            Do::HangUp => {
                sockets(SocketType::STREAM, |fd| {
                    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
                });
                loop {
                    std::thread::park();
                }
            }
            Do::DieUntil(attempts) if cx.header().attempt < *attempts => exit(3),
            Do::DieUntil(_) => {}
            Do::Unread => echo = unread().to_le_bytes().to_vec(),
            Do::Repeat(bytes, times) => echo = bytes.repeat(*times),
        }
        self.0 += 1;
        let (attempt, suspect) = (cx.header().attempt, cx.header().suspect);
        let trace = ambient_trace().filter(|ambient| cx.trace() == Some(*ambient));
        Ok(Said { pid: std::process::id(), count: self.0, attempt, suspect, trace, echo })
    }
}

#[allow(clippy::exit, reason = "this is what the worker is told")]
fn exit(code: i32) -> ! {
    std::process::exit(code)
}

/// Until it has ended: Rust handles the first SIGSEGV, and leaves the second to the system.
fn raise(signal: i32) -> ! {
    let signal = Signal::from_named_raw(signal).expect("a signal");
    loop {
        kill_process(getpid(), signal).unwrap();
        std::thread::yield_now();
    }
}

fn wait(cx: &Context<'_>) {
    while !cx.is_cancelled() {
        std::hint::spin_loop();
    }
}

fn unread() -> u64 {
    let bytes = std::cell::Cell::new(0);
    sockets(SocketType::STREAM, |fd| bytes.set(bytes.get() + rustix::io::ioctl_fionread(fd).unwrap()));
    bytes.get()
}

/// The sockets of this kind that the supervising process has made.
#[allow(unsafe_code, reason = "a worker that misbehaves")]
fn sockets(kind: SocketType, what: impl Fn(BorrowedFd<'_>)) {
    let name = |fd: i32| fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    for fd in (3..200).filter(|fd| name(*fd).to_string_lossy().starts_with("socket:")) {
        // SAFETY: it is open: the worker's other threads close none while this one runs.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let maker = rustix::net::sockopt::socket_peercred(fd).map(|maker| maker.pid);
        let is_kind = rustix::net::sockopt::socket_type(fd).is_ok_and(|found| found == kind);
        if is_kind && maker.ok() == rustix::process::getppid() {
            what(fd);
        }
    }
}

impl CheckpointableKernel for Puppet {
    type Checkpoint = u64;

    async fn checkpoint(&self) -> Result<u64, KernelError> {
        Ok(self.0)
    }

    async fn restore(&mut self, checkpoint: u64) -> Result<(), KernelError> {
        self.0 = checkpoint;
        Ok(())
    }
}

/// Multiplies a plain buffer.
pub(crate) struct Scale(f64);

impl Kernel for Scale {
    type Input = Vec<f64>;
    type Output = Vec<f64>;

    async fn execute(&mut self, input: &Vec<f64>, _: &mut Context<'_>) -> Result<Vec<f64>, KernelError> {
        Ok(input.iter().map(|value| value * self.0).collect())
    }
}

/// Takes its time to be dropped.
struct Lingering(Puppet);

impl Kernel for Lingering {
    type Input = Do;
    type Output = Said;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<Said, KernelError> {
        self.0.execute(input, cx).await
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let clock = Clock::system();
        let until = clock.now() + Duration::from_millis(400);
        while clock.now() < until {
            std::hint::spin_loop();
        }
    }
}

/// What a worker of the tests can make.
pub(crate) fn kernels(kernels: &mut Kernels) {
    kernels.register_checkpointed("puppet", |count: u64| Ok(Puppet(count)));
    kernels.register("forgetful", |count: u64| Ok(Puppet(count)));
    kernels.register("lingering", |count: u64| Ok(Lingering(Puppet(count))));
    kernels.register("scale", |factor: f64| Ok(Scale(factor)));
    kernels.register("broken", |text: String| -> Result<Puppet, KernelError> {
        if text == "panic" {
            std::panic::resume_unwind(Box::new("told to panic"));
        }
        Err(KernelError::permanent(text))
    });
}

/// This program, at the test that makes it a worker.
pub(crate) fn command() -> WorkerCommand {
    let arguments = ["--exact", "worker_main", "--nocapture", "--test-threads=1"];
    WorkerCommand::program(std::env::current_exe().unwrap()).arguments(arguments)
}

/// Dies as often as it takes.
pub(crate) fn config() -> DomainConfig {
    DomainConfig { worker: command(), max_deaths: u32::MAX, ..DomainConfig::default() }
}

pub(crate) fn domain() -> Domain {
    Domain::start("test", config()).unwrap()
}

pub(crate) type PuppetSpec = KernelSpec<Remote<Do, Said>>;
pub(crate) type PuppetRef = KernelRef<Do, Said>;

pub(crate) fn puppet(domain: &Domain, id: &str) -> PuppetSpec {
    called(domain, id, "puppet")
}

/// What the worker knows by that name.
pub(crate) fn called(domain: &Domain, id: &str, name: &str) -> PuppetSpec {
    let recovery = RecoveryPolicy {
        strategy: RecoveryStrategy::RestartKernel,
        max_restarts: 0,
        restart_delay: Duration::ZERO,
        escalation: Some(RecoveryStrategy::NotifyOperator),
    };
    domain.kernel::<Puppet>(id, name, &0_u64).breaker(None).recovery(recovery)
}

pub(crate) async fn spawned(spec: PuppetSpec) -> (Runtime, PuppetRef) {
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = runtime.spawn(spec).await.unwrap();
    (runtime, kernel)
}

pub(crate) fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Whether the process is there, and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// What the process is doing, as one letter: `T` for one that was stopped.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// The processor time of the process, in ticks of the system's.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split_whitespace().collect();
    fields[11].parse().unwrap()
}

/// Children of this process, zombies included.
pub(crate) fn children() -> BTreeSet<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// Waits for something that another process does.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    crate::kit::soon(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
