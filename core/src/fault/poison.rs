//! The latch that keeps the first fault by which a domain was lost.
//!
//! After a sticky CUDA error the same context answers with that error, with others, with "out of memory" and with success, in an
//! order that nobody promises. So a domain's fate is decided once, by the first fault that loses it, and no later code is asked.
//!
//! | latch | code | answer | afterwards |
//! |---|---|---|---|
//! | open | success | success | open |
//! | open | a fault that does not poison | that fault | open |
//! | open | a fault that poisons | poisoned by it, first | latched |
//! | latched | any | poisoned by the first one | latched |
//!
//! One latch belongs to one generation of one context and is never opened again: a new context comes with a new latch. It does NOT
//! tell which kernel is to blame.

use std::sync::OnceLock;

use super::{Fault, cuda};

/// Whether one generation of a fault domain is lost, and by what. Shared by all threads that make calls for the domain.
#[derive(Debug, Default)]
pub struct Poison {
    latched: OnceLock<Fault>,
}

/// What a code means for who has received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Observed {
    /// The call succeeded, and the domain is not known to be lost.
    Success,
    /// The call did not succeed; the domain goes on. The fault may also be a state, as "not ready" is.
    Fault(Fault),
    /// The domain is lost. The code that was observed means nothing, unless it is the first.
    Poisoned {
        /// The fault that lost the domain.
        fault: Fault,
        /// Whether this very code has lost it. True once in the life of a latch: for whoever has to report it.
        first: bool,
    },
}

impl Poison {
    /// An open latch, for a new context.
    #[must_use]
    pub const fn new() -> Self {
        Self { latched: OnceLock::new() }
    }

    /// Takes note of the `CUresult` of a call. Every code of the domain has to pass here before anybody acts on it: a result may only be
    /// published when the code of its own completion was [`Observed::Success`].
    pub fn observe(&self, code: i32) -> Observed {
        if code == cuda::SUCCESS {
            return self.fault().map_or(Observed::Success, Self::again);
        }
        self.observe_fault(cuda::classify(code))
    }

    /// Takes note of a fault that came by another way, such as an Xid or the end of the worker process.
    pub fn observe_fault(&self, fault: Fault) -> Observed {
        if !fault.class.poisons() {
            return self.fault().map_or(Observed::Fault(fault), Self::again);
        }
        let mut first = false;
        let latched = self.latched.get_or_init(|| {
            first = true;
            fault
        });
        Observed::Poisoned { fault: *latched, first }
    }

    /// The fault that lost the domain; `None` while it is not known to be lost.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.latched.get().copied()
    }

    const fn again(fault: Fault) -> Observed {
        Observed::Poisoned { fault, first: false }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use proptest::prelude::*;

    use super::super::{FaultClass, ProcessEnd, exit};
    use super::*;

    #[test]
    fn codes_that_break_nothing_leave_the_latch_open() {
        let poison = Poison::new();
        assert_eq!(poison.observe(0), Observed::Success);
        for code in [600, 2, 1, 701, 909, 901] {
            assert_eq!(poison.observe(code), Observed::Fault(cuda::classify(code)));
        }
        assert_eq!(poison.fault(), None);
        assert_eq!(poison.observe(0), Observed::Success);
    }

    #[test]
    fn after_the_first_poisoning_fault_success_memory_and_worse_faults_change_nothing() {
        let poison = Poison::default();
        let fault = cuda::classify(700);
        assert_eq!(poison.observe(700), Observed::Poisoned { fault, first: true });
        for code in [0, 2, 600, 700, 710, 100, 999, 12345, -1] {
            assert_eq!(poison.observe(code), Observed::Poisoned { fault, first: false }, "{code}");
        }
        let end = exit::classify(ProcessEnd::Signal(9));
        assert_eq!(poison.observe_fault(end), Observed::Poisoned { fault, first: false });
        assert_eq!(poison.fault(), Some(fault));
    }

    #[test]
    fn the_end_of_the_process_loses_the_domain_without_any_code() {
        let poison = Poison::new();
        let fault = exit::classify(ProcessEnd::Unknown);
        assert_eq!(poison.observe_fault(fault), Observed::Poisoned { fault, first: true });
        assert_eq!(poison.observe(0), Observed::Poisoned { fault, first: false });
    }

    #[test]
    fn a_code_that_nobody_knows_is_latched() {
        let poison = Poison::new();
        assert!(matches!(poison.observe(726), Observed::Poisoned { first: true, .. }));
        assert_eq!(poison.fault().map(|fault| fault.class), Some(FaultClass::Unknown));
    }

    #[test]
    fn of_many_threads_exactly_one_is_first_and_all_see_its_fault() {
        const CODES: [i32; 8] = [700, 710, 714, 715, 716, 719, 226, -5];
        for _ in 0..50 {
            let (poison, start) = (Poison::new(), Barrier::new(CODES.len()));
            let seen: Vec<(i32, Observed)> = thread::scope(|scope| {
                let observe = |code| {
                    start.wait();
                    (code, poison.observe(code))
                };
                let threads = CODES.map(|code| scope.spawn(move || observe(code)));
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let latched = poison.fault().unwrap();
            let mut firsts = Vec::new();
            for (code, observed) in seen {
                let Observed::Poisoned { fault, first } = observed else { panic!("{code}: {observed:?}") };
                assert_eq!(fault, latched);
                firsts.extend(first.then_some(code));
            }
            assert_eq!(firsts.len(), 1);
            assert_eq!(cuda::classify(firsts[0]), latched, "the first one's own fault is the one that stays");
        }
    }

    proptest! {
        #[test]
        fn the_first_poisoning_code_decides_for_all_that_follow(
            codes in prop::collection::vec(prop_oneof![Just(0), 0_i32..1000, any::<i32>()], 1..200),
        ) {
            let poison = Poison::new();
            let mut expected = None;
            for code in codes {
                let fault = cuda::classify(code);
                let first = expected.is_none() && fault.class.poisons();
                expected = if first { Some(fault) } else { expected };
                let answer = match (expected, code) {
                    (Some(fault), _) => Observed::Poisoned { fault, first },
                    (None, 0) => Observed::Success,
                    (None, _) => Observed::Fault(fault),
                };
                prop_assert_eq!(poison.observe(code), answer);
                prop_assert_eq!(poison.fault(), expected);
            }
        }
    }
}
