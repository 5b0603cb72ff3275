//! Lookups are counted, and what is forgotten and gone is let go of.

use farshore_engine::testing::{Hand, file_record, removed};
use farshore_engine::*;

fn lookup(hand: &mut Hand, name: &str) -> Result<Reply, Errno> {
    let name = path::Name::new(name.as_bytes()).unwrap();
    hand.ask_now(Request::Lookup { parent: Ino::ROOT, name })
}

#[test]
fn a_name_is_found_with_its_attributes_or_is_not_there() {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    let Ok(Reply::Entry(attr)) = lookup(&mut hand, "a") else { panic!() };
    assert_eq!((attr.size_bytes, attr.kind, attr.mode, attr.links), (10, AttrKind::File, 0o644, 1));
    assert_eq!(lookup(&mut hand, "b"), Err(Errno::NoEntry));
    let name = path::Name::new(b"x").unwrap();
    assert_eq!(hand.ask_now(Request::Lookup { parent: attr.ino, name }), Err(Errno::NotDir));
}

#[test]
fn an_entry_that_is_gone_stays_until_its_last_lookup_is_forgotten() {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    lookup(&mut hand, "a").unwrap();
    lookup(&mut hand, "a").unwrap();
    let ino = hand.ino("a");
    hand.event(removed("a"));
    assert!(hand.ask_now(Request::GetAttr { ino }).is_ok(), "the kernel still knows it");
    hand.give(Input::Forget { ino, lookups: 1 });
    assert_eq!(hand.engine.view().entries(), 2);
    hand.give(Input::Forget { ino, lookups: 1 });
    assert_eq!(hand.engine.view().entries(), 1, "only the root is left");
    assert_eq!(hand.ask_now(Request::GetAttr { ino }), Err(Errno::Stale));
}

#[test]
fn a_removed_directory_lets_go_of_all_it_held() {
    let mut hand = Hand::following(Config::default(), &[]);
    hand.put("d", testing::dir_record(), false);
    for name in 0..50 {
        hand.put(&format!("d/{name}"), file_record(1, 1), false);
    }
    assert_eq!(hand.engine.view().entries(), 52);
    hand.event(removed("d"));
    assert_eq!(hand.engine.view().entries(), 1);
}

#[test]
fn a_forgotten_entry_that_has_a_name_stays() {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    lookup(&mut hand, "a").unwrap();
    let ino = hand.ino("a");
    hand.give(Input::Forget { ino, lookups: 1 });
    assert_eq!(hand.ino("a"), ino);
    hand.give(Input::Forget { ino: Ino(9_999), lookups: 1 });
    hand.give(Input::Forget { ino: Ino::ROOT, lookups: 1 });
}

#[test]
fn a_symlink_is_text_and_nothing_else_is_read_like_one() {
    let mut hand = Hand::following(Config::default(), &[("a", 10)]);
    let kind = record::Kind::Symlink { target: b"../../etc/passwd".as_slice().into() };
    hand.put("s", record::Record { kind, ..file_record(0, 0) }, false);
    let (link, file) = (hand.ino("s"), hand.ino("a"));
    let Ok(Reply::Target(target)) = hand.ask_now(Request::ReadLink { ino: link }) else { panic!() };
    assert_eq!(&target[..], b"../../etc/passwd");
    assert_eq!(hand.ask_now(Request::ReadLink { ino: file }), Err(Errno::Invalid));
    let Ok(Reply::Attr(attr)) = hand.ask_now(Request::GetAttr { ino: link }) else { panic!() };
    assert_eq!((attr.size_bytes, attr.kind), (16, AttrKind::Symlink));
}
