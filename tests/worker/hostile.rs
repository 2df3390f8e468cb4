//! Workers that do not keep to the protocol.

use rustkernel::core::codec;
use rustkernel::core::error::KernelErrorKind;
use rustkernel::worker::{Domain, DomainConfig, WorkerCommand};
use serde::Serialize;

use crate::kit::{NONE, kind, soon};
use crate::puppets::{Do, PuppetRef, config, puppet, spawned, until};

/// A frame that claims a body of 2^40 bytes.
fn enormous() -> Vec<u8> {
    let mut frame = b"RKW1".to_vec();
    frame.extend(16_u32.to_le_bytes());
    frame.extend((1_u64 << 40).to_le_bytes());
    frame.extend([0; 16]);
    frame
}

/// What a worker says, as far as it matters here.
#[derive(Serialize)]
enum Says {
    Hello {
        protocol: u32,
        kernels: Vec<String>,
        device: Option<String>,
    },
    #[expect(dead_code, reason = "the number of the variant is what counts")]
    Unable,
    #[expect(dead_code, reason = "the number of the variant is what counts")]
    DeviceLost,
    #[expect(dead_code, reason = "the number of the variant is what counts")]
    Gone,
    Ended {
        kernel: u64,
        request: u64,
    },
}

/// It would have been believed, and no later hang of the kernel ended.
fn ended() -> Vec<u8> {
    codec::encode(&Says::Ended { kernel: 4, request: u64::MAX }).unwrap()
}

#[tokio::test]
async fn garbage_is_refused_by_name_and_ends_the_worker_alone() {
    let cases = [
        (Do::SayGarbage(b"garbage".to_vec()), "what it says is no message"),
        (Do::SayGarbage(vec![0xff; 4096]), "what it says is no message"),
        (Do::AnswerGarbage(b"RKW1".repeat(9)), "longer than"),
        (Do::SayGarbage(ended()), "has ended a request that nobody gave up"),
        (Do::AnswerGarbage(b"garbage, and enough of it".to_vec()), "what came is no frame"),
        (Do::AnswerGarbage(enormous()), "a body of 1099511627776 bytes is longer than"),
        (Do::HangUp, "the other side has closed it"),
    ];
    let domain = Domain::start("test", config()).unwrap();
    let beside = Domain::start("beside", config()).unwrap();
    let (runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    let neighbour: PuppetRef = soon(runtime.spawn(puppet(&beside, "a/c"))).await.unwrap();
    for (number, (garbage, expected)) in cases.into_iter().enumerate() {
        let answer = soon(kernel.call(garbage.clone(), NONE)).await;
        // The good answer may be faster than the garbage beside it.
        if answer.is_err() {
            assert_eq!(kind(answer), KernelErrorKind::Crashed, "{garbage:?}");
        }
        until(|| domain.status().deaths > number as u64).await;
        let reason = domain.status().last_death.unwrap();
        assert!(reason.contains(expected), "{garbage:?}: {reason}");
        soon(kernel.call(Do::Count, NONE)).await.unwrap();
        soon(neighbour.call(Do::Count, NONE)).await.unwrap();
    }
    assert_eq!(beside.status().deaths, 0);
}

/// What a shell prints as these bytes.
fn printed(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:03o}")).collect()
}

/// Programs of another version, or that are no workers at all: they would go on, and nobody would hear of them.
#[tokio::test]
async fn one_that_speaks_another_version_or_does_not_listen_is_ended_by_name() {
    let hello = Says::Hello { protocol: 1, kernels: Vec::new(), device: None };
    let hello = printed(&codec::encode(&hello).unwrap());
    let cases = [
        (format!("printf '{hello}' >&0; exec sleep 1000"), "it speaks version 1 of the protocol, not "),
        ("exec <&-; exec sleep 1000".to_owned(), "it has closed its control socket"),
    ];
    for (script, expected) in cases {
        let worker = WorkerCommand::program("/bin/sh").arguments(["-c", &script]);
        let domain = Domain::start("test", DomainConfig { worker, max_deaths: 0, ..config() }).unwrap();
        until(|| domain.status().deaths > 0).await;
        let last = domain.status().last_death.unwrap();
        assert!(last.contains(expected), "{last}");
    }
}
