//! A job inside a program of one's own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::time::Duration;

use rustkernel::actors::{Runtime, SpawnError};
use rustkernel::config::JobConfig;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::error::KernelErrorKind;
use rustkernel::inject::{FaultMix, Injector};
use rustkernel::job::{Job, Plan, Tally};
use rustkernel::kernels::graph::{EdgeListSource, Ranking};

const SECONDS: Option<Deadline> = Some(Deadline::Within(Duration::from_secs(60)));

/// A ranking whose `graph/pagerank` lives by `rules`, with `more` stages before the last one.
fn text(rules: &str, more: &str) -> String {
    format!(
        "[job]\nretry_budget = 1000\n[[stage]]\nkernel = \"graph/load\"\n\
         [[stage]]\nkernel = \"graph/pagerank\"\nrepeat = {{ until = \"converged\", limit = 200 }}\n{rules}\n\
         {more}\n[[stage]]\nkernel = \"graph/top_k\"\nsettings = {{ k = 34 }}\n"
    )
}

fn plan(text: &str) -> Plan {
    let (config, document) = JobConfig::parse("job.toml", text).unwrap();
    Plan::new(config, &document).unwrap()
}

fn karate() -> EdgeListSource {
    EdgeListSource::Path("data/karate.txt".into())
}

async fn rank(job: &Job) -> Ranking {
    job.run(karate(), SECONDS).await.0.unwrap()
}

#[tokio::test]
async fn a_job_runs_again_and_again_on_one_runtime() {
    let runtime = Runtime::builder().build().await.unwrap();
    let job = plan(&text("", "")).spawn(&runtime, None).await.unwrap();
    let (first, report) = job.run(karate(), SECONDS).await;
    let first = first.unwrap();
    assert_eq!(first.entries.len(), 34);
    assert_eq!(report.stages[1].calls, u64::from(first.iterations));
    assert_eq!(job.rounds(), first.iterations);
    assert_eq!(rank(&job).await, first);
    let again = plan(&text("", "")).spawn(&runtime, None).await;
    assert!(matches!(again, Err(SpawnError::NameTaken(id)) if id.as_str() == "graph/load"));
}

#[tokio::test]
async fn the_ranking_is_the_same_wherever_its_kernels_run() {
    let runtime = Runtime::builder().build().await.unwrap();
    let threads = plan(&text("", "")).spawn(&runtime, None).await.unwrap();
    let threads = rank(&threads).await;
    let runtime = Runtime::builder().build().await.unwrap();
    let inline = plan(&text("placement = \"inline\"", "")).spawn(&runtime, None).await.unwrap();
    assert_eq!(rank(&inline).await, threads);
}

#[tokio::test]
async fn a_kernel_can_be_used_twice_under_two_names() {
    let runtime = Runtime::builder().build().await.unwrap();
    let again = "[[stage]]\nkernel = \"graph/pagerank\"\nname = \"graph/polish\"\n\
                 settings = { tolerance = 1e-12 }\nrepeat = { until = \"converged\", limit = 200 }\n";
    let job = plan(&text("", again)).spawn(&runtime, None).await.unwrap();
    let ranking = rank(&job).await;
    assert!(ranking.delta <= 1e-12, "{}", ranking.delta);
    let kernels: Vec<String> = runtime.status().await.iter().map(|kernel| kernel.id.to_string()).collect();
    assert_eq!(kernels, ["graph/load", "graph/pagerank", "graph/polish", "graph/top_k"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn injected_faults_are_counted_and_change_nothing() {
    let calm = Runtime::builder().build().await.unwrap();
    let expected = rank(&plan(&text("", "")).spawn(&calm, None).await.unwrap()).await;

    let tally = Tally::default();
    let hook = tally.clone();
    let runtime = Runtime::builder().hook(move |event| hook.count(event)).build().await.unwrap();
    let rules = "conviction_limit = 30\nhang_limit = \"50ms\"\n\
                 retry = { max_attempts = 60, backoff = { fixed = { delay = \"0s\" } } }\n\
                 recovery = { max_restarts = 500, restart_delay = \"0s\" }\nbreaker = { failure_threshold = 61 }";
    let faults: FaultMix = "panic=0.2,error=0.2,hang=0.02".parse().unwrap();
    let plan = plan(&text("", "").replace("[[stage]]\n", &format!("[[stage]]\n{rules}\n")));
    let job = plan.spawn(&runtime, Some(Injector::new(faults, 3))).await.unwrap();
    assert_eq!(rank(&job).await, expected);
    let counts = tally.counts();
    assert!(counts.restarts > 0 && counts.failures.contains_key("panicked"), "{counts:?}");
    assert_eq!(counts.restarts, counts.failures.values().sum::<u64>(), "{counts:?}");
    assert_eq!(counts.dead_letters, 0);
}

#[tokio::test]
async fn a_missing_file_is_the_inputs_fault_and_the_job_goes_on_serving() {
    let runtime = Runtime::builder().build().await.unwrap();
    let job = plan(&text("", "")).spawn(&runtime, None).await.unwrap();
    let (missing, _) = job.run(EdgeListSource::Path("no/such/file".into()), SECONDS).await;
    assert!(matches!(missing.unwrap_err().kind(), KernelErrorKind::Kernel(_)));
    assert_eq!(rank(&job).await.nodes, 34);
}
