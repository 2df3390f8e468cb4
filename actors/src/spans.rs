//! The spans of requests, for whoever records them: a subscriber that wants spans of the target `rustkernel::request` at the debug level.
//!
//! | span | from | to | fields |
//! |---|---|---|---|
//! | `request` | the call | the answer | `of`, a kernel's name or `chain`; `request`, `trace_id`, `span_id`, `parent_id`; at its end `attempts` and `outcome` |
//! | `execute`, below it | a kernel takes the request | its result | `kernel`, `incarnation`, `attempt`, `degraded` |
//! | `incarnation` | a life begins | it is over | `kernel`, `incarnation` |
//!
//! A chain is one request: every stage, every round of a loop and every attempt is an `execute` right below its `request`. An `execute`
//! follows from the `incarnation` that it is done by, and is not inside of it: a life has no end of requests. Where nobody records, a
//! request costs one look at a static; where the trace that it comes from is not sampled, it has no spans.

use std::fmt::Display;
use std::num::{NonZeroU64, NonZeroU128};

use rustkernel_core::KernelId;
use rustkernel_core::envelope::Header;
use rustkernel_core::error::KernelError;
use rustkernel_core::trace::{Entered, TraceContext, ambient_trace};
use tracing::field::Empty;
use tracing::{Level, Span};

use crate::way::CallReport;

const TARGET: &str = "rustkernel::request";

/// A span that is recorded. A pointer, because most are not.
pub(crate) type Recorded = Option<Box<Span>>;

/// The trace that a request belongs to, and its span where that is recorded. A pointer, because most belong to none.
pub(crate) type Tracing = Option<Box<Request>>;

pub(crate) struct Request {
    trace: TraceContext,
    span: Option<Span>,
}

/// Puts a new request into its trace, and opens its span where it is recorded. `of` names what was called.
pub(crate) fn request(of: &dyn Display) -> Tracing {
    let above = ambient_trace();
    if tracing::enabled!(target: TARGET, Level::DEBUG) {
        return open(above, of);
    }
    above.map(|trace| Box::new(Request { trace, span: None }))
}

#[cold]
fn open(above: Option<TraceContext>, of: &dyn Display) -> Tracing {
    if let Some(trace) = above.filter(|above| !above.is_sampled()) {
        return Some(Box::new(Request { trace, span: None }));
    }
    let span_id = NonZeroU64::MIN.saturating_add(fastrand::u64(..));
    let trace = above.map_or_else(
        || TraceContext::new(NonZeroU128::MIN.saturating_add(fastrand::u128(..)), span_id, true),
        |above| above.child(span_id),
    );
    let span = tracing::debug_span!(
        target: TARGET,
        "request",
        %of,
        request = Empty,
        trace_id = format_args!("{:032x}", trace.trace_id()),
        span_id = format_args!("{:016x}", trace.span_id()),
        parent_id = Empty,
        attempts = Empty,
        outcome = Empty,
    );
    if let Some(above) = above {
        span.record("parent_id", tracing::field::display(format_args!("{:016x}", above.span_id())));
    }
    Some(Box::new(Request { trace, span: (!span.is_disabled()).then_some(span) }))
}

impl Request {
    /// What whatever is done for it belongs to.
    pub(crate) fn trace(&self) -> TraceContext {
        self.trace
    }
}

/// The request has its number.
pub(crate) fn accepted(request: Option<&Request>, id: u64) {
    if let Some(span) = request.and_then(|request| request.span.as_ref()) {
        span.record("request", id);
    }
}

/// The request is answered.
pub(crate) fn answered(request: Option<&Request>, report: CallReport, error: Option<&KernelError>) {
    let Some(span) = request.and_then(|request| request.span.as_ref()) else { return };
    span.record("attempts", report.attempts);
    match error {
        Some(error) => span.record("outcome", tracing::field::display(error.kind())),
        None if report.degraded => span.record("outcome", "degraded"),
        None => span.record("outcome", "answered"),
    };
}

/// One life of a kernel, where lives are recorded.
pub(crate) fn incarnation(kernel: &KernelId, incarnation: u64) -> Recorded {
    let span = tracing::debug_span!(target: TARGET, parent: None, "incarnation", %kernel, incarnation);
    (!span.is_disabled()).then(|| Box::new(span))
}

/// What an execution is a part of.
pub(crate) struct Traced {
    span: Span,
    trace: TraceContext,
}

impl Traced {
    /// Of a request that belongs to a trace.
    pub(crate) fn new(
        request: &Request,
        life: Option<&Span>,
        kernel: &KernelId,
        incarnation: u64,
        header: &Header,
    ) -> Self {
        let span = request.span.as_ref().map_or_else(Span::none, |request| {
            let Header { attempt, degraded, .. } = *header;
            let span = tracing::debug_span!(target: TARGET, parent: request, "execute", %kernel, incarnation, attempt, degraded);
            span.follows_from(life.and_then(Span::id));
            span
        });
        Self { span, trace: request.trace }
    }

    pub(crate) fn trace(&self) -> TraceContext {
        self.trace
    }

    /// For one poll.
    pub(crate) fn enter(&self) -> (Entered, tracing::span::Entered<'_>) {
        (self.trace.enter(), self.span.enter())
    }
}
