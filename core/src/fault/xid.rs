//! The Xids of the NVIDIA driver, and the recovery action that it asks for.
//!
//! An Xid is a number that the driver writes to the system's log and hands to NVML's events. The source is the table of immediate
//! actions in NVIDIA's Xid catalogue, for Ampere and newer. It comes by another way than the CUDA code of the same fault, earlier or
//! later, and tells what the code cannot: whether the device itself is still good.
//!
//! | action | Xids | class |
//! |---|---|---|
//! | ignore | 43 and others that the catalogue says to ignore; 45 after a kill of our own | none |
//! | note | 63, 93, 157, 160, 161 | none |
//! | degrade | 92 | none |
//! | restart the process | 8, 11, 13, 25, 31, 32, 45, 69, 80, and those of the copy and media engines | kernel exception |
//! | contained | 94 | contained |
//! | stop peer access | 74, 144-150, 155 | link |
//! | reset the device | 46, 48, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 156, 158, 171, 172 | device lost |
//! | device lost | 79, 151 | device lost |
//! | read the recovery action | 154, and every other number | by the [`RecoveryAction`] |
//!
//! An Xid names a device, seldom a process: before one restarts a process for it, see whose codes agree.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Fault, FaultClass, FaultCode};

/// What to do about an Xid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[must_use]
pub enum XidAction {
    /// Nothing.
    Ignore,
    /// Write it into the device's history.
    Note,
    /// Give the device less work: it corrects more errors than it should.
    Degrade,
    /// Restart the process that met it.
    RestartProcess,
    /// Restart the process that met it; the others on the device are not concerned.
    Contained,
    /// Copy by way of the host where a link was used, and move away from the device.
    StopPeerAccess,
    /// Move away from the device; an operator has to reset it.
    ResetDevice,
    /// Move away from the device; a reset is not enough.
    DeviceLost,
    /// Ask the driver: the [`RecoveryAction`] decides.
    ReadRecoveryAction,
}

/// What the driver says that a device needs, from NVML's `nvmlDeviceGpuRecoveryAction_t` in `nvml.h`. The one number to read
/// between the restart of a process and giving up its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryAction {
    /// 0: a new process can use the device at once.
    None,
    /// 1: the device has to be reset.
    GpuReset,
    /// 2: the machine has to be rebooted.
    NodeReboot,
    /// 3: peer access has to end; then the number is to be read again.
    DrainP2p,
    /// 4: the device works with a part of its capacity; it has to be reset when its work is done.
    DrainAndReset,
    /// Another number, which newer drivers have. It is not "none".
    Unknown(u32),
}

/// What to do about `xid`. `after_our_kill`: the runtime itself has just killed a process that used the device, of which Xid 45
/// is the driver's notice; it must not count against the device.
///
/// Total: for a number that the catalogue lacks, or gives no action for, the driver is asked.
pub const fn classify(xid: u32, after_our_kill: bool) -> XidAction {
    if xid == PREEMPTIVE_REMOVAL && after_our_kill {
        return XidAction::Ignore;
    }
    row(xid).1
}

/// The fault that `xid` tells of; `None` for one that is not a fault or not known to be one.
#[must_use]
pub const fn fault(xid: u32, after_our_kill: bool) -> Option<Fault> {
    match classify(xid, after_our_kill).class() {
        Some(class) => Some(Fault { class, code: FaultCode::Xid(xid), name: name(xid) }),
        None => None,
    }
}

/// What `xid` is about, in a few words.
#[must_use]
pub const fn name(xid: u32) -> &'static str {
    row(xid).0
}

impl XidAction {
    /// The class of the fault behind it; `None` where there is none, or where the [`RecoveryAction`] has to tell.
    #[must_use]
    pub const fn class(self) -> Option<FaultClass> {
        match self {
            Self::Ignore | Self::Note | Self::Degrade | Self::ReadRecoveryAction => None,
            Self::RestartProcess => Some(FaultClass::KernelException),
            Self::Contained => Some(FaultClass::Contained),
            Self::StopPeerAccess => Some(FaultClass::Link),
            Self::ResetDevice | Self::DeviceLost => Some(FaultClass::DeviceLost),
        }
    }
}

impl RecoveryAction {
    /// The class of the fault behind it; `None` where the device is good.
    #[must_use]
    pub const fn class(self) -> Option<FaultClass> {
        match self {
            Self::None => None,
            Self::DrainP2p => Some(FaultClass::Link),
            Self::GpuReset | Self::NodeReboot | Self::DrainAndReset | Self::Unknown(_) => {
                Some(FaultClass::DeviceLost)
            }
        }
    }
}

impl From<u32> for RecoveryAction {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::GpuReset,
            2 => Self::NodeReboot,
            3 => Self::DrainP2p,
            4 => Self::DrainAndReset,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for XidAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ignore => "ignore",
            Self::Note => "note",
            Self::Degrade => "degrade",
            Self::RestartProcess => "restart process",
            Self::Contained => "contained",
            Self::StopPeerAccess => "stop peer access",
            Self::ResetDevice => "reset device",
            Self::DeviceLost => "device lost",
            Self::ReadRecoveryAction => "read recovery action",
        })
    }
}

impl fmt::Display for RecoveryAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::GpuReset => f.write_str("gpu reset"),
            Self::NodeReboot => f.write_str("node reboot"),
            Self::DrainP2p => f.write_str("drain p2p"),
            Self::DrainAndReset => f.write_str("drain and reset"),
            Self::Unknown(number) => write!(f, "unknown ({number})"),
        }
    }
}

/// The driver's notice that it has removed a process's channels: after another error, or after the process was killed.
const PREEMPTIVE_REMOVAL: u32 = 45;

const fn row(xid: u32) -> (&'static str, XidAction) {
    match xid {
        8 => ("channel idle timeout", XidAction::RestartProcess),
        13 => ("engine exception", XidAction::RestartProcess),
        31 => ("memory page fault", XidAction::RestartProcess),
        11 | 25 | 32 | 69 | 80 => ("bad push buffer", XidAction::RestartProcess),
        39..=41 | 70..=72 | 75..=77 | 85 | 126..=135 => ("copy engine exception", XidAction::RestartProcess),
        60 | 68 | 82..=84 | 86 | 88 | 89 | 96..=105 | 139 => {
            ("media engine exception", XidAction::RestartProcess)
        }
        // Without a kill of our own somebody has lost a process, and another Xid tells why.
        PREEMPTIVE_REMOVAL => ("preemptive removal", XidAction::RestartProcess),
        // The runtime's own limits decide whether work hangs.
        43 => ("processing stopped", XidAction::Ignore),
        14 | 37 | 38 | 44 | 66 | 67 | 106..=108 | 121 | 137 | 141 | 152 | 153 => {
            ("informational", XidAction::Ignore)
        }
        63 => ("row remapping recorded", XidAction::Note),
        93 => ("wear limit of the information store", XidAction::Note),
        157 => ("resource retirement failure", XidAction::Note),
        160 | 161 => ("channel retirement", XidAction::Note),
        92 => ("many corrected memory errors", XidAction::Degrade),
        94 => ("contained memory error", XidAction::Contained),
        74 | 144..=150 | 155 => ("link error", XidAction::StopPeerAccess),
        46 => ("GPU timeout", XidAction::ResetDevice),
        48 | 171 | 172 => ("uncorrectable memory error", XidAction::ResetDevice),
        62 => ("power controller halted", XidAction::ResetDevice),
        64 => ("row remapping failure", XidAction::ResetDevice),
        95 => ("uncontained memory error", XidAction::ResetDevice),
        109 => ("context switch timeout", XidAction::ResetDevice),
        110 => ("security fault", XidAction::ResetDevice),
        119 => ("system processor timeout", XidAction::ResetDevice),
        120 => ("system processor error", XidAction::ResetDevice),
        136 => ("link training failure", XidAction::ResetDevice),
        140 => ("unrecovered memory error", XidAction::ResetDevice),
        143 => ("initialisation error", XidAction::ResetDevice),
        156 => ("resource retirement", XidAction::ResetDevice),
        158 => ("fatal timeout", XidAction::ResetDevice),
        79 => ("fallen off the bus", XidAction::DeviceLost),
        151 => ("key rotation error", XidAction::DeviceLost),
        154 => ("recovery action changed", XidAction::ReadRecoveryAction),
        _ => ("unlisted Xid", XidAction::ReadRecoveryAction),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::RestartDepth;
    use super::*;

    /// Every one of `xids` leads to `action`, and its fault, if it is one, is cured at `depth`.
    #[track_caller]
    fn assert_all(xids: &[u32], action: XidAction, depth: Option<RestartDepth>) {
        for xid in xids {
            assert_eq!(classify(*xid, false), action, "{xid}");
            assert_eq!(fault(*xid, false).map(|fault| fault.class.depth()), depth, "{xid}");
        }
    }

    #[test]
    fn exceptions_page_faults_push_buffers_and_idle_channels_restart_the_process() {
        let xids = [8, 13, 31, 32, 11, 25, 69, 80];
        assert_all(&xids, XidAction::RestartProcess, Some(RestartDepth::Process));
    }

    #[test]
    fn copy_engine_exceptions_restart_the_process() {
        let xids = (39..=41).chain(70..=72).chain(75..=77).chain([85]).chain(126..=135);
        let xids: Vec<u32> = xids.collect();
        assert_all(&xids, XidAction::RestartProcess, Some(RestartDepth::Process));
    }

    #[test]
    fn a_stopped_channel_is_ignored_a_remapping_is_noted_and_many_corrected_errors_degrade() {
        assert_all(&[43], XidAction::Ignore, None);
        assert_all(&[63], XidAction::Note, None);
        assert_all(&[92], XidAction::Degrade, None);
    }

    #[test]
    fn the_removal_of_a_process_is_a_fault_unless_the_runtime_killed_it() {
        assert_all(&[45], XidAction::RestartProcess, Some(RestartDepth::Process));
        assert_eq!(classify(45, true), XidAction::Ignore);
        assert_eq!(fault(45, true), None);
    }

    #[test]
    fn broken_memory_and_broken_controllers_give_the_device_up_until_it_is_reset() {
        let xids = [46, 62, 109, 119, 120, 140, 143, 158, 48, 171, 172, 64, 95];
        assert_all(&xids, XidAction::ResetDevice, Some(RestartDepth::Device));
        assert!(xids.iter().all(|xid| fault(*xid, true).unwrap().class.alerts_operator()));
    }

    #[test]
    fn a_contained_error_costs_its_process_only() {
        assert_all(&[94], XidAction::Contained, Some(RestartDepth::Process));
        assert_eq!(fault(94, false).unwrap().class, FaultClass::Contained);
    }

    #[test]
    fn link_errors_stop_peer_access() {
        let xids = [74, 144, 145, 146, 147, 148, 149, 150, 155];
        assert_all(&xids, XidAction::StopPeerAccess, Some(RestartDepth::Device));
    }

    #[test]
    fn a_device_that_fell_off_the_bus_is_lost() {
        assert_all(&[79], XidAction::DeviceLost, Some(RestartDepth::Device));
        assert!(fault(79, false).unwrap().class.alerts_operator());
    }

    #[test]
    fn where_the_catalogue_names_no_action_the_driver_is_asked() {
        assert_all(&[154, 0, 173, 9999, u32::MAX], XidAction::ReadRecoveryAction, None);
    }

    #[test]
    fn every_recovery_action_but_none_takes_the_device_out_of_service() {
        assert_eq!(RecoveryAction::from(0).class(), None);
        assert_eq!(RecoveryAction::from(3).class(), Some(FaultClass::Link));
        for number in [1, 2, 4, 5, 6, 7, u32::MAX] {
            assert_eq!(RecoveryAction::from(number).class(), Some(FaultClass::DeviceLost), "{number}");
        }
        assert_eq!(RecoveryAction::from(5).to_string(), "unknown (5)");
    }

    proptest! {
        #[test]
        fn a_kill_of_our_own_excuses_no_other_xid(xid in 0_u32..300) {
            prop_assume!(xid != PREEMPTIVE_REMOVAL);
            prop_assert_eq!(classify(xid, true), classify(xid, false));
        }

        #[test]
        fn what_is_a_fault_loses_its_domain(xid in 0_u32..300) {
            prop_assert!(fault(xid, false).is_none_or(|fault| fault.class.poisons()));
        }
    }
}
