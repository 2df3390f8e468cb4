//! What the system's driver reports of a fault, through NVML, to a process that has no context.

use std::time::Duration;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;

use crate::child::{End, Started, command};
use crate::coredump::FAULT;
use crate::environment::nvml;
use crate::options::ACT;
use crate::recovery::spinning;
use crate::row::{Bench, Found, Halt, Outcome, ensure};

const LIMIT: Duration = Duration::from_secs(20);
/// How long a report may come late.
const LATE_MS: u32 = 2_000;
/// More in a row are not counted.
const MOST: usize = 16;

const FAULTS: [&str; 4] =
    ["rk_fault_illegal_address", "rk_fault_assert", "rk_fault_trap", "rk_fault_misaligned"];

/// The Xids of processes that fault, and of one that is killed while its kernel runs.
pub(crate) fn find(_: Bench) -> Outcome {
    let Some(nvml) = nvml() else { return Err(Halt::Skip("no NVML".to_owned())) };
    let device = nvml.device_by_index(0).map_err(Halt::fail)?;
    let events = nvml.create_event_set().map_err(Halt::fail)?;
    let events = device.register_events(EventTypes::CRITICAL_XID_ERROR, events);
    let events = events.map_err(|error| Halt::Skip(format!("NVML tells of no Xids: {}", error.error)))?;
    let mut found = Found::new("the last Xids that NVML tells of, in their order");
    for fault in FAULTS {
        let (end, _) = Started::start(&mut command(&[ACT, FAULT, fault]))?.end(LIMIT)?;
        ensure(!matches!(end, End::Limit(_)), || format!("{fault}: its process has not ended"))?;
        found = found.figure(fault, heard(&events)?);
    }
    let process = spinning()?;
    process.kill()?;
    let end = process.end(LIMIT)?;
    ensure(end == End::Signal(9), || format!("the process to be killed has ended with {end:?}"))?;
    Ok(found.figure("killed_with_a_kernel", heard(&events)?))
}

/// What is reported until nothing comes any more.
fn heard(events: &EventSet<'_>) -> Result<Vec<u64>, Halt> {
    let mut xids = Vec::new();
    while xids.len() < MOST {
        match events.wait(LATE_MS) {
            Ok(event) => match event.event_data {
                Some(XidError::Value(number)) => xids.push(number),
                Some(XidError::Unknown) | None => xids.push(0),
            },
            Err(NvmlError::Timeout) => break,
            Err(error) => return Err(Halt::fail(error)),
        }
    }
    Ok(xids)
}
