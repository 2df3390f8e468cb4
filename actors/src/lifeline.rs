//! The tie between a life of a kernel here and its work elsewhere.

use std::fmt;
use std::sync::{Arc, Weak};

use rustkernel_core::KernelId;
use rustkernel_core::traits::Payload;

use crate::cause::Cause;
use crate::shared_breaker::SharedBreaker;
use crate::slot::{Incarnation, Slot, Supervised};

/// One life of a kernel whose work is done [elsewhere](crate::KernelSpec::elsewhere), in the hands of whoever watches over that place.
///
/// A life that ends here says nothing: what stands for it is dropped. One that ends there is told by [`lost`](Self::lost), from any
/// thread, once and for all: what it had in hand is run again or answered, what it still says is void, and its supervisor acts.
#[derive(Clone)]
pub struct Lifeline {
    kernel: Weak<dyn Supervised>,
    incarnation: Arc<Incarnation>,
}

/// What has become of a kernel elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// It alone has ended: it panicked. That costs its restart budget.
    Panicked {
        /// What it said.
        reason: String,
        /// What that says about the request in hand.
        suspicion: Suspicion,
    },
    /// What it lived in together with others has ended. The domain answers for that; the kernel is restarted at no cost.
    Domain {
        /// What ended it, for people.
        reason: String,
        /// What that says about the request in hand.
        suspicion: Suspicion,
    },
}

/// What the end of a kernel elsewhere, or of what it lived in, says about the request that it had in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// It had not come there yet: it goes back to where it was. Those that were seen ahead of their turn may have come there, and are suspects
    /// if their domain has ended.
    None,
    /// It was in execution beside others, or others were seen [ahead of their turn](rustkernel_core::traits::LookAhead): it may have been any
    /// of them.
    Suspect,
    /// Nothing else was in execution there, nor seen ahead of its turn: it is convicted.
    Alone,
}

impl Lifeline {
    pub(crate) fn new<I: Payload, O: Payload>(
        slot: &Arc<Slot<I, O>>,
        incarnation: &Arc<Incarnation>,
    ) -> Self {
        let slot: Weak<Slot<I, O>> = Arc::downgrade(slot);
        Self { kernel: slot, incarnation: Arc::clone(incarnation) }
    }

    /// The kernel's name; `None` when it is gone for good.
    #[must_use]
    pub fn kernel(&self) -> Option<KernelId> {
        Some(self.kernel.upgrade()?.id().clone())
    }

    /// The number of this life, from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation.number
    }

    /// Whether the kernel has somewhere else to go: a standby, a degraded path or a backup. One that has not had better wait for a place that
    /// will come back than fail to start in it.
    #[must_use]
    pub fn has_alternative(&self) -> bool {
        self.kernel.upgrade().is_some_and(|kernel| kernel.has_alternative())
    }

    /// Whether this life is over, here: it has been fenced.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.incarnation.fence.is_raised()
    }

    /// Whether there is still something to be waited for: for a life that starts, a place there; for one that serves, its request's turn. While
    /// there is, a request does not count as hung, nor the start of any life but the first as late, however long that takes.
    pub fn set_waits(&self, waits: bool) {
        self.incarnation.set_waits(waits);
    }

    /// From the time this life serves, the kernel is also gated by the breakers of what it lives in: for a factory to say, once.
    pub fn behind(&self, breakers: &[SharedBreaker]) {
        self.incarnation.stand_behind(breakers);
    }

    /// What the kernel lives in is not fit for use, and an operator has to hear of it ([`Fact::PlaceUnfit`](crate::Fact::PlaceUnfit)). What follows
    /// for the kernel is said by [`lost`](Self::lost), and by its [breakers](Self::behind).
    pub fn place_unfit(&self, reason: impl Into<String>) {
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.tell_unfit(reason.into());
        }
    }

    /// The kernel is gone. Of several losses the first one counts.
    pub fn lost(&self, loss: Loss) {
        let Some(kernel) = self.kernel.upgrade() else { return };
        match loss {
            Loss::Panicked { reason, suspicion } => {
                kernel.lose(&self.incarnation, Cause::Panicked(reason), suspicion);
            }
            Loss::Domain { reason, suspicion } => {
                kernel.lose(&self.incarnation, Cause::DomainLost(reason), suspicion);
            }
        }
    }
}

impl fmt::Debug for Lifeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifeline").field("incarnation", &self.incarnation.number).finish_non_exhaustive()
    }
}
