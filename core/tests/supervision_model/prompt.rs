//! A supervisor whose children do at once what they are told, step by step beside the model.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::resilience::BackoffStrategy;
use rustkernel_core::supervision::{
    Action, AutoShutdown, ChildKey, ChildKind, ChildRules, ChildSpec, ChildState, End, Exit, Refusal,
    Restart, Shutdown, Strategy as Restarts, SupervisorConfig, SupervisorMachine,
};

use crate::otp::{Answer, Kid, Otp, Over, Seen};
use crate::replay::Outcome;

/// A supervisor and what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    strategy: &'static str,
    auto_shutdown: &'static str,
    intensity: u32,
    period_ms: u64,
    max_children: u32,
    children: Vec<Declared>,
    failing: Vec<u8>,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Declared {
    kind: char,
    significant: bool,
    shutdown: Shutdown,
}

#[derive(Clone, Debug)]
enum Step {
    /// Those of the living die, in this order, before the supervisor hears of the first.
    Die(Vec<(u16, &'static str)>),
    Pass(u64),
    FailStarts(u8, u8),
    Start(u8, Declared),
    Terminate(u8),
    Restart(u8),
    Delete(u8),
    ShutDown,
}

const NAMES: u8 = 36;

pub(crate) fn histories() -> impl Strategy<Value = History> {
    let supervisor = (
        prop_oneof![Just("one"), Just("all"), Just("rest"), Just("simple")],
        prop_oneof![Just("never"), Just("any"), Just("every")],
        0_u32..7,
        1_u64..1_000,
        1_u32..34,
    );
    let failing = prop_oneof![
        9 => Just(vec![0; usize::from(NAMES)]),
        1 => prop::collection::vec(prop_oneof![12 => Just(0_u8), 1 => 1_u8..3], usize::from(NAMES)),
    ];
    let children = prop::collection::vec(declared(), 0..31);
    (supervisor, children, failing, prop::collection::vec(step(), 1..80)).prop_map(
        |((strategy, auto_shutdown, intensity, period_ms, max_children), children, failing, steps)| History {
            strategy,
            auto_shutdown,
            intensity,
            period_ms,
            max_children,
            children,
            failing,
            steps,
        },
    )
}

fn declared() -> impl Strategy<Value = Declared> {
    let shutdown = prop_oneof![
        Just(Shutdown::Brutal),
        Just(Shutdown::Infinity),
        Just(Shutdown::Within(Duration::from_millis(50))),
    ];
    let kind = prop_oneof![Just('p'), Just('t'), Just('x')];
    (kind, prop::bool::weighted(0.2), shutdown).prop_map(|(kind, significant, shutdown)| Declared {
        kind,
        significant,
        shutdown,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let reason = prop_oneof![Just("normal"), Just("shutdown"), Just("crash"), Just("crash")];
    prop_oneof![
        12 => prop::collection::vec((any::<u16>(), reason), 1..4).prop_map(Step::Die),
        8 => (0_u64..500).prop_map(Step::Pass),
        3 => (0..NAMES, 1_u8..3).prop_map(|(name, count)| Step::FailStarts(name, count)),
        5 => (0..NAMES, declared()).prop_map(|(name, declared)| Step::Start(name, declared)),
        4 => (0..NAMES).prop_map(Step::Terminate),
        4 => (0..NAMES).prop_map(Step::Restart),
        3 => (0..NAMES).prop_map(Step::Delete),
        1 => prop::bool::weighted(0.1).prop_map(|ends| if ends { Step::ShutDown } else { Step::Pass(1) }),
    ]
}

/// Lets both live through the history; says where they part.
pub(crate) fn compare(history: &History) -> Outcome {
    let children = history.boot_children();
    let mut model = history.model(&children);
    let mut real = Prompt::new(history, &children);
    model.boot();
    let now = real.now;
    real.tell(|machine| machine.boot(now))?;
    agree(&model, &mut real, "boot")?;
    for step in &history.steps {
        if model.over.is_some() {
            break;
        }
        model.seen.clear();
        real.seen.clear();
        perform(step, &mut model, &mut real)?;
        agree(&model, &mut real, &format!("{step:?}"))?;
    }
    Ok(())
}

fn perform(step: &Step, model: &mut Otp, real: &mut Prompt) -> Outcome {
    let now = real.now;
    let (expected, answer) = match step {
        Step::Die(picks) => return die(picks, model, real),
        Step::Pass(millis) => {
            model.now_ms += millis;
            real.now = real.now + Duration::from_millis(*millis);
            return Ok(());
        }
        Step::FailStarts(name, count) => {
            model.failing[usize::from(*name)] = *count;
            real.failing[usize::from(*name)] = *count;
            return Ok(());
        }
        Step::ShutDown => {
            model.finish(Over::Told);
            return real.tell(|machine| machine.shut_down(now));
        }
        Step::Start(name, declared) => (
            model.start_child(kid(*name, *declared)),
            real.ask(|machine| machine.start_child(spec(*name, *declared), now))?,
        ),
        Step::Terminate(name) => (
            model.terminate_child(*name),
            real.ask(|machine| machine.terminate_child(&name.to_string(), now))?,
        ),
        Step::Restart(name) => {
            (model.restart_child(*name), real.ask(|machine| machine.restart_child(&name.to_string(), now))?)
        }
        Step::Delete(name) => {
            (model.delete_child(*name), real.ask(|machine| machine.delete_child(&name.to_string()))?)
        }
    };
    if expected == answer {
        Ok(())
    } else {
        Err(format!("{step:?}: OTP answers {expected:?}, we {answer:?}"))
    }
}

fn die(picks: &[(u16, &'static str)], model: &mut Otp, real: &mut Prompt) -> Outcome {
    let mut living: Vec<u8> = model.kids.iter().filter(|kid| kid.breathes).map(|kid| kid.name).collect();
    let mut deaths = Vec::new();
    for (pick, reason) in picks {
        if !living.is_empty() {
            deaths.push((living.remove(usize::from(*pick) % living.len()), *reason));
        }
    }
    model.exits(&deaths);
    real.exits(&deaths)
}

fn agree(model: &Otp, real: &mut Prompt, step: &str) -> Outcome {
    let mine: Vec<(u8, bool)> = real.children()?;
    let otps: Vec<(u8, bool)> = model.kids.iter().map(|kid| (kid.name, kid.has_pid)).collect();
    if model.seen != real.seen {
        return Err(format!("{step}: OTP does {:?}, we {:?}", model.seen, real.seen));
    }
    if model.over != real.over {
        return Err(format!("{step}: OTP ends {:?}, we {:?}", model.over, real.over));
    }
    if model.over.is_none() && mine != otps {
        return Err(format!("{step}: OTP has {otps:?}, we {mine:?}"));
    }
    match real.machine.next_deadline() {
        Some(at) => Err(format!("{step}: nothing is slow, yet a timer is pending at {at:?}")),
        None => Ok(()),
    }
}

impl History {
    /// Those that this supervisor accepts to begin with.
    fn boot_children(&self) -> Vec<Declared> {
        if self.strategy == "simple" {
            return Vec::new();
        }
        let fit = |mut child: Declared| {
            child.significant &= child.kind != 'p' && self.auto_shutdown != "never";
            child
        };
        self.children.iter().copied().map(fit).take(self.max_children as usize).collect()
    }

    fn model(&self, children: &[Declared]) -> Otp {
        Otp {
            strategy: self.strategy,
            auto_shutdown: self.auto_shutdown,
            intensity: self.intensity as usize,
            period_ms: self.period_ms,
            max_children: self.max_children as usize,
            kids: (0..).zip(children).map(|(name, declared)| kid(name, *declared)).collect(),
            failing: self.failing.clone(),
            restarts_ms: Vec::new(),
            now_ms: 0,
            seen: Vec::new(),
            over: None,
        }
    }

    fn config(&self) -> SupervisorConfig {
        SupervisorConfig {
            strategy: match self.strategy {
                "one" => Restarts::OneForOne,
                "all" => Restarts::OneForAll,
                "rest" => Restarts::RestForOne,
                _ => Restarts::Dynamic,
            },
            intensity: self.intensity,
            period: Duration::from_millis(self.period_ms),
            auto_shutdown: match self.auto_shutdown {
                "any" => AutoShutdown::AnySignificant,
                "every" => AutoShutdown::AllSignificant,
                _ => AutoShutdown::Never,
            },
            max_children: self.max_children,
            backoff: BackoffStrategy::Fixed { delay: Duration::ZERO },
        }
    }
}

fn kid(name: u8, declared: Declared) -> Kid {
    Kid { name, kind: declared.kind, significant: declared.significant, has_pid: false, breathes: false }
}

fn spec(name: u8, declared: Declared) -> ChildSpec {
    let restart = match declared.kind {
        'p' => Restart::Permanent,
        't' => Restart::Transient,
        _ => Restart::Temporary,
    };
    let rules = ChildRules { restart, shutdown: declared.shutdown, significant: declared.significant };
    ChildSpec { name: name.to_string().into(), kind: ChildKind::Task, rules }
}

/// The machine, and children that do what they are told at once.
struct Prompt {
    machine: SupervisorMachine,
    now: Timestamp,
    names: HashMap<ChildKey, u8>,
    lives: BTreeMap<u8, (ChildKey, u64)>,
    /// Dead, and the machine does not know yet.
    dead: BTreeMap<u8, (ChildKey, u64, Exit)>,
    failing: Vec<u8>,
    seen: Vec<Seen>,
    over: Option<Over>,
}

impl Prompt {
    fn new(history: &History, children: &[Declared]) -> Self {
        let children = (0..).zip(children).map(|(name, declared)| spec(name, *declared));
        Self {
            machine: SupervisorMachine::try_new(history.config(), children, 1).unwrap(),
            now: Timestamp::ZERO,
            names: HashMap::new(),
            lives: BTreeMap::new(),
            dead: BTreeMap::new(),
            failing: history.failing.clone(),
            seen: Vec::new(),
            over: None,
        }
    }

    fn tell(&mut self, event: impl FnOnce(&mut SupervisorMachine)) -> Outcome {
        event(&mut self.machine);
        let names = self.machine.which_children().map(|view| (view.key, view.spec.name.parse().unwrap()));
        self.names.extend(names);
        while let Some(action) = self.machine.next_action() {
            if self.over.is_some() {
                return Err(format!("{action:?} after the end"));
            }
            self.perform(&action)?;
        }
        Ok(())
    }

    fn ask(
        &mut self,
        request: impl FnOnce(&mut SupervisorMachine) -> Result<ChildKey, Refusal>,
    ) -> Result<Answer, String> {
        let mut answer = None;
        self.tell(|machine| answer = Some(request(machine)))?;
        match answer.expect("the request was made") {
            Ok(_) => Ok(Answer::Ok),
            Err(Refusal::NotFound) => Ok(Answer::NotFound),
            Err(Refusal::Running) => Ok(Answer::Running),
            Err(Refusal::AlreadyPresent) => Ok(Answer::AlreadyPresent),
            Err(Refusal::MaxChildren { .. }) => Ok(Answer::TooMany),
            Err(Refusal::Dynamic) => Ok(Answer::SimpleOneForOne),
            Err(Refusal::Config(_)) => Ok(Answer::BadSpec),
            Err(refusal) => Err(format!("OTP does not know {refusal:?}")),
        }
    }

    fn exits(&mut self, deaths: &[(u8, &str)]) -> Outcome {
        for (name, reason) in deaths {
            let exit = match *reason {
                "normal" => Exit::Normal,
                "shutdown" => Exit::Shutdown,
                _ => Exit::Abnormal,
            };
            let (child, life) = self.lives.remove(name).ok_or("we do not know who lives")?;
            self.dead.insert(*name, (child, life, exit));
        }
        for (name, _) in deaths {
            if let Some((child, life, exit)) = self.dead.remove(name) {
                let now = self.now;
                self.tell(|machine| machine.on_exit(child, life, exit, None, now))?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Start { child, life } => self.start(*child, *life)?,
            Action::Stop { child } => self.stop(*child, Exit::Shutdown)?,
            Action::Kill { child } => self.stop(*child, Exit::Abnormal)?,
            Action::End(end) => {
                self.over = Some(match end {
                    End::Stopped => Over::Told,
                    End::BootFailed { child } => Over::NotBooted(self.names[child]),
                    End::Intensity { child } => Over::TooManyRestarts(self.names[child]),
                    End::AutoShutdown { child } => Over::AutoShutdown(self.names[child]),
                    End::Escalated { .. } => return Err("nobody escalates".to_owned()),
                });
            }
            Action::Restarting { at, .. } if *at != self.now => return Err(format!("{action:?} is late")),
            Action::Abandon { .. } => return Err(format!("{action:?}, yet everybody is prompt")),
            Action::Restarting { .. } | Action::Settled { .. } | Action::Forget { .. } | Action::Booted => {}
        }
        Ok(())
    }

    fn start(&mut self, child: ChildKey, life: u64) -> Outcome {
        let name = self.names[&child];
        self.seen.push(Seen::Start(name));
        if self.lives.contains_key(&name) || self.dead.contains_key(&name) {
            return Err(format!("{name} is started over its former life"));
        }
        let failing = &mut self.failing[usize::from(name)];
        if *failing > 0 {
            *failing -= 1;
            self.machine.on_start_failed(child, life, None, self.now);
        } else {
            self.lives.insert(name, (child, life));
            self.machine.on_started(child, life, self.now);
        }
        Ok(())
    }

    fn stop(&mut self, child: ChildKey, exit: Exit) -> Outcome {
        let name = self.names[&child];
        let (child, life, exit) = match (self.lives.remove(&name), self.dead.remove(&name)) {
            (Some((child, life)), _) => {
                self.seen.push(Seen::Stop(name));
                (child, life, exit)
            }
            (None, Some(dead)) => dead,
            (None, None) => return Err(format!("{name} is stopped, but is not there")),
        };
        self.machine.on_exit(child, life, exit, None, self.now);
        Ok(())
    }

    fn children(&self) -> Result<Vec<(u8, bool)>, String> {
        let mut children = Vec::new();
        for view in self.machine.which_children() {
            let name = view.spec.name.parse().unwrap();
            let up = view.state == ChildState::Up;
            if up != self.lives.contains_key(&name) {
                return Err(format!("{name} is said to be {:?}", view.state));
            }
            if !up && view.state != ChildState::Down {
                return Err(format!("{name} is {:?} while nothing is slow", view.state));
            }
            children.push((name, up));
        }
        Ok(children)
    }
}
