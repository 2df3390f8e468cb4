//! Ten thousand kernels under a hundred supervisors, one in a hundred of which fails every second: what that costs the healthy ones,
//! and whether it stays so.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use rustkernel::actors::{KernelRef, Runtime, Supervisor};
use rustkernel::core::clock::Clock;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::resilience::RecoveryPolicy;

use crate::report::{Group, Report, Target};
use crate::restart::{GOOD, PANIC, fragile, prove};
use crate::rounds::Side;
use crate::sides::Flavour;

/// Kernels of each supervisor.
const CHILDREN: usize = 100;
const CALLERS: usize = 64;
/// Answers that a caller counts by itself before it tells.
const BATCH: u64 = 64;
/// The healthy ones keep at least nine tenths of their throughput.
const TARGET: Target = Target::Ratio(1.11);
/// Neither slower nor bigger by more than a tenth at the end.
const DRIFT: Target = Target::Ratio(1.1);

pub(crate) fn run(report: &mut Report) {
    if !report.wants("tree") {
        return;
    }
    // A quick run has fewer kernels, which fail as often: then all the harness is seen to work.
    let supervisors = report.scale(100).max(10);
    for flavour in Flavour::BOTH {
        let runtime = flavour.runtime();
        let [at_once, later] = [Duration::ZERO, Duration::from_millis(100)].map(|restart_delay| {
            let policy =
                RecoveryPolicy { restart_delay, max_restarts: u32::MAX, ..RecoveryPolicy::default() };
            runtime.block_on(Tree::grow(supervisors, &policy))
        });
        throughput(report, flavour, &runtime, [&at_once, &later]);
        drop(at_once);
        drift(report, flavour, &runtime, &later);
    }
}

fn throughput(
    report: &mut Report,
    flavour: Flavour,
    runtime: &tokio::runtime::Runtime,
    [at_once, later]: [&Arc<Tree>; 2],
) {
    let span = report.span(Duration::from_secs(1));
    let side = |name, tree: &Arc<Tree>, failing| {
        let tree = Arc::clone(tree);
        Side::new(name, move || Load::begin(runtime, &tree, failing).nanos_over(span))
    };
    report.run(Group {
        name: format!("tree of {}, a healthy kernel's answer, {}", at_once.kernels.len(), flavour.name()),
        unit: "ns",
        rounds: 9,
        baseline: side("the same tree, nothing fails", at_once, false),
        contenders: vec![
            (side("1 % a second fail, restart at once", at_once, true), TARGET),
            (side("1 % a second fail, restart after 100 ms", later, true), TARGET),
        ],
    });
}

/// The first sixth of a long run, and its last.
fn drift(report: &mut Report, flavour: Flavour, runtime: &tokio::runtime::Runtime, tree: &Arc<Tree>) {
    let span = if report.is_long() { Duration::from_secs(60) } else { report.span(Duration::from_secs(12)) };
    let window = span / 6;
    let mut load = Load::begin(runtime, tree, true);
    let windows: Vec<(f64, f64)> = (0..6).map(|_| (load.nanos_over_next(window), resident_mib())).collect();
    drop(load);
    let ((first, small), (last, big)) = (windows[0], windows[5]);
    let name =
        |what: &str| format!("tree of {}, {what} over {span:?}, {}", tree.kernels.len(), flavour.name());
    report.run(Group {
        name: name("drift of an answer's time"),
        unit: "ns",
        rounds: 1,
        baseline: Side::new("first sixth", || first),
        contenders: vec![(Side::new("last sixth", || last), DRIFT)],
    });
    report.run(Group {
        name: name("drift of resident memory"),
        unit: "MiB",
        rounds: 1,
        baseline: Side::new("after the first sixth", || small),
        contenders: vec![(Side::new("at the end", || big), DRIFT)],
    });
}

struct Tree {
    supervisor: Runtime,
    kernels: Vec<KernelRef<u64, u64>>,
    /// Those that have failed and not yet proven themselves again.
    ill: Vec<AtomicBool>,
}

impl Tree {
    async fn grow(supervisors: usize, policy: &RecoveryPolicy) -> Arc<Self> {
        let supervisor = Runtime::builder().build().await.unwrap();
        let mut names = Vec::new();
        for branch in 0..supervisors {
            let mut node = Supervisor::new(format!("branch-{branch}"));
            // A child fails every second; a branch that gives up is not what is measured.
            node = node.intensity(u32::MAX, Duration::from_secs(5));
            for child in 0..CHILDREN {
                let name = format!("branch-{branch}/child-{child}");
                node = node.kernel(fragile(&name).recovery(policy.clone()));
                names.push(name);
            }
            supervisor.supervise(node).await.unwrap();
        }
        let kernels: Vec<_> = names.iter().map(|name| supervisor.kernel(name).unwrap()).collect();
        let ill = kernels.iter().map(|_| AtomicBool::new(false)).collect();
        Arc::new(Self { supervisor, kernels, ill })
    }

    /// Makes one fail, one time by a panic and the next time by a kill, and waits until it is well again.
    async fn strike(&self, index: usize, kills: bool) {
        if self.ill[index].swap(true, Relaxed) {
            return;
        }
        let kernel = &self.kernels[index];
        if kills {
            self.supervisor.kill(kernel.id().as_str()).await;
        } else {
            // It has no answer, by intent.
            let _ = kernel.call(PANIC, Deadline::None).await;
        }
        prove(kernel).await;
        self.ill[index].store(false, Relaxed);
    }
}

/// Callers that ask the healthy kernels at random, and somebody who makes others ill.
struct Load<'a> {
    runtime: &'a tokio::runtime::Runtime,
    clock: Clock,
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    answers: AtomicU64,
    over: AtomicBool,
}

impl<'a> Load<'a> {
    fn begin(runtime: &'a tokio::runtime::Runtime, tree: &Arc<Tree>, failing: bool) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks: Vec<_> = (0..CALLERS)
            .map(|seed| runtime.spawn(ask(Arc::clone(tree), Arc::clone(&shared), seed as u64)))
            .collect();
        if failing {
            tasks.push(runtime.spawn(fail(Arc::clone(tree), Arc::clone(&shared))));
        }
        Self { runtime, clock: Clock::system(), shared, tasks }
    }

    fn nanos_over(mut self, span: Duration) -> f64 {
        self.nanos_over_next(span)
    }

    /// Nanoseconds of the machine that each good answer of the next `span` took.
    #[allow(clippy::disallowed_methods, reason = "a late end is measured, and lengthens the span")]
    fn nanos_over_next(&mut self, span: Duration) -> f64 {
        let (before, count) = (self.clock.now(), self.shared.answers.load(Relaxed));
        self.runtime.block_on(async { tokio::time::sleep(span).await });
        let answers = self.shared.answers.load(Relaxed) - count;
        (self.clock.now() - before).as_secs_f64() * 1e9 / answers.max(1) as f64
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
        for task in self.tasks.drain(..) {
            self.runtime.block_on(task).unwrap();
        }
    }
}

async fn ask(tree: Arc<Tree>, shared: Arc<Shared>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !shared.over.load(Relaxed) {
        let mut good = 0;
        for _ in 0..BATCH {
            let index = random.usize(..tree.kernels.len());
            if !tree.ill[index].load(Relaxed) {
                good += u64::from(tree.kernels[index].call(GOOD, Deadline::None).await.is_ok());
            }
        }
        shared.answers.fetch_add(good, Relaxed);
        tokio::task::yield_now().await;
    }
}

async fn fail(tree: Arc<Tree>, shared: Arc<Shared>) {
    let mut random = fastrand::Rng::with_seed(0);
    let pace = Duration::from_secs(100) / u32::try_from(tree.kernels.len()).unwrap();
    let mut ticks = tokio::time::interval(pace);
    let mut strikes = tokio::task::JoinSet::new();
    while !shared.over.load(Relaxed) {
        ticks.tick().await;
        let (tree, index, kills) = (Arc::clone(&tree), random.usize(..tree.kernels.len()), random.bool());
        strikes.spawn(async move { tree.strike(index, kills).await });
        while strikes.try_join_next().is_some() {}
    }
    strikes.join_all().await;
}

/// Pages of this process that are in memory; zero where the system does not tell.
fn resident_mib() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    resident.unwrap_or(0.0) * 4096.0 / (1 << 20) as f64
}
