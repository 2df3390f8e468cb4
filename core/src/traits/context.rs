//! What an execution can ask about itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::envelope::Header;
use crate::trace::TraceContext;

/// What a running execution sees of its request: how long it has, which attempt it is, and whether anybody still
/// waits for the answer.
#[derive(Debug)]
pub struct Context<'a> {
    header: Header,
    incarnation: u64,
    clock: &'a Clock,
    stops: [&'a Signal; 2],
    trace: Option<TraceContext>,
    ticket: Option<u64>,
}

/// A flag that is raised once: "stop, nobody waits for this any more".
#[derive(Debug, Default)]
pub struct Signal(AtomicBool);

impl Signal {
    /// A lowered flag.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Raises the flag.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the flag is up.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<'a> Context<'a> {
    /// The context of one execution, as a runtime makes it. `stops` are the cancellation of the request and the fence
    /// of the incarnation.
    #[must_use]
    pub fn new(header: Header, incarnation: u64, clock: &'a Clock, stops: [&'a Signal; 2]) -> Self {
        Self { header, incarnation, clock, stops, trace: None, ticket: None }
    }

    /// What travels with the request: id, deadline, attempt, retry budget.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The same, of a request that belongs to a trace.
    #[must_use]
    pub fn in_trace(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// The span of the request, or of whoever made it where nobody records the runtime's spans; `None` outside of any trace. What the
    /// execution calls belongs to it by itself.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// The same, of a request that was shown to its kernel [ahead of its turn](super::LookAhead).
    #[must_use]
    pub fn with_ticket(self, ticket: Option<u64>) -> Self {
        Self { ticket, ..self }
    }

    /// Under which the request was shown to its kernel ahead of its turn, if it was.
    #[must_use]
    pub fn ticket(&self) -> Option<u64> {
        self.ticket
    }

    /// The number of this life of the kernel, from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Time left until the deadline; zero once it has passed, [`Duration::MAX`] without one.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.header.deadline.saturating_since(self.clock.now())
    }

    /// Whether the answer has lost its reader: the deadline passed, the caller left, or this incarnation was fenced.
    ///
    /// A kernel with long loops asks this now and then and returns; a kernel that does not is fenced by
    /// the watchdog.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.stops.iter().any(|stop| stop.is_raised()) || self.clock.now() >= self.header.deadline
    }
}

impl Context<'static> {
    /// A context outside any runtime, for a kernel's own tests: no deadline, first attempt, first incarnation.
    #[must_use]
    pub fn detached() -> Self {
        static CLOCK: std::sync::OnceLock<Clock> = std::sync::OnceLock::new();
        static STOP: Signal = Signal::new();
        let header = Header::new(0, Timestamp::NEVER);
        Self::new(header, 1, CLOCK.get_or_init(Clock::system), [&STOP; 2])
    }
}
