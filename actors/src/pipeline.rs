//! K2K pipelines: kernels that hand their answers to each other, slot to slot.
//!
//! A chain has one deadline and one retry budget, carried in the [`Header`](rustkernel_core::envelope::Header) of its requests. A finished stage's own
//! thread submits to the next slot; the caller is told once, at the end. When the caller goes away, the chain's cancellation is raised:
//! queued work is not started, pending work is dropped, running work is told.
//!
//! ```
//! # use rustkernel_actors::{KernelSpec, Pipeline, Runtime};
//! # use rustkernel_core::traits::{Context, Kernel};
//! # struct Double;
//! # impl Kernel for Double {
//! #     type Input = u64;
//! #     type Output = u64;
//! #     async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> rustkernel_core::Result<u64> { Ok(input * 2) }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let runtime = Runtime::builder().build().await?;
//! let double = runtime.spawn(KernelSpec::new("math/double", || Double)).await?;
//! let pipeline = Pipeline::from(&double).repeat_until(10, |n| *n >= 100).map(|n| n + 1);
//! assert_eq!(pipeline.run(7, std::time::Duration::from_secs(1)).await?, 113);
//! # Ok(())
//! # }
//! ```

mod adapt;
mod repeat;
mod report;
mod run;
mod scatter;
mod stage;

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustkernel_core::clock::Clock;
use rustkernel_core::envelope::{DEFAULT_RETRY_BUDGET, Deadline};
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;

pub(crate) use report::{Mark, Recorder};
pub use report::{PipelineReport, StageReport};

use crate::kernel_ref::KernelRef;
use crate::way::Next;
use adapt::TryMap;
use repeat::Repeat;
use run::{Finish, Run, next_id};
use scatter::Scatter;
use stage::{KernelStage, Pass, Stage, Then};

/// A chain of kernels from `I` to `O`, typed at composition. A clone shares the stages.
pub struct Pipeline<I, O> {
    stage: Arc<dyn Stage<I, O>>,
    /// The stages linked to each other, by the first run.
    entry: Arc<OnceLock<Arc<dyn Next<I>>>>,
    clock: Option<Clock>,
    retry_budget: u32,
}

impl<T: Send + 'static> Pipeline<T, T> {
    /// An empty chain, to begin one that starts with something else than a kernel.
    #[must_use]
    pub fn start() -> Self {
        Self::of(Arc::new(Pass), None, DEFAULT_RETRY_BUDGET)
    }

    /// Runs the chain again on its own output until `done` says so, at least once and at most `limit` times. All rounds
    /// share the deadline and the retry budget.
    ///
    /// A chain that is not done after `limit` rounds fails as [`Permanent`](rustkernel_core::resilience::ErrorKind); one without a kernel
    /// in it, a scatter's workers not counted, fails as invalid input.
    #[must_use]
    pub fn repeat_until(self, limit: u32, done: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Self::of(Arc::new(Repeat::new(self.stage, limit, Arc::new(done))), self.clock, self.retry_budget)
    }
}

impl<I: Send + 'static, O: Send + 'static> Pipeline<I, O> {
    /// Goes on with a kernel or another chain.
    #[must_use]
    pub fn then<P: Send + 'static>(self, next: impl Into<Pipeline<O, P>>) -> Pipeline<I, P> {
        let next = next.into();
        let clock = self.clock.or(next.clock);
        Pipeline::of(Arc::new(Then::new(self.stage, next.stage)), clock, self.retry_budget)
    }

    /// Changes the value on its way. `f` runs in the thread of the stage before it, so it should be cheap; a panic in it
    /// fails the request, not the kernel.
    #[must_use]
    pub fn map<P: Send + 'static>(self, f: impl Fn(O) -> P + Send + Sync + 'static) -> Pipeline<I, P> {
        self.try_map(move |value| Ok(f(value)))
    }

    /// [`map`](Self::map) with an `f` that can fail, which ends the chain.
    #[must_use]
    pub fn try_map<P: Send + 'static>(
        self,
        f: impl Fn(O) -> Result<P, KernelError> + Send + Sync + 'static,
    ) -> Pipeline<I, P> {
        let stage = Arc::new(Then::new(self.stage, Arc::new(TryMap::new(Arc::new(f)))));
        Pipeline::of(stage, self.clock, self.retry_budget)
    }

    /// Splits the value, sends part i through worker i modulo their number, all at once, and goes on with the results in the order
    /// of the parts. The first failure fails the chain and cancels the other parts. The retry budget is
    /// divided among the parts. Without workers every value fails as invalid input.
    #[must_use]
    pub fn scatter<S: Send + 'static, P: Send + 'static>(
        self,
        split: impl Fn(O) -> Vec<S> + Send + Sync + 'static,
        workers: impl IntoIterator<Item = impl Into<Pipeline<S, P>>>,
    ) -> Pipeline<I, Vec<P>> {
        let mut clock = self.clock;
        let mut stages = Vec::new();
        for worker in workers {
            let worker = worker.into();
            clock = clock.or(worker.clock);
            stages.push(worker.stage);
        }
        let scatter = Arc::new(Scatter::new(Arc::new(split), stages));
        Pipeline::of(Arc::new(Then::new(self.stage, scatter)), clock, self.retry_budget)
    }

    /// Sends a clone of the value through every branch, all at once, and goes on with the results in the order of the
    /// branches; as [`scatter`](Self::scatter).
    #[must_use]
    pub fn fan_out<P: Send + 'static>(
        self,
        branches: impl IntoIterator<Item = impl Into<Pipeline<O, P>>>,
    ) -> Pipeline<I, Vec<P>>
    where
        O: Clone,
    {
        let branches: Vec<Pipeline<O, P>> = branches.into_iter().map(Into::into).collect();
        let count = branches.len();
        self.scatter(move |value| vec![value; count], branches)
    }

    /// Re-runs that all stages of one request may make together. Default 16.
    #[must_use]
    pub fn retry_budget(self, reruns: u32) -> Self {
        Self { retry_budget: reruns, ..self }
    }

    /// Sends one value through the chain.
    ///
    /// # Errors
    /// The first stage's error that was not retried away; it names its kernel. A passed deadline ends the chain
    /// wherever it is; the kernels' own time limits do not apply to it.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request downstream.
    pub async fn run(&self, input: I, deadline: impl Into<Deadline>) -> Result<O, KernelError> {
        Run::new(self, deadline.into(), false, next_id()).go(self, input).await
    }

    /// [`run`](Self::run) with the time spent in each stage. Costs two reads of the clock a stage.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_reported(
        &self,
        input: I,
        deadline: impl Into<Deadline>,
    ) -> (Result<O, KernelError>, PipelineReport) {
        self.run_reported_as(next_id(), input, deadline).await
    }

    /// [`run_reported`](Self::run_reported) under a request id of one's own, for example that of a run that an earlier process did not
    /// finish.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_reported_as(
        &self,
        id: u64,
        input: I,
        deadline: impl Into<Deadline>,
    ) -> (Result<O, KernelError>, PipelineReport) {
        let run = Run::new(self, deadline.into(), true, id);
        let result = run.go(self, input).await;
        (result, run.report())
    }

    /// A request id that no other run of this process has.
    #[must_use]
    pub fn next_request_id() -> u64 {
        next_id()
    }

    fn of(stage: Arc<dyn Stage<I, O>>, clock: Option<Clock>, retry_budget: u32) -> Self {
        Self { stage, entry: Arc::default(), clock, retry_budget }
    }

    fn entry(&self) -> &Arc<dyn Next<I>> {
        self.entry.get_or_init(|| self.stage.link(Arc::new(Finish::new())))
    }

    fn clock(&self) -> Clock {
        self.clock.clone().unwrap_or_default()
    }
}

impl<I: Payload, O: Payload> From<KernelRef<I, O>> for Pipeline<I, O> {
    fn from(kernel: KernelRef<I, O>) -> Self {
        let clock = Some(kernel.slot.clock().clone());
        Self::of(Arc::new(KernelStage::new(kernel.slot)), clock, DEFAULT_RETRY_BUDGET)
    }
}

impl<I: Payload, O: Payload> From<&KernelRef<I, O>> for Pipeline<I, O> {
    fn from(kernel: &KernelRef<I, O>) -> Self {
        kernel.clone().into()
    }
}

impl<I, O> Clone for Pipeline<I, O> {
    fn clone(&self) -> Self {
        Self {
            stage: Arc::clone(&self.stage),
            entry: Arc::clone(&self.entry),
            clock: self.clock.clone(),
            retry_budget: self.retry_budget,
        }
    }
}

impl<I, O> fmt::Debug for Pipeline<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("retry_budget", &self.retry_budget).finish_non_exhaustive()
    }
}
