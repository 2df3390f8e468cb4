//! What machine this is.

use std::time::Duration;

use rustkernel::core::clock::unix_millis;
use rustkernel::cuda::{self, Device};
use serde::{Deserialize, Serialize};

use crate::child;
use crate::context::Raw;
use crate::figures::pass;
use crate::row::{Bench, Found, Outcome};

/// The act that tells the [`Header`].
pub(crate) const HEADER: &str = "header";

/// The first line of a report.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    device: String,
    capability: String,
    memory_bytes: u64,
    cuda: String,
    /// As the system's driver counts, for example 580.65.06; absent where NVML is.
    driver: Option<String>,
    /// UTC, for example 2026-01-31T12:00:00Z.
    date: String,
    crate_version: String,
    profile: String,
}

impl Header {
    pub(crate) fn is_standin(&self) -> bool {
        self.device.starts_with("Stand-in")
    }
}

/// Tells the header, or why there is no device.
pub(crate) fn tell_header() {
    child::tell(&cuda::report().map_err(|error| error.to_string()).and_then(|report| {
        let device = report.devices.first().ok_or("the driver finds none")?;
        Ok::<_, String>(Header {
            device: device.name.clone(),
            capability: device.capability.to_string(),
            memory_bytes: device.memory_bytes,
            cuda: report.version.to_string(),
            driver: nvml().and_then(|nvml| nvml.sys_driver_version().ok()),
            date: date(unix_millis() / 1000),
            crate_version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        })
    }));
}

/// NVIDIA's management library, where there is one.
pub(crate) fn nvml() -> Option<nvml_wrapper::Nvml> {
    nvml_wrapper::Nvml::init().ok()
}

/// What decides how a device behaves when something is wrong.
pub(crate) fn find(_: Bench) -> Outcome {
    let raw = Raw::open()?;
    let mut found = Found::new("");
    for (name, number) in ATTRIBUTES {
        found = found.figure(name, raw.attribute(number)?);
    }
    let mut text = format!("kernels have a time limit: {}", raw.attribute(EXEC_TIMEOUT)? != 0);
    match nvml() {
        None => text.push_str("; no NVML"),
        Some(nvml) => {
            let device = nvml.device_by_index(0);
            let events = device.as_ref().ok().and_then(|device| device.supported_event_types().ok());
            text.push_str(&format!("; NVML events: {events:?}"));
        }
    }
    found.text = text;
    Ok(watched(found))
}

/// What the library itself knows of the device through NVML, once it has asked.
fn watched(found: Found) -> Found {
    let Ok(device) = Device::open(0) else { return found };
    let watch = device.watch();
    let memory = (0..LOOKS).find_map(|_| {
        pass(LOOK);
        watch.memory()
    });
    let found = found.figure("watched_state", watch.state().to_string());
    match memory {
        None => found.figure("watched_memory_bytes", "unknown"),
        Some(memory) => found.figure("watched_memory_bytes", memory.total),
    }
}

const LOOKS: u32 = 60;
const LOOK: Duration = Duration::from_millis(50);
const EXEC_TIMEOUT: i32 = 17;

/// By the numbers of `CUdevice_attribute`.
const ATTRIBUTES: [(&str, i32); 9] = [
    ("multiprocessors", 16),
    ("kernel_exec_timeout", EXEC_TIMEOUT),
    ("compute_mode", 20),
    ("ecc_enabled", 32),
    ("compute_preemption", 90),
    ("memory_pools", 115),
    ("virtual_memory_management", 102),
    ("host_register", 99),
    ("mps_enabled", 133),
];

/// The date of so many seconds since 1970, UTC. By Howard Hinnant's `civil_from_days`.
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}
