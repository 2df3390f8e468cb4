//! The driver's functions that we call ourselves, by the signatures of `cuda.h`, with their codes as numbers.
//!
//! A binding that reads a code as an enum ends the process at the first code that the enum does not have, and a fault is when a newer
//! driver answers such a code. So everything that is on the way of a request is here, and cudarc makes what is made once: the
//! context and the streams.

#![allow(unsafe_code, reason = "the driver is a C library")]
#![allow(non_snake_case, reason = "the names are the driver's")]

use std::error::Error;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::Library;

use super::CudaError;

/// An opaque handle of the driver: a context, a stream, an event, a module, a function.
pub(super) type Handle = *mut c_void;
/// An address on the device.
pub(super) type Address = u64;

/// The name under which every driver installs itself on Linux.
const LIBRARY: &str = "libcuda.so.1";

pub(super) fn open() -> Result<Library, CudaError> {
    // SAFETY: the library's initialisers run. They are the driver's, which whoever installed it trusts with the kernel.
    let library = unsafe { Library::new(LIBRARY) };
    library.map_err(|error| {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        CudaError::NoDriver { reason: why }
    })
}

macro_rules! functions {
    ($(#[$doc:meta])* $table:ident { $($function:ident: ($($argument:ty),*);)* }) => {
        $(#[$doc])*
        pub(super) struct $table {
            $(pub(super) $function: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl $table {
            pub(super) fn of(library: &Library) -> Result<Self, CudaError> {
                // Called only while the library is open: that is its holder's to see to.
                Ok(Self { $($function: {
                    let function = stringify!($function);
                    // SAFETY: the signature is the one of `cuda.h`, which NVIDIA does not change under a name.
                    let found = unsafe { library.get(function) };
                    *found.map_err(|_| CudaError::NoFunction { function })?
                },)* })
            }
        }
    };
}

functions! {
    /// What every driver has.
    Basics {
        cuInit: (c_uint);
        cuDriverGetVersion: (*mut c_int);
        cuDeviceGetCount: (*mut c_int);
        cuDeviceGet: (*mut c_int, c_int);
        cuDeviceGetName: (*mut c_char, c_int, c_int);
        cuDeviceTotalMem_v2: (*mut usize, c_int);
        cuDeviceGetAttribute: (*mut c_int, c_int, c_int);
    }
}

functions! {
    /// What is called while kernels run.
    #[cfg_attr(not(feature = "worker"), expect(dead_code, reason = "memory is shared with workers alone"))]
    Calls {
        cuCtxSetCurrent: (Handle);
        cuMemAlloc_v2: (*mut Address, usize);
        cuMemFree_v2: (Address);
        cuMemAllocHost_v2: (*mut *mut c_void, usize);
        cuMemFreeHost: (*mut c_void);
        cuMemHostRegister_v2: (*mut c_void, usize, c_uint);
        cuMemHostGetDevicePointer_v2: (*mut Address, *mut c_void, c_uint);
        cuMemcpyHtoDAsync_v2: (Address, *const c_void, usize, Handle);
        cuMemcpyDtoHAsync_v2: (*mut c_void, Address, usize, Handle);
        cuMemsetD8Async: (Address, u8, usize, Handle);
        cuMemGetInfo_v2: (*mut usize, *mut usize);
        cuModuleLoadDataEx: (*mut Handle, *const c_void, c_uint, *const c_int, *mut *mut c_void);
        cuModuleGetFunction: (*mut Handle, Handle, *const c_char);
        cuFuncGetAttribute: (*mut c_int, c_int, Handle);
        cuFuncSetAttribute: (Handle, c_int, c_int);
        cuLaunchKernel: (
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *const *const c_void,
            *const *mut c_void
        );
        cuStreamQuery: (Handle);
        cuStreamWaitEvent: (Handle, Handle, c_uint);
        cuStreamWriteValue32_v2: (Handle, Address, u32, c_uint);
        cuEventCreate: (*mut Handle, c_uint);
        cuEventRecord: (Handle, Handle);
        cuEventDestroy_v2: (Handle);
    }
}

/// The driver's functions, for as long as the process lives: its library is never closed again.
pub(super) struct Table {
    pub(super) basics: Basics,
    pub(super) calls: Calls,
    _library: Library,
}

/// The driver, opened once. A driver that was not there may be there the next time.
pub(super) fn table() -> Result<&'static Table, CudaError> {
    static TABLE: OnceLock<Table> = OnceLock::new();
    if let Some(table) = TABLE.get() {
        return Ok(table);
    }
    let library = open()?;
    let table = Table { basics: Basics::of(&library)?, calls: Calls::of(&library)?, _library: library };
    Ok(TABLE.get_or_init(|| table))
}
