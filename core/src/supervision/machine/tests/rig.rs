//! A supervisor with played children: they answer at once, or when the test says so.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::*;
use crate::resilience::BackoffStrategy;
use crate::supervision::{ChildRules, ChildState, Restart};

/// Owns the machine, the time, the living children, and what the machine has wanted so far.
pub(super) struct Rig {
    pub(super) machine: SupervisorMachine,
    now: Timestamp,
    names: HashMap<ChildKey, String>,
    /// The lives that have been asked for and not been reported gone.
    lives: BTreeMap<String, u64>,
    slow: HashSet<String>,
    failing: HashMap<String, u32>,
    log: Vec<String>,
    ended: bool,
}

impl Rig {
    /// A supervisor that has not been booted.
    pub(super) fn cold(config: SupervisorConfig, children: impl IntoIterator<Item = ChildSpec>) -> Self {
        Self {
            machine: SupervisorMachine::try_new(config, children, 7).unwrap(),
            now: Timestamp::ZERO,
            names: HashMap::new(),
            lives: BTreeMap::new(),
            slow: HashSet::new(),
            failing: HashMap::new(),
            log: Vec::new(),
            ended: false,
        }
    }

    /// A supervisor that has booted, with an empty log.
    pub(super) fn new(config: SupervisorConfig, children: impl IntoIterator<Item = ChildSpec>) -> Self {
        let mut rig = Self::cold(config, children);
        rig.boot();
        assert!(rig.machine.is_running());
        rig.log.clear();
        rig
    }

    pub(super) fn boot(&mut self) {
        self.tell(|machine, now| machine.boot(now));
    }

    /// Says something to the machine and does what it wants.
    pub(super) fn tell<T>(&mut self, event: impl FnOnce(&mut SupervisorMachine, Timestamp) -> T) -> T {
        let answer = event(&mut self.machine, self.now);
        self.drain();
        answer
    }

    /// From now on the child answers only when told to.
    pub(super) fn slow(&mut self, name: &str) {
        self.slow.insert(name.to_owned());
    }

    /// The next `count` starts of the child fail.
    pub(super) fn fail_starts(&mut self, name: &str, count: u32) {
        self.failing.insert(name.to_owned(), count);
    }

    /// The child ends by itself.
    pub(super) fn exit(&mut self, name: &str, exit: Exit) {
        self.exits(&[(name, exit)]);
    }

    /// The child ends by itself, and its own policy would try again in `millis`.
    pub(super) fn exit_until(&mut self, name: &str, exit: Exit, millis: u64) {
        let (key, life) = self.end_life(name);
        let retry_at = Some(self.now + ms(millis));
        self.tell(|machine, now| machine.on_exit(key, life, exit, retry_at, now));
    }

    /// The child ends by itself and the machine is told something else instead.
    pub(super) fn ends_unheard(&mut self, name: &str) -> ChildKey {
        self.end_life(name).0
    }

    /// The children end by themselves before the machine's wishes are heard again.
    pub(super) fn exits(&mut self, ends: &[(&str, Exit)]) {
        for (name, exit) in ends {
            let (key, life) = self.end_life(name);
            self.machine.on_exit(key, life, *exit, None, self.now);
        }
        self.drain();
    }

    /// A slow child has started.
    pub(super) fn up(&mut self, name: &str) {
        let (key, life) = (self.key(name), self.lives[name]);
        self.tell(|machine, now| machine.on_started(key, life, now));
    }

    /// A slow child's start has failed.
    pub(super) fn fails(&mut self, name: &str) {
        let (key, life) = self.end_life(name);
        self.tell(|machine, now| machine.on_start_failed(key, life, None, now));
    }

    /// A slow child has ended as told.
    pub(super) fn gone(&mut self, name: &str) {
        self.exit(name, Exit::Shutdown);
    }

    /// Lets time pass, timer by timer.
    pub(super) fn pass(&mut self, millis: u64) {
        let target = self.now + ms(millis);
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= target) {
            assert!(due >= self.now, "a timer of the past is not pending");
            self.now = due;
            self.tell(|machine, now| machine.on_timer(now));
        }
        self.now = target;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn key(&self, name: &str) -> ChildKey {
        self.machine.key(name).unwrap()
    }

    /// What the machine has wanted since the last look, in order.
    pub(super) fn log(&mut self) -> String {
        std::mem::take(&mut self.log).join(", ")
    }

    /// As [`log`](Self::log), without what is only told.
    pub(super) fn moves(&mut self) -> String {
        let told =
            |line: &String| ["restarting", "settled", "forget"].iter().any(|told| line.starts_with(told));
        let mut log = std::mem::take(&mut self.log);
        log.retain(|line| !told(line));
        log.join(", ")
    }

    /// The children and where they stand, as in `a up, b down`.
    pub(super) fn states(&self) -> String {
        let state = |view: ChildView<'_>| {
            let state = match view.state {
                ChildState::Down => "down",
                ChildState::Planned => "planned",
                ChildState::Starting => "starting",
                ChildState::Up => "up",
                ChildState::Delayed { .. } => "delayed",
                ChildState::Stopping => "stopping",
                ChildState::Held => "held",
            };
            format!("{} {state}", view.spec.name)
        };
        self.machine.which_children().map(state).collect::<Vec<_>>().join(", ")
    }

    /// The child's life as the rig sees it: none if it is gone.
    pub(super) fn life(&self, name: &str) -> Option<u64> {
        self.lives.get(name).copied()
    }

    fn end_life(&mut self, name: &str) -> (ChildKey, u64) {
        (self.key(name), self.lives.remove(name).unwrap())
    }

    fn drain(&mut self) {
        let names = self.machine.which_children().map(|view| (view.key, view.spec.name.to_string()));
        self.names.extend(names);
        while let Some(action) = self.machine.next_action() {
            assert!(!self.ended, "{action:?} after the end");
            self.perform(&action);
        }
    }

    fn perform(&mut self, action: &Action) {
        let name = |child: &ChildKey| self.names[child].clone();
        match action {
            Action::Start { child, life } => self.start(*child, &name(child), *life),
            Action::Stop { child } => self.stop("stop", &name(child), Exit::Shutdown),
            Action::Kill { child } => self.stop("kill", &name(child), Exit::Abnormal),
            Action::Abandon { child } => {
                let name = name(child);
                self.lives.remove(&name).unwrap();
                self.log.push(format!("abandon {name}"));
            }
            Action::Restarting { child, .. } => self.log.push(format!("restarting {}", name(child))),
            Action::Settled { child } => self.log.push(format!("settled {}", name(child))),
            Action::Forget { child } => self.log.push(format!("forget {}", name(child))),
            Action::Booted => self.log.push("booted".to_owned()),
            Action::End(end) => {
                let end = match end {
                    End::Stopped => "stopped".to_owned(),
                    End::BootFailed { child } => format!("boot failed {}", name(child)),
                    End::Intensity { child } => format!("intensity {}", name(child)),
                    End::Escalated { child } => format!("escalated {}", name(child)),
                    End::AutoShutdown { child } => format!("auto-shutdown {}", name(child)),
                };
                self.log.push(format!("end {end}"));
                assert_eq!(self.lives, BTreeMap::new(), "no orphans");
                self.ended = true;
            }
        }
    }

    fn start(&mut self, child: ChildKey, name: &str, life: u64) {
        self.log.push(format!("start {name}"));
        assert_eq!(self.lives.insert(name.to_owned(), life), None, "{name} lives already");
        if self.slow.contains(name) {
            return;
        }
        if let Some(count) = self.failing.get_mut(name).filter(|count| **count > 0) {
            *count -= 1;
            self.lives.remove(name);
            self.machine.on_start_failed(child, life, None, self.now);
        } else {
            self.machine.on_started(child, life, self.now);
        }
    }

    fn stop(&mut self, how: &str, name: &str, exit: Exit) {
        self.log.push(format!("{how} {name}"));
        if self.slow.contains(name) {
            return;
        }
        // What is left of a kernel is stopped though its life is over.
        let key = self.key(name);
        let last = self.machine.child(key).map_or(0, |view| view.life);
        let life = self.lives.remove(name).unwrap_or(last);
        self.machine.on_exit(key, life, exit, None, self.now);
    }
}

/// One restart within a second is allowed, and nothing is delayed.
pub(super) fn config(strategy: Strategy) -> SupervisorConfig {
    let backoff = BackoffStrategy::Fixed { delay: Duration::ZERO };
    SupervisorConfig { strategy, intensity: 1, period: ms(1000), backoff, ..SupervisorConfig::default() }
}

pub(super) fn child(name: &str, restart: Restart) -> ChildSpec {
    let rules = ChildRules { restart, shutdown: Shutdown::Within(ms(100)), significant: false };
    ChildSpec { name: name.into(), kind: ChildKind::Task, rules }
}

pub(super) fn permanent(name: &str) -> ChildSpec {
    child(name, Restart::Permanent)
}

pub(super) fn transient(name: &str) -> ChildSpec {
    child(name, Restart::Transient)
}

pub(super) fn temporary(name: &str) -> ChildSpec {
    child(name, Restart::Temporary)
}

pub(super) fn kernel(mut spec: ChildSpec) -> ChildSpec {
    spec.kind = ChildKind::Kernel;
    spec
}

pub(super) fn stopped_by(shutdown: Shutdown, mut spec: ChildSpec) -> ChildSpec {
    spec.rules.shutdown = shutdown;
    spec
}

/// Permanent children called a, b, c, ...
pub(super) fn permanents(count: u8) -> Vec<ChildSpec> {
    (0..count).map(|n| permanent(&char::from(b'a' + n).to_string())).collect()
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
