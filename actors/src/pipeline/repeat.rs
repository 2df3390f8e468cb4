//! A chain that is run on its own output until it has converged.

use std::sync::Arc;

use rustkernel_core::error::KernelError;

use super::adapt::guarded;
use super::stage::Stage;
use crate::way::{Continuation, Flow};

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
    fn submit(&self, input: T, flow: Flow, next: Box<dyn Continuation<T>>) {
        if !self.body.has_kernel() {
            // Every round would run inside the one before it, on one stack.
            return next
                .resume(flow, Err(KernelError::invalid_input("a repeated chain needs a kernel in it")));
        }
        if self.limit == 0 {
            return next
                .resume(flow, Err(KernelError::invalid_input("a chain cannot be repeated at most 0 times")));
        }
        let round =
            Round { body: Arc::clone(&self.body), left: self.limit, done: Arc::clone(&self.done), next };
        round.go(input, flow);
    }

    fn has_kernel(&self) -> bool {
        self.body.has_kernel()
    }
}

/// One round under way.
struct Round<T> {
    body: Arc<dyn Stage<T, T>>,
    /// Rounds that may still be made, this one included.
    left: u32,
    done: Done<T>,
    next: Box<dyn Continuation<T>>,
}

impl<T: Send + 'static> Round<T> {
    fn go(mut self, input: T, flow: Flow) {
        self.left -= 1;
        let body = Arc::clone(&self.body);
        body.submit(input, flow, Box::new(self));
    }
}

impl<T: Send + 'static> Continuation<T> for Round<T> {
    fn resume(self: Box<Self>, mut flow: Flow, result: Result<T, KernelError>) {
        let value = match result {
            Ok(value) => value,
            Err(error) => return self.next.resume(flow, Err(error)),
        };
        match guarded(|| (self.done)(&value)) {
            Ok(true) => self.next.resume(flow, Ok(value)),
            Ok(false) if self.left == 0 => {
                self.next.resume(flow, Err(KernelError::permanent("not done within the limit of rounds")));
            }
            Ok(false) => {
                flow.header = flow.header.next_stage();
                self.go(value, flow);
            }
            Err(error) => self.next.resume(flow, Err(error)),
        }
    }
}
