//! A stand-in for NVML, for tests alone: what it says of its devices stands in a file that a test writes on.
//!
//! Never built under the library's own name, as the [driver's stand-in](../standin/driver.rs). The file is the variable
//! `STANDIN_NVML`; each line is a statement, and of those that contradict each other the last one counts:
//!
//! | line | meaning |
//! |---|---|
//! | `xid N` | an Xid: told once to whoever waits for events |
//! | `action N` | the recovery action; 0 unless said |
//! | `ecc N` | uncorrected memory errors; 0 unless said |
//! | `throttle N` | the bits of what slows the device down; 0 unless said |
//! | `remap N` | whether a row remapping is pending; 0 unless said |
//! | `gone` | the device has fallen off its bus, until `back` |
//! | `mute` | there are no events |
//!
//! There is one device, on bus 1. What it does NOT do: anything else of NVML, whose functions are then missing, as they are in an
//! older library.

#![allow(unsafe_code, reason = "it is a C library")]
#![allow(non_snake_case, reason = "the names are NVML's")]
#![allow(missing_docs, reason = "NVML's documentation is theirs")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, ptr, thread};

type Code = c_uint;

const SUCCESS: Code = 0;
const NOT_SUPPORTED: Code = 3;
const NOT_FOUND: Code = 6;
const INSUFFICIENT_SIZE: Code = 7;
const TIMEOUT: Code = 10;
const GPU_IS_LOST: Code = 15;

const DEVICE: usize = 1;
const XID_EVENT: c_ulonglong = 8;
const RECOVERY_ACTION: c_uint = 230;
const REMAP_PENDING: c_uint = 144;
const UNSIGNED_INT: c_uint = 1;

#[derive(Debug)]
#[repr(C)]
pub struct FieldValue {
    field: c_uint,
    scope: c_uint,
    timestamp: i64,
    latency_us: i64,
    value_type: c_uint,
    code: Code,
    value: u64,
}

#[derive(Debug)]
#[repr(C)]
pub struct EventData {
    device: usize,
    event_type: c_ulonglong,
    event_data: c_ulonglong,
    instances: [c_uint; 2],
}

#[derive(Debug)]
#[repr(C)]
pub struct MemoryV2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// The lines of the file.
fn lines() -> Vec<String> {
    let text = env::var_os("STANDIN_NVML").and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

fn said(about: &str) -> u64 {
    let lines = lines();
    let mut numbers = lines.iter().rev().filter_map(|line| line.strip_prefix(about)?.trim().parse().ok());
    numbers.next().unwrap_or(0)
}

fn is_gone() -> bool {
    let lines = lines();
    let mut turns = lines.iter().rev().filter(|line| ["gone", "back"].contains(&line.as_str()));
    turns.next().is_some_and(|line| line == "gone")
}

/// Of a device that is there.
fn answer(give: impl FnOnce()) -> Code {
    if is_gone() {
        return GPU_IS_LOST;
    }
    give();
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Code {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Code {
    SUCCESS
}

/// # Safety
/// There is room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Code {
    let text = c"580.95.05".to_bytes_with_nul();
    if text.len() > length as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: there is room.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), version, text.len()) };
    SUCCESS
}

/// # Safety
/// A text that ends, and room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(place: *const c_char, device: *mut usize) -> Code {
    // SAFETY: the caller says so.
    let place = unsafe { CStr::from_ptr(place) };
    if place.to_bytes() != b"00000000:01:00.0" {
        return NOT_FOUND;
    }
    // SAFETY: the caller says so; so in all that follow.
    unsafe { device.write(DEVICE) };
    SUCCESS
}

/// # Safety
/// There is room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(_: usize, uuid: *mut c_char, length: c_uint) -> Code {
    let text = c"GPU-5ca1ab1e-0000-0000-0000-000000000000".to_bytes_with_nul();
    if text.len() > length as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: there is room.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), uuid, text.len()) };
    SUCCESS
}

/// # Safety
/// Room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut usize) -> Code {
    // SAFETY: as above.
    unsafe { set.write(1) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(_: usize) -> Code {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(_: usize, _: c_ulonglong, _: usize) -> Code {
    if lines().iter().any(|line| line == "mute") { NOT_SUPPORTED } else { SUCCESS }
}

/// # Safety
/// Room for an event.
#[unsafe(no_mangle)]
#[allow(clippy::disallowed_methods, reason = "it waits for what another process writes into a file")]
pub unsafe extern "C" fn nvmlEventSetWait_v2(_: usize, event: *mut EventData, millis: c_uint) -> Code {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    let until = Instant::now() + Duration::from_millis(u64::from(millis));
    loop {
        let xids: Vec<u64> =
            lines().iter().filter_map(|line| line.strip_prefix("xid ")?.trim().parse().ok()).collect();
        if let Some(xid) = xids.get(TOLD.load(Ordering::Relaxed)) {
            TOLD.fetch_add(1, Ordering::Relaxed);
            let data =
                EventData { device: DEVICE, event_type: XID_EVENT, event_data: *xid, instances: [0; 2] };
            // SAFETY: as above.
            unsafe { event.write(data) };
            return SUCCESS;
        }
        if Instant::now() >= until {
            return TIMEOUT;
        }
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// # Safety
/// So many values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(_: usize, count: c_int, values: *mut FieldValue) -> Code {
    let count = usize::try_from(count).unwrap_or(0);
    answer(|| {
        // SAFETY: as above.
        for value in unsafe { std::slice::from_raw_parts_mut(values, count) } {
            let about = match value.field {
                RECOVERY_ACTION => "action ",
                REMAP_PENDING => "remap ",
                _ => {
                    value.code = NOT_SUPPORTED;
                    continue;
                }
            };
            (value.code, value.value_type, value.value) = (SUCCESS, UNSIGNED_INT, said(about));
        }
    })
}

/// # Safety
/// Room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    _: usize,
    _: c_uint,
    _: c_uint,
    count: *mut c_ulonglong,
) -> Code {
    // SAFETY: as above; so below.
    answer(|| unsafe { count.write(said("ecc ")) })
}

/// # Safety
/// Room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    _: usize,
    reasons: *mut c_ulonglong,
) -> Code {
    // SAFETY: as above.
    answer(|| unsafe { reasons.write(said("throttle ")) })
}

/// # Safety
/// A place for what is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(_: usize, memory: *mut MemoryV2) -> Code {
    answer(|| {
        // SAFETY: as above.
        let memory = unsafe { &mut *memory };
        (memory.total, memory.reserved, memory.free, memory.used) = (1 << 30, 0, 1 << 29, 1 << 29);
    })
}
