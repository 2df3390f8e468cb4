//! What a node counts: everything that is documented, from what really happens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/kit.rs"]
mod kit;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::Request;
use kit::{Fragile, NONE, at_once, ms, soon};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rustkernel::actors::{BreakerCommand, KernelSpec, MemoryStore, Runtime, register};
use rustkernel::core::KernelError;
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};
use rustkernel::core::traits::{CheckpointableKernel, Context, Kernel};
use rustkernel::http::Node;
use rustkernel::metrics::{
    METRICS, MOST_CHILDREN, Metric, MetricKind, Publisher, count, describe, metrics_router,
};
use tower::ServiceExt;

fn recorder() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    describe();
    handle
}

/// 0 panics, 1 blocks until it is let, the rest is counted.
#[derive(Clone)]
struct Moody(Arc<AtomicBool>, u64);

impl Kernel for Moody {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> Result<u64, KernelError> {
        assert!(*input > 0, "zero");
        while *input == 1 && !self.0.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        self.1 += 1;
        Ok(*input)
    }
}

impl CheckpointableKernel for Moody {
    type Checkpoint = u64;

    async fn checkpoint(&self) -> Result<u64, KernelError> {
        Ok(self.1)
    }

    async fn restore(&mut self, count: u64) -> Result<(), KernelError> {
        self.1 = count;
        Ok(())
    }
}

fn total(text: &str, name: &str) -> f64 {
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn every_metric_is_set_by_what_it_is_about() {
    let handle = recorder();
    // With a store, checkpoints become bytes, and so have a size.
    let store = Arc::new(MemoryStore::new(1 << 20));
    let runtime = Runtime::builder().hook(count).checkpoint_store(store).build().await.unwrap();
    let free = Arc::new(AtomicBool::new(false));
    let moody = || {
        let free = Arc::clone(&free);
        move || Moody(Arc::clone(&free), 0)
    };
    let spec = KernelSpec::new("a/moody", moody()).registered(&register()).checkpointed().idempotent();
    let moody_kernel = soon(runtime.spawn(spec.recovery(at_once(9)))).await.unwrap();
    // A dead letter, a run again, and failures.
    soon(moody_kernel.call(0, NONE)).await.unwrap_err();
    for input in 2..100 {
        soon(moody_kernel.call(input, ms(10_000))).await.unwrap();
    }
    // One that is answered at its deadline, and comes to its end afterwards: its thread is left behind until then.
    let late = soon(moody_kernel.call(1, ms(20))).await.unwrap_err();
    free.store(true, Ordering::Release);
    runtime.breaker("a/moody", BreakerCommand::Isolate).await;
    soon(moody_kernel.call(3, NONE)).await.unwrap_err();
    // One that gives up at once.
    let policy =
        RecoveryPolicy { strategy: RecoveryStrategy::NotifyOperator, escalation: None, ..at_once(0) };
    let weak = soon(runtime.spawn(KernelSpec::new("a/weak", moody()).recovery(policy))).await.unwrap();
    soon(weak.call(0, NONE)).await.unwrap_err();

    let node = Node::new(runtime.clone());
    node.started();
    let mut publisher = Publisher::default();
    let text = soon(async {
        loop {
            publisher.publish(&node.snapshot().await);
            let text = handle.render();
            let sized = total(&text, "rustkernel_checkpoint_bytes") > 0.0;
            if sized && total(&text, "rustkernel_late_results_total") > 0.0 {
                break text;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let ours = |metric: &&Metric| metric.kind != MetricKind::Histogram && !metric.name.contains("_device_");
    for metric in METRICS.iter().filter(ours) {
        let name = metric.name;
        assert!(text.contains(&format!("# HELP {name} {}", metric.help)), "{name}\n{text}");
        let is_there = text
            .lines()
            .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
        assert!(is_there, "{name} is never set\n{text}");
        assert!(
            metric.kind == MetricKind::Gauge || total(&text, name) > 0.0,
            "{name} is never counted: {late}\n{text}"
        );
    }
    assert_labels(&text);

    // Requests add to numbers, not to lines: nothing grows where nobody looks.
    let lines = text.lines().count();
    runtime.breaker("a/moody", BreakerCommand::Close).await;
    for input in 2..5_000 {
        soon(moody_kernel.call(input, ms(10_000))).await.unwrap();
    }
    publisher.publish(&node.snapshot().await);
    assert!(handle.render().lines().count() <= lines + 4);
}

/// Of two that scrape at once, the one with the older snapshot came last, and what it lacked was counted twice.
#[tokio::test]
async fn scrapes_that_overlap_count_nothing_twice() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = runtime.spawn(KernelSpec::new("a/twice", || Fragile)).await.unwrap();
    let node = Node::new(runtime);
    let rendered = handle.clone();
    let router = metrics_router(Arc::clone(&node), move || rendered.render());
    let scrape = || {
        let (router, request) = (router.clone(), Request::builder().uri("/metrics").body(Body::empty()));
        async move { assert!(router.oneshot(request.unwrap()).await.unwrap().status().is_success()) }
    };
    for _ in 0..50 {
        let calls = async {
            for input in 1..20 {
                kernel.call(input, NONE).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let late = async {
            tokio::task::yield_now().await;
            scrape().await;
        };
        tokio::join!(scrape(), late, scrape(), calls);
    }
    let answered = kernel.accounts().answered;
    #[allow(clippy::cast_precision_loss, reason = "they are few")]
    let all = answered as f64;
    // What is scraped may be a tenth of a second old.
    soon(async {
        loop {
            scrape().await;
            let said = total(&handle.render(), "rustkernel_requests_total");
            assert!(said <= all, "{said} of {all}");
            if said >= all {
                break;
            }
        }
    })
    .await;
}

/// Every kernel that ever lived had its lines for ever.
#[tokio::test]
async fn kernels_that_come_and_go_add_lines_up_to_a_limit() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let runtime = Runtime::builder().build().await.unwrap();
    let node = Node::new(runtime.clone());
    let mut publisher = Publisher::default();
    let mut turn = async |first: usize| {
        let names = (first..first + 3_000).map(|number| format!("job/{number}"));
        let kernels: Vec<_> = names.map(|name| KernelSpec::new(&name, || Fragile)).collect();
        for kernel in kernels {
            runtime.spawn(kernel).await.unwrap();
        }
        publisher.publish(&node.snapshot().await);
        for number in first..first + 3_000 {
            runtime.stop(&format!("job/{number}"), false).await;
        }
        handle.render().matches("rustkernel_pending_requests{").count()
    };
    assert_eq!(turn(0).await, 3_000);
    let most = turn(3_000).await;
    assert!(most <= MOST_CHILDREN, "{most}");
}

/// None that is not listed.
fn assert_labels(text: &str) {
    let labels: BTreeSet<&str> = METRICS.iter().flat_map(|metric| metric.labels).copied().collect();
    for line in text.lines().filter(|line| line.starts_with("rustkernel_") && line.contains('{')) {
        let inside = &line[line.find('{').unwrap() + 1..line.rfind('}').unwrap()];
        for label in inside.split("\",").map(|pair| pair.split('=').next().unwrap()) {
            assert!(labels.contains(label), "{line}");
        }
    }
}

#[test]
fn the_guide_lists_every_metric_with_its_labels_and_no_other() {
    let guide = include_str!("../docs/metrics.md");
    for metric in METRICS {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help);
        assert!(guide.contains(&row), "the guide lacks:\n{row}");
    }
    let listed = guide.matches("| `rustkernel_").count();
    assert_eq!(listed, METRICS.len());
}
