//! What the behaviour tests share: a kernel that does what its input says, and latches that are events in both directions.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses its own part of the kit")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rustkernel::actors::{KernelRef, KernelSpec, KernelStatus, Runtime};
use rustkernel::core::error::{DownReason, KernelErrorKind};
use rustkernel::core::resilience::{ErrorKind, RecoveryPolicy, RecoveryStrategy};
use rustkernel::core::traits::{Context, Kernel, Payload};
use rustkernel::core::{KernelError, Result};
use tokio::sync::watch;

/// A door that tells who stands before it and that a test opens.
#[derive(Debug)]
pub(crate) struct Latch {
    arrived: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Latch {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { arrived: watch::Sender::new(0), open: watch::Sender::new(false) })
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until `count` executions have come to the door.
    pub(crate) async fn arrived(&self, count: usize) {
        soon(self.arrived.subscribe().wait_for(|arrived| *arrived >= count)).await.unwrap();
    }

    pub(crate) fn arrivals(&self) -> usize {
        *self.arrived.borrow()
    }

    pub(crate) fn arrive(&self) {
        self.arrived.send_modify(|arrived| *arrived += 1);
    }

    /// Waits at an await.
    pub(crate) async fn pass(&self) {
        self.arrive();
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }

    /// Blocks the thread.
    pub(crate) fn block(&self) {
        block_on(self.pass());
    }
}

/// What a [`Puppet`] is told to do.
#[derive(Clone, Debug)]
pub(crate) enum Do {
    Double(u64),
    Panic,
    Fail(ErrorKind),
    /// Blocks the thread before the latch.
    Block(Arc<Latch>),
    /// Waits before the latch at an await.
    Wait(Arc<Latch>),
    /// Says which incarnation it is.
    Incarnation,
    /// Says which attempt it is.
    Attempt,
    /// Panics on the first `n` attempts.
    PanicUntil(u32),
    /// Fails on the first `n` attempts.
    FailUntil(u32),
}

impl Payload for Do {
    fn size_bytes(&self) -> usize {
        100
    }

    fn schema() -> String {
        "do".into()
    }
}

/// A kernel that does what its input says.
#[derive(Debug, Default)]
pub(crate) struct Puppet;

impl Kernel for Puppet {
    type Input = Do;
    type Output = u64;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<u64> {
        match input {
            Do::Double(value) => return Ok(value * 2),
            Do::Panic => panic!("told to panic"),
            Do::Fail(kind) => return Err(KernelError::kernel(*kind, "told to fail")),
            Do::Block(latch) => latch.block(),
            Do::Wait(latch) => latch.pass().await,
            Do::Incarnation => return Ok(cx.incarnation()),
            Do::Attempt => {}
            Do::PanicUntil(attempt) => assert!(cx.header().attempt > *attempt, "told to panic"),
            Do::FailUntil(attempt) if cx.header().attempt <= *attempt => {
                return Err(KernelError::transient("told to fail"));
            }
            Do::FailUntil(_) => {}
        }
        Ok(u64::from(cx.header().attempt))
    }
}

pub(crate) type PuppetRef = KernelRef<Do, u64>;

/// A puppet that restarts at once and as often as it takes, without a breaker.
pub(crate) fn puppet(id: &str) -> KernelSpec<Puppet> {
    KernelSpec::new(id, || Puppet).breaker(None).recovery(at_once(u32::MAX))
}

pub(crate) fn at_once(max_restarts: u32) -> RecoveryPolicy {
    after(Duration::ZERO, max_restarts)
}

pub(crate) fn after(restart_delay: Duration, max_restarts: u32) -> RecoveryPolicy {
    RecoveryPolicy {
        strategy: RecoveryStrategy::RestartKernel,
        max_restarts,
        restart_delay,
        escalation: Some(RecoveryStrategy::NotifyOperator),
    }
}

pub(crate) const NONE: rustkernel::core::envelope::Deadline = rustkernel::core::envelope::Deadline::None;
pub(crate) const DOWN_ISOLATED: KernelErrorKind = KernelErrorKind::Down(DownReason::Isolated);
pub(crate) const DOWN_STOPPED: KernelErrorKind = KernelErrorKind::Down(DownReason::Stopped);

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The error's kind; panics on an answer.
pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T>) -> KernelErrorKind {
    result.unwrap_err().kind().clone()
}

/// A task of the test's own.
#[allow(clippy::disallowed_methods, reason = "a test owns its tasks")]
pub(crate) fn spawn<F>(task: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(task)
}

/// Waits for something that has to happen, and fails the test instead of hanging it.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, future).await.expect("what the test waits for has not happened")
}

pub(crate) async fn status(runtime: &Runtime, id: &str) -> KernelStatus {
    let all = soon(runtime.status()).await;
    all.into_iter().find(|status| status.id.as_str() == id).expect("the kernel is known")
}

/// Every accepted request of an idle kernel has been answered, one way or the other.
pub(crate) fn assert_balanced<I: Payload, O: Payload>(kernel: &KernelRef<I, O>) {
    let accounts = kernel.accounts();
    assert_eq!(accounts.accepted, accounts.answered + accounts.failed, "{accounts:?}");
}

/// Drives `future` on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = TaskContext::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Gives its input back; 0 is a bug in it.
pub(crate) struct Fragile;

impl Kernel for Fragile {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> Result<u64> {
        assert!(*input > 0, "zero");
        Ok(*input)
    }
}
