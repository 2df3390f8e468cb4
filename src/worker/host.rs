//! A process in worker mode: it makes the kernels it is asked for, each on a thread of its own behind a socket of its own, and ends with the
//! process that started it.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::net::SocketType;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::envelope::Header;
use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};
use rustkernel_core::trace::TraceContext;
use rustkernel_core::traits::{Context, Signal as Stop};
use tokio::runtime::Handle;
use tokio::signal::unix::{self, Signal as UnixSignal, SignalKind};

use super::border::{Border, Message};
use super::code::Code;
use super::control::{Received, receive, send};
use super::device;
use super::eager::{Eager, Eagerness};
use super::janitor::Janitor;
use super::kernels::{Kernels, Resident};
use super::memory::{Access, Memory};
use super::outbox::{Outbox, Sender};
use super::parcel::{Packed, Parcel};
use super::pool::Pool;
use super::wire::{
    Failure, FromKernel, FromWorker, Inbox, Load, PROTOCOL, Run, ToKernel, ToWorker, WireError,
};
use super::wire::{MAX_BODY_BYTES, read, text, write};

/// Set for a process that is to be a worker, to the device that it is to have, if any; its control socket is its standard input.
pub(super) const WORKER_VARIABLE: &str = "RUSTKERNEL_WORKER";

/// Whether this process was started as a worker. What a worker's kernels start inherits the variable, and not the socket.
pub(super) fn is_worker() -> bool {
    let kind = || rustix::net::sockopt::socket_type(std::io::stdin());
    std::env::var_os(WORKER_VARIABLE).is_some() && kind().is_ok_and(|kind| kind == SocketType::SEQPACKET)
}

/// What everything in the worker shares.
pub(super) struct Host {
    kernels: Kernels,
    control: OwnedFd,
    /// With the supervising process.
    border: Arc<Border>,
    janitor: Janitor,
    clock: Clock,
    /// Sends the answers that would be late.
    late: Arc<Sender>,
    /// The request in execution, by kernel.
    running: Mutex<HashMap<u64, Arc<Running>>>,
}

/// What one kernel is doing.
#[derive(Default)]
struct Running(Mutex<Work>);

#[derive(Default)]
struct Work {
    /// The last execution that has ended. They come in the order of their numbers.
    done: u64,
    stop: Arc<Stop>,
    /// Up to this execution, running or still to come, nobody wants any.
    cancelled: u64,
    /// Of these somebody waits to hear that they have ended.
    awaited: Vec<u64>,
    /// What stood for the kernel is gone, and has read the answers until this execution.
    left: Option<u64>,
}

/// Serves until the supervising process closes the control socket or dies.
#[allow(clippy::exit, reason = "a worker has nothing to return to: its main is another program's")]
pub(super) fn serve(kernels: Kernels) -> ! {
    let code = match host(kernels) {
        Ok(()) => 0,
        // It was let go of while it said something.
        Err(WireError::Io(error)) if is_closed(&error) => 0,
        Err(error) => {
            eprintln!("rustkernel worker {}: {error}", process::id());
            1
        }
    };
    process::exit(code)
}

fn host(kernels: Kernels) -> Result<(), WireError> {
    // Should the supervising process die without closing anything, this one goes with it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    let control = std::io::stdin().as_fd().try_clone_to_owned()?;
    // What kernels start inherits the standard input, and shall not take the messages out of there.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?).map_err(std::io::Error::from)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _signals = leave_signals_to_the_parent(&runtime)?;
    let names = kernels.names().map(str::to_owned).collect();
    let Some(border) = map_memory(&control)? else { return Ok(()) };
    let host = Arc::new(Host {
        kernels,
        control,
        border,
        janitor: Janitor::start()?,
        clock: Clock::system(),
        late: Sender::start()?,
        running: Mutex::default(),
    });
    let device = match device::open(&host) {
        Ok(device) => device,
        Err(unable) => return host.tell(&unable),
    };
    host.tell(&FromWorker::Hello { protocol: PROTOCOL, kernels: names, device })?;
    let mut buffer = Vec::new();
    loop {
        let (message, beside) = match receive(&host.control, &mut buffer, true)? {
            Received::Message(message, beside) => (message, beside),
            Received::Nothing => continue,
            Received::Closed => return Ok(()),
        };
        match message {
            ToWorker::Attach { kernel, name, settings } => {
                let Ok([socket]) = <[OwnedFd; 1]>::try_from(beside) else {
                    // There was no room for them among this process's open files.
                    host.tell(&FromWorker::Gone { kernel, read: 0 })?;
                    continue;
                };
                host.attach(runtime.handle(), kernel, name, settings, socket)?;
            }
            ToWorker::Cancel { kernel, request } => host.cancel(kernel, request)?,
            ToWorker::Ping => {
                host.tell(&FromWorker::Pong)?;
                host.border.return_all();
                host.janitor.tidy();
            }
            ToWorker::Returned { numbers } => host.janitor.take(host.border.take_back(&numbers)),
            ToWorker::Left { kernel, read } => {
                if let Some(running) = host.running().get(&kernel) {
                    running.lock().left = Some(read);
                }
                host.janitor.take(host.border.forget(kernel, read));
            }
            ToWorker::Prepare { code } => device::prepare(code, beside),
            ToWorker::Memory { .. } => return Err(WireError::Unasked),
        }
    }
}

/// The first message: the memory that this process shares with the one that it belongs to. `None` where that is gone.
fn map_memory(control: &OwnedFd) -> Result<Option<Arc<Border>>, WireError> {
    let mut buffer = Vec::new();
    match receive(control, &mut buffer, true)? {
        Received::Message(ToWorker::Memory { reserved }, beside) => {
            let [theirs, own] = <[OwnedFd; 2]>::try_from(beside).map_err(|_| WireError::Unasked)?;
            let [of_theirs, of_own] = reserved.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
            // A device that copies from there by itself wants it writable.
            let access = if device::is_gpu_wanted() { Access::Writes } else { Access::Reads };
            let own = Memory::map(own, of_own, Access::Writes);
            let mapped = own.and_then(|own| Ok((own, Memory::map(theirs, of_theirs, access)?)));
            let (own, theirs) = match mapped {
                Ok(mapped) => mapped,
                Err(error) => {
                    let unable = FromWorker::Unable { reason: error.to_string(), for_good: true };
                    return send(control, &unable, &[]).map(|()| None);
                }
            };
            let returns = control.try_clone()?;
            let returns = move |numbers| send(&returns, &FromWorker::Returned { numbers }, &[]).is_ok();
            let own = Pool::new(own, device::is_gpu_wanted());
            let border = Border::new(own, theirs, Box::new(returns));
            Border::set_of_worker(&border);
            Ok(Some(border))
        }
        Received::Message(..) => Err(WireError::Unasked),
        Received::Nothing | Received::Closed => Ok(None),
    }
}

impl Host {
    /// What finds no room is not worth waiting for: a parent that does not read is stopped, or gone.
    pub(super) fn tell(&self, message: &FromWorker) -> Result<(), WireError> {
        match send(&self.control, message, &[]) {
            Err(WireError::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }

    /// Says that it has loaded code. Where there is no room for that, whoever comes next loads it when it is wanted.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only devices load code"))]
    pub(super) fn tell_loaded(&self, code: Code, file: &OwnedFd) {
        let _ = send(&self.control, &FromWorker::Loaded { code }, &[file.as_fd()]);
    }

    /// Starts a kernel on a thread of its own.
    fn attach(
        self: &Arc<Self>,
        handle: &Handle,
        kernel: u64,
        name: String,
        settings: Vec<u8>,
        socket: OwnedFd,
    ) -> Result<(), WireError> {
        let (host, handle, running) = (Arc::clone(self), handle.clone(), Arc::new(Running::default()));
        self.running().insert(kernel, Arc::clone(&running));
        let refused = socket.try_clone();
        let spawned = thread::Builder::new().name(name.clone()).spawn(move || {
            let _in_runtime = handle.enter();
            let tenant = Tenant { host: &host, kernel, running: &running, read: Cell::new(0) };
            tenant.live(&name, &settings, socket.into());
            host.running().remove(&kernel);
            let left = running.lock().left;
            if let Some(read) = left {
                // It has answered since.
                host.janitor.take(host.border.forget(kernel, read));
            }
            // A worker that cannot say so any more is about to end.
            let _ = host.tell(&FromWorker::Gone { kernel, read: tenant.read.get() });
        });
        let Err(error) = spawned else { return Ok(()) };
        self.running().remove(&kernel);
        if let Ok(socket) = refused {
            let error = Failure::of(&KernelError::exhausted(error));
            // Whoever asked is gone, or hears it.
            let _ = write(&mut UnixStream::from(socket), &FromKernel::Made(Err(error)), &[]);
        }
        self.tell(&FromWorker::Gone { kernel, read: 0 })
    }

    fn cancel(&self, kernel: u64, request: u64) -> Result<(), WireError> {
        let running = self.running().get(&kernel).cloned();
        let runs = running.is_some_and(|running| {
            let mut work = running.lock();
            let runs = request > work.done;
            if runs {
                work.cancelled = work.cancelled.max(request);
                work.awaited.push(request);
                work.stop.raise();
            }
            runs
        });
        if runs { Ok(()) } else { self.tell(&FromWorker::Ended { kernel, request }) }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One kernel on its thread.
struct Tenant<'a> {
    host: &'a Host,
    kernel: u64,
    running: &'a Running,
    /// The last execution that it was asked for.
    read: Cell<u64>,
}

impl Tenant<'_> {
    /// Makes the kernel and serves its socket until that is closed, or the kernel panics.
    fn live(&self, name: &str, settings: &[u8], mut socket: UnixStream) {
        let made = guarded(|| match self.host.kernels.maker(name) {
            Some(maker) => maker.make(settings),
            None => Err(KernelError::permanent(format!("the worker knows no kernel called `{name}`"))),
        });
        let mut kernel = match made {
            Ok(Ok(kernel)) => {
                if write(&mut socket, &FromKernel::Made(Ok(())), &[]).is_err() {
                    return drop_contained(kernel);
                }
                kernel
            }
            Ok(Err(error)) => {
                // Whoever asked is gone, or hears it; so below.
                let _ = write(&mut socket, &FromKernel::Made(Err(Failure::of(&error))), &[]);
                return;
            }
            Err(panic) => {
                let _ = write(&mut socket, &FromKernel::Panicked(text(panic)), &[]);
                return;
            }
        };
        let mut outbox = match socket.try_clone() {
            Ok(socket) => Outbox::new(socket, &self.host.late),
            Err(error) => return eprintln!("rustkernel worker {}: {name}: {error}", process::id()),
        };
        match guarded(|| self.serve(&mut *kernel, &socket, &mut outbox)) {
            Ok(Ok(())) => {}
            Ok(Err(WireError::Io(error))) if is_closed(&error) => {}
            Ok(Err(error)) => eprintln!("rustkernel worker {}: {name}: {error}", process::id()),
            Err(panic) => {
                outbox.expect(false);
                let _ = outbox.put(&FromKernel::Panicked(text(panic)), &[]);
            }
        }
        self.end();
        drop_contained(kernel);
    }

    /// It executes nothing more: whoever waits for the end of what was cancelled hears of it, before the kernel takes its time to be dropped.
    fn end(&self) {
        let awaited = {
            let mut work = self.running.lock();
            work.done = u64::MAX;
            work.awaited.drain(..).max()
        };
        if let Some(request) = awaited {
            // A worker that cannot say so any more is about to end.
            let _ = self.host.tell(&FromWorker::Ended { kernel: self.kernel, request });
        }
    }

    fn serve(
        &self,
        kernel: &mut dyn Resident,
        socket: &UnixStream,
        outbox: &mut Outbox,
    ) -> Result<(), WireError> {
        let (mut inbox, mut eagerness) = (Inbox::default(), Eagerness::new());
        loop {
            let is_asked = inbox.has_next()?;
            if !is_asked {
                outbox.flush()?;
            }
            let mut eager = Eager { socket, eagerness: &mut eagerness };
            let Some(((message, load), inline)) = read::<(ToKernel, Load)>(&mut eager, &mut inbox)? else {
                return Ok(());
            };
            if !is_asked {
                outbox.begin();
            }
            outbox.expect(inbox.has_next()?);
            self.read.set(message.request());
            let parcel = Parcel::new(load, inline, &self.host.border)?;
            match message {
                ToKernel::Run(run) => {
                    let mut written = None;
                    let mut answer = |output: Packed<'_>| {
                        written = Some(self.answer(outbox, run.request, output));
                    };
                    let ran = self.run(kernel, run, parcel, &mut answer);
                    match (written, ran) {
                        (Some(written), _) => written?,
                        (None, Err(error)) => self.refuse(outbox, run.request, &error)?,
                        (None, Ok(())) => return Err(WireError::Unasked),
                    }
                }
                ToKernel::Save { request } => match self.during(request, || kernel.save()) {
                    Ok(state) => self.answer(outbox, request, Packed::plain(&state))?,
                    Err(error) => self.refuse(outbox, request, &error)?,
                },
                ToKernel::Restore { request } => {
                    let state = parcel.into_bytes();
                    match self.during(request, || kernel.restore(&state)) {
                        Ok(()) => self.answer(outbox, request, Packed::plain(&[]))?,
                        Err(error) => self.refuse(outbox, request, &error)?,
                    }
                }
            }
        }
    }

    fn answer(&self, outbox: &mut Outbox, request: u64, output: Packed<'_>) -> Result<(), WireError> {
        if output.bytes.len() as u64 > MAX_BODY_BYTES {
            let error = KernelError::exhausted("the answer is longer than an answer may be");
            return self.refuse(outbox, request, &error);
        }
        self.host.border.return_all();
        let message = Message { kernel: self.kernel, request };
        let sent = output.send(&self.host.border, message, |load, inline| {
            match outbox.put(&FromKernel::Done { request, result: Ok(()), load }, inline) {
                Err(error @ WireError::TooLong { .. }) => Err(KernelError::exhausted(error)),
                sent => Ok(sent),
            }
        });
        match sent {
            Ok(sent) => sent,
            // The answer itself cannot be sent; its caller is told.
            Err(error) => self.refuse(outbox, request, &error),
        }
    }

    fn refuse(&self, outbox: &mut Outbox, request: u64, error: &KernelError) -> Result<(), WireError> {
        self.host.border.return_all();
        let result = Err(Failure::of(error));
        outbox.put(&FromKernel::Done { request, result, load: Load::none() }, &[])
    }

    /// Whoever cancels it hears of its end.
    fn during<T>(&self, request: u64, work: impl FnOnce() -> T) -> T {
        let _ended = Ended { tenant: self, request };
        work()
    }

    fn run(
        &self,
        kernel: &mut dyn Resident,
        run: Run,
        input: Parcel,
        answer: &mut dyn FnMut(Packed<'_>),
    ) -> Result<(), KernelError> {
        let stop = Arc::new(Stop::new());
        let is_cancelled = {
            let mut work = self.running.lock();
            work.stop = Arc::clone(&stop);
            run.request <= work.cancelled
        };
        // However it ends, whoever cancelled it hears of the end.
        let _ended = Ended { tenant: self, request: run.request };
        if is_cancelled {
            return Err(KernelError::new(KernelErrorKind::Cancelled, Phase::Queued));
        }
        let deadline = run.due.map_or(Timestamp::NEVER, |due| self.host.clock.now() + due.remaining());
        let header = Header {
            attempt: run.attempt,
            retry_budget: run.retry_budget,
            degraded: run.degraded,
            suspect: run.suspect,
            ..Header::new(run.id, deadline)
        };
        let mut cx =
            Context::new(header, run.incarnation, &self.host.clock, [&stop, &NEVER]).in_trace(run.trace);
        let _entered = run.trace.map(TraceContext::enter);
        kernel.run(&self.host.border, input, &mut cx, answer)
    }
}

/// Signals to the service reach its workers too, where they are in one group for whoever sends them. They are the parent's to act on: it
/// drains first, and ends its workers itself.
fn leave_signals_to_the_parent(runtime: &tokio::runtime::Runtime) -> std::io::Result<[UnixSignal; 3]> {
    let _in_runtime = runtime.enter();
    Ok([
        unix::signal(SignalKind::terminate())?,
        unix::signal(SignalKind::interrupt())?,
        unix::signal(SignalKind::hangup())?,
    ])
}

struct Ended<'a> {
    tenant: &'a Tenant<'a>,
    request: u64,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let is_awaited = {
            let mut work = self.tenant.running.lock();
            work.done = self.request;
            let at = work.awaited.iter().position(|request| *request == self.request);
            at.map(|at| work.awaited.swap_remove(at)).is_some()
        };
        if is_awaited {
            let ended = FromWorker::Ended { kernel: self.tenant.kernel, request: self.request };
            // A worker that cannot say so any more is about to end.
            let _ = self.tenant.host.tell(&ended);
        }
    }
}

/// Whether the other side has gone, with something unread or unwritten.
fn is_closed(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// User code; its panic is its kernel's, and comes back as text.
fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        text.unwrap_or_else(|| "a panic without a text".to_owned())
    })
}

/// After a panic of its own it may panic again.
fn drop_contained(kernel: Box<dyn Resident>) {
    let _ = guarded(move || drop(kernel));
}

/// Nothing stops a request in a worker but its own cancellation: a fenced kernel's process is killed.
static NEVER: Stop = Stop::new();
