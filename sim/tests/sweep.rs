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
fn the_same_seed_twice_is_the_same_history() {
    for seed in ["3", "7"] {
        assert!(sim(&["meta", "--seed", seed]).contains("two runs, the same"));
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
