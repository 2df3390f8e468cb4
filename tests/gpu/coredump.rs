//! A core dump of the device, as the driver writes one when a process is told so by its environment.

use std::path::PathBuf;
use std::time::Duration;

use crate::child::{End, Started, command};
use crate::context::Raw;
use crate::figures::{pass, rounded, timed};
use crate::options::ACT;
use crate::raw::Code;
use crate::row::{Bench, Found, Halt, Outcome, ensure};

/// The act that faults and ends.
pub(crate) const FAULT: &str = "fault";
const LIMIT: Duration = Duration::from_secs(20);
const DUMPING: Duration = Duration::from_secs(5);
const KERNEL: &str = "rk_fault_illegal_address";

/// Meets the fault that is named, or a store to no memory.
pub(crate) fn fault(arguments: &[String]) -> Result<(), Halt> {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let name = arguments.first().map_or(KERNEL, String::as_str);
    let (stream, fault) = (context.stream()?, context.ready(name)?);
    context.canary()?;
    context.fault(&fault, stream)?.ok("cuLaunchKernel")?;
    let mut code = context.settle(stream)?;
    if code == Code::SUCCESS {
        // A driver that is about to write a dump ends the process when that is done.
        pass(DUMPING);
        code = context.query(stream)?;
    }
    ensure(code != Code::SUCCESS, || "the fault has not happened".to_owned())
}

/// From the start of a process to its end by a fault, without a dump and with one; and whether that names the kernel.
pub(crate) fn find(_: Bench) -> Outcome {
    let without = faulting(&[])?;
    let path = std::env::temp_dir().join(format!("gpu-core-{}", std::process::id()));
    let file = path.to_string_lossy().into_owned();
    let with = faulting(&[
        ("CUDA_ENABLE_COREDUMP_ON_EXCEPTION", "1"),
        ("CUDA_ENABLE_LIGHTWEIGHT_COREDUMP", "1"),
        ("CUDA_COREDUMP_FILE", &file),
    ])?;
    let (bytes, names) = look(&path)?;
    let text = match (bytes, names) {
        (0, _) => "no dump was written",
        (_, true) => "the dump names the kernel",
        (_, false) => "the dump does not name the kernel",
    };
    let found = Found::new(text).figure("dump_bytes", bytes);
    let found = found.figure("process_ms", rounded(without.0 * 1e3)).figure("process_end", without.1);
    Ok(found.figure("process_with_dump_ms", rounded(with.0 * 1e3)).figure("process_with_dump_end", with.1))
}

fn faulting(environment: &[(&str, &str)]) -> Result<(f64, String), Halt> {
    let mut command = command(&[ACT, FAULT]);
    command.envs(environment.iter().copied());
    let (seconds, ended) = timed(|| Started::start(&mut command)?.end(LIMIT));
    let (end, _) = ended?;
    ensure(!matches!(end, End::Limit(_)), || "the process has not ended".to_owned())?;
    Ok((seconds, format!("{end:?}")))
}

/// How long the dump is, and whether the kernel's name is in it. It is removed.
fn look(path: &PathBuf) -> Result<(usize, bool), Halt> {
    if !path.exists() {
        return Ok((0, false));
    }
    let bytes = std::fs::read(path)?;
    std::fs::remove_file(path)?;
    let names = bytes.windows(KERNEL.len()).any(|window| window == KERNEL.as_bytes());
    Ok((bytes.len(), names))
}
