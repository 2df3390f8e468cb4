//! What people see of a node and have it do: the commands and the HTTP API behind them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/serving.rs"]
mod serving;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use kit::{Fragile, NONE, at_once, soon};
use rustkernel::actors::{KernelSpec, Runtime, register};
use rustkernel::core::resilience::RecoveryPolicy;
use rustkernel::http::{
    HealthServer, MAX_BODY_BYTES, MAX_CONNECTIONS, MAX_WATCHERS, Node, Token, node_router,
};
use serde_json::Value;
use serving::{Serving, ask, get, json, post, send};

const TOKEN: &str = "a-secret-of-24-letters--";

/// An action's own command, with the token in a file.
fn act(address: &str, command: &[&str]) -> (Option<i32>, String) {
    static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("operate-token");
        std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
        file
    });
    let output = ask(address, command, &["--token-file", FILE.to_str().unwrap()]);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), text)
}

fn out(output: &std::process::Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_commands_show_a_node_and_act_on_it() {
    let mut node = Serving::start_with(&[], Some(TOKEN));
    node.result();
    let address = node.address.clone();
    let tree = out(&ask(&address, &["tree"], &[]));
    let mut lines = tree.lines().skip(1).map(|line| line.split_whitespace().next().unwrap());
    assert!(lines.by_ref().eq(["root", "graph/load", "graph/pagerank", "graph/top_k"]), "{tree}");
    let kernels = &json(&ask(&address, &["kernels"], &["--format", "json"]))["kernels"];
    assert_eq!(kernels[1]["name"], "graph/pagerank");
    assert_eq!(kernels[1]["state"], "serving");
    assert!(kernels[1]["kernel"]["answered"].as_u64().unwrap() > 60);

    let (_, _, scraped) = get(&address, "/metrics");
    // The job has a deadline, so its requests' waits are known too.
    for name in ["kernel", "queue", "request"].map(|name| format!("rustkernel_{name}_duration_seconds")) {
        let count = format!("{name}_count{{kernel=\"graph/pagerank\"}} ");
        let all = format!("{name}_bucket{{kernel=\"graph/pagerank\",le=\"+Inf\"}} ");
        let value = |line: &str| {
            scraped.lines().find_map(|found| found.strip_prefix(line)?.parse::<u64>().ok()).unwrap()
        };
        assert!(value(&count) > 60 && value(&count) == value(&all), "{name} {scraped}");
        let bucket = format!("{name}_bucket{{kernel=\"graph/pagerank\"");
        let bounds = scraped.lines().filter(|line| line.starts_with(&bucket));
        let counts: Vec<u64> = bounds.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(counts.is_sorted() && counts.len() == 15, "{counts:?}");
        assert!(scraped.contains(&format!("# TYPE {name} histogram\n")));
    }

    let run = &json(&ask(&address, &["status"], &["--format", "json"]))["pipelines"][0];
    assert_eq!(
        (&run["name"], &run["stages"][1]["kernel"]),
        (&"debian-pagerank".into(), &"graph/pagerank".into())
    );
    assert!(run["error"].is_null() && run["stages"][1]["calls"].as_u64().unwrap() > 60);

    assert_eq!(
        act(&address, &["restart", "graph/top_k"]),
        (Some(0), "graph/top_k is restarted\n".to_owned())
    );
    let failures = &json(&ask(&address, &["failures", "graph/top_k"], &["--format", "json"]))["failures"];
    assert_eq!((&failures[0]["class"], &failures[0]["supervisor"]), (&"kill".into(), &"root".into()));

    let isolated = act(&address, &["isolate", "graph/top_k"]).1;
    assert!(isolated.contains("held open until it is resumed"), "{isolated}");
    let status = out(&ask(&address, &["status", "graph/top_k"], &[]));
    assert!(status.contains("isolated"), "{status}");
    assert_eq!(
        act(&address, &["resume", "graph/top_k"]),
        (Some(0), "the breaker of graph/top_k is closed\n".to_owned())
    );
    let (code, text) = act(&address, &["resume", "graph/top_k"]);
    assert!(code == Some(1) && text.contains("409") && text.contains("needs no resuming"), "{text}");
    for unknown in
        [&["restart", "graph/nix"][..], &["dead-letters", "replay", "7"], &["dead-letters", "drop", "7"]]
    {
        let (code, text) = act(&address, unknown);
        assert!(code == Some(2) && text.contains("there is no"), "{text}");
    }
    assert_eq!(ask(&address, &["status", "graph/nix"], &[]).status.code(), Some(2));

    assert_eq!(
        act(&address, &["drain"]),
        (Some(0), "the node is not ready any more, and is asked to end\n".to_owned())
    );
    let (code, said) = node.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains(TOKEN), "a secret is in no log");
    assert_eq!(ask(&address, &["tree"], &[]).status.code(), Some(4), "nobody answers any more");
}

#[test]
fn without_the_token_nothing_is_done() {
    let node = Serving::start(&[]);
    let body = r#"{"action":"drain"}"#;
    let (code, _, answer) = post(&node.address, TOKEN, body);
    assert!(code == 403 && answer.contains("started without a token"), "{answer}");
    let missing = ask(&node.address, &["drain"], &[]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("RUSTKERNEL_TOKEN"));

    let mut guarded = Serving::start_with(&[], Some(TOKEN));
    guarded.result();
    for wrong in ["", "a-secret-of-24-letters-X", "a-secret-of-24-letters---"] {
        assert_eq!(post(&guarded.address, wrong, body).0, 401, "{wrong:?}");
    }
    let (code, _, snapshot) = get(&guarded.address, "/v1/snapshot");
    assert!(code == 200 && !snapshot.contains(TOKEN));
    let tries = (0..100).map(|_| post(&guarded.address, "guess", body).0);
    assert!(tries.filter(|code| *code == 429).count() > 50, "who guesses is slowed down");
    assert_eq!(get(&guarded.address, "/health/ready").0, 200, "and nobody else is");
}

#[test]
fn a_token_that_could_be_guessed_or_read_by_nobody_is_refused() {
    let run = |token: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rustkernel"));
        let serve: &[&str] = if args.contains(&"--serve") { &[] } else { &["--serve", "127.0.0.1:0"] };
        command.arg("run").args(serve).args(args).env("RUSTKERNEL_TOKEN", token);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run("short", &[]);
    assert!(
        code == Some(2) && said.contains("at least 16 characters") && !said.contains("short\n"),
        "{said}"
    );
    let (code, said) = run(TOKEN, &["--serve", "0.0.0.0:0"]);
    assert!(code == Some(2) && said.contains("would travel in the clear"), "{said}");
    let (code, said) = run("", &["--token-file", "/dev/zero"]);
    assert!(code == Some(2) && said.contains("/dev/zero is no token"), "{said}");
    let mut unreadable = Command::new(env!("CARGO_BIN_EXE_rustkernel"));
    unreadable
        .args(["run", "--serve", "127.0.0.1:0"])
        .env("RUSTKERNEL_TOKEN", OsStr::from_bytes(b"\xff\xfe"));
    let output = unreadable.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let (code, said) = run("", &["--token-file", "/nowhere/token"]);
    assert!(code == Some(2) && said.contains("/nowhere/token cannot be read"), "{said}");
}

#[test]
fn what_is_no_action_is_answered_by_its_status_and_the_node_goes_on() {
    let mut node = Serving::start_with(&[], Some(TOKEN));
    node.result();
    let huge = format!(r#"{{"action":"restart","name":"{}"}}"#, "x".repeat(MAX_BODY_BYTES));
    let cases = [
        ("{", 400),
        ("[]", 400),
        (r#"{"action":"explode"}"#, 400),
        (r#"{"action":"restart"}"#, 400),
        (r#"{"action":"restart","name":"a","more":1}"#, 400),
        (r#"{"action":"drain","more":1}"#, 400),
        (r#"{"action":"restart","name":"\u0000"}"#, 404),
        (huge.as_str(), 413),
    ];
    for (body, expected) in cases {
        let (code, _, answer) = post(&node.address, TOKEN, body);
        assert_eq!(code, expected, "{} {answer}", &body[..body.len().min(60)]);
        let acted: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(acted["done"], false);
    }
    let claimed = format!(
        "POST /v1/actions HTTP/1.1\r\nHost: localhost\r\nAuthorization: bearer {TOKEN}\r\nContent-Length: 1000000000000\r\n\r\n"
    );
    assert_eq!(send(&node.address, &claimed).0, 413, "it is not waited for");
    let rebound = "GET /v1/snapshot HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(send(&node.address, rebound).0, 403, "a name of another site that leads here");
    for garbage in [
        "\0\u{1}\u{2}\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /v1/actions HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ] {
        let code = send(&node.address, garbage).0;
        assert!(code == 400 || code == 0, "{garbage:?}: {code}");
    }
    assert_eq!(
        send(&node.address, "GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").0,
        404
    );
    assert_eq!(
        send(&node.address, "DELETE /v1/snapshot HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").0,
        405
    );
    assert_eq!(get(&node.address, "/health/ready").0, 200);
}

#[test]
fn so_many_may_watch_and_no_more_and_one_that_leaves_makes_room() {
    let node = Serving::start(&[]);
    let watch = || {
        let mut stream = TcpStream::connect(&node.address).unwrap();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut head = [0_u8; 12];
        stream.read_exact(&mut head).unwrap();
        (stream, head.ends_with(b"200"))
    };
    let watchers: Vec<_> = (0..MAX_WATCHERS).map(|_| watch()).collect();
    assert!(watchers.iter().all(|(_, admitted)| *admitted));
    assert!(!watch().1);
    drop(watchers);
    // Their connections are found closed when something is sent to them.
    while !watch().1 {
        std::thread::yield_now();
    }
}

#[test]
fn a_probe_is_answered_however_many_hold_a_connection() {
    let mut node = Serving::start(&[]);
    node.result();
    let hold = || {
        let mut stream = TcpStream::connect(&node.address).unwrap();
        write!(stream, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream
    };
    let _silent: Vec<_> =
        (0..2 * MAX_CONNECTIONS).map(|_| TcpStream::connect(&node.address).unwrap()).collect();
    let _answered: Vec<_> = (0..2 * MAX_CONNECTIONS).map(|_| hold()).collect();
    assert_eq!(get(&node.address, "/livez").0, 200);
    assert_eq!(get(&node.address, "/readyz").0, 200);
}

/// It is told when the node serves, that it is alive as long as its supervisors answer, and when it ends.
#[test]
fn a_service_manager_is_told_of_the_start_the_watchdog_and_the_stop() {
    let socket = Path::new(env!("CARGO_TARGET_TMPDIR")).join("notify");
    let _ = std::fs::remove_file(&socket);
    let manager = UnixDatagram::bind(&socket).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rustkernel"))
        .args(["run", "--serve", "127.0.0.1:0", "--grace", "0s"])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "100000")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    while !told().contains("READY=1") {}
    for _ in 0..3 {
        assert_eq!(told().trim(), "WATCHDOG=1");
    }
    let order = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success());
    while !told().contains("STOPPING=1") {}
    assert_eq!(child.wait().unwrap().code(), Some(1), "its job was cut short");
}

/// They looked into the snapshot alone, which has the last 200, and denied the rest.
#[tokio::test]
async fn what_is_kept_beyond_a_snapshot_is_found_by_the_commands() {
    let runtime = Runtime::builder().build().await.unwrap();
    let mut kernels = Vec::new();
    for number in 0..14 {
        let spec = KernelSpec::new(format!("a/k{number}"), || Fragile).inline();
        let spec = spec.idempotent().breaker(None).recovery(at_once(u32::MAX));
        kernels.push(soon(runtime.spawn(spec)).await.unwrap());
    }
    for kernel in &kernels {
        for _ in 0..15 {
            // Two lives each.
            soon(kernel.call(0, NONE)).await.unwrap_err();
        }
    }
    let node = Node::new(runtime.clone());
    node.started();
    let server = HealthServer::start("127.0.0.1:0".parse().unwrap(), node_router(node, None)).unwrap();
    let address = server.address().to_string();
    let asked = tokio::task::spawn_blocking(move || {
        let ask = |command: &[&str]| out(&ask(&address, command, &[]));
        [
            ask(&["dead-letters", "show", "1"]),
            ask(&["dead-letters", "list"]),
            ask(&["failures", "a/k0"]),
            ask(&["status"]),
            ask(&["status", "a/k0"]),
        ]
    });
    let [shown, listed, failed, overview, details] = soon(asked).await.unwrap();
    assert!(shown.contains("a/k0") && shown.contains("zero"), "{shown}");
    assert_eq!(listed.lines().count(), 1 + 14 * 15);
    assert_eq!(failed.lines().count(), 1 + 16, "16 of each child are kept: {failed}");
    assert!(overview.contains(&format!("{} failures in the history", 14 * 16)), "{overview}");
    assert!(details.contains("16 in the history"), "{details}");
}

#[tokio::test]
async fn dead_letters_are_listed_replayed_and_dropped_and_an_isolated_kernel_is_resumed() {
    let runtime = Runtime::builder().build().await.unwrap();
    let policy = RecoveryPolicy { max_restarts: 1, ..at_once(1) };
    let spec = KernelSpec::new("a/b", || Fragile).registered(&register());
    let kernel = soon(runtime.spawn(spec.idempotent().breaker(None).recovery(policy))).await.unwrap();
    let node = Node::new(runtime.clone());
    node.started();
    let token = Some(Token::new(TOKEN).unwrap());
    let server =
        HealthServer::start("127.0.0.1:0".parse().unwrap(), node_router(Arc::clone(&node), token)).unwrap();
    let address = server.address().to_string();
    let talk = |command: &'static [&'static str]| {
        let address = address.clone();
        soon(async move { tokio::task::spawn_blocking(move || act(&address, command)).await.unwrap() })
    };
    // It takes two lives down, and is given up; the second one was one too many.
    soon(kernel.call(0, NONE)).await.unwrap_err();
    let snapshot = soon(node.snapshot()).await;
    let child = &snapshot.tree.as_ref().unwrap().children[0];
    assert_eq!((child.name.as_str(), &*child.state), ("a/b", "isolated"));
    assert_eq!(snapshot.failures.len(), 2);
    assert!(talk(&["resume", "a/b"]).await.1.contains("a new life and a full restart budget"));
    assert_eq!(soon(kernel.call(1, NONE)).await.unwrap(), 1);

    soon(kernel.call(0, NONE)).await.unwrap_err();
    talk(&["resume", "a/b"]).await;
    let letters = soon(node.snapshot()).await.dead_letters.letters;
    assert_eq!(letters.len(), 2, "{letters:?}");
    let (code, text) = talk(&["dead-letters", "replay", "1"]).await;
    assert!(code == Some(1) && text.contains("409"), "it panics again: {text}");
    assert_eq!(
        talk(&["dead-letters", "drop", "2"]).await,
        (Some(0), "dead letter 2 is forgotten\n".to_owned())
    );
    let listed = soon(node.snapshot()).await.dead_letters;
    assert_eq!((listed.total, listed.letters.len(), listed.letters[0].letter), (2, 1, 1));
}
