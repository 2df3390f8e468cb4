//! Variables, `NAME=value` by lines up to an empty one, and a job file: a plan, or an error that says which variable or where.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustkernel::config::{JobConfig, Overlay};
use rustkernel::job::Plan;

fuzz_target!(|text: &str| {
    let (head, job) = text.split_once("\n\n").unwrap_or((text, ""));
    let pairs = head.lines().filter_map(|line| line.split_once('='));
    let named = pairs.map(|(name, value)| (format!("RUSTKERNEL__{name}").into(), value.into()));
    let overlay = Overlay::of(named).unwrap();
    for job in [job, SHIPPED] {
        let planned =
            JobConfig::parse_with("job.toml", job, &overlay).and_then(|(config, document)| Plan::new(config, &document));
        if let Err(error) = planned {
            let told = error.to_string();
            assert!(told.starts_with("job.toml") || told.starts_with("RUSTKERNEL__"), "{told}");
        }
    }
});

const SHIPPED: &str = include_str!("../seeds/job_file/shipped.toml");
