//! What the engine may be built on: nothing that does I/O, tells the time, starts threads or draws randomness. That it
//! uses nothing of the sort from the standard library is in its `clippy.toml`.

// A test may look at how the workspace is built.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every crate that the product's engine is compiled with. Macros, and what they are made of, only run while it is compiled.
const ALLOWED: [&str; 12] = [
    "bitvec",
    "funty",
    "radium",
    "tap",
    "wyz",
    "thiserror",
    "thiserror-impl",
    "xxhash-rust",
    "proc-macro2",
    "quote",
    "syn",
    "unicode-ident",
];

#[test]
fn the_engine_is_built_on_nothing_that_can_do_io() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let name_of = |id: &Value| packages.iter().find(|package| package["id"] == *id).unwrap()["name"].as_str().unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let nodes: BTreeMap<&str, &Value> = nodes.iter().map(|node| (node["id"].as_str().unwrap(), node)).collect();
    let engine = packages.iter().find(|package| package["name"] == "farshore-engine").unwrap();

    let (mut built_on, mut open) = (BTreeSet::new(), vec![engine["id"].as_str().unwrap()]);
    while let Some(id) = open.pop() {
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            // A kind of null is an ordinary dependency; the others are for tests and build scripts.
            let ordinary = dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            if ordinary && built_on.insert(name_of(&dependency["pkg"])) {
                open.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    assert!(built_on.contains("bitvec"), "the test looks at the wrong thing: {built_on:?}");
    let unknown: Vec<_> = built_on.iter().filter(|name| !ALLOWED.contains(name)).collect();
    assert!(unknown.is_empty(), "the engine is built on {unknown:?}, which nobody has looked at");
}

#[test]
fn the_test_world_is_no_part_of_the_product() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    for package in packages.iter().filter(|package| package["source"].is_null()) {
        for dependency in package["dependencies"].as_array().unwrap() {
            let product = dependency["kind"].is_null() && package["name"] == "farshore";
            let asks = dependency["features"].as_array().unwrap().contains(&Value::from("testing"));
            assert!(!(product && asks), "{} turns on the feature `testing`", package["name"]);
        }
    }
    let engine = packages.iter().find(|package| package["name"] == "farshore-engine").unwrap();
    assert_eq!(engine["features"]["default"], Value::Null);
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").expect("cargo runs the tests, and says where it is");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let version = Command::new(&cargo).arg("-vV").output().expect("cargo runs");
    let version = String::from_utf8(version.stdout).expect("cargo speaks UTF-8");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo says where it runs");
    // What only other platforms need may never have been downloaded.
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform", host, "--manifest-path", manifest])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo speaks JSON")
}
