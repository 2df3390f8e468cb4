//! One soak: rounds in which everything goes wrong at once, each followed by a calm in which it has to be well again.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use rustkernel::actors::{Cause, ClockHand, Event, Fact, KernelRef, Runtime, SupervisorRef};
use rustkernel::core::resilience::BackoffStrategy;
use rustkernel::core::supervision::SupervisorConfig;

use crate::chaos;
use crate::kit::{Do, Latch, ms};
use crate::scene::{Part, Scene};
use crate::world::{Span, World};

/// A kernel in the play.
pub(crate) struct Actor {
    pub(crate) part: Part,
    pub(crate) world: Arc<World>,
    pub(crate) kernel: KernelRef<Do, Span>,
    /// Somebody has told its supervisor to end it, or has stopped it for good.
    pub(crate) terminated: AtomicBool,
    pub(crate) stopped: AtomicBool,
    pub(crate) seen: Mutex<Seen>,
}

/// What the callers of one kernel have seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) answers: Vec<Span>,
    pub(crate) failed: u64,
    /// Accepted, and not waited for.
    pub(crate) dropped: u64,
}

/// What has happened, and what was ordered.
#[derive(Default)]
struct Trace {
    lines: Mutex<VecDeque<String>>,
    /// What was told of supervisors that failed.
    failures: Mutex<Vec<String>>,
}

pub(crate) struct Play {
    pub(crate) scene: Scene,
    pub(crate) actors: Vec<Actor>,
    pub(crate) runtime: Runtime,
    pub(crate) hand: ClockHand,
    trace: Arc<Trace>,
    /// For each supervisor of the tree: it was told to end.
    pub(crate) ended: Vec<AtomicBool>,
    /// Before it executions block and wait.
    pub(crate) door: Mutex<Arc<Latch>>,
    pub(crate) over: AtomicBool,
}

impl Play {
    async fn begin(rng: &mut Rng) -> Arc<Self> {
        let scene = Scene::new(rng);
        println!("{scene:?}");
        let trace = Arc::new(Trace::default());
        let root = SupervisorConfig {
            intensity: scene.root_intensity,
            period: ms(1_000),
            backoff: BackoffStrategy::Fixed { delay: ms(1) },
            ..SupervisorConfig::default()
        };
        let builder = Runtime::builder()
            .root(root)
            .abandoned_thread_limit(scene.abandoned_limit)
            .hook(listener(Arc::clone(&trace)));
        let (runtime, hand) = builder.build_with_manual_clock().await.unwrap();
        hand.advance(ms(1));
        let worlds: Vec<_> = scene.parts.iter().map(|_| World::new()).collect();
        if let Some(tree) = scene.tree(&worlds, rng) {
            in_time("the tree starts", runtime.supervise(tree)).await.unwrap();
        }
        let mut actors = Vec::new();
        for (part, world) in scene.parts.iter().zip(worlds) {
            let kernel = match runtime.kernel(part.id) {
                Some(kernel) => kernel,
                None => {
                    let group = supervisor(&runtime, scene.group()).expect("it was started");
                    let spec = part.spec(&world, rng);
                    in_time("the kernel starts", group.start_kernel(spec)).await.unwrap()
                }
            };
            let (terminated, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
            let (part, seen) = (part.clone(), Mutex::default());
            actors.push(Actor { part, world, kernel, terminated, stopped, seen });
        }
        let ended = scene.above.iter().map(|_| AtomicBool::new(false)).collect();
        let (door, over) = (Mutex::new(Latch::new()), AtomicBool::new(false));
        Arc::new(Self { scene, actors, runtime, hand, trace, ended, door, over })
    }

    pub(crate) fn supervisor(&self, name: &str) -> Option<SupervisorRef> {
        supervisor(&self.runtime, name)
    }

    /// The supervisor of the one at this level.
    pub(crate) fn above(&self, level: usize) -> Option<SupervisorRef> {
        self.supervisor(level.checked_sub(1).map_or("root", |above| self.scene.above[above].name))
    }

    pub(crate) fn door(&self) -> Arc<Latch> {
        Arc::clone(&self.door.lock().unwrap())
    }

    /// Whoever stands before the door goes on.
    pub(crate) fn open(&self) {
        std::mem::replace(&mut *self.door.lock().unwrap(), Latch::new()).open();
    }

    /// A moment passes: no faster than the supervisors answer, so that what takes no time is not late.
    pub(crate) async fn moment(&self, span: Duration) {
        self.hand.advance(span);
        drop(self.runtime.status().await);
        tokio::task::yield_now().await;
    }

    /// Waits for something while time passes.
    pub(crate) async fn in_time<F: Future>(&self, what: &str, future: F) -> F::Output {
        let while_time_passes = async {
            let mut future = pin!(future);
            loop {
                tokio::select! {
                    biased;
                    output = &mut future => return output,
                    () = self.moment(ms(1)) => {}
                }
            }
        };
        in_time(what, while_time_passes).await
    }

    pub(crate) fn note(&self, line: &str) {
        self.trace.note(line.to_owned());
    }

    /// No supervisor has come to harm: its own code does not panic, whatever users' code does.
    pub(crate) fn check_supervisors(&self) {
        let failures = self.trace.failures.lock().unwrap();
        let panicked = failures.iter().find(|failure| failure.contains("panicked"));
        assert!(panicked.is_none(), "{panicked:?}");
    }
}

fn supervisor(runtime: &Runtime, name: &str) -> Option<SupervisorRef> {
    if name == "root" { Some(runtime.root()) } else { runtime.supervisor(name) }
}

/// Writes everything down, and how supervisors fail. Why a child of theirs did is no concern of it.
fn listener(trace: Arc<Trace>) -> impl Fn(&Event) + Send + Sync {
    move |event| {
        let child = event.child.as_deref().unwrap_or("runtime");
        trace.note(format!("{:?} {child}: {:?}", event.at, event.fact));
        let Fact::Failed { cause, .. } = &event.fact else { return };
        if event.kernel.is_none() && !matches!(cause, Cause::GaveUp(_) | Cause::StartFailed(_)) {
            trace.failures.lock().unwrap().push(format!("{child}: {cause}"));
        }
    }
}

impl Trace {
    fn note(&self, line: String) {
        let mut lines = self.lines.lock().unwrap();
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Lines of the trace that a failure shows.
const MAX_LINES: usize = 150;

impl Drop for Play {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.trace.lines.lock().unwrap().iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Waits for what has to happen.
pub(crate) async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("it has not happened: {what}"))
}

pub(crate) async fn soak(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let play = Play::begin(&mut rng).await;
    let rounds = rng.usize(1..4);
    for _ in 0..rounds {
        chaos::round(&play, &mut rng).await;
        play.calm(&mut rng).await;
    }
    play.end(&mut rng).await;
    play.over.store(true, Ordering::Release);
}
