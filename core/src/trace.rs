//! The trace that a request belongs to, as the W3C's Trace Context names it.
//!
//! A context travels with a request through its chain, and with the work that a kernel does for it: whoever calls further down finds it,
//! without a parameter in between. It comes from outside, from the `traceparent` of an HTTP request for example, or from the runtime
//! itself where somebody records its spans.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::num::{NonZeroU64, NonZeroU128};
use std::pin::pin;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A span of a trace: the trace, the span, and whether anybody records it. Neither number is zero.
///
/// ```
/// use rustkernel_core::trace::TraceContext;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: TraceContext = header.parse()?;
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), header);
/// # Ok::<(), rustkernel_core::trace::TraceError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "(u128, u64, bool)", try_from = "(u128, u64, bool)")]
pub struct TraceContext {
    // Bytes, because a header that is copied everywhere shall not be padded to a multiple of sixteen.
    trace: [u8; 16],
    span: [u8; 8],
    is_sampled: bool,
}

/// Why a text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a traceparent: it takes VERSION-TRACE-SPAN-FLAGS in lower-case hexadecimal digits, and no zero in place of a number"
)]
pub struct TraceError;

impl TraceContext {
    /// The span `span` of `trace`.
    #[must_use]
    pub fn new(trace: NonZeroU128, span: NonZeroU64, is_sampled: bool) -> Self {
        Self { trace: trace.get().to_be_bytes(), span: span.get().to_be_bytes(), is_sampled }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(self, span: NonZeroU64) -> Self {
        Self { span: span.get().to_be_bytes(), ..self }
    }

    /// The number of the trace.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        u128::from_be_bytes(self.trace)
    }

    /// The number of the span.
    #[must_use]
    pub fn span_id(&self) -> u64 {
        u64::from_be_bytes(self.span)
    }

    /// Whether whoever began the trace records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }
}

impl From<TraceContext> for (u128, u64, bool) {
    fn from(context: TraceContext) -> Self {
        (context.trace_id(), context.span_id(), context.is_sampled)
    }
}

impl TryFrom<(u128, u64, bool)> for TraceContext {
    type Error = TraceError;

    fn try_from((trace, span, is_sampled): (u128, u64, bool)) -> Result<Self, TraceError> {
        let (trace, span) =
            (NonZeroU128::new(trace).ok_or(TraceError)?, NonZeroU64::new(span).ok_or(TraceError)?);
        Ok(Self::new(trace, span, is_sampled))
    }
}

/// Reads a `traceparent`, also one of a later version of the standard, of which it takes what it knows.
impl FromStr for TraceContext {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(TraceError)?;
            let is_lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            if !part.bytes().all(is_lower_hex) {
                return Err(TraceError);
            }
            u128::from_str_radix(part, 16).map_err(|_| TraceError)
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let has_more = parts.next().is_some();
        if version == 0xff || (version == 0 && has_more) {
            return Err(TraceError);
        }
        (trace, u64::try_from(span).map_err(|_| TraceError)?, flags & SAMPLED == SAMPLED).try_into()
    }
}

const SAMPLED: u128 = 1;

/// As a `traceparent` of version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace_id(), self.span_id())
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

thread_local! {
    static CONTEXT: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

/// The trace of the work that the running task does, or `None` where nobody named one.
#[must_use]
pub fn ambient_trace() -> Option<TraceContext> {
    CONTEXT.get()
}

/// Runs `work` as a part of the span `context`: requests that it makes belong to that trace. Like a deadline it belongs to the work and not to
/// the thread, and a spawned task does not inherit it.
///
/// # Cancel safety
/// As cancel-safe as `work`.
pub async fn with_trace<F: Future>(context: TraceContext, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let _entered = context.enter();
        work.as_mut().poll(cx)
    })
    .await
}

impl TraceContext {
    /// Names this span to everything that this thread does until the guard is dropped. For work that is polled,
    /// [`with_trace`] does it at every poll.
    #[must_use]
    pub fn enter(self) -> Entered {
        Entered { outside: CONTEXT.replace(Some(self)), _here: PhantomData }
    }
}

/// The trace outside comes back when it is dropped, by a panic too.
#[derive(Debug)]
pub struct Entered {
    outside: Option<TraceContext>,
    /// It is this thread's.
    _here: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CONTEXT.set(self.outside);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_the_standard_forbids_is_refused_and_a_later_version_is_read_as_far_as_it_is_known() {
        let read = |text: &str| text.parse::<TraceContext>();
        let good = read(GOOD).unwrap();
        assert_eq!((good.trace_id() >> 96, good.span_id() >> 48), (0x4bf9_2f35, 0x00f0));
        assert!(!read(&GOOD.replace("-01", "-02")).unwrap().is_sampled());
        assert_eq!(read(&format!("cc{}-what-comes-later", &GOOD[2..])).unwrap(), good);
        for bad in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-x"),
            GOOD.to_uppercase(),
            format!("ff{}", &GOOD[2..]),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace('f', "+"),
            format!(" {GOOD}"),
        ] {
            assert_eq!(read(&bad), Err(TraceError), "{bad}");
        }
    }

    #[tokio::test]
    async fn work_is_part_of_the_trace_it_is_given_and_of_no_other() {
        let (outer, inner): (TraceContext, TraceContext) =
            (GOOD.parse().unwrap(), GOOD.replace("b7", "b8").parse().unwrap());
        assert_eq!(ambient_trace(), None);
        with_trace(outer, async {
            with_trace(inner, async { assert_eq!(ambient_trace(), Some(inner)) }).await;
            assert_eq!(ambient_trace(), Some(outer));
            assert_eq!(std::thread::spawn(ambient_trace).join().unwrap(), None);
        })
        .await;
        assert_eq!(ambient_trace(), None);
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(text in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|.{0,60}") {
            if let Ok(context) = text.parse::<TraceContext>() {
                prop_assert_eq!(context.to_string().parse::<TraceContext>(), Ok(context));
                prop_assert_eq!(&context.to_string()[3..52], &text[3..52]);
            }
        }

        #[test]
        fn a_context_is_its_numbers(trace: u128, span: u64, is_sampled: bool) {
            let frame = crate::codec::encode(&(trace, span, is_sampled)).unwrap();
            match crate::codec::decode::<TraceContext>(&frame) {
                Ok(context) => prop_assert_eq!(<(u128, u64, bool)>::from(context), (trace, span, is_sampled)),
                Err(_) => prop_assert!(trace == 0 || span == 0),
            }
        }
    }
}
