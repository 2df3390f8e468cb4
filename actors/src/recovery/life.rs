//! The lives of one kernel, as its supervisor keeps them.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::ActorCell;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::recovery::RecoveryMachine;
use rustkernel_core::supervision::Exit;
use tokio::sync::oneshot;

use super::message::{HandOverError, RecoveryMsg};
use super::node::{KernelPlan, Version};
use crate::cause::Cause;
use crate::home::Home;
use crate::lane::Lane;
use crate::links::Links;
use crate::slot::{Incarnation, Variant};
use crate::timer::Alarm;

/// Where a kernel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its present incarnation is being made.
    Starting,
    Serving,
    /// It failed and comes back, alone or with its group.
    Waiting,
    Isolated,
    /// It was told to end.
    Stopping,
}

/// One kernel, with all its lives.
pub(super) struct KernelChild {
    pub(super) plan: Arc<KernelPlan>,
    pub(super) recovery: RecoveryMachine,
    pub(super) lives: Vec<Life>,
    pub(super) phase: Phase,
    pub(super) since: Timestamp,
    /// The machine's number of the start that is under way, or the last one.
    pub(super) life: u64,
    /// What the next lives are made from: the kernel, or its backup.
    pub(super) variant: Variant,
    pub(super) served: bool,
    /// Somebody has told its supervisor to start it, and it neither serves nor is down since.
    pub(super) asked: bool,
    /// All its standbys have been warm once, or one of them could not be made: nobody waits for them any more.
    pub(super) complete: bool,
    /// A standby is missing, or will be, for what was lost at no cost.
    pub(super) owed: bool,
    /// A drain was asked for; a stop follows when the slot is empty.
    pub(super) draining: bool,
    /// How it has ended for good, to be told when nothing of it is left.
    pub(super) exit: Option<Exit>,
    /// How long the last start took.
    pub(super) start_takes: Duration,
    pub(super) timers: Timers,
}

/// One life.
pub(super) struct Life {
    pub(super) incarnation: Arc<Incarnation>,
    pub(super) actor: Option<ActorCell>,
    pub(super) lane: Option<Arc<Lane>>,
    pub(super) role: Role,
    pub(super) stage: Stage,
    /// What its take-over was for, until it serves.
    pub(super) pending: Option<Purpose>,
    pub(super) began: Timestamp,
    /// Whoever has it killed.
    pub(super) killers: Killers,
}

/// They are told when the life is gone: by then it is decided what follows.
#[derive(Default)]
pub(super) struct Killers(Vec<oneshot::Sender<bool>>);

impl Killers {
    pub(super) fn add(&mut self, done: oneshot::Sender<bool>) {
        self.0.push(done);
    }
}

impl Drop for Killers {
    fn drop(&mut self) {
        for done in self.0.drain(..) {
            // Who asked may be gone.
            let _ = done.send(true);
        }
    }
}

/// What a life is for.
pub(super) enum Role {
    /// It serves, or is made to serve at once.
    Present,
    /// It stands by.
    Standby,
    /// It takes over from the present one when it is ready.
    Successor(Purpose),
    /// It has been replaced, or is wanted no more, and ends.
    Leaving,
}

/// Why there is a successor.
pub(super) enum Purpose {
    /// The supervisor starts the kernel again; its degraded path has answered meanwhile.
    Start,
    /// The kernel is rebuilt behind its degraded path.
    Recover,
    /// A new version, and what the next ones are made from.
    Replace(Version, oneshot::Sender<Result<(), HandOverError>>),
    /// Back to the kernel's own device.
    FailBack(oneshot::Sender<Result<(), HandOverError>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Starting,
    Ready,
    /// It has been called to serve, and restores what the life before it left.
    TakingOver,
    /// Its actor is gone, its fenced thread not yet.
    Ending(Cause),
}

impl KernelChild {
    pub(super) fn new(plan: Arc<KernelPlan>, links: &Arc<Links>, home: &Arc<Home>) -> Self {
        let timers = Timers::new(plan.slot, links, home);
        let mut recovery = plan.recovery.clone();
        let variant = plan.variant();
        if variant == Variant::Backup {
            recovery.set_failed_over(true);
        }
        Self {
            recovery,
            plan,
            lives: Vec::with_capacity(1),
            phase: Phase::Starting,
            since: links.timer.clock().now(),
            life: 0,
            variant,
            served: false,
            asked: false,
            complete: false,
            owed: false,
            draining: false,
            exit: None,
            start_takes: Duration::ZERO,
            timers,
        }
    }

    pub(super) fn set_phase(&mut self, phase: Phase, now: Timestamp) {
        self.served |= phase == Phase::Serving;
        self.asked &= phase != Phase::Serving;
        self.phase = phase;
        self.since = now;
    }

    /// The next lives run on the backup device, or on the kernel's own again.
    pub(super) fn move_to(&mut self, variant: Variant) {
        self.variant = variant;
        self.plan.set_variant(variant);
    }

    pub(super) fn life(&mut self, number: u64) -> Option<&mut Life> {
        self.lives.iter_mut().find(|life| life.incarnation.number == number)
    }

    pub(super) fn take_life(&mut self, number: u64) -> Option<Life> {
        let at = self.lives.iter().position(|life| life.incarnation.number == number)?;
        self.timers.clear(Due::Life(number));
        Some(self.lives.swap_remove(at))
    }

    /// The life that serves, or is made to.
    pub(super) fn present(&self) -> Option<&Life> {
        self.lives.iter().find(|life| matches!(life.role, Role::Present))
    }

    pub(super) fn present_mut(&mut self) -> Option<&mut Life> {
        self.lives.iter_mut().find(|life| matches!(life.role, Role::Present))
    }

    /// Whether its degraded path is what serves, or is made to.
    pub(super) fn is_degraded(&self) -> bool {
        self.present().is_some_and(|life| life.incarnation.variant == Variant::Degraded)
    }

    /// The life that is being made to serve takes over later, as `next` says: somebody else can answer sooner. Only where the kernel
    /// has served before, and whoever told it to start does not wait for how that goes.
    pub(super) fn step_aside(&mut self, next: Role, now: Timestamp) {
        if self.phase != Phase::Starting || !self.served || self.asked {
            return;
        }
        let is_made = |life: &&mut Life| matches!(life.role, Role::Present) && life.stage == Stage::Starting;
        let Some(life) = self.lives.iter_mut().find(is_made) else { return };
        if life.incarnation.variant != Variant::Degraded && self.plan.kernel.step_aside() {
            life.role = next;
            self.set_phase(Phase::Waiting, now);
        }
    }

    /// Whether a successor is being made or waits.
    pub(super) fn has_successor(&self) -> bool {
        self.lives.iter().any(|life| matches!(life.role, Role::Successor(_)))
    }

    /// Whether the kernel itself is being made behind what answers now.
    pub(super) fn is_rebuilt(&self) -> bool {
        let rebuilds = |life: &Life| matches!(life.role, Role::Successor(Purpose::Start | Purpose::Recover));
        self.lives.iter().any(rebuilds)
    }

    /// Whether standbys that are missing are made: the first ones always, later ones where the policy allows any restart, or where it is not
    /// the kernel's doing that they are missing.
    pub(super) fn makes_standbys(&self) -> bool {
        !self.complete || self.owed || self.recovery.policy().max_restarts > 0
    }

    /// The lives that `leave` names are wanted no more, whatever they do. One that does not notice is left behind after its grace time.
    pub(super) fn dismiss(&mut self, now: Timestamp, leaves: impl Fn(&Role) -> bool) {
        let leaving: Vec<u64> =
            self.lives.iter().filter(|life| leaves(&life.role)).map(Life::number).collect();
        for number in leaving {
            self.dismiss_life(number, now);
        }
    }

    pub(super) fn dismiss_life(&mut self, number: u64, now: Timestamp) {
        let until = now + self.plan.grace;
        let Some(life) = self.life(number) else { return };
        let role = mem::replace(&mut life.role, Role::Leaving);
        if let Role::Successor(purpose) = role {
            purpose.cancel();
        }
        life.pending.take().into_iter().for_each(Purpose::cancel);
        life.incarnation.dismiss();
        self.plan.kernel.forget_prepared(number);
        self.timers.set(Due::Life(number), until);
    }

    /// Standbys that are warm.
    pub(super) fn warm(&self) -> usize {
        let warm = |life: &&Life| matches!(life.role, Role::Standby) && life.stage == Stage::Ready;
        self.lives.iter().filter(warm).count()
    }

    /// Whether it serves, with as many warm standbys as it should have, or had them once.
    pub(super) fn is_complete(&self) -> bool {
        self.served && (self.complete || self.warm() >= self.plan.replicas)
    }

    /// Standbys that are warm or being made.
    pub(super) fn standbys(&self) -> usize {
        self.lives.iter().filter(|life| matches!(life.role, Role::Standby)).count()
    }
}

impl Purpose {
    pub(super) fn fail(self, error: HandOverError) {
        match self {
            // Who asked may be gone.
            Self::Replace(_, done) | Self::FailBack(done) => drop(done.send(Err(error))),
            Self::Start | Self::Recover => {}
        }
    }

    pub(super) fn cancel(self) {
        self.fail(HandOverError::Start(Cause::Killed));
    }
}

impl Life {
    pub(super) fn number(&self) -> u64 {
        self.incarnation.number
    }

    /// Whether it serves though nothing of its kind has failed: a hand-over that was asked for, or the degraded path.
    pub(super) fn is_trusted(&self) -> bool {
        let planned = matches!(self.pending, Some(Purpose::Replace(..) | Purpose::FailBack(_)));
        planned || self.incarnation.variant == Variant::Degraded
    }

    /// Whether its thread still runs.
    pub(super) fn has_thread(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| !lane.has_ended())
    }
}

/// What a kernel's alarm may ring for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A life has not started, or its thread not ended, in time.
    Life(u64),
    /// The kernel is to be rebuilt behind its degraded path.
    Rebuild,
    /// A standby is to be rebuilt.
    Standby,
    /// A drain takes too long.
    Drain,
}

/// The points in time that one kernel waits for. Few: one for each of its lives, and a rebuild.
pub(super) struct Timers {
    due: Vec<(Timestamp, Due)>,
    /// The points that the timer holds for it. One of them is not later than anything that is due, and no more are there than that
    /// takes: lives that start and end in a row set one alarm, not one each.
    scheduled: Vec<Timestamp>,
    alarm: Arc<KernelAlarm>,
    links: Weak<Links>,
}

struct KernelAlarm {
    slot: u32,
    home: Weak<Home>,
}

impl Timers {
    fn new(slot: u32, links: &Arc<Links>, home: &Arc<Home>) -> Self {
        let alarm = Arc::new(KernelAlarm { slot, home: Arc::downgrade(home) });
        Self {
            due: Vec::with_capacity(1),
            scheduled: Vec::with_capacity(1),
            alarm,
            links: Arc::downgrade(links),
        }
    }

    /// Rings for `due` at `at`, and at no other time.
    pub(super) fn set(&mut self, due: Due, at: Timestamp) {
        self.clear(due);
        self.due.push((at, due));
        let Some(links) = self.links.upgrade() else { return };
        // A clock that stands still would not ring for what is due already.
        if at <= links.timer.clock().now() {
            self.alarm.ring(at, 0);
        } else {
            self.schedule(at, &links);
        }
    }

    /// Has the timer ring at `at`, unless it rings before.
    fn schedule(&mut self, at: Timestamp, links: &Links) {
        if self.scheduled.iter().all(|other| *other > at) {
            self.scheduled.push(at);
            let alarm: Weak<dyn Alarm> = Arc::downgrade(&self.alarm) as Weak<dyn Alarm>;
            links.timer.schedule(at, alarm, 0);
        }
    }

    pub(super) fn clear(&mut self, due: Due) {
        self.due.retain(|(_, other)| *other != due);
    }

    pub(super) fn is_set(&self, due: Due) -> bool {
        self.due.iter().any(|(_, other)| *other == due)
    }

    /// Takes what is due at `now`, the earliest first. A ring for what was cleared or moved finds nothing.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<Due> {
        let mut due: Vec<_> = self.due.iter().filter(|(at, _)| *at <= now).copied().collect();
        self.due.retain(|(at, _)| *at > now);
        self.scheduled.retain(|at| *at > now);
        let next = self.due.iter().map(|(at, _)| *at).min();
        if let Some((next, links)) = next.zip(self.links.upgrade()) {
            self.schedule(next, &links);
        }
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().map(|(_, due)| due).collect()
    }
}

impl Alarm for KernelAlarm {
    fn ring(&self, _: Timestamp, _: u64) {
        if let Some(home) = self.home.upgrade() {
            home.tell(RecoveryMsg::Alarm { slot: self.slot });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Operator;
    use crate::timer::Timer;

    #[test]
    fn lives_that_start_and_end_in_a_row_set_one_alarm_and_what_is_due_later_is_rung_for() {
        let (timer, hand) = Timer::manual();
        let operator = Operator::new(timer.clock().clone(), Vec::new());
        let links = Arc::new(Links::new(timer, operator, None));
        let mut timers = Timers::new(0, &links, &Arc::new(Home::default()));
        let now = || links.timer.clock().now();
        for number in 0..1000 {
            hand.advance(Duration::from_millis(1));
            timers.set(Due::Life(number), now() + Duration::from_secs(30));
            timers.clear(Due::Life(number));
        }
        assert_eq!(links.timer.len(), 1);
        timers.set(Due::Rebuild, now() + Duration::from_secs(40));
        hand.advance(Duration::from_secs(30));
        assert!(timers.take_due(now()).is_empty());
        assert_eq!(links.timer.len(), 1);
        hand.advance(Duration::from_secs(10));
        assert_eq!(timers.take_due(now()), [Due::Rebuild]);
        assert_eq!(links.timer.len(), 0);
    }
}
