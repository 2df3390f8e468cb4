//! House rules that the compiler does not check.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_WALL: usize = 800;
const FUNCTION_WALL: usize = 70;

/// A text file of the repository: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// The lines that are code, with their numbers: no comments, and no unit tests at the file's end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or("");
        numbered(code).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Every tracked or new text file that git does not ignore. Without a repository, as in a packed crate, there is nothing to
/// check.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listing = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let Ok(listed) = Command::new("git").args(listing).current_dir(root).output() else { return Vec::new() };
    let names = String::from_utf8(listed.stdout).unwrap();
    let read = |name: &str| {
        let text = std::fs::read_to_string(root.join(PathBuf::from(name))).ok()?;
        Some(File { path: name.to_owned(), text })
    };
    names.lines().filter_map(read).collect()
}

fn rust_files() -> Vec<File> {
    files().into_iter().filter(File::is_rust).collect()
}

#[track_caller]
fn assert_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn no_file_is_longer_than_the_wall() {
    let long = |file: &File| file.text.lines().count() > FILE_WALL;
    let found: Vec<String> = rust_files().into_iter().filter(long).map(|file| file.path).collect();
    assert_none("longer than 800 lines", &found);
}

#[test]
fn no_function_is_longer_than_the_wall() {
    let mut found = Vec::new();
    for file in rust_files() {
        let mut open: Option<(usize, &str, String)> = None;
        for (number, line) in numbered(&file.text) {
            let indent = &line[..line.len() - line.trim_start().len()];
            match &open {
                Some((start, _, closing)) if line == closing => {
                    let lines = number - start + 1;
                    if lines > FUNCTION_WALL {
                        found.push(format!("{}:{start}: {lines} lines", file.path));
                    }
                    open = None;
                }
                None if is_function(line) && !line.ends_with(';') && !line.ends_with('}') => {
                    open = Some((number, line, format!("{indent}}}")));
                }
                Some(_) | None => {}
            }
        }
    }
    assert_none("longer than 70 lines", &found);
}

fn is_function(line: &str) -> bool {
    let is_head = |word: &&str| {
        let visibility = word.starts_with("pub") || word.ends_with(')') && !word.contains('(');
        visibility || ["const", "async", "unsafe", "extern"].contains(word)
    };
    line.split_whitespace().find(|word| !is_head(word)) == Some("fn")
}

#[test]
fn a_module_is_never_called_mod_rs() {
    let found: Vec<String> =
        rust_files().into_iter().map(|file| file.path).filter(|path| path.ends_with("mod.rs")).collect();
    assert_none("foo.rs beside foo/, never foo/mod.rs", &found);
}

#[test]
fn the_layers_import_in_one_direction() {
    let forbidden = [
        ("core/", &["ractor", "cudarc", "axum", "clap", "rustkernel_actors", "reqwest", "hyper"][..]),
        ("actors/src", &["cudarc", "axum", "clap", "hyper"][..]),
        ("src/", &["ractor"][..]),
    ];
    let mut found = Vec::new();
    for file in rust_files() {
        let folders = forbidden.iter().filter(|(folder, _)| file.is_in(folder));
        for name in folders.flat_map(|(_, names)| *names) {
            let uses =
                |line: &str| line.contains(&format!("{name}::")) && !line.contains(&format!("_{name}::"));
            let lines = file.code().filter(|(_, line)| uses(line));
            found.extend(lines.map(|(number, line)| format!("{}:{number}: {line}", file.path)));
        }
    }
    assert_none("an import against the direction of the layers", &found);
}

#[test]
fn ractor_is_in_no_public_signature() {
    let mut found = Vec::new();
    for file in rust_files().iter().filter(|file| file.is_in("actors/src")) {
        for (number, line) in file.code() {
            let line = line.trim_start();
            let public = line.starts_with("pub ");
            let types = ["ractor", "ActorRef<", "ActorCell", "SpawnErr>", "RpcReplyPort"];
            if public && types.iter().any(|name| line.contains(name)) {
                found.push(format!("{}:{number}: {line}", file.path));
            }
        }
    }
    assert_none("ractor's types stay inside", &found);
}

#[test]
fn sources_and_documents_are_ascii() {
    let mut found = Vec::new();
    let checked = |file: &&File| file.is_rust() || file.path.ends_with(".toml") || file.path.ends_with(".md");
    for file in files().iter().filter(checked) {
        let lines = numbered(&file.text).filter(|(_, line)| !line.is_ascii());
        found.extend(lines.map(|(number, line)| format!("{}:{number}: {line}", file.path)));
    }
    assert_none("not ASCII", &found);
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    // In two parts, so that this file does not name them either.
    let roots =
        ["/wo\trk/", "/ho\tme/", "/ro\tot/", "/Us\ters/", "/tm\tp/"].map(|root| root.replace('\t', ""));
    let mut found = Vec::new();
    for file in files() {
        for (number, line) in numbered(&file.text) {
            // Part of a longer path or of an address is fine.
            let names = |root: &String| {
                line.match_indices(root.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|before| !before.is_alphanumeric() && !"._-}/".contains(before))
                })
            };
            if roots.iter().any(names) {
                found.push(format!("{}:{number}: {line}", file.path));
            }
        }
    }
    assert_none("a path that exists on one machine only", &found);
}

/// A field that is only defined, defaulted and validated decides nothing.
#[test]
fn every_setting_has_a_reader_that_is_not_its_own_definition() {
    let files = rust_files();
    let settings = [
        ("core/src/resilience/breaker/config.rs", &["CircuitBreakerConfig", "RateWindow"][..]),
        ("core/src/resilience/retry/plan.rs", &["RetryConfig"][..]),
        ("core/src/resilience/timeout.rs", &["TimeoutConfig"][..]),
        ("core/src/resilience/health/config.rs", &["HealthProbeConfig", "HealthCheckConfig"][..]),
        ("core/src/resilience/recovery.rs", &["RecoveryPolicy"][..]),
        ("core/src/resilience/config.rs", &["ResilienceConfig"][..]),
        ("core/src/supervision/config.rs", &["SupervisorConfig"][..]),
        ("core/src/supervision/child.rs", &["ChildRules"][..]),
        ("src/config.rs", &["JobSettings", "StageConfig", "QueueConfig", "RepeatConfig"][..]),
        ("src/config/supervisor.rs", &["SupervisorSection"][..]),
        ("src/config/domain.rs", &["DomainSection"][..]),
        ("src/worker/config.rs", &["DomainConfig"][..]),
        ("src/webhook.rs", &["WebhookConfig"][..]),
        ("src/kernels/graph/edge_list.rs", &["EdgeListLimits"][..]),
        ("src/kernels/graph/pagerank.rs", &["PageRankConfig"][..]),
        ("src/kernels/graph/top_k.rs", &["TopKConfig"][..]),
    ];
    let mut found = Vec::new();
    for (path, types) in settings {
        let definition = files.iter().find(|file| file.path == path).expect("the file is there");
        for name in types {
            let fields = fields_of(&definition.text, name);
            assert!(!fields.is_empty(), "{name} has fields");
            for field in fields {
                let elsewhere = files
                    .iter()
                    .filter(|file| {
                        file.path != path
                            && ["core/src", "actors/src", "src"].iter().any(|place| file.is_in(place))
                    })
                    .any(|file| reads(file, &field));
                if !elsewhere && !reads_beside_its_checks(definition, &field) {
                    found.push(format!("{name}.{field}"));
                }
            }
        }
    }
    assert_none("a setting that nobody reads", &found);
}

fn fields_of(text: &str, name: &str) -> Vec<String> {
    let Some((_, body)) = text.split_once(&format!("pub struct {name} {{\n")) else { return Vec::new() };
    let body = body.split("\n}").next().unwrap_or("");
    let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    fields.map(|(field, _)| field.to_owned()).collect()
}

fn reads(file: &File, field: &str) -> bool {
    let read = format!(".{field}");
    file.code().any(|(_, line)| {
        line.match_indices(&read).any(|(at, _)| {
            let after = line[at + read.len()..].chars().next();
            after.is_none_or(|after| !after.is_alphanumeric() && after != '_' && after != '(')
        })
    })
}

/// A reader in the field's own file, other than the lines that check it: they say `rule(`.
fn reads_beside_its_checks(definition: &File, field: &str) -> bool {
    let validates = definition.text.split("pub fn validate").nth(1).unwrap_or("");
    let checks = validates.split("\n    }").next().unwrap_or("").lines().count();
    let start = definition.text.split("pub fn validate").next().unwrap_or("").lines().count();
    let is_check = |number: usize| (start..start + checks).contains(&number);
    let lines = definition.code().filter(|(number, _)| !is_check(*number));
    let rest: String = lines.map(|(_, line)| format!("{line}\n")).collect();
    reads(&File { path: String::new(), text: rest }, field)
}

#[test]
fn bincode_is_named_in_the_codec_only() {
    let mut found = Vec::new();
    for file in
        rust_files().iter().filter(|file| file.path != "core/src/codec.rs" && !file.is_in("tests/tidy"))
    {
        let lines = file.code().filter(|(_, line)| line.contains("bincode"));
        found.extend(lines.map(|(number, line)| format!("{}:{number}: {line}", file.path)));
    }
    assert_none("core/src/codec.rs alone knows the format", &found);
}

#[test]
fn no_test_sleeps() {
    let mut found = Vec::new();
    for file in rust_files().iter().filter(|file| !file.is_in("tests/tidy")) {
        let is_test = file.path.contains("tests/") || file.path.contains("/tests.rs");
        let inline = file.text.split("\n#[cfg(test)]\nmod ").nth(1);
        let tests = if is_test { Some(file.text.as_str()) } else { inline };
        let lines = numbered(tests.unwrap_or("")).filter(|(_, line)| line.contains("sleep("));
        found.extend(lines.map(|(_, line)| format!("{}: {}", file.path, line.trim())));
    }
    assert_none("a test waits for events, not for time", &found);
}

#[test]
fn the_rules_see_the_files() {
    let files = rust_files();
    if Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        assert!(files.len() > 50);
    }
    assert!(is_function("    pub(crate) async fn x<T>("));
    assert!(is_function("fn x() {"));
    assert!(!is_function("    let fn_name = 1;"));
    assert_eq!(fields_of("pub struct A {\n    /// x\n    pub b: u32,\n}\n", "A"), ["b"]);
}
