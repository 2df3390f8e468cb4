//! A node that serves its health, and the command that asks for it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/serving.rs"]
mod serving;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use kit::{Do, Fragile, Latch, NONE, Puppet};
use rustkernel::actors::{BreakerCommand, Fact, KernelSpec, Runtime};
use rustkernel::core::KernelError;
use rustkernel::core::resilience::{HealthCheckResult, HealthStatus, RecoveryPolicy};
use rustkernel::core::traits::{Context, Kernel};
use rustkernel::http::{HealthServer, Node, Token, health_router, node_router};
use rustkernel::metrics::metrics_router;
use serde_json::Value;
use serving::{Serving, ask, get, json, post};

fn health(address: &str, args: &[&str]) -> Output {
    ask(address, &["health"], args)
}

#[test]
fn a_node_stays_healthy_after_its_job_until_it_is_told_to_end() {
    let mut node = Serving::start(&[]);
    assert!(node.result()["result"].is_object());
    for path in ["/health/live", "/health/ready", "/health/startup", "/health"] {
        assert_eq!(get(&node.address, path).0, 200, "{path}");
    }
    for path in ["/livez", "/readyz", "/startupz", "/livez/runtime", "/readyz/graph/load", "/v2/health/live"]
    {
        assert_eq!(get(&node.address, path).0, 200, "{path}");
    }
    for path in ["/v2/models/graph/load/ready", "/v2/health/ready"] {
        let (status, _, body) = get(&node.address, path);
        assert_eq!((status, body.as_str()), (200, ""), "{path}");
    }
    for path in
        ["/readyz/graph/nix", "/v2/models/graph/nix/ready", "/v2/models/graph/load", "/v2/health/startup"]
    {
        assert_eq!(get(&node.address, path).0, 404, "{path}");
    }
    let (_, _, lines) = get(&node.address, "/readyz?verbose&exclude=graph/load,job");
    assert_eq!(lines, "[+]runtime healthy\n[+]graph/pagerank healthy\n[+]graph/top_k healthy\nready\n");
    let (code, _, lines) = get(&node.address, "/readyz?verbose&exclude=graph/load&exclude=job,graph/top_k");
    assert_eq!((code, lines.as_str()), (200, "[+]runtime healthy\n[+]graph/pagerank healthy\nready\n"));
    let (_, head, body) = get(&node.address, "/health/ready?verbose");
    assert!(head.contains("content-type: application/health+json"), "{head}");
    let verbose: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(verbose["status"], "pass");
    assert_eq!(verbose["checks"]["graph/pagerank:health"][0]["observedValue"], "healthy");

    let output = node.health(&[]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("healthy, ready") && text.contains("graph/pagerank"), "{text}");
    assert_eq!(node.signal("TERM").0, Some(0));
}

#[test]
fn health_as_json_lists_the_runtime_every_kernel_and_the_job() {
    let mut node = Serving::start(&[]);
    node.result();
    let output = node.health(&["--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let document = json(&output);
    assert_eq!(document["schema"], 1);
    for field in ["live", "ready", "started"] {
        assert_eq!(document[field], true, "{field}");
    }
    let names: Vec<&str> = document["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["runtime", "graph/load", "graph/pagerank", "graph/top_k", "job"]);

    let output = node.health(&["--format", "json", "--component", "runtime"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output)["name"], "runtime");
    assert_eq!(json(&output)["status"], "healthy");
}

/// The processes that this one has started, with blanks between them.
fn children(pid: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap()).collect()
}

#[test]
fn health_tells_of_worker_processes_and_of_those_that_died() {
    // A small graph: a debug build takes its time to send the shipped one to and fro.
    let graph = concat!(env!("CARGO_MANIFEST_DIR"), "/data/karate.txt");
    let mut node = Serving::start(&["--placement", "process", "--input", graph]);
    node.result();
    let component = || {
        let health = json(&node.health(&["--format", "json", "--component", "domain/cpu:0"]));
        (health["status"].as_str().unwrap().to_owned(), health["reason"].as_str().unwrap_or("").to_owned())
    };
    assert_eq!(component(), ("healthy".to_owned(), String::new()));
    let order = format!("kill -KILL {}", children(node.child.id()));
    assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success());
    let died = loop {
        let (status, reason) = component();
        if status == "healthy" && reason.starts_with("workers that died: ") {
            break reason;
        }
    };
    assert!(died.contains("signal 9 (SIGKILL)"), "{died}");
    let (_, said) = node.signal("TERM");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn an_unknown_component_is_an_error_not_a_healthy_one() {
    let mut node = Serving::start(&[]);
    node.result();
    for format in ["human", "json"] {
        let output = node.health(&["--format", format, "--component", "nosuch"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("unknown component `nosuch`") && said.contains("`graph/load`"), "{said}");
    }
}

#[test]
fn without_a_node_health_ends_with_4() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = health(&free.to_string(), &["--format", "json"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("no node answers at"));
}

#[test]
fn what_is_no_node_is_a_failure() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let foreign = std::thread::spawn(move || {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nnot here\n",
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                asked.read_line(&mut line).unwrap();
            }
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let says = |output: &Output| {
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr.clone()).unwrap()
    };
    let said = says(&health(&address, &[]));
    assert!(said.contains("is no rustkernel node"), "{said}");
    let said = says(&ask(&address, &["tree"], &[]));
    assert!(said.contains("answers 403: not here"), "it is told in its own words: {said}");
    foreign.join().unwrap();
}

#[test]
fn a_node_whose_kernel_is_isolated_is_live_and_not_ready() {
    let job = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("serve-isolated.toml");
    std::fs::write(
        &job,
        "[job]\nretry_budget = 100\n[[stage]]\nkernel = \"graph/load\"\nconviction_limit = 100\n\
         recovery = { max_restarts = 2, restart_delay = \"0s\" }\n[[stage]]\nkernel = \"graph/pagerank\"\n\
         [[stage]]\nkernel = \"graph/top_k\"\n",
    )
    .unwrap();
    let mut node = Serving::start(&[job.to_str().unwrap(), "--inject", "panic=1"]);
    assert_eq!(node.result()["error"]["kind"]["down"], "isolated");
    assert_eq!(get(&node.address, "/health/live").0, 200);
    assert_eq!(get(&node.address, "/health/startup").0, 200);
    let (code, _, body) = get(&node.address, "/health/ready");
    assert_eq!((code, body.as_str()), (503, "not ready\n"));
    assert_eq!(get(&node.address, "/health").0, 503);

    let output = node.health(&["--format", "json"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(json(&output)["status"], "unhealthy");
    assert_eq!(node.health(&["--component", "graph/load"]).status.code(), Some(3));
    assert_eq!(node.health(&["--component", "graph/top_k"]).status.code(), Some(0));
    assert_eq!(node.health(&["--component", "job"]).status.code(), Some(3));
    assert_eq!(node.signal("TERM").0, Some(70), "the job's code is the node's");
}

#[test]
fn a_job_that_is_cut_short_says_so() {
    for (signal, code) in [("TERM", 1), ("INT", 130)] {
        // Every attempt hangs, so that the job is still there when the signal comes.
        let mut node = Serving::start(&["--inject", "hang=1", "--grace", "50ms"]);
        assert_eq!(get(&node.address, "/health/live").0, 200);
        let (ended, said) = node.signal(signal);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains("the job was cut short"), "{said}");
    }
}

/// It was cut short by the first signal, and then the node waited for nothing.
#[test]
fn a_job_that_is_under_way_has_the_time_of_the_drain_to_end() {
    let mut node = Serving::start(&["--drain-delay", "600s", "--grace", "600s"]);
    let order = format!("kill -TERM {}", node.child.id());
    assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success());
    while get(&node.address, "/readyz").0 != 503 {
        std::thread::yield_now();
    }
    assert!(node.result()["result"].is_object(), "it has come to its end");
    assert_eq!(get(&node.address, "/livez").0, 200, "it says for as long as it was to that it is not ready");
    let (code, said) = node.signal("TERM");
    assert_eq!(code, Some(0), "{said}");

    let mut endless =
        Serving::start_with(&["--inject", "hang=1", "--grace", "50ms"], Some("a-token-for-a-drain"));
    assert_eq!(post(&endless.address, "a-token-for-a-drain", r#"{"action":"drain"}"#).0, 200);
    let (code, said) = endless.end();
    assert!(code == Some(1) && said.contains("the job was cut short"), "{said}");
}

#[test]
fn an_address_that_is_taken_is_a_failure_before_anything_runs() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output =
        Command::new(env!("CARGO_BIN_EXE_rustkernel")).args(["run", "--serve", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("nothing can be served on {address}")), "{said}");
}

/// Answers when it is let.
struct Patient(Arc<tokio::sync::Notify>);

impl Kernel for Patient {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> Result<u64, KernelError> {
        self.0.notified().await;
        Ok(*input)
    }
}

fn fragile(policy: RecoveryPolicy) -> KernelSpec<Fragile> {
    KernelSpec::new("demo/fragile", || Fragile).recovery(policy)
}

/// A node of one's own, with the router mounted.
struct Mounted {
    runtime: Runtime,
    node: Arc<Node>,
    server: HealthServer,
}

impl Mounted {
    async fn new() -> Self {
        let runtime = Runtime::builder().build().await.unwrap();
        let node = Node::new(runtime.clone());
        let server =
            HealthServer::start("127.0.0.1:0".parse().unwrap(), health_router(node.clone())).unwrap();
        Self { runtime, node, server }
    }

    /// The codes of live, ready and startup.
    fn codes(&self) -> [u16; 3] {
        let address = self.server.address().to_string();
        ["live", "ready", "startup"].map(|probe| get(&address, &format!("/health/{probe}")).0)
    }
}

#[tokio::test]
async fn startup_comes_with_the_kernels_and_readiness_goes_with_the_drain() {
    let mounted = Mounted::new().await;
    assert_eq!(mounted.codes(), [200, 503, 503], "nothing is there yet");
    let address = mounted.server.address().to_string();
    for excluded in ["", "runtime", "nothing"] {
        assert_eq!(get(&address, &format!("/readyz?exclude={excluded}")).0, 503, "{excluded}");
    }
    mounted.runtime.spawn(fragile(RecoveryPolicy::default())).await.unwrap();
    assert_eq!(mounted.codes(), [200, 503, 503], "the node has not said that these are all");
    mounted.node.started();
    assert_eq!(mounted.codes(), [200, 200, 200]);
    mounted.node.draining();
    assert_eq!(mounted.codes(), [200, 503, 200]);
    let document = mounted.node.document();
    assert_eq!(document.components[0].reason.as_deref(), Some("draining"));
    mounted.runtime.shutdown(Duration::from_secs(1)).await;
    assert_eq!(mounted.codes(), [200, 503, 200]);
}

/// A load balancer heard nothing of a drain before the connection was refused.
#[test]
fn a_node_that_drains_says_so_for_a_while_and_serves_on() {
    let mut node = Serving::start(&["--drain-delay", "10s"]);
    node.result();
    let order = format!("kill -TERM {}", node.child.id());
    assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success());
    while get(&node.address, "/readyz").0 != 503 {
        std::thread::yield_now();
    }
    assert_eq!(get(&node.address, "/livez").0, 200, "it is there still");
    assert_eq!(get(&node.address, "/v2/models/graph/top_k/ready").0, 200, "and so are its kernels");
    // Whoever cannot wait says so again.
    let (code, said) = node.signal("TERM");
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn a_kernel_whose_breaker_is_open_is_not_ready_and_its_node_is() {
    let mounted = Mounted::new().await;
    mounted.runtime.spawn(fragile(RecoveryPolicy::default())).await.unwrap();
    mounted.runtime.spawn(KernelSpec::new("demo/other", || Fragile)).await.unwrap();
    mounted.node.started();
    let address = mounted.server.address().to_string();
    let codes = || {
        ["/readyz/demo/fragile", "/v2/models/demo/fragile/ready", "/livez/demo/fragile", "/readyz/demo/other"]
            .map(|path| get(&address, path).0)
    };
    assert_eq!((codes(), mounted.codes()), ([200; 4], [200; 3]));
    mounted.runtime.breaker("demo/fragile", BreakerCommand::Isolate).await;
    assert_eq!((codes(), mounted.codes()), ([503, 503, 200, 200], [200; 3]));
    mounted.runtime.breaker("demo/fragile", BreakerCommand::Close).await;
    assert_eq!((codes(), mounted.codes()), ([200; 4], [200; 3]));
}

#[tokio::test]
async fn a_node_one_of_whose_kernels_restarts_is_ready_and_degraded() {
    let mounted = Mounted::new().await;
    let policy = RecoveryPolicy { restart_delay: Duration::from_secs(3_600), ..RecoveryPolicy::default() };
    let kernel = mounted.runtime.spawn(fragile(policy)).await.unwrap();
    mounted.runtime.spawn(KernelSpec::new("demo/other", || Fragile)).await.unwrap();
    mounted.node.started();
    kernel.execute(0).await.unwrap_err();
    assert_eq!(mounted.codes(), [200; 3]);
    let document = mounted.node.document();
    assert_eq!((document.status, document.ready), (HealthStatus::Degraded, true));
    let address = mounted.server.address().to_string();
    let (code, _, told) = get(&address, "/readyz?verbose");
    assert!(code == 200 && told.contains("[+]demo/fragile degraded: restarting after a failure\n"), "{told}");
    let (code, _, told) = get(&address, "/readyz/nothing%1b%0ahere");
    assert!(code == 404 && told.lines().count() == 1 && !told.contains('\u{1b}'), "{told:?}");
}

#[tokio::test]
async fn a_runtime_that_drains_is_live_and_not_ready() {
    let mounted = Mounted::new().await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let patient = {
        let gate = Arc::clone(&gate);
        KernelSpec::new("demo/patient", move || Patient(Arc::clone(&gate)))
    };
    let kernel = mounted.runtime.spawn(patient).await.unwrap();
    mounted.node.started();
    let reply = kernel.try_call(1, Duration::from_secs(60)).unwrap();
    let mut shutdown = std::pin::pin!(mounted.runtime.shutdown(Duration::from_secs(60)));
    std::future::poll_fn(|cx| {
        assert!(shutdown.as_mut().poll(cx).is_pending(), "a request is under way");
        std::task::Poll::Ready(())
    })
    .await;
    assert_eq!(mounted.codes(), [200, 503, 200]);
    assert_eq!(mounted.node.document().components[0].reason.as_deref(), Some("draining"));
    gate.notify_one();
    let (report, answer) = tokio::join!(shutdown, reply);
    assert_eq!(answer.unwrap(), 1, "what was accepted is finished");
    assert_eq!(report.unwrap().killed, 0);
}

/// Whoever asked for more than health waited for ever.
#[test]
fn a_node_whose_workers_are_blocked_tells_its_health_and_503_of_the_rest() {
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let gate = Latch::new();
    let (runtime, kernel) = workers.block_on(async {
        let runtime = Runtime::builder().build().await.unwrap();
        let kernel = runtime.spawn(KernelSpec::new("demo/blocks", || Puppet).inline()).await.unwrap();
        (runtime, kernel)
    });
    let node = Node::new(runtime);
    node.started();
    let token = "a-secret-of-24-letters--";
    let router = node_router(node.clone(), Token::new(token).ok()).merge(metrics_router(node, String::new));
    let server = HealthServer::start("127.0.0.1:0".parse().unwrap(), router).unwrap();
    let address = server.address().to_string();
    let blocked = kernel.try_call(Do::Block(gate.clone()), NONE).unwrap();
    while gate.arrivals() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(get(&address, "/livez").0, 200);
    let address = &address;
    std::thread::scope(|scope| {
        for path in ["/v1/snapshot", "/metrics"] {
            scope.spawn(move || assert_eq!(get(address, path).0, 503, "{path}"));
        }
        let restart = r#"{"action":"restart","name":"demo/blocks"}"#;
        scope.spawn(move || assert_eq!(post(address, token, restart).0, 503));
    });
    gate.open();
    workers.block_on(blocked).unwrap();
    assert_eq!(get(address, "/v1/snapshot").0, 200);
}

#[tokio::test]
async fn a_runtime_that_gave_up_is_not_live() {
    let mounted = Mounted::new().await;
    let policy = RecoveryPolicy { max_restarts: 0, escalation: None, ..RecoveryPolicy::default() };
    let kernel = mounted.runtime.spawn(fragile(policy)).await.unwrap();
    mounted.node.started();
    assert_eq!(mounted.codes(), [200, 200, 200]);
    kernel.execute(0).await.unwrap_err();
    mounted.runtime.ended().await;
    assert_eq!(mounted.codes(), [503, 503, 200]);
}

#[tokio::test]
async fn readiness_flips_when_a_kernel_is_isolated_and_back_when_it_is_resumed() {
    let mounted = Mounted::new().await;
    let policy = RecoveryPolicy { max_restarts: 0, ..RecoveryPolicy::default() };
    let kernel = mounted.runtime.spawn(fragile(policy)).await.unwrap();
    mounted.node.started();
    let mut events = mounted.runtime.events();
    kernel.execute(0).await.unwrap_err();
    events.find("demo/fragile", |fact| matches!(fact, Fact::Isolated { .. })).await.unwrap();
    assert_eq!(mounted.codes(), [200, 503, 200]);
    assert!(mounted.runtime.resume("demo/fragile").await);
    events.find("demo/fragile", |fact| matches!(fact, Fact::Started { .. })).await.unwrap();
    assert_eq!(mounted.codes(), [200, 200, 200]);
}

#[tokio::test]
async fn a_reported_component_counts_in_the_status_and_not_in_readiness() {
    let mounted = Mounted::new().await;
    mounted.runtime.spawn(fragile(RecoveryPolicy::default())).await.unwrap();
    mounted.node.started();
    mounted.node.report("cache", HealthCheckResult::degraded("cold"));
    mounted.node.report("cache", HealthCheckResult::unhealthy("gone"));
    let document = mounted.node.document();
    assert_eq!(document.components.len(), 3);
    assert_eq!(document.components[2].reason.as_deref(), Some("gone"));
    assert!(!document.status.is_serving() && document.ready);
}
