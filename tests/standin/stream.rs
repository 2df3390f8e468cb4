//! Streams: what is submitted to one runs on a thread of its own, in order.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::thread;

use crate::call::{self, Out};
use crate::code::{Answer, Code};
use crate::device::Device;
use crate::handle::Handles;
use crate::{event, fault, wait};

/// A stream that takes work. When it is dropped its thread does what is left, and ends.
pub(crate) struct Stream {
    queue: mpsc::Sender<Operation>,
    progress: Arc<Progress>,
}

type Operation = Box<dyn FnOnce() + Send>;

struct Progress {
    device: Device,
    submitted: AtomicU64,
    finished: AtomicU64,
}

impl Stream {
    /// The stream behind a handle. The driver's own streams, 0 to 2, are one here.
    pub(crate) fn find(handle: usize, device: Device) -> Answer<Arc<Self>> {
        if handle > PER_THREAD {
            return STREAMS.find(handle);
        }
        let mut defaults = DEFAULTS.lock().unwrap();
        if let Some(stream) = defaults.get(&device) {
            return Ok(Arc::clone(stream));
        }
        let stream = Arc::new(Self::start(device)?);
        defaults.insert(device, Arc::clone(&stream));
        Ok(stream)
    }

    /// Queues an operation. After a fault it is dropped instead of run.
    pub(crate) fn submit(&self, operation: impl FnOnce() + Send + 'static) {
        self.progress.submitted.fetch_add(1, Ordering::AcqRel);
        // The thread receives for as long as `self` lives.
        let _ = self.queue.send(Box::new(operation));
    }

    /// Waits until there is room for one more launch.
    pub(crate) fn make_room(&self) -> Answer {
        let under_way = || {
            let finished = self.progress.finished.load(Ordering::Acquire);
            self.progress.submitted.load(Ordering::Acquire).saturating_sub(finished)
        };
        wait::until(|| under_way() < DEPTH)
    }

    fn start(device: Device) -> Answer<Self> {
        let (queue, operations) = mpsc::channel::<Operation>();
        let progress =
            Arc::new(Progress { device, submitted: AtomicU64::new(0), finished: AtomicU64::new(0) });
        let own = Arc::clone(&progress);
        let run = move || {
            for operation in operations {
                if fault::healthy().is_ok() {
                    operation();
                }
                own.finished.fetch_add(1, Ordering::AcqRel);
                wait::announce();
            }
        };
        thread::Builder::new().name("stream".to_owned()).spawn(run).map_err(|_| Code::OUT_OF_MEMORY)?;
        let mut all = ALL.lock().unwrap();
        all.retain(|progress| progress.strong_count() > 0);
        all.push(Arc::downgrade(&progress));
        Ok(Self { queue, progress })
    }
}

impl Progress {
    fn is_idle(&self) -> bool {
        self.finished.load(Ordering::Acquire) == self.submitted.load(Ordering::Acquire)
    }

    /// Waits for what has been submitted so far.
    fn synchronize(&self) -> Answer {
        let submitted = self.submitted.load(Ordering::Acquire);
        wait::until(|| self.finished.load(Ordering::Acquire) >= submitted)
    }
}

static STREAMS: Handles<Stream> = Handles::new(0x5000_0000);
static DEFAULTS: Mutex<BTreeMap<Device, Arc<Stream>>> = Mutex::new(BTreeMap::new());
/// Of every stream, also of one that was destroyed before its work was done.
static ALL: Mutex<Vec<Weak<Progress>>> = Mutex::new(Vec::new());
/// What is under way in a stream when a launch begins to wait.
const DEPTH: u64 = 1021;
/// `CU_STREAM_PER_THREAD`; 0 is the default stream, and 1 its other name.
const PER_THREAD: usize = 2;

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(stream: Out<usize>, _flags: c_uint) -> c_int {
    call::in_context("cuStreamCreate", |device| stream.set(STREAMS.insert(Stream::start(device)?)))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: usize) -> c_int {
    call::in_context("cuStreamDestroy_v2", |_| STREAMS.remove(stream).map(|_| ()))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: usize) -> c_int {
    call::in_context("cuStreamQuery", |device| {
        let idle = Stream::find(stream, device)?.progress.is_idle();
        // A fault that has come meanwhile ends the operation too.
        if idle { fault::healthy() } else { Err(Code::NOT_READY) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: usize) -> c_int {
    call::in_context("cuStreamSynchronize", |device| Stream::find(stream, device)?.progress.synchronize())
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) -> c_int {
    call::in_context("cuStreamWaitEvent", |device| {
        let mark = event::latest_mark(event)?;
        Stream::find(stream, device)?.submit(move || {
            // After a fault nothing that follows runs.
            let _ = wait::until(|| mark.is_reached());
        });
        Ok(())
    })
}

/// As NVIDIA documents it: in its turn, on a thread of the driver's, and not at all after a fault.
#[unsafe(no_mangle)]
extern "C" fn cuLaunchHostFunc(stream: usize, function: Option<HostFunction>, data: usize) -> c_int {
    call::in_context("cuLaunchHostFunc", |device| {
        let function = function.ok_or(Code::INVALID_VALUE)?;
        // SAFETY: whoever submits it says that it may be called with this once.
        let call = move || unsafe { function(std::ptr::with_exposed_provenance_mut(data)) };
        Stream::find(stream, device)?.submit(call);
        Ok(())
    })
}

type HostFunction = unsafe extern "C" fn(*mut c_void);

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> c_int {
    call::in_context("cuCtxSynchronize", |device| {
        let all: Vec<_> = ALL.lock().unwrap().iter().filter_map(Weak::upgrade).collect();
        let mut own = all.iter().filter(|progress| progress.device == device);
        own.try_for_each(|progress| progress.synchronize())
    })
}
