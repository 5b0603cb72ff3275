//! Extended attributes: a change like that of a mode, and what could not be seen of them is not lost.

use farshore_engine::event::Observation;
use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, FileTime, Kind, Record};
use farshore_engine::testing::{Hand, file_record, path};
use farshore_engine::*;

fn some() -> Xattrs {
    Xattrs::default().with(b"user.a", b"1").with(b"user.b", b"2")
}

fn hand(keeps_folder: bool) -> Hand {
    let mut hand = Hand::new(Config { keeps_folder, ..Config::default() });
    hand.give(Input::Observed(Observation::ScanBegin { path: RelPath::ROOT }));
    hand.found("", SeenKind::Dir, 0o755, 1, (1, 1));
    hand.give(Input::Observed(Observation::ScanEnd { path: RelPath::ROOT }));
    hand
}

/// A file is seen with these, or it is not known with which. Says what is announced of it.
fn seen(hand: &mut Hand, (inode, changed): (u64, i64), xattrs: Option<Xattrs>) -> Option<Record> {
    let time = |seconds| FileTime { seconds, nanos: 0 };
    let facts = Facts { inode, changed: time(changed) };
    let kind = SeenKind::File { size_bytes: 10 };
    let seen = Seen { kind, mode: 0o644, modified: time(5), xattrs, facts };
    announced(&hand.give(Input::Observed(Observation::Found { path: path("f"), seen })))
}

fn announced(out: &[Output]) -> Option<Record> {
    out.iter().find_map(|output| match output {
        Output::Notice(Notice::Announced { record, .. }) => record.clone(),
        _ => None,
    })
}

#[test]
fn setting_them_is_a_change_and_leaves_the_bytes_alone() {
    for keeps_folder in [false, true] {
        let mut hand = hand(keeps_folder);
        let plain = seen(&mut hand, (2, 1), Some(Xattrs::default())).unwrap();
        assert_eq!(seen(&mut hand, (2, 2), Some(some())), Some(Record { xattrs: some(), ..plain.clone() }));
        assert_eq!(seen(&mut hand, (2, 2), Some(some())), None);
        assert_eq!(seen(&mut hand, (2, 3), Some(Xattrs::default())), Some(plain));
    }
}

#[test]
fn what_cannot_be_seen_of_them_is_as_it_was_and_another_file_has_its_own() {
    for keeps_folder in [false, true] {
        let mut hand = hand(keeps_folder);
        seen(&mut hand, (2, 1), Some(some()));
        assert_eq!(seen(&mut hand, (2, 2), None).map(|record| record.xattrs), Some(some()), "it may have been edited");
        assert_eq!(seen(&mut hand, (3, 3), None).map(|record| record.xattrs), Some(Xattrs::default()));
    }
}

#[test]
fn what_the_disk_had_no_room_for_is_not_taken_from_others() {
    for keeps_folder in [false, true] {
        let mut hand = hand(keeps_folder);
        seen(&mut hand, (2, 1), Some(some()));
        hand.give(Input::Command(Command::LacksXattrs));
        let stamp = |record: &Record| match record.kind {
            Kind::File { stamp, .. } => stamp,
            _ => unreachable!(),
        };
        let before = seen(&mut hand, (2, 2), None).unwrap();
        assert_eq!(seen(&mut hand, (2, 2), Some(some().without(b"user.b"))), None);
        assert_eq!(seen(&mut hand, (2, 2), Some(Xattrs::default())), None);
        let after = seen(&mut hand, (2, 3), Some(some().without(b"user.a"))).unwrap();
        assert_eq!(after.xattrs, some());
        assert!(stamp(&after) != stamp(&before), "nothing explains the new time: it may have been edited");
        // What is set and changed is told.
        for (set, all) in [
            (Xattrs::default().with(b"user.a", b"3"), some().with(b"user.a", b"3")),
            (Xattrs::default().with(b"user.c", b"3"), some().with(b"user.a", b"3").with(b"user.c", b"3")),
        ] {
            assert_eq!(seen(&mut hand, (2, 4), Some(set)).map(|record| record.xattrs), Some(all));
        }
        let full = Xattrs::default().with(b"user.d", &[0; 65_536]).with(b"user.e", &[0; 65_490]);
        assert_eq!(seen(&mut hand, (2, 5), Some(full.clone())).map(|record| record.xattrs), Some(full));
        // Another file has its own.
        let other = seen(&mut hand, (3, 4), Some(Xattrs::default()));
        assert_eq!(other.map(|record| record.xattrs), Some(Xattrs::default()));
    }
}

#[test]
fn those_of_what_is_away_are_known_and_set_without_its_bytes() {
    let mut hand = hand(true);
    let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    hand.connect(&out);
    let begin = TreeUpdate::Begin { position: Position { epoch: 1, seq: 0 } };
    let theirs = Record { xattrs: some(), ..file_record(700, 1) };
    hand.tell(vec![begin, Hand::entry("f", theirs.clone()), TreeUpdate::End { settled: 0 }]);
    assert_eq!(hand.engine.view().away_xattrs(&path("f")), some());
    assert_eq!(hand.engine.view().away_xattrs(&path("g")), Xattrs::default());
    let xattrs = Some(some().without(b"user.a"));
    let amended = Observation::Amended { path: path("f"), mode: None, modified: None, xattrs: xattrs.clone() };
    let out = hand.give(Input::Observed(amended));
    assert_eq!(announced(&out).map(|record| (record.mode, record.xattrs)), xattrs.map(|xattrs| (theirs.mode, xattrs)));
    assert!(Hand::fetches(&out).is_empty());
}
