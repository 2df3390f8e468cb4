//! Chains of kernels: values, deadlines, budgets and cancellation on their way through the slots.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test owns its tasks")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustkernel_actors::{KernelRef, KernelSpec, Pipeline, Runtime};
use rustkernel_core::envelope::Deadline;
use rustkernel_core::error::{KernelError, KernelErrorKind};
use rustkernel_core::resilience::{BackoffStrategy, ErrorKind, RecoveryPolicy, RetryConfig};
use rustkernel_core::traits::{Context, Kernel};

/// Runs a closure as a kernel.
struct Run<F>(F);

impl<F> Kernel for Run<F>
where
    F: FnMut(u64, &Context<'_>) -> Result<u64, KernelError> + Send + 'static,
{
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, cx: &mut Context<'_>) -> Result<u64, KernelError> {
        (self.0)(*input, cx)
    }
}

/// Never answers, and never blocks.
struct Forever;

impl Kernel for Forever {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, _: &u64, _: &mut Context<'_>) -> Result<u64, KernelError> {
        std::future::pending().await
    }
}

type Ref = KernelRef<u64, u64>;

async fn kernel<F>(runtime: &Runtime, id: &str, f: F) -> Ref
where
    F: FnMut(u64, &Context<'_>) -> Result<u64, KernelError> + Clone + Send + Sync + 'static,
{
    let spec = KernelSpec::new(id, move || Run(f.clone())).idempotent();
    let at_once = BackoffStrategy::Fixed { delay: Duration::ZERO };
    let retry =
        RetryConfig { max_attempts: 100, backoff: at_once, retryable_errors: vec![ErrorKind::Transient] };
    let recovery =
        RecoveryPolicy { max_restarts: 1000, restart_delay: Duration::ZERO, ..RecoveryPolicy::default() };
    runtime.spawn(spec.retry(retry).recovery(recovery).conviction_limit(100).breaker(None)).await.unwrap()
}

async fn runtime() -> Runtime {
    Runtime::builder().build().await.unwrap()
}

#[tokio::test]
async fn stages_hand_over_in_order_and_the_report_names_them() {
    let runtime = runtime().await;
    let add = kernel(&runtime, "math/add", |n, _| Ok(n + 1)).await;
    let double = kernel(&runtime, "math/double", |n, _| Ok(n * 2)).await;
    let pipeline = Pipeline::from(&add).then(&double).map(|n| n * 10).then(&add);
    let (result, report) = pipeline.run_reported(4, Duration::from_secs(10)).await;
    assert_eq!(result.unwrap(), 101);
    let calls: Vec<_> = report.stages.iter().map(|stage| (stage.kernel.as_str(), stage.calls)).collect();
    assert_eq!(calls, [("math/add", 2), ("math/double", 1)]);
}

#[tokio::test]
async fn a_chain_repeats_until_it_has_converged_or_reaches_its_limit() {
    let runtime = runtime().await;
    let half = kernel(&runtime, "math/half", |n, _| Ok(n / 2)).await;
    let chain = Pipeline::from(&half).repeat_until(64, |n| *n <= 1);
    assert_eq!(chain.run(1 << 40, Deadline::None).await.unwrap(), 1);
    let never = Pipeline::from(&half).repeat_until(5, |_| false);
    let error = never.run(1, Deadline::None).await.unwrap_err();
    assert!(error.to_string().contains("limit of rounds"), "{error}");
    assert_eq!(half.accounts().accepted, 40 - 1 + 1 + 5);
    let empty = Pipeline::<u64, u64>::start().repeat_until(5, |_| true).run(1, Deadline::None).await;
    assert!(matches!(empty.unwrap_err().kind(), KernelErrorKind::Kernel(ErrorKind::InvalidInput)));
}

#[tokio::test]
async fn parts_are_gathered_in_order_whatever_order_they_finish_in() {
    let runtime = runtime().await;
    let slow =
        kernel(&runtime, "part/slow", |n, _| Ok((0..10_000).fold(n, |sum, _| std::hint::black_box(sum))))
            .await;
    let fast = kernel(&runtime, "part/fast", |n, _| Ok(n)).await;
    let sum =
        Pipeline::<Vec<u64>, _>::start().scatter(|parts| parts, [&slow, &fast]).map(|parts: Vec<u64>| {
            assert_eq!(parts, (0..100).collect::<Vec<_>>());
            parts.into_iter().sum::<u64>()
        });
    assert_eq!(sum.run((0..100).collect(), Duration::from_secs(10)).await.unwrap(), 4950);
    let both = Pipeline::from(&fast).fan_out([&slow, &fast]);
    assert_eq!(both.run(3, Duration::from_secs(10)).await.unwrap(), [3, 3]);
    let none = Pipeline::<Vec<u64>, _>::start().scatter(|parts| parts, [&slow]);
    assert_eq!(none.run(vec![], Deadline::None).await.unwrap(), [0_u64; 0]);
}

#[tokio::test]
async fn the_first_failed_part_fails_the_whole_and_cancels_the_rest() {
    let runtime = runtime().await;
    let forever = runtime.spawn(KernelSpec::new("part/forever", || Forever)).await.unwrap();
    let fails = kernel(&runtime, "part/fails", |_, _| Err(KernelError::permanent("no"))).await;
    let chain = Pipeline::<u64, _>::start().fan_out([&forever, &fails]);
    let error = chain.run(1, Deadline::None).await.unwrap_err();
    assert_eq!(error.kernel_id().unwrap().as_str(), "part/fails");
    // The pending part was dropped, so its kernel is free for the next request, which expires at its own deadline.
    let error = forever.call(1, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::DeadlineExceeded);
    assert_eq!(forever.accounts().failed, 2);
}

#[tokio::test]
async fn all_stages_see_the_same_deadline_and_one_that_is_over_starts_nothing() {
    let runtime = runtime().await;
    let seen = Arc::new(AtomicU64::new(0));
    let noted = Arc::clone(&seen);
    let first = kernel(&runtime, "chain/first", |n, cx| Ok(n + cx.header().deadline.as_nanos())).await;
    let second = kernel(&runtime, "chain/second", move |n, cx| {
        noted.store(cx.header().deadline.as_nanos(), Ordering::SeqCst);
        Ok(n)
    })
    .await;
    let chain = Pipeline::from(&first).then(&second);
    let deadline = chain.run(0, Duration::from_secs(60)).await.unwrap();
    assert_eq!(deadline, seen.load(Ordering::SeqCst));
    let error = chain.run(0, Duration::ZERO).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::DeadlineExceeded);
    assert_eq!(first.accounts().accepted, 1);
}

#[tokio::test]
async fn depth_does_not_multiply_attempts() {
    let runtime = runtime().await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let good = kernel(&runtime, "chain/good", |n, cx| {
        if cx.header().attempt < 3 { Err(KernelError::transient("not yet")) } else { Ok(n) }
    })
    .await;
    let bad = kernel(&runtime, "chain/bad", move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        Err(KernelError::transient("never"))
    })
    .await;
    let chain = Pipeline::from(&good).then(&good).then(&bad).retry_budget(7);
    assert!(chain.run(1, Deadline::None).await.is_err());
    // Two re-runs in each of the first stages leave three for the last: four runs.
    assert_eq!(runs.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_dropped_run_is_cancelled_downstream() {
    let runtime = runtime().await;
    let first = kernel(&runtime, "chain/first", |n, _| Ok(n)).await;
    let forever = runtime.spawn(KernelSpec::new("chain/forever", || Forever)).await.unwrap();
    let chain = Pipeline::from(&first).then(&forever);
    let run = chain.run(1, Deadline::None);
    let mut run = Box::pin(run);
    while forever.accounts().accepted == 0 {
        assert!(futures_poll(&mut run).await.is_none());
    }
    drop(run);
    while forever.accounts().failed == 0 {
        tokio::task::yield_now().await;
    }
}

/// Polls once and lets others run.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let polled = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await;
    tokio::task::yield_now().await;
    polled
}

#[tokio::test]
async fn a_panic_between_stages_fails_the_request_and_not_the_kernel() {
    let runtime = runtime().await;
    let first = kernel(&runtime, "chain/first", |n, _| Ok(n)).await;
    let chain = Pipeline::from(&first).map(|n| if n == 0 { panic!("between") } else { n });
    let error = chain.run(0, Deadline::None).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::Crashed);
    assert!(error.to_string().contains("between"), "{error}");
    assert_eq!(chain.run(1, Deadline::None).await.unwrap(), 1);
    assert_eq!(runtime.status().await[0].incarnation, 1);
}

#[tokio::test]
async fn a_chain_survives_the_crashes_of_its_stages() {
    let runtime = runtime().await;
    let shaky = kernel(&runtime, "chain/shaky", |n, cx| {
        assert!(cx.header().attempt > 2, "shaky");
        Ok(n + 1)
    })
    .await;
    let chain = Pipeline::from(&shaky).repeat_until(20, |n| *n == 10).retry_budget(100);
    let (result, report) = chain.run_reported(0, Deadline::None).await;
    assert_eq!(result.unwrap(), 10);
    assert_eq!((report.stages[0].calls, report.stages[0].reruns), (10, 20));
    assert_eq!(runtime.status().await[0].restarts, 20);
}

/// The part that outlived its gather wrote into results that were gone, and its panic took an innocent kernel down.
#[tokio::test]
async fn a_part_that_finishes_after_the_first_failure_harms_nobody() {
    let runtime = runtime().await;
    let fails = kernel(&runtime, "part/fails", |_, _| Err(KernelError::permanent("no"))).await;
    let (open, door) = std::sync::mpsc::channel::<()>();
    let door = Arc::new(std::sync::Mutex::new(door));
    let slow = kernel(&runtime, "part/slow", move |n, _| {
        door.lock().unwrap().recv().unwrap();
        Ok(n)
    })
    .await;
    let chain = Pipeline::<u64, _>::start().fan_out([&slow, &fails]);
    assert!(chain.run(1, Deadline::None).await.is_err());
    open.send(()).unwrap();
    open.send(()).unwrap();
    assert_eq!(slow.call(2, Deadline::None).await.unwrap(), 2);
    let status = runtime.status().await;
    assert!(status.iter().all(|kernel| kernel.incarnation == 1), "{status:#?}");
}

#[tokio::test]
async fn a_loop_around_a_scatter_alone_is_refused_because_it_may_split_into_nothing() {
    let runtime = runtime().await;
    let echo = kernel(&runtime, "part/echo", |n, _| Ok(n)).await;
    let chain =
        Pipeline::<Vec<u64>, _>::start().scatter(|parts| parts, [&echo]).repeat_until(u32::MAX, |_| false);
    let error = chain.run(vec![], Deadline::None).await.unwrap_err();
    assert!(error.to_string().contains("needs a kernel"), "{error}");
}

#[tokio::test]
async fn a_drain_lets_chains_through_and_takes_no_new_ones() {
    let runtime = runtime().await;
    let (open, door) = std::sync::mpsc::channel::<()>();
    let door = Arc::new(std::sync::Mutex::new(door));
    let first = kernel(&runtime, "chain/first", move |n, _| {
        door.lock().unwrap().recv().unwrap();
        Ok(n + 1)
    })
    .await;
    let second = kernel(&runtime, "chain/second", |n, _| Ok(n * 10)).await;
    let chain = Pipeline::from(&first).then(&second).then(&second);
    let begun = tokio::spawn({
        let chain = chain.clone();
        async move { chain.run(1, Deadline::None).await }
    });
    while first.accounts().accepted == 0 {
        tokio::task::yield_now().await;
    }
    let shutdown = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.shutdown(Duration::from_secs(60)).await }
    });
    let refused = loop {
        match first.try_call(5, Deadline::None) {
            Ok(reply) => drop(reply),
            Err(refused) => break refused,
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(*refused.error.kind(), KernelErrorKind::Draining);
    let error = chain.run(1, Deadline::None).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::Draining);
    open.send(()).unwrap();
    assert_eq!(begun.await.unwrap().unwrap(), 200);
    assert_eq!(shutdown.await.unwrap().unwrap().killed, 0);
}
