//! Bytes that a peer sends to a node, as they come: each request is answered in HTTP or not at all, and the node goes on. Those that bring
//! the token act.
#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rustkernel::actors::{KernelSpec, Runtime};
use rustkernel::core::Result;
use rustkernel::core::traits::{Context, Kernel};
use rustkernel::http::{HealthServer, Node, Token, node_router};

struct Echo;

impl Kernel for Echo {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> Result<u64> {
        Ok(*input)
    }
}

/// Lives as long as the process, as a node does.
static NODE: LazyLock<(tokio::runtime::Runtime, HealthServer)> = LazyLock::new(|| {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let node = tokio.block_on(async {
        let runtime = Runtime::builder().build().await.unwrap();
        runtime.spawn(KernelSpec::new("text/echo", || Echo)).await.unwrap();
        let node = Node::new(runtime);
        node.started();
        node
    });
    let router = node_router(node, Token::new("0123456789abcdef").ok());
    (tokio, HealthServer::start("127.0.0.1:0".parse().unwrap(), router).unwrap())
});

fuzz_target!(|bytes: &[u8]| {
    let (_, server) = &*NODE;
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let _ = stream.write_all(bytes);
    // Nothing else comes: a request that is not whole is none.
    let _ = stream.shutdown(Shutdown::Write);
    let answer = read(stream, Duration::from_secs(2));
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
    assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(&answer));
    let mut probe = TcpStream::connect(server.address()).unwrap();
    probe.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let alive = read(probe, Duration::from_secs(30));
    assert!(alive.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&alive));
});

/// What comes back, of which an endless stream shows its beginning.
fn read(mut stream: TcpStream, patience: Duration) -> Vec<u8> {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut answer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        match stream.read(&mut answer[length..]) {
            Ok(count @ 1..) => length += count,
            // libFuzzer's alarm.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
        }
    }
    answer.truncate(length);
    answer
}
