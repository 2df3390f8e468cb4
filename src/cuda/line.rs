//! A stream from the inside: how far it has come, and the memory that waits for it.
//!
//! A stream is a line of work. Behind a piece of it goes a *mark*: the device writes the mark's number into a word of pinned memory when it
//! gets there, so that the processor sees how far the line has come without a call. The word says nothing after a fault: the poller
//! asks the driver beside it.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::collections::VecDeque;
use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::Duration;

use cudarc::driver::CudaStream;
use rustkernel_core::clock::Clock;
use rustkernel_core::fault::cuda;

use super::CudaError;
use super::device::Device;
use super::pinned::Pinned;
use super::table::{Address, Handle};
#[cfg(feature = "worker")]
use crate::worker::Held;

/// Launches that may be under way in a stream. The driver blocks its caller at about a thousand.
const IN_FLIGHT: u32 = 256;
/// So many launches without a mark get one, lest nobody knows how far they have come.
const UNMARKED: u32 = 64;
/// The least that is allocated, in bytes. Up to [`PAGE_BYTES`] sizes are rounded up to powers of two, so that what is given back fits
/// again.
const LEAST_BYTES: usize = 256;
/// Larger sizes are rounded up to a multiple of this, as the driver does it.
const PAGE_BYTES: usize = 2 << 20;
/// Pieces of pinned memory that wait for their marks; with one more, the line waits for them.
const MOST_PINNED: usize = 32;

pub(super) struct Line {
    device: Device,
    stream: ManuallyDrop<Arc<CudaStream>>,
    words: Pinned,
    /// Where the device has the two words, in their order.
    words_there: [Address; WORDS],
    /// The number of the last mark.
    issued: AtomicU32,
    /// The driver cannot write marks: it is asked whether the stream is empty.
    asks: AtomicBool,
    /// Whoever waits is wanted no more.
    stopped: AtomicBool,
    queue: Mutex<Queue>,
}

/// What has to be remembered of work that is under way.
#[derive(Default)]
struct Queue {
    /// Launches since the last mark.
    unmarked: u32,
    /// Launches before each mark that is not known to be reached, and their sum.
    marks: VecDeque<(u32, u32)>,
    in_flight: u32,
    /// Device memory that was given back. What comes next in this line may have it at once.
    blocks: Vec<(usize, Address)>,
    /// Pinned memory, free from its mark on.
    pinned: Vec<(Pinned, u32)>,
    /// What the device copies from or to by itself, until its mark.
    #[cfg(feature = "worker")]
    kept: Vec<(Arc<Held>, u32)>,
}

/// The words, by their places.
const MARK: usize = 0;
const STOP: usize = 1;
const WORDS: usize = 2;

impl Line {
    pub(super) fn new(device: &Device) -> Result<Arc<Self>, CudaError> {
        // Whether the device is lost is asked before cudarc is: it would read any code as one that it knows.
        device.memory()?;
        let stream = device.context().new_stream().map_err(|error| CudaError::Call {
            function: "cuStreamCreate",
            fault: cuda::classify(error.0 as c_int),
        })?;
        device.reap();
        let words = Pinned::new(device, WORDS * size_of::<u32>())?;
        let mut there = 0;
        // SAFETY: there is room for an address, and the memory is pinned.
        device.call("cuMemHostGetDevicePointer_v2", |calls| unsafe {
            (calls.cuMemHostGetDevicePointer_v2)(&raw mut there, words.start.cast(), 0)
        })?;
        let line = Self {
            device: device.clone(),
            stream: ManuallyDrop::new(stream),
            words,
            words_there: [there, there + size_of::<u32>() as Address],
            issued: AtomicU32::new(0),
            asks: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            queue: Mutex::default(),
        };
        line.word(MARK).store(0, Ordering::Release);
        line.word(STOP).store(0, Ordering::Release);
        let line = Arc::new(line);
        device.enlist(&line);
        Ok(line)
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    pub(super) fn handle(&self) -> Handle {
        self.stream.cu_stream() as Handle
    }

    /// Where the device reads whether it is to stop.
    pub(super) fn stop_there(&self) -> &Address {
        &self.words_there[STOP]
    }

    /// Puts a mark behind everything that the line was told so far.
    pub(super) fn mark(&self) -> Result<u32, CudaError> {
        let mut queue = self.queue();
        let number = self.issued.load(Ordering::Relaxed).wrapping_add(1);
        if !self.asks.load(Ordering::Relaxed) {
            let place = self.words_there[MARK];
            // SAFETY: the words live as long as the line.
            let written = self.device.call("cuStreamWriteValue32_v2", |calls| unsafe {
                (calls.cuStreamWriteValue32_v2)(self.handle(), place, number, 0)
            });
            match written {
                Err(CudaError::Call { fault, .. }) if fault.name == UNSUPPORTED => {
                    self.asks.store(true, Ordering::Relaxed);
                }
                written => written?,
            }
        }
        self.issued.store(number, Ordering::Release);
        let launches = std::mem::take(&mut queue.unmarked);
        queue.marks.push_back((number, launches));
        Ok(number)
    }

    /// Whether the device has got to a mark. No call, where the device writes its marks.
    pub(super) fn has_reached(&self, mark: u32) -> Result<bool, CudaError> {
        self.device.check("a completion")?;
        if self.asks.load(Ordering::Relaxed) {
            let issued = self.issued.load(Ordering::Acquire);
            if self.is_empty()? {
                self.word(MARK).store(issued, Ordering::Release);
            }
        }
        Ok(is_reached(self.word(MARK).load(Ordering::Acquire), mark))
    }

    /// [`has_reached`](Self::has_reached), where that needs no call; `None` where it does, or the device is lost.
    pub(super) fn has_reached_quietly(&self, mark: u32) -> Option<bool> {
        let knows = self.device.lost().is_none() && !self.asks.load(Ordering::Relaxed);
        knows.then(|| is_reached(self.word(MARK).load(Ordering::Acquire), mark))
    }

    /// Asks the driver whether nothing is under way. The one way to hear of a fault.
    pub(super) fn is_empty(&self) -> Result<bool, CudaError> {
        // SAFETY: the stream is alive.
        let code =
            self.device.code("cuStreamQuery", |calls| unsafe { (calls.cuStreamQuery)(self.handle()) })?;
        match code {
            cuda::SUCCESS => Ok(true),
            cuda::NOT_READY => Ok(false),
            code => Err(CudaError::Call { function: "cuStreamQuery", fault: cuda::classify(code) }),
        }
    }

    /// Counts one more thing to do, and waits while there are too many.
    pub(super) fn admit(&self) -> Result<(), CudaError> {
        let wants_mark = {
            let mut queue = self.queue();
            queue.unmarked += 1;
            queue.in_flight += 1;
            queue.unmarked >= UNMARKED
        };
        if wants_mark {
            self.mark()?;
        }
        loop {
            let reached = self.word(MARK).load(Ordering::Acquire);
            let oldest = {
                let mut queue = self.queue();
                queue.forget_reached(reached);
                (queue.in_flight > IN_FLIGHT).then(|| queue.marks.front().map(|mark| mark.0)).flatten()
            };
            let Some(oldest) = oldest else { return Ok(()) };
            self.wait_for(oldest)?;
        }
    }

    /// Blocks until the device has got to a mark.
    fn wait_for(&self, mark: u32) -> Result<(), CudaError> {
        let mut looks = 0_u32;
        while !self.has_reached(mark)? {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_A_QUERY) {
                // A fault shows nowhere else.
                self.is_empty()?;
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// [`wait_for`](Self::wait_for), but no longer than `span`. Gives whether the device has got there.
    fn waits_for(&self, mark: u32, span: Duration) -> Result<bool, CudaError> {
        let clock = Clock::system();
        let until = clock.now() + span;
        while !self.has_reached(mark)? {
            if clock.now() >= until {
                return Ok(false);
            }
            self.is_empty()?;
            std::thread::yield_now();
        }
        Ok(true)
    }

    /// Whoever waits for this line is wanted no more: kernels that look at the flag end.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.word(STOP).store(1, Ordering::Release);
    }

    /// What is told from here on is wanted again. Waits until what was stopped has ended.
    pub(super) fn resume(&self) -> Result<(), CudaError> {
        if self.stopped.load(Ordering::Relaxed) {
            while !self.is_empty()? {
                std::thread::yield_now();
            }
            self.word(STOP).store(0, Ordering::Release);
            self.stopped.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Everything that is told to this line from now on comes after what `other` was told so far.
    pub(super) fn follow(&self, other: &Self) -> Result<(), CudaError> {
        if ptr::eq(self, other) {
            return Ok(());
        }
        let mut event: Handle = ptr::null_mut();
        // SAFETY: there is room for a handle; both streams are alive; an event may be destroyed as soon as somebody waits for it.
        unsafe {
            self.device.call("cuEventCreate", |calls| (calls.cuEventCreate)(&raw mut event, NO_TIMING))?;
            let recorded =
                self.device.call("cuEventRecord", |calls| (calls.cuEventRecord)(event, other.handle()));
            let waited = recorded.and_then(|()| {
                self.device
                    .call("cuStreamWaitEvent", |calls| (calls.cuStreamWaitEvent)(self.handle(), event, 0))
            });
            self.device.call("cuEventDestroy_v2", |calls| (calls.cuEventDestroy_v2)(event))?;
            waited
        }
    }

    /// Device memory of at least so many bytes.
    pub(super) fn allocate(&self, bytes: usize) -> Result<(usize, Address), CudaError> {
        let bytes = size_class(bytes)?;
        if let Some(block) = self.queue().take_block(bytes) {
            return Ok(block);
        }
        let mut address = 0;
        let mut allocate = || {
            // SAFETY: there is room for an address.
            self.device
                .call("cuMemAlloc_v2", |calls| unsafe { (calls.cuMemAlloc_v2)(&raw mut address, bytes) })
        };
        match allocate() {
            Err(CudaError::Call { fault, .. }) if fault.name == OUT_OF_MEMORY => {
                // It may lie around in another line, or with one that is gone.
                self.device.trim(self)?;
                allocate()?;
            }
            allocated => allocated?,
        }
        Ok((bytes, address))
    }

    /// A block of device memory is not used by anything that comes next.
    pub(super) fn give_back(&self, bytes: usize, address: Address) {
        self.queue().blocks.push((bytes, address));
    }

    /// Pinned memory of at least so many bytes, that nothing under way uses.
    pub(super) fn pinned(&self, bytes: usize) -> Result<Pinned, CudaError> {
        let bytes = size_class(bytes)?;
        if let Some(pinned) = self.take_pinned(bytes) {
            return Ok(pinned);
        }
        if self.queue().pinned.len() >= MOST_PINNED {
            let mark = self.mark()?;
            self.wait_for(mark)?;
            if let Some(pinned) = self.take_pinned(bytes) {
                return Ok(pinned);
            }
            let others = std::mem::take(&mut self.queue().pinned);
            others.iter().for_each(|(pinned, _)| pinned.free(&self.device));
        }
        Pinned::new(&self.device, bytes)
    }

    fn take_pinned(&self, bytes: usize) -> Option<Pinned> {
        let reached = self.word(MARK).load(Ordering::Acquire);
        let mut queue = self.queue();
        let fits =
            |(pinned, mark): &(Pinned, u32)| is_reached(reached, *mark) && is_no_waste(pinned.bytes, bytes);
        let at = queue.pinned.iter().position(fits)?;
        Some(queue.pinned.swap_remove(at).0)
    }

    /// Pinned memory is free again from the next mark on.
    pub(super) fn give_back_pinned(&self, pinned: Pinned) {
        let mark = self.issued.load(Ordering::Acquire).wrapping_add(1);
        self.queue().pinned.push((pinned, mark));
    }

    /// Keeps shared memory from which the device was told to copy, or to which, until it has done that.
    #[cfg(feature = "worker")]
    pub(super) fn keep(&self, held: &Arc<Held>) {
        let next = self.issued.load(Ordering::Acquire).wrapping_add(1);
        self.queue().kept.push((Arc::clone(held), next));
        // Nothing else may follow in this line for long. A device that takes no mark is lost, and what it holds is kept.
        let _ = self.mark();
    }

    /// Lets go of what the device has finished with.
    pub(super) fn let_go(&self) {
        if self.asks.load(Ordering::Relaxed) {
            // It has to be asked for the word, too. A device that is lost holds what it holds.
            let _ = self.has_reached(self.issued.load(Ordering::Acquire));
        }
        let reached = self.word(MARK).load(Ordering::Acquire);
        self.queue().forget_reached(reached);
    }

    /// Gives the driver back what lies around here, once everything that was told here has been done: what uses it still, here or in a
    /// stream that this one follows, is among that.
    /// `patience`: for how long it waits for that; `None` for as long as it takes.
    pub(super) fn trim(&self, patience: Option<Duration>) -> Result<(), CudaError> {
        let blocks = std::mem::take(&mut self.queue().blocks);
        if blocks.is_empty() {
            return Ok(());
        }
        let is_over = self.mark().and_then(|mark| match patience {
            Some(patience) => self.waits_for(mark, patience),
            None => self.wait_for(mark).map(|()| true),
        });
        if !matches!(is_over, Ok(true)) {
            self.queue().blocks.extend(blocks);
            return is_over.map(drop);
        }
        for (_, address) in blocks {
            // SAFETY: nobody uses it: it was given back, and what used it is over.
            self.device.call("cuMemFree_v2", |calls| unsafe { (calls.cuMemFree_v2)(address) })?;
        }
        Ok(())
    }

    fn word(&self, word: usize) -> &AtomicU32 {
        // SAFETY: the words are pinned as long as the line lives, aligned, and touched by nobody but by atomic stores: these, and the device's.
        unsafe { AtomicU32::from_ptr(self.words.start.cast::<u32>().add(word)) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Line {
    /// What still runs there keeps what it uses until it ends.
    fn drop(&mut self) {
        let queue = std::mem::take(self.queue.get_mut().unwrap_or_else(PoisonError::into_inner));
        let remains = Remains {
            // SAFETY: it is taken once, here.
            stream: ManuallyDrop::new(unsafe { ManuallyDrop::take(&mut self.stream) }),
            pinned: queue.pinned.into_iter().map(|(pinned, _)| pinned).chain([self.words.take()]).collect(),
            blocks: queue.blocks.into_iter().map(|(_, address)| address).collect(),
            #[cfg(feature = "worker")]
            kept: queue.kept,
        };
        self.device.bury(remains);
    }
}

/// What a line leaves that is gone: to be freed when nothing runs there any more.
pub(super) struct Remains {
    /// Dropped by hand: nothing can be given back to a device that is lost.
    stream: ManuallyDrop<Arc<CudaStream>>,
    pinned: Vec<Pinned>,
    blocks: Vec<Address>,
    #[cfg(feature = "worker")]
    kept: Vec<(Arc<Held>, u32)>,
}

impl Remains {
    /// Frees all of it if nothing runs there; otherwise gives itself back. Of a device that is lost it stays where it is.
    pub(super) fn free(mut self, device: &Device) -> Option<Self> {
        let stream = self.stream.cu_stream() as Handle;
        // SAFETY: the stream is alive.
        let asked = device.code("cuStreamQuery", |calls| unsafe { (calls.cuStreamQuery)(stream) });
        match asked {
            Ok(cuda::SUCCESS) => {}
            Ok(_) => return Some(self),
            Err(_) => {
                #[cfg(feature = "worker")]
                std::mem::forget(std::mem::take(&mut self.kept));
                return None;
            }
        }
        for address in self.blocks.drain(..) {
            // One that the driver refuses stays until the process ends; so does pinned memory.
            // SAFETY: nobody uses it: it was given back, and its stream is at its end.
            let _ = device.call("cuMemFree_v2", |calls| unsafe { (calls.cuMemFree_v2)(address) });
        }
        self.pinned.drain(..).for_each(|pinned| pinned.free(device));
        if device.lost().is_none() {
            // SAFETY: it is dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.stream) };
        }
        None
    }
}

impl Queue {
    fn forget_reached(&mut self, reached: u32) {
        #[cfg(feature = "worker")]
        self.kept.retain(|(_, mark)| !is_reached(reached, *mark));
        while let Some((mark, launches)) = self.marks.front().copied() {
            if !is_reached(reached, mark) {
                break;
            }
            self.in_flight -= launches;
            self.marks.pop_front();
        }
    }

    /// A block, and how long it is.
    fn take_block(&mut self, bytes: usize) -> Option<(usize, Address)> {
        let at = self.blocks.iter().position(|(size, _)| is_no_waste(*size, bytes))?;
        Some(self.blocks.swap_remove(at))
    }
}

/// Marks are counted around: half of all numbers lie before one, half behind it.
fn is_reached(reached: u32, mark: u32) -> bool {
    reached.wrapping_sub(mark).cast_signed() >= 0
}

fn size_class(bytes: usize) -> Result<usize, CudaError> {
    let class = if bytes <= PAGE_BYTES {
        bytes.max(LEAST_BYTES).checked_next_power_of_two()
    } else {
        bytes.checked_next_multiple_of(PAGE_BYTES)
    };
    class.ok_or(CudaError::Length { wanted: bytes, there: usize::MAX })
}

/// Whether what is there is enough, and not too much more.
fn is_no_waste(there: usize, wanted: usize) -> bool {
    there >= wanted && there - wanted <= wanted / 8
}

const UNSUPPORTED: &str = "CUDA_ERROR_NOT_SUPPORTED";
const OUT_OF_MEMORY: &str = "CUDA_ERROR_OUT_OF_MEMORY";
/// `CU_EVENT_DISABLE_TIMING`.
const NO_TIMING: u32 = 2;
/// How often a full line asks the driver, in looks at the word.
const LOOKS_A_QUERY: u32 = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_reached_in_their_order_also_where_the_numbers_begin_again() {
        assert!(is_reached(5, 5) && is_reached(6, 5) && !is_reached(4, 5));
        assert!(is_reached(2, u32::MAX) && !is_reached(u32::MAX, 2));
    }

    #[test]
    fn launches_leave_the_count_with_the_mark_behind_them() {
        let mut queue = Queue { in_flight: 10, ..Queue::default() };
        queue.marks.extend([(1, 4), (2, 0), (3, 6)]);
        queue.forget_reached(2);
        assert_eq!((queue.in_flight, queue.marks.len()), (6, 1));
        queue.forget_reached(3);
        assert_eq!((queue.in_flight, queue.marks.len()), (0, 0));
    }

    #[test]
    fn sizes_are_rounded_up_so_that_what_is_given_back_fits_again() {
        assert_eq!([0, 1, 256, 257].map(|bytes| size_class(bytes).unwrap()), [256, 256, 256, 512]);
        let large = [PAGE_BYTES, PAGE_BYTES + 1, 41 << 30];
        assert_eq!(large.map(|bytes| size_class(bytes).unwrap()), [PAGE_BYTES, 2 * PAGE_BYTES, 41 << 30]);
        assert!(is_no_waste(1_125, 1_000) && !is_no_waste(1_126, 1_000) && !is_no_waste(999, 1_000));
        assert!(size_class(usize::MAX).is_err());
    }
}
