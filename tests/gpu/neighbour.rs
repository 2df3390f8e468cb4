//! Two workers on one device, of which one dies again and again.

use std::time::Duration;

use rustkernel::core::clock::Clock;
use rustkernel::core::envelope::Deadline;
use rustkernel::worker::DomainConfig;
use tokio::task::JoinHandle;

use crate::device::Order;
use crate::figures::{Side, compare};
use crate::row::{Bench, Found, Halt, Outcome, ensure};
use crate::scene::{self, RigRef, spare, works, works_again};

/// What the healthy one loses.
pub(crate) fn find(bench: Bench) -> Outcome {
    let tokio = scene::tokio()?;
    let (_runtime, well, ill, domains) = tokio.block_on(async {
        let domains =
            (scene::domain("well", DomainConfig::cuda(0))?, scene::domain("ill", DomainConfig::cuda(0))?);
        let runtime = scene::runtime().await?;
        let (well, ill) = (scene::rig(&runtime, &domains.0).await?, scene::rig(&runtime, &domains.1).await?);
        Ok::<_, Halt>((runtime, well, ill, domains))
    })?;
    // Long enough that somebody dies, and is started anew, in every one.
    let span = Duration::from_millis(if bench.quick || bench.is_standin { 100 } else { 1_000 });
    let round = |noisy: bool| {
        tokio.block_on(async {
            let neighbour = noisy.then(|| dying(&tokio, ill.clone()));
            let clock = Clock::system();
            let before = clock.now();
            let mut calls = 0_u32;
            while clock.now() < before + span {
                works(&well).await?;
                calls += 1;
            }
            let rate = f64::from(calls) / (clock.now() - before).as_secs_f64();
            if let Some(neighbour) = neighbour {
                neighbour.abort();
                let _aborted = neighbour.await;
                // The next round begins when nobody dies or is being started.
                works_again(&ill).await?;
                spare(&domains.1).await;
            }
            Ok(rate)
        })
    };
    let sides = vec![Side::new("alone", || round(false)), Side::new("beside_the_dying", || round(true))];
    let found = compare(Found::new(""), "calls_per_s", bench.times(10).max(3), sides)?;
    let (well, ill) = (domains.0.status().deaths, domains.1.status().deaths);
    ensure(well == 0, || format!("{well} workers of the healthy one have died"))?;
    ensure(ill > 0, || "nobody has died".to_owned())?;
    let text = format!("no error and no death of the healthy one, while {ill} workers beside it died");
    Ok(Found { text, ..found }.figure("deaths_beside", ill))
}

/// Faults, as fast as there is somebody to fault.
fn dying(tokio: &tokio::runtime::Runtime, kernel: RigRef) -> JoinHandle<()> {
    tokio.spawn(async move {
        loop {
            let fault = Order::Fault("rk_fault_trap".to_owned());
            let _lost = kernel.call(fault, Deadline::None).await;
            let _pid = works_again(&kernel).await;
        }
    })
}
