//! A machine whose every wish is checked against what its children really do.

use std::collections::{BTreeMap, BTreeSet};

use rustkernel_core::clock::Timestamp;
use rustkernel_core::supervision::{
    Action, ChildKey, ChildRules, ChildSpec, ChildState, ChildView, End, Exit, Restart, Shutdown, Strategy,
    SupervisorConfig, SupervisorMachine,
};

/// How far a life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Up,
    /// Over, and kept by its own policy.
    Held,
}

/// A life that has been asked for and not been reported gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) number: u64,
    pub(crate) phase: Phase,
    /// It has been told to end.
    pub(crate) told: bool,
    killed: bool,
    /// It was started because somebody asked, not because its turn had come.
    by_hand: bool,
}

/// The machine and what its children really do.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) machine: SupervisorMachine,
    pub(crate) lives: BTreeMap<ChildKey, Life>,
    /// Lives that are over, for news that come late.
    pub(crate) past: Vec<(ChildKey, u64)>,
    pub(crate) booted: bool,
    pub(crate) end: Option<End>,
    started: BTreeMap<ChildKey, u64>,
    rules: BTreeMap<ChildKey, ChildRules>,
    last_exit: BTreeMap<ChildKey, Exit>,
    /// Children that somebody stopped, restarted or held.
    touched: BTreeSet<ChildKey>,
    /// Children that somebody stopped, until somebody or another group restart starts them.
    stopped: BTreeSet<ChildKey>,
    /// Restarts that cost, in the window.
    restarts: Vec<Timestamp>,
    /// From where on a group is being stopped.
    stopping_from: Option<ChildKey>,
    /// Whom the request at hand is about.
    by_hand: Option<ChildKey>,
    /// The request at hand adds a child.
    adds: bool,
}

type Actions = Result<Vec<Action>, String>;

impl Watched {
    pub(crate) fn new(config: SupervisorConfig, children: Vec<ChildSpec>, seed: u64) -> Self {
        Self {
            machine: SupervisorMachine::try_new(config, children, seed).unwrap(),
            lives: BTreeMap::new(),
            past: Vec::new(),
            booted: false,
            end: None,
            started: BTreeMap::new(),
            rules: BTreeMap::new(),
            last_exit: BTreeMap::new(),
            touched: BTreeSet::new(),
            stopped: BTreeSet::new(),
            restarts: Vec::new(),
            stopping_from: None,
            by_hand: None,
            adds: false,
        }
    }

    /// Says something to the machine and checks what it wants.
    pub(crate) fn tell(&mut self, now: Timestamp, event: impl FnOnce(&mut SupervisorMachine)) -> Actions {
        event(&mut self.machine);
        let mut actions = Vec::new();
        while let Some(action) = self.machine.next_action() {
            self.check(&action, now).map_err(|error| format!("{action:?} at {now:?}: {error}"))?;
            actions.push(action);
        }
        (self.by_hand, self.adds) = (None, false);
        self.stopping_from = self.stopping_from.filter(|from| self.is_alive_from(*from));
        self.check_views()?;
        Ok(actions)
    }

    /// Asks something about a child.
    pub(crate) fn ask(
        &mut self,
        child: ChildKey,
        now: Timestamp,
        event: impl FnOnce(&mut SupervisorMachine),
    ) -> Actions {
        self.by_hand = Some(child);
        self.touched.insert(child);
        self.tell(now, event)
    }

    /// Adds a child, or is refused.
    pub(crate) fn add(&mut self, spec: ChildSpec, now: Timestamp) -> Actions {
        self.adds = true;
        self.tell(now, |machine| drop(machine.start_child(spec, now)))
    }

    pub(crate) fn terminate(&mut self, child: ChildKey, name: &str, now: Timestamp) -> Actions {
        self.stopped.insert(child);
        self.ask(child, now, |machine| drop(machine.terminate_child(name, now)))
    }

    pub(crate) fn restart(&mut self, child: ChildKey, name: &str, now: Timestamp) -> Actions {
        self.stopped.remove(&child);
        self.ask(child, now, |machine| drop(machine.restart_child(name, now)))
    }

    pub(crate) fn started(&mut self, child: ChildKey, now: Timestamp) -> Actions {
        let life = self.lives.get_mut(&child).unwrap();
        life.phase = Phase::Up;
        let number = life.number;
        self.tell(now, |machine| machine.on_started(child, number, now))
    }

    pub(crate) fn start_failed(
        &mut self,
        child: ChildKey,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Actions {
        let number = self.over(child);
        self.tell(now, |machine| machine.on_start_failed(child, number, retry_at, now))
    }

    pub(crate) fn exited(
        &mut self,
        child: ChildKey,
        exit: Exit,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Actions {
        let number = self.over(child);
        self.last_exit.insert(child, exit);
        self.tell(now, |machine| machine.on_exit(child, number, exit, retry_at, now))
    }

    /// The child's policy takes over what is, or was about to be, its life.
    pub(crate) fn hold(&mut self, child: ChildKey, now: Timestamp) -> Actions {
        let state = self.machine.child(child).map(|view| view.state);
        let holds = matches!(
            state,
            Some(ChildState::Starting | ChildState::Up | ChildState::Planned | ChildState::Delayed { .. })
        );
        if holds {
            let number = self.started.get(&child).copied().unwrap_or(0);
            let held = Life { number, phase: Phase::Held, told: false, killed: false, by_hand: false };
            self.lives.insert(child, held);
            // Until its policy lets it go, news of this life are no old news.
            self.past.retain(|past| *past != (child, number));
        }
        self.ask(child, now, |machine| machine.hold(child, now))
    }

    pub(crate) fn resume(&mut self, child: ChildKey, now: Timestamp) -> Actions {
        self.by_hand = Some(child);
        let resumes = self.machine.resume(child, now);
        // It need not start at once: it may have to wait for its turn.
        if resumes {
            self.lives.remove(&child);
        }
        self.tell(now, |_| {})
    }

    /// The child's life is over and so is its policy's patience.
    pub(crate) fn escalate(&mut self, child: ChildKey, now: Timestamp) -> Actions {
        self.lives.remove(&child);
        self.tell(now, |machine| machine.escalate(child, now))
    }

    /// Those whose answer the machine waits for.
    pub(crate) fn pending(&self) -> Vec<ChildKey> {
        let waits = |life: &Life| life.told || life.phase == Phase::Starting;
        self.lives.iter().filter(|(_, life)| waits(life)).map(|(key, _)| *key).collect()
    }

    /// Nothing is under way: each child is as it will stay.
    pub(crate) fn check_settled(&self) -> Result<(), String> {
        if self.end.is_some() {
            return Ok(());
        }
        if !self.machine.is_running() {
            return Err("it neither runs nor has it ended".to_owned());
        }
        for view in self.machine.which_children() {
            let stays = match view.state {
                ChildState::Up | ChildState::Held => true,
                ChildState::Down => self.may_be_down(view.key),
                ChildState::Planned
                | ChildState::Starting
                | ChildState::Delayed { .. }
                | ChildState::Stopping => false,
            };
            if !stays {
                return Err(format!("{view:?} in the end"));
            }
        }
        Ok(())
    }

    fn is_alive_from(&self, from: ChildKey) -> bool {
        self.lives.range(from..).any(|(_, life)| life.phase != Phase::Held || life.told)
    }

    fn over(&mut self, child: ChildKey) -> u64 {
        let life = self.lives.remove(&child).unwrap();
        self.past.push((child, life.number));
        life.number
    }

    fn may_be_down(&self, child: ChildKey) -> bool {
        let done = matches!(self.last_exit.get(&child), Some(Exit::Normal | Exit::Shutdown));
        let transient = self.rules.get(&child).is_some_and(|rules| rules.restart == Restart::Transient);
        self.touched.contains(&child) || (transient && done)
    }

    fn check(&mut self, action: &Action, now: Timestamp) -> Result<(), String> {
        if self.end.is_some() {
            return Err("after the end".to_owned());
        }
        match *action {
            Action::Start { child, life } => self.check_start(child, life),
            Action::Stop { child } => self.check_stop(child, false),
            Action::Kill { child } => self.check_stop(child, true),
            Action::Abandon { child } => {
                let life = self.lives.remove(&child).ok_or("there is nobody to let go")?;
                self.past.push((child, life.number));
                holds(life.killed, "it was not killed before it was let go")
            }
            Action::Restarting { child, at, .. } => {
                holds(at >= now, "a restart in the past")?;
                self.check_intensity(child, now)
            }
            Action::Settled { child } => {
                holds(!self.lives.contains_key(&child), "it lives")?;
                holds(self.may_be_down(child) || !self.machine.is_running(), "it should come back")
            }
            Action::Forget { child } => {
                holds(!self.lives.contains_key(&child), "it lives")?;
                holds(self.machine.child(child).is_none(), "it is still there")
            }
            Action::Booted => {
                holds(!self.booted, "it has booted before")?;
                self.booted = true;
                Ok(())
            }
            Action::End(end) => self.check_end(end),
        }
    }

    fn check_start(&mut self, child: ChildKey, number: u64) -> Result<(), String> {
        let former = self.lives.remove(&child);
        holds(
            former.is_none_or(|life| life.phase == Phase::Held && !life.told),
            "its former life is not over",
        )?;
        let last = self.started.insert(child, number).unwrap_or(0);
        holds(number == last + 1, "lives are numbered one by one")?;
        let view = self.machine.child(child);
        if let Some(view) = view {
            self.rules.insert(child, view.spec.rules);
        }
        self.last_exit.remove(&child);
        let by_hand = self.by_hand == Some(child) || self.adds;
        let group = matches!(self.machine.config().strategy, Strategy::OneForAll | Strategy::RestForOne);
        let booting = !self.booted && number == 1;
        holds(by_hand || !self.stopped.contains(&child), "it was stopped for good")?;
        self.stopped.remove(&child);
        if (group || booting) && !by_hand {
            let later = |life: &Life| life.phase != Phase::Held && !life.told;
            let ahead = self.lives.range(child..).any(|(_, life)| later(life));
            holds(!ahead, "one that comes after it is up already")?;
            let first = |life: &Life| life.phase == Phase::Starting && !life.told && !life.by_hand;
            let mut starting = self.lives.values().filter(|life| group || life.number == 1);
            holds(!starting.any(first), "the one before it is still starting")?;
        }
        if self.stopping_from.is_some_and(|from| child >= from) {
            self.stopping_from = None;
        }
        let life = Life { number, phase: Phase::Starting, told: false, killed: false, by_hand };
        self.lives.insert(child, life);
        Ok(())
    }

    fn check_stop(&mut self, child: ChildKey, kills: bool) -> Result<(), String> {
        // Whoever asks, nobody is stopped out of turn once the supervisor ends.
        let is_asked = self.by_hand == Some(child) && (self.machine.is_running() || !self.booted);
        let shutdown = self.machine.child(child).ok_or("it is no child")?.spec.rules.shutdown;
        let life = self.lives.get(&child).copied().ok_or("it does not live")?;
        let fits = match shutdown {
            Shutdown::Brutal => kills && !life.told,
            Shutdown::Within(_) => kills == life.told && !life.killed,
            Shutdown::Infinity => !kills && !life.told,
        };
        holds(fits, "its rules say otherwise")?;
        if !life.told && !is_asked && self.machine.config().strategy != Strategy::Dynamic {
            let next = |(key, life): (&ChildKey, &Life)| *key > child && life.phase != Phase::Held;
            holds(!self.lives.range(child..).any(next), "one that comes after it is still alive")?;
        }
        let life = self.lives.get_mut(&child).ok_or("it does not live")?;
        life.told = true;
        life.killed |= kills;
        Ok(())
    }

    /// A failure costs, unless its group is being stopped already.
    fn check_intensity(&mut self, child: ChildKey, now: Timestamp) -> Result<(), String> {
        if self.stopping_from.is_some_and(|from| child >= from && self.is_alive_from(from)) {
            return Ok(());
        }
        let config = self.machine.config();
        self.restarts.retain(|at| now - *at < config.period);
        self.restarts.push(now);
        self.stopped.clear();
        let counted = self.restarts.len();
        holds(config.intensity == u32::MAX || counted <= config.intensity as usize, "one restart too many")?;
        let first = self.machine.which_children().next().map(|view| view.key);
        let from = match config.strategy {
            Strategy::OneForAll => first,
            Strategy::RestForOne => Some(child),
            Strategy::OneForOne | Strategy::Dynamic => None,
        };
        self.stopping_from = from.map(|from| self.stopping_from.map_or(from, |older| older.min(from)));
        Ok(())
    }

    fn check_end(&mut self, end: End) -> Result<(), String> {
        holds(self.lives.is_empty(), "somebody is left alive")?;
        holds(self.machine.next_deadline().is_none(), "a timer is left")?;
        if let End::BootFailed { .. } = end {
            holds(!self.booted, "it had booted")?;
        }
        if let End::Intensity { .. } = end {
            let used_up = self.restarts.len() == self.machine.config().intensity as usize;
            holds(used_up, "restarts were left")?;
        }
        self.end = Some(end);
        Ok(())
    }

    /// What the machine says of its children is so.
    fn check_views(&self) -> Result<(), String> {
        let mut lives = 0;
        for view in self.machine.which_children() {
            let life = self.lives.get(&view.key);
            lives += usize::from(life.is_some());
            holds(is_so(&view, life), &format!("{view:?}, but really {life:?}"))?;
        }
        holds(lives == self.lives.len(), "somebody lives who is no child")
    }
}

fn is_so(view: &ChildView<'_>, life: Option<&Life>) -> bool {
    match (view.state, life) {
        (ChildState::Down | ChildState::Planned | ChildState::Delayed { .. }, None) => true,
        (ChildState::Starting, Some(life)) => life.phase == Phase::Starting && !life.told,
        (ChildState::Up, Some(life)) => life.phase == Phase::Up && !life.told,
        (ChildState::Stopping, Some(life)) => life.told,
        (ChildState::Held, Some(life)) => life.phase == Phase::Held && !life.told,
        (ChildState::Down | ChildState::Planned | ChildState::Delayed { .. }, Some(_)) => false,
        (ChildState::Starting | ChildState::Up | ChildState::Stopping | ChildState::Held, None) => false,
    }
}

pub(crate) fn holds(condition: bool, otherwise: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise.to_owned()) }
}
