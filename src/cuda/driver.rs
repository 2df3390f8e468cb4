//! What the driver says of itself and of its devices.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::ffi::{CStr, c_int};

use rustkernel_core::DeviceId;
use rustkernel_core::fault::{FaultClass, cuda};

use super::table::Basics;
use super::{CudaDevice, CudaError, CudaVersion};

/// The PTX of this program, the probe's among it, is of version 8.0, which is CUDA 12.0's.
pub(super) const OLDEST: CudaVersion = CudaVersion { major: 12, minor: 0 };
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and the minor one.
const CAPABILITY: [c_int; 2] = [75, 76];
/// `CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID`, the bus's and the device's.
const PCI: [c_int; 3] = [50, 33, 34];
const NAME_BYTES: u16 = 256;

pub(super) fn init(driver: &Basics) -> Result<(), CudaError> {
    // SAFETY: it takes a number.
    match check("cuInit", unsafe { (driver.cuInit)(0) }) {
        Err(CudaError::Call { fault, .. }) if fault.name == NO_DEVICE => return Err(CudaError::NoDevice),
        initialised => initialised?,
    }
    let version = version(driver)?;
    if version < OLDEST {
        return Err(CudaError::OldDriver { version });
    }
    Ok(())
}

pub(super) fn version(driver: &Basics) -> Result<CudaVersion, CudaError> {
    let mut number = 0;
    // SAFETY: there is room for a number; so in all that follow.
    check("cuDriverGetVersion", unsafe { (driver.cuDriverGetVersion)(&raw mut number) })?;
    // 13000 is 13.0, 12080 is 12.8.
    let number = number.unsigned_abs();
    Ok(CudaVersion { major: number / 1000, minor: number % 1000 / 10 })
}

pub(super) fn device_count(driver: &Basics) -> Result<u16, CudaError> {
    let mut devices = 0;
    // SAFETY: as above.
    check("cuDeviceGetCount", unsafe { (driver.cuDeviceGetCount)(&raw mut devices) })?;
    Ok(u16::try_from(devices).unwrap_or(0))
}

pub(super) fn device(driver: &Basics, ordinal: u16) -> Result<CudaDevice, CudaError> {
    let mut device = 0;
    // SAFETY: as above.
    check("cuDeviceGet", unsafe { (driver.cuDeviceGet)(&raw mut device, c_int::from(ordinal)) })?;
    // One more than the driver is told, so that it ends whatever the driver does.
    let mut text = [0_u8; NAME_BYTES as usize + 1];
    // SAFETY: there is room for the bytes that it is told of.
    let named =
        unsafe { (driver.cuDeviceGetName)(text.as_mut_ptr().cast(), c_int::from(NAME_BYTES), device) };
    check("cuDeviceGetName", named)?;
    let name = CStr::from_bytes_until_nul(&text).map(|name| name.to_string_lossy().into_owned());
    let mut bytes = 0;
    // SAFETY: as above.
    check("cuDeviceTotalMem_v2", unsafe { (driver.cuDeviceTotalMem_v2)(&raw mut bytes, device) })?;
    let [major, minor] = CAPABILITY.map(|number| attribute(driver, device, number));
    let [domain, bus, slot] = PCI.map(|number| attribute(driver, device, number));
    Ok(CudaDevice {
        id: DeviceId::cuda(ordinal),
        name: name.unwrap_or_default(),
        memory_bytes: bytes as u64,
        capability: CudaVersion { major: major?.unsigned_abs(), minor: minor?.unsigned_abs() },
        pci: format!("{:08x}:{:02x}:{:02x}.0", domain?, bus?, slot?),
    })
}

/// One of `CUdevice_attribute`.
pub(super) fn attribute(driver: &Basics, device: c_int, number: c_int) -> Result<c_int, CudaError> {
    let mut value = 0;
    // SAFETY: there is room for a number.
    let code = unsafe { (driver.cuDeviceGetAttribute)(&raw mut value, number, device) };
    check("cuDeviceGetAttribute", code)?;
    Ok(value)
}

const NO_DEVICE: &str = "CUDA_ERROR_NO_DEVICE";

/// For calls that belong to no context.
fn check(function: &'static str, code: c_int) -> Result<(), CudaError> {
    let fault = cuda::classify(code);
    if fault.class == FaultClass::NotAnError { Ok(()) } else { Err(CudaError::Call { function, fault }) }
}
