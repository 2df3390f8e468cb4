//! What goes over the sockets between a supervising process and its workers.
//!
//! | socket | kind | carries |
//! |---|---|---|
//! | control | sequenced packets, one per worker | [`ToWorker`], [`FromWorker`]: one message a packet, memory or a new kernel's socket beside it |
//! | data | a stream, one per kernel | [`ToKernel`], [`FromKernel`]: one frame a request, one an answer |
//! | shared | memory, one for each direction | bodies that are too long for a socket, and values that lie there; see [`border`](super::border) |
//!
//! A frame on a stream is a prefix (a magic number, the length of its head as u32, the length of its body as u64, little-endian), the head
//! (a message, in the [codec]'s own frame) and the body (a payload's bytes, as they are). Nothing is believed: lengths are compared with
//! their limits before anything is allocated, and bytes that are no frame are a [`WireError`], after which the stream is of no use.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use rustkernel_core::codec::{self, CodecError};
use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};
use rustkernel_core::fault::Fault;
use rustkernel_core::id::KernelId;
use rustkernel_core::trace::TraceContext;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::border::{NotThere, Place};
use super::code::Code;

/// Both sides speak this version, or do not speak.
pub(super) const PROTOCOL: u32 = 7;

/// The longest control message. A packet that is longer is refused by its sender.
pub(super) const MAX_PACKET_BYTES: usize = 128 << 10;

/// The longest body of a frame.
pub(super) const MAX_BODY_BYTES: u64 = codec::MAX_BODY_BYTES as u64 + (1 << 20);

const MAX_HEAD_BYTES: usize = 64 << 10;
/// A compiler's log may be longer; its beginning says what is wrong.
const MAX_TEXT_BYTES: usize = 32 << 10;
const MAGIC: u32 = u32::from_le_bytes(*b"RKW1");
const PREFIX_BYTES: usize = 16;
/// A buffer that has grown beyond this is given back when it is empty.
pub(super) const KEPT_BYTES: usize = 1 << 20;
/// Allocated ahead of what has arrived.
const STEP_BYTES: usize = 1 << 20;

/// What the supervising process tells a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// The first message: beside it comes the memory that both sides map, that of the supervising process and that of the worker, each with
    /// so many bytes of address space.
    Memory { reserved: [u64; 2] },
    /// Make a kernel; its socket comes beside the message.
    Attach { kernel: u64, name: String, settings: Vec<u8> },
    /// Nobody waits any more for this request and those before it: say when it has ended.
    Cancel { kernel: u64, request: u64 },
    /// Say that you are there.
    Ping,
    /// What was lent under these numbers is returned.
    Returned { numbers: Vec<u64> },
    /// What stood for the kernel is gone: it has read the answers until this execution, and reads no more.
    Left { kernel: u64, read: u64 },
    /// Load this for the device, which somebody is likely to want; it lies in the file beside the message.
    Prepare { code: Code },
}

/// What a worker tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromWorker {
    /// It is up, and can make these kernels; on this device.
    Hello { protocol: u32, kernels: Vec<String>, device: Option<Opened> },
    /// It cannot be what it was started for, and ends. `for_good`: another one fails the same way until somebody changes something.
    Unable { reason: String, for_good: bool },
    /// Its device is lost to it, and it ends.
    DeviceLost { reason: String, fault: Fault },
    /// A kernel is dropped; its socket is closed. It has read what it was asked until this execution.
    Gone { kernel: u64, read: u64 },
    /// A request that was cancelled does not run any more, nor does any before it.
    Ended { kernel: u64, request: u64 },
    /// It is there.
    Pong,
    /// What was lent under these numbers is returned.
    Returned { numbers: Vec<u64> },
    /// It has loaded this for its device; it lies in the file beside the message.
    Loaded { code: Code },
}

/// The device of a worker, as it sees it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    /// Where it is on the bus, as NVML writes it.
    pub(super) pci: String,
    /// What there is of memory for it: of a part of a device, that part's.
    pub(super) memory_bytes: u64,
}

/// What a kernel in a worker is asked. The body is the input, or a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToKernel {
    Run(Run),
    Save { request: u64 },
    Restore { request: u64 },
}

/// One execution: what its kernel is told of the request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// The number of this execution at its kernel, from 1.
    pub(super) request: u64,
    /// The request's number in its runtime.
    pub(super) id: u64,
    pub(super) due: Option<Due>,
    pub(super) attempt: u32,
    pub(super) retry_budget: u32,
    pub(super) degraded: bool,
    pub(super) suspect: bool,
    pub(super) trace: Option<TraceContext>,
    pub(super) incarnation: u64,
}

/// A deadline on the wire.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Due {
    remaining: Duration,
    /// The system's monotonic clock when so much remained: it is one for both sides, and a request may have to wait for its turn.
    at: Duration,
}

impl Due {
    pub(super) fn within(remaining: Duration) -> Self {
        Self { remaining, at: monotonic() }
    }

    /// What remains now.
    pub(super) fn remaining(self) -> Duration {
        self.remaining.saturating_sub(monotonic().saturating_sub(self.at))
    }
}

fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

/// Where the body of a message is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Body {
    /// Behind the message.
    Inline,
    /// In shared memory.
    Shared(Place),
}

/// What goes along with a message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) body: Body,
    /// The numbers under which what is in it is lent, in their order.
    pub(super) lent: Vec<u64>,
}

impl Load {
    /// Nothing.
    pub(super) fn none() -> Self {
        Self { body: Body::Inline, lent: Vec::new() }
    }
}

impl ToKernel {
    /// The number of the execution.
    pub(super) fn request(&self) -> u64 {
        match self {
            Self::Run(run) => run.request,
            Self::Save { request } | Self::Restore { request } => *request,
        }
    }
}

/// What a kernel in a worker answers. The body is the output, or a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromKernel {
    /// It is made, or not.
    Made(Result<(), Failure>),
    /// The request has ended.
    Done { request: u64, result: Result<(), Failure>, load: Load },
    /// It has panicked, and is gone.
    Panicked(String),
}

/// A [`KernelError`] on its way: the source has become text.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    kind: KernelErrorKind,
    phase: Phase,
    kernel: Option<KernelId>,
    source: Option<String>,
}

/// Why a stream is of no use any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum WireError {
    #[error("what came is no frame")]
    NotAFrame,
    #[error("a {part} of {bytes} bytes is longer than the {limit} there may be")]
    TooLong { part: &'static str, bytes: u64, limit: u64 },
    #[error("the message in it is damaged")]
    Message(#[from] CodecError),
    #[error("the other side has closed it in the middle of a frame")]
    CutOff,
    #[error("the other side has answered something that was not asked")]
    Unasked,
    #[error(transparent)]
    NotThere(#[from] NotThere),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failure {
    pub(super) fn of(error: &KernelError) -> Self {
        let source = std::error::Error::source(error).map(|source| text(chain(source)));
        Self { kind: error.kind().clone(), phase: error.phase(), kernel: error.kernel_id().cloned(), source }
    }

    pub(super) fn into_error(self) -> KernelError {
        let mut error = KernelError::new(self.kind, self.phase);
        if let Some(source) = self.source {
            error = error.with_source(source);
        }
        match &self.kernel {
            Some(kernel) => error.in_kernel(kernel),
            None => error,
        }
    }
}

/// A text that has room in a head, whatever its length was.
pub(super) fn text(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        let end = (0..=MAX_TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

/// An error and all its sources, as one text.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// A frame's bytes, ready to be written.
pub(super) fn frame(head: &impl Serialize, body: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::new();
    append(&mut bytes, head, body)?;
    Ok(bytes)
}

/// Puts a frame behind others that are to be written together. They are left as they were on an error.
pub(super) fn append(bytes: &mut Vec<u8>, head: &impl Serialize, body: &[u8]) -> Result<(), WireError> {
    let start = bytes.len();
    let appended = append_at(bytes, start, head, body);
    if appended.is_err() {
        bytes.truncate(start);
    }
    appended
}

fn append_at(bytes: &mut Vec<u8>, start: usize, head: &impl Serialize, body: &[u8]) -> Result<(), WireError> {
    let too_long = |part, bytes: usize, limit| WireError::TooLong { part, bytes: bytes as u64, limit };
    if body.len() as u64 > MAX_BODY_BYTES {
        return Err(too_long("body", body.len(), MAX_BODY_BYTES));
    }
    bytes.extend([0; PREFIX_BYTES]);
    codec::encode_behind(bytes, head)?;
    let head = bytes.len() - start - PREFIX_BYTES;
    let head_bytes = u32::try_from(head).ok().filter(|_| head <= MAX_HEAD_BYTES);
    let head_bytes = head_bytes.ok_or_else(|| too_long("head", head, MAX_HEAD_BYTES as u64))?;
    let prefix = &mut bytes[start..start + PREFIX_BYTES];
    prefix[..4].copy_from_slice(&MAGIC.to_le_bytes());
    prefix[4..8].copy_from_slice(&head_bytes.to_le_bytes());
    prefix[8..].copy_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(body);
    Ok(())
}

/// What of a stream has arrived and not been read yet.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// How much of that has been read.
    read: usize,
}

impl Inbox {
    /// Takes in what there is on `stream` now. `false` when the other side has closed it.
    pub(super) fn fill(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        self.bytes.drain(..self.read);
        self.read = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        let have = self.bytes.len();
        let wanted = self.missing().unwrap_or(PREFIX_BYTES).clamp(CHUNK_BYTES, STEP_BYTES);
        self.bytes.resize(have + wanted, 0);
        let read = stream.read(&mut self.bytes[have..]);
        self.bytes.truncate(have + read.as_ref().copied().unwrap_or(0));
        Ok(read? > 0)
    }

    /// The next frame, if it is whole: its message and its body.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Vec<u8>)>, WireError> {
        let Some((head, body)) = self.lengths()? else { return Ok(None) };
        let frame = self.unread().get(PREFIX_BYTES..PREFIX_BYTES + head + body);
        let Some((head, body)) = frame.map(|frame| frame.split_at(head)) else { return Ok(None) };
        let (message, body) = (codec::decode(head)?, body.to_vec());
        self.read += PREFIX_BYTES + head.len() + body.len();
        Ok(Some((message, body)))
    }

    /// Whether a whole frame is there.
    pub(super) fn has_next(&self) -> Result<bool, WireError> {
        let whole = |(head, body)| self.unread().len() >= PREFIX_BYTES + head + body;
        Ok(self.lengths()?.is_some_and(whole))
    }

    /// Whether the stream may end here.
    pub(super) fn is_empty(&self) -> bool {
        self.unread().is_empty()
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    fn missing(&self) -> Option<usize> {
        let (head, body) = self.lengths().ok().flatten()?;
        Some((PREFIX_BYTES + head + body).saturating_sub(self.unread().len()))
    }

    fn lengths(&self) -> Result<Option<(usize, usize)>, WireError> {
        let Some(prefix) = self.unread().first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [m0, m1, m2, m3, h0, h1, h2, h3, body @ ..] = *prefix;
        if u32::from_le_bytes([m0, m1, m2, m3]) != MAGIC {
            return Err(WireError::NotAFrame);
        }
        let head = u32::from_le_bytes([h0, h1, h2, h3]);
        let body = u64::from_le_bytes(body);
        if head as usize > MAX_HEAD_BYTES {
            let limit = MAX_HEAD_BYTES as u64;
            return Err(WireError::TooLong { part: "head", bytes: head.into(), limit });
        }
        match usize::try_from(body) {
            Ok(bytes) if body <= MAX_BODY_BYTES => Ok(Some((head as usize, bytes))),
            _ => Err(WireError::TooLong { part: "body", bytes: body, limit: MAX_BODY_BYTES }),
        }
    }
}

/// Read at once where nothing is known about what comes.
const CHUNK_BYTES: usize = 8 << 10;

/// Waits for the next frame on a stream that blocks. `None` when the other side has closed it.
pub(super) fn read<T: DeserializeOwned>(
    stream: &mut impl Read,
    inbox: &mut Inbox,
) -> Result<Option<(T, Vec<u8>)>, WireError> {
    loop {
        if let Some(frame) = inbox.next()? {
            return Ok(Some(frame));
        }
        match inbox.fill(stream) {
            Ok(true) => {}
            Ok(false) if inbox.is_empty() => return Ok(None),
            Ok(false) => return Err(WireError::CutOff),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes a frame to a stream that blocks.
pub(super) fn write(stream: &mut impl Write, head: &impl Serialize, body: &[u8]) -> Result<(), WireError> {
    Ok(stream.write_all(&frame(head, body)?)?)
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("bytes", &self.unread().len()).finish()
    }
}

/// Reads `bytes` as what either side may send to the other, until they end or are refused.
#[cfg(fuzzing)]
pub fn fuzz_frames(bytes: &[u8]) {
    fn all<T: DeserializeOwned>(mut bytes: &[u8]) {
        let mut inbox = Inbox::default();
        while let Ok(Some(_)) = read::<T>(&mut bytes, &mut inbox) {}
    }
    all::<(ToKernel, Load)>(bytes);
    all::<FromKernel>(bytes);
    let _ = codec::decode::<ToWorker>(bytes);
    let _ = codec::decode::<FromWorker>(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(request: u64) -> ToKernel {
        ToKernel::Run(Run {
            request,
            id: 7,
            due: Some(Due::within(Duration::from_millis(5))),
            attempt: 1,
            retry_budget: 16,
            degraded: false,
            suspect: false,
            trace: None,
            incarnation: 1,
        })
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_however_they_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 1..5),
            cut in 1_usize..5000,
        ) {
            let sent: Vec<u8> =
                bodies.iter().enumerate().flat_map(|(n, body)| frame(&run(n as u64), body).unwrap()).collect();
            let (mut inbox, mut got) = (Inbox::default(), Vec::new());
            for mut part in sent.chunks(cut) {
                while !part.is_empty() {
                    inbox.fill(&mut part).unwrap();
                }
                while let Some((head, body)) = inbox.next::<ToKernel>().unwrap() {
                    let ToKernel::Run(run) = head else { panic!("{head:?}") };
                    prop_assert_eq!(run.request, got.len() as u64);
                    got.push(body);
                }
            }
            prop_assert_eq!(got, bodies);
            prop_assert!(inbox.is_empty());
        }

        #[test]
        fn garbage_is_an_error_or_waits_for_more_and_never_panics(bytes: Vec<u8>) {
            let mut inbox = Inbox::default();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                inbox.fill(&mut rest).unwrap();
            }
            let _ = inbox.next::<FromKernel>();
        }
    }

    #[test]
    fn what_is_too_long_leaves_those_before_it_as_they_were() {
        let mut bytes = frame(&run(1), b"body").unwrap();
        let before = bytes.clone();
        let long = FromKernel::Panicked("x".repeat(MAX_HEAD_BYTES));
        let error = append(&mut bytes, &long, &[]).unwrap_err();
        assert!(matches!(error, WireError::TooLong { part: "head", .. }), "{error}");
        assert_eq!(bytes, before);
    }

    #[test]
    fn what_remains_becomes_less_while_a_request_waits_for_its_turn() {
        let second = Duration::from_secs(1);
        let waited = |span: Duration| Due { remaining: 5 * second, at: monotonic() - span }.remaining();
        assert!(waited(2 * second) <= 3 * second && waited(2 * second) > 2 * second);
        assert_eq!(waited(6 * second), Duration::ZERO);
        assert!(Due::within(second).remaining() <= second);
    }

    #[test]
    fn a_length_that_is_only_claimed_is_refused_by_name_and_not_allocated() {
        let mut sent = frame(&FromKernel::Made(Ok(())), &[]).unwrap();
        sent[8..16].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        let mut inbox = Inbox::default();
        inbox.fill(&mut &sent[..]).unwrap();
        let error = inbox.next::<FromKernel>().unwrap_err();
        assert!(matches!(error, WireError::TooLong { part: "body", .. }), "{error}");
        assert!(inbox.bytes.capacity() < 2 * CHUNK_BYTES);
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_is_cut_off() {
        let sent = frame(&FromKernel::Made(Ok(())), b"body").unwrap();
        let mut inbox = Inbox::default();
        let error = read::<FromKernel>(&mut &sent[..sent.len() - 1], &mut inbox).unwrap_err();
        assert!(matches!(error, WireError::CutOff), "{error}");
    }

    #[test]
    fn an_error_keeps_kind_phase_kernel_and_its_sources_as_text() {
        let kernel = KernelId::new("a/b").unwrap();
        let error = KernelError::transient("busy").in_kernel(&kernel);
        let back = Failure::of(&error).into_error();
        assert_eq!(back.to_string(), error.to_string());
        assert_eq!((back.kind(), back.phase()), (error.kind(), error.phase()));
    }
}
