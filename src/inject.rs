//! Fault injection: a kernel that panics, errs and hangs on purpose, reproducibly.
//!
//! [`Faulty`] wraps a kernel and asks an [`Injector`] before each execution. The decision is a pure function of the seed, the
//! kernel's name, the request, the call within the request and the attempt; it reads neither clock nor thread, so
//! the same seed gives the same faults, and the next attempt of a call has its own decision.
//!
//! | fault | what the kernel does |
//! |---|---|
//! | panic | unwinds from inside the execution; only the panic hook, which would print each one, is not called |
//! | error | returns [`KernelError::transient`] |
//! | kill | ends the process that it runs in: only for kernels that live in a worker process |
//! | hang | spins, or blocks its thread, until it has been [cancelled or fenced](Context::is_cancelled) |
//!
//! What it does NOT do: corrupt results. A call that is spared a fault gives exactly what the wrapped kernel gives.

use std::fmt;
use std::hint;
use std::panic::resume_unwind;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustkernel_core::envelope::Header;
use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};
use rustkernel_core::traits::{CheckpointableKernel, Context, Kernel};
use serde::{Deserialize, Serialize};

/// How often each fault strikes: probabilities of an attempt, which add up to at most 1.
///
/// Parsed from `panic=0.2,error=0.2,hang=0.05,kill=0.01`; a fault that is not named never strikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultMix {
    panic: f64,
    error: f64,
    hang: f64,
    kill: f64,
}

/// Why a text is no [`FaultMix`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultMixError {
    /// A part that is not `fault=probability`.
    #[error("`{part}` is not of the form fault=probability, as in panic=0.2,error=0.2,hang=0.05")]
    NoPair {
        /// The part.
        part: String,
    },
    /// A fault there is not.
    #[error("`{name}` is no fault: there are panic, error, hang and kill")]
    UnknownFault {
        /// The name.
        name: String,
    },
    /// A fault that is named twice.
    #[error("`{name}` is given twice")]
    Twice {
        /// The name.
        name: &'static str,
    },
    /// A probability that is not between 0 and 1.
    #[error("{name}: `{text}` is no probability: it takes a number from 0 to 1")]
    Probability {
        /// The fault.
        name: &'static str,
        /// The value.
        text: String,
    },
    /// The probabilities add up to more than 1.
    #[error("the probabilities add up to {sum}, which is more than 1")]
    Sum {
        /// The sum.
        sum: f64,
    },
}

/// Decides which attempts fail, and how.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Injector {
    mix: FaultMix,
    seed: u64,
}

/// What an attempt is made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Unwind.
    Panic,
    /// Return a transient error.
    Error,
    /// Use the processor until fenced.
    Spin,
    /// Park the thread until fenced.
    Block,
    /// End the process.
    Kill,
}

/// A kernel with faults in front of it; without an injector, the kernel as it is.
pub struct Faulty<K: Kernel> {
    kernel: K,
    plan: Option<Arc<FaultPlan<K::Input>>>,
}

/// What one kernel's faults are decided from.
pub struct FaultPlan<I> {
    injector: Injector,
    kernel: Box<str>,
    call: fn(&I) -> u64,
}

impl FaultMix {
    /// Whether an attempt may hang.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.hang > 0.0
    }

    /// Whether an attempt may end its process.
    #[must_use]
    pub fn kills(&self) -> bool {
        self.kill > 0.0
    }

    fn checked(self) -> Result<Self, FaultMixError> {
        let sum = self.panic + self.error + self.hang + self.kill;
        // Ten tenths may add up to a little more than one.
        if sum > 1.0 + f64::EPSILON * 4.0 {
            return Err(FaultMixError::Sum { sum });
        }
        Ok(self)
    }
}

impl FromStr for FaultMix {
    type Err = FaultMixError;

    fn from_str(text: &str) -> Result<Self, FaultMixError> {
        let mut given: [Option<f64>; 4] = [None; 4];
        for part in text.split(',') {
            let no_pair = || FaultMixError::NoPair { part: part.to_owned() };
            let (name, value) = part.trim().split_once('=').ok_or_else(no_pair)?;
            let Some(fault) = NAMES.iter().position(|known| *known == name) else {
                return Err(FaultMixError::UnknownFault { name: name.to_owned() });
            };
            let probability = value.parse().ok().filter(|value| (0.0..=1.0).contains(value));
            let Some(probability) = probability else {
                return Err(FaultMixError::Probability { name: NAMES[fault], text: value.to_owned() });
            };
            if given[fault].replace(probability).is_some() {
                return Err(FaultMixError::Twice { name: NAMES[fault] });
            }
        }
        let [panic, error, hang, kill] = given.map(Option::unwrap_or_default);
        Self { panic, error, hang, kill }.checked()
    }
}

impl Injector {
    /// Faults in the proportions of `mix`, drawn by `seed`.
    #[must_use]
    pub fn new(mix: FaultMix, seed: u64) -> Self {
        Self { mix, seed }
    }

    /// How often each fault strikes.
    #[must_use]
    pub fn mix(&self) -> &FaultMix {
        &self.mix
    }

    /// What the attempt of `header` does. `call` tells the calls apart that one request makes of one kernel.
    #[must_use]
    pub fn decide(&self, kernel: &str, call: u64, header: &Header) -> Option<Fault> {
        let name = kernel.bytes().fold(self.seed, |hash, byte| scramble(hash ^ u64::from(byte)));
        let words = [header.id, call, u64::from(header.attempt)];
        let draw = words.into_iter().fold(name, |hash, word| scramble(hash ^ word));
        let point = (draw >> DRAW_SHIFT) as f64 / (1_u64 << (u64::BITS - DRAW_SHIFT)) as f64;
        let FaultMix { panic, error, hang, kill } = self.mix;
        if point < panic {
            Some(Fault::Panic)
        } else if point < panic + error {
            Some(Fault::Error)
        } else if point < panic + error + hang {
            // The lowest bit takes no part in the point.
            Some(if draw & 1 == 0 { Fault::Spin } else { Fault::Block })
        } else if point < panic + error + hang + kill {
            Some(Fault::Kill)
        } else {
            None
        }
    }
}

impl<I> FaultPlan<I> {
    /// Faults for the kernel called `kernel`. `call` tells the calls apart that one request makes of it, by their input: the
    /// iteration of a loop, for example.
    #[must_use]
    pub fn new(injector: Injector, kernel: &str, call: fn(&I) -> u64) -> Arc<Self> {
        Arc::new(Self { injector, kernel: kernel.into(), call })
    }

    /// Does what is decided for this attempt: nothing, or a fault.
    ///
    /// # Errors
    /// The error that the attempt is to return.
    ///
    /// # Panics
    /// On purpose.
    pub(crate) fn strike(&self, input: &I, cx: &Context<'_>) -> Result<(), KernelError> {
        let call = (self.call)(input);
        match self.injector.decide(&self.kernel, call, cx.header()) {
            Some(fault) => Err(fault.strike(cx)),
            None => Ok(()),
        }
    }
}

impl<K: Kernel> Faulty<K> {
    /// `kernel`, with the faults of `plan` if there is one.
    #[must_use]
    pub fn new(kernel: K, plan: Option<Arc<FaultPlan<K::Input>>>) -> Self {
        Self { kernel, plan }
    }
}

impl<K: Kernel + CheckpointableKernel> CheckpointableKernel for Faulty<K> {
    type Checkpoint = K::Checkpoint;

    fn checkpoint(&self) -> impl Future<Output = Result<Self::Checkpoint, KernelError>> + Send {
        self.kernel.checkpoint()
    }

    fn restore(
        &mut self,
        checkpoint: Self::Checkpoint,
    ) -> impl Future<Output = Result<(), KernelError>> + Send {
        self.kernel.restore(checkpoint)
    }
}

impl<K: Kernel> Kernel for Faulty<K> {
    type Input = K::Input;
    type Output = K::Output;

    /// # Panics
    /// On purpose.
    async fn execute(&mut self, input: &K::Input, cx: &mut Context<'_>) -> Result<K::Output, KernelError> {
        if let Some(plan) = &self.plan {
            plan.strike(input, cx)?;
        }
        self.kernel.execute(input, cx).await
    }
}

impl Fault {
    /// Does it. What comes back is the error to return.
    fn strike(self, cx: &Context<'_>) -> KernelError {
        match self {
            Self::Panic => resume_unwind(Box::new("an injected panic")),
            Self::Error => return KernelError::transient("an injected error"),
            Self::Kill => kill(),
            Self::Spin => {
                while !cx.is_cancelled() {
                    hint::spin_loop();
                }
            }
            Self::Block => {
                while !cx.is_cancelled() {
                    thread::park_timeout(BLOCK_STEP);
                }
            }
        }
        let late = cx.remaining().is_zero();
        let kind = if late { KernelErrorKind::DeadlineExceeded } else { KernelErrorKind::Cancelled };
        KernelError::new(kind, Phase::Executing)
    }
}

impl<K: Kernel> fmt::Debug for Faulty<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl<I> fmt::Debug for FaultPlan<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultPlan")
            .field("injector", &self.injector)
            .field("kernel", &self.kernel)
            .finish_non_exhaustive()
    }
}

/// Ends this process without a word.
fn kill() -> ! {
    #[cfg(feature = "worker")]
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // The signal may take a moment, and without it this is the shortest way.
    std::process::abort()
}

/// The finalizer of splitmix64 (S. Vigna): one flipped bit changes half of the result.
const fn scramble(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const NAMES: [&str; 4] = ["panic", "error", "hang", "kill"];
/// Leaves the 53 bits that a double holds exactly.
const DRAW_SHIFT: u32 = 11;
/// How often a blocked thread looks whether it has been fenced, so that an abandoned one ends.
const BLOCK_STEP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use rustkernel_core::clock::Timestamp;

    use super::*;

    fn mix(text: &str) -> Result<FaultMix, FaultMixError> {
        text.parse()
    }

    fn header(id: u64, attempt: u32) -> Header {
        Header { attempt, ..Header::new(id, Timestamp::NEVER) }
    }

    #[test]
    fn a_mix_reads_as_it_is_written() {
        assert_eq!(
            mix("panic=0.2,error=0.2,hang=0.05"),
            Ok(FaultMix { panic: 0.2, error: 0.2, hang: 0.05, kill: 0.0 })
        );
        assert_eq!(mix("hang=1"), Ok(FaultMix { hang: 1.0, ..FaultMix::default() }));
        assert!(mix("panic=0.5,error=0.5").is_ok());
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for bad in ["panic=NaN", "panic=-0.1", "hang=1.01", "error=inf", "error=", "panic=a"] {
            assert!(matches!(mix(bad), Err(FaultMixError::Probability { .. })), "{bad}");
        }
        assert!(matches!(mix("panic=0.6,hang=0.6"), Err(FaultMixError::Sum { .. })));
        assert!(matches!(mix("panic=0.1,panic=0.1"), Err(FaultMixError::Twice { name: "panic" })));
        assert!(matches!(mix("crash=0.1"), Err(FaultMixError::UnknownFault { .. })));
        assert!(matches!(mix(""), Err(FaultMixError::NoPair { .. })));
        assert!(matches!(mix("panic"), Err(FaultMixError::NoPair { .. })));
    }

    #[test]
    fn the_same_attempt_has_the_same_fault_and_another_its_own() {
        let injector = Injector::new(mix("panic=0.2,error=0.2,hang=0.2").unwrap(), 7);
        let at = |kernel, id, call, attempt| injector.decide(kernel, call, &header(id, attempt));
        let draw = |at: &dyn Fn(u64) -> Option<Fault>| (0..64).map(at).collect::<Vec<_>>();
        let calls = draw(&|call| at("a/b", 1, call, 1));
        assert_eq!(calls, draw(&|call| at("a/b", 1, call, 1)));
        assert_ne!(calls, draw(&|call| at("a/b", 1, call, 2)), "attempts");
        assert_ne!(calls, draw(&|call| at("a/b", 2, call, 1)), "requests");
        assert_ne!(calls, draw(&|call| at("a/c", 1, call, 1)), "kernels");
    }

    #[test]
    fn faults_strike_as_often_as_they_are_asked_to() {
        let injector = Injector::new(mix("panic=0.2,error=0.3,hang=0.1,kill=0.1").unwrap(), 1);
        let mut struck = [0_u32; 6];
        for call in 0..20_000 {
            let place = match injector.decide("graph/pagerank", call, &header(1, 1)) {
                Some(Fault::Panic) => 0,
                Some(Fault::Error) => 1,
                Some(Fault::Spin) => 2,
                Some(Fault::Block) => 3,
                Some(Fault::Kill) => 5,
                None => 4,
            };
            struck[place] += 1;
        }
        for (count, expected) in struck.into_iter().zip([4000, 6000, 1000, 1000, 6000, 2000]) {
            assert!(count.abs_diff(expected) < 300, "{struck:?}");
        }
    }

    #[test]
    fn without_probability_there_is_no_fault_and_with_all_of_it_always_one() {
        for call in 0..1000 {
            assert_eq!(Injector::new(FaultMix::default(), 3).decide("a/b", call, &header(1, 1)), None);
            let always = Injector::new(mix("error=1").unwrap(), 3);
            assert_eq!(always.decide("a/b", call, &header(1, 1)), Some(Fault::Error));
        }
    }
}
