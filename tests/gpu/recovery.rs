//! From a fault to the first right answer, by way of the process that dies of it.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use rustkernel::core::clock::Clock;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::error::KernelErrorKind;
use rustkernel::worker::{Domain, DomainConfig};

use crate::act::{FIRST, SPIN};
use crate::child::{End, Silent, Started, command, told};
use crate::device::Order;
use crate::environment::nvml;
use crate::figures::{Sample, pass, rounds, timed};
use crate::kernels::{Deaf, Free};
use crate::options::ACT;
use crate::row::{Bench, Found, Halt, Outcome, ensure};
use crate::scene::{self, RigRef, place, play, spare, works, works_again};

/// How long a new process may take until its first right answer.
const FIRST_LIMIT: Duration = Duration::from_secs(20);
/// How often NVML is asked whether memory is back.
const MOST_LOOKS: usize = 2_000;
/// How long a kernel that nobody stops keeps the device.
const DEAF_NS: u64 = 5_000_000_000;

/// A 700 from a kernel, and the worker that stands by takes over.
pub(crate) fn with_spare(bench: Bench) -> Outcome {
    let struck = play(async {
        let domain = scene::domain("spare", DomainConfig::cuda(0))?;
        let runtime = scene::runtime().await?;
        let kernel = scene::rig(&runtime, &domain).await?;
        let mut all = Vec::new();
        for _ in rounds(bench.times(20)) {
            works(&kernel).await?;
            let warm = spare(&domain).await;
            let struck = strike(&kernel).await?;
            let pid = struck.pid;
            ensure(pid == warm, || format!("process {pid} has answered, and {warm} stood by"))?;
            all.push(struck);
        }
        Ok(all)
    })?;
    let found = Found::new("the spare worker has given the first answer after each 700");
    Ok(tell(&struck, found))
}

/// The same without one: a new process has to make its context.
pub(crate) fn cold(bench: Bench) -> Outcome {
    let count = bench.times(10);
    let mut raw = Vec::new();
    for _ in rounds(count) {
        raw.push(first()?);
    }
    let struck = play(async {
        let domain = scene::domain("cold", DomainConfig { spare: false, ..DomainConfig::cuda(0) })?;
        let runtime = scene::runtime().await?;
        let kernel = scene::rig(&runtime, &domain).await?;
        faults(&domain, &kernel, count).await
    })?;
    let found = tell(&struck, Found::new("a new worker has given the first answer after each 700"));
    Ok(Sample::of(raw).tell(found, "raw_process_to_answer", "ms", 1e3))
}

/// The same again and again, and what the device has left of its memory then.
pub(crate) fn soak(bench: Bench) -> Outcome {
    let count = bench.times(50);
    let (struck, before, after) = play(async {
        let domain = scene::domain("soak", DomainConfig { spare: false, ..DomainConfig::cuda(0) })?;
        let runtime = scene::runtime().await?;
        let kernel = scene::rig(&runtime, &domain).await?;
        let free = place::<Free>(&runtime, &domain, "free").await?;
        works(&kernel).await?;
        let before = free.call(0, Deadline::None).await?;
        let struck = faults(&domain, &kernel, count).await?;
        let mut after = free.call(0, Deadline::None).await?;
        // The last one that was killed may still be giving back what it had.
        for _ in 0..MOST_LOOKS {
            if after >= before {
                break;
            }
            after = free.call(0, Deadline::None).await?;
        }
        Ok((struck, before, after))
    })?;
    let lost = before.saturating_sub(after);
    let deaths = struck.len();
    let found = Found::new(format!("{deaths} workers have died; {lost} bytes are missing of what was free"));
    Ok(tell(&struck, found).figure("missing_bytes", lost))
}

/// So many faults; each costs one worker.
async fn faults(domain: &Domain, kernel: &RigRef, count: usize) -> Result<Vec<Struck>, Halt> {
    let mut all = Vec::new();
    for _ in rounds(count) {
        let died = works(kernel).await?;
        let struck = strike(kernel).await?;
        let pid = struck.pid;
        ensure(pid != died, || format!("process {pid} was to die, and has answered"))?;
        all.push(struck);
    }
    let deaths = domain.status().deaths;
    let faults = all.len();
    ensure(deaths == faults as u64, || format!("{faults} faults, and {deaths} workers have died"))?;
    Ok(all)
}

/// A fault that was got over.
struct Struck {
    /// Seconds from the request that faults to the answer that it has failed, and to the next right one.
    error: f64,
    answer: f64,
    /// Whose answer that is.
    pid: u32,
}

fn tell(struck: &[Struck], found: Found) -> Found {
    let of = |part: fn(&Struck) -> f64| Sample::of(struck.iter().map(part).collect());
    let found = of(|struck| struck.answer).tell(found, "fault_to_answer", "ms", 1e3);
    let found = of(|struck| struck.error).tell(found, "fault_to_error", "ms", 1e3);
    of(|struck| struck.answer - struck.error).tell(found, "error_to_answer", "ms", 1e3)
}

/// A fault, until the next right answer.
async fn strike(kernel: &RigRef) -> Result<Struck, Halt> {
    let clock = Clock::system();
    let before = clock.now();
    let fault = Order::Fault("rk_fault_illegal_address".to_owned());
    match kernel.call(fault, Deadline::None).await {
        Ok(told) => return Err(Halt::Fail(format!("the fault has been answered: {told:?}"))),
        Err(error) => ensure(error.to_string().contains("CUDA 700"), || error.to_string())?,
    }
    let error = (clock.now() - before).as_secs_f64();
    let pid = works_again(kernel).await?;
    Ok(Struck { error, answer: (clock.now() - before).as_secs_f64(), pid })
}

/// A kernel that never looks at its flag, at its deadline.
pub(crate) fn deaf(bench: Bench) -> Outcome {
    const DEADLINE: Duration = Duration::from_millis(50);
    let kill_after = Duration::from_millis(1);
    let spans = play(async {
        let domain = scene::domain("deaf", DomainConfig { kill_after, ..DomainConfig::cuda(0) })?;
        let runtime = scene::runtime().await?;
        let (kernel, deaf) =
            (scene::rig(&runtime, &domain).await?, place::<Deaf>(&runtime, &domain, "deaf").await?);
        let clock = Clock::system();
        let mut spans = Vec::new();
        for _ in rounds(bench.times(10)) {
            works_again(&kernel).await?;
            // Its life in the new worker, too.
            while deaf.call(0, Deadline::None).await.is_err() {}
            let warm = spare(&domain).await;
            let before = clock.now();
            let answer = deaf.call(DEAF_NS, DEADLINE).await;
            let late = (clock.now() - before).saturating_sub(DEADLINE);
            let kind = answer.map_err(|error| error.kind().clone());
            ensure(kind == Err(KernelErrorKind::DeadlineExceeded), || format!("it has ended with {kind:?}"))?;
            // The worker is killed only after the deadline: who answers is the next one.
            while works_again(&kernel).await? != warm {}
            spans.push((late.as_secs_f64(), (clock.now() - before).saturating_sub(DEADLINE).as_secs_f64()));
        }
        Ok(spans)
    })?;
    let (late, next): (Vec<_>, Vec<_>) = spans.into_iter().unzip();
    let found = Found::new("the caller is answered at the deadline, and the spare worker computes");
    let found = Sample::of(late).tell(found, "answer_past_deadline", "ms", 1e3);
    Ok(Sample::of(next).tell(found, "next_answer_past_deadline", "ms", 1e3).figure("kill_after_ms", 1))
}

/// A process by hand that is killed while its kernel runs: until it is gone, and until another one has computed.
pub(crate) fn kill(bench: Bench) -> Outcome {
    let (mut gone, mut next, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let nvml = nvml();
    let used = || Some(nvml.as_ref()?.device_by_index(0).ok()?.memory_info().ok()?.used);
    for _ in rounds(bench.times(10)) {
        let idle = used();
        let process = spinning()?;
        let (span, end) = timed(|| process.kill().and_then(|()| process.end(FIRST_LIMIT)));
        ensure(end? == End::Signal(9), || "it has ended by itself".to_owned())?;
        gone.push(span);
        if let Some(idle) = idle {
            // Others may take some, meanwhile.
            let mut looks = 0..MOST_LOOKS;
            let is_back = || used().is_none_or(|now| now <= idle);
            let (span, _) = timed(|| looks.any(|_| is_back()));
            back.push(span);
        }
        next.push(first()?);
    }
    let found = Found::new("killed with a kernel on the device; a new process computes");
    let found = Sample::of(gone).tell(found, "kill_to_end", "ms", 1e3);
    let found = Sample::of(next).tell(found, "next_process_to_answer", "ms", 1e3);
    Ok(if back.is_empty() { found } else { Sample::of(back).tell(found, "end_to_memory_back", "ms", 1e3) })
}

/// A process by hand whose kernel is on the device, and stays there.
pub(crate) fn spinning() -> Result<Silent, Halt> {
    let (process, output) = Started::start_open(&mut command(&[ACT, SPIN]))?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure(told(&line) == Some(true), || "the process to be killed has not begun".to_owned())?;
    pass(Duration::from_millis(20));
    Ok(process)
}

/// From the start of a process by hand to its first right answer, in seconds.
fn first() -> Result<f64, Halt> {
    let (span, ended) = timed(|| Started::start(&mut command(&[ACT, FIRST]))?.end(FIRST_LIMIT));
    let (end, _) = ended?;
    ensure(end == End::Code(0), || format!("a new process has ended with {end:?}"))?;
    Ok(span)
}
