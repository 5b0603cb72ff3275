//! What is remembered of a share in a folder is collected in portions, and is what it would be at once.

use farshore_engine::event::{Change, Observation};
use farshore_engine::path::RelPath;
use farshore_engine::testing::{Hand, dir_record, file_record, path, removed};
use farshore_engine::*;

/// A folder with the file `mine/f`; a peer has `theirs` and `z`, has said that `mine/g` and `q` are gone, and has made a
/// newer `mine/f` by now.
fn with_memory() -> Hand {
    let mut hand = Hand::new(Config { keeps_folder: true, ..Config::default() });
    let observe = |hand: &mut Hand, observation| hand.give(Input::Observed(observation));
    observe(&mut hand, Observation::ScanBegin { path: RelPath::ROOT });
    hand.found("", SeenKind::Dir, 0o755, 1, (1, 1));
    hand.found("mine", SeenKind::Dir, 0o755, 1, (2, 1));
    hand.found("mine/e", SeenKind::File { size_bytes: 4 }, 0o644, 1, (4, 1));
    hand.found("mine/f", SeenKind::File { size_bytes: 5 }, 0o644, 1, (3, 1));
    observe(&mut hand, Observation::ScanEnd { path: RelPath::ROOT });
    let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    hand.connect(&out);
    let entries = [Hand::entry("theirs", file_record(9, 9)), Hand::entry("z", dir_record())];
    let begin = TreeUpdate::Begin { position: Position { epoch: 1, seq: 0 } };
    hand.tell([begin].into_iter().chain(entries).chain([TreeUpdate::End { settled: 0 }]).collect());
    hand.event(removed("mine/g"));
    hand.event(removed("q"));
    let view = hand.engine.view().memory().expect("it is whole");
    let entry = view.entries().iter().find(|(at, ..)| *at == path("mine/f"));
    let version = entry.map(|(_, _, revision)| revision.version.clone()).expect("it was found");
    let dot = Dot { author: DeviceTag(3), counter: version.highest() + 1 };
    let revision = Revision::after(&version, dot);
    hand.event(Change::Put { path: path("mine/f"), record: file_record(700, 7), revision, replaced: false });
    hand
}

/// What is collected when `between` happens after each portion of `most`.
fn collected(hand: &mut Hand, most: usize, mut between: impl FnMut(&mut Hand)) -> Option<Memory> {
    let mut part = hand.engine.view().begin_memory()?;
    loop {
        part = match hand.engine.view().collect_memory(part, most) {
            Collected::Part(part) => part,
            Collected::Whole(memory) => return Some(memory),
            Collected::Overtaken => return None,
        };
        between(hand);
    }
}

#[test]
fn what_is_collected_in_portions_is_what_it_is_at_once() {
    let mut hand = with_memory();
    let at_once = hand.engine.view().memory().expect("it is whole");
    let names: Vec<String> = at_once.entries().iter().map(|(path, ..)| path.to_string()).collect();
    assert_eq!(names, ["", "mine", "mine/e", "mine/f", "theirs", "z"]);
    let removed: Vec<String> = at_once.removed().iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(removed, ["mine/g", "q"]);
    let held: Vec<_> = at_once.held().map(|(path, held)| (path.to_string(), held.record.is_none())).collect();
    let held: Vec<(&str, bool)> = held.iter().map(|(path, as_said)| (path.as_str(), *as_said)).collect();
    assert_eq!(held, [("", true), ("mine", true), ("mine/e", true), ("mine/f", false)], "the peer's `f` is newer");
    for most in 1..9 {
        assert_eq!(collected(&mut hand, most, |_| {}).as_ref(), Some(&at_once), "{most} at a time");
    }
}

#[test]
fn whatever_changes_meanwhile_makes_it_worthless() {
    let mut hand = with_memory();
    let mut is_first = true;
    let change = |hand: &mut Hand| {
        if core::mem::take(&mut is_first) {
            hand.event(removed("theirs"));
        }
    };
    assert_eq!(collected(&mut hand, 1, change), None, "one part is older than the other");
    assert_ne!(collected(&mut hand, 1, |_| {}), None);
    let listing = |hand: &mut Hand| {
        hand.tell(vec![TreeUpdate::Begin { position: Position { epoch: 2, seq: 0 } }]);
    };
    assert_eq!(collected(&mut hand, 1, listing), None, "a peer lists it");
}

#[test]
fn what_was_collected_is_known_again_in_the_next_life() {
    let mut hand = with_memory();
    let memory = collected(&mut hand, 2, |_| {}).expect("nothing happens");
    let mut next = Hand::new(Config { keeps_folder: true, ..Config::default() });
    next.give(Input::Recalled(memory.clone()));
    assert!(next.engine.take_changes().is_empty(), "it is written down");
    assert_eq!(next.engine.view().memory(), Some(memory));
    assert_eq!(next.engine.view().own_inode(&path("mine/e")), Some(4), "it is in the folder");
    assert_eq!(next.engine.view().own_inode(&path("theirs")), None);
}

#[test]
fn what_has_changed_is_what_is_remembered_less_what_was() {
    let mut hand = with_memory();
    let mut memory = Memory::default().after(hand.engine.take_changes()).expect("it began with nothing");
    assert_eq!(Some(&memory), hand.engine.view().memory().as_ref());
    assert!(!hand.engine.view().has_changes());
    assert_eq!(hand.engine.take_changes(), Changes::default());
    hand.event(removed("theirs"));
    hand.found("mine/e", SeenKind::File { size_bytes: 6 }, 0o644, 2, (4, 2));
    assert!(hand.engine.view().has_changes());
    let changes = hand.engine.take_changes();
    let paths: Vec<String> = changes.paths.keys().map(ToString::to_string).collect();
    assert_eq!(paths, ["mine/e", "theirs"]);
    let position = Position { epoch: 1, seq: 4 };
    assert_eq!(changes.standings, Some([(Hand::PEER, Standing { position, settled: 0 })].into()));
    memory = memory.after(changes).expect("it follows");
    assert_eq!(Some(&memory), hand.engine.view().memory().as_ref());
    // Others could not have been made of it.
    assert_eq!(Memory::default().after(hand.engine.take_changes()), Ok(Memory::default()));
}

#[test]
fn changes_that_are_not_those_of_what_is_remembered_are_refused() {
    let mut hand = with_memory();
    hand.engine.take_changes();
    hand.found("mine/e", SeenKind::File { size_bytes: 6 }, 0o644, 2, (4, 2));
    assert_eq!(Memory::default().after(hand.engine.take_changes()), Err(PeerFault::NoParent));
}

#[test]
fn two_changes_after_each_other_are_one() {
    let mut hand = with_memory();
    let memory = Memory::default().after(hand.engine.take_changes()).expect("it began with nothing");
    hand.found("mine/e", SeenKind::File { size_bytes: 6 }, 0o644, 2, (4, 2));
    let mut changes = hand.engine.take_changes();
    hand.event(removed("theirs"));
    hand.found("mine/e", SeenKind::File { size_bytes: 7 }, 0o644, 3, (4, 3));
    changes.extend(hand.engine.take_changes());
    hand.found("mine/e", SeenKind::File { size_bytes: 8 }, 0o644, 4, (4, 4));
    changes.extend(hand.engine.take_changes());
    assert_eq!(memory.after(changes).ok(), hand.engine.view().memory());
}

#[test]
fn a_peer_is_followed_from_where_the_last_life_stood() {
    let mut hand = with_memory();
    let memory = Memory::default().after(hand.engine.take_changes()).expect("it began with nothing");
    let mut next = Hand::new(Config { keeps_folder: true, ..Config::default() });
    next.give(Input::Recalled(memory));
    let out = next.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    let out = next.connect(&out);
    let followed_from = |output: &Output| match output {
        Output::Effect(_, Effect::Watch { position, .. }) => Some(*position),
        _ => None,
    };
    assert_eq!(out.iter().find_map(followed_from), Some(Position { epoch: 1, seq: 3 }));
    assert!(next.engine.take_changes().is_empty(), "it stands where it stood");
    // The peer broke a rule: what is known of its events is worth nothing any more.
    let link = next.link;
    next.give(Input::Peer(Hand::PEER, PeerEvent::Fault { link, fault: PeerFault::Gap }));
    assert_eq!(next.engine.take_changes().standings, Some([].into()));
}
