//! The thread that asks NVML how the devices are, and hears of their Xids.
//!
//! One for the process, from the first device on; NVML needs no context, and answers where a context does not any more. It waits for
//! events, [`TURN`] at most, and then looks at every device. A machine without the library has no signal, which is said and is no error.
//! The driver keeps the last Xid only: of several at once, one is heard, and the recovery action tells of the rest.

use std::iter;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id;
use rustkernel_core::fault::{DeviceSample, RecoveryAction, Throttle};

use super::watch::{DeviceMemory, DeviceWatch};

/// A device to be watched, and where it is on the bus.
struct Placed {
    watch: DeviceWatch,
    place: String,
}

/// How often every device is looked at. Nothing that is found there is worth more.
const TURN: Duration = Duration::from_secs(1);
/// Xids that are heard in a row before the device is looked at.
const STORM: usize = 64;

/// The version of the driver that the library is of.
///
/// # Errors
/// Why there is no library, in words.
pub fn nvml_driver() -> Result<String, String> {
    Nvml::init().and_then(|nvml| nvml.sys_driver_version()).map_err(|error| error.to_string())
}

/// Watches a device from now on.
pub(super) fn watch(watch: &DeviceWatch, place: &str) {
    static INBOX: Mutex<Option<Sender<Placed>>> = Mutex::new(None);
    let mut inbox = INBOX.lock().unwrap_or_else(PoisonError::into_inner);
    let placed = Placed { watch: watch.clone(), place: place.to_owned() };
    let begin = || {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new().name("nvml".to_owned()).spawn(move || keep(&receiver));
        thread.map(|_| sender)
    };
    let sender = match inbox.take().map_or_else(begin, Ok) {
        Ok(sender) => inbox.insert(sender),
        Err(error) => return watch.deaf(&format!("there is no thread for it: {error}")),
    };
    if sender.send(placed).is_err() {
        watch.deaf("the thread that asked it has ended");
    }
}

/// Until the process ends.
fn keep(inbox: &Receiver<Placed>) {
    match Nvml::init() {
        Ok(nvml) => Monitor { nvml: &nvml, devices: Vec::new() }.keep(inbox),
        Err(error) => inbox.iter().for_each(|placed| placed.watch.deaf(&error.to_string())),
    }
}

struct Monitor<'nvml> {
    nvml: &'nvml Nvml,
    devices: Vec<Device<'nvml>>,
}

struct Device<'nvml> {
    watch: DeviceWatch,
    device: nvml_wrapper::Device<'nvml>,
    /// Its Xids; in a container there may be none.
    events: Option<EventSet<'nvml>>,
}

impl Monitor<'_> {
    fn keep(mut self, inbox: &Receiver<Placed>) {
        loop {
            inbox.try_iter().for_each(|placed| self.seek(placed));
            if !self.hear() {
                match inbox.recv_timeout(TURN) {
                    Ok(placed) => self.seek(placed),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            self.devices.iter().for_each(Device::look);
        }
    }

    fn seek(&mut self, Placed { watch, place }: Placed) {
        match self.nvml.device_by_pci_bus_id(place.as_str()) {
            Ok(device) => {
                let events = self.nvml.create_event_set().and_then(|events| {
                    device
                        .register_events(EventTypes::CRITICAL_XID_ERROR, events)
                        .map_err(|error| error.error)
                });
                if let Err(error) = &events {
                    tracing::info!(device = %watch.id(), "NVML tells of no Xids: {error}");
                }
                watch.identified(device.uuid().unwrap_or_else(|_| "unknown".to_owned()));
                let device = Device { watch, device, events: events.ok() };
                device.look();
                self.devices.push(device);
            }
            Err(error) => watch.deaf(&format!("it has no device at {place}: {error}")),
        }
    }

    /// Waits for Xids, a turn at most. `false` if there is nobody to wait for.
    fn hear(&self) -> bool {
        let speakers = self.devices.iter().filter(|device| device.events.is_some()).count();
        let Ok(speakers) = u32::try_from(speakers) else { return false };
        if speakers == 0 {
            return false;
        }
        let patience = TURN / speakers;
        let waited = self.devices.iter().filter(|device| device.hear(patience));
        waited.count() > 0
    }
}

impl Device<'_> {
    /// Tells of what has come. `false` if it did not wait.
    fn hear(&self, patience: Duration) -> bool {
        let Some(events) = &self.events else { return false };
        let patience = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        for millis in iter::once(patience).chain(iter::repeat_n(0, STORM)) {
            match events.wait(millis) {
                Ok(event) => match event.event_data {
                    Some(XidError::Value(number)) => {
                        self.watch.on_xid(u32::try_from(number).unwrap_or(u32::MAX));
                    }
                    // The recovery action says what there is to know.
                    Some(XidError::Unknown) | None => {}
                },
                Err(NvmlError::Timeout) => return true,
                // The look that follows says what is the matter.
                Err(_) => return false,
            }
        }
        true
    }

    fn look(&self) {
        self.watch.note_turn();
        let (device, mut troubles) = (&self.device, Troubles::default());
        let fields = [FieldId(field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION), FieldId(REMAP_PENDING)];
        let mut numbers = [None; 2];
        if let Some(values) = troubles.known(device.field_values_for(&fields)) {
            for (number, value) in numbers.iter_mut().zip(values) {
                *number = value.ok().and_then(|sample| number_of(&sample.value.ok()?));
            }
        }
        let [action, remap] = numbers;
        let errors = troubles.known(device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile));
        let throttle = troubles.known(device.current_throttle_reasons()).map(throttle_of);
        let memory = troubles.known(device.memory_info());
        if troubles.is_lost {
            return self.watch.on_gone();
        }
        let action = action.map(RecoveryAction::from).filter(|action| *action != RecoveryAction::None);
        let sample = DeviceSample {
            uncorrected_ecc_count: errors,
            // What a call cannot do before a reset, the number may not know yet.
            recovery_action: match (action, troubles.wants_reset, numbers[0]) {
                (Some(action), _, _) => Some(action),
                (None, true, _) => Some(RecoveryAction::GpuReset),
                (None, false, known) => known.map(RecoveryAction::from),
            },
            throttle,
            remap_pending: remap.map(|pending| pending != 0),
        };
        let memory = memory.map(|memory| DeviceMemory { used: memory.used, total: memory.total });
        self.watch.on_sample(&sample, memory);
    }
}

/// What the answers of one look say beside their numbers. That a device lacks something says nothing about it.
#[derive(Default)]
struct Troubles {
    is_lost: bool,
    wants_reset: bool,
}

impl Troubles {
    fn known<T>(&mut self, answer: Result<T, NvmlError>) -> Option<T> {
        self.is_lost |= matches!(answer, Err(NvmlError::GpuLost));
        self.wants_reset |= matches!(answer, Err(NvmlError::ResetRequired));
        answer.ok()
    }
}

const REMAP_PENDING: u32 = field_id::NVML_FI_DEV_REMAPPED_PENDING;

fn number_of(value: &SampleValue) -> Option<u32> {
    match value {
        SampleValue::U32(number) => Some(*number),
        SampleValue::U64(number) => u32::try_from(*number).ok(),
        SampleValue::I64(number) => u32::try_from(*number).ok(),
        SampleValue::F64(_) => None,
    }
}

fn throttle_of(reasons: ThrottleReasons) -> Throttle {
    Throttle {
        software_thermal: reasons.contains(ThrottleReasons::SW_THERMAL_SLOWDOWN),
        hardware_thermal: reasons.contains(ThrottleReasons::HW_THERMAL_SLOWDOWN),
        power_brake: reasons.contains(ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN),
        hardware_slowdown: reasons.contains(ThrottleReasons::HW_SLOWDOWN),
    }
}
