//! Where a kernel runs: `cpu` or `cuda:0`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A device by its kind and number, as `cuda:0`. `cpu` alone is `cpu:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId {
    kind: DeviceKind,
    number: u16,
}

/// What sort of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// The processor. Its numbers tell apart what a user wants kept apart: sockets, core sets, machines behind a proxy.
    Cpu,
    /// A CUDA device by its ordinal.
    Cuda,
}

/// Why a text is no [`DeviceId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no device: it takes `cpu`, `cpu:1` or `cuda:0`")]
pub struct InvalidDevice {
    /// The text, cut to 32 characters.
    pub text: String,
}

impl DeviceId {
    /// The processor.
    pub const CPU: Self = Self { kind: DeviceKind::Cpu, number: 0 };

    /// A CUDA device by its ordinal.
    #[must_use]
    pub const fn cuda(ordinal: u16) -> Self {
        Self { kind: DeviceKind::Cuda, number: ordinal }
    }

    /// What sort of device it is.
    #[must_use]
    pub const fn kind(self) -> DeviceKind {
        self.kind
    }

    /// Which one of its sort.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.number
    }
}

impl Default for DeviceId {
    fn default() -> Self {
        Self::CPU
    }
}

impl FromStr for DeviceId {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, InvalidDevice> {
        let invalid = || InvalidDevice { text: text.chars().take(32).collect() };
        let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
        let kind = match kind {
            "cpu" => DeviceKind::Cpu,
            "cuda" if text.contains(':') => DeviceKind::Cuda,
            _ => return Err(invalid()),
        };
        // `u16` would read a sign, too.
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| digits).ok_or_else(invalid)?;
        Ok(Self { kind, number })
    }
}

impl TryFrom<String> for DeviceId {
    type Error = InvalidDevice;

    fn try_from(text: String) -> Result<Self, InvalidDevice> {
        text.parse()
    }
}

impl From<DeviceId> for String {
    fn from(device: DeviceId) -> Self {
        device.to_string()
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DeviceKind::Cpu => write!(f, "cpu:{}", self.number),
            DeviceKind::Cuda => write!(f, "cuda:{}", self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_read_as_they_are_written() {
        for (text, shown) in [("cpu", "cpu:0"), ("cpu:3", "cpu:3"), ("cuda:0", "cuda:0")] {
            assert_eq!(text.parse::<DeviceId>().unwrap().to_string(), shown);
        }
        assert_eq!("cpu".parse::<DeviceId>().unwrap(), DeviceId::CPU);
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for bad in ["", "gpu:0", "cuda", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cpu:99999", "cpu:0:0"] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
        }
    }
}
