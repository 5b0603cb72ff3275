//! A store that refuses chunks costs no reader a byte; whole files wait until there is room.

use crate::CHUNK;
use core::time::Duration;
use farshore_engine::testing::{Hand, Pair};
use farshore_engine::*;

#[test]
fn reads_are_answered_from_memory_though_the_disk_is_full() {
    let mut pair = Pair::new(&[("a", 3 * CHUNK)]);
    pair.hosts[Pair::FOLLOWER].store_faults = Some((StoreError::NoSpace, u32::MAX));
    let handle = pair.open("a");
    let bytes = pair.owner_bytes("a");
    for offset in [0, 2 * CHUNK, 100, CHUNK + 7] {
        let end = (offset + 200_000).min(3 * CHUNK);
        assert!(pair.read_now(handle, offset, 200_000).unwrap() == bytes[offset as usize..end as usize]);
    }
    pair.drive();
    let follower = &pair.hosts[Pair::FOLLOWER];
    assert_eq!(follower.store.frames_held(), 0, "nobody needs them");
    assert!(follower.engine.view().totals().store_failures > 0);
    pair.settle();
}

#[test]
fn a_chunk_is_not_present_if_the_store_refused_it() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (handle, ino) = (hand.open("a"), hand.ino("a"));
    let (_, out) = hand.read(handle, 0, 10);
    let store = Hand::stores(&hand.bring(&Hand::fetches(&out)[0]))[0].0;
    let out = hand.give(Input::Done(store, Done::Stored(Err(StoreError::Io))));
    assert!(Hand::notices(&out).iter().any(|n| matches!(n, Notice::StoreFailed { error: StoreError::Io, .. })));
    assert!(out.iter().any(|output| matches!(output, Output::Effect(_, Effect::DropFrames { chunk: 0, .. }))));
    assert_eq!(hand.engine.view().content(ino).unwrap().have_chunks, 0);
    let (_, out) = hand.read(handle, 0, 10);
    assert_eq!(Hand::fetches(&out).len(), 1, "it is fetched again");
}

/// A read that spans two chunks has the first in memory when the store refuses it.
#[test]
fn a_refused_chunk_that_a_waiting_read_counts_on_stays_in_memory() {
    let mut hand = Hand::following(Config::default(), &[("a", 2 * CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, 2 * CHUNK as u32);
    let fetches = Hand::fetches(&out);
    let store = Hand::stores(&hand.bring(&fetches[0]))[0].0;
    let out = hand.give(Input::Done(store, Done::Stored(Err(StoreError::NoSpace))));
    assert!(!out.iter().any(|output| matches!(output, Output::Effect(_, Effect::DropFrames { .. }))));
    let out = hand.bring(&fetches[1]);
    assert!(matches!(Hand::reply(&out, read), Some(Ok(Reply::Read(_)))));
    let at = |wanted: fn(&Output) -> bool| out.iter().position(wanted).unwrap();
    let dropped = at(|output| matches!(output, Output::Effect(_, Effect::DropFrames { chunk: 0, .. })));
    assert!(at(|output| matches!(output, Output::Reply(..))) < dropped, "it has been read, and nobody else needs it");
}

#[test]
fn a_whole_file_waits_for_room_and_goes_on() {
    let config = Config { ahead_bytes: 4 * CHUNK, ..Config::default() };
    let mut pair = Pair::with(config, &[("a", 20 * CHUNK)]);
    pair.hosts[Pair::FOLLOWER].store_faults = Some((StoreError::NoSpace, u32::MAX));
    let handle = pair.open("a");
    let all = pair.fetch_all(Pair::FOLLOWER, handle);
    pair.drive_for(Duration::from_secs(20));
    let follower = &mut pair.hosts[Pair::FOLLOWER];
    assert!(follower.kernel.fetches.is_empty(), "it waits");
    assert!(follower.store.frames_held() <= 5 * 4, "{} frames in memory", follower.store.frames_held());
    follower.store_faults = None;
    pair.drive();
    assert!(matches!(pair.hosts[Pair::FOLLOWER].kernel.fetches.get(&all), Some(Ok(_))));
    pair.settle();
}

#[test]
fn a_disk_that_stays_full_is_named_at_the_deadline() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK)]);
    pair.hosts[Pair::FOLLOWER].store_faults = Some((StoreError::NoSpace, u32::MAX));
    let handle = pair.open("a");
    let all = pair.fetch_all(Pair::FOLLOWER, handle);
    pair.drive_for(Duration::from_secs(60));
    assert_eq!(pair.hosts[Pair::FOLLOWER].kernel.fetches.get(&all), Some(&Err(Errno::NoSpace)));
    pair.drive();
    assert_eq!(pair.hosts[Pair::FOLLOWER].store.frames_held(), 0);
}
