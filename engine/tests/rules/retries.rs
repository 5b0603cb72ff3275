//! A fetch that fails is tried again, later each time, five times in a row without progress, per reader.

use crate::{CHUNK, FRAME};
use core::time::Duration;
use farshore_engine::testing::{FetchSeen, Hand, Pair, Spoil};
use farshore_engine::*;

fn waiting_read(hand: &mut Hand, at: &str) -> (ReqId, FetchSeen) {
    let handle = hand.open(at);
    let (read, out) = hand.read(handle, 0, 4096);
    (read, Hand::fetches(&out).remove(0))
}

/// Lets time pass until something is fetched again. Returns how long that took.
fn next_attempt(hand: &mut Hand) -> (Duration, FetchSeen) {
    let before = hand.now;
    loop {
        let out = hand.pass(Duration::from_millis(1));
        if let Some(fetch) = Hand::fetches(&out).into_iter().next() {
            return (hand.now - before, fetch);
        }
        assert!(hand.now - before < Duration::from_secs(10), "it is never tried again");
    }
}

#[test]
fn five_attempts_and_then_eio() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (read, mut fetch) = waiting_read(&mut hand, "a");
    let mut waits = Vec::new();
    for _ in 1..5 {
        let out = hand.fail(&fetch, FetchError::StreamLost);
        assert_eq!(Hand::reply(&out, read), None);
        let (wait, next) = next_attempt(&mut hand);
        waits.push(wait);
        fetch = next;
    }
    let out = hand.fail(&fetch, FetchError::StreamLost);
    assert_eq!(Hand::reply(&out, read), Some(Err(Errno::Io)));
    assert!(Hand::notices(&out).iter().any(|n| matches!(n, Notice::FetchFailed { chunk: 0, .. })), "{out:?}");
    let whole = [100, 200, 400, 800].map(Duration::from_millis);
    for (wait, whole) in waits.iter().zip(whole) {
        let tick = Duration::from_millis(1);
        assert!(whole / 2 <= *wait && *wait <= whole + tick, "waited {wait:?} of {whole:?}");
    }
}

#[test]
fn progress_gives_the_attempts_back() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, CHUNK as u32);
    let mut fetch = Hand::fetches(&out).remove(0);
    for frame in 0..4 {
        for _ in 1..5 {
            let out = hand.fail(&fetch, FetchError::StreamLost);
            assert_eq!(Hand::reply(&out, read), None, "frame {frame}");
            fetch = next_attempt(&mut hand).1;
        }
        let out = hand.arrive(fetch.effect, frame..frame + 1);
        assert_eq!(Hand::reply(&out, read).is_some(), frame == 3);
    }
}

#[test]
fn an_end_that_brought_nothing_counts_as_a_failure() {
    let mut hand = Hand::following(Config { max_retries: 1, ..Config::default() }, &[("a", CHUNK)]);
    let (read, fetch) = waiting_read(&mut hand, "a");
    let out = hand.give(Input::Done(fetch.effect, Done::Fetched(Ok(()))));
    assert_eq!(Hand::reply(&out, read), Some(Err(Errno::Io)));
    let fault = FetchError::Fault(PeerFault::TooLittle);
    assert!(Hand::notices(&out).iter().any(|n| matches!(n, Notice::FetchFailed { error, .. } if *error == fault)));
}

#[test]
fn one_readers_failures_do_not_use_up_anothers() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (first, mut fetch) = waiting_read(&mut hand, "a");
    for _ in 1..5 {
        hand.fail(&fetch, FetchError::StreamLost);
        fetch = next_attempt(&mut hand).1;
    }
    // Four attempts have failed when the second reader comes.
    let handle = hand.open("a");
    let (second, out) = hand.read(handle, 0, 10);
    assert!(Hand::fetches(&out).is_empty());
    let out = hand.fail(&fetch, FetchError::StreamLost);
    assert_eq!(Hand::reply(&out, first), Some(Err(Errno::Io)));
    assert_eq!(Hand::reply(&out, second), None, "it has four left");
    let (_, fetch) = next_attempt(&mut hand);
    let out = hand.arrive(fetch.effect, 0..1);
    assert!(matches!(Hand::reply(&out, second), Some(Ok(_))));
}

#[test]
fn a_failure_of_one_file_is_nothing_to_another() {
    let mut hand = Hand::following(Config { max_retries: 1, ..Config::default() }, &[("a", CHUNK), ("b", CHUNK)]);
    let (a, fetch_a) = waiting_read(&mut hand, "a");
    let (b, fetch_b) = waiting_read(&mut hand, "b");
    let out = hand.fail(&fetch_a, FetchError::OwnerIo);
    assert_eq!(Hand::reply(&out, a), Some(Err(Errno::Io)));
    assert_eq!(Hand::cancelled(&out), []);
    let out = hand.arrive(fetch_b.effect, 0..1);
    assert!(matches!(Hand::reply(&out, b), Some(Ok(_))));
}

/// A stream that ends takes all its chunks with it: that is one misfortune for each of them, not many for one reader.
#[test]
fn a_lost_stream_costs_a_reader_of_many_chunks_one_attempt() {
    let mut hand = Hand::following(Config::default(), &[("a", 40 * CHUNK)]);
    let handle = hand.open("a");
    let (all, out) = hand.ask(Request::FetchAll { handle });
    let fetches = Hand::fetches(&out);
    assert!(fetches.len() > 20);
    for fetch in &fetches {
        let out = hand.fail(fetch, FetchError::StreamLost);
        assert_eq!(Hand::reply(&out, all), None, "chunk {} failed once", fetch.chunk);
    }
    let out = hand.pass(Duration::from_millis(200));
    assert_eq!(Hand::fetches(&out).len(), fetches.len(), "each is tried again");
}

#[test]
fn wrong_bytes_are_fetched_again() {
    for spoil in [Spoil::Hash, Spoil::Range, Spoil::TooLittle, Spoil::Refuse(FetchError::OwnerIo)] {
        let mut pair = Pair::new(&[("a", CHUNK)]);
        let handle = pair.open("a");
        pair.spoils.push_back(spoil);
        assert!(pair.read_now(handle, 0, CHUNK as u32).unwrap() == pair.owner_bytes("a"), "{spoil:?}");
        assert_eq!(pair.hosts[Pair::FOLLOWER].engine.view().totals().failed_fetches, 1, "{spoil:?}");
        pair.settle();
    }
}

#[test]
fn a_fetch_that_brings_nothing_stalls_and_is_begun_again() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (read, fetch) = waiting_read(&mut hand, "a");
    let out = hand.pass(Duration::from_millis(9_999));
    assert!(Hand::cancelled(&out).is_empty());
    let out = hand.pass(Duration::from_millis(200));
    assert_eq!(Hand::cancelled(&out), [fetch.effect], "ten seconds are enough");
    let again = Hand::fetches(&out).remove(0);
    assert!(hand.arrive(fetch.effect, 0..1).is_empty(), "the first one is out of the game");
    let out = hand.arrive(again.effect, 0..1);
    assert!(matches!(Hand::reply(&out, read), Some(Ok(_))));
}

#[test]
fn a_fetch_does_not_stall_while_those_before_it_get_on() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK), ("b", CHUNK)]);
    let (_, first) = waiting_read(&mut hand, "a");
    let (_, second) = waiting_read(&mut hand, "b");
    for frame in 0..4 {
        let out = hand.pass(Duration::from_secs(7));
        assert!(Hand::cancelled(&out).is_empty(), "{out:?}");
        hand.arrive(first.effect, frame..frame + 1);
    }
    assert!(hand.engine.wants(second.effect));
}

#[test]
fn a_read_ends_at_its_deadline_whatever_happens() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (read, fetch) = waiting_read(&mut hand, "a");
    // Frames that the reader does not need keep the fetch going.
    let mut fetch = fetch;
    for second in 0..30 {
        let out = hand.pass(Duration::from_millis(999));
        assert_eq!(Hand::reply(&out, read), None, "second {second}");
        if let Some(again) = Hand::fetches(&out).into_iter().next() {
            fetch = again;
        }
    }
    let out = hand.pass(Duration::from_millis(30));
    assert_eq!(Hand::reply(&out, read), Some(Err(Errno::Io)));
    assert!(fetch.frames.contains(&0) && FRAME > 0);
}
