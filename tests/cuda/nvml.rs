//! What NVML says of a device, from its stand-in to the breaker, the domain, the kernels and health.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use metrics_exporter_prometheus::PrometheusBuilder;
use rustkernel::actors::{Fact, KernelSpec, Runtime};
use rustkernel::core::DeviceId;
use rustkernel::core::error::{BreakerScope, KernelErrorKind};
use rustkernel::core::resilience::{HealthStatus, RecoveryPolicy, RecoveryStrategy};
use rustkernel::cuda::DeviceWatch;
use rustkernel::http::{HealthServer, Node, Token, api_router};
use rustkernel::metrics::Publisher;
use rustkernel::worker::{Domain, DomainConfig, DomainState};

use crate::device::{Order, Rig};
use crate::kit::{NONE, assert_balanced, kind, soon};
use crate::serving::post;
use crate::{config, found, is_inside, rig, spare, standin};

/// The file that NVML's stand-in reads.
struct Statements(File);

impl Statements {
    fn path(test: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("nvml-{test}"))
    }

    /// Whether this is the process that the test is for, and its file.
    fn inside(test: &str) -> Option<Self> {
        let path = Self::path(test);
        let environment = [
            ("LD_LIBRARY_PATH", standin::nvml().into_os_string()),
            ("STANDIN_NVML", path.clone().into_os_string()),
        ];
        is_inside(&format!("nvml::{test}"), &environment).then(|| Self(File::create(path).unwrap()))
    }

    fn say(&mut self, line: &str) {
        writeln!(self.0, "{line}").unwrap();
    }
}

async fn unfit(watch: &DeviceWatch) -> String {
    found(|| watch.unfit()).await
}

async fn fit(watch: &DeviceWatch) {
    found(|| watch.unfit().is_none().then_some(())).await;
}

fn add() -> Order {
    Order::Add(vec![1], 1)
}

/// The queue moves to the backup device; nothing is started on the first one, and nobody is asked to come back for ever.
#[tokio::test]
async fn a_device_that_the_driver_wants_reset_is_left_and_its_kernel_fails_over() {
    let test = "a_device_that_the_driver_wants_reset_is_left_and_its_kernel_fails_over";
    let Some(mut nvml) = Statements::inside(test) else { return };
    let first = Domain::start("first", config("count=2")).unwrap();
    let backup = DomainConfig { device: Some(DeviceId::cuda(1)), ..config("count=2") };
    let backup = Domain::start("backup", backup).unwrap();
    let recovery =
        RecoveryPolicy { strategy: RecoveryStrategy::Failover, max_restarts: 3, ..RecoveryPolicy::default() };
    let spec: KernelSpec<_> = rig(&first, "a/moves").recovery(recovery);
    let spec = spec.backup_elsewhere(DeviceId::cuda(1), backup.maker::<Rig>("rig", &1_u16));
    let runtime = Runtime::builder().build().await.unwrap();
    let moves = soon(runtime.spawn(spec)).await.unwrap();
    let stays = soon(runtime.spawn(rig(&first, "a/stays"))).await.unwrap();
    let before = soon(moves.call(add(), NONE)).await.unwrap().pid;
    let watch = DeviceWatch::of(DeviceId::cuda(0));
    assert_eq!(watch.health().status, HealthStatus::Healthy);
    let mut heard = [runtime.events(), runtime.events()];

    nvml.say("xid 95");
    assert!(unfit(&watch).await.contains("Xid 95"));
    for (events, kernel) in heard.iter_mut().zip(["a/moves", "a/stays"]) {
        let tells = |fact: &Fact| matches!(fact, Fact::PlaceUnfit { reason } if reason.contains("Xid 95"));
        soon(events.find(kernel, tells)).await.unwrap();
    }
    let after = found(|| moves.try_call(add(), NONE).ok()).await;
    assert_ne!(soon(after).await.unwrap().pid, before);
    found(|| (first.status().state == DomainState::Down).then_some(())).await;
    let health = first.status().health();
    assert_eq!(health.status, HealthStatus::Unhealthy);
    assert!(health.reason.unwrap().contains("no worker may be started: cuda:0 is unhealthy"));
    let refused = kind(soon(stays.call(add(), NONE)).await);
    assert!(matches!(refused, KernelErrorKind::Rejected(_)), "it has nowhere to go: {refused}");

    nvml.say("action 1");
    found(|| watch.unfit().filter(|why| why.contains("gpu reset"))).await;
    nvml.say("action 0");
    fit(&watch).await;
    found(|| (first.status().state == DomainState::Ready).then_some(())).await;
    soon(runtime.fail_back("a/moves")).await.unwrap();
    let home = soon(moves.call(add(), NONE)).await.unwrap().pid;
    assert_eq!(Some(home), first.status().pid);
    // It has waited, and paid nothing.
    soon(stays.call(add(), NONE)).await.unwrap();
    assert_eq!(first.status().obstacle, None);
    assert_balanced(&moves);
    assert_balanced(&stays);
}

#[tokio::test]
async fn errors_open_the_breaker_of_the_device_and_a_slow_device_is_degraded_and_serves() {
    let test = "errors_open_the_breaker_of_the_device_and_a_slow_device_is_degraded_and_serves";
    let Some(mut nvml) = Statements::inside(test) else { return };
    let domain = Domain::start("gpu", config("")).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    spare(&domain).await;
    let watch = DeviceWatch::of(DeviceId::cuda(0));
    let degraded = |word: &'static str| {
        let watch = watch.clone();
        move || {
            let health = watch.health();
            let is_it = health.status == HealthStatus::Degraded && health.reason?.contains(word);
            is_it.then_some(())
        }
    };
    nvml.say("throttle 64");
    found(degraded("hardware thermal slowdown")).await;
    assert_eq!(watch.memory().unwrap().total, 1 << 30);
    soon(kernel.call(add(), NONE)).await.unwrap();
    nvml.say("xid 13");
    nvml.say("ecc 2");
    found(degraded("not corrected, 2")).await;
    let error = kind(soon(kernel.call(add(), NONE)).await);
    let KernelErrorKind::Rejected(rejection) = &error else { panic!("{error}") };
    assert_eq!(rejection.scope, BreakerScope::Device);
    assert!(rejection.retry_after.is_some());
    let faults: Vec<String> =
        watch.faults().iter().map(|(fault, count)| format!("{} {count}", fault.code)).collect();
    assert_eq!(faults, ["Xid 13 1"]);
    let node = Node::new(runtime.clone());
    let recorder = PrometheusBuilder::new().build_recorder();
    let snapshot = node.snapshot().await;
    metrics::with_local_recorder(&recorder, || Publisher::default().publish(&snapshot));
    let told = recorder.handle().render();
    for line in [
        r#"rustkernel_device_state{device="cuda:0",gpu_uuid="GPU-5ca1ab1e-0000-0000-0000-000000000000",state="degraded"} 1"#,
        r#"rustkernel_device_state{device="cuda:0",gpu_uuid="GPU-5ca1ab1e-0000-0000-0000-000000000000",state="healthy"} 0"#,
        r#"rustkernel_device_faults_total{device="cuda:0",gpu_uuid="GPU-5ca1ab1e-0000-0000-0000-000000000000",class="kernel exception",code="Xid 13"} 1"#,
        r#"rustkernel_device_memory_bytes{device="cuda:0",gpu_uuid="GPU-5ca1ab1e-0000-0000-0000-000000000000",kind="used"} 536870912"#,
        r#"rustkernel_device_memory_bytes{device="cuda:0",gpu_uuid="GPU-5ca1ab1e-0000-0000-0000-000000000000",kind="total"} 1073741824"#,
    ] {
        assert!(told.lines().any(|found| found == line), "{line} in {told}");
    }
    // The worker has done nothing wrong.
    assert_eq!(domain.status().deaths, 0);
    nvml.say("gone");
    assert!(unfit(&watch).await.contains("fallen off its bus"));
    found(|| (domain.status().deaths > 0).then_some(())).await;
}

/// Nothing else brings one back whose driver does not say what it needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_operator_who_has_reset_a_device_says_so() {
    let test = "an_operator_who_has_reset_a_device_says_so";
    let Some(mut nvml) = Statements::inside(test) else { return };
    let domain = Domain::start("gpu", config("")).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    let token = "a-secret-of-24-letters--";
    let router = api_router(Node::new(runtime.clone()), Token::new(token).ok());
    let server = HealthServer::start("127.0.0.1:0".parse().unwrap(), router).unwrap();
    let watch = DeviceWatch::of(DeviceId::cuda(0));
    nvml.say("xid 62");
    unfit(&watch).await;
    let resume = |name: &str| {
        let order = format!(r#"{{"action":"resume","name":"{name}"}}"#);
        post(&server.address().to_string(), token, &order).0
    };
    assert_eq!(resume("cuda:1"), 404);
    assert!(watch.unfit().is_some());
    assert_eq!(resume("cuda:0"), 200);
    assert_eq!(watch.unfit(), None);
    found(|| (domain.status().state == DomainState::Ready).then_some(())).await;
    soon(kernel.call(add(), NONE)).await.unwrap();
}

#[tokio::test]
async fn a_machine_without_nvml_has_no_signal_and_no_trouble() {
    let has_nvml = std::path::Path::new("/dev/nvidiactl").exists();
    if has_nvml || !is_inside("nvml::a_machine_without_nvml_has_no_signal_and_no_trouble", &[]) {
        return;
    }
    let domain = Domain::start("gpu", config("")).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    soon(kernel.call(add(), NONE)).await.unwrap();
    let watch = DeviceWatch::of(DeviceId::cuda(0));
    let health = found(|| Some(watch.health()).filter(|health| health.reason.is_some())).await;
    assert_eq!(health.status, HealthStatus::Healthy);
    assert!(health.reason.unwrap().starts_with("no signal from NVML: "));
}

/// What the driver says of the device itself, and not of a process that met it: each time, another device serves, and nobody comes home before
/// the driver asks for nothing more.
#[tokio::test]
async fn each_xid_that_concerns_the_device_moves_its_kernels_until_the_driver_takes_it_back() {
    let test = "each_xid_that_concerns_the_device_moves_its_kernels_until_the_driver_takes_it_back";
    let Some(mut nvml) = Statements::inside(test) else { return };
    let first = Domain::start("first", config("count=2")).unwrap();
    let backup = DomainConfig { device: Some(DeviceId::cuda(1)), ..config("count=2") };
    let backup = Domain::start("backup", backup).unwrap();
    let recovery =
        RecoveryPolicy { strategy: RecoveryStrategy::Failover, max_restarts: 3, ..RecoveryPolicy::default() };
    let spec = rig(&first, "a/b").idempotent().recovery(recovery);
    let spec = spec.backup_elsewhere(DeviceId::cuda(1), backup.maker::<Rig>("rig", &1_u16));
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    let watch = DeviceWatch::of(DeviceId::cuda(0));
    let mut events = runtime.events();
    // Failing memory, a link, the bus, the device's own processor.
    for xid in [48, 64, 74, 79, 95, 119, 120, 140] {
        let home = soon(kernel.call(add(), NONE)).await.unwrap().pid;
        assert_eq!(Some(home), first.status().pid, "Xid {xid}");
        let busy = kernel.try_call(Order::Spin(20_000_000), NONE).unwrap();
        nvml.say("action 1");
        nvml.say(&format!("xid {xid}"));
        unfit(&watch).await;
        soon(events.find("a/b", |fact| matches!(fact, Fact::PlaceUnfit { .. }))).await.unwrap();
        soon(events.find("a/b", |fact| matches!(fact, Fact::FailedOver { to } if *to == DeviceId::cuda(1))))
            .await
            .unwrap();
        // It had ended, or it runs again there.
        soon(busy).await.unwrap();
        let there = soon(kernel.call(add(), NONE)).await.unwrap().pid;
        assert_eq!(Some(there), backup.status().pid, "Xid {xid}");
        assert_eq!(first.status().health().status, HealthStatus::Unhealthy);
        assert!(soon(runtime.fail_back("a/b")).await.is_err(), "Xid {xid}: the device is not fit");
        nvml.say("action 0");
        fit(&watch).await;
        found(|| (first.status().state == DomainState::Ready).then_some(())).await;
        soon(runtime.fail_back("a/b")).await.unwrap();
    }
    let met: Vec<String> = watch.faults().iter().map(|(fault, _)| fault.code.to_string()).collect();
    assert_eq!(met.len(), 8, "{met:?}");
    assert_eq!(backup.status().deaths, 0);
    assert_balanced(&kernel);
}

/// The driver tells of the channel that it took from a process that we killed, as it would of one that somebody else has.
#[tokio::test]
async fn the_xid_after_a_kill_of_ours_counts_against_nobody_and_one_out_of_the_blue_does() {
    let test = "the_xid_after_a_kill_of_ours_counts_against_nobody_and_one_out_of_the_blue_does";
    let Some(mut nvml) = Statements::inside(test) else { return };
    let kill_after = std::time::Duration::from_millis(20);
    let domain = Domain::start("gpu", DomainConfig { kill_after, ..config("hang@3") }).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    soon(kernel.call(add(), NONE)).await.unwrap();
    let watch = DeviceWatch::of(DeviceId::cuda(0));
    let codes = || watch.faults().iter().map(|(fault, _)| fault.code.to_string()).collect::<Vec<_>>();
    nvml.say("xid 45");
    found(|| (codes() == ["Xid 45"]).then_some(())).await;
    let warm = spare(&domain).await;
    let error = kind(soon(kernel.call(add(), crate::kit::ms(50))).await);
    assert_eq!(error, KernelErrorKind::DeadlineExceeded);
    found(|| (domain.status().pid == Some(warm)).then_some(())).await;
    let last = domain.status().last_death.unwrap();
    // The device has room for the next one: nobody waits until this one has gone.
    assert!(last.contains("was killed: a/b does not end a request that was cancelled"), "{last}");
    nvml.say("xid 45");
    // The next one is read after it.
    nvml.say("xid 13");
    found(|| codes().contains(&"Xid 13".to_owned()).then_some(())).await;
    let counted: Vec<u64> = watch.faults().iter().map(|(_, count)| *count).collect();
    assert_eq!((counted, watch.unfit()), (vec![1, 1], None));
    assert_eq!(watch.health().status, HealthStatus::Healthy);
    assert_balanced(&kernel);
}

/// A thread of another process that this one traces: as long as it is not waited for, its process has not ended, whoever kills it.
#[allow(unsafe_code, reason = "the system's call has no safe form")]
mod held {
    use std::ffi::{c_int, c_long, c_void};

    pub(super) struct Held(c_int);

    const SEIZE: c_long = 0x4206;
    /// `__WALL`: threads, too.
    const THREADS_TOO: c_int = 0x4000_0000;

    unsafe extern "C" {
        fn ptrace(request: c_long, thread: c_int, address: *mut c_void, data: *mut c_void) -> c_long;
        fn waitpid(process: c_int, status: *mut c_int, options: c_int) -> c_int;
    }

    impl Held {
        /// One that is not the process's first. `None` where this process may not trace.
        pub(super) fn of(process: u32) -> Option<Self> {
            let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
            let numbers = threads.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
            let thread: c_int = { numbers }.find(|number: &c_int| number.unsigned_abs() != process)?;
            // SAFETY: it takes numbers alone.
            let seized = unsafe { ptrace(SEIZE, thread, std::ptr::null_mut(), std::ptr::null_mut()) };
            (seized == 0).then_some(Self(thread))
        }

        /// Lets it go, once it has ended.
        pub(super) fn release(self) {
            let mut status = 0;
            // SAFETY: there is room for the status.
            assert_eq!(unsafe { waitpid(self.0, &raw mut status, THREADS_TOO) }, self.0);
        }
    }
}

/// As one that hangs in the driver: the next worker serves meanwhile, since the device has room for both; then the device is suspect and left, until
/// the process has ended after all.
#[tokio::test]
async fn a_killed_process_that_does_not_end_holds_up_nobody_and_its_device_is_left_in_time() {
    let test = "a_killed_process_that_does_not_end_holds_up_nobody_and_its_device_is_left_in_time";
    let Some(_nvml) = Statements::inside(test) else { return };
    let kill_after = std::time::Duration::from_millis(20);
    let marker = crate::faults::tempfile("stuck");
    let stuck = DomainConfig { kill_after, ..config(&format!("count=2,hang@3,first={marker}")) };
    let first = Domain::start("first", stuck).unwrap();
    let backup = DomainConfig { device: Some(DeviceId::cuda(1)), ..config("count=2") };
    let backup = Domain::start("backup", backup).unwrap();
    let recovery = RecoveryPolicy {
        strategy: RecoveryStrategy::RestartKernel,
        max_restarts: 1,
        restart_delay: crate::kit::ms(0),
        escalation: Some(RecoveryStrategy::Failover),
    };
    let spec = rig(&first, "a/b").recovery(recovery);
    let spec = spec.backup_elsewhere(DeviceId::cuda(1), backup.maker::<Rig>("rig", &1_u16));
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    let mut events = runtime.events();
    let process = soon(kernel.call(add(), NONE)).await.unwrap().pid;
    let warm = spare(&first).await;
    let watch = DeviceWatch::of(DeviceId::cuda(0));
    found(|| watch.memory()).await;
    let Some(held) = held::Held::of(process) else {
        eprintln!("skipped: this process may not trace its own children");
        return;
    };
    let error = kind(soon(kernel.call(add(), crate::kit::ms(50))).await);
    assert_eq!(error, KernelErrorKind::DeadlineExceeded);
    found(|| (first.status().pid == Some(warm)).then_some(())).await;
    assert_eq!(soon(kernel.call(add(), NONE)).await.unwrap().pid, warm);
    assert_eq!((first.status().deaths, first.status().dying, first.status().undying), (1, 1, 0));
    found(|| (first.status().undying == 1).then_some(())).await;
    assert_eq!(first.status().health().status, HealthStatus::Degraded);
    assert_eq!(soon(kernel.call(add(), NONE)).await.unwrap().pid, warm);
    assert!(unfit(&watch).await.contains("suspect"));
    soon(
        events.find("a/b", |fact| matches!(fact, Fact::PlaceUnfit { reason } if reason.contains("suspect"))),
    )
    .await
    .unwrap();
    soon(events.find("a/b", |fact| matches!(fact, Fact::FailedOver { to } if *to == DeviceId::cuda(1))))
        .await
        .unwrap();
    let there = found(|| kernel.try_call(add(), NONE).ok()).await;
    assert_eq!(Some(soon(there).await.unwrap().pid), backup.status().pid);
    held.release();
    fit(&watch).await;
    found(|| (first.status().state == DomainState::Ready).then_some(())).await;
    assert_eq!((first.status().dying, first.status().undying), (0, 0));
    assert_balanced(&kernel);
}
