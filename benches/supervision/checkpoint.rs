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
    let (_supervisor, [plain, copying, checkpointed]) = runtime.block_on(kernels(inline));
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
        contenders: vec![
            (side("a checkpoint after every request", &checkpointed), Target::Ratio(1.3)),
            (side("no checkpoints, the kernel copies its state itself", &copying), Target::None),
        ],
    });
}

async fn call(kernel: KernelRef<u64, u64>, calls: usize) {
    for number in 0..calls as u64 {
        black_box(kernel.call(number, Deadline::None).await.unwrap());
    }
}

/// The same kernel thrice: without checkpoints, with two copies of its state in its own hands, and with checkpoints.
async fn kernels(inline: bool) -> (Runtime, [KernelRef<u64, u64>; 3]) {
    let supervisor = Runtime::builder().build().await.unwrap();
    let spec = |name, copies| {
        let spec = KernelSpec::new(name, move || Table::new(copies));
        if inline { spec.inline() } else { spec }
    };
    let plain = supervisor.spawn(spec("bench/plain", false)).await.unwrap();
    let copying = supervisor.spawn(spec("bench/copying", true)).await.unwrap();
    let checkpointed = supervisor.spawn(spec("bench/checkpointed", false).checkpointed()).await.unwrap();
    (supervisor, [plain, copying, checkpointed])
}

/// Counts in one of its words.
struct Table {
    words: Box<[u64]>,
    /// Its last two states, if it keeps them, as the slot does.
    copies: Option<[Box<[u64]>; 2]>,
}

impl Table {
    fn new(copies: bool) -> Self {
        Self { words: vec![0; WORDS].into_boxed_slice(), copies: copies.then(<[Box<[u64]>; 2]>::default) }
    }
}

impl Kernel for Table {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> Result<u64, KernelError> {
        let words = self.words.len() as u64;
        let word = usize::try_from(*input % words).unwrap_or(0);
        self.words[word] += 1;
        if let Some(copies) = &mut self.copies {
            copies.swap(0, 1);
            copies[0] = black_box(self.words.clone());
        }
        Ok(self.words[word])
    }
}

impl CheckpointableKernel for Table {
    type Checkpoint = Box<[u64]>;

    async fn checkpoint(&self) -> Result<Box<[u64]>, KernelError> {
        Ok(self.words.clone())
    }

    async fn restore(&mut self, checkpoint: Box<[u64]>) -> Result<(), KernelError> {
        self.words = checkpoint;
        Ok(())
    }
}
