//! Children added, stopped, restarted and deleted at run time, with OTP's answers.

use rustkernel::actors::{ChildError, ChildPhase, KernelState, SpawnError, Supervisor, SupervisorRef};
use rustkernel::core::resilience::BackoffStrategy;
use rustkernel::core::supervision::{ChildKind, Refusal, Restart};

use crate::cast::{Cast, HOUR, Tell, flat, phases, quick, runtime, until, until_child};
use crate::kit::{self, Do, NONE, PuppetRef, ms, soon};

fn refused<T: std::fmt::Debug>(result: Result<T, ChildError>) -> Refusal {
    let error = result.unwrap_err();
    let ChildError::Refused(refusal) = error else { panic!("{error}") };
    refusal
}

async fn start_refused(supervisor: &SupervisorRef, cast: &Cast, name: &str) -> Refusal {
    let error = soon(supervisor.start_task(cast.task(name))).await.unwrap_err();
    let SpawnError::Refused { source, child } = error else { panic!("{error}") };
    assert_eq!(child, name);
    source
}

#[tokio::test]
async fn every_question_has_otps_answer_in_every_state_of_the_child() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top").backoff(BackoffStrategy::Fixed { delay: ms(100) }).task(cast.task("a"));
    let top = soon(runtime.supervise(tree)).await.unwrap();
    assert_eq!(refused(soon(top.terminate_child("x")).await), Refusal::NotFound);
    assert_eq!(refused(soon(top.restart_child("x")).await), Refusal::NotFound);
    assert_eq!(refused(soon(top.delete_child("x")).await), Refusal::NotFound);
    // Running.
    assert_eq!(refused(soon(top.restart_child("a")).await), Refusal::Running);
    assert_eq!(refused(soon(top.delete_child("a")).await), Refusal::Running);
    assert_eq!(start_refused(&top, &cast, "a").await, Refusal::Running);
    // About to be restarted.
    cast.tell("a", Tell::Fail);
    until_child(&top, "a", ChildPhase::Restarting).await;
    assert_eq!(refused(soon(top.restart_child("a")).await), Refusal::Restarting);
    assert_eq!(refused(soon(top.delete_child("a")).await), Refusal::Restarting);
    assert_eq!(start_refused(&top, &cast, "a").await, Refusal::AlreadyPresent);
    hand.advance(ms(100));
    until_child(&top, "a", ChildPhase::Up).await;
    // Down.
    soon(top.terminate_child("a")).await.unwrap();
    soon(top.terminate_child("a")).await.unwrap();
    assert_eq!(start_refused(&top, &cast, "a").await, Refusal::AlreadyPresent);
    soon(top.restart_child("a")).await.unwrap();
    soon(top.terminate_child("a")).await.unwrap();
    soon(top.delete_child("a")).await.unwrap();
    assert_eq!(refused(soon(top.terminate_child("a")).await), Refusal::NotFound);
    soon(top.start_task(cast.task("a"))).await.unwrap();
    cast.expect(["+a", "-a", "+a", "-a", "+a", "-a", "+a"]).await;
}

#[tokio::test]
async fn which_and_count_tell_what_there_is() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top")
        .task(cast.task("a").restart(Restart::Transient))
        .kernel(cast.kernel("k/b"))
        .supervisor(quick("mid").task(cast.task("c")).kernel(cast.kernel("k/d")));
    let top = soon(runtime.supervise(tree)).await.unwrap();
    cast.tell("a", Tell::Finish);
    until_child(&top, "a", ChildPhase::Down).await;
    let counts = soon(top.count_children()).await.unwrap();
    assert_eq!((counts.specs, counts.active, counts.supervisors, counts.workers), (3, 2, 1, 2));
    let children = soon(top.which_children()).await.unwrap();
    let seen: Vec<_> =
        children.iter().map(|child| (child.name.as_str(), child.kind, child.restart)).collect();
    let expected = [
        ("a", ChildKind::Task, Restart::Transient),
        ("k/b", ChildKind::Kernel, Restart::Permanent),
        ("mid", ChildKind::Supervisor, Restart::Permanent),
    ];
    assert_eq!(seen, expected);
    assert_eq!(children[1].kernel.as_ref().unwrap().state, KernelState::Serving);
    let tree = soon(runtime.tree()).await.unwrap();
    assert_eq!((tree.name.as_str(), tree.intensity), ("root", None));
    let names: Vec<_> = flat(&tree).iter().map(|branch| branch.child.name.as_str()).collect();
    assert_eq!(names, ["top", "a", "k/b", "mid", "c", "k/d"]);
    let status: Vec<_> =
        soon(runtime.status()).await.into_iter().map(|kernel| kernel.id.to_string()).collect();
    assert_eq!(status, ["k/b", "k/d"]);
}

#[tokio::test]
async fn a_dynamic_supervisor_takes_no_more_than_max_children_and_keeps_none_that_ended() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let pool = Supervisor::new("pool").dynamic(2).backoff(crate::cast::NO_DELAY);
    let pool = soon(runtime.supervise(pool)).await.unwrap();
    soon(pool.start_task(cast.task("a").restart(Restart::Transient))).await.unwrap();
    soon(pool.start_kernel(cast.kernel("k/b"))).await.unwrap();
    cast.expect(["+a", "+k/b"]).await;
    assert_eq!(start_refused(&pool, &cast, "c").await, Refusal::MaxChildren { max_children: 2 });
    let full = soon(pool.start_kernel(cast.kernel("k/c"))).await.unwrap_err();
    assert!(matches!(full, SpawnError::Refused { .. }), "{full}");
    assert!(runtime.kernel::<Do, u64>("k/c").is_none());
    assert_eq!(refused(soon(pool.restart_child("a")).await), Refusal::Dynamic);
    assert_eq!(refused(soon(pool.delete_child("a")).await), Refusal::Dynamic);
    cast.tell("a", Tell::Panic);
    cast.expect(["-a", "+a"]).await;
    cast.tell("a", Tell::Finish);
    cast.expect(["-a"]).await;
    until(&pool, |children| children.len() == 1).await;
    soon(pool.terminate_child("k/b")).await.unwrap();
    cast.expect(["-k/b"]).await;
    assert!(phases(&pool).await.is_empty() && runtime.kernel::<Do, u64>("k/b").is_none());
    soon(pool.start_kernel(cast.kernel("k/b"))).await.unwrap();
    let low = quick("low").task(cast.task("c"));
    soon(pool.start_supervisor(low)).await.unwrap();
    cast.expect(["+k/b", "+c"]).await;
    soon(pool.terminate_child("low")).await.unwrap();
    assert!(runtime.supervisor("low").is_none());
    soon(pool.start_supervisor(quick("low"))).await.unwrap();
    cast.expect(["-c"]).await;
}

#[tokio::test]
async fn a_name_is_free_when_its_child_is_gone_and_not_before() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = || quick("low").kernel(cast.kernel("k/a")).task(cast.task("b"));
    let top = soon(runtime.supervise(quick("top").supervisor(tree()))).await.unwrap();
    cast.expect(["+k/a", "+b"]).await;
    cast.tell("b", Tell::Linger);
    let other = top.clone();
    let stopping = kit::spawn(async move { other.terminate_child("low").await });
    until_child(&top, "low", ChildPhase::Stopping).await;
    let taken = soon(runtime.spawn(cast.kernel("k/a"))).await.unwrap_err();
    assert!(matches!(taken, SpawnError::NameTaken(_)), "{taken}");
    let taken = soon(runtime.supervise(quick("low"))).await.unwrap_err();
    assert!(matches!(taken, SpawnError::SupervisorTaken(_)), "{taken}");
    cast.tell("b", Tell::Finish);
    soon(stopping).await.unwrap().unwrap();
    // A child that is down is still a child.
    let taken = soon(runtime.spawn(cast.kernel("k/a"))).await.unwrap_err();
    assert!(matches!(taken, SpawnError::NameTaken(_)), "{taken}");
    soon(top.delete_child("low")).await.unwrap();
    soon(runtime.supervise(tree())).await.unwrap();
    cast.expect(["-b", "-k/a", "+k/a", "+b"]).await;
}

/// With several workers the answer of a deletion came before the names were free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_a_deleted_child_is_free_when_the_deletion_is_answered() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let top = soon(runtime.supervise(quick("top"))).await.unwrap();
    for _ in 0..300 {
        soon(top.start_kernel(cast.kernel("k/a").inline())).await.unwrap();
        soon(top.terminate_child("k/a")).await.unwrap();
        soon(top.delete_child("k/a")).await.unwrap();
    }
}

#[tokio::test]
async fn a_child_that_does_not_start_at_run_time_never_was_and_one_that_does_not_restart_stays_down() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let top = soon(runtime.supervise(quick("top").task(cast.task("a")))).await.unwrap();
    cast.expect(["+a"]).await;
    cast.fail("k/b", 1);
    let error = soon(top.start_kernel(cast.kernel("k/b"))).await.unwrap_err();
    assert!(matches!(error, SpawnError::Start { .. }), "{error}");
    assert_eq!(phases(&top).await, [("a".into(), ChildPhase::Up)]);
    soon(top.start_kernel(cast.kernel("k/b"))).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
    soon(top.terminate_child("k/b")).await.unwrap();
    cast.fail("k/b", 1);
    let error = soon(top.restart_child("k/b")).await.unwrap_err();
    assert!(
        matches!(&error, ChildError::Failed(cause) if cause.to_string().contains("told to fail")),
        "{error}"
    );
    hand.advance(HOUR);
    assert_eq!(phases(&top).await, [("a".into(), ChildPhase::Up), ("k/b".into(), ChildPhase::Down)]);
    soon(top.restart_child("k/b")).await.unwrap();
    assert_eq!(soon(kernel.call(Do::Double(1), NONE)).await.unwrap(), 2);
    let tree = soon(runtime.tree()).await.unwrap();
    assert_eq!(tree.children[0].supervisor.as_ref().unwrap().restarts, 0, "it costs no intensity");
}

#[tokio::test]
async fn a_supervisor_that_is_down_says_so_and_its_ref_works_again_when_it_is_back() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let top = soon(runtime.supervise(quick("top").task(cast.task("a")))).await.unwrap();
    soon(runtime.root().terminate_child("top")).await.unwrap();
    for answer in [soon(top.terminate_child("a")).await, soon(top.restart_child("a")).await] {
        assert!(matches!(answer, Err(ChildError::SupervisorGone)));
    }
    let error = soon(top.start_task(cast.task("b"))).await.unwrap_err();
    assert!(matches!(error, SpawnError::SupervisorGone(name) if name == "top"));
    let error = soon(top.start_kernel(cast.kernel("k/b"))).await.unwrap_err();
    assert!(matches!(error, SpawnError::SupervisorGone(name) if name == "top"));
    soon(runtime.root().restart_child("top")).await.unwrap();
    soon(top.start_kernel(cast.kernel("k/b"))).await.unwrap();
    cast.expect(["+a", "-a", "+a", "+k/b"]).await;
    runtime.shutdown(HOUR).await.unwrap();
    let error = soon(runtime.root().start_task(cast.task("c"))).await.unwrap_err();
    assert!(matches!(error, SpawnError::RuntimeGone));
}
