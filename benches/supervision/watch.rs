//! What it costs to be looked at: a snapshot of a large tree, and the calls of a node that is scraped and watched.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rustkernel::actors::{KernelRef, Runtime, Supervisor};
use rustkernel::core::clock::Clock;
use rustkernel::core::envelope::Deadline;
use rustkernel::http::{HealthServer, Node, node_router};
use rustkernel::metrics::metrics_router;

use crate::alloc::count;
use crate::report::{Group, Report, Target};
use crate::restart::{GOOD, fragile};
use crate::rounds::Side;
use crate::sides::Flavour;

/// Kernels of each supervisor.
const CHILDREN: usize = 100;
/// A watched node serves at least 0.97 of the calls.
const WATCHED: Target = Target::Ratio(1.031);

pub(crate) fn run(report: &mut Report) {
    if !report.wants("watch") {
        return;
    }
    for flavour in Flavour::BOTH {
        let runtime = flavour.runtime();
        snapshot(report, flavour, &runtime);
        watched(report, flavour, &runtime);
    }
    unscraped(report);
}

/// A node to be looked at by a browser, until standard input ends: so many hundreds of kernels, each of them called once a second.
pub(crate) fn node(hundreds: usize) {
    let runtime = Flavour::MultiThread.runtime();
    let (supervisor, _) = runtime.block_on(grow(hundreds));
    let node = Node::new(supervisor.clone());
    node.started();
    let server =
        HealthServer::start("127.0.0.1:0".parse().unwrap(), node_router(Arc::clone(&node), None)).unwrap();
    println!("{} {}", std::process::id(), server.address());
    let (gone, is_gone) = mpsc::channel();
    thread::spawn(move || gone.send(std::io::stdin().read_to_end(&mut Vec::new())));
    let names = (0..hundreds)
        .flat_map(|branch| (0..CHILDREN).map(move |child| format!("branch-{branch}/child-{child}")));
    let kernels: Vec<KernelRef<u64, u64>> = names.map(|name| supervisor.kernel(&name).unwrap()).collect();
    while matches!(is_gone.recv_timeout(Duration::from_secs(1)), Err(RecvTimeoutError::Timeout)) {
        runtime.block_on(async {
            for kernel in &kernels {
                kernel.call(GOOD, Deadline::None).await.unwrap();
            }
        });
    }
}

fn snapshot(report: &mut Report, flavour: Flavour, runtime: &tokio::runtime::Runtime) {
    let supervisors = report.scale(100);
    let (supervisor, _) = runtime.block_on(grow(supervisors));
    let node = Node::new(supervisor.clone());
    let timed = |work: &dyn Fn()| {
        let clock = Clock::system();
        let before = clock.now();
        work();
        (clock.now() - before).as_secs_f64() * 1e3
    };
    let whole = || runtime.block_on(node.snapshot());
    report.run(Group {
        name: format!("watch: snapshot of {} kernels, {}", supervisors * CHILDREN, flavour.name()),
        unit: "ms",
        rounds: 15,
        baseline: Side::new("Runtime::tree: the supervisors asked", || {
            timed(&|| drop(runtime.block_on(supervisor.tree())))
        }),
        contenders: vec![
            (Side::new("Node::snapshot", || timed(&|| drop(whole()))), Target::Absolute(20.0)),
            (
                Side::new("Node::snapshot, as JSON", || {
                    timed(&|| drop(serde_json::to_vec(&whole()).unwrap()))
                }),
                Target::None,
            ),
        ],
    });
}

/// How much more memory a node that nobody scrapes holds after many requests, beside how much more after few.
fn unscraped(report: &mut Report) {
    let runtime = Flavour::CurrentThread.runtime();
    let (_supervisor, kernel) = runtime.block_on(grow(1));
    let grown = |calls: usize| {
        let ((), counted) = count(|| {
            runtime.block_on(async {
                for _ in 0..calls {
                    kernel.call(GOOD, Deadline::Within(Duration::from_secs(10))).await.unwrap();
                }
            });
        });
        counted.live as f64
    };
    let many = report.scale(1_000_000);
    report.run(Group {
        name: format!("watch: memory gained over {many} calls, unscraped"),
        unit: "bytes",
        rounds: 3,
        baseline: Side::new("over a thousand calls", || grown(1_000)),
        contenders: vec![(Side::new("over all of them", || grown(many)), Target::Absolute(4096.0))],
    });
}

fn watched(report: &mut Report, flavour: Flavour, runtime: &tokio::runtime::Runtime) {
    let supervisors = report.scale(10);
    let span = report.span(Duration::from_secs(3));
    let (supervisor, kernel) = runtime.block_on(grow(supervisors));
    let node = Node::new(supervisor.clone());
    node.started();
    // A process has one recorder, which both flavours share.
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).unwrap();
        handle
    });
    let router =
        node_router(Arc::clone(&node), None).merge(metrics_router(Arc::clone(&node), || handle.render()));
    let server = HealthServer::start("127.0.0.1:0".parse().unwrap(), router).unwrap();
    let calls = || {
        let kernel = kernel.clone();
        runtime.block_on(runtime.spawn(answers_over(kernel, span))).unwrap()
    };
    report.run(Group {
        name: format!("watch: a call, {} kernels, {}", supervisors * CHILDREN, flavour.name()),
        unit: "ns",
        rounds: 9,
        baseline: Side::new("nobody looks", calls),
        contenders: vec![(
            Side::new("scraped, and a page open: both once a second", || {
                let watcher = Watcher::begin(server.address());
                let nanos = calls();
                drop(watcher);
                nanos
            }),
            WATCHED,
        )],
    });
}

/// Nanoseconds an answer.
async fn answers_over(kernel: KernelRef<u64, u64>, span: Duration) -> f64 {
    let clock = Clock::system();
    let (before, mut answers) = (clock.now(), 0_u32);
    while clock.now() - before < span {
        for _ in 0..64 {
            kernel.call(GOOD, Deadline::None).await.unwrap();
        }
        answers += 64;
    }
    (clock.now() - before).as_secs_f64() * 1e9 / f64::from(answers)
}

async fn grow(supervisors: usize) -> (Runtime, KernelRef<u64, u64>) {
    let supervisor = Runtime::builder().build().await.unwrap();
    for branch in 0..supervisors {
        let mut node = Supervisor::new(format!("branch-{branch}"));
        for child in 0..CHILDREN {
            node = node.kernel(fragile(format!("branch-{branch}/child-{child}")));
        }
        supervisor.supervise(node).await.unwrap();
    }
    let kernel = supervisor.kernel("branch-0/child-0").unwrap();
    (supervisor, kernel)
}

/// Scrapes once a second and keeps a page's events open, until it is dropped.
struct Watcher {
    stop: Option<mpsc::Sender<()>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Watcher {
    fn begin(address: SocketAddr) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let scraper = thread::spawn(move || {
            loop {
                let mut stream = TcpStream::connect(address).unwrap();
                write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    .unwrap();
                let mut text = Vec::new();
                stream.read_to_end(&mut text).unwrap();
                match stopped.recv_timeout(Duration::from_secs(1)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        let mut events = TcpStream::connect(address).unwrap();
        write!(events, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let closing = events.try_clone().unwrap();
        let page = thread::spawn(move || {
            let mut buffer = [0; 1 << 16];
            while events.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        let closer = thread::spawn(move || {
            // It ends with the scraper.
            scraper.join().unwrap();
            let _ = closing.shutdown(std::net::Shutdown::Both);
        });
        Self { stop: Some(stop), threads: vec![closer, page] }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}
