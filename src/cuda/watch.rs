//! What is known of a device beside the answers to calls: its state, its breaker, and who is told when it turns.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustkernel_actors::SharedBreaker;
use rustkernel_core::DeviceId;
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::error::BreakerScope;
use rustkernel_core::fault::{DeviceHealth, DeviceSample, DeviceState, Fault, Verdict};
use rustkernel_core::rate_limit::{RateDecision, RateLimit};
use rustkernel_core::resilience::HealthCheckResult;

use super::nvml;

/// How a device is, for everybody in this process who uses it, whatever process its context lives in.
///
/// It hears of Xids, counters and the recovery action through NVML, where there is one, once somebody has opened the device; and of
/// processes that hold the device and do not end. Its breaker is open while nothing may be started on the device, and for [`TRIP_PAUSE`]
/// after what [`DeviceHealth`] says trips it.
#[derive(Clone)]
pub struct DeviceWatch(Arc<Watch>);

struct Watch {
    id: DeviceId,
    breaker: SharedBreaker,
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    health: DeviceHealth,
    signal: Signal,
    /// When NVML last said something of it, or was asked to.
    heard: Timestamp,
    /// When whoever asks NVML last came by, whatever it was told.
    turned: Timestamp,
    place: Option<String>,
    /// By which other tools know it.
    uuid: Option<String>,
    /// Another device that goes by the same name in another process.
    namesake: Option<String>,
    tripped: Option<Timestamp>,
    memory: Option<DeviceMemory>,
    /// When that was said.
    measured: Timestamp,
    /// What processes that have opened the device see of its memory, in bytes.
    seen: Option<u64>,
    /// How often each has been met, by the processes that this one watches over, and by the driver's word.
    faults: HashMap<Fault, u64>,
    /// The last that the listeners were told.
    was_fit: Told,
    listeners: Vec<Weak<dyn Fn() + Send + Sync>>,
    /// Of Xids, which come in storms.
    log: RateLimit,
}

/// Called when the device becomes unfit or fit again, as long as whoever listens keeps it.
pub(crate) type Listener = Arc<dyn Fn() + Send + Sync>;

/// Where the knowledge comes from.
#[derive(Clone, Default)]
enum Signal {
    /// Nobody has opened the device yet.
    #[default]
    Unasked,
    Nvml,
    /// NVML is not there, or does not have the device: why.
    None(String),
}

#[derive(Default, PartialEq, Eq)]
enum Told {
    #[default]
    Fit,
    Unfit,
}

/// Memory of a device, whoever uses it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// What is in use.
    pub used: u64,
    /// What there is.
    pub total: u64,
}

/// Without an answer of NVML for so long, what is known of a device is said to be old.
const STALE: Duration = Duration::from_secs(15);

/// What was said of its memory counts for so long, when a process has to be placed there.
const FRESH: Duration = Duration::from_secs(3);

/// How long a trip that leaves the device fit for use keeps its breaker open: for processes that were hit to end and be replaced.
pub const TRIP_PAUSE: Duration = Duration::from_secs(5);

static WATCHES: Mutex<Option<HashMap<DeviceId, DeviceWatch>>> = Mutex::new(None);

impl DeviceWatch {
    /// The one of this device; everybody in the process has the same.
    #[must_use]
    pub fn of(id: DeviceId) -> Self {
        let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        watches.get_or_insert_default().entry(id).or_insert_with(|| Self::new(id, Clock::system())).clone()
    }

    fn new(id: DeviceId, clock: Clock) -> Self {
        let breaker = SharedBreaker::new(BreakerScope::Device);
        Self(Arc::new(Watch { id, breaker, clock, known: Mutex::default() }))
    }

    /// The device's name.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.0.id
    }

    /// The breaker of every kernel on it, in worker processes.
    #[must_use]
    pub fn breaker(&self) -> &SharedBreaker {
        &self.0.breaker
    }

    /// How it is, as far as it is known.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        self.lock().health.state(self.0.clock.now())
    }

    /// Its memory, when NVML was last asked.
    #[must_use]
    pub fn memory(&self) -> Option<DeviceMemory> {
        self.lock().memory
    }

    /// Whether twice as much as is in use fits into its memory, as far as NVML said lately.
    #[cfg_attr(
        not(all(feature = "worker", target_os = "linux")),
        expect(dead_code, reason = "only worker processes take over from one another")
    )]
    pub(crate) fn has_room(&self) -> bool {
        let known = self.lock();
        let is_new = self.0.clock.now().saturating_since(known.measured) < FRESH;
        known.memory.filter(|_| is_new).is_some_and(|memory| {
            // Of a part of a device NVML tells as of the whole of it.
            let is_whole = known.seen.is_some_and(|seen| seen >= memory.total / 16 * 15);
            known.namesake.is_none() && is_whole && memory.used <= memory.total / 2
        })
    }

    /// By which other tools know it: what NVML says, `unknown` where that says nothing, and `None` as long as it has
    /// not been asked or may still answer.
    #[must_use]
    pub fn uuid(&self) -> Option<String> {
        let known = self.lock();
        match (&known.uuid, &known.signal) {
            (Some(uuid), _) => Some(uuid.clone()),
            (None, Signal::None(_)) => Some("unknown".to_owned()),
            (None, Signal::Nvml) => {
                let is_silent = self.0.clock.now().saturating_since(known.heard) >= STALE;
                is_silent.then(|| "unknown".to_owned())
            }
            (None, Signal::Unasked) => None,
        }
    }

    /// Whether whoever asks NVML of it has not come by for `span`, and for 15 s: a call does not come back.
    #[must_use]
    pub fn is_stuck(&self, span: Duration) -> bool {
        let known = self.lock();
        let since = self.0.clock.now().saturating_since(known.turned);
        matches!(known.signal, Signal::Nvml) && since >= span.max(STALE)
    }

    /// NVML is about to be asked.
    pub(super) fn note_turn(&self) {
        let now = self.0.clock.now();
        self.lock().turned = now;
    }

    /// NVML has said so.
    pub(super) fn identified(&self, uuid: String) {
        self.lock().uuid = Some(uuid);
    }

    /// Every device that this process knows, by name.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Self> = watches.iter().flat_map(HashMap::values).cloned().collect();
        all.sort_by_key(Self::id);
        all
    }

    /// The faults that were met on it, and how often each.
    #[must_use]
    pub fn faults(&self) -> Vec<(Fault, u64)> {
        let mut faults: Vec<_> = self.lock().faults.iter().map(|(fault, count)| (*fault, *count)).collect();
        faults.sort_by_key(|(fault, _)| fault.code.to_string());
        faults
    }

    /// Why nothing may be started on it, if nothing may.
    #[must_use]
    pub fn unfit(&self) -> Option<String> {
        unfit(&self.lock(), self.0.clock.now())
    }

    /// The same as a health check tells it.
    #[must_use]
    pub fn health(&self) -> HealthCheckResult {
        let known = self.lock();
        let now = self.0.clock.now();
        if let Some(why) = unfit(&known, now) {
            return HealthCheckResult::unhealthy(why);
        }
        if let (Some(place), Some(other)) = (&known.place, &known.namesake) {
            return HealthCheckResult::degraded(format!(
                "two devices go by its name: {place} is watched, {other} is not"
            ));
        }
        let silent = now.saturating_since(known.heard);
        if matches!(known.signal, Signal::Nvml) && silent >= STALE {
            return HealthCheckResult::degraded(format!("NVML has not answered for {} s", silent.as_secs()));
        }
        match (known.health.state(now), &known.signal) {
            (state @ DeviceState::Degraded(_), _) => HealthCheckResult::degraded(state.to_string()),
            (_, Signal::None(why)) => HealthCheckResult {
                reason: Some(format!("no signal from NVML: {why}")),
                ..HealthCheckResult::healthy()
            },
            (_, Signal::Unasked | Signal::Nvml) => HealthCheckResult::healthy(),
        }
    }

    /// An operator has reset or replaced the device: what was known against it counts no more.
    pub fn on_reset(&self) {
        self.judge(|known, now| {
            known.tripped = None;
            known.health.on_reset(now)
        });
    }

    /// Somebody has opened the device, which is on the bus at `place`, as NVML writes it, and has so many bytes of memory there: from now on
    /// it is watched.
    pub(crate) fn located(&self, place: &str, memory_bytes: u64) {
        let mut known = self.lock();
        known.seen = Some(memory_bytes);
        match &known.place {
            None => {
                known.place = Some(place.to_owned());
                known.signal = Signal::Nvml;
                known.heard = self.0.clock.now();
                known.turned = known.heard;
                drop(known);
                nvml::watch(self, place);
            }
            Some(first) if first != place && known.namesake.is_none() => {
                tracing::error!(device = %self.id(), first, second = place, "two devices go by one name");
                known.namesake = Some(place.to_owned());
            }
            Some(_) => {}
        }
    }

    /// A process that uses the device is about to be killed.
    #[cfg_attr(
        not(all(feature = "worker", target_os = "linux")),
        expect(dead_code, reason = "only worker processes are killed for a device")
    )]
    pub(crate) fn note_kill(&self) {
        self.lock().health.on_kill(self.0.clock.now());
    }

    /// Somebody has met a fault of it.
    pub(crate) fn note_fault(&self, fault: Fault) {
        self.judge(|known, now| {
            *known.faults.entry(fault).or_default() += 1;
            known.health.on_fault(fault, now)
        });
    }

    /// A process that holds the device was killed and does not end: until what this gives is dropped.
    #[cfg_attr(
        not(all(feature = "worker", target_os = "linux")),
        expect(dead_code, reason = "only worker processes are killed for a device")
    )]
    pub(crate) fn suspect(&self) -> Suspect {
        self.judge(|known, now| known.health.on_stuck(true, now));
        Suspect(self.clone())
    }

    /// Has `listener` called, on any thread, when the device becomes unfit, or fit again, until nobody has it any more.
    #[cfg_attr(
        not(all(feature = "worker", target_os = "linux")),
        expect(dead_code, reason = "only worker processes are killed for a device")
    )]
    pub(crate) fn on_turn(&self, listener: &Listener) {
        let mut known = self.lock();
        known.listeners.retain(|listener| listener.strong_count() > 0);
        known.listeners.push(Arc::downgrade(listener));
    }

    /// There is no signal, for this reason.
    pub(super) fn deaf(&self, why: &str) {
        self.lock().signal = Signal::None(why.to_owned());
        tracing::info!(device = %self.id(), "no signal from NVML: {why}");
    }

    pub(super) fn on_xid(&self, number: u32) {
        self.judge(|known, now| {
            if let RateDecision::Allow { refused: suppressed } = known.log.allow(now) {
                tracing::warn!(device = %self.id(), xid = number, suppressed, "the driver tells of an Xid");
            }
            if let Some(fault) = known.health.fault_of(number, now) {
                *known.faults.entry(fault).or_default() += 1;
            }
            known.health.on_xid(number, now)
        });
    }

    pub(super) fn on_gone(&self) {
        self.judge(|known, now| {
            known.heard = now;
            known.health.on_gone(now)
        });
    }

    pub(crate) fn on_sample(&self, sample: &DeviceSample, memory: Option<DeviceMemory>) {
        self.judge(|known, now| {
            if memory.is_some() {
                (known.memory, known.measured) = (memory, now);
            }
            // Where every question is answered by an error, nothing is heard.
            if memory.is_some() || *sample != DeviceSample::default() {
                known.heard = now;
            }
            known.health.on_sample(sample, now)
        });
    }

    /// Takes something in; the breaker follows, an operator hears of what needs one, and whoever listens is told if the device has turned.
    fn judge(&self, input: impl FnOnce(&mut Known, Timestamp) -> Verdict) {
        let mut known = self.lock();
        let now = self.0.clock.now();
        let Verdict { state, trips, alerts_operator } = input(&mut known, now);
        if alerts_operator {
            tracing::error!(device = %self.id(), "an operator has to look at it: {state}");
        }
        if trips {
            known.tripped = Some(now);
        }
        let is_unfit = matches!(state, DeviceState::Unhealthy(_));
        if !is_unfit && known.was_fit == Told::Unfit {
            // Who says so knows more than the pause.
            known.tripped = None;
        }
        known.tripped = known.tripped.filter(|at| now.saturating_since(*at) < TRIP_PAUSE);
        match (is_unfit, known.tripped) {
            (true, _) => self.0.breaker.open(None),
            // It closes by itself, should nothing be heard of the device any more.
            (false, Some(at)) => self.0.breaker.open_for((at + TRIP_PAUSE).saturating_since(now)),
            (false, None) => self.0.breaker.close(),
        };
        let told = if is_unfit { Told::Unfit } else { Told::Fit };
        if known.was_fit == told {
            return;
        }
        known.was_fit = told;
        let listeners: Vec<Listener> = known.listeners.iter().filter_map(Weak::upgrade).collect();
        drop(known);
        // Without the lock: they may ask.
        listeners.iter().for_each(|listener| listener());
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unfit(known: &Known, now: Timestamp) -> Option<String> {
    match known.health.state(now) {
        state @ DeviceState::Unhealthy(_) => Some(state.to_string()),
        DeviceState::Healthy | DeviceState::Degraded(_) => None,
    }
}

/// A process that was killed holds the device.
#[derive(Debug)]
pub(crate) struct Suspect(DeviceWatch);

impl Drop for Suspect {
    fn drop(&mut self) {
        self.0.judge(|known, now| known.health.on_stuck(false, now));
    }
}

impl fmt::Debug for DeviceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceWatch").field("id", &self.id()).field("state", &self.state()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustkernel_core::clock::ManualClock;
    use rustkernel_core::fault::RecoveryAction;
    use rustkernel_core::resilience::HealthStatus;

    use super::*;

    fn watched() -> (DeviceWatch, ManualClock, Arc<AtomicUsize>, Listener) {
        let (clock, time) = Clock::manual();
        let watch = DeviceWatch::new(DeviceId::cuda(7), clock);
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let listener: Listener = Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        watch.on_turn(&listener);
        (watch, time, turns, listener)
    }

    fn asks_for(action: RecoveryAction) -> DeviceSample {
        DeviceSample { recovery_action: Some(action), ..DeviceSample::default() }
    }

    #[test]
    fn an_unfit_device_is_refused_until_the_driver_takes_it_back() {
        let (watch, _time, turns, _listener) = watched();
        watch.on_xid(79);
        assert!(watch.breaker().is_open());
        assert_eq!(watch.health().status, HealthStatus::Unhealthy);
        watch.on_sample(&asks_for(RecoveryAction::GpuReset), None);
        assert_eq!(turns.load(Ordering::Relaxed), 1, "it was unfit before");
        watch.on_sample(&asks_for(RecoveryAction::None), None);
        assert!(watch.unfit().is_none() && !watch.breaker().is_open(), "{watch:?}");
        assert_eq!(turns.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn errors_that_leave_a_device_fit_open_its_breaker_for_a_while() {
        let (watch, time, turns, _listener) = watched();
        let errors = |count| DeviceSample { uncorrected_ecc_count: Some(count), ..DeviceSample::default() };
        watch.on_sample(&errors(3), None);
        assert!(!watch.breaker().is_open(), "the first count is where counting begins");
        watch.on_sample(&errors(4), None);
        assert!(watch.breaker().is_open());
        assert_eq!(watch.health().status, HealthStatus::Degraded);
        time.advance(TRIP_PAUSE);
        watch.on_sample(&errors(4), None);
        assert!(!watch.breaker().is_open());
        assert_eq!(turns.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_process_that_does_not_end_makes_its_device_suspect_for_as_long() {
        let (watch, _time, turns, _listener) = watched();
        watch.note_kill();
        watch.on_xid(45);
        assert!(watch.unfit().is_none(), "the echo of the kill");
        let suspect = watch.suspect();
        assert!(watch.unfit().unwrap().contains("suspect") && watch.breaker().is_open());
        drop(suspect);
        assert!(watch.unfit().is_none() && !watch.breaker().is_open());
        assert_eq!(turns.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn an_old_answer_is_not_taken_for_health_and_a_namesake_is_told() {
        let (watch, time, _turns, _listener) = watched();
        {
            let mut known = watch.lock();
            (known.signal, known.place) = (Signal::Nvml, Some("00000000:01:00.0".into()));
        }
        watch.on_sample(&asks_for(RecoveryAction::None), None);
        assert_eq!(watch.health().status, HealthStatus::Healthy);
        assert_eq!(watch.uuid(), None, "it may still be told");
        time.advance(STALE);
        assert_eq!(watch.uuid().unwrap(), "unknown");
        assert!(watch.is_stuck(Duration::ZERO) && !watch.is_stuck(STALE * 2));
        watch.note_turn();
        assert!(!watch.is_stuck(Duration::ZERO), "it was asked, and has not answered");
        assert_eq!(watch.health().reason.unwrap(), "NVML has not answered for 15 s");
        watch.on_sample(&DeviceSample::default(), None);
        assert_eq!(watch.health().status, HealthStatus::Degraded, "errors are no answers");
        watch.on_sample(&asks_for(RecoveryAction::None), None);
        assert_eq!(watch.health().status, HealthStatus::Healthy);
        watch.located("00000000:02:00.0", 0);
        assert!(watch.health().reason.unwrap().contains("00000000:02:00.0 is not"));
    }

    #[test]
    fn there_is_room_where_what_is_in_use_fits_twice_as_far_as_is_known_lately_of_the_whole_device() {
        let (watch, time, _turns, _listener) = watched();
        let memory = |used| Some(DeviceMemory { used, total: 1_600 });
        let sample = asks_for(RecoveryAction::None);
        watch.on_sample(&sample, memory(800));
        assert!(!watch.has_room(), "nobody has opened it");
        watch.lock().seen = Some(1_500);
        assert!(watch.has_room());
        watch.on_sample(&sample, memory(801));
        assert!(!watch.has_room());
        watch.on_sample(&sample, memory(10));
        watch.lock().seen = Some(200);
        assert!(!watch.has_room(), "the process has a part of it");
        watch.lock().seen = Some(1_600);
        time.advance(FRESH);
        watch.on_sample(&sample, None);
        assert!(!watch.has_room(), "nothing has been said of its memory since");
    }

    #[test]
    fn no_signal_is_said_and_is_no_trouble() {
        let (watch, _time, _turns, _listener) = watched();
        assert!(watch.uuid().is_none() && !watch.is_stuck(Duration::ZERO), "nobody has opened it");
        watch.deaf("there is no such library");
        assert_eq!(watch.uuid().unwrap(), "unknown");
        let health = watch.health();
        assert_eq!(health.status, HealthStatus::Healthy);
        assert_eq!(health.reason.unwrap(), "no signal from NVML: there is no such library");
    }
}
