//! How a device is, from what the driver says of it beside the answers to calls: Xids, counters, and its recovery action.
//!
//! It follows NVIDIA's Xid catalogue, by way of [`xid`], and the recovery action of NVML, which says
//! whether a new process can use the device. Every rule below holds of its own; the state is the first of them that applies.
//!
//! | what is known | state | ends |
//! |---|---|---|
//! | the recovery action is other than "none" | unhealthy | when it is "none" again |
//! | the device is gone, or an Xid wants it reset, given up, or without peer access | unhealthy | see below |
//! | two errors of the hardware (contained, of its memory, or with no cure on this device) within [`CONTAINED_WINDOW`], by Xid 94 or by the codes that processes met | unhealthy | that long after the last one |
//! | processes that hold it were killed and do not end | unhealthy | when they have |
//! | a row remapping is pending | degraded | when it is not |
//! | the count of uncorrected errors rose, a process met one of memory, or Xid 92 came | degraded | [`CONTAINED_WINDOW`] later |
//! | the hardware has slowed down, or heat has slowed it | degraded | when it has not |
//! | nothing of these | healthy | |
//!
//! | input | trips the breaker |
//! |---|---|
//! | a recovery action other than "none", that was not the last one | yes |
//! | an Xid that wants the device reset, given up, or without peer access | yes |
//! | the device is gone, and was not | yes |
//! | a second error of the hardware within the window | yes |
//! | the first one | no |
//! | a higher count of uncorrected errors; the first count seen is the baseline, and a lower one is a new baseline | yes |
//! | an Xid that wants its process restarted, 45 among them | no |
//! | Xid 45 within [`KILL_WINDOW`] of a kill of our own: it is not even a fault | no |
//! | a process that does not end, any other Xid, a slowdown, a pending remapping | no |
//!
//! A device that was gone, or had such an Xid, comes back when the recovery action, asked for since, is "none" again; or, where the
//! driver asks for nothing, when it has said "none" for [`SETTLE`] without a break. A driver that does not have the number never
//! brings it back: [`on_reset`](DeviceHealth::on_reset) does.
//!
//! An answer that is missing changes nothing. What this machine does NOT do: it reads no driver, restarts nobody, and does not find
//! out which process an Xid belongs to.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::xid::{self, RecoveryAction, XidAction};
use super::{Fault, FaultClass, RestartDepth};
use crate::clock::Timestamp;

/// How long after a kill of our own Xid 45 is its echo. The driver clears a big process away within seconds.
pub const KILL_WINDOW: Duration = Duration::from_secs(10);
/// Two contained errors within it are the device's own fault. It is also for how long errors leave a device degraded.
pub const CONTAINED_WINDOW: Duration = Duration::from_secs(3600);
/// Contained errors this close to the first are one: the driver tells of it once for each channel that it cost.
pub const CONTAINED_BURST: Duration = Duration::from_secs(1);
/// How long "no recovery action" has to stand before it is believed against an Xid: the driver tells of the one before the other.
pub const SETTLE: Duration = Duration::from_secs(30);

/// What one look at a device found. `None`: this device, or its driver, does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceSample {
    /// Memory errors since the driver was loaded that were not corrected, over the whole device.
    pub uncorrected_ecc_count: Option<u64>,
    /// What the driver says that the device needs.
    pub recovery_action: Option<RecoveryAction>,
    /// What slows it down.
    pub throttle: Option<Throttle>,
    /// Whether a row of memory is to be replaced at the next reset.
    pub remap_pending: Option<bool>,
}

/// What slows a device down, of that which tells of its health. A limit on power is everyday business and not among it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Throttle {
    /// The driver lowers the clocks because of heat.
    pub software_thermal: bool,
    /// The hardware halves the clocks, or more, because of heat.
    pub hardware_thermal: bool,
    /// The power supply has the hardware halve the clocks, or more.
    pub power_brake: bool,
    /// The hardware halves the clocks, or more, for one of the reasons above or for its power draw.
    pub hardware_slowdown: bool,
}

/// How a device is, and what its verdict calls for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// How it is.
    pub state: DeviceState,
    /// Whether the device's breaker has to open now. It says so once for each cause; while the state is
    /// [`DeviceState::Unhealthy`], the breaker stays open whatever its probes find.
    pub trips: bool,
    /// Whether an operator has to hear of it now: the device has become unhealthy, for another reason than before, or has a
    /// remapping pending.
    pub alerts_operator: bool,
}

/// How a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceState {
    /// Nothing is known against it.
    Healthy,
    /// It works, and is not what it should be. This is no failure.
    Degraded(DegradedReason),
    /// Nothing may be started on it.
    Unhealthy(UnhealthyReason),
}

/// Why a device is degraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DegradedReason {
    /// A row of its memory is to be replaced, which takes a reset: drain it when you can.
    RemapPending,
    /// It has met memory errors that it could not correct.
    UncorrectedEcc {
        /// Since the driver was loaded.
        count: u64,
    },
    /// It corrects more memory errors than it should.
    ManyCorrectedErrors,
    /// It is slowed down.
    Throttled(Throttle),
}

/// Why a device is unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnhealthyReason {
    /// The driver asks for this.
    RecoveryAction(RecoveryAction),
    /// It has fallen off its bus, or cannot be reached.
    Gone,
    /// This Xid concerns the whole device.
    Xid(u32),
    /// Errors that were contained come again and again.
    RepeatedContained,
    /// Processes that hold it were killed and do not end.
    Suspect {
        /// How many.
        processes: usize,
    },
}

/// The health of one device; see the tables of this module.
#[derive(Clone, Debug, Default)]
pub struct DeviceHealth {
    killed_at: Option<Timestamp>,
    /// The last count.
    uncorrected: Option<u64>,
    uncorrected_rose_at: Option<Timestamp>,
    many_corrected_at: Option<Timestamp>,
    /// The last one that was said.
    action: Option<RecoveryAction>,
    hold: Option<Hold>,
    /// When the last two errors of the hardware began: the one before, then the last one.
    contained: [Option<Timestamp>; 2],
    /// Whether a process has met the last one.
    met_last: bool,
    throttle: Throttle,
    remap_pending: bool,
    stuck: usize,
}

/// A cause that the driver has to take back.
#[derive(Clone, Copy, Debug)]
struct Hold {
    reason: UnhealthyReason,
    /// Whether the driver has asked for something since.
    asked: bool,
    /// Since when it has said that nothing is needed.
    quiet_since: Option<Timestamp>,
}

impl DeviceHealth {
    /// A device that nothing is known of: healthy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The runtime kills, at `now`, a process that uses the device. To be said before the kill: its Xid is fast.
    pub const fn on_kill(&mut self, now: Timestamp) {
        self.killed_at = Some(now);
    }

    /// The fault that an Xid tells of now; `None` for one that is not a fault, and for the echo of a kill of our own.
    #[must_use]
    pub fn fault_of(&self, number: u32, now: Timestamp) -> Option<Fault> {
        xid::fault(number, self.is_after_our_kill(now))
    }

    fn is_after_our_kill(&self, now: Timestamp) -> bool {
        self.killed_at.is_some_and(|at| now - at <= KILL_WINDOW)
    }

    /// The driver has told of an Xid.
    pub fn on_xid(&mut self, number: u32, now: Timestamp) -> Verdict {
        let before = self.state(now);
        let after_our_kill = self.is_after_our_kill(now);
        let mut trips = false;
        match xid::classify(number, after_our_kill) {
            XidAction::Ignore
            | XidAction::Note
            | XidAction::ReadRecoveryAction
            | XidAction::RestartProcess => {}
            XidAction::Degrade => self.many_corrected_at = Some(now),
            XidAction::Contained => trips = self.note_contained(false, now),
            XidAction::StopPeerAccess | XidAction::ResetDevice | XidAction::DeviceLost => {
                self.hold(UnhealthyReason::Xid(number));
                trips = true;
            }
        }
        self.verdict(before, trips, false, now)
    }

    /// A process that holds the device has met this fault. The driver may tell of the same one by an Xid.
    pub fn on_fault(&mut self, fault: Fault, now: Timestamp) -> Verdict {
        let before = self.state(now);
        let is_memory = fault.class == FaultClass::HardwareMemory;
        if is_memory {
            self.uncorrected_rose_at = Some(now);
        }
        let is_of_hardware = is_memory || fault.class == FaultClass::Contained;
        // One whose cure is another device may be a mistake of one process; two are not.
        let counts = is_of_hardware || fault.class.depth() >= RestartDepth::Device;
        // Several processes meet the loss of a device, or of its driver, at once.
        let trips = counts && self.note_contained(is_of_hardware, now);
        self.verdict(before, trips, false, now)
    }

    /// Somebody has looked at the device.
    pub fn on_sample(&mut self, sample: &DeviceSample, now: Timestamp) -> Verdict {
        let before = self.state(now);
        let mut trips = false;
        if let Some(action) = sample.recovery_action {
            trips |= action != RecoveryAction::None && self.action != Some(action);
            self.action = Some(action);
            self.settle(action, now);
        }
        if let Some(count) = sample.uncorrected_ecc_count {
            // A lower one: the driver was loaded anew, or the device reset.
            let rose = self.uncorrected.is_some_and(|last| count > last);
            self.uncorrected = Some(count);
            if rose {
                self.uncorrected_rose_at = Some(now);
                trips = true;
            }
        }
        self.throttle = sample.throttle.unwrap_or(self.throttle);
        let remap_pending = sample.remap_pending.unwrap_or(self.remap_pending);
        let alerts = remap_pending && !self.remap_pending;
        self.remap_pending = remap_pending;
        self.verdict(before, trips, alerts, now)
    }

    /// The driver says that the device is lost. It may be said again and again.
    pub fn on_gone(&mut self, now: Timestamp) -> Verdict {
        let before = self.state(now);
        let trips = self.hold.is_none_or(|hold| hold.reason != UnhealthyReason::Gone);
        self.hold(UnhealthyReason::Gone);
        self.verdict(before, trips, false, now)
    }

    /// A process that holds the device was killed and does not end; or it has, after all.
    pub fn on_stuck(&mut self, is_stuck: bool, now: Timestamp) -> Verdict {
        let before = self.state(now);
        self.stuck = if is_stuck { self.stuck + 1 } else { self.stuck.saturating_sub(1) };
        self.verdict(before, false, false, now)
    }

    /// An operator has reset or replaced the device: nothing of before counts, but for processes that hold it. What the driver still asks
    /// for comes back with the next sample.
    pub fn on_reset(&mut self, now: Timestamp) -> Verdict {
        let before = self.state(now);
        *self = Self { killed_at: self.killed_at, stuck: self.stuck, ..Self::default() };
        self.verdict(before, false, false, now)
    }

    /// How the device is at `now`: what only lasts for a time ends without an input.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> DeviceState {
        let within = |at: Option<Timestamp>| at.is_some_and(|at| now - at < CONTAINED_WINDOW);
        let action = self.action.filter(|action| *action != RecoveryAction::None);
        if let Some(action) = action {
            DeviceState::Unhealthy(UnhealthyReason::RecoveryAction(action))
        } else if let Some(hold) = self.hold {
            DeviceState::Unhealthy(hold.reason)
        } else if self.repeats() && within(self.contained[1]) {
            DeviceState::Unhealthy(UnhealthyReason::RepeatedContained)
        } else if self.stuck > 0 {
            DeviceState::Unhealthy(UnhealthyReason::Suspect { processes: self.stuck })
        } else if self.remap_pending {
            DeviceState::Degraded(DegradedReason::RemapPending)
        } else if within(self.uncorrected_rose_at) {
            let count = self.uncorrected.unwrap_or_default();
            DeviceState::Degraded(DegradedReason::UncorrectedEcc { count })
        } else if within(self.many_corrected_at) {
            DeviceState::Degraded(DegradedReason::ManyCorrectedErrors)
        } else if self.throttle.is_any() {
            DeviceState::Degraded(DegradedReason::Throttled(self.throttle))
        } else {
            DeviceState::Healthy
        }
    }

    /// Whether it is one too many. `met`: a process tells of it, which is one for each process, where the driver tells of each channel.
    fn note_contained(&mut self, met: bool, now: Timestamp) -> bool {
        let [_, last] = self.contained;
        let is_recent = last.is_some_and(|last| now - last < CONTAINED_BURST);
        if is_recent && !(met && self.met_last) {
            self.met_last |= met;
            return false;
        }
        self.contained = [last, Some(now)];
        self.met_last = met;
        self.repeats()
    }

    fn repeats(&self) -> bool {
        match self.contained {
            [Some(before), Some(last)] => last - before <= CONTAINED_WINDOW,
            [None, _] | [_, None] => false,
        }
    }

    /// The first reason stays, so that a storm of Xids is one; a device that is gone is the worst of them.
    fn hold(&mut self, reason: UnhealthyReason) {
        let first = self.hold.map(|hold| hold.reason).filter(|_| reason != UnhealthyReason::Gone);
        self.hold = Some(Hold {
            reason: first.unwrap_or(reason),
            asked: self.action.is_some_and(|action| action != RecoveryAction::None),
            quiet_since: None,
        });
    }

    fn settle(&mut self, action: RecoveryAction, now: Timestamp) {
        let Some(hold) = &mut self.hold else { return };
        if action != RecoveryAction::None {
            hold.asked = true;
            hold.quiet_since = None;
            return;
        }
        let since = *hold.quiet_since.get_or_insert(now);
        if hold.asked || now - since >= SETTLE {
            self.hold = None;
        }
    }

    fn verdict(&self, before: DeviceState, trips: bool, alerts: bool, now: Timestamp) -> Verdict {
        let state = self.state(now);
        let worsens = matches!(state, DeviceState::Unhealthy(_)) && state != before;
        Verdict { state, trips, alerts_operator: alerts || worsens }
    }
}

impl Throttle {
    /// Whether anything slows the device down.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.names().next().is_some()
    }

    /// The reasons that apply, in a few words each.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let reasons = [
            (self.hardware_thermal, "hardware thermal slowdown"),
            (self.software_thermal, "software thermal slowdown"),
            (self.power_brake, "power brake"),
            (self.hardware_slowdown, "hardware slowdown"),
        ];
        reasons.into_iter().filter_map(|(applies, name)| applies.then_some(name))
    }
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("healthy"),
            Self::Degraded(reason) => write!(f, "degraded: {reason}"),
            Self::Unhealthy(reason) => write!(f, "unhealthy: {reason}"),
        }
    }
}

impl fmt::Display for DegradedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemapPending => {
                f.write_str("a row remapping is pending: drain the device when you can, then reset it")
            }
            Self::UncorrectedEcc { count } => {
                write!(f, "memory errors that were not corrected, {count} since the driver was loaded")
            }
            Self::ManyCorrectedErrors => f.write_str("many corrected memory errors (Xid 92)"),
            Self::Throttled(throttle) => {
                f.write_str("slowed down")?;
                for (at, name) in throttle.names().enumerate() {
                    write!(f, "{} {name}", if at == 0 { ":" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for UnhealthyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecoveryAction(action) => write!(f, "the driver asks for a recovery action: {action}"),
            Self::Gone => f.write_str("the device has fallen off its bus or cannot be reached"),
            Self::Xid(number) => write!(f, "{} (Xid {number})", xid::name(*number)),
            Self::RepeatedContained => f.write_str("errors of its hardware come again and again"),
            Self::Suspect { processes } => {
                write!(f, "suspect: processes that hold it, were killed and do not end: {processes}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
