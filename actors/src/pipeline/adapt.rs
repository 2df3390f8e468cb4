//! A value changed on its way between two stages.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};

use super::stage::Stage;
use crate::way::{Flow, Next};

type Change<I, O> = Arc<dyn Fn(I) -> Result<O, KernelError> + Send + Sync>;

pub(super) struct TryMap<I, O> {
    change: Change<I, O>,
}

impl<I, O> TryMap<I, O> {
    pub(super) fn new(change: Change<I, O>) -> Self {
        Self { change }
    }
}

impl<I: Send + 'static, O: Send + 'static> Stage<I, O> for TryMap<I, O> {
    fn link(&self, next: Arc<dyn Next<O>>) -> Arc<dyn Next<I>> {
        Arc::new(Apply { change: Arc::clone(&self.change), next })
    }

    fn has_kernel(&self) -> bool {
        false
    }
}

struct Apply<I, O> {
    change: Change<I, O>,
    next: Arc<dyn Next<O>>,
}

impl<I: Send + 'static, O: Send + 'static> Next<I> for Apply<I, O> {
    fn resume(&self, mut flow: Flow, result: Result<I, KernelError>) {
        let result = result.and_then(|value| {
            flow.now = Timestamp::ZERO;
            guarded(|| (self.change)(value)).and_then(|result| result)
        });
        self.next.resume(flow, result);
    }
}

/// Runs user code between two stages. It runs on a kernel's thread, and its panic must not be that kernel's end.
pub(super) fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, KernelError> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let message = crate::cause::panic_message(&*panic);
        KernelError::new(KernelErrorKind::Crashed, Phase::Executing)
            .with_source(format!("between stages: {message}"))
    })
}
