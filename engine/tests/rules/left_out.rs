//! What an owner does not offer any more, though it is in its folder.

use farshore_engine::event::{Change, Observation, TreeUpdate};
use farshore_engine::record::Stamp;
use farshore_engine::testing::{Hand, Pair, path};
use farshore_engine::*;

const FILE: SeenKind = SeenKind::File { size_bytes: 10 };

/// A folder with a directory `d` that holds a file `f`, and a file `a`.
fn hand() -> Hand {
    let mut hand = Hand::new(Config::default());
    hand.found("d", SeenKind::Dir, 0o755, 1, (1, 1));
    hand.found("d/f", FILE, 0o644, 1, (2, 1));
    hand.found("a", FILE, 0o644, 1, (3, 1));
    hand
}

fn unshare(hand: &mut Hand, at: &str) -> Vec<Output> {
    hand.give(Input::Command(Command::Unshare { path: path(at) }))
}

fn share(hand: &mut Hand, at: &str) -> Vec<Output> {
    hand.give(Input::Command(Command::Share { path: path(at) }))
}

fn moved(hand: &mut Hand, from: &str, to: &str) {
    hand.give(Input::Observed(Observation::Moved { from: path(from), to: path(to) }));
}

fn names(hand: &Hand) -> Vec<String> {
    let mut names: Vec<String> = hand.engine.view().tree().map(|(path, _)| path.to_string()).collect();
    names.sort();
    names
}

/// What a follower that has heard nothing yet is told.
fn told(hand: &mut Hand) -> Vec<TreeUpdate> {
    let cursor = WatchCursor::default();
    match hand.ask_now(Request::PeerWatch { peer: Hand::PEER, cursor }) {
        Ok(Reply::Watched { updates, .. }) => updates,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_announced_as_removed_and_never_seen_again() {
    let mut hand = hand();
    let before = hand.engine.view().position();
    unshare(&mut hand, "d");
    assert_eq!(names(&hand), ["a"]);
    let cursor = WatchCursor::at(before);
    let Ok(Reply::Watched { updates, .. }) = hand.ask_now(Request::PeerWatch { peer: Hand::PEER, cursor }) else {
        panic!("nothing is announced")
    };
    let gone: Vec<String> = updates
        .iter()
        .map(|update| match update {
            TreeUpdate::Event { change: Change::Remove { path, .. }, .. } => path.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(gone, ["d/f", "d"], "what it holds before itself");
    for (at, kind) in [("d", SeenKind::Dir), ("d/f", FILE), ("d/new", FILE)] {
        hand.found(at, kind, 0o644, 2, (9, 2));
    }
    assert_eq!(names(&hand), ["a"]);
    assert!(told(&mut hand).iter().all(|update| !format!("{update:?}").contains("\"d")));
}

#[test]
fn a_path_may_be_left_out_before_anything_is_there() {
    let mut hand = Hand::new(Config::default());
    unshare(&mut hand, "d/secret");
    hand.found("d", SeenKind::Dir, 0o755, 1, (1, 1));
    hand.found("d/secret", FILE, 0o644, 1, (2, 1));
    hand.found("d/secret.txt", FILE, 0o644, 1, (3, 1));
    assert_eq!(names(&hand), ["d", "d/secret.txt"], "a longer name is another name");
}

#[test]
fn nobody_can_open_it_any_more() {
    let mut hand = hand();
    let request = Request::PeerOpen { peer: Hand::PEER, path: path("a"), stamp: Stamp(0) };
    assert_eq!(hand.ask_now(request.clone()), Err(Errno::Stale), "it is there, in another version");
    unshare(&mut hand, "a");
    assert_eq!(hand.ask_now(request), Err(Errno::NoEntry));
}

#[test]
fn what_is_shared_again_shows_when_it_is_seen() {
    let mut hand = hand();
    unshare(&mut hand, "d");
    unshare(&mut hand, "d/f");
    share(&mut hand, "d");
    hand.found("d", SeenKind::Dir, 0o755, 1, (1, 1));
    hand.found("d/f", FILE, 0o644, 1, (2, 1));
    assert_eq!(names(&hand), ["a", "d"], "this very path was taken back, and no other");
    share(&mut hand, "d/f");
    hand.found("d/f", FILE, 0o644, 1, (2, 1));
    assert_eq!(names(&hand), ["a", "d", "d/f"]);
}

#[test]
fn it_goes_by_the_path_whatever_is_renamed_there() {
    let mut hand = hand();
    unshare(&mut hand, "secret");
    unshare(&mut hand, "e/f");
    moved(&mut hand, "a", "secret");
    assert_eq!(names(&hand), ["d", "d/f"], "what is renamed to a path that is left out is left out");
    moved(&mut hand, "d", "e");
    assert_eq!(names(&hand), ["e"], "also what moves there with its directory");
    moved(&mut hand, "secret", "a");
    hand.found("a", FILE, 0o644, 1, (3, 1));
    assert_eq!(names(&hand), ["a", "e"]);
}

#[test]
fn the_root_cannot_be_left_out() {
    let mut hand = hand();
    hand.give(Input::Command(Command::Unshare { path: path::RelPath::ROOT }));
    assert_eq!(names(&hand), ["a", "d", "d/f"]);
}

#[test]
fn who_has_it_open_reads_on_and_nobody_else_can() {
    let mut pair = Pair::new(&[("d/a", 4 * crate::CHUNK)]);
    let bytes = pair.owner_bytes("d/a");
    let handle = pair.open("d/a");
    pair.drive();
    pair.unshare("d");
    pair.drive();
    assert_eq!(pair.world.open(Pair::FOLLOWER, &path("d/a")), Err(Errno::NoEntry));
    let last = 3 * crate::CHUNK;
    assert!(pair.read_now(handle, last, crate::CHUNK as u32).unwrap() == bytes[last as usize..]);
    pair.settle();
}
