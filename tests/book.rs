//! Every Rust snippet of the book, word for word, with what it says asserted.
//!
//! Between `// book: <name>` and `// end` stands the book's text and nothing else, apart from indentation. The same text
//! stands in `docs/guide/resilience.md`; the last test here compares the two. Around each snippet stands only what it leaves
//! out: imports, a kernel, and an `async fn`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(
    unused_variables,
    clippy::let_and_return,
    clippy::uninlined_format_args,
    reason = "the snippets are the book's, word for word"
)]

#[path = "support/kit.rs"]
mod kit;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kit::{Latch, soon};
use rustkernel::actors::{KernelRef, KernelSpec, Runtime};
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::resilience::{
    CircuitBreakerConfig, CircuitState, ErrorKind, HealthCheckConfig, ResilienceError, RetryConfig,
    TimeoutConfig, ambient_deadline,
};
use rustkernel_core::traits::{Context, Kernel};
use rustkernel_core::{KernelError, Result};
use serde::{Deserialize, Serialize};

/// Answers its input, or fails as often as it was told to.
struct Flaky {
    failures: Arc<AtomicU32>,
    seen: Arc<Mutex<Vec<Timestamp>>>,
}

impl Kernel for Flaky {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, cx: &mut Context<'_>) -> Result<u64> {
        self.seen.lock().unwrap().push(cx.header().deadline);
        let left = self.failures.load(Ordering::Acquire);
        if left > 0 {
            self.failures.store(left - 1, Ordering::Release);
            return Err(KernelError::transient("told to fail"));
        }
        Ok(*input)
    }
}

struct Stage {
    runtime: Runtime,
    kernel: KernelRef<u64, u64>,
    failures: Arc<AtomicU32>,
    seen: Arc<Mutex<Vec<Timestamp>>>,
}

impl Stage {
    /// A real kernel in a real runtime. Its own breaker is off, so that only the book's breaker is at work.
    async fn new() -> Self {
        let failures = Arc::new(AtomicU32::new(0));
        let seen = Arc::new(Mutex::default());
        let runtime = Runtime::builder().build().await.unwrap();
        let (told, log) = (Arc::clone(&failures), Arc::clone(&seen));
        let spec = KernelSpec::new("graph/pagerank", move || Flaky {
            failures: Arc::clone(&told),
            seen: Arc::clone(&log),
        });
        let kernel = runtime.spawn(spec.breaker(None)).await.unwrap();
        Self { runtime, kernel, failures, seen }
    }

    fn fail_next(&self, times: u32) {
        self.failures.store(times, Ordering::Release);
    }

    fn executions(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

mod circuit_breaker {
    use super::*;

    fn handle_result(result: u64) -> String {
        format!("result {result}")
    }

    fn use_fallback() -> String {
        "fallback".into()
    }

    #[allow(clippy::needless_pass_by_value, reason = "the book passes it by value")]
    fn handle_error(e: ResilienceError) -> String {
        format!("error {e}")
    }

    // book: circuit-breaker-use
    use rustkernel_core::resilience::{CircuitBreaker, CircuitBreakerConfig};
    // end

    #[rustfmt::skip]
    fn breaker() -> CircuitBreaker {
        // book: circuit-breaker-config
        let config = CircuitBreakerConfig {
            failure_threshold: 5,      // Open after 5 failures
            success_threshold: 2,      // Close after 2 successes
            timeout: Duration::from_secs(30), // Half-open after 30s
            ..Default::default()
        };

        let cb = CircuitBreaker::new(config);
        // end
        cb
    }

    async fn call(cb: &CircuitBreaker, kernel: &KernelRef<u64, u64>, input: u64) -> String {
        // book: circuit-breaker-call
        // Execute with protection
        match cb.call(|| kernel.execute(input)).await {
            Ok(result) => handle_result(result),
            Err(ResilienceError::CircuitOpen) => use_fallback(),
            Err(e) => handle_error(e),
        }
        // end
    }

    #[tokio::test]
    async fn it_opens_after_5_failures_is_half_open_after_30_seconds_and_closes_after_2_successes() {
        let stage = Stage::new().await;
        let (clock, hand) = Clock::manual();
        let cb = breaker().with_clock(clock);
        assert_eq!(call(&cb, &stage.kernel, 7).await, "result 7");

        stage.fail_next(5);
        for _ in 0..5 {
            assert_eq!(cb.state(), CircuitState::Closed);
            assert!(call(&cb, &stage.kernel, 7).await.starts_with("error "));
        }
        assert_eq!(cb.state(), CircuitState::Open);

        hand.advance(Duration::from_secs(30) - Duration::from_nanos(1));
        let before = stage.executions();
        assert_eq!(call(&cb, &stage.kernel, 7).await, "fallback");
        assert_eq!(stage.executions(), before, "a refused call reaches no kernel");

        hand.advance(Duration::from_nanos(1));
        assert_eq!(call(&cb, &stage.kernel, 8).await, "result 8");
        assert_eq!(cb.state(), CircuitState::HalfOpen);
        assert_eq!(call(&cb, &stage.kernel, 9).await, "result 9");
        assert_eq!(cb.state(), CircuitState::Closed);
    }

    fn report(cb: &CircuitBreaker) -> (CircuitState, u32, f64) {
        // book: monitoring
        let state = cb.state();
        let stats = cb.stats();

        println!("State: {:?}", state);
        println!("Failures: {}", stats.failure_count);
        println!("Success rate: {:.1}%", stats.success_rate * 100.0);
        // end
        (state, stats.failure_count, stats.success_rate)
    }

    #[tokio::test]
    async fn monitoring_shows_state_failures_and_success_rate() {
        let stage = Stage::new().await;
        let cb = breaker();
        assert_eq!(report(&cb), (CircuitState::Closed, 0, 1.0));
        for _ in 0..3 {
            call(&cb, &stage.kernel, 1).await;
        }
        stage.fail_next(1);
        call(&cb, &stage.kernel, 1).await;
        assert_eq!(report(&cb), (CircuitState::Closed, 1, 0.75));
    }
}

mod retry {
    use super::{Duration, ErrorKind, KernelRef, Ordering, ResilienceError, Stage};
    #[rustfmt::skip]
    // book: retry-use
    use rustkernel_core::resilience::{RetryConfig, BackoffStrategy};
    // end

    async fn run(kernel: &KernelRef<u64, u64>, input: u64) -> Result<u64, ResilienceError> {
        // book: retry
        let config = RetryConfig {
            max_attempts: 3,
            backoff: BackoffStrategy::ExponentialWithJitter {
                initial: Duration::from_millis(100),
                max: Duration::from_secs(10),
                multiplier: 2.0,
            },
            retryable_errors: vec![ErrorKind::Transient, ErrorKind::Timeout],
        };

        let result = config.execute(|| kernel.execute(input)).await?;
        // end
        Ok(result)
    }

    #[tokio::test]
    async fn a_transient_failure_is_retried_up_to_3_attempts() {
        let stage = Stage::new().await;
        stage.fail_next(2);
        assert_eq!(run(&stage.kernel, 5).await.unwrap(), 5);
        assert_eq!(stage.executions(), 3);

        stage.fail_next(3);
        let error = run(&stage.kernel, 5).await.unwrap_err();
        assert!(matches!(error, ResilienceError::RetriesExhausted { attempts: 3, .. }), "{error}");
        assert_eq!(stage.executions(), 6);
        assert_eq!(stage.failures.load(Ordering::Acquire), 0);
    }
}

mod timeouts {
    use super::*;

    fn config() -> TimeoutConfig {
        mod snippet {
            use std::time::Duration;
            // book: timeout-use
            use rustkernel_core::resilience::TimeoutConfig;
            // end

            pub(super) fn config() -> TimeoutConfig {
                // book: timeout
                let config = TimeoutConfig {
                    default_timeout: Duration::from_secs(30),
                    max_timeout: Duration::from_secs(300),
                    propagate_deadline: true,
                    include_queue_time: true,
                };
                // end
                config
            }
        }
        snippet::config()
    }

    #[tokio::test]
    async fn a_kernel_applies_default_and_maximum_and_follows_its_parents_deadline() {
        let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let spec = KernelSpec::new("a/b", move || Flaky { failures: Arc::default(), seen: Arc::clone(&log) });
        let kernel = runtime.spawn(spec.timeout(config())).await.unwrap();
        kernel.execute(1).await.unwrap();
        let at = |seconds| hand.clock().now() + Duration::from_secs(seconds);
        rustkernel_core::resilience::with_ambient_deadline(at(7), kernel.execute(1)).await.unwrap();
        rustkernel_core::resilience::with_ambient_deadline(at(9999), kernel.execute(1)).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [at(30), at(7), at(300)]);
    }
}

mod deadline {
    use super::*;
    use rustkernel_core::resilience::ResilienceError::DeadlineExceeded;
    // book: deadline-use
    use rustkernel_core::resilience::DeadlineContext;
    // end

    async fn run(
        kernel: &KernelRef<u64, u64>,
        input: u64,
    ) -> Result<(u64, DeadlineContext, DeadlineContext), ResilienceError> {
        // book: deadline
        let deadline = DeadlineContext::new(Duration::from_secs(10));

        // Check remaining time
        if deadline.remaining() < Duration::from_secs(1) {
            return Err(DeadlineExceeded);
        }

        // Execute with deadline
        let result = deadline.execute(|| kernel.execute(input)).await?;

        // Create child deadline for downstream calls
        let child = deadline.child_with_timeout(Duration::from_secs(5));
        // end
        Ok((result, deadline, child))
    }

    #[tokio::test]
    async fn the_deadline_reaches_the_kernel_and_a_child_never_outlives_its_parent() {
        let stage = Stage::new().await;
        let (result, deadline, child) = run(&stage.kernel, 3).await.unwrap();
        assert_eq!(result, 3);
        assert_eq!(*stage.seen.lock().unwrap(), [deadline.deadline()], "the kernel saw the same deadline");
        assert!(child.deadline() < deadline.deadline());
        assert!(child.remaining() <= Duration::from_secs(5));
        let longer = deadline.child_with_timeout(Duration::from_secs(60));
        assert_eq!(longer.deadline(), deadline.deadline());
        assert_eq!(ambient_deadline(), None);
    }

    #[tokio::test]
    async fn expired_work_is_not_even_polled() {
        let stage = Stage::new().await;
        let (clock, hand) = Clock::manual();
        let deadline = DeadlineContext::with_clock(Duration::from_secs(10), clock);
        hand.advance(Duration::from_secs(10));
        let late = deadline.execute(|| stage.kernel.execute(1)).await;
        assert!(matches!(late, Err(DeadlineExceeded)));
        assert_eq!(stage.executions(), 0);
    }
}

mod health {
    use super::*;
    // book: health-probe-use
    use rustkernel_core::resilience::{HealthProbe, HealthProbeConfig};
    // end

    #[tokio::test]
    async fn a_registered_kernel_is_healthy_while_it_serves_and_unhealthy_after_3_failed_checks() {
        let Stage { runtime, kernel, .. } = Stage::new().await;
        // book: health-probe
        let probe = HealthProbe::new(HealthProbeConfig {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            failure_threshold: 3,
            success_threshold: 1,
        });

        // Register kernel for monitoring
        probe.register("graph/pagerank", kernel.clone());

        // Get health status
        let status = probe.check("graph/pagerank").await;
        // end
        assert_eq!(status, HealthStatus::Healthy);
        assert_eq!(probe.check("graph/unheard-of").await, HealthStatus::Unknown);

        assert!(runtime.stop("graph/pagerank", false).await);
        assert_eq!(probe.check("graph/pagerank").await, HealthStatus::Healthy);
        assert_eq!(probe.check("graph/pagerank").await, HealthStatus::Healthy);
        assert_eq!(probe.check("graph/pagerank").await, HealthStatus::Unhealthy);
    }

    // book: health-status-use
    use rustkernel_core::resilience::{HealthCheckResult, HealthStatus};
    // end

    #[test]
    fn a_check_result_has_a_status_to_compare() {
        let taken_offline = std::cell::Cell::new(false);
        let take_kernel_offline = || taken_offline.set(true);
        // book: health-status
        let result = HealthCheckResult::healthy();
        let result = HealthCheckResult::degraded("High latency");
        let result = HealthCheckResult::unhealthy("GPU unavailable");

        // Check status
        if result.status == HealthStatus::Unhealthy {
            take_kernel_offline();
        }
        // end
        assert!(taken_offline.get());
        assert_eq!(HealthCheckResult::healthy().status, HealthStatus::Healthy);
        assert_eq!(HealthCheckResult::degraded("High latency").status, HealthStatus::Degraded);
    }
}

mod recovery {
    use super::{Duration, KernelSpec, Runtime, kit, soon};
    use kit::{DOWN_ISOLATED, Do, NONE, Puppet, kind, status};
    use rustkernel::actors::KernelState;
    // book: recovery-use
    use rustkernel_core::resilience::{RecoveryPolicy, RecoveryStrategy};
    // end

    fn policy() -> RecoveryPolicy {
        // book: recovery
        let policy = RecoveryPolicy {
            strategy: RecoveryStrategy::RestartKernel,
            max_restarts: 3,
            restart_delay: Duration::from_secs(5),
            escalation: Some(RecoveryStrategy::NotifyOperator),
        };
        // end
        policy
    }

    #[tokio::test]
    async fn a_kernel_is_restarted_3_times_after_5_seconds_each_and_then_waits_for_its_operator() {
        let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
        let mut events = runtime.events();
        let spec = KernelSpec::new("a/b", || Puppet).breaker(None).recovery(policy());
        let kernel = runtime.spawn(spec).await.unwrap();
        for incarnation in 2..=4 {
            soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
            let waiting = |fact: &_| matches!(fact, rustkernel::actors::Fact::Restarting { .. });
            soon(events.find("a/b", waiting)).await.unwrap();
            let next = kernel.try_call(Do::Incarnation, NONE).unwrap();
            hand.advance(Duration::from_millis(4_999));
            assert_eq!(status(&runtime, "a/b").await.state, KernelState::Restarting);
            hand.advance(Duration::from_millis(1));
            assert_eq!(soon(next).await.unwrap(), incarnation);
        }
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        let isolated = |fact: &_| matches!(fact, rustkernel::actors::Fact::Isolated { .. });
        soon(events.find("a/b", isolated)).await.unwrap();
        assert_eq!(kind(kernel.call(Do::Double(1), NONE).await), DOWN_ISOLATED);
    }
}

mod checkpointing {
    use super::{Context, Deserialize, Duration, Kernel, KernelSpec, Result, Runtime, Serialize, kit, soon};

    #[derive(Serialize, Deserialize)]
    struct MyCheckpoint {
        state: Vec<u64>,
    }

    #[derive(Default)]
    struct MyKernel {
        state: Vec<u64>,
    }

    impl Kernel for MyKernel {
        type Input = u64;
        type Output = Vec<u64>;

        async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> Result<Vec<u64>> {
            self.state.push(*input);
            assert!(*input != 13, "unlucky");
            Ok(self.state.clone())
        }
    }

    // book: checkpointing
    use rustkernel_core::traits::CheckpointableKernel;

    impl CheckpointableKernel for MyKernel {
        type Checkpoint = MyCheckpoint;

        async fn checkpoint(&self) -> Result<Self::Checkpoint> {
            Ok(MyCheckpoint { state: self.state.clone() })
        }

        async fn restore(&mut self, checkpoint: Self::Checkpoint) -> Result<()> {
            self.state = checkpoint.state;
            Ok(())
        }
    }
    // end

    #[tokio::test]
    async fn the_next_incarnation_goes_on_from_the_checkpoint() {
        let runtime = Runtime::builder().build().await.unwrap();
        let spec = KernelSpec::new("a/b", MyKernel::default).breaker(None).recovery(kit::at_once(3));
        let kernel = runtime.spawn(spec.checkpointed()).await.unwrap();
        let limit = Duration::from_secs(20);
        assert_eq!(soon(kernel.call(1, limit)).await.unwrap(), [1]);
        assert_eq!(soon(kernel.call(2, limit)).await.unwrap(), [1, 2]);
        soon(kernel.call(13, limit)).await.unwrap_err();
        assert_eq!(
            soon(kernel.call(3, limit)).await.unwrap(),
            [1, 2, 3],
            "the panicking request left no trace"
        );
    }
}

mod production {
    use super::{CircuitBreakerConfig, HealthCheckConfig, RetryConfig, TimeoutConfig, kit};
    use kit::{Do, NONE, Puppet, soon};
    use rustkernel::actors::{KernelSpec, Runtime};
    // book: production-use
    use rustkernel_core::resilience::ResilienceConfig;
    // end

    fn configs() -> [ResilienceConfig; 2] {
        // book: production
        // Production preset with sensible defaults
        let config = ResilienceConfig::production();

        // Customize
        let config = ResilienceConfig {
            circuit_breaker: CircuitBreakerConfig::production(),
            retry: RetryConfig::production(),
            timeout: TimeoutConfig::production(),
            health_check: HealthCheckConfig::production(),
            ..Default::default()
        };
        // end
        [ResilienceConfig::production(), config]
    }

    #[tokio::test]
    async fn the_production_presets_are_valid_and_a_kernel_runs_under_them() {
        for config in configs() {
            config.validate().unwrap();
            let health = config.health_check.clone();
            let runtime = Runtime::builder().health_check(health).build().await.unwrap();
            let spec = KernelSpec::new("a/b", || Puppet).resilience(config);
            let kernel = runtime.spawn(spec).await.unwrap();
            assert_eq!(soon(kernel.call(Do::Double(21), NONE)).await.unwrap(), 42);
        }
    }
}

/// The snippets between `// book: <name>` and `// end`, without their indentation, in order; the parts of one snippet
/// (`name-use`, `name-...`) joined by an empty line.
fn snippets_of_this_file() -> Vec<String> {
    let mut snippets = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in include_str!("book.rs").lines() {
        let text = line.trim();
        if text.starts_with("// book: ") {
            open = Some(Vec::new());
        } else if text == "// end" {
            let lines = open.take().expect("every end has a beginning");
            let indent = lines.iter().filter(|line| !line.trim().is_empty());
            let indent = indent.map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
            let lines: Vec<&str> = lines.iter().map(|line| line.get(indent..).unwrap_or("")).collect();
            snippets.push(lines.join("\n"));
        } else if let Some(lines) = &mut open {
            lines.push(line);
        }
    }
    snippets
}

/// The `rust` blocks of the guide.
fn blocks_of_the_guide() -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in include_str!("../docs/guide/resilience.md").lines() {
        match (line, &mut open) {
            ("```rust", None) => open = Some(Vec::new()),
            ("```", Some(lines)) => {
                blocks.push(lines.join("\n"));
                open = None;
            }
            (line, Some(lines)) => lines.push(line),
            (_, None) => {}
        }
    }
    blocks
}

#[test]
fn the_guide_shows_the_snippets_that_are_compiled_here_word_for_word() {
    let joined = blocks_of_the_guide();
    assert_eq!(joined.len(), 10, "ten snippets of the book can hold");
    let mut rest = joined.join("\n\n");
    for snippet in snippets_of_this_file() {
        let found = rest.find(&snippet);
        assert!(found.is_some(), "not in the guide, word for word:\n{snippet}");
        rest = rest.replacen(&snippet, "", 1);
    }
    assert_eq!(rest.trim(), "", "in the guide, but compiled nowhere");
}

#[tokio::test]
async fn a_latch_of_the_kit_is_an_event_in_both_directions() {
    let latch = Latch::new();
    let waiting = Arc::clone(&latch);
    let thread = std::thread::spawn(move || waiting.block());
    latch.arrived(1).await;
    latch.open();
    thread.join().unwrap();
}
