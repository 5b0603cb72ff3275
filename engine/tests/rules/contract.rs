//! What a driver does wrong panics at once: it is a bug, and a test must trip over it.

use crate::CHUNK;
use farshore_engine::chunk::FrameSet;
use farshore_engine::testing::{FetchSeen, Hand};
use farshore_engine::*;

fn fetching() -> (Hand, FetchSeen) {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (_, out) = hand.read(handle, 2 * crate::FRAME, 10);
    (hand, Hand::fetches(&out).remove(0))
}

#[test]
#[should_panic(expected = "time went back")]
fn time_that_goes_back() {
    let mut engine = Engine::new(Config::default(), 1, Time::from_millis(5));
    engine.step(Time::from_millis(4), Input::Tick, &mut Vec::new());
}

#[test]
#[should_panic(expected = "was used before")]
fn a_request_number_that_comes_again() {
    let mut engine = Engine::new(Config::default(), 1, Time::ZERO);
    for _ in 0..2 {
        let request = Request::GetAttr { ino: Ino::ROOT };
        engine.step(Time::ZERO, Input::Request(ReqId(1), request), &mut Vec::new());
    }
}

#[test]
#[should_panic(expected = "it was not running")]
fn the_end_of_an_effect_that_never_began() {
    let mut hand = Hand::new(Config::default());
    hand.give(Input::Done(EffectId(77), Done::WatchEnded));
}

#[test]
#[should_panic(expected = "it was not running")]
fn the_second_end_of_an_effect() {
    let (mut hand, fetch) = fetching();
    hand.fail(&fetch, FetchError::StreamLost);
    hand.fail(&fetch, FetchError::StreamLost);
}

#[test]
#[should_panic(expected = "but it was Fetch")]
fn the_end_of_another_kind_of_effect() {
    let (mut hand, fetch) = fetching();
    hand.give(Input::Done(fetch.effect, Done::WatchEnded));
}

#[test]
#[should_panic(expected = "not asked for")]
fn frames_that_were_not_asked_for() {
    let (mut hand, fetch) = fetching();
    assert_eq!(fetch.frames, 2..4);
    hand.give(Input::Arrived(fetch.effect, FrameSet::span(0, 1)));
}

#[test]
#[should_panic(expected = "frames arrived for effect")]
fn frames_after_the_end() {
    let (mut hand, fetch) = fetching();
    hand.fail(&fetch, FetchError::StreamLost);
    hand.arrive(fetch.effect, 2..3);
}

#[test]
fn a_tick_too_many_changes_nothing() {
    let (mut hand, _) = fetching();
    let timer = hand.engine.next_timer();
    for _ in 0..10 {
        assert!(hand.give(Input::Tick).is_empty());
    }
    assert_eq!(hand.engine.next_timer(), timer);
}
