//! The driver's functions, by the signatures of `cuda.h`, with their codes as numbers.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::error::Error;
use std::ffi::{CStr, c_char, c_int};

use libloading::Library;
use rustkernel_core::DeviceId;
use rustkernel_core::fault::{FaultClass, cuda};

use super::{CudaDevice, CudaError, CudaVersion};

/// The driver's library, open.
pub(super) struct Driver(Library);

/// The name under which every driver installs itself on Linux.
const LIBRARY: &str = "libcuda.so.1";
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and the minor one.
const CAPABILITY: [c_int; 2] = [75, 76];
const NAME_BYTES: u16 = 256;

impl Driver {
    pub(super) fn open() -> Result<Self, CudaError> {
        // SAFETY: the library's initialisers run. They are the driver's, which whoever installed it trusts with the kernel.
        let library = unsafe { Library::new(LIBRARY) };
        library.map(Self).map_err(|error| {
            let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            CudaError::NoDriver { reason: why }
        })
    }

    pub(super) fn init(&self) -> Result<(), CudaError> {
        let init = self.function::<extern "C" fn(u32) -> c_int>("cuInit")?;
        match check("cuInit", init(0)) {
            Err(CudaError::Call { fault, .. }) if fault.name == NO_DEVICE => Err(CudaError::NoDevice),
            initialised => initialised,
        }
    }

    pub(super) fn version(&self) -> Result<CudaVersion, CudaError> {
        let version = self.function::<extern "C" fn(*mut c_int) -> c_int>("cuDriverGetVersion")?;
        let mut number = 0;
        check("cuDriverGetVersion", version(&raw mut number))?;
        // 13000 is 13.0, 12080 is 12.8.
        let number = number.unsigned_abs();
        Ok(CudaVersion { major: number / 1000, minor: number % 1000 / 10 })
    }

    pub(super) fn device_count(&self) -> Result<u16, CudaError> {
        let count = self.function::<extern "C" fn(*mut c_int) -> c_int>("cuDeviceGetCount")?;
        let mut devices = 0;
        check("cuDeviceGetCount", count(&raw mut devices))?;
        Ok(u16::try_from(devices).unwrap_or(0))
    }

    pub(super) fn device(&self, ordinal: u16) -> Result<CudaDevice, CudaError> {
        let get = self.function::<extern "C" fn(*mut c_int, c_int) -> c_int>("cuDeviceGet")?;
        let name = self.function::<extern "C" fn(*mut c_char, c_int, c_int) -> c_int>("cuDeviceGetName")?;
        let memory = self.function::<extern "C" fn(*mut usize, c_int) -> c_int>("cuDeviceTotalMem_v2")?;
        let attribute =
            self.function::<extern "C" fn(*mut c_int, c_int, c_int) -> c_int>("cuDeviceGetAttribute")?;
        let mut device = 0;
        check("cuDeviceGet", get(&raw mut device, c_int::from(ordinal)))?;
        // One more than the driver is told, so that it ends whatever the driver does.
        let mut text = [0_u8; NAME_BYTES as usize + 1];
        check("cuDeviceGetName", name(text.as_mut_ptr().cast(), NAME_BYTES.into(), device))?;
        let name = CStr::from_bytes_until_nul(&text).map(|name| name.to_string_lossy().into_owned());
        let mut bytes = 0;
        check("cuDeviceTotalMem_v2", memory(&raw mut bytes, device))?;
        let mut capability = [0; 2];
        for (value, number) in capability.iter_mut().zip(CAPABILITY) {
            check("cuDeviceGetAttribute", attribute(&raw mut *value, number, device))?;
        }
        let [major, minor] = capability.map(c_int::unsigned_abs);
        Ok(CudaDevice {
            id: DeviceId::cuda(ordinal),
            name: name.unwrap_or_default(),
            memory_bytes: bytes as u64,
            capability: CudaVersion { major, minor },
        })
    }

    /// A function of the driver. `F` has to be its signature.
    fn function<F: Copy>(&self, function: &'static str) -> Result<F, CudaError> {
        // SAFETY: the signatures above are those of `cuda.h`, which NVIDIA does not change under a name. The function is called
        // while `self` keeps its library open.
        let found = unsafe { self.0.get::<F>(function) };
        found.map(|found| *found).map_err(|_| CudaError::NoFunction { function })
    }
}

const NO_DEVICE: &str = "CUDA_ERROR_NO_DEVICE";

fn check(function: &'static str, code: c_int) -> Result<(), CudaError> {
    let fault = cuda::classify(code);
    if fault.class == FaultClass::NotAnError { Ok(()) } else { Err(CudaError::Call { function, fault }) }
}
