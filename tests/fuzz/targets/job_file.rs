//! A job file is a plan, or an error that says where.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustkernel::config::JobConfig;
use rustkernel::job::Plan;

fuzz_target!(|text: &str| {
    let planned = JobConfig::parse("job.toml", text).and_then(|(config, document)| Plan::new(config, &document));
    if let Err(error) = planned {
        assert!(error.to_string().starts_with("job.toml"), "{error}");
    }
});
