//! What every slot of a runtime shares: the timer, the operator, and the two actors it reports to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ractor::ActorRef;

use crate::breaker::BreakerMsg;
use crate::gate::Report;
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
    recovery: OnceLock<ActorRef<RecoveryMsg>>,
    shut_down: AtomicBool,
}

impl Links {
    pub(crate) fn new(timer: Timer, operator: Operator) -> Self {
        Self {
            timer,
            operator,
            seed: fastrand::u64(..),
            breaker: OnceLock::new(),
            recovery: OnceLock::new(),
            shut_down: AtomicBool::new(false),
        }
    }

    /// Connects the actors, once, before the first kernel is spawned.
    pub(crate) fn connect(&self, breaker: ActorRef<BreakerMsg>, recovery: ActorRef<RecoveryMsg>) {
        let fresh = self.breaker.set(breaker).is_ok() && self.recovery.set(recovery).is_ok();
        debug_assert!(fresh, "a runtime connects its actors once");
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
        let (decided, decision) = tokio::sync::oneshot::channel();
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

    pub(crate) fn to_recovery(&self, message: RecoveryMsg) {
        if let Some(recovery) = self.recovery.get() {
            let _ = recovery.send_message(message);
        }
    }
}
