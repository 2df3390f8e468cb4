//! Why CUDA has not done what it was asked for.

use rustkernel_core::DeviceId;
use rustkernel_core::error::KernelError;
use rustkernel_core::fault::{Fault, FaultClass};
use rustkernel_core::resilience::ErrorKind;

use super::CudaVersion;
use super::driver::OLDEST;

/// Why CUDA has not done what it was asked for. [`advice`](Self::advice) says what to do about it. As a [`KernelError`] it
/// is of the kind that follows from its fault's class.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The driver's library is not there, or cannot be opened.
    #[error("no CUDA driver: {reason}")]
    NoDriver {
        /// What the system says.
        reason: String,
    },
    /// The library lacks a function that every driver has.
    #[error("the CUDA driver has no `{function}`: it is older than CUDA 12, or no CUDA driver")]
    NoFunction {
        /// Which one.
        function: &'static str,
    },
    /// The driver is older than what is compiled into this program.
    #[error("the CUDA driver is of CUDA {version}, and has to be of {OLDEST} or newer")]
    OldDriver {
        /// Its version.
        version: CudaVersion,
    },
    /// The driver is there, and drives nothing.
    #[error("no CUDA device: the driver finds none")]
    NoDevice,
    /// There are devices, and not this one.
    #[error("no CUDA device {device}: there are {count}")]
    NoSuchDevice {
        /// Which one.
        device: DeviceId,
        /// How many there are.
        count: u16,
    },
    /// A call failed.
    #[error("{function} failed with {} ({})", fault.name, fault.code)]
    Call {
        /// Which one.
        function: &'static str,
        /// Its code, classified.
        fault: Fault,
    },
    /// The device is lost to this process, since a fault that no call can undo.
    #[error("{device} is lost to this process since {} ({})", fault.name, fault.code)]
    Lost {
        /// Which one.
        device: DeviceId,
        /// The fault that lost it.
        fault: Fault,
    },
    /// The compiler is not there, or cannot be opened.
    #[error("no CUDA compiler: the library of NVRTC 13 cannot be opened")]
    NoCompiler,
    /// The compiler refused the source.
    #[error("the CUDA source does not compile:\n{log}")]
    Compile {
        /// What the compiler says, with the first line that it names.
        log: String,
    },
    /// The driver refused an image.
    #[error("the image cannot be loaded: {} ({}){log}", fault.name, fault.code)]
    Image {
        /// Its code, classified.
        fault: Fault,
        /// What the driver's own compiler says; may be empty.
        log: String,
    },
    /// A text that the driver is given has a zero byte in it.
    #[error("`{text}` has a zero byte in it")]
    ZeroByte {
        /// Its beginning.
        text: String,
    },
    /// A launch that the device cannot make. Nothing was launched.
    #[error("`{function}` cannot be launched: {rule}")]
    Shape {
        /// Which function.
        function: String,
        /// What it breaks.
        rule: String,
    },
    /// A buffer is shorter than what is copied, or longer than an address space.
    #[error("{wanted} elements do not fit a buffer of {there}")]
    Length {
        /// Elements that were asked for.
        wanted: usize,
        /// Elements that there are.
        there: usize,
    },
    /// A buffer lies on the device as another process has it.
    #[error("the buffer lies with a worker process: only kernels of the same domain can use it")]
    Elsewhere,
    /// The device has answered a question whose answer is known, and not with that.
    #[error("{device} computes wrongly: its probe has given another answer than it must")]
    WrongAnswer {
        /// Which one.
        device: DeviceId,
    },
}

impl CudaError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NoDriver { .. } => "install NVIDIA's driver, or in a container its runtime",
            Self::NoFunction { .. } | Self::OldDriver { .. } => "install a driver of CUDA 12 or newer",
            Self::NoDevice | Self::NoSuchDevice { .. } => {
                "look whether the GPU is visible: nvidia-smi, CUDA_VISIBLE_DEVICES, the container's devices"
            }
            Self::Call { fault, .. } | Self::Lost { fault, .. } | Self::Image { fault, .. } => {
                fault.class.advice()
            }
            Self::NoCompiler => {
                "install NVRTC 13.0 (libnvrtc.so.13), or give PTX or a cubin in place of source"
            }
            Self::Compile { .. } => "correct the source",
            Self::ZeroByte { .. } => "take the zero byte out",
            Self::Shape { .. } => {
                "launch fewer threads or with less shared memory; give long work more blocks"
            }
            Self::Length { .. } => "make the buffer as long as what is copied",
            Self::Elsewhere => "put the kernels that hand it on into one domain",
            Self::WrongAnswer { .. } => "use another device, and have this one tested",
        }
    }

    /// The fault behind it, where a call was made.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Call { fault, .. } | Self::Lost { fault, .. } | Self::Image { fault, .. } => Some(*fault),
            Self::NoDriver { .. }
            | Self::NoFunction { .. }
            | Self::OldDriver { .. }
            | Self::NoDevice
            | Self::NoSuchDevice { .. }
            | Self::NoCompiler
            | Self::Compile { .. }
            | Self::ZeroByte { .. }
            | Self::Shape { .. }
            | Self::Length { .. }
            | Self::Elsewhere
            | Self::WrongAnswer { .. } => None,
        }
    }

    /// Whether the same thing, tried again in a new process, fails again until somebody has changed something.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Call { fault, .. } | Self::Lost { fault, .. } => fault.class.alerts_operator(),
            Self::NoDriver { .. }
            | Self::NoFunction { .. }
            | Self::OldDriver { .. }
            | Self::NoDevice
            | Self::NoSuchDevice { .. }
            | Self::NoCompiler
            | Self::Compile { .. }
            | Self::Image { .. }
            | Self::ZeroByte { .. }
            | Self::Shape { .. }
            | Self::Length { .. }
            | Self::Elsewhere
            | Self::WrongAnswer { .. } => true,
        }
    }
}

impl From<CudaError> for KernelError {
    fn from(error: CudaError) -> Self {
        let is_exhaustion =
            |fault: &Fault| matches!(fault.class, FaultClass::Resource | FaultClass::MpsConnection);
        let kind = match &error {
            CudaError::Lost { .. } => ErrorKind::Crashed,
            CudaError::Call { fault, .. } if is_exhaustion(fault) => ErrorKind::Exhausted,
            CudaError::Call { .. }
            | CudaError::NoDriver { .. }
            | CudaError::NoFunction { .. }
            | CudaError::OldDriver { .. }
            | CudaError::NoDevice
            | CudaError::NoSuchDevice { .. }
            | CudaError::NoCompiler
            | CudaError::Compile { .. }
            | CudaError::Image { .. }
            | CudaError::ZeroByte { .. }
            | CudaError::Shape { .. }
            | CudaError::Length { .. }
            | CudaError::Elsewhere
            | CudaError::WrongAnswer { .. } => ErrorKind::Permanent,
        };
        Self::kernel(kind, Advised(error))
    }
}

/// An error with what to do about it: whoever reads it in a kernel's answer has nobody else to ask.
#[derive(Debug, thiserror::Error)]
#[error("{0}; {advice}", advice = .0.advice())]
struct Advised(CudaError);
