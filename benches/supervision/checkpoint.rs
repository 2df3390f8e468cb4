//! A checkpoint of 4 KiB to memory after every request, beside the same call without one.

use std::hint::black_box;

use rustkernel::actors::{KernelRef, KernelSpec, Runtime};
use rustkernel::core::KernelError;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::traits::{CheckpointableKernel, Context, Kernel};

use crate::call::drive;
use crate::report::{Group, Report, Target};
use crate::rounds::Side;
use crate::sides::Flavour;

const WORDS: usize = 512;

pub(crate) fn run(report: &mut Report) {
    if !report.wants("checkpoint") {
        return;
    }
    for flavour in Flavour::BOTH {
        times(report, flavour, false);
    }
    for flavour in Flavour::BOTH {
        times(report, flavour, true);
    }
}

fn times(report: &mut Report, flavour: Flavour, inline: bool) {
    let runtime = flavour.runtime();
    let calls = report.scale(if inline { 20_000 } else { 3_000 });
    let (_supervisor, [plain, checkpointed]) = runtime.block_on(kernels(inline));
    let side = |name, kernel: &KernelRef<u64, u64>| {
        let (runtime, kernel) = (&runtime, kernel.clone());
        Side::new(name, move || drive(runtime, 1, calls, || call(kernel.clone(), calls)))
    };
    let placement = if inline { "inline" } else { "thread" };
    report.run(Group {
        name: format!("checkpoint of 4 KiB a call, {placement} kernel, {}", flavour.name()),
        unit: "ns",
        rounds: 31,
        baseline: side("the same kernel, no checkpoints", &plain),
        contenders: vec![(side("a checkpoint after every request", &checkpointed), Target::Ratio(1.3))],
    });
}

async fn call(kernel: KernelRef<u64, u64>, calls: usize) {
    for number in 0..calls as u64 {
        black_box(kernel.call(number, Deadline::None).await.unwrap());
    }
}

/// The same kernel twice: without and with checkpoints.
async fn kernels(inline: bool) -> (Runtime, [KernelRef<u64, u64>; 2]) {
    let supervisor = Runtime::builder().build().await.unwrap();
    let spec = |name| {
        let spec = KernelSpec::new(name, || Table(vec![0; WORDS].into_boxed_slice()));
        if inline { spec.inline() } else { spec }
    };
    let plain = supervisor.spawn(spec("bench/plain")).await.unwrap();
    let checkpointed = supervisor.spawn(spec("bench/checkpointed").checkpointed()).await.unwrap();
    (supervisor, [plain, checkpointed])
}

/// Counts in one of its words.
struct Table(Box<[u64]>);

impl Kernel for Table {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> Result<u64, KernelError> {
        let words = self.0.len() as u64;
        let word = usize::try_from(*input % words).unwrap_or(0);
        self.0[word] += 1;
        Ok(self.0[word])
    }
}

impl CheckpointableKernel for Table {
    type Checkpoint = Box<[u64]>;

    async fn checkpoint(&self) -> Result<Box<[u64]>, KernelError> {
        Ok(self.0.clone())
    }

    async fn restore(&mut self, checkpoint: Box<[u64]>) -> Result<(), KernelError> {
        self.0 = checkpoint;
        Ok(())
    }
}
