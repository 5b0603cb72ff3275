//! What a peer can do wrong in its tree: each broken rule is named, the connection is closed, nothing panics.

use farshore_engine::event::Change;
use farshore_engine::record::{FileTime, Kind, Record, RecordError};
use farshore_engine::testing::{Hand, dir_record, file_record, path, removed, renamed};
use farshore_engine::*;

const BEGIN: TreeUpdate = TreeUpdate::Begin { position: Position { epoch: 1, seq: 0 } };

/// A follower of a peer that has a file `a` and a directory `d` with a file in it.
fn hand() -> Hand {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    hand.put("d", dir_record(), false);
    hand.put("d/x", file_record(1, 1), false);
    hand
}

/// Tells `updates`, which break `fault`.
fn broken(mut hand: Hand, updates: Vec<TreeUpdate>, fault: PeerFault) {
    let link = hand.link;
    let out = hand.tell(updates);
    let named: Vec<PeerFault> = Hand::notices(&out)
        .into_iter()
        .filter_map(|notice| match notice {
            Notice::PeerFault { fault, .. } => Some(*fault),
            _ => None,
        })
        .collect();
    assert_eq!(named, [fault]);
    let hung_up = |output: &Output| matches!(output, Output::Effect(_, Effect::HangUp { link: of, .. }) if *of == link);
    assert!(out.iter().any(hung_up), "{out:?}");
    assert!(Hand::cancelled(&out).contains(&hand.watch));
    assert_eq!(hand.engine.view().totals().peer_faults, 1);
}

fn event(hand: &Hand, change: Change) -> Vec<TreeUpdate> {
    vec![TreeUpdate::Event { seq: hand.seq + 1, change }]
}

fn put(hand: &Hand, at: &str, record: Record) -> Vec<TreeUpdate> {
    event(hand, Change::Put { path: path(at), record, revision: testing::revision(), replaced: false })
}

fn rename(hand: &Hand, from: &str, to: &str, record: Record) -> Vec<TreeUpdate> {
    event(hand, renamed(from, to, record))
}

#[test]
fn a_gap_in_its_events() {
    for seq in [0, 2, 4, u64::MAX] {
        let change = removed("a");
        broken(hand(), vec![TreeUpdate::Event { seq, change }], PeerFault::Gap);
    }
}

#[test]
fn a_directory_renamed_that_was_never_announced() {
    let hand = hand();
    let updates = rename(&hand, "unknown", "e", dir_record());
    broken(hand, updates, PeerFault::Gap);
}

#[test]
fn updates_out_of_place() {
    let entry = || Hand::entry("b", file_record(1, 1));
    broken(hand(), vec![entry()], PeerFault::OutOfPlace);
    broken(hand(), vec![TreeUpdate::End { settled: 0 }], PeerFault::OutOfPlace);
    let change = || removed("a");
    broken(hand(), vec![BEGIN, TreeUpdate::Event { seq: 1, change: change() }], PeerFault::OutOfPlace);
    let mut unlisted = Hand::new(Config::default());
    let out = unlisted.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    unlisted.connect(&out);
    broken(unlisted, vec![TreeUpdate::Event { seq: 1, change: change() }], PeerFault::OutOfPlace);
}

#[test]
fn numbers_that_mean_nothing() {
    let begin = TreeUpdate::Begin { position: Position { epoch: 0, seq: 0 } };
    broken(hand(), vec![begin], PeerFault::OutOfRange("epoch"));
    let begin = TreeUpdate::Begin { position: Position { epoch: 1, seq: 10 } };
    broken(hand(), vec![begin, TreeUpdate::End { settled: 9 }], PeerFault::OutOfRange("settled"));
}

#[test]
fn an_entry_below_a_file() {
    let hand = hand();
    let updates = put(&hand, "a/x", file_record(1, 1));
    broken(hand, updates, PeerFault::BelowFile);
    broken(self::hand(), vec![BEGIN, Hand::entry("a/x/y", file_record(1, 1))], PeerFault::BelowFile);
}

#[test]
fn an_entry_without_its_directory() {
    let hand = hand();
    let updates = put(&hand, "nowhere/x", file_record(1, 1));
    broken(hand, updates, PeerFault::NoParent);
    let hand = self::hand();
    let updates = rename(&hand, "a", "nowhere/x", file_record(10, 1));
    broken(hand, updates, PeerFault::NoParent);
}

#[test]
fn the_root_is_a_directory_and_stays() {
    let hand = hand();
    let updates = put(&hand, "", file_record(1, 1));
    broken(hand, updates, PeerFault::Root);
    let hand = self::hand();
    let updates = event(&hand, removed(""));
    broken(hand, updates, PeerFault::Root);
    for (from, to) in [("", "e"), ("d", "")] {
        let hand = self::hand();
        let updates = rename(&hand, from, to, dir_record());
        broken(hand, updates, PeerFault::Root);
    }
}

#[test]
fn a_directory_renamed_into_itself_or_a_file_over_what_holds_it() {
    let hand = hand();
    let updates = rename(&hand, "d", "d/x/d", dir_record());
    broken(hand, updates, PeerFault::IntoItself);
    let hand = self::hand();
    let updates = rename(&hand, "d/x", "d", file_record(1, 1));
    broken(hand, updates, PeerFault::IntoItself);
}

#[test]
fn more_entries_than_are_allowed() {
    let mut hand = Hand::following(Config { max_entries: 3, ..Config::default() }, &[("a", 1), ("b", 1)]);
    hand.put("b", file_record(5, 5), true);
    let updates = put(&hand, "c", file_record(1, 1));
    broken(hand, updates, PeerFault::TooManyEntries(3));
}

#[test]
fn records_outside_their_limits() {
    let file = file_record(1, 1);
    let late = FileTime { seconds: 0, nanos: 1_000_000_000 };
    let link = |target: &[u8]| Record { kind: Kind::Symlink { target: target.into() }, ..file_record(0, 0) };
    for (record, error) in [
        (file_record(u64::MAX, 1), RecordError::TooLarge),
        (Record { mode: 0o10000, ..file.clone() }, RecordError::Mode),
        (Record { modified: late, ..file.clone() }, RecordError::Nanos),
        (link(b""), RecordError::Target),
        (link(b"a\0"), RecordError::Target),
    ] {
        let hand = hand();
        let updates = put(&hand, "b", record.clone());
        broken(hand, updates, PeerFault::Record(error));
        let hand = self::hand();
        let updates = rename(&hand, "unknown", "b", record.clone());
        broken(hand, updates, PeerFault::Record(error));
        broken(self::hand(), vec![BEGIN, Hand::entry("b", record)], PeerFault::Record(error));
    }
}

#[test]
fn what_could_not_even_be_parsed_comes_from_the_driver() {
    let mut hand = hand();
    let (link, fault) = (hand.link, PeerFault::Path(path::PathError::DotName));
    let out = hand.give(Input::Peer(Hand::PEER, PeerEvent::Fault { link, fault }));
    assert!(Hand::notices(&out).contains(&&Notice::PeerFault { peer: Hand::PEER, fault }));
    let out = hand.give(Input::Peer(Hand::PEER, PeerEvent::Fault { link, fault }));
    assert!(out.is_empty(), "it is told once");
}

#[test]
fn a_peer_that_breaks_a_rule_every_time_is_called_less_and_less_often() {
    let mut hand = hand();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        hand.tell(vec![TreeUpdate::End { settled: 0 }]);
        let before = hand.now;
        let mut out = Vec::new();
        while !out.iter().any(|output| matches!(output, Output::Effect(_, Effect::Dial { .. }))) {
            out = hand.pass(core::time::Duration::from_millis(10));
        }
        pauses.push(hand.now - before);
        hand.connect(&out);
    }
    assert!(pauses[5] > pauses[0] * 4, "{pauses:?}");
}

#[test]
fn a_peer_whose_events_did_not_fit_is_listed_anew() {
    let mut hand = hand();
    let updates = event(&hand, renamed("gone", "there", dir_record()));
    hand.tell(updates);
    let watch = hand.watch;
    hand.give(Input::Done(watch, Done::WatchEnded));
    let redial = hand.pass(core::time::Duration::from_secs(6));
    let out = hand.connect(&redial);
    let from_the_start = |output: &Output| match output {
        Output::Effect(_, Effect::Watch { position, .. }) => *position == Position::default(),
        _ => false,
    };
    assert!(out.iter().any(from_the_start), "{out:?}");
}

#[test]
fn wrong_bytes_are_named_and_nonsense_ends_the_connection() {
    let faults =
        |out: &[Output]| Hand::notices(out).into_iter().filter(|n| matches!(n, Notice::PeerFault { .. })).count();
    let hung_up = |out: &[Output]| out.iter().any(|o| matches!(o, Output::Effect(_, Effect::HangUp { .. })));
    for (fault, ends) in [(PeerFault::WrongHash, false), (PeerFault::Unasked, true), (PeerFault::Missing("x"), true)] {
        let mut hand = hand();
        let handle = hand.open("a");
        let (_, out) = hand.read(handle, 0, 10);
        let out = hand.fail(&Hand::fetches(&out)[0], FetchError::Fault(fault));
        assert_eq!((faults(&out), hung_up(&out)), (1, ends), "{fault:?}");
    }
}
