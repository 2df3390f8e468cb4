//! What goes there and comes back.

use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::ErrorKind;
use rustkernel::core::trace::{TraceContext, with_trace};

use crate::kit::{NONE, kind, soon};
use crate::puppets::{Do, Scale, domain, puppet, spawned};

#[tokio::test]
async fn a_kernel_in_a_worker_answers_from_another_process_and_keeps_its_state() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    for count in 1..=3 {
        let said = soon(kernel.call(Do::Count, NONE)).await.unwrap();
        assert_eq!((said.count, Some(said.pid)), (count, domain.status().pid));
        assert_ne!(said.pid, std::process::id());
    }
}

#[tokio::test]
async fn payloads_of_every_size_come_back_as_they_went() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    for size in [0, 1, 4095, 32 << 10, (32 << 10) + 1, 300_000, 16 << 20, 7] {
        let bytes: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let said = soon(kernel.call(Do::Echo(bytes.clone()), NONE)).await.unwrap();
        assert!(said.echo == bytes, "{size} bytes");
    }
}

#[tokio::test]
async fn plain_buffers_come_back_bit_for_bit() {
    let domain = domain();
    let runtime = rustkernel::actors::Runtime::builder().build().await.unwrap();
    let spec = domain.kernel::<Scale>("a/scale", "scale", &2.0_f64);
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    for len in [0, 1, 4095, 4096, 1_000_000] {
        let input: Vec<f64> = (0..len).map(|n: u32| f64::from(n).sqrt() - 7.0).collect();
        let doubled: Vec<u64> = input.iter().map(|value| (value * 2.0).to_bits()).collect();
        let answer = soon(kernel.call(input, NONE)).await.unwrap();
        assert!(answer.iter().map(|value| value.to_bits()).eq(doubled), "{len} values");
    }
}

#[tokio::test]
async fn the_kernels_own_errors_come_back_with_kind_and_text() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    let error = soon(kernel.call(Do::Fail, NONE)).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::Kernel(ErrorKind::Transient));
    assert_eq!(error.to_string(), "a/b: the kernel failed (transient): told to fail");
}

/// A compiler's log is long: it closed the kernel's socket.
#[tokio::test]
async fn an_error_with_a_text_of_any_length_comes_back_with_its_beginning() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    for length in [10, 60_000, 70_000, 3_000_000] {
        let error = soon(kernel.call(Do::FailAtLength(length), NONE)).await.unwrap_err();
        assert_eq!(*error.kind(), KernelErrorKind::Kernel(ErrorKind::Transient), "{length}");
        assert!(error.to_string().len() < 40_000, "{length}");
    }
    assert_eq!(domain.status().deaths, 0);
}

/// It would have read the messages to its parent.
#[tokio::test]
async fn what_a_kernel_starts_does_not_inherit_the_control_socket() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    assert_eq!(soon(kernel.call(Do::Child, NONE)).await.unwrap().echo, b"");
    assert_eq!(soon(kernel.call(Do::Count, NONE)).await.unwrap().count, 2);
}

#[tokio::test]
async fn a_kernel_that_cannot_be_made_there_fails_the_spawn_with_its_reason() {
    let domain = domain();
    let runtime = rustkernel::actors::Runtime::builder().build().await.unwrap();
    let cases = [
        ("broken", "no such device", "no such device"),
        ("broken", "panic", "it panicked while it was made: told to panic"),
        ("unknown", "", "the worker knows no kernel called `unknown`"),
        ("puppet", "a text, where it takes a number", "does not understand the kernel's settings"),
    ];
    for (name, settings, expected) in cases {
        let spec = domain.kernel::<crate::puppets::Puppet>("a/b", name, &settings.to_owned());
        let error = soon(runtime.spawn(spec)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(domain.status().deaths, 0, "none of it concerns the process");
}

#[tokio::test]
async fn state_survives_the_death_of_its_process_by_its_checkpoint() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b").checkpointed()).await;
    for count in 1..=2 {
        assert_eq!(soon(kernel.call(Do::Count, NONE)).await.unwrap().count, count);
    }
    assert_eq!(kind(soon(kernel.call(Do::Exit(1), NONE)).await), KernelErrorKind::Crashed);
    assert_eq!(soon(kernel.call(Do::Count, NONE)).await.unwrap().count, 3);
}

#[tokio::test]
async fn a_request_keeps_its_trace_in_its_worker() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/traced")).await;
    let trace = TraceContext::try_from((0xabc_u128, 0xde, true)).unwrap();
    let said = soon(with_trace(trace, kernel.call(Do::Count, NONE))).await.unwrap();
    assert_eq!(said.trace, Some(trace));
    assert_eq!(soon(kernel.call(Do::Count, NONE)).await.unwrap().trace, None);
}
