//! Requests before their turn.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::envelope::Header;
use crate::trace::TraceContext;

/// A request whose turn has not come.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Upcoming<'a, I> {
    /// Under which it will be executed, if it is: [`Context::ticket`](super::Context::ticket). Later ones have greater ones.
    pub ticket: u64,
    /// What travels with it.
    pub header: Header,
    /// Time left until its deadline; `None` without one.
    pub remaining: Option<Duration>,
    /// The trace that it belongs to, if it does.
    pub trace: Option<TraceContext>,
    /// What it carries.
    pub input: &'a I,
}

impl<'a, I> Upcoming<'a, I> {
    /// A request without a deadline, in no trace.
    #[must_use]
    pub fn new(ticket: u64, header: Header, input: &'a I) -> Self {
        Self { ticket, header, remaining: None, trace: None, input }
    }

    /// The same with so much time left, if it has a deadline.
    #[must_use]
    pub fn within(self, remaining: Option<Duration>) -> Self {
        Self { remaining, ..self }
    }

    /// The same in this trace, if it is in one.
    #[must_use]
    pub fn in_trace(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }
}

/// So much may be looked ahead at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Requests, at most.
    pub requests: usize,
    /// Bytes of one of them, at most, as [`Payload::size_bytes`](super::Payload::size_bytes) says.
    pub bytes_each: usize,
}

/// A kernel that begins with requests before their turn: one that sends them on their way, or loads their data, while another one is executed.
///
/// A runtime shows it only what it may: requests of kernels that are idempotent and take no checkpoints, small ones, in the order of their
/// turns. What was shown is executed later, and then known by its [ticket](super::Context::ticket); or never, if its caller has gone or its
/// deadline is over by then. A request is shown once to a life that takes it. What was shown before a fault domain died counts as in flight
/// there: it is suspect, and runs again alone.
///
/// A panic of [`show`](Self::show) is contained; everything counts as taken then, and the kernel is shown nothing more. Otherwise, what is
/// begun with ahead of its turn must neither end the kernel nor hold it up: the request in hand would answer for it. A kernel may be
/// dropped without having settled.
pub trait LookAhead<I>: Send {
    /// How much it takes now.
    fn room(&mut self) -> Room;

    /// Shows it the next requests. The first of them may be about to be executed. Returns how many it has taken, from the first on; the
    /// others are shown again.
    fn show(&mut self, upcoming: &[Upcoming<'_, I>]) -> usize;

    /// Whether it holds something of requests that have been shown and not executed.
    fn holds(&mut self) -> bool;

    /// Resolves when it does not any more. Nothing that was shown will be executed under its ticket.
    ///
    /// # Cancel safety
    /// Dropped, it can be called again.
    fn settle(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl<I> fmt::Debug for Upcoming<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upcoming")
            .field("ticket", &self.ticket)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}
