//! What the driver sees in its own folder becomes the tree and its events.

use farshore_engine::event::{Change, Observation};
use farshore_engine::record::{Kind, RecordError, Stamp};
use farshore_engine::testing::{Hand, path};
use farshore_engine::*;

const FILE: SeenKind = SeenKind::File { size_bytes: 10 };

fn observe(hand: &mut Hand, observation: Observation) -> Vec<Output> {
    hand.give(Input::Observed(observation))
}

fn moved(hand: &mut Hand, from: &str, to: &str) -> Vec<Output> {
    observe(hand, Observation::Moved { from: path(from), to: path(to) })
}

/// What was announced, written down.
fn announced(out: &[Output]) -> Vec<String> {
    out.iter()
        .filter_map(|output| match output {
            Output::Notice(Notice::Announced { path, record }) => {
                Some(format!("{}{path}", if record.is_some() { "" } else { "-" }))
            }
            _ => None,
        })
        .collect()
}

fn names(hand: &Hand) -> Vec<String> {
    let mut names: Vec<String> = hand.engine.view().tree().map(|(path, _)| path.to_string()).collect();
    names.sort();
    names
}

fn stamp(hand: &Hand, at: &str) -> Stamp {
    let found = hand.engine.view().tree().find(|(of, _)| *of == path(at)).map(|(_, record)| record.kind.clone());
    let Some(Kind::File { stamp, .. }) = found else { panic!("{at}: {found:?}") };
    stamp
}

/// A folder with a directory `d` that holds a file `f`, and a file `a`.
fn hand() -> Hand {
    let mut hand = Hand::new(Config::default());
    hand.found("d", SeenKind::Dir, 0o755, 1, (1, 1));
    hand.found("d/f", FILE, 0o644, 1, (2, 1));
    hand.found("a", FILE, 0o644, 1, (3, 1));
    hand
}

#[test]
fn the_same_sight_twice_is_no_event() {
    let mut hand = hand();
    assert_eq!(announced(&hand.found("a", FILE, 0o644, 1, (3, 1))), Vec::<String>::new());
    assert_eq!(announced(&hand.found("a", FILE, 0o600, 1, (3, 2))), ["a"]);
}

#[test]
fn every_fact_that_may_mean_other_bytes_makes_a_new_version() {
    for (size_bytes, modified, facts) in [(11, 1, (3, 1)), (10, 2, (3, 2)), (10, 1, (3, 2)), (10, 1, (4, 1))] {
        let mut hand = hand();
        let before = stamp(&hand, "a");
        hand.found("a", SeenKind::File { size_bytes }, 0o644, modified, facts);
        assert_ne!(stamp(&hand, "a"), before, "{size_bytes} {modified} {facts:?}");
    }
}

#[test]
fn a_chmod_and_a_rename_explain_a_changed_inode_time() {
    let mut hand = hand();
    let before = stamp(&hand, "a");
    hand.found("a", FILE, 0o600, 1, (3, 2));
    assert_eq!(stamp(&hand, "a"), before);
    moved(&mut hand, "a", "b");
    hand.found("b", FILE, 0o600, 1, (3, 3));
    assert_eq!(stamp(&hand, "b"), before);
    hand.found("b", FILE, 0o600, 1, (3, 4));
    assert_ne!(stamp(&hand, "b"), before, "nothing explains that one");
}

#[test]
fn another_inode_under_a_name_is_another_file() {
    let mut hand = hand();
    let handle = hand.open("a");
    let out = hand.found("a", FILE, 0o644, 1, (9, 1));
    assert_eq!(announced(&out), ["a"]);
    let (read, out) = hand.read(handle, 0, 10);
    let Some(Ok(Reply::Read(span))) = Hand::reply(&out, read) else { panic!() };
    assert_eq!(span.source, Source::Local(handle), "who has the old one open reads the old one");
}

#[test]
fn what_was_not_told_in_a_scan_is_gone() {
    let mut hand = hand();
    observe(&mut hand, Observation::ScanBegin { path: path("") });
    hand.found("a", FILE, 0o644, 1, (3, 1));
    let out = observe(&mut hand, Observation::ScanEnd { path: path("") });
    assert_eq!(announced(&out), ["-d/f", "-d"], "with everything in it");
    assert_eq!(names(&hand), ["a"]);
}

#[test]
fn a_scan_of_a_part_says_nothing_of_the_rest() {
    let mut hand = hand();
    observe(&mut hand, Observation::ScanBegin { path: path("") });
    hand.found("d", SeenKind::Dir, 0o755, 1, (1, 1));
    hand.found("a", FILE, 0o644, 1, (3, 1));
    observe(&mut hand, Observation::ScanBegin { path: path("d") });
    let out = observe(&mut hand, Observation::ScanEnd { path: path("d") });
    assert_eq!(announced(&out), ["-d/f"]);
    let out = observe(&mut hand, Observation::ScanEnd { path: path("") });
    assert_eq!(announced(&out), Vec::<String>::new());
    assert!(observe(&mut hand, Observation::ScanEnd { path: path("d") }).is_empty(), "that one never began");
}

#[test]
fn what_moves_while_a_scan_runs_is_not_lost() {
    let mut hand = hand();
    observe(&mut hand, Observation::ScanBegin { path: path("") });
    hand.found("a", FILE, 0o644, 1, (3, 1));
    moved(&mut hand, "d", "b");
    let out = observe(&mut hand, Observation::ScanEnd { path: path("") });
    assert_eq!(announced(&out), Vec::<String>::new());
    assert_eq!(names(&hand), ["a", "b", "b/f"]);
}

#[test]
fn a_rename_is_one_event_with_everything_below() {
    let mut hand = hand();
    let file = hand.ino("d/f");
    assert_eq!(announced(&moved(&mut hand, "d", "e")), ["e"]);
    assert_eq!(names(&hand), ["a", "e", "e/f"]);
    assert_eq!(hand.ino("e/f"), file);
    assert_eq!(announced(&moved(&mut hand, "a", "e/f")), ["e/f"], "over a file");
    assert_eq!(names(&hand), ["e", "e/f"]);
}

#[test]
fn renames_that_our_picture_does_not_allow_leave_no_ghosts() {
    // Into a directory that we have not heard of.
    let mut hand = hand();
    assert_eq!(announced(&moved(&mut hand, "a", "unknown/a")), ["-a"]);
    // Into itself: what we take for its parent has moved as well.
    let mut hand = self::hand();
    assert_eq!(announced(&moved(&mut hand, "d", "d/f2")), ["-d/f", "-d"]);
    // Over the directory that holds it, which must be gone.
    let mut hand = self::hand();
    assert_eq!(announced(&moved(&mut hand, "d/f", "d")), ["-d/f", "-d"]);
    assert_eq!(announced(&hand.found("d", FILE, 0o644, 1, (2, 2))), ["d"]);
    // Of what we do not know: the look that follows tells it.
    assert!(moved(&mut hand, "unknown", "b").is_empty());
}

#[test]
fn what_is_missing_is_gone_with_everything_below() {
    let mut hand = hand();
    assert_eq!(announced(&observe(&mut hand, Observation::Missing { path: path("d") })), ["-d/f", "-d"]);
    assert_eq!(names(&hand), ["a"]);
    assert!(observe(&mut hand, Observation::Missing { path: path("d") }).is_empty());
    assert_eq!(announced(&observe(&mut hand, Observation::Missing { path: path("") })), ["-a"]);
}

#[test]
fn what_breaks_a_limit_is_not_shared_and_said_so() {
    let mut hand = hand();
    let out = hand.found("a", SeenKind::File { size_bytes: u64::MAX }, 0o644, 1, (3, 2));
    let reason = RecordError::TooLarge;
    assert!(Hand::notices(&out).contains(&&Notice::NotShared { path: path("a"), reason }));
    assert_eq!(announced(&out), ["-a"]);
}

#[test]
fn a_file_without_its_directory_waits_for_the_scan_of_it() {
    let mut hand = hand();
    assert!(hand.found("x/y", FILE, 0o644, 1, (7, 1)).is_empty());
    assert!(hand.found("a/y", FILE, 0o644, 1, (7, 1)).is_empty());
}

#[test]
fn another_kind_of_thing_replaces_what_was_there() {
    let mut hand = hand();
    hand.found("d", FILE, 0o644, 1, (8, 1));
    assert_eq!(names(&hand), ["a", "d"]);
    hand.found("a", SeenKind::Symlink { target: b"t".as_slice().into() }, 0o777, 1, (9, 1));
    let out = hand.found("a", SeenKind::Symlink { target: b"u".as_slice().into() }, 0o777, 1, (9, 1));
    assert_eq!(announced(&out), ["a"]);
}

#[test]
fn our_own_files_are_read_where_they_are() {
    let mut hand = hand();
    let handle = hand.open("d/f");
    let (read, out) = hand.read(handle, 3, 100);
    let Some(Ok(Reply::Read(span))) = Hand::reply(&out, read) else { panic!() };
    assert_eq!((span.source, span.offset, span.len), (Source::Local(handle), 3, 100));
}

#[test]
fn events_say_whether_another_object_stands_there_now() {
    let mut hand = hand();
    let at = input::WatchCursor::at(hand.engine.view().position());
    hand.found("a", FILE, 0o644, 2, (3, 2));
    hand.found("a", FILE, 0o644, 2, (4, 2));
    let (id, out) = hand.ask(Request::PeerWatch { peer: Hand::PEER, cursor: at });
    let Some(Ok(Reply::Watched { updates, .. })) = Hand::reply(&out, id) else { panic!() };
    let replaced: Vec<bool> = updates
        .iter()
        .filter_map(|update| match update {
            TreeUpdate::Event { change: Change::Put { replaced, .. }, .. } => Some(*replaced),
            _ => None,
        })
        .collect();
    assert_eq!(replaced, [false, true]);
}
