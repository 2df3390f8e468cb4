//! The book's probe: it runs checks, each on a thread of its own, and answers in time.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::config::HealthProbeConfig;
use super::machine::ProbeMachine;
use super::status::{HealthCheckResult, HealthStatus};
use crate::clock::Clock;
use crate::resilience::InvalidConfig;

/// Something whose health can be checked.
pub trait HealthTarget: Send + Sync + 'static {
    /// Finds out how it is. This runs on a thread of its own and may block it; the probe waits for its timeout only.
    fn check(&self) -> impl Future<Output = HealthCheckResult> + Send;
}

impl<T: HealthTarget> HealthTarget for Arc<T> {
    fn check(&self) -> impl Future<Output = HealthCheckResult> + Send {
        T::check(self)
    }
}

/// Checks registered targets, and keeps the state of each.
///
/// Each check has its own thread, so that one that blocks costs its caller the timeout and nothing else. While it
/// blocks, further checks of that target are unhealthy without another start. A clone is the same probe.
#[derive(Clone)]
pub struct HealthProbe(Arc<Inner>);

struct Inner {
    config: HealthProbeConfig,
    clock: Clock,
    targets: Mutex<HashMap<String, Arc<Target>>>,
}

struct Target {
    check: Check,
    machine: Result<Mutex<ProbeMachine>, InvalidConfig>,
    running: AtomicBool,
}

type Pending = Pin<Box<dyn Future<Output = HealthCheckResult> + Send>>;
type Check = Arc<dyn Fn() -> Pending + Send + Sync>;

impl HealthProbe {
    /// A probe without targets. With invalid settings every registered target stays
    /// [`HealthStatus::Unknown`]: [`try_new`](Self::try_new) says why.
    #[must_use]
    pub fn new(config: HealthProbeConfig) -> Self {
        Self::build(config, Clock::system())
    }

    /// A probe without targets.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn try_new(config: HealthProbeConfig) -> Result<Self, InvalidConfig> {
        config.validate()?;
        Ok(Self::new(config))
    }

    /// A probe with the same settings on another clock, without targets.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self::build(self.0.config.clone(), clock)
    }

    /// Registers a target under a name, in place of one that has it already. It is unknown until it is checked.
    pub fn register(&self, name: impl Into<String>, target: impl HealthTarget) {
        let target = Arc::new(target);
        let check: Check = Arc::new(move || {
            let target = Arc::clone(&target);
            Box::pin(async move { target.check().await })
        });
        let machine = ProbeMachine::try_new(&self.0.config, None).map(Mutex::new);
        let entry = Arc::new(Target { check, machine, running: AtomicBool::new(false) });
        self.targets().insert(name.into(), entry);
    }

    /// Removes a target; true where there was one.
    pub fn deregister(&self, name: &str) -> bool {
        self.targets().remove(name).is_some()
    }

    /// Checks a target and returns its state, which the thresholds may keep from what this one check found.
    ///
    /// A check that takes longer than the timeout is unhealthy at the timeout, at once, and stays so while it runs. One that is asked
    /// for while another is running starts none and returns the present state. An unknown name is [`HealthStatus::Unknown`].
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer enabled.
    ///
    /// # Cancel safety
    /// Dropping the future drops the check where it waits, without a result; one that blocks runs to its end first.
    pub async fn check(&self, name: &str) -> HealthStatus {
        let Some(target) = self.targets().get(name).cloned() else { return HealthStatus::Unknown };
        if target.machine.is_err() {
            return HealthStatus::Unknown;
        }
        let result = run(&target, self.0.config.timeout).await;
        let now = self.0.clock.now();
        let Some(mut machine) = target.machine() else { return HealthStatus::Unknown };
        match result {
            Checked::Found(result) => machine.on_result(result.status, now),
            Checked::Overdue => machine.on_overdue(),
            Checked::Busy => machine.status(),
        }
    }

    /// The state after the last check, without a new one.
    #[must_use]
    pub fn status(&self, name: &str) -> HealthStatus {
        let target = self.targets().get(name).cloned();
        let status = target.as_deref().and_then(Target::machine).map(|machine| machine.status());
        status.unwrap_or(HealthStatus::Unknown)
    }

    /// The registered names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.targets().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    fn build(config: HealthProbeConfig, clock: Clock) -> Self {
        Self(Arc::new(Inner { config, clock, targets: Mutex::default() }))
    }

    fn targets(&self) -> MutexGuard<'_, HashMap<String, Arc<Target>>> {
        self.0.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for HealthProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthProbe").field("targets", &self.names()).finish_non_exhaustive()
    }
}

impl Target {
    fn machine(&self) -> Option<MutexGuard<'_, ProbeMachine>> {
        let machine = self.machine.as_ref().ok()?;
        Some(machine.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a check ended for the one who asked.
enum Checked {
    Found(HealthCheckResult),
    /// It gives no answer in time.
    Overdue,
    /// Another one is running.
    Busy,
}

/// One check on a thread of its own.
async fn run(target: &Arc<Target>, timeout: Duration) -> Checked {
    if target.running.swap(true, Ordering::AcqRel) {
        return Checked::Busy;
    }
    let running = Running(Arc::clone(target));
    let (mut answer, result) = oneshot::channel();
    let handle = Handle::current();
    let spawned = std::thread::Builder::new().name("health-check".to_owned()).spawn(move || {
        let _runtime = handle.enter();
        let found = catch_unwind(AssertUnwindSafe(|| block_on((running.0.check)(), &mut answer)));
        drop(running);
        let found = found.unwrap_or_else(|_panic| Some(HealthCheckResult::unhealthy("the check panicked")));
        // Where the caller has gone, nobody wants the answer.
        let _unheard = found.map(|result| answer.send(result));
    });
    if spawned.is_err() {
        return Checked::Found(HealthCheckResult::unhealthy("no thread to run the check on"));
    }
    match tokio::time::timeout(timeout, result).await {
        Ok(Ok(result)) => Checked::Found(result),
        Ok(Err(_)) | Err(_) => Checked::Overdue,
    }
}

/// Lets the next check start when this one has ended, however it did.
struct Running(Arc<Target>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

/// Runs a check on this thread, which parks where it waits; `None` where its caller goes away before its end.
fn block_on(
    mut check: Pending,
    caller: &mut oneshot::Sender<HealthCheckResult>,
) -> Option<HealthCheckResult> {
    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(result) = check.as_mut().poll(&mut cx) {
            return Some(result);
        }
        if caller.poll_closed(&mut cx).is_ready() {
            return None;
        }
        std::thread::park();
    }
}
