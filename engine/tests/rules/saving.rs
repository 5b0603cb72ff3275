//! What is stored is written down in time, and nobody is asked to do it more often than is of use.

use crate::CHUNK;
use core::time::Duration;
use farshore_engine::testing::{Hand, Pair};
use farshore_engine::*;

fn saves(out: &[Output]) -> Vec<(EffectId, Vec<ContentId>)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Effect(id, Effect::Save { contents }) => Some((*id, contents.clone())),
            _ => None,
        })
        .collect()
}

/// Reads one chunk, and has it stored.
fn store_chunk(hand: &mut Hand, handle: Handle, chunk: u64) -> Vec<Output> {
    let (_, out) = hand.read(handle, chunk * CHUNK, 10);
    let mut all = Vec::new();
    for fetch in Hand::fetches(&out) {
        let out = hand.bring(&fetch);
        for (store, _) in Hand::stores(&out) {
            all.extend(hand.give(Input::Done(store, Done::Stored(Ok(())))));
        }
    }
    all
}

fn hand() -> (Hand, Handle) {
    let config = Config { read_ahead_chunks: 0, ..Config::default() };
    let mut hand = Hand::following(config, &[("a", 40 * CHUNK), ("b", CHUNK)]);
    let handle = hand.open("a");
    (hand, handle)
}

#[test]
fn chunks_are_saved_together_within_a_second() {
    let (mut hand, handle) = hand();
    let mut out = Vec::new();
    for chunk in 0..10 {
        out.extend(store_chunk(&mut hand, handle, chunk));
        out.extend(hand.pass(Duration::from_millis(50)));
    }
    assert!(saves(&out).is_empty());
    let out = hand.pass(Duration::from_millis(500));
    assert_eq!(saves(&out).len(), 1);
    assert!(saves(&hand.pass(Duration::from_secs(20))).is_empty(), "there is nothing more to be saved");
}

#[test]
fn a_slow_disk_is_asked_once_at_a_time() {
    let (mut hand, handle) = hand();
    store_chunk(&mut hand, handle, 0);
    let first = saves(&hand.pass(Duration::from_secs(1)));
    for chunk in 1..5 {
        store_chunk(&mut hand, handle, chunk);
        assert!(saves(&hand.pass(Duration::from_secs(3))).is_empty());
    }
    hand.give(Input::Done(first[0].0, Done::Saved(Ok(()))));
    assert_eq!(saves(&hand.pass(Duration::from_secs(1))).len(), 1);
}

#[test]
fn a_close_and_a_lost_connection_are_saved_at_once() {
    let (mut hand, handle) = hand();
    store_chunk(&mut hand, handle, 0);
    hand.ask(Request::Release { handle });
    assert_eq!(saves(&hand.pass(Duration::from_millis(100))).len(), 1, "closed");
    let (mut hand, handle) = self::hand();
    store_chunk(&mut hand, handle, 0);
    let link = hand.link;
    hand.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
    assert_eq!(saves(&hand.pass(Duration::from_millis(100))).len(), 1, "disconnected");
}

#[test]
fn what_could_not_be_saved_is_saved_later() {
    let (mut hand, handle) = hand();
    store_chunk(&mut hand, handle, 0);
    let first = saves(&hand.pass(Duration::from_secs(1)));
    let out = hand.give(Input::Done(first[0].0, Done::Saved(Err(StoreError::NoSpace))));
    assert!(Hand::notices(&out).contains(&&Notice::SaveFailed { error: StoreError::NoSpace }));
    let again = saves(&hand.pass(Config::default().retry_cap));
    assert_eq!(again[0].1, first[0].1);
}

#[test]
fn a_content_that_is_gone_is_not_saved() {
    let mut pair = Pair::new(&[("a", CHUNK)]);
    let handle = pair.open("a");
    pair.read_now(handle, 0, 10).unwrap();
    pair.release(Pair::FOLLOWER, handle).unwrap();
    pair.let_go(Pair::FOLLOWER);
    pair.remove("a");
    pair.drive();
    pair.settle();
}
