//! Chains whose kernels live in one worker: what they hand on stays on its device.

use rustix::process::{Pid, Signal, kill_process};
use rustkernel::actors::{KernelRef, Pipeline, Runtime};
use rustkernel::core::error::{KernelError, KernelErrorKind, Ran};
use rustkernel::core::resilience::{CircuitBreakerConfig, ErrorKind};
use rustkernel::core::traits::{Context, LocalKernel, Payload};
use rustkernel::cuda::{Buffer, CudaError, Device};
use rustkernel::worker::{Domain, Kernels};

use crate::kit::{NONE, kind, soon};
use crate::stages::{Double, Download, Upload};
use crate::{back, domain, is_inside, standin};

pub(crate) fn kernels(kernels: &mut Kernels) {
    kernels.register("upload", |()| Upload::new());
    kernels.register("double", |()| Double::new());
    kernels.register("download", |()| Download::new());
    kernels.register("eager", |()| Ok(Eager(Double::new()?)));
}

/// Waits until its device has done what it told it.
struct Eager(Double);

impl LocalKernel for Eager {
    type Input = Buffer<f32>;
    type Output = Buffer<f32>;

    async fn execute_local(
        &mut self,
        input: &Buffer<f32>,
        cx: &mut Context<'_>,
    ) -> Result<Buffer<f32>, KernelError> {
        let output = self.0.execute_local(input, cx).await?;
        Device::open(0)?.stream()?.download(&output, cx).await?;
        Ok(output)
    }
}

type Step = KernelRef<Buffer<f32>, Buffer<f32>>;

struct Stages {
    up: KernelRef<Vec<f32>, Buffer<f32>>,
    double: [Step; 2],
    down: KernelRef<Buffer<f32>, Vec<f32>>,
    runtime: Runtime,
}

impl Stages {
    async fn spawn(domain: &Domain) -> Self {
        let runtime = Runtime::builder().build().await.unwrap();
        let up = domain.kernel::<Upload>("a/up", "upload", &()).breaker(None);
        let double = |id: &str| domain.kernel::<Double>(id, "double", &()).breaker(None);
        let down = domain.kernel::<Download>("a/down", "download", &()).breaker(None);
        Self {
            up: soon(runtime.spawn(up)).await.unwrap(),
            double: [
                soon(runtime.spawn(double("a/two"))).await.unwrap(),
                soon(runtime.spawn(double("a/four"))).await.unwrap(),
            ],
            down: soon(runtime.spawn(down)).await.unwrap(),
            runtime,
        }
    }

    fn chain(&self) -> Pipeline<Vec<f32>, Vec<f32>> {
        let [two, four] = self.double.clone();
        Pipeline::from(self.up.clone()).then(two).then(four).then(self.down.clone())
    }
}

async fn is_right(chain: &Pipeline<Vec<f32>, Vec<f32>>, len: u16) {
    let input: Vec<f32> = (0..len).map(f32::from).collect();
    let output = soon(chain.run(input.clone(), NONE)).await.unwrap();
    assert!(input.iter().zip(&output).all(|(input, output)| (input * 4.0).to_bits() == output.to_bits()));
    assert_eq!(output.len(), input.len());
}

/// A third copy from the device would fail: the first one is the probe's, the second one the result's.
#[tokio::test]
async fn what_kernels_of_one_worker_hand_on_stays_on_its_device() {
    let domain = domain("cuMemcpyDtoHAsync_v2@3=1");
    let stages = Stages::spawn(&domain).await;
    is_right(&stages.chain(), 5_000).await;
    let again = soon(stages.chain().run(vec![1.0], NONE)).await;
    assert_eq!(kind(again), KernelErrorKind::Kernel(ErrorKind::Permanent), "it would have been seen");
}

#[tokio::test]
async fn what_a_chain_has_used_is_given_back_to_the_device() {
    let domain = domain("oom=1000000");
    let stages = Stages::spawn(&domain).await;
    for len in [100, 20_000, 30_000, 40_000].into_iter().cycle().take(60) {
        is_right(&stages.chain(), len).await;
    }
    let held = soon(stages.up.call(vec![1.0; 40_000], NONE)).await.unwrap();
    assert_eq!(held.len(), 40_000);
    assert!(held.size_bytes() >= 160_000, "it counts where it lies");
}

#[tokio::test]
async fn data_that_went_with_its_process_is_told_by_name_and_what_needs_it_has_not_run() {
    let domain = domain("");
    let stages = Stages::spawn(&domain).await;
    let held = soon(stages.up.call(vec![1.0, 2.0], NONE)).await.unwrap();
    let same = soon(stages.double[0].call(held, NONE)).await.unwrap();
    let pid = domain.status().pid.unwrap();
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    back(&domain, 1).await;
    let error = soon(stages.double[1].call(same, NONE)).await.unwrap_err();
    assert_eq!((error.kind(), error.ran()), (&KernelErrorKind::Crashed, Ran::No));
    assert!(error.to_string().contains("a worker process that has ended"), "{error}");
    is_right(&stages.chain(), 100).await;
    assert_eq!(domain.status().deaths, 1);
}

/// A hand-over cost the kernels behind it their breakers.
#[tokio::test]
async fn data_that_is_gone_is_no_failure_of_the_kernel_that_is_given_it() {
    let domain = domain("");
    let stages = Stages::spawn(&domain).await;
    let breaker = CircuitBreakerConfig { failure_threshold: 1, ..CircuitBreakerConfig::default() };
    let down = domain.kernel::<Download>("a/gated", "download", &()).breaker(breaker).idempotent();
    let down = soon(stages.runtime.spawn(down)).await.unwrap();
    let held = soon(stages.up.call(vec![1.0, 2.0], NONE)).await.unwrap();
    let pid = domain.status().pid.unwrap();
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    back(&domain, 1).await;
    let error = soon(down.call(held, NONE)).await.unwrap_err();
    assert_eq!((error.kind(), error.ran()), (&KernelErrorKind::Crashed, Ran::No));
    let fresh = soon(stages.up.call(vec![1.0, 2.0], NONE)).await.unwrap();
    assert_eq!(soon(down.call(fresh, NONE)).await.unwrap(), [1.0, 2.0]);
    assert_eq!(down.accounts().reruns, 0, "it would be gone the next time as well");
}

/// It may have run before its process died, so that nobody is told that it has not; and it is not run in vain until its attempts are used up.
#[tokio::test]
async fn a_request_whose_data_went_with_its_first_attempt_may_have_run() {
    let domain = domain("kernel@3=700");
    let stages = Stages::spawn(&domain).await;
    let breaker = CircuitBreakerConfig { failure_threshold: 1, ..CircuitBreakerConfig::default() };
    let double = domain.kernel::<Eager>("a/eager", "eager", &()).breaker(breaker).idempotent();
    let double = soon(stages.runtime.spawn(double)).await.unwrap();
    let held = soon(stages.up.call(vec![1.0, 2.0], NONE)).await.unwrap();
    let once = soon(double.call(held, NONE)).await.unwrap();
    // The third kernel that its process runs is the end of it.
    let error = soon(double.call(once, NONE)).await.unwrap_err();
    assert_eq!((error.kind(), error.ran()), (&KernelErrorKind::Crashed, Ran::Unknown), "{error}");
    assert_eq!(double.accounts().reruns, 1);
}

/// It lies with another worker of the same device: that one cannot give it away.
#[tokio::test]
async fn another_domain_cannot_have_it() {
    let (first, second) = (domain(""), Domain::start("second", crate::config("")).unwrap());
    let (stages, others) = (Stages::spawn(&first).await, Stages::spawn(&second).await);
    let held = soon(stages.up.call(vec![1.0, 2.0], NONE)).await.unwrap();
    let error = soon(others.down.call(held, NONE)).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::Crashed);
    assert!(error.to_string().contains("another domain's"), "{error}");
    is_right(&stages.chain(), 10).await;
    is_right(&others.chain(), 10).await;
    assert_eq!((first.status().deaths, second.status().deaths), (0, 0));
}

#[tokio::test]
async fn data_of_a_worker_and_of_this_process_are_not_each_others() {
    const TEST: &str = "chain::data_of_a_worker_and_of_this_process_are_not_each_others";
    if !is_inside(TEST, &[("LD_LIBRARY_PATH", standin::driver().into_os_string())]) {
        return;
    }
    let domain = domain("");
    let stages = Stages::spawn(&domain).await;
    let theirs = soon(stages.up.call(vec![1.0, 2.0], NONE)).await.unwrap();
    let stream = Device::open(0).unwrap().stream().unwrap();
    let refused = stream.download(&theirs, &Context::detached()).await;
    assert!(matches!(refused, Err(CudaError::Elsewhere)));
    assert_eq!(soon(stages.down.call(theirs, NONE)).await.unwrap(), [1.0, 2.0]);
    let ours = stream.upload(&[3.0_f32]).unwrap();
    let error = soon(stages.down.call(ours, NONE)).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::Kernel(ErrorKind::Permanent));
    assert!(
        format!("{:?}", std::error::Error::source(&error)).contains("the device of this process"),
        "{error:?}"
    );
    assert_eq!(domain.status().deaths, 0);
}
