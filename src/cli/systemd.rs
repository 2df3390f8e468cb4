//! What a service manager is told, where there is one: systemd, or another that knows its protocol.

use std::time::Duration;

use rustkernel_actors::Runtime;
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The kernels serve.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The node drains and ends within `grace`.
pub(super) fn stopping(grace: Duration) {
    let micros = u32::try_from(grace.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Pings the watchdog, where one is set, twice in each of its periods: if every supervisor has answered since, and the runtime has not given
/// up. A ping from a loop that does nothing else would prove nothing. Never ends.
pub(super) async fn watch(runtime: &Runtime) {
    let Some(period) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let half = period / 2;
    let mut turns = interval(half);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if timeout(half, runtime.tree()).await.is_ok_and(|tree| tree.is_some()) {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager is not told");
    }
}
