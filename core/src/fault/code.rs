//! One fault: its number, its name and its class.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::exit::ProcessEnd;
use super::{FaultClass, cuda, exit, xid};

/// A fault that was classified. It fits in a message between processes: the name is looked up again where it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Fault {
    /// What sort of fault.
    pub class: FaultClass,
    /// The number it came as.
    pub code: FaultCode,
    /// What its source calls it: `CUDA_ERROR_ILLEGAL_ADDRESS`, `SIGSEGV`.
    pub name: &'static str,
}

/// The number a fault came as, by its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// A `CUresult` of the CUDA driver API. A plain number, because a driver may be newer than any enum.
    Cuda(i32),
    /// An Xid that the NVIDIA driver reported.
    Xid(u32),
    /// How a worker process ended.
    Process(ProcessEnd),
}

impl FaultCode {
    /// What its source calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda(code) => cuda::classify(code).name,
            Self::Xid(xid) => xid::name(xid),
            Self::Process(end) => exit::classify(end).name,
        }
    }
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuda(code) => write!(f, "CUDA {code}"),
            Self::Xid(xid) => write!(f, "Xid {xid}"),
            Self::Process(end) => end.fmt(f),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name, self.code, self.class)
    }
}

// By hand: a derived one would borrow the name from an input that lives for ever.
impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawFault::deserialize(deserializer)?;
        Ok(Self { class: raw.class, code: raw.code, name: raw.code.name() })
    }
}

/// A [`Fault`] as it is written, with a name that has to be owned while it is read.
#[derive(Deserialize)]
struct RawFault {
    class: FaultClass,
    code: FaultCode,
    /// Read and dropped: a format without field names has it in the way.
    #[serde(rename = "name")]
    _name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn a_fault_says_its_name_its_number_and_its_class() {
        let fault = cuda::classify(700);
        assert_eq!(fault.to_string(), "CUDA_ERROR_ILLEGAL_ADDRESS (CUDA 700): kernel exception");
        let fault = exit::classify(ProcessEnd::Signal(11));
        assert_eq!(fault.to_string(), "SIGSEGV (signal 11): crash");
        let fault = xid::fault(79, false).unwrap();
        assert_eq!(fault.to_string(), "fallen off the bus (Xid 79): device lost");
    }

    #[test]
    fn a_fault_survives_the_way_to_another_process() {
        let xids = [13, 48, 79, 94].map(|xid| xid::fault(xid, false).unwrap());
        let ends = [ProcessEnd::Code(75), ProcessEnd::Signal(4), ProcessEnd::Unknown].map(exit::classify);
        let codes = [0, 2, 700, 919, -1].map(cuda::classify);
        for fault in xids.into_iter().chain(ends).chain(codes) {
            let json = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&json).unwrap(), fault, "{json}");
            let frame = codec::encode(&fault).unwrap();
            assert_eq!(codec::decode::<Fault>(&frame).unwrap(), fault, "a format without field names");
        }
        let json = serde_json::to_string(&cuda::classify(710)).unwrap();
        assert_eq!(json, r#"{"class":"assert","code":{"cuda":710},"name":"CUDA_ERROR_ASSERT"}"#);
    }
}
