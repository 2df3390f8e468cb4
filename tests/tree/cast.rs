//! Children that write down when they begin and when they are gone, and end as the test says.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustkernel::actors::{
    Branch, ChildPhase, ChildStatus, ClockHand, KernelSpec, Runtime, Supervisor, SupervisorRef, Task,
    TaskContext, TaskResult, Tree,
};
use rustkernel::core::resilience::BackoffStrategy;
use rustkernel::core::traits::{Context, Kernel};
use rustkernel::core::{KernelError, Result};
use tokio::sync::mpsc;

use crate::kit::{Do, Latch, Puppet, at_once, soon};

/// What a living task is told.
#[derive(Clone, Debug)]
pub(crate) enum Tell {
    /// Say that you are up.
    Ready,
    /// Return `Ok`.
    Finish,
    /// Return an error.
    Fail,
    Panic,
    /// Do not end when you are asked to.
    Linger,
    /// Block the thread you run on, before this latch.
    Block(Arc<Latch>),
}

/// All children of a test, by their names. A child that begins writes `+name`, one that is gone `-name`.
#[derive(Clone, Default)]
pub(crate) struct Cast(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    lines: Vec<String>,
    living: HashMap<String, usize>,
    tasks: HashMap<String, mpsc::UnboundedSender<Tell>>,
    failing: HashMap<String, usize>,
    held: HashSet<String>,
}

/// One life; it ends when this is dropped.
pub(crate) struct Life {
    cast: Cast,
    name: String,
}

impl Cast {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, name: &str) -> Life {
        let mut book = self.book();
        book.lines.push(format!("+{name}"));
        let living = book.living.entry(name.to_owned()).or_default();
        *living += 1;
        if *living > 1 {
            book.lines.push(format!("{name} LIVES TWICE"));
        }
        Life { cast: self.clone(), name: name.to_owned() }
    }

    /// The next `starts` of this child fail.
    pub(crate) fn fail(&self, name: &str, starts: usize) {
        self.book().failing.insert(name.to_owned(), starts);
    }

    /// Its starts wait for [`Tell::Ready`], or no longer.
    pub(crate) fn hold(&self, name: &str, holds: bool) {
        let held = &mut self.book().held;
        if holds {
            held.insert(name.to_owned())
        } else {
            held.remove(name)
        };
    }

    /// What was written since the last look.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.book().lines.clone()
    }

    pub(crate) fn forget_lines(&self) {
        self.book().lines.clear();
    }

    fn is_to_fail(&self, name: &str) -> bool {
        let mut book = self.book();
        let Some(left) = book.failing.get_mut(name).filter(|left| **left > 0) else { return false };
        *left -= 1;
        true
    }

    /// Waits until these lines were written, the next ones since the last look.
    pub(crate) async fn expect<const N: usize>(&self, lines: [&str; N]) {
        let written = async {
            while self.book().lines.len() < N {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), written).await.is_ok();
        let mut book = self.book();
        let seen = N.min(book.lines.len());
        let seen: Vec<_> = book.lines.drain(..seen).collect();
        drop(book);
        assert_eq!(seen, lines, "in time: {in_time}");
    }

    /// Nothing was written since the last look, and nothing is by what can run now.
    pub(crate) async fn expect_nothing(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(self.book().lines.is_empty(), "{:?}", self.book().lines);
    }

    /// Waits until these lines were written, the next ones since the last look, in whatever order.
    pub(crate) async fn expect_all<const N: usize>(&self, mut lines: [&str; N]) {
        let written = async {
            while self.book().lines.len() < N {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), written).await.is_ok();
        let mut book = self.book();
        let seen = N.min(book.lines.len());
        let mut written: Vec<_> = book.lines.drain(..seen).collect();
        drop(book);
        written.sort();
        lines.sort_unstable();
        assert_eq!(written, lines, "in time: {in_time}");
    }

    pub(crate) fn alive(&self) -> Vec<String> {
        let book = self.book();
        let mut alive: Vec<_> =
            book.living.iter().filter(|(_, n)| **n > 0).map(|(name, _)| name.clone()).collect();
        alive.sort();
        alive
    }

    /// What began while it was still alive.
    pub(crate) fn twice(&self) -> Vec<String> {
        self.book().lines.iter().filter(|line| line.ends_with("TWICE")).cloned().collect()
    }

    /// Tells the living task something.
    pub(crate) fn tell(&self, name: &str, what: Tell) {
        self.book().tasks[name].send(what).expect("it lives");
    }

    /// A task that is up as soon as it runs, and ends when asked to.
    pub(crate) fn task(&self, name: &str) -> Task {
        let (cast, own) = (self.clone(), name.to_owned());
        Task::new(name, move |cx| cast.clone().play(own.clone(), cx))
    }

    /// A task that is up when it is told to say so.
    pub(crate) fn slow(&self, name: &str) -> Task {
        self.task(name).announces()
    }

    /// A task that says that it is up at once, unless it is [held](Self::hold).
    pub(crate) fn announcer(&self, name: &str) -> Task {
        let (cast, own) = (self.clone(), name.to_owned());
        let task = Task::new(name, move |cx| {
            if !cast.book().held.contains(&own) && cast.book().failing.get(&own).is_none_or(|left| *left == 0)
            {
                cx.ready();
            }
            cast.clone().play(own.clone(), cx)
        });
        task.announces()
    }

    async fn play(self, name: String, cx: TaskContext) -> TaskResult {
        let (sender, mut told) = mpsc::unbounded_channel();
        self.book().tasks.insert(name.clone(), sender);
        let _life = self.begin(&name);
        if self.is_to_fail(&name) {
            return Err("told to fail at once".into());
        }
        let mut lingers = false;
        loop {
            let what = tokio::select! {
                biased;
                what = told.recv() => what.expect("the cast holds the sender"),
                () = cx.stopped(), if !lingers => return Ok(()),
            };
            match what {
                Tell::Ready => cx.ready(),
                Tell::Finish => return Ok(()),
                Tell::Fail => return Err("told to fail".into()),
                Tell::Panic => panic!("told to panic"),
                Tell::Linger => lingers = true,
                Tell::Block(latch) => latch.block(),
            }
        }
    }

    /// A kernel that does what its input says, restarts at once, and has no breaker.
    pub(crate) fn kernel(&self, id: &str) -> KernelSpec<Player> {
        let (cast, name) = (self.clone(), id.to_owned());
        let factory = move || {
            if cast.is_to_fail(&name) {
                return Err(KernelError::permanent("told to fail"));
            }
            Ok(Player { _life: cast.begin(&name) })
        };
        KernelSpec::fallible(id, factory).breaker(None).recovery(at_once(u32::MAX))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let mut book = self.cast.book();
        book.lines.push(format!("-{}", self.name));
        *book.living.get_mut(&self.name).unwrap() -= 1;
    }
}

pub(crate) struct Player {
    _life: Life,
}

impl Kernel for Player {
    type Input = Do;
    type Output = u64;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<u64> {
        Puppet.execute(input, cx).await
    }
}

pub(crate) const NO_DELAY: BackoffStrategy = BackoffStrategy::Fixed { delay: Duration::ZERO };
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A supervisor that restarts at once, often enough.
pub(crate) fn quick(name: &str) -> Supervisor {
    Supervisor::new(name).intensity(100, Duration::from_secs(5)).backoff(NO_DELAY)
}

pub(crate) async fn runtime() -> (Runtime, ClockHand) {
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    hand.advance(Duration::from_millis(1));
    (runtime, hand)
}

/// Waits until the supervisor's children are `wanted`.
pub(crate) async fn until(
    supervisor: &SupervisorRef,
    wanted: impl Fn(&[ChildStatus]) -> bool,
) -> Vec<ChildStatus> {
    let seen = async {
        loop {
            if let Ok(children) = supervisor.which_children().await
                && wanted(&children)
            {
                return children;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(seen).await
}

/// Waits until the child is there and stands so.
pub(crate) async fn until_child(supervisor: &SupervisorRef, name: &str, phase: ChildPhase) -> ChildStatus {
    let is_it = |child: &&ChildStatus| child.name == name && child.state == phase;
    let children = until(supervisor, |children| children.iter().any(|child| is_it(&child))).await;
    children.iter().find(is_it).unwrap().clone()
}

/// Waits until everything in the tree is up.
pub(crate) async fn until_all_up(runtime: &Runtime) {
    let all_up = async {
        loop {
            let tree = runtime.tree().await.expect("the runtime is there");
            if flat(&tree).iter().all(|branch| branch.child.state == ChildPhase::Up) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(all_up).await;
}

/// The children's names and phases.
pub(crate) async fn phases(supervisor: &SupervisorRef) -> Vec<(String, ChildPhase)> {
    let children = soon(supervisor.which_children()).await.unwrap();
    children.into_iter().map(|child| (child.name, child.state)).collect()
}

/// Everything below, by name, in the order of the tree.
pub(crate) fn flat(tree: &Tree) -> Vec<&Branch> {
    let below = |branch| [branch].into_iter().chain(branch_below(branch));
    tree.children.iter().flat_map(below).collect()
}

fn branch_below(branch: &Branch) -> Vec<&Branch> {
    branch.supervisor.as_ref().map(flat).unwrap_or_default()
}
