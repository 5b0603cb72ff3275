//! A peer that is followed no longer is hung up on, and what it had is had from others.

use core::time::Duration;
use farshore_engine::testing::{Hand, file_record, path, revision};
use farshore_engine::*;

const OTHER: PeerId = PeerId([7; 32]);

fn unfollow(hand: &mut Hand) -> Vec<Output> {
    hand.give(Input::Command(Command::Unfollow { peer: Hand::PEER }))
}

fn is_followed(hand: &Hand) -> bool {
    hand.engine.view().peers().any(|peer| peer.peer == Hand::PEER)
}

fn hangs_up(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Effect(_, Effect::HangUp { peer: Hand::PEER, .. })))
}

#[test]
fn it_is_hung_up_on_and_not_dialled_until_it_is_followed_again() {
    let mut hand = Hand::following(Config::default(), &[]);
    let out = unfollow(&mut hand);
    assert!(hangs_up(&out) && Hand::notices(&out).contains(&&Notice::LinkDown { peer: Hand::PEER }));
    assert!(!is_followed(&hand));
    hand.give(Input::Done(hand.watch, Done::WatchEnded));
    assert!(hand.pass(Duration::from_secs(600)).is_empty());
    assert!(unfollow(&mut hand).is_empty(), "once is enough");
    let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    hand.connect(&out);
    assert!(is_followed(&hand));
}

#[test]
fn it_does_not_matter_whether_it_is_waited_for_or_being_dialled() {
    for is_refused in [false, true] {
        let mut hand = Hand::new(Config::default());
        let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
        let [Output::Effect(dial, Effect::Dial { .. })] = out[..] else { panic!("{out:?}") };
        if is_refused {
            hand.give(Input::Done(dial, Done::Dialed(Err(DialError::Unreachable))));
        }
        let out = unfollow(&mut hand);
        assert_eq!(Hand::cancelled(&out).len(), usize::from(!is_refused));
        if !is_refused {
            // It answered in that moment.
            let out = hand.give(Input::Done(dial, Done::Dialed(Ok(()))));
            assert!(hangs_up(&out) && out.len() == 1, "{out:?}");
        }
        assert!(hand.pass(Duration::from_secs(600)).is_empty());
    }
}

#[test]
fn what_it_was_to_send_is_asked_of_somebody_else() {
    let config = Config { keeps_folder: true, fetches_all: true, ..Config::default() };
    let mut hand = Hand::following(config, &[]);
    let out = hand.give(Input::Command(Command::Follow { peer: OTHER }));
    hand.connect(&out);
    let to_other = hand.link;
    let asked = |out: &[Output]| {
        let fetches = out.iter().filter_map(|output| match output {
            Output::Effect(_, Effect::Fetch { peer, .. }) => Some(*peer),
            _ => None,
        });
        fetches.collect::<Vec<_>>()
    };
    let updates = [
        TreeUpdate::Begin { position: Position { epoch: 1, seq: 0 } },
        Hand::entry("f", file_record(10, 1)),
        TreeUpdate::End { settled: 0 },
    ];
    let put = |at, record| Change::Put { path: path(at), record, revision: revision(), replaced: false };
    let out = hand.give(Input::Peer(OTHER, PeerEvent::Tree { link: to_other, updates: updates.into() }));
    assert_eq!(asked(&out), [Hand::PEER], "who made it has it for sure");
    let out = unfollow(&mut hand);
    assert_eq!(asked(&out), [OTHER]);
    // So is what only it has told of.
    let update = TreeUpdate::Event { seq: 1, change: put("g", file_record(10, 2)) };
    let out = hand.give(Input::Peer(OTHER, PeerEvent::Tree { link: to_other, updates: vec![update] }));
    assert_eq!(asked(&out), [OTHER]);
}
