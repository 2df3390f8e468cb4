//! A job inside a program of one's own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustkernel::actors::{Runtime, SpawnError};
use rustkernel::config::JobConfig;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::error::{KernelError, KernelErrorKind};
use rustkernel::inject::{FaultMix, Injector};
use rustkernel::job::{Job, JobState, Plan, Spot, Tally};
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

/// `text` on a runtime of its own, going on from what `folder` holds.
async fn resumed(text: &str, faults: Option<Injector>, folder: &Path) -> (Runtime, JobState, Job) {
    let (config, document) = JobConfig::parse("job.toml", text).unwrap();
    let state = JobState::open(folder, &document, &karate()).unwrap();
    let runtime = Runtime::builder().checkpoint_store(state.checkpoints()).build().await.unwrap();
    let plan = Plan::new(config, &document).unwrap();
    let job = plan.resume(&runtime, faults, &state).await.unwrap();
    (runtime, state, job)
}

/// The process's end: everything that it wrote is there.
async fn end((runtime, state, job): (Runtime, JobState, Job)) {
    runtime.shutdown(Duration::from_secs(60)).await;
    drop((job, state));
}

/// A folder of one test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("job-{name}"));
    let _none = fs::remove_dir_all(&path);
    path
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

/// A ranking of at most `limit` rounds, whose first error ends it.
fn limited(limit: u32) -> String {
    let once = "retry = { max_attempts = 1 }";
    text(once, "").replace("limit = 200", &format!("limit = {limit}"))
}

/// The rounds of an earlier process were taken off the limit of every run, not of the one that went on with them.
#[tokio::test]
async fn a_run_after_the_one_that_went_on_has_all_its_rounds() {
    let calm = Runtime::builder().build().await.unwrap();
    let expected = rank(&plan(&text("", "")).spawn(&calm, None).await.unwrap()).await;
    let limit = expected.iterations;
    let (job, folder) = (limited(limit), folder("rounds"));
    // A process that ends in the middle of the rounds: the first seed whose error comes there.
    let stopped = async |seed| {
        let _none = fs::remove_dir_all(&folder);
        let faults = Injector::new("error=0.05".parse().unwrap(), seed);
        let process = resumed(&job, Some(faults), &folder).await;
        let (result, _) = process.2.run(karate(), SECONDS).await;
        let rounds = process.2.rounds();
        end(process).await;
        result.is_err().then_some(rounds)
    };
    let mut seed = 0;
    let rounds = loop {
        match stopped(seed).await {
            Some(rounds) if (2..limit).contains(&rounds) => break rounds,
            _ => seed += 1,
        }
    };
    let (_runtime, state, job) = resumed(&job, None, &folder).await;
    let from = state.resumed().unwrap().from;
    assert_eq!(from, Spot { stage: 1, round: rounds }, "seed {seed}");
    for calls in [limit - rounds, limit] {
        let (ranking, report) = job.run(karate(), SECONDS).await;
        assert_eq!(ranking.unwrap(), expected, "seed {seed}");
        let ranked = report.stages.iter().find(|stage| stage.kernel.as_str() == "graph/pagerank").unwrap();
        assert_eq!(ranked.calls, u64::from(calls), "seed {seed}");
    }
}

/// Every process that went on made one more round than the limit allows, until one of them was done.
#[tokio::test]
async fn a_job_that_failed_at_its_limit_of_rounds_fails_there_in_every_process() {
    let calm = Runtime::builder().build().await.unwrap();
    let enough = rank(&plan(&text("", "")).spawn(&calm, None).await.unwrap()).await.iterations;
    let (limit, folder) = (enough - 1, folder("limit"));
    let mut errors = Vec::new();
    for process in 0..3 {
        let (runtime, state, job) = resumed(&limited(limit), None, &folder).await;
        assert_eq!(
            state.resumed().map(|resumed| resumed.from),
            (process > 0).then_some(Spot { stage: 1, round: limit })
        );
        let (result, report) = job.run(karate(), SECONDS).await;
        errors.push(result.unwrap_err());
        let calls = report.stages.iter().filter(|stage| stage.kernel.as_str() == "graph/pagerank");
        let calls: u64 = calls.map(|stage| stage.calls).sum();
        assert_eq!(calls, if process == 0 { limit.into() } else { 0 });
        end((runtime, state, job)).await;
    }
    let told = |error: &KernelError| {
        format!("{error} {:?} {:?} {:?}", error.kind(), error.phase(), error.kernel_id())
    };
    assert!(told(&errors[0]).contains("not done within the limit of rounds"), "{}", told(&errors[0]));
    assert_eq!(told(&errors[1]), told(&errors[0]));
    assert_eq!(told(&errors[2]), told(&errors[0]));
}

/// The same tree in a file and in code: one type behind both, and one shape.
#[tokio::test]
async fn a_tree_in_a_file_is_the_tree_that_its_builder_draws() {
    use rustkernel::actors::{Branch, ChildPhase, KernelSpec, Supervisor};
    use rustkernel::core::supervision::{Restart, Strategy};
    use rustkernel::kernels::graph::{Load, PageRank, PageRankConfig, TopK, TopKConfig};

    let trees = "[supervisor.job]\nstrategy = \"rest_for_one\"\nintensity = 7\nperiod = \"9s\"\n\
                 children = [\"graph/load\", \"ranking\"]\n\
                 [supervisor.ranking]\nstrategy = \"one_for_all\"\nrestart = \"transient\"\n\
                 children = [\"graph/pagerank\", \"graph/top_k\"]\n";
    let from_file = Runtime::builder().build().await.unwrap();
    let job = plan(&text("", &format!("{trees}\n"))).spawn(&from_file, None).await.unwrap();
    assert_eq!(rank(&job).await.entries.len(), 34);

    let from_code = Runtime::builder().build().await.unwrap();
    let ranking = Supervisor::new("ranking")
        .one_for_all()
        .restart(Restart::Transient)
        .kernel(KernelSpec::fallible("graph/pagerank", || {
            PageRank::new(PageRankConfig::default()).map_err(rustkernel::core::KernelError::permanent)
        }))
        .kernel(KernelSpec::fallible("graph/top_k", || {
            TopK::new(&TopKConfig::default()).map_err(rustkernel::core::KernelError::permanent)
        }));
    let whole = Supervisor::new("job")
        .rest_for_one()
        .intensity(7, Duration::from_secs(9))
        .kernel(KernelSpec::new("graph/load", Load::default))
        .supervisor(ranking);
    from_code.supervise(whole).await.unwrap();

    fn shape(branch: &Branch) -> String {
        let below = branch.supervisor.as_ref().map(|tree| {
            let children: Vec<_> = tree.children.iter().map(shape).collect();
            format!("{:?} {:?} {:?} {children:?}", tree.strategy, tree.intensity, tree.period)
        });
        let child = &branch.child;
        format!("{} {:?} {:?} {:?} {below:?}", child.name, child.kind, child.restart, child.state)
    }
    let mut shapes = Vec::new();
    for runtime in [&from_file, &from_code] {
        let tree = runtime.tree().await.unwrap();
        assert_eq!((tree.strategy, tree.children.len()), (Strategy::OneForOne, 1));
        assert_eq!(tree.children[0].child.state, ChildPhase::Up);
        shapes.push(shape(&tree.children[0]));
    }
    assert_eq!(shapes[0], shapes[1]);
}

#[tokio::test]
async fn the_tree_in_the_guide_is_one() {
    let guide = include_str!("../docs/guide/resilience.md");
    let tree = guide.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let job = plan(&text("", tree)).spawn(&runtime, None).await.unwrap();
    assert_eq!(rank(&job).await.entries.len(), 34);
    let service = runtime.tree().await.unwrap().children.remove(0).supervisor.unwrap();
    assert_eq!((service.name.as_str(), service.children.len()), ("service", 2));
}

/// The file and the runtime have the rule each for itself: a name that only one of them takes would be refused too late, or for nothing.
#[tokio::test]
async fn a_file_takes_the_names_of_supervisors_that_the_runtime_takes() {
    use rustkernel::actors::Supervisor;

    let long = "x".repeat(128);
    let longer = "x".repeat(129);
    let names =
        ["a", "A.b-c_9", "0", "Root", &long, &longer, "root", "", "a b", "a/b", "-a", ".a", "_a", "\u{e9}"];
    let mut taken = 0;
    for name in names {
        let tree = format!("[supervisor.\"{name}\"]\nchildren = [\"graph/load\"]\n");
        let in_file =
            JobConfig::parse("job.toml", &text("", &tree)).map(drop).map_err(|error| error.to_string());
        let runtime = Runtime::builder().build().await.unwrap();
        match (in_file, runtime.supervise(Supervisor::new(name)).await) {
            (Ok(()), Ok(_)) => taken += 1,
            (Err(told), Err(SpawnError::Name { rule, .. })) => assert!(told.contains(rule), "{rule}: {told}"),
            (Err(_), Err(SpawnError::SupervisorTaken(own))) => assert_eq!(own, "root"),
            (in_file, at_run_time) => panic!("`{name}`: {in_file:?}, but {at_run_time:?}"),
        }
    }
    assert_eq!(taken, 5);
}

#[tokio::test]
async fn the_end_of_a_significant_stage_ends_its_supervisor() {
    use rustkernel::actors::Fact;

    let tree = "[supervisor.ranking]\nauto_shutdown = \"any_significant\"\nrestart = \"transient\"\n\
                children = [\"graph/pagerank\", \"graph/top_k\"]\n";
    let runtime = Runtime::builder().build().await.unwrap();
    let rules = "restart = \"temporary\"\nsignificant = true";
    let job = plan(&text(rules, tree)).spawn(&runtime, None).await.unwrap();
    assert_eq!(rank(&job).await.entries.len(), 34);
    let mut events = runtime.events();
    assert!(runtime.kill("graph/pagerank").await);
    events.find("graph/top_k", |fact| *fact == Fact::Stopped).await.unwrap();
}

#[tokio::test]
async fn a_brutal_stage_is_killed_where_the_others_are_asked() {
    let runtime = Runtime::builder().build().await.unwrap();
    let _job = plan(&text("shutdown = \"brutal\"", "")).spawn(&runtime, None).await.unwrap();
    let report = runtime.shutdown(Duration::from_secs(60)).await.unwrap();
    assert_eq!((report.stopped, report.killed), (2, 1));
}

/// One panic in the group: its sibling begins a new life too, the stage before it does not.
#[tokio::test]
async fn a_group_in_a_file_restarts_together() {
    let tree = "[supervisor.ranking]\nstrategy = \"one_for_all\"\n\
                children = [\"graph/pagerank\", \"graph/top_k\"]\n";
    let runtime = Runtime::builder().build().await.unwrap();
    let rules = "recovery = { restart_delay = \"0s\" }";
    let job = plan(&text(rules, tree)).spawn(&runtime, None).await.unwrap();
    let mut events = runtime.events();
    assert!(runtime.kill("graph/pagerank").await);
    for kernel in ["graph/pagerank", "graph/top_k"] {
        let again = |fact: &rustkernel::actors::Fact| {
            matches!(fact, rustkernel::actors::Fact::Started { incarnation: 2, .. })
        };
        events.find(kernel, again).await.unwrap();
    }
    let lives: Vec<_> = runtime.status().await.iter().map(|kernel| kernel.incarnation).collect();
    assert_eq!(lives, [1, 2, 2]);
    assert_eq!(rank(&job).await.entries.len(), 34);
}

#[tokio::test]
async fn a_stage_in_a_file_names_its_replica_its_degraded_path_and_its_backup() {
    let rules = "checkpointed = true\nreplicas = 1\ndegraded = { tolerance = 1e-3 }\nbackup = \"cpu:1\"\n\
                 recovery = { strategy = \"use_replica\", restart_delay = \"0s\", max_restarts = 1, \
                 escalation = \"failover\" }\nescalations = [\"degrade\"]";
    let runtime = Runtime::builder().build().await.unwrap();
    let job = plan(&text(rules, "")).spawn(&runtime, None).await.unwrap();
    let first = rank(&job).await;
    let mut events = runtime.events();
    assert!(runtime.kill("graph/pagerank").await);
    let took_over =
        |fact: &rustkernel::actors::Fact| matches!(fact, rustkernel::actors::Fact::TookOver { .. });
    events.find("graph/pagerank", took_over).await.unwrap();
    assert_eq!(rank(&job).await, first);
    assert!(runtime.kill("graph/pagerank").await);
    let moved = |fact: &rustkernel::actors::Fact| matches!(fact, rustkernel::actors::Fact::FailedOver { .. });
    events.find("graph/pagerank", moved).await.unwrap();
    assert_eq!(rank(&job).await, first);
    let status = runtime.status().await.remove(1);
    assert_eq!(status.device.to_string(), "cpu:1");
}
