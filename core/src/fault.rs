//! What a fault of a device or of a worker process means, and how deep a cure it needs.
//!
//! A number goes in, a [`Fault`] comes out: a `CUresult` of the CUDA driver API ([`cuda`]), an Xid of the NVIDIA driver ([`xid`]), or
//! the way in which a worker process ended ([`exit`]). From the [`FaultClass`] follow the [`RestartDepth`], the [`FaultScope`], whether
//! the fault domain is lost, and one line of advice. [`poison`] keeps the first fault that loses a domain, and
//! [`device_health`] makes of Xids, counters and the recovery action how a device is.
//!
//! A *fault domain* is what one fault takes down: a CUDA context with every stream, module and allocation of it and, by the word of
//! the driver API header (`cuda.h`), for nearly every kernel exception the whole process.
//!
//! | class | depth | scope | domain is lost |
//! |---|---|---|---|
//! | not an error | none | nobody | no |
//! | caller | none | caller | no |
//! | resource | relaunch | nobody | no |
//! | image, capture | module | kernel | no |
//! | MPS connection | relaunch | domain | no |
//! | assert, context gone | context | domain | yes |
//! | kernel exception, watchdog, contained, external device, MPS terminated, unknown | process | domain | yes |
//! | crash, killed, domain lost (a process) | process | domain | yes |
//! | hardware memory | process | device | yes |
//! | link, device lost | device | device | yes |
//! | configuration (a process) | operator | domain | yes |
//!
//! A number that no table holds is [`FaultClass::Unknown`] and costs the domain: to go on after a fault that nobody understood
//! publishes wrong results. A depth is where to begin; when it has not helped, [`RestartDepth::deeper`] is next. What this module
//! does NOT do: it counts nothing, restarts nothing, and blames no kernel: the call that returned a code is seldom the one that
//! caused it.

mod class;
mod code;
pub mod cuda;
mod depth;
pub mod device_health;
pub mod exit;
pub mod poison;
pub mod xid;

pub use class::{FaultClass, FaultScope};
pub use code::{Fault, FaultCode};
pub use depth::RestartDepth;
pub use device_health::{
    DegradedReason, DeviceHealth, DeviceSample, DeviceState, Throttle, UnhealthyReason, Verdict,
};
pub use exit::ProcessEnd;
pub use poison::{Observed, Poison};
pub use xid::{RecoveryAction, XidAction};
