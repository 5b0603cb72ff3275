//! The kernel is told to drop what it caches, of what it knows, and of nothing else.

use farshore_engine::testing::{Hand, file_record, removed, renamed};
use farshore_engine::*;

fn inode(ino: Ino, data: bool) -> Notice {
    Notice::InvalidateInode { ino, data }
}

fn entry(name: &str) -> Notice {
    Notice::InvalidateEntry { parent: Ino::ROOT, name: path::Name::new(name.as_bytes()).unwrap() }
}

fn told(out: &[Output]) -> Vec<Notice> {
    let about_caches = |n: &&Notice| matches!(n, Notice::InvalidateInode { .. } | Notice::InvalidateEntry { .. });
    Hand::notices(out).into_iter().filter(about_caches).cloned().collect()
}

/// A follower of a file `a`, which the kernel knows if `known`, and a directory `d` that it never looked at.
fn hand(known: bool) -> (Hand, Ino) {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    hand.put("d", testing::dir_record(), false);
    let ino = hand.ino("a");
    if known {
        hand.open("a");
    }
    (hand, ino)
}

#[test]
fn a_new_name_also_ends_what_it_knew_of_its_absence() {
    let (mut hand, _) = hand(false);
    assert_eq!(told(&hand.put("b", file_record(1, 1), false)), [entry("b"), inode(Ino::ROOT, true)]);
}

#[test]
fn what_happens_where_it_never_looked_is_nothing_to_it() {
    let (mut hand, _) = hand(false);
    assert_eq!(told(&hand.put("d/x", file_record(1, 1), false)), []);
    assert_eq!(told(&hand.put("d/x", file_record(2, 2), false)), []);
    assert_eq!(told(&hand.put("a", file_record(11, 2), false)), [], "it never looked at `a` itself");
}

#[test]
fn an_edit_drops_bytes_and_attributes() {
    let (mut hand, ino) = hand(true);
    assert_eq!(told(&hand.put("a", file_record(10, 2), false)), [inode(ino, true)]);
}

#[test]
fn a_chmod_drops_attributes_only() {
    let (mut hand, ino) = hand(true);
    let record = record::Record { mode: 0o600, ..file_record(10, 1) };
    assert_eq!(told(&hand.put("a", record, false)), [inode(ino, false)]);
}

#[test]
fn a_removal_drops_the_name_and_the_link_count() {
    let (mut hand, ino) = hand(true);
    let out = hand.event(removed("a"));
    assert_eq!(told(&out), [entry("a"), inode(Ino::ROOT, true), inode(ino, false)]);
}

#[test]
fn a_rename_drops_both_names() {
    let (mut hand, _) = hand(true);
    let out = hand.event(renamed("a", "b", file_record(10, 1)));
    assert_eq!(told(&out), [entry("a"), inode(Ino::ROOT, true), entry("b"), inode(Ino::ROOT, true)]);
}

#[test]
fn the_notice_of_an_edit_comes_before_the_new_bytes() {
    let (mut hand, ino) = hand(true);
    let handle = hand.open("a");
    let (read, _) = hand.read(handle, 0, 10);
    let out = hand.put("a", file_record(0, 2), false);
    let notice = out.iter().position(|output| *output == Output::Notice(inode(ino, true))).unwrap();
    let reply = out.iter().position(|output| matches!(output, Output::Reply(id, _) if *id == read)).unwrap();
    assert!(notice < reply);
}
