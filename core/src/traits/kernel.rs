//! The work itself.

use std::future::Future;

use super::{Context, LookAhead, Payload};
use crate::error::KernelError;

/// User code with a typed input and output, run by one incarnation at a time.
///
/// The runtime keeps the input, so that a request can be run again after a crash without a `Clone`; an execution
/// therefore sees it by reference. An execution whose deadline passes at an `.await` is dropped there: hold no
/// half-made change of `self` across one.
///
/// A panic ends the incarnation, not the process; the next one comes from the factory.
///
/// ```
/// use rustkernel_core::traits::{Context, Kernel};
/// use rustkernel_core::Result;
///
/// struct Double;
///
/// impl Kernel for Double {
///     type Input = u64;
///     type Output = u64;
///
///     async fn execute(&mut self, input: &u64, _cx: &mut Context<'_>) -> Result<u64> {
///         Ok(input * 2)
///     }
/// }
/// ```
pub trait Kernel: Send + 'static {
    /// What a request carries.
    type Input: Payload;
    /// What an answer carries.
    type Output: Payload;

    /// Runs one request.
    ///
    /// # Errors
    /// The kernel's own failure; its [`ErrorKind`](crate::resilience::ErrorKind) decides about retries and the breaker.
    fn execute(
        &mut self,
        input: &Self::Input,
        cx: &mut Context<'_>,
    ) -> impl Future<Output = Result<Self::Output, KernelError>> + Send;

    /// For a kernel that begins with requests before their turn, and finds them again by their [tickets](Context::ticket).
    fn look_ahead(&mut self) -> Option<&mut dyn LookAhead<Self::Input>> {
        None
    }
}

/// A kernel that never leaves its own thread, and so need not be [`Send`] (a captured CUDA graph is not).
///
/// The factory runs on that thread. Every [`Kernel`] is one; implement this trait only for kernels that cannot be a
/// [`Kernel`]. They cannot run inline.
pub trait LocalKernel: 'static {
    /// What a request carries.
    type Input: Payload;
    /// What an answer carries.
    type Output: Payload;

    /// Runs one request; see [`Kernel::execute`].
    ///
    /// # Errors
    /// The kernel's own failure.
    fn execute_local(
        &mut self,
        input: &Self::Input,
        cx: &mut Context<'_>,
    ) -> impl Future<Output = Result<Self::Output, KernelError>>;

    /// For a kernel that begins with requests before their turn; see [`Kernel::look_ahead`].
    fn look_ahead_local(&mut self) -> Option<&mut dyn LookAhead<Self::Input>> {
        None
    }
}

impl<K: Kernel> LocalKernel for K {
    type Input = K::Input;
    type Output = K::Output;

    fn execute_local(
        &mut self,
        input: &Self::Input,
        cx: &mut Context<'_>,
    ) -> impl Future<Output = Result<Self::Output, KernelError>> {
        self.execute(input, cx)
    }

    fn look_ahead_local(&mut self) -> Option<&mut dyn LookAhead<Self::Input>> {
        self.look_ahead()
    }
}
