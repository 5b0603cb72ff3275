//! The harness is tested too: each planted bug must be caught, and for the right reason.

use farshore_engine::chunk::CHUNK_SIZE;
use farshore_sim::drawn::Kind;
use farshore_sim::failure::{Case, attempt};
use farshore_sim::faults::LinkTrouble;
use farshore_sim::history::{History, Tally};
use farshore_sim::plan::{Plan, Trouble, TroubleKind, run_with};
use farshore_sim::sabotage::Sabotage;
use farshore_sim::writers::plan::{self as writing, WritingPlan};
use std::process::{Command, Output};
use std::time::Duration;

/// A busy run in which nothing goes wrong.
fn busy() -> Plan {
    Plan {
        files: vec![("f".into(), Some(12 * CHUNK_SIZE)), ("g".into(), Some(3 * CHUNK_SIZE + 7))],
        tick: Duration::from_millis(1),
        latency: (Duration::from_millis(2), Duration::from_millis(5)),
        bytes_per_ms: 20_000,
        watcher_delay: Duration::from_millis(100),
        programs: vec![4],
        edits: 30,
        faults: Vec::new(),
        hurt: Duration::from_secs(3),
        ..Plan::draw(0)
    }
}

fn run(plan: Plan, sabotage: Option<Sabotage>) -> Result<(), String> {
    let case = Case { seed: plan.seed, scenario: None, kind: None, sabotage };
    attempt(&case, &History::short(), |history| run_with(plan, history, sabotage)).map_err(|failure| failure.what)
}

/// A run with a planted bug fails, and says `reason`.
fn caught(sabotage: Sabotage, plan: Plan, reason: &str) {
    match run(plan, Some(sabotage)) {
        Ok(()) => panic!("nobody noticed: {sabotage:?}"),
        Err(what) => assert!(what.contains(reason), "{sabotage:?} was caught for another reason: {what}"),
    }
}

#[test]
fn without_a_planted_bug_all_is_well() {
    assert_eq!(run(busy(), None), Ok(()));
}

#[test]
fn a_store_that_changes_bytes() {
    caught(Sabotage::StoreCorrupts, busy(), "bytes that no version holds");
}

#[test]
fn a_store_whose_writes_never_end() {
    caught(Sabotage::StoreHangs, busy(), "all that is pinned to be here");
}

/// A run in whose middle the reader is away, and whose files do not change.
fn interrupted(kind: TroubleKind) -> Plan {
    let away = Trouble { at: Duration::from_secs(3), lasts: Duration::from_millis(300), reader: 0, kind };
    let mut plan = Plan { edits: 0, faults: vec![away], hurt: Duration::from_secs(6), ..busy() };
    plan.config.cache_bytes = None;
    plan.config.save_interval = Duration::from_millis(500);
    plan
}

#[test]
fn a_store_that_forgets_that_it_crashed() {
    let plan = interrupted(TroubleKind::ReaderCrash);
    assert_eq!(run(plan.clone(), None), Ok(()));
    caught(Sabotage::StoreForgetsCrashes, plan, "bytes that no version holds");
}

#[test]
fn a_store_that_claims_what_was_never_written() {
    let plan = Plan { programs: vec![1], ..interrupted(TroubleKind::ReaderStop) };
    assert_eq!(run(plan.clone(), None), Ok(()));
    caught(Sabotage::StoreClaimsTooMuch, plan, "bytes that no version holds");
}

#[test]
fn a_store_that_says_that_damaged_bytes_are_right() {
    let plan = interrupted(TroubleKind::ReaderPowerCut);
    assert_eq!(run(plan.clone(), None), Ok(()));
    caught(Sabotage::StoreNeverLooks, plan, "bytes that no version holds");
}

#[test]
fn a_store_that_keeps_what_is_to_go() {
    caught(Sabotage::StoreKeepsAll, busy(), "for a store as the engine knows it");
}

/// What a store that keeps everything is for happens in runs at all.
#[test]
fn what_was_stored_is_gone_on_with() {
    let history = History::short();
    let plan = Plan { edits: 20, ..interrupted(TroubleKind::ReaderPowerCut) };
    run_with(plan, &history, None).unwrap();
    let Tally { lives, resumed_bytes, damaged_chunks, same_chunks, .. } = history.tally();
    assert_eq!(lives, 2);
    assert!(resumed_bytes > 0 && damaged_chunks > 0 && same_chunks > 0, "{}", history.tally());
}

#[test]
fn a_network_that_changes_bytes() {
    caught(Sabotage::LineCorrupts, busy(), "when all is well");
}

#[test]
fn an_owner_that_mixes_versions() {
    caught(Sabotage::FolderForgetsVersions, busy(), "bytes that no version holds");
}

#[test]
fn an_owner_that_never_closes_a_file() {
    caught(Sabotage::FolderLeaks, busy(), "the owner still has (open files, waiting requests)");
}

#[test]
fn a_watcher_that_says_nothing() {
    caught(Sabotage::WatcherSilent, busy(), "for the same tree");
}

#[test]
fn answers_that_come_late() {
    let cut = Trouble {
        at: Duration::from_millis(200),
        lasts: Duration::from_secs(12),
        reader: 0,
        kind: TroubleKind::Link(LinkTrouble::Partition),
    };
    let mut plan = Plan { faults: vec![cut], hurt: Duration::from_secs(14), ..busy() };
    plan.config.read_timeout = Duration::from_secs(6);
    assert_eq!(run(plan.clone(), None), Ok(()));
    caught(Sabotage::AnswersLate, plan, "no answer within 4s");
}

/// In runs in which all write, of so many seeds the bug shows in one at least.
fn caught_among(seeds: std::ops::Range<u64>, sabotage: Sabotage, reasons: &[&str]) {
    for seed in seeds {
        let case = Case { seed, scenario: None, kind: Some(Kind::Writing), sabotage: Some(sabotage) };
        let body = |history: &History| writing::run_with(WritingPlan::draw(seed), history, Some(sabotage));
        if let Err(failure) = attempt(&case, &History::short(), body) {
            assert!(reasons.iter().any(|reason| failure.what.contains(reason)), "{failure}");
            return;
        }
    }
    panic!("nobody noticed: {sabotage:?}");
}

#[test]
fn a_removal_that_removes_whatever_is_there() {
    caught_among(117..120, Sabotage::RemovesBlindly, &["is nowhere"]);
}

#[test]
fn what_is_published_twice() {
    caught_among(104..107, Sabotage::PublishesTwice, &["is nowhere", "from the dead", "more than once"]);
}

#[test]
fn a_watcher_of_a_folder_that_all_change_that_says_nothing() {
    caught_among(100..104, Sabotage::WatcherSilent, &["for the same everywhere"]);
}

#[test]
fn an_error_in_the_log() {
    caught(Sabotage::LogsError, busy(), "an error was logged: a planted error");
}

fn sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(arguments).output().unwrap_or_else(|error| panic!("cannot run the simulator: {error}"))
}

#[test]
fn a_panic_in_a_task_that_nobody_waits_for() {
    // In a process of its own: tokio may abort it.
    let output = sim(&["run", "--seed", "0", "--sabotage", "task-panics"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("a planted panic"));
}

#[test]
fn a_sweep_tells_which_seed_failed_and_how_to_see_it_again() {
    let output = sim(&["sweep", "--seeds", "0..2", "--sabotage", "logs-error"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(said.contains("0 passed, 2 failed"), "{said}");
    for seed in 0..2 {
        let command =
            format!("cargo run -p farshore-sim -- run --seed {seed} --sabotage logs-error --trace target/trace.txt");
        assert!(said.contains(&command), "{said}");
    }
}

#[test]
fn the_clock_on_the_wall_shows_in_the_history() {
    let output = sim(&["meta", "--seed", "0", "--sabotage", "asks-real-clock"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the two runs differ from line"));
}

#[test]
fn the_order_of_a_hash_shows_in_the_history() {
    let output = sim(&["meta", "--seed", "0", "--sabotage", "draws-real-lots"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the two runs differ from line"));
}
