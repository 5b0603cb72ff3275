//! The end is prompt: everybody is answered, everything is cancelled, nothing begins.

use crate::CHUNK;
use core::time::Duration;
use farshore_engine::testing::{Hand, path};
use farshore_engine::*;

#[test]
fn everybody_who_waits_is_answered() {
    let mut hand = Hand::following(Config::default(), &[("a", 9 * CHUNK)]);
    hand.found("own", SeenKind::File { size_bytes: 1 }, 0o644, 1, (1, 1));
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, 10);
    let (all, more) = hand.ask(Request::FetchAll { handle });
    let cursor = input::WatchCursor::at(hand.engine.view().position());
    // Told that this is all there is, it waits for more.
    let told = hand.ask_now(Request::PeerWatch { peer: Hand::PEER, cursor });
    let Ok(Reply::Watched { cursor, .. }) = told else { panic!("{told:?}") };
    let (watch, _) = hand.ask(Request::PeerWatch { peer: Hand::PEER, cursor: cursor.clone() });
    let mut fetches = Hand::fetches(&out);
    fetches.extend(Hand::fetches(&more));
    let out = hand.give(Input::Command(Command::Shutdown));
    assert_eq!(Hand::reply(&out, read), Some(Err(Errno::Io)));
    assert_eq!(Hand::reply(&out, all), Some(Err(Errno::Io)));
    assert_eq!(Hand::reply(&out, watch), Some(Ok(Reply::Watched { updates: vec![], cursor })));
    let cancelled = Hand::cancelled(&out);
    assert!(fetches.iter().all(|fetch| cancelled.contains(&fetch.effect)) && cancelled.contains(&hand.watch));
    assert!(out.iter().any(|output| matches!(output, Output::Effect(_, Effect::HangUp { .. }))));
    assert_eq!(hand.engine.next_timer(), None);
    for fetch in &fetches {
        assert!(hand.fail(fetch, FetchError::Cancelled).is_empty());
    }
    assert!(hand.give(Input::Done(hand.watch, Done::WatchEnded)).is_empty());
    assert_eq!(hand.engine.view().running(), 0);
}

#[test]
fn nothing_new_begins_after_it() {
    let mut hand = Hand::following(Config::default(), &[("a", 9 * CHUNK)]);
    let handle = hand.open("a");
    hand.give(Input::Command(Command::Shutdown));
    assert_eq!(hand.ask_now(Request::Read { handle, offset: 0, len: 10 }), Err(Errno::Io));
    assert_eq!(hand.ask_now(Request::FetchAll { handle }), Err(Errno::Io));
    let watch = Request::PeerWatch { peer: Hand::PEER, cursor: input::WatchCursor::default() };
    assert!(hand.ask_now(watch).is_ok());
    assert!(hand.give(Input::Command(Command::Follow { peer: PeerId([1; 32]) })).is_empty());
    assert!(hand.give(Input::Command(Command::NetworkChanged)).is_empty());
    assert!(hand.pass(Duration::from_secs(100)).is_empty());
    assert!(hand.ask_now(Request::Release { handle }).is_ok());
    assert!(hand.engine.view().resolve(&path("a")).is_some(), "names are still answered");
}

/// A cancelled dial may still end well: that connection would never be closed.
#[test]
fn a_connection_that_is_made_in_spite_of_it_is_hung_up() {
    let mut hand = Hand::new(Config::default());
    let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    let [Output::Effect(dial, Effect::Dial { link, peer })] = out[..] else { panic!("{out:?}") };
    let out = hand.give(Input::Command(Command::Shutdown));
    assert_eq!(Hand::cancelled(&out), [dial]);
    let out = hand.give(Input::Done(dial, Done::Dialed(Ok(()))));
    assert!(
        matches!(out[..], [Output::Effect(_, Effect::HangUp { link: l, peer: p })] if (l, p) == (link, peer)),
        "{out:?}"
    );
    assert!(hand.give(Input::Peer(peer, PeerEvent::LinkDown { link })).is_empty());
    assert_eq!(hand.engine.next_timer(), None);
}
