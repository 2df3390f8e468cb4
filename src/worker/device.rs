//! The device of a worker: opened, and asked something, before the worker says that it is there, so that a spare one is warm.

use std::sync::Arc;

use rustkernel_core::DeviceId;
use rustkernel_core::device::DeviceKind;

use std::os::fd::OwnedFd;

use super::code::Code;
use super::host::Host;
use super::wire::{FromWorker, Opened};

/// Opens the device that this worker was started for, if it was started for one, and says where on the bus it is.
pub(super) fn open(host: &Arc<Host>) -> Result<Option<Opened>, FromWorker> {
    let wanted = wanted();
    imp::watch(host);
    let place = if wanted.is_empty() { None } else { imp::open(&wanted)? };
    // What it has asked the device with is asked by each of them.
    imp::tell_what_is_loaded(host);
    Ok(place)
}

/// Loads code for the device on a thread of its own: whoever wants it finds it loaded, or waits for that.
pub(super) fn prepare(code: Code, files: Vec<OwnedFd>) {
    imp::prepare(code, files);
}

/// Whether this worker was started for a GPU.
pub(super) fn is_gpu_wanted() -> bool {
    wanted().parse().is_ok_and(|device: DeviceId| device.kind() == DeviceKind::Cuda)
}

/// The device that this worker was started for, if any.
fn wanted() -> String {
    std::env::var(super::host::WORKER_VARIABLE).unwrap_or_default()
}

#[cfg(feature = "cuda")]
mod imp {
    use std::convert::Infallible;
    use std::os::fd::OwnedFd;
    use std::process;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread;

    use rustkernel_core::DeviceId;
    use rustkernel_core::device::{DeviceKind, InvalidDevice};

    use super::super::code::{self, Code, CodeKind};
    use super::super::host::Host;
    use super::super::wire::{FromWorker, Opened, text};
    use crate::cuda::{self, CudaError, Device, Image, Loss};

    /// Whichever kernel here opens a device: its loss is the end of this process.
    pub(super) fn watch(host: &Arc<Host>) {
        let host = Arc::clone(host);
        cuda::when_lost(move |loss| end(&host, loss));
    }

    pub(super) fn open(wanted: &str) -> Result<Option<Opened>, FromWorker> {
        let device: DeviceId =
            wanted.parse().map_err(|error: InvalidDevice| unable(error.to_string(), true))?;
        if device.kind() == DeviceKind::Cpu {
            return Ok(None);
        }
        let open = || {
            let device = Device::open(device.number())?;
            device.probe()?;
            let info = device.info();
            Ok(Some(Opened { pci: info.pci.clone(), memory_bytes: info.memory_bytes }))
        };
        open().map_err(|error: CudaError| {
            unable(format!("{error}; {}", error.advice()), error.needs_operator())
        })
    }

    pub(super) fn tell_what_is_loaded(host: &Arc<Host>) {
        let (host, wanted) = (Arc::clone(host), super::wanted());
        cuda::when_loaded(move |device, image| {
            if device.to_string() != wanted {
                return;
            }
            let (kind, content) = match image {
                Image::Source(text) => (CodeKind::Source, text.as_bytes()),
                Image::Ptx(text) => (CodeKind::Ptx, text.as_bytes()),
                Image::Cubin(bytes) => (CodeKind::Cubin, bytes),
            };
            // Without a file, whoever comes next loads it when it is wanted.
            if let Ok(Some((code, file))) = code::written(kind, content) {
                host.tell_loaded(code, &file);
            }
        });
    }

    static PREPARING: Mutex<()> = Mutex::new(());

    pub(super) fn prepare(code: Code, files: Vec<OwnedFd>) {
        let load = move || {
            // One after the other: the driver has one lock for them, and memory is for those that serve.
            let _in_turn = PREPARING.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = super::wanted().parse().ok();
            let is_cuda = |device: &DeviceId| device.kind() == DeviceKind::Cuda;
            let content = files.first().and_then(|file| code::read(code, file).ok());
            let (Some(device), Some(content)) = (wanted.filter(is_cuda), content) else { return };
            let text = std::str::from_utf8(&content);
            let image = match (code.kind, text) {
                (CodeKind::Source, Ok(text)) => Image::Source(text),
                (CodeKind::Ptx, Ok(text)) => Image::Ptx(text),
                (CodeKind::Cubin, _) => Image::Cubin(&content),
                (CodeKind::Source | CodeKind::Ptx, Err(_)) => return,
            };
            // Whoever wants it is told why it cannot be loaded.
            let _ = Device::open(device.number()).and_then(|device| device.prepare(image));
        };
        // Without a thread it is loaded when it is wanted.
        let _ = thread::Builder::new().name("prepare".to_owned()).spawn(load);
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
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use super::super::code::Code;
    use super::super::host::Host;
    use super::super::wire::{FromWorker, Opened};

    pub(super) fn watch(_: &Arc<Host>) {}

    pub(super) fn tell_what_is_loaded(_: &Arc<Host>) {}

    pub(super) fn prepare(_: Code, _: Vec<OwnedFd>) {}

    pub(super) fn open(wanted: &str) -> Result<Option<Opened>, FromWorker> {
        if wanted.starts_with("cpu") {
            return Ok(None);
        }
        let reason = format!("this program is built without the feature `cuda`, and {wanted} needs it");
        Err(FromWorker::Unable { reason, for_good: true })
    }
}
