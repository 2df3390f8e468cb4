//! CUDA C, compiled by the real NVRTC where `.ci/cuda_kernels.sh` has fetched it.

use std::ffi::OsString;
use std::path::Path;

use rustkernel::core::traits::Context;
use rustkernel::cuda::{CudaError, Device, Grid, Image};

use crate::{is_inside, standin};

/// Whether this is the process that the test is for.
fn has_compiler(test: &str) -> bool {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../cuda-wheels/nvidia/cu13/lib");
    if !folder.join("libnvrtc.so.13").exists() {
        eprintln!("skipped: NVRTC has not been fetched");
        return false;
    }
    let mut path = standin::driver().into_os_string();
    path.push(":");
    path.push(folder);
    let environment: [(&str, OsString); 1] = [("LD_LIBRARY_PATH", path)];
    is_inside(&format!("source::{test}"), &environment)
}

#[tokio::test]
async fn a_kernel_in_cuda_c_is_compiled_when_it_is_loaded() {
    if !has_compiler("a_kernel_in_cuda_c_is_compiled_when_it_is_loaded") {
        return;
    }
    let device = Device::open(0).unwrap();
    let (stream, cx) = (device.stream().unwrap(), Context::detached());
    let source = include_str!("../../src/cuda/kernels/faults.cu");
    let add = device.load(Image::Source(source)).unwrap().function("rk_add").unwrap();
    let data = stream.upload(&[1_u32, 2, 3]).unwrap();
    // SAFETY: as faults.cu declares them.
    #[allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]
    unsafe {
        stream.launch(&add, Grid::over(3, 64), &[&data, &3_u32, &10_u32]).unwrap();
    }
    assert_eq!(stream.download(&data, &cx).await.unwrap(), [11, 12, 13]);
}

#[test]
fn what_does_not_compile_is_told_with_its_line() {
    if !has_compiler("what_does_not_compile_is_told_with_its_line") {
        return;
    }
    let device = Device::open(0).unwrap();
    let source = "extern \"C\" __global__ void rk_add(int *x)\n{\n    x[0] = y;\n}\n";
    for _ in 0..2 {
        let Err(error @ CudaError::Compile { .. }) = device.load(Image::Source(source)) else { panic!() };
        let text = error.to_string();
        assert!(text.contains("identifier \"y\" is undefined") && text.contains("x[0] = y;"), "{text}");
    }
}
