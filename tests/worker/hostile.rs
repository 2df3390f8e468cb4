//! Workers that do not keep to the protocol.

use rustkernel::core::codec;
use rustkernel::core::error::KernelErrorKind;
use rustkernel::worker::Domain;
use serde::Serialize;

use crate::kit::{NONE, kind, soon};
use crate::puppets::{Do, PuppetRef, config, puppet, spawned};

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
    #[expect(dead_code, reason = "the number of the variant is what counts")]
    Hello,
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
        crate::puppets::until(|| domain.status().deaths > number as u64).await;
        let reason = domain.status().last_death.unwrap();
        assert!(reason.contains(expected), "{garbage:?}: {reason}");
        soon(kernel.call(Do::Count, NONE)).await.unwrap();
        soon(neighbour.call(Do::Count, NONE)).await.unwrap();
    }
    assert_eq!(beside.status().deaths, 0);
}
