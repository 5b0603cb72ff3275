//! Whoever reads small files in the order of a listing is run ahead of, within bounds, and only while they read on.

use crate::{CHUNK, KIB};
use core::time::Duration;
use farshore_engine::testing::{FetchSeen, Hand, Pair, dir_record, file_record, path};
use farshore_engine::*;

/// A peer's tree of `dirs` directories with `files` files in each, of 4 KiB, called `0/00`, `0/01` and so on.
fn tree(config: Config, dirs: u64, files: u64) -> Hand {
    let mut hand = Hand::following(config, &[]);
    for dir in 0..dirs {
        hand.put(&dir.to_string(), dir_record(), false);
        for file in 0..files {
            hand.put(&name(dir, file), file_record(4 * KIB, dir * 1000 + file + 1), false);
        }
    }
    hand
}

fn name(dir: u64, file: u64) -> String {
    format!("{dir}/{file:02}")
}

/// One directory with files.
fn files(config: Config, count: u64) -> Hand {
    tree(config, 1, count)
}

fn config() -> Config {
    Config { on_disconnect: OnDisconnect::Wait, ..Config::default() }
}

/// Opens a file, reads all of it, brings and stores what is asked for, and closes it. Returns the files that were asked
/// for ahead.
fn read(hand: &mut Hand, at: &str) -> Vec<FetchSeen> {
    let handle = hand.open(at);
    let (_, out) = hand.read(handle, 0, CHUNK as u32);
    let (urgent, ahead): (Vec<_>, Vec<_>) = Hand::fetches(&out).into_iter().partition(|fetch| fetch.urgent);
    bring(hand, &urgent);
    hand.ask_now(Request::Release { handle }).unwrap();
    ahead
}

fn bring(hand: &mut Hand, fetches: &[FetchSeen]) {
    for fetch in fetches {
        let out = hand.bring(fetch);
        for (store, _) in Hand::stores(&out) {
            hand.give(Input::Done(store, Done::Stored(Ok(()))));
        }
    }
}

/// The same, and what is fetched ahead comes as well. Returns the names of those.
fn read_on(hand: &mut Hand, at: &str) -> Vec<String> {
    let ahead = read(hand, at);
    bring(hand, &ahead);
    names(&ahead)
}

fn names(fetches: &[FetchSeen]) -> Vec<String> {
    fetches.iter().map(|fetch| fetch.path.clone()).collect()
}

fn range(dir: u64, files: core::ops::Range<u64>) -> Vec<String> {
    files.map(|file| name(dir, file)).collect()
}

fn is_here(hand: &mut Hand, at: &str) -> bool {
    let ino = hand.ino(at);
    hand.engine.view().content(ino).is_some_and(|content| content.have_chunks == content.total_chunks)
}

#[test]
fn the_files_that_come_next_are_fetched_twice_as_many_as_were_read() {
    let mut hand = files(config(), 99);
    assert!(read_on(&mut hand, "0/00").is_empty(), "one file says nothing");
    assert_eq!(read_on(&mut hand, "0/01"), range(0, 2..4));
    assert_eq!(read_on(&mut hand, "0/02"), range(0, 4..7));
    assert_eq!(read_on(&mut hand, "0/03"), range(0, 7..10));
    let mut misses = 0;
    for file in 4..60 {
        misses += u64::from(!is_here(&mut hand, &name(0, file)));
        read_on(&mut hand, &name(0, file));
    }
    assert_eq!(misses, 0, "whoever reads on finds everything here");
}

#[test]
fn what_somebody_waits_for_is_asked_for_before_what_nobody_does() {
    let mut hand = files(config(), 20);
    read(&mut hand, "0/00");
    let handle = hand.open("0/01");
    let (_, out) = hand.read(handle, 0, 4096);
    let order: Vec<(String, bool)> = Hand::fetches(&out).into_iter().map(|fetch| (fetch.path, fetch.urgent)).collect();
    assert_eq!(order, [("0/01".to_owned(), true), ("0/02".to_owned(), false), ("0/03".to_owned(), false)]);
}

#[test]
fn reads_here_and_there_cost_nothing_more() {
    let mut hand = tree(config(), 4, 90);
    for (dir, file) in [(0, 50), (3, 4), (1, 70), (0, 10), (2, 2), (0, 80), (3, 60), (1, 20), (2, 44), (0, 30)] {
        assert!(read_on(&mut hand, &name(dir, file)).is_empty(), "{dir}/{file}");
    }
}

#[test]
fn looking_at_a_tree_and_opening_its_files_fetches_nothing() {
    let mut hand = files(config(), 20);
    for file in 0..20 {
        let handle = hand.open(&name(0, file));
        hand.ask_now(Request::Release { handle }).unwrap();
    }
    assert_eq!(hand.engine.view().contents().count(), 0);
}

#[test]
fn it_is_bounded_in_files_and_in_bytes_and_by_the_cache() {
    let most = |config: Config, bytes: u64| {
        let mut hand = Hand::following(config, &[]);
        for file in 0..90 {
            hand.put(&format!("{file:02}"), file_record(bytes, file + 1), false);
        }
        let (mut ahead, mut most) = (0, 0);
        for file in 0..60 {
            let at = format!("{file:02}");
            ahead -= usize::from(is_here(&mut hand, &at));
            ahead += read_on(&mut hand, &at).len();
            most = most.max(ahead);
        }
        most
    };
    assert_eq!(most(Config { walk_ahead_files: 7, ..config() }, 4 * KIB), 7);
    assert_eq!(most(Config { walk_ahead_files: 0, ..config() }, 4 * KIB), 0, "it can be turned off");
    assert_eq!(most(config(), CHUNK), 16, "8 MiB");
    let cache_bytes = Some(64 * KIB);
    assert_eq!(most(Config { cache_bytes, ..config() }, 4 * KIB), 4, "a quarter of what is kept");
}

#[test]
fn a_walk_goes_on_in_the_next_directory_but_not_far_before_its_reader_does() {
    let mut hand = tree(config(), 3, 60);
    let mut ahead = Vec::new();
    for file in 0..60 {
        ahead.extend(read_on(&mut hand, &name(0, file)));
    }
    assert_eq!(ahead.last(), Some(&name(1, 15)), "16 files of a directory of which nothing was read");
    let on: Vec<String> = (0..60).flat_map(|file| read_on(&mut hand, &name(1, file))).collect();
    assert_eq!(on[..44], range(1, 16..60), "all of the directory that it is in");
    assert_eq!(on.last(), Some(&name(2, 31)), "and twice as many beyond it, now that it has come so far");
    assert!(is_here(&mut hand, "2/00"));
}

#[test]
fn files_that_are_left_out_do_not_end_a_walk_but_fetching_them_does_not_pay() {
    let mut hand = files(config(), 99);
    let mut fetched = 0;
    for file in (0..90).step_by(3) {
        fetched += read_on(&mut hand, &name(0, file)).len();
    }
    assert!((10..=60).contains(&fetched), "{fetched} files were fetched ahead, and two of three not read");
}

#[test]
fn readers_that_overtake_each_other_are_one_walk() {
    let mut hand = files(config(), 99);
    let mut late = 0;
    for four in 0..15 {
        for file in [1, 3, 0, 2] {
            let at = name(0, four * 4 + file);
            late += u64::from(four > 3 && !is_here(&mut hand, &at));
            read_on(&mut hand, &at);
        }
    }
    assert_eq!(late, 0);
    assert!(is_here(&mut hand, "0/80"), "what was overtaken and read then was not fetched for nothing");
}

#[test]
fn two_who_walk_at_once_are_two_walks() {
    let mut hand = tree(config(), 2, 90);
    for file in 0..40 {
        for dir in 0..2 {
            assert!(file < 2 || is_here(&mut hand, &name(dir, file)), "{dir}/{file}");
            read_on(&mut hand, &name(dir, file));
        }
    }
}

#[test]
fn large_and_empty_files_and_those_that_are_here_are_passed_over() {
    let mut hand = Hand::following(config(), &[]);
    let sizes = [10, 10, 0, CHUNK + 1, 10, CHUNK, 10];
    for (index, size) in sizes.into_iter().enumerate() {
        hand.put(&index.to_string(), file_record(size, index as u64 + 1), false);
    }
    read_on(&mut hand, "4");
    read_on(&mut hand, "0");
    assert_eq!(read_on(&mut hand, "1"), ["5", "6"]);
}

#[test]
fn what_nobody_reads_on_with_is_given_up() {
    let mut hand = files(config(), 20);
    read(&mut hand, "0/00");
    let ahead = read(&mut hand, "0/01");
    assert_eq!(ahead.len(), 2);
    let out = hand.pass(Duration::from_millis(1_900));
    assert!(Hand::cancelled(&out).is_empty());
    let out = hand.pass(Duration::from_millis(200));
    assert_eq!(Hand::cancelled(&out), ahead.iter().map(|fetch| fetch.effect).collect::<Vec<_>>());
    for fetch in &ahead {
        hand.fail(fetch, FetchError::Cancelled);
    }
    assert_eq!(hand.engine.view().contents().count(), 2, "nothing is remembered of what was not read");
}

#[test]
fn a_reader_who_is_kept_waiting_has_not_stopped() {
    let mut hand = files(config(), 20);
    read(&mut hand, "0/00");
    let ahead = read(&mut hand, "0/01");
    let handle = hand.open("0/02");
    hand.read(handle, 0, 4096);
    let out = hand.pass(Duration::from_secs(8));
    assert!(Hand::cancelled(&out).is_empty());
    bring(&mut hand, &ahead);
    hand.pass(Duration::from_secs(5));
    assert!(is_here(&mut hand, "0/03"));
}

#[test]
fn somebody_who_opens_what_is_fetched_ahead_keeps_it_when_the_walk_ends() {
    let mut hand = files(config(), 20);
    read(&mut hand, "0/00");
    let ahead = read(&mut hand, "0/01");
    hand.open("0/03");
    let out = hand.pass(Duration::from_secs(3));
    assert_eq!(Hand::cancelled(&out), [ahead[0].effect]);
}

#[test]
fn a_lost_connection_ends_it_and_what_fails_is_not_tried_again() {
    let mut hand = files(config(), 20);
    read(&mut hand, "0/00");
    let ahead = read(&mut hand, "0/01");
    hand.fail(&ahead[0], FetchError::OwnerIo);
    let out = hand.pass(Duration::from_millis(500));
    assert!(Hand::fetches(&out).is_empty());
    hand.lose_link(&ahead[1..]);
    let out = hand.pass(Duration::from_secs(1));
    let out = hand.connect(&out);
    assert!(Hand::fetches(&out).is_empty(), "nobody waits for it: {out:?}");
    assert!(read(&mut hand, "0/02").is_empty(), "who reads on begins anew");
    assert!(!read(&mut hand, "0/03").is_empty());
}

#[test]
fn a_store_that_takes_nothing_ends_it() {
    let mut hand = files(config(), 20);
    read(&mut hand, "0/00");
    let ahead = read(&mut hand, "0/01");
    let out = hand.bring(&ahead[0]);
    let (store, _) = Hand::stores(&out)[0];
    let out = hand.give(Input::Done(store, Done::Stored(Err(StoreError::NoSpace))));
    assert_eq!(Hand::cancelled(&out), [ahead[1].effect]);
}

#[test]
fn files_that_change_or_go_while_they_are_fetched_ahead_do_no_harm() {
    let mut hand = files(config(), 40);
    for file in 0..4 {
        read_on(&mut hand, &name(0, file));
    }
    let ahead = read(&mut hand, "0/04");
    for fetch in &ahead {
        hand.event(testing::removed(&fetch.path));
        hand.fail(fetch, FetchError::Cancelled);
    }
    hand.put("0/05", file_record(8 * KIB, 99), false);
    for file in [5, 6, 7, 8, 9, 20, 21] {
        read_on(&mut hand, &name(0, file));
    }
    assert!(is_here(&mut hand, "0/24"));
}

#[test]
fn a_whole_tree_is_read_with_its_right_bytes() {
    let names: Vec<String> = (0..3).flat_map(|dir| (0..20).map(move |file| name(dir, file))).collect();
    let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 5000)).collect();
    let mut pair = Pair::new(&files);
    for name in &names {
        let handle = pair.open(name);
        pair.read_now(handle, 0, 5000).unwrap();
        pair.release(Pair::FOLLOWER, handle).unwrap();
    }
    pair.drive();
    let totals = pair.hosts[Pair::FOLLOWER].engine.view().totals();
    assert_eq!(totals.fetched_bytes, 60 * 5000, "each file once");
    assert!(pair.lookup(Pair::FOLLOWER, &path("2/19")).is_ok());
}
