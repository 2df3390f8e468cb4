//! What people ask of a supervisor at run time, with OTP's answers.

use super::{Mode, Stage, SupervisorMachine, Then};
use crate::clock::Timestamp;
use crate::resilience::InvalidConfig;
use crate::supervision::action::End;
use crate::supervision::child::{Ask, Child, ChildKey, ChildSpec};
use crate::supervision::config::Strategy;

/// Why a supervisor does not do what it is asked. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no child of this name.
    #[error("there is no such child")]
    NotFound,
    /// A child of this name is running, starting or held.
    #[error("a child of this name is running already")]
    Running,
    /// A child of this name is there but does not run: it is down, and can be restarted or deleted, or waits for its restart.
    #[error("a child of this name is there already, not running: restart or delete it")]
    AlreadyPresent,
    /// The child waits for its restart.
    #[error("the child is about to be restarted")]
    Restarting,
    /// There are as many children as there may be.
    #[error("the supervisor has as many children as it may: {max_children}")]
    MaxChildren {
        /// How many that is.
        max_children: u32,
    },
    /// Dynamic children are forgotten when they end: there is nothing to restart or delete.
    #[error("a dynamic supervisor keeps no ended children")]
    Dynamic,
    /// The supervisor has not started yet, or is ending.
    #[error("the supervisor is not running")]
    NotRunning,
    /// A rule of the child is broken.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
}

impl SupervisorMachine {
    /// Adds a child and starts it, after what is under way in its group. If it does not start, it never was.
    ///
    /// # Errors
    /// [`Refusal`] says why there is no such child now.
    pub fn start_child(&mut self, spec: ChildSpec, now: Timestamp) -> Result<ChildKey, Refusal> {
        self.must_run()?;
        self.config.validate_child(&spec.rules)?;
        if let Some(present) = self.names.get(&spec.name).and_then(|key| self.children.get(key)) {
            let runs = present.is_alive() || present.stage == Stage::Held;
            return Err(if runs { Refusal::Running } else { Refusal::AlreadyPresent });
        }
        let max_children = self.config.max_children;
        if self.children.len() >= max_children as usize {
            return Err(Refusal::MaxChildren { max_children });
        }
        let key = self.insert(spec, Stage::Planned, Ask::Add);
        self.start_in_turn(key, now);
        Ok(key)
    }

    /// Ends a child; what waits for its restart is not restarted. One that is down already is as it should be, and one whose supervisor
    /// is ending is stopped in its turn. The child is
    /// [settled](super::Action::Settled), or [forgotten](super::Action::Forget) if it is temporary or dynamic.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn terminate_child(&mut self, name: &str, now: Timestamp) -> Result<ChildKey, Refusal> {
        let (key, stage) = self.find(name)?;
        if matches!(self.mode, Mode::Ending(..) | Mode::Ended) {
            return Ok(key);
        }
        let left = self.children.get(&key).is_some_and(Child::may_leave_something);
        match stage {
            Stage::Down => {}
            Stage::Starting | Stage::Up | Stage::Held => self.stop(key, Then::Stay, now),
            Stage::Stopping { until, killed, .. } => {
                self.set_stage(key, Stage::Stopping { until, killed, then: Then::Stay });
            }
            Stage::Delayed { .. } | Stage::Planned if left => self.stop(key, Then::Stay, now),
            Stage::Delayed { .. } | Stage::Planned => self.gone(key),
        }
        self.advance(now);
        Ok(key)
    }

    /// Starts a child that is down. If it does not start, it stays down.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn restart_child(&mut self, name: &str, now: Timestamp) -> Result<ChildKey, Refusal> {
        self.must_run()?;
        let key = self.stopped(name)?;
        if let Some(entry) = self.children.get_mut(&key) {
            entry.ask = Ask::Restart;
        }
        self.start_in_turn(key, now);
        Ok(key)
    }

    /// Forgets a child that is down.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn delete_child(&mut self, name: &str) -> Result<ChildKey, Refusal> {
        self.must_run()?;
        let key = self.stopped(name)?;
        self.forget(key);
        Ok(key)
    }

    /// Forgets a child that has left for good, if it is down: also one that left while the supervisor was starting.
    pub fn forget_child(&mut self, child: ChildKey) {
        let down = self.children.get(&child).is_some_and(|entry| entry.stage == Stage::Down);
        if down && !self.is_ending() {
            self.forget(child);
        }
    }

    /// Stops all children, the youngest first, each awaited, and ends.
    pub fn shut_down(&mut self, now: Timestamp) {
        self.end(End::Stopped, now);
        self.advance(now);
    }

    fn must_run(&self) -> Result<(), Refusal> {
        if self.mode == Mode::Running { Ok(()) } else { Err(Refusal::NotRunning) }
    }

    fn find(&self, name: &str) -> Result<(ChildKey, Stage), Refusal> {
        let key = self.names.get(name).copied().ok_or(Refusal::NotFound)?;
        let child = self.children.get(&key).ok_or(Refusal::NotFound)?;
        Ok((key, child.stage))
    }

    /// The child of this name, which must be down and kept.
    fn stopped(&self, name: &str) -> Result<ChildKey, Refusal> {
        if self.config.strategy == Strategy::Dynamic {
            return Err(Refusal::Dynamic);
        }
        let (key, stage) = self.find(name)?;
        match stage {
            Stage::Down => Ok(key),
            Stage::Delayed { .. } | Stage::Planned => Err(Refusal::Restarting),
            Stage::Starting | Stage::Up | Stage::Stopping { .. } | Stage::Held => Err(Refusal::Running),
        }
    }
}
