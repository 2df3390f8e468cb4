//! Trees: each supervisor's children are machines themselves, down to the leaves.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::resilience::BackoffStrategy;
use rustkernel_core::supervision::{
    Action, ChildKey, ChildKind, ChildRules, ChildSpec, End, Exit, Restart, Shutdown, Strategy as Restarts,
    SupervisorConfig,
};

use crate::late;
use crate::replay::Outcome;
use crate::watched::{Phase, Watched, holds};

const DEPTH: usize = 6;
const NODES: usize = 500;

/// A tree and what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    root: SupervisorConfig,
    nodes: Vec<Declared>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Declared {
    /// Picks one of the supervisors declared before it.
    parent: u16,
    rules: ChildRules,
    /// Of a supervisor; a leaf has none.
    config: Option<SupervisorConfig>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// One that was told to start does so, or fails; one that was told to end does.
    Answer(u16, bool),
    LeafDies(u16, Exit),
    /// A supervisor dies without a word, and all that is under it with it.
    SupervisorDies(u16),
    Pass(u64),
    ShutDown,
}

pub(crate) fn histories() -> impl Strategy<Value = History> {
    let declared = || {
        (any::<u16>(), late::rules(), prop::option::weighted(0.3, late::config()))
            .prop_map(|(parent, rules, config)| Declared { parent, rules, config })
    };
    let nodes = prop_oneof![
        3 => prop::collection::vec(declared(), 1..40),
        1 => prop::collection::vec(declared(), 40..NODES),
    ];
    (late::config(), nodes, prop::collection::vec(step(), 1..200)).prop_map(|(root, nodes, steps)| History {
        root,
        nodes,
        steps,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (any::<u16>(), prop::bool::weighted(0.9)).prop_map(|(at, well)| Step::Answer(at, well)),
        20 => (any::<u16>(), late::exit()).prop_map(|(at, exit)| Step::LeafDies(at, exit)),
        3 => any::<u16>().prop_map(Step::SupervisorDies),
        8 => (0_u64..300).prop_map(Step::Pass),
        1 => prop::bool::weighted(0.1).prop_map(|ends| if ends { Step::ShutDown } else { Step::Pass(6_000) }),
    ]
}

/// Lets the tree come up and live through the history, and come to rest.
pub(crate) fn live(history: &History) -> Outcome {
    let mut tree = Tree::new(Plan::of(history.root.clone(), &history.nodes));
    tree.boot()?;
    // A tree that is still coming up has little to lose.
    tree.answer_all()?;
    for step in &history.steps {
        tree.perform(*step).map_err(|error| format!("{step:?}: {error}"))?;
        tree.check().map_err(|error| format!("after {step:?}: {error}"))?;
    }
    tree.settle()
}

/// With one restart allowed on each of six levels, a leaf lives 2^6 times until the root gives up.
pub(crate) fn escalates_level_by_level() {
    for (restart, lives) in [(Restart::Permanent, 64), (Restart::Transient, 64)] {
        let mut tree = chain(ChildRules { restart: Restart::Permanent, ..RULES }, restart);
        let mut count = 0;
        while tree.over.is_none() {
            tree.answer_all().unwrap();
            let leaf = *tree.living_leaves().last().expect("a leaf lives while the root does");
            count += 1;
            tree.exited(leaf, Exit::Abnormal).unwrap();
            tree.answer_all().unwrap();
        }
        assert_eq!(count, lives);
        assert!(matches!(tree.over, Some(End::Intensity { .. })));
        assert!(tree.supervisors.is_empty());
    }
}

/// A supervisor that gives up ends in an orderly way, which is no failure of a transient child.
pub(crate) fn a_transient_supervisor_gives_up() {
    let mut tree = chain(ChildRules { restart: Restart::Transient, ..RULES }, Restart::Permanent);
    tree.answer_all().unwrap();
    for _ in 0..2 {
        let leaf = *tree.living_leaves().last().unwrap();
        tree.exited(leaf, Exit::Abnormal).unwrap();
        tree.answer_all().unwrap();
    }
    assert_eq!((tree.over, tree.living_leaves(), tree.supervisors.len()), (None, Vec::new(), DEPTH - 1));
}

const RULES: ChildRules =
    ChildRules { restart: Restart::Permanent, shutdown: Shutdown::Infinity, significant: false };

/// Six supervisors in a chain, one restart each, and a leaf under the last.
fn chain(supervisors: ChildRules, leaf: Restart) -> Tree {
    let backoff = BackoffStrategy::Fixed { delay: Duration::ZERO };
    let config = SupervisorConfig { intensity: 1, backoff, ..SupervisorConfig::default() };
    let below = |level: u16, rules: ChildRules, config| Declared { parent: level, rules, config };
    let levels = (0..5).map(|level| below(level, supervisors, Some(config.clone())));
    let leaf = below(5, ChildRules { restart: leaf, ..RULES }, None);
    let nodes: Vec<Declared> = levels.chain([leaf]).collect();
    let mut tree = Tree::new(Plan::of(config.clone(), &nodes));
    tree.boot().unwrap();
    tree
}

/// Who is declared under whom.
struct Plan {
    configs: Vec<Option<SupervisorConfig>>,
    children: Vec<Vec<(usize, ChildRules)>>,
}

impl Plan {
    fn of(root: SupervisorConfig, nodes: &[Declared]) -> Self {
        let has_children = |config: SupervisorConfig| {
            let dynamic = config.strategy == Restarts::Dynamic;
            let strategy = if dynamic { Restarts::RestForOne } else { config.strategy };
            SupervisorConfig { strategy, max_children: u32::MAX, ..config }
        };
        let mut plan = Self { configs: vec![Some(has_children(root))], children: vec![Vec::new()] };
        let mut supervisors = vec![(0, 1)];
        for (node, declared) in (1..).zip(nodes) {
            let (parent, depth) = supervisors[usize::from(declared.parent) % supervisors.len()];
            let config = declared.config.clone().filter(|_| depth < DEPTH).map(has_children);
            if config.is_some() {
                supervisors.push((node, depth + 1));
            }
            let watcher = plan.configs[parent].as_ref().unwrap();
            let rules = late::fitting(declared.rules, watcher);
            plan.children[parent].push((node, rules));
            plan.configs.push(config);
            plan.children.push(Vec::new());
        }
        plan
    }

    fn is_supervisor(&self, node: usize) -> bool {
        self.configs[node].is_some()
    }
}

/// A place in the tree: a supervisor that lives, and one of its children.
type Place = (usize, ChildKey);

struct Supervisor {
    watched: Watched,
    above: Option<(Place, u64)>,
    /// Those of its children that are supervisors and live.
    below: BTreeMap<ChildKey, usize>,
}

struct Tree {
    plan: Plan,
    now: Timestamp,
    supervisors: BTreeMap<usize, Supervisor>,
    next: usize,
    wishes: VecDeque<(usize, Action)>,
    /// The wishes are being fulfilled.
    runs: bool,
    over: Option<End>,
}

impl Tree {
    fn new(plan: Plan) -> Self {
        let supervisors = BTreeMap::new();
        let wishes = VecDeque::new();
        Self { plan, now: Timestamp::ZERO, supervisors, next: 0, wishes, runs: false, over: None }
    }

    fn boot(&mut self) -> Outcome {
        self.begin(0, None)
    }

    fn perform(&mut self, step: Step) -> Outcome {
        match step {
            Step::Answer(at, well) => {
                let pending = self.pending();
                pick(&pending, at).map_or(Ok(()), |place| self.answer(place, well))
            }
            Step::LeafDies(at, exit) => {
                let leaves = self.living_leaves();
                pick(&leaves, at).map_or(Ok(()), |place| self.exited(place, exit))
            }
            Step::SupervisorDies(at) => {
                let below: Vec<usize> = self.supervisors.keys().copied().filter(|id| *id != 0).collect();
                let Some(id) = pick(&below, at) else { return Ok(()) };
                self.perish(id);
                Ok(())
            }
            Step::Pass(millis) => self.pass(Duration::from_millis(millis)),
            Step::ShutDown => {
                self.tell(0, |watched, now| watched.tell(now, |machine| machine.shut_down(now)))
            }
        }
    }

    /// A new supervisor for this node of the plan.
    fn begin(&mut self, node: usize, above: Option<(Place, u64)>) -> Outcome {
        let config = self.plan.configs[node].clone().unwrap();
        let spec = |(child, rules): &(usize, ChildRules)| {
            let is_supervisor = self.plan.is_supervisor(*child);
            let kind = if is_supervisor { ChildKind::Supervisor } else { ChildKind::Task };
            ChildSpec { name: child.to_string().into(), kind, rules: *rules }
        };
        let children = self.plan.children[node].iter().map(spec).collect();
        let watched = Watched::new(config, children, 5);
        let id = self.next;
        self.next += 1;
        self.supervisors.insert(id, Supervisor { watched, above, below: BTreeMap::new() });
        if let Some(((parent, child), _)) = above {
            self.supervisors.get_mut(&parent).unwrap().below.insert(child, id);
        }
        self.tell(id, |watched, now| watched.tell(now, |machine| machine.boot(now)))
    }

    /// Tells a supervisor something; what it wants is done later.
    fn tell(
        &mut self,
        id: usize,
        event: impl FnOnce(&mut Watched, Timestamp) -> Result<Vec<Action>, String>,
    ) -> Outcome {
        let now = self.now;
        let Some(supervisor) = self.supervisors.get_mut(&id) else { return Ok(()) };
        let actions = event(&mut supervisor.watched, now)?;
        self.wishes.extend(actions.into_iter().map(|action| (id, action)));
        if self.runs {
            return Ok(());
        }
        self.runs = true;
        let ran = self.run();
        self.runs = false;
        ran
    }

    /// Does what is wanted. What it leads to is done after what was wanted before.
    fn run(&mut self) -> Outcome {
        while let Some((id, action)) = self.wishes.pop_front() {
            if self.supervisors.contains_key(&id) {
                self.fulfil(id, &action)?;
            }
        }
        Ok(())
    }

    fn fulfil(&mut self, id: usize, action: &Action) -> Outcome {
        let above = self.supervisors[&id].above;
        match *action {
            Action::Start { child, life } => self.start((id, child), life),
            Action::Stop { child } => match self.supervisors[&id].below.get(&child).copied() {
                Some(below) => {
                    self.tell(below, |watched, now| watched.tell(now, |machine| machine.shut_down(now)))
                }
                None => Ok(()),
            },
            Action::Kill { child } | Action::Abandon { child } => {
                if let Some(below) = self.supervisors[&id].below.get(&child).copied() {
                    self.perish(below);
                }
                Ok(())
            }
            Action::Booted => {
                let Some(((parent, child), _)) = above.filter(|above| self.is_present(*above)) else {
                    return Ok(());
                };
                self.tell(parent, |watched, now| watched.started(child, now))
            }
            Action::End(end) => {
                holds(self.supervisors[&id].below.is_empty(), "a supervisor lives under one that has ended")?;
                self.supervisors.remove(&id);
                let Some(above) = above else {
                    self.over = Some(end);
                    return Ok(());
                };
                let (place, _) = above;
                self.supervisors.get_mut(&place.0).unwrap().below.remove(&place.1);
                if self.is_present(above) { self.exited(place, end.exit()) } else { Ok(()) }
            }
            Action::Restarting { .. } | Action::Settled { .. } | Action::Forget { .. } => Ok(()),
        }
    }

    /// Whether the one above still counts with this life.
    fn is_present(&self, ((parent, child), life): (Place, u64)) -> bool {
        let present = self.supervisors.get(&parent).and_then(|above| above.watched.lives.get(&child));
        present.is_some_and(|present| present.number == life)
    }

    fn start(&mut self, place: Place, life: u64) -> Outcome {
        let supervisor = &self.supervisors[&place.0];
        let Some(current) = supervisor.watched.lives.get(&place.1) else { return Ok(()) };
        holds(!supervisor.below.contains_key(&place.1), "it is started over its former life")?;
        // Answered already, and over.
        if current.number != life {
            return Ok(());
        }
        let node = self.node(place);
        if self.plan.is_supervisor(node) { self.begin(node, Some((place, life))) } else { Ok(()) }
    }

    /// A supervisor is no more, nor is anything under it. The one above has not heard of it yet.
    fn perish(&mut self, id: usize) {
        let Some(gone) = self.supervisors.remove(&id) else { return };
        if let Some(((parent, child), _)) = gone.above {
            self.supervisors.get_mut(&parent).map(|parent| parent.below.remove(&child));
        }
        gone.below.into_values().for_each(|below| self.perish(below));
    }

    fn exited(&mut self, (id, child): Place, exit: Exit) -> Outcome {
        self.tell(id, |watched, now| watched.exited(child, exit, None, now))
    }

    /// A leaf does what it was told; of a supervisor that has perished its end is heard at last.
    fn answer(&mut self, place: Place, well: bool) -> Outcome {
        let life = self.supervisors[&place.0].watched.lives[&place.1];
        let (id, child) = place;
        if self.plan.is_supervisor(self.node(place)) {
            return self.exited(place, Exit::Abnormal);
        }
        match (life.told, well) {
            (false, true) => self.tell(id, |watched, now| watched.started(child, now)),
            (false, false) => self.tell(id, |watched, now| watched.start_failed(child, None, now)),
            (true, true) => self.exited(place, Exit::Shutdown),
            (true, false) => self.exited(place, Exit::Abnormal),
        }
    }

    fn pass(&mut self, span: Duration) -> Outcome {
        let target = self.now + span;
        while let Some((due, id)) = self.next_deadline().filter(|(due, _)| *due <= target) {
            self.now = due.max(self.now);
            self.tell(id, |watched, now| watched.tell(now, |machine| machine.on_timer(now)))?;
        }
        self.now = target;
        Ok(())
    }

    fn next_deadline(&self) -> Option<(Timestamp, usize)> {
        let deadline = |(id, supervisor): (&usize, &Supervisor)| {
            supervisor.watched.machine.next_deadline().map(|due| (due, *id))
        };
        self.supervisors.iter().filter_map(deadline).min()
    }

    fn answer_all(&mut self) -> Outcome {
        while let Some(place) = self.pending().last().copied() {
            self.answer(place, true)?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Outcome {
        for _ in 0..2_000 {
            self.answer_all()?;
            self.check()?;
            let Some((due, _)) = self.next_deadline() else {
                return self.supervisors.values().try_for_each(|each| each.watched.check_settled());
            };
            self.pass(due - self.now)?;
        }
        Err("it does not settle".to_owned())
    }

    /// Every supervisor but the root is the present life of a child of one that lives.
    fn check(&self) -> Outcome {
        holds(self.over.is_none() || self.supervisors.is_empty(), "the root is over and somebody lives")?;
        for (id, supervisor) in &self.supervisors {
            let Some(((parent, child), life)) = supervisor.above else { continue };
            let above = self.supervisors.get(&parent).ok_or("a supervisor lives under a dead one")?;
            holds(above.below.get(&child) == Some(id), "a supervisor lives that nobody knows")?;
            let present = above.watched.lives.get(&child).map(|life| life.number);
            holds(present == Some(life), "a supervisor lives on over its end")?;
        }
        Ok(())
    }

    /// Leaves that have been told something, and supervisors that have perished unheard.
    fn pending(&self) -> Vec<Place> {
        self.places(|tree, place| {
            let supervisor = &tree.supervisors[&place.0];
            let life = supervisor.watched.lives[&place.1];
            if tree.plan.is_supervisor(tree.node(place)) {
                !supervisor.below.contains_key(&place.1)
            } else {
                life.told || life.phase == Phase::Starting
            }
        })
    }

    fn living_leaves(&self) -> Vec<Place> {
        self.places(|tree, place| !tree.plan.is_supervisor(tree.node(place)))
    }

    fn places(&self, is_wanted: impl Fn(&Self, Place) -> bool) -> Vec<Place> {
        let lives = |(id, supervisor): (&usize, &Supervisor)| {
            let id = *id;
            supervisor.watched.lives.keys().map(move |child| (id, *child)).collect::<Vec<_>>()
        };
        let places = self.supervisors.iter().flat_map(lives);
        places.filter(|place| is_wanted(self, *place)).collect()
    }

    fn node(&self, (id, child): Place) -> usize {
        let view = self.supervisors[&id].watched.machine.child(child).unwrap();
        view.spec.name.parse().unwrap()
    }
}

fn pick<T: Copy>(from: &[T], at: u16) -> Option<T> {
    if from.is_empty() { None } else { Some(from[usize::from(at) % from.len()]) }
}
