//! Plain async tasks as children of a supervisor, so that a whole service can live under one tree.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, Message, SpawnErr};
use rustkernel_core::error::Source;
use rustkernel_core::supervision::{ChildKey, ChildRules, Restart, Shutdown};
use rustkernel_core::traits::Signal;
use tokio::sync::Notify;

use crate::recovery::RecoveryMsg;

/// What a task returns: done, or the reason why not.
pub type TaskResult = Result<(), Source>;

type TaskFuture = Pin<Box<dyn Future<Output = TaskResult> + Send>>;
type Factory = Arc<dyn Fn(TaskContext) -> TaskFuture + Send + Sync>;

/// An async task that a supervisor starts, watches and starts again.
///
/// Its future runs on the async runtime: it must not block. An error and a panic are abnormal ends, `Ok` is a normal one. When it is to end,
/// [`TaskContext::stopped`] resolves; after its grace it is dropped at its next await.
///
/// ```
/// use rustkernel_actors::Task;
/// use rustkernel_core::supervision::Restart;
///
/// let heartbeat = Task::new("heartbeat", |cx| async move {
///     cx.stopped().await;
///     Ok(())
/// });
/// let import = Task::new("import", |_| async { Err("the source is gone".into()) }).restart(Restart::Transient);
/// # let _ = (heartbeat, import);
/// ```
#[derive(Clone)]
pub struct Task {
    pub(crate) name: String,
    pub(crate) rules: ChildRules,
    pub(crate) plan: TaskPlan,
}

/// What it takes to start a task.
#[derive(Clone)]
pub(crate) struct TaskPlan {
    factory: Factory,
    announces: bool,
}

impl Task {
    /// A task called `name`, whose future `factory` makes, again for every life.
    pub fn new<F>(name: impl Into<String>, factory: impl Fn(TaskContext) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = TaskResult> + Send + 'static,
    {
        let factory: Factory = Arc::new(move |cx| Box::pin(factory(cx)));
        let plan = TaskPlan { factory, announces: false };
        Self { name: name.into(), rules: ChildRules::default(), plan }
    }

    /// Which of its ends make the supervisor start it again. Default: every one.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.rules.restart = restart;
        self
    }

    /// How it is stopped. Default: asked, and dropped after 5 s.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.rules.shutdown = shutdown;
        self
    }

    /// Its own end may end the supervisor, as the supervisor's auto-shutdown says.
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.rules.significant = true;
        self
    }

    /// It is up when it says so ([`TaskContext::ready`]), not as soon as it runs: what is started after it waits for that. One that ends
    /// before has failed to start.
    #[must_use]
    pub fn announces(mut self) -> Self {
        self.plan.announces = true;
        self
    }
}

/// What a task knows about its life, and how it learns that it is to end.
#[derive(Clone)]
pub struct TaskContext {
    control: Arc<Control>,
    life: u64,
    announcement: Option<Arc<Announcement>>,
}

/// Goes to the one life of the supervisor that started the task: another one numbers its children's lives anew.
struct Announcement {
    supervisor: ActorRef<RecoveryMsg>,
    child: ChildKey,
    life: u64,
}

/// What a supervisor and a task say to each other.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: Signal,
    call: Notify,
    /// It has said that it is up.
    up: AtomicBool,
    done: AtomicBool,
    /// The error it has returned; a panic leaves none.
    error: OnceLock<String>,
}

impl TaskContext {
    /// Resolves when the task is to end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn stopped(&self) {
        while !self.is_stopped() {
            let called = self.control.call.notified();
            if self.is_stopped() {
                return;
            }
            called.await;
        }
    }

    /// Whether the task is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.control.stop.is_raised()
    }

    /// The number of this life, from 1.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Says that the task is up, if it [announces](Task::announces) that.
    pub fn ready(&self) {
        if let Some(announcement) = &self.announcement {
            let Announcement { supervisor, child, life } = &**announcement;
            self.control.up.store(true, Ordering::Release);
            // A supervisor that is gone has ended its tasks, or somebody does it for it.
            let _ = supervisor.send_message(RecoveryMsg::ChildReady { child: *child, life: *life });
        }
    }
}

impl Control {
    pub(crate) fn stop(&self) {
        self.stop.raise();
        self.call.notify_waiters();
    }

    /// Whether the task has said that it is up.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// The error that the task has returned.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.get().map(String::as_str)
    }

    /// Whether the task has returned `Ok`.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// A started task.
pub(crate) struct Started {
    pub(crate) actor: ActorCell,
    pub(crate) control: Arc<Control>,
    /// Whether it is up already.
    pub(crate) ready: bool,
}

impl TaskPlan {
    pub(crate) async fn start(
        &self,
        child: ChildKey,
        life: u64,
        supervisor: &ActorRef<RecoveryMsg>,
    ) -> Result<Started, SpawnErr> {
        let control = Arc::new(Control::default());
        let announcement =
            self.announces.then(|| Arc::new(Announcement { supervisor: supervisor.clone(), child, life }));
        let context = TaskContext { control: Arc::clone(&control), life, announcement };
        let actor = TaskActor { factory: Arc::clone(&self.factory), context };
        let (actor, _) = Actor::spawn_linked(None, actor, (), supervisor.get_cell()).await?;
        Ok(Started { actor: actor.get_cell(), control, ready: !self.announces })
    }
}

struct TaskActor {
    factory: Factory,
    context: TaskContext,
}

struct Run;

impl Message for Run {}

impl Actor for TaskActor {
    type Msg = Run;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Run>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(myself.send_message(Run)?)
    }

    async fn handle(&self, myself: ActorRef<Run>, Run: Run, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let control = &self.context.control;
        if let Err(error) = (self.factory)(self.context.clone()).await {
            let text = error.to_string();
            // It returns once.
            let _ = control.error.set(text.clone());
            return Err(text.into());
        }
        control.done.store(true, Ordering::Release);
        myself.stop(None);
        Ok(())
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext").field("life", &self.life).finish_non_exhaustive()
    }
}
