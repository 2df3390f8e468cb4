//! How one life of a kernel takes over from another: a standby, a rebuilt kernel, a new version, and back from the backup.
//!
//! | who | is prepared when | takes over when | is done when |
//! |---|---|---|---|
//! | standby | the kernel serves | the kernel fails, or a request cannot wait for its restart | - |
//! | rebuilt kernel | its degraded path answers | it is ready, and nothing is in hand | it has restored the newest checkpoint |
//! | new version, fail-back | somebody asks | as above, after a last checkpoint | it has restored that checkpoint |
//!
//! One that was asked for and does not get that far gives way to what there was before.

use std::mem;

use rustkernel_core::resilience::InvalidConfig;
use rustkernel_core::supervision::ChildKey;

use super::life::{Due, Life, Phase, Purpose, Role, Stage};
use super::message::HandOverError;
use super::{Myself, Recovery};
use crate::operator::Fact;
use crate::slot::{Life as SlotLife, Variant};

impl Recovery {
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
    fn took_over(&mut self, key: ChildKey, number: u64) {
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
    fn takes_over(&mut self, key: ChildKey, number: u64) {
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
                kernel.variant = Variant::Main;
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
        self.launch(key, incarnation, Role::Present, myself).await;
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
        let drains = kernel.draining || kernel.plan.kernel.snapshot().life == SlotLife::Draining;
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
