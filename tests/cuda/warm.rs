//! What a spare worker has done before it is wanted.

use rustkernel::actors::Runtime;
use rustkernel::worker::{Domain, DomainConfig};

use crate::device::Order;
use crate::faults::tempfile;
use crate::kit::{NONE, soon};
use crate::{config, found, rig, spare};

const OTHER: &str =
    "//\n.version 8.0\n.target sm_75\n.address_size 64\n.visible .entry rk_nothing()\n{\nret;\n}\n";

/// The processes that have loaded a module with these functions.
fn loaded(log: &str, functions: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let of = |line: &str| {
        let (pid, there) = line.split_once(' ')?;
        if there == functions { pid.parse().ok() } else { None }
    };
    text.lines().filter_map(of).collect()
}

/// On an H100 the load of known PTX takes 7 ms after a death, of new PTX 40, and CUDA C takes 230: with nobody there to serve.
#[tokio::test]
async fn a_spare_worker_has_loaded_what_the_present_one_has_before_it_is_wanted() {
    let log = tempfile("loads");
    let domain = Domain::start("gpu", config(&format!("loads={log}"))).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    // One image after the spare worker is up, the kernel's own perhaps before.
    let first = spare(&domain).await;
    soon(kernel.call(Order::Load(OTHER.into()), NONE)).await.unwrap();
    let present = domain.status().pid.unwrap();
    let images = |pid: u32| {
        let has = |functions: &str| loaded(&log, functions).contains(&pid);
        let text = std::fs::read_to_string(&log).unwrap();
        let own = format!("{pid} rk_nothing rk_add");
        (has("rk_nothing"), text.lines().any(|line| line.starts_with(&own)))
    };
    assert_eq!(images(present), (true, true));
    found(|| (images(first) == (true, true)).then_some(())).await;
    // The next spare one hears of both when it is up; nobody loads anything twice.
    soon(kernel.call(Order::Fault("rk_fault_trap".into()), NONE)).await.unwrap_err();
    let told = soon(kernel.call(Order::Add(vec![1], 1), NONE)).await.unwrap();
    assert_eq!(told.pid, first);
    let second = spare(&domain).await;
    found(|| (images(second) == (true, true)).then_some(())).await;
    soon(kernel.call(Order::Load(OTHER.into()), NONE)).await.unwrap();
    assert_eq!(loaded(&log, "rk_nothing").len(), 3);
}

/// A domain without a spare worker has nobody who would load it.
#[tokio::test]
async fn without_a_spare_worker_each_loads_what_it_wants() {
    let log = tempfile("cold-loads");
    let config = DomainConfig { spare: false, ..config(&format!("loads={log}")) };
    let domain = Domain::start("gpu", config).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    soon(kernel.call(Order::Load(OTHER.into()), NONE)).await.unwrap();
    for deaths in 1..=2 {
        soon(kernel.call(Order::Fault("rk_fault_trap".into()), NONE)).await.unwrap_err();
        crate::back(&domain, deaths).await;
        soon(kernel.call(Order::Add(vec![1], 1), NONE)).await.unwrap();
    }
    assert_eq!(loaded(&log, "rk_nothing").len(), 1);
}

/// A new one takes milliseconds while the driver clears away after a process that has died.
#[tokio::test]
async fn the_stream_that_a_process_has_asked_its_device_with_is_its_first_kernels() {
    let domain = Domain::start("gpu", config("cuStreamCreate@2=2")).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    soon(kernel.call(Order::Add(vec![1], 1), NONE)).await.unwrap();
    // The next kernel makes its own, and is refused one here.
    let error = soon(runtime.spawn(rig(&domain, "a/c"))).await.unwrap_err().to_string();
    assert!(error.contains("cuStreamCreate failed with CUDA_ERROR_OUT_OF_MEMORY"), "{error}");
}
