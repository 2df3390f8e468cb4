//! What the driver takes by itself where supervision can only wait: until it says that a kernel has faulted, until a killed process has
//! ended, and what another process on the device sees of either.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ChildStdout;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustkernel::core::clock::{Clock, Timestamp};
use rustkernel::core::traits::Context as KernelContext;
use rustkernel::cuda::{Device, Grid, Image};
use serde::de::DeserializeOwned;

use crate::child::{self, End, Silent, Started, command, told};
use crate::context::{Context, Raw};
use crate::device::FAULTS;
use crate::figures::{Sample, pass, rounded, rounds, timed};
use crate::options::ACT;
use crate::raw::{Address, Code, Handle};
use crate::recovery::spinning;
use crate::row::{Bench, Found, Halt, Outcome, ensure};
use crate::scene::play;

/// The act that says when it is ready, faults, and says how long it took until it knew.
pub(crate) const STRUCK: &str = "struck";

/// Long enough for the one that watches to have begun.
const PAUSE: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(20);

/// See [`STRUCK`].
pub(crate) fn struck() -> Result<(), Halt> {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let (stream, fault) = (context.stream()?, context.ready("rk_fault_illegal_address")?);
    context.canary()?;
    child::tell(&0.0);
    pass(PAUSE);
    let (seconds, code) = timed(|| {
        context.fault(&fault, stream)?.ok("cuLaunchKernel")?;
        context.settle(stream)
    });
    ensure(code? == Code(700), || "the fault has not happened".to_owned())?;
    child::tell(&seconds);
    // Until it is killed.
    pass(LIMIT);
    Ok(())
}

/// A process that faults and is killed as soon as it says so, and one beside it that computes all the while.
pub(crate) fn fault(bench: Bench) -> Outcome {
    let raw = Raw::open()?;
    let steady = Steady::new(raw.primary()?)?;
    let (mut known, mut ended, mut longest, mut next) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in rounds(bench.times(10)) {
        let (process, output) = Started::start_open(&mut command(&[ACT, STRUCK]))?;
        let mut output = BufReader::new(output);
        said::<f64>(&mut output)?;
        let is_over = AtomicBool::new(false);
        let (seen, sums) = thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let seen = kill_struck(process, &mut output);
                pass(PAUSE);
                is_over.store(true, Ordering::Relaxed);
                seen
            });
            let sums = steady.until(&is_over);
            (killer.join().unwrap_or_else(|_| Err(Halt::Fail("it panics".to_owned()))), sums)
        });
        let (seen, sums) = (seen?, sums?);
        known.push(seen.known);
        ended.push(seen.ended);
        let span = |(begun, done): &(Timestamp, Timestamp)| (*done - *begun).as_secs_f64();
        longest.push(sums.iter().map(span).fold(0.0, f64::max));
        let first = sums.iter().find(|(begun, _)| *begun >= seen.at);
        next.extend(first.map(|(_, done)| (*done - seen.at).as_secs_f64()));
    }
    let found =
        Found::new("the driver says 700, the process is killed, and another one computes all the while");
    let found = Sample::of(known).tell(found, "launch_to_code", "ms", 1e3);
    let found = Sample::of(ended).tell(found, "kill_to_end", "ms", 1e3);
    let found = Sample::of(longest).tell(found, "longest_sum_beside", "ms", 1e3);
    Ok(Sample::of(next).tell(found, "code_to_sum_beside", "ms", 1e3))
}

struct Seen {
    /// How long the driver took to say so.
    known: f64,
    /// When that was heard.
    at: Timestamp,
    /// How long the process took to end.
    ended: f64,
}

fn kill_struck(process: Silent, output: &mut BufReader<ChildStdout>) -> Result<Seen, Halt> {
    let known = said(output)?;
    let at = Clock::system().now();
    let (ended, end) = timed(|| process.kill().and_then(|()| process.end(LIMIT)));
    ensure(end? == End::Signal(9), || "it has ended by itself".to_owned())?;
    Ok(Seen { known, at, ended })
}

fn said<T: DeserializeOwned>(output: &mut BufReader<ChildStdout>) -> Result<T, Halt> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    told(&line).ok_or_else(|| Halt::Fail("the other process says nothing".to_owned()))
}

/// Whether a process computes while the kernel of another one does not end, and how fast.
pub(crate) fn beside(bench: Bench) -> Outcome {
    let raw = Raw::open()?;
    let steady = Steady::new(raw.primary()?)?;
    let times = bench.times(1_000);
    let spans = || (0..times).map(|_| timed(|| steady.sum())).map(|(span, sum)| sum.map(|()| span)).collect();
    let alone: Result<Vec<_>, Halt> = spans();
    let process = spinning()?;
    let beside: Result<Vec<_>, Halt> = spans();
    process.kill()?;
    process.end(LIMIT)?;
    let found = Found::new("one launch at a time, alone and beside a process whose kernel runs");
    let found = Sample::of(alone?).tell(found, "alone", "us", 1e6);
    Ok(Sample::of(beside?).tell(found, "beside", "us", 1e6))
}

/// Launches one after the other, each waited for.
struct Steady<'a> {
    context: Context<'a>,
    add: Handle,
    stream: Handle,
    data: Address,
}

impl<'a> Steady<'a> {
    fn new(context: Context<'a>) -> Result<Self, Halt> {
        let (add, stream) = (context.function("rk_add")?, context.stream()?);
        let data = context.zeros(1, stream)?;
        let steady = Self { context, add, stream, data };
        steady.sum().map(|()| steady)
    }

    fn sum(&self) -> Result<(), Halt> {
        self.context.add(self.add, self.stream, self.data, 1)?.ok("cuLaunchKernel")?;
        self.context.settle(self.stream)?.ok("cuStreamQuery")
    }

    /// When each began and was done.
    fn until(&self, is_over: &AtomicBool) -> Result<Vec<(Timestamp, Timestamp)>, Halt> {
        let clock = Clock::system();
        let mut sums = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let begun = clock.now();
            self.sum()?;
            sums.push((begun, clock.now()));
        }
        Ok(sums)
    }
}

/// The act that opens the device, waits until there is a file, and says how long each step to a first answer takes then.
pub(crate) const WARM: &str = "warm";

/// Seconds from one step to the next.
type Steps = Vec<(String, f64)>;

/// See [`WARM`].
pub(crate) fn warm(arguments: &[String]) -> Result<(), Halt> {
    let go = Path::new(arguments.first().ok_or_else(|| Halt::Fail("no file is named".to_owned()))?);
    let device = Device::open(0)?;
    device.probe()?;
    child::tell(&Steps::new());
    while !go.exists() {
        thread::yield_now();
    }
    let clock = Clock::system();
    let (mut steps, mut last) = (Steps::new(), clock.now());
    let mut step = |name: &str| {
        let now = clock.now();
        steps.push((name.to_owned(), (now - last).as_secs_f64()));
        last = now;
    };
    let module = device.load(Image::Ptx(FAULTS))?;
    step("load");
    let add = module.function("rk_add")?;
    step("function");
    let stream = device.stream()?;
    step("stream");
    for turn in ["first", "second"] {
        let data = stream.upload(&[1_u32, 2, 3])?;
        step(&format!("{turn}_upload"));
        // SAFETY: as faults.cu declares it.
        #[allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]
        unsafe {
            stream.launch(&add, Grid::over(3, 64), &[&data, &3_u32, &10_u32])?;
        }
        step(&format!("{turn}_launch"));
        let values = play(async { Ok(stream.download(&data, &KernelContext::detached()).await?) })?;
        ensure(values == [11, 12, 13], || format!("1, 2, 3 and 10 give {values:?}"))?;
        step(&format!("{turn}_download"));
    }
    child::tell(&steps);
    Ok(())
}

/// What the first answer of a warm process takes: alone, beside a kernel that does not end, and while a killed process goes.
pub(crate) fn first(_: Bench) -> Outcome {
    let mut found = Found::new("from a warm process to its first answer, step by step");
    let nobody: fn() -> Result<Option<Silent>, Halt> = || Ok(None);
    let spins: fn() -> Result<Option<Silent>, Halt> = || spinning().map(Some);
    for (beside, start, is_killed) in
        [("alone", nobody, false), ("beside_a_kernel", spins, false), ("after_a_kill", spins, true)]
    {
        let go = std::env::temp_dir().join(format!("gpu-go-{}-{beside}", std::process::id()));
        let name = go.to_string_lossy().into_owned();
        let (process, output) = Started::start_open(&mut command(&[ACT, WARM, &name]))?;
        let mut output = BufReader::new(output);
        said::<Steps>(&mut output)?;
        let other = start()?;
        if is_killed {
            other.as_ref().map_or(Ok(()), Silent::kill)?;
        }
        std::fs::write(&go, "")?;
        let steps = said::<Steps>(&mut output);
        std::fs::remove_file(&go)?;
        process.end(LIMIT)?;
        if let Some(other) = other {
            other.kill()?;
            other.end(LIMIT)?;
        }
        let steps = steps?;
        let total: f64 = steps.iter().take(6).map(|(_, seconds)| seconds).sum();
        found = found.figure(&format!("{beside}_ms"), rounded(total * 1e3));
        let steps: Vec<_> = steps.iter().map(|(name, seconds)| (name, rounded(seconds * 1e3))).collect();
        found = found.figure(&format!("{beside}_steps_ms"), serde_json::json!(steps));
    }
    Ok(found)
}
