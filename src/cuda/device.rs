//! A device as one process has it: its context, and whether it is lost.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::c_int;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use cudarc::driver::CudaContext;
use rustkernel_core::DeviceId;
use rustkernel_core::fault::{Fault, FaultClass, Observed, Poison, cuda};
use rustkernel_core::resilience::HealthCheckResult;

use super::line::{Line, Remains};
use super::module::Images;
#[cfg(feature = "worker")]
use super::pin::Pins;
use super::poller::Poller;
use super::stream::Stream;
use super::table::{Calls, Handle, table};
use super::{CudaDevice, CudaError, DeviceWatch, driver, probe};

/// A CUDA device, opened by this process. A clone is another handle to the same.
///
/// It is opened once and stays open until the process ends: what a fault leaves of a context only the end of its process clears away.
#[derive(Clone)]
pub struct Device(Arc<Opened>);

struct Opened {
    info: CudaDevice,
    limits: Limits,
    /// Never dropped: see [`Device`].
    context: Arc<CudaContext>,
    calls: &'static Calls,
    poison: Poison,
    listeners: Mutex<Vec<Listener>>,
    poller: Arc<Poller>,
    images: Images,
    #[cfg(feature = "worker")]
    pins: Pins,
    /// Those that are there, and some that were.
    lines: Mutex<Vec<Weak<Line>>>,
    /// Of lines that were busy when they went.
    remains: Mutex<Vec<Remains>>,
    /// One that was made already, with what was asked on it over.
    warm: Mutex<Option<Arc<Line>>>,
}

type Listener = Box<dyn FnOnce(Fault) + Send>;

/// What a launch may ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) block_threads: u32,
    pub(super) block: [u32; 3],
    pub(super) grid: [u32; 3],
    /// Shared memory of a block, in bytes, that needs no permission, and with it.
    pub(super) shared: [u32; 2],
}

/// The fault by which a device was lost, for whoever has the say in this process.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(all(feature = "worker", target_os = "linux")),
    expect(dead_code, reason = "only a worker process has somebody who asks")
)]
pub(crate) struct Loss {
    pub(crate) device: DeviceId,
    pub(crate) fault: Fault,
    /// The call that met it.
    pub(crate) function: &'static str,
    /// Whether this is the first that is heard of it.
    pub(crate) first: bool,
}

/// How long one line's want of memory waits for another line's work.
const TRIM_PATIENCE: Duration = Duration::from_millis(100);

/// Those that this process has opened.
static DEVICES: Mutex<Option<HashMap<u16, Device>>> = Mutex::new(None);

type WhenLost = Box<dyn Fn(Loss) -> Infallible + Send + Sync>;

static WHEN_LOST: OnceLock<WhenLost> = OnceLock::new();

/// Has `end` called, in place of an error, by every thread that finds a device lost. It ends the process. A second one is not heard.
#[cfg(all(feature = "worker", target_os = "linux"))]
pub(crate) fn when_lost(end: impl Fn(Loss) -> Infallible + Send + Sync + 'static) {
    let _first = WHEN_LOST.set(Box::new(end));
}

impl Device {
    /// The device of this ordinal, opened if this process has not opened it yet; that takes the time of making a context.
    ///
    /// # Errors
    /// [`CudaError`] says what is missing. What was not there may be there the next time.
    pub fn open(ordinal: u16) -> Result<Self, CudaError> {
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = devices.get_or_insert_default();
        if let Some(device) = devices.get(&ordinal) {
            return Ok(device.clone());
        }
        let device = Self::make(ordinal)?;
        if WHEN_LOST.get().is_none() {
            // A worker's device is watched by the process that the worker belongs to.
            device.watch().located(&device.info().pci, device.info().memory_bytes);
        }
        devices.insert(ordinal, device.clone());
        Ok(device)
    }

    /// Those that this process has opened.
    #[cfg(feature = "worker")]
    pub(super) fn all() -> Vec<Self> {
        let devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        devices.iter().flatten().map(|(_, device)| device.clone()).collect()
    }

    /// Lets go of what the device has finished with.
    #[cfg(feature = "worker")]
    pub(super) fn tidy(&self) {
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lines.iter().filter_map(Weak::upgrade).for_each(|line| line.let_go());
        self.reap();
    }

    fn make(ordinal: u16) -> Result<Self, CudaError> {
        let table = table()?;
        driver::init(&table.basics)?;
        let count = driver::device_count(&table.basics)?;
        if count == 0 {
            return Err(CudaError::NoDevice);
        }
        if ordinal >= count {
            return Err(CudaError::NoSuchDevice { device: DeviceId::cuda(ordinal), count });
        }
        let info = driver::device(&table.basics, ordinal)?;
        let limits = Limits::of(ordinal)?;
        let context = CudaContext::new(usize::from(ordinal)).map_err(|error| CudaError::Call {
            function: "cuDevicePrimaryCtxRetain",
            fault: cuda::classify(error.0 as c_int),
        })?;
        // SAFETY: streams order their own work, and `Buffer` orders what goes from one to another.
        unsafe { context.disable_event_tracking() };
        Ok(Self(Arc::new(Opened {
            info,
            limits,
            context,
            calls: &table.calls,
            poison: Poison::new(),
            listeners: Mutex::default(),
            poller: Poller::new(),
            images: Images::default(),
            #[cfg(feature = "worker")]
            pins: Pins::default(),
            lines: Mutex::default(),
            warm: Mutex::default(),
            remains: Mutex::default(),
        })))
    }

    /// Its name: `cuda:0`.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.0.info.id
    }

    /// What the driver says of it.
    #[must_use]
    pub fn info(&self) -> &CudaDevice {
        &self.0.info
    }

    /// Memory that is free on it and that it has, in bytes, whoever uses it.
    ///
    /// # Errors
    /// [`CudaError::Lost`], or the call's own fault.
    pub fn memory(&self) -> Result<(u64, u64), CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: there is room for both numbers.
        self.call("cuMemGetInfo_v2", |calls| unsafe {
            (calls.cuMemGetInfo_v2)(&raw mut free, &raw mut total)
        })?;
        Ok((free as u64, total as u64))
    }

    /// A new stream: what it is told happens in that order, beside what other streams do. A kernel makes its own.
    ///
    /// # Errors
    /// [`CudaError::Lost`], or the call's own fault.
    pub fn stream(&self) -> Result<Stream, CudaError> {
        self.check("cuStreamCreate")?;
        let warm = self.warm().take();
        warm.map_or_else(|| Stream::new(self), |line| Ok(Stream::of(line)))
    }

    /// The next stream may be this one: while the driver clears away after a process that has died, a new one takes milliseconds.
    pub(super) fn keep_warm(&self, line: &Arc<Line>) {
        let last = self.warm().replace(Arc::clone(line));
        // Without the lock: what a line leaves is given back by calls.
        drop(last);
    }

    fn warm(&self) -> MutexGuard<'_, Option<Arc<Line>>> {
        self.0.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the device something whose answer is known: for a canary, and before a process says that it is ready.
    ///
    /// # Errors
    /// What failed, or [`CudaError::WrongAnswer`].
    pub fn probe(&self) -> Result<(), CudaError> {
        probe::probe(self)
    }

    /// The fault by which it was lost to this process; `None` while it is not known to be.
    #[must_use]
    pub fn lost(&self) -> Option<Fault> {
        self.0.poison.fault()
    }

    /// Whether the driver has not answered a question about this device for `span`. Such a process helps nobody any more: a watchdog that is
    /// fed while this holds is fed for nothing.
    #[must_use]
    pub fn is_stuck(&self, span: Duration) -> bool {
        self.0.poller.is_stuck(span)
    }

    /// Has `listener` called when the device is lost, on the thread that finds it; at once if it is lost already.
    pub fn on_loss(&self, listener: impl FnOnce(Fault) + Send + 'static) {
        let mut listeners = self.listeners();
        match self.lost() {
            None => listeners.push(Box::new(listener)),
            Some(fault) => {
                drop(listeners);
                listener(fault);
            }
        }
    }

    /// What is known of it beside the answers to calls.
    #[must_use]
    pub fn watch(&self) -> DeviceWatch {
        DeviceWatch::of(self.id())
    }

    /// The same as a health check tells it: unhealthy from the first fault that loses the device, for as long as the process lives; as
    /// its [watch](Self::watch) has it otherwise.
    #[must_use]
    pub fn health(&self) -> HealthCheckResult {
        match self.lost() {
            None => self.watch().health(),
            Some(fault) => HealthCheckResult::unhealthy(format!(
                "lost to this process since {} ({}); only its end helps",
                fault.name, fault.code
            )),
        }
    }

    /// The context, for libraries that take one of cudarc. What they do is not watched: a fault that they meet is found by the next
    /// call that is made through here.
    #[must_use]
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.0.context
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(super) fn poller(&self) -> &Arc<Poller> {
        &self.0.poller
    }

    /// A new line of its own.
    pub(super) fn enlist(&self, line: &Arc<Line>) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(line));
    }

    /// A line is gone: what it leaves is freed once nothing runs there.
    pub(super) fn bury(&self, remains: Remains) {
        if let Some(busy) = remains.free(self) {
            self.remains().push(busy);
        }
    }

    /// Frees what lines have left behind that were busy when they went.
    pub(super) fn reap(&self) {
        let remains = std::mem::take(&mut *self.remains());
        let busy: Vec<_> = remains.into_iter().filter_map(|remains| remains.free(self)).collect();
        self.remains().extend(busy);
    }

    /// Gives the driver back what lies around unused, in whatever line, for the sake of `own`. Whoever wants memory waits for its own work, and not
    /// long for anybody else's.
    pub(super) fn trim(&self, own: &Line) -> Result<(), CudaError> {
        self.reap();
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Without the lock: the last to hold a line drops it.
        lines
            .iter()
            .filter_map(Weak::upgrade)
            .try_for_each(|line| line.trim((!std::ptr::eq(&*line, own)).then_some(TRIM_PATIENCE)))
    }

    fn remains(&self) -> MutexGuard<'_, Vec<Remains>> {
        self.0.remains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn images(&self) -> &Images {
        &self.0.images
    }

    #[cfg(feature = "worker")]
    pub(super) fn pins(&self) -> &Pins {
        &self.0.pins
    }

    /// A call for this device's context, from any thread. `Ok` where it succeeded and the device is not known to be lost.
    pub(super) fn call(
        &self,
        function: &'static str,
        call: impl FnOnce(&Calls) -> c_int,
    ) -> Result<(), CudaError> {
        self.code(function, call).and_then(|code| self.accept(function, code))
    }

    /// [`call`](Self::call) for a question: its code, also one that is no success.
    pub(super) fn code(
        &self,
        function: &'static str,
        call: impl FnOnce(&Calls) -> c_int,
    ) -> Result<c_int, CudaError> {
        self.check(function)?;
        let calls = self.0.calls;
        // SAFETY: the context is alive for as long as the process is.
        let entered = unsafe { (calls.cuCtxSetCurrent)(self.0.context.cu_ctx() as Handle) };
        self.accept("cuCtxSetCurrent", entered)?;
        let code = call(calls);
        match self.0.poison.observe(code) {
            Observed::Success | Observed::Fault(_) => Ok(code),
            Observed::Poisoned { fault, first } => Err(self.is_lost(fault, function, first)),
        }
    }

    /// Whether anything that it says can still be believed.
    pub(super) fn check(&self, function: &'static str) -> Result<(), CudaError> {
        self.lost().map_or(Ok(()), |fault| Err(self.is_lost(fault, function, false)))
    }

    fn accept(&self, function: &'static str, code: c_int) -> Result<(), CudaError> {
        match self.0.poison.observe(code) {
            Observed::Success => Ok(()),
            Observed::Fault(fault) if fault.class == FaultClass::NotAnError => Ok(()),
            Observed::Fault(fault) => Err(CudaError::Call { function, fault }),
            Observed::Poisoned { fault, first } => Err(self.is_lost(fault, function, first)),
        }
    }

    fn is_lost(&self, fault: Fault, function: &'static str, first: bool) -> CudaError {
        let device = self.id();
        if first {
            tracing::error!(%device, function, code = %fault.code, "{} loses the device", fault.name);
            self.watch().note_fault(fault);
            let listeners = std::mem::take(&mut *self.listeners());
            listeners.into_iter().for_each(|listener| listener(fault));
        }
        if let Some(end) = WHEN_LOST.get() {
            end(Loss { device, fault, function, first });
        }
        self.0.poller.look();
        CudaError::Lost { device, fault }
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limits {
    /// `CUdevice_attribute` numbers, in the order of the fields.
    fn of(ordinal: u16) -> Result<Self, CudaError> {
        let basics = &table()?.basics;
        let mut device = 0;
        // SAFETY: there is room for a number.
        let got = unsafe { (basics.cuDeviceGet)(&raw mut device, c_int::from(ordinal)) };
        if got != cuda::SUCCESS {
            return Err(CudaError::Call { function: "cuDeviceGet", fault: cuda::classify(got) });
        }
        let limit = |number| driver::attribute(basics, device, number).map(c_int::unsigned_abs);
        Ok(Self {
            block_threads: limit(1)?,
            block: [limit(2)?, limit(3)?, limit(4)?],
            grid: [limit(5)?, limit(6)?, limit(7)?],
            shared: [limit(8)?, limit(97)?],
        })
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("id", &self.id()).field("lost", &self.lost()).finish_non_exhaustive()
    }
}
