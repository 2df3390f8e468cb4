//! A question to a device whose answer is known.

#![allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};

use rustkernel_core::traits::Context;

use super::device::Device;
use super::function::Grid;
use super::module::Image;
use super::{Argument, CudaError};

const PTX: &str = include_str!("kernels/probe.ptx");
const WORDS: u32 = 1000;

/// Blocks its thread. A device that never answers is for whoever waits for that thread, who has a limit.
pub(super) fn probe(device: &Device) -> Result<(), CudaError> {
    let function = device.load(Image::Ptx(PTX))?.function("rk_probe")?;
    let stream = device.stream()?;
    let question: Vec<u32> = (0..WORDS).map(|word| word ^ 0x5a5a_5a5a).collect();
    let (input, output) = (stream.upload(&question)?, stream.zeros::<u32>(question.len())?);
    let arguments: [&dyn Argument; 3] = [&input, &output, &WORDS];
    // SAFETY: the function takes a buffer that it reads, one that it writes, and the length of both.
    unsafe { stream.launch(&function, Grid::over(WORDS, 128), &arguments)? };
    let answer = block_on(stream.download(&output, &Context::detached()))?;
    let expected =
        question.iter().zip(0_u32..).map(|(word, at)| word.wrapping_mul(2_654_435_761).wrapping_add(at));
    if !answer.into_iter().eq(expected) {
        return Err(CudaError::WrongAnswer { device: device.id() });
    }
    device.keep_warm(stream.line());
    Ok(())
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut task = TaskContext::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut task) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
