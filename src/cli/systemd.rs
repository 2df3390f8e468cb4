//! What a service manager is told, where there is one: systemd, or another that knows its protocol.

use std::time::Duration;

use rustkernel_actors::Runtime;
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::cuda::{Device, DeviceWatch};

/// The kernels serve.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The node drains and ends within `grace`.
pub(super) fn stopping(grace: Duration) {
    let micros = u32::try_from(grace.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Pings the watchdog, where one is set, twice in each of its periods: if every supervisor has answered since, the runtime has not given up, and
/// the driver has answered about each of the process's own devices, and NVML's questions about all others come back. A ping from a loop that does nothing else would prove nothing. Never ends.
pub(super) async fn watch(runtime: &Runtime, devices: &[Device]) {
    let answers = |every| {
        devices.iter().all(|device| !device.is_stuck(every))
            && DeviceWatch::all().iter().all(|watch| !watch.is_stuck(every))
    };
    match sd_notify::watchdog_enabled() {
        Some(period) => pings(runtime, period / 2, answers, || tell(&[NotifyState::Watchdog])).await,
        None => std::future::pending().await,
    }
}

async fn pings(runtime: &Runtime, every: Duration, answers: impl Fn(Duration) -> bool, ping: impl Fn()) {
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if timeout(every, runtime.tree()).await.is_ok_and(|tree| tree.is_some()) && answers(every) {
            ping();
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager is not told");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_watchdog_is_fed_as_long_as_the_supervisors_answer() {
        let runtime = Runtime::builder().build().await.unwrap();
        let (pinged, mut pings_heard) = mpsc::unbounded_channel();
        let driver = AtomicBool::new(true);
        let answers = |_| driver.load(Ordering::Relaxed);
        let feeds = pings(&runtime, Duration::from_millis(2), answers, || pinged.send(()).unwrap());
        let mut heard = async |fed: bool| {
            for _ in 0..3 * u32::from(fed) {
                pings_heard.recv().await.unwrap();
            }
            // One may have been asked for before.
            while !fed && timeout(Duration::from_millis(50), pings_heard.recv()).await.is_ok() {}
        };
        let ends = async {
            heard(true).await;
            driver.store(false, Ordering::Relaxed);
            heard(false).await;
            driver.store(true, Ordering::Relaxed);
            heard(true).await;
            runtime.shutdown(Duration::ZERO).await;
            heard(false).await;
        };
        tokio::select! {
            () = feeds => unreachable!("it never ends"),
            ended = timeout(Duration::from_secs(20), ends) => ended.unwrap(),
        }
    }
}
