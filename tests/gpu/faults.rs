//! Every way in which a kernel can break a rule, through the public API; and what breaks a rule before anything runs.

use std::ffi::c_int;

use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{ErrorKind, HealthStatus};
use rustkernel::core::traits::{Context, LocalKernel};
use rustkernel::cuda::{CudaError, Device};

use crate::context::{Context as RawContext, Raw};
use crate::device::{FAULTS, Order, Rig};
use crate::raw::Code;
use crate::row::{Bench, Found, Halt, Outcome, ensure};
use crate::scene::play;

/// The device is lost with one of `codes`, that is said from then on whoever asks, and the driver agrees.
pub(crate) fn sticky(name: &str, codes: &[c_int]) -> Outcome {
    let device = Device::open(0)?;
    device.probe()?;
    let mut rig = Rig::new(0)?;
    let cx = &mut Context::detached();
    let answer = play(async { Ok(rig.execute_local(&Order::Fault(name.to_owned()), cx).await) })?;
    let Err(error) = answer else { return Err(Halt::Fail("the kernel has given an answer".to_owned())) };
    ensure(*error.kind() == KernelErrorKind::Kernel(ErrorKind::Crashed), || {
        format!("it is no crash: {error}")
    })?;
    let Some(fault) = device.lost() else { return Err(Halt::Fail(format!("not latched: {error}"))) };
    let is_lost = |result: Result<(), CudaError>| matches!(result, Err(CudaError::Lost { .. }));
    ensure(is_lost(device.probe()), || "it is still asked something".to_owned())?;
    ensure(is_lost(device.memory().map(drop)), || "its memory is still asked for".to_owned())?;
    ensure(device.health().status == HealthStatus::Unhealthy, || "it is healthy".to_owned())?;
    let raw = Raw::open()?;
    // The context is the one that `Device` has: primary, and current on this thread.
    // A driver that says success here would have got over the fault.
    let again = raw.primary().and_then(|context| context.canary());
    let agrees = again.as_ref().err().map_or_else(|| "success".to_owned(), ToString::to_string);
    ensure(again.is_err(), || "the driver works on".to_owned())?;
    let expected = codes.iter().any(|code| fault.code.to_string() == format!("CUDA {code}"));
    ensure(expected, || format!("{} ({}), and not one of {codes:?}", fault.name, fault.code))?;
    let text = format!("{} ({}), latched; a canary by hand after it: {agrees}", fault.name, fault.code);
    Ok(Found::new(text).figure("code", fault.code.to_string()))
}

/// Errors that cost nothing: after each, the same context computes.
pub(crate) fn refused(_: Bench) -> Outcome {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let mut wrong = Vec::new();
    let mut found = Found::new("");
    let (mut count, mut report) = (0, |name: &str, code: Code, expected: &[c_int]| {
        if !expected.contains(&code.0) {
            wrong.push(format!("{name}: {code}, and not one of {expected:?}"));
        }
        found.figures.insert(name.to_owned(), code.to_string().into());
    });
    for (name, attempt, expected) in REFUSED {
        report(name, attempt(&context)?, expected);
        context.canary().map_err(|halt| Halt::Fail(format!("after {name}: {halt}")))?;
        count += 1;
    }
    ensure(wrong.is_empty(), || wrong.join("; "))?;
    found.text = format!("{count} refusals, and a right sum after each");
    Ok(found)
}

type Attempt = fn(&RawContext<'_>) -> Result<Code, Halt>;

/// What is tried, and the codes that the driver may give for it.
const REFUSED: [(&str, Attempt, &[c_int]); 5] = [
    ("too_many_threads", too_many_threads, &[1, 701]),
    ("free_of_no_address", |context| context.free(12_345), &[1]),
    ("more_than_there_is", more_than_there_is, &[2]),
    ("no_such_function", no_such_function, &[500]),
    ("newer_ptx", newer_ptx, &[222, 218]),
];

fn too_many_threads(context: &RawContext<'_>) -> Result<Code, Halt> {
    let stream = context.stream()?;
    context.launch(context.function("rk_nothing")?, [1, 4096], stream, &[])
}

fn more_than_there_is(context: &RawContext<'_>) -> Result<Code, Halt> {
    let (_, total) = context.memory()?;
    Ok(context.alloc(total + (1 << 30))?.0)
}

fn no_such_function(context: &RawContext<'_>) -> Result<Code, Halt> {
    let (code, module) = context.module(FAULTS)?;
    code.ok("cuModuleLoadDataEx")?;
    Ok(context.find(module, "rk_none")?.0)
}

fn newer_ptx(context: &RawContext<'_>) -> Result<Code, Halt> {
    let newer = FAULTS.replacen(".version ", ".version 9", 1);
    Ok(context.module(&newer)?.0)
}
