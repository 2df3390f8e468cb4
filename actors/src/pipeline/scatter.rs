//! A value split into parts that run at the same time, and gathered again.

use std::sync::Arc;

use rustkernel_core::error::KernelError;

use super::adapt::guarded;
use super::run::Branch;
use super::stage::Stage;
use crate::sync::{Mutex, lock};
use crate::way::{Chain, Continuation, Flow};

type Split<I, S> = Arc<dyn Fn(I) -> Vec<S> + Send + Sync>;

pub(super) struct Scatter<I, S, P> {
    split: Split<I, S>,
    workers: Vec<Arc<dyn Stage<S, P>>>,
}

impl<I, S, P> Scatter<I, S, P> {
    pub(super) fn new(split: Split<I, S>, workers: Vec<Arc<dyn Stage<S, P>>>) -> Self {
        Self { split, workers }
    }
}

impl<I: Send + 'static, S: Send + 'static, P: Send + 'static> Stage<I, Vec<P>> for Scatter<I, S, P> {
    fn submit(&self, input: I, flow: Flow, next: Box<dyn Continuation<Vec<P>>>) {
        let parts = match guarded(|| (self.split)(input)) {
            Ok(parts) if self.workers.is_empty() && !parts.is_empty() => {
                return next.resume(flow, Err(KernelError::invalid_input("a scatter without workers")));
            }
            Ok(parts) => parts,
            Err(error) => return next.resume(flow, Err(error)),
        };
        if parts.is_empty() {
            return next.resume(flow, Ok(Vec::new()));
        }
        let count = parts.len();
        let branch: Arc<dyn Chain> = Arc::new(Branch::of(Arc::clone(&flow.chain)));
        let budgets = shares(flow.header.retry_budget, count);
        let header = flow.header;
        let gather = Arc::new(Gather {
            branch: Arc::clone(&branch),
            state: Mutex::new(Gathered {
                results: std::iter::repeat_with(|| None).take(count).collect(),
                missing: count,
                budget: 0,
                whole: Some((flow, next)),
            }),
        });
        for (index, (part, retry_budget)) in parts.into_iter().zip(budgets).enumerate() {
            let mut header = header.next_stage();
            header.retry_budget = retry_budget;
            let flow = Flow { header, chain: Arc::clone(&branch) };
            let worker = &self.workers[index % self.workers.len()];
            worker.submit(part, flow, Box::new(Part { index, gather: Arc::clone(&gather) }));
        }
    }

    fn has_kernel(&self) -> bool {
        !self.workers.is_empty() && self.workers.iter().all(|worker| worker.has_kernel())
    }
}

/// Divides a budget so that the shares add up to it.
fn shares(budget: u32, count: usize) -> impl Iterator<Item = u32> {
    let count_u32 = u32::try_from(count).unwrap_or(u32::MAX);
    let (each, rest) = (budget / count_u32, (budget % count_u32) as usize);
    (0..count).map(move |index| each + u32::from(index < rest))
}

type Whole<P> = (Flow, Box<dyn Continuation<Vec<P>>>);

/// Where the parts meet.
struct Gather<P> {
    branch: Arc<dyn Chain>,
    state: Mutex<Gathered<P>>,
}

struct Gathered<P> {
    results: Vec<Option<P>>,
    missing: usize,
    /// What the parts have left of their shares.
    budget: u32,
    /// Taken by the first failure, or by the last part.
    whole: Option<Whole<P>>,
}

struct Part<P> {
    index: usize,
    gather: Arc<Gather<P>>,
}

impl<P: Send + 'static> Continuation<P> for Part<P> {
    fn resume(self: Box<Self>, flow: Flow, result: Result<P, KernelError>) {
        let mut state = lock(&self.gather.state);
        state.budget += flow.header.retry_budget;
        let failure = match result {
            Ok(value) => {
                state.results[self.index] = Some(value);
                state.missing -= 1;
                None
            }
            Err(error) => Some(error),
        };
        if failure.is_none() && state.missing > 0 {
            return;
        }
        let Some((mut whole, next)) = state.whole.take() else { return };
        whole.header.retry_budget = state.budget;
        let results = std::mem::take(&mut state.results);
        drop(state);
        match failure {
            Some(error) => {
                self.gather.branch.token().raise();
                next.resume(whole, Err(error));
            }
            None => next.resume(whole, Ok(results.into_iter().flatten().collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_a_budget_add_up_to_it() {
        for (budget, count) in [(16, 3), (2, 5), (0, 1), (u32::MAX, 7)] {
            assert_eq!(shares(budget, count).map(u64::from).sum::<u64>(), u64::from(budget));
            assert_eq!(shares(budget, count).count(), count);
        }
    }
}
