//! One value on its way through a chain, as its caller sees it.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use rustkernel_core::clock::Timestamp;
use rustkernel_core::envelope::{Deadline, Header};
use rustkernel_core::error::KernelError;
use rustkernel_core::resilience::ambient_deadline;

use super::Pipeline;
use super::report::{PipelineReport, Recorder};
use crate::cancel::CancelToken;
use crate::spans::{self, Tracing};
use crate::way::{Cell, Chain, Flow, Next};

/// Chain ids have the top bit set, so that no slot's own ids meet them.
const CHAIN_BIT: u64 = 1 << 63;
static CHAINS: AtomicU64 = AtomicU64::new(0);

/// The id of the next run of any chain in this process.
pub(super) fn next_id() -> u64 {
    CHAIN_BIT | CHAINS.fetch_add(1, Ordering::Relaxed)
}

/// One run: the answer to come, the cancellation, and the times of the stages.
pub(super) struct Run<O>(Arc<Shared<O>>);

struct Shared<O> {
    header: Header,
    /// When the run began, if anybody looked.
    started: Timestamp,
    token: CancelToken,
    answer: Cell<O>,
    recorder: Option<Recorder>,
    tracing: Tracing,
}

impl<O: Send + 'static> Run<O> {
    pub(super) fn new<I: Send + 'static>(
        pipeline: &Pipeline<I, O>,
        deadline: Deadline,
        reports: bool,
        id: u64,
    ) -> Self {
        let (asked, started) = match deadline {
            Deadline::None => (Timestamp::NEVER, Timestamp::ZERO),
            Deadline::Within(span) => {
                let now = pipeline.clock().now();
                (now + span, now)
            }
            Deadline::At(at) => (at, Timestamp::ZERO),
        };
        let deadline = asked.min(ambient_deadline().unwrap_or(Timestamp::NEVER));
        let header = Header { retry_budget: pipeline.retry_budget, ..Header::new(id, deadline) };
        let tracing = spans::request(&"chain");
        spans::accepted(tracing.as_deref(), id);
        let recorder = reports.then(Recorder::default);
        Self(Arc::new(Shared {
            header,
            started,
            token: CancelToken::new(),
            answer: Cell::new(None),
            recorder,
            tracing,
        }))
    }

    /// Sends `input` on its way and waits for what comes out.
    pub(super) fn go<I: Send + 'static>(&self, pipeline: &Pipeline<I, O>, input: I) -> Answer<O> {
        let chain = Arc::clone(&self.0) as Arc<dyn Chain>;
        let flow = Flow { header: self.0.header, now: self.0.started, chain, frames: None, begun: false };
        pipeline.entry().resume(flow, Ok(input));
        Answer(Arc::clone(&self.0))
    }

    pub(super) fn report(&self) -> PipelineReport {
        self.0.recorder.as_ref().map(Recorder::report).unwrap_or_default()
    }
}

impl<O: Send + 'static> Chain for Shared<O> {
    fn token(&self) -> &CancelToken {
        &self.token
    }

    fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    fn tracing(&self) -> Option<&spans::Request> {
        self.tracing.as_deref()
    }
}

/// What comes after the last stage: the caller of this run.
pub(super) struct Finish<O>(PhantomData<fn(O)>);

impl<O> Finish<O> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<O: Send + 'static> Next<O> for Finish<O> {
    fn resume(&self, flow: Flow, result: Result<O, KernelError>) {
        let chain: &dyn Any = &*flow.chain;
        let run = chain.downcast_ref::<Shared<O>>();
        debug_assert!(run.is_some(), "a chain ends in the run that began it");
        if let Some(run) = run {
            spans::answered(run.tracing.as_deref(), (&flow.header).into(), result.as_ref().err());
            run.answer.give(&flow.header, result);
        }
    }
}

/// Waits for the end of a chain. Dropping it cancels the chain.
pub(super) struct Answer<O: Send>(Arc<Shared<O>>);

impl<O: Send> Future for Answer<O> {
    type Output = Result<O, KernelError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.answer.poll(cx).map(|(result, _)| result)
    }
}

impl<O: Send> Drop for Answer<O> {
    fn drop(&mut self) {
        if self.0.answer.is_open() {
            self.0.token.raise();
        }
    }
}

/// The chain of the parts of a scatter: cancelled with the whole, or alone when one part fails.
pub(super) struct Branch {
    whole: Arc<dyn Chain>,
    token: Arc<CancelToken>,
}

impl Branch {
    pub(super) fn of(whole: Arc<dyn Chain>) -> Self {
        let token = whole.token().branch();
        Self { whole, token }
    }
}

impl Chain for Branch {
    fn token(&self) -> &CancelToken {
        &self.token
    }

    fn recorder(&self) -> Option<&Recorder> {
        self.whole.recorder()
    }

    fn tracing(&self) -> Option<&spans::Request> {
        self.whole.tracing()
    }
}
