//! What the driver says of itself and of its devices.

use std::ffi::{c_char, c_int, c_void};

use crate::call::{self, Out};
use crate::code::{Answer, Code};
use crate::script;

/// A device of this machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Device {
    ordinal: c_int,
}

impl Device {
    pub(crate) fn at(ordinal: c_int) -> Answer<Self> {
        if (0..count()).contains(&ordinal) { Ok(Self { ordinal }) } else { Err(Code::INVALID_DEVICE) }
    }

    pub(crate) fn index(self) -> usize {
        usize::try_from(self.ordinal).unwrap_or(0)
    }

    /// Its memory, in bytes.
    pub(crate) fn memory_bytes(self) -> usize {
        script::number("oom").map_or(80 << 30, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

pub(crate) const MAX_THREADS_PER_BLOCK: u32 = 1024;
pub(crate) const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
pub(crate) const MAX_GRID: [u32; 3] = [0x7fff_ffff, 65_535, 65_535];
/// The shared memory that a block may have when it asks for it, in bytes.
pub(crate) const MAX_SHARED_BYTES: u32 = 232_448;

fn count() -> c_int {
    script::number("count").map_or(1, |count| c_int::try_from(count).unwrap_or(c_int::MAX))
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Out<c_int>) -> c_int {
    call::bare("cuDriverGetVersion", || {
        let number = script::number("version").unwrap_or(13_000);
        version.set(c_int::try_from(number).unwrap_or(c_int::MAX))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(devices: Out<c_int>) -> c_int {
    call::initialized("cuDeviceGetCount", || devices.set(count()))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: Out<c_int>, ordinal: c_int) -> c_int {
    call::initialized("cuDeviceGet", || device.set(Device::at(ordinal)?.ordinal))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, bytes: c_int, device: c_int) -> c_int {
    call::initialized("cuDeviceGetName", || {
        let text = format!("Stand-in {}\0", Device::at(device)?.ordinal);
        let len = text.len().min(usize::try_from(bytes).unwrap_or(0));
        // SAFETY: there is room for `bytes` bytes, and `len` is no more.
        unsafe { name.copy_from_nonoverlapping(text.as_ptr().cast(), len) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: c_int) -> c_int {
    call::initialized("cuDeviceGetUuid_v2", || {
        let ordinal = Device::at(device)?.ordinal;
        let mut bytes = *b"stand-in\0\0\0\0\0\0\0\0";
        bytes[12..].copy_from_slice(&ordinal.to_be_bytes());
        uuid.set(bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: c_int) -> c_int {
    call::initialized("cuDeviceTotalMem_v2", || bytes.set(Device::at(device)?.memory_bytes()))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(value: Out<c_int>, attribute: c_int, device: c_int) -> c_int {
    call::initialized("cuDeviceGetAttribute", || {
        Device::at(device)?;
        value.set(attribute_of_a_device(attribute, device))
    })
}

/// By the numbers of `CUdevice_attribute`.
fn attribute_of_a_device(attribute: c_int, device: c_int) -> c_int {
    let limit = |limit: u32| c_int::try_from(limit).unwrap_or(c_int::MAX);
    match attribute {
        1 => limit(MAX_THREADS_PER_BLOCK),
        2 => limit(MAX_BLOCK[0]),
        3 => limit(MAX_BLOCK[1]),
        4 => limit(MAX_BLOCK[2]),
        5 => limit(MAX_GRID[0]),
        6 => limit(MAX_GRID[1]),
        7 => limit(MAX_GRID[2]),
        // Shared memory that a block may have without asking for it.
        8 => 49_152,
        // The number of its bus.
        33 => device + 1,
        // Multiprocessors.
        16 => 4,
        // Compute capability.
        75 => 9,
        97 => limit(MAX_SHARED_BYTES),
        // Among these: no time limit on kernels (17), capability's minor number (76), no memory pools (115).
        _ => 0,
    }
}

/// Tables of functions that NVIDIA's own libraries look for, by numbers that nobody has published. NVRTC looks at the length of what it
/// gets, whatever is answered: a table too short to have anything in it.
#[unsafe(no_mangle)]
extern "C" fn cuGetExportTable(table: Out<*const usize>, _id: *const c_void) -> c_int {
    static EMPTY: [usize; 1] = [size_of::<usize>()];
    call::bare("cuGetExportTable", || table.set(EMPTY.as_ptr()))
}
