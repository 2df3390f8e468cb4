//! NotifyOperator: somebody is told, and the kernel serves nobody until that somebody resumes it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/tally.rs"]
mod tally;

use std::sync::{Arc, Mutex};

use kit::{DOWN_ISOLATED, Do, Latch, NONE, assert_balanced, kind, ms, soon, status};
use rustkernel::actors::{Cause, ChildPhase, Fact, KernelState, Runtime, Supervisor};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{HealthStatus, RecoveryPolicy, RecoveryStrategy};
use tally::{COUNT, DELAY, Script, Told, backup, fact, health, policy, runtime, standbys, tally};

fn first() -> RecoveryPolicy {
    policy(RecoveryStrategy::NotifyOperator)
}

#[tokio::test]
async fn event_and_hook_tell_and_it_is_isolated_until_resumed() {
    for inline in [false, true] {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        let hook = move |event: &rustkernel::actors::Event| {
            if let Fact::Isolated { cause } = &event.fact {
                hears.lock().unwrap().push((event.child.clone(), cause.clone()));
            }
        };
        let (runtime, hand) = Runtime::builder().hook(hook).build_with_manual_clock().await.unwrap();
        hand.advance(ms(1));
        let mut events = runtime.events();
        let spec = tally(&Script::new()).recovery(first());
        let kernel = soon(runtime.spawn(if inline { spec.inline() } else { spec })).await.unwrap();
        soon(kernel.call(COUNT, NONE)).await.unwrap();
        let [fatal, queued] = [Do::Panic, COUNT].map(|input| kernel.try_call(input, NONE).unwrap());
        assert_eq!(kind(soon(fatal).await), KernelErrorKind::Crashed);
        assert_eq!(kind(soon(queued).await), DOWN_ISOLATED);
        let isolated = fact(&mut events, |fact| matches!(fact, Fact::Isolated { .. })).await;
        assert!(matches!(isolated, Fact::Isolated { cause: Cause::Panicked(_) }), "{isolated:?}");
        let heard = told.lock().unwrap().clone();
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0].0.as_deref(), Some("a/b"));

        hand.advance(ms(3_600_000));
        assert_eq!(kind(soon(kernel.call(COUNT, NONE)).await), DOWN_ISOLATED, "time changes nothing");
        assert_eq!(status(&runtime, "a/b").await.state, KernelState::Isolated);
        assert_eq!(health(&kernel).await.0, HealthStatus::Unhealthy);
        assert!(runtime.resume("a/b").await);
        fact(&mut events, |fact| *fact == Fact::Resumed).await;
        assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().count, 2, "from its checkpoint");
        assert_eq!(status(&runtime, "a/b").await.state, KernelState::Serving);
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn a_hang_isolates_too_and_a_resume_does_not_wait_for_the_thread() {
    let (runtime, hand) = runtime().await;
    let spec = tally(&Script::new()).recovery(first()).hang_limit(ms(500));
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    let door = Latch::new();
    let hung = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    hand.advance(ms(500));
    assert_eq!(kind(soon(hung).await), KernelErrorKind::Hung);
    soon(async { while !runtime.resume("a/b").await {} }).await;
    assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().count, 1);
    door.open();
    assert_balanced(&kernel);
}

#[tokio::test]
async fn nothing_is_restarted_or_made_while_it_is_isolated() {
    let (runtime, hand) = runtime().await;
    let script = Script::new();
    let spec = tally(&script).recovery(first()).replicas(1).degraded(script.maker("reduced"));
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(kind(soon(kernel.call(COUNT, DELAY)).await), DOWN_ISOLATED, "no relief from isolation");
    hand.advance(DELAY * 100);
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.state, now.standbys, now.incarnation), (KernelState::Isolated, 0, 2));
    assert!(!runtime.kill("a/b").await, "there is nobody to kill");
    assert!(soon(runtime.stop("a/b", true)).await);
    assert_balanced(&kernel);
}

/// The whole ladder: a restart, the standby, the backup, and then the supervisor above.
#[tokio::test]
async fn further_escalations_are_tried_in_order_and_end_in_the_supervisor_above() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let ladder = RecoveryPolicy {
        max_restarts: 1,
        restart_delay: ms(0),
        escalation: Some(RecoveryStrategy::UseReplica),
        ..policy(RecoveryStrategy::RestartKernel)
    };
    let spec = tally(&script)
        .replicas(1)
        .backup(backup(), script.maker("backup"))
        .recovery(ladder)
        .escalations([RecoveryStrategy::Failover]);
    let other = kit::puppet("a/sibling");
    let group = Supervisor::new("group").one_for_all().intensity(9, DELAY).kernel(spec).kernel(other);
    soon(runtime.supervise(group)).await.unwrap();
    let kernel = runtime.kernel::<Do, Told>("a/b").unwrap();
    let mut steps = Vec::new();
    for _ in 0..4 {
        // Whoever is rebuilt without a delay is warm by then.
        standbys(&runtime, 1).await;
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        let step = |fact: &Fact| {
            matches!(fact, Fact::Restarting { .. } | Fact::TookOver { .. } | Fact::FailedOver { .. })
        };
        let seen = fact(&mut events, step).await;
        steps.push(if matches!(seen, Fact::Restarting { .. }) {
            "restart"
        } else if matches!(seen, Fact::TookOver { .. }) {
            "replica"
        } else {
            "backup"
        });
        soon(kernel.call(COUNT, NONE)).await.unwrap();
    }
    assert_eq!(steps, ["restart", "replica", "backup", "restart"]);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    soon(events.find("group", |fact| matches!(fact, Fact::Restarting { .. }))).await.unwrap();
    hand.advance(DELAY * 60);
    fact(&mut events, |fact| matches!(fact, Fact::Started { .. })).await;
    assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().count, 5);
    assert_balanced(&kernel);
}

#[tokio::test]
async fn without_any_further_step_the_supervisor_above_restarts_it_with_its_siblings() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let only =
        RecoveryPolicy { max_restarts: 0, escalation: None, ..policy(RecoveryStrategy::RestartKernel) };
    let spec = tally(&Script::new()).recovery(only);
    let group = Supervisor::new("group").kernel(kit::puppet("a/sibling")).kernel(spec);
    soon(runtime.supervise(group)).await.unwrap();
    let kernel = runtime.kernel::<Do, Told>("a/b").unwrap();
    let sibling = runtime.kernel::<Do, u64>("a/sibling").unwrap();
    assert_eq!(soon(sibling.call(Do::Incarnation, NONE)).await.unwrap(), 1);
    soon(kernel.call(COUNT, NONE)).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    soon(events.find("group", |fact| matches!(fact, Fact::Restarting { .. }))).await.unwrap();
    hand.advance(DELAY * 60);
    fact(&mut events, |fact| matches!(fact, Fact::Started { .. })).await;
    assert_eq!(
        soon(kernel.call(COUNT, NONE)).await.unwrap().count,
        2,
        "its checkpoints outlive its supervisor"
    );
    assert_eq!(soon(sibling.call(Do::Incarnation, NONE)).await.unwrap(), 2, "everything below began anew");
    let children = soon(runtime.supervisor("group").unwrap().which_children()).await.unwrap();
    assert!(children.iter().all(|child| child.state == ChildPhase::Up), "{children:?}");
    assert_balanced(&kernel);
}

#[cfg(feature = "webhook")]
#[tokio::test]
async fn a_webhook_is_told_once() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use rustkernel::webhook::{Webhook, WebhookConfig};

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let receiver = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "the head ends early");
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        reader.into_inner().write_all(b"HTTP/1.1 204 So\r\nContent-Length: 0\r\n\r\n").unwrap();
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()
    });
    let webhook = Webhook::new(&format!("http://{address}/"), &WebhookConfig::default()).unwrap();
    let (runtime, _hand) = Runtime::builder().hook(webhook.hook()).build_with_manual_clock().await.unwrap();
    let kernel = soon(runtime.spawn(tally(&Script::new()).recovery(first()))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    let document = soon(tokio::task::spawn_blocking(move || receiver.join().unwrap())).await.unwrap();
    assert_eq!((&document["fact"], &document["child"]), (&"isolated".into(), &"a/b".into()));
    let stats = webhook.close(ms(20_000));
    assert_eq!((stats.sent, stats.failed), (1, 0), "{stats:?}");
    assert_balanced(&kernel);
}
