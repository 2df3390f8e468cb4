//! Events: marks between the operations of a stream.

use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::call::{self, Out};
use crate::code::{Answer, Code};
use crate::handle::Handles;
use crate::stream::Stream;
use crate::{fault, wait};

/// A place in a stream, which the stream reaches some time.
pub(crate) struct Mark {
    reached: AtomicBool,
}

impl Mark {
    fn new(reached: bool) -> Arc<Self> {
        Arc::new(Self { reached: AtomicBool::new(reached) })
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }
}

/// Where the event was recorded last. Nothing has to happen before an event that was never recorded.
pub(crate) fn latest_mark(event: usize) -> Answer<Arc<Mark>> {
    Ok(Arc::clone(&EVENTS.find(event)?.latest.lock().unwrap()))
}

struct Event {
    latest: Mutex<Arc<Mark>>,
}

static EVENTS: Handles<Event> = Handles::new(0xe000_0000);

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(event: Out<usize>, _flags: c_uint) -> c_int {
    call::in_context("cuEventCreate", |_| {
        event.set(EVENTS.insert(Event { latest: Mutex::new(Mark::new(true)) }))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: usize) -> c_int {
    call::in_context("cuEventDestroy_v2", |_| EVENTS.remove(event).map(|_| ()))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: usize, stream: usize) -> c_int {
    call::in_context("cuEventRecord", |device| {
        let event = EVENTS.find(event)?;
        let stream = Stream::find(stream, device)?;
        let mark = Mark::new(false);
        let mut latest = event.latest.lock().unwrap();
        *latest = Arc::clone(&mark);
        stream.submit(move || mark.reached.store(true, Ordering::Release));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: usize) -> c_int {
    call::in_context("cuEventQuery", |_| {
        let reached = latest_mark(event)?.is_reached();
        if reached { fault::healthy() } else { Err(Code::NOT_READY) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: usize) -> c_int {
    call::in_context("cuEventSynchronize", |_| {
        let mark = latest_mark(event)?;
        wait::until(|| mark.is_reached())
    })
}
