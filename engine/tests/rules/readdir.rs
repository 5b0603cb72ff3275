//! Listings have an order that stays while the directory changes, and fit into the kernel's buffer.

use farshore_engine::testing::{Hand, dir_record, file_record, removed};
use farshore_engine::*;

fn page(hand: &mut Hand, ino: Ino, after: u64, budget_bytes: u32) -> Vec<(String, u64)> {
    match hand.ask_now(Request::ReadDir { ino, after, budget_bytes, plus: false }) {
        Ok(Reply::Entries(entries)) => {
            entries.iter().map(|e| (String::from_utf8(e.name.as_bytes().to_vec()).unwrap(), e.cookie)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn names(page: &[(String, u64)]) -> Vec<&str> {
    page.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_directory_begins_with_itself_and_its_parent() {
    let mut hand = Hand::following(Config::default(), &[("a", 1)]);
    hand.put("d", dir_record(), false);
    hand.put("d/e", dir_record(), false);
    assert_eq!(names(&page(&mut hand, Ino::ROOT, 0, 4096)), [".", "..", "a", "d"]);
    let (dir, inner) = (hand.ino("d"), hand.ino("d/e"));
    let Ok(Reply::Entries(entries)) =
        hand.ask_now(Request::ReadDir { ino: inner, after: 0, budget_bytes: 4096, plus: false })
    else {
        panic!()
    };
    assert_eq!((entries[0].attr.ino, entries[1].attr.ino), (inner, dir));
}

#[test]
fn a_listing_goes_on_where_it_stood_though_names_come_and_go() {
    let files: Vec<String> = (0..6).map(|name| format!("f{name}")).collect();
    let files: Vec<(&str, u64)> = files.iter().map(|name| (name.as_str(), 1)).collect();
    let mut hand = Hand::following(Config::default(), &files);
    let first = page(&mut hand, Ino::ROOT, 0, 5 * 32);
    assert_eq!(names(&first), [".", "..", "f0", "f1", "f2"]);
    hand.event(removed("f0"));
    hand.event(removed("f3"));
    hand.put("a_new_one", file_record(1, 1), false);
    let rest = page(&mut hand, Ino::ROOT, first[4].1, 4096);
    assert_eq!(names(&rest), ["f4", "f5", "a_new_one"], "nothing twice, and nothing that stayed left out");
    assert!(page(&mut hand, Ino::ROOT, rest[2].1, 4096).is_empty());
}

#[test]
fn an_answer_is_no_larger_than_the_kernel_allows() {
    let mut hand = Hand::following(Config::default(), &[("12345678", 1), ("123456789", 1)]);
    // 24 bytes and the name, in multiples of eight: 32 + 32 + 32 + 40.
    assert_eq!(page(&mut hand, Ino::ROOT, 0, 135).len(), 3);
    assert_eq!(page(&mut hand, Ino::ROOT, 0, 136).len(), 4);
    let too_small = Request::ReadDir { ino: Ino::ROOT, after: 0, budget_bytes: 31, plus: false };
    assert_eq!(hand.ask_now(too_small), Err(Errno::Invalid), "an empty answer would be the end");
}

#[test]
fn a_listing_with_attributes_counts_as_lookups() {
    let mut hand = Hand::following(Config::default(), &[("a", 1)]);
    let request = Request::ReadDir { ino: Ino::ROOT, after: 0, budget_bytes: 4096, plus: true };
    assert!(hand.ask_now(request).is_ok());
    let ino = hand.ino("a");
    hand.event(removed("a"));
    assert_eq!(hand.engine.view().entries(), 2, "the kernel knows it");
    hand.give(Input::Forget { ino, lookups: 1 });
    assert_eq!(hand.engine.view().entries(), 1);
}

#[test]
fn only_directories_are_listed_and_a_removed_one_is_empty() {
    let mut hand = Hand::following(Config::default(), &[("a", 1)]);
    hand.put("d", dir_record(), false);
    hand.put("d/x", file_record(1, 1), false);
    let (file, dir) = (hand.ino("a"), hand.ino("d"));
    let list = |ino| Request::ReadDir { ino, after: 0, budget_bytes: 4096, plus: false };
    assert_eq!(hand.ask_now(list(file)), Err(Errno::NotDir));
    let name = path::Name::new(b"d").unwrap();
    hand.ask_now(Request::Lookup { parent: Ino::ROOT, name }).unwrap();
    hand.event(removed("d"));
    assert_eq!(names(&page(&mut hand, dir, 0, 4096)), [".", ".."]);
}
