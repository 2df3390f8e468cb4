//! A node that serves https, and the commands that ask it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/serving.rs"]
mod serving;

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustkernel::http::{Tls, TlsError};
use serving::{Serving, ask, get};

const TOKEN: &str = "a-secret-of-24-letters--";

/// The files of a certificate that signs itself and its key.
fn certificate(name: &str) -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["pem", "key"].map(|end| folder.join(format!("{name}.{end}")));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

fn said(output: &Output) -> String {
    String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap()
}

#[test]
fn a_node_serves_https_to_whoever_trusts_its_certificate() {
    let (certificate, key) = certificate("served");
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let mut node = Serving::start_with(&["--tls-cert", certificate, "--tls-key", key], Some(TOKEN));
    node.result();
    let port = node.address.rsplit_once(':').unwrap().1;
    let named = format!("https://localhost:{port}");
    let trusting = ["--tls-ca", certificate];

    let status = ask(&named, &["status"], &trusting);
    assert!(status.status.success() && said(&status).contains(&named), "{}", said(&status));
    let restart = Command::new(env!("CARGO_BIN_EXE_rustkernel"))
        .args(["restart", "graph/top_k", "--addr", &named])
        .args(trusting)
        .env("RUSTKERNEL_TOKEN", TOKEN)
        .output()
        .unwrap();
    assert_eq!(said(&restart), "graph/top_k is restarted\n");

    let stranger = ask(&named, &["health"], &[]);
    assert_eq!(stranger.status.code(), Some(1), "nobody vouches for it: {}", said(&stranger));
    assert!(said(&stranger).contains("is not trusted: invalid peer certificate"), "{}", said(&stranger));
    let nobody = ask(&named, &["health"], &["--tls-ca", key]);
    assert!(
        nobody.status.code() == Some(2) && said(&nobody).contains("no certificate in"),
        "{}",
        said(&nobody)
    );
    let other_name = ask(&format!("https://{}", node.address), &["health"], &trusting);
    assert_eq!(other_name.status.code(), Some(1), "its certificate is not for this name");
    assert_ne!(get(&node.address, "/livez").0, 200, "nothing is told in the clear");
    let mut garbage = TcpStream::connect(&node.address).unwrap();
    garbage.write_all(&[0x16; 4096]).unwrap();
    let open = TcpStream::connect(&node.address).unwrap();

    assert!(
        ask(&named, &["drain"], &[&trusting[..], &["--format", "json"]].concat()).status.code() == Some(2)
    );
    assert!(ask(&named, &["tree"], &trusting).status.success(), "it serves on");
    drop(open);
    let (code, said) = node.signal("TERM");
    assert!(code == Some(0) && !said.contains(TOKEN) && !said.contains("PRIVATE"), "{said}");
}

#[test]
fn elsewhere_than_on_loopback_nothing_is_served_in_the_clear() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rustkernel"));
        let output = command.args(["run", "--serve", "0.0.0.0:0"]).args(args).output().unwrap();
        (output.status.code(), said(&output))
    };
    let (code, said) = run(&[]);
    assert!(code == Some(2) && said.contains("in the clear") && said.contains("--tls-cert"), "{said}");
    let (certificate, _) = certificate("alone");
    let certificate = certificate.to_str().unwrap();
    let (code, said) = run(&["--tls-cert", certificate]);
    assert!(code == Some(2) && said.contains("--tls-key"), "{said}");
    let (code, said) = run(&["--tls-cert", certificate, "--tls-key", "/nowhere/key"]);
    assert!(code == Some(2) && said.contains("/nowhere/key cannot be read"), "{said}");
}

#[test]
fn files_that_are_no_certificate_and_its_key_are_refused_by_name() {
    let ((one, key), (_, other)) = (certificate("one"), certificate("other"));
    Tls::new(&one, &key).unwrap();
    let mixed = Tls::new(&one, &other).unwrap_err();
    assert!(matches!(mixed, TlsError::Pair { .. }), "{mixed}");
    let swapped = Tls::new(&key, &one).unwrap_err();
    assert!(matches!(swapped, TlsError::NoCertificate { .. }), "{swapped}");
    let empty = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let nothing = Tls::new(&one, &empty).unwrap_err();
    assert!(
        matches!(nothing, TlsError::File { .. }) && nothing.to_string().contains("empty.pem"),
        "{nothing}"
    );
}
