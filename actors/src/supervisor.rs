//! A supervisor as users declare it, and as they hold it.

mod handle;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::resilience::BackoffStrategy;
use rustkernel_core::supervision::{
    AutoShutdown, ChildKind, ChildRules, ChildSpec, Restart, Shutdown, Strategy, SupervisorConfig,
    SupervisorMachine,
};
use rustkernel_core::traits::LocalKernel;

pub use handle::SupervisorRef;

use crate::home::Home;
use crate::recovery::{Declaration, Declared, Node};
use crate::spec::{Declaring, KernelSpec, SpawnError};
use crate::task::Task;

/// A supervisor and what it supervises, written down as the tree it is. Checked as a whole before anything starts.
///
/// Children start in the order in which they are written down, each when the one before it is up, and stop in reverse. Defaults:
/// one_for_one, at most 3 restarts in 5 s, permanent, and stopped with all the time its children take.
///
/// ```
/// # use std::time::Duration;
/// # use rustkernel_actors::{KernelSpec, Runtime, Supervisor, Task};
/// # use rustkernel_core::traits::{Context, Kernel};
/// # struct Embed;
/// # impl Kernel for Embed {
/// #     type Input = u64;
/// #     type Output = u64;
/// #     async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> rustkernel_core::Result<u64> { Ok(input + 1) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::builder().build().await?;
/// let service = Supervisor::new("service")
///     .rest_for_one()
///     .task(Task::new("connection", |cx| async move { Ok(cx.stopped().await) }))
///     .supervisor(
///         Supervisor::new("gpu0")
///             .one_for_all()
///             .intensity(5, Duration::from_secs(10))
///             .kernel(KernelSpec::new("text/embed", || Embed)),
///     );
/// let service = runtime.supervise(service).await?;
/// let embed = runtime.kernel::<u64, u64>("text/embed").ok_or("not there")?;
/// assert_eq!(embed.call(1, Duration::from_secs(1)).await?, 2);
/// assert_eq!(service.count_children().await?.supervisors, 1);
/// # Ok(())
/// # }
/// ```
pub struct Supervisor {
    name: String,
    config: SupervisorConfig,
    rules: ChildRules,
    children: Vec<Planned>,
}

enum Planned {
    Kernel(Box<dyn Declare>),
    Task(Task),
    Supervisor(Supervisor),
}

/// A kernel's spec, whatever its type.
trait Declare: Send {
    fn declare(self: Box<Self>, at: &Declaring<'_>) -> Result<Declared, SpawnError>;
}

impl<K: LocalKernel> Declare for KernelSpec<K> {
    fn declare(self: Box<Self>, at: &Declaring<'_>) -> Result<Declared, SpawnError> {
        let id = rustkernel_core::KernelId::new(&self.id)?;
        let checked = self.check().map_err(|source| SpawnError::Config { kernel: id, source })?;
        checked.declare(at).map(|(declared, _)| declared)
    }
}

impl Supervisor {
    /// A supervisor called `name`, unique in its runtime: an ASCII letter or digit, then letters, digits, `_`, `-` and `.`, at most 128.
    pub fn new(name: impl Into<String>) -> Self {
        // Its children have grace times of their own.
        let rules = ChildRules { shutdown: Shutdown::Infinity, ..ChildRules::default() };
        Self { name: name.into(), config: SupervisorConfig::default(), rules, children: Vec::new() }
    }

    /// Every setting at once, for example as it was read from a file.
    #[must_use]
    pub fn config(mut self, config: SupervisorConfig) -> Self {
        self.config = config;
        self
    }

    /// A failed child is restarted alone. The default.
    #[must_use]
    pub fn one_for_one(self) -> Self {
        self.strategy(Strategy::OneForOne)
    }

    /// When one fails, all are restarted.
    #[must_use]
    pub fn one_for_all(self) -> Self {
        self.strategy(Strategy::OneForAll)
    }

    /// When one fails, it and those after it are restarted.
    #[must_use]
    pub fn rest_for_one(self) -> Self {
        self.strategy(Strategy::RestForOne)
    }

    /// Children come at run time, at most `max_children` at once, and are forgotten when they end.
    #[must_use]
    pub fn dynamic(mut self, max_children: u32) -> Self {
        self.config.max_children = max_children;
        self.strategy(Strategy::Dynamic)
    }

    /// At most `restarts` within `period`; one more ends the supervisor, and the one above decides.
    #[must_use]
    pub fn intensity(mut self, restarts: u32, period: Duration) -> Self {
        self.config.intensity = restarts;
        self.config.period = period;
        self
    }

    /// The wait before tasks and supervisors are started again.
    #[must_use]
    pub fn backoff(mut self, backoff: BackoffStrategy) -> Self {
        self.config.backoff = backoff;
        self
    }

    /// Whether the end of a significant child ends the supervisor.
    #[must_use]
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.config.auto_shutdown = auto_shutdown;
        self
    }

    /// Which of its own ends make the supervisor above start it again. A supervisor that gives up ends in order, so that only a
    /// permanent one comes back from that. Default permanent.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.rules.restart = restart;
        self
    }

    /// How the supervisor above stops it. Default: with all the time its children take.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.rules.shutdown = shutdown;
        self
    }

    /// Its own end may end the supervisor above.
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.rules.significant = true;
        self
    }

    /// A kernel, to be found by its name: [`Runtime::kernel`](crate::Runtime::kernel).
    #[must_use]
    pub fn kernel<K: LocalKernel>(mut self, spec: KernelSpec<K>) -> Self {
        self.children.push(Planned::Kernel(Box::new(spec)));
        self
    }

    /// A plain async task.
    #[must_use]
    pub fn task(mut self, task: Task) -> Self {
        self.children.push(Planned::Task(task));
        self
    }

    /// A supervisor below this one.
    #[must_use]
    pub fn supervisor(mut self, supervisor: Self) -> Self {
        self.children.push(Planned::Supervisor(supervisor));
        self
    }

    fn strategy(mut self, strategy: Strategy) -> Self {
        self.config.strategy = strategy;
        self
    }

    /// Checks the whole tree and takes its names. On an error nothing is left behind.
    pub(crate) fn declare(self, at: &Declaring<'_>) -> Result<Declared, SpawnError> {
        let Self { name, config, rules, children } = self;
        check_name(&name)?;
        let refuse = |source| SpawnError::Supervisor { supervisor: name.clone(), source };
        config.validate().map_err(refuse)?;
        let home = Arc::new(Home::default());
        let below = Declaring { env: at.env, registry: at.registry, home: &home };
        let mut declared = Undone(Vec::new());
        for child in children {
            declared.0.push(match child {
                Planned::Kernel(spec) => spec.declare(&below)?,
                Planned::Task(task) => declare_task(task)?,
                Planned::Supervisor(supervisor) => supervisor.declare(&below)?,
            });
        }
        // The machine of its first life checks what concerns the children together.
        let specs = declared.0.iter().map(|child| child.spec.clone());
        drop(SupervisorMachine::try_new(config.clone(), specs, 0).map_err(refuse)?);
        let number = at.registry.reserve_supervisor(&name)?;
        let (names, own) = (Arc::clone(at.registry), name.clone());
        let free_name = Box::new(move || names.remove_supervisor(&own, number));
        let children = std::mem::take(&mut declared.0);
        let node = Node::new(name.as_str().into(), config, home, children, free_name);
        at.registry.fill_supervisor(&name, number, &node);
        let spec = ChildSpec { name: name.into(), kind: ChildKind::Supervisor, rules };
        Ok(Declared { spec, body: Declaration::Supervisor(node) })
    }
}

/// Declared children whose tree is refused after all.
struct Undone(Vec<Declared>);

impl Drop for Undone {
    fn drop(&mut self) {
        for child in self.0.drain(..) {
            child.close(rustkernel_core::error::DownReason::Stopped);
            child.free_names();
        }
    }
}

pub(crate) fn declare_task(task: Task) -> Result<Declared, SpawnError> {
    check_name(&task.name)?;
    let spec = ChildSpec { name: task.name.into(), kind: ChildKind::Task, rules: task.rules };
    Ok(Declared { spec, body: Declaration::Task(Arc::new(task.plan)) })
}

/// Names of supervisors and tasks have no slash, so that they never meet a kernel's.
fn check_name(name: &str) -> Result<(), SpawnError> {
    let refuse = |rule| Err(SpawnError::Name { name: name.chars().take(MAX_NAME_BYTES).collect(), rule });
    if name.len() > MAX_NAME_BYTES {
        return refuse("it has at most 128 bytes");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return refuse("it starts with an ASCII letter or digit");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
        return refuse("it holds only ASCII letters, digits, `_`, `-` and `.`");
    }
    Ok(())
}

const MAX_NAME_BYTES: usize = 128;

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.name)
            .field("config", &self.config)
            .field("children", &self.children.len())
            .finish_non_exhaustive()
    }
}
