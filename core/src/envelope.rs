//! What travels with a request through a chain of kernels.

use std::time::Duration;

use crate::clock::Timestamp;

/// Re-runs that a whole chain may make unless its caller says otherwise.
pub const DEFAULT_RETRY_BUDGET: u32 = 16;

/// The part of a request that every stage of a chain sees: one deadline and one retry budget for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The request's number in its runtime. It stays the same over attempts and over the stages of a chain.
    pub id: u64,
    /// When the answer is worth nothing any more; [`Timestamp::NEVER`] for none.
    pub deadline: Timestamp,
    /// The attempt at this stage, from 1.
    pub attempt: u32,
    /// Re-runs the whole chain may still make, so that depth does not multiply attempts.
    pub retry_budget: u32,
    /// Whether a degraded path answers: this stage's, and behind it in a chain that of any stage before.
    pub degraded: bool,
    /// Whether an incarnation died while it had the request at this stage. What it runs in together with others runs it alone.
    pub suspect: bool,
}

impl Header {
    /// A first attempt with the default retry budget.
    #[must_use]
    pub const fn new(id: u64, deadline: Timestamp) -> Self {
        Self { id, deadline, attempt: 1, retry_budget: DEFAULT_RETRY_BUDGET, degraded: false, suspect: false }
    }

    /// The header for the next stage: the attempt starts again without suspicion, what is left of deadline and budget goes on.
    #[must_use]
    pub const fn next_stage(self) -> Self {
        Self { attempt: 1, suspect: false, ..self }
    }

    /// The header of a re-run, or `None` when the chain's budget is used up.
    #[must_use]
    pub const fn rerun(self) -> Option<Self> {
        match self.retry_budget.checked_sub(1) {
            Some(retry_budget) => {
                Some(Self { attempt: self.attempt.saturating_add(1), retry_budget, ..self })
            }
            None => None,
        }
    }

    /// Time left at `now`; zero once the deadline has passed, [`Duration::MAX`] without one.
    #[must_use]
    pub const fn remaining(&self, now: Timestamp) -> Duration {
        self.deadline.saturating_since(now)
    }

    /// Whether the deadline has passed at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.deadline
    }
}

/// How long a caller wants to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// As long as it takes.
    None,
    /// This long from now.
    Within(Duration),
    /// Until this point.
    At(Timestamp),
}

impl From<Duration> for Deadline {
    fn from(span: Duration) -> Self {
        Self::Within(span)
    }
}

impl From<Timestamp> for Deadline {
    fn from(at: Timestamp) -> Self {
        Self::At(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_the_chains_and_the_attempt_the_stages() {
        let mut header = Header { retry_budget: 2, ..Header::new(7, Timestamp::NEVER) };
        header = header.rerun().unwrap();
        assert_eq!((header.attempt, header.retry_budget), (2, 1));
        header = header.next_stage();
        assert_eq!((header.attempt, header.retry_budget), (1, 1));
        assert_eq!(header.rerun().and_then(Header::rerun), None);
    }
}
