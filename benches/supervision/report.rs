//! The table, and the same as CSV.

use std::fmt::Write as _;
use std::time::Duration;

use crate::Options;
use crate::rounds::{Sample, Side, run};

/// What a row has to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// At most this many times the baseline.
    Ratio(f64),
    /// At most this, in the group's unit.
    Absolute(f64),
    /// Nothing: shown for orientation.
    None,
}

/// A baseline and what is compared with it.
pub(crate) struct Group<'a> {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) rounds: usize,
    pub(crate) baseline: Side<'a>,
    pub(crate) contenders: Vec<(Side<'a>, Target)>,
}

pub(crate) struct Report {
    options: Options,
    csv: String,
    missed: Vec<String>,
    header_is_due: bool,
}

impl Report {
    pub(crate) fn new(options: Options) -> Self {
        let csv =
            "group,baseline,contender,unit,rounds,baseline_p25,baseline_median,baseline_p75,contender_p25,\
                   contender_median,contender_p75,ratio,ratio_of_medians,target,verdict\n"
                .to_owned();
        Self { options, csv, missed: Vec::new(), header_is_due: true }
    }

    /// Whether the family is asked for.
    pub(crate) fn wants(&self, family: &str) -> bool {
        self.options.filter.as_ref().is_none_or(|filter| family.contains(filter.as_str()))
    }

    /// `full`, or a small share of it in a quick run.
    pub(crate) fn scale(&self, full: usize) -> usize {
        if self.options.quick { (full / 50).max(2) } else { full }
    }

    /// `full`, or a small share of it in a quick run.
    pub(crate) fn span(&self, full: Duration) -> Duration {
        if self.options.quick { (full / 10).max(Duration::from_millis(100)) } else { full }
    }

    /// Whether what takes a minute is asked for.
    pub(crate) fn is_long(&self) -> bool {
        self.options.long
    }

    /// Runs a group and prints its rows.
    pub(crate) fn run(&mut self, group: Group<'_>) {
        let rounds = if self.options.quick { group.rounds.min(3) } else { group.rounds };
        let mut sides = vec![group.baseline];
        let mut targets = Vec::new();
        for (side, target) in group.contenders {
            sides.push(side);
            targets.push(target);
        }
        let samples = run(rounds, &mut sides);
        for index in 1..sides.len() {
            let names = (sides[0].name, sides[index].name);
            self.row(&group.name, group.unit, names, (&samples[0], &samples[index]), targets[index - 1]);
        }
    }

    /// Writes the CSV file and names what missed its target.
    #[allow(clippy::print_stdout, reason = "the table is the product")]
    pub(crate) fn finish(self) {
        if let Some(path) = &self.options.csv {
            std::fs::write(path, &self.csv).unwrap();
        }
        match self.missed.as_slice() {
            [] => println!("\nno target missed"),
            missed => println!("\nmissed: {}", missed.join("; ")),
        }
    }

    #[allow(clippy::print_stdout, reason = "the table is the product")]
    fn row(
        &mut self,
        group: &str,
        unit: &str,
        (baseline, contender): (&str, &str),
        (base, ours): (&Sample, &Sample),
        target: Target,
    ) {
        if std::mem::take(&mut self.header_is_due) {
            println!("| row | baseline | ours | unit | baseline | ours | ratio | target | |");
            println!("|---|---|---|---|---:|---:|---:|---:|---|");
        }
        let ratio = ours.ratio_to(base);
        let (target, met) = match target {
            Target::Ratio(limit) => (format!("{limit}"), Some(hundredths(ratio) <= hundredths(limit))),
            Target::Absolute(limit) => {
                (format!("{limit} {unit}"), Some(hundredths(ours.median()) <= hundredths(limit)))
            }
            Target::None => ("-".to_owned(), None),
        };
        let verdict = met.map_or("", |met| if met { "met" } else { "missed" });
        println!(
            "| {group} | {baseline} | {contender} | {unit} | {} | {} | {} | {target} | {verdict} |",
            number(base.median()),
            number(ours.median()),
            if ratio.is_finite() { format!("{ratio:.2}") } else { "-".to_owned() },
        );
        if met == Some(false) {
            self.missed.push(format!("{group}, {contender}: {} {unit}, {ratio:.2}", number(ours.median())));
        }
        let Self { csv, .. } = self;
        let quartiles =
            |sample: &Sample| [1, 2, 3].map(|quarter| sample.quartile(quarter).to_string()).join(",");
        let _ = writeln!(
            csv,
            "\"{group}\",\"{baseline}\",\"{contender}\",{unit},{},{},{},{ratio},{},{target},{verdict}",
            base.rounds(),
            quartiles(base),
            quartiles(ours),
            ours.median() / base.median(),
        );
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A ratio as it is printed: two digits.
#[allow(clippy::cast_possible_truncation, reason = "ratios are small, and a huge one may saturate")]
fn hundredths(ratio: f64) -> i64 {
    (ratio * 100.0).round() as i64
}
