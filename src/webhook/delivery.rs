//! The webhook's thread: one document after the other, each with its attempts.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::rate_limit::{RateDecision, RateLimit};
use rustkernel_core::resilience::{ErrorKind, RetryDecision, RetryPlan};
use ureq::Agent;

use super::document::Document;
use super::outbox::Outbox;
use super::target::Target;

pub(super) struct Delivery {
    outbox: Arc<Outbox>,
    target: Arc<Target>,
    client: Agent,
    plan: RetryPlan,
    clock: Clock,
    rng: fastrand::Rng,
    log: RateLimit,
}

/// Why an attempt did not deliver its document.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the answer is {status}")]
    Status { status: u16 },
    #[error("{0}")]
    Client(#[source] ureq::Error),
    #[error("the HTTP client panicked")]
    ClientPanicked,
}

impl Delivery {
    pub(super) fn new(outbox: Arc<Outbox>, target: Arc<Target>, timeout: Duration, plan: RetryPlan) -> Self {
        Self {
            outbox,
            target,
            client: client(timeout),
            plan,
            clock: Clock::system(),
            rng: fastrand::Rng::new(),
            log: RateLimit::default(),
        }
    }

    /// Sends until the outbox is closed.
    pub(super) fn run(mut self) {
        while let Some(document) = self.outbox.next() {
            self.deliver(&document);
        }
    }

    fn deliver(&mut self, document: &Document) {
        let body = document.to_json();
        let mut attempt = 1;
        loop {
            let Err(failure) = post(&self.client, self.target.url(), &body) else {
                self.outbox.count(|stats| stats.sent += 1);
                return;
            };
            let now = self.clock.now();
            let next = self.plan.next(failure.kind(), attempt, now, Timestamp::NEVER, &mut self.rng);
            let goes_on = match next {
                RetryDecision::Again { delay } => self.outbox.pause(delay),
                RetryDecision::GiveUp(_) => false,
            };
            if !goes_on {
                self.outbox.count(|stats| stats.failed += 1);
                self.complain(document, attempt, &failure);
                return;
            }
            self.outbox.count(|stats| stats.retried += 1);
            attempt += 1;
        }
    }

    fn complain(&mut self, document: &Document, attempts: u32, failure: &Failure) {
        if let RateDecision::Allow { refused: suppressed } = self.log.allow(self.clock.now()) {
            let (host, fact) = (self.target.host(), document.fact());
            let suppressed = (suppressed > 0).then_some(suppressed);
            tracing::warn!(host, fact, attempts, %failure, suppressed, "a webhook document was given up");
        }
    }
}

impl Failure {
    /// What a retry policy makes of it.
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Status { status: 500.. } => ErrorKind::Transient,
            Self::Status { status: 429 } => ErrorKind::Overloaded,
            Self::Status { .. } => ErrorKind::Permanent,
            Self::Client(ureq::Error::Timeout(_)) => ErrorKind::Timeout,
            Self::Client(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                ErrorKind::Timeout
            }
            Self::Client(ureq::Error::Io(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed)
            | Self::ClientPanicked => ErrorKind::Transient,
            Self::Client(_) => ErrorKind::Permanent,
        }
    }
}

/// It keeps no connection, follows nobody elsewhere, and goes through no proxy that the environment names.
fn client(timeout: Duration) -> Agent {
    Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(0)
        .proxy(None)
        .build()
        .into()
}

/// One attempt. Only the answer's head is read.
fn post(client: &Agent, url: &str, body: &str) -> Result<(), Failure> {
    let request = client.post(url).header("Content-Type", "application/json").header("Connection", "close");
    // The client panics where the operating system starts no further thread.
    let Ok(answer) = catch_unwind(AssertUnwindSafe(|| request.send(body))) else {
        return Err(Failure::ClientPanicked);
    };
    match answer.map_err(Failure::Client)?.status().as_u16() {
        200..300 => Ok(()),
        status => Err(Failure::Status { status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_500_and_above_and_429_may_be_tried_again_and_no_other() {
        let kind = |status| Failure::Status { status }.kind();
        assert_eq!([kind(500), kind(503), kind(599)], [ErrorKind::Transient; 3]);
        assert_eq!(kind(429), ErrorKind::Overloaded);
        assert_eq!([kind(301), kind(400), kind(404), kind(428), kind(499)], [ErrorKind::Permanent; 5]);
    }

    #[test]
    fn what_the_client_says_is_transient_where_a_connection_is_to_blame() {
        let io = |kind: io::ErrorKind| Failure::Client(ureq::Error::Io(kind.into())).kind();
        assert_eq!(io(io::ErrorKind::TimedOut), ErrorKind::Timeout);
        assert_eq!(io(io::ErrorKind::ConnectionRefused), ErrorKind::Transient);
        assert_eq!(Failure::Client(ureq::Error::HostNotFound).kind(), ErrorKind::Transient);
        assert_eq!(Failure::Client(ureq::Error::LargeResponseHeader(2, 1)).kind(), ErrorKind::Permanent);
    }
}
