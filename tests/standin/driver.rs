//! A stand-in for the CUDA driver, for tests alone: a script says what each of its functions answers.
//!
//! Never built under the driver's own name: a test puts it into a folder of its own under that name, and shows that folder to one child
//! process. The script is the variable `STANDIN_DRIVER`, as `cuInit=0,count=2,cuDeviceGetName=999`: codes by function, and the
//! number of devices. What it does not name succeeds.

#![allow(unsafe_code, reason = "it is a C library")]
#![allow(non_snake_case, reason = "the names are the driver's")]
#![allow(clippy::missing_safety_doc, missing_docs, reason = "the driver's documentation is theirs")]

use std::ffi::{c_char, c_int};

fn script(key: &str) -> Option<c_int> {
    let script = std::env::var("STANDIN_DRIVER").unwrap_or_default();
    let mut entries = script.split(',').filter_map(|entry| entry.split_once('='));
    entries.find(|(name, _)| *name == key).and_then(|(_, value)| value.parse().ok())
}

/// What the script says the function answers.
fn code(function: &str) -> c_int {
    script(function).unwrap_or(0)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: u32) -> c_int {
    code("cuInit")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: the caller gives a place for the answer; so in all that follow.
    unsafe { version.write(script("version").unwrap_or(13_000)) };
    code("cuDriverGetVersion")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: as above.
    unsafe { count.write(script("count").unwrap_or(1)) };
    code("cuDeviceGetCount")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { device.write(ordinal) };
    code("cuDeviceGet")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, bytes: c_int, device: c_int) -> c_int {
    let text = format!("Stand-in {device}\0");
    let len = text.len().min(usize::try_from(bytes).unwrap_or(0));
    // SAFETY: there is room for `bytes` bytes.
    unsafe { name.copy_from_nonoverlapping(text.as_ptr().cast(), len) };
    code("cuDeviceGetName")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { bytes.write(80 << 30) };
    code("cuDeviceTotalMem_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { value.write(if attribute == 75 { 9 } else { 0 }) };
    code("cuDeviceGetAttribute")
}
