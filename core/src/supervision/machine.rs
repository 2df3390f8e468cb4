//! One supervisor: its children in start order, and what each event means for them.
//!
//! | child's stage | started | start failed | exit | its time comes | stop it |
//! |---|---|---|---|---|---|
//! | starting | up | boot: the supervisor ends; asked for: forgotten or down; else failed | as start failed | - | stopping |
//! | up | - | - | down, forgotten, or failed; gone if its group is being stopped | - | stopping |
//! | delayed | - | - | - | starting | down; a kernel: stopping |
//! | planned | - | - | - | - (its group starts it) | down; a kernel: stopping |
//! | stopping | - | gone | gone | kill, then let go | - |
//! | held | - | gone | gone | - | stopping |
//! | down | - | - | - | - | - |
//!
//! *Failed* costs a restart of the intensity, unless it is paid for, and means: delayed (one_for_one, dynamic), or the group is restarted. *Gone* means
//! planned again (its group restarts), down, or forgotten (temporary and dynamic children).
//!
//! A kernel whose life is over may have more than that life: a standby, a degraded path that answers, a successor. One that is not to
//! come back, after all, is therefore *held* or *stopping* until whoever acts says that nothing of it is left.
//!
//! A group restart is a [`Plan`]: stop what is alive in it in reverse order, each awaited; wait for the delay; start everything in
//! order, each awaited. A child that fails while its group is being stopped joins the plan at no cost; one that fails later begins a
//! plan anew, from itself on at least, and costs a restart. The boot of a supervisor is a plan that has nothing to stop.

mod admin;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, End};
use super::child::{Ask, Child, ChildKey, ChildKind, ChildSpec, ChildView, Exit, Shutdown, Stage, Then};
use super::config::{AutoShutdown, Strategy, SupervisorConfig};
use super::intensity::Intensity;
use crate::clock::Timestamp;
use crate::resilience::InvalidConfig;
use plan::Plan;

pub use admin::Refusal;

/// How long a killed child may take to be gone before it is let go.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// A supervisor without processes. See the [module](super).
///
/// Events may come in any order and twice; what concerns an earlier life of a child is ignored. After each call,
/// [`next_action`](Self::next_action) is asked until it has no more, and [`on_timer`](Self::on_timer) is called at
/// [`next_deadline`](Self::next_deadline).
#[derive(Debug)]
pub struct SupervisorMachine {
    config: SupervisorConfig,
    mode: Mode,
    children: BTreeMap<ChildKey, Child>,
    names: HashMap<Arc<str>, ChildKey>,
    plan: Option<Plan>,
    intensity: Intensity,
    /// What is due when; every entry belongs to the present stage of its child, or to the plan.
    timers: BTreeSet<(Timestamp, Due)>,
    next_key: u32,
    restarts: u64,
    rng: fastrand::Rng,
    actions: VecDeque<Action>,
}

/// What the supervisor as a whole is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Its first children are being started.
    Booting,
    Running,
    /// Its children are being stopped; none of those from this key on is alive any more.
    Ending(End, ChildKey),
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Child(ChildKey),
    Plan,
}

/// How many children there are, as OTP's `count_children` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All children, dead or alive.
    pub specs: usize,
    /// Those that are alive: starting, up or stopping.
    pub active: usize,
    /// Supervisors, dead or alive.
    pub supervisors: usize,
    /// Kernels and tasks, dead or alive.
    pub workers: usize,
}

const FIRST: ChildKey = ChildKey(0);
const BEYOND: ChildKey = ChildKey(u32::MAX);

impl SupervisorMachine {
    /// A supervisor of `children`, which are started by [`boot`](Self::boot). `seed` draws the jitter of its backoff.
    ///
    /// # Errors
    /// A setting or a child's rule that is broken, a name that two children have, too many children, or a dynamic supervisor with
    /// children to begin with.
    pub fn try_new(
        config: SupervisorConfig,
        children: impl IntoIterator<Item = ChildSpec>,
        seed: u64,
    ) -> Result<Self, InvalidConfig> {
        config.validate()?;
        let intensity = Intensity::new(config.intensity, config.period);
        let mut machine = Self {
            config,
            mode: Mode::Booting,
            children: BTreeMap::new(),
            names: HashMap::new(),
            plan: None,
            intensity,
            timers: BTreeSet::new(),
            next_key: 0,
            restarts: 0,
            rng: fastrand::Rng::with_seed(seed),
            actions: VecDeque::new(),
        };
        for spec in children {
            machine.config.validate_child(&spec.rules)?;
            if machine.names.contains_key(&spec.name) {
                let rule = "holds a name twice";
                return Err(InvalidConfig { field: "supervisor.children", rule });
            }
            if machine.config.strategy == Strategy::Dynamic {
                let rule = "must be empty: a dynamic supervisor gets its children at run time";
                return Err(InvalidConfig { field: "supervisor.children", rule });
            }
            if machine.children.len() >= machine.config.max_children as usize {
                let rule = "holds more than `max_children`";
                return Err(InvalidConfig { field: "supervisor.children", rule });
            }
            machine.insert(spec, Stage::Planned, Ask::Supervisor);
        }
        Ok(machine)
    }

    /// Starts the children the supervisor begins with, in order, each when the one before it is up.
    pub fn boot(&mut self, now: Timestamp) {
        debug_assert_eq!(self.mode, Mode::Booting, "a supervisor begins once");
        self.plan = Some(Plan::boot());
        self.advance(now);
    }

    /// The child's life has begun well.
    pub fn on_started(&mut self, child: ChildKey, life: u64, now: Timestamp) {
        let Some(entry) = self.living(child, life) else { return };
        if entry.stage == Stage::Starting {
            entry.ask = Ask::Supervisor;
            self.set_stage(child, Stage::Up);
            self.advance(now);
        }
    }

    /// The child's life has not begun: nothing of it is left. `retry_at` is when its own policy would try again; `None` leaves that to
    /// the backoff.
    pub fn on_start_failed(
        &mut self,
        child: ChildKey,
        life: u64,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) {
        let Some(entry) = self.living(child, life) else { return };
        match (entry.stage, entry.ask) {
            (Stage::Starting, Ask::Supervisor) if self.mode == Mode::Booting && life == 1 => {
                self.set_stage(child, Stage::Down);
                self.end(End::BootFailed { child }, now);
            }
            (Stage::Starting, Ask::Supervisor) => self.failed(child, retry_at, false, now),
            (Stage::Starting, Ask::Add) => self.forget(child),
            (Stage::Starting, Ask::Restart) => self.settle(child),
            (Stage::Stopping { .. } | Stage::Held, _) => self.gone(child),
            (Stage::Down | Stage::Planned | Stage::Up | Stage::Delayed { .. }, _) => {}
        }
        self.advance(now);
    }

    /// The child's life has ended, and nothing of it is left. `retry_at` as in [`on_start_failed`](Self::on_start_failed).
    pub fn on_exit(
        &mut self,
        child: ChildKey,
        life: u64,
        exit: Exit,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) {
        let Some(entry) = self.living(child, life) else { return };
        let (stage, comes_back) = (entry.stage, entry.comes_back_after(exit));
        match stage {
            Stage::Starting => return self.on_start_failed(child, life, retry_at, now),
            Stage::Up if comes_back => self.failed(child, retry_at, exit == Exit::Lost, now),
            Stage::Up if self.is_stopping_group_of(child) => self.gone(child),
            Stage::Up => self.done(child, now),
            // Held: its policy had taken it over, and now it is told to end or ends for good.
            Stage::Stopping { .. } | Stage::Held => self.gone(child),
            Stage::Down | Stage::Planned | Stage::Delayed { .. } => {}
        }
        self.advance(now);
    }

    /// The child's own policy has taken it over: it is not the supervisor's to restart until [`resume`](Self::resume). Its life counts
    /// as present: told to end, or ending for good, it answers with [`on_exit`](Self::on_exit).
    pub fn hold(&mut self, child: ChildKey, now: Timestamp) {
        let Some(entry) = self.children.get(&child) else { return };
        if matches!(entry.stage, Stage::Starting | Stage::Up | Stage::Delayed { .. } | Stage::Planned) {
            self.set_stage(child, Stage::Held);
            self.advance(now);
        }
    }

    /// Starts a held child, or one in its delay, now or, if its group is being restarted, in its turn. Says whether it does.
    pub fn resume(&mut self, child: ChildKey, now: Timestamp) -> bool {
        let waits = self
            .children
            .get(&child)
            .is_some_and(|entry| matches!(entry.stage, Stage::Held | Stage::Delayed { .. }));
        let resumes = waits && self.mode == Mode::Running;
        if resumes {
            self.start_in_turn(child, now);
        }
        resumes
    }

    /// The child's life has ended, and its own policy has nothing left: the supervisor ends.
    pub fn escalate(&mut self, child: ChildKey, now: Timestamp) {
        if self.children.contains_key(&child) {
            self.lay_down(child);
            self.end(End::Escalated { child }, now);
            self.advance(now);
        }
    }

    /// Whether the child would be started again, if it failed at `now`. With a group that is being stopped it is, at no cost.
    pub fn allows_restart(&mut self, child: ChildKey, now: Timestamp) -> bool {
        self.is_stopping_group_of(child) || self.intensity.allows(now)
    }

    /// Time has come to `now`.
    pub fn on_timer(&mut self, now: Timestamp) {
        while let Some((at, due)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, due));
            let Due::Child(child) = due else { continue };
            let Some(entry) = self.children.get_mut(&child) else { continue };
            match entry.stage {
                Stage::Delayed { .. } => self.start(child),
                Stage::Stopping { killed: false, then, .. } => {
                    let until = patience(entry, now);
                    self.set_stage(child, Stage::Stopping { until, killed: true, then });
                    self.actions.push_back(Action::Kill { child });
                }
                Stage::Stopping { killed: true, .. } => {
                    self.actions.push_back(Action::Abandon { child });
                    self.gone(child);
                }
                Stage::Down | Stage::Planned | Stage::Starting | Stage::Up | Stage::Held => {}
            }
        }
        self.advance(now);
    }

    /// When [`on_timer`](Self::on_timer) is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next thing to do; `None` when there is nothing until the next event.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The children in start order.
    pub fn which_children(&self) -> impl Iterator<Item = ChildView<'_>> {
        self.children.iter().map(|(key, child)| ChildView {
            key: *key,
            spec: &child.spec,
            state: child.state(),
            life: child.life,
        })
    }

    /// One child.
    #[must_use]
    pub fn child(&self, key: ChildKey) -> Option<ChildView<'_>> {
        let child = self.children.get(&key)?;
        Some(ChildView { key, spec: &child.spec, state: child.state(), life: child.life })
    }

    /// The key of the child called `name`.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<ChildKey> {
        self.names.get(name).copied()
    }

    /// How many children there are.
    #[must_use]
    pub fn count_children(&self) -> Counts {
        let mut counts = Counts { specs: self.children.len(), ..Counts::default() };
        for child in self.children.values() {
            counts.active += usize::from(child.is_alive());
            match child.spec.kind {
                ChildKind::Supervisor => counts.supervisors += 1,
                ChildKind::Kernel | ChildKind::Task => counts.workers += 1,
            }
        }
        counts
    }

    /// How the supervisor treats its children.
    #[must_use]
    pub fn config(&self) -> &SupervisorConfig {
        &self.config
    }

    /// Restarts that count at `now`.
    #[must_use]
    pub fn restarts_in_period(&self, now: Timestamp) -> u32 {
        self.intensity.spent(now)
    }

    /// Restarts since the supervisor began.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Whether its children are up, or being restarted: it has booted and is not ending.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.mode == Mode::Running
    }

    /// Whether it is stopping its children, or has ended.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.mode, Mode::Ending(..) | Mode::Ended)
    }

    /// The child, if `life` is its present one.
    fn living(&mut self, child: ChildKey, life: u64) -> Option<&mut Child> {
        self.children.get_mut(&child).filter(|entry| entry.life == life)
    }

    fn insert(&mut self, spec: ChildSpec, stage: Stage, ask: Ask) -> ChildKey {
        let key = ChildKey(self.next_key);
        self.next_key += 1;
        self.names.insert(Arc::clone(&spec.name), key);
        self.children.insert(key, Child::new(spec, stage, ask));
        key
    }

    /// Moves a child to another stage, and its timer with it.
    fn set_stage(&mut self, child: ChildKey, stage: Stage) {
        let Some(entry) = self.children.get_mut(&child) else { return };
        if let Some(at) = entry.stage.due() {
            self.timers.remove(&(at, Due::Child(child)));
        }
        entry.stage = stage;
        if let Some(at) = stage.due() {
            self.timers.insert((at, Due::Child(child)));
        }
    }

    fn start(&mut self, child: ChildKey) {
        self.set_stage(child, Stage::Starting);
        if let Some(entry) = self.children.get_mut(&child) {
            entry.life += 1;
            self.actions.push_back(Action::Start { child, life: entry.life });
        }
    }

    /// Tells a child to end, in the way its rules say.
    fn stop(&mut self, child: ChildKey, then: Then, now: Timestamp) {
        let Some(entry) = self.children.get(&child) else { return };
        let (until, killed) = match entry.spec.rules.shutdown {
            Shutdown::Brutal => (patience(entry, now), true),
            Shutdown::Within(grace) => (Some(now + grace), false),
            Shutdown::Infinity => (None, false),
        };
        self.set_stage(child, Stage::Stopping { until, killed, then });
        self.actions.push_back(if killed { Action::Kill { child } } else { Action::Stop { child } });
    }

    /// A child that was told to end, or whose group is being stopped, has ended.
    fn gone(&mut self, child: ChildKey) {
        let Some(entry) = self.children.get(&child) else { return };
        let then = match entry.stage {
            Stage::Stopping { then, .. } => then,
            Stage::Up => Then::Restart,
            Stage::Down | Stage::Planned | Stage::Starting | Stage::Delayed { .. } | Stage::Held => {
                Then::Stay
            }
        };
        let ending = matches!(self.mode, Mode::Ending(..));
        if ending {
            self.set_stage(child, Stage::Down);
        } else if entry.is_temporary() || self.config.strategy == Strategy::Dynamic {
            self.forget(child);
        } else if then == Then::Restart {
            self.set_stage(child, Stage::Planned);
        } else if entry.ask == Ask::Add {
            // It was stopped before it was up: it never was.
            self.forget(child);
        } else {
            self.settle(child);
        }
    }

    /// A child has ended by itself and is not to be started again.
    fn done(&mut self, child: ChildKey, now: Timestamp) {
        let Some(entry) = self.children.get(&child) else { return };
        let significant = entry.spec.rules.significant;
        if entry.is_temporary() || self.config.strategy == Strategy::Dynamic {
            self.forget(child);
        } else {
            self.settle(child);
        }
        let others = |machine: &Self| {
            let mut rest = machine.children.iter().filter(|(key, _)| **key != child);
            rest.any(|(_, other)| other.spec.rules.significant && other.is_to_run())
        };
        let ends = match self.config.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => significant,
            AutoShutdown::AllSignificant => significant && !others(self),
        };
        if ends {
            self.end(End::AutoShutdown { child }, now);
        }
    }

    /// A child has failed and comes back, if the intensity allows, or if it is `paid` for.
    fn failed(&mut self, child: ChildKey, retry_at: Option<Timestamp>, paid: bool, now: Timestamp) {
        if matches!(self.mode, Mode::Ending(..) | Mode::Ended) {
            return self.lay_down(child);
        }
        let joins = self.is_stopping_group_of(child);
        if !joins && !paid && !self.intensity.spend(now) {
            self.lay_down(child);
            return self.end(End::Intensity { child }, now);
        }
        let in_period = self.intensity.spent(now);
        let at = retry_at
            .unwrap_or_else(|| now + self.config.backoff.delay(in_period.max(1), &mut self.rng))
            .max(now);
        self.restarts += u64::from(!joins);
        self.actions.push_back(Action::Restarting { child, at, in_period });
        match self.config.strategy {
            _ if joins => self.join_plan(child, at),
            Strategy::OneForOne | Strategy::Dynamic if at <= now => self.start(child),
            Strategy::OneForOne | Strategy::Dynamic => self.set_stage(child, Stage::Delayed { at }),
            Strategy::OneForAll => self.plan_restart(FIRST, child, at),
            Strategy::RestForOne => self.plan_restart(child, child, at),
        }
    }

    /// A child whose life is over does not come back while its supervisor ends.
    fn lay_down(&mut self, child: ChildKey) {
        let left = self.children.get(&child).is_some_and(Child::may_leave_something);
        self.set_stage(child, if left { Stage::Held } else { Stage::Down });
    }

    fn settle(&mut self, child: ChildKey) {
        self.set_stage(child, Stage::Down);
        if let Some(entry) = self.children.get_mut(&child) {
            entry.ask = Ask::Supervisor;
        }
        self.actions.push_back(Action::Settled { child });
    }

    fn forget(&mut self, child: ChildKey) {
        self.set_stage(child, Stage::Down);
        if let Some(entry) = self.children.remove(&child) {
            self.names.remove(&entry.spec.name);
            self.actions.push_back(Action::Forget { child });
        }
    }
}

/// When a killed child is let go. A supervisor is not: it counts as gone when everything below it is, and whoever sees to that lets
/// go of the children one by one.
fn patience(child: &Child, now: Timestamp) -> Option<Timestamp> {
    (child.spec.kind != ChildKind::Supervisor).then(|| now + KILL_PATIENCE)
}
