//! A peer that is away is called again for ever, less and less often, and at once when the network may be back.

use crate::CHUNK;
use core::time::Duration;
use farshore_engine::testing::Hand;
use farshore_engine::*;

fn dial(out: &[Output]) -> Option<EffectId> {
    out.iter().find_map(|output| match output {
        Output::Effect(id, Effect::Dial { .. }) => Some(*id),
        _ => None,
    })
}

fn refused(hand: &mut Hand, dial: EffectId) -> Vec<Output> {
    hand.give(Input::Done(dial, Done::Dialed(Err(DialError::Unreachable))))
}

/// A follower whose first dial was refused.
fn hand() -> Hand {
    let mut hand = Hand::new(Config::default());
    let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    let first = dial(&out).unwrap();
    refused(&mut hand, first);
    hand
}

#[test]
fn it_never_gives_up_and_waits_up_to_five_seconds() {
    let mut hand = hand();
    let mut waits = Vec::new();
    for _ in 0..200 {
        let (at, timer) = hand.engine.next_timer().unwrap();
        assert_eq!(timer, Timer::Redial(Hand::PEER));
        waits.push(at - hand.now);
        let out = hand.pass(at - hand.now);
        let again = dial(&out).unwrap();
        refused(&mut hand, again);
    }
    assert!(waits[0] <= Duration::from_millis(200), "{:?}", waits[0]);
    let last = &waits[20..];
    assert!(last.iter().all(|wait| (2_500..=5_000).contains(&wait.as_millis())), "{last:?}");
}

#[test]
fn whatever_the_reason_it_is_tried_again() {
    for error in [DialError::Unreachable, DialError::Denied, DialError::Incompatible] {
        let mut hand = Hand::new(Config::default());
        let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
        let out = hand.give(Input::Done(dial(&out).unwrap(), Done::Dialed(Err(error))));
        assert!(Hand::notices(&out).contains(&&Notice::DialFailed { peer: Hand::PEER, error }));
        assert!(dial(&hand.pass(Duration::from_secs(1))).is_some());
    }
}

#[test]
fn the_network_may_be_back() {
    let mut hand = hand();
    for _ in 0..10 {
        let out = hand.pass(Duration::from_secs(5));
        let again = dial(&out).unwrap();
        refused(&mut hand, again);
    }
    let out = hand.give(Input::Command(Command::NetworkChanged));
    assert!(dial(&out).is_some(), "at once");
    let out = hand.give(Input::Command(Command::NetworkChanged));
    assert!(out.is_empty(), "one call is enough");
}

#[test]
fn an_attempt_that_was_under_way_when_the_network_came_back_is_followed_by_another_one_soon() {
    let mut hand = hand();
    let mut out = Vec::new();
    for _ in 0..10 {
        if let Some(again) = dial(&out) {
            refused(&mut hand, again);
        }
        out = hand.pass(Duration::from_secs(5));
    }
    hand.give(Input::Command(Command::NetworkChanged));
    refused(&mut hand, dial(&out).unwrap());
    assert!(dial(&hand.pass(Duration::from_millis(200))).is_some());
}

#[test]
fn a_peer_that_can_be_reached_is_dialled_at_once_and_nobody_else_is() {
    const OTHER: PeerId = PeerId([7; 32]);
    let reachable = |peer| Input::Peer(peer, PeerEvent::Reachable);
    let mut hand = hand();
    let out = hand.give(Input::Command(Command::Follow { peer: OTHER }));
    refused(&mut hand, dial(&out).unwrap());
    for _ in 0..20 {
        let out = hand.pass(Duration::from_secs(5));
        let dialled: Vec<EffectId> = out
            .iter()
            .filter_map(|output| match output {
                Output::Effect(id, Effect::Dial { .. }) => Some(*id),
                _ => None,
            })
            .collect();
        assert_eq!(dialled.len(), 2);
        dialled.into_iter().for_each(|dial| drop(refused(&mut hand, dial)));
    }
    let out = hand.give(reachable(Hand::PEER));
    assert!(matches!(out[..], [Output::Effect(_, Effect::Dial { peer: Hand::PEER, .. })]), "{out:?}");
    assert!(hand.give(reachable(Hand::PEER)).is_empty(), "one call is enough");
    hand.connect(&out);
    assert!(hand.give(reachable(Hand::PEER)).is_empty(), "it is connected");
    assert!(hand.give(reachable(PeerId([8; 32]))).is_empty(), "nobody follows that one");
    assert!(dial(&hand.give(reachable(OTHER))).is_some());
}

#[test]
fn a_peer_that_could_be_reached_a_moment_too_late_is_dialled_again_soon() {
    let mut hand = hand();
    for _ in 0..20 {
        let out = hand.pass(Duration::from_secs(5));
        refused(&mut hand, dial(&out).unwrap());
    }
    let mut out = hand.pass(Duration::from_secs(5));
    for _ in 0..2 {
        assert!(hand.give(Input::Peer(Hand::PEER, PeerEvent::Reachable)).is_empty(), "it is being dialled");
        refused(&mut hand, dial(&out).unwrap());
        out = hand.pass(Duration::from_millis(200));
    }
    hand.connect(&out);
    // It is told before the end of the connection that the new one replaces.
    assert!(hand.give(Input::Peer(Hand::PEER, PeerEvent::Reachable)).is_empty(), "it is connected");
    hand.lose_link(&[]);
    assert!(dial(&hand.pass(Duration::from_millis(200))).is_some());
}

#[test]
fn nobody_is_dialled_after_the_end() {
    let mut hand = hand();
    hand.give(Input::Command(Command::Shutdown));
    assert!(hand.give(Input::Peer(Hand::PEER, PeerEvent::Reachable)).is_empty());
}

#[test]
fn a_connection_over_which_news_came_begins_the_waits_anew() {
    let mut hand = hand();
    for _ in 0..10 {
        let out = hand.pass(Duration::from_secs(5));
        let again = dial(&out).unwrap();
        refused(&mut hand, again);
    }
    let out = hand.pass(Duration::from_secs(5));
    hand.connect(&out);
    hand.list(&[]);
    hand.lose_link(&[]);
    assert!(dial(&hand.pass(Duration::from_millis(200))).is_some());
}

#[test]
fn a_connection_over_which_nothing_came_does_not() {
    let mut hand = hand();
    for _ in 0..10 {
        let out = hand.pass(Duration::from_secs(5));
        hand.connect(&out);
        hand.lose_link(&[]);
    }
    assert!(dial(&hand.pass(Duration::from_secs(2))).is_none());
    assert!(dial(&hand.pass(Duration::from_secs(3))).is_some());
}

#[test]
fn a_connection_over_which_bytes_came_begins_the_waits_anew() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (_, out) = hand.read(handle, 0, CHUNK as u32);
    let mut fetches = Hand::fetches(&out);
    // A link that is cut again and again moves a little each time, and there is nothing new to tell.
    for frame in 0..3 {
        hand.arrive(fetches[0].effect, frame..frame + 1);
        hand.lose_link(&fetches);
        let out = hand.pass(Duration::from_millis(200));
        assert!(dial(&out).is_some(), "after cut {frame}");
        fetches = Hand::fetches(&hand.connect(&out));
    }
}

#[test]
fn a_watch_that_ends_ends_the_connection() {
    let mut hand = Hand::following(Config::default(), &[]);
    let out = hand.give(Input::Done(hand.watch, Done::WatchEnded));
    assert!(out.iter().any(|output| matches!(output, Output::Effect(_, Effect::HangUp { .. }))));
    assert!(Hand::notices(&out).contains(&&Notice::LinkDown { peer: Hand::PEER }));
    assert!(dial(&hand.pass(Duration::from_secs(1))).is_some());
}

#[test]
fn a_peer_is_followed_once() {
    let mut hand = Hand::following(Config::default(), &[]);
    assert!(hand.give(Input::Command(Command::Follow { peer: Hand::PEER })).is_empty());
}
