//! A chain that is run on its own output until it has converged.

use std::sync::{Arc, Weak};

use rustkernel_core::error::{KernelError, Phase};

use super::adapt::guarded;
use super::stage::Stage;
use crate::cancel::cancelled;
use crate::way::{Flow, Frame, Next};

type Done<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

pub(super) struct Repeat<T> {
    body: Arc<dyn Stage<T, T>>,
    limit: u32,
    done: Done<T>,
}

impl<T> Repeat<T> {
    pub(super) fn new(body: Arc<dyn Stage<T, T>>, limit: u32, done: Done<T>) -> Self {
        Self { body, limit, done }
    }
}

impl<T: Send + 'static> Stage<T, T> for Repeat<T> {
    fn link(&self, next: Arc<dyn Next<T>>) -> Arc<dyn Next<T>> {
        let fault = match (self.body.has_kernel(), self.limit) {
            // Every round would run inside the one before it, on one stack.
            (false, _) => Some("a repeated chain needs a kernel in it"),
            (true, 0) => Some("a chain cannot be repeated at most 0 times"),
            (true, _) => None,
        };
        Arc::new_cyclic(|me| Rounds {
            body: self.body.link(Arc::new(EndOfRound(Weak::clone(me)))),
            limit: self.limit,
            fault,
            done: Arc::clone(&self.done),
            next,
        })
    }

    fn has_kernel(&self) -> bool {
        self.body.has_kernel()
    }
}

/// The way into the loop.
struct Rounds<T> {
    body: Arc<dyn Next<T>>,
    limit: u32,
    fault: Option<&'static str>,
    done: Done<T>,
    next: Arc<dyn Next<T>>,
}

impl<T> Rounds<T> {
    /// One round, after which `left` more may follow.
    fn go(&self, mut flow: Flow, left: u32, value: T) {
        let below = flow.frames.take();
        flow.frames = Some(Arc::new(Frame::Round { left, below }));
        self.body.resume(flow, Ok(value));
    }
}

impl<T: Send + 'static> Next<T> for Rounds<T> {
    fn resume(&self, flow: Flow, result: Result<T, KernelError>) {
        match (result, self.fault) {
            (Ok(value), None) => self.go(flow, self.limit - 1, value),
            (Ok(_), Some(fault)) => self.next.resume(flow, Err(KernelError::invalid_input(fault))),
            (Err(error), _) => self.next.resume(flow, Err(error)),
        }
    }
}

/// What comes after the body: out of the loop, or into the next round. The loop owns its body, so this only knows the loop.
struct EndOfRound<T>(Weak<Rounds<T>>);

impl<T: Send + 'static> Next<T> for EndOfRound<T> {
    fn resume(&self, mut flow: Flow, result: Result<T, KernelError>) {
        // Without its pipeline nobody can be waiting.
        let Some(rounds) = self.0.upgrade() else { return };
        let left = match flow.frames.take().as_deref() {
            Some(Frame::Round { left, below }) => {
                flow.frames.clone_from(below);
                *left
            }
            Some(Frame::Part { .. }) | None => return rounds.next.resume(flow, Err(cancelled(Phase::Reply))),
        };
        let verdict = result.and_then(|value| match guarded(|| (rounds.done)(&value))? {
            true => Ok((value, true)),
            false if left == 0 => Err(KernelError::permanent("not done within the limit of rounds")),
            false => Ok((value, false)),
        });
        match verdict {
            Ok((value, false)) => rounds.go(flow, left - 1, value),
            Ok((value, true)) => rounds.next.resume(flow, Ok(value)),
            Err(error) => rounds.next.resume(flow, Err(error)),
        }
    }
}
