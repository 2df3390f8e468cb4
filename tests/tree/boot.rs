//! How a supervisor begins: in order, awaited, all or nothing.

use std::time::Duration;

use rustkernel::actors::{Cause, ChildPhase, SpawnError, Supervisor, Task};
use rustkernel::core::resilience::BackoffStrategy;
use rustkernel::core::supervision::{AutoShutdown, Restart};

use crate::cast::{Cast, Tell, flat, phases, quick, runtime, until_child};
use crate::kit::{self, Do, Latch, NONE, ms, soon};

#[tokio::test]
async fn children_start_in_order_each_when_the_one_before_it_is_up() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top")
        .task(cast.slow("a"))
        .kernel(cast.kernel("k/b"))
        .supervisor(quick("mid").task(cast.slow("c")).kernel(cast.kernel("k/d").inline()))
        .task(cast.task("e"));
    let other = runtime.clone();
    let starting = kit::spawn(async move { other.supervise(tree).await });
    cast.expect(["+a"]).await;
    cast.expect_nothing().await;
    let top = runtime.supervisor("top").unwrap();
    let (starts, waits) = (ChildPhase::Starting, ChildPhase::Restarting);
    let seen = phases(&top).await;
    let named = |name: &str, phase| (name.to_owned(), phase);
    assert_eq!(seen, [named("a", starts), named("k/b", waits), named("mid", waits), named("e", waits)]);
    cast.tell("a", Tell::Ready);
    cast.expect(["+k/b", "+c"]).await;
    cast.expect_nothing().await;
    assert!(!starting.is_finished());
    cast.tell("c", Tell::Ready);
    cast.expect(["+k/d", "+e"]).await;
    soon(starting).await.unwrap().unwrap();
    let tree = soon(runtime.tree()).await.unwrap();
    let names: Vec<_> = flat(&tree).iter().map(|branch| branch.child.name.clone()).collect();
    assert_eq!(names, ["top", "a", "k/b", "mid", "c", "k/d", "e"]);
    assert!(flat(&tree).iter().all(|branch| branch.child.state == ChildPhase::Up && branch.child.life == 1));
}

#[tokio::test]
async fn a_slow_start_blocks_no_answers_of_the_supervisors_above() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let door = Latch::new();
    let stuck = std::sync::Arc::clone(&door);
    let slow = rustkernel::actors::KernelSpec::new("k/slow", move || {
        stuck.block();
        kit::Puppet
    });
    let tree = quick("top").supervisor(quick("mid").task(cast.task("a")).kernel(slow)).task(cast.task("z"));
    let other = runtime.clone();
    let starting = kit::spawn(async move { other.supervise(tree).await });
    door.arrived(1).await;
    cast.expect(["+a"]).await;
    let mid = runtime.supervisor("mid").unwrap();
    assert_eq!(soon(mid.count_children()).await.unwrap().specs, 2);
    until_child(&runtime.supervisor("top").unwrap(), "mid", ChildPhase::Starting).await;
    let early = soon(runtime.root().start_task(cast.task("other"))).await;
    early.unwrap();
    cast.expect(["+other"]).await;
    door.open();
    soon(starting).await.unwrap().unwrap();
    cast.expect(["+z"]).await;
}

#[tokio::test]
async fn a_child_that_does_not_start_stops_those_before_it_in_reverse_and_frees_all_names() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = || {
        quick("top")
            .task(cast.task("a"))
            .kernel(cast.kernel("k/b"))
            .supervisor(quick("mid").task(cast.task("c")).kernel(cast.kernel("k/d")).task(cast.task("e")))
            .task(cast.task("f"))
    };
    cast.fail("k/d", 1);
    let error = soon(runtime.supervise(tree())).await.unwrap_err();
    let SpawnError::Child { child, cause: Cause::StartFailed(text) } = &error else { panic!("{error}") };
    assert_eq!(child, "top");
    assert!(text.contains("mid") && text.contains("k/d") && text.contains("told to fail"), "{text}");
    cast.expect(["+a", "+k/b", "+c", "-c", "-k/b", "-a"]).await;
    assert!(runtime.supervisor("top").is_none() && runtime.supervisor("mid").is_none());
    assert!(runtime.kernel::<Do, u64>("k/b").is_none() && runtime.kernel::<Do, u64>("k/d").is_none());
    assert!(phases(&runtime.root()).await.is_empty());

    soon(runtime.supervise(tree())).await.unwrap();
    cast.expect(["+a", "+k/b", "+c", "+k/d", "+e", "+f"]).await;
}

/// A task that returned before it was up was said to have been killed, or nothing was said at all.
#[tokio::test]
async fn a_task_that_ends_before_it_is_up_has_not_started() {
    let ends =
        [(Tell::Finish, "before it was up"), (Tell::Fail, "told to fail"), (Tell::Panic, "told to panic")];
    for (how, reason) in ends {
        let (runtime, _hand) = runtime().await;
        let cast = Cast::default();
        let tree = quick("top").task(cast.task("a")).task(cast.slow("b"));
        let other = runtime.clone();
        let starting = kit::spawn(async move { other.supervise(tree).await });
        cast.expect(["+a", "+b"]).await;
        cast.tell("b", how.clone());
        let error = soon(starting).await.unwrap().unwrap_err();
        let SpawnError::Child { cause: Cause::StartFailed(text), .. } = &error else { panic!("{error}") };
        assert!(text.contains("b: ") && text.contains(reason), "{text}");
        cast.expect(["-b", "-a"]).await;

        let other = runtime.clone();
        let task = cast.slow("b");
        let starting = kit::spawn(async move { other.root().start_task(task).await });
        cast.expect(["+b"]).await;
        cast.tell("b", how);
        let error = soon(starting).await.unwrap().unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(phases(&runtime.root()).await.is_empty(), "it never was a child");
    }
}

#[tokio::test]
async fn a_factory_that_panics_is_a_failed_start() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    for inline in [false, true] {
        let spec = rustkernel::actors::KernelSpec::<kit::Puppet>::new("k/b", || panic!("no device"));
        let spec = if inline { spec.inline() } else { spec };
        let error =
            soon(runtime.supervise(quick("top").task(cast.task("a")).kernel(spec))).await.unwrap_err();
        assert!(error.to_string().contains("k/b") && error.to_string().contains("no device"), "{error}");
        cast.expect(["+a", "-a"]).await;
    }
}

#[tokio::test]
async fn a_bad_spec_anywhere_is_refused_by_field_before_any_child_starts() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let good = || quick("top").task(cast.task("a")).kernel(cast.kernel("k/a"));
    let deep = |bad: Supervisor| good().supervisor(quick("mid").task(cast.task("b")).supervisor(bad));
    let bad_backoff = BackoffStrategy::Exponential { initial: ms(2), max: ms(1), multiplier: 2.0 };
    let watches = || quick("low").auto_shutdown(AutoShutdown::AnySignificant);
    let by_field = [
        (deep(quick("low").intensity(1, Duration::ZERO)), "supervisor.period"),
        (deep(quick("low").backoff(bad_backoff)), "supervisor.backoff"),
        (deep(quick("low").dynamic(0)), "supervisor.max_children"),
        (deep(quick("low").dynamic(5).task(cast.task("c"))), "supervisor.children"),
        (deep(quick("low").task(cast.task("c")).task(cast.task("c"))), "supervisor.children"),
        (
            deep(quick("low").task(cast.task("c").restart(Restart::Temporary).significant())),
            "child.significant",
        ),
        (deep(watches().task(cast.task("c").significant())), "child.significant"),
        (deep(watches().supervisor(quick("c").significant())), "child.significant"),
        (deep(quick("low").kernel(cast.kernel("k/c").queue(0, 1))), "queue.requests"),
        (deep(quick("low").kernel(cast.kernel("k/c").start_limit(Duration::ZERO))), "start_limit"),
        (deep(watches().kernel(cast.kernel("k/c").significant())), "significant"),
    ];
    for (bad, wanted) in by_field {
        let error = soon(runtime.supervise(bad)).await.unwrap_err();
        if let SpawnError::Supervisor { source, supervisor } = &error {
            assert_eq!((source.field, supervisor.as_str()), (wanted, "low"));
        } else {
            let SpawnError::Config { source, kernel } = &error else { panic!("{error}") };
            assert_eq!((source.field, kernel.as_str()), (wanted, "k/c"));
        }
    }
    let by_name = [
        (deep(quick("low").task(Task::new("no/slash", |_| async { Ok(()) }))), "no/slash"),
        (deep(quick("").task(cast.task("c"))), "``"),
        (deep(quick(&"x".repeat(129))), "128"),
        (deep(quick("low").kernel(cast.kernel("noslash"))), "noslash"),
        (deep(quick("low").kernel(cast.kernel("k/a"))), "k/a"),
        (deep(quick("mid")), "mid"),
        (deep(quick("root")), "root"),
    ];
    for (bad, wanted) in by_name {
        let error = soon(runtime.supervise(bad)).await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
    cast.expect_nothing().await;
    // No name was left behind either.
    soon(runtime.supervise(deep(quick("low").task(cast.task("c")).kernel(cast.kernel("k/c")))))
        .await
        .unwrap();
    let taken = soon(runtime.supervise(quick("low"))).await.unwrap_err();
    assert!(matches!(taken, SpawnError::SupervisorTaken(name) if name == "low"));
    let kernel = runtime.kernel::<Do, u64>("k/c").unwrap();
    assert_eq!(soon(kernel.call(Do::Double(2), NONE)).await.unwrap(), 4);
}

#[tokio::test]
async fn a_child_that_is_stopped_while_it_starts_stays_down_and_the_boot_goes_on() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top").task(cast.slow("a")).task(cast.task("b"));
    let other = runtime.clone();
    let starting = kit::spawn(async move { other.supervise(tree).await });
    cast.expect(["+a"]).await;
    let top = runtime.supervisor("top").unwrap();
    soon(top.terminate_child("a")).await.unwrap();
    soon(starting).await.unwrap().unwrap();
    cast.expect(["-a", "+b"]).await;
    assert_eq!(phases(&top).await, [("a".into(), ChildPhase::Down), ("b".into(), ChildPhase::Up)]);
}

#[tokio::test]
async fn a_supervisor_that_is_stopped_while_it_boots_has_not_started_and_leaves_nothing() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top").task(cast.task("a")).supervisor(quick("mid").task(cast.slow("b")));
    let other = runtime.clone();
    let starting = kit::spawn(async move { other.supervise(tree).await.map(drop) });
    cast.expect(["+a", "+b"]).await;
    soon(runtime.root().terminate_child("top")).await.unwrap();
    soon(starting).await.unwrap().unwrap_err();
    cast.expect(["-b", "-a"]).await;
    assert!(phases(&runtime.root()).await.is_empty(), "it never was a child");
    soon(runtime.supervise(quick("top").supervisor(quick("mid")))).await.unwrap();
}
