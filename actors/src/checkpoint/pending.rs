//! What the writer has still to do: one job a kernel, in the order in which the kernels came.
//!
//! A job that comes while its kernel's last one has not begun takes that one's place: a newer checkpoint makes an older one
//! worthless. It takes over the older one's ticket too, so that no kernel waits behind others for being busy, and so that whoever waits
//! for the older one waits for the one that stands for it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use rustkernel_core::KernelId;

/// Jobs that have not begun; at most one a kernel.
#[derive(Debug)]
pub(crate) struct Pending<J> {
    /// Every kernel of `jobs` once, its ticket rising from front to back.
    order: VecDeque<(u64, KernelId)>,
    jobs: HashMap<KernelId, J>,
    last_ticket: u64,
    replaced_count: u64,
}

impl<J> Pending<J> {
    pub(crate) fn new() -> Self {
        Self { order: VecDeque::new(), jobs: HashMap::new(), last_ticket: 0, replaced_count: 0 }
    }

    /// Adds a job; returns the one of the same kernel that it replaces. That may hold a user's value: drop it outside the lock.
    #[must_use]
    pub(crate) fn submit(&mut self, kernel: &KernelId, job: J) -> Option<J> {
        self.last_ticket += 1;
        match self.jobs.entry(kernel.clone()) {
            Entry::Occupied(mut place) => {
                self.replaced_count += 1;
                Some(place.insert(job))
            }
            Entry::Vacant(place) => {
                place.insert(job);
                self.order.push_back((self.last_ticket, kernel.clone()));
                None
            }
        }
    }

    /// Takes the job that has waited longest, with its ticket.
    pub(crate) fn take(&mut self) -> Option<(u64, KernelId, J)> {
        let (ticket, kernel) = self.order.pop_front()?;
        let job = self.jobs.remove(&kernel)?;
        Some((ticket, kernel, job))
    }

    /// The ticket of the job that has waited longest.
    pub(crate) fn first_ticket(&self) -> Option<u64> {
        self.order.front().map(|(ticket, _)| *ticket)
    }

    /// The ticket of the job that came last, 0 before the first.
    pub(crate) fn last_ticket(&self) -> u64 {
        self.last_ticket
    }

    /// Jobs that were replaced before they began.
    pub(crate) fn replaced_count(&self) -> u64 {
        self.replaced_count
    }

    /// Takes all that is left.
    pub(crate) fn clear(&mut self) -> Vec<J> {
        self.order.clear();
        self.jobs.drain().map(|(_, job)| job).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> KernelId {
        KernelId::new(name).unwrap()
    }

    #[test]
    fn kernels_take_turns_and_a_newer_job_takes_the_olders_place() {
        let mut pending = Pending::new();
        assert_eq!(pending.submit(&id("a/a"), 1), None);
        assert_eq!(pending.submit(&id("b/b"), 2), None);
        assert_eq!(pending.submit(&id("a/a"), 3), Some(1));
        assert_eq!(
            (pending.first_ticket(), pending.last_ticket(), pending.replaced_count()),
            (Some(1), 3, 1)
        );
        assert_eq!(pending.take(), Some((1, id("a/a"), 3)));
        assert_eq!(pending.submit(&id("a/a"), 4), None);
        assert_eq!(pending.take(), Some((2, id("b/b"), 2)));
        assert_eq!(pending.take(), Some((4, id("a/a"), 4)));
        assert_eq!((pending.take(), pending.first_ticket()), (None, None));
    }

    #[test]
    fn there_is_never_more_than_one_job_a_kernel() {
        let mut pending = Pending::new();
        let kernels = [id("a/a"), id("b/b"), id("c/c")];
        for n in 0..100 {
            let _ = pending.submit(&kernels[n % 3], n);
        }
        assert_eq!(pending.replaced_count(), 97);
        let mut left = pending.clear();
        left.sort_unstable();
        assert_eq!(left, [97, 98, 99]);
        assert_eq!((pending.take(), pending.first_ticket()), (None, None));
    }
}
