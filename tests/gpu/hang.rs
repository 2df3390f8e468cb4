//! A kernel that does not end, in the process that has it.

#![allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]

use std::thread;
use std::time::Duration;

use rustkernel::core::clock::Clock;
use rustkernel::core::traits::Context;
use rustkernel::cuda::{Device, Grid, Image};
use tokio::time::timeout;

use crate::context::{Context as RawContext, Raw};
use crate::device::FAULTS;
use crate::figures::{Sample, pass, rounded, timed};
use crate::raw::Code;
use crate::row::{Bench, Found, Halt, Outcome, ensure};
use crate::scene::play;

/// Nobody waits any more, and the kernel sees that.
pub(crate) fn flag(bench: Bench) -> Outcome {
    const LIMIT_NS: u64 = 10_000_000_000;
    let device = Device::open(0)?;
    let spin = device.load(Image::Ptx(FAULTS))?.function("rk_spin")?;
    let stream = device.stream()?;
    let mut spans = Vec::new();
    for _ in 0..bench.times(20) {
        let said = stream.zeros::<u32>(1)?;
        // SAFETY: as faults.cu declares it.
        unsafe { stream.launch(&spin, Grid::over(1, 1), &[&stream.stop_flag(), &LIMIT_NS, &said])? };
        let (span, values) = play(async {
            let cx = Context::detached();
            // Given up, it raises the flag.
            let given_up = timeout(Duration::from_millis(20), stream.done(&cx)).await;
            ensure(given_up.is_err(), || "it has ended by itself".to_owned())?;
            let clock = Clock::system();
            let before = clock.now();
            let values = stream.download(&said, &cx).await?;
            Ok(((clock.now() - before).as_secs_f64(), values))
        })?;
        ensure(values == [1], || format!("it has ended with {values:?}, which is not by its flag"))?;
        spans.push(span);
    }
    device.probe()?;
    let found = Found::new("it ends by its flag, and the device computes on");
    Ok(Sample::of(spans).tell(found, "flag_to_end", "ms", 1e3))
}

/// How long the kernel runs that somebody tries to get rid of.
const SPIN: Duration = Duration::from_secs(2);

/// A reset of the primary context from another thread.
pub(crate) fn reset(_: Bench) -> Outcome {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    get_rid(&context, || raw.reset())
}

/// The destruction of a context of its own.
pub(crate) fn destroy(_: Bench) -> Outcome {
    let raw = Raw::open()?;
    let context = raw.own()?;
    get_rid(&context, || context.destroy())
}

fn get_rid(context: &RawContext<'_>, end: impl Fn() -> Result<Code, Halt> + Sync) -> Outcome {
    let (stream, never, spin) = (context.stream()?, context.word()?, context.ready("rk_spin")?);
    let nanos = u64::try_from(SPIN.as_nanos()).unwrap_or(u64::MAX);
    context.spin(&spin, stream, never.there, nanos)?.ok("cuLaunchKernel")?;
    pass(Duration::from_millis(100));
    let query = context.query(stream)?;
    ensure(query == Code::NOT_READY, || format!("it does not run: {query}"))?;
    let (span, code) = thread::scope(|scope| {
        let other = scope.spawn(|| timed(&end));
        other.join().unwrap_or_else(|_| (0.0, Err(Halt::Fail("it panics".to_owned()))))
    });
    let waits = Duration::from_secs_f64(span) + Duration::from_millis(500) > SPIN;
    let text = if waits { "it waits for the kernel" } else { "it does not wait for the kernel" };
    Ok(Found::new(text).figure("code", code?.to_string()).figure("call_ms", rounded(span * 1e3)))
}
