//! Interleaved rounds: every side once a round, in an order that rotates.

use rustkernel::core::clock::Clock;

/// One thing that is measured. A round gives one number, in the unit of its group.
pub(crate) struct Side<'a> {
    pub(crate) name: &'static str,
    pub(crate) round: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Side<'a> {
    pub(crate) fn new(name: &'static str, round: impl FnMut() -> f64 + 'a) -> Self {
        Self { name, round: Box::new(round) }
    }
}

/// What the rounds of one side gave.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    in_order: Vec<f64>,
    sorted: Vec<f64>,
}

impl Sample {
    pub(crate) fn of(values: Vec<f64>) -> Self {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        Self { in_order: values, sorted }
    }

    /// How many times `baseline` this is: the median over the rounds, each compared with itself. Other work on the machine
    /// comes and goes between rounds, and the medians of two sides may fall into different weather.
    pub(crate) fn ratio_to(&self, baseline: &Self) -> f64 {
        Self::of(self.in_order.iter().zip(&baseline.in_order).map(|(ours, base)| ours / base).collect())
            .median()
    }

    pub(crate) fn rounds(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn median(&self) -> f64 {
        self.quartile(2)
    }

    /// The value below which `quarters` quarters of the rounds lie.
    pub(crate) fn quartile(&self, quarters: usize) -> f64 {
        self.sorted[(self.sorted.len() - 1) * quarters / 4]
    }
}

/// Runs every side once to warm it up, then `rounds` times.
pub(crate) fn run(rounds: usize, sides: &mut [Side<'_>]) -> Vec<Sample> {
    let mut values = vec![Vec::with_capacity(rounds); sides.len()];
    for side in sides.iter_mut() {
        (side.round)();
    }
    for round in 0..rounds {
        for step in 0..sides.len() {
            let index = (round + step) % sides.len();
            values[index].push((sides[index].round)());
        }
    }
    values.into_iter().map(Sample::of).collect()
}

/// Nanoseconds that `work` takes, divided by `count`.
pub(crate) fn nanos_per(count: usize, work: impl FnOnce()) -> f64 {
    let clock = Clock::system();
    let before = clock.now();
    work();
    (clock.now() - before).as_secs_f64() * 1e9 / count as f64
}
