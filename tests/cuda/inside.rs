//! A device in the process that supervises: each test runs again in a process of its own, where the stand-in is the driver.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustkernel::actors::{KernelSpec, Pipeline, Runtime};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{ErrorKind, HealthStatus};
use rustkernel::core::traits::Context;
use rustkernel::cuda::{Argument, Buffer, CudaError, Device, Grid, Stream};
use rustkernel::http::{HealthServer, Node, health_router};

use crate::device::{Order, Rig};
use crate::kit::{NONE, assert_balanced, kind, ms, soon};
use crate::serving::get;
use crate::stages::{Double, Download, Upload, function};
use crate::standin;

/// Whether this is the process that the test is for, with a driver that does what `script` says.
fn is_inside(test: &str, script: &str) -> bool {
    let environment =
        [("LD_LIBRARY_PATH", standin::driver().into_os_string()), ("STANDIN_DRIVER", script.into())];
    crate::is_inside(&format!("inside::{test}"), &environment)
}

#[allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]
fn launch(stream: &Stream, name: &str, len: u32, arguments: &[&dyn Argument]) -> Result<(), CudaError> {
    let function = function(stream.device(), name).unwrap();
    // SAFETY: as faults.cu declares them.
    unsafe { stream.launch(&function, Grid::over(len, 64), arguments) }
}

/// Where the other stream still reads what was given back, its next owner waits for it.
#[tokio::test]
async fn memory_that_another_stream_still_reads_is_not_used_again_before() {
    if !is_inside("memory_that_another_stream_still_reads_is_not_used_again_before", "") {
        return;
    }
    let device = Device::open(0).unwrap();
    let cx = Context::detached();
    for _ in 0..20 {
        let (first, second) = (device.stream().unwrap(), device.stream().unwrap());
        let x = first.upload(&[1.0_f32; 1000]).unwrap();
        let y = second.zeros::<f32>(1000).unwrap();
        let spun = second.zeros::<u32>(1).unwrap();
        launch(&second, "rk_spin", 1, &[&second.stop_flag(), &2_000_000_u64, &spun]).unwrap();
        launch(&second, "rk_saxpy", 1000, &[&2.0_f32, &x, &y, &1000_u32]).unwrap();
        drop(x);
        let next = first.upload(&[7.0_f32; 1000]).unwrap();
        assert_eq!(second.download(&y, &cx).await.unwrap(), [2.0; 1000]);
        assert_eq!(first.download(&next, &cx).await.unwrap(), [7.0; 1000]);
    }
}

#[tokio::test]
async fn what_a_pipeline_hands_on_stays_on_the_device() {
    if !is_inside("what_a_pipeline_hands_on_stays_on_the_device", "") {
        return;
    }
    let runtime = Runtime::builder().build().await.unwrap();
    let double = |id: &str| KernelSpec::fallible(id, Double::new);
    let upload = runtime.spawn(KernelSpec::fallible("a/upload", Upload::new)).await.unwrap();
    let (two, four) =
        (runtime.spawn(double("a/two")).await.unwrap(), runtime.spawn(double("a/four")).await.unwrap());
    let down = runtime.spawn(KernelSpec::fallible("a/down", Download::new)).await.unwrap();
    let chain = Pipeline::from(upload).then(two).then(four).then(down);
    for len in [1, 100, 5_000] {
        let input: Vec<f32> = (0_u16..len).map(f32::from).collect();
        let output = soon(chain.run(input.clone(), NONE)).await.unwrap();
        assert!(input.iter().zip(&output).all(|(input, output)| (input * 4.0).to_bits() == output.to_bits()));
        assert_eq!(output.len(), input.len());
    }
}

#[tokio::test]
async fn a_lost_device_is_unhealthy_from_then_on_and_says_so_to_everybody() {
    if !is_inside("a_lost_device_is_unhealthy_from_then_on_and_says_so_to_everybody", "") {
        return;
    }
    let device = Device::open(0).unwrap();
    let told = Arc::new(AtomicU32::new(0));
    let listener = Arc::clone(&told);
    device.on_loss(move |_| {
        listener.fetch_add(1, Ordering::Relaxed);
    });
    let runtime = Runtime::builder().build().await.unwrap();
    let rig = |id: &str| KernelSpec::fallible(id, || Rig::new(0)).breaker(None);
    let kernel = soon(runtime.spawn(rig("a/b"))).await.unwrap();
    let other = soon(runtime.spawn(rig("a/c"))).await.unwrap();
    assert_eq!(soon(kernel.call(Order::Add(vec![1], 1), NONE)).await.unwrap().values, [2]);
    assert_eq!(device.health().status, HealthStatus::Healthy);
    let spins = other.try_call(Order::Spin(10_000_000_000), NONE).unwrap();
    let error = soon(kernel.call(Order::Fault("rk_fault_assert".into()), NONE)).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::Kernel(ErrorKind::Crashed));
    assert!(error.to_string().contains("CUDA_ERROR_ASSERT (CUDA 710)"), "{error}");
    let health = device.health();
    assert_eq!(health.status, HealthStatus::Unhealthy);
    assert!(health.reason.unwrap().contains("only its end helps"));
    let error = soon(spins).await.unwrap_err();
    assert!(error.to_string().contains("cuda:0 is lost to this process"), "{error}");
    let error = soon(kernel.call(Order::Add(vec![1], 1), NONE)).await.unwrap_err();
    assert!(error.to_string().contains("CUDA 710"), "{error}");
    assert!(matches!(device.probe(), Err(CudaError::Lost { .. })));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    let late = Arc::clone(&told);
    device.on_loss(move |_| {
        late.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(told.load(Ordering::Relaxed), 2, "who asks later is told at once");
    assert_balanced(&kernel);
    assert_balanced(&other);
}

#[tokio::test]
async fn a_request_whose_time_is_over_stops_its_kernel_on_the_device() {
    if !is_inside("a_request_whose_time_is_over_stops_its_kernel_on_the_device", "") {
        return;
    }
    let runtime = Runtime::builder().build().await.unwrap();
    let spec = KernelSpec::fallible("a/b", || Rig::new(0)).breaker(None);
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    for _ in 0..3 {
        let spins = kernel.call(Order::Spin(60_000_000_000), ms(20));
        assert_eq!(kind(soon(spins).await), KernelErrorKind::DeadlineExceeded);
        assert_eq!(soon(kernel.call(Order::Add(vec![1], 1), NONE)).await.unwrap().values, [2]);
    }
    assert_balanced(&kernel);
}

#[tokio::test]
async fn memory_of_another_size_is_given_back_where_there_is_too_little() {
    if !is_inside("memory_of_another_size_is_given_back_where_there_is_too_little", "oom=1500000") {
        return;
    }
    let device = Device::open(0).unwrap();
    let stream = device.stream().unwrap();
    let (cx, free) = (Context::detached(), device.memory().unwrap().0);
    let small: Vec<Buffer<u8>> = (0..4).map(|_| stream.alloc(200_000).unwrap()).collect();
    assert!(device.memory().unwrap().0 < free);
    drop(small);
    stream.done(&cx).await.unwrap();
    let large = stream.upload(&vec![3_u8; 700_000]).unwrap();
    assert_eq!(stream.download(&large, &cx).await.unwrap(), vec![3; 700_000]);
    assert!(matches!(stream.alloc::<u8>(10_000_000), Err(CudaError::Call { .. })));
}

/// A third stream, and the buffer's own, came after its own stream only, and saw what had been there before.
#[tokio::test]
async fn what_one_guest_has_written_every_other_stream_reads() {
    if !is_inside("what_one_guest_has_written_every_other_stream_reads", "") {
        return;
    }
    let device = Device::open(0).unwrap();
    let streams: Vec<_> = (0..4).map(|_| device.stream().unwrap()).collect();
    let cx = Context::detached();
    let held = streams[0].zeros::<u32>(1).unwrap();
    let spin = 5_000_000_u64;
    for round in 1..=5 {
        for stream in &streams {
            // So that the write is late, and whoever does not wait for it is early.
            let out = stream.zeros::<u32>(1).unwrap();
            launch(stream, "rk_spin", 1, &[&stream.stop_flag(), &spin, &out]).unwrap();
            launch(stream, "rk_add", 1, &[&held, &1_u32, &1_u32]).unwrap();
        }
        for stream in streams.iter().rev() {
            assert_eq!(stream.download(&held, &cx).await.unwrap(), [4 * round]);
        }
    }
}

/// It was kept for the stream that had it, and lost with one that was busy when it went.
#[tokio::test]
async fn memory_that_lies_around_in_one_stream_is_there_for_another() {
    if !is_inside("memory_that_lies_around_in_one_stream_is_there_for_another", "oom=8000000") {
        return;
    }
    let device = Device::open(0).unwrap();
    let (idle, other) = (device.stream().unwrap(), device.stream().unwrap());
    let cx = Context::detached();
    for _ in 0..3 {
        drop(idle.alloc::<u8>(6_000_000).unwrap());
        drop(other.alloc::<u8>(6_000_000).unwrap());
    }
    // One that goes while the device is busy for it.
    let busy = device.stream().unwrap();
    let words = busy.zeros::<u32>(2).unwrap();
    let ends_by_itself = 20_000_000_u64;
    launch(&busy, "rk_spin", 1, &[&busy.stop_flag(), &ends_by_itself, &words]).unwrap();
    drop(busy.alloc::<u8>(6_000_000).unwrap());
    drop((words, busy));
    let large = loop {
        match other.alloc::<u8>(6_000_000) {
            Ok(large) => break large,
            Err(error) => assert!(error.to_string().contains("OUT_OF_MEMORY"), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    other.done(&cx).await.unwrap();
    drop(large);
}

/// Each upload takes pinned memory, and nobody waits for any of them.
#[tokio::test]
async fn uploads_that_nobody_waits_for_use_the_same_pinned_memory_again() {
    if !is_inside("uploads_that_nobody_waits_for_use_the_same_pinned_memory_again", "cuMemAllocHost_v2@60=2")
    {
        return;
    }
    let device = Device::open(0).unwrap();
    let stream = device.stream().unwrap();
    let mut buffer = stream.upload(&[0_u32; 1_000]).unwrap();
    for number in 1..=500 {
        stream.write(&mut buffer, &[number; 1_000]).unwrap();
    }
    assert_eq!(stream.download(&buffer, &Context::detached()).await.unwrap(), [500; 1_000]);
}

/// What an orchestrator asks: until the fault the node takes work, from then on it does not.
#[tokio::test]
async fn a_node_that_has_lost_its_own_device_is_not_ready() {
    if !is_inside("a_node_that_has_lost_its_own_device_is_not_ready", "") {
        return;
    }
    let device = Device::open(0).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = KernelSpec::fallible("a/b", || Rig::new(0)).breaker(None);
    let kernel = soon(runtime.spawn(kernel)).await.unwrap();
    let node = Node::new(runtime);
    node.need("device/cuda:0", move || device.health());
    node.started();
    let router = health_router(node);
    let server = HealthServer::start("127.0.0.1:0".parse().unwrap(), router).unwrap();
    let ready = || get(&server.address().to_string(), "/readyz").0;
    soon(kernel.call(Order::Add(vec![1], 1), NONE)).await.unwrap();
    assert_eq!(ready(), 200);
    soon(kernel.call(Order::Fault("rk_fault_trap".into()), NONE)).await.unwrap_err();
    assert_eq!(ready(), 503, "at once");
    server.close();
}

#[test]
fn the_command_ends_with_75_where_its_own_device_is_lost() {
    for serve in [false, true] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rustkernel"));
        command.args(["run", "--device", "cuda:0", "--placement", "thread"]);
        if serve {
            command.args(["--serve", "127.0.0.1:0"]);
        }
        let output = command
            .env("LD_LIBRARY_PATH", standin::driver())
            .env("STANDIN_DRIVER", "kernel@9=700")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(75), "{text}");
        assert!(text.contains("cuda:0 is lost to this process since CUDA_ERROR_ILLEGAL_ADDRESS"), "{text}");
    }
}

/// What `rustkernel run` prints as JSON, beside a driver.
fn ran(arguments: &[&str]) -> serde_json::Value {
    let input = concat!(env!("CARGO_MANIFEST_DIR"), "/data/karate.txt");
    let output = Command::new(env!("CARGO_BIN_EXE_rustkernel"))
        .args(["run", "--format", "json", "--input", input])
        .args(arguments)
        .env("LD_LIBRARY_PATH", standin::driver())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A job whose workers may die five hundred times on the processor was given up at the sixth on a device.
#[test]
fn the_command_gives_the_same_ranking_on_a_device_and_where_its_workers_are_killed() {
    let expected = ran(&[]);
    let killed = ["--device", "cuda:0", "--placement", "process", "--inject", "kill=0.3", "--seed", "7"];
    for arguments in [&["--device", "cuda:0"][..], &["--device", "cuda:0", "--placement", "thread"], &killed]
    {
        let document = ran(arguments);
        let (ours, theirs) = (&document["result"], &expected["result"]);
        assert_eq!(ours["iterations"], theirs["iterations"], "{arguments:?}");
        let entries = |result: &serde_json::Value| -> Vec<(u64, f64)> {
            let entry =
                |entry: &serde_json::Value| (entry["id"].as_u64().unwrap(), entry["rank"].as_f64().unwrap());
            result["entries"].as_array().unwrap().iter().map(entry).collect()
        };
        let (ours, theirs) = (entries(ours), entries(theirs));
        assert_eq!(ours.len(), 10);
        for ((id, rank), (expected, there)) in ours.into_iter().zip(theirs) {
            // Five iterations are at most 1e-12 apart, and this is one rank of fifty-two.
            assert!(id == expected && (rank - there).abs() < 1e-11, "{arguments:?}: {id} {rank} {there}");
        }
        let reruns = document["stages"][1]["reruns"].as_u64().unwrap();
        assert_eq!(reruns > 5, arguments.contains(&"kill=0.3"), "{reruns}");
    }
}
