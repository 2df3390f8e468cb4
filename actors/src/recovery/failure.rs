//! A kernel's lives: how they fail, and what its policy makes of that.
//!
//! Whatever ends a life (its actor, its thread, the watchdog, an alarm) leads to one place, `life_ended`, once: by then its epoch is void
//! and what it had in hand is resolved. Where that leaves nobody who serves, the kernel's machine decides.

use std::sync::Arc;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::DownReason;
use rustkernel_core::recovery::{Recovery as Decision, Relief, Situation};
use rustkernel_core::supervision::{ChildKey, ChildState, Exit, Restart};

use super::life::{Due, Phase, Purpose, Role, Stage};
use super::message::HandOverError;
use super::{Myself, Recovery};
use crate::cause::Cause;
use crate::operator::Fact;
use crate::slot::Variant;

/// Whose failure is to be decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// What served, or was made to serve.
    Present,
    /// The degraded path, which served.
    Degraded,
}

impl Recovery {
    /// The actor of a life has ended.
    pub(super) async fn life_actor_ended(
        &mut self,
        key: ChildKey,
        number: u64,
        error: Option<String>,
        myself: &Myself,
    ) {
        self.catch_up(key, number);
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        let grace = kernel.plan.grace;
        let Some(life) = kernel.life(number) else { return };
        life.actor = None;
        let mut cause = match (error, &life.stage) {
            (Some(text), Stage::Starting | Stage::TakingOver) => Cause::StartFailed(text),
            (Some(text), Stage::Ready | Stage::Ending(_)) => Cause::Panicked(text),
            (None, _) => Cause::Killed,
        };
        let is_present = matches!(life.role, Role::Present);
        let lost = life.incarnation.lost().cloned();
        let has_thread = life.has_thread();
        if has_thread {
            // The actor was killed, its thread was not: it is fenced and gets its grace time to notice.
            life.incarnation.dismiss();
        }
        let buried = self.bury(key, number, &cause);
        if is_present && !buried {
            // The watchdog was first, or whoever watches what it lived in; its message is still on its way.
            cause = lost.unwrap_or(Cause::Hung);
        }
        if has_thread {
            if let Some(kernel) = self.kernel(key) {
                if let Some(life) = kernel.life(number) {
                    life.stage = Stage::Ending(cause);
                }
                kernel.timers.set(Due::Life(number), now + grace);
            }
            return;
        }
        self.life_ended(key, number, cause, myself).await;
    }

    /// The end of a life overtakes what it said before.
    pub(super) fn catch_up(&mut self, key: ChildKey, number: u64) {
        let Some(kernel) = self.kernel(key) else { return };
        let slot = kernel.plan.slot;
        let Some(life) = kernel.life(number) else { return };
        let (ready, serves) = (life.incarnation.ready(), life.incarnation.serves());
        if let Some(restored) = ready {
            self.life_ready(slot, number, restored);
        }
        self.see_who_took_over(slot);
        if serves {
            self.life_serves(slot, number);
        }
    }

    pub(super) async fn lane_ended(&mut self, slot: u32, number: u64, myself: &Myself) {
        let Some((key, kernel)) = self.kernel_of(slot) else { return };
        let Some(life) = kernel.life(number).filter(|life| life.actor.is_none()) else { return };
        if let Stage::Ending(cause) = life.stage.clone() {
            self.life_ended(key, number, cause, myself).await;
        }
    }

    /// A life is to be ended and its failure decided about. If it served, its epoch is void already.
    pub(super) async fn lost(&mut self, slot: u32, number: u64, cause: Cause, myself: &Myself) {
        let Some((key, _)) = self.kernel_of(slot) else { return };
        self.catch_up(key, number);
        let Some(kernel) = self.kernel(key) else { return };
        if kernel.life(number).is_none() {
            // It noticed the fence, and its end came first: the failure has been decided about.
            return;
        }
        // It stood by when it was lost, and has been called to serve since.
        self.bury(key, number, &cause);
        self.let_go(key, number);
        self.life_ended(key, number, cause, myself).await;
    }

    /// Voids the epoch of a life, if it is the slot's, and resolves what it had in hand.
    pub(super) fn bury(&mut self, key: ChildKey, number: u64, cause: &Cause) -> bool {
        let Some(kernel) = self.kernel(key) else { return false };
        let Some(epoch) = kernel.life(number).map(|life| life.incarnation.epoch()) else { return false };
        epoch != 0 && kernel.plan.kernel.bury(epoch, cause)
    }

    /// Ends a life that does not end by itself: kill, fence, abandon.
    pub(super) fn let_go(&mut self, key: ChildKey, number: u64) {
        let Some(kernel) = self.kernel(key) else { return };
        let id = kernel.plan.kernel.id().clone();
        let Some(life) = kernel.life(number) else { return };
        life.incarnation.dismiss();
        let (actor, lane) = (life.actor.take(), life.lane.take());
        if let Some(actor) = actor {
            self.node.take_alive(actor.get_id());
            actor.kill();
        }
        if lane.is_some_and(|lane| lane.abandon()) {
            let fact = Fact::ThreadAbandoned { alive: self.env.abandoned.alive() };
            self.env.links.operator.tell(Some(&id), fact);
        }
    }

    /// A life is gone for good, or fenced and given up.
    pub(super) async fn life_ended(&mut self, key: ChildKey, number: u64, cause: Cause, myself: &Myself) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        let Some(mut life) = kernel.take_life(number) else { return };
        kernel.plan.kernel.forget_prepared(number);
        if kernel.phase == Phase::Stopping {
            life.pending.into_iter().for_each(Purpose::cancel);
            if kernel.lives.is_empty() {
                self.kernel_stopped(key);
            }
            return;
        }
        let id = kernel.plan.kernel.id().clone();
        let paid = cause.is_paid();
        // A standby may have been lost with it, or may have to serve in its place.
        kernel.owed |= paid && matches!(life.role, Role::Present | Role::Standby);
        match life.role {
            // It hung while it was the present one, and whoever took over said so first.
            Role::Leaving if cause == Cause::Hung => self.note_kernel_failure(key, number, &cause),
            Role::Leaving => {}
            Role::Standby => {
                let at = kernel.recovery.on_standby_failure(now, paid);
                kernel.complete = true;
                if let Some(at) = at {
                    kernel.timers.set(Due::Standby, at);
                }
                self.env.links.operator.tell(Some(&id), Fact::StandbyFailed { incarnation: number, cause });
                self.tell_started(key);
            }
            Role::Successor(Purpose::Replace(_, done) | Purpose::FailBack(done)) => {
                let _ = done.send(Err(HandOverError::Start(cause)));
            }
            Role::Successor(Purpose::Start | Purpose::Recover) => {
                self.note_kernel_failure(key, number, &cause);
                self.failed(key, Failed::Present, paid, myself).await;
            }
            Role::Present => {
                self.note_kernel_failure(key, number, &cause);
                let on_trial = life.pending.is_some() && life.incarnation.on_trial;
                if let Some(purpose) = life.pending.take() {
                    purpose.fail(HandOverError::Start(cause));
                }
                if self.kernel(key).is_some_and(|kernel| kernel.plan.kernel.present().is_some()) {
                    // A successor was ready and serves already; its message is on its way.
                    return;
                }
                if on_trial {
                    return self.roll_back(key, myself).await;
                }
                let degraded = life.incarnation.variant == Variant::Degraded;
                let whose = if degraded { Failed::Degraded } else { Failed::Present };
                self.failed(key, whose, paid, myself).await;
            }
        }
    }

    /// A life that took over from one that could go on has not come to serve: what there was before is made again, and goes on from the
    /// state that was left.
    pub(super) async fn roll_back(&mut self, key: ChildKey, myself: &Myself) {
        if self.promote(key) {
            return;
        }
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        kernel.set_phase(Phase::Starting, now);
        let incarnation = kernel.plan.kernel.begin(kernel.variant);
        self.launch_present(key, incarnation, myself).await;
    }

    pub(super) fn note_kernel_failure(&mut self, key: ChildKey, number: u64, cause: &Cause) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.last_failure = Some(cause.clone());
        let fact = Fact::Failed { incarnation: number, cause: cause.clone() };
        self.env.links.operator.tell_child(&self.node.name, child.declared.name(), fact);
    }

    /// Nobody serves any more, or what was to serve again does not. Decides and acts. `paid`: it costs the kernel and this supervisor
    /// nothing.
    pub(super) async fn failed(&mut self, key: ChildKey, whose: Failed, paid: bool, myself: &Myself) {
        let now = self.now();
        if let Some(slot) = self.kernel(key).map(|kernel| kernel.plan.slot) {
            self.see_who_took_over(slot);
        }
        let ending = self.machine.is_ending();
        let allows = paid || self.machine.allows_restart(key, now);
        let state = self.machine.child(key).map(|view| (view.state, view.spec.rules.restart));
        let Some((state, restart)) = state else { return };
        let out_of_threads = self.env.abandoned.alive() >= self.env.abandoned_limit;
        let Some(kernel) = self.kernel(key) else { return };
        if kernel.present().is_some() && !kernel.is_degraded() {
            // Somebody else serves by now.
            return;
        }
        if ending {
            // It is told to end in its turn, with its standbys: nobody comes back.
            return;
        }
        if !kernel.served || kernel.asked || restart == Restart::Temporary {
            // One that never served is not kept: whoever started it is told. A temporary one is not started again.
            return self.ends_for_good(key);
        }
        // That it is being started says nothing: the life that was to serve may have failed before its degraded path took its place.
        let comes_back =
            kernel.is_rebuilt() || matches!(state, ChildState::Delayed { .. } | ChildState::Planned);
        if whose == Failed::Degraded && comes_back {
            // It answered only until the kernel is back, which is on its way.
            kernel.set_phase(Phase::Waiting, now);
            if let ChildState::Delayed { at } = state {
                kernel.plan.kernel.wait_until(at, at + kernel.start_takes);
            }
            return;
        }
        if out_of_threads && kernel.plan.launcher(kernel.variant).takes_a_thread() {
            kernel.recovery.hold();
            self.isolate(key, DownReason::AbandonedThreads);
            return;
        }
        let situation = Situation {
            now,
            supervisor_allows: allows,
            standby_ready: kernel.warm() > 0,
            earliest_deadline: kernel.plan.kernel.earliest_deadline(),
            start_takes: kernel.start_takes,
            paid,
        };
        let decision = match whose {
            Failed::Present => kernel.recovery.on_failure(&situation),
            Failed::Degraded => kernel.recovery.on_degraded_failure(&situation),
        };
        let exit = if paid { Exit::Lost } else { Exit::Abnormal };
        self.carry_out(key, decision, exit, myself).await;
    }

    /// Does what the kernel's policy says about a failure.
    pub(super) async fn carry_out(&mut self, key: ChildKey, decision: Decision, exit: Exit, myself: &Myself) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        let id = kernel.plan.kernel.id().clone();
        let life = kernel.life;
        match decision {
            Decision::Restart { at, in_window, degrade } => {
                kernel.set_phase(Phase::Waiting, now);
                if at > now && kernel.present().is_none() {
                    kernel.plan.kernel.wait_until(at, at + kernel.start_takes);
                }
                let fact = Fact::Restarting { delay: at - now, in_window };
                self.env.links.operator.tell(Some(&id), fact);
                self.machine.on_exit(key, life, exit, Some(at), now);
                if degrade {
                    self.degrade(key, myself).await;
                }
            }
            Decision::Promote { rebuild_at } => {
                if let Some(at) = rebuild_at {
                    kernel.timers.set(Due::Standby, at);
                }
                if !self.promote(key) {
                    // It was warm a moment ago, and is gone: as without it.
                    self.machine.on_exit(key, life, exit, Some(now), now);
                }
            }
            Decision::Degrade { rebuild_at } => {
                if let Some(at) = rebuild_at {
                    kernel.timers.set(Due::Rebuild, at);
                }
                self.degrade(key, myself).await;
            }
            Decision::Failover => {
                kernel.move_to(Variant::Backup);
                let to = kernel.plan.device_of(Variant::Backup);
                kernel.dismiss(now, |role| matches!(role, Role::Standby | Role::Successor(_)));
                // A degraded path that answers goes on until the backup is ready.
                let answered = kernel.present().is_some();
                let incarnation = if answered {
                    kernel.plan.kernel.prepare(Variant::Backup, false)
                } else {
                    kernel.set_phase(Phase::Starting, now);
                    kernel.plan.kernel.begin(Variant::Backup)
                };
                self.env.links.operator.tell(Some(&id), Fact::FailedOver { to });
                if answered {
                    self.launch(key, incarnation, Role::Successor(Purpose::Recover), myself).await;
                } else {
                    self.launch_present(key, incarnation, myself).await;
                }
            }
            Decision::Isolate => self.isolate(key, DownReason::Isolated),
            Decision::GiveUp => self.machine.escalate(key, now),
            Decision::Ignore => {}
        }
    }

    /// The degraded path answers from now on.
    pub(super) async fn degrade(&mut self, key: ChildKey, myself: &Myself) {
        let Some(kernel) = self.kernel(key) else { return };
        if kernel.present().is_some() {
            return;
        }
        let id = kernel.plan.kernel.id().clone();
        let incarnation = kernel.plan.kernel.begin(Variant::Degraded);
        self.env.links.operator.tell(Some(&id), Fact::Degraded);
        self.launch(key, incarnation, Role::Present, myself).await;
    }

    /// Nobody serves until an operator says so.
    pub(super) fn isolate(&mut self, key: ChildKey, reason: DownReason) {
        let now = self.now();
        let Some(child) = self.children.get(&key) else { return };
        let cause = child.last_failure.clone().unwrap_or(Cause::Killed);
        let Some(kernel) = self.kernel(key) else { return };
        kernel.dismiss(now, |_| true);
        kernel.timers.clear(Due::Rebuild);
        kernel.timers.clear(Due::Standby);
        kernel.set_phase(Phase::Isolated, now);
        kernel.plan.kernel.close(reason);
        // Whoever waits for its standbys waits no longer: there will be none.
        kernel.complete = true;
        let slot = kernel.plan.slot;
        let id = kernel.plan.kernel.id().clone();
        self.machine.hold(key, now);
        self.env.links.operator.tell(Some(&id), Fact::Isolated { cause });
        self.tell_started(key);
        // A drain of this one, or a shutdown, may have waited for it.
        self.idle(Some(slot), now);
    }

    /// A request cannot wait for the restart.
    pub(super) async fn pressed(&mut self, slot: u32, myself: &Myself) {
        let now = self.now();
        self.see_who_took_over(slot);
        let Some((key, kernel)) = self.kernel_of(slot) else { return };
        let relief = kernel.recovery.relief(kernel.warm() > 0);
        let next = match relief {
            Relief::Promote => Role::Standby,
            Relief::Degrade => Role::Successor(Purpose::Start),
            Relief::None => return,
        };
        kernel.step_aside(next, now);
        if kernel.phase != Phase::Waiting || kernel.present().is_some() {
            return;
        }
        match relief {
            Relief::Promote => {
                self.machine.resume(key, now);
                self.promote(key);
            }
            Relief::Degrade => self.degrade(key, myself).await,
            Relief::None => {}
        }
    }

    /// An alarm of a kernel rang: what it waited for has not happened in time, or a delay is over.
    pub(super) async fn alarm(&mut self, slot: u32, myself: &Myself) {
        let now = self.now();
        self.see_who_took_over(slot);
        let Some((key, kernel)) = self.kernel_of(slot) else { return };
        for due in kernel.timers.take_due(now) {
            match due {
                Due::Life(number) => self.life_is_late(key, number, myself).await,
                Due::Rebuild => self.rebuild(key, myself).await,
                Due::Standby => self.make_standby(key, myself).await,
                Due::Drain => {
                    if let Some(name) = self.children.get(&key).map(|child| Arc::clone(child.declared.name()))
                    {
                        // It is a child until it is forgotten.
                        let _stopped = self.machine.terminate_child(&name, now);
                    }
                }
            }
        }
    }

    async fn life_is_late(&mut self, key: ChildKey, number: u64, myself: &Myself) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        let limit = kernel.plan.start_limit;
        let Some(life) = kernel.life(number) else { return };
        // Whoever spawns a kernel is to hear when it does not come up; a later life has the time that its place takes.
        let may_wait = number > 1 && life.stage == Stage::Starting && !matches!(life.role, Role::Leaving);
        if may_wait && life.incarnation.waits() {
            kernel.timers.set(Due::Life(number), now + limit);
            return;
        }
        let cause = match (&life.role, life.stage.clone()) {
            (_, Stage::Ending(cause)) => cause,
            (Role::Leaving, Stage::Starting | Stage::Ready | Stage::TakingOver) => Cause::Killed,
            (_, Stage::Starting) => Cause::StartFailed(format!("not ready after {limit:?}")),
            (_, Stage::TakingOver) => Cause::StartFailed(format!("not restored after {limit:?}")),
            (_, Stage::Ready) => return,
        };
        self.bury(key, number, &cause);
        self.let_go(key, number);
        self.life_ended(key, number, cause, myself).await;
    }

    pub(super) fn resume_kernel(&mut self, slot: u32, now: Timestamp) -> bool {
        if self.shutdown.is_some() {
            return false;
        }
        let Some((key, kernel)) = self.kernel_of(slot) else { return false };
        let id = kernel.plan.kernel.id().clone();
        let degraded = kernel.is_degraded() && kernel.phase == Phase::Serving && !kernel.is_rebuilt();
        let waits = matches!(kernel.phase, Phase::Isolated | Phase::Waiting);
        if !(degraded || waits) || !kernel.recovery.on_resume() {
            return false;
        }
        if degraded {
            kernel.timers.set(Due::Rebuild, now);
        } else if !self.machine.resume(key, now) {
            return false;
        }
        self.env.links.operator.tell(Some(&id), Fact::Resumed);
        true
    }
}
