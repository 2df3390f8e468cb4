//! A process that was killed and has not been seen to end, with whatever it holds.

use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustkernel_core::clock::{Clock, Timestamp};

use super::premises::{Premises, Suspicion};
use super::process::Process;

/// A killed process is gone within this, or stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// A killed process that is not gone after so long makes its device suspect. The driver clears a large one away within seconds, and that is
/// no reason to give up a device.
pub(super) const SUSPECT_AFTER: Duration = Duration::from_secs(10);

/// Nobody counts on it any more.
pub(super) struct Dying {
    process: Process,
    killed: Timestamp,
    premises: Premises,
    /// Its device is suspect for as long as this is there.
    suspicion: Option<Suspicion>,
}

impl Dying {
    pub(super) fn new(process: Process, killed: Timestamp, premises: Premises) -> Self {
        Self { process, killed, premises, suspicion: None }
    }

    /// Whether it has ended after all; where it has not for too long, its device is suspect from now on.
    pub(super) fn has_ended(&mut self, now: Timestamp) -> bool {
        if self.process.end().is_some() {
            return true;
        }
        if self.suspicion.is_none() && now.saturating_since(self.killed) >= SUSPECT_AFTER {
            self.suspicion = Some(self.premises.suspect());
        }
        false
    }

    /// Whether it should have ended long ago.
    pub(super) fn is_stuck(&self, now: Timestamp) -> bool {
        now.saturating_since(self.killed) >= PATIENCE
    }

    /// When it becomes worse.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let suspect = || self.suspicion.is_none().then(|| self.killed + SUSPECT_AFTER);
        Some(self.killed + PATIENCE).filter(|stuck| *stuck > now).or_else(suspect)
    }

    /// Readable when it has ended.
    pub(super) fn watch(&self) -> BorrowedFd<'_> {
        self.process.watch()
    }

    /// Waits until it has ended, or should have.
    pub(super) fn ends_in_time(&mut self, clock: &Clock) -> bool {
        let until = self.killed + PATIENCE;
        loop {
            let now = clock.now();
            if self.has_ended(now) {
                return true;
            }
            if now >= until {
                return false;
            }
            let left = Timespec::try_from(until.saturating_since(now)).ok();
            let mut fds = [PollFd::from_borrowed_fd(self.watch(), PollFlags::IN)];
            // An interrupted wait is a short one.
            let _ = poll(&mut fds, left.as_ref());
        }
    }

    /// Waits for it on a thread of its own: nobody keeps its domain any more. Without a thread it is forgotten.
    pub(super) fn outlive(mut self, clock: Clock) {
        let waits = move || {
            while !self.has_ended(clock.now()) {
                let now = clock.now();
                let due = self.next_due(now).map(|due| due.saturating_since(now));
                let timeout = due.and_then(|due| Timespec::try_from(due).ok());
                let mut fds = [PollFd::from_borrowed_fd(self.watch(), PollFlags::IN)];
                // An interrupted wait is a short one.
                let _ = poll(&mut fds, timeout.as_ref());
            }
        };
        if let Err(error) = thread::Builder::new().name("dying worker".to_owned()).spawn(waits) {
            tracing::warn!(%error, "nobody waits for a process that does not end");
        }
    }
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use rustkernel_core::DeviceId;

    use super::super::mailbox::Mailbox;
    use super::super::memory::Memory;
    use super::super::pool::Pool;
    use super::super::process::WorkerCommand;
    use super::*;
    use crate::cuda::DeviceWatch;

    /// It was after two seconds, and a process with much memory to give back cost its neighbours their lives.
    #[test]
    fn a_device_is_suspect_when_a_killed_process_has_not_ended_for_ten_seconds_and_until_it_has() {
        let device = DeviceId::cuda(901);
        let premises = Premises::of(Some(device), &Mailbox::new().unwrap());
        // Nothing kills this one yet.
        let sleep = WorkerCommand::program("sleep").arguments(["60"]);
        let memory = Pool::new(Memory::new().unwrap(), false);
        let process = Process::start(&sleep, None, &memory).unwrap();
        let killed = Timestamp::ZERO;
        let mut dying = Dying::new(process, killed, premises);
        let watch = DeviceWatch::of(device);
        let almost = killed + SUSPECT_AFTER.saturating_sub(Duration::from_nanos(1));
        assert!(!dying.has_ended(almost) && watch.unfit().is_none());
        assert!(!dying.is_stuck(killed) && dying.is_stuck(killed + PATIENCE));
        assert_eq!(dying.next_due(killed), Some(killed + PATIENCE));
        assert_eq!(dying.next_due(killed + PATIENCE), Some(killed + SUSPECT_AFTER));
        assert!(!dying.has_ended(killed + SUSPECT_AFTER));
        assert!(watch.unfit().unwrap().contains("suspect"));
        assert_eq!(dying.next_due(killed + SUSPECT_AFTER), None);
        dying.process.kill();
        let mut fds = [PollFd::from_borrowed_fd(dying.watch(), PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        assert!(dying.has_ended(killed + SUSPECT_AFTER));
        drop(dying);
        assert!(watch.unfit().is_none());
    }
}
