//! A tree that was remembered is shown until its owner says more, and is followed from where it stood.

use crate::CHUNK;
use core::time::Duration;
use farshore_engine::record::Record;
use farshore_engine::testing::{Hand, Pair, dir_record, file_record, path, removed, renamed, revision};
use farshore_engine::*;

const POSITION: Position = Position { epoch: 1, seq: 4 };

fn entries(of: &[(&str, Record)]) -> Result<Entries, PeerFault> {
    Entries::of(of.iter().map(|(at, record)| (path(at), record.clone(), revision())))
}

/// The directory `d` with the file `d/f`, and the file `a`.
fn tree() -> Remembered {
    let of = [("", dir_record()), ("a", file_record(CHUNK, 1)), ("d", dir_record()), ("d/f", file_record(7, 2))];
    Remembered::new(POSITION, 6, entries(&of).unwrap()).unwrap()
}

fn remembering(config: Config) -> Hand {
    let mut hand = Hand::new(config);
    hand.give(Input::Remembered { peer: Hand::PEER, remembered: tree() });
    hand.seq = POSITION.seq;
    hand
}

fn follow(hand: &mut Hand) -> Vec<Output> {
    hand.give(Input::Command(Command::Follow { peer: Hand::PEER }))
}

fn is_listed(hand: &Hand) -> bool {
    hand.engine.view().peers().any(|peer| peer.listed)
}

fn watched_from(out: &[Output]) -> Option<Position> {
    out.iter().find_map(|output| match output {
        Output::Effect(_, Effect::Watch { position, .. }) => Some(*position),
        _ => None,
    })
}

fn is_told_listed(out: &[Output]) -> bool {
    Hand::notices(out).contains(&&Notice::Listed { peer: Hand::PEER })
}

#[test]
fn it_is_shown_before_the_owner_is_reached() {
    let mut hand = remembering(Config { on_disconnect: OnDisconnect::Fail, ..Config::default() });
    follow(&mut hand);
    let handle = hand.open("d/f");
    assert!(!is_listed(&hand), "it may be old");
    let (read, out) = hand.read(handle, 0, 7);
    assert_eq!(Hand::reply(&out, read), Some(Err(Errno::Io)), "its bytes are not here");
}

#[test]
fn what_waits_goes_on_when_the_owner_is_there() {
    let mut hand = remembering(Config::default());
    let out = follow(&mut hand);
    let handle = hand.open("a");
    let (read, waits) = hand.read(handle, 0, 7);
    assert_eq!(Hand::reply(&waits, read), None);
    let out = hand.connect(&out);
    assert_eq!(watched_from(&out), Some(POSITION), "it is followed from where it stood");
    let fetch = Hand::fetches(&out).remove(0);
    assert_eq!((fetch.path.as_str(), fetch.stamp), ("a", record::Stamp(1)));
    let out = hand.bring(&fetch);
    assert!(matches!(Hand::reply(&out, read), Some(Ok(Reply::Read(_)))));
}

#[test]
fn it_is_whole_when_the_owner_has_no_more_to_tell() {
    let mut hand = remembering(Config::default());
    let out = follow(&mut hand);
    hand.connect(&out);
    let out = hand.put("b", file_record(1, 3), false);
    assert!(!is_listed(&hand) && !is_told_listed(&out), "more may come");
    let out = hand.tell(vec![]);
    assert!(is_listed(&hand) && is_told_listed(&out));
    assert!(!is_told_listed(&hand.tell(vec![])), "that is told once");
    hand.ino("a");
    hand.ino("b");
}

#[test]
fn events_that_may_be_told_again_are_known_to_be_so() {
    // Event 5 put `e/x`, and event 6 removed `e`: the listing, which stood at 4, had neither any more.
    let mut hand = remembering(Config::default());
    let out = follow(&mut hand);
    hand.connect(&out);
    let out = hand.put("e/x", file_record(1, 3), false);
    assert!(Hand::notices(&out).iter().all(|notice| !matches!(notice, Notice::PeerFault { .. })), "{out:?}");
    let out = hand.event(removed("e"));
    assert_eq!(Hand::notices(&out), Vec::<&Notice>::new());
    let out = hand.put("e/x", file_record(1, 3), false);
    assert!(Hand::notices(&out).iter().any(|notice| matches!(notice, Notice::PeerFault { .. })), "this one is new");
}

#[test]
fn a_new_listing_takes_its_place() {
    let mut hand = remembering(Config::default());
    let out = follow(&mut hand);
    hand.connect(&out);
    let kept = hand.ino("a");
    let out = hand.list(&[("a", CHUNK), ("c", 1)]);
    assert!(is_listed(&hand) && is_told_listed(&out));
    assert_eq!(hand.ino("a"), kept, "what stayed is the same");
    hand.ino("c");
    assert_eq!(hand.engine.view().resolve(&path("d")), None, "what was not named is gone");
}

#[test]
fn what_is_not_whole_is_not_remembered() {
    let mut hand = remembering(Config::default());
    let snapshot = |hand: &Hand| hand.engine.view().snapshot(Hand::PEER);
    assert_eq!(snapshot(&hand), None, "nobody is followed");
    let out = follow(&mut hand);
    assert_eq!(snapshot(&hand).unwrap(), tree(), "as it was");
    hand.connect(&out);
    hand.tell(vec![TreeUpdate::Begin { position: Position { epoch: 2, seq: 0 } }]);
    assert_eq!(snapshot(&hand), None, "a listing is under way");
    hand.tell(vec![TreeUpdate::End { settled: 3 }]);
    let empty = snapshot(&hand).unwrap();
    assert_eq!((empty.position(), empty.settled()), (Position { epoch: 2, seq: 0 }, 3));
    assert_eq!(Ok(empty.entries()), entries(&[("", dir_record())]).as_ref(), "the root's record is the last one known");
    hand.tell(vec![TreeUpdate::Event { seq: 5, change: removed("x") }]);
    assert_eq!(snapshot(&hand), None, "the owner broke a rule");
}

#[test]
fn a_snapshot_is_in_the_order_of_paths_whatever_the_order_of_the_news() {
    let mut hand = Hand::following(Config::default(), &[("z", 1)]);
    hand.put("d", dir_record(), false);
    hand.put("d/f", file_record(1, 1), false);
    hand.put("c", dir_record(), false);
    let record = dir_record();
    hand.event(renamed("d", "c/e", record));
    hand.put("c!", file_record(1, 1), false);
    let remembered = hand.engine.view().snapshot(Hand::PEER).unwrap();
    let names: Vec<String> = remembered.entries().iter().map(|(path, ..)| path.to_string()).collect();
    assert_eq!(names[1..], ["c", "c/e", "c/e/f", "c!", "z"]);
    let again = remembered.entries().iter().map(|(path, record, revision)| (path, record.clone(), revision.clone()));
    assert_eq!(Entries::of(again).as_ref(), Ok(remembered.entries()));
}

/// All entries of what is remembered when `between` happens after each entry that is collected.
fn collected(hand: &mut Hand, mut between: impl FnMut(&mut Hand, usize)) -> Option<Remembered> {
    let mut snapshot = hand.engine.view().begin_snapshot(Hand::PEER)?;
    for portion in 0.. {
        match hand.engine.view().collect(snapshot, 1) {
            Collected::Whole(remembered) => return Some(remembered),
            Collected::Overtaken => return None,
            Collected::Part(part) => snapshot = part,
        }
        between(hand, portion);
    }
    None
}

#[test]
fn what_happens_while_a_snapshot_is_collected_is_told_again_to_the_next_life() {
    for at in 0..6 {
        let mut hand = Hand::following(Config::default(), &[("a", 1), ("b", 1), ("e", 1), ("z", 1)]);
        hand.put("d", dir_record(), false);
        hand.put("d/f", file_record(1, 1), false);
        let seq = hand.seq;
        let mut events = Vec::new();
        let remembered = collected(&mut hand, |hand, portion| {
            if portion == at {
                let mut tell = |hand: &mut Hand, change: Change| {
                    hand.event(change.clone());
                    events.push((hand.seq, change));
                };
                tell(hand, removed("b"));
                tell(hand, removed("d/f"));
                tell(hand, removed("d"));
                tell(hand, renamed("a", "c", file_record(1, 1)));
                tell(hand, renamed("z", "aa", file_record(1, 1)));
                tell(
                    hand,
                    Change::Put { path: path("d"), record: file_record(5, 5), revision: revision(), replaced: false },
                );
            }
        });
        let remembered = remembered.expect("no directory was moved");
        assert_eq!((remembered.position().seq, remembered.settled()), (seq, hand.seq), "event after portion {at}");
        let mut next = Hand::new(Config::default());
        next.give(Input::Remembered { peer: Hand::PEER, remembered });
        let out = follow(&mut next);
        next.connect(&out);
        next.tell(events.into_iter().map(|(seq, change)| TreeUpdate::Event { seq, change }).collect());
        let tree = |hand: &Hand| -> Vec<(String, Record)> {
            let mut tree: Vec<_> =
                hand.engine.view().tree().map(|(path, record)| (path.to_string(), record.clone())).collect();
            tree.sort_by(|one, other| one.0.cmp(&other.0));
            tree
        };
        assert_eq!(tree(&next), tree(&hand), "event after portion {at}");
    }
}

#[test]
fn a_directory_that_moves_past_a_snapshot_overtakes_it() {
    let mut hand = Hand::following(Config::default(), &[("m", 1)]);
    hand.put("z", dir_record(), false);
    hand.put("z/f", file_record(1, 1), false);
    let mut moved = |hand: &mut Hand, portion| {
        if portion == 0 {
            hand.event(renamed("z", "a", dir_record()));
        }
    };
    assert_eq!(collected(&mut hand, &mut moved), None, "what is in it would be nowhere");
    assert!(collected(&mut hand, |_, _| {}).is_some_and(|remembered| remembered.entries().len() == 4));
}

#[test]
fn a_snapshot_that_the_owner_lists_anew_in_between_is_worth_nothing() {
    let mut hand = Hand::following(Config::default(), &[("a", 1), ("b", 1)]);
    let listing = |hand: &mut Hand, _| {
        hand.tell(vec![TreeUpdate::Begin { position: Position { epoch: 7, seq: 0 } }, TreeUpdate::End { settled: 0 }]);
    };
    assert_eq!(collected(&mut hand, listing), None);
}

#[test]
fn what_makes_no_tree_is_refused() {
    let refused = |of: &[(&str, Record)]| entries(of).unwrap_err();
    let (file, dir) = (file_record(1, 1), dir_record());
    assert_eq!(refused(&[("", file.clone())]), PeerFault::Root);
    assert_eq!(refused(&[("b", file.clone()), ("a", file.clone())]), PeerFault::OutOfPlace);
    assert_eq!(refused(&[("a", file.clone()), ("a", file.clone())]), PeerFault::OutOfPlace);
    assert_eq!(refused(&[("a/b", file.clone())]), PeerFault::NoParent);
    assert_eq!(refused(&[("a", file.clone()), ("a/b", file.clone())]), PeerFault::NoParent);
    assert_eq!(refused(&[("a", dir.clone()), ("a/b/c", file.clone())]), PeerFault::NoParent);
    assert_eq!(refused(&[("a", dir), ("b", file.clone()), ("b/c", file)]), PeerFault::NoParent);
    let bad = Record { mode: 0o10_000, ..dir_record() };
    assert!(matches!(refused(&[("a", bad)]), PeerFault::Record(_)));
    assert_eq!(
        Remembered::new(Position { epoch: 0, seq: 4 }, 6, Entries::default()),
        Err(PeerFault::OutOfRange("epoch"))
    );
    assert_eq!(Remembered::new(POSITION, 3, Entries::default()), Err(PeerFault::OutOfRange("settled")));
}

#[test]
fn more_than_there_may_be_is_not_shown_and_listed_anew() {
    let mut hand = remembering(Config { max_entries: 3, ..Config::default() });
    assert_eq!(hand.engine.view().tree().count(), 0);
    let out = follow(&mut hand);
    assert_eq!(watched_from(&hand.connect(&out)), Some(Position::default()));
}

#[test]
fn what_happened_meanwhile_is_told_and_nothing_is_fetched_twice() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK), ("b", CHUNK)]);
    let handle = pair.open("a");
    let bytes = pair.owner_bytes("a");
    assert_eq!(pair.read_now(handle, 0, 2 * CHUNK as u32).as_ref(), Ok(&bytes));
    pair.drive();
    for _ in 0..12 {
        // With what was known then, before, or without it.
        pair.restart_follower(Pair::FOLLOWER, true);
        pair.rename("b", "c");
        pair.drive_for(Duration::from_secs(6));
        let handle = pair.open("a");
        assert_eq!(pair.read_now(handle, 0, 2 * CHUNK as u32).as_ref(), Ok(&bytes));
        assert_eq!(pair.hosts[Pair::FOLLOWER].engine.view().totals().fetched_bytes, 0);
        pair.rename("c", "b");
        pair.drive();
    }
    pair.settle();
}
