//! An owner answers followers that wait for news: at once if there is some, and in time if there is none.

use core::time::Duration;
use farshore_engine::event::{Change, Observation};
use farshore_engine::input::WatchCursor;
use farshore_engine::testing::{Hand, path};
use farshore_engine::*;

const PEER: PeerId = Hand::PEER;

fn file(hand: &mut Hand, name: &str, version: i64) -> Vec<Output> {
    hand.found(name, SeenKind::File { size_bytes: 1 }, 0o644, version, (version as u64, version))
}

fn watch(hand: &mut Hand, cursor: WatchCursor) -> (ReqId, Vec<Output>) {
    hand.ask(Request::PeerWatch { peer: PEER, cursor })
}

fn news(out: &[Output], id: ReqId) -> Option<(Vec<TreeUpdate>, WatchCursor)> {
    match Hand::reply(out, id) {
        Some(Ok(Reply::Watched { updates, cursor })) => Some((updates, cursor)),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_knows_nothing_is_told_everything_at_once() {
    let mut hand = Hand::new(Config::default());
    file(&mut hand, "a", 1);
    let (id, out) = watch(&mut hand, WatchCursor::default());
    let (updates, _) = news(&out, id).unwrap();
    assert!(matches!(updates[0], TreeUpdate::Begin { position: Position { epoch: 1, seq: 1 } }));
    assert!(matches!(&updates[1], TreeUpdate::Entry { path, .. } if path.is_root()));
    assert!(matches!(&updates[2], TreeUpdate::Entry { path, .. } if path.to_string() == "a"));
    assert_eq!(updates[3..], [TreeUpdate::End { settled: 1 }]);
}

#[test]
fn who_knows_everything_is_told_so_once_and_waits_for_the_next_event() {
    let mut hand = Hand::new(Config::default());
    let at = WatchCursor::at(hand.engine.view().position());
    let (id, out) = watch(&mut hand, at);
    let (updates, cursor) = news(&out, id).unwrap();
    assert_eq!(updates, [], "that is all");
    let (id, out) = watch(&mut hand, cursor);
    assert!(news(&out, id).is_none());
    hand.pass(Duration::from_secs(19));
    let out = file(&mut hand, "a", 1);
    let (updates, cursor) = news(&out, id).unwrap();
    assert!(matches!(updates[..], [TreeUpdate::Event { seq: 1, change: Change::Put { .. } }]));
    let (id, out) = watch(&mut hand, cursor.clone());
    assert!(news(&out, id).is_none());
    let out = hand.pass(Duration::from_secs(20));
    assert_eq!(news(&out, id), Some((vec![], cursor)), "there is none: it stands where it stood");
}

#[test]
fn a_long_listing_comes_in_parts_and_each_entry_once() {
    let mut hand = Hand::new(Config::default());
    for name in 0..1_000 {
        file(&mut hand, &format!("{name:03}"), name + 1);
    }
    let (mut cursor, mut told, mut rounds) = (WatchCursor::default(), Vec::new(), 0);
    while told.len() < 1_001 {
        let (id, out) = watch(&mut hand, cursor);
        let (updates, next) = news(&out, id).unwrap();
        assert!(updates.len() <= share::WATCH_BATCH + 1, "{}", updates.len());
        told.extend(updates.into_iter().filter_map(|update| match update {
            TreeUpdate::Entry { path, .. } => Some(path),
            _ => None,
        }));
        cursor = next;
        rounds += 1;
    }
    assert!(rounds >= 4);
    let before = told.len();
    told.dedup();
    assert_eq!((told.len(), told.is_sorted()), (before, true));
}

#[test]
fn a_renamed_directory_restarts_a_listing_that_is_under_way() {
    let mut hand = Hand::new(Config { watch_batch: 3, ..Config::default() });
    for (name, inode) in [("d", 1), ("e", 2)] {
        hand.found(name, SeenKind::Dir, 0o755, 1, (inode, 1));
    }
    for name in 0..9 {
        file(&mut hand, &format!("e/{name}"), name + 10);
    }
    let (id, out) = watch(&mut hand, WatchCursor::default());
    let (_, cursor) = news(&out, id).unwrap();
    // What moves from behind the listing to before it would never be told.
    hand.give(Input::Observed(Observation::Moved { from: path("e"), to: path("b") }));
    let (id, out) = watch(&mut hand, cursor);
    let (updates, _) = news(&out, id).unwrap();
    assert!(matches!(updates[0], TreeUpdate::Begin { .. }), "{updates:?}");
}

#[test]
fn a_file_that_becomes_a_directory_under_the_cursor_comes_by_its_events() {
    let mut hand = Hand::new(Config { watch_batch: 3, ..Config::default() });
    for name in ["a", "b", "c", "d"] {
        file(&mut hand, name, 1);
    }
    let (id, out) = watch(&mut hand, WatchCursor::default());
    let (updates, cursor) = news(&out, id).unwrap();
    let TreeUpdate::Entry { path: last, .. } = updates.last().unwrap() else { panic!() };
    let last = last.to_string();
    hand.found(&last, SeenKind::Dir, 0o755, 2, (50, 2));
    file(&mut hand, &format!("{last}/x"), 3);
    let (id, out) = watch(&mut hand, cursor);
    let (updates, _) = news(&out, id).unwrap();
    let below = |update: &TreeUpdate| matches!(update, TreeUpdate::Entry { path, .. } if path.names().len() > 1);
    assert!(!updates.iter().any(below), "it was told to be a file: {updates:?}");
}

/// Events that have left the log while a listing was made cannot be told after it.
#[test]
fn a_listing_that_was_outrun_by_the_log_begins_anew() {
    let mut hand = Hand::new(Config { watch_batch: 3, event_log: 4, ..Config::default() });
    for name in 0..6 {
        file(&mut hand, &format!("f{name}"), name + 1);
    }
    let (id, out) = watch(&mut hand, WatchCursor::default());
    let (_, cursor) = news(&out, id).unwrap();
    for version in 10..16 {
        file(&mut hand, "f0", version);
    }
    let (id, out) = watch(&mut hand, cursor);
    let (updates, _) = news(&out, id).unwrap();
    assert!(matches!(updates[0], TreeUpdate::Begin { .. }), "{updates:?}");
}

#[test]
fn a_position_that_never_was_is_listed_to() {
    let mut hand = Hand::new(Config::default());
    file(&mut hand, "a", 1);
    for position in [Position { epoch: 1, seq: 2 }, Position { epoch: 9, seq: 1 }, Position { epoch: 1, seq: u64::MAX }]
    {
        let (id, out) = watch(&mut hand, WatchCursor::at(position));
        assert!(matches!(news(&out, id).unwrap().0[0], TreeUpdate::Begin { .. }));
    }
}

#[test]
fn peers_read_what_is_there_in_the_version_that_they_name() {
    let mut hand = Hand::new(Config::default());
    let out = file(&mut hand, "a", 1);
    hand.found("d", SeenKind::Dir, 0o755, 1, (5, 1));
    let record = Hand::notices(&out).into_iter().find_map(|notice| match notice {
        Notice::Announced { record, .. } => record.clone(),
        _ => None,
    });
    let record = record.unwrap();
    let record::Kind::File { stamp, .. } = record.kind else { panic!() };
    let open = |at: &str, stamp| Request::PeerOpen { peer: PEER, path: path(at), stamp };
    let Ok(Reply::PeerOpened(served)) = hand.ask_now(open("a", stamp)) else { panic!() };
    assert_eq!((served.size_bytes, served.facts.inode), (1, 1));
    assert_eq!(hand.ask_now(open("a", record::Stamp(1))), Err(Errno::Stale));
    assert_eq!(hand.ask_now(open("b", stamp)), Err(Errno::NoEntry));
    assert_eq!(hand.ask_now(open("d", stamp)), Err(Errno::NoEntry));
}

#[test]
fn what_we_have_from_a_peer_is_not_ours_to_serve_or_to_tell() {
    let mut hand = Hand::following(Config::default(), &[("a", 1), ("b", 1)]);
    let request = Request::PeerOpen { peer: PEER, path: path("a"), stamp: record::Stamp(1) };
    assert_eq!(hand.ask_now(request), Err(Errno::NoEntry));
    hand.found("own", SeenKind::File { size_bytes: 1 }, 0o644, 1, (1, 1));
    let request = Request::PeerWatch { peer: PEER, cursor: WatchCursor::at(Position::default()) };
    let Ok(Reply::Watched { updates, .. }) = hand.ask_now(request) else { panic!() };
    let told: Vec<String> = updates
        .iter()
        .filter_map(|update| match update {
            TreeUpdate::Entry { path, .. } => Some(path.to_string()),
            TreeUpdate::Begin { .. }
            | TreeUpdate::End { .. }
            | TreeUpdate::Event { .. }
            | TreeUpdate::Removed { .. }
            | TreeUpdate::Skip { .. } => None,
        })
        .collect();
    assert_eq!(told, ["", "own"], "the root is ours as well");
}
