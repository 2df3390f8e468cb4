//! From a panic to the first good answer of the next incarnation, through the same reference.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use rustkernel::actors::{KernelRef, KernelSpec, Runtime};
use rustkernel::core::KernelError;
use rustkernel::core::clock::Clock;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::resilience::RecoveryPolicy;
use rustkernel::core::traits::{Context, Kernel};

use crate::report::{Group, Report, Target};
use crate::rounds::{Sample, Side};
use crate::sides::Flavour;

/// The request that makes its executor panic.
pub(crate) const PANIC: u64 = 0;
pub(crate) const GOOD: u64 = 1;
/// Good answers before each panic, outside the measured span, so that it strikes a proven executor: the kernel's breaker, half-open
/// after the last restart, has closed again.
pub(crate) const PROVEN: usize = 4;

pub(crate) fn run(report: &mut Report) {
    if !report.wants("restart") {
        return;
    }
    for flavour in Flavour::BOTH {
        let runtime = flavour.runtime();
        let panics = report.scale(200);
        let (_supervisor, [kernel, without_breaker]) = runtime.block_on(fragile_kernels());
        let current = runtime.block_on(supervised_actor());
        report.run(Group {
            name: format!("restart: panic to good answer, {}", flavour.name()),
            unit: "us",
            rounds: 15,
            baseline: Side::new("hand-written ractor supervisor", || {
                runtime.block_on(runtime.spawn(panic_actors(current.clone(), panics))).unwrap()
            }),
            contenders: vec![
                (
                    Side::new("inline kernel", || {
                        runtime.block_on(runtime.spawn(panic_kernels(kernel.clone(), panics))).unwrap()
                    }),
                    Target::Ratio(1.5),
                ),
                (
                    Side::new("inline kernel without a breaker", || {
                        let panics = panic_kernels(without_breaker.clone(), panics);
                        runtime.block_on(runtime.spawn(panics)).unwrap()
                    }),
                    Target::None,
                ),
            ],
        });
    }
}

/// Gets the good answers that close a breaker.
pub(crate) async fn prove(kernel: &KernelRef<u64, u64>) {
    let mut good = 0;
    while good < PROVEN {
        if kernel.call(GOOD, Deadline::None).await.is_ok() {
            good += 1;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// The median of `panics` restarts, in microseconds.
async fn panic_kernels(kernel: KernelRef<u64, u64>, panics: usize) -> f64 {
    let clock = Clock::system();
    let mut spans = Vec::with_capacity(panics);
    for _ in 0..panics {
        prove(&kernel).await;
        let before = clock.now();
        let crashed = kernel.call(PANIC, Deadline::None).await;
        assert!(crashed.is_err(), "a request that panics has no answer");
        while kernel.call(GOOD, Deadline::None).await.is_err() {
            tokio::task::yield_now().await;
        }
        spans.push((clock.now() - before).as_secs_f64() * 1e6);
    }
    Sample::of(spans).median()
}

async fn panic_actors(current: Current, panics: usize) -> f64 {
    let clock = Clock::system();
    let mut spans = Vec::with_capacity(panics);
    for _ in 0..panics {
        let mut good = 0;
        while good < PROVEN {
            good += usize::from(ask(&current, GOOD).await.is_some());
        }
        let before = clock.now();
        let crashed = ask(&current, PANIC).await;
        assert!(crashed.is_none(), "a request that panics has no answer");
        while ask(&current, GOOD).await.is_none() {
            tokio::task::yield_now().await;
        }
        spans.push((clock.now() - before).as_secs_f64() * 1e6);
    }
    Sample::of(spans).median()
}

/// The kernel that panics on request. It answers with the number of its life.
pub(crate) struct Fragile;

impl Kernel for Fragile {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, cx: &mut Context<'_>) -> Result<u64, KernelError> {
        assert_ne!(*input, PANIC, "asked for");
        Ok(cx.incarnation())
    }
}

/// Two kernels of one runtime: one with every default, one without a breaker.
async fn fragile_kernels() -> (Runtime, [KernelRef<u64, u64>; 2]) {
    let supervisor = Runtime::builder().build().await.unwrap();
    let kernel = supervisor.spawn(fragile("bench/fragile")).await.unwrap();
    let without = supervisor.spawn(fragile("bench/fragile-without-breaker").breaker(None)).await.unwrap();
    (supervisor, [kernel, without])
}

/// An inline kernel that panics on request and is restarted at once, as often as it takes.
pub(crate) fn fragile(name: impl Into<String>) -> KernelSpec<Fragile> {
    let policy =
        RecoveryPolicy { restart_delay: Duration::ZERO, max_restarts: u32::MAX, ..RecoveryPolicy::default() };
    KernelSpec::new(name, || Fragile).inline().recovery(policy).restart_window(Duration::from_millis(1))
}

/// Where the hand-written supervisor publishes its child.
type Current = Arc<Mutex<Option<ActorRef<Ask>>>>;

#[derive(Debug)]
pub(crate) struct Ask(u64, RpcReplyPort<u64>);

impl ractor::Message for Ask {}

/// The actor that panics on request.
pub(crate) struct FragileActor;

impl Actor for FragileActor {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Ask>, ask: Ask, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let Ask(input, reply) = ask;
        assert_ne!(input, PANIC, "asked for");
        let _ = reply.send(input);
        Ok(())
    }
}

/// The least supervisor: a child that failed is spawned again and published.
struct Owner(Current);

#[derive(Debug)]
pub(crate) struct Nothing;

impl ractor::Message for Nothing {}

impl Owner {
    async fn spawn_child(&self, myself: &ActorRef<Nothing>) -> Result<(), ActorProcessingErr> {
        let (child, _) = Actor::spawn_linked(None, FragileActor, (), myself.get_cell()).await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }
}

impl Actor for Owner {
    type Msg = Nothing;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Nothing>, (): ()) -> Result<(), ActorProcessingErr> {
        self.spawn_child(&myself).await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Nothing>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(..) = event {
            self.spawn_child(&myself).await?;
        }
        Ok(())
    }
}

async fn supervised_actor() -> Current {
    let current = Current::default();
    Actor::spawn(None, Owner(Arc::clone(&current)), ()).await.unwrap();
    current
}

/// `None` where the child was gone before it answered.
async fn ask(current: &Current, input: u64) -> Option<u64> {
    let child = current.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
    ask_actor(&child, input).await
}

pub(crate) async fn ask_actor(child: &ActorRef<Ask>, input: u64) -> Option<u64> {
    match child.call(|reply| Ask(input, reply), None).await {
        Ok(ractor::rpc::CallResult::Success(answer)) => Some(answer),
        Ok(ractor::rpc::CallResult::Timeout | ractor::rpc::CallResult::SenderError) | Err(_) => None,
    }
}
