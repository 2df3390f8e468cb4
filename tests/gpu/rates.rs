//! What the driver gives by itself: launches a second, a graph of launches, and how many launches fit into a stream.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::ptr;

use rustkernel::core::clock::Clock;

use crate::context::{Context, Raw};
use crate::figures::{Sample, rounded, timed};
use crate::raw::{Code, Handle};
use crate::row::{Bench, Found, Halt, Outcome, ensure};

/// Empty launches over one to eight streams, in turns, waited for at the end.
pub(crate) fn streams(bench: Bench) -> Outcome {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let nothing = context.function("rk_nothing")?;
    let launches = if bench.quick || bench.is_standin { 5_000 } else { 100_000 };
    let mut found = Found::new(format!("{launches} empty launches by hand, and until they are done"));
    for count in [1, 2, 4, 8] {
        let streams = (0..count).map(|_| context.stream()).collect::<Result<Vec<_>, _>>()?;
        let mut rates = Vec::new();
        for _ in 0..bench.times(10).max(2) {
            let (seconds, done) = timed(|| launch_all(&context, nothing, &streams, launches));
            done?;
            rates.push(f64::from(launches) / seconds);
        }
        found = found.figure(&format!("launches_per_s_{count}_streams"), rounded(Sample::of(rates).median()));
    }
    Ok(found)
}

fn launch_all(
    context: &Context<'_>,
    function: Handle,
    streams: &[Handle],
    launches: u32,
) -> Result<(), Halt> {
    let turns = streams.iter().cycle().zip(0..launches);
    for (stream, _) in turns {
        context.launch(function, [1, 1], *stream, &[])?.ok("cuLaunchKernel")?;
    }
    streams.iter().try_for_each(|stream| context.settle(*stream)?.ok("cuStreamQuery"))
}

/// A graph of a hundred empty launches, again and again.
pub(crate) fn graph(bench: Bench) -> Outcome {
    const NODES: u32 = 100;
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let (nothing, stream) = (context.function("rk_nothing")?, context.stream()?);
    let instance = captured(&context, stream, || {
        (0..NODES).try_for_each(|_| context.launch(nothing, [1, 1], stream, &[])?.ok("cuLaunchKernel"))
    })?;
    let replays = u32::try_from(bench.times(1_000)).unwrap_or(1);
    let mut spans = Vec::new();
    for _ in 0..bench.times(10).max(2) {
        let (seconds, done) = timed(|| {
            for _ in 0..replays {
                // SAFETY: the graph was made for this context, and is never destroyed.
                unsafe { raw.driver.cuGraphLaunch(instance, stream)? }.ok("cuGraphLaunch")?;
            }
            context.settle(stream)?.ok("cuStreamQuery")
        });
        done?;
        spans.push(seconds / f64::from(replays * NODES));
    }
    let found = Found::new(format!("{replays} replays of a graph of {NODES} empty launches"));
    Ok(Sample::of(spans).tell(found, "node", "us", 1e6))
}

fn captured(
    context: &Context<'_>,
    stream: Handle,
    launches: impl FnOnce() -> Result<(), Halt>,
) -> Result<Handle, Halt> {
    const THREAD_LOCAL: u32 = 1;
    let driver = context.driver;
    let (mut graph, mut instance) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the stream is alive; there is room for the handles.
    unsafe {
        driver.cuStreamBeginCapture_v2(stream, THREAD_LOCAL)?.ok("cuStreamBeginCapture")?;
        launches()?;
        driver.cuStreamEndCapture(stream, &raw mut graph)?.ok("cuStreamEndCapture")?;
        driver.cuGraphInstantiateWithFlags(&raw mut instance, graph, 0)?.ok("cuGraphInstantiate")?;
    }
    Ok(instance)
}

/// How many launches a stream takes behind a kernel that runs, until the next one waits.
pub(crate) fn depth(_: Bench) -> Outcome {
    const SPIN_NS: u64 = 2_000_000_000;
    const MOST: u32 = 20_000;
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let (stream, stop) = (context.stream()?, context.word()?);
    let (nothing, spin) = (context.function("rk_nothing")?, context.ready("rk_spin")?);
    context.spin(&spin, stream, stop.there, SPIN_NS)?.ok("cuLaunchKernel")?;
    let clock = Clock::system();
    let mut launched = 0;
    let slowest = loop {
        let before = clock.now();
        context.launch(nothing, [1, 1], stream, &[])?.ok("cuLaunchKernel")?;
        let took = (clock.now() - before).as_secs_f64();
        if took > 0.1 || launched == MOST {
            break took;
        }
        launched += 1;
    };
    stop.set(1);
    context.settle(stream)?.ok("cuStreamQuery")?;
    // 256 are what a `Stream` has under way at most.
    ensure(launched > 256, || format!("only {launched} fit"))?;
    let waits = if launched == MOST { "none of them has waited" } else { "the next one waits" };
    let text = format!("{launched} launches behind a kernel that runs; {waits}");
    Ok(Found::new(text).figure("launches", launched).figure("last_launch_ms", rounded(slowest * 1e3)))
}

/// A stream that has nothing to do says so.
pub(crate) fn idle(context: &Context<'_>, stream: Handle) -> Result<(), Halt> {
    ensure(context.settle(stream)? == Code::SUCCESS, || "the stream is not well".to_owned())
}
