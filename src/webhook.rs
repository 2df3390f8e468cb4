//! Telling somebody elsewhere what supervision cannot mend: one JSON document by POST for each such fact (feature `webhook`).
//!
//! | fact | `fact` in the document |
//! |---|---|
//! | a kernel is isolated | `isolated` |
//! | the runtime gave up | `gave_up` |
//! | a request is a dead letter | `dead_letter` |
//! | a blocked thread was left behind | `thread_abandoned` |
//! | what a kernel lives in is not fit for use, as a device that has to be reset | `place_unfit` |
//! | a kernel's degraded path answers | `degraded` |
//! | a kernel moves to its backup device | `failed_over` |
//! | a child did not even end when it was killed | `child_abandoned` |
//! | a checkpoint could not be restored | `checkpoint_refused` |
//! | a breaker opened | `breaker_opened` |
//!
//! The [hook](Webhook::hook) only puts the fact into a bounded queue; a thread of the webhook's own sends. A document may arrive
//! twice, when its answer was lost, and not at all, when the queue is full or the attempts are used up: both are
//! counted. It does NOT follow redirects, and it keeps nothing over the end of the process.

mod delivery;
mod document;
mod outbox;
mod target;

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustkernel_actors::Event;
use rustkernel_core::resilience::{InvalidConfig, RetryConfig, RetryPlan};

pub use outbox::WebhookStats;

use delivery::Delivery;
use document::Document;
use outbox::Outbox;
use target::Target;

/// How a [`Webhook`] sends.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookConfig {
    /// The longest that one attempt may take, from looking up the name to the answer's head. Above zero, at most 1 h; rounded up to
    /// whole seconds. Default 5 s. A longer one lets a slow receiver hold up what waits behind.
    pub timeout: Duration,
    /// What is tried again, and when: connection errors and answers of 500 and above are `Transient`, attempts that take too long
    /// `Timeout`, 429 is `Overloaded`; every other answer but 2xx is final. Default: all three, 5 attempts, from 500 ms doubling up
    /// to 30 s with full jitter.
    pub retry: RetryConfig,
    /// Documents that may wait; beyond that the newest is dropped and counted. At least 1, at most 65536. Default 256: some 300 KiB at
    /// most.
    pub queue: usize,
}

/// Why there is no webhook. No thread was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// The address is none that can be posted to. It is not repeated here, as it may hold a secret.
    #[error("the webhook's address {rule}")]
    Url {
        /// The rule it breaks, to be read after "the address".
        rule: &'static str,
    },
    /// The address begins with `https://`, and this program cannot speak TLS.
    #[error("the webhook's address is https, and this program is built without the feature `tls`")]
    TlsNotCompiledIn,
    /// A setting breaks its rule.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The operating system starts no further thread.
    #[error("the webhook's thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// Sends facts to one address. Dropped, it sends no further one and waits for nothing; its thread ends after the attempt that is
/// under way, at once if it waits for a next one. To have sent what waits, [`close`](Self::close) it.
///
/// ```no_run
/// use rustkernel::actors::Runtime;
/// use rustkernel::webhook::{Webhook, WebhookConfig};
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let webhook = Webhook::new("http://alerts.example/rustkernel", &WebhookConfig::default())?;
/// let runtime = Runtime::builder().hook(webhook.hook()).build().await?;
/// # Ok(())
/// # }
/// ```
pub struct Webhook {
    outbox: Arc<Outbox>,
    target: Arc<Target>,
    thread: Option<JoinHandle<()>>,
}

impl Webhook {
    /// A webhook that posts to `url`, with its thread. Nothing is sent to see whether somebody is there.
    ///
    /// # Errors
    /// [`WebhookError`] says what is wrong with the address or with a setting.
    pub fn new(url: &str, config: &WebhookConfig) -> Result<Self, WebhookError> {
        let target = Arc::new(Target::parse(url)?);
        let in_range = |holds, field, rule| if holds { Ok(()) } else { Err(InvalidConfig { field, rule }) };
        let timeout = config.timeout;
        in_range(!timeout.is_zero(), "webhook.timeout", "must be above zero")?;
        in_range(timeout <= MAX_TIMEOUT, "webhook.timeout", "must be at most 1 h")?;
        in_range(config.queue >= 1, "webhook.queue", "must be at least 1")?;
        in_range(config.queue <= MAX_QUEUE, "webhook.queue", "must be at most 65536")?;
        let plan = RetryPlan::try_new(&config.retry)?;
        let outbox = Arc::new(Outbox::new(config.queue));
        let delivery = Delivery::new(Arc::clone(&outbox), Arc::clone(&target), timeout, plan);
        let thread = thread::Builder::new().name("rustkernel-webhook".to_owned());
        let thread = thread.spawn(move || delivery.run()).map_err(WebhookError::Thread)?;
        Ok(Self { outbox, target, thread: Some(thread) })
    }

    /// A [hook](rustkernel_actors::RuntimeBuilder::hook) for a runtime. What it is told after the webhook is gone is dropped and
    /// counted.
    pub fn hook(&self) -> impl Fn(&Event) + Send + Sync + 'static + use<> {
        let outbox = Arc::clone(&self.outbox);
        move |event| {
            if let Some(document) = Document::about(event) {
                outbox.put(document);
            }
        }
    }

    /// What became of the documents so far.
    #[must_use]
    pub fn stats(&self) -> WebhookStats {
        self.outbox.stats()
    }

    /// Ends it when everything that waits has been sent or given up, or when `grace` is over, and says what became of it all. Blocks
    /// its thread; after `grace`, for the attempt that is under way.
    #[must_use]
    pub fn close(mut self, grace: Duration) -> WebhookStats {
        self.outbox.wait_until_idle(grace);
        self.outbox.close();
        if let Some(thread) = self.thread.take() {
            // An error is a panic in there; what it had in hand is counted nowhere then.
            let _ = thread.join();
        }
        self.outbox.stats()
    }
}

impl Default for WebhookConfig {
    fn default() -> Self {
        let backoff = rustkernel_core::resilience::BackoffStrategy::ExponentialWithJitter {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(30),
            multiplier: 2.0,
        };
        let retry = RetryConfig { max_attempts: 5, backoff, ..RetryConfig::production() };
        Self { timeout: Duration::from_secs(5), retry, queue: 256 }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("host", &self.target.host()).finish_non_exhaustive()
    }
}

const MAX_TIMEOUT: Duration = Duration::from_secs(60 * 60);
const MAX_QUEUE: usize = 65_536;
