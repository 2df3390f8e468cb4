//! What a fault does to what runs beside it: in the same context, and in others of the same process.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::context::{Context, Raw};
use crate::figures::{pass, rounded, timed};
use crate::raw::{Code, Handle};
use crate::row::{Bench, Found, Halt, Outcome, ensure};

/// How long the good kernel in the other stream runs.
const SPIN_NS: u64 = 300_000_000;
/// How long a host function may come late.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often each stream's host function was called.
static CALLED: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

extern "C" fn count(counter: *mut c_void) {
    // SAFETY: `CALLED` is what the driver was told to pass.
    unsafe { AtomicU32::from_ptr(counter.cast()) }.fetch_add(1, Ordering::SeqCst);
}

/// Streams A, which faults, and B, which computes.
pub(crate) fn streams(_: Bench) -> Outcome {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let (a, b, never) = (context.stream()?, context.stream()?, context.word()?);
    let kept = context.zeros(1, b)?;
    context.settle(b)?.ok("cuStreamQuery")?;
    let (add, spin, fault) =
        (context.function("rk_add")?, context.ready("rk_spin")?, context.ready("rk_fault_illegal_address")?);
    context.spin(&spin, b, never.there, SPIN_NS)?.ok("cuLaunchKernel")?;
    context.add(add, b, kept, 7)?.ok("cuLaunchKernel")?;
    let launched = context.fault(&fault, a)?;
    let asked =
        [(a, &CALLED[0]), (b, &CALLED[1])].map(|(stream, called)| context.host(stream, count, called));
    let (seconds, first) = timed(|| context.settle(a));
    let first = first?;
    let mut found = Found::new("")
        .figure("launch", launched.to_string())
        .figure("fault_to_error_ms", rounded(seconds * 1e3));
    let after = after(&context, [a, b])?;
    for (name, code) in &after {
        found = found.figure(name, code.to_string());
    }
    let (code, values) = context.read(kept, 1, b)?;
    found = found.figure("copy_of_b", code.to_string()).figure("copied_of_b", values);
    pass(PATIENCE);
    let called = [&CALLED[0], &CALLED[1]].map(|called| called.load(Ordering::SeqCst));
    let hosts = match &asked {
        [Err(halt), _] | [_, Err(halt)] => format!("host functions were not asked for: {halt}"),
        [Ok(on_a), Ok(on_b)] => format!("host functions queued ({on_a}, {on_b}) and called {called:?} times"),
    };
    ensure(first == Code(700), || format!("the first answer is {first}"))?;
    ensure(called[0] == 0, || format!("a fault does not hold up what waits for it: {hosts}"))?;
    let well: Vec<_> =
        after.iter().filter(|(_, code)| *code == Code::SUCCESS).map(|(name, _)| *name).collect();
    found.text = format!("{first}; afterwards, calls that succeed: {well:?}; {hosts}");
    Ok(found)
}

/// What each call answers when the context has faulted.
fn after(context: &Context<'_>, [a, b]: [Handle; 2]) -> Result<Vec<(&'static str, Code)>, Halt> {
    let mut event = ptr::null_mut();
    // SAFETY: there is room for the handle; handles that are none are the driver's to refuse.
    let (made, synchronized) = unsafe {
        let driver = context.driver;
        (driver.cuEventCreate(&raw mut event, 0)?, driver.cuCtxSynchronize()?)
    };
    Ok(vec![
        ("query_a", context.query(a)?),
        ("query_b", context.query(b)?),
        ("synchronize_a", context.synchronize(a)?),
        ("synchronize_b", context.synchronize(b)?),
        ("synchronize_context", synchronized),
        ("alloc", context.alloc(1 << 20)?.0),
        ("free_of_nothing", context.free(0)?),
        ("event_create", made),
    ])
}

/// Contexts X, which faults, Y beside it, and the primary one.
pub(crate) fn contexts(_: Bench) -> Outcome {
    let raw = Raw::open()?;
    let (primary, y, x) = (raw.primary()?, raw.own()?, raw.own()?);
    for (name, context) in [("the primary", &primary), ("Y", &y), ("X", &x)] {
        context.enter()?.ok("cuCtxSetCurrent")?;
        context.canary().map_err(|halt| Halt::Fail(format!("{name}, before the fault: {halt}")))?;
    }
    let (stream, fault) = (x.stream()?, x.ready("rk_fault_illegal_address")?);
    x.fault(&fault, stream)?.ok("cuLaunchKernel")?;
    let faulted = x.settle(stream)?;
    ensure(faulted == Code(700), || format!("X answers {faulted}"))?;
    let outlives = |context: &Context<'_>| {
        let entered = context.enter()?;
        Ok::<_, Halt>(match (entered, context.canary()) {
            (Code::SUCCESS, Ok(())) => "computes".to_owned(),
            (Code::SUCCESS, Err(halt)) => format!("does not: {halt}"),
            (code, Ok(()) | Err(_)) => format!("cannot be entered: {code}"),
        })
    };
    let (beside, primary) = (outlives(&y)?, outlives(&primary)?);
    Ok(Found::new(format!("after 700 in X: Y {beside}; the primary one {primary}")))
}
