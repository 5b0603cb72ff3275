//! A whole file is fetched a window at a time, goes on where it stood, and is answered when all of it is stored.

use crate::CHUNK;
use core::time::Duration;
use farshore_engine::testing::{FetchSeen, Hand, Pair, path};
use farshore_engine::*;

/// Brings and stores everything that is asked for, until nothing is any more. Returns what was put out.
fn bring_all(hand: &mut Hand, mut out: Vec<Output>) -> Vec<Output> {
    let mut all = Vec::new();
    while !out.is_empty() {
        let mut next = Vec::new();
        for fetch in Hand::fetches(&out) {
            next.extend(hand.bring(&fetch));
        }
        for (store, _) in Hand::stores(&out) {
            next.extend(hand.give(Input::Done(store, Done::Stored(Ok(())))));
        }
        all.append(&mut out);
        out = next;
    }
    all
}

#[test]
fn it_is_answered_when_the_last_chunk_is_stored() {
    let mut hand = Hand::following(Config::default(), &[("a", 2 * CHUNK + 5)]);
    let (handle, ino) = (hand.open("a"), hand.ino("a"));
    let (all, out) = hand.ask(Request::FetchAll { handle });
    let mut stores = Vec::new();
    for fetch in Hand::fetches(&out) {
        let out = hand.bring(&fetch);
        assert_eq!(Hand::reply(&out, all), None);
        stores.extend(Hand::stores(&out));
    }
    let last = stores.pop().unwrap();
    for (store, _) in stores {
        hand.give(Input::Done(store, Done::Stored(Ok(()))));
    }
    let view = hand.engine.view().content(ino).unwrap();
    assert_eq!((view.have_chunks, view.total_chunks), (2, 3));
    assert_eq!(view.download.downloaded_bytes(), if last.1 == 2 { 2 * CHUNK } else { CHUNK + 5 });
    let out = hand.give(Input::Done(last.0, Done::Stored(Ok(()))));
    assert!(matches!(Hand::reply(&out, all), Some(Ok(Reply::Fetched(_)))));
    assert!(hand.engine.view().content(ino).unwrap().download.is_complete());
    assert!(matches!(hand.ask_now(Request::FetchAll { handle }), Ok(Reply::Fetched(_))), "and at once from now on");
}

#[test]
fn an_empty_file_is_whole_and_a_file_of_our_own_cannot_be_fetched() {
    let mut hand = Hand::following(Config::default(), &[("empty", 0)]);
    let handle = hand.open("empty");
    assert!(matches!(hand.ask_now(Request::FetchAll { handle }), Ok(Reply::Fetched(_))));
    let mut own = Hand::new(Config::default());
    own.found("a", SeenKind::File { size_bytes: 5 }, 0o644, 1, (1, 1));
    let handle = own.open("a");
    assert_eq!(own.ask_now(Request::FetchAll { handle }), Err(Errno::Invalid));
}

#[test]
fn it_keeps_a_window_under_way_and_no_more() {
    let config = Config { ahead_bytes: 4 * CHUNK, ..Config::default() };
    let mut hand = Hand::following(config, &[("a", 100 * CHUNK)]);
    let handle = hand.open("a");
    let (_, out) = hand.ask(Request::FetchAll { handle });
    let chunks: Vec<u64> = Hand::fetches(&out).iter().map(|fetch| fetch.chunk).collect();
    assert_eq!(chunks, [0, 1, 2, 3]);
    let out = hand.bring(&Hand::fetches(&out)[0]);
    assert!(Hand::fetches(&out).is_empty(), "what is being written is still in memory");
    let out = hand.give(Input::Done(Hand::stores(&out)[0].0, Done::Stored(Ok(()))));
    assert_eq!(Hand::fetches(&out)[0].chunk, 4);
}

/// A slow connection has two chunks under way, and a quick one as many as it carries.
#[test]
fn the_window_follows_what_the_connection_carries() {
    for (us_per_frame, under_way) in [(100_000, 2), (250, 64)] {
        let mut hand = Hand::following_at_its_pace(Config::default(), &[("a", 2000 * CHUNK)]);
        let handle = hand.open("a");
        let (_, out) = hand.ask(Request::FetchAll { handle });
        let mut waiting: std::collections::VecDeque<_> = Hand::fetches(&out).into();
        assert_eq!(waiting.len(), 2, "nothing is known of it");
        for _ in 0..500 {
            let fetch = waiting.pop_front().unwrap();
            for frame in fetch.frames.clone() {
                let mut out = hand.pass(Duration::from_micros(us_per_frame));
                out.extend(hand.arrive(fetch.effect, frame..frame + 1));
                for (store, _) in Hand::stores(&out) {
                    out.extend(hand.give(Input::Done(store, Done::Stored(Ok(())))));
                }
                waiting.extend(Hand::fetches(&out));
            }
            hand.give(Input::Done(fetch.effect, Done::Fetched(Ok(()))));
        }
        assert_eq!(waiting.len(), under_way, "{us_per_frame} us for each frame");
    }
}

/// A peer that always ends in the middle must not make us keep the middles of the whole file in memory.
#[test]
fn chunks_that_fail_half_way_count_against_the_window() {
    let config = Config { ahead_bytes: 4 * CHUNK, ..Config::default() };
    let mut hand = Hand::following(config, &[("a", 1000 * CHUNK)]);
    let handle = hand.open("a");
    let (_, mut out) = hand.ask(Request::FetchAll { handle });
    let ino = hand.ino("a");
    for _ in 0..200 {
        let fetches = Hand::fetches(&out);
        out.clear();
        for FetchSeen { effect, frames, .. } in fetches {
            if hand.engine.wants(effect) {
                out.extend(hand.arrive(effect, frames.start..frames.start + 1));
                let lost = Done::Fetched(Err(FetchError::StreamLost));
                out.extend(hand.give(Input::Done(effect, lost)));
            }
        }
        let open = hand.engine.view().content(ino).map_or(0, |view| view.open_chunks);
        assert!(open <= 4, "{open} chunks are open");
        if out.is_empty() {
            out = hand.pass(Duration::from_millis(100));
        }
    }
}

#[test]
fn readers_go_before_it() {
    let config = Config { ahead_bytes: 2 * CHUNK, ..Config::default() };
    let mut hand = Hand::following(config, &[("a", 100 * CHUNK)]);
    let handle = hand.open("a");
    hand.ask(Request::FetchAll { handle });
    let (_, out) = hand.read(handle, 50 * CHUNK, 4096);
    assert_eq!(Hand::fetches(&out).iter().map(|f| (f.chunk, f.urgent)).collect::<Vec<_>>(), [(50, true)]);
}

#[test]
fn only_so_many_run_at_once_and_the_others_have_their_turn() {
    let config = Config { max_prefetches: 2, max_small_prefetches: 2, ..Config::default() };
    let mut hand = Hand::following(config, &[("a", CHUNK), ("b", CHUNK), ("c", CHUNK)]);
    let asked: Vec<(ReqId, Vec<Output>)> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let handle = hand.open(name);
            hand.ask(Request::FetchAll { handle })
        })
        .collect();
    assert_eq!(asked.iter().map(|(_, out)| Hand::fetches(out).len()).collect::<Vec<_>>(), [1, 1, 0]);
    let out = bring_all(&mut hand, asked[0].1.clone());
    assert!(matches!(Hand::reply(&out, asked[0].0), Some(Ok(_))));
    assert!(matches!(Hand::reply(&out, asked[2].0), Some(Ok(_))), "it had its turn");
}

#[test]
fn it_goes_on_where_it_stood_after_the_link_was_lost() {
    let config = Config { ahead_bytes: 4 * CHUNK, ..Config::default() };
    let mut pair = Pair::with(config, &[("a", 40 * CHUNK)]);
    let handle = pair.open("a");
    let all = pair.fetch_all(Pair::FOLLOWER, handle);
    let have = |pair: &testing::World| {
        let engine = &pair.hosts[Pair::FOLLOWER].engine;
        engine.view().contents().next().map_or(0, |content| content.have_chunks)
    };
    assert!(pair.drive_bounded(Duration::from_secs(60), |world| have(world) >= 10));
    pair.cut();
    pair.drive_for(Duration::from_secs(5));
    let (kept, fetched) = (have(&pair), pair.hosts[Pair::FOLLOWER].engine.view().totals().fetched_bytes);
    assert!((10..40).contains(&kept));
    pair.heal();
    pair.drive();
    assert!(matches!(pair.hosts[Pair::FOLLOWER].kernel.fetches.get(&all), Some(Ok(_))));
    let again = pair.hosts[Pair::FOLLOWER].engine.view().totals().fetched_bytes - fetched;
    assert!(again <= (40 - kept) * CHUNK, "nothing comes twice: {again} bytes for {kept} chunks that were here");
    pair.settle();
}

#[test]
fn its_deadline_counts_from_the_last_progress() {
    let mut hand =
        Hand::following(Config { stall_timeout: Duration::from_secs(300), ..Config::default() }, &[("a", 8 * CHUNK)]);
    let handle = hand.open("a");
    let (all, out) = hand.ask(Request::FetchAll { handle });
    let fetches = Hand::fetches(&out);
    for fetch in &fetches[..4] {
        let out = hand.pass(Duration::from_secs(29));
        assert_eq!(Hand::reply(&out, all), None);
        hand.arrive(fetch.effect, 0..1);
    }
    let out = hand.pass(Duration::from_secs(31));
    assert_eq!(Hand::reply(&out, all), Some(Err(Errno::Io)));
}

#[test]
fn one_chunk_that_cannot_be_had_fails_it_in_the_end() {
    let mut hand = Hand::following(Config::default(), &[("a", 3 * CHUNK)]);
    let handle = hand.open("a");
    let (all, mut out) = hand.ask(Request::FetchAll { handle });
    let mut answer = None;
    for _ in 0..100 {
        let mut next = Vec::new();
        for fetch in Hand::fetches(&out) {
            next.extend(match fetch.chunk {
                1 => hand.fail(&fetch, FetchError::OwnerIo),
                _ => hand.bring(&fetch),
            });
        }
        for (store, _) in Hand::stores(&next.clone()) {
            next.extend(hand.give(Input::Done(store, Done::Stored(Ok(())))));
        }
        answer = answer.or(Hand::reply(&next, all));
        next.extend(hand.pass(Duration::from_millis(100)));
        out = next;
    }
    assert_eq!(answer, Some(Err(Errno::Io)));
    let ino = hand.ino("a");
    assert_eq!(hand.engine.view().content(ino).unwrap().have_chunks, 2, "the others are here");
}

#[test]
fn what_is_fetched_whole_is_read_offline() {
    let mut pair = Pair::new(&[("d/a", 5 * CHUNK + 3)]);
    let handle = pair.open("d/a");
    pair.fetch_all(Pair::FOLLOWER, handle);
    pair.drive();
    pair.cut();
    pair.drive_for(Duration::from_secs(40));
    assert!(pair.world.open(Pair::FOLLOWER, &path("d/a")).is_ok());
    assert!(pair.world.read_whole(Pair::FOLLOWER, handle).unwrap() == pair.owner_bytes("d/a"));
}

#[test]
fn a_small_file_has_its_turn_beside_a_large_one() {
    let config = Config { ahead_bytes: 4 * CHUNK, ..Config::default() };
    let mut hand = Hand::following(config, &[("large", 100 * CHUNK), ("small", 1)]);
    let (large, small) = (hand.open("large"), hand.open("small"));
    let (_, out) = hand.ask(Request::FetchAll { handle: large });
    let begun = Hand::fetches(&out);
    assert_eq!(begun.len(), 4, "the large one has all of the window");
    let (_, out) = hand.ask(Request::FetchAll { handle: small });
    assert!(Hand::fetches(&out).is_empty());
    let (store, _) = Hand::stores(&hand.bring(&begun[0]))[0];
    let out = hand.give(Input::Done(store, Done::Stored(Ok(()))));
    assert_eq!(Hand::fetches(&out)[0].path, "small", "the first room is for who has nothing under way");
}

#[test]
fn waiting_for_ones_turn_is_no_lack_of_progress() {
    let config =
        Config { max_prefetches: 1, ahead_bytes: CHUNK, stall_timeout: Duration::from_secs(60), ..Config::default() };
    let mut hand = Hand::following(config, &[("first", 4 * CHUNK), ("second", 1)]);
    let (first, second) = (hand.open("first"), hand.open("second"));
    let (_, mut out) = hand.ask(Request::FetchAll { handle: first });
    let (waits, _) = hand.ask(Request::FetchAll { handle: second });
    for _ in 0..4 {
        let fetch = Hand::fetches(&out).remove(0);
        let passed = hand.pass(Duration::from_secs(20));
        assert_eq!(Hand::reply(&passed, waits), None, "its turn has not come");
        let (store, _) = Hand::stores(&hand.bring(&fetch))[0];
        out = hand.give(Input::Done(store, Done::Stored(Ok(()))));
    }
    let all = bring_all(&mut hand, out);
    assert!(matches!(Hand::reply(&all, waits), Some(Ok(Reply::Fetched(_)))));
}
