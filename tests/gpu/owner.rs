//! Device memory that one process owns and another one uses, and dies with.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Stdio;
use std::ptr;
use std::time::Duration;

use crate::child::{End, Started, command, told};
use crate::context::{Context, Raw};
use crate::options::ACT;
use crate::raw::Address;
use crate::row::{Bench, Found, Halt, Outcome, ensure};

/// The act that maps the memory, writes there and faults.
pub(crate) const GUEST: &str = "guest";
const LIMIT: Duration = Duration::from_secs(20);
const LEAST_BYTES: usize = 64 << 20;
const VALUE: u32 = 41;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
const FILE_DESCRIPTOR: u32 = 1;

/// `CUmemLocation`: a device and its ordinal.
#[repr(C)]
#[derive(Default)]
struct Location {
    kind: c_int,
    id: c_int,
}

/// `CUmemAllocationProp`.
#[repr(C)]
struct Property {
    kind: c_int,
    shared_as: c_uint,
    location: Location,
    windows: *const c_void,
    flags: [u8; 8],
}

/// `CUmemAccessDesc`.
#[repr(C)]
struct Access {
    location: Location,
    flags: c_int,
}

impl Property {
    /// Pinned memory of the device, which can be given away as a file descriptor.
    fn of(device: c_int) -> Self {
        const PINNED: c_int = 1;
        let location = Location { kind: DEVICE, id: device };
        Self { kind: PINNED, shared_as: FILE_DESCRIPTOR, location, windows: ptr::null(), flags: [0; 8] }
    }
}

const DEVICE: c_int = 1;

/// Owns memory, lets a guest write there that faults, and looks.
pub(crate) fn find(_: Bench) -> Outcome {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let (handle, bytes) = create(&raw)?;
    let address = mapped(&raw, handle, bytes)?;
    let stream = context.stream()?;
    // SAFETY: so many bytes are mapped there.
    unsafe { raw.driver.cuMemsetD8Async(address, 0, bytes, stream)? }.ok("cuMemsetD8Async")?;
    context.settle(stream)?.ok("cuStreamQuery")?;
    let fd = export(&raw, handle)?;
    let mut guest = command(&[ACT, GUEST, &bytes.to_string()]);
    // It is the guest's standard input: a descriptor that is inherited and has a number that is known.
    guest.stdin(Stdio::from(fd));
    let (end, said) = Started::start(&mut guest)?.end(LIMIT)?;
    ensure(end == End::Code(0), || format!("the guest has ended with {end:?}"))?;
    let fault: Option<String> = told(&said);
    let fault = fault.ok_or_else(|| Halt::Fail("the guest has told nothing".to_owned()))?;
    let (code, values) = context.read(address, 1, stream)?;
    code.ok("cuMemcpyDtoH")?;
    ensure(values == [VALUE], || format!("the owner finds {values:?}"))?;
    context.canary()?;
    let text = format!("the guest has written and met {fault}; the owner finds what it wrote, and computes");
    // SAFETY: nothing is mapped anew from it.
    let released = unsafe { raw.driver.cuMemRelease(handle)? };
    Ok(Found::new(text).figure("bytes", bytes).figure("release", released.to_string()))
}

/// What the guest does with a descriptor that is its standard input.
pub(crate) fn guest(arguments: &[String]) -> Result<(), Halt> {
    let bytes: Option<usize> = arguments.first().and_then(|bytes| bytes.parse().ok());
    let bytes = bytes.ok_or_else(|| Halt::Fail("no length".to_owned()))?;
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let mut handle = 0;
    // The driver takes the number of a descriptor in place of a pointer; 0 might look like none to it.
    let fd = std::io::stdin().as_fd().try_clone_to_owned()?;
    let number = usize::try_from(fd.as_raw_fd()).map_err(Halt::fail)?;
    let number: *mut c_void = ptr::without_provenance_mut(number);
    // SAFETY: there is room for the handle; the descriptor is open.
    unsafe { raw.driver.cuMemImportFromShareableHandle(&raw mut handle, number, FILE_DESCRIPTOR)? }
        .ok("cuMemImportFromShareableHandle")?;
    let address = mapped(&raw, handle, bytes)?;
    let fault = write_and_fault(&context, address)?;
    crate::child::tell(&fault);
    Ok(())
}

fn write_and_fault(context: &Context<'_>, address: Address) -> Result<String, Halt> {
    let (stream, fault) = (context.stream()?, context.ready("rk_fault_illegal_address")?);
    context.add(context.function("rk_add")?, stream, address, VALUE)?.ok("cuLaunchKernel")?;
    context.settle(stream)?.ok("cuStreamQuery")?;
    context.fault(&fault, stream)?.ok("cuLaunchKernel")?;
    Ok(context.settle(stream)?.to_string())
}

fn create(raw: &Raw) -> Result<(u64, usize), Halt> {
    let property = Property::of(raw.device);
    let place = ptr::from_ref(&property).cast();
    let (mut granule, mut handle) = (0, 0);
    // SAFETY: the property is laid out as the driver's; there is room for the numbers.
    unsafe {
        let least = raw.driver.cuMemGetAllocationGranularity(&raw mut granule, place, 0)?;
        least.ok("cuMemGetAllocationGranularity")?;
        let bytes = LEAST_BYTES.next_multiple_of(granule.max(1));
        raw.driver.cuMemCreate(&raw mut handle, bytes, place, 0)?.ok("cuMemCreate")?;
        Ok((handle, bytes))
    }
}

/// Where the memory is in this process.
fn mapped(raw: &Raw, handle: u64, bytes: usize) -> Result<Address, Halt> {
    const READ_WRITE: c_int = 3;
    let access = Access { location: Location { kind: DEVICE, id: raw.device }, flags: READ_WRITE };
    let mut address = 0;
    // SAFETY: there is room for the address; the access is laid out as the driver's.
    unsafe {
        let driver = &raw.driver;
        driver.cuMemAddressReserve(&raw mut address, bytes, 0, 0, 0)?.ok("cuMemAddressReserve")?;
        driver.cuMemMap(address, bytes, 0, handle, 0)?.ok("cuMemMap")?;
        driver.cuMemSetAccess(address, bytes, ptr::from_ref(&access).cast(), 1)?.ok("cuMemSetAccess")?;
    }
    Ok(address)
}

fn export(raw: &Raw, handle: u64) -> Result<OwnedFd, Halt> {
    let mut fd: RawFd = -1;
    let place: *mut c_void = ptr::from_mut(&mut fd).cast();
    // SAFETY: there is room for the number of a descriptor.
    let code = unsafe { raw.driver.cuMemExportToShareableHandle(place, handle, FILE_DESCRIPTOR, 0)? };
    code.ok("cuMemExportToShareableHandle")?;
    // SAFETY: it has just been opened for this call's maker.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
