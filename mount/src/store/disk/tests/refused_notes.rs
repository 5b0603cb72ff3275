//! What is noted of a share on a disk that fails.

use super::super::trouble::{Fault, Trouble};
use crate::store::{DiskStore, Store};
use farshore_engine::path::RelPath;
use farshore_engine::{AtPath, Changes, DeviceTag, Dot, Memory, Revision, Stated};
use farshore_proto::ShareId;
use rustix::io::Errno;

const SHARE: ShareId = ShareId([1; 16]);

/// Something has been removed at `number`.
fn change(number: u64) -> Changes {
    let path = RelPath::parse(format!("{number:04}").as_bytes()).unwrap();
    let gone = Revision::removed(Dot { author: DeviceTag(7), counter: number }.into());
    let at = AtPath { stated: Some(Stated { record: None, revision: gone }), held: None };
    Changes { paths: [(path, at)].into(), standings: None }
}

/// All that was removed.
fn remembered(store: &DiskStore) -> Vec<u64> {
    let memory = store.memory(SHARE).unwrap_or_default();
    memory.removed().iter().map(|(path, _)| path.to_string().parse().unwrap()).collect()
}

/// Notes three changes, makes a copy, and notes a fourth one meanwhile; call number `at` fails. Says whether there was one.
async fn one_life(at: usize, fault: Fault) -> bool {
    let (dir, trouble) = (tempfile::tempdir().unwrap(), Trouble::none());
    let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
    assert_eq!(remembered(&store), Vec::<u64>::new());
    trouble.plan(at, fault);
    let (mut noted, mut memory) = (Vec::new(), Memory::default());
    for number in 1..4 {
        if store.note(SHARE, change(number)).await.is_ok() {
            noted.push(number);
        }
        memory = memory.after(change(number)).unwrap();
    }
    // A mark that cannot be written makes a copy necessary, and nothing else.
    let is_whole = store.sync_journal(SHARE).await.is_ok() && noted.len() == 3;
    let number = store.begin_journal(SHARE).await.unwrap();
    let noted_fourth = store.note(SHARE, change(4)).await.is_ok();
    let is_copied = store.save_memory(SHARE, number, memory).await.is_ok();
    drop(store);
    let has_struck = trouble.heal();
    let store = DiskStore::open(dir.path()).unwrap();
    let mut expected = if is_copied { vec![1, 2, 3] } else { noted };
    if noted_fourth && (is_copied || is_whole) {
        expected.push(4);
    }
    assert_eq!(remembered(&store), expected, "call {at} fails");
    // The next life goes on with that.
    store.note(SHARE, change(9)).await.unwrap();
    drop(store);
    expected.push(9);
    assert_eq!(remembered(&DiskStore::open(dir.path()).unwrap()), expected, "after call {at} has failed");
    has_struck
}

#[tokio::test]
async fn whatever_call_fails_what_was_noted_before_counts() {
    for fault in [Fault::Error(Errno::IO), Fault::Error(Errno::NOSPC), Fault::Short(5)] {
        let mut at = 0;
        while one_life(at, fault).await {
            at += 1;
        }
        assert!(at > 10, "only {at} calls");
    }
}
