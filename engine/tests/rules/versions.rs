//! A file whose bytes change is read in its new version, never in a mix of both.

use crate::CHUNK;
use core::time::Duration;
use farshore_engine::record::Stamp;
use farshore_engine::testing::{Hand, Pair, file_record, path};
use farshore_engine::*;

#[test]
fn an_edit_in_place_is_read_through_the_handle_that_is_open() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK)]);
    let handle = pair.open("a");
    let old = pair.read_now(handle, 0, 4096).unwrap();
    pair.edit("a", 2 * CHUNK);
    pair.drive();
    let new = pair.read_now(handle, 0, 4096).unwrap();
    assert!(new != old && new == pair.owner_bytes("a")[..4096]);
    pair.settle();
}

#[test]
fn an_edit_that_keeps_size_and_modification_time_is_noticed() {
    let mut pair = Pair::new(&[("a", CHUNK)]);
    let handle = pair.open("a");
    pair.read_now(handle, 0, 4096).unwrap();
    pair.change(|folder| folder.edit(&path("a"), CHUNK, true));
    pair.drive();
    assert!(pair.read_now(handle, 0, 4096).unwrap() == pair.owner_bytes("a")[..4096]);
}

#[test]
fn a_chmod_and_a_rename_keep_the_bytes_that_are_here() {
    let mut pair = Pair::new(&[("a", CHUNK)]);
    let handle = pair.open("a");
    pair.read_now(handle, 0, 4096).unwrap();
    pair.drive();
    let fetched = pair.hosts[Pair::FOLLOWER].engine.view().totals().fetched_bytes;
    pair.change(|folder| folder.chmod(&path("a"), 0o600));
    pair.drive();
    pair.rename("a", "b");
    pair.drive();
    assert!(pair.read_now(handle, 0, CHUNK as u32).unwrap() == pair.owner_bytes("b"));
    let again = pair.open("b");
    assert!(pair.read_now(again, 0, CHUNK as u32).unwrap() == pair.owner_bytes("b"));
    assert_eq!(pair.hosts[Pair::FOLLOWER].engine.view().totals().fetched_bytes, fetched);
    pair.settle();
}

#[test]
fn a_read_that_waits_gets_the_new_bytes() {
    let mut hand = Hand::following(Config::default(), &[("a", 2 * CHUNK)]);
    let handle = hand.open("a");
    let (read, out) = hand.read(handle, 0, 2 * CHUNK as u32);
    let old = Hand::fetches(&out);
    hand.bring(&old[0]);
    let out = hand.put("a", file_record(2 * CHUNK, 2), false);
    assert_eq!(Hand::reply(&out, read), None, "half of the old is worth nothing");
    assert_eq!(Hand::cancelled(&out), [old[1].effect]);
    let new = Hand::fetches(&out);
    assert!(new.iter().all(|fetch| fetch.stamp == Stamp(2)));
    assert_eq!(new.iter().filter(|fetch| fetch.urgent).count(), 2);
    hand.bring(&new[0]);
    let out = hand.bring(&new[1]);
    assert!(matches!(Hand::reply(&out, read), Some(Ok(Reply::Read(_)))));
}

#[test]
fn a_read_that_waits_on_what_was_cut_off_gets_the_end_of_the_file() {
    let mut hand = Hand::following(Config::default(), &[("a", 2 * CHUNK)]);
    let handle = hand.open("a");
    let (read, _) = hand.read(handle, CHUNK, 4096);
    let out = hand.put("a", file_record(100, 2), false);
    let Some(Ok(Reply::Read(span))) = Hand::reply(&out, read) else { panic!("{out:?}") };
    assert_eq!((span.source, span.len), (Source::Nothing, 0));
}

#[test]
fn a_store_of_old_bytes_that_ends_late_is_not_taken_for_the_new() {
    let mut hand = Hand::following(Config::default(), &[("a", CHUNK)]);
    let (handle, ino) = (hand.open("a"), hand.ino("a"));
    let (_, out) = hand.read(handle, 0, 10);
    let store = Hand::stores(&hand.bring(&Hand::fetches(&out)[0]))[0].0;
    hand.put("a", file_record(CHUNK, 2), false);
    let (read, out) = hand.read(handle, 0, 10);
    let fetch = Hand::fetches(&out).remove(0);
    hand.give(Input::Done(store, Done::Stored(Ok(()))));
    assert_eq!(hand.engine.view().content(ino).unwrap().have_chunks, 0);
    let out = hand.arrive(fetch.effect, 0..1);
    assert!(matches!(Hand::reply(&out, read), Some(Ok(_))));
}

#[test]
fn a_file_renamed_over_is_another_one_to_new_opens_only() {
    let mut pair = Pair::new(&[("a", CHUNK), ("b", CHUNK)]);
    let old_handle = pair.open("a");
    let old = pair.read_now(old_handle, 0, CHUNK as u32).unwrap();
    pair.drive();
    pair.rename("b", "a");
    pair.drive();
    let new_handle = pair.open("a");
    assert!(pair.read_now(new_handle, 0, CHUNK as u32).unwrap() == pair.owner_bytes("a"));
    assert!(pair.read_now(old_handle, 0, CHUNK as u32).unwrap() == old, "who had it open keeps it");
    pair.settle();
}

#[test]
fn a_new_file_put_over_an_old_one_is_another_one_to_new_opens_only() {
    let mut pair = Pair::new(&[("a", CHUNK)]);
    let old_handle = pair.open("a");
    let old = pair.read_now(old_handle, 0, CHUNK as u32).unwrap();
    pair.drive();
    pair.create("a", 2 * CHUNK);
    pair.drive();
    let new_handle = pair.open("a");
    assert!(pair.read_now(new_handle, 0, 2 * CHUNK as u32).unwrap() == pair.owner_bytes("a"));
    assert!(pair.read_now(old_handle, 0, CHUNK as u32).unwrap() == old);
    pair.settle();
}

#[test]
fn an_edit_while_the_file_is_being_read_is_never_mixed() {
    let mut pair = Pair::new(&[("a", 8 * CHUNK)]);
    let handle = pair.open("a");
    for round in 0..20 {
        let read = pair.read(handle, (round % 7) * CHUNK, 1 << 20);
        pair.drive_for(Duration::from_micros(700 * round));
        pair.edit("a", 8 * CHUNK);
        // The world compares every answer with one version.
        pair.drive();
        assert!(pair.answer(read).is_some());
    }
    pair.settle();
}
