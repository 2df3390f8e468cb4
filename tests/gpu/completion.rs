//! How soon the processor knows that a launch is done, by each way of knowing.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use rustkernel::core::traits::Context as KernelContext;
use rustkernel::cuda::{Device, Grid, Image};

use crate::context::{Context, Raw, Word};
use crate::device::FAULTS;
use crate::figures::{Sample, rounded, timed};
use crate::rates::idle;
use crate::raw::{Code, Handle};
use crate::row::{Bench, Found, Halt, Outcome};
use crate::scene;

/// `CU_EVENT_DISABLE_TIMING`, and with it `CU_EVENT_BLOCKING_SYNC`.
const POLLED: u32 = 2;
const BLOCKING: u32 = 3;

/// What a way of waiting needs.
struct Place<'a> {
    context: Context<'a>,
    stream: Handle,
    word: Word,
    polled: Handle,
    blocking: Handle,
}

type Wait = fn(&Place<'_>, u32) -> Result<(), Halt>;

const WAYS: [(&str, Wait); 5] = [
    ("word", by_word),
    ("event_poll", by_event),
    ("event_blocking", by_blocking),
    ("stream_synchronize", by_stream),
    ("host_function", by_host_function),
];

/// One empty launch each, from before it to when it is known to be done.
pub(crate) fn find(bench: Bench) -> Outcome {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let (function, stream) = (context.function("rk_nothing")?, context.stream()?);
    let (polled, blocking) = (event(&context, POLLED)?, event(&context, BLOCKING)?);
    let place = Place { context, stream, word: context.word()?, polled, blocking };
    let (times, mut found) =
        (u32::try_from(bench.times(2_000)).unwrap_or(1), Found::new("one launch at a time"));
    for (name, wait) in WAYS {
        let mut spans = Vec::new();
        let mut round = |number: u32| {
            idle(&context, stream)?;
            let (seconds, done) = timed(|| {
                context.launch(function, [1, 1], stream, &[])?.ok("cuLaunchKernel")?;
                wait(&place, number)
            });
            done.map(|()| spans.push(seconds))
        };
        match (1..=times).try_for_each(&mut round) {
            Ok(()) => found = quantiles(found, name, spans),
            Err(Halt::Skip(reason)) => found = found.figure(name, reason),
            Err(halt) => return Err(halt),
        }
    }
    let found = quantiles(found, "supervised_done", supervised(times, 0)?);
    // Longer than a thread looks for itself: it has to be woken.
    let found = quantiles(found, "word_of_200_us", by_hand(&place, times.div_ceil(4))?);
    let slept = supervised(times.div_ceil(4), SPIN_NS)?;
    Ok(quantiles(found, "supervised_done_of_200_us", slept))
}

fn quantiles(mut found: Found, name: &str, spans: Vec<f64>) -> Found {
    let sample = Sample::of(spans);
    for (quantile, ratio) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        found = found.figure(&format!("{name}_{quantile}_us"), rounded(sample.at(ratio) * 1e6));
    }
    found
}

const SPIN_NS: u64 = 200_000;

/// A kernel of [`SPIN_NS`], waited for by a word.
fn by_hand(place: &Place<'_>, times: u32) -> Result<Vec<f64>, Halt> {
    let (never, spin) = (place.context.word()?, place.context.ready("rk_spin")?);
    let one = |number: u32| {
        let (seconds, done) = timed(|| {
            place.context.spin(&spin, place.stream, never.there, SPIN_NS)?.ok("cuLaunchKernel")?;
            by_word(place, number)
        });
        done.map(|()| seconds)
    };
    // The word still has the last number of the short ones.
    place.word.set(0);
    (1..=times).map(one).collect()
}

/// The same by `Stream::done`, for a kernel that takes `nanos`.
fn supervised(times: u32, nanos: u64) -> Result<Vec<f64>, Halt> {
    let device = Device::open(0)?;
    let spin = device.load(Image::Ptx(FAULTS))?.function("rk_spin")?;
    let (stream, cx, tokio) = (device.stream()?, KernelContext::detached(), scene::tokio()?);
    let (never, said) = (stream.zeros::<u32>(1)?, stream.zeros::<u32>(1)?);
    let one = || {
        let (seconds, done) = timed(|| {
            // SAFETY: as faults.cu declares it.
            unsafe { stream.launch(&spin, Grid::over(1, 1), &[&never, &nanos, &said])? };
            tokio.block_on(stream.done(&cx))
        });
        done.map(|()| seconds).map_err(Halt::from)
    };
    (0..times).map(|_| one()).collect()
}

fn event(context: &Context<'_>, flags: u32) -> Result<Handle, Halt> {
    let mut event = ptr::null_mut();
    // SAFETY: there is room for the handle.
    unsafe { context.driver.cuEventCreate(&raw mut event, flags)? }.ok("cuEventCreate")?;
    Ok(event)
}

fn by_word(place: &Place<'_>, number: u32) -> Result<(), Halt> {
    place.context.write(place.stream, place.word, number)?.ok("cuStreamWriteValue32")?;
    while place.word.value() != number {
        std::hint::spin_loop();
    }
    Ok(())
}

fn by_event(place: &Place<'_>, _: u32) -> Result<(), Halt> {
    let driver = place.context.driver;
    // SAFETY: the event and the stream are alive.
    unsafe {
        driver.cuEventRecord(place.polled, place.stream)?.ok("cuEventRecord")?;
        loop {
            match driver.cuEventQuery(place.polled)? {
                Code::NOT_READY => std::hint::spin_loop(),
                code => return code.ok("cuEventQuery"),
            }
        }
    }
}

fn by_blocking(place: &Place<'_>, _: u32) -> Result<(), Halt> {
    let driver = place.context.driver;
    // SAFETY: as above.
    unsafe {
        driver.cuEventRecord(place.blocking, place.stream)?.ok("cuEventRecord")?;
        driver.cuEventSynchronize(place.blocking)?.ok("cuEventSynchronize")
    }
}

fn by_stream(place: &Place<'_>, _: u32) -> Result<(), Halt> {
    place.context.synchronize(place.stream)?.ok("cuStreamSynchronize")
}

/// The last launch that a host function was called for.
static DONE: AtomicU32 = AtomicU32::new(0);

extern "C" fn done(counter: *mut c_void) {
    // SAFETY: `DONE` is what the driver was told to pass.
    unsafe { AtomicU32::from_ptr(counter.cast()) }.fetch_add(1, Ordering::Release);
}

fn by_host_function(place: &Place<'_>, number: u32) -> Result<(), Halt> {
    place.context.host(place.stream, done, &DONE)?.ok("cuLaunchHostFunc")?;
    while DONE.load(Ordering::Acquire) < number {
        std::hint::spin_loop();
    }
    Ok(())
}
