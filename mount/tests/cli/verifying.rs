//! `verify`: what is stored is looked at, and what is damaged is told and forgotten.

use crate::world::World;
use bytes::Bytes;
use farshore::store::{DiskStore, Store};
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Stamp};
use farshore_engine::{ContentIdentity, PeerId};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const IDENTITY: ContentIdentity = ContentIdentity {
    owner: PeerId([3; 32]),
    stamp: Stamp(5),
    size_bytes: CHUNK_SIZE * 2 + 10,
    modified: FileTime { seconds: 7, nanos: 0 },
};

/// A store that holds all of one file. Returns the file with its bytes.
fn fill(dir: &Path) -> PathBuf {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = DiskStore::open(dir).unwrap();
        let stored = store.create(&IDENTITY, &RelPath::parse(b"letters/a").unwrap()).unwrap();
        for (chunk, len) in [(0, CHUNK_SIZE), (1, CHUNK_SIZE), (2, 10)] {
            let frames = vec![Bytes::from(vec![chunk as u8 + 1; len as usize])];
            Arc::clone(&stored).write(chunk, frames).await.unwrap();
        }
        store.close().await.unwrap();
    });
    dir.join(".farshore/partial").join(IDENTITY.key().to_string())
}

#[test]
fn what_is_damaged_is_told_once_and_fetched_again() {
    let world = World::new();
    let state = world.path("state of reader");
    world.run("reader", &["verify"]).went_well();
    let first = fill(&state.join("store/first"));
    fill(&state.join("store/second"));
    let said = |ended: &crate::process::Ended| String::from_utf8(ended.stdout.clone()).unwrap();
    let ended = world.run("reader", &["verify"]).went_well();
    assert_eq!(said(&ended), "2 stores, 2 files: 6 chunks are right, 0 are damaged, in 0 files\n");

    File::options().write(true).open(first).unwrap().write_all_at(b"x", CHUNK_SIZE + 77).unwrap();
    let ended = world.run("reader", &["verify", "--json"]).has_code(1).also_says(&["1 files were damaged"]);
    let lines: Vec<Value> = said(&ended).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[0]["path"], &lines[0]["damaged_chunks"]), (&"letters/a".into(), &vec![1].into()));
    assert_eq!((&lines[1]["files"], &lines[1]["right_chunks"]), (&2.into(), &5.into()));

    let store = state.join("store/first");
    let ended = world.run("reader", &["verify", "--store", store.to_str().unwrap()]).went_well();
    assert_eq!(said(&ended), "1 stores, 1 files: 2 chunks are right, 0 are damaged, in 0 files\n");

    std::fs::write(store.join(".farshore/partial").join(format!("{}.kdbitmap", IDENTITY.key())), b"KDB?").unwrap();
    let ended = world.run("reader", &["verify"]).has_code(1);
    assert!(said(&ended).contains("does not begin with KDBM; all of it is fetched again"), "{ended:?}");
    world.run("reader", &["verify"]).went_well();
}

#[test]
fn a_store_that_is_in_use_is_left_alone() {
    let world = World::new();
    let store = world.path("state of reader/store/first");
    fill(&store);
    let open = DiskStore::open(&store).unwrap();
    let process = format!("process {}", std::process::id());
    world.run("reader", &["verify"]).has_code(1).also_says(&[&process]).also_says(&["not everything"]);
    drop(open);
    world.run("reader", &["verify", "--store", "nowhere"]).has_code(2).only_says(&["no store in nowhere"]);
}
