//! What only a disk does: leftovers, locks, full file systems.

use super::{DiskStore, OpenError};
use crate::store::Store;
use bytes::Bytes;
use farshore_engine::ContentId;
use farshore_engine::record::FileTime;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Everything below `dir`.
fn names(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            names.extend(self::names(&entry.path()));
        }
    }
    names
}

#[test]
fn nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&dir.path().join("new/store")).unwrap();
    let stored = store.create(ContentId(1), 10).unwrap();
    drop(store);
    let error = DiskStore::open(&dir.path().join("new/store")).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "a content in use keeps the store");
    drop(stored);
    assert_eq!(names(dir.path()), ["new", "store"]);
    let store = DiskStore::open(dir.path()).unwrap();
    std::fs::write(dir.path().join(".farshore/index"), b"something else").unwrap();
    drop(store);
    assert_eq!(names(&dir.path().join(".farshore")), ["index"], "what is not the store's stays");
}

#[test]
fn contents_are_private_and_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let _stored = store.create(ContentId(7), 1 << 40).unwrap();
    let meta = std::fs::metadata(dir.path().join(".farshore/partial/7")).unwrap();
    assert_eq!((meta.len(), meta.mode() & 0o7777), (1 << 40, 0o600));
    assert!(meta.blocks() < 100);
    assert_eq!(std::fs::metadata(dir.path().join(".farshore")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn what_an_earlier_process_left_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let partial = dir.path().join(".farshore/partial");
    std::fs::create_dir_all(&partial).unwrap();
    for name in ["1", "18446744073709551615", "not a content"] {
        std::fs::write(partial.join(name), b"old").unwrap();
    }
    let store = DiskStore::open(dir.path()).unwrap();
    assert_eq!(names(&partial), ["not a content"]);
    store.create(ContentId(1), 3).unwrap();
}

#[test]
fn a_store_has_one_user_who_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let _stored = store.create(ContentId(1), 3).unwrap();
    let error = DiskStore::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains(&format!("process {};", std::process::id())), "{error}");
    assert!(dir.path().join(".farshore/partial/1").exists(), "and nothing of it is touched");
}

#[test]
fn a_lock_of_a_process_that_is_gone_does_not_hold() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".farshore")).unwrap();
    std::fs::write(dir.path().join(".farshore/lock"), b"1\n").unwrap();
    let _store = DiskStore::open(dir.path()).unwrap();
    let text = std::fs::read_to_string(dir.path().join(".farshore/lock")).unwrap();
    assert_eq!(text.trim(), std::process::id().to_string());
}

#[test]
fn the_private_place_is_never_somewhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), dir.path().join(".farshore")).unwrap();
    let error = DiskStore::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains(".farshore"), "{error}");
    assert!(names(elsewhere.path()).is_empty());
}

#[tokio::test]
async fn a_file_kept_elsewhere_leaves_no_copy_behind_when_it_fails() {
    // On most machines this is another file system; where it is not, the law holds all the same.
    let other = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let stored = store.create(ContentId(1), 5).unwrap();
    Arc::clone(&stored).write(0, vec![Bytes::from_static(b"bytes")]).await.unwrap();
    let target = other.path().join("taken");
    std::fs::write(&target, b"mine").unwrap();
    let time = FileTime { seconds: 1, nanos: 0 };
    let kept = Arc::clone(&stored).keep(target.clone(), 0o600, time).await;
    assert_eq!(kept.unwrap_err().kind(), ErrorKind::AlreadyExists);
    symlink("nowhere", other.path().join("link")).unwrap();
    let kept = Arc::clone(&stored).keep(other.path().join("link"), 0o600, time).await;
    assert_eq!(kept.unwrap_err().kind(), ErrorKind::AlreadyExists, "not even a link that leads nowhere");
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    let mut left = names(other.path());
    left.sort();
    assert_eq!(left, ["link", "taken"]);
}

/// A small file system of its own, unmounted when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None` where mounting is not allowed.
    fn new(size: &str) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status();
        status.is_ok_and(|status| status.success()).then_some(Tmpfs(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = Tmpfs::new("1m") else {
        eprintln!("not run: this user may not mount");
        return;
    };
    let store = DiskStore::open(disk.0.path()).unwrap();
    let stored = store.create(ContentId(1), 8 << 20).unwrap();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 512 << 10]).unwrap();
    let write = || Arc::clone(&stored).write(0, vec![Bytes::from(vec![7; 768 << 10])]);
    assert_eq!(write().await.unwrap_err().kind(), ErrorKind::StorageFull);
    std::fs::remove_file(&ballast).unwrap();
    write().await.unwrap();
    let mut into = vec![0; 768 << 10];
    stored.read(0, &mut into).unwrap();
    assert!(into.iter().all(|byte| *byte == 7));
}
