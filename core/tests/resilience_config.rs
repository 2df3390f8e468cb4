//! Settings: what is refused, where, and with which name.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::fmt::Debug;
use std::time::Duration;

use rustkernel_core::resilience::{
    BackoffStrategy, CircuitBreakerConfig, HealthCheckConfig, HealthProbeConfig, InvalidConfig, RateWindow,
    RecoveryPolicy, RecoveryStrategy, ResilienceConfig, RetryConfig, TimeoutConfig, WindowSpan,
};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as ValueError, MapDeserializer};
use serde::{Deserialize, Serialize};

fn breaker(change: impl FnOnce(&mut CircuitBreakerConfig)) -> CircuitBreakerConfig {
    let mut config = CircuitBreakerConfig::default();
    change(&mut config);
    config
}

fn window(change: impl FnOnce(&mut RateWindow)) -> CircuitBreakerConfig {
    let mut window = RateWindow::default();
    change(&mut window);
    CircuitBreakerConfig { window: Some(window), ..CircuitBreakerConfig::default() }
}

fn exponential(initial: Duration, max: Duration, multiplier: f64) -> RetryConfig {
    let backoff = BackoffStrategy::Exponential { initial, max, multiplier };
    RetryConfig { backoff, ..RetryConfig::default() }
}

/// Refused by its own check and, where JSON can say it at all, by the way through serde, under the same name.
fn refused<C: Serialize + DeserializeOwned + Debug>(
    config: &C,
    validate: fn(&C) -> Result<(), InvalidConfig>,
    field: &str,
) {
    assert_eq!(validate(config).unwrap_err().field, field, "{config:?}");
    let text = serde_json::to_string(config).unwrap();
    let error = serde_json::from_str::<C>(&text).unwrap_err().to_string();
    let is_no_number = text.contains("null") && error.contains("invalid type: null");
    assert!(error.contains(&format!("`{field}`")) || is_no_number, "{text}: {error}");
}

#[test]
fn bad_breaker_settings_are_refused_with_the_field_named() {
    let refused = |config: CircuitBreakerConfig, field: &str| {
        refused(&config, CircuitBreakerConfig::validate, &format!("circuit_breaker.{field}"));
    };
    refused(breaker(|c| c.failure_threshold = 0), "failure_threshold");
    refused(breaker(|c| c.success_threshold = 0), "success_threshold");
    refused(breaker(|c| c.timeout = Duration::ZERO), "timeout");
    refused(breaker(|c| c.timeout = Duration::MAX), "timeout");
    refused(breaker(|c| c.half_open_timeout = Some(Duration::ZERO)), "half_open_timeout");
    refused(window(|w| w.span = WindowSpan::Calls(0)), "window.span");
    refused(window(|w| w.span = WindowSpan::Calls(u32::MAX)), "window.span");
    refused(window(|w| w.span = WindowSpan::Time(Duration::ZERO)), "window.span");
    refused(window(|w| w.minimum_calls = 0), "window.minimum_calls");
    refused(window(|w| w.minimum_calls = 101), "window.minimum_calls");
    refused(window(|w| w.slow_call = Some(Duration::ZERO)), "window.slow_call");
    for ratio in [0.0, -0.5, 1.000_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused(window(|w| w.failure_ratio = ratio), "window.failure_ratio");
        refused(window(|w| w.slow_ratio = ratio), "window.slow_ratio");
    }
}

#[test]
fn bad_retry_settings_are_refused_with_the_field_named() {
    let refused = |config: RetryConfig, field: &str| {
        refused(&config, RetryConfig::validate, &format!("retry.{field}"));
    };
    let [short, long] = [Duration::from_millis(1), Duration::from_secs(1)];
    refused(RetryConfig { max_attempts: 0, ..RetryConfig::default() }, "max_attempts");
    refused(exponential(Duration::ZERO, long, 2.0), "backoff.initial");
    refused(exponential(long, short, 2.0), "backoff.max");
    for multiplier in [0.0, 0.99, -2.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused(exponential(short, long, multiplier), "backoff.multiplier");
    }
    let linear = BackoffStrategy::Linear { initial: short, increment: short, max: Duration::ZERO };
    refused(RetryConfig { backoff: linear, ..RetryConfig::default() }, "backoff.max");
}

#[test]
fn bad_timeouts_are_refused_with_the_field_named() {
    let refused = |config: TimeoutConfig, field: &str| refused(&config, TimeoutConfig::validate, field);
    let good = TimeoutConfig::default();
    refused(TimeoutConfig { default_timeout: Duration::ZERO, ..good.clone() }, "timeout.default_timeout");
    refused(TimeoutConfig { max_timeout: Duration::ZERO, ..good.clone() }, "timeout.max_timeout");
    refused(TimeoutConfig { max_timeout: Duration::from_secs(1), ..good }, "timeout.max_timeout");
}

#[test]
fn bad_health_settings_are_refused_with_the_field_named() {
    let good = HealthProbeConfig::default();
    let cases = [
        (HealthProbeConfig { interval: Duration::ZERO, ..good.clone() }, "health_check.probe.interval"),
        (HealthProbeConfig { timeout: Duration::ZERO, ..good.clone() }, "health_check.probe.timeout"),
        (HealthProbeConfig { failure_threshold: 0, ..good.clone() }, "health_check.probe.failure_threshold"),
        (HealthProbeConfig { success_threshold: 0, ..good }, "health_check.probe.success_threshold"),
    ];
    for (probe, field) in cases {
        refused(&probe, HealthProbeConfig::validate, field);
        let check = HealthCheckConfig { probe, ..HealthCheckConfig::default() };
        refused(&check, HealthCheckConfig::validate, field);
    }
    let check = HealthCheckConfig { startup_limit: Duration::ZERO, ..HealthCheckConfig::default() };
    refused(&check, HealthCheckConfig::validate, "health_check.startup_limit");
}

#[test]
fn bad_recovery_settings_are_refused_with_the_field_named() {
    let good = RecoveryPolicy::default();
    let slow = RecoveryPolicy { restart_delay: Duration::MAX, ..good.clone() };
    refused(&slow, RecoveryPolicy::validate, "recovery.restart_delay");
    let circle = RecoveryPolicy { escalation: Some(RecoveryStrategy::RestartKernel), ..good.clone() };
    refused(&circle, RecoveryPolicy::validate, "recovery.escalation");
    for escalation in [RecoveryStrategy::NotifyOperator, RecoveryStrategy::Degrade] {
        let strategy = RecoveryStrategy::NotifyOperator;
        let never = RecoveryPolicy { strategy, escalation: Some(escalation), ..good.clone() };
        refused(&never, RecoveryPolicy::validate, "recovery.escalation");
    }
}

#[test]
fn a_bad_section_is_refused_in_the_whole() {
    let retry = RetryConfig { max_attempts: 0, ..RetryConfig::default() };
    let config = ResilienceConfig { retry, ..ResilienceConfig::default() };
    refused(&config, ResilienceConfig::validate, "retry.max_attempts");
}

// JSON cannot say NaN; a format that can must not smuggle it in.
#[test]
fn a_ratio_that_is_no_number_is_refused_on_the_way_through_serde() {
    for ratio in [f64::NAN, f64::INFINITY, 0.0, 1.5] {
        let fields = MapDeserializer::<_, ValueError>::new([("failure_ratio", ratio)].into_iter());
        let error = RateWindow::deserialize(fields).unwrap_err().to_string();
        assert!(error.contains("`circuit_breaker.window.failure_ratio`"), "{error}");
    }
}

#[test]
fn every_preset_is_valid_and_survives_the_round_trip() {
    for config in
        [ResilienceConfig::default(), ResilienceConfig::production(), ResilienceConfig::development()]
    {
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ResilienceConfig>(&text).unwrap(), config);
    }
}

#[test]
fn what_a_file_leaves_out_takes_its_default_and_what_it_misspells_is_refused() {
    let config: ResilienceConfig =
        serde_json::from_str(r#"{ "circuit_breaker": { "timeout": "1m 30s" } }"#).unwrap();
    let expected = breaker(|c| c.timeout = Duration::from_secs(90));
    assert_eq!(config, ResilienceConfig { circuit_breaker: expected, ..ResilienceConfig::default() });
    let read = |text| serde_json::from_str::<RecoveryPolicy>(text).unwrap();
    assert_eq!(read("{}"), RecoveryPolicy::default());
    assert_eq!(read(r#"{ "escalation": null }"#).escalation, None);
    assert_eq!(read(r#"{ "strategy": "notify_operator" }"#).escalation, None, "nothing comes after it");
    let error = serde_json::from_str::<CircuitBreakerConfig>(r#"{ "time_out": "30s" }"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `time_out`"));
    assert!(serde_json::from_str::<CircuitBreakerConfig>(r#"{ "timeout": "soon" }"#).is_err());
}
