//! A kernel's lives: how they begin, become ready, and take over from each other.
//!
//! The machine of the supervisor knows a kernel as one child that is up or down. What happens inside, a standby taking over, a degraded path
//! answering meanwhile, a new version, is this file's business; the machine is told only what concerns the group. How lives fail and
//! end is in `failure.rs` and `halt.rs`.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::resilience::InvalidConfig;
use rustkernel_core::supervision::ChildKey;

use super::life::{Due, Killers, Life, Phase, Purpose, Role, Stage};
use super::message::HandOverError;
use super::node::{Alive, Body as AliveBody};
use super::{Myself, Recovery};
use crate::breaker::BreakerMsg;
use crate::cause::Cause;
use crate::operator::Fact;
use crate::slot::{Incarnation, Life as SlotLife, Variant};

/// A start that takes less needs nobody in its place.
const SLOW_START: Duration = Duration::from_millis(1);

impl Recovery {
    /// The machine wants the kernel up.
    pub(super) async fn start_kernel(&mut self, key: ChildKey, life: u64, myself: &Myself) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        kernel.life = life;
        let slot = kernel.plan.slot;
        self.see_who_took_over(slot);
        let Some(kernel) = self.kernel(key) else { return };
        let variant = kernel.variant;
        let answers = kernel.present().map(|present| present.incarnation.variant);
        match answers {
            // Somebody has taken over while the kernel waited for its restart.
            Some(Variant::Main | Variant::Backup) => {
                self.machine.on_started(key, life, now);
                self.tell_started(key);
            }
            Some(Variant::Degraded) if kernel.is_rebuilt() => {}
            Some(Variant::Degraded) => {
                let incarnation = kernel.plan.kernel.prepare(variant, false);
                self.launch(key, incarnation, Role::Successor(Purpose::Start), myself).await;
            }
            None => {
                kernel.set_phase(Phase::Starting, now);
                let incarnation = kernel.plan.kernel.begin(variant);
                self.launch_present(key, incarnation, myself).await;
            }
        }
    }

    /// Begins a life that serves as soon as it can. Whoever cannot wait for it is answered by somebody else, if there is one.
    pub(super) async fn launch_present(
        &mut self,
        key: ChildKey,
        incarnation: Arc<Incarnation>,
        myself: &Myself,
    ) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        let ready = now + kernel.start_takes;
        let is_slow = kernel.start_takes >= SLOW_START;
        if is_slow {
            kernel.plan.kernel.expect(ready);
        }
        let is_pressed = is_slow && kernel.plan.kernel.earliest_deadline() <= ready;
        let slot = kernel.plan.slot;
        self.launch(key, incarnation, Role::Present, myself).await;
        if is_pressed {
            self.pressed(slot, myself).await;
        }
    }

    /// Begins a life.
    pub(super) async fn launch(
        &mut self,
        key: ChildKey,
        incarnation: Arc<Incarnation>,
        role: Role,
        myself: &Myself,
    ) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        let number = incarnation.number;
        incarnation.open_span(kernel.plan.kernel.id());
        let launcher = match &role {
            Role::Successor(Purpose::Replace(version, _)) => version.launcher(incarnation.variant),
            Role::Present | Role::Standby | Role::Successor(_) | Role::Leaving => {
                kernel.plan.launcher(incarnation.variant)
            }
        };
        let body = AliveBody::Kernel(Arc::clone(&kernel.plan), Arc::clone(&incarnation));
        let limit = kernel.plan.start_limit;
        kernel.timers.set(Due::Life(number), now + limit);
        kernel.lives.push(Life {
            incarnation: Arc::clone(&incarnation),
            actor: None,
            lane: None,
            role,
            stage: Stage::Starting,
            pending: None,
            killers: Killers::default(),
            began: now,
        });
        match launcher.launch(incarnation, myself.get_cell()).await {
            Ok(launched) => {
                let (actor, lane) = (launched.actor, launched.lane);
                let alive = Alive { child: key, number, actor: actor.clone(), lane: lane.clone(), body };
                self.node.add_alive(alive);
                if let Some(life) = self.kernel(key).and_then(|kernel| kernel.life(number)) {
                    life.actor = Some(actor);
                    life.lane = lane;
                }
            }
            Err(error) => {
                let cause = Cause::StartFailed(error.to_string());
                self.bury(key, number, &cause);
                Box::pin(self.life_ended(key, number, cause, myself)).await;
            }
        }
    }

    /// A life is made and proven.
    pub(super) fn life_ready(&mut self, slot: u32, number: u64, restored: bool) {
        let now = self.now();
        self.see_who_took_over(slot);
        let Some((key, kernel)) = self.kernel_of(slot) else { return };
        let Some(life) = kernel.life(number).filter(|life| life.stage == Stage::Starting) else { return };
        life.stage = Stage::Ready;
        let took = now - life.began;
        let incarnation = Arc::clone(&life.incarnation);
        let is_standby = matches!(life.role, Role::Standby);
        let is_successor = matches!(life.role, Role::Successor(_));
        let is_present = matches!(life.role, Role::Present);
        kernel.timers.clear(Due::Life(number));
        if incarnation.variant != Variant::Degraded {
            kernel.start_takes = took;
        }
        let id = kernel.plan.kernel.id().clone();
        if is_present {
            self.env.links.operator.tell(Some(&id), Fact::Started { incarnation: number, restored });
            self.present_serves(key);
        } else if is_standby {
            kernel.plan.kernel.add_standby(&incarnation);
            self.env.links.operator.tell(Some(&id), Fact::StandbyReady { incarnation: number });
            let Some(kernel) = self.kernel(key) else { return };
            kernel.complete |= kernel.warm() >= kernel.plan.replicas;
            kernel.step_aside(Role::Standby, now);
            if kernel.phase == Phase::Waiting && kernel.present().is_none() {
                // Nobody serves, and here is somebody who can.
                self.machine.resume(key, now);
                self.promote(key);
            }
            if let Some(kernel) = self.kernel(key) {
                kernel.owed &= kernel.warm() < kernel.plan.replicas;
            }
            self.tell_started(key);
        } else if is_successor {
            kernel.plan.kernel.hand_over(&incarnation);
        }
    }

    /// The present life serves.
    pub(super) fn present_serves(&mut self, key: ChildKey) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        if matches!(kernel.phase, Phase::Stopping | Phase::Isolated) {
            // It was told to end before it could say that it serves.
            return;
        }
        let present = kernel.present();
        let number = present.map_or(0, Life::number);
        let trusted = present.is_some_and(Life::is_trusted);
        kernel.set_phase(Phase::Serving, now);
        if kernel.draining {
            kernel.timers.set(Due::Drain, now + kernel.plan.grace);
        }
        if !kernel.is_degraded() {
            kernel.timers.clear(Due::Rebuild);
        }
        let (slot, life) = (kernel.plan.slot, kernel.life);
        let missing = kernel.plan.replicas.saturating_sub(kernel.standbys());
        kernel.owed &= missing > 0;
        let makes = kernel.makes_standbys() && !kernel.is_degraded();
        if missing > 0 && makes && !kernel.timers.is_set(Due::Standby) {
            kernel.timers.set(Due::Standby, now);
        }
        if number > 1 {
            self.env.links.to_breaker(BreakerMsg::Restarted { slot, trusted });
        }
        self.machine.on_started(key, life, now);
        self.tell_started(key);
    }

    /// Lives that were prepared have become the present one, each in its turn. They say so by message, which other news may overtake:
    /// whoever decides something looks first. Where the slot has nobody, nobody takes over unseen.
    pub(super) fn see_who_took_over(&mut self, slot: u32) {
        while let Some((key, kernel)) = self.kernel_of(slot) {
            let waits = |life: &&Life| matches!(life.role, Role::Standby | Role::Successor(_));
            let called = kernel.lives.iter().filter(waits).filter(|life| life.incarnation.epoch() != 0);
            let Some(first) = called.min_by_key(|life| life.incarnation.epoch()) else { return };
            let number = first.number();
            self.took_over(key, number);
        }
    }

    /// A life that was prepared has become the present one.
    pub(super) fn took_over(&mut self, key: ChildKey, number: u64) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        kernel.dismiss(now, |role| matches!(role, Role::Present));
        let Some(life) = kernel.life(number) else { return };
        if let Role::Successor(purpose) = mem::replace(&mut life.role, Role::Present) {
            life.pending = Some(purpose);
        }
        if life.incarnation.variant != Variant::Degraded {
            // Who was to bring the kernel back comes too late.
            kernel.dismiss(now, |role| matches!(role, Role::Successor(Purpose::Start | Purpose::Recover)));
        }
        self.takes_over(key, number);
    }

    /// A life is the present one from now on, and has still to restore what the one before it left.
    pub(super) fn takes_over(&mut self, key: ChildKey, number: u64) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        let (id, limit) = (kernel.plan.kernel.id().clone(), kernel.plan.start_limit);
        kernel.timers.set(Due::Life(number), now + limit);
        let Some(life) = kernel.life(number) else { return };
        life.stage = Stage::TakingOver;
        let variant = life.incarnation.variant;
        self.env.links.operator.tell(Some(&id), Fact::TookOver { incarnation: number, variant });
        self.present_serves(key);
    }

    /// A life that has taken over serves: what it took over for is done.
    pub(super) fn life_serves(&mut self, slot: u32, number: u64) {
        self.see_who_took_over(slot);
        let now = self.now();
        let Some((key, kernel)) = self.kernel_of(slot) else { return };
        let Some(life) = kernel.life(number).filter(|life| life.stage == Stage::TakingOver) else { return };
        life.stage = Stage::Ready;
        let pending = life.pending.take();
        kernel.timers.clear(Due::Life(number));
        let id = kernel.plan.kernel.id().clone();
        match pending {
            None => return,
            Some(Purpose::Start | Purpose::Recover) => {
                self.env.links.operator.tell(Some(&id), Fact::Recovered);
                return;
            }
            Some(Purpose::Replace(version, done)) => {
                kernel.plan.replace(version);
                // Who asked may be gone; so below.
                let _ = done.send(Ok(()));
            }
            Some(Purpose::FailBack(done)) => {
                kernel.move_to(Variant::Main);
                kernel.recovery.set_failed_over(false);
                self.env.links.operator.tell(Some(&id), Fact::Recovered);
                let _ = done.send(Ok(()));
            }
        }
        // Standbys of the old version, or on the other device, make way for new ones.
        let Some(kernel) = self.kernel(key) else { return };
        kernel.dismiss(now, |role| matches!(role, Role::Standby));
        if kernel.plan.replicas > 0 && kernel.makes_standbys() {
            kernel.timers.set(Due::Standby, now);
        }
    }

    /// The present life could not take its state down for its successor, and goes on.
    pub(super) fn turned_away(&mut self, slot: u32, number: u64, reason: String) {
        let now = self.now();
        let Some((_, kernel)) = self.kernel_of(slot) else { return };
        let Some(life) = kernel.life(number) else { return };
        let Role::Successor(purpose) = mem::replace(&mut life.role, Role::Leaving) else { return };
        purpose.fail(HandOverError::Checkpoint { reason });
        kernel.dismiss_life(number, now);
    }

    /// A warm standby takes over, if there is one: now, or as soon as the degraded path has finished what it has in hand.
    pub(super) fn promote(&mut self, key: ChildKey) -> bool {
        let Some(kernel) = self.kernel(key) else { return false };
        if kernel.present().is_some() {
            let warm = |life: &&mut Life| matches!(life.role, Role::Standby) && life.stage == Stage::Ready;
            let Some(life) = kernel.lives.iter_mut().find(warm) else { return false };
            life.role = Role::Successor(Purpose::Recover);
            kernel.plan.kernel.hand_over(&life.incarnation);
            return true;
        }
        let Some(number) = kernel.plan.kernel.promote_standby() else { return false };
        if let Some(life) = kernel.life(number) {
            life.role = Role::Present;
        }
        self.takes_over(key, number);
        true
    }

    /// Rebuilds the kernel behind its degraded path.
    pub(super) async fn rebuild(&mut self, key: ChildKey, myself: &Myself) {
        let Some(kernel) = self.kernel(key) else { return };
        if kernel.phase != Phase::Serving && kernel.phase != Phase::Starting || kernel.is_rebuilt() {
            return;
        }
        let incarnation = kernel.plan.kernel.prepare(kernel.variant, false);
        self.launch(key, incarnation, Role::Successor(Purpose::Recover), myself).await;
    }

    /// Makes the standbys that are missing.
    pub(super) async fn make_standby(&mut self, key: ChildKey, myself: &Myself) {
        loop {
            let Some(kernel) = self.kernel(key) else { return };
            let over = matches!(kernel.phase, Phase::Isolated | Phase::Stopping);
            if over || kernel.standbys() >= kernel.plan.replicas || kernel.timers.is_set(Due::Standby) {
                return;
            }
            let incarnation = kernel.plan.kernel.prepare(kernel.variant, false);
            self.launch(key, incarnation, Role::Standby, myself).await;
        }
    }

    pub(super) async fn replace(&mut self, slot: u32, purpose: Purpose, myself: &Myself) {
        let Some((key, kernel)) = self.kernel_of(slot) else {
            return purpose.fail(HandOverError::UnknownKernel);
        };
        let at_home = matches!(purpose, Purpose::FailBack(_)) && kernel.variant != Variant::Backup;
        if at_home {
            return purpose.fail(HandOverError::AtHome);
        }
        let hands_over =
            kernel.has_successor() || kernel.present().is_some_and(|life| life.pending.is_some());
        let drains = kernel.draining || kernel.plan.kernel.vitals().life == SlotLife::Draining;
        if kernel.phase != Phase::Serving || hands_over || drains {
            return purpose.fail(HandOverError::Busy);
        }
        let variant = match &purpose {
            Purpose::FailBack(_) => Variant::Main,
            Purpose::Replace(version, _) if version.backup.is_none() && kernel.plan.has_backup() => {
                let rule = "is missing: the kernel has one to move to";
                return purpose.fail(InvalidConfig { field: "backup", rule }.into());
            }
            Purpose::Replace(..) | Purpose::Start | Purpose::Recover => kernel.variant,
        };
        let incarnation = kernel.plan.kernel.prepare(variant, true);
        self.launch(key, incarnation, Role::Successor(purpose), myself).await;
    }
}
