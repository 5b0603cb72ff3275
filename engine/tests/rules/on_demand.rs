//! A read of what is not here fetches what it needs, first of all and once, and is answered as soon as that is here.

use crate::{CHUNK, FRAME, KIB};
use farshore_engine::testing::{Hand, Pair};
use farshore_engine::*;

#[test]
fn the_frames_that_are_needed_come_first_and_the_rest_of_the_chunk_after_them() {
    let mut hand = Hand::following(Config::default(), &[("a", 4 * CHUNK)]);
    let handle = hand.open("a");
    let (_, out) = hand.read(handle, CHUNK + 2 * FRAME, 4096);
    let fetches = Hand::fetches(&out);
    let asked: Vec<_> = fetches.iter().map(|fetch| (fetch.chunk, fetch.frames.clone(), fetch.urgent)).collect();
    assert_eq!(asked, [(1, 2..4, true), (1, 0..2, false)]);
}

#[test]
fn a_read_is_answered_when_its_frames_are_here_before_they_are_stored() {
    let mut hand = Hand::following(Config::default(), &[("a", 4 * CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, 4096);
    let fetch = Hand::fetches(&out).remove(0);
    let out = hand.arrive(fetch.effect, 0..1);
    let Some(Ok(Reply::Read(span))) = Hand::reply(&out, read) else { panic!("{out:?}") };
    assert_eq!((span.offset, span.len), (0, 4096));
    assert!(Hand::stores(&out).is_empty(), "the chunk is not whole yet");
}

#[test]
fn two_readers_of_one_chunk_share_one_fetch() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (one, other) = (hand.open("a"), hand.open("a"));
    let (first, out) = hand.read(one, 0, 4096);
    let fetch = Hand::fetches(&out).remove(0);
    let (second, out) = hand.read(other, 3 * FRAME, 4096);
    assert!(Hand::fetches(&out).is_empty(), "it is on its way");
    let out = hand.arrive(fetch.effect, 0..4);
    assert!(matches!(Hand::reply(&out, first), Some(Ok(_))));
    assert!(matches!(Hand::reply(&out, second), Some(Ok(_))));
}

#[test]
fn a_read_of_four_kib_does_not_make_its_chunk_present() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (_, out) = hand.read(handle, 0, 4096);
    let fetch = Hand::fetches(&out).remove(0);
    hand.arrive(fetch.effect, 0..1);
    let ino = hand.ino("a");
    assert_eq!(hand.engine.view().content(ino).unwrap().have_chunks, 0);
    let (read, out) = hand.read(handle, FRAME, 4096);
    assert_eq!(Hand::reply(&out, read), None, "what has not arrived is waited for");
}

#[test]
fn a_chunk_is_present_only_after_the_store_has_it() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (handle, ino) = (hand.open("a"), hand.ino("a"));
    let (_, out) = hand.read(handle, 0, 4096);
    let fetch = Hand::fetches(&out).remove(0);
    let out = hand.bring(&fetch);
    let stores = Hand::stores(&out);
    assert_eq!(stores.len(), 1);
    assert_eq!(hand.engine.view().content(ino).unwrap().have_chunks, 0, "it is in memory only");
    hand.give(Input::Done(stores[0].0, Done::Stored(Ok(()))));
    assert_eq!(hand.engine.view().content(ino).unwrap().have_chunks, 1);
    let (read, out) = hand.read(handle, 0, CHUNK as u32);
    assert!(matches!(Hand::reply(&out, read), Some(Ok(_))) && Hand::fetches(&out).is_empty());
}

#[test]
fn a_read_that_spans_chunks_waits_for_all_of_them() {
    let mut hand = Hand::following(Config::default(), &[("a", 3 * CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, CHUNK - 10, 20);
    let fetches = Hand::fetches(&out);
    let urgent: Vec<_> = fetches.iter().filter(|fetch| fetch.urgent).collect();
    assert_eq!(
        urgent.iter().map(|fetch| (fetch.chunk, fetch.frames.clone())).collect::<Vec<_>>(),
        [(0, 3..4), (1, 0..4)]
    );
    let out = hand.arrive(urgent[1].effect, 0..1);
    assert_eq!(Hand::reply(&out, read), None);
    let out = hand.arrive(urgent[0].effect, 3..4);
    let Some(Ok(Reply::Read(span))) = Hand::reply(&out, read) else { panic!() };
    assert_eq!((span.offset, span.len), (CHUNK - 10, 20));
}

#[test]
fn reads_end_at_the_end_of_the_file() {
    let mut pair = Pair::new(&[("a", CHUNK + 100), ("empty", 0)]);
    let (handle, empty) = (pair.open("a"), pair.open("empty"));
    let bytes = pair.owner_bytes("a");
    assert_eq!(pair.read_now(handle, CHUNK + 50, 4096).unwrap(), bytes[(CHUNK + 50) as usize..]);
    assert_eq!(pair.read_now(handle, CHUNK + 100, 4096).unwrap(), b"");
    assert_eq!(pair.read_now(handle, u64::MAX, u32::MAX).unwrap(), b"");
    assert_eq!(pair.read_now(empty, 0, 4096).unwrap(), b"");
}

#[test]
fn every_byte_is_the_owners_wherever_it_is_read() {
    let mut pair = Pair::new(&[("d/a", 3 * CHUNK + 1000)]);
    let handle = pair.open("d/a");
    let bytes = pair.owner_bytes("d/a");
    for (offset, len) in [(0, 1), (CHUNK - 1, 2), (3 * CHUNK, 4 * KIB), (FRAME - 7, 300_000), (0, 1 << 20)] {
        let end = (offset + len).min(bytes.len() as u64);
        assert!(pair.read_now(handle, offset, len as u32).unwrap() == bytes[offset as usize..end as usize]);
    }
    pair.settle();
}
