//! A node of one's own that can be looked at: health, the tree and its failures over HTTP, an action by whoever has the token, metrics.
//!
//! Run it: `cargo run --example 13_watch_a_node`; with `--stay` it does not end, and the page is at the address that it tells on stderr. On
//! stdout:
//!
//! ```text
//! ready: 200
//! after a panic: demo/double is serving, restarts 1, last failure panic: 13 is unlucky
//! restart without the token: 401
//! restart with the token: demo/double is restarted
//! requests that ended well, as a scraper sees it: 2
//! ```

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use rustkernel::http::{HealthServer, Node, Token, node_router};
use rustkernel::metrics::{count, describe, metrics_router};
use rustkernel::prelude::*;

const TOKEN: &str = "keep-it-in-a-file-instead";

struct Double;

impl Kernel for Double {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _cx: &mut Context<'_>) -> Result<u64, KernelError> {
        assert!(*input != 13, "13 is unlucky");
        Ok(input * 2)
    }
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example prints")]
async fn main() -> Result<(), Box<dyn Error>> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let exported = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    describe();
    let runtime = Runtime::builder().hook(count).build().await?;
    let policy = RecoveryPolicy { restart_delay: Duration::ZERO, ..Default::default() };
    let double =
        runtime.spawn(KernelSpec::new("demo/double", || Double).breaker(None).recovery(policy)).await?;

    let node = Node::new(runtime.clone());
    node.started();
    let router = node_router(node.clone(), Some(Token::new(TOKEN)?))
        .merge(metrics_router(node.clone(), move || exported.render()));
    let server = HealthServer::start("127.0.0.1:0".parse()?, router)?;
    eprintln!("the page is at http://{}", server.address());

    println!("ready: {}", ask(server.address(), "GET /readyz", "", "")?.0);
    assert_eq!(double.call(1, Duration::from_secs(10)).await?, 2);
    assert!(double.call(13, Duration::from_secs(10)).await.is_err());
    // Answered by the next life.
    assert_eq!(double.call(21, Duration::from_secs(10)).await?, 42);
    let snapshot = node.snapshot().await;
    let kernel = &snapshot.tree.ok_or("the root is there")?.children[0];
    let failure = kernel.last_failure.as_ref().ok_or("it has failed")?;
    println!(
        "after a panic: {} is {}, restarts {}, last failure {}: {}",
        kernel.name,
        kernel.state,
        kernel.restarts,
        failure.class,
        failure.message.trim_start_matches("panicked: ")
    );

    let restart = r#"{"action":"restart","name":"demo/double"}"#;
    println!("restart without the token: {}", ask(server.address(), "POST /v1/actions", "", restart)?.0);
    let (_, told) = ask(server.address(), "POST /v1/actions", TOKEN, restart)?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    println!("restart with the token: {}", told["message"].as_str().unwrap_or_default());

    let (_, scraped) = ask(server.address(), "GET /metrics", "", "")?;
    let wanted = r#"rustkernel_requests_total{kernel="demo/double",outcome="ok"} "#;
    let answered = scraped.lines().find_map(|line| line.strip_prefix(wanted)).unwrap_or("none");
    println!("requests that ended well, as a scraper sees it: {answered}");

    if std::env::args().any(|argument| argument == "--stay") {
        node.drain_wanted().await;
    }
    Ok(())
}

/// HTTP by hand: the status and the body.
fn ask(address: SocketAddr, what: &str, token: &str, body: &str) -> Result<(u16, String), Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    let head = format!(
        "{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer has a head")?;
    Ok((head.split(' ').nth(1).ok_or("it has a status")?.parse()?, body.to_owned()))
}
