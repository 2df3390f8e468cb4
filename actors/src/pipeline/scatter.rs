//! A value split into parts that run at the same time, and gathered again.

use std::marker::PhantomData;
use std::sync::Arc;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::envelope::Header;
use rustkernel_core::error::KernelError;

use super::adapt::guarded;
use super::run::Branch;
use super::stage::Stage;
use crate::sync::{Mutex, lock};
use crate::way::{Chain, Flow, Frame, Next};

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
    fn link(&self, next: Arc<dyn Next<Vec<P>>>) -> Arc<dyn Next<I>> {
        let end: Arc<dyn Next<P>> = Arc::new(EndOfPart(PhantomData));
        let workers = self.workers.iter().map(|worker| worker.link(Arc::clone(&end))).collect();
        Arc::new(Spread { split: Arc::clone(&self.split), workers, next })
    }

    fn has_kernel(&self) -> bool {
        // It may split a value into no parts at all.
        false
    }
}

/// The way into the workers.
struct Spread<I, S, P> {
    split: Split<I, S>,
    workers: Vec<Arc<dyn Next<S>>>,
    next: Arc<dyn Next<Vec<P>>>,
}

impl<I: Send + 'static, S: Send + 'static, P: Send + 'static> Next<I> for Spread<I, S, P> {
    fn resume(&self, mut flow: Flow, result: Result<I, KernelError>) {
        flow.now = Timestamp::ZERO;
        let parts = match result.and_then(|input| guarded(|| (self.split)(input))) {
            Ok(parts) if self.workers.is_empty() && !parts.is_empty() => {
                return self.next.resume(flow, Err(KernelError::invalid_input("a scatter without workers")));
            }
            Ok(parts) => parts,
            Err(error) => return self.next.resume(flow, Err(error)),
        };
        if parts.is_empty() {
            return self.next.resume(flow, Ok(Vec::new()));
        }
        let (header, begun, count) = (flow.header, flow.begun, parts.len());
        let branch: Arc<dyn Chain> = Arc::new(Branch::of(Arc::clone(&flow.chain)));
        let gather = Arc::new(Gather {
            branch: Arc::clone(&branch),
            next: Arc::clone(&self.next),
            state: Mutex::new(Gathered {
                results: std::iter::repeat_with(|| None).take(count).collect(),
                missing: count,
                budget: 0,
                whole: Some(flow),
            }),
        });
        for (index, (part, retry_budget)) in
            parts.into_iter().zip(shares(header.retry_budget, count)).enumerate()
        {
            let header = Header { retry_budget, ..header };
            let frame = Frame::Part { index, gather: Arc::clone(&gather) as _ };
            let chain = Arc::clone(&branch);
            let flow = Flow { header, now: Timestamp::ZERO, chain, frames: Some(Arc::new(frame)), begun };
            self.workers[index % self.workers.len()].resume(flow, Ok(part));
        }
    }
}

/// Divides a budget so that the shares add up to it.
fn shares(budget: u32, count: usize) -> impl Iterator<Item = u32> {
    let count_u32 = u32::try_from(count).unwrap_or(u32::MAX);
    let (each, rest) = (budget / count_u32, (budget % count_u32) as usize);
    (0..count).map(move |index| each + u32::from(index < rest))
}

/// Where the parts meet.
struct Gather<P> {
    branch: Arc<dyn Chain>,
    next: Arc<dyn Next<Vec<P>>>,
    state: Mutex<Gathered<P>>,
}

struct Gathered<P> {
    results: Vec<Option<P>>,
    missing: usize,
    /// What the parts have left of their shares.
    budget: u32,
    /// Taken by the first failure, or by the last part.
    whole: Option<Flow>,
}

/// What comes after a worker.
struct EndOfPart<P>(PhantomData<fn(P)>);

impl<P: Send + 'static> Next<P> for EndOfPart<P> {
    fn resume(&self, flow: Flow, result: Result<P, KernelError>) {
        let Some(Frame::Part { index, gather }) = flow.frames.as_deref() else { return };
        let Some(gather) = gather.downcast_ref::<Gather<P>>() else { return };
        gather.bring(*index, flow.header.retry_budget, result);
    }
}

impl<P> Gather<P> {
    fn bring(&self, index: usize, budget: u32, result: Result<P, KernelError>) {
        let mut state = lock(&self.state);
        if state.whole.is_none() {
            // Another part has failed: nobody gathers any more.
            drop(state);
            return drop(result);
        }
        state.budget += budget;
        let failure = match result {
            Ok(value) => {
                state.results[index] = Some(value);
                state.missing -= 1;
                None
            }
            Err(error) => Some(error),
        };
        if failure.is_none() && state.missing > 0 {
            return;
        }
        let Some(mut whole) = state.whole.take() else { return };
        whole.header.retry_budget = state.budget;
        let results = std::mem::take(&mut state.results);
        drop(state);
        match failure {
            Some(error) => {
                self.branch.token().raise();
                self.next.resume(whole, Err(error));
            }
            None => self.next.resume(whole, Ok(results.into_iter().flatten().collect())),
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
