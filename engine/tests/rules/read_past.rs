//! A driver may read what is all here by itself, past the engine. What it reads then stays what it is until the last
//! release: whatever becomes of the file is another entry.

use crate::CHUNK;
use farshore_engine::testing::{Hand, Pair, path};
use farshore_engine::*;

/// A file that is all here, opened by a driver that can read past the engine.
fn whole(pair: &mut Pair, file: &str) -> (Handle, Option<ContentId>) {
    let handle = pair.open(file);
    pair.world.whole_from = Some(CHUNK);
    pair.world.fetch_all(Pair::FOLLOWER, handle);
    pair.drive();
    pair.world.release(Pair::FOLLOWER, handle).unwrap();
    opened(pair, file)
}

fn opened(pair: &mut Pair, file: &str) -> (Handle, Option<ContentId>) {
    let handle = pair.open(file);
    (handle, pair.world.hosts[Pair::FOLLOWER].kernel.handles[&handle].whole)
}

fn ino(pair: &mut Pair, file: &str) -> Ino {
    pair.world.lookup(Pair::FOLLOWER, &path(file)).unwrap().ino
}

#[test]
fn only_what_is_whole_and_large_enough_is_read_past_the_engine() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK), ("small", CHUNK - 1)]);
    let (_, content) = whole(&mut pair, "a");
    assert!(content.is_some());
    let (_, small) = whole(&mut pair, "small");
    assert_eq!(small, None);
    pair.world.whole_from = None;
    let (_, again) = opened(&mut pair, "a");
    assert_eq!(again, content, "it is open so already");
    pair.settle();
}

#[test]
fn the_first_open_decides_until_the_last_release() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK)]);
    pair.world.whole_from = Some(0);
    let (first, content) = opened(&mut pair, "a");
    assert_eq!(content, None, "nothing of it is here");
    pair.world.fetch_all(Pair::FOLLOWER, first);
    pair.drive();
    let (second, content) = opened(&mut pair, "a");
    assert_eq!(content, None, "it became whole while it was open");
    pair.world.release(Pair::FOLLOWER, first).unwrap();
    assert_eq!(opened(&mut pair, "a").1, None, "and still is");
    pair.world.let_go(Pair::FOLLOWER);
    assert!(opened(&mut pair, "a").1.is_some());
    let _ = second;
    pair.settle();
}

#[test]
fn an_edit_is_another_entry_while_the_old_bytes_are_read_past_the_engine() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK)]);
    let (old_handle, content) = whole(&mut pair, "a");
    let (old, before) = (pair.owner_bytes("a"), ino(&mut pair, "a"));
    pair.edit("a", 3 * CHUNK);
    pair.drive();
    let after = ino(&mut pair, "a");
    assert_ne!(after, before);
    let (new_handle, new_content) = opened(&mut pair, "a");
    assert_eq!(new_content, None, "nothing of it is here");
    assert!(pair.read_now(new_handle, 0, 3 * CHUNK as u32).unwrap() == pair.owner_bytes("a"));
    assert!(pair.read_now(old_handle, 0, 2 * CHUNK as u32).unwrap() == old);
    let stat = pair.world.stat(Pair::FOLLOWER, before).unwrap();
    assert_eq!((stat.size_bytes, stat.links), (2 * CHUNK, 0), "as of a file that was renamed over");
    // Who comes by the old number, as through /proc, gets the old bytes too.
    let late = pair.world.open_ino(Pair::FOLLOWER, before).unwrap();
    assert_eq!(pair.world.hosts[Pair::FOLLOWER].kernel.handles[&late].whole, content);
    pair.world.let_go(Pair::FOLLOWER);
    assert!(pair.world.stat(Pair::FOLLOWER, before).is_err(), "nobody knows it any more");
    pair.settle();
}

#[test]
fn what_was_edited_while_it_was_read_past_the_engine_is_not_again() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK)]);
    let (_, content) = whole(&mut pair, "a");
    assert!(content.is_some());
    pair.edit("a", 2 * CHUNK);
    pair.drive();
    let (handle, content) = whole(&mut pair, "a");
    assert_eq!(content, None, "whoever writes a log goes on doing so");
    pair.edit("a", 3 * CHUNK);
    pair.drive();
    assert!(pair.read_now(handle, 0, 3 * CHUNK as u32).unwrap() == pair.owner_bytes("a"), "and this shows");
    // Another file under that name is another matter.
    pair.create("a", 2 * CHUNK);
    pair.drive();
    assert!(whole(&mut pair, "a").1.is_some());
    pair.settle();
}

#[test]
fn an_edit_keeps_the_entry_when_nobody_has_it_open() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK)]);
    let (handle, content) = whole(&mut pair, "a");
    assert!(content.is_some());
    let before = ino(&mut pair, "a");
    pair.world.release(Pair::FOLLOWER, handle).unwrap();
    pair.edit("a", 2 * CHUNK);
    pair.drive();
    assert_eq!(ino(&mut pair, "a"), before);
    pair.settle();
}

#[test]
fn a_rename_and_a_chmod_leave_it_as_it_is() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK)]);
    let (_, content) = whole(&mut pair, "a");
    let before = ino(&mut pair, "a");
    pair.change(|folder| folder.chmod(&path("a"), 0o600));
    pair.drive();
    pair.rename("a", "b");
    pair.drive();
    assert_eq!(ino(&mut pair, "b"), before);
    assert_eq!(opened(&mut pair, "b").1, content);
    pair.settle();
}

#[test]
fn it_is_read_on_when_it_is_removed_and_is_never_evicted() {
    let mut pair = Pair::new(&[("a", 2 * CHUNK), ("b", 2 * CHUNK)]);
    let (a, _) = whole(&mut pair, "a");
    let (b, _) = whole(&mut pair, "b");
    let (old_a, old_b) = (pair.owner_bytes("a"), pair.owner_bytes("b"));
    let evicted = pair.world.ask_now(Pair::FOLLOWER, Request::Evict { path: path("") });
    assert_eq!(evicted, Ok(Reply::Evicted { files: 0, kept_files: 2, freed_bytes: 0 }));
    pair.change(|folder| folder.remove(&path("a")));
    pair.drive();
    pair.cut();
    assert!(pair.read_now(a, 0, 2 * CHUNK as u32).unwrap() == old_a);
    assert!(pair.read_now(b, 0, 2 * CHUNK as u32).unwrap() == old_b);
    pair.settle();
}

#[test]
fn a_file_of_our_own_folder_is_the_folders() {
    let mut hand = Hand::new(Config::default());
    hand.found("a", SeenKind::File { size_bytes: CHUNK }, 0o644, 5, (1, 5));
    let ino = hand.ino("a");
    let open = Request::Open { ino, write: false, whole_from: Some(0) };
    let Ok(Reply::Opened(opened)) = hand.ask_now(open) else { panic!("it cannot be opened") };
    assert_eq!((opened.local, opened.whole), (Some(path("a")), None));
    hand.found("a", SeenKind::File { size_bytes: 2 * CHUNK }, 0o644, 6, (1, 6));
    assert_eq!(hand.ino("a"), ino, "whoever has it open sees the edit");
}
