//! Every open has its own handle; a handle that is not open is an error, never a guess.

use farshore_engine::testing::{Hand, dir_record};
use farshore_engine::*;

#[test]
fn two_opens_are_two_handles_and_one_release_leaves_the_other() {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    let (first, second) = (hand.open("a"), hand.open("a"));
    assert_ne!(first, second);
    let ino = hand.ino("a");
    assert_eq!(hand.engine.view().open_count(ino), 2);
    assert_eq!(hand.ask_now(Request::Release { handle: first }), Ok(Reply::Released));
    assert_eq!(hand.engine.view().open_count(ino), 1);
    let (_, out) = hand.read(second, 0, 10);
    assert_eq!(Hand::fetches(&out).len(), 1, "the other handle still reads");
}

#[test]
fn an_unknown_handle_is_an_error() {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    let handle = Handle(77);
    assert_eq!(hand.ask_now(Request::Read { handle, offset: 0, len: 1 }), Err(Errno::BadHandle));
    assert_eq!(hand.ask_now(Request::Release { handle }), Err(Errno::BadHandle));
    assert_eq!(hand.ask_now(Request::FetchAll { handle }), Err(Errno::BadHandle));
}

#[test]
fn a_released_handle_is_unknown_and_is_released_once() {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    let handle = hand.open("a");
    hand.ask_now(Request::Release { handle }).unwrap();
    assert_eq!(hand.ask_now(Request::Read { handle, offset: 0, len: 1 }), Err(Errno::BadHandle));
    assert_eq!(hand.ask_now(Request::Release { handle }), Err(Errno::BadHandle));
    assert!(hand.open("a") > handle, "and is never given out again");
}

#[test]
fn only_files_are_opened_and_only_for_reading() {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    hand.put("d", dir_record(), false);
    let (file, dir) = (hand.ino("a"), hand.ino("d"));
    assert_eq!(hand.ask_now(Request::Open { ino: file, write: true, whole_from: None }), Err(Errno::ReadOnly));
    assert_eq!(hand.ask_now(Request::Open { ino: dir, write: false, whole_from: None }), Err(Errno::IsDir));
    assert_eq!(hand.ask_now(Request::Open { ino: Ino(9_999), write: false, whole_from: None }), Err(Errno::Stale));
}

#[test]
fn a_read_that_waits_ends_when_its_handle_is_released_and_its_fetch_is_given_up() {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, 10);
    let fetch = Hand::fetches(&out).remove(0);
    let (_, out) = hand.ask(Request::Release { handle });
    assert_eq!(Hand::reply(&out, read), Some(Err(Errno::Io)));
    assert_eq!(Hand::cancelled(&out), [fetch.effect]);
    assert!(hand.fail(&fetch, FetchError::Cancelled).is_empty());
}

/// A table that keeps something of every file that anybody has looked at grows for as long as the mount lives.
#[test]
fn what_was_opened_and_of_which_nothing_is_stored_is_forgotten() {
    let mut hand = Hand::following(Config::default(), &[("opened", 10), ("begun", 10), ("refused", 10), ("empty", 0)]);
    let opened = hand.open("opened");
    hand.ask_now(Request::Release { handle: opened }).unwrap();

    let begun = hand.open("begun");
    let (_, out) = hand.read(begun, 0, 10);
    let fetch = Hand::fetches(&out).remove(0);
    hand.ask(Request::Release { handle: begun });
    hand.fail(&fetch, FetchError::Cancelled);

    let refused = hand.open("refused");
    let (_, out) = hand.read(refused, 0, 10);
    let store = Hand::stores(&hand.bring(&Hand::fetches(&out).remove(0)))[0].0;
    hand.ask(Request::Release { handle: refused });
    hand.give(Input::Done(store, Done::Stored(Err(StoreError::Io))));

    let empty = hand.open("empty");
    assert!(matches!(hand.ask_now(Request::FetchAll { handle: empty }), Ok(Reply::Fetched(_))));
    hand.ask_now(Request::Release { handle: empty }).unwrap();

    let left: Vec<_> = hand.engine.view().contents().map(|content| content.path.to_string()).collect();
    assert!(left.is_empty(), "remembered for ever: {left:?}");
}
