//! A new version of a file that our folder holds: what both have in common is copied, and only the rest is fetched.

use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::event::{Change, Observation};
use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, FileTime};
use farshore_engine::testing::{Hand, file_record, path};
use farshore_engine::*;
use std::ops::Range;

/// A follower whose folder holds the file `f`, which a peer had made.
fn holding(size_bytes: u64) -> Hand {
    let mut hand = Hand::new(Config { keeps_folder: true, ..Config::default() });
    hand.give(Input::Observed(Observation::ScanBegin { path: RelPath::ROOT }));
    hand.found("", SeenKind::Dir, 0o755, 1, (1, 1));
    hand.give(Input::Observed(Observation::ScanEnd { path: RelPath::ROOT }));
    let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    hand.connect(&out);
    hand.list(&[("f", size_bytes)]);
    let (_, out) = hand.ask(Request::Bring { path: path("f") });
    let out = settle(&mut hand, out);
    assert!(Hand::fetches(&out).is_empty());
    assert!(hand.engine.view().own_inode(&path("f")).is_some());
    hand
}

/// Brings and stores all that is asked for, and does what is to be done in the folder.
fn settle(hand: &mut Hand, mut out: Vec<Output>) -> Vec<Output> {
    loop {
        let mut next = Vec::new();
        for fetch in Hand::fetches(&out) {
            next.extend(hand.bring(&fetch));
        }
        for (store, _) in Hand::stores(&out) {
            next.extend(hand.give(Input::Done(store, Done::Stored(Ok(())))));
        }
        for output in &out {
            if let Output::Effect(effect, Effect::Apply { ops }) = output {
                let facts = Facts { inode: 40, changed: FileTime { seconds: 50, nanos: 0 } };
                next.extend(hand.give(Input::Done(*effect, Done::Applied(ops.iter().map(|_| Ok(facts)).collect()))));
            }
        }
        if next.is_empty() {
            return next;
        }
        out = next;
    }
}

/// The peer has edited `f`.
fn edit(hand: &mut Hand, size_bytes: u64) -> Vec<Output> {
    let record = file_record(size_bytes, 2);
    let revision = Dot { author: DeviceTag::of(&Hand::PEER), counter: 9 }.into();
    let out = hand.event(Change::Put { path: path("f"), record, revision, replaced: false });
    // That was all.
    [out, hand.tell(Vec::new())].concat()
}

/// Which chunks are to be compared with the file in the folder.
fn compared(out: &[Output]) -> Option<(EffectId, Range<u64>)> {
    out.iter().find_map(|output| match output {
        Output::Effect(effect, Effect::Compare { chunks, in_folder: Some(older), .. }) => {
            assert_eq!((older.path.clone(), older.facts.inode), (path("f"), 40));
            Some((*effect, chunks.clone()))
        }
        _ => None,
    })
}

fn chunks(out: &[Output]) -> Vec<u64> {
    Hand::fetches(out).iter().map(|fetch| fetch.chunk).collect()
}

#[test]
fn of_an_edited_file_only_what_is_not_the_same_is_fetched() {
    let mut hand = holding(5 * CHUNK_SIZE);
    let fetched = hand.engine.view().totals().fetched_bytes;
    let out = edit(&mut hand, 5 * CHUNK_SIZE);
    assert!(chunks(&out).is_empty(), "{out:?}");
    let (effect, range) = compared(&out).unwrap_or_else(|| panic!("nothing is compared: {out:?}"));
    assert_eq!(range, 0..5);
    let out = hand.give(Input::Done(effect, Done::Compared(Ok(vec![0, 1, 3, 4]))));
    assert_eq!(chunks(&out), [2]);
    settle(&mut hand, out);
    assert!(hand.engine.view().own_inode(&path("f")).is_some());
    assert_eq!(hand.engine.view().away(&path("f")), None);
    assert_eq!(hand.engine.view().totals().fetched_bytes - fetched, CHUNK_SIZE);
}

#[test]
fn a_file_that_has_grown_is_compared_as_far_as_it_went() {
    let mut hand = holding(3 * CHUNK_SIZE + 1);
    let out = edit(&mut hand, 6 * CHUNK_SIZE);
    // A chunk that is cut off by the end of one of them is not a chunk of the other.
    assert_eq!(compared(&out).unwrap().1, 0..3);
    assert_eq!(chunks(&out), [3, 4, 5]);
}

#[test]
fn a_small_file_is_fetched_without_a_question() {
    let mut hand = holding(100);
    let out = edit(&mut hand, 100);
    assert_eq!((compared(&out), chunks(&out)), (None, vec![0]));
}

#[test]
fn what_is_gone_from_the_folder_meanwhile_is_fetched() {
    let mut hand = holding(40 * CHUNK_SIZE);
    let (effect, range) = compared(&edit(&mut hand, 40 * CHUNK_SIZE)).unwrap();
    hand.give(Input::Observed(Observation::Missing { path: path("f") }));
    // It was removed by somebody who had not seen the edit: that stays.
    let out = hand.give(Input::Done(effect, Done::Compared(Ok(Vec::new()))));
    assert_eq!(compared(&out), None);
    let asked = chunks(&out);
    assert!(range.clone().all(|chunk| asked.contains(&chunk)), "{asked:?}");
}

#[test]
fn who_has_not_got_it_yet_is_asked_again_and_nothing_is_fetched_in_vain() {
    let mut hand = holding(3 * CHUNK_SIZE);
    let (effect, _) = compared(&edit(&mut hand, 3 * CHUNK_SIZE)).unwrap();
    let out = hand.give(Input::Done(effect, Done::Compared(Err(FetchError::NotYet))));
    assert!(chunks(&out).is_empty(), "{out:?}");
    let out = hand.pass(std::time::Duration::from_secs(2));
    let (_, range) = compared(&out).unwrap_or_else(|| panic!("it is given up: {out:?}"));
    assert_eq!(range, 0..3);
}
