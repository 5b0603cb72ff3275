//! The documents are true as far as a program can tell: what they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files of the workspace, without what was built.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Whether the function in line `at` has the attribute of a test.
fn is_marked(lines: &[&str], at: usize) -> bool {
    let above = lines[..at].iter().rev().map(|line| line.trim_start());
    let mut attributes = above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

/// `file::function` of every test in the workspace, every law of the store suite, and every scenario of the simulator.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let mut found = BTreeSet::new();
    let laws = fs::read_to_string(root().join("mount/src/store/suite.rs")).unwrap();
    let has_law = |name: &str| laws.lines().any(|line| line.trim_end_matches(',') == format!("            {name}"));
    for file in files {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((_, rest)) = line.split_once("fn ") else { continue };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let is_law = file.to_string_lossy().contains("mount/src/store/suite") && has_law(&name);
            let is_scenario = text.contains(&format!("run: {name}")) && file.iter().any(|part| part == "scenarios");
            if is_law || is_scenario || is_marked(&lines, at) {
                found.insert(format!("{stem}::{name}"));
            }
        }
    }
    found
}

#[test]
fn every_named_test_exists() {
    let tests = tests();
    let mut missing = Vec::new();
    let mut named = 0;
    for document in ["docs/SEMANTICS.md", "docs/TRAPS.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let is_test = word.split_once("::").is_some_and(|(file, name)| {
                let plain = |part: &str| part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                plain(file) && plain(name)
            });
            if is_test {
                named += 1;
                if !tests.contains(word) {
                    missing.push(format!("{document}: {word}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "tests that are named and do not exist: {missing:#?}");
    assert!(named > 300, "only {named} tests are named: are the documents read right?");
}

#[test]
fn every_file_that_is_pointed_to_exists() {
    for document in ["README.md", "docs/ARCHITECTURE.md", "docs/SEMANTICS.md", "docs/TRAPS.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let is_path =
                word.contains('/') && !word.contains(' ') && word.starts_with(|c: char| c.is_ascii_lowercase());
            if is_path
                && ["engine", "proto", "mount", "sim", "fuzz", "benches", "docs"]
                    .iter()
                    .any(|top| word.starts_with(&format!("{top}/")))
            {
                assert!(root().join(word).exists(), "{document} points to {word}");
            }
        }
    }
}

#[test]
fn every_dependency_is_justified() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    for line in dependencies.lines() {
        let Some((name, _)) = line.split_once(" = ") else { continue };
        assert!(name.starts_with("farshore") || text.contains(name), "docs/ARCHITECTURE.md does not justify {name}");
    }
}
