//! What is noted of what is remembered, on a disk that refuses some of it or is about to lose its power.

use super::super::home::CLEAN;
use super::super::journal;
use super::super::trouble::{Done, Fault, Trouble};
use super::super::{DiskStore, PRIVATE};
use crate::store::Store;
use farshore_engine::event::Position;
use farshore_engine::{Changes, Memory, PeerId, Standing};
use farshore_proto::ShareId;
use farshore_proto::tree_file::MAX_TREE_BYTES;
use rustix::io::Errno;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

const SHARE: ShareId = ShareId([1; 16]);

/// Longer than anything takes that ends at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// The device stands at the event `seq` of its peer.
fn change(seq: u64) -> Changes {
    let standing = Standing { position: Position { epoch: 3, seq }, settled: 0 };
    Changes { standings: Some([(PeerId([9; 32]), standing)].into()), ..Changes::default() }
}

/// Where the next life believes that the device stands.
fn stands(dir: &Path) -> Option<u64> {
    let memory = DiskStore::open(dir).unwrap().memory(SHARE)?;
    memory.standings().values().map(|standing| standing.position.seq).next()
}

#[tokio::test]
async fn whoever_could_not_note_something_is_not_believed_to_stand_where_it_stood_before() {
    for (has_begun, ends_well) in [(true, false), (false, false), (true, true), (false, true)] {
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let earlier = DiskStore::open(dir.path()).unwrap();
            earlier.memory(SHARE);
            earlier.note(SHARE, change(1)).await.unwrap();
            drop(earlier);
            assert_eq!(stands(dir.path()), Some(1), "it was killed");
            let trouble = Trouble::none();
            let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
            store.memory(SHARE);
            if has_begun {
                store.note(SHARE, change(2)).await.unwrap();
            }
            trouble.plan(at, Fault::Error(Errno::NOSPC));
            let noted = store.note(SHARE, change(3)).await;
            if !trouble.heal() {
                noted.unwrap();
                assert!(at > 0, "something was done to the disk");
                break;
            }
            noted.unwrap_err();
            store.note(SHARE, change(4)).await.unwrap_err();
            if ends_well {
                store.close().await.unwrap();
            }
            drop(store);
            assert_eq!(stands(dir.path()), None, "call {at}, {has_begun}, {ends_well}");
        }
    }
}

#[tokio::test]
async fn after_a_copy_all_is_believed_that_could_not_be_noted_before() {
    let dir = tempfile::tempdir().unwrap();
    let trouble = Trouble::none();
    let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
    store.memory(SHARE);
    trouble.plan(0, Fault::Error(Errno::NOSPC));
    store.note(SHARE, change(1)).await.unwrap_err();
    trouble.heal();
    let number = store.begin_journal(SHARE).await.unwrap();
    store.save_memory(SHARE, number, Memory::default().after(change(1)).unwrap()).await.unwrap();
    store.note(SHARE, change(2)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert_eq!(stands(dir.path()), Some(2));
}

#[tokio::test]
async fn what_was_noted_before_a_journal_that_is_too_long_counts() {
    let dir = tempfile::tempdir().unwrap();
    for seq in 1..3 {
        let store = DiskStore::open(dir.path()).unwrap();
        store.memory(SHARE);
        store.note(SHARE, change(seq)).await.unwrap();
    }
    assert_eq!(stands(dir.path()), Some(2));
    let journal = std::fs::File::options().write(true).open(dir.path().join(PRIVATE).join("journal-1")).unwrap();
    journal.set_len(MAX_TREE_BYTES + 1).unwrap();
    let memory = DiskStore::open(dir.path()).unwrap().memory(SHARE);
    assert_eq!(memory, Some(Memory::default()), "the first counts, but not where it says that the device stood");
}

#[tokio::test]
async fn the_mark_of_what_is_durable_is_made_durable_too() {
    let dir = tempfile::tempdir().unwrap();
    let trouble = Trouble::none();
    let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
    store.memory(SHARE);
    store.note(SHARE, change(1)).await.unwrap();
    store.sync_journal(SHARE).await.unwrap();
    let done = trouble.done();
    let [.., Done::SyncAll, Done::Write(written, ..), Done::Sync(synced)] = &done[..] else { panic!("{done:?}") };
    assert_eq!((written, synced), (&"journal-0".to_owned(), &"journal-0".to_owned()));
}

#[tokio::test]
async fn a_copy_that_ends_late_does_not_replace_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    store.memory(SHARE);
    let memory = |seq| Memory::default().after(change(seq)).unwrap();
    store.note(SHARE, change(1)).await.unwrap();
    let older = store.begin_journal(SHARE).await.unwrap();
    store.note(SHARE, change(2)).await.unwrap();
    let newer = store.begin_journal(SHARE).await.unwrap();
    store.save_memory(SHARE, newer, memory(2)).await.unwrap();
    store.save_memory(SHARE, older, memory(1)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert_eq!(stands(dir.path()), Some(2));
}

#[tokio::test]
async fn after_a_clean_stop_with_nothing_half_fetched_all_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    store.memory(SHARE);
    let number = store.begin_journal(SHARE).await.unwrap();
    store.save_memory(SHARE, number, Memory::default().after(change(1)).unwrap()).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert_eq!(stands(dir.path()), Some(1));
    assert_eq!(stands(dir.path()), None, "nobody has closed it since");
}

#[tokio::test]
async fn a_stop_is_no_clean_one_while_what_does_not_count_stands_there_as_if_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    store.memory(SHARE);
    let number = store.begin_journal(SHARE).await.unwrap();
    store.save_memory(SHARE, number, Memory::default().after(change(1)).unwrap()).await.unwrap();
    drop(store);
    for says_so in [false, true] {
        let store = DiskStore::open(dir.path()).unwrap();
        assert_eq!(store.memory(SHARE), Some(Memory::default()), "it was killed after the copy");
        assert!(!store.is_copied(SHARE));
        if says_so {
            store.sync_journal(SHARE).await.unwrap();
        }
        store.close().await.unwrap();
        drop(store);
        let is_clean = dir.path().join(PRIVATE).join(CLEAN).is_file();
        assert_eq!((is_clean, stands(dir.path())), (says_so, None));
    }
}

#[test]
fn a_store_that_is_closed_while_a_copy_is_made_is_closed() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let home = DiskStore::open(dir.path()).unwrap().home.clone();
        journal::load(&home, SHARE);
        let (ended, ends) = mpsc::channel();
        let copies = {
            let (home, ended) = (home.clone(), ended.clone());
            move || ended.send(journal::save(&home, SHARE, 0, &Memory::default()).is_ok())
        };
        // Not waited for if they wait for each other.
        let copying = std::thread::spawn(copies);
        let closing = std::thread::spawn(move || ended.send(super::super::saving::close(&home).is_ok()));
        for _ in 0..2 {
            ends.recv_timeout(PATIENCE).expect("they wait for each other");
        }
        copying.join().unwrap().unwrap();
        closing.join().unwrap().unwrap();
    }
}
