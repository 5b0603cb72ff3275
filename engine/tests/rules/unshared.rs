//! A file that its owner removes while it is open keeps what is here of it, and what the owner still keeps of it.

use crate::CHUNK;
use core::time::Duration;
use farshore_engine::record::Stamp;
use farshore_engine::testing::{Hand, LEASE_GRACE, Pair, path};
use farshore_engine::*;

#[test]
fn its_name_is_gone_at_once_and_what_is_here_stays_readable() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK)]);
    let handle = pair.open("a");
    let bytes = pair.owner_bytes("a");
    pair.read_now(handle, 0, 4096).unwrap();
    pair.drive();
    pair.remove("a");
    pair.drive();
    assert_eq!(pair.world.open(Pair::FOLLOWER, &path("a")), Err(Errno::NoEntry));
    assert!(pair.read_now(handle, 0, CHUNK as u32).unwrap() == bytes[..CHUNK as usize]);
    pair.settle();
}

#[test]
fn parts_that_were_never_read_come_from_an_owner_that_keeps_the_file_open() {
    let mut pair = Pair::new(&[("a", 4 * CHUNK)]);
    let handle = pair.open("a");
    let bytes = pair.owner_bytes("a");
    pair.read_now(handle, 0, 4096).unwrap();
    pair.remove("a");
    pair.drive();
    assert!(pair.read_now(handle, 3 * CHUNK, CHUNK as u32).unwrap() == bytes[3 * CHUNK as usize..]);
    pair.settle();
}

#[test]
fn parts_that_the_owner_does_not_keep_are_estale_after_the_retries() {
    let mut pair = Pair::new(&[("a", 4 * CHUNK)]);
    pair.leases = false;
    let handle = pair.open("a");
    pair.read_now(handle, 0, 4096).unwrap();
    pair.drive();
    pair.remove("a");
    pair.drive();
    let asked = pair.now;
    assert_eq!(pair.read_now(handle, 3 * CHUNK, 10), Err(Errno::Stale));
    let took = pair.now - asked;
    assert!(took.as_millis() >= 750, "it was tried again before it was given up: {took:?}");
    assert!(pair.read_now(handle, 0, 10).is_ok(), "what is here still is");
    pair.settle();
}

#[test]
fn its_content_is_let_go_of_when_nobody_knows_it_any_more() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (handle, ino) = (hand.open("a"), hand.ino("a"));
    let (_, out) = hand.read(handle, 0, 10);
    hand.bring(&Hand::fetches(&out)[0]);
    hand.event(testing::removed("a"));
    hand.ask_now(Request::Release { handle }).unwrap();
    let out = hand.give(Input::Forget { ino, lookups: 1 });
    assert!(out.iter().any(|output| matches!(output, Output::Effect(_, Effect::Discard { .. }))));
    assert_eq!(hand.engine.view().contents().count(), 0);
}

#[test]
fn a_file_that_was_opened_and_never_read_before_it_was_removed_is_read_all_the_same() {
    let mut pair = Pair::new(&[("a", 4 * CHUNK)]);
    let bytes = pair.owner_bytes("a");
    let handle = pair.open("a");
    pair.drive();
    pair.remove("a");
    pair.drive();
    assert!(pair.read_now(handle, CHUNK, CHUNK as u32).unwrap() == bytes[CHUNK as usize..2 * CHUNK as usize]);
    pair.settle();
}

#[test]
fn one_that_was_renamed_over_is_read_to_its_end_through_the_handle_that_is_open() {
    let mut pair = Pair::new(&[("a", 4 * CHUNK), ("b", CHUNK)]);
    let bytes = pair.owner_bytes("a");
    let handle = pair.open("a");
    pair.drive();
    pair.rename("b", "a");
    pair.drive();
    assert!(pair.read_now(handle, 3 * CHUNK, CHUNK as u32).unwrap() == bytes[3 * CHUNK as usize..]);
    pair.settle();
}

#[test]
fn the_owner_keeps_it_over_a_lost_connection_and_not_for_ever() {
    let mut pair = Pair::new(&[("a", 4 * CHUNK)]);
    let bytes = pair.owner_bytes("a");
    let handle = pair.open("a");
    pair.drive();
    pair.cut();
    pair.remove("a");
    pair.drive_for(LEASE_GRACE / 2);
    pair.heal();
    pair.drive_for(Duration::from_secs(20));
    assert!(pair.read_now(handle, 0, CHUNK as u32).unwrap() == bytes[..CHUNK as usize]);
    pair.cut();
    pair.drive_for(LEASE_GRACE);
    pair.heal();
    pair.drive_for(Duration::from_secs(20));
    assert_eq!(pair.read_now(handle, CHUNK, 10), Err(Errno::Stale));
    assert!(pair.read_now(handle, 10, 10).unwrap() == bytes[10..20], "what is here still is");
    pair.settle();
}

/// The files that `out` asks to have kept readable.
fn leased(out: &[Output]) -> Vec<(String, Stamp)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Effect(_, Effect::OpenStreams { wanted, .. }) => Some((wanted.path.to_string(), wanted.stamp)),
            _ => None,
        })
        .collect()
}

/// Opens a file that the kernel knows.
fn open(hand: &mut Hand, ino: Ino) -> (Handle, Vec<Output>) {
    let (id, out) = hand.ask(Request::Open { ino, write: false, whole_from: None });
    match Hand::reply(&out, id) {
        Some(Ok(Reply::Opened(opened))) => (opened.handle, out),
        other => panic!("{other:?}"),
    }
}

fn closes(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Effect(_, Effect::CloseStreams { .. })))
}

#[test]
fn a_lease_is_taken_at_the_first_open_and_ends_with_the_last_release() {
    let mut hand = Hand::following(Config::default(), &[("a", 2 * CHUNK), ("empty", 0)]);
    let (ino, empty) = (hand.ino("a"), hand.ino("empty"));
    let (first, out) = open(&mut hand, ino);
    assert_eq!(leased(&out), [("a".into(), Stamp(1))]);
    let (second, out) = open(&mut hand, ino);
    assert_eq!(leased(&out), [], "it is held already");
    let (_, out) = open(&mut hand, empty);
    assert_eq!(leased(&out), [], "there is nothing to be kept");
    let (_, out) = hand.read(first, 0, 10);
    assert_eq!(leased(&out), [], "the fetch uses the same stream");
    assert!(!closes(&hand.ask(Request::Release { handle: first }).1));
    assert!(closes(&hand.ask(Request::Release { handle: second }).1));
}

#[test]
fn a_complete_file_needs_no_lease() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let ino = hand.ino("a");
    let (handle, _) = open(&mut hand, ino);
    let (_, out) = hand.read(handle, 0, 10);
    let out = hand.bring(&Hand::fetches(&out)[0]);
    let store = out.iter().find_map(|output| match output {
        Output::Effect(id, Effect::Store { .. }) => Some(*id),
        _ => None,
    });
    let stored = hand.give(Input::Done(store.unwrap(), Done::Stored(Ok(()))));
    assert!(closes(&stored), "all of it is here");
    hand.ask_now(Request::Release { handle }).unwrap();
    assert_eq!(leased(&open(&mut hand, ino).1), []);
}

#[test]
fn leases_are_taken_again_for_what_is_open_when_the_owner_is_back() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK), ("b", CHUNK), ("c", CHUNK)]);
    let (a, b, c) = (hand.ino("a"), hand.ino("b"), hand.ino("c"));
    open(&mut hand, a);
    let (closed, _) = open(&mut hand, b);
    hand.ask_now(Request::Release { handle: closed }).unwrap();
    let link = hand.link;
    hand.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
    assert_eq!(leased(&open(&mut hand, c).1), [], "there is nobody to ask");
    let dials = hand.pass(Duration::from_secs(1));
    let back = hand.connect(&dials);
    assert_eq!(leased(&back), [("a".into(), Stamp(1)), ("c".into(), Stamp(1))]);
}

#[test]
fn what_is_edited_while_it_is_open_is_leased_anew() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let ino = hand.ino("a");
    open(&mut hand, ino);
    let out = hand.put("a", testing::file_record(CHUNK, 2), false);
    assert_eq!(leased(&out), [("a".into(), Stamp(2))]);
    assert!(out.iter().any(|output| matches!(output, Output::Effect(_, Effect::Discard { .. }))), "the old one is not");
}

#[test]
fn a_file_in_a_removed_directory_is_asked_for_where_it_was() {
    let mut hand = Hand::following(Config::default(), &[]);
    hand.put("d", testing::dir_record(), false);
    hand.put("d/a", testing::file_record(2 * CHUNK, 1), false);
    let handle = hand.open("d/a");
    hand.read(handle, 0, 10);
    hand.event(testing::renamed("d", "e", testing::dir_record()));
    hand.event(testing::removed("e"));
    let (_, out) = hand.read(handle, CHUNK, 10);
    assert_eq!(Hand::fetches(&out)[0].path, "e/a");
}

#[test]
fn a_file_that_was_empty_when_it_was_opened_is_kept_when_it_has_bytes() {
    let mut hand = Hand::following(Config::default(), &[("a", 0)]);
    hand.open("a");
    let out = hand.put("a", farshore_engine::testing::file_record(3 * CHUNK, 2), false);
    assert!(out.iter().any(|output| matches!(output, Output::Effect(_, Effect::OpenStreams { .. }))), "{out:?}");
}
