//! What waiting costs the processor, and how late it hears, with several requests under way at a time.

#![allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]

use std::thread;

use rustkernel::core::traits::Context;
use rustkernel::cuda::{Device, Function, Grid, Image};

use crate::device::FAULTS;
use crate::figures::{Sample, rounded, timed};
use crate::row::{Bench, Found, Halt, Outcome};
use crate::scene;

/// Longer than anybody looks for without sleeping.
const SPIN_NS: u64 = 2_000_000;

/// Kernels of 2 ms on 1, 8 and 64 streams, each waited for by a thread of its own.
pub(crate) fn find(bench: Bench) -> Outcome {
    let device = Device::open(0)?;
    let spin = device.load(Image::Ptx(FAULTS))?.function("rk_spin")?;
    let mut found = Found::new("kernels of 2 ms, each waited for by a thread of its own");
    for streams in [1, 8, 64] {
        let used = processor_seconds()?;
        let (wall, spans) = timed(|| waits(&device, &spin, streams, bench.times(200)));
        let used = processor_seconds()? - used;
        let sample = Sample::of(spans?);
        for (quantile, ratio) in [("p50", 0.5), ("p99", 0.99)] {
            let late = sample.at(ratio) * 1e6 - SPIN_NS as f64 / 1e3;
            found = found.figure(&format!("{streams}_streams_late_{quantile}_us"), rounded(late));
        }
        found = found.figure(&format!("{streams}_streams_processor_percent"), rounded(100.0 * used / wall));
    }
    Ok(found)
}

fn waits(device: &Device, spin: &Function, streams: usize, times: usize) -> Result<Vec<f64>, Halt> {
    let spans = thread::scope(|scope| {
        let threads: Vec<_> = (0..streams).map(|_| scope.spawn(|| wait(device, spin, times))).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|spans| spans.unwrap_or_else(|_| Err(Halt::Fail("it panics".to_owned())))).collect()
    });
    let spans: Result<Vec<Vec<f64>>, Halt> = spans;
    Ok(spans?.concat())
}

fn wait(device: &Device, spin: &Function, times: usize) -> Result<Vec<f64>, Halt> {
    let (stream, cx, tokio) = (device.stream()?, Context::detached(), scene::tokio()?);
    let (never, said) = (stream.zeros::<u32>(1)?, stream.zeros::<u32>(1)?);
    let one = || {
        let (seconds, done) = timed(|| {
            // SAFETY: as faults.cu declares it.
            unsafe { stream.launch(spin, Grid::over(1, 1), &[&never, &SPIN_NS, &said])? };
            tokio.block_on(stream.done(&cx))
        });
        done.map(|()| seconds).map_err(Halt::from)
    };
    (0..times).map(|_| one()).collect()
}

/// What this process has used of its processors, from the system's count of a hundredth of a second.
fn processor_seconds() -> Result<f64, Halt> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which may hold anything: the state, ten numbers, and the two.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok((user + system) / 100.0),
        (_, _) => Err(Halt::Fail("the system does not say what this process has used".to_owned())),
    }
}
