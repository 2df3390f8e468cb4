//! This program again, in a process that has a limit.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, set_parent_process_death_signal,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
    /// It had to be killed at its limit; `false` where it has not ended even so: it is stuck in the system.
    Limit(bool),
}

/// A process that was started, with everything that it will have said on its standard output.
pub(crate) struct Started {
    child: Child,
    pidfd: OwnedFd,
    output: JoinHandle<String>,
}

/// How long a process that was killed may take to end.
const DYING: Duration = Duration::from_secs(10);

/// This program again, with these arguments.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).stdin(Stdio::null());
    command
}

impl Started {
    /// Starts it in a group of its own, which is killed as a whole.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let (started, output) = Self::start_open(command)?;
        Ok(started.listening(output))
    }

    /// The same, whose output the caller reads: for one that has to be heard while it runs.
    pub(crate) fn start_open(command: &mut Command) -> io::Result<(Silent, ChildStdout)> {
        let mut child = command.stdout(Stdio::piped()).process_group(0).spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let pidfd = pidfd_open(pid(&child)?, PidfdFlags::empty())?;
        Ok((Silent { child, pidfd }, output))
    }

    /// Waits for its end, and brings that about at the limit.
    pub(crate) fn end(self, limit: Duration) -> io::Result<(End, String)> {
        let Self { child, pidfd, output } = self;
        let end = Silent { child, pidfd }.end(limit)?;
        let said = if end == End::Limit(false) { String::new() } else { output.join().unwrap_or_default() };
        Ok((end, said))
    }
}

/// A process whose output somebody else reads.
pub(crate) struct Silent {
    child: Child,
    pidfd: OwnedFd,
}

impl Silent {
    fn listening(self, mut output: ChildStdout) -> Started {
        let output = thread::spawn(move || {
            let mut bytes = Vec::new();
            // What it said before its output broke off is what it said.
            let _ = output.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Started { child: self.child, pidfd: self.pidfd, output }
    }

    /// Ends it and all that it has started in its group.
    pub(crate) fn kill(&self) -> io::Result<()> {
        // It has not been waited for, so that its number is its own.
        Ok(kill_process_group(pid(&self.child)?, Signal::KILL)?)
    }

    /// See [`Started::end`].
    pub(crate) fn end(mut self, limit: Duration) -> io::Result<End> {
        let mut killed = false;
        if !self.has_ended(limit)? {
            self.kill()?;
            killed = true;
            if !self.has_ended(DYING)? {
                return Ok(End::Limit(false));
            }
        }
        let status = self.child.wait()?;
        Ok(match (killed, status.code(), status.signal()) {
            (true, _, _) => End::Limit(true),
            (false, Some(code), _) => End::Code(code),
            (false, None, signal) => End::Signal(signal.unwrap_or(0)),
        })
    }

    fn has_ended(&self, limit: Duration) -> io::Result<bool> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut watched = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        Ok(poll(&mut watched, Some(&limit))? > 0)
    }
}

/// This process ends when its parent does: nobody would read what it finds.
pub(crate) fn end_with_parent() {
    // Without it, its limit ends it.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// What this process has to tell, on a line that is found among whatever else is printed.
pub(crate) fn tell(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => println!("{TOLD}{text}"),
        Err(error) => eprintln!("{error}"),
    }
    // A reader that is gone has no use for it.
    let _ = io::stdout().flush();
}

/// What a process has told, if it has.
pub(crate) fn told<T: DeserializeOwned>(output: &str) -> Option<T> {
    output.lines().rev().find_map(|line| serde_json::from_str(line.strip_prefix(TOLD)?).ok())
}

fn pid(child: &Child) -> io::Result<Pid> {
    let pid = Pid::from_raw(child.id().cast_signed());
    pid.ok_or_else(|| io::Error::other("a process without a number"))
}

const TOLD: &str = "told: ";
