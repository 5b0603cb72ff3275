//! The laws of what a store remembers of shares: the tree of a peer, and what a device knows of a share that it keeps in a folder.

use super::{MODIFIED, Subject, path};
use crate::store::{KnownTree, Store};
use farshore_engine::event::Position;
use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, Kind, Record, Stamp};
use farshore_engine::{
    AtPath, Changes, Command, Config, DeviceTag, Dot, Engine, Entries, InFolder, Input, Memory, PeerId, Remembered,
    Standing, Stated, Time, Xattrs,
};
use farshore_proto::{ShareId, TreeId};

/// What is known of a tree of `files` files after event `seq`.
pub fn known_tree(id: TreeId, seq: u64, files: u64) -> KnownTree {
    let dot = Dot { author: DeviceTag::of(&id.owner), counter: 1 };
    let file = |number: u64| (path(&format!("{number:08}")), record(number), dot.into());
    let entries = Entries::of((0..files).map(file)).expect("these are entries");
    let remembered = Remembered::new(Position { epoch: 1, seq }, seq, entries).expect("this is a tree");
    let mut engine = Engine::new(Config::default(), 1, Time::ZERO);
    for input in [Input::Remembered { peer: id.owner, remembered }, Input::Command(Command::Follow { peer: id.owner })]
    {
        engine.step(Time::ZERO, input, &mut Vec::new());
    }
    KnownTree::now(id, engine.view().snapshot(id.owner).expect("it is followed"))
}

fn record(number: u64) -> Record {
    Record {
        kind: Kind::File { size_bytes: number, stamp: Stamp(number) },
        mode: 0o644,
        modified: MODIFIED,
        xattrs: Xattrs::default(),
    }
}

/// What is remembered of a share with as many files.
fn memory_of(files: u64) -> Memory {
    let dot = |counter| Dot { author: DeviceTag(7), counter };
    let facts = Facts { inode: 5, changed: MODIFIED };
    let path = |number: u64| RelPath::parse(format!("f{number:06}").as_bytes()).expect("it is short");
    let entries = (0..files).map(|number| (path(number), record(number), dot(number + 1).into()));
    let dir = Record { kind: Kind::Dir, ..record(0) };
    let entries = Entries::of(core::iter::once((RelPath::ROOT, dir, dot(1).into())).chain(entries));
    let held = (0..files).map(|number| (path(number), InFolder { record: None, dot: dot(number + 1), facts }));
    let standings = [(PeerId([9; 32]), standing(files))].into();
    Memory::new(entries.expect("these are entries"), Vec::new(), held, standings).expect("it is a share")
}

fn standing(seq: u64) -> Standing {
    Standing { position: Position { epoch: 3, seq }, settled: 0 }
}

/// What has changed when file number `number` was made as the last one, and the peer has told its next event.
fn change(number: u64) -> Changes {
    let dot = Dot { author: DeviceTag(7), counter: number + 1 };
    let stated = Some(Stated { record: Some(record(number)), revision: dot.into() });
    let path = RelPath::parse(format!("f{number:06}").as_bytes()).expect("it is short");
    let held = Some(InFolder { record: None, dot, facts: Facts { inode: 5, changed: MODIFIED } });
    let standings = Some([(PeerId([9; 32]), standing(number + 1))].into());
    Changes { paths: [(path, AtPath { stated, held })].into(), standings }
}

/// Writes down all, as if nothing was noted since.
async fn copy(store: &dyn Store, share: ShareId, memory: Memory) -> std::io::Result<()> {
    let journal = store.begin_journal(share).await?;
    store.save_memory(share, journal, memory).await
}

/// Also in one that begins after a crash.
pub async fn what_is_remembered_of_a_share_is_there_in_the_next_life(subject: &mut dyn Subject) {
    let (share, other) = (ShareId([1; 16]), ShareId([2; 16]));
    assert_eq!(subject.store().memory(share), None);
    for (files, ends_well) in [(3, false), (0, true), (2_000, false)] {
        let store = subject.store();
        store.memory(share);
        copy(&*store, share, memory_of(files + 1)).await.unwrap();
        store.note(share, change(files + 1)).await.unwrap();
        copy(&*store, share, memory_of(files)).await.unwrap();
        store.note(share, change(files)).await.unwrap();
        assert_eq!(store.memory(share), Some(memory_of(files + 1)));
        if ends_well {
            store.close().await.unwrap();
            assert!(copy(&*store, share, memory_of(9)).await.is_err(), "the store is closed");
            assert!(store.note(share, change(files + 1)).await.is_err());
        }
        drop(store);
        subject.restart();
        assert_eq!(subject.store().memory(share), Some(memory_of(files + 1)));
        assert_eq!(subject.store().memory(other), None, "it is the memory of one share");
    }
}

/// Whenever it crashes between the steps of a copy, and from the first life on.
pub async fn what_was_noted_is_there_after_a_crash_at_any_moment(subject: &mut dyn Subject) {
    let share = ShareId([1; 16]);
    assert_eq!(subject.store().memory(share), None);
    let mut files = 0;
    subject.store().note(share, all_changes(memory_of(0))).await.unwrap();
    for round in 0..30 {
        subject.restart();
        let store = subject.store();
        assert_eq!(store.memory(share), Some(memory_of(files)), "round {round}");
        for step in 0..=round % 5 {
            match step {
                2 => {
                    let journal = store.begin_journal(share).await.unwrap();
                    store.note(share, change(files)).await.unwrap();
                    files += 1;
                    if round % 5 == 4 {
                        // What is noted meanwhile is behind it.
                        store.save_memory(share, journal, memory_of(files - 1)).await.unwrap();
                    }
                }
                4 => _ = store.sync_journal(share).await.unwrap(),
                _ => {
                    store.note(share, change(files)).await.unwrap();
                    files += 1;
                }
            }
        }
    }
}

/// What has changed when all this is known, and was not.
fn all_changes(memory: Memory) -> Changes {
    let mut changes = Changes { standings: Some(memory.standings().clone()), ..Changes::default() };
    for (path, record, revision) in memory.entries().iter() {
        let stated = Some(Stated { record: Some(record.clone()), revision: revision.clone() });
        changes.paths.insert(path, AtPath { stated, held: None });
    }
    for (path, held) in memory.held() {
        changes.paths.entry(path).or_default().held = Some(held);
    }
    changes
}

/// Somebody else's share, and one of which nobody has asked.
pub async fn of_a_share_nobody_has_asked_for_nothing_is_noted(subject: &mut dyn Subject) {
    let (share, other) = (ShareId([1; 16]), ShareId([2; 16]));
    let store = subject.store();
    assert!(store.note(share, change(1)).await.is_err());
    store.memory(share);
    assert!(store.note(other, change(1)).await.is_err());
    assert!(!store.note(share, all_changes(memory_of(1))).await.unwrap(), "it is not long");
}

/// Many lives that end in a crash are not kept apart for ever, nor is a journal that outgrows the copy.
pub async fn what_was_noted_is_to_be_copied_when_it_has_become_long(subject: &mut dyn Subject) {
    let share = ShareId([1; 16]);
    let mut lives = 0;
    loop {
        let store = subject.store();
        store.memory(share);
        if store.note(share, all_changes(memory_of(1))).await.unwrap() {
            break;
        }
        lives += 1;
        assert!(lives < 100, "it never becomes long");
        drop(store);
        subject.restart();
    }
    let store = subject.store();
    copy(&*store, share, memory_of(1)).await.unwrap();
    let (mut noted, all) = (1, all_changes(memory_of(20_000)));
    while !store.note(share, all.clone()).await.unwrap() {
        noted += 1;
        assert!(noted < 100, "it never becomes long");
    }
    copy(&*store, share, memory_of(20_000)).await.unwrap();
    assert!(!store.note(share, change(1)).await.unwrap(), "it begins anew");
}

/// Also in one that begins after a crash.
pub async fn the_tree_that_was_known_last_is_there_in_the_next_life(subject: &mut dyn Subject) {
    let id = TreeId { owner: PeerId([7; 32]), share: ShareId([1; 16]) };
    let other = TreeId { share: ShareId([2; 16]), ..id };
    assert_eq!(subject.store().tree(id), None);
    for (seq, files, ends_well) in [(1, 3, false), (2, 0, true), (3, 2_000, false)] {
        let known = known_tree(id, seq, files);
        let file = known.clone().into_file();
        let store = subject.store();
        store.save_tree(known_tree(id, seq + 10, 1)).await.unwrap();
        store.save_tree(known).await.unwrap();
        assert_eq!(store.tree(id).as_ref(), Some(&file));
        if ends_well {
            store.close().await.unwrap();
            assert!(store.save_tree(known_tree(id, 9, 1)).await.is_err(), "the store is closed");
        }
        drop(store);
        subject.restart();
        assert_eq!(subject.store().tree(id), Some(file));
        assert_eq!(subject.store().tree(other), None, "it is the tree of one share");
    }
}
