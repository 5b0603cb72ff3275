//! A few seeds of what is run in thousands elsewhere, and the proof that a seed is a history.

use std::process::Command;

fn sim(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    let output = command.args(arguments).output().unwrap_or_else(|error| panic!("cannot run the simulator: {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "sim {arguments:?}: {said}");
    said
}

#[test]
fn seeds_pass() {
    let said = sim(&["sweep", "--seeds", "0..12", "--jobs", "2"]);
    assert!(said.contains("12 passed, 0 failed"), "{said}");
}

#[test]
fn what_a_seed_means_is_printed_and_is_of_a_kind_that_can_be_named() {
    for (arguments, kind) in [
        (&["run", "--seed", "2"][..], "some read"),
        (&["run", "--seed", "3"], "all write"),
        (&["run", "--seed", "3", "--kind", "reading"], "some read"),
        (&["run", "--seed", "2", "--kind", "writing"], "all write"),
    ] {
        assert!(sim(arguments).lines().any(|line| line.trim() == kind), "{arguments:?}");
    }
}

#[test]
fn the_same_seed_twice_is_the_same_history() {
    for (seed, kind) in [("3", "reading"), ("7", "reading"), ("3", "writing"), ("7", "writing")] {
        assert!(sim(&["meta", "--seed", seed, "--kind", kind]).contains("two runs, the same"));
    }
}

#[test]
fn the_same_scenario_twice_is_the_same_history() {
    assert!(sim(&["meta", "--seed", "1", "--scenario", "lossy"]).contains("two runs, the same"));
}

#[test]
fn other_seeds_are_other_histories() {
    assert_ne!(farshore_sim::plan::Plan::draw(1).to_string(), farshore_sim::plan::Plan::draw(2).to_string());
}
