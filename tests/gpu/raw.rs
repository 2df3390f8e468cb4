//! The driver without anything in between: its functions by the signatures of `cuda.h`, its codes as numbers.
//!
//! A driver may lack a function that a row asks for; the row is then skipped, and says which.

#![allow(unsafe_code, reason = "the driver is a C library")]
#![allow(non_snake_case, reason = "the names are the driver's")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::fmt;

use libloading::Library;
use rustkernel::core::fault::cuda;

use crate::row::Halt;

/// An opaque handle of the driver.
pub(crate) type Handle = *mut c_void;
/// An address on the device.
pub(crate) type Address = u64;
/// What `cuLaunchHostFunc` calls.
pub(crate) type HostFunction = extern "C" fn(*mut c_void);

/// What a call has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) c_int);

impl Code {
    pub(crate) const SUCCESS: Self = Self(cuda::SUCCESS);
    pub(crate) const NOT_READY: Self = Self(cuda::NOT_READY);

    /// Ends the row as failed where it is no success.
    pub(crate) fn ok(self, function: &str) -> Result<(), Halt> {
        if self == Self::SUCCESS { Ok(()) } else { Err(Halt::Fail(format!("{function}: {self}"))) }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", cuda::classify(self.0).name, self.0)
    }
}

macro_rules! functions {
    ($($function:ident($($argument:ident: $type:ty),*);)*) => {
        /// The driver's library, open until the process ends: its own threads may still run in there.
        pub(crate) struct Driver {
            $($function: Option<unsafe extern "C" fn($($type),*) -> c_int>,)*
        }

        impl Driver {
            pub(crate) fn open() -> Result<Self, Halt> {
                // SAFETY: the library's initialisers are the driver's, which whoever installed it trusts.
                let library = unsafe { Library::new("libcuda.so.1") }.map_err(Halt::fail)?;
                let driver = Self {
                    $($function: {
                        // SAFETY: the signature is the one of `cuda.h`; the library is never closed.
                        unsafe { library.get(stringify!($function)) }.ok().map(|found| *found)
                    },)*
                };
                std::mem::forget(library);
                Ok(driver)
            }

            $(
                /// # Safety
                /// As the driver's documentation says.
                #[allow(clippy::too_many_arguments, reason = "it is the driver's signature")]
                pub(crate) unsafe fn $function(&self, $($argument: $type),*) -> Result<Code, Halt> {
                    let function = self.$function.ok_or_else(|| Halt::lacks(stringify!($function)))?;
                    // SAFETY: the caller's.
                    Ok(Code(unsafe { function($($argument),*) }))
                }
            )*
        }
    };
}

functions! {
    cuInit(flags: c_uint);
    cuDeviceGet(device: *mut c_int, ordinal: c_int);
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int);
    cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int);
    cuDevicePrimaryCtxRelease_v2(device: c_int);
    cuDevicePrimaryCtxReset_v2(device: c_int);
    cuCtxCreate_v2(context: *mut Handle, flags: c_uint, device: c_int);
    cuCtxDestroy_v2(context: Handle);
    cuCtxSetCurrent(context: Handle);
    cuCtxSynchronize();
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuMemAlloc_v2(address: *mut Address, bytes: usize);
    cuMemFree_v2(address: Address);
    cuMemAllocHost_v2(start: *mut *mut c_void, bytes: usize);
    cuMemHostRegister_v2(start: *mut c_void, bytes: usize, flags: c_uint);
    cuMemHostGetDevicePointer_v2(address: *mut Address, start: *mut c_void, flags: c_uint);
    cuMemcpyHtoDAsync_v2(to: Address, from: *const c_void, bytes: usize, stream: Handle);
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: Address, bytes: usize, stream: Handle);
    cuMemsetD8Async(to: Address, value: u8, bytes: usize, stream: Handle);
    cuModuleLoadDataEx(
        module: *mut Handle, image: *const c_void, count: c_uint, options: *const c_int,
        values: *mut *mut c_void
    );
    cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char);
    cuLaunchKernel(
        function: Handle, x: c_uint, y: c_uint, z: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: Handle, arguments: *const *const c_void, extra: *const *mut c_void
    );
    cuLaunchHostFunc(stream: Handle, function: HostFunction, data: *mut c_void);
    cuStreamCreate(stream: *mut Handle, flags: c_uint);
    cuStreamQuery(stream: Handle);
    cuStreamSynchronize(stream: Handle);
    cuStreamWriteValue32_v2(stream: Handle, address: Address, value: u32, flags: c_uint);
    cuStreamBeginCapture_v2(stream: Handle, mode: c_uint);
    cuStreamEndCapture(stream: Handle, graph: *mut Handle);
    cuGraphInstantiateWithFlags(instance: *mut Handle, graph: Handle, flags: u64);
    cuGraphLaunch(instance: Handle, stream: Handle);
    cuEventCreate(event: *mut Handle, flags: c_uint);
    cuEventRecord(event: Handle, stream: Handle);
    cuEventQuery(event: Handle);
    cuEventSynchronize(event: Handle);
    cuMemGetAllocationGranularity(bytes: *mut usize, property: *const c_void, option: c_uint);
    cuMemCreate(handle: *mut u64, bytes: usize, property: *const c_void, flags: u64);
    cuMemRelease(handle: u64);
    cuMemAddressReserve(address: *mut Address, bytes: usize, alignment: usize, near: Address, flags: u64);
    cuMemMap(address: Address, bytes: usize, offset: usize, handle: u64, flags: u64);
    cuMemSetAccess(address: Address, bytes: usize, access: *const c_void, count: usize);
    cuMemExportToShareableHandle(shared: *mut c_void, handle: u64, kind: c_uint, flags: u64);
    cuMemImportFromShareableHandle(handle: *mut u64, shared: *mut c_void, kind: c_uint);
}
