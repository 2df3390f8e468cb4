//! What cudarc's launch costs with its events and without, beside ours and the driver's.

#![allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use rustkernel::core::traits::Context as KernelContext;
use rustkernel::cuda::{Device, Grid, Image};

use crate::context::{Context, Raw};
use crate::device::FAULTS;
use crate::figures::{Side, compare, timed};
use crate::raw::{Address, Handle};
use crate::row::{Bench, Found, Halt, Outcome};
use crate::scene;

/// Launches a round: less than what a stream takes before it makes the caller wait.
const LAUNCHES: u32 = 512;
const ONE: LaunchConfig = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (1, 1, 1), shared_mem_bytes: 0 };

/// Launches a second of a kernel with a buffer as its argument.
pub(crate) fn find(bench: Bench) -> Outcome {
    let raw = Raw::open()?;
    let by_hand = ByHand::new(raw.primary()?)?;
    let [tracked, untracked] = [true, false].map(Cudarc::new);
    let (tracked, untracked) = (tracked?, untracked?);
    let device = Device::open(0)?;
    let (add, stream, tokio) =
        (device.load(Image::Ptx(FAULTS))?.function("rk_add")?, device.stream()?, scene::tokio()?);
    let data = stream.zeros::<u32>(1)?;
    let ours = || {
        for _ in 0..LAUNCHES {
            // SAFETY: as faults.cu declares it.
            unsafe { stream.launch(&add, Grid::over(1, 1), &[&data, &1_u32, &1_u32])? };
        }
        Ok(tokio.block_on(stream.done(&KernelContext::detached()))?)
    };
    let rate = |work: &dyn Fn() -> Result<(), Halt>| {
        let (seconds, done) = timed(work);
        done.map(|()| f64::from(LAUNCHES) / seconds)
    };
    let sides = vec![
        Side::new("raw", || rate(&|| by_hand.launch())),
        Side::new("cudarc_tracked", || rate(&|| tracked.launch())),
        Side::new("cudarc_untracked", || rate(&|| untracked.launch())),
        Side::new("ours", || rate(&ours)),
    ];
    let found = Found::new(format!("{LAUNCHES} launches with a buffer, and until they are done"));
    compare(found, "launches_per_s", bench.times(100).max(3), sides)
}

struct ByHand<'a> {
    context: Context<'a>,
    add: Handle,
    stream: Handle,
    data: Address,
}

impl<'a> ByHand<'a> {
    fn new(context: Context<'a>) -> Result<Self, Halt> {
        let (add, stream) = (context.function("rk_add")?, context.stream()?);
        Ok(Self { context, add, stream, data: context.zeros(1, stream)? })
    }

    fn launch(&self) -> Result<(), Halt> {
        for _ in 0..LAUNCHES {
            self.context.add(self.add, self.stream, self.data, 1)?.ok("cuLaunchKernel")?;
        }
        self.context.settle(self.stream)?.ok("cuStreamQuery")
    }
}

/// Through cudarc's builder.
struct Cudarc {
    add: CudaFunction,
    stream: std::sync::Arc<CudaStream>,
    data: std::cell::RefCell<cudarc::driver::CudaSlice<u32>>,
}

impl Cudarc {
    fn new(is_tracked: bool) -> Result<Self, Halt> {
        let context = CudaContext::new(0).map_err(Halt::fail)?;
        if !is_tracked {
            // SAFETY: everything here is in one stream.
            unsafe { context.disable_event_tracking() };
        }
        let stream = context.new_stream().map_err(Halt::fail)?;
        let module = context.load_module(Ptx::from_src(FAULTS)).map_err(Halt::fail)?;
        let add = module.load_function("rk_add").map_err(Halt::fail)?;
        let data = std::cell::RefCell::new(stream.alloc_zeros(1).map_err(Halt::fail)?);
        Ok(Self { add, stream, data })
    }

    fn launch(&self) -> Result<(), Halt> {
        let mut data = self.data.borrow_mut();
        for _ in 0..LAUNCHES {
            let mut builder = self.stream.launch_builder(&self.add);
            builder.arg(&mut *data).arg(&1_u32).arg(&1_u32);
            // SAFETY: as faults.cu declares it.
            unsafe { builder.launch(ONE) }.map_err(Halt::fail)?;
        }
        self.stream.synchronize().map_err(Halt::fail)
    }
}
