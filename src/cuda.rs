//! CUDA, as far as it goes yet: what the driver says of itself and of its devices.
//!
//! Nothing here needs CUDA to be built, and a machine without it is an answer, not a panic: the driver's library is opened when it is asked
//! for. Its calls give their codes as numbers, and [`fault::cuda`](rustkernel_core::fault::cuda) says what each means; a code that
//! no table knows is a value like any other.
//!
//! A process that supervises kernels makes no CUDA call but these, and makes them in a process of their own (`rustkernel doctor`): what the
//! driver does to its caller is the caller's end at worst.

mod driver;

use rustkernel_core::DeviceId;
use rustkernel_core::fault::Fault;
use serde::Serialize;

use driver::Driver;

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
}

/// Why there is no [`CudaReport`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The driver's library is not there, or cannot be opened.
    #[error("no CUDA driver: {reason}")]
    NoDriver {
        /// What the system says.
        reason: String,
    },
    /// The library lacks a function that every driver has.
    #[error("the CUDA driver has no `{function}`: it is older than CUDA 11, or no CUDA driver")]
    NoFunction {
        /// Which one.
        function: &'static str,
    },
    /// The driver is there, and drives nothing.
    #[error("no CUDA device: the driver finds none")]
    NoDevice,
    /// A call failed.
    #[error("{function} failed with {} ({})", fault.name, fault.code)]
    Call {
        /// Which one.
        function: &'static str,
        /// Its code, classified.
        fault: Fault,
    },
}

impl CudaError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NoDriver { .. } => {
                "install NVIDIA's driver, or in a container its runtime; without a GPU nothing is missing"
            }
            Self::NoFunction { .. } => "install a driver of CUDA 11 or newer",
            Self::NoDevice => {
                "look whether the GPU is visible: nvidia-smi, CUDA_VISIBLE_DEVICES, the container's devices"
            }
            Self::Call { fault, .. } => fault.class.advice(),
        }
    }
}

impl std::fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Asks the driver what it is and what it drives. Initialises it for this process.
///
/// # Errors
/// [`CudaError`] says what is missing.
pub fn report() -> Result<CudaReport, CudaError> {
    let driver = Driver::open()?;
    driver.init()?;
    let version = driver.version()?;
    let devices = (0..driver.device_count()?).map(|ordinal| driver.device(ordinal));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    if devices.is_empty() { Err(CudaError::NoDevice) } else { Ok(CudaReport { version, devices }) }
}
