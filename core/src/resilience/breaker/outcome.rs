//! What a call's end means for the breaker: the one classification.

use crate::error::{KernelError, KernelErrorKind, Phase};
use crate::resilience::{ErrorKind, ResilienceError};

/// What a call's end says about the health of what stands behind the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It answered.
    Success,
    /// It failed, and the failure is its own.
    Failure,
    /// The call ended without a verdict: dropped by its caller, refused for its input, or out of a resource.
    Neutral,
    /// The call never got through: a queue was full, a deadline over before the start, another breaker open.
    Inconclusive,
}

impl Outcome {
    /// The outcome of a kernel call that ended in `error`.
    ///
    /// Only what the kernel itself did is a failure. What never started is inconclusive. A bad input is the caller's
    /// and an exhausted resource is pressure: both are neutral.
    #[must_use]
    pub fn of(error: &KernelError) -> Self {
        match error.kind() {
            KernelErrorKind::Overloaded(_)
            | KernelErrorKind::Rejected(_)
            | KernelErrorKind::Restarting { .. }
            | KernelErrorKind::Draining
            | KernelErrorKind::Down(_)
            | KernelErrorKind::Cancelled => Self::Inconclusive,
            KernelErrorKind::DeadlineExceeded => match error.phase() {
                Phase::Admission | Phase::Queued => Self::Inconclusive,
                Phase::Executing | Phase::Reply => Self::Failure,
            },
            KernelErrorKind::Crashed if error.lacks_input() => Self::Inconclusive,
            KernelErrorKind::Crashed | KernelErrorKind::Hung => Self::Failure,
            KernelErrorKind::Kernel(kind) => Self::of_kind(*kind),
        }
    }

    /// The outcome of a call whose error is known by its kind only.
    #[must_use]
    pub const fn of_kind(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Transient
            | ErrorKind::Timeout
            | ErrorKind::Crashed
            | ErrorKind::Hung
            | ErrorKind::Permanent => Self::Failure,
            ErrorKind::Exhausted | ErrorKind::InvalidInput => Self::Neutral,
            ErrorKind::Overloaded | ErrorKind::Rejected | ErrorKind::Cancelled => Self::Inconclusive,
        }
    }

    /// The outcome of a call through the book's API that ended in `error`.
    #[must_use]
    pub fn of_call(error: &ResilienceError) -> Self {
        match error {
            ResilienceError::Kernel(error) => Self::of(error),
            ResilienceError::CircuitOpen | ResilienceError::InvalidConfig(_) => Self::Inconclusive,
            ResilienceError::DeadlineExceeded | ResilienceError::Other(_) => Self::Failure,
            ResilienceError::RetriesExhausted { source, .. } => Self::of_call(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Limit;

    #[test]
    fn a_kernel_that_lacks_its_input_has_not_failed_but_one_that_hands_on_anothers_lack_has() {
        let lacks = KernelError::new(KernelErrorKind::Crashed, Phase::Queued);
        assert_eq!(Outcome::of(&lacks), Outcome::Inconclusive);
        let anothers = lacks.in_kernel(&crate::KernelId::new("a/other").unwrap());
        assert_eq!((anothers.lacks_input(), Outcome::of(&anothers)), (false, Outcome::Failure));
        let began = KernelError::new(KernelErrorKind::Crashed, Phase::Executing);
        assert_eq!((began.lacks_input(), Outcome::of(&began)), (false, Outcome::Failure));
    }

    #[test]
    fn a_deadline_is_the_kernels_failure_only_once_the_work_began() {
        let at = |phase| Outcome::of(&KernelError::new(KernelErrorKind::DeadlineExceeded, phase));
        assert_eq!(at(Phase::Admission), Outcome::Inconclusive);
        assert_eq!(at(Phase::Queued), Outcome::Inconclusive);
        assert_eq!(at(Phase::Executing), Outcome::Failure);
        assert_eq!(at(Phase::Reply), Outcome::Failure);
    }

    #[test]
    fn the_phase_survives_the_way_through_the_books_error() {
        let queued = KernelError::new(KernelErrorKind::DeadlineExceeded, Phase::Queued);
        assert_eq!(Outcome::of_call(&queued.into()), Outcome::Inconclusive);
        let running = KernelError::new(KernelErrorKind::DeadlineExceeded, Phase::Executing);
        assert_eq!(Outcome::of_call(&running.into()), Outcome::Failure);
    }

    #[test]
    fn refusals_and_callers_faults_are_no_failures() {
        let full = KernelError::new(KernelErrorKind::Overloaded(Limit::Requests), Phase::Admission);
        assert_eq!(Outcome::of(&full), Outcome::Inconclusive);
        assert_eq!(Outcome::of(&KernelError::invalid_input("negative")), Outcome::Neutral);
        assert_eq!(Outcome::of(&KernelError::exhausted("out of memory")), Outcome::Neutral);
        assert_eq!(Outcome::of(&KernelError::transient("busy")), Outcome::Failure);
    }
}
