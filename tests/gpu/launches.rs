//! What a supervised launch costs, beside `cuLaunchKernel` by hand.

use rustkernel::actors::{KernelRef, KernelSpec};
use rustkernel::core::envelope::Deadline;
use rustkernel::worker::DomainConfig;

use crate::context::{Context, Raw, Word};
use crate::figures::{Side, compare, timed};
use crate::kernels::Burst;
use crate::raw::Handle;
use crate::row::{Bench, Found, Halt, Outcome};
use crate::scene::{self, place};

/// Launches in one request, and under way at a time.
const IN_FLIGHT: u32 = 64;
/// Launches that a [`Stream`](rustkernel::cuda::Stream) has under way at most.
const MOST: u32 = 256;

/// Launches a second: requests of 64 launches each, that are waited for, one request after the other.
pub(crate) fn waited_for(bench: Bench) -> Outcome {
    compared(bench, bench.times(500), [IN_FLIGHT; 2], "64 launches, then until they are done")
}

/// One launch, and until it is done: what a single small request sees.
pub(crate) fn single(bench: Bench) -> Outcome {
    compared(bench, bench.times(2_000), [1, IN_FLIGHT], "one launch, then until it is done")
}

/// A long row of launches in one request, as many of them under way on either side.
pub(crate) fn streamed(bench: Bench) -> Outcome {
    let launches = if bench.quick || bench.is_standin { 2_000 } else { 100_000 };
    compared(bench, 1, [launches, MOST], "one request; by hand too, 256 launches are under way")
}

/// The same, with 64 of them under way by hand.
pub(crate) fn sixty_four(bench: Bench) -> Outcome {
    let launches = if bench.quick || bench.is_standin { 2_000 } else { 100_000 };
    compared(
        bench,
        1,
        [launches, IN_FLIGHT],
        "one request; by hand 64 launches are under way, ours as many as 256",
    )
}

/// `requests` requests a round, each of `launches`, of which so many are under way by hand.
fn compared(bench: Bench, requests: usize, [launches, under_way]: [u32; 2], text: &str) -> Outcome {
    let tokio = scene::tokio()?;
    let domain = scene::domain("bench", DomainConfig::cuda(0))?;
    let (_runtime, here, there) = tokio.block_on(async {
        let runtime = scene::runtime().await?;
        let here = runtime.spawn(KernelSpec::fallible("bench/here", || Burst::new(0))).await;
        let there = place::<Burst>(&runtime, &domain, "burst").await?;
        Ok::<_, Halt>((runtime, here.map_err(Halt::fail)?, there))
    })?;
    let raw = Raw::open()?;
    let by_hand = ByHand::new(raw.primary()?, under_way)?;
    let total = f64::from(launches) * f64::from(u32::try_from(requests).unwrap_or(u32::MAX));
    let rate = |work: &dyn Fn() -> Result<(), Halt>| {
        let (seconds, done) = timed(|| (0..requests).try_for_each(|_| work()));
        done.map(|()| total / seconds)
    };
    let call = |kernel: &KernelRef<u64, u64>| {
        let (kernel, rate) = (kernel.clone(), &rate);
        let tokio = &tokio;
        move || {
            rate(&|| {
                tokio.block_on(kernel.call(u64::from(launches), Deadline::None))?;
                Ok(())
            })
        }
    };
    let sides = vec![
        Side::new("raw", || rate(&|| by_hand.launch(launches))),
        Side::new("in_process", call(&here)),
        Side::new("in_worker", call(&there)),
    ];
    compare(Found::new(text), "launches_per_s", bench.times(15).max(3), sides)
}

/// The least that could do the same: launches in one stream, and a word that the device writes now and then.
struct ByHand<'a> {
    context: Context<'a>,
    function: Handle,
    stream: Handle,
    word: Word,
    under_way: u32,
}

impl<'a> ByHand<'a> {
    fn new(context: Context<'a>, under_way: u32) -> Result<Self, Halt> {
        let (function, stream, word) = (context.function("rk_nothing")?, context.stream()?, context.word()?);
        Ok(Self { context, function, stream, word, under_way })
    }

    /// So many launches, and until they are done.
    fn launch(&self, launches: u32) -> Result<(), Halt> {
        self.word.set(0);
        let half = self.under_way / 2;
        for launch in 1..=launches {
            self.context.launch(self.function, [1, 1], self.stream, &[])?.ok("cuLaunchKernel")?;
            // In halves, so that there is always something under way.
            if launch.is_multiple_of(half) {
                self.context.write(self.stream, self.word, launch)?.ok("cuStreamWriteValue32")?;
                self.wait(launch.saturating_sub(half));
            }
        }
        if !launches.is_multiple_of(half) {
            self.context.write(self.stream, self.word, launches)?.ok("cuStreamWriteValue32")?;
        }
        self.wait(launches);
        Ok(())
    }

    fn wait(&self, launch: u32) {
        while self.word.value() < launch {
            std::hint::spin_loop();
        }
    }
}
