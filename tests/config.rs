//! What a job file may hold, and how a bad one is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustkernel::config::{ConfigError, JobConfig};
use rustkernel::core::supervision::{ChildRules, Restart, Shutdown};
use rustkernel::job::Plan;

const JOB: &str = r#"[job]
name = "test"
deadline = "10s"

[[stage]]
kernel = "graph/load"

[[stage]]
kernel = "graph/pagerank"
settings = { damping = 0.5, tolerance = 1e-6 }
repeat = { until = "converged", limit = 200 }

[[stage]]
kernel = "graph/top_k"
settings = { k = 3 }
"#;

fn plan(text: &str) -> Result<Plan, ConfigError> {
    let (config, document) = JobConfig::parse("job.toml", text)?;
    Plan::new(config, &document)
}

/// What is said of [`JOB`] with `from` replaced by `to`.
fn refused(from: &str, to: &str) -> String {
    assert!(JOB.contains(from), "{from}");
    plan(&JOB.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn the_shipped_job_is_valid_and_states_its_budgets() {
    let (config, document) = JobConfig::shipped().unwrap();
    assert_eq!(config.job.retry_budget, 1000);
    for stage in &config.stages {
        // 45 of 100 attempts fail under the documented faults, 25 of 100 take an incarnation with them.
        assert!(0.45_f64.powi(stage.retry.max_attempts.cast_signed()) < 1e-9, "{}", stage.kernel);
        assert!(0.25_f64.powi(stage.conviction_limit.cast_signed()) < 1e-7, "{}", stage.kernel);
        assert!(stage.idempotent && stage.recovery.restart_delay.is_zero(), "{}", stage.kernel);
        assert!(stage.breaker.failure_threshold > stage.retry.max_attempts, "{}", stage.kernel);
    }
    Plan::new(config, &document).unwrap();
}

#[test]
fn a_whole_job_reads() {
    let plan = plan(JOB).unwrap();
    let stages: Vec<&str> = plan.config().stages.iter().map(|stage| stage.id()).collect();
    assert_eq!(stages, ["graph/load", "graph/pagerank", "graph/top_k"]);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let said = refused("deadline =", "deadlin =");
    assert!(
        said.starts_with("job.toml:3:1: `job.deadlin`: unknown key `deadlin`; did you mean `deadline`?"),
        "{said}"
    );
    let said = refused("tolerance", "tolerence");
    assert!(said.starts_with("job.toml:10:29: `stage[1].settings.tolerence`: unknown key"), "{said}");
    assert!(said.contains("did you mean `tolerance`?"), "{said}");
    let said = refused("[job]", "[jobs]");
    assert!(said.contains("unknown key `jobs`; did you mean `job`?"), "{said}");
}

#[test]
fn an_unknown_kernel_is_refused_with_the_nearest_known_one() {
    let said = refused("graph/pagerank", "graph/pagernak");
    assert!(
        said.starts_with("job.toml:9:1: `stage[1].kernel`: there is no kernel `graph/pagernak`"),
        "{said}"
    );
    assert!(said.contains("did you mean `graph/pagerank`?"), "{said}");
    let said = refused("graph/pagerank", "vector/add");
    assert!(said.contains("known are `graph/load`, `graph/pagerank`, `graph/top_k`"), "{said}");
}

#[test]
fn stages_that_do_not_fit_are_refused_by_both_names_and_schemas() {
    let without = |kernel: &str| {
        let (before, after) = JOB.split_once(&format!("[[stage]]\nkernel = \"{kernel}\"")).unwrap();
        let rest = after.find("[[stage]]").map_or("", |at| &after[at..]);
        plan(&format!("{before}{rest}")).unwrap_err().to_string()
    };
    let said = without("graph/load");
    let expected =
        "the job's input gives `graph/edge_list`, but stage 1 (`graph/pagerank`) takes `graph/ranks`";
    assert!(said.contains(expected), "{said}");
    let said = without("graph/top_k");
    let expected =
        "stage 2 (`graph/pagerank`) gives `graph/ranks`, but the job's output takes `graph/ranking`";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_name_that_is_used_twice_is_refused_and_a_name_of_its_own_helps() {
    let twice = JOB.replace(
        "[[stage]]\nkernel = \"graph/top_k\"",
        "[[stage]]\nkernel = \"graph/pagerank\"\n\n[[stage]]\nkernel = \"graph/top_k\"",
    );
    let said = plan(&twice).unwrap_err().to_string();
    assert!(
        said.starts_with("job.toml:14:1: `stage[2].kernel`: another stage is called `graph/pagerank`"),
        "{said}"
    );
    let named = twice.replacen(
        "\n\n[[stage]]\nkernel = \"graph/top_k\"",
        "\nname = \"graph/again\"\n\n[[stage]]\nkernel = \"graph/top_k\"",
        1,
    );
    plan(&named).unwrap();
    let bad = named.replace("graph/again", "again");
    assert!(plan(&bad).unwrap_err().to_string().contains("a kernel id is `family/name`"));
}

#[test]
fn lines_are_the_files_own_whatever_variables_add() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("overlaid.toml");
    let text = include_str!("../data/pagerank.toml");
    let told = |file: &str, set: &[(&str, &str)]| {
        std::fs::write(&path, file).unwrap();
        config_command(&["check", path.to_str().unwrap()], set).1
    };
    let set = [("RUSTKERNEL__JOB__DEADLINE", "20s"), ("RUSTKERNEL__STAGE__0__IDEMPOTENT", "true")];
    for (from, to) in
        [("damping = 0.85", "damping = 1"), ("damping = 0.85", "damping = \"x\""), ("damping =", "dampin =")]
    {
        let wrong = text.replace(from, to);
        assert_ne!(wrong, text);
        let place =
            |said: String| said.split("`stage").next().unwrap().rsplit('/').next().unwrap().to_owned();
        let (alone, overlaid) = (place(told(&wrong, &[])), place(told(&wrong, &set)));
        assert_eq!(alone.split(':').nth(1), overlaid.split(':').nth(1), "{alone} {overlaid}");
        assert!(alone.split(':').nth(1).is_some_and(|line| line.parse::<u32>().is_ok()), "{alone}");
    }
    let said = told(text, &[("RUSTKERNEL__DOMAIN__A__MAX_DEATHS", "3")]);
    assert!(said.starts_with("error: RUSTKERNEL__DOMAIN__A__MAX_DEATHS: `domain.a`: "), "{said}");
    // The last of two that set the same has set it.
    let twice = [
        ("RUSTKERNEL__STAGE__1__RETRY", "{ max_attempts = 3 }"),
        ("RUSTKERNEL__STAGE__1__RETRY__MAX_ATTEMPTS", "0"),
    ];
    let said = told(text, &twice);
    assert!(said.starts_with("error: RUSTKERNEL__STAGE__1__RETRY__MAX_ATTEMPTS: "), "{said}");
}

#[test]
fn zero_nan_and_nonsense_settings_are_refused_by_line_and_field() {
    let cases = [
        (
            "damping = 0.5",
            "damping = nan",
            ":10:14: `stage[1].settings.damping`: damping: NaN is not between",
        ),
        ("damping = 0.5", "damping = 1", ":10:14: `stage[1].settings.damping`: "),
        ("tolerance = 1e-6", "tolerance = 0.0", "`stage[1].settings.tolerance`: tolerance: 0 is not"),
        ("tolerance = 1e-6", "tolerance = inf", "`stage[1].settings.tolerance`: "),
        ("k = 3", "k = 0", ":15:14: `stage[2].settings.k`: k: a ranking has at least 1 entry"),
        ("k = 3", "k = -1", "`stage[2].settings.k`: invalid value: integer `-1`"),
        ("k = 3", "k = \"three\"", "`stage[2].settings.k`: invalid type"),
        ("deadline = \"10s\"", "deadline = \"0s\"", ":3:1: `job.deadline`: must be longer than zero"),
        ("deadline = \"10s\"", "deadline = 10", ":3:12: `job.deadline`: invalid type"),
        ("deadline = \"10s\"", "deadline = \"soon\"", ":3:12: `job.deadline`: `soon` is no duration"),
        ("limit = 200", "limit = 0", "`stage[1].repeat.limit`: must be at least 1"),
        ("converged", "bored", "`stage[1].repeat.until`: unknown variant `bored`"),
        ("settings = { k = 3 }", "hang_limit = \"0s\"", "`stage[2].hang_limit`: must be longer than zero"),
        ("settings = { k = 3 }", "conviction_limit = 0", "`stage[2].conviction_limit`: must be at least 1"),
        ("settings = { k = 3 }", "restart_window = \"0s\"", "`stage[2].restart_window`: must be"),
        ("settings = { k = 3 }", "queue = { requests = 0 }", "`stage[2].queue.requests`: must be at least 1"),
        ("settings = { k = 3 }", "queue = { bytes = 0 }", "`stage[2].queue.bytes`: must be at least 1"),
        (
            "settings = { k = 3 }",
            "retry = { max_attempts = 0 }",
            ":15:11: `stage[2].retry.max_attempts`: must be at least 1",
        ),
        (
            "settings = { k = 3 }",
            "breaker = { window = { failure_ratio = nan } }",
            ":15:24: `stage[2].breaker.window.failure_ratio`: must be above 0 and at most 1",
        ),
        (
            "settings = { k = 3 }",
            "recovery = { strategy = \"failover\" }",
            "`stage[2].recovery.strategy`: is Failover, but the kernel has no backup device",
        ),
        (
            "settings = { k = 3 }",
            "repeat = { until = \"converged\", limit = 2 }",
            "`stage[2].repeat`: `graph/top_k` cannot be repeated",
        ),
    ];
    for (from, to, expected) in cases {
        let said = refused(from, to);
        assert!(said.contains(expected), "{to}: {said}");
    }
}

#[test]
fn a_kernel_that_blocks_cannot_be_placed_inline() {
    let said = refused("kernel = \"graph/load\"", "kernel = \"graph/load\"\nplacement = \"inline\"");
    let expected = "job.toml:7:1: `stage[0].placement`: `graph/load` reads files and blocks its thread";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn a_job_of_too_many_stages_is_refused() {
    let stages: String =
        (0..65).map(|n| format!("[[stage]]\nkernel = \"a/b\"\nname = \"a/{n}\"\n")).collect();
    let said = plan(&stages).unwrap_err().to_string();
    assert!(said.contains("a job has at most 64 stages"), "{said}");
}

#[test]
fn what_is_no_job_is_refused_by_line() {
    assert!(
        refused("name = \"test\"", "name =").starts_with("job.toml:2:"),
        "{}",
        refused("name = \"test\"", "name =")
    );
    let said = plan("").unwrap_err().to_string();
    assert!(said.contains("a job needs at least one [[stage]]"), "{said}");
    let said = plan("[[stage]]\n").unwrap_err().to_string();
    assert!(said.starts_with("job.toml:1:") && said.contains("missing field `kernel`"), "{said}");
    let said = plan("[[stage]]\nkernel = 7\n").unwrap_err().to_string();
    assert!(said.starts_with("job.toml:2:10: `stage[0].kernel`: invalid type"), "{said}");
}

#[test]
fn the_command_ends_with_78_and_names_the_file() {
    let write = |name: &str, content: &[u8]| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let files = [
        write("config-binary.toml", &[0xff, 0xfe, 0]),
        write("config-syntax.toml", b"[job\n"),
        write("config-unknown.toml", JOB.replace("deadline", "dedline").as_bytes()),
        write("config-long.toml", &vec![b'#'; (1 << 20) + 1]),
        PathBuf::from("no/such/job.toml"),
    ];
    for path in files {
        let output = Command::new(env!("CARGO_BIN_EXE_rustkernel")).arg("run").arg(&path).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.starts_with(&format!("error: {}:", path.display())), "{said}");
        assert!(output.stdout.is_empty() && !said.contains("panicked"), "{said}");
    }
}

#[test]
fn only_a_kernel_that_keeps_state_can_be_checkpointed() {
    let error = refused("kernel = \"graph/top_k\"", "kernel = \"graph/top_k\"\ncheckpointed = true");
    assert!(error.contains("cannot be checkpointed"), "{error}");
}

#[test]
fn a_limit_of_zero_is_refused_by_its_field() {
    let error = refused("kernel = \"graph/load\"", "kernel = \"graph/load\"\nsettings = { max_edges = 0 }");
    assert!(error.contains("max_edges") && error.contains("at least 1"), "{error}");
}

/// `JOB` with a tree; the error of what is wrong with it.
fn refused_tree(tree: &str) -> String {
    plan(&format!("{JOB}\n{tree}")).unwrap_err().to_string()
}

#[test]
fn a_tree_that_is_none_is_refused_by_line_and_field() {
    let lines = JOB.matches('\n').count() + 1;
    let at = |line: usize, column: usize| format!("job.toml:{}:{column}: ", lines + line);
    let cases = [
        ("[supervisor.a]\nchildren = [\"graph/lod\"]", at(2, 13), "did you mean `graph/load`?"),
        ("[supervisor.a]\nchildren = []", at(2, 1), "names at least one"),
        ("[supervisor.a]\nstrategy = \"all_for_one\"", at(2, 12), "unknown variant `all_for_one`"),
        (
            "[supervisor.a]\nchildren = [\"graph/load\"]\nperiod = \"0s\"",
            at(3, 1),
            "must be longer than zero",
        ),
        ("[supervisor.a]\nchildrn = [\"graph/load\"]", at(2, 1), "did you mean `children`?"),
        (
            "[supervisor.a]\nchildren = [\"graph/load\"]\n[supervisor.b]\nchildren = [\"graph/load\"]",
            at(4, 13),
            "has a supervisor already",
        ),
        (
            "[supervisor.a]\nchildren = [\"b\"]\n[supervisor.b]\nchildren = [\"a\"]",
            at(1, 13),
            "is among its own descendants",
        ),
        (
            "[supervisor.a]\nstrategy = \"dynamic\"\nchildren = [\"graph/load\"]",
            at(2, 1),
            "cannot be dynamic",
        ),
        (
            "[supervisor.a]\nchildren = [\"b\"]\n[supervisor.b]\nsignificant = true\n\
             children = [\"graph/load\"]",
            at(4, 1),
            "permanent",
        ),
    ];
    for (tree, place, rule) in cases {
        let said = refused_tree(tree);
        assert!(said.starts_with(&place) && said.contains(rule), "{tree}\n{said}\nexpected {place}");
    }
}

/// It was told only when the tree was started, with neither file nor line, while the stages before it ran.
#[test]
fn a_supervisors_name_is_refused_by_line_and_field() {
    let line = JOB.matches('\n').count() + 2;
    let long = "x".repeat(129);
    let cases = [
        ("root", "root", "is the runtime's own supervisor"),
        ("\"a b\"", "\"a b\"", "is no name: it holds only ASCII letters, digits, `_`, `-` and `.`"),
        ("\"\"", "\"\"", "is no name: it starts with an ASCII letter or digit"),
        ("'a\"b'", "\"a\\\"b\"", "is no name: it holds only"),
        (&long, &long, "is no name: it has at most 128 bytes"),
    ];
    for (key, field, rule) in cases {
        let said = refused_tree(&format!("[supervisor.{key}]\nchildren = [\"graph/load\"]"));
        let expected = format!("job.toml:{line}:13: `supervisor.{field}`: {rule}");
        assert!(said.starts_with(&expected), "{said}\nexpected {expected}");
    }
}

#[test]
fn what_a_stage_is_to_its_supervisor_reads_and_is_refused_by_line_and_field() {
    let job = |rules: &str, tree: &str| {
        let stage = "kernel = \"graph/top_k\"";
        assert!(JOB.contains(stage));
        plan(&format!("{}\n{tree}\n", JOB.replace(stage, &format!("{stage}\n{rules}"))))
    };
    let tree = |rules: &str| format!("[supervisor.a]\n{rules}\nchildren = [\"graph/top_k\"]");
    let watches = tree("auto_shutdown = \"any_significant\"");
    let (permanent, unwatched) =
        ("cannot be a permanent child", "needs a supervisor whose `auto_shutdown` is not `never`");
    let cases = [
        ("significant = true", watches.as_str(), "15:1: `stage[2].significant`: ", permanent),
        (
            "restart = \"temporary\"\nsignificant = true",
            &tree(""),
            "16:1: `stage[2].significant`: ",
            unwatched,
        ),
        ("restart = \"transient\"\nsignificant = true", "", "16:1: `stage[2].significant`: ", unwatched),
        ("restart = \"never\"", "", "15:11: `stage[2].restart`: ", "unknown variant `never`"),
        ("shutdown = \"gentle\"", "", "15:12: `stage[2].shutdown`: ", "unknown variant `gentle`"),
        ("shutdown = { within = \"soon\" }", "", "15:12: `stage[2].shutdown`: ", "expected number"),
    ];
    for (rules, tree, place, rule) in cases {
        let said = job(rules, tree).unwrap_err().to_string();
        assert!(said.starts_with(&format!("job.toml:{place}")) && said.contains(rule), "{rules}: {said}");
    }
    let said = refused_tree(
        "[supervisor.a]\nrestart = \"transient\"\nsignificant = true\nchildren = [\"graph/load\"]",
    );
    assert!(said.contains("`supervisor.a.significant`: needs a supervisor"), "{said}");

    let rules = |text: &str| job(text, &watches).unwrap().config().stages[2].rules();
    assert_eq!(rules(""), ChildRules::default());
    let significant = "restart = \"transient\"\nsignificant = true\nshutdown = { within = \"9s\" }";
    let shutdown = Shutdown::Within(Duration::from_secs(9));
    assert_eq!(rules(significant), ChildRules { restart: Restart::Transient, shutdown, significant: true });
    assert_eq!(rules("shutdown = \"brutal\"").shutdown, Shutdown::Brutal);
    assert_eq!(rules("shutdown = \"infinity\"").shutdown, Shutdown::Infinity);
}

#[test]
fn a_backup_on_the_kernels_own_device_is_refused() {
    let error = refused("kernel = \"graph/load\"", "kernel = \"graph/load\"\nbackup = \"cpu:0\"");
    assert!(error.contains("`stage[0].backup`") && error.contains("another device"), "{error}");
    let error = refused("kernel = \"graph/load\"", "kernel = \"graph/load\"\ndevice = \"gpu\"");
    assert!(error.contains("`gpu` is no device"), "{error}");
}

#[test]
fn a_fault_domain_reads_and_is_refused_by_line_and_field() {
    let with = |stage: &str, domains: &str| JOB.replacen("kernel = \"graph/top_k\"", stage, 1) + domains;
    let placed = "kernel = \"graph/top_k\"\nplacement = \"process\"\ndomain = \"ranks\"";
    let text = with(placed, "[domain.ranks]\nkill_after = \"20ms\"\nspare = false\n");
    let plan = plan(&text).unwrap();
    let section = &plan.config().domains["ranks"];
    assert_eq!(
        (section.kill_after, section.spare, section.max_deaths),
        (Duration::from_millis(20), false, 5)
    );
    let limits =
        ["cpu:0", "cuda:0"].map(|device| section.config(device.parse().unwrap()).start_limit.as_secs());
    assert_eq!(limits, [10, 60], "a context takes its time");
    assert_eq!(plan.config().stages[2].domain(), "ranks");
    assert_eq!(plan.config().stages[0].domain(), "cpu:0", "its device");

    let last = JOB.lines().count() + 2;
    let cases = [
        (
            placed,
            "[domain.ranks]\nkill_after = \"0s\"",
            last + 2,
            "`domain.ranks.kill_after`: must be longer than zero",
        ),
        (placed, "[domain.ranks]\nsilence = \"1ms\"", last + 2, "must not be shorter than `heartbeat`"),
        (placed, "[domain.ranks]\nmax_death = 1", last + 2, "did you mean `max_deaths`?"),
        (placed, "[domain.rank]", last + 1, "is the domain of no stage"),
        (
            "kernel = \"graph/top_k\"\ndomain = \"ranks\"",
            "",
            15,
            "is for stages whose placement is \"process\"",
        ),
    ];
    for (stage, domains, line, expected) in cases {
        let error = plan_error(&with(stage, domains));
        assert!(error.contains(expected), "{error}");
        assert!(error.starts_with(&format!("job.toml:{line}:")), "{line}: {error}");
    }
}

fn plan_error(text: &str) -> String {
    plan(text).unwrap_err().to_string()
}

/// It was taken, and run on a processor.
#[test]
fn a_device_that_no_built_in_kernel_runs_on_is_refused_by_line_and_field() {
    for field in ["device", "backup"] {
        let placed = format!("kernel = \"graph/top_k\"\n{field} = \"cuda:0\"");
        let error = refused("kernel = \"graph/top_k\"", &placed);
        let expected = format!("`stage[2].{field}`: takes processors");
        assert!(error.starts_with("job.toml:15:") && error.contains(&expected), "{error}");
    }
}

#[test]
fn the_job_file_of_the_guide_to_worker_processes_is_valid() {
    let guide = include_str!("../docs/guide/worker-processes.md");
    let text = guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let plan = plan(text).unwrap();
    assert_eq!(plan.config().stages[1].domain(), "ranks");
    assert_eq!(plan.config().domains["ranks"].max_deaths, 20);
}

fn config_command(args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rustkernel"));
    let output = command.arg("config").args(args).envs(environment.iter().copied()).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn every_setting_is_shown_with_where_it_is_from() {
    let set = [("RUSTKERNEL__STAGE__1__PLACEMENT", "process"), ("RUSTKERNEL__JOB__DEADLINE", "20s")];
    let (code, shown) = config_command(&["show", "--origin"], &set);
    assert_eq!(code, Some(0), "{shown}");
    let origin = |setting: &str| {
        let line = shown.lines().find(|line| line.starts_with(&format!("{setting} ")));
        line.and_then(|line| line.split_once("  # ")).unwrap_or_else(|| panic!("{setting} in\n{shown}")).1
    };
    assert_eq!(origin("stage[1].placement = \"process\""), "RUSTKERNEL__STAGE__1__PLACEMENT");
    assert_eq!(origin("job.deadline = \"20s\""), "RUSTKERNEL__JOB__DEADLINE");
    assert_eq!(origin("stage[2].placement = \"thread\""), "default");
    // A variable that adds a field moved every line below it.
    assert_eq!(origin("stage[1].checkpointed = true"), "the shipped pipeline:38");

    // What is shown is a job file, and shows the same.
    let (_, text) = config_command(&["show"], &set);
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("shown.toml");
    std::fs::write(&file, &text).unwrap();
    assert_eq!(config_command(&["show", file.to_str().unwrap()], &[]), (Some(0), text));
}

#[test]
fn a_variable_that_is_wrong_is_an_error_that_names_it() {
    let cases = [
        (
            "RUSTKERNEL__STAGE__1__PLACEMNT",
            "x",
            "`stage[1].placemnt`: unknown key `placemnt`; did you mean `placement`?",
        ),
        (
            "RUSTKERNEL__STAGE__1__SETTINGS__DAMPING",
            "3",
            "`stage[1].settings.damping`: damping: 3 is not between 0 and 1",
        ),
        ("RUSTKERNEL__JOB__DEADLINE", "soon", "`job.deadline`: `soon` is no duration"),
        ("RUSTKERNEL__STAGE__9__KERNEL", "graph/load", "there is no `stage[9]`"),
        ("RUSTKERNEL__JOB", "x", ""),
    ];
    for (variable, value, expected) in cases {
        let (code, said) = config_command(&["check"], &[(variable, value)]);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.starts_with(&format!("error: {variable}: ")) && said.contains(expected), "{said}");
    }
    let (code, said) = config_command(&["check"], &[]);
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "debian-pagerank: 3 stages: graph/load, graph/pagerank, graph/top_k\n")
    );
}
