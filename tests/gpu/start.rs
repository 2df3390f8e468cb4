//! What a start costs.

use crate::context::Raw;
use crate::device::FAULTS;
use crate::figures::{rounded, timed};
use crate::raw::Driver;
use crate::row::{Bench, Found, Halt, Outcome};

/// The steps of a start, each once: the process has to be new.
pub(crate) fn find(_: Bench) -> Outcome {
    let (library, driver) = timed(Driver::open);
    let driver = driver?;
    let (initialised, raw) = timed(|| Raw::of(driver));
    let raw = raw?;
    let (retained, context) = timed(|| raw.primary());
    let context = context?;
    let before = context.memory()?.0;
    let (loaded, module) = timed(|| context.module(FAULTS));
    let (code, module) = module?;
    code.ok("cuModuleLoadDataEx")?;
    let (code, function) = context.find(module, "rk_nothing")?;
    code.ok("cuModuleGetFunction")?;
    let stream = context.stream()?;
    let launch = || {
        let (seconds, code) = timed(|| {
            context.launch(function, [1, 1], stream, &[])?.ok("cuLaunchKernel")?;
            context.settle(stream)
        });
        code?.ok("cuStreamQuery").map(|()| seconds)
    };
    let (first, second) = (launch()?, launch()?);
    let found = Found::new("a context, a module, a launch")
        .figure("open_library_ms", ms(library))
        .figure("init_ms", ms(initialised))
        .figure("primary_context_ms", ms(retained))
        .figure("load_ptx_ms", ms(loaded))
        .figure("first_launch_us", rounded(first * 1e6))
        .figure("second_launch_us", rounded(second * 1e6));
    second_context(&raw, before, found)
}

/// How a thread waits for the device, by the flags of `cuCtxCreate`.
const WAYS: [(&str, u32); 3] = [("auto", 0), ("spin", 1), ("blocking", 4)];

/// A context of its own each, and one launch that is waited for.
fn flags(raw: &Raw, mut found: Found) -> Outcome {
    for (way, flags) in WAYS {
        let (seconds, made) = timed(|| raw.own_with(flags));
        let context = made?;
        let (nothing, stream) = (context.function("rk_nothing")?, context.stream()?);
        let launch = || {
            timed(|| {
                context.launch(nothing, [1, 1], stream, &[])?.ok("cuLaunchKernel")?;
                context.synchronize(stream)?.ok("cuStreamSynchronize")
            })
        };
        launch().1?;
        let (waited, done) = launch();
        done?;
        found = found.figure(&format!("context_{way}_ms"), ms(seconds));
        found = found.figure(&format!("synchronize_{way}_us"), rounded(waited * 1e6));
        context.destroy()?.ok("cuCtxDestroy")?;
    }
    Ok(found)
}

fn second_context(raw: &Raw, before: usize, found: Found) -> Outcome {
    let (seconds, made) = timed(|| raw.own());
    let context = match made {
        Ok(context) => context,
        Err(Halt::Skip(reason)) => {
            return Ok(Found { text: format!("{}; no second context: {reason}", found.text), ..found });
        }
        Err(halt) => return Err(halt),
    };
    let taken = before.saturating_sub(context.memory()?.0);
    flags(raw, found.figure("second_context_ms", ms(seconds)).figure("second_context_bytes", taken))
}

fn ms(seconds: f64) -> f64 {
    rounded(seconds * 1e3)
}
