//! Whether a context can be made anew in the process that has lost one.

use std::sync::Barrier;
use std::thread;

use crate::context::{Context, Raw};
use crate::figures::{rounded, timed};
use crate::raw::Code;
use crate::row::{Found, Halt, Outcome, ensure};

/// How the old one goes.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// The primary one, released as often as it was retained.
    Release,
    /// The primary one, reset while handles of it are alive.
    Reset,
    /// A context of its own, destroyed.
    Destroy,
}

/// Faults, lets the old context go, makes a new one and asks it something. Every answer is a finding.
pub(crate) fn find(way: Way, fault: &str) -> Outcome {
    let raw = Raw::open()?;
    let make = || match way {
        Way::Release | Way::Reset => raw.primary(),
        Way::Destroy => raw.own(),
    };
    let old = make()?;
    old.canary()?;
    let free = old.memory()?.0;
    let (stream, fault) = (old.stream()?, old.ready(fault)?);
    old.fault(&fault, stream)?.ok("cuLaunchKernel")?;
    let code = old.settle(stream)?;
    ensure(code != Code::SUCCESS, || "the fault has not happened".to_owned())?;
    let meet = &Barrier::new(2);
    let ((seconds, ended), elsewhere) = thread::scope(|scope| {
        let other = scope.spawn(move || {
            // The old one is current here when it goes.
            let entered = old.enter();
            meet.wait();
            meet.wait();
            entered.and_then(|_| Ok(old.alloc(1 << 20)?.0))
        });
        meet.wait();
        let ended = timed(|| end(&raw, way, old));
        meet.wait();
        (ended, other.join().unwrap_or_else(|_| Err(Halt::Fail("it panics".to_owned()))))
    });
    let found = Found::new("")
        .figure("fault", code.to_string())
        .figure("end", ended?.to_string())
        .figure("end_ms", rounded(seconds * 1e3))
        .figure("other_thread", elsewhere?.to_string());
    let (seconds, made) = timed(make);
    Ok(renewed(made, old, free, found.figure("make_ms", rounded(seconds * 1e3))))
}

fn end(raw: &Raw, way: Way, old: Context<'_>) -> Result<Code, Halt> {
    match way {
        Way::Release => raw.release(),
        Way::Reset => raw.reset(),
        Way::Destroy => old.destroy(),
    }
}

fn renewed(made: Result<Context<'_>, Halt>, old: Context<'_>, free: usize, mut found: Found) -> Found {
    let answer = made.and_then(|new| {
        new.canary()?;
        Ok((new.handle == old.handle, free.saturating_sub(new.memory()?.0)))
    });
    match answer {
        Ok((same, missing)) => {
            found.text = "a new context in the same process computes".to_owned();
            found.figure("same_handle", same).figure("missing_bytes", missing)
        }
        Err(halt) => {
            found.text = format!("the process is lost: {halt}");
            found
        }
    }
}
