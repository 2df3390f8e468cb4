//! A chain of three stages whose data stays on the device, in this process and in a worker, beside the same by hand in one stream.

#![allow(unsafe_code, reason = "the driver is a C library")]

use rustkernel::actors::{KernelSpec, Pipeline, Runtime};
use rustkernel::core::envelope::Deadline;
use rustkernel::worker::{Domain, DomainConfig};

use crate::context::{Context, Raw, Value};
use crate::figures::{Side, compare, timed};
use crate::raw::{Address, Handle};
use crate::row::{Bench, Found, Halt, Outcome, ensure};
use crate::scene;
use crate::stages::{Double, Download, Last, Source, Upload};

const THREADS: u32 = 256;

/// A thousand values: what the hand-over costs.
pub(crate) fn small(bench: Bench) -> Outcome {
    compared(bench, 1_000, 100)
}

/// Four million values: what the data costs.
pub(crate) fn large(bench: Bench) -> Outcome {
    compared(bench, if bench.is_standin { 100_000 } else { 1 << 22 }, 5)
}

/// `times` chains a round.
fn compared(bench: Bench, len: u32, times: u32) -> Outcome {
    let tokio = scene::tokio()?;
    let (_runtime, chain) = tokio.block_on(async {
        let runtime = scene::runtime().await?;
        let double = |id: &str| KernelSpec::fallible(id, Double::new);
        let first = runtime.spawn(KernelSpec::fallible("chain/up", Upload::new)).await.map_err(Halt::fail)?;
        let mut chain = Pipeline::from(first);
        for id in ["chain/two", "chain/four", "chain/eight"] {
            chain = chain.then(runtime.spawn(double(id)).await.map_err(Halt::fail)?);
        }
        let last = runtime.spawn(KernelSpec::fallible("chain/down", Download::new)).await;
        Ok::<_, Halt>((runtime, chain.then(last.map_err(Halt::fail)?)))
    })?;
    let domain = scene::domain("bench", DomainConfig::cuda(0))?;
    let (_workers_runtime, there) = tokio.block_on(chain_in(&domain))?;
    let raw = Raw::open()?;
    let mut by_hand = ByHand::new(raw.primary()?, len)?;
    let input: Vec<f32> = (0..len).map(|at| (at % 1000) as f32).collect();
    let per_chain = |work: &mut dyn FnMut() -> Result<f64, Halt>| {
        let total: Result<f64, Halt> = (0..times).map(|_| work()).sum();
        total.map(|total| total * 1e6 / f64::from(times))
    };
    let supervise = |chain: &Chain| {
        let own = input.clone();
        let (seconds, output) = timed(|| tokio.block_on(chain.run(own, Deadline::None)));
        check(&input, &output.map_err(Halt::fail)?).map(|()| seconds)
    };
    let mut output = vec![0.0_f32; input.len()];
    let sides = vec![
        Side::new("by_hand", || {
            per_chain(&mut || {
                let (seconds, done) = timed(|| by_hand.run(&input, &mut output));
                done?;
                check(&input, &output).map(|()| seconds)
            })
        }),
        Side::new("supervised", || per_chain(&mut || supervise(&chain))),
        Side::new("in_worker", || per_chain(&mut || supervise(&there))),
    ];
    let text = format!("{len} values up, doubled three times, and down; every result is right");
    compare(Found::new(text), "us", bench.times(15).max(3), sides)
}

type Chain = Pipeline<Vec<f32>, Vec<f32>>;

/// The chain, with all its kernels in the domain's worker.
async fn chain_in(domain: &Domain) -> Result<(Runtime, Chain), Halt> {
    let runtime = scene::runtime().await?;
    let mut chain = Pipeline::from(scene::place::<Upload>(&runtime, domain, "upload").await?);
    for id in ["two", "four", "eight"] {
        let double = domain.kernel::<Double>(format!("chain/{id}"), "double", &0_u16);
        chain = chain.then(runtime.spawn(double).await.map_err(Halt::fail)?);
    }
    let down = scene::place::<Download>(&runtime, domain, "download").await?;
    Ok((runtime, chain.then(down)))
}

/// Values that never leave the device: made there, doubled three times, and waited for.
pub(crate) fn kept(bench: Bench) -> Outcome {
    let len: u32 = if bench.is_standin { 100_000 } else { 1 << 26 };
    let times = 20;
    let tokio = scene::tokio()?;
    let domain = scene::domain("bench", DomainConfig::cuda(0))?;
    let (_here_runtime, here) = tokio.block_on(kept_here())?;
    let (_workers_runtime, there) = tokio.block_on(kept_in(&domain))?;
    let raw = Raw::open()?;
    let by_hand = ByHand::new(raw.primary()?, len)?;
    let per_chain = |work: &dyn Fn() -> Result<(), Halt>| {
        let (seconds, done) = timed(|| (0..times).try_for_each(|_| work()));
        done.map(|()| seconds * 1e6 / f64::from(times))
    };
    let supervise = |chain: &Pipeline<u64, u64>| {
        let done = tokio.block_on(chain.run(u64::from(len), Deadline::None)).map_err(Halt::fail)?;
        ensure(done == u64::from(len), || format!("{done} values"))
    };
    let sides = vec![
        Side::new("by_hand", || per_chain(&|| by_hand.keep())),
        Side::new("supervised", || per_chain(&|| supervise(&here))),
        Side::new("in_worker", || per_chain(&|| supervise(&there))),
    ];
    let text = format!("{len} values made on the device, doubled three times, and waited for");
    compare(Found::new(text), "us", bench.times(15).max(3), sides)
}

/// A queue that takes the largest buffer.
const QUEUE: (usize, usize) = (16, 1 << 30);

async fn kept_here() -> Result<(Runtime, Pipeline<u64, u64>), Halt> {
    let runtime = scene::runtime().await?;
    let source = runtime.spawn(KernelSpec::fallible("kept/source", Source::new)).await.map_err(Halt::fail)?;
    let mut chain = Pipeline::from(source);
    for id in ["kept/two", "kept/four"] {
        let double = KernelSpec::fallible(id, Double::new).queue(QUEUE.0, QUEUE.1);
        chain = chain.then(runtime.spawn(double).await.map_err(Halt::fail)?);
    }
    let last = KernelSpec::fallible("kept/eight", Last::new).queue(QUEUE.0, QUEUE.1);
    Ok((runtime.clone(), chain.then(runtime.spawn(last).await.map_err(Halt::fail)?)))
}

/// The same, with all its kernels in the domain's worker.
async fn kept_in(domain: &Domain) -> Result<(Runtime, Pipeline<u64, u64>), Halt> {
    let runtime = scene::runtime().await?;
    let mut chain = Pipeline::from(scene::place::<Source>(&runtime, domain, "source").await?);
    for id in ["two", "four"] {
        let double = domain.kernel::<Double>(format!("kept/{id}"), "double", &0_u16);
        chain = chain.then(runtime.spawn(double.queue(QUEUE.0, QUEUE.1)).await.map_err(Halt::fail)?);
    }
    let last = domain.kernel::<Last>("kept/eight", "last", &0_u16).queue(QUEUE.0, QUEUE.1);
    Ok((runtime.clone(), chain.then(runtime.spawn(last).await.map_err(Halt::fail)?)))
}

fn check(input: &[f32], output: &[f32]) -> Result<(), Halt> {
    let right = input.iter().zip(output).all(|(input, output)| (input * 8.0).to_bits() == output.to_bits());
    ensure(right && input.len() == output.len(), || "a result is wrong".to_owned())
}

/// The same in one stream, with its buffers made once.
struct ByHand<'a> {
    context: Context<'a>,
    saxpy: Handle,
    stream: Handle,
    buffers: [Address; 4],
    pinned: *mut u8,
    len: u32,
}

impl<'a> ByHand<'a> {
    fn new(context: Context<'a>, len: u32) -> Result<Self, Halt> {
        let (saxpy, stream) = (context.function("rk_saxpy")?, context.stream()?);
        let mut buffers = [0; 4];
        for buffer in &mut buffers {
            *buffer = context.zeros(len as usize, stream)?;
        }
        Ok(Self { context, saxpy, stream, buffers, pinned: context.pinned(len as usize * 4)?, len })
    }

    /// Makes the values, and doubles them.
    fn keep(&self) -> Result<(), Halt> {
        self.clear(self.buffers[0])?;
        self.double()?;
        self.context.settle(self.stream)?.ok("cuStreamQuery")
    }

    /// Doubles what is in the first buffer, from each to the next. Gives the last one.
    fn double(&self) -> Result<Address, Halt> {
        let [mut from, rest @ ..] = self.buffers;
        for to in rest {
            self.clear(to)?;
            let arguments = [Value::F32(2.0), Value::Address(from), Value::Address(to), Value::U32(self.len)];
            let grid = [self.len.div_ceil(THREADS), THREADS];
            self.context.launch(self.saxpy, grid, self.stream, &arguments)?.ok("cuLaunchKernel")?;
            from = to;
        }
        Ok(from)
    }

    fn clear(&self, buffer: Address) -> Result<(), Halt> {
        let bytes = self.len as usize * size_of::<f32>();
        // SAFETY: so many bytes are there.
        unsafe { self.context.driver.cuMemsetD8Async(buffer, 0, bytes, self.stream)? }.ok("cuMemsetD8Async")
    }

    /// By way of pinned memory, as the least that can be done; the output is memory that was used before.
    fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), Halt> {
        let (driver, bytes) = (self.context.driver, size_of_val(input));
        let [first, ..] = self.buffers;
        // SAFETY: the pinned memory and each buffer have room for `len` values; the copies are over before it is used again.
        unsafe {
            self.pinned.copy_from_nonoverlapping(input.as_ptr().cast(), bytes);
            driver.cuMemcpyHtoDAsync_v2(first, self.pinned.cast(), bytes, self.stream)?.ok("cuMemcpyHtoD")?;
        }
        let from = self.double()?;
        // SAFETY: as above.
        unsafe { driver.cuMemcpyDtoHAsync_v2(self.pinned.cast(), from, bytes, self.stream)? }
            .ok("cuMemcpyDtoH")?;
        self.context.settle(self.stream)?.ok("cuStreamQuery")?;
        ensure(output.len() == input.len(), || "the output has another length".to_owned())?;
        // SAFETY: so many bytes have been copied there.
        unsafe { self.pinned.copy_to_nonoverlapping(output.as_mut_ptr().cast(), bytes) };
        Ok(())
    }
}
