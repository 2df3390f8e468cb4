//! Primary contexts: one a device.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::Mutex;
use std::time::Duration;

use crate::call::{self, Out};
use crate::code::{Answer, Code};
use crate::device::Device;
use crate::{script, wait};

/// The device of the thread's current context.
pub(crate) fn current() -> Answer<Device> {
    let device = device_of(CURRENT.get()).ok_or(Code::INVALID_CONTEXT)?;
    if users(device) > 0 { Ok(device) } else { Err(Code::CONTEXT_IS_DESTROYED) }
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: Out<usize>, device: c_int) -> c_int {
    call::healthy("cuDevicePrimaryCtxRetain", || {
        let device = Device::at(device)?;
        // Whoever wants the same context meanwhile waits for it too.
        let _making = MAKING.lock().unwrap();
        if users(device) == 0 {
            let takes = Duration::from_millis(script::number("context_ms").unwrap_or(0));
            wait::poll(takes, || false);
        }
        *USERS.lock().unwrap().entry(device).or_insert(0) += 1;
        context.set(handle_of(device))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> c_int {
    call::healthy("cuDevicePrimaryCtxRelease_v2", || {
        let device = Device::at(device)?;
        let mut users = USERS.lock().unwrap();
        let users = users.get_mut(&device).filter(|users| **users > 0).ok_or(Code::INVALID_CONTEXT)?;
        *users -= 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(context: Out<usize>) -> c_int {
    call::initialized("cuCtxGetCurrent", || context.set(CURRENT.get()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: usize) -> c_int {
    call::initialized("cuCtxSetCurrent", || {
        if context != 0 {
            device_of(context).ok_or(Code::INVALID_CONTEXT)?;
        }
        CURRENT.set(context);
        Ok(())
    })
}

/// How many have retained each device's context.
static USERS: Mutex<BTreeMap<Device, u32>> = Mutex::new(BTreeMap::new());
static MAKING: Mutex<()> = Mutex::new(());

thread_local! {
    /// A handle, or 0.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

fn users(device: Device) -> u32 {
    USERS.lock().unwrap().get(&device).copied().unwrap_or(0)
}

fn handle_of(device: Device) -> usize {
    ORIGIN + STEP * device.index()
}

fn device_of(handle: usize) -> Option<Device> {
    let offset = handle.checked_sub(ORIGIN).filter(|offset| offset % STEP == 0)?;
    Device::at(c_int::try_from(offset / STEP).ok()?).ok()
}

const ORIGIN: usize = 0xc000_0000;
const STEP: usize = 16;
