//! Every named scenario, as a test of its own.

use farshore_sim::failure::{Case, attempt};
use farshore_sim::history::History;
use farshore_sim::scenarios;

/// Scenarios are about what must happen, not about chance; another seed must do as well.
const SEED: u64 = 1;

fn run(name: &str) {
    let scenario = scenarios::find(name).unwrap_or_else(|| panic!("there is no scenario {name}"));
    let case = Case { seed: SEED, scenario: Some(name.to_owned()), kind: None, sabotage: None };
    if let Err(failure) = attempt(&case, &History::short(), |history| (scenario.run)(SEED, history)) {
        panic!("{failure}");
    }
}

macro_rules! scenarios {
    ($($test:ident => $name:literal,)*) => {
        $(#[test]
        fn $test() {
            run($name);
        })*

        #[test]
        fn every_scenario_is_a_test() {
            let tests = [$($name),*];
            let missing: Vec<_> = scenarios::all().map(|s| s.name).filter(|name| !tests.contains(name)).collect();
            assert!(missing.is_empty(), "scenarios that no test runs: {missing:?}");
        }
    };
}

scenarios! {
    sizes => "sizes",
    two_readers => "two-readers",
    idle => "idle",
    probe => "probe",
    both_ways => "both-ways",
    both_ways_cut => "both-ways-cut",
    both_ways_crash => "both-ways-crash",
    partition => "partition",
    blink => "blink",
    held => "held",
    flapping => "flapping",
    lossy => "lossy",
    stays_down => "stays-down",
    fail_at_once => "fail-at-once",
    distance => "distance",
    narrow => "narrow",
    crash_unchanged => "crash-unchanged",
    crash_changed => "crash-changed",
    power_cut => "power-cut",
    crash_loop => "crash-loop",
    edited => "edited",
    replaced => "replaced",
    renamed => "renamed",
    removed => "removed",
    removed_while_away => "removed-while-away",
    away_for_too_long => "away-for-too-long",
    late_watcher => "late-watcher",
    large_listing => "large-listing",
    long_away => "long-away",
    honest_liar => "honest-liar",
    wrong_hash => "wrong-hash",
    wrong_range => "wrong-range",
    too_much => "too-much",
    too_little => "too-little",
    unasked => "unasked",
    huge => "huge",
    silence => "silence",
    torn => "torn",
    many_readers => "many-readers",
    whole_files => "whole-files",
    changed_mind => "changed-mind",
    copied => "copied",
    copied_through_trouble => "copied-through-trouble",
    full => "full",
    broken => "broken",
    slow_disk => "slow-disk",
    swamped => "swamped",
    ten_crashes => "ten-crashes",
    clean_stop => "clean-stop",
    damaged => "damaged",
    edited_while_down => "edited-while-down",
    edited_while_open => "edited-while-open",
    small_cache => "small-cache",
    full_then_room => "full-then-room",
    pinned => "pinned",
    both_offline => "both-offline",
    three_offline => "three-offline",
    crash_in_apply => "crash-in-apply",
    memory_lost => "memory-lost",
}
