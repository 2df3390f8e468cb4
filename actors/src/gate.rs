//! The breaker's published state: one word that senders read.
//!
//! The breaker actor decides every change of state and publishes it here; admission is one load. What must be exact at
//! the moment it happens is counted in the word itself: consecutive failures while closed, free probe slots while
//! half-open. The failure that reaches the threshold, and a probe that fails, turn the word to *tripping*, which refuses like *open*
//! until the actor has decided.
//!
//! | mode | count means | admission | success | failure |
//! |---|---|---|---|---|
//! | closed | consecutive failures | yes | writes 0 if it is not 0 | +1, at the threshold -> tripping |
//! | half-open | free probe slots | takes a slot, refuses at 0 | to the actor | -> tripping |
//! | tripping, open | - | refuses | stale | stale |
//! | isolated | - | refuses | stale | stale |
//! | disabled | - | yes | nothing | nothing |
//!
//! A success writes nothing while no failure is counted, so a busy healthy kernel shares the word's cache line read-only.
//!
//! Word: bits 0..3 mode, 3..35 count, 35..64 generation. A permit carries its generation, and an outcome of another
//! generation changes nothing.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use rustkernel_core::error::{BreakerScope, Rejection, RejectionCause};
use rustkernel_core::resilience::{CircuitBreakerConfig, Outcome};

use crate::sync::AtomicU64;

const MODE_BITS: u32 = 3;
const COUNT_BITS: u32 = 32;
const GENERATION_SHIFT: u32 = MODE_BITS + COUNT_BITS;
const GENERATION_MASK: u64 = (1 << (64 - GENERATION_SHIFT)) - 1;

/// What the word says about admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    Closed = 0,
    HalfOpen = 1,
    Tripping = 2,
    Open = 3,
    Isolated = 4,
    Disabled = 5,
}

/// Proof of admission; its outcome goes back to the gate exactly once. Bit 0: whether it took a probe slot; the rest: the
/// generation that admitted, modulo 2^29.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permit(u32);

/// What the breaker actor has to be told about an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The consecutive failures reached the threshold; the gate is tripping.
    Tripped { generation: u64 },
    /// A probe ended. After a failure the gate is tripping. `more` when further probes are let in whatever is decided.
    Probe { generation: u64, outcome: Outcome, took: Duration, more: bool },
    /// A call ended, and the configuration has a window that wants every outcome.
    Sample { generation: u64, outcome: Outcome, took: Duration },
}

impl Report {
    /// Whether the next caller could meet another state than after the actor's decision. Only then does an answer wait for it.
    pub(crate) fn is_urgent(&self) -> bool {
        match self {
            Self::Tripped { .. } => true,
            Self::Probe { outcome, more, .. } => *outcome != Outcome::Success || !more,
            // A good call can open a window by its slowness, which surprises nobody; a failed one by its failure.
            Self::Sample { outcome, .. } => *outcome == Outcome::Failure,
        }
    }
}

/// The gate of one breaker.
#[derive(Debug)]
pub(crate) struct Gate {
    word: AtomicU64,
    stale: AtomicU64,
    rejected: AtomicU64,
    failure_threshold: u32,
    open_for: Duration,
    samples: bool,
}

/// A refusal: the word as it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused(Word);

#[derive(Clone, Copy, Debug)]
struct Word(u64);

impl Word {
    const fn new(mode: Mode, count: u32, generation: u64) -> Self {
        Self(mode as u64 | (count as u64) << MODE_BITS | (generation & GENERATION_MASK) << GENERATION_SHIFT)
    }

    const fn mode(self) -> Mode {
        match self.0 & ((1 << MODE_BITS) - 1) {
            0 => Mode::Closed,
            1 => Mode::HalfOpen,
            2 => Mode::Tripping,
            3 => Mode::Open,
            4 => Mode::Isolated,
            _ => Mode::Disabled,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "the count field is 32 bits wide")]
    const fn count(self) -> u32 {
        (self.0 >> MODE_BITS) as u32
    }

    const fn generation(self) -> u64 {
        self.0 >> GENERATION_SHIFT
    }

    const fn with_count(self, count: u32) -> Self {
        Self::new(self.mode(), count, self.generation())
    }

    const fn with_mode(self, mode: Mode) -> Self {
        Self::new(mode, 0, self.generation())
    }
}

impl Permit {
    #[allow(clippy::cast_possible_truncation, reason = "a generation has 29 bits")]
    const fn new(generation: u64, probe: bool) -> Self {
        Self((generation as u32) << 1 | probe as u32)
    }

    const fn generation(self) -> u64 {
        (self.0 >> 1) as u64
    }

    const fn is_probe(self) -> bool {
        self.0 & 1 == 1
    }

    /// The generation to tell the breaker actor of, if this is a probe.
    pub(crate) fn probe_generation(self) -> Option<u64> {
        self.is_probe().then(|| self.generation())
    }
}

impl Gate {
    /// A closed gate, or a disabled one when the kernel has no breaker.
    pub(crate) fn new(config: Option<&CircuitBreakerConfig>) -> Self {
        let mode = if config.is_some() { Mode::Closed } else { Mode::Disabled };
        Self {
            word: AtomicU64::new(Word::new(mode, 0, 0).0),
            stale: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            failure_threshold: config.map_or(u32::MAX, |config| config.failure_threshold),
            open_for: config.map_or(Duration::ZERO, |config| config.timeout),
            samples: config.is_some_and(|config| config.window.is_some()),
        }
    }

    /// Lets a request in, or says why not. Reads one word and no clock; neither a closed nor an open gate writes anything.
    #[inline]
    pub(crate) fn admit(&self) -> Result<Permit, Refused> {
        let word = Word(self.word.load(Acquire));
        match word.mode() {
            Mode::Closed | Mode::Disabled => Ok(Permit::new(word.generation(), false)),
            Mode::HalfOpen => self.admit_probe(word),
            Mode::Tripping | Mode::Open | Mode::Isolated => Err(Refused(word)),
        }
    }

    /// Whether a success of `permit` would write nothing and concern nobody.
    #[inline]
    pub(crate) fn is_quiet(&self, permit: Permit) -> bool {
        let word = Word(self.word.load(Relaxed));
        let counts_nothing = match word.mode() {
            Mode::Closed => word.count() == 0 && word.generation() == permit.generation() && !self.samples,
            Mode::Disabled => true,
            Mode::HalfOpen | Mode::Tripping | Mode::Open | Mode::Isolated => false,
        };
        counts_nothing && !permit.is_probe()
    }

    /// Takes the permit's outcome. What comes back must reach the breaker actor.
    #[inline]
    pub(crate) fn observe(&self, permit: Permit, outcome: Outcome, took: Duration) -> Option<Report> {
        if outcome == Outcome::Success && self.is_quiet(permit) {
            return None;
        }
        self.observe_slowly(permit, outcome, took)
    }

    /// Publishes what the actor decided. `count` is the number of probe slots for half-open and 0 otherwise.
    pub(crate) fn publish(&self, mode: Mode, count: u32, generation: u64) {
        // A swap, so that it has its place among the exchanges of the outcomes in loom's models too: they do not order a
        // plain store against them.
        self.word.swap(Word::new(mode, count, generation).0, AcqRel);
    }

    /// Takes a permit back whose request was refused at the door: nobody has to be told.
    pub(crate) fn give_back(&self, permit: Permit) {
        if permit.is_probe() {
            // The report would be about a probe that the breaker actor has never heard of.
            let _unheard = self.observe_slowly(permit, Outcome::Inconclusive, Duration::ZERO);
        }
    }

    /// Whether every outcome has to be timed and reported.
    pub(crate) fn samples(&self) -> bool {
        self.samples
    }

    /// The published mode.
    pub(crate) fn mode(&self) -> Mode {
        Word(self.word.load(Acquire)).mode()
    }

    /// The published state in a word.
    pub(crate) fn state_name(&self) -> &'static str {
        match self.mode() {
            Mode::Closed => "closed",
            Mode::HalfOpen => "half_open",
            Mode::Tripping | Mode::Open => "open",
            Mode::Isolated => "isolated",
            Mode::Disabled => "disabled",
        }
    }

    /// Consecutive failures counted while closed.
    pub(crate) fn failures(&self) -> u32 {
        let word = Word(self.word.load(Acquire));
        if word.mode() == Mode::Closed { word.count() } else { 0 }
    }

    /// Outcomes that came too late for their generation.
    pub(crate) fn stale(&self) -> u64 {
        self.stale.load(Relaxed)
    }

    /// Requests refused.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    #[cold]
    fn admit_probe(&self, mut word: Word) -> Result<Permit, Refused> {
        while word.mode() == Mode::HalfOpen {
            let Some(left) = word.count().checked_sub(1) else {
                return Err(Refused(word));
            };
            match self.word.compare_exchange(word.0, word.with_count(left).0, AcqRel, Acquire) {
                Ok(_) => return Ok(Permit::new(word.generation(), true)),
                Err(now) => word = Word(now),
            }
        }
        self.admit()
    }

    #[cold]
    fn observe_slowly(&self, permit: Permit, outcome: Outcome, took: Duration) -> Option<Report> {
        let generation = permit.generation();
        let mut word = Word(self.word.load(Acquire));
        loop {
            if word.generation() != generation {
                self.stale.fetch_add(1, Relaxed);
                return None;
            }
            let (next, report) = match (word.mode(), permit.is_probe()) {
                (Mode::Closed, _) => self.in_closed(word, outcome, took),
                (Mode::HalfOpen, true) => in_half_open(word, outcome, took),
                (Mode::Disabled, _) => return None,
                (Mode::HalfOpen | Mode::Tripping | Mode::Open | Mode::Isolated, _) => {
                    self.stale.fetch_add(1, Relaxed);
                    return None;
                }
            };
            match self.word.compare_exchange(word.0, next.0, AcqRel, Acquire) {
                Ok(_) => return report,
                Err(now) => word = Word(now),
            }
        }
    }

    fn in_closed(&self, word: Word, outcome: Outcome, took: Duration) -> (Word, Option<Report>) {
        let generation = word.generation();
        let sample = self.samples.then_some(Report::Sample { generation, outcome, took });
        match outcome {
            Outcome::Success => (word.with_count(0), sample),
            // It says nothing about the kernel, and a refusal must not cost a message.
            Outcome::Neutral | Outcome::Inconclusive => (word, None),
            Outcome::Failure => {
                let failures = word.count().saturating_add(1);
                if failures >= self.failure_threshold {
                    (word.with_mode(Mode::Tripping), Some(Report::Tripped { generation }))
                } else {
                    (word.with_count(failures), sample)
                }
            }
        }
    }

    /// Counts a refusal and says what it knows.
    #[cold]
    pub(crate) fn explain(&self, Refused(word): Refused) -> Rejection {
        self.rejected.fetch_add(1, Relaxed);
        let (cause, retry_after) = match word.mode() {
            Mode::Isolated => (RejectionCause::Isolated, None),
            Mode::HalfOpen => (RejectionCause::ProbesOut, None),
            Mode::Closed | Mode::Disabled | Mode::Tripping | Mode::Open => {
                (RejectionCause::Failures, Some(self.open_for))
            }
        };
        Rejection { scope: BreakerScope::Kernel, cause, generation: word.generation(), retry_after }
    }
}

/// Whether a machine's generation is the one a gate carries.
pub(crate) const fn same_generation(machine: u64, gate: u64) -> bool {
    machine & GENERATION_MASK == gate & GENERATION_MASK
}

/// A good probe keeps its slot, so that good ones and those in flight never exceed the slots together; a probe that says
/// nothing gives it back.
fn in_half_open(word: Word, outcome: Outcome, took: Duration) -> (Word, Option<Report>) {
    let report = Some(Report::Probe { generation: word.generation(), outcome, took, more: word.count() > 0 });
    match outcome {
        Outcome::Success => (word, report),
        Outcome::Neutral | Outcome::Inconclusive => (word.with_count(word.count().saturating_add(1)), report),
        Outcome::Failure => (word.with_mode(Mode::Tripping), report),
    }
}
