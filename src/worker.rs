//! Worker processes: kernels that live in a process of their own, which may die.
//!
//! ```text
//! this process                                       worker process
//!
//! slot -> incarnation -> Remote == socket, memory ==> the kernel on its thread
//!              ^                                         |
//!          Lifeline <- keeper of the Domain == control ==+      killed, crashed, hung: all its kernels are lost
//! ```
//!
//! [`init`] is the first line of `main`, with the function that registers the kernels; a process that was started as a worker stays in
//! there. A [`Domain`] is a worker process, the spare one behind it, and the thread that watches over both. A kernel is put into it by
//! [`Domain::kernel`], and is from then on a kernel like any other.
//!
//! Linux only: processes are held by pidfd, memory is shared by memfd.

mod alone;
pub(crate) mod border;
mod code;
mod config;
mod control;
mod device;
mod domain;
mod dying;
mod eager;
mod held;
mod host;
mod janitor;
mod keeper;
mod kernels;
mod link;
mod mailbox;
mod memory;
mod outbox;
mod pace;
mod parcel;
mod pool;
mod premises;
mod process;
mod ranges;
mod remote;
mod shared;
mod tenant;
mod ward;
mod wire;

pub use config::{DomainConfig, DomainState, DomainStatus};
pub use domain::{Domain, DomainError, Maker, Making};
#[cfg(feature = "cuda")]
pub(crate) use held::Held;
pub use kernels::Kernels;
pub use process::WorkerCommand;
pub use remote::{Remote, RemoteState};
pub use shared::SharedSlice;
#[cfg(fuzzing)]
pub use wire::fuzz_frames;

/// Makes this process a worker, if it was started as one, and never returns then. Otherwise it does nothing.
///
/// It has to be the first thing in `main`, before threads, sockets and files: a worker is the same program, and whatever comes before this
/// line happens in each of them.
///
/// ```no_run
/// use rustkernel::prelude::*;
/// use rustkernel::worker::{self, Domain, DomainConfig, Kernels};
///
/// struct Double;
///
/// impl Kernel for Double {
///     type Input = u64;
///     type Output = u64;
///
///     async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> rustkernel::core::Result<u64> {
///         Ok(input * 2)
///     }
/// }
///
/// fn kernels(kernels: &mut Kernels) {
///     kernels.register("math/double", |()| Ok(Double));
/// }
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn run() -> Result<(), Box<dyn std::error::Error>> {
///     let runtime = Runtime::builder().build().await?;
///     let domain = Domain::start("math", DomainConfig::default())?;
///     let double = runtime.spawn(domain.kernel::<Double>("math/double", "math/double", &())).await?;
///     assert_eq!(double.execute(21).await?, 42);
///     Ok(())
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     worker::init(kernels);
///     run()
/// }
/// ```
pub fn init(register: impl FnOnce(&mut Kernels)) {
    if host::is_worker() {
        let mut kernels = Kernels::default();
        register(&mut kernels);
        host::serve(kernels)
    }
}
