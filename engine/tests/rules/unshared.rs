//! A file that its owner removes while it is open keeps what is here of it, and what the owner still keeps of it.

use crate::CHUNK;
use farshore_engine::testing::{Hand, Pair, path};
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
    hand.event(event::Change::Remove { path: path("a") });
    hand.ask_now(Request::Release { handle }).unwrap();
    let out = hand.give(Input::Forget { ino, lookups: 1 });
    assert!(out.iter().any(|output| matches!(output, Output::Effect(_, Effect::Discard { .. }))));
    assert_eq!(hand.engine.view().contents().count(), 0);
}

#[test]
fn a_file_that_was_opened_and_never_read_before_it_was_removed_is_estale() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    hand.event(event::Change::Remove { path: path("a") });
    assert_eq!(hand.ask_now(Request::Read { handle, offset: 0, len: 10 }), Err(Errno::Stale));
    assert_eq!(hand.ask_now(Request::FetchAll { handle }), Err(Errno::Stale));
}

#[test]
fn a_file_in_a_removed_directory_is_asked_for_where_it_was() {
    let mut hand = Hand::following(Config::default(), &[]);
    hand.put("d", testing::dir_record(), false);
    hand.put("d/a", testing::file_record(2 * CHUNK, 1), false);
    let handle = hand.open("d/a");
    hand.read(handle, 0, 10);
    hand.event(event::Change::Rename { from: path("d"), to: path("e"), record: testing::dir_record() });
    hand.event(event::Change::Remove { path: path("e") });
    let (_, out) = hand.read(handle, CHUNK, 10);
    assert_eq!(Hand::fetches(&out)[0].path, "e/a");
}
