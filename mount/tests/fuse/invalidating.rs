//! What the kernel remembers, and how it is made to forget.

use crate::fixture::{Fixture, eventually};
use crate::mapping::Mapping;
use crate::tree::{Tree, pattern};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

#[test]
fn a_name_that_appears_shows_at_once() {
    let Some(fixture) = Fixture::new(Tree::new()) else { return };
    assert_eq!(fs::metadata(fixture.path("file")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(fs::read_dir(fixture.root()).unwrap().count(), 0);
    fixture.tree.file(1, b"file", b"new".to_vec());
    assert_eq!(fs::metadata(fixture.path("file")).unwrap_err().kind(), io::ErrorKind::NotFound, "still remembered");
    fixture.tree.inval_entry(1, b"file");
    eventually("the new name does not show", || fs::read(fixture.path("file")).is_ok_and(|bytes| bytes == b"new"));
    assert_eq!(fs::read_dir(fixture.root()).unwrap().count(), 1, "the listing is forgotten with the name");
}

#[test]
fn attributes_change_when_told() {
    let tree = Tree::new();
    let ino = tree.file(1, b"file", vec![1; 10]);
    let Some(fixture) = Fixture::new(tree) else { return };
    let size = || fs::metadata(fixture.path("file")).unwrap().len();
    assert_eq!(size(), 10);
    fixture.tree.write(ino, vec![1; 20]);
    assert_eq!(size(), 10, "still remembered");
    fixture.tree.inval_inode(ino, false);
    eventually("the new size does not show", || size() == 20);
}

#[test]
fn bytes_change_when_told_for_read_and_mmap() {
    let tree = Tree::new();
    let (old, new) = (pattern(1_000_000, 1), pattern(1_000_000, 2));
    let ino = tree.file(1, b"file", old.clone());
    let Some(fixture) = Fixture::new(tree) else { return };
    let file = File::open(fixture.path("file")).unwrap();
    let at = |bytes: &[u8]| -> [u8; 8] { bytes[700_000..700_008].try_into().unwrap() };
    let read = || {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 700_000).unwrap();
        bytes
    };
    let mapped = || at(&Mapping::new(&file, 1_000_000, false).bytes());
    assert_eq!([read(), mapped()], [at(&old); 2]);
    fixture.tree.write(ino, new.clone());
    assert_eq!([read(), mapped()], [at(&old); 2], "still remembered");
    fixture.tree.inval_inode(ino, true);
    eventually("the new bytes do not show", || read() == at(&new));
    assert_eq!(mapped(), at(&new));
    assert!(fs::read(fixture.path("file")).unwrap() == new);
}

#[test]
fn a_file_that_grows_never_shows_zeros() {
    let tree = Tree::new();
    let all = vec![0xaa; 9000];
    let ino = tree.file(1, b"file", all[..100].to_vec());
    let Some(fixture) = Fixture::new(tree) else { return };
    for size in [100, 200, 4095, 4097, 8192, 9000] {
        fixture.tree.write(ino, all[..size].to_vec());
        fixture.tree.inval_inode(ino, true);
        eventually("the new size does not show", || {
            let bytes = fs::read(fixture.path("file")).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0xaa), "a byte that nobody wrote");
            bytes.len() == size
        });
    }
}

#[test]
fn a_waiting_read_holds_up_the_news_of_its_own_file_only() {
    let tree = Tree::new();
    let slow = tree.file(1, b"slow", pattern(100_000, 1));
    let other = tree.file(1, b"other", vec![1; 10]);
    tree.hold(slow);
    let Some(fixture) = Fixture::new(tree) else { return };
    assert_eq!(fs::metadata(fixture.path("other")).unwrap().len(), 10);
    assert_eq!(fs::metadata(fixture.path("new")).unwrap_err().kind(), io::ErrorKind::NotFound);
    let path = fixture.path("slow");
    let reader = std::thread::spawn(move || fs::read(path));
    eventually("the read does not reach the host", || fixture.tree.waiting(slow) > 0);

    fixture.tree.inval_inode(slow, true);
    fixture.tree.write(other, vec![1; 20]);
    fixture.tree.inval_inode(other, false);
    fixture.tree.file(1, b"new", Vec::new());
    fixture.tree.inval_entry(1, b"new");
    eventually("the new size does not show", || fs::metadata(fixture.path("other")).unwrap().len() == 20);
    eventually("the new name does not show", || fs::metadata(fixture.path("new")).is_ok());
    assert!(!reader.is_finished());
    fixture.tree.release(slow);
    assert!(reader.join().unwrap().unwrap() == pattern(100_000, 1));
}

#[test]
fn a_new_time_alone_is_enough_to_drop_old_bytes() {
    let tree = Tree::new();
    let ino = tree.file(1, b"file", b"old".to_vec());
    let Some(fixture) = Fixture::new(tree) else { return };
    assert_eq!(fs::read(fixture.path("file")).unwrap(), b"old");
    fixture.tree.write(ino, b"new".to_vec());
    fixture.tree.inval_inode(ino, false);
    eventually("the new bytes do not show", || fs::read(fixture.path("file")).unwrap() == b"new");
}

#[test]
fn a_listing_changes_when_told() {
    let tree = Tree::new();
    tree.file(1, b"one", Vec::new());
    let Some(fixture) = Fixture::new(tree) else { return };
    let count = || fs::read_dir(fixture.root()).unwrap().count();
    assert_eq!(count(), 1);
    fixture.tree.file(1, b"two", Vec::new());
    assert_eq!(count(), 1, "still remembered");
    fixture.tree.inval_inode(1, true);
    eventually("the new entry does not show", || count() == 2);
}

#[test]
fn a_lookup_that_was_overtaken_by_its_invalidation_is_not_believed_for_long() {
    let tree = Tree::new();
    let ino = tree.file(1, b"file", vec![1; 10]);
    let other = tree.file(1, b"other", vec![1; 10]);
    let Some(fixture) = Fixture::new(tree) else { return };
    let size = |name| fs::metadata(fixture.path(name)).unwrap().len();
    assert_eq!(size("other"), 10);
    // The message comes while the kernel knows nothing of the inode, as it does when the answer is still on its way.
    fixture.tree.inval_inode(ino, false);
    fixture.tree.write(other, vec![1; 20]);
    fixture.tree.inval_inode(other, false);
    eventually("the messages are not sent", || size("other") == 20);
    assert_eq!(size("file"), 10);
    fixture.tree.write(ino, vec![1; 20]);
    eventually("an old size is believed", || size("file") == 20);
}
