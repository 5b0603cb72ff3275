//! What was fetched before is not fetched again: after a restart, after a crash, and after an edit that left most of it.

use crate::CHUNK;
use core::time::Duration;
use farshore_engine::record::Stamp;
use farshore_engine::testing::{Hand, Pair, path};
use farshore_engine::*;

fn fetched(pair: &Pair) -> u64 {
    pair.hosts[Pair::FOLLOWER].engine.view().totals().fetched_bytes
}

fn totals(pair: &Pair) -> view::Totals {
    pair.hosts[Pair::FOLLOWER].engine.view().totals()
}

fn connect(pair: &mut Pair) {
    let listed = |world: &testing::World| world.hosts[Pair::FOLLOWER].engine.view().peers().any(|peer| peer.listed);
    assert!(pair.drive_bounded(Duration::from_secs(60), listed), "the follower is told nothing");
    pair.drive();
}

/// A file of which the first chunks are fetched and saved.
fn partly_fetched(chunks: u64, of: u64) -> Pair {
    let config = Config { read_ahead_chunks: 0, ..Config::default() };
    let mut pair = Pair::with(config, &[("a", of * CHUNK)]);
    let handle = pair.open("a");
    let bytes = pair.read_now(handle, 0, (chunks * CHUNK) as u32).unwrap();
    assert_eq!(bytes.len() as u64, chunks * CHUNK);
    pair.drive();
    pair
}

fn read_whole(pair: &mut Pair) -> Vec<u8> {
    let handle = pair.open("a");
    let size = pair.owner_bytes("a").len();
    pair.read_now(handle, 0, size as u32).unwrap()
}

#[test]
fn after_a_clean_stop_nothing_is_fetched_or_looked_at_again() {
    let mut pair = partly_fetched(3, 8);
    pair.restart_follower(Pair::FOLLOWER, true);
    connect(&mut pair);
    pair.history = Some(Vec::new());
    assert!(read_whole(&mut pair) == pair.owner_bytes("a"));
    assert_eq!(fetched(&pair), 5 * CHUNK);
    assert_eq!(totals(&pair).resumed_bytes, 3 * CHUNK);
    let looks = |output: &Output| matches!(output, Output::Effect(_, Effect::Verify { .. }));
    assert!(!pair.history.take().unwrap().iter().any(|(.., output)| looks(output)));
    pair.settle();
}

#[test]
fn after_a_crash_what_was_saved_is_looked_at_before_it_is_served() {
    let mut pair = partly_fetched(3, 8);
    pair.restart_follower(Pair::FOLLOWER, false);
    connect(&mut pair);
    assert!(read_whole(&mut pair) == pair.owner_bytes("a"));
    let totals = totals(&pair);
    // One in sixteen chunks is damaged by the crash.
    assert_eq!(totals.resumed_bytes + totals.damaged_chunks * CHUNK, 3 * CHUNK);
    assert_eq!(fetched(&pair), 5 * CHUNK + totals.damaged_chunks * CHUNK);
    pair.settle();
}

#[test]
fn what_was_not_saved_before_a_crash_is_fetched_again() {
    let config = Config { save_interval: Duration::from_secs(3600), read_ahead_chunks: 0, ..Config::default() };
    let mut pair = Pair::with(config, &[("a", 4 * CHUNK)]);
    let handle = pair.open("a");
    let bytes = pair.read_now(handle, 0, (3 * CHUNK) as u32).unwrap();
    assert_eq!(bytes.len() as u64, 3 * CHUNK);
    pair.restart_follower(Pair::FOLLOWER, false);
    connect(&mut pair);
    assert!(read_whole(&mut pair) == pair.owner_bytes("a"));
    assert_eq!(fetched(&pair), 4 * CHUNK);
}

#[test]
fn an_edit_that_leaves_chunks_alone_has_only_the_others_fetched() {
    let mut pair = partly_fetched(6, 6);
    let before = fetched(&pair);
    // Every other edit leaves the odd chunks as they were.
    for edit in 1..=4 {
        pair.edit("a", 6 * CHUNK);
        pair.drive();
        assert!(read_whole(&mut pair) == pair.owner_bytes("a"), "edit {edit}");
    }
    let (reused, fetched) = (totals(&pair).resumed_bytes, fetched(&pair) - before);
    assert_eq!(reused + fetched, 4 * 6 * CHUNK);
    assert_eq!(reused, 2 * 3 * CHUNK, "the odd chunks of every other version");
    pair.settle();
}

#[test]
fn an_edit_while_nobody_ran_has_only_what_changed_fetched() {
    for clean in [true, false] {
        let mut pair = partly_fetched(6, 6);
        pair.edit("a", 6 * CHUNK);
        pair.edit("a", 6 * CHUNK);
        pair.drive();
        // The two are versions that share their odd chunks with the one before or behind.
        pair.restart_follower(Pair::FOLLOWER, clean);
        connect(&mut pair);
        assert!(read_whole(&mut pair) == pair.owner_bytes("a"));
        pair.edit("a", 6 * CHUNK);
        pair.restart_follower(Pair::FOLLOWER, clean);
        connect(&mut pair);
        assert!(read_whole(&mut pair) == pair.owner_bytes("a"));
        pair.settle();
    }
}

#[test]
fn a_file_that_grew_or_shrank_keeps_the_chunks_that_are_whole_in_both() {
    for size in [10 * CHUNK, 3 * CHUNK + 5, 6 * CHUNK - 1, 1, 0] {
        let mut pair = partly_fetched(6, 6);
        pair.edit("a", size);
        pair.drive();
        assert!(read_whole(&mut pair) == pair.owner_bytes("a"), "{size}");
        pair.settle();
    }
}

#[test]
fn stored_chunks_are_served_while_the_owner_is_away() {
    for on_disconnect in [OnDisconnect::Wait, OnDisconnect::Fail] {
        let config = Config { on_disconnect, read_ahead_chunks: 0, ..Config::default() };
        let mut pair = Pair::with(config, &[("a", 4 * CHUNK)]);
        let handle = pair.open("a");
        pair.read_now(handle, 0, (2 * CHUNK) as u32).unwrap();
        pair.release(Pair::FOLLOWER, handle).unwrap();
        pair.drive();
        pair.restart_follower(Pair::FOLLOWER, true);
        connect(&mut pair);
        pair.cut();
        let handle = pair.open("a");
        let bytes = pair.owner_bytes("a");
        assert!(pair.read_now(handle, 100, CHUNK as u32).unwrap() == bytes[100..100 + CHUNK as usize]);
        assert_eq!(pair.read_now(handle, 3 * CHUNK, 5), Err(Errno::Io));
        pair.heal();
        pair.settle();
    }
}

/// A follower that opens a file of so many chunks, of which its store holds all, and what follows when that is known.
fn hand_that_holds(chunks: u64, trust: Trust, read: impl FnOnce(&mut Hand, Handle)) -> (Hand, Handle, Vec<Output>) {
    let size_bytes = chunks * CHUNK;
    let mut hand = Hand::new(Config { read_ahead_chunks: 0, ..Config::default() });
    let modified = testing::file_record(size_bytes, 1).modified;
    let identity = ContentIdentity { owner: Hand::PEER, stamp: Stamp(1), size_bytes, modified };
    let held = Held { key: identity.key(), path: path("a"), stored_bytes: size_bytes, last_used: 1 };
    hand.give(Input::Held { held: vec![held], pins: Vec::new() });
    let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    hand.connect(&out);
    hand.list(&[("a", size_bytes)]);
    let ino = hand.ino("a");
    let (open, out) = hand.ask(Request::Open { ino, write: false, whole_from: None });
    let Some(Ok(Reply::Opened(Opened { handle, .. }))) = Hand::reply(&out, open) else { panic!("{out:?}") };
    read(&mut hand, handle);
    let resume = out.iter().find_map(|output| match output {
        Output::Effect(id, Effect::Resume { own: true, base: None, .. }) => Some(*id),
        _ => None,
    });
    let mut bitmap = ChunkBitmap::new(size_bytes).unwrap();
    bitmap.set_range(0, size_bytes);
    let own = Some(Resumed { chunks: bitmap, trust });
    let out = hand.give(Input::Done(resume.unwrap(), Done::Resumed { own, base: None }));
    (hand, handle, out)
}

/// The same with two chunks, and a read that waits already.
fn hand_with_both(trust: Trust) -> (Hand, Handle, ReqId, Vec<Output>) {
    let mut waiting = None;
    let (hand, handle, out) = hand_that_holds(2, trust, |hand, handle| {
        let (read, out) = hand.read(handle, 0, 10);
        assert!(out.is_empty(), "it is not known yet what there is: {out:?}");
        waiting = Some(read);
    });
    (hand, handle, waiting.unwrap(), out)
}

fn verify_in(out: &[Output]) -> EffectId {
    let verify = out.iter().find_map(|output| match output {
        Output::Effect(id, Effect::Verify { chunk: 0, .. }) => Some(*id),
        _ => None,
    });
    verify.unwrap_or_else(|| panic!("nothing is verified: {out:?}"))
}

#[test]
fn a_read_waits_for_what_the_store_finds_and_is_answered_with_it() {
    let (_, _, read, out) = hand_with_both(Trust::Verified);
    assert!(matches!(Hand::reply(&out, read), Some(Ok(Reply::Read(Span { len: 10, .. })))), "{out:?}");
}

#[test]
fn a_chunk_that_is_not_verified_is_served_once_it_is() {
    let (mut hand, _, read, out) = hand_with_both(Trust::Hashed);
    assert!(Hand::reply(&out, read).is_none() && Hand::fetches(&out).is_empty());
    let out = hand.give(Input::Done(verify_in(&out), Done::Verified(true)));
    assert!(matches!(Hand::reply(&out, read), Some(Ok(_))));
}

#[test]
fn a_chunk_that_is_damaged_is_fetched() {
    let (mut hand, handle, read, out) = hand_with_both(Trust::Hashed);
    let out = hand.give(Input::Done(verify_in(&out), Done::Verified(false)));
    assert!(Hand::reply(&out, read).is_none());
    let fetches = Hand::fetches(&out);
    assert_eq!((fetches.len(), fetches[0].chunk, fetches[0].urgent), (1, 0, true));
    assert_eq!(hand.engine.view().totals().damaged_chunks, 1);
    hand.bring(&fetches[0]);
    assert!(hand.read(handle, 0, 10).1.iter().any(|output| matches!(output, Output::Reply(_, Ok(Reply::Read(_))))));
}

#[test]
fn what_is_only_claimed_is_compared_with_the_owner() {
    let (mut hand, _, read, out) = hand_with_both(Trust::Claimed);
    let compare = out.iter().find_map(|output| match output {
        Output::Effect(id, Effect::Compare { chunks, .. }) => Some((*id, chunks.clone())),
        _ => None,
    });
    let (compare, chunks) = compare.unwrap_or_else(|| panic!("nothing is compared: {out:?}"));
    assert_eq!(chunks, 0..2, "one question is about all of it");
    assert!(Hand::reply(&out, read).is_none());
    let out = hand.give(Input::Done(compare, Done::Compared(Ok(vec![0]))));
    assert!(matches!(Hand::reply(&out, read), Some(Ok(_))));
    let ino = hand.ino("a");
    assert_eq!(hand.engine.view().content(ino).unwrap().have_chunks, 1, "the other one is not the same");
}

#[test]
fn a_comparison_that_comes_to_nothing_is_a_fetch() {
    for error in [FetchError::OwnerIo, FetchError::StreamLost, FetchError::Fault(PeerFault::TooLittle)] {
        let (mut hand, _, read, out) = hand_with_both(Trust::Claimed);
        let compare = out.iter().find_map(|output| match output {
            Output::Effect(id, Effect::Compare { .. }) => Some(*id),
            _ => None,
        });
        let out = hand.give(Input::Done(compare.unwrap(), Done::Compared(Err(error))));
        assert!(Hand::reply(&out, read).is_none());
        assert_eq!(Hand::fetches(&out)[0].chunk, 0, "{error:?}");
    }
    let (mut hand, _, _, _) = hand_with_both(Trust::Claimed);
    let out = hand.pass(Config::default().stall_timeout);
    assert!(
        out.iter().any(|output| matches!(output, Output::Cancel(_))),
        "an owner that says nothing is not waited for"
    );
    assert_eq!(Hand::fetches(&out)[0].chunk, 0);
}

/// A disk can take longer to read a file than a read may wait.
#[test]
fn a_whole_file_is_waited_for_as_long_as_it_gets_on_though_nothing_is_fetched() {
    let (mut hand, handle, _) = hand_that_holds(400, Trust::Hashed, |_, _| {});
    let (all, mut out) = hand.ask(Request::FetchAll { handle });
    let mut verifying = std::collections::VecDeque::new();
    for _ in 0..200 {
        verifying.extend(out.iter().filter_map(|output| match output {
            Output::Effect(id, Effect::Verify { .. }) => Some(*id),
            _ => None,
        }));
        out = hand.pass(Duration::from_secs(1));
        for effect in verifying.drain(..verifying.len().min(5)) {
            out.extend(hand.give(Input::Done(effect, Done::Verified(true))));
        }
        if let Some(reply) = Hand::reply(&out, all) {
            return assert!(reply.is_ok(), "{reply:?} after {} of 400 chunks", 400 - verifying.len());
        }
    }
    panic!("it is never answered");
}

#[test]
fn what_is_found_damaged_after_the_last_close_is_left_alone() {
    let (mut hand, handle, read, out) = hand_with_both(Trust::Hashed);
    let verify = verify_in(&out);
    let (_, out) = hand.ask(Request::Release { handle });
    assert!(matches!(Hand::reply(&out, read), Some(Err(Errno::Io))));
    assert!(Hand::fetches(&hand.give(Input::Done(verify, Done::Verified(false)))).is_empty());
}

#[test]
fn a_probe_into_a_file_that_was_edited_costs_the_chunk_that_it_touches() {
    let mut pair = partly_fetched(40, 40);
    let before = fetched(&pair);
    pair.edit("a", 40 * CHUNK);
    pair.drive();
    let handle = pair.open("a");
    pair.read_now(handle, 0, 10).unwrap();
    pair.drive_for(Duration::from_secs(3));
    assert!(fetched(&pair) - before <= CHUNK, "{} chunks came for ten bytes", (fetched(&pair) - before) / CHUNK);
    pair.settle();
}

#[test]
fn a_second_edit_does_not_lose_what_is_here_of_the_version_before_the_first() {
    let mut pair = partly_fetched(40, 40);
    let handle = pair.open("a");
    for _ in 0..2 {
        pair.edit("a", 40 * CHUNK);
        pair.drive();
        pair.read_now(handle, 0, 10).unwrap();
        pair.drive();
    }
    pair.history = Some(Vec::new());
    pair.read_now(handle, 30 * CHUNK, 10).unwrap();
    let compares = |output: &Output| matches!(output, Output::Effect(_, Effect::Compare { .. }));
    assert!(pair.history.take().unwrap().iter().any(|(.., output)| compares(output)));
    pair.settle();
}

#[test]
fn the_other_version_goes_when_this_one_is_whole() {
    let mut pair = partly_fetched(6, 6);
    // The first chunk is compared, and nothing else: what comes by fetches makes the file whole.
    pair.edit("a", 6 * CHUNK + 5);
    pair.drive();
    assert!(read_whole(&mut pair) == pair.owner_bytes("a"));
    pair.drive();
    let view = pair.hosts[Pair::FOLLOWER].engine.view();
    assert_eq!(view.stored_bytes(), 6 * CHUNK + 5);
    pair.settle();
}

#[test]
fn a_comparison_waits_for_what_the_owner_brings_before_it() {
    let (mut hand, handle, _, out) = hand_with_both(Trust::Claimed);
    let stalls = |out: &[Output]| out.iter().any(|output| matches!(output, Output::Cancel(_)));
    assert!(out.iter().any(|output| matches!(output, Output::Effect(_, Effect::Compare { .. }))));
    hand.put("b", testing::file_record(40 * CHUNK, 2), false);
    let other = hand.open("b");
    for chunk in 0..4 {
        let (_, out) = hand.read(other, chunk * CHUNK, 10);
        assert!(
            !stalls(&hand.pass(Duration::from_secs(8))),
            "chunk {chunk}: the owner is busy, and brings what it can"
        );
        hand.bring(&Hand::fetches(&out)[0]);
    }
    assert!(stalls(&hand.pass(Duration::from_secs(11))));
    hand.ask(Request::Release { handle });
}

#[test]
fn a_read_of_what_came_along_with_a_comparison_survives_the_loss_of_the_link() {
    let (mut hand, handle, _, _) = hand_with_both(Trust::Claimed);
    // The comparison is about both chunks, and was begun for the first.
    let (read, out) = hand.read(handle, CHUNK, 10);
    assert!(out.is_empty(), "{out:?}");
    let link = hand.link;
    hand.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
    let out = hand.pass(Duration::from_secs(1));
    let out = hand.connect(&out);
    let compare = out.iter().find_map(|output| match output {
        Output::Effect(id, Effect::Compare { chunks, .. }) if chunks.contains(&1) => Some(*id),
        _ => None,
    });
    let out = hand.give(Input::Done(compare.unwrap_or_else(|| panic!("{out:?}")), Done::Compared(Ok(vec![0, 1]))));
    assert!(matches!(Hand::reply(&out, read), Some(Ok(_))));
}
