//! The three ways to get an answer: a bare tokio task, a kernel, a ractor actor. All of them echo 64 bytes.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use rustkernel::actors::{KernelRef, KernelSpec, Runtime};
use rustkernel::core::KernelError;
use rustkernel::core::traits::{Context, Kernel};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

/// What goes in and comes back.
pub(crate) type Payload = [u8; 64];

/// The queue's bound on both sides; a kernel's default.
pub(crate) const CAPACITY: usize = 1024;

/// The tokio runtimes that are compared. Two workers are what programs run on; the current thread shows the cost of the path alone, for
/// with two workers it also counts how often a side happens to wake the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    MultiThread,
    CurrentThread,
}

impl Flavour {
    pub(crate) const BOTH: [Self; 2] = [Self::MultiThread, Self::CurrentThread];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MultiThread => "2 workers",
            Self::CurrentThread => "current thread",
        }
    }

    pub(crate) fn runtime(self) -> tokio::runtime::Runtime {
        match self {
            Self::MultiThread => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
            Self::CurrentThread => Builder::new_current_thread().enable_all().build(),
        }
        .unwrap()
    }
}

/// A request of the bare task.
pub(crate) type Bare = (Payload, oneshot::Sender<Payload>);

/// The least that answers: a bounded channel, a task, a oneshot. Ends with its last sender.
pub(crate) fn bare_task(runtime: &tokio::runtime::Runtime) -> mpsc::Sender<Bare> {
    let (requests, mut queue) = mpsc::channel::<Bare>(CAPACITY);
    runtime.spawn(async move {
        while let Some((input, reply)) = queue.recv().await {
            let _ = reply.send(input);
        }
    });
    requests
}

pub(crate) async fn bare_call(requests: &mpsc::Sender<Bare>, input: Payload) -> Payload {
    let (reply, answer) = oneshot::channel();
    requests.send((input, reply)).await.unwrap();
    answer.await.unwrap()
}

/// The kernel that echoes.
#[derive(Debug)]
pub(crate) struct Echo;

impl Kernel for Echo {
    type Input = Payload;
    type Output = Payload;

    async fn execute(&mut self, input: &Payload, _: &mut Context<'_>) -> Result<Payload, KernelError> {
        Ok(*input)
    }
}

/// An inline kernel with every default: its gate, its queue of [`CAPACITY`], its restarts.
pub(crate) fn kernel(runtime: &tokio::runtime::Runtime) -> (Runtime, KernelRef<Payload, Payload>) {
    runtime.block_on(async {
        let supervisor = Runtime::builder().build().await.unwrap();
        let echo = supervisor.spawn(KernelSpec::new("bench/echo", || Echo).inline()).await.unwrap();
        (supervisor, echo)
    })
}

/// The actor that echoes.
#[derive(Debug)]
pub(crate) struct EchoActor;

/// A ractor request.
#[derive(Debug)]
pub(crate) struct Ask(pub(crate) Payload, pub(crate) RpcReplyPort<Payload>);

impl ractor::Message for Ask {}

impl Actor for EchoActor {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Ask>, ask: Ask, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let Ask(input, reply) = ask;
        let _ = reply.send(input);
        Ok(())
    }
}

pub(crate) async fn actor_call(actor: &ActorRef<Ask>, input: Payload) -> Payload {
    actor.call(|reply| Ask(input, reply), None).await.unwrap().unwrap()
}
