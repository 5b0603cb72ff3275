//! While the peer is away, reads of what is missing wait or fail, and what is here is served.

use crate::{CHUNK, FRAME};
use core::time::Duration;
use farshore_engine::testing::{Hand, Pair, path};
use farshore_engine::*;

fn failing() -> Config {
    Config { on_disconnect: OnDisconnect::Fail, ..Config::default() }
}

#[test]
fn a_read_goes_on_at_the_missing_frames_when_the_link_is_back() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, CHUNK as u32);
    let fetch = Hand::fetches(&out).remove(0);
    hand.arrive(fetch.effect, 0..3);
    let out = hand.lose_link(std::slice::from_ref(&fetch));
    assert_eq!(Hand::reply(&out, read), None, "it waits");
    let out = hand.pass(Duration::from_millis(500));
    let out = hand.connect(&out);
    let again = Hand::fetches(&out);
    assert_eq!((again.len(), again[0].frames.clone()), (1, 3..4));
    let out = hand.arrive(again[0].effect, 3..4);
    assert!(matches!(Hand::reply(&out, read), Some(Ok(_))));
}

#[test]
fn a_lost_link_costs_no_attempt() {
    let config = Config { max_retries: 1, ..Config::default() };
    let mut hand = Hand::following(config, &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, 10);
    let mut fetches = Hand::fetches(&out);
    for _ in 0..10 {
        let out = hand.lose_link(&fetches);
        assert_eq!(Hand::reply(&out, read), None);
        let out = hand.pass(Duration::from_millis(250));
        let out = if out.is_empty() { hand.pass(Duration::from_secs(1)) } else { out };
        let out = hand.connect(&out);
        hand.tell(vec![]);
        fetches = Hand::fetches(&out);
        assert_eq!(fetches.len(), 1);
    }
}

#[test]
fn fetches_that_hear_of_the_lost_link_first_wait_as_well() {
    let config = Config { max_retries: 1, ..Config::default() };
    let mut hand = Hand::following(config, &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, 10);
    let fetch = Hand::fetches(&out).remove(0);
    let out = hand.fail(&fetch, FetchError::LinkLost);
    assert_eq!(Hand::reply(&out, read), None);
    hand.lose_link(&[]);
    let out = hand.pass(Duration::from_millis(500));
    let out = hand.connect(&out);
    assert_eq!(Hand::fetches(&out).len(), 1);
}

#[test]
fn a_link_that_stays_down_ends_a_waiting_read_at_its_deadline() {
    let mut pair = Pair::new(&[("a", CHUNK)]);
    let handle = pair.open("a");
    pair.cut();
    pair.drive_for(Duration::from_secs(1));
    let asked = pair.now;
    assert_eq!(pair.read_now(handle, 0, 10), Err(Errno::Io));
    assert_eq!(pair.now - asked, Config::default().read_timeout);
    pair.heal();
    pair.drive_for(Duration::from_secs(6));
    assert_eq!(pair.read_now(handle, 0, 10).unwrap(), pair.owner_bytes("a")[..10]);
    pair.settle();
}

#[test]
fn a_link_that_comes_back_in_time_is_waited_for() {
    let mut pair = Pair::new(&[("a", 6 * CHUNK)]);
    let handle = pair.open("a");
    let read = pair.read(handle, 0, 6 * CHUNK as u32);
    pair.drive_for(Duration::from_millis(8));
    assert_eq!(pair.answer(read), None, "the cut comes in the middle");
    pair.cut();
    pair.drive_for(Duration::from_secs(20));
    assert_eq!(pair.answer(read), None);
    pair.heal();
    pair.drive_for(Duration::from_secs(8));
    assert!(pair.answer(read).unwrap().unwrap() == pair.owner_bytes("a"));
    pair.settle();
}

#[test]
fn with_fail_reads_end_at_once_while_the_peer_is_known_to_be_away() {
    let mut hand = Hand::following(failing(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, 10);
    let fetches = Hand::fetches(&out);
    let (all, _) = hand.ask(Request::FetchAll { handle });
    let out = hand.lose_link(&fetches);
    assert_eq!(Hand::reply(&out, read), Some(Err(Errno::Io)));
    assert_eq!(Hand::reply(&out, all), Some(Err(Errno::Io)));
    assert_eq!(hand.ask_now(Request::Read { handle, offset: 0, len: 10 }), Err(Errno::Io));
}

#[test]
fn what_is_here_is_served_while_the_peer_is_away() {
    for config in [Config::default(), failing()] {
        let mut pair = Pair::with(config, &[("a", 3 * CHUNK)]);
        let handle = pair.open("a");
        let bytes = pair.owner_bytes("a");
        pair.read_now(handle, CHUNK, 4096).unwrap();
        pair.drive();
        pair.cut();
        pair.drive_for(Duration::from_secs(1));
        let read = pair.read(handle, CHUNK, CHUNK as u32);
        assert!(pair.answer(read).unwrap().unwrap() == bytes[CHUNK as usize..2 * CHUNK as usize], "at once");
    }
}

#[test]
fn names_and_attributes_are_answered_while_the_peer_is_away() {
    let mut pair = Pair::new(&[("d/a", 10)]);
    pair.cut();
    pair.drive_for(Duration::from_secs(60));
    let attr = pair.lookup(Pair::FOLLOWER, &path("d/a")).unwrap();
    assert_eq!(attr.size_bytes, 10);
    assert_eq!(pair.list(Pair::FOLLOWER, Ino::ROOT, 4096, true).unwrap().len(), 3);
}

#[test]
fn a_link_on_which_nothing_comes_is_as_good_as_none() {
    let mut pair = Pair::new(&[("a", CHUNK)]);
    let handle = pair.open("a");
    pair.hold(Pair::OWNER, Pair::FOLLOWER);
    let asked = pair.now;
    assert_eq!(pair.read_now(handle, 0, 10), Err(Errno::Io));
    assert!(pair.now - asked <= Config::default().read_timeout);
    pair.heal();
    pair.settle();
}

#[test]
fn a_fetch_that_was_stuck_is_begun_again_for_the_next_reader() {
    let config = Config { stall_timeout: Duration::from_secs(600), ..Config::default() };
    let mut hand = Hand::following(config, &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, FRAME as u32);
    let fetch = Hand::fetches(&out).remove(0);
    let out = hand.pass(Duration::from_secs(30));
    assert_eq!(Hand::reply(&out, read), Some(Err(Errno::Io)));
    assert_eq!(Hand::cancelled(&out), [fetch.effect]);
    let out = hand.pass(Duration::from_secs(2));
    let again = Hand::fetches(&out).remove(0);
    let (next, _) = hand.read(handle, 0, FRAME as u32);
    let out = hand.arrive(again.effect, 0..1);
    assert!(matches!(Hand::reply(&out, next), Some(Ok(_))));
}

/// The kernel reads ahead and asks again for what that did not bring: that is one read to whoever waits for it.
#[test]
fn a_read_that_is_repeated_at_once_has_failed_already() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    hand.lose_link(&[]);
    hand.read(handle, 0, 10);
    hand.pass(Duration::from_secs(30));
    assert_eq!(hand.ask_now(Request::Read { handle, offset: 0, len: 10 }), Err(Errno::Io));
    hand.pass(Duration::from_secs(1));
    let (read, out) = hand.read(handle, 0, 10);
    assert_eq!(Hand::reply(&out, read), None, "a second later it is another one");
}

#[test]
fn new_bytes_are_not_what_a_read_has_just_failed_with() {
    let mut hand = Hand::following(Config { max_retries: 1, ..Config::default() }, &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (_, out) = hand.read(handle, 0, 10);
    hand.fail(&Hand::fetches(&out)[0], FetchError::Stale);
    hand.put("a", testing::file_record(CHUNK, 2), false);
    let (_, out) = hand.read(handle, 0, 10);
    assert_eq!(Hand::fetches(&out).len(), 1);
}

#[test]
fn other_bytes_of_a_file_that_has_just_failed_are_waited_for() {
    let mut hand = Hand::following(Config::default(), &[("a", 8 * CHUNK)]);
    let handle = hand.open("a");
    hand.lose_link(&[]);
    hand.read(handle, 0, 10);
    hand.pass(Duration::from_secs(30));
    let (read, out) = hand.read(handle, 4 * CHUNK, 10);
    assert_eq!(Hand::reply(&out, read), None);
}

#[test]
fn an_owner_that_came_back_may_first_tell_what_it_has_now() {
    let mut hand = Hand::following(Config { max_retries: 1, ..Config::default() }, &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, 10);
    let lost = Hand::fetches(&out);
    hand.lose_link(&lost);
    let redial = hand.pass(Duration::from_secs(1));
    let connected = hand.connect(&redial);
    let refused = hand.fail(&Hand::fetches(&connected)[0], FetchError::Stale);
    assert_eq!(Hand::reply(&refused, read), None, "what we asked for is what was there before");
    hand.tell(vec![TreeUpdate::Begin { position: Position { epoch: 2, seq: 0 } }]);
    hand.tell(vec![Hand::entry("a", testing::file_record(CHUNK, 2))]);
    let out = hand.tell(vec![TreeUpdate::End { settled: 0 }]);
    let mut all = out;
    all.extend(hand.pass(Duration::from_secs(1)));
    assert_eq!(Hand::reply(&all, read), None);
}

#[test]
fn an_owner_that_came_back_and_says_nothing_has_no_news() {
    let mut hand = Hand::following(Config { max_retries: 1, ..Config::default() }, &[("a", CHUNK)]);
    let handle = hand.open("a");
    hand.lose_link(&[]);
    let redial = hand.pass(Duration::from_secs(1));
    hand.connect(&redial);
    hand.pass(Duration::from_secs(5));
    let (read, out) = hand.read(handle, 0, 10);
    let refused = hand.fail(&Hand::fetches(&out)[0], FetchError::Gone);
    assert_eq!(Hand::reply(&refused, read), Some(Err(Errno::Stale)));
}

/// A link that comes and goes may be there for less time than a retry waits.
#[test]
fn what_failed_is_tried_again_at_once_over_a_new_connection() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, 10);
    let mut fetch = Hand::fetches(&out)[0].clone();
    for _ in 0..3 {
        let out = hand.give(Input::Done(fetch.effect, Done::Fetched(Err(FetchError::StreamLost))));
        assert!(Hand::fetches(&out).is_empty(), "it waits before it tries again");
        let link = hand.link;
        let out = hand.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
        let dialled =
            |out: &[Output]| out.iter().any(|output| matches!(output, Output::Effect(_, Effect::Dial { .. })));
        let out = if dialled(&out) { out } else { hand.give(Input::Command(Command::NetworkChanged)) };
        let out = hand.connect(&out);
        fetch = Hand::fetches(&out).first().unwrap_or_else(|| panic!("nothing is asked for: {out:?}")).clone();
        assert!(fetch.urgent);
    }
    assert!(Hand::reply(&hand.bring(&fetch), read).is_some_and(|reply| reply.is_ok()));
}
