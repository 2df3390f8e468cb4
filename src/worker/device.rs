//! The device of a worker: opened, and asked something, before the worker says that it is there, so that a spare one is warm.

use std::sync::Arc;

use rustkernel_core::DeviceId;
use rustkernel_core::device::DeviceKind;

use super::host::Host;
use super::wire::FromWorker;

/// Opens the device that this worker was started for, if it was started for one, and says where on the bus it is.
pub(super) fn open(host: &Arc<Host>) -> Result<Option<String>, FromWorker> {
    let wanted = std::env::var(super::host::WORKER_VARIABLE).unwrap_or_default();
    imp::watch(host);
    if wanted.is_empty() { Ok(None) } else { imp::open(&wanted) }
}

/// Whether this worker was started for a GPU.
pub(super) fn is_gpu_wanted() -> bool {
    let wanted = std::env::var(super::host::WORKER_VARIABLE).unwrap_or_default();
    wanted.parse().is_ok_and(|device: DeviceId| device.kind() == DeviceKind::Cuda)
}

#[cfg(feature = "cuda")]
mod imp {
    use std::convert::Infallible;
    use std::process;
    use std::sync::Arc;
    use std::thread;

    use rustkernel_core::DeviceId;
    use rustkernel_core::device::{DeviceKind, InvalidDevice};

    use super::super::host::Host;
    use super::super::wire::{FromWorker, text};
    use crate::cuda::{self, CudaError, Device, Loss};

    /// Whichever kernel here opens a device: its loss is the end of this process.
    pub(super) fn watch(host: &Arc<Host>) {
        let host = Arc::clone(host);
        cuda::when_lost(move |loss| end(&host, loss));
    }

    pub(super) fn open(wanted: &str) -> Result<Option<String>, FromWorker> {
        let device: DeviceId =
            wanted.parse().map_err(|error: InvalidDevice| unable(error.to_string(), true))?;
        if device.kind() == DeviceKind::Cpu {
            return Ok(None);
        }
        let open = || {
            let device = Device::open(device.number())?;
            device.probe()?;
            Ok(Some(device.info().pci.clone()))
        };
        open().map_err(|error: CudaError| {
            unable(format!("{error}; {}", error.advice()), error.needs_operator())
        })
    }

    fn unable(reason: String, for_good: bool) -> FromWorker {
        FromWorker::Unable { reason: text(reason), for_good }
    }

    /// What is lost cannot be told apart from what is not: nothing that this process would still answer may be believed, so that it says no
    /// more. Its supervising process ends it, should it not end by itself.
    #[allow(clippy::exit, reason = "the process has lost what it was for")]
    fn end(host: &Host, loss: Loss) -> Infallible {
        if loss.first {
            let Loss { device, fault, function, .. } = loss;
            let reason = format!("{device} is lost to it: {} ({}) in {function}", fault.name, fault.code);
            // Whoever hears nothing of it sees the end, and its code.
            let _ = host.tell(&FromWorker::DeviceLost { reason, fault });
            process::exit(DEVICE_LOST)
        }
        loop {
            thread::park();
        }
    }

    /// As [`exit`](rustkernel_core::fault::exit) reads it.
    const DEVICE_LOST: i32 = 75;
}

#[cfg(not(feature = "cuda"))]
mod imp {
    use std::sync::Arc;

    use super::super::host::Host;
    use super::super::wire::FromWorker;

    pub(super) fn watch(_: &Arc<Host>) {}

    pub(super) fn open(wanted: &str) -> Result<Option<String>, FromWorker> {
        if wanted.starts_with("cpu") {
            return Ok(None);
        }
        let reason = format!("this program is built without the feature `cuda`, and {wanted} needs it");
        Err(FromWorker::Unable { reason, for_good: true })
    }
}
