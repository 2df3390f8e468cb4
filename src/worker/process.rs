//! One worker process, as the process that supervises it sees it.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustkernel_core::DeviceId;
use rustkernel_core::fault::{Fault, ProcessEnd, exit};

use super::border::Border;
use super::control;
use super::host::WORKER_VARIABLE;
use super::memory::{Access, Memory};
use super::pool::Pool;
use super::wire::ToWorker;

/// How a worker is started.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl WorkerCommand {
    /// This program again, as it was when it started: an upgrade on disk does not mix versions. Its `main` has to begin with
    /// [`init`](super::init).
    #[must_use]
    pub fn itself() -> Self {
        Self::program("/proc/self/exe")
    }

    /// Another program whose `main` begins with [`init`](super::init): for tests and libraries, whose own program has no such `main`.
    pub fn program(path: impl Into<PathBuf>) -> Self {
        Self { program: path.into(), arguments: Vec::new(), environment: Vec::new() }
    }

    /// What the program gets as arguments. Default nothing.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// A variable that the program finds beside those of this process, as `CUDA_VISIBLE_DEVICES`.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

impl Default for WorkerCommand {
    fn default() -> Self {
        Self::itself()
    }
}

/// A process that has been started and not yet been waited for.
pub(super) struct Process {
    child: Child,
    border: Arc<Border>,
    /// Readable when the process has ended; names it as long as it is open, whoever gets its number.
    pidfd: OwnedFd,
    pub(super) control: OwnedFd,
}

impl Process {
    /// Starts a worker, which is to map this `memory`. Its output goes where errors go: results are the supervising process's to print. Its
    /// group is its own, so that an interrupt from the terminal reaches the supervising process alone, which drains first.
    pub(super) fn start(
        command: &WorkerCommand,
        device: Option<DeviceId>,
        memory: &Arc<Pool>,
    ) -> io::Result<Self> {
        let (control, theirs) = control::pair()?;
        let answers = Memory::make(Access::Reads)?;
        let both = [memory.memory(), &answers];
        let message = ToWorker::Memory { reserved: both.map(|memory| memory.reserved() as u64) };
        control::send(&control, &message, &both.map(|memory| memory.fd().as_fd()))
            .map_err(io::Error::other)?;
        let returns = control.try_clone()?;
        let returns = move |numbers| control::send(&returns, &ToWorker::Returned { numbers }, &[]).is_ok();
        let border = Border::new(Arc::clone(memory), answers, Box::new(returns));
        let output = io::stderr().as_fd().try_clone_to_owned()?;
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .envs(command.environment.iter().map(|(name, value)| (name, value)))
            // A kernel's process has no business with it.
            .env_remove("RUSTKERNEL_TOKEN")
            .env(WORKER_VARIABLE, device.map_or_else(String::new, |device| device.to_string()))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(output))
            .process_group(0)
            .spawn()?;
        match open(&child) {
            Ok(pidfd) => Ok(Self { child, border, pidfd, control }),
            Err(error) => {
                // Nobody could watch it. It is a child still, so its number is its own.
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn border(&self) -> &Arc<Border> {
        &self.border
    }

    pub(super) fn watch(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Ends it, whatever it does. Its end is seen by [`end`](Self::end).
    pub(super) fn kill(&self) {
        // One that has ended already needs no signal.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// How it has ended, if it has; then nothing of it is left.
    pub(super) fn end(&mut self) -> Option<ProcessEnd> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(match (status.code(), status.signal()) {
                (Some(code), _) => ProcessEnd::Code(code),
                (None, Some(signal)) => ProcessEnd::Signal(signal),
                (None, None) => ProcessEnd::Unknown,
            }),
            // Somebody else has waited for it.
            Err(_) => Some(ProcessEnd::Unknown),
        }
    }
}

impl Drop for Process {
    /// It has ended, or nobody looks after it any more.
    fn drop(&mut self) {
        self.border.close();
    }
}

/// What the end of a worker means.
pub(super) fn fault_of(end: ProcessEnd) -> Fault {
    exit::classify(end)
}

fn open(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("pid", &self.pid()).finish_non_exhaustive()
    }
}
