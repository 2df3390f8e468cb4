//! Figures: spans, medians, and rounds that are interleaved so that a machine that slows down slows every side.

use std::time::Duration;

use rustkernel::core::clock::Clock;

use crate::row::{Found, Halt};

/// What it takes to do `work`, in seconds, and what it gives.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let clock = Clock::system();
    let before = clock.now();
    let value = work();
    ((clock.now() - before).as_secs_f64(), value)
}

/// So many rounds, or as many as there is time for: a machine that is slow gives fewer figures, and not none.
pub(crate) fn rounds(count: usize) -> impl Iterator<Item = usize> {
    let clock = Clock::system();
    let until = clock.now() + PATIENCE;
    (0..count).take_while(move |round| *round == 0 || clock.now() < until)
}

/// Less than the limit of a row that repeats something.
const PATIENCE: Duration = Duration::from_secs(40);

/// Lets some time pass: for what nobody announces.
pub(crate) fn pass(span: Duration) {
    let clock = Clock::system();
    let until = clock.now() + span;
    while clock.now() < until {
        std::thread::park_timeout(until - clock.now());
    }
}

/// Values in order. None of them is not a number.
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value below which the part `ratio` of them lies; 0 where there is none.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index from a ratio of a length"
    )]
    pub(crate) fn at(&self, ratio: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * ratio).round() as usize).copied().unwrap_or(0.0)
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// Its least, middle and greatest, `times` as large, under `name` and the unit.
    pub(crate) fn tell(&self, found: Found, name: &str, unit: &str, times: f64) -> Found {
        let part = |ratio: f64| rounded(self.at(ratio) * times);
        found
            .figure(&format!("{name}_median_{unit}"), part(0.5))
            .figure(&format!("{name}_min_{unit}"), part(0.0))
            .figure(&format!("{name}_max_{unit}"), part(1.0))
            .figure(&format!("{name}_count"), self.0.len())
    }
}

/// One thing that is measured; a round gives one number.
pub(crate) struct Side<'a> {
    name: &'static str,
    round: Box<dyn FnMut() -> Result<f64, Halt> + 'a>,
}

impl<'a> Side<'a> {
    pub(crate) fn new(name: &'static str, round: impl FnMut() -> Result<f64, Halt> + 'a) -> Self {
        Self { name, round: Box::new(round) }
    }
}

/// Runs every side once to warm it up, then `rounds` times in an order that rotates. Tells each side's median, and, beside all but the
/// first, how many times the first it is: the median over the rounds, each compared with itself.
pub(crate) fn compare(
    mut found: Found,
    unit: &str,
    rounds: usize,
    mut sides: Vec<Side<'_>>,
) -> Result<Found, Halt> {
    let mut values = vec![Vec::with_capacity(rounds); sides.len()];
    for side in &mut sides {
        (side.round)()?;
    }
    for round in 0..rounds {
        for step in 0..sides.len() {
            let index = (round + step) % sides.len();
            values[index].push((sides[index].round)()?);
        }
    }
    let base = values[0].clone();
    for (index, (side, values)) in sides.iter().zip(values).enumerate() {
        let ratios = values.iter().zip(&base).map(|(ours, base)| ours / base).collect();
        found = found.figure(&format!("{}_{unit}", side.name), rounded(Sample::of(values).median()));
        if index > 0 {
            found = found.figure(&format!("{}_ratio", side.name), rounded(Sample::of(ratios).median()));
        }
    }
    Ok(found.figure("rounds", rounds))
}

/// Four places behind the point: more is noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
