//! One random history: each step is done to the runtime and to the model, and then both look the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rustkernel::actors::{ChildPhase, ClockHand, Reply, Runtime, RuntimeState, SupervisorRef, Tree};
use rustkernel::core::supervision::{Strategy, SupervisorConfig};

use crate::cast::{Cast, Tell};
use crate::kit::{self, Do, NONE, PuppetRef, soon};
use crate::model::{Exit, Is, Model};
use crate::plant::{Kind, Plant, declare, grow};

pub(crate) type Outcome = Result<(), String>;

struct Play {
    rng: Rng,
    plants: Vec<Plant>,
    model: Model,
    cast: Cast,
    runtime: Runtime,
    hand: ClockHand,
    kernels: Vec<PuppetRef>,
    replies: Vec<Reply<Do, u64>>,
    /// Instances of twins that are alive.
    twins: Arc<AtomicUsize>,
    steps: Vec<String>,
}

pub(crate) fn history(seed: u64) -> Outcome {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio.block_on(async {
        let mut play = Play::begin(seed).await;
        let lived = play.live().await;
        lived.map_err(|error| {
            let plants = play.plants.iter().enumerate().map(|(number, plant)| format!("{number}: {plant:?}"));
            let lines: Vec<_> = plants.chain(play.steps.iter().cloned()).collect();
            format!("{}\n{error}", lines.join("\n"))
        })
    })
}

impl Play {
    async fn begin(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plants = grow(&mut rng);
        let model = Model::new(&plants);
        let Kind::Supervisor(root) = &plants[0].kind else { unreachable!() };
        let config = SupervisorConfig { ..root.config() };
        let (runtime, hand) = Runtime::builder().root(config).build_with_manual_clock().await.unwrap();
        let (cast, twins, steps) = (Cast::default(), Arc::default(), Vec::new());
        let (kernels, replies) = (Vec::new(), Vec::new());
        Self { rng, plants, model, cast, runtime, hand, kernels, replies, twins, steps }
    }

    async fn live(&mut self) -> Outcome {
        for node in 1..self.plants.len() {
            match self.rng.u8(..60) {
                0 => self.fail(node),
                1 => self.hold(node),
                _ => {}
            }
        }
        let (root, tree) = (self.runtime.root(), declare(&self.plants, 1, &self.cast, &self.twins));
        let starting = kit::spawn(async move { root.start_supervisor(tree).await.map(drop) });
        self.model.add_the_tree();
        self.settle().await?;
        let names: Vec<_> = self.plants.iter().map(|plant| plant.name.clone()).collect();
        self.kernels = names.iter().filter_map(|name| self.runtime.kernel::<Do, u64>(name)).collect();
        let steps = if self.plants.len() > 60 { 40 } else { 80 };
        for _ in 0..steps {
            self.step().await;
            self.settle().await?;
            self.model.check();
            if self.model.over {
                break;
            }
        }
        self.finish().await?;
        // Whoever asked for the start has been answered, whatever has become of the tree.
        let _ = soon(starting).await;
        Ok(())
    }

    async fn step(&mut self) {
        let present = self.model.present();
        let Some(node) = self.rng.choice(&present).copied() else {
            return self.pass();
        };
        let name = self.plants[node].name.clone();
        match self.rng.u8(..20) {
            0..=7 => self.exit(node),
            8..=9 => self.exit_two(node),
            10..=11 => self.kill(node).await,
            12 => self.hold(node),
            13 => self.fail(node),
            14 => {
                self.note(&format!("terminate {name}"));
                let above = self.above(node);
                kit::spawn(async move { above.terminate_child(&name).await });
                let before = self.model.log.len();
                let starts = self.model.is(node) == Is::Starting;
                self.model.terminate(node);
                if starts {
                    // Its end holds up nobody whose turn it is now.
                    self.in_any_order(before);
                }
            }
            15 => {
                let waiting = present.iter().copied().find(|node| self.model.is(*node) == Is::Down);
                self.restart(waiting.unwrap_or(node));
            }
            16 if self.rng.u8(..4) == 0 => {
                self.note(&format!("delete {name}"));
                let above = self.above(node);
                kit::spawn(async move { above.delete_child(&name).await });
                self.model.delete(node);
            }
            _ => self.pass(),
        }
    }

    fn note(&mut self, step: &str) {
        self.steps.push(format!("{} ms: {step}", self.model.now));
    }

    fn above(&self, node: usize) -> SupervisorRef {
        let above = self.model.parent(node);
        let name = &self.plants[above].name;
        if above == 0 { self.runtime.root() } else { self.runtime.supervisor(name).expect("it is there") }
    }

    fn is_leaf(&self, node: usize) -> bool {
        !matches!(self.plants[node].kind, Kind::Supervisor(_))
    }

    /// A leaf ends by itself, or says that it is up.
    fn exit(&mut self, node: usize) {
        if !self.is_leaf(node) || !matches!(self.model.is(node), Is::Up | Is::Starting) {
            return;
        }
        if self.model.is(node) == Is::Starting && self.rng.bool() {
            self.note(&format!("ready {node}"));
            self.cast.tell(&self.plants[node].name, Tell::Ready);
            return self.model.ready(node);
        }
        let exit = self.end_leaf(node);
        self.model.exit(node, exit);
    }

    fn end_leaf(&mut self, node: usize) -> Exit {
        let name = &self.plants[node].name;
        let (how, exit) = if matches!(self.plants[node].kind, Kind::Kernel | Kind::Twin) {
            let kernel = self.runtime.kernel::<Do, u64>(name).expect("a kernel that is up has its name");
            // Without its reply the request would be cancelled.
            self.replies.push(kernel.try_call(Do::Panic, NONE).expect("it serves"));
            ("panics", Exit::Abnormal)
        } else {
            let (tell, how, exit) = match self.rng.u8(..3) {
                0 => (Tell::Finish, "finishes", Exit::Normal),
                1 => (Tell::Fail, "fails", Exit::Abnormal),
                _ => (Tell::Panic, "panics", Exit::Abnormal),
            };
            self.cast.tell(name, tell);
            (how, exit)
        };
        self.note(&format!("{name} {how}"));
        exit
    }

    /// Two children of one supervisor end at the same time. Where the later one of the two would widen the group, OTP restarts twice,
    /// and this runtime once.
    fn exit_two(&mut self, node: usize) {
        let above = self.model.parent(node);
        // A start that fails takes its time, and would meet the second end on its way.
        let fails = |other: &usize| self.model.failing.get(other).is_some_and(|left| *left > 0);
        let is_twin = |other: &usize| matches!(self.plants[*other].kind, Kind::Twin);
        let up = |other: &usize| {
            self.is_leaf(*other) && !is_twin(other) && self.model.is(*other) == Is::Up && !fails(other)
        };
        let siblings: Vec<_> =
            self.model.present().into_iter().filter(|other| self.model.parent(*other) == above).collect();
        let mut up: Vec<_> = siblings.into_iter().filter(up).collect();
        if up.len() < 2 {
            return;
        }
        self.rng.shuffle(&mut up);
        if self.model.rules(above).strategy == Strategy::RestForOne {
            up[..2].sort_unstable();
        }
        let [first, second] = [up[0], up[1]].map(|leaf| (leaf, self.end_leaf(leaf)));
        self.model.exits(first, second);
    }

    async fn kill(&mut self, node: usize) {
        if !matches!(self.model.is(node), Is::Up | Is::Starting) {
            return;
        }
        let name = self.plants[node].name.clone();
        self.note(&format!("kill {name}"));
        let killed = match self.plants[node].kind {
            Kind::Kernel | Kind::Twin => soon(self.runtime.kill(&name)).await,
            Kind::Task | Kind::Announcer | Kind::Supervisor(_) => {
                soon(self.above(node).kill_child(&name)).await.unwrap()
            }
        };
        assert!(killed, "{name} lives");
        self.model.kill(node);
    }

    fn hold(&mut self, node: usize) {
        if !matches!(self.plants[node].kind, Kind::Announcer) {
            return;
        }
        let holds = !self.model.held.remove(&node);
        self.note(&format!("hold {node}: {holds}"));
        if holds {
            self.model.held.insert(node);
        }
        self.cast.hold(&self.plants[node].name, holds);
    }

    fn fail(&mut self, node: usize) {
        if !matches!(self.plants[node].kind, Kind::Announcer | Kind::Kernel) {
            return;
        }
        let starts = self.rng.usize(..4);
        self.note(&format!("{node} fails {starts} starts"));
        self.model.failing.insert(node, starts);
        self.cast.fail(&self.plants[node].name, starts);
    }

    fn restart(&mut self, node: usize) {
        let name = self.plants[node].name.clone();
        self.note(&format!("restart {name}"));
        let above = self.above(node);
        kit::spawn(async move { above.restart_child(&name).await });
        self.model.restart(node);
    }

    /// Time goes on, at most to the next time at which something happens by itself.
    fn pass(&mut self) {
        let span = self.rng.u64(1..400);
        let mut target = self.model.now + span;
        let due = self.model.next_due();
        if let Some((at, _)) = due.filter(|(at, _)| *at <= target) {
            target = at;
        }
        self.note(&format!("pass {} ms", target - self.model.now));
        let side_by_side = due.is_some_and(|(at, many)| at == target && many > 1);
        if side_by_side {
            // A start that fails could end the others before or after they began.
            self.let_all_start();
        }
        self.hand.advance(Duration::from_millis(target - self.model.now));
        let before = self.model.log.len();
        self.model.advance_to(target);
        if side_by_side {
            self.in_any_order(before);
        }
    }

    fn let_all_start(&mut self) {
        for (node, _) in self.model.failing.drain() {
            self.cast.fail(&self.plants[node].name, 0);
        }
    }

    fn in_any_order(&mut self, from: usize) {
        let lines: Vec<_> = self.model.log.drain(from..).flatten().collect();
        self.model.log.push(lines);
    }

    async fn finish(&mut self) -> Outcome {
        if self.model.over {
            let ended = soon(self.runtime.ended()).await;
            if ended != RuntimeState::GaveUp {
                return Err(format!("{ended:?} instead of giving up"));
            }
        } else {
            self.model.shut_down();
            soon(self.runtime.shutdown(Duration::from_secs(60))).await.ok_or("no report")?;
        }
        self.settle().await?;
        if !self.cast.alive().is_empty() {
            return Err(format!("orphans: {:?}", self.cast.alive()));
        }
        self.kernels.iter().for_each(kit::assert_balanced);
        Ok(())
    }

    /// Waits until the runtime looks as the model does, and stays so.
    async fn settle(&mut self) -> Outcome {
        let expected = self.model.view();
        let lines: usize = self.model.log.iter().map(Vec::len).sum();
        let mut seen = Vec::new();
        let alike = async {
            loop {
                if self.cast.lines().len() >= lines {
                    let warm;
                    (seen, warm) = self.look().await;
                    if seen == expected && self.standbys_are(warm) {
                        return;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), alike).await.is_err() {
            let missing: Vec<_> = expected.iter().filter(|line| !seen.contains(line)).collect();
            let wrong: Vec<_> = seen.iter().filter(|line| !expected.contains(line)).collect();
            let (log, written) = (&self.model.log, self.cast.lines());
            return Err(format!(
                "never settled: not {missing:?} but {wrong:?}, {:?} instances of twins\nlog {log:?}\nwritten {written:?}",
                self.twins
            ));
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let (seen, warm) = self.look().await;
        if seen != expected {
            return Err(format!("settled only for a moment: {expected:?}"));
        }
        if !self.standbys_are(warm) {
            return Err(format!("{:?} instances of {} twins", self.twins, self.model.twins()));
        }
        for reply in self.replies.drain(..) {
            soon(reply).await.expect_err("it was told to panic");
        }
        self.compare_lines()
    }

    fn compare_lines(&mut self) -> Outcome {
        let written = self.cast.lines();
        let mut rest = &written[..];
        let log = std::mem::take(&mut self.model.log);
        for wanted in &log {
            let (these, others) = rest.split_at(wanted.len().min(rest.len()));
            let (mut these, mut wanted) = (these.to_vec(), wanted.clone());
            these.sort_unstable();
            wanted.sort_unstable();
            if these != wanted {
                return Err(format!("written {written:?}\ninstead of {log:?}"));
            }
            rest = others;
        }
        self.cast.forget_lines();
        if rest.is_empty() { Ok(()) } else { Err(format!("written, too: {rest:?}")) }
    }

    /// Every twin that is up has its standby, so many are `warm`, and nobody else is alive.
    fn standbys_are(&self, warm: usize) -> bool {
        let twins = self.model.twins();
        warm == twins && self.twins.load(Ordering::Acquire) == 2 * twins
    }

    /// What can be seen, and how many standbys are warm.
    async fn look(&self) -> (Vec<(usize, String, ChildPhase, u64)>, usize) {
        let mut seen = Vec::new();
        let Some(tree) = soon(self.runtime.tree()).await else { return (seen, 0) };
        look_below(&tree, 0, &mut seen);
        (seen, tree.into_kernels().iter().map(|kernel| kernel.standbys).sum())
    }
}

fn look_below(tree: &Tree, depth: usize, seen: &mut Vec<(usize, String, ChildPhase, u64)>) {
    for branch in &tree.children {
        seen.push((depth, branch.child.name.clone(), branch.child.state, branch.child.life));
        if let Some(below) = &branch.supervisor {
            look_below(below, depth + 1, seen);
        }
    }
}
