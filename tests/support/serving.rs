//! A node in a process of its own, and HTTP by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

/// `rustkernel run --serve` on a free port.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) address: String,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Serving {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(args, None)
    }

    /// One that takes actions by whoever has `token`.
    pub(crate) fn start_with(args: &[&str], token: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rustkernel"));
        command.args(["run", "--format", "json", "--serve", "127.0.0.1:0"]).args(args);
        command.env_remove("RUSTKERNEL_TOKEN").envs(token.map(|token| ("RUSTKERNEL_TOKEN", token)));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let said = line.trim().strip_prefix("serving on http").expect(&line);
        let address = said.split_once("://").expect(&line).1.to_owned();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, address, stdout, stderr }
    }

    /// Waits for the end of the job, which the node survives.
    pub(crate) fn result(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn signal(&mut self, name: &str) -> (Option<i32>, String) {
        let order = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success());
        self.end()
    }

    /// Waits for the end of the node: its code, and what it has said.
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (code, said)
    }

    /// `rustkernel health`.
    pub(crate) fn health(&self, args: &[&str]) -> Output {
        ask(&self.address, &["health"], args)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that talks to the node at `address`.
pub(crate) fn ask(address: &str, command: &[&str], args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rustkernel"))
        .args(command)
        .args(["--addr", address])
        .args(args)
        .env_remove("RUSTKERNEL_TOKEN")
        .output()
        .unwrap()
}

/// Status code, head and body of what `path` answers.
pub(crate) fn get(address: &str, path: &str) -> (u16, String, String) {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// The same of an action.
pub(crate) fn post(address: &str, token: &str, body: &str) -> (u16, String, String) {
    let head = format!(
        "POST /v1/actions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    send(address, &format!("{head}{body}"))
}

/// The same of anything.
pub(crate) fn send(address: &str, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    // One that is refused early is not read to its end.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (code, head.to_lowercase(), body.to_owned())
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}
