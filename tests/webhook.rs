//! The webhook: what is sent, tried again, given up and dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use kit::{Do, NONE, at_once, puppet, soon};
use rustkernel::actors::{Event, Fact, Runtime};
use rustkernel::core::clock::Timestamp;
use rustkernel::core::resilience::{BackoffStrategy, RetryConfig};
use rustkernel::webhook::{Webhook, WebhookConfig, WebhookError, WebhookStats};

const PATIENCE: Duration = Duration::from_secs(20);

/// A request that a [`Receiver`] has read and not answered yet.
struct Post {
    head: String,
    body: serde_json::Value,
    stream: TcpStream,
}

impl Post {
    fn answer(mut self, status: u16) {
        // The client reads the head only and may be gone already.
        let _ = write!(self.stream, "HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n");
    }
}

/// A server that hands over every request; it ends with the test.
fn server() -> (SocketAddr, Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (posts, received) = channel();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if posts.send(read(stream)).is_err() {
                return;
            }
        }
    });
    (address, received)
}

fn read(stream: TcpStream) -> Post {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "the head ends early");
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    Post { head, body: serde_json::from_slice(&body).unwrap(), stream: reader.into_inner() }
}

fn config(max_attempts: u32) -> WebhookConfig {
    let backoff = BackoffStrategy::Fixed { delay: Duration::ZERO };
    let retry = RetryConfig { max_attempts, backoff, ..RetryConfig::production() };
    WebhookConfig { timeout: PATIENCE, retry, queue: 16 }
}

fn webhook(address: SocketAddr, config: &WebhookConfig) -> Webhook {
    Webhook::new(&format!("http://{address}/hooks?key=1"), config).unwrap()
}

fn letter(letter: u64) -> Event {
    let kernel = Some("a/b".parse().unwrap());
    Event { at: Timestamp::ZERO, kernel, child: Some("a/b".into()), fact: Fact::DeadLetter { letter, id: 7 } }
}

fn next(received: &Receiver<Post>) -> Post {
    received.recv_timeout(PATIENCE).expect("a request comes")
}

#[tokio::test]
async fn an_isolated_kernel_is_told_by_one_document() {
    let (address, received) = server();
    let webhook = webhook(address, &config(3));
    let (runtime, _hand) = Runtime::builder().hook(webhook.hook()).build_with_manual_clock().await.unwrap();
    let kernel = runtime.spawn(puppet("a/b").recovery(at_once(0))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    let post = next(&received);
    assert!(post.head.starts_with("post /hooks?key=1 http/1.1\r\n"), "{}", post.head);
    assert!(post.head.contains("content-type: application/json\r\n"), "{}", post.head);
    assert_eq!(post.body["schema"], 1);
    assert_eq!(post.body["child"], "a/b");
    assert_eq!(post.body["fact"], "isolated");
    assert!(post.body["detail"].as_str().unwrap().contains("told to panic"), "{}", post.body);
    assert!(post.body["unix_millis"].as_u64().unwrap() > 0);
    post.answer(204);
    assert_eq!(webhook.close(PATIENCE), WebhookStats { sent: 1, ..WebhookStats::default() });
    assert!(received.try_recv().is_err(), "it was sent once");
}

#[test]
fn an_answer_of_500_or_429_is_tried_again_until_it_is_200() {
    let (address, received) = server();
    let webhook = webhook(address, &config(3));
    webhook.hook()(&letter(1));
    for status in [500, 429, 200] {
        let post = next(&received);
        assert_eq!(post.body["detail"], "request 7 was given up for good: dead letter 1");
        post.answer(status);
    }
    assert_eq!(webhook.close(PATIENCE), WebhookStats { sent: 1, retried: 2, ..WebhookStats::default() });
}

#[test]
fn an_answer_of_404_or_302_is_final() {
    let (address, received) = server();
    let webhook = webhook(address, &config(3));
    for status in [404, 302] {
        webhook.hook()(&letter(1));
        next(&received).answer(status);
    }
    assert_eq!(webhook.close(PATIENCE), WebhookStats { failed: 2, ..WebhookStats::default() });
}

#[test]
fn where_nobody_listens_a_document_is_given_up_after_its_attempts() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let webhook = webhook(address, &config(3));
    webhook.hook()(&letter(1));
    let expected = WebhookStats { retried: 2, failed: 1, ..WebhookStats::default() };
    assert_eq!(webhook.close(PATIENCE), expected);
}

#[test]
fn a_full_queue_drops_the_newest_and_counts_them() {
    let (address, received) = server();
    let webhook = webhook(address, &WebhookConfig { queue: 2, ..config(1) });
    let hook = webhook.hook();
    hook(&letter(1));
    let in_hand = next(&received);
    for number in 2..=5 {
        hook(&letter(number));
    }
    assert_eq!(webhook.stats(), WebhookStats { dropped: 2, ..WebhookStats::default() });
    in_hand.answer(200);
    for number in [2, 3] {
        let post = next(&received);
        assert_eq!(post.body["detail"], format!("request 7 was given up for good: dead letter {number}"));
        post.answer(200);
    }
    let expected = WebhookStats { sent: 3, dropped: 2, ..WebhookStats::default() };
    assert_eq!(webhook.close(PATIENCE), expected);
    hook(&letter(6));
}

#[test]
fn a_server_that_never_answers_is_given_up_at_the_timeout() {
    let (address, received) = server();
    let webhook = webhook(address, &WebhookConfig { timeout: Duration::from_millis(300), ..config(1) });
    webhook.hook()(&letter(1));
    let unanswered = next(&received);
    assert_eq!(webhook.close(PATIENCE), WebhookStats { failed: 1, ..WebhookStats::default() });
    drop(unanswered);
}

#[test]
fn the_end_of_a_webhook_ends_its_wait_for_the_next_attempt_and_drops_what_waits() {
    let (address, received) = server();
    let hour = BackoffStrategy::Fixed { delay: Duration::from_secs(3600) };
    let retry = RetryConfig { backoff: hour, ..config(3).retry };
    let webhook = webhook(address, &WebhookConfig { retry, ..config(3) });
    let hook = webhook.hook();
    hook(&letter(1));
    let in_hand = next(&received);
    hook(&letter(2));
    in_hand.answer(500);
    let expected = WebhookStats { failed: 1, dropped: 1, ..WebhookStats::default() };
    assert_eq!(webhook.close(Duration::ZERO), expected);
    assert!(received.try_recv().is_err(), "nothing more was sent");
}

#[test]
fn bad_addresses_and_bad_numbers_are_refused() {
    let refused = |url: &str, config| Webhook::new(url, &config).unwrap_err();
    let url = refused("http://a/ b?key=secret", config(1));
    assert!(matches!(url, WebhookError::Url { .. }));
    assert!(!url.to_string().contains("secret"), "an address may hold a secret");
    #[cfg(not(feature = "tls"))]
    assert!(matches!(refused("https://a.example/", config(1)), WebhookError::TlsNotCompiledIn));
    let hours = Duration::from_secs(7200);
    for (config, field) in [
        (WebhookConfig { queue: 0, ..config(1) }, "webhook.queue"),
        (WebhookConfig { queue: usize::MAX, ..config(1) }, "webhook.queue"),
        (WebhookConfig { timeout: Duration::ZERO, ..config(1) }, "webhook.timeout"),
        (WebhookConfig { timeout: hours, ..config(1) }, "webhook.timeout"),
        (config(0), "retry.max_attempts"),
    ] {
        let WebhookError::Config(invalid) = refused("http://a/", config) else { panic!("{field}") };
        assert_eq!(invalid.field, field);
    }
}
