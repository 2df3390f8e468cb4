//! Four stages that hand on to each other, and one caller that waits for the last.

use std::hint::black_box;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use rustkernel::actors::{KernelSpec, Pipeline, Runtime};
use rustkernel::core::envelope::Deadline;
use tokio::sync::mpsc;

use crate::call::{DEADLINE, INPUT, drive};
use crate::report::{Group, Report, Target};
use crate::rounds::Side;
use crate::sides::{Ask, Bare, CAPACITY, Echo, Flavour, Payload, actor_call, bare_call, bare_task};

const STAGES: usize = 4;
const CALLERS: usize = 256;

pub(crate) fn run(report: &mut Report) {
    if !report.wants("pipeline") {
        return;
    }
    for flavour in Flavour::BOTH {
        let runtime = flavour.runtime();
        let calls = report.scale(32_768).div_ceil(CALLERS);
        let tasks = bare_chain(&runtime, STAGES);
        let (_supervisor, kernels) = runtime.block_on(kernel_chain(STAGES));
        let (actors, cells) = runtime.block_on(actor_chain());
        let kernel_side = |name, deadline: Deadline| {
            let (runtime, kernels) = (&runtime, &kernels);
            Side::new(name, move || {
                drive(runtime, CALLERS, calls, || run_kernels(kernels.clone(), calls, deadline))
            })
        };
        report.run(Group {
            name: format!("pipeline of {STAGES}, {CALLERS} outstanding, {}", flavour.name()),
            unit: "ns",
            rounds: 15,
            baseline: Side::new("tokio mpsc chain + oneshot", || {
                drive(&runtime, CALLERS, calls, || run_tasks(tasks.clone(), calls))
            }),
            contenders: vec![
                (kernel_side("inline kernels, no deadline", Deadline::None), Target::None),
                (kernel_side("inline kernels, deadline", Deadline::Within(DEADLINE)), Target::Ratio(1.8)),
                (
                    Side::new("ractor, reply port handed on", || {
                        drive(&runtime, CALLERS, calls, || run_actors(actors.clone(), calls))
                    }),
                    Target::None,
                ),
            ],
        });
        for actor in cells {
            actor.stop(None);
        }
    }
}

/// Tasks that pass on, and a last one that replies.
pub(crate) fn bare_chain(runtime: &tokio::runtime::Runtime, stages: usize) -> mpsc::Sender<Bare> {
    let mut next = bare_task(runtime);
    for _ in 1..stages {
        let (requests, mut queue) = mpsc::channel::<Bare>(CAPACITY);
        let onward = std::mem::replace(&mut next, requests);
        runtime.spawn(async move {
            while let Some(request) = queue.recv().await {
                if onward.send(request).await.is_err() {
                    return;
                }
            }
        });
    }
    next
}

pub(crate) async fn kernel_chain(stages: usize) -> (Runtime, Pipeline<Payload, Payload>) {
    let supervisor = Runtime::builder().build().await.unwrap();
    let mut chain = Pipeline::start();
    for stage in 0..stages {
        let spec = KernelSpec::new(format!("bench/stage-{stage}"), || Echo).inline();
        chain = chain.then(supervisor.spawn(spec).await.unwrap());
    }
    (supervisor, chain)
}

/// A stage that hands request and reply port on; the last one replies.
struct Stage(Option<ActorRef<Ask>>);

impl Actor for Stage {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Ask>, ask: Ask, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match &self.0 {
            Some(next) => Ok(next.send_message(ask)?),
            None => {
                let Ask(input, reply) = ask;
                let _ = reply.send(input);
                Ok(())
            }
        }
    }
}

/// The first actor, and all of them.
async fn actor_chain() -> (ActorRef<Ask>, Vec<ActorRef<Ask>>) {
    let mut cells = Vec::new();
    let (mut first, _) = Actor::spawn(None, Stage(None), ()).await.unwrap();
    cells.push(first.clone());
    for _ in 1..STAGES {
        (first, _) = Actor::spawn(None, Stage(Some(first)), ()).await.unwrap();
        cells.push(first.clone());
    }
    (first, cells)
}

pub(crate) async fn run_tasks(first: mpsc::Sender<Bare>, calls: usize) {
    for _ in 0..calls {
        black_box(bare_call(&first, black_box(INPUT)).await);
    }
}

pub(crate) async fn run_kernels(chain: Pipeline<Payload, Payload>, calls: usize, deadline: Deadline) {
    for _ in 0..calls {
        black_box(chain.run(black_box(INPUT), deadline).await.unwrap());
    }
}

async fn run_actors(first: ActorRef<Ask>, calls: usize) {
    for _ in 0..calls {
        black_box(actor_call(&first, black_box(INPUT)).await);
    }
}
