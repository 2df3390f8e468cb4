//! Shared memory that the device reads and writes by itself.

#![allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]

use rustkernel::actors::{KernelRef, Runtime};
use rustkernel::core::error::{KernelError, KernelErrorKind};
use rustkernel::core::resilience::ErrorKind;
use rustkernel::core::traits::{Context, LocalKernel, Payload};
use rustkernel::cuda::{Buffer, Device, Function, Grid, Stream};
use rustkernel::worker::{Domain, Kernels, SharedSlice};
use serde::{Deserialize, Serialize};

use crate::kit::{NONE, assert_balanced, kind, soon};
use crate::stages::function;
use crate::{back, domain, found};

/// What a [`Press`] is told to do.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Add one to each value, by way of memory that the device reaches, or by way of the stream's own.
    Add(SharedSlice<u32>),
    AddCopied(SharedSlice<u32>),
    /// Keep the device busy for so many nanoseconds, and have it take the values behind that.
    Take(u64, SharedSlice<u32>),
    /// Have it take the values behind so many launches.
    TakeBehind(u32, SharedSlice<u32>),
    /// What was taken.
    Fetch,
    /// Begin to give the values back, and stop half-way.
    Drop(SharedSlice<u32>),
}

impl Payload for Order {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Add(values)
            | Self::AddCopied(values)
            | Self::Take(_, values)
            | Self::TakeBehind(_, values)
            | Self::Drop(values) => values.size_bytes(),
            Self::Fetch => 0,
        }
    }

    fn schema() -> String {
        "order".into()
    }
}

struct Press {
    add: Function,
    spin: Function,
    stream: Stream,
    taken: Option<Buffer<u32>>,
}

impl Press {
    fn new() -> Result<Self, KernelError> {
        let device = Device::open(0)?;
        let (add, spin) = (function(&device, "rk_add")?, function(&device, "rk_spin")?);
        Ok(Self { add, spin, stream: device.stream()?, taken: None })
    }

    fn add_one(&self, data: &Buffer<u32>) -> Result<(), KernelError> {
        let len = u32::try_from(data.len()).map_err(KernelError::permanent)?;
        // SAFETY: as faults.cu declares it.
        unsafe { self.stream.launch(&self.add, Grid::over(len, 128), &[data, &len, &1_u32])? };
        Ok(())
    }
}

impl LocalKernel for Press {
    type Input = Order;
    type Output = SharedSlice<u32>;

    async fn execute_local(
        &mut self,
        order: &Order,
        cx: &mut Context<'_>,
    ) -> Result<SharedSlice<u32>, KernelError> {
        match order {
            Order::Add(values) => {
                let data = self.stream.upload_shared(values)?;
                self.add_one(&data)?;
                self.stream.download_shared(&data, cx).await
            }
            Order::AddCopied(values) => {
                let data = self.stream.upload(values)?;
                self.add_one(&data)?;
                SharedSlice::copy_of(&self.stream.download(&data, cx).await?)
            }
            Order::Take(nanos, values) => {
                let said = self.stream.zeros::<u32>(1)?;
                let arguments: [&dyn rustkernel::cuda::Argument; 3] =
                    [&self.stream.stop_flag(), nanos, &said];
                // SAFETY: as faults.cu declares it.
                unsafe { self.stream.launch(&self.spin, Grid::over(1, 1), &arguments)? };
                self.taken = Some(self.stream.upload_shared(values)?);
                SharedSlice::alloc(0)
            }
            Order::TakeBehind(launches, values) => {
                let one = self.stream.zeros::<u32>(1)?;
                for _ in 0..*launches {
                    self.add_one(&one)?;
                }
                self.taken = Some(self.stream.upload_shared(values)?);
                SharedSlice::alloc(0)
            }
            Order::Fetch => {
                let taken = self.taken.take().ok_or_else(|| KernelError::permanent("nothing was taken"))?;
                self.stream.download_shared(&taken, cx).await
            }
            Order::Drop(values) => {
                let data = self.stream.upload_shared(values)?;
                let said = self.stream.zeros::<u32>(1)?;
                let arguments: [&dyn rustkernel::cuda::Argument; 3] =
                    [&self.stream.stop_flag(), &3_000_000_u64, &said];
                // SAFETY: as faults.cu declares it.
                unsafe { self.stream.launch(&self.spin, Grid::over(1, 1), &arguments)? };
                let mut landing = Box::pin(self.stream.download_shared(&data, cx));
                // Once, and no more.
                let _ = futures_poll(&mut landing);
                SharedSlice::alloc(0)
            }
        }
    }
}

/// Asks once.
fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut task).is_ready()
}

pub(crate) fn kernels(kernels: &mut Kernels) {
    kernels.register("press", |()| Press::new());
}

type PressRef = KernelRef<Order, SharedSlice<u32>>;

async fn press(domain: &Domain) -> (Runtime, PressRef) {
    let runtime = Runtime::builder().build().await.unwrap();
    let spec = domain.kernel::<Press>("a/press", "press", &()).breaker(None);
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    (runtime, kernel)
}

fn some(domain: &Domain, len: u32) -> SharedSlice<u32> {
    let values: Vec<u32> = (0..len).collect();
    domain.copy_of(&values).unwrap()
}

async fn adds(domain: &Domain, kernel: &PressRef, len: u32) {
    let answer = soon(kernel.call(Order::Add(some(domain, len)), NONE)).await.unwrap();
    assert!(answer.iter().copied().eq(1..=len), "{len}");
}

/// The stream's own memory would be asked for with each of these sizes. The sixth piece of that is refused: until then there are those of the
/// probe, and the words of its stream and of the kernel's.
#[tokio::test]
async fn what_lies_in_shared_memory_is_copied_by_the_device_alone() {
    let domain = domain("cuMemAllocHost_v2@6=2");
    let (_runtime, kernel) = press(&domain).await;
    for len in [1, 1_000, 3_000, 50_000, 200_000, 1, 5_000_000] {
        adds(&domain, &kernel, len).await;
    }
    let mut refused = false;
    for len in [1_000, 50_000, 200_000] {
        refused |= soon(kernel.call(Order::AddCopied(some(&domain, len)), NONE)).await.is_err();
    }
    assert!(refused, "it would have been seen");
}

/// The driver pins nothing: there is a way without.
#[tokio::test]
async fn what_the_driver_does_not_pin_is_copied() {
    let domain = domain("cuMemHostRegister_v2=2");
    let (_runtime, kernel) = press(&domain).await;
    for len in [1, 0, 1_000, 50_000] {
        adds(&domain, &kernel, len).await;
    }
    assert_balanced(&kernel);
}

/// A place is pinned once, and used again and again.
#[tokio::test]
async fn a_place_is_pinned_once() {
    let domain = domain("cuMemHostRegister_v2@3=700");
    let (_runtime, kernel) = press(&domain).await;
    for _ in 0..100 {
        adds(&domain, &kernel, 10_000).await;
    }
    adds(&domain, &kernel, 0).await;
    assert_eq!(domain.status().deaths, 0);
}

#[tokio::test]
async fn a_fault_while_memory_is_pinned_ends_the_process_as_any_other() {
    let domain = domain("cuMemHostRegister_v2@1=700");
    let (_runtime, kernel) = press(&domain).await;
    let error = soon(kernel.call(Order::Add(some(&domain, 10)), NONE)).await;
    assert_eq!(kind(error), KernelErrorKind::Crashed);
    back(&domain, 1).await;
    assert!(domain.status().last_death.unwrap().contains("700"));
}

#[tokio::test]
async fn what_the_device_has_still_to_take_is_not_used_again() {
    let domain = domain("");
    let (_runtime, kernel) = press(&domain).await;
    let values = some(&domain, 10_000);
    let place = values.as_ptr() as usize;
    soon(kernel.call(Order::Take(100_000_000, values), NONE)).await.unwrap();
    for _ in 0..3 {
        // Whatever comes back is told with these.
        let other = some(&domain, 7);
        assert_eq!(soon(kernel.call(Order::Take(0, other), NONE)).await.unwrap().len(), 0);
    }
    let other = domain.copy_of(&[u32::MAX; 10_000]).unwrap();
    assert_ne!(other.as_ptr() as usize, place);
    soon(kernel.call(Order::Fetch, NONE)).await.unwrap();
    soon(kernel.call(Order::Take(0, some(&domain, 7)), NONE)).await.unwrap();
    soon(kernel.call(Order::Fetch, NONE)).await.unwrap();
    let mut held = Vec::new();
    found(|| {
        // It comes back.
        held.push(domain.alloc::<u32>(10_000).unwrap());
        held.iter().any(|values| (values.as_ptr() as usize).abs_diff(place) < 40_000).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_taken_is_what_was_sent() {
    let domain = domain("");
    let (_runtime, kernel) = press(&domain).await;
    for round in 0..20 {
        let sent = vec![round; 10_000];
        soon(kernel.call(Order::Take(2_000_000, domain.copy_of(&sent).unwrap()), NONE)).await.unwrap();
        // This one would lie in its place.
        let _other = domain.copy_of(&[u32::MAX; 10_000]).unwrap();
        assert_eq!(*soon(kernel.call(Order::Fetch, NONE)).await.unwrap(), sent);
    }
}

/// A mark that is issued between the pieces of a copy says nothing about the last of them.
#[tokio::test]
async fn what_is_taken_in_pieces_is_kept_until_the_last_one() {
    let domain = domain("");
    let (_runtime, kernel) = press(&domain).await;
    let len = 5 << 20;
    for launches in 56..62 {
        let sent = domain.copy_of(&vec![launches; len]).unwrap();
        soon(kernel.call(Order::TakeBehind(launches, sent), NONE)).await.unwrap();
        // This one would lie in its place.
        let _other = domain.copy_of(&vec![u32::MAX; len]).unwrap();
        let taken = soon(kernel.call(Order::Fetch, NONE)).await.unwrap();
        assert!(taken.iter().all(|value| *value == launches), "{launches}");
    }
}

/// The late copy and the next answer are of two kernels: nothing repairs what the one has written over the other.
#[tokio::test]
async fn an_answer_that_nobody_waits_for_any_more_lands_on_nobody_elses() {
    let domain = domain("");
    let (runtime, kernel) = press(&domain).await;
    let spec = domain.kernel::<Press>("a/other", "press", &()).breaker(None);
    let other = soon(runtime.spawn(spec)).await.unwrap();
    for _ in 0..20 {
        soon(kernel.call(Order::Drop(some(&domain, 10_000)), NONE)).await.unwrap();
        let answer = soon(other.call(Order::Add(some(&domain, 10_000)), NONE)).await.unwrap();
        // Behind the late copy.
        adds(&domain, &kernel, 1).await;
        assert!(answer.iter().copied().eq(1..=10_000));
    }
    let gone = soon(kernel.call(Order::Fetch, NONE)).await;
    assert_eq!(kind(gone), KernelErrorKind::Kernel(ErrorKind::Permanent));
}
