//! `rustkernel bench`: what supervision costs on this machine, each figure beside that of the least code that does the same.
//!
//! Short rounds alternate between the two, so that both meet the same weather; the ratio is the median of the rounds' own ratios. The
//! project's benchmark, with its targets, is another program: `cargo bench`.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;
use std::{env, io, thread};

use rustix::process::{Pid, Signal, kill_process};
use rustkernel_actors::{KernelRef, KernelSpec, Runtime, SpawnError, StartError};
use rustkernel_core::KernelError;
use rustkernel_core::clock::Clock;
use rustkernel_core::envelope::Deadline;
use rustkernel_core::resilience::RecoveryPolicy;
use rustkernel_core::traits::{Context, Kernel};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::args::{BenchArgs, Format};
use super::{Exit, line, print, say};
use crate::worker::{Domain, DomainConfig, DomainError, Kernels};

/// Gives its input back; told to, it panics.
struct Echo;

type Bytes = Vec<u8>;
type EchoRef = KernelRef<Bytes, Bytes>;

impl Kernel for Echo {
    type Input = Bytes;
    type Output = Bytes;

    async fn execute(&mut self, input: &Bytes, _: &mut Context<'_>) -> Result<Bytes, KernelError> {
        if input.is_empty() {
            // Without the message that a panic writes.
            std::panic::resume_unwind(Box::new("told to"));
        }
        Ok(input.clone())
    }
}

/// For the worker's side.
pub(super) fn register(kernels: &mut Kernels) {
    kernels.register(NAME, |()| Ok(Echo));
}

const NAME: &str = "bench/echo";
const SMALL: usize = 64;

/// One thing that is measured, in nanoseconds.
#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    baseline: &'static str,
    baseline_ns: f64,
    ours_ns: f64,
    ratio: f64,
    /// The smallest and the largest of the rounds.
    ratios: [f64; 2],
}

#[derive(Serialize)]
struct Rows {
    schema: u32,
    rounds: u32,
    rows: Vec<Row>,
}

#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("the async runtime does not start: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Domain(#[from] DomainError),
    #[error("a measured call failed: {0}")]
    Call(#[from] KernelError),
    #[error("what is measured is gone")]
    Gone,
}

pub(super) fn bench(args: &BenchArgs) -> Exit {
    if cfg!(debug_assertions) {
        say("warning: this is a debug build: its figures say nothing about a release build");
    }
    match measure(args.rounds) {
        Ok(rows) => {
            let text = match args.format {
                Format::Human => table(&rows),
                Format::Json => line(&Rows { schema: 1, rounds: args.rounds, rows }),
            };
            print(&text).exit(Exit::Done)
        }
        Err(error) => {
            say(format_args!("error: {error}"));
            Exit::Failure
        }
    }
}

fn measure(rounds: u32) -> Result<Vec<Row>, BenchError> {
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let runtime = workers.block_on(Runtime::builder().build())?;
    let domain = workers.block_on(async { Domain::start("bench", domain()) })?;
    let policy = || RecoveryPolicy {
        max_restarts: u32::MAX,
        restart_delay: Duration::ZERO,
        ..RecoveryPolicy::default()
    };
    let spec = |id| KernelSpec::new(id, || Echo).breaker(None).recovery(policy());
    let inline = workers.block_on(runtime.spawn(spec("bench/inline").inline()))?;
    let threaded = workers.block_on(runtime.spawn(spec("bench/threaded")))?;
    let away = domain.kernel::<Echo>("bench/worker", NAME, &()).breaker(None).recovery(policy());
    let away = workers.block_on(runtime.spawn(away))?;

    let calls = |kernel: &EchoRef, count| {
        let kernel = kernel.clone();
        per(count, || in_task(&workers, async move { call(&kernel, count).await }))
    };
    let mut rows = Vec::new();

    let task = task(&workers);
    rows.push(compare(
        ["call of an inline kernel", "tokio mpsc and oneshot"],
        rounds,
        || {
            let task = task.clone();
            per(2_000, || in_task(&workers, async move { ask(&task, 2_000).await }))
        },
        || calls(&inline, 2_000),
    )?);

    let other = thread_echo();
    rows.push(compare(
        ["call of a kernel on its own thread", "std channel and oneshot"],
        rounds,
        || {
            let other = other.clone();
            per(500, || in_task(&workers, async move { ask_thread(&other, 500).await }))
        },
        || calls(&threaded, 500),
    )?);

    let mut peer = socket_echo()?;
    rows.push(compare(
        ["call of a kernel in a worker process", "socket pair, two threads"],
        rounds,
        || per(500, || round_trips(&mut peer, 500)),
        || calls(&away, 500),
    )?);

    rows.push(compare(
        ["panic to the next good answer", "task spawned anew"],
        rounds,
        || per(100, || workers.block_on(respawn(100))),
        || per(100, || workers.block_on(restarts(&inline, 100))),
    )?);

    rows.push(compare(
        ["kill -9 of a worker to the next good answer", "process started and ended"],
        rounds.min(5),
        || per(5, || processes(5)),
        || workers.block_on(deaths(&domain, &away, 5)),
    )?);

    workers.block_on(runtime.shutdown(Duration::from_secs(1)));
    Ok(rows)
}

/// What drives a runtime from outside is woken by another way than its tasks are.
#[allow(clippy::disallowed_methods, reason = "a measurement's own task")]
fn in_task(
    workers: &tokio::runtime::Runtime,
    work: impl Future<Output = Result<(), BenchError>> + Send + 'static,
) -> Result<(), BenchError> {
    workers.block_on(workers.spawn(work)).map_err(|_| BenchError::Gone)?
}

fn domain() -> DomainConfig {
    DomainConfig { max_deaths: u32::MAX, ..DomainConfig::default() }
}

/// One round of each to warm up, then `rounds` of both, either of them first in its turn.
fn compare(
    [what, baseline]: [&'static str; 2],
    rounds: u32,
    mut bare: impl FnMut() -> Result<f64, BenchError>,
    mut ours: impl FnMut() -> Result<f64, BenchError>,
) -> Result<Row, BenchError> {
    bare()?;
    ours()?;
    let mut pairs = Vec::new();
    for round in 0..rounds {
        pairs.push(if round % 2 == 0 {
            let bare = bare()?;
            (bare, ours()?)
        } else {
            let ours = ours()?;
            (bare()?, ours)
        });
    }
    let ratios = sorted(pairs.iter().map(|(bare, ours)| ours / bare));
    Ok(Row {
        what,
        baseline,
        baseline_ns: median(&sorted(pairs.iter().map(|(bare, _)| *bare))),
        ours_ns: median(&sorted(pairs.iter().map(|(_, ours)| *ours))),
        ratio: median(&ratios),
        ratios: [ratios[0], ratios[ratios.len() - 1]],
    })
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// Nanoseconds of each of the `count` things that `work` does.
fn per(count: u32, work: impl FnOnce() -> Result<(), BenchError>) -> Result<f64, BenchError> {
    let clock = Clock::system();
    let before = clock.now();
    work()?;
    Ok((clock.now() - before).as_secs_f64() * 1e9 / f64::from(count))
}

async fn call(kernel: &EchoRef, count: u32) -> Result<(), BenchError> {
    for _ in 0..count {
        black_box(kernel.call(black_box(vec![7; SMALL]), Deadline::None).await?);
    }
    Ok(())
}

type Ask = (Bytes, oneshot::Sender<Bytes>);

#[allow(clippy::disallowed_methods, reason = "what is compared with has no supervisor")]
fn task(workers: &tokio::runtime::Runtime) -> mpsc::Sender<Ask> {
    let (asks, mut asked) = mpsc::channel::<Ask>(1024);
    workers.spawn(async move {
        while let Some((input, answer)) = asked.recv().await {
            let _ = answer.send(input.clone());
        }
    });
    asks
}

async fn ask(task: &mpsc::Sender<Ask>, count: u32) -> Result<(), BenchError> {
    for _ in 0..count {
        let (answer, answered) = oneshot::channel();
        task.send((black_box(vec![7; SMALL]), answer)).await.map_err(|_| BenchError::Gone)?;
        black_box(answered.await.map_err(|_| BenchError::Gone)?);
    }
    Ok(())
}

fn thread_echo() -> std_mpsc::Sender<Ask> {
    let (asks, asked) = std_mpsc::channel::<Ask>();
    thread::spawn(move || {
        while let Ok((input, answer)) = asked.recv() {
            let _ = answer.send(input.clone());
        }
    });
    asks
}

async fn ask_thread(thread: &std_mpsc::Sender<Ask>, count: u32) -> Result<(), BenchError> {
    for _ in 0..count {
        let (answer, answered) = oneshot::channel();
        thread.send((black_box(vec![7; SMALL]), answer)).map_err(|_| BenchError::Gone)?;
        black_box(answered.await.map_err(|_| BenchError::Gone)?);
    }
    Ok(())
}

fn socket_echo() -> Result<UnixStream, BenchError> {
    let (ours, mut theirs) = UnixStream::pair()?;
    thread::spawn(move || {
        let mut bytes = [0; SMALL];
        while theirs.read_exact(&mut bytes).and_then(|()| theirs.write_all(&bytes)).is_ok() {}
    });
    Ok(ours)
}

fn round_trips(peer: &mut UnixStream, count: u32) -> Result<(), BenchError> {
    let mut bytes = [7; SMALL];
    for _ in 0..count {
        peer.write_all(&bytes)?;
        peer.read_exact(&mut bytes)?;
    }
    Ok(())
}

/// A task that panics, somebody who notices, and a new one that answers.
#[allow(clippy::disallowed_methods, reason = "what is compared with has no supervisor")]
async fn respawn(count: u32) -> Result<(), BenchError> {
    for _ in 0..count {
        let fails = tokio::spawn(async { std::panic::resume_unwind(Box::new("told to")) });
        let failed: Result<(), _> = fails.await;
        let next = tokio::spawn(async { black_box(vec![7; SMALL]) });
        if failed.is_ok() || next.await.is_err() {
            return Err(BenchError::Gone);
        }
    }
    Ok(())
}

async fn restarts(kernel: &EchoRef, count: u32) -> Result<(), BenchError> {
    for _ in 0..count {
        let failed = kernel.call(Vec::new(), Deadline::None).await;
        if failed.is_ok() {
            return Err(BenchError::Gone);
        }
        kernel.call(vec![7; SMALL], Deadline::None).await?;
    }
    Ok(())
}

fn processes(count: u32) -> Result<(), BenchError> {
    let own = env::current_exe()?;
    for _ in 0..count {
        Command::new(&own).arg("--version").stdout(Stdio::null()).status()?;
    }
    Ok(())
}

/// Nanoseconds of each death. The wait for the next spare worker is not counted.
async fn deaths(domain: &Domain, kernel: &EchoRef, count: u32) -> Result<f64, BenchError> {
    let clock = Clock::system();
    let mut total = Duration::ZERO;
    for _ in 0..count {
        while domain.status().spare.is_none() {
            tokio::task::yield_now().await;
        }
        let before = domain.status();
        let pid = before.pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or(BenchError::Gone)?;
        let began = clock.now();
        kill_process(pid, Signal::KILL).map_err(io::Error::from)?;
        while domain.status().deaths == before.deaths
            || kernel.call(vec![7; SMALL], Deadline::None).await.is_err()
        {
            tokio::task::yield_now().await;
        }
        total += clock.now() - began;
    }
    Ok(total.as_secs_f64() * 1e9 / f64::from(count))
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    for Row { what, baseline, baseline_ns, ours_ns, ratio, ratios: [least, most] } in rows {
        let (ours, bare) = (time(*ours_ns), time(*baseline_ns));
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{what:<44} {ours:>9}   {baseline:<26} {bare:>9}   {ratio:>6.2} times ({least:.2} to {most:.2})"
        );
    }
    text
}

fn time(nanos: f64) -> String {
    match nanos {
        ns if ns < 1e4 => format!("{ns:.0} ns"),
        ns if ns < 1e7 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}
