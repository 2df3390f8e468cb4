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
