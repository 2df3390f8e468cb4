//! The documents keep what they promise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every function name in the Rust files under the test folders.
fn functions() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = ["tests", "core/tests", "actors/tests", "core/src", "actors/src", "src"]
        .map(|f| root.join(f))
        .to_vec();
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let after_fn = text.split("fn ").skip(1);
                names.extend(
                    after_fn.filter_map(|rest| rest.split_once('(').map(|(name, _)| name.trim().to_owned())),
                );
            }
        }
    }
    names
}

#[test]
fn every_test_that_the_semantics_name_exists() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/semantics.md")).unwrap();
    let functions = functions();
    // Test names are sentences: at least four words.
    let named: Vec<&str> =
        text.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() >= 3).collect();
    assert!(named.len() > 60, "only {} tests are named", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !functions.contains(*name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn every_guarantee_names_a_test() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/semantics.md")).unwrap();
    let rows = text.lines().filter(|line| {
        line.starts_with("| ")
            && !["| guarantee", "| situation", "| strategy"].iter().any(|head| line.starts_with(head))
    });
    let bare: Vec<_> =
        rows.filter(|row| !row.split('`').any(|part| part.matches('_').count() >= 3)).collect();
    assert!(bare.is_empty(), "guarantees without a test: {bare:#?}");
}

/// A section of the configuration: its path, the file and the type that have its fields.
const SECTIONS: [(&str, &str, &str); 13] = [
    ("job", "src/config.rs", "JobSettings"),
    ("stage[N]", "src/config.rs", "StageConfig"),
    ("stage[N].queue", "src/config.rs", "QueueConfig"),
    ("stage[N].repeat", "src/config.rs", "RepeatConfig"),
    ("stage[N].retry", "core/src/resilience/retry/plan.rs", "RetryConfig"),
    ("stage[N].recovery", "core/src/resilience/recovery.rs", "RecoveryPolicy"),
    ("stage[N].breaker", "core/src/resilience/breaker/config.rs", "CircuitBreakerConfig"),
    ("stage[N].breaker.window", "core/src/resilience/breaker/config.rs", "RateWindow"),
    ("supervisor.NAME", "src/config/supervisor.rs", "SupervisorSection"),
    ("domain.NAME", "src/config/domain.rs", "DomainSection"),
    ("stage[N].settings of graph/load", "src/kernels/graph/edge_list.rs", "EdgeListLimits"),
    ("stage[N].settings of graph/pagerank", "src/kernels/graph/pagerank.rs", "PageRankConfig"),
    ("stage[N].settings of graph/top_k", "src/kernels/graph/top_k.rs", "TopKConfig"),
];

/// The fields of a type and what their documentation says.
fn fields(file: &str, name: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let start = text.find(&format!("pub struct {name} {{")).unwrap();
    let body = &text[start..start + text[start..].find("\n}").unwrap()];
    let (mut fields, mut docs) = (Vec::new(), Vec::new());
    for line in body.lines().skip(1).map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if let Some(field) = line.strip_prefix("pub ") {
            fields.push((field.split(':').next().unwrap().to_owned(), docs.join(" ")));
            docs.clear();
        }
    }
    fields
}

/// Of what has a default, the page says which and why; what has none says nothing of one.
#[test]
fn every_default_has_a_reason() {
    // A section of its own says it, or there is none.
    let others = [
        ("stage[N]", &["kernel", "settings", "retry", "recovery", "breaker", "queue"][..]),
        ("stage[N].repeat", &["until", "limit"]),
        ("supervisor.NAME", &["children"]),
    ];
    for (section, file, name) in SECTIONS {
        let bare = others.iter().find(|(other, _)| *other == section).map_or(&[][..], |(_, fields)| fields);
        for (field, docs) in fields(file, name) {
            let told = docs
                .split_once("Default")
                .map(|(_, told)| told.split_once(". ").map_or(told, |(one, _)| one));
            match told {
                None => {
                    assert!(bare.contains(&field.as_str()), "{section}.{field} says nothing of its default")
                }
                Some(told) => {
                    let reasons =
                        [": ", ", as ", ", because ", ", which ", ", since ", ", so that ", ", far "];
                    assert!(reasons.iter().any(|reason| told.contains(reason)), "{section}.{field}: {told}");
                }
            }
        }
    }
}

fn reference() -> String {
    let mut page = String::from(
        "# Configuration\n\nMade from the documentation of the types that read a job file; a test keeps it so, and writes it anew with \
         `UPDATE=1 cargo test --test docs`.\n\nA job is a TOML file. What the environment sets goes before it: \
         `RUSTKERNEL__STAGE__1__PLACEMENT=process` sets `stage[1].placement`. The command's flags go before both. \
         `rustkernel config check` finds what is wrong, by line or by variable and field, and names the nearest key for one that is \
         unknown; `rustkernel config show --origin` prints every setting with where it is from.\n",
    );
    for (section, file, name) in SECTIONS {
        page += &format!("\n## `{section}`\n\n| field | |\n|---|---|\n");
        for (field, docs) in fields(file, name) {
            page += &format!("| `{field}` | {} |\n", links_as_names(&docs));
        }
    }
    page
}

/// Links of rustdoc lead nowhere here.
fn links_as_names(docs: &str) -> String {
    let mut text = docs.replace("[`", "`").replace("`]", "`").replace('|', "\\|");
    while let Some(start) = text.find("`(") {
        let Some(end) = text[start..].find(')') else { break };
        text.replace_range(start + 1..=start + end, "");
    }
    text
}

#[test]
fn the_configuration_reference_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/configuration.md");
    let made = reference();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/guide/configuration.md is not what the types say: UPDATE=1 cargo test --test docs"
    );
}

/// Every link of a page to a file of this repository leads somewhere, and every page is in the book.
#[test]
fn every_page_is_in_the_book_and_every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    let summary = fs::read_to_string(root.join("docs/SUMMARY.md")).unwrap();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_file = !link.is_empty() && !link.contains("://") && !link.contains(' ');
            assert!(!is_file || page.parent().unwrap().join(link).exists(), "{}: {link}", page.display());
        }
        let name = page.strip_prefix(root.join("docs")).map(|page| page.display().to_string());
        let is_listed = name.as_ref().is_ok_and(|name| summary.contains(&format!("({name})")));
        assert!(
            is_listed || name.is_err() || page.ends_with("SUMMARY.md"),
            "{} is not in the book",
            page.display()
        );
    }
}
