//! What every slot of a runtime shares: the timer, the operator, and the two actors it reports to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use ractor::ActorRef;

use rustkernel_core::clock::Timestamp;
use tokio::sync::oneshot;

use crate::breaker::BreakerMsg;
use crate::checkpoint::Vault;
use crate::gate::Report;
use crate::home::Home;
use crate::operator::Operator;
use crate::recovery::RecoveryMsg;
use crate::timer::{Alarm, Timer};

/// A runtime's shared parts. Reports to an actor that is gone are dropped: its end is noticed elsewhere.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) timer: Timer,
    pub(crate) operator: Operator,
    /// Makes the jitter of this runtime another than its replicas'.
    pub(crate) seed: u64,
    breaker: OnceLock<ActorRef<BreakerMsg>>,
    /// The root of the tree.
    root: Arc<Home>,
    /// Where checkpoints are kept beyond this process, if anywhere.
    pub(crate) vault: Option<Arc<Vault>>,
    draining: AtomicBool,
    shut_down: AtomicBool,
    /// Whether the root has still to look whether the tree is idle.
    idle_told: AtomicBool,
    pub(crate) endings: Endings,
}

impl Links {
    pub(crate) fn new(timer: Timer, operator: Operator, vault: Option<Vault>) -> Self {
        Self {
            timer,
            operator,
            seed: fastrand::u64(..),
            breaker: OnceLock::new(),
            root: Arc::default(),
            vault: vault.map(Arc::new),
            draining: AtomicBool::new(false),
            shut_down: AtomicBool::new(false),
            idle_told: AtomicBool::new(false),
            endings: Endings::default(),
        }
    }

    /// Connects the breaker actor, once, before the first kernel is spawned.
    pub(crate) fn connect(&self, breaker: ActorRef<BreakerMsg>) {
        let fresh = self.breaker.set(breaker).is_ok();
        debug_assert!(fresh, "a runtime connects its actors once");
    }

    /// The root of the tree.
    pub(crate) fn root(&self) -> &Arc<Home> {
        &self.root
    }

    /// The whole tree is draining: what restarts now takes nothing new either.
    pub(crate) fn mark_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Some slot has nothing left. While the root has one such message ahead of it, another says nothing new.
    pub(crate) fn tell_root_idle(&self) {
        if !self.idle_told.swap(true, Ordering::AcqRel) && !self.root.tell(RecoveryMsg::Idle { slot: None }) {
            self.idle_told.store(false, Ordering::Release);
        }
    }

    /// The root is about to look.
    pub(crate) fn idle_heard(&self) {
        self.idle_told.store(false, Ordering::Release);
    }

    /// The recovery actor is about to end because it was asked to.
    pub(crate) fn mark_shut_down(&self) {
        self.shut_down.store(true, Ordering::Release);
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::Acquire)
    }

    /// Tells the breaker actor about an outcome.
    pub(crate) fn breaker_report(&self, slot: u32, report: Report) {
        self.to_breaker(BreakerMsg::Report { slot, report, decided: None });
    }

    /// Tells the breaker actor about an outcome and waits for its decision.
    pub(crate) async fn breaker_decide(&self, slot: u32, report: Report) {
        if !report.is_urgent() {
            return self.breaker_report(slot, report);
        }
        let (decided, decision) = oneshot::channel();
        self.to_breaker(BreakerMsg::Report { slot, report, decided: Some(decided) });
        // An error means that the actor is gone, and with it every decision.
        let _ = decision.await;
    }

    /// Rings `alarm` after a span from now.
    pub(crate) fn schedule_after<A: Alarm + 'static>(&self, span: Duration, alarm: &Arc<A>, token: u64) {
        let alarm: Weak<dyn Alarm> = Arc::downgrade(alarm) as Weak<dyn Alarm>;
        self.timer.schedule(self.timer.clock().now() + span, alarm, token);
    }

    pub(crate) fn to_breaker(&self, message: BreakerMsg) {
        if let Some(breaker) = self.breaker.get() {
            let _ = breaker.send_message(message);
        }
    }

    /// Resolves at `at`, by the runtime's clock.
    pub(crate) async fn pause_until(&self, at: Timestamp) {
        let (ring, rung) = oneshot::channel();
        let alarm = Arc::new(Once(Mutex::new(Some(ring))));
        self.timer.schedule(at, Arc::downgrade(&alarm) as Weak<dyn Alarm>, 0);
        if self.timer.clock().now() >= at {
            return;
        }
        // The alarm lives until here, and rings once.
        let _ = rung.await;
        drop(alarm);
    }
}

struct Once(Mutex<Option<oneshot::Sender<()>>>);

impl Alarm for Once {
    fn ring(&self, _: Timestamp, _: u64) {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ring) = ring {
            // Who waited may be gone.
            let _ = ring.send(());
        }
    }
}

/// How the kernels of a runtime that shuts down have ended.
#[derive(Debug, Default)]
pub(crate) struct Endings {
    pub(crate) stopped: AtomicUsize,
    pub(crate) killed: AtomicUsize,
}
