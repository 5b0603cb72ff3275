//! A folder of our own that is a replica of the share: what peers change is done there, and what is done there is told.

use farshore_engine::event::{Change, Observation};
use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, FileTime, Kind, Record};
use farshore_engine::testing::{Hand, dir_record, file_record, path};
use farshore_engine::version::Sibling;
use farshore_engine::*;
use std::collections::BTreeSet;
use std::time::Duration;

const FILE: SeenKind = SeenKind::File { size_bytes: 10 };

/// A follower with a folder, which was told of these files and of a directory.
fn with_folder(files: &[(&str, u64)], config: Config) -> (Hand, EffectId) {
    let mut hand = Hand::new(Config { keeps_folder: true, ..config });
    observe(&mut hand, Observation::ScanBegin { path: RelPath::ROOT });
    hand.found("", SeenKind::Dir, 0o755, 1, (1, 1));
    observe(&mut hand, Observation::ScanEnd { path: RelPath::ROOT });
    let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    hand.connect(&out);
    let begin = TreeUpdate::Begin { position: Position { epoch: 1, seq: 0 } };
    let out = hand.tell(vec![begin, Hand::entry("d", dir_record())]);
    let entries = files.iter().map(|(at, size_bytes)| Hand::entry(at, file_record(*size_bytes, 1)));
    hand.tell(entries.chain([TreeUpdate::End { settled: 0 }]).collect());
    // That was all.
    hand.tell(Vec::new());
    let (effect, ops) = applied(&out).unwrap_or_else(|| panic!("nothing is done: {out:?}"));
    assert!(matches!(&ops[0], Apply::MakeDir { path: at, .. } if *at == path("d")), "{ops:?}");
    (hand, effect)
}

/// The same, with everything done that there is to be done.
fn at_rest(files: &[(&str, u64)]) -> Hand {
    at_rest_with(files, Config::default())
}

fn at_rest_with(files: &[(&str, u64)], config: Config) -> Hand {
    let (mut hand, effect) = with_folder(files, config);
    let done = [(); 2].map(|()| Ok(facts(40)));
    assert_eq!(applied(&end(&mut hand, effect, done.to_vec())), None);
    hand
}

fn observe(hand: &mut Hand, observation: Observation) -> Vec<Output> {
    hand.give(Input::Observed(observation))
}

fn facts(inode: u64) -> Facts {
    Facts { inode, changed: FileTime { seconds: 50, nanos: 0 } }
}

/// What is to be done in the folder.
fn applied(out: &[Output]) -> Option<(EffectId, Vec<Apply>)> {
    out.iter().find_map(|output| match output {
        Output::Effect(effect, Effect::Apply { ops }) => Some((*effect, ops.clone())),
        _ => None,
    })
}

fn end(hand: &mut Hand, effect: EffectId, results: Vec<Result<Facts, ApplyError>>) -> Vec<Output> {
    hand.give(Input::Done(effect, Done::Applied(results)))
}

/// What was announced last of a path.
fn announced(out: &[Output], at: &str) -> Option<Option<Record>> {
    let of = path(at);
    out.iter().rev().find_map(|output| match output {
        Output::Notice(Notice::Announced { path, record }) if *path == of => Some(record.clone()),
        _ => None,
    })
}

/// Another device says that it made a file of its own at a path, at this time.
fn made_by_another(hand: &mut Hand, at: &str, seconds: i64) -> Vec<Output> {
    let record = Record { modified: FileTime { seconds, nanos: 0 }, ..file_record(700, 77) };
    let revision = Dot { author: DeviceTag(3), counter: 5 }.into();
    hand.event(Change::Put { path: path(at), record, revision, replaced: false })
}

#[test]
fn directories_come_at_once_and_files_are_away_until_they_are_wanted() {
    let mut hand = at_rest(&[("f", 700), ("d/g", 5)]);
    let view = hand.engine.view();
    assert_eq!(view.away(&path("f")).map(|attr| attr.size_bytes), Some(700));
    assert_eq!(view.away(&path("d")), None);
    let inner: Vec<String> = view.away_in(&path("d")).map(|(name, _)| format!("{name:?}")).collect();
    assert_eq!(inner, ["\"g\""]);
    // What is not there was not taken away.
    let out = observe(&mut hand, Observation::Missing { path: path("f") });
    assert_eq!(announced(&out, "f"), None);
    assert!(hand.engine.view().away(&path("f")).is_some());
}

#[test]
fn a_file_that_is_brought_is_fetched_and_put_into_the_folder() {
    let mut hand = at_rest(&[("f", 700)]);
    let (id, out) = hand.ask(Request::Bring { path: path("f") });
    let fetches = Hand::fetches(&out);
    let out = hand.bring(&fetches[0]);
    let (store, _) = Hand::stores(&out)[0];
    let out = hand.give(Input::Done(store, Done::Stored(Ok(()))));
    assert_eq!(Hand::reply(&out, id), None, "not before it is there");
    let (effect, ops) = applied(&out).unwrap();
    assert!(matches!(&ops[0], Apply::Publish { path: at, expect: None, .. } if *at == path("f")), "{ops:?}");
    let results = ops.iter().map(|_| Ok(facts(41))).collect();
    let out = end(&mut hand, effect, results);
    assert_eq!(Hand::reply(&out, id), Some(Ok(Reply::Brought)));
    assert_eq!(hand.engine.view().away(&path("f")), None);
    assert_eq!(hand.ask_now(Request::Bring { path: path("f") }), Ok(Reply::Brought));
    assert_eq!(hand.ask_now(Request::Bring { path: path("nothing") }), Err(Errno::NoEntry));
}

#[test]
fn what_was_read_to_its_end_goes_into_the_folder_however_small_the_cache_is() {
    let mut hand = at_rest_with(&[("f", 700)], Config { cache_bytes: Some(0), ..Config::default() });
    let handle = hand.open("f");
    let (_, out) = hand.ask(Request::Read { handle, offset: 0, len: 700 });
    let out = hand.bring(&Hand::fetches(&out)[0]);
    let (store, _) = Hand::stores(&out)[0];
    let out = hand.give(Input::Done(store, Done::Stored(Ok(()))));
    let (effect, ops) = applied(&out).unwrap();
    assert_eq!(hand.ask_now(Request::Release { handle }), Ok(Reply::Released));
    assert_eq!(hand.engine.view().stored_bytes(), 700, "it is being put into the folder");
    let kept = hand.ask_now(Request::Evict { path: path("f") });
    assert_eq!(kept, Ok(Reply::Evicted { files: 0, kept_files: 1, freed_bytes: 0 }));
    end(&mut hand, effect, ops.iter().map(|_| Ok(facts(41))).collect());
    let view = hand.engine.view();
    assert_eq!((view.away(&path("f")), view.stored_bytes()), (None, 0));
}

/// What is told of before a directory is renamed has to be told as of then: it moves with the directory.
#[test]
fn who_only_looks_on_hears_of_everything_in_turn() {
    let mut hand = at_rest(&[]);
    let looking = PeerId([5; 32]);
    let ask = |hand: &mut Hand, cursor| match hand.ask_now(Request::PeerWatch { peer: looking, cursor }) {
        Ok(Reply::Watched { updates, cursor }) => (updates, cursor),
        other => panic!("{other:?}"),
    };
    let (_, cursor) = ask(&mut hand, WatchCursor::at(Position::default()));
    hand.found("a", SeenKind::Dir, 0o755, 1, (60, 1));
    hand.found("a/f", FILE, 0o644, 1, (61, 1));
    observe(&mut hand, Observation::Moved { from: path("a"), to: path("b") });
    let (updates, _) = ask(&mut hand, cursor);
    let told: Vec<String> = updates
        .into_iter()
        .filter_map(|update| match update {
            TreeUpdate::Event { change: Change::Put { path, .. }, .. } => Some(format!("put {path}")),
            TreeUpdate::Event { change: Change::Rename { from, to, .. }, .. } => Some(format!("rename {from} {to}")),
            // It said so itself.
            TreeUpdate::Skip { .. } => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["put a", "put a/f", "rename a b"]);
}

/// A device has the share in a folder of its own, and looks at it through another program as well.
#[test]
fn who_only_looks_on_hears_what_its_own_device_changed() {
    let mut hand = at_rest(&[]);
    let here = WatchCursor::at(hand.engine.view().position());
    made_by_another(&mut hand, "f", 200);
    let mut told = |cursor| match hand.ask_now(Request::PeerWatch { peer: Hand::PEER, cursor }) {
        Ok(Reply::Watched { updates, .. }) => updates,
        other => panic!("{other:?}"),
    };
    assert!(matches!(told(here.clone())[..], [TreeUpdate::Skip { .. }]), "it said so itself");
    let updates = told(here.looking_on());
    assert!(
        matches!(&updates[..], [TreeUpdate::Event { change: Change::Put { path: at, .. }, .. }] if *at == path("f")),
        "{updates:?}"
    );
}

#[test]
fn who_saw_what_is_away_can_remove_it_and_write_over_it() {
    let mut hand = at_rest(&[("f", 700), ("g", 700)]);
    observe(&mut hand, Observation::Sighted { path: path("f") });
    let out = observe(&mut hand, Observation::Missing { path: path("f") });
    assert_eq!(announced(&out, "f"), Some(None), "it is removed");
    observe(&mut hand, Observation::Sighted { path: path("g") });
    // Older than what it was written over.
    let out = hand.found("g", FILE, 0o644, -9, (60, 60));
    assert_eq!(announced(&out, "g").flatten().map(|record| record.size_bytes()), Some(10));
    assert_eq!(applied(&out), None, "nobody needs a copy");
}

/// A follower whose only file, with these other files away, is just being put into its folder.
fn being_published(at: &str, files: &[(&str, u64)]) -> (Hand, EffectId, Vec<Apply>) {
    let mut hand = at_rest(files);
    let (_, out) = hand.ask(Request::Bring { path: path(at) });
    let out = hand.bring(&Hand::fetches(&out)[0]);
    let (store, _) = Hand::stores(&out)[0];
    let out = hand.give(Input::Done(store, Done::Stored(Ok(()))));
    let (effect, ops) = applied(&out).unwrap();
    assert!(matches!(&ops[0], Apply::Publish { path: of, .. } if *of == path(at)), "{ops:?}");
    assert!(hand.engine.view().is_being_applied(&path(at)));
    (hand, effect, ops)
}

fn did(ops: &[Apply], inode: u64) -> Vec<Result<Facts, ApplyError>> {
    ops.iter().map(|_| Ok(facts(inode))).collect()
}

#[test]
fn what_is_removed_while_it_is_put_into_the_folder_does_not_stay() {
    let (mut hand, effect, ops) = being_published("f", &[("f", 700)]);
    observe(&mut hand, Observation::Sighted { path: path("f") });
    let out = observe(&mut hand, Observation::Missing { path: path("f") });
    assert_eq!(announced(&out, "f"), Some(None), "it is removed");
    let out = end(&mut hand, effect, did(&ops, 41));
    let (effect, ops) = applied(&out).unwrap();
    let expected = Some(facts(41));
    assert!(
        matches!(&ops[0], Apply::Remove { path: at, expect } if *at == path("f") && Some(*expect) == expected),
        "{ops:?}"
    );
    assert_eq!(applied(&end(&mut hand, effect, did(&ops, 40))), None);
    assert_eq!(hand.engine.view().resolve(&path("f")), None);
}

#[test]
fn what_is_renamed_while_it_is_put_into_the_folder_is_renamed_there_too() {
    let (mut hand, effect, ops) = being_published("f", &[("f", 700)]);
    for at in ["f", "d/g"] {
        observe(&mut hand, Observation::Sighted { path: path(at) });
    }
    let out = observe(&mut hand, Observation::Moved { from: path("f"), to: path("d/g") });
    assert_eq!(announced(&out, "d/g").flatten().map(|record| record.size_bytes()), Some(700));
    let out = end(&mut hand, effect, did(&ops, 41));
    let (effect, ops) = applied(&out).unwrap();
    let is_it = |op: &Apply| matches!(op, Apply::Rename { from, to, .. } if *from == path("f") && *to == path("d/g"));
    assert!(ops.iter().any(is_it), "{ops:?}");
    end(&mut hand, effect, did(&ops, 41));
    assert_eq!(hand.engine.view().own_inode(&path("d/g")), Some(41));
    assert_eq!(hand.engine.view().resolve(&path("f")), None);
}

#[test]
fn what_is_away_and_cannot_be_renamed_stays_where_it_is() {
    let mut hand = at_rest(&[("d/f", 700), ("g", 700)]);
    // The directory that it is in, and a path that is in no directory.
    for to in ["d", "g/x"] {
        for at in ["d/f", to] {
            observe(&mut hand, Observation::Sighted { path: path(at) });
        }
        let out = observe(&mut hand, Observation::Moved { from: path("d/f"), to: path(to) });
        assert!(Hand::notices(&out).iter().all(|notice| matches!(notice, Notice::LookAt { .. })), "{to}: {out:?}");
        for at in ["d/f", to] {
            observe(&mut hand, Observation::Missing { path: path(at) });
        }
        assert!(hand.engine.view().away(&path("d/f")).is_some(), "{to}");
    }
    assert!(hand.engine.view().away(&path("g")).is_some());
}

#[test]
fn what_nobody_was_shown_is_not_replaced_by_what_is_renamed_over_it_while_it_is_away() {
    let (mut hand, effect, ops) = being_published("g", &[("f", 700), ("g", 700)]);
    end(&mut hand, effect, did(&ops, 41));
    // A peer edits it, and here it is renamed away before the new bytes have come.
    let before = Dot { author: DeviceTag::of(&Hand::PEER), counter: 1 };
    let revision = Revision::after(&before.into(), Dot { counter: 2, ..before });
    let record = file_record(900, 9);
    hand.event(Change::Put { path: path("g"), record, revision, replaced: false });
    observe(&mut hand, Observation::Missing { path: path("g") });
    observe(&mut hand, Observation::Sighted { path: path("f") });
    observe(&mut hand, Observation::Moved { from: path("f"), to: path("g") });
    let view = hand.engine.view();
    let size = |at| view.tree().find(|(there, _)| *there == path(at)).map(|(_, record)| record.size_bytes());
    assert_eq!((size("g"), size("f")), (Some(900), Some(700)));
}

#[test]
fn a_directory_is_renamed_as_one_while_something_is_put_into_it() {
    let (mut hand, effect, ops) = being_published("d/f", &[("d/f", 700), ("d/g", 700)]);
    observe(&mut hand, Observation::Sighted { path: path("d") });
    let out = observe(&mut hand, Observation::Moved { from: path("d"), to: path("e") });
    assert!(announced(&out, "e").flatten().is_some(), "{out:?}");
    for at in ["e/f", "e/g"] {
        assert!(hand.engine.view().resolve(&path(at)).is_some(), "{at}");
    }
    assert_eq!(hand.engine.view().resolve(&path("d")), None);
    // It was done after the rename: the directory was not there.
    let out = end(&mut hand, effect, ops.iter().map(|_| Err(ApplyError::Changed)).collect());
    assert!(Hand::notices(&out).into_iter().any(|notice| matches!(notice, Notice::LookAt { .. })));
    let (_, ops) = applied(&out).unwrap();
    assert!(ops.iter().any(|op| matches!(op, Apply::Publish { path: at, .. } if *at == path("e/f"))), "{ops:?}");
}

#[test]
fn what_a_renamed_directory_is_to_lose_or_to_become_is_done_at_its_new_place() {
    let mut hand = at_rest(&[("d/f", 700)]);
    hand.found("d/own", FILE, 0o644, 1, (61, 1));
    let record = Record { mode: 0o700, ..dir_record() };
    let revision = Dot { author: DeviceTag::of(&Hand::PEER), counter: 9 }.into();
    let out = hand.event(Change::Put { path: path("d"), record, revision, replaced: false });
    let (effect, ops) = applied(&out).unwrap();
    assert!(matches!(&ops[0], Apply::SetAttributes { path: at, mode: 0o700, .. } if *at == path("d")), "{ops:?}");
    observe(&mut hand, Observation::Sighted { path: path("d") });
    observe(&mut hand, Observation::Moved { from: path("d"), to: path("e") });
    assert_eq!(hand.engine.view().resolve(&path("d")), None);
    assert_eq!(hand.engine.view().own_inode(&path("e/own")), Some(61));
    let out = end(&mut hand, effect, ops.iter().map(|_| Err(ApplyError::Changed)).collect());
    let (_, ops) = applied(&out).unwrap();
    let is_it = |op: &Apply| matches!(op, Apply::SetAttributes { path: at, mode: 0o700, .. } if *at == path("e"));
    assert!(ops.iter().any(is_it), "{ops:?}");
}

#[test]
fn who_looked_before_something_was_done_and_tells_afterwards_is_asked_to_look_again() {
    let (mut hand, effect, ops) = being_published("d/f", &[("d/f", 700)]);
    assert!(ops.iter().any(|op| matches!(op, Apply::SetAttributes { path: at, .. } if *at == path("d"))), "{ops:?}");
    end(&mut hand, effect, did(&ops, 40));
    // When the file had come into it, and its time was not set yet.
    let dir = |hand: &mut Hand| hand.found("d", SeenKind::Dir, 0o755, 77, (40, 49));
    let out = dir(&mut hand);
    assert_eq!(Hand::notices(&out), [&Notice::LookAt { path: path("d") }]);
    // Whoever looks again and says the same is believed: a clock may have been set back.
    assert_eq!(announced(&dir(&mut hand), "d").flatten().map(|record| record.modified.seconds), Some(77));
}

#[test]
fn attributes_of_what_is_away_cost_no_bytes() {
    let mut hand = at_rest(&[("f", 700)]);
    let modified = Some(FileTime { seconds: 77, nanos: 0 });
    let out = observe(&mut hand, Observation::Amended { path: path("f"), mode: Some(0o600), modified, xattrs: None });
    let record = announced(&out, "f").flatten().unwrap();
    assert_eq!((record.mode, Some(record.modified)), (0o600, modified));
    assert!(matches!(record.kind, Kind::File { size_bytes: 700, .. }));
    assert!(Hand::fetches(&out).is_empty());
    assert!(hand.engine.view().away(&path("f")).is_some());
}

#[test]
fn of_two_that_did_not_know_of_each_other_the_earlier_gets_another_name_where_it_is() {
    let mut hand = at_rest(&[]);
    hand.found("f", FILE, 0o644, 100, (60, 60));
    let out = made_by_another(&mut hand, "f", 200);
    let (effect, ops) = applied(&out).unwrap();
    let Apply::KeepCopy { path: at, to, unless: None, .. } = &ops[0] else { panic!("{ops:?}") };
    assert_eq!(*at, path("f"));
    assert!(to.to_string().starts_with("f.conflict-"), "{to}");
    assert_eq!(announced(&out, &to.to_string()), None, "not before it has that name");
    let (copy, results) = (to.to_string(), ops.iter().map(|_| Ok(facts(60))).collect());
    let out = end(&mut hand, effect, results);
    assert_eq!(announced(&out, &copy).flatten().map(|record| record.size_bytes()), Some(10));
}

#[test]
fn the_later_of_two_stays_and_the_other_is_for_its_holder_to_keep() {
    let mut hand = at_rest(&[]);
    hand.found("f", FILE, 0o644, 300, (60, 60));
    let out = made_by_another(&mut hand, "f", 200);
    assert_eq!(applied(&out), None);
    let record = announced(&out, "f").flatten().unwrap();
    assert_eq!(record.size_bytes(), 10, "whoever has the other hears of it");
}

#[test]
fn what_the_disk_refuses_holds_up_nothing_else_and_is_tried_again() {
    let (mut hand, effect) = with_folder(&[], Config::default());
    let out = end(&mut hand, effect, vec![Err(ApplyError::Io), Ok(facts(1))]);
    assert!(Hand::notices(&out).iter().any(|notice| matches!(notice, Notice::ApplyFailed { .. })));
    assert_eq!(applied(&out), None, "not at once");
    let out = hand.put("e", dir_record(), false);
    let (effect, ops) = applied(&out).unwrap();
    assert!(matches!(&ops[0], Apply::MakeDir { path: at, .. } if *at == path("e")), "{ops:?}");
    let results = ops.iter().map(|_| Ok(facts(42))).collect();
    assert_eq!(applied(&end(&mut hand, effect, results)), None);
    let out = hand.pass(Config::default().retry_cap);
    let (_, ops) = applied(&out).unwrap();
    assert!(matches!(&ops[0], Apply::MakeDir { path: at, .. } if *at == path("d")), "{ops:?}");
}

#[test]
fn where_something_else_was_found_nothing_is_done_before_somebody_has_looked() {
    let (mut hand, effect) = with_folder(&[], Config::default());
    let out = end(&mut hand, effect, vec![Err(ApplyError::Changed), Ok(facts(1))]);
    assert!(Hand::notices(&out).contains(&&Notice::LookAt { path: path("d") }));
    assert_eq!(applied(&hand.pass(Config::default().retry_cap)), None);
    // A program has put a file there: the directory keeps the name, and the file gets another one.
    let out = hand.found("d", FILE, 0o644, 5, (60, 60));
    let (_, ops) = applied(&out).unwrap();
    assert!(matches!(&ops[0], Apply::KeepCopy { path: at, .. } if *at == path("d")), "{ops:?}");
}

#[test]
fn what_is_put_into_a_directory_while_it_is_being_made_is_looked_at_again() {
    let (mut hand, effect) = with_folder(&[], Config::default());
    // The directory is there, and nobody has said so yet.
    let out = hand.found("d/f", FILE, 0o644, 5, (60, 60));
    assert_eq!(announced(&out, "d/f"), None);
    let out = end(&mut hand, effect, vec![Ok(facts(40)), Ok(facts(1))]);
    assert!(Hand::notices(&out).contains(&&Notice::LookAt { path: path("d/f") }), "{out:?}");
    let out = hand.found("d/f", FILE, 0o644, 5, (60, 60));
    assert!(matches!(announced(&out, "d/f"), Some(Some(_))), "{out:?}");
}

#[test]
fn a_change_of_a_forgotten_life_is_not_taken_for_one_of_this() {
    let mut hand = at_rest(&[]);
    hand.found("f", FILE, 0o644, 100, (60, 60));
    // In another life this device made a change with a higher number, and somebody has written over that.
    let ours = Dot { author: Config::default().device, counter: 1 << 40 };
    let record = Record { modified: FileTime { seconds: 200, nanos: 0 }, ..file_record(700, 77) };
    let revision = Revision::after(&ours.into(), Dot { author: DeviceTag(3), counter: (1 << 40) + 1 });
    let out = hand.event(Change::Put { path: path("f"), record, revision, replaced: false });
    let (_, ops) = applied(&out).unwrap();
    assert!(matches!(&ops[0], Apply::KeepCopy { path: at, .. } if *at == path("f")), "{ops:?}");
}

#[test]
fn what_cannot_be_looked_at_is_taken_from_nobody() {
    let mut hand = at_rest(&[]);
    hand.found("d", SeenKind::Dir, 0o755, 1, (40, 50));
    hand.found("d/f", FILE, 0o644, 100, (60, 60));
    hand.found("g", FILE, 0o644, 100, (61, 61));
    observe(&mut hand, Observation::ScanBegin { path: RelPath::ROOT });
    hand.found("d", SeenKind::Dir, 0o755, 1, (40, 50));
    observe(&mut hand, Observation::Unknown { path: path("d") });
    let out = observe(&mut hand, Observation::ScanEnd { path: RelPath::ROOT });
    assert_eq!(announced(&out, "d/f"), None);
    assert_eq!(announced(&out, "g"), Some(None), "and what is not there is gone");
}

#[test]
fn what_there_is_no_room_for_stays_where_it_is() {
    let mut hand = Hand::new(Config { keeps_folder: true, max_entries: 2, ..Config::default() });
    hand.found("", SeenKind::Dir, 0o755, 1, (1, 1));
    for (at, inode) in [("a", 60), ("b", 61), ("c", 62)] {
        let out = hand.found(at, FILE, 0o644, 100, (inode, 60));
        assert_eq!(applied(&out), None, "{at} is left alone");
    }
    assert_eq!(applied(&hand.pass(Config::default().retry_cap)), None);
}

#[test]
fn numbers_that_leave_no_room_for_others_are_refused() {
    for change in [
        |dot: Dot| Change::Put { path: path("f"), record: file_record(7, 7), revision: dot.into(), replaced: false },
        |dot: Dot| Change::Remove { path: path("f"), revision: Revision::removed(dot.into()) },
        |dot: Dot| Change::Rename {
            from: path("d"),
            to: path("e"),
            record: dir_record(),
            revision: dot.into(),
            left: dot.into(),
            digest: 0,
        },
    ] {
        let mut hand = at_rest(&[]);
        let out = hand.event(change(Dot { author: DeviceTag(3), counter: 1 << 61 }));
        let is_fault = |notice: &&Notice| matches!(notice, Notice::PeerFault { fault: PeerFault::Version, .. });
        assert!(Hand::notices(&out).iter().any(is_fault), "{out:?}");
    }
}

/// What the peer says of a path with its next change: that nothing is there any more.
fn removed_by_peer(hand: &mut Hand, at: &str) -> Vec<Output> {
    let dot = Dot { author: DeviceTag::of(&Hand::PEER), counter: 9 };
    let revision = Revision::removed(Version::default().with(dot));
    hand.event(Change::Remove { path: path(at), revision })
}

/// A folder that holds `f`, which the peer had made.
fn holding() -> Hand {
    let mut hand = at_rest(&[("f", 700)]);
    let (_, out) = hand.ask(Request::Bring { path: path("f") });
    let out = hand.bring(&Hand::fetches(&out)[0]);
    let out = hand.give(Input::Done(Hand::stores(&out)[0].0, Done::Stored(Ok(()))));
    let (effect, ops) = applied(&out).unwrap();
    end(&mut hand, effect, ops.iter().map(|_| Ok(facts(41))).collect());
    hand
}

fn is_removal(op: &Apply) -> bool {
    matches!(op, Apply::Remove { .. })
}

#[test]
fn what_a_peer_removes_stays_until_it_has_told_all_that_it_has_to_tell() {
    let mut hand = holding();
    let out = removed_by_peer(&mut hand, "f");
    assert_eq!(announced(&out, "f"), Some(None));
    assert_eq!(applied(&out), None, "it may have another name");
    let (_, ops) = applied(&hand.tell(Vec::new())).unwrap();
    assert!(matches!(&ops[0], Apply::Remove { path: at, .. } if *at == path("f")), "{ops:?}");
}

#[test]
fn what_a_peer_renamed_is_not_lost_if_it_was_cut_off_in_the_middle() {
    let mut hand = holding();
    removed_by_peer(&mut hand, "f");
    let link = hand.link;
    let mut out = hand.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
    let is_dial = |output: &Output| matches!(output, Output::Effect(_, Effect::Dial { .. }));
    while !out.iter().any(is_dial) {
        assert_eq!(applied(&out), None);
        out = hand.pass(Duration::from_millis(100));
    }
    hand.connect(&out);
    let out = hand.put("z", file_record(700, 1), false);
    let (_, ops) = applied(&out).unwrap();
    assert!(matches!(&ops[0], Apply::Rename { from, to, .. } if *from == path("f") && *to == path("z")), "{ops:?}");
    assert!(!ops.iter().any(is_removal));
}

#[test]
fn who_says_nothing_more_for_a_while_has_told_all() {
    let mut hand = holding();
    removed_by_peer(&mut hand, "f");
    let out = hand.pass(Duration::from_secs(6));
    assert!(applied(&out).is_some_and(|(_, ops)| is_removal(&ops[0])), "{out:?}");
}

/// Whoever renames a file that is away has no bytes of it: if its new name is taken, those who have them keep them.
#[test]
fn what_stands_beside_something_else_under_a_name_that_only_who_has_no_bytes_gave_it_is_kept() {
    let mut hand = holding();
    let made = |counter| Dot { author: DeviceTag(3), counter };
    let (dir, renamed) = (made(5), Sibling { dot: made(6), record: file_record(700, 1) });
    let version = Version::default().with(dir).with(renamed.dot);
    let revision = Revision { version, dot: dir, others: vec![renamed.clone()].into() };
    let change = Change::Put { path: path("taken"), record: dir_record(), revision, replaced: false };
    let (effect, ops) = applied(&hand.event(change)).unwrap();
    end(&mut hand, effect, ops.iter().map(|_| Ok(facts(43))).collect());
    removed_by_peer(&mut hand, "f");
    let (effect, ops) = applied(&hand.tell(Vec::new())).unwrap();
    let Apply::KeepCopy { path: from, to, unless: None, .. } = &ops[0] else { panic!("{ops:?}") };
    assert_eq!(*from, path("f"));
    assert!(to.to_string().starts_with("taken.conflict-"), "{to}");
    let out = end(&mut hand, effect, ops.iter().map(|_| Ok(facts(44))).collect());
    assert!(matches!(announced(&out, &to.to_string()), Some(Some(_))), "{out:?}");
    let memory = hand.engine.view().memory().unwrap();
    let taken = memory.entries().iter().find(|(at, ..)| *at == path("taken"));
    assert!(taken.is_some_and(|(.., revision)| revision.others.is_empty()), "it is somewhere else now");
}

/// It cannot be told as one change, and nobody who renames it there has any of the bytes.
#[test]
fn what_is_away_and_disputed_keeps_its_name_when_it_is_renamed() {
    let mut hand = at_rest(&[]);
    let made = |counter| Dot { author: DeviceTag(3), counter };
    let (first, other) = (made(5), Sibling { dot: made(6), record: file_record(700, 1) });
    let version = Version::default().with(first).with(other.dot);
    let revision = Revision { version, dot: first, others: vec![other].into() };
    let change = Change::Put { path: path("f"), record: file_record(900, 9), revision, replaced: false };
    hand.event(change);
    let (from, to) = (path("f"), path("new"));
    for sighted in [&from, &to] {
        observe(&mut hand, Observation::Sighted { path: sighted.clone() });
    }
    let out = observe(&mut hand, Observation::Moved { from: from.clone(), to: to.clone() });
    assert!(Hand::notices(&out).contains(&&Notice::LookAt { path: from.clone() }), "{out:?}");
    for missing in [&from, &to] {
        let out = observe(&mut hand, Observation::Missing { path: missing.clone() });
        assert_eq!(announced(&out, &missing.to_string()), None);
    }
    assert!(hand.engine.view().away(&from).is_some());
}

#[test]
fn who_lists_holds_nobody_up_and_has_to_go_on() {
    let mut hand = holding();
    let out = hand.tell(vec![
        TreeUpdate::Begin { position: Position { epoch: 1, seq: 9 } },
        Hand::entry("another", dir_record()),
    ]);
    assert!(applied(&out).is_some_and(|(_, ops)| matches!(ops[0], Apply::MakeDir { .. })), "{out:?}");
    let out = hand.tell(Vec::new());
    let fault = Notice::PeerFault { peer: Hand::PEER, fault: PeerFault::OutOfPlace };
    assert!(Hand::notices(&out).contains(&&fault), "{out:?}");
}

#[test]
fn who_waits_for_what_a_peer_replaced_hears_so_and_holds_up_nobody() {
    let mut hand = at_rest_with(
        &[("f", 700), ("g", 800)],
        Config { max_prefetches: 1, max_small_prefetches: 1, ..Config::default() },
    );
    let (first, out) = hand.ask(Request::Bring { path: path("f") });
    assert_eq!(Hand::fetches(&out).len(), 1);
    let (second, out) = hand.ask(Request::Bring { path: path("g") });
    assert!(Hand::fetches(&out).is_empty(), "one at a time");
    let record = file_record(0, 5);
    let revision = Dot { author: DeviceTag::of(&Hand::PEER), counter: 9 }.into();
    let out = hand.event(Change::Put { path: path("f"), record, revision, replaced: true });
    assert_eq!(Hand::reply(&out, first), Some(Err(Errno::Stale)));
    assert_eq!(Hand::reply(&out, second), None);
    assert!(Hand::fetches(&out).iter().any(|fetch| fetch.path == "g"), "{out:?}");
}

#[test]
fn of_small_files_many_are_on_their_way_at_once_and_of_large_ones_a_few() {
    for (size_bytes, expected) in [(700, 64), (3 * chunk::CHUNK_SIZE, 8)] {
        let mut hand = at_rest_with(&[], Config { fetches_all: true, ..Config::default() });
        let put = |number: u64| hand.put(&format!("f{number}"), file_record(size_bytes, number + 10), false);
        let out: Vec<Output> = (0..100).flat_map(put).collect();
        let paths: BTreeSet<String> = Hand::fetches(&out).into_iter().map(|fetch| fetch.path).collect();
        assert_eq!(paths.len(), expected, "of {size_bytes} bytes: {paths:?}");
    }
}

#[test]
fn what_nobody_has_under_its_name_is_asked_for_under_another_one_that_has_its_bytes() {
    let mut hand = at_rest_with(&[], Config { fetches_all: true, ..Config::default() });
    hand.found("copy", FILE, 0o644, 1, (60, 60));
    let stamp = match announced(&hand.found("copy", SeenKind::File { size_bytes: 11 }, 0o644, 2, (60, 61)), "copy") {
        Some(Some(Record { kind: Kind::File { stamp, .. }, .. })) => stamp,
        other => panic!("{other:?}"),
    };
    let mut out = hand.put("named", file_record(11, stamp.0), false);
    let mut asked = Vec::new();
    for _ in 0..6 {
        while Hand::fetches(&out).is_empty() {
            out = hand.pass(Duration::from_secs(1));
        }
        for fetch in Hand::fetches(&out) {
            asked.push(fetch.path.clone());
            out = hand.fail(&fetch, FetchError::NotYet);
        }
    }
    assert_eq!(asked[0], "named", "{asked:?}");
    assert_eq!(asked.last().map(String::as_str), Some("copy"), "{asked:?}");
}
