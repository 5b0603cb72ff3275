//! Frames in memory are let go of when they are stored, or when nobody will complete them; never before.

use crate::{CHUNK, FRAME};
use farshore_engine::testing::{FetchSeen, Hand};
use farshore_engine::*;

fn dropped(out: &[Output]) -> Vec<u64> {
    out.iter()
        .filter_map(|output| match output {
            Output::Effect(_, Effect::DropFrames { chunk, .. }) => Some(*chunk),
            _ => None,
        })
        .collect()
}

#[test]
fn half_a_chunk_is_dropped_when_its_last_reader_goes() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (one, other) = (hand.open("a"), hand.open("a"));
    let (_, out) = hand.read(one, 0, 4096);
    let fetch = Hand::fetches(&out).remove(0);
    hand.arrive(fetch.effect, 0..2);
    let (_, out) = hand.ask(Request::Release { handle: one });
    assert!(dropped(&out).is_empty(), "somebody still has it open");
    let (_, out) = hand.ask(Request::Release { handle: other });
    assert_eq!(dropped(&out), [0]);
    assert_eq!(Hand::cancelled(&out), [fetch.effect]);
    assert!(!hand.engine.wants(fetch.effect), "what comes now is not to be kept");
    assert!(hand.arrive(fetch.effect, 2..3).is_empty());
}

#[test]
fn a_chunk_that_is_being_stored_is_not_dropped() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (handle, ino) = (hand.open("a"), hand.ino("a"));
    let (_, out) = hand.read(handle, 0, 4096);
    let fetch = Hand::fetches(&out).remove(0);
    let store = Hand::stores(&hand.bring(&fetch))[0].0;
    let (_, out) = hand.ask(Request::Release { handle });
    assert!(dropped(&out).is_empty());
    hand.give(Input::Done(store, Done::Stored(Ok(()))));
    assert_eq!(hand.engine.view().content(ino).unwrap().have_chunks, 1);
}

#[test]
fn new_bytes_drop_the_old_frames_before_the_content() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (_, out) = hand.read(handle, 0, 4096);
    let fetch = Hand::fetches(&out).remove(0);
    hand.arrive(fetch.effect, 0..1);
    let out = hand.put("a", testing::file_record(CHUNK, 2), false);
    assert_eq!(dropped(&out), [0]);
    assert!(out.iter().any(|output| matches!(output, Output::Effect(_, Effect::Discard { .. }))));
    assert_eq!(Hand::cancelled(&out), [fetch.effect]);
}

/// Another reader's patience ends, but the frames of the chunk that somebody else has and waits with stay.
#[test]
fn frames_that_a_waiting_read_counts_on_stay_when_another_reader_gives_up() {
    let config = Config { max_retries: 1, ..Config::default() };
    let mut hand = Hand::following(config, &[("a", 2 * CHUNK)]);
    let (one, other) = (hand.open("a"), hand.open("a"));
    // Frame 3 of chunk 0 and frame 0 of chunk 1.
    let (spanning, out) = hand.read(one, CHUNK - 10, 20);
    let fetches = Hand::fetches(&out);
    let last = fetches.iter().find(|fetch| (fetch.chunk, fetch.frames.start) == (0, 3)).unwrap();
    let next = fetches.iter().find(|fetch| fetch.chunk == 1).unwrap();
    let rest = fetches.iter().find(|fetch| (fetch.chunk, fetch.frames.start) == (0, 0)).unwrap();
    hand.arrive(last.effect, 3..4);
    let (first, _) = hand.read(other, 0, 4096);
    let out = hand.fail(rest, FetchError::StreamLost);
    assert_eq!(Hand::reply(&out, first), Some(Err(Errno::Io)), "it had one attempt");
    assert!(dropped(&out).is_empty(), "frame 3 is needed");
    let out = hand.arrive(next.effect, 0..1);
    assert!(matches!(Hand::reply(&out, spanning), Some(Ok(Reply::Read(_)))), "{out:?}");
}

#[test]
fn what_has_arrived_is_not_asked_for_again() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (_, out) = hand.read(handle, 0, FRAME as u32 * 3);
    let fetch = Hand::fetches(&out).remove(0);
    hand.arrive(fetch.effect, 0..2);
    hand.fail(&fetch, FetchError::StreamLost);
    let out = hand.pass(Config::default().retry_cap);
    let again: Vec<FetchSeen> = Hand::fetches(&out);
    assert_eq!((again.len(), again[0].frames.clone()), (1, 2..4));
}

/// The simulator met this one: after a reconnect the rest of the first chunk has to wait for its turn, and the read needs
/// nothing of it but what is in memory.
#[test]
fn frames_in_memory_are_waited_with_while_their_chunk_has_to_wait() {
    let mut hand = Hand::following(Config { ahead_bytes: 0, ..Config::default() }, &[("a", 2 * CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, CHUNK - 10, 20);
    let begun = Hand::fetches(&out);
    let end_of_first = begun.iter().find(|fetch| (fetch.chunk, &fetch.frames) == (0, &(3..4))).unwrap();
    hand.arrive(end_of_first.effect, 3..4);
    hand.lose_link(&begun);
    let redial = hand.pass(core::time::Duration::from_secs(1));
    let out = hand.connect(&redial);
    let again = Hand::fetches(&out);
    assert!(again.iter().all(|fetch| fetch.chunk == 1), "{again:?}");
    let out = hand.arrive(again[0].effect, 0..1);
    assert!(matches!(Hand::reply(&out, read), Some(Ok(Reply::Read(_)))), "{out:?}");
}

/// A file whose bytes are counted each time they come would look complete when it is not.
#[test]
fn bytes_that_come_twice_are_counted_once() {
    let mut hand = Hand::following(Config { read_ahead_chunks: 0, ..Config::default() }, &[("a", 2 * CHUNK)]);
    let (handle, ino) = (hand.open("a"), hand.ino("a"));
    for result in [Err(StoreError::Io), Ok(())] {
        let (_, out) = hand.read(handle, 0, CHUNK as u32);
        let fetch = Hand::fetches(&out).remove(0);
        let store = Hand::stores(&hand.bring(&fetch))[0].0;
        hand.give(Input::Done(store, Done::Stored(result)));
    }
    assert_eq!(hand.engine.view().totals().fetched_bytes, 2 * CHUNK);
    let content = hand.engine.view().content(ino).unwrap();
    assert_eq!((content.download.downloaded_bytes(), content.have_chunks), (CHUNK, 1));
    assert!(!content.download.is_complete());
}
