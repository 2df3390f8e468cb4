//! The actor that is one incarnation of a kernel.
//!
//! Its one message, a zero-sized wake, starts its work: make the kernel, restore it, prove it, serve the slot. From then on
//! requests reach it through the slot and never through the mailbox, which dies with the actor. An inline kernel runs in the
//! actor's own handler; any other runs on a thread of its own, and the actor only waits for that thread's end. Ending in error or by
//! panic is the recovery actor's business.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, Message, SpawnErr};
use rustkernel_core::clock::Timestamp;
use rustkernel_core::envelope::Header;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::{Context, Kernel, LocalKernel, Signal};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::cause::panic_message;
use crate::checkpoint::Checkpointer;
use crate::contain::{Contained, contain};
use crate::lane::{Abandoned, EndOfLane, Lane, block_on};
use crate::lifeline::Lifeline;
use crate::recovery::RecoveryMsg;
use crate::slot::{Ending, Incarnation, Kept, Slot, Standing, serve};

/// Makes an instance of the kernel.
pub(crate) enum Factory<K> {
    Here(Arc<dyn Fn() -> Result<K, KernelError> + Send + Sync>),
    /// Its work is done elsewhere, and making it takes its time.
    Elsewhere(Arc<dyn Fn(Lifeline) -> Making<K> + Send + Sync>),
}

pub(crate) type Making<K> = Pin<Box<dyn Future<Output = Result<K, KernelError>> + Send>>;

impl<K> Clone for Factory<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Here(make) => Self::Here(Arc::clone(make)),
            Self::Elsewhere(make) => Self::Elsewhere(Arc::clone(make)),
        }
    }
}

type Accepts<O> = Box<dyn Fn(&O) -> bool + Send + Sync>;

/// A known answer that every new incarnation has to give before it serves.
pub(crate) struct Canary<K: LocalKernel> {
    pub(crate) input: K::Input,
    pub(crate) accepts: Accepts<K::Output>,
}

/// What all incarnations of a kernel are made from.
pub(crate) struct Recipe<K: LocalKernel> {
    pub(crate) slot: Arc<Slot<K::Input, K::Output>>,
    pub(crate) factory: Factory<K>,
    pub(crate) checkpointer: Option<Checkpointer<K>>,
    pub(crate) canary: Option<Arc<Canary<K>>>,
}

type LaunchFuture<'a> = Pin<Box<dyn Future<Output = Result<Launched, SpawnErr>> + Send + 'a>>;

/// Starts incarnations, whatever the kernel's type and placement.
pub(crate) trait Launch: Send + Sync {
    fn launch(&self, incarnation: Arc<Incarnation>, supervisor: ActorCell) -> LaunchFuture<'_>;
    /// Whether each incarnation takes a thread.
    fn takes_a_thread(&self) -> bool;
}

/// A started incarnation.
pub(crate) struct Launched {
    pub(crate) actor: ActorCell,
    pub(crate) lane: Option<Arc<Lane>>,
}

/// Runs the kernel inside the actor, on the async runtime.
pub(crate) struct Inline<K: LocalKernel>(pub(crate) Arc<Recipe<K>>);

/// Runs the kernel on a thread of its own.
pub(crate) struct Threaded<K: LocalKernel> {
    pub(crate) recipe: Arc<Recipe<K>>,
    pub(crate) abandoned: Abandoned,
    pub(crate) runtime: Handle,
}

impl<K: Kernel> Launch for Inline<K> {
    fn launch(&self, incarnation: Arc<Incarnation>, supervisor: ActorCell) -> LaunchFuture<'_> {
        let actor = InlineActor { recipe: Arc::clone(&self.0), incarnation };
        Box::pin(async move {
            let (actor, _) = Actor::spawn_linked(None, actor, (), supervisor).await?;
            Ok(Launched { actor: actor.get_cell(), lane: None })
        })
    }

    fn takes_a_thread(&self) -> bool {
        false
    }
}

impl<K: LocalKernel> Launch for Threaded<K> {
    fn launch(&self, incarnation: Arc<Incarnation>, supervisor: ActorCell) -> LaunchFuture<'_> {
        let lane = Lane::new(self.abandoned.clone());
        let actor = ThreadActor {
            recipe: Arc::clone(&self.recipe),
            incarnation,
            lane: Arc::clone(&lane),
            runtime: self.runtime.clone(),
            kernel: PhantomData,
        };
        Box::pin(async move {
            let (actor, _) = Actor::spawn_linked(None, actor, (), supervisor).await?;
            Ok(Launched { actor: actor.get_cell(), lane: Some(lane) })
        })
    }

    fn takes_a_thread(&self) -> bool {
        true
    }
}

/// "There is work": the only message of a kernel actor.
#[derive(Debug)]
struct Wake;

impl Message for Wake {}

struct InlineActor<K: LocalKernel> {
    recipe: Arc<Recipe<K>>,
    incarnation: Arc<Incarnation>,
}

impl<K: Kernel> Actor for InlineActor<K> {
    type Msg = Wake;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Wake>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(myself.send_message(Wake)?)
    }

    async fn handle(
        &self,
        myself: ActorRef<Wake>,
        Wake: Wake,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        // The kernel is a local of this future: a panic or a kill drops it before the supervisor hears of the end.
        // Boxed, because ractor keeps the future of a handler in two places and moves it on its way there.
        Box::pin(live(&self.recipe, &self.incarnation)).await.map_err(|error| error.to_string())?;
        myself.stop(None);
        Ok(())
    }
}

struct ThreadActor<K: LocalKernel> {
    recipe: Arc<Recipe<K>>,
    incarnation: Arc<Incarnation>,
    lane: Arc<Lane>,
    runtime: Handle,
    kernel: PhantomData<fn() -> K>,
}

impl<K: LocalKernel> Actor for ThreadActor<K> {
    type Msg = Wake;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Wake>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(myself.send_message(Wake)?)
    }

    async fn handle(
        &self,
        myself: ActorRef<Wake>,
        Wake: Wake,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match self.start_thread()?.await {
            Ok(Ok(_)) => {
                myself.stop(None);
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err("the kernel's thread vanished".into()),
        }
    }
}

impl<K: LocalKernel> ThreadActor<K> {
    /// Starts the thread. What comes back tells its end, after its kernel is dropped.
    fn start_thread(&self) -> std::io::Result<oneshot::Receiver<Result<Ending, String>>> {
        let (ended, end) = oneshot::channel();
        let (recipe, incarnation) = (Arc::clone(&self.recipe), Arc::clone(&self.incarnation));
        let (lane, runtime) = (EndOfLane(Arc::clone(&self.lane)), self.runtime.clone());
        let name = format!("{}#{}", recipe.slot.id, incarnation.number);
        self.lane.start();
        thread::Builder::new().name(name).spawn(move || {
            let _in_runtime = runtime.enter();
            let lived = catch_unwind(AssertUnwindSafe(|| {
                block_on(live(&recipe, &incarnation)).map_err(|error| error.to_string())
            }));
            let end = lived.unwrap_or_else(|panic| Err(panic_message(&*panic)));
            drop(lane);
            let (slot, number) = (recipe.slot.index, incarnation.number);
            recipe.slot.home.tell(RecoveryMsg::LaneEnded { slot, number });
            // A killed actor does not wait for its thread any more.
            let _ = ended.send(end);
        })?;
        Ok(end)
    }
}

/// One life: make the kernel, restore it, prove it, serve; a standby waits in between until it is called.
async fn live<K: LocalKernel>(
    recipe: &Recipe<K>,
    incarnation: &Arc<Incarnation>,
) -> Result<Ending, KernelError> {
    let slot = &*recipe.slot;
    let made = match &recipe.factory {
        Factory::Here(make) => make()?,
        Factory::Elsewhere(make) => make(Lifeline::new(&recipe.slot, incarnation)).await?,
    };
    // Dropped last, contained: after a panic of its own it may panic again.
    let mut kernel = Contained::new(made);
    let Some(kernel) = kernel.get() else { return Ok(Ending::Fenced) };
    let checkpointer = recipe.checkpointer.as_ref();
    // Boxed, like what a standby does: otherwise every kernel that serves would carry the room for it.
    let held = match checkpointer {
        Some(checkpointer) => Box::pin(restore_first(slot, incarnation, checkpointer, kernel)).await?,
        None => 0,
    };
    if let Some(canary) = &recipe.canary {
        Box::pin(prove(kernel, canary, incarnation, slot)).await?;
    }
    let restored = held > 0;
    let standing = slot.made(incarnation);
    if standing == Standing::Fenced {
        return Ok(Ending::Fenced);
    }
    let stands_by = standing == Standing::StandsBy;
    incarnation.set_ready(restored);
    slot.home.tell(RecoveryMsg::Ready { slot: slot.index, number: incarnation.number, restored });
    if stands_by {
        Box::pin(stand_by(slot, incarnation, checkpointer, kernel, held)).await?;
    }
    if incarnation.fence.is_raised() {
        return Ok(Ending::Fenced);
    }
    if stands_by {
        incarnation.set_serves();
        slot.home.tell(RecoveryMsg::Serves { slot: slot.index, number: incarnation.number });
    }
    Ok(serve(slot, incarnation, kernel, checkpointer).await)
}

/// Restores what there is for the first time in this life, an earlier process's included.
async fn restore_first<K: LocalKernel>(
    slot: &Slot<K::Input, K::Output>,
    incarnation: &Incarnation,
    checkpointer: &Checkpointer<K>,
    kernel: &mut K,
) -> Result<u64, KernelError> {
    slot.load_checkpoints().await?;
    restore_newer(slot, incarnation, checkpointer, kernel, 0).await
}

/// Waits until the life is called to serve, or dismissed.
async fn stand_by<K: LocalKernel>(
    slot: &Slot<K::Input, K::Output>,
    incarnation: &Incarnation,
    checkpointer: Option<&Checkpointer<K>>,
    kernel: &mut K,
    mut held: u64,
) -> Result<(), KernelError> {
    while !incarnation.fence.is_raised() {
        let called = incarnation.epoch() != 0;
        if let Some(checkpointer) = checkpointer.filter(|_| called || slot.rules.replicas_follow) {
            held = restore_newer(slot, incarnation, checkpointer, kernel, held).await?;
        }
        if called {
            break;
        }
        incarnation.rung().await;
    }
    Ok(())
}

/// Restores the newest checkpoint, if it is newer than the one the kernel `held`. One whose bytes are no good gives way to the one before
/// it, except for a life on trial, which fails. Returns what the kernel holds now.
async fn restore_newer<K: LocalKernel>(
    slot: &Slot<K::Input, K::Output>,
    incarnation: &Incarnation,
    checkpointer: &Checkpointer<K>,
    kernel: &mut K,
    held: u64,
) -> Result<u64, KernelError> {
    while let Some(Kept { sequence, frame, .. }) =
        slot.newest_checkpoint().filter(|kept| kept.sequence > held)
    {
        let restoring = frame.bytes().and_then(|bytes| checkpointer.restore(kernel, &bytes));
        match restoring {
            Ok(restoring) => {
                let restored = restoring.await;
                if let Err(error) = restored {
                    if incarnation.on_trial {
                        return Err(error);
                    }
                    // Half-restored, this instance is of no use. Its texts are the user's.
                    let reason = contain("an error's text", || error.to_string()).unwrap_or_default();
                    slot.restore_failed(sequence, reason).await?;
                    return Err(error);
                }
                return Ok(sequence);
            }
            Err(reason) if incarnation.on_trial => {
                let error = format!("checkpoint {sequence} is not for this kernel: {reason}");
                return Err(KernelError::permanent(error));
            }
            Err(reason) => slot.fall_back_from(sequence, reason).await?,
        }
    }
    Ok(held)
}

/// Runs the canary; a wrong answer is a failed start.
async fn prove<K: LocalKernel>(
    kernel: &mut K,
    canary: &Canary<K>,
    incarnation: &Incarnation,
    slot: &Slot<K::Input, K::Output>,
) -> Result<(), KernelError> {
    let never = Signal::new();
    let header = Header::new(0, Timestamp::NEVER);
    let mut cx = Context::new(header, incarnation.number, slot.clock(), [&never, &incarnation.fence]);
    let answer = kernel.execute_local(&canary.input, &mut cx).await?;
    if (canary.accepts)(&answer) {
        Ok(())
    } else {
        Err(KernelError::permanent("the canary gave a wrong answer"))
    }
}

impl<K: LocalKernel> fmt::Debug for Recipe<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipe").field("slot", &self.slot).finish_non_exhaustive()
    }
}
