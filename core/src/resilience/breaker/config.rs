//! The settings of a circuit breaker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::resilience::checked::{checked, rule};
use crate::resilience::{InvalidConfig, span};

/// The longest [`WindowSpan::Calls`]: two bytes are kept for each call of the window.
pub const MAX_WINDOW_CALLS: u32 = 65_536;

/// The longest [`CircuitBreakerConfig::timeout`]. What shall stay open longer is isolated by hand.
pub const MAX_OPEN_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a breaker opens, how long it stays open, and what closes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawBreaker")]
pub struct CircuitBreakerConfig {
    /// Consecutive failures that open the breaker; at least 1. One success starts the count again.
    ///
    /// Low values react fast and open on bad luck. Default 5: below it a burst of unrelated transient errors opens
    /// a healthy kernel's breaker.
    pub failure_threshold: u32,
    /// Good probes that close a half-open breaker, and the most probes in flight at once; at least 1. Default 2: one
    /// may be luck.
    pub success_threshold: u32,
    /// How long the breaker stays open before it lets probes in; above zero, at most [`MAX_OPEN_TIME`]. Default
    /// 30 s: long enough for a restart with its restore.
    #[serde(with = "span")]
    pub timeout: Duration,
    /// How long a half-open breaker waits for its probes, from the first one on, before it opens again; above zero.
    /// Default `None`: as long as `timeout`, after which a kernel that nobody calls is no wiser.
    #[serde(with = "span::optional")]
    pub half_open_timeout: Option<Duration>,
    /// A rate over a sliding window that opens the breaker too. Default `None`: consecutive failures alone. It
    /// catches a kernel that fails every second call, at the cost of the window's memory.
    pub window: Option<RateWindow>,
}

impl CircuitBreakerConfig {
    /// For serving: the defaults, and a rate of one half over the last 100 calls.
    #[must_use]
    pub fn production() -> Self {
        Self { window: Some(RateWindow::default()), ..Self::default() }
    }

    /// For a developer's desk: opens after 3 failures and probes again after 5 s.
    #[must_use]
    pub fn development() -> Self {
        Self {
            failure_threshold: 3,
            success_threshold: 1,
            timeout: Duration::from_secs(5),
            ..Self::default()
        }
    }

    /// The time limit of the half-open state: its own, or else `timeout`.
    #[must_use]
    pub fn half_open_limit(&self) -> Duration {
        self.half_open_timeout.unwrap_or(self.timeout)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        rule(self.failure_threshold >= 1, "circuit_breaker.failure_threshold", "must be at least 1")?;
        rule(self.success_threshold >= 1, "circuit_breaker.success_threshold", "must be at least 1")?;
        rule(!self.timeout.is_zero(), "circuit_breaker.timeout", "must be above zero")?;
        rule(self.timeout <= MAX_OPEN_TIME, "circuit_breaker.timeout", "must be at most 365 days")?;
        if let Some(limit) = self.half_open_timeout {
            rule(!limit.is_zero(), "circuit_breaker.half_open_timeout", "must be above zero")?;
            rule(limit <= MAX_OPEN_TIME, "circuit_breaker.half_open_timeout", "must be at most 365 days")?;
        }
        self.window.as_ref().map_or(Ok(()), RateWindow::validate)
    }
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            success_threshold: 2,
            timeout: Duration::from_secs(30),
            half_open_timeout: None,
            window: None,
        }
    }
}

/// A sliding window over the latest calls, and the rates in it that open the breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawWindow")]
pub struct RateWindow {
    /// How far back the window reaches. Default: the last 100 calls, which cost a few hundred bytes.
    pub span: WindowSpan,
    /// Calls that the window must hold before a rate counts; at least 1, and no more than a window counted in calls
    /// holds. Default 20: one failure in two calls is no rate.
    pub minimum_calls: u32,
    /// Share of failed calls that opens the breaker; above 0, at most 1. A rate at the limit opens. Default 0.5: a
    /// kernel that fails every second call serves nobody well.
    pub failure_ratio: f64,
    /// Calls that take longer than this are slow; above zero. A slow probe is a bad one. Whoever uses
    /// the bare machine can count work that is still running, through `on_slow`; elsewhere it counts when it ends. Default `None`: no call is slow,
    /// since what is slow is known of each kernel alone.
    #[serde(with = "span::optional")]
    pub slow_call: Option<Duration>,
    /// Share of slow calls that opens the breaker; above 0, at most 1. Read only with `slow_call`. Default 1.0:
    /// only where every call of the window was slow.
    pub slow_ratio: f64,
}

/// How far back a [`RateWindow`] reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowSpan {
    /// The latest calls; 1 to [`MAX_WINDOW_CALLS`].
    Calls(u32),
    /// The latest stretch of time, in ten steps; at least 1 ms.
    Time(#[serde(with = "span")] Duration),
}

impl RateWindow {
    /// Checks every field.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let in_window = match self.span {
            WindowSpan::Calls(calls) => {
                let fits = (1..=MAX_WINDOW_CALLS).contains(&calls);
                rule(fits, "circuit_breaker.window.span", "must be 1 to 65536 calls")?;
                calls
            }
            WindowSpan::Time(period) => {
                let fits = period >= Duration::from_millis(1) && period <= MAX_OPEN_TIME;
                rule(fits, "circuit_breaker.window.span", "must be 1 ms to 365 days")?;
                u32::MAX
            }
        };
        rule(self.minimum_calls >= 1, "circuit_breaker.window.minimum_calls", "must be at least 1")?;
        let fits = self.minimum_calls <= in_window;
        rule(fits, "circuit_breaker.window.minimum_calls", "must be no more than the window holds")?;
        let ratio = "must be above 0 and at most 1";
        rule(is_ratio(self.failure_ratio), "circuit_breaker.window.failure_ratio", ratio)?;
        rule(is_ratio(self.slow_ratio), "circuit_breaker.window.slow_ratio", ratio)?;
        let slow_holds = self.slow_call.is_none_or(|limit| !limit.is_zero());
        rule(slow_holds, "circuit_breaker.window.slow_call", "must be above zero")
    }
}

impl Default for RateWindow {
    fn default() -> Self {
        Self {
            span: WindowSpan::Calls(100),
            minimum_calls: 20,
            failure_ratio: 0.5,
            slow_call: None,
            slow_ratio: 1.0,
        }
    }
}

/// False for NaN, which compares with nothing.
fn is_ratio(ratio: f64) -> bool {
    ratio > 0.0 && ratio <= 1.0
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "CircuitBreakerConfig")]
struct RawBreaker {
    failure_threshold: u32,
    success_threshold: u32,
    #[serde(with = "span")]
    timeout: Duration,
    #[serde(with = "span::optional")]
    half_open_timeout: Option<Duration>,
    window: Option<RateWindow>,
}

checked!(CircuitBreakerConfig from RawBreaker {
    failure_threshold,
    success_threshold,
    timeout,
    half_open_timeout,
    window,
});

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "RateWindow")]
struct RawWindow {
    span: WindowSpan,
    minimum_calls: u32,
    failure_ratio: f64,
    #[serde(with = "span::optional")]
    slow_call: Option<Duration>,
    slow_ratio: f64,
}

checked!(RateWindow from RawWindow { span, minimum_calls, failure_ratio, slow_call, slow_ratio });
