//! A sequential reader is run ahead of, within bounds, and only while it reads.

use crate::{CHUNK, KIB};
use farshore_engine::testing::{Hand, Pair};
use farshore_engine::*;

fn ahead_bytes(hand: &Hand, running: &[testing::FetchSeen]) -> u64 {
    let wanted = running.iter().filter(|fetch| !fetch.urgent && hand.engine.wants(fetch.effect));
    wanted.map(|fetch| u64::from(fetch.frames.end - fetch.frames.start) * crate::FRAME).sum()
}

#[test]
fn a_sequential_reader_never_waits_for_a_chunk_that_could_have_been_fetched() {
    let mut hand = Hand::following(Config::default(), &[("a", 64 * CHUNK)]);
    let handle = hand.open("a");
    hand.read(handle, 0, 128 * KIB as u32);
    let (_, out) = hand.read(handle, 128 * KIB, 128 * KIB as u32);
    let ahead: Vec<u64> = Hand::fetches(&out).iter().map(|fetch| fetch.chunk).collect();
    assert_eq!(ahead, [1]);
}

#[test]
fn what_nobody_waits_for_is_bounded_in_all() {
    let config = Config { ahead_bytes: 4 * CHUNK, read_ahead_chunks: 64, ..Config::default() };
    let mut hand = Hand::following(config, &[("a", 640 * CHUNK), ("b", 640 * CHUNK)]);
    let (a, b) = (hand.open("a"), hand.open("b"));
    let mut running = Vec::new();
    for block in 0..200 {
        for handle in [a, b] {
            let (_, out) = hand.read(handle, block * 256 * KIB, 256 * KIB as u32);
            running.extend(Hand::fetches(&out));
            let ahead = ahead_bytes(&hand, &running);
            // The one that reaches the limit may go over it.
            assert!(ahead < 5 * CHUNK, "{ahead} bytes that nobody waits for are under way");
        }
    }
    assert!(ahead_bytes(&hand, &running) >= 4 * CHUNK, "the limit is made use of");
}

#[test]
fn it_stops_when_the_file_is_closed() {
    let mut hand = Hand::following(Config { ahead_bytes: CHUNK, ..Config::default() }, &[("a", 64 * CHUNK)]);
    let handle = hand.open("a");
    let mut running = Vec::new();
    for block in 0..8 {
        running.extend(Hand::fetches(&hand.read(handle, block * 256 * KIB, 256 * KIB as u32).1));
    }
    let (_, out) = hand.ask(Request::Release { handle });
    let cancelled = Hand::cancelled(&out);
    assert_eq!(cancelled.len(), running.len());
    assert!(running.iter().all(|fetch| !hand.engine.wants(fetch.effect)));
    for fetch in &running {
        let out = hand.fail(fetch, FetchError::Cancelled);
        assert!(Hand::fetches(&out).is_empty(), "nothing of it is left in a queue");
    }
    assert_eq!(hand.engine.view().running(), 1, "only the watch is left");
}

#[test]
fn a_probe_costs_the_chunk_that_it_touches() {
    let mut pair = Pair::new(&[("a", 200 * CHUNK)]);
    let handle = pair.open("a");
    for probe in [150, 3, 77, 120, 8] {
        pair.read_now(handle, probe * CHUNK + 5, 4096).unwrap();
    }
    pair.drive();
    let ino = pair.lookup(Pair::FOLLOWER, &testing::path("a")).unwrap().ino;
    assert_eq!(pair.hosts[Pair::FOLLOWER].engine.view().content(ino).unwrap().have_chunks, 5);
}

#[test]
fn what_is_queued_and_then_read_is_fetched_at_once() {
    let config = Config { ahead_bytes: CHUNK, ..Config::default() };
    let mut hand = Hand::following(config, &[("a", 64 * CHUNK)]);
    let handle = hand.open("a");
    for block in 0..16 {
        hand.read(handle, block * 256 * KIB, 256 * KIB as u32);
    }
    let (_, out) = hand.read(handle, 16 * 256 * KIB, 4096);
    let fetches = Hand::fetches(&out);
    assert_eq!((fetches[0].chunk, fetches[0].urgent), (8, true), "it does not wait for its turn: {fetches:?}");
}

#[test]
fn a_file_with_new_bytes_is_run_ahead_of_anew() {
    let mut hand = Hand::following(Config::default(), &[("a", 64 * CHUNK)]);
    let handle = hand.open("a");
    hand.read(handle, 0, 4 * CHUNK as u32);
    let (_, out) = hand.read(handle, 4 * CHUNK, 8 * CHUNK as u32);
    assert_eq!(Hand::fetches(&out).last().unwrap().chunk, 27);
    hand.put("a", testing::file_record(64 * CHUNK, 2), false);
    hand.read(handle, 12 * CHUNK, CHUNK as u32);
    let (_, out) = hand.read(handle, 13 * CHUNK, CHUNK as u32);
    let ahead: Vec<u64> = Hand::fetches(&out).iter().filter(|fetch| !fetch.urgent).map(|fetch| fetch.chunk).collect();
    assert_eq!(ahead, [14, 15], "of the new bytes, nothing of that is here");
}

#[test]
fn what_somebody_waits_for_overtakes_what_nobody_does() {
    let mut hand = Hand::following(Config::default(), &[("a", 200 * CHUNK)]);
    let handle = hand.open("a");
    let mut running = Vec::new();
    for block in 0..80 {
        running.extend(Hand::fetches(&hand.read(handle, block * 256 * KIB, 256 * KIB as u32).1));
    }
    let far = running.iter().rev().find(|fetch| !fetch.urgent).unwrap().clone();
    let other = hand.open("a");
    let (_, out) = hand.read(other, far.chunk * CHUNK, 4096);
    let again = Hand::fetches(&out);
    assert!(again[0].urgent && again[0].chunk == far.chunk && again[0].frames == (0..4), "{again:?}");
    assert!(Hand::cancelled(&out).contains(&far.effect));
}

#[test]
fn a_reader_that_catches_up_with_its_read_ahead_asks_for_nothing_twice() {
    let mut hand = Hand::following(Config::default(), &[("a", 200 * CHUNK)]);
    let handle = hand.open("a");
    hand.read(handle, 0, 256 * KIB as u32);
    let ahead = Hand::fetches(&hand.read(handle, 256 * KIB, 256 * KIB as u32).1);
    assert!(ahead.iter().any(|fetch| fetch.chunk == 1 && !fetch.urgent));
    let (_, out) = hand.read(handle, CHUNK, 256 * KIB as u32);
    assert!(Hand::cancelled(&out).is_empty());
    assert!(Hand::fetches(&out).iter().all(|fetch| fetch.chunk > 1));
}
