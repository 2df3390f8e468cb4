//! The classes of faults, and what follows from each.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::RestartDepth;

/// What sort of fault it is. Everything that the runtime does about a fault follows from its class.
///
/// Whether a CUDA fault is said to end the context or the process is the statement of the CUDA driver API header (`cuda.h`) at the
/// code in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultClass {
    /// Success, or a state that a call reports in place of success. It does NOT say that the work is done: `CUDA_ERROR_NOT_READY` is
    /// one of them.
    NotAnError,
    /// The call's arguments, its order, or something this device cannot do. The same call fails again. A burst of them right after a
    /// context was made anew comes from handles of the old one: make the module anew.
    Caller,
    /// Memory, connections, or time for a wait are used up for now. Nothing was broken.
    Resource,
    /// The code of a kernel cannot be loaded or linked here.
    Image,
    /// A capture, a graph or a detached stream is no longer usable.
    Capture,
    /// A kernel broke a rule of the device. The error is sticky and, by `cuda.h`, the process is lost.
    KernelException,
    /// An `assert` in a kernel failed. The error is sticky; the one exception for which `cuda.h` speaks of the context only.
    Assert,
    /// A kernel ran past the limit of a device that also drives a display. The process is lost.
    Watchdog,
    /// An error that the hardware kept to the process that met it. The process is lost, others go on.
    Contained,
    /// The device found damaged data, in memory or on a link, and could not correct it. The header is silent on what is left; treated
    /// as lost, and the device's recovery action tells about the rest.
    HardwareMemory,
    /// A link between devices failed.
    Link,
    /// Something outside of the GPU, which work waited for, reported an error.
    ExternalDevice,
    /// The MPS server cannot be reached, or did not answer.
    MpsConnection,
    /// The MPS server has ended this client, because of a fault that may be another client's.
    MpsTerminated,
    /// The context was destroyed, or the driver is unloading.
    ContextGone,
    /// The device, or its driver, is of no use until an operator has dealt with it.
    DeviceLost,
    /// A worker reported that its fault domain is lost.
    DomainLost,
    /// A worker process ended by its own fault.
    Crash,
    /// A worker process was ended from outside: the system's out-of-memory killer, a limit, an operator.
    Killed,
    /// A worker process refused its configuration, or could not even be started.
    Configuration,
    /// Nobody knows what it means. Fatal to the domain.
    Unknown,
}

/// Whom a fault counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultScope {
    /// Nobody: a state, or pressure that passes.
    Nobody,
    /// Who made the call.
    Caller,
    /// The kernel whose code or graph it was.
    Kernel,
    /// The fault domain: the context, or the worker process.
    Domain,
    /// The device.
    Device,
}

impl FaultClass {
    /// Where a cure begins.
    #[must_use]
    pub const fn depth(self) -> RestartDepth {
        match self {
            Self::NotAnError | Self::Caller => RestartDepth::None,
            Self::Resource | Self::MpsConnection => RestartDepth::Relaunch,
            Self::Image | Self::Capture => RestartDepth::Module,
            Self::Assert | Self::ContextGone => RestartDepth::Context,
            Self::KernelException
            | Self::Watchdog
            | Self::Contained
            | Self::HardwareMemory
            | Self::ExternalDevice
            | Self::MpsTerminated
            | Self::DomainLost
            | Self::Crash
            | Self::Killed
            | Self::Unknown => RestartDepth::Process,
            Self::Link | Self::DeviceLost => RestartDepth::Device,
            Self::Configuration => RestartDepth::Operator,
        }
    }

    /// Whether the fault domain is lost: whatever it answers from now on means nothing, and what was in flight has an unknown outcome.
    #[must_use]
    pub const fn poisons(self) -> bool {
        match self {
            Self::NotAnError
            | Self::Caller
            | Self::Resource
            | Self::Image
            | Self::Capture
            | Self::MpsConnection => false,
            Self::KernelException
            | Self::Assert
            | Self::Watchdog
            | Self::Contained
            | Self::HardwareMemory
            | Self::Link
            | Self::ExternalDevice
            | Self::MpsTerminated
            | Self::ContextGone
            | Self::DeviceLost
            | Self::DomainLost
            | Self::Crash
            | Self::Killed
            | Self::Configuration
            | Self::Unknown => true,
        }
    }

    /// Whom it counts against. Not who is to blame: a kernel exception is seen by calls of kernels that had no part in it.
    #[must_use]
    pub const fn scope(self) -> FaultScope {
        match self {
            Self::NotAnError | Self::Resource => FaultScope::Nobody,
            Self::Caller => FaultScope::Caller,
            Self::Image | Self::Capture => FaultScope::Kernel,
            Self::KernelException
            | Self::Assert
            | Self::Watchdog
            | Self::Contained
            | Self::ExternalDevice
            | Self::MpsConnection
            | Self::MpsTerminated
            | Self::ContextGone
            | Self::DomainLost
            | Self::Crash
            | Self::Killed
            | Self::Configuration
            | Self::Unknown => FaultScope::Domain,
            Self::HardwareMemory | Self::Link | Self::DeviceLost => FaultScope::Device,
        }
    }

    /// Whether an operator has to hear of it at its first occurrence, beside what the runtime does by itself.
    #[must_use]
    pub const fn alerts_operator(self) -> bool {
        match self {
            Self::Link | Self::DeviceLost | Self::Configuration => true,
            Self::NotAnError
            | Self::Caller
            | Self::Resource
            | Self::Image
            | Self::Capture
            | Self::KernelException
            | Self::Assert
            | Self::Watchdog
            | Self::Contained
            | Self::HardwareMemory
            | Self::ExternalDevice
            | Self::MpsConnection
            | Self::MpsTerminated
            | Self::ContextGone
            | Self::DomainLost
            | Self::Crash
            | Self::Killed
            | Self::Unknown => false,
        }
    }

    /// What a caller or an operator can do about it, in one line.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NotAnError => "nothing is wrong: go on, or ask again later",
            Self::Caller => "do not retry: check the arguments and the order of the calls",
            Self::Resource => "retry after a pause or with less, free memory, or use the degraded path",
            Self::Image => "provide a cubin for this device, or PTX of an older version",
            Self::Capture => "make the stream and the graph anew and capture again",
            Self::KernelException => "restart the process; run the suspects alone under compute-sanitizer",
            Self::Assert => "read the assertion on the worker's output; the input may be at fault",
            Self::Watchdog => "split the kernel into shorter launches, or use a device without a display",
            Self::Contained => "restart the process; move away from the device if it comes back",
            Self::HardwareMemory => "restart the process and read the device's recovery action",
            Self::Link => "stop peer access over this link and copy by way of the host; check the link",
            Self::ExternalDevice => "check the device or the library that the work waited for",
            Self::MpsConnection => "check the MPS control daemon, or run without MPS",
            Self::MpsTerminated => "restart the process; without MPS no other client's fault would reach it",
            Self::ContextGone => "make the context anew and drop every handle of the old one",
            Self::DeviceLost => "use another device; check driver, power and bus, and reset the device",
            Self::DomainLost => "restart the process; its log names the fault",
            Self::Crash => "restart the process; look for its panic message or core dump",
            Self::Killed => "look in the system's log for the out-of-memory killer, or who sent it",
            Self::Configuration => "correct the worker's configuration: a restart fails the same way",
            Self::Unknown => "restart the process and probe the device; the number may be a newer one",
        }
    }
}

impl fmt::Display for FaultClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnError => "not an error",
            Self::Caller => "caller",
            Self::Resource => "resource",
            Self::Image => "image",
            Self::Capture => "capture",
            Self::KernelException => "kernel exception",
            Self::Assert => "assert",
            Self::Watchdog => "watchdog",
            Self::Contained => "contained",
            Self::HardwareMemory => "hardware memory",
            Self::Link => "link",
            Self::ExternalDevice => "external device",
            Self::MpsConnection => "mps connection",
            Self::MpsTerminated => "mps terminated",
            Self::ContextGone => "context gone",
            Self::DeviceLost => "device lost",
            Self::DomainLost => "domain lost",
            Self::Crash => "crash",
            Self::Killed => "killed",
            Self::Configuration => "configuration",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for FaultScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "nobody",
            Self::Caller => "caller",
            Self::Kernel => "kernel",
            Self::Domain => "domain",
            Self::Device => "device",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [FaultClass; 21] = [
        FaultClass::NotAnError,
        FaultClass::Caller,
        FaultClass::Resource,
        FaultClass::Image,
        FaultClass::Capture,
        FaultClass::KernelException,
        FaultClass::Assert,
        FaultClass::Watchdog,
        FaultClass::Contained,
        FaultClass::HardwareMemory,
        FaultClass::Link,
        FaultClass::ExternalDevice,
        FaultClass::MpsConnection,
        FaultClass::MpsTerminated,
        FaultClass::ContextGone,
        FaultClass::DeviceLost,
        FaultClass::DomainLost,
        FaultClass::Crash,
        FaultClass::Killed,
        FaultClass::Configuration,
        FaultClass::Unknown,
    ];

    #[test]
    fn a_domain_is_lost_exactly_when_the_context_or_more_has_to_be_made_anew() {
        for class in ALL {
            assert_eq!(class.poisons(), class.depth() >= RestartDepth::Context, "{class}");
        }
    }

    #[test]
    fn what_loses_a_domain_counts_against_the_domain_or_its_device() {
        for class in ALL.into_iter().filter(|class| class.poisons()) {
            assert!(matches!(class.scope(), FaultScope::Domain | FaultScope::Device), "{class}");
        }
    }

    #[test]
    fn only_what_leaves_the_device_or_stops_everything_wakes_the_operator_at_once() {
        for class in ALL {
            assert_eq!(class.alerts_operator(), class.depth() >= RestartDepth::Device, "{class}");
        }
    }

    #[test]
    fn a_class_reads_as_it_is_written_and_has_advice_of_one_line() {
        for class in ALL {
            let json = serde_json::to_string(&class).unwrap();
            assert_eq!(json, format!("\"{}\"", class.to_string().replace(' ', "_")));
            assert_eq!(serde_json::from_str::<FaultClass>(&json).unwrap(), class);
            assert!(!class.advice().is_empty() && !class.advice().contains('\n'), "{class}");
        }
    }
}
