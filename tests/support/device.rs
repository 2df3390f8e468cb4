//! What the tests of CUDA share: a kernel that does to its device what it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses its own part")]

use rustkernel::core::error::KernelError;
use rustkernel::core::traits::{CheckpointableKernel, Context, LocalKernel, Payload};
use rustkernel::cuda::{Argument, Device, Grid, Image, Module, Stream};
use rustkernel::worker::Kernels;
use serde::{Deserialize, Serialize};

pub(crate) const FAULTS: &str = include_str!("../../src/cuda/kernels/faults.ptx");

/// What a [`Rig`] is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Add a number to each value.
    Add(Vec<u32>, u32),
    /// Keep the device busy until it is told to stop, or for so many nanoseconds.
    Spin(u64),
    /// A function that breaks a rule of the device.
    Fault(String),
    /// Ask for so many bytes.
    Allocate(usize),
    /// Launch with so many threads a block, and so much shared memory.
    Launch { threads: u32, shared_bytes: u32 },
    /// Load another image: PTX.
    Load(String),
    /// A function that the module has not.
    Find(String),
    /// So many launches, one behind the other.
    Many(u32),
}

/// What it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) pid: u32,
    pub(crate) values: Vec<u32>,
    pub(crate) attempt: u32,
    pub(crate) suspect: bool,
}

impl Payload for Order {
    fn size_bytes(&self) -> usize {
        64
    }

    fn schema() -> String {
        "order".into()
    }
}

impl Payload for Told {
    fn size_bytes(&self) -> usize {
        64 + self.values.capacity() * 4
    }

    fn schema() -> String {
        "told".into()
    }
}

/// A kernel on a device.
pub(crate) struct Rig {
    module: Module,
    stream: Stream,
    count: u64,
}

impl Rig {
    pub(crate) fn new(ordinal: u16) -> Result<Self, KernelError> {
        let device = Device::open(ordinal)?;
        Ok(Self { module: device.load(Image::Ptx(FAULTS))?, stream: device.stream()?, count: 0 })
    }
}

impl LocalKernel for Rig {
    type Input = Order;
    type Output = Told;

    #[allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]
    async fn execute_local(&mut self, order: &Order, cx: &mut Context<'_>) -> Result<Told, KernelError> {
        let stream = &self.stream;
        let one = Grid::over(1, 1);
        let launch = |name: &str, grid, arguments: &[&dyn Argument]| {
            let function = self.module.function(name)?;
            // SAFETY: as faults.cu declares them.
            unsafe { stream.launch(&function, grid, arguments) }
        };
        let values = match order {
            Order::Add(values, by) => {
                let data = stream.upload(values)?;
                let count = u32::try_from(values.len()).unwrap();
                launch("rk_add", Grid::over(count, 128), &[&data, &count, by])?;
                stream.download(&data, cx).await?
            }
            Order::Spin(nanos) => {
                let said = stream.zeros::<u32>(1)?;
                launch("rk_spin", one, &[&stream.stop_flag(), nanos, &said])?;
                stream.download(&said, cx).await?
            }
            Order::Fault(name) => {
                let out = stream.zeros::<u32>(2)?;
                match name.as_str() {
                    "rk_fault_stack" => launch(name, one, &[&out, &(1_u32 << 20)])?,
                    _ => launch(name, one, &[&out])?,
                }
                stream.download(&out, cx).await?
            }
            Order::Allocate(bytes) => vec![u32::from(stream.alloc::<u8>(*bytes)?.is_empty())],
            Order::Launch { threads, shared_bytes } => {
                let grid = Grid { blocks: [1; 3], threads: [*threads, 1, 1], shared_bytes: *shared_bytes };
                launch("rk_nothing", grid, &[])?;
                stream.done(cx).await?;
                Vec::new()
            }
            Order::Load(ptx) => {
                stream.device().load(Image::Ptx(ptx))?;
                Vec::new()
            }
            Order::Find(name) => vec![self.module.function(name)?.max_threads()],
            Order::Many(launches) => {
                let data = stream.zeros::<u32>(1)?;
                for _ in 0..*launches {
                    launch("rk_add", one, &[&data, &1_u32, &1_u32])?;
                }
                stream.download(&data, cx).await?
            }
        };
        self.count += 1;
        let (attempt, suspect) = (cx.header().attempt, cx.header().suspect);
        Ok(Told { pid: std::process::id(), values, attempt, suspect })
    }
}

impl CheckpointableKernel for Rig {
    type Checkpoint = u64;

    fn checkpoint(&self) -> impl Future<Output = Result<u64, KernelError>> + Send {
        std::future::ready(Ok(self.count))
    }

    fn restore(&mut self, count: u64) -> impl Future<Output = Result<(), KernelError>> + Send {
        self.count = count;
        std::future::ready(Ok(()))
    }
}

/// What a worker of these tests can make.
pub(crate) fn kernels(kernels: &mut Kernels) {
    kernels.register_checkpointed("rig", |ordinal: u16| Rig::new(ordinal));
}
