//! What the code of a kernel may come as, and what loading it takes.

use std::path::PathBuf;
use std::process::Command;

use rustkernel::core::traits::Context;
use rustkernel::cuda::{CudaError, Device, Grid, Image};

use crate::child::{self, End, Started, command, told};
use crate::context::Raw;
use crate::device::FAULTS;
use crate::figures::{rounded, timed};
use crate::options::ACT;
use crate::row::{Bench, Found, Halt, Outcome, ensure};
use crate::scene::play;

/// The act that loads the PTX by hand in a new process, and says how long that takes.
pub(crate) const LOAD: &str = "load";
const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);
const SOURCE: &str = include_str!("../../src/cuda/kernels/faults.cu");

/// See [`LOAD`].
pub(crate) fn load() -> Result<(), Halt> {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let (seconds, module) = timed(|| context.module(FAULTS));
    module?.0.ok("cuModuleLoadDataEx")?;
    child::tell(&seconds);
    Ok(())
}

/// PTX, CUDA C and a cubin, each loaded and run.
pub(crate) fn find(_: Bench) -> Outcome {
    let device = Device::open(0)?;
    let mut found = Found::new("");
    found = found.figure("ptx_ms", run(&device, Image::Ptx(FAULTS))?);
    found = found.figure("ptx_in_a_new_process_ms", anew()?);
    let mut texts = vec!["PTX computes".to_owned()];
    match run(&device, Image::Source(SOURCE)) {
        Ok(ms) => {
            found = found.figure("source_ms", ms);
            texts.push("CUDA C computes".to_owned());
            let wrong = device.load(Image::Source("extern \"C\" __global__ void f(int *x) { x[0] = y; }"));
            let names =
                matches!(&wrong, Err(CudaError::Compile { log, .. }) if log.contains("identifier \"y\""));
            ensure(names, || format!("what does not compile: {wrong:?}"))?;
        }
        Err(halt) => texts.push(format!("no CUDA C: {halt}")),
    }
    match cubin(&device) {
        Ok(image) => {
            found = found.figure("cubin_ms", run(&device, Image::Cubin(&image))?);
            found = found.figure("cubin_bytes", image.len());
            texts.push("a cubin computes".to_owned());
        }
        Err(halt) => texts.push(format!("no cubin: {halt}")),
    }
    found.text = texts.join("; ");
    Ok(found)
}

/// How many milliseconds the load takes. What is loaded computes.
fn run(device: &Device, image: Image<'_>) -> Result<f64, Halt> {
    let (seconds, module) = timed(|| device.load(image));
    let (add, stream) = (module?.function("rk_add")?, device.stream()?);
    let data = stream.upload(&[1_u32, 2, 3])?;
    // SAFETY: as faults.cu declares it.
    #[allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]
    unsafe {
        stream.launch(&add, Grid::over(3, 64), &[&data, &3_u32, &10_u32])?;
    }
    let values = play(async { Ok(stream.download(&data, &Context::detached()).await?) })?;
    ensure(values == [11, 12, 13], || format!("1, 2, 3 and 10 give {values:?}"))?;
    Ok(rounded(seconds * 1e3))
}

fn anew() -> Result<f64, Halt> {
    let (end, said) = Started::start(&mut command(&[ACT, LOAD]))?.end(LIMIT)?;
    ensure(end == End::Code(0), || format!("a process that loads has ended with {end:?}"))?;
    let seconds: Option<f64> = told(&said);
    seconds.map(|seconds| rounded(seconds * 1e3)).ok_or_else(|| Halt::Fail("it has told nothing".to_owned()))
}

/// The PTX, assembled for this device where the assembler is at hand.
fn cubin(device: &Device) -> Result<Vec<u8>, Halt> {
    let folder = std::env::temp_dir();
    let name = |end: &str| -> PathBuf { folder.join(format!("gpu-faults-{}.{end}", std::process::id())) };
    let (ptx, cubin) = (name("ptx"), name("cubin"));
    std::fs::write(&ptx, FAULTS)?;
    let arch = format!("-arch=sm_{}", device.info().capability.to_string().replace('.', ""));
    let ran = Command::new("ptxas").arg(arch).arg(&ptx).arg("-o").arg(&cubin).output();
    let image = ran.map_err(|error| Halt::Skip(format!("ptxas: {error}"))).and_then(|output| {
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(std::fs::read(&cubin)?) } else { Err(Halt::Fail(log)) }
    });
    // Neither is of use to anybody else.
    let _ = (std::fs::remove_file(&ptx), std::fs::remove_file(&cubin));
    image
}
