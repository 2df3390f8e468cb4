//! CUDA: a device, what runs on it, and what it says when something is wrong.
//!
//! ```text
//! Device            one for each ordinal and process: the primary context, its latch, its poller
//!  |- Module        CUDA C, PTX or a cubin, loaded; its Functions
//!  `- Stream        one for each kernel: what it is told happens in that order
//!      `- Buffer    memory on the device, given back in the stream's order
//! ```
//!
//! A kernel makes its [`Stream`] and its [`Module`] in its factory, and in [`execute`](rustkernel_core::traits::LocalKernel) uploads,
//! launches and downloads. All of these return at once; awaiting [`Stream::download`] or [`Stream::done`] waits for the device,
//! and [`is_cancelled`](rustkernel_core::traits::Context::is_cancelled) reaches a kernel there that reads the stream's
//! [`StopFlag`].
//!
//! Nothing here needs CUDA to be built, and a machine without it is an answer, not a panic: the driver's library is opened when it is asked
//! for. Codes are numbers, and [`fault::cuda`](rustkernel_core::fault::cuda) says what each means; a code that no table knows
//! is a value like any other. The first one that loses the device is latched: nothing that comes later is believed, and nothing is
//! published without its own completion.
//!
//! # Where
//! In a [worker process](crate::worker), as the rule: the loss of the device ends that process, and a spare one takes over. In the process
//! that supervises, as an explicit choice for the lowest latency: there a loss stays until the process ends. Only the process that
//! opens a [`Device`] calls the driver; `rustkernel doctor` asks for [`report`] in a process of its own.

mod device;
mod driver;
mod error;
mod function;
mod line;
mod memory;
mod module;
mod nvml;
#[cfg(feature = "worker")]
mod pin;
mod pinned;
mod poller;
mod probe;
mod stream;
mod table;
mod watch;

use rustkernel_core::DeviceId;
use serde::Serialize;

pub use device::Device;
#[cfg(all(feature = "worker", target_os = "linux"))]
pub(crate) use device::{Loss, when_lost};
pub use error::CudaError;
pub use function::{Argument, Function, Grid};
pub use memory::Buffer;
#[cfg(all(feature = "worker", target_os = "linux"))]
pub(crate) use module::when_loaded;
pub use module::{Image, Module};
pub use nvml::nvml_driver;
pub use stream::{StopFlag, Stream};
pub use watch::{DeviceMemory, DeviceWatch, TRIP_PAUSE};
#[cfg(all(feature = "worker", target_os = "linux"))]
pub(crate) use watch::{Listener, Suspect};

/// What the driver is, and what it drives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CudaReport {
    /// The newest CUDA version that the driver speaks, for example 13.0.
    pub version: CudaVersion,
    /// Its devices, in the order of their ordinals; at least one.
    pub devices: Vec<CudaDevice>,
}

/// A version, as CUDA counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CudaVersion {
    /// The number before the point.
    pub major: u32,
    /// The number behind it.
    pub minor: u32,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CudaDevice {
    /// Its name here, for example `cuda:0`.
    pub id: DeviceId,
    /// What its maker calls it.
    pub name: String,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// Its compute capability, for example 9.0.
    pub capability: CudaVersion,
    /// Where it is on the bus, for example `00000000:3b:00.0`: the one number of it that a filter of visible devices does not change.
    pub pci: String,
}

impl std::fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Lets go of what devices have finished with since their streams were used last.
#[cfg(feature = "worker")]
pub(crate) fn tidy() {
    Device::all().iter().for_each(Device::tidy);
}

/// Asks the driver what it is and what it drives. Initialises it for this process.
///
/// # Errors
/// [`CudaError`] says what is missing.
pub fn report() -> Result<CudaReport, CudaError> {
    // Open for as long as its functions are called.
    let library = table::open()?;
    let driver = table::Basics::of(&library)?;
    driver::init(&driver)?;
    let version = driver::version(&driver)?;
    let devices = (0..driver::device_count(&driver)?).map(|ordinal| driver::device(&driver, ordinal));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    if devices.is_empty() { Err(CudaError::NoDevice) } else { Ok(CudaReport { version, devices }) }
}
