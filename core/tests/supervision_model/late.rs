//! A supervisor whose children answer late, in any order, or never, and of whom it hears things that are long over.

use std::time::Duration;

use proptest::prelude::*;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::resilience::BackoffStrategy;
use rustkernel_core::supervision::{
    AutoShutdown, ChildKey, ChildKind, ChildRules, ChildSpec, ChildState, Exit, Restart, Shutdown,
    Strategy as Restarts, SupervisorConfig,
};

use crate::replay::Outcome;
use crate::watched::{Phase, Watched, holds};

/// A supervisor and what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    config: SupervisorConfig,
    children: Vec<ChildRules>,
    steps: Vec<Step>,
    /// In the end nobody ends unless killed, and some not even then.
    stubborn: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// One that was told to start does so, or fails; one that was told to end does.
    Answer(u16, bool, Retry),
    Die(u16, Exit, Retry),
    /// News of a life that is over.
    Stale(u16, u8),
    /// Time passes, and each timer is heard; or as much passes and only one is heard at the end of it.
    Pass(u64, bool),
    /// Time passes and no timer is heard yet.
    Overdue(u64),
    Start(u8, ChildRules),
    Terminate(u16),
    Restart(u16),
    Delete(u16),
    Hold(u16),
    Resume(u16),
    Escalate(u16),
    ShutDown,
}

/// In how many milliseconds the child's own policy would try again.
type Retry = Option<u64>;

pub(crate) fn histories() -> impl Strategy<Value = History> {
    let children = prop::collection::vec(rules(), 0..10);
    (config(), children, prop::collection::vec(step(), 1..120), any::<bool>())
        .prop_map(|(config, children, steps, stubborn)| History { config, children, steps, stubborn })
}

pub(crate) fn config() -> impl Strategy<Value = SupervisorConfig> {
    let strategy = prop_oneof![
        Just(Restarts::OneForOne),
        Just(Restarts::OneForAll),
        Just(Restarts::RestForOne),
        Just(Restarts::Dynamic),
    ];
    let intensity = prop_oneof![2 => 0_u32..5, 4 => 5_u32..30, 1 => Just(u32::MAX)];
    let auto_shutdown = prop_oneof![
        3 => Just(AutoShutdown::Never),
        1 => Just(AutoShutdown::AnySignificant),
        1 => Just(AutoShutdown::AllSignificant),
    ];
    let ms = Duration::from_millis;
    let backoff = prop_oneof![
        Just(BackoffStrategy::Fixed { delay: Duration::ZERO }),
        Just(BackoffStrategy::Fixed { delay: ms(20) }),
        Just(BackoffStrategy::ExponentialWithJitter { initial: ms(10), max: ms(300), multiplier: 2.0 }),
    ];
    (strategy, intensity, 1_u64..2_000, auto_shutdown, 1_u32..20, backoff).prop_map(
        move |(strategy, intensity, period, auto_shutdown, max_children, backoff)| SupervisorConfig {
            strategy,
            intensity,
            period: ms(period),
            auto_shutdown,
            max_children,
            backoff,
        },
    )
}

pub(crate) fn rules() -> impl Strategy<Value = ChildRules> {
    let restart = prop_oneof![
        3 => Just(Restart::Permanent),
        2 => Just(Restart::Transient),
        1 => Just(Restart::Temporary),
    ];
    let shutdown = prop_oneof![
        Just(Shutdown::Brutal),
        Just(Shutdown::Infinity),
        (0_u64..200).prop_map(|millis| Shutdown::Within(Duration::from_millis(millis))),
    ];
    (restart, shutdown, prop::bool::weighted(0.2)).prop_map(|(restart, shutdown, significant)| ChildRules {
        restart,
        shutdown,
        significant,
    })
}

pub(crate) fn exit() -> impl Strategy<Value = Exit> {
    prop_oneof![2 => Just(Exit::Abnormal), 1 => Just(Exit::Normal), 1 => Just(Exit::Shutdown)]
}

fn step() -> impl Strategy<Value = Step> {
    let retry = || prop_oneof![3 => Just(None), 1 => (0_u64..100).prop_map(Some)];
    let pick = any::<u16>;
    prop_oneof![
        40 => (pick(), prop::bool::weighted(0.8), retry()).prop_map(|(at, ok, retry)| Step::Answer(at, ok, retry)),
        20 => (pick(), exit(), retry()).prop_map(|(at, exit, retry)| Step::Die(at, exit, retry)),
        10 => (pick(), 0_u8..3).prop_map(|(at, news)| Step::Stale(at, news)),
        14 => (0_u64..400, any::<bool>()).prop_map(|(millis, each)| Step::Pass(millis, each)),
        4 => (0_u64..100).prop_map(Step::Overdue),
        1 => (5_000_u64..6_000, any::<bool>()).prop_map(|(millis, each)| Step::Pass(millis, each)),
        8 => (0_u8..16, rules()).prop_map(|(name, rules)| Step::Start(name, rules)),
        5 => pick().prop_map(Step::Terminate),
        5 => pick().prop_map(Step::Restart),
        3 => pick().prop_map(Step::Delete),
        3 => pick().prop_map(Step::Hold),
        3 => pick().prop_map(Step::Resume),
        1 => (pick(), prop::bool::weighted(0.2))
            .prop_map(|(at, does)| if does { Step::Escalate(at) } else { Step::Resume(at) }),
        1 => prop::bool::weighted(0.3).prop_map(|ends| if ends { Step::ShutDown } else { Step::Pass(1, true) }),
    ]
}

/// Lets it live through the history and come to rest.
pub(crate) fn live(history: &History) -> Outcome {
    let mut world = World::new(history.config.clone(), &history.children);
    world.boot()?;
    for step in &history.steps {
        world.perform(*step).map_err(|error| format!("{step:?}: {error}"))?;
    }
    world.settle(history.stubborn)
}

/// What the child's rules become under a supervisor that would refuse them.
pub(crate) fn fitting(mut rules: ChildRules, config: &SupervisorConfig) -> ChildRules {
    rules.significant &= config.validate_child(&rules).is_ok();
    rules
}

struct World {
    watched: Watched,
    now: Timestamp,
}

impl World {
    fn new(config: SupervisorConfig, children: &[ChildRules]) -> Self {
        let starts_empty = config.strategy == Restarts::Dynamic;
        let room = if starts_empty { 0 } else { config.max_children as usize };
        let specs = (0..).zip(children).take(room).map(|(name, rules)| spec(name, fitting(*rules, &config)));
        let specs = specs.collect();
        Self { watched: Watched::new(config, specs, 11), now: Timestamp::ZERO }
    }

    fn boot(&mut self) -> Outcome {
        let now = self.now;
        self.watched.tell(now, |machine| machine.boot(now)).map(drop)
    }

    fn perform(&mut self, step: Step) -> Outcome {
        let now = self.now;
        match step {
            Step::Answer(at, well, retry) => self.answer(at, well, retry),
            Step::Die(at, exit, retry) => self.die(at, exit, retry),
            Step::Stale(at, news) => self.stale(at, news),
            Step::Pass(millis, each) => self.pass(Duration::from_millis(millis), each),
            Step::Overdue(millis) => {
                self.now = now + Duration::from_millis(millis);
                Ok(())
            }
            Step::Start(name, rules) => {
                let spec = spec(name, fitting(rules, self.watched.machine.config()));
                self.watched.add(spec, now).map(drop)
            }
            Step::Terminate(at) => match self.pick(at, |_| true) {
                Some((key, name)) => self.watched.terminate(key, &name, now).map(drop),
                None => Ok(()),
            },
            Step::Restart(at) => match self.pick(at, |state| state == ChildState::Down) {
                Some((key, name)) => self.watched.restart(key, &name, now).map(drop),
                None => Ok(()),
            },
            Step::Delete(at) => match self.pick(at, |_| true) {
                Some((key, name)) => {
                    self.watched.ask(key, now, |machine| drop(machine.delete_child(&name))).map(drop)
                }
                None => Ok(()),
            },
            Step::Hold(at) => match self.pick(at, |_| true) {
                Some((key, _)) => self.watched.hold(key, now).map(drop),
                None => Ok(()),
            },
            Step::Resume(at) => match self.pick(at, |state| state == ChildState::Held) {
                Some((key, _)) => self.watched.resume(key, now).map(drop),
                None => Ok(()),
            },
            Step::Escalate(at) => match self.pick(at, |_| true).filter(|_| self.watched.end.is_none()) {
                Some((key, _)) => self.watched.escalate(key, now).map(drop),
                None => Ok(()),
            },
            Step::ShutDown => self.watched.tell(now, |machine| machine.shut_down(now)).map(drop),
        }
    }

    fn answer(&mut self, at: u16, well: bool, retry: Retry) -> Outcome {
        let pending = self.watched.pending();
        if pending.is_empty() {
            return Ok(());
        }
        let child = pending[usize::from(at) % pending.len()];
        let life = self.watched.lives[&child];
        let (now, retry_at) = (self.now, self.retry_at(retry));
        let starting = life.phase == Phase::Starting;
        match (starting, well) {
            // Told to end before it was up: that it is up comes first.
            (true, true) if !life.told || at.is_multiple_of(2) => self.watched.started(child, now),
            (true, false) => self.watched.start_failed(child, retry_at, now),
            _ => {
                let exit = if well { Exit::Shutdown } else { Exit::Abnormal };
                self.watched.exited(child, exit, retry_at, now)
            }
        }
        .map(drop)
    }

    fn die(&mut self, at: u16, exit: Exit, retry: Retry) -> Outcome {
        let living: Vec<ChildKey> = self.watched.lives.keys().copied().collect();
        if living.is_empty() {
            return Ok(());
        }
        let child = living[usize::from(at) % living.len()];
        let (now, retry_at) = (self.now, self.retry_at(retry));
        self.watched.exited(child, exit, retry_at, now).map(drop)
    }

    fn stale(&mut self, at: u16, news: u8) -> Outcome {
        // What is due by now is not for the news to bring about.
        self.pass(Duration::ZERO, true)?;
        let now = self.now;
        let up = self.watched.lives.iter().filter(|(_, life)| life.phase == Phase::Up && !life.told);
        let up = up.map(|(key, life)| (*key, life.number)).collect::<Vec<_>>();
        // That one is up is told twice; of those that are over anything may be told.
        let (of, news) = if at.is_multiple_of(4) { (&up, 0) } else { (&self.watched.past, news) };
        if of.is_empty() {
            return Ok(());
        }
        let (child, life) = of[usize::from(at) % of.len()];
        let before = self.states();
        let actions = self.watched.tell(now, |machine| match news {
            0 => machine.on_started(child, life, now),
            1 => machine.on_start_failed(child, life, None, now),
            _ => machine.on_exit(child, life, Exit::Abnormal, None, now),
        })?;
        holds(actions.is_empty() && before == self.states(), "old news changed something")
    }

    fn pass(&mut self, span: Duration, each: bool) -> Outcome {
        let target = self.now + span;
        while let Some(due) = self.watched.machine.next_deadline().filter(|due| *due <= target) {
            self.now = if each { due.max(self.now) } else { target };
            let now = self.now;
            drop(self.watched.tell(now, |machine| machine.on_timer(now))?);
        }
        self.now = target;
        Ok(())
    }

    /// Everybody answers, or is waited for in vain, and time passes until nothing is under way any more.
    fn settle(&mut self, stubborn: bool) -> Outcome {
        for _ in 0..400 {
            while let Some(child) = self.answering(stubborn) {
                let (now, life) = (self.now, self.watched.lives[&child]);
                drop(match (life.told, life.phase) {
                    (false, _) => self.watched.started(child, now)?,
                    (true, _) => self.watched.exited(child, Exit::Shutdown, None, now)?,
                });
            }
            let Some(due) = self.watched.machine.next_deadline() else {
                return self.watched.check_settled();
            };
            self.pass(due - self.now, true)?;
        }
        Err(format!("it does not settle: {:?}", self.watched.machine))
    }

    /// One that will answer. Who is never killed has to.
    fn answering(&self, stubborn: bool) -> Option<ChildKey> {
        let answers = |child: &ChildKey| {
            let view = self.watched.machine.child(*child).unwrap();
            !stubborn || view.state == ChildState::Starting || view.spec.rules.shutdown == Shutdown::Infinity
        };
        self.watched.pending().into_iter().rev().find(answers)
    }

    fn retry_at(&self, retry: Retry) -> Option<Timestamp> {
        retry.map(|millis| self.now + Duration::from_millis(millis))
    }

    /// One of the children, if it can be one that stands as wanted.
    fn pick(&self, at: u16, wanted: impl Fn(ChildState) -> bool) -> Option<(ChildKey, String)> {
        let of = |fits: &dyn Fn(ChildState) -> bool| {
            let children = self.watched.machine.which_children().filter(|view| fits(view.state));
            let children: Vec<_> = children.map(|view| (view.key, view.spec.name.to_string())).collect();
            children.get(usize::from(at) % children.len().max(1)).cloned()
        };
        of(&wanted).or_else(|| of(&|_| true))
    }

    fn states(&self) -> Vec<(ChildKey, ChildState, u64)> {
        self.watched.machine.which_children().map(|view| (view.key, view.state, view.life)).collect()
    }
}

fn spec(name: u8, rules: ChildRules) -> ChildSpec {
    ChildSpec { name: name.to_string().into(), kind: ChildKind::Task, rules }
}
