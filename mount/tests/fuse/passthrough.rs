//! Files that are all here are read by the kernel itself, and nobody can tell but by the speed.

use crate::fixture::{Fixture, eventually, is_mounted};
use crate::mapping::Mapping;
use crate::passing;
use crate::tree::{Tree, pattern};
use farshore::fuse::{MountOptions, Operation};
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Barrier;

const LEN: usize = 1_000_000;

fn options() -> MountOptions {
    MountOptions { passthrough_from_bytes: Some(4096), ..MountOptions::default() }
}

/// A mount of `tree` on which files may be read past us.
fn mounted(tree: Tree) -> Option<Fixture> {
    if let Some(reason) = passing::reason_against() {
        eprintln!("\n*** SKIPPED: {reason} ***\n");
        return None;
    }
    Fixture::with(tree, options())
}

/// A mount with one file, all of which is here.
fn with_whole_file() -> Option<(Fixture, u64, Vec<u8>)> {
    let (tree, bytes) = (Tree::new(), pattern(LEN, 1));
    let ino = tree.file(1, b"file", bytes.clone());
    tree.make_whole(ino);
    Some((mounted(tree)?, ino, bytes))
}

/// How many reads have come to us, and how many files were opened past us.
fn counts(fixture: &Fixture) -> (u64, u64) {
    let stats = fixture.mounted().stats();
    (stats.operation(Operation::Read).count, stats.passthrough_opens())
}

fn all_of(file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = file;
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn all_released(fixture: &Fixture) {
    eventually("a handle stays open", || fixture.tree.open_handles() == 0);
}

/// How many files the whole system has open. Those that the kernel has open for us are in no table of a process.
fn open_in_the_system() -> u64 {
    let counts = fs::read_to_string("/proc/sys/fs/file-nr").unwrap();
    counts.split_whitespace().next().unwrap().parse().unwrap()
}

fn our_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_file_that_is_whole_is_read_without_us() {
    let Some((fixture, _, bytes)) = with_whole_file() else { return };
    let file = File::open(fixture.path("file")).unwrap();
    assert!(all_of(&file) == bytes);
    let mut some = [0; 5000];
    file.read_exact_at(&mut some, 123_456).unwrap();
    assert!(some == bytes[123_456..][..5000]);
    assert_eq!(file.read_at(&mut some, LEN as u64).unwrap(), 0, "the end");
    for copy_on_write in [false, true] {
        assert!(Mapping::new(&file, LEN, copy_on_write).bytes() == bytes);
    }
    assert_eq!(counts(&fixture), (0, 1));
    assert_eq!(file.metadata().unwrap().len(), LEN as u64);
}

#[test]
fn small_files_and_those_that_are_not_whole_are_read_through_us() {
    let tree = Tree::new();
    let small = tree.file(1, b"small", pattern(4095, 1));
    tree.make_whole(small);
    tree.file(1, b"in part", pattern(LEN, 2));
    let Some(fixture) = mounted(tree) else { return };
    assert!(fs::read(fixture.path("small")).unwrap() == pattern(4095, 1));
    assert!(fs::read(fixture.path("in part")).unwrap() == pattern(LEN, 2));
    let (reads, passed) = counts(&fixture);
    assert!(reads >= 2 && passed == 0, "{reads} reads, {passed} passed");
}

#[test]
fn where_it_is_not_wanted_or_not_possible_all_is_read_through_us() {
    let unwanted = MountOptions { passthrough_from_bytes: None, ..MountOptions::default() };
    for options in [unwanted, options()] {
        let tree = Tree::new();
        let whole = tree.file(1, b"whole", pattern(LEN, 1));
        tree.make_whole(whole);
        // No kernel takes this for a backing file.
        let odd = tree.file(1, b"odd", pattern(LEN, 2));
        tree.back_with(odd, File::open("/").unwrap());
        let Some(fixture) = Fixture::with(tree, options.clone()) else { return };
        for (name, seed) in [("odd", 2), ("whole", 1), ("odd", 2)] {
            let opened = [(); 2].map(|()| File::open(fixture.path(name)).unwrap());
            assert!(opened.iter().all(|file| all_of(file) == pattern(LEN, seed)), "{name}");
            assert!(Mapping::new(&opened[0], LEN, false).bytes() == pattern(LEN, seed), "{name}");
        }
        let (reads, passed) = counts(&fixture);
        assert!(reads > 0, "odd was read through us");
        if options.passthrough_from_bytes.is_none() {
            assert_eq!(passed, 0);
        }
    }
}

#[test]
fn a_file_that_becomes_whole_while_it_is_open_is_read_without_us_when_all_have_closed_it() {
    let (tree, bytes) = (Tree::new(), pattern(LEN, 1));
    let ino = tree.file(1, b"file", bytes.clone());
    let Some(fixture) = mounted(tree) else { return };
    let open = || File::open(fixture.path("file")).unwrap();
    let first = open();
    assert!(all_of(&first) == bytes);
    let mapping = Mapping::new(&first, LEN, false);
    fixture.tree.make_whole(ino);
    let second = open();
    assert!(all_of(&second) == bytes && mapping.bytes() == bytes);
    drop(first);
    assert!(all_of(&open()) == bytes);
    assert_eq!(counts(&fixture).1, 0);
    drop(second);
    assert!(all_of(&open()) == bytes, "the mapping still has it open");
    assert_eq!(counts(&fixture).1, 0);
    drop(mapping);
    all_released(&fixture);
    let reads = counts(&fixture).0;
    assert!(all_of(&open()) == bytes);
    assert_eq!(counts(&fixture), (reads, 1), "nor is any of it read through what was cached");
}

#[test]
fn a_file_goes_from_one_way_of_reading_to_the_other_and_back() {
    let (tree, bytes) = (Tree::new(), pattern(LEN, 1));
    let ino = tree.file(1, b"file", bytes.clone());
    let Some(fixture) = mounted(tree) else { return };
    let mut expected = bytes;
    for round in 0..6_u64 {
        let (before, passed) = counts(&fixture);
        assert!(fs::read(fixture.path("file")).unwrap() == expected, "round {round}");
        all_released(&fixture);
        if round % 2 == 0 {
            fixture.tree.make_whole(ino);
            assert_eq!(counts(&fixture).1, passed);
        } else {
            assert_eq!(counts(&fixture), (before, passed + 1));
            // It is edited while nobody has it open, and so is not whole any more.
            expected = pattern(LEN, round);
            fixture.tree.write(ino, expected.clone());
            fixture.tree.inval_inode(ino, true);
            let modified = 1_000_000_000 + i64::try_from(ino).unwrap() + i64::try_from(round).unwrap() / 2 + 1;
            eventually("the edit does not show", || fs::metadata(fixture.path("file")).unwrap().mtime() == modified);
        }
    }
}

#[test]
fn an_edit_is_seen_by_new_opens_and_mappings_and_not_by_those_before() {
    let Some((fixture, ino, old)) = with_whole_file() else { return };
    let before = File::open(fixture.path("file")).unwrap();
    let mapping = Mapping::new(&before, LEN, false);
    assert!(all_of(&before) == old);
    // As the engine does it for what is read past it: another entry takes the name.
    let new = pattern(LEN + 5000, 2);
    fixture.tree.unlink(1, b"file");
    let now = fixture.tree.file(1, b"file", new.clone());
    fixture.tree.inval_entry(1, b"file");
    fixture.tree.inval_inode(ino, false);
    eventually("the new bytes do not show", || fs::read(fixture.path("file")).unwrap() == new);
    let after = File::open(fixture.path("file")).unwrap();
    assert!(Mapping::new(&after, new.len(), false).bytes() == new);
    assert!(all_of(&before) == old && mapping.bytes() == old);
    assert!(Mapping::new(&before, LEN, true).bytes() == old);
    assert_eq!((before.metadata().unwrap().ino(), after.metadata().unwrap().ino()), (ino, now));
    // Who opens it by way of the handle that is open gets what that has.
    let reopened = File::open(format!("/proc/self/fd/{}", before.as_raw_fd())).unwrap();
    assert!(all_of(&reopened) == old);
    fixture.tree.make_whole(now);
    assert!(all_of(&after) == new);
}

#[test]
fn a_file_that_is_removed_is_read_on() {
    let Some((fixture, ino, bytes)) = with_whole_file() else { return };
    let file = File::open(fixture.path("file")).unwrap();
    fixture.tree.unlink(1, b"file");
    fixture.tree.inval_entry(1, b"file");
    fixture.tree.inval_inode(ino, true);
    eventually("the name stays", || {
        fs::metadata(fixture.path("file")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    });
    assert!(all_of(&file) == bytes && Mapping::new(&file, LEN, false).bytes() == bytes);
    assert_eq!(counts(&fixture), (0, 1));
}

#[test]
fn a_mapping_outlives_the_handle_and_the_way_of_reading() {
    let Some((fixture, ino, bytes)) = with_whole_file() else { return };
    let mapping = Mapping::new(&File::open(fixture.path("file")).unwrap(), LEN, false);
    all_released(&fixture);
    let new = pattern(LEN, 2);
    fixture.tree.write(ino, new.clone());
    fixture.tree.inval_inode(ino, true);
    eventually("the new bytes do not show", || fs::read(fixture.path("file")).unwrap() == new);
    assert!(mapping.bytes() == bytes, "what was mapped stays what it was");
}

#[test]
fn a_hundred_open_one_file_at_once() {
    let Some((fixture, _, bytes)) = with_whole_file() else { return };
    for round in 1..=3 {
        let barrier = Barrier::new(100);
        std::thread::scope(|scope| {
            for reader in 0..100_usize {
                let (barrier, bytes, path) = (&barrier, &bytes, fixture.path("file"));
                scope.spawn(move || {
                    barrier.wait();
                    let file = File::open(path).unwrap();
                    let mut some = [0; 4096];
                    file.read_exact_at(&mut some, reader as u64 * 9000).unwrap();
                    assert!(some == bytes[reader * 9000..][..4096]);
                });
            }
        });
        assert_eq!(counts(&fixture), (0, round * 100));
    }
    all_released(&fixture);
}

#[test]
fn two_thousand_files_leave_no_open_file_behind() {
    let tree = Tree::new();
    for number in 0..2000_u64 {
        let ino = tree.file(1, format!("{number}").as_bytes(), pattern(5000, number));
        tree.make_whole(ino);
    }
    let Some(fixture) = mounted(tree) else { return };
    let (before, before_ours) = (open_in_the_system(), our_descriptors());
    for number in 0..2000_u64 {
        assert!(fs::read(fixture.path(&number.to_string())).unwrap() == pattern(5000, number));
    }
    assert_eq!(counts(&fixture), (0, 2000));
    all_released(&fixture);
    // Other tests, and other processes, open and close files as well, and the kernel closes them a little later.
    eventually("descriptors stay open", || our_descriptors() < before_ours + 500);
    eventually("files stay open in the kernel", || open_in_the_system() < before + 1000);
}

#[test]
fn the_mount_ends_while_files_are_read_without_us() {
    let Some((mut fixture, _, bytes)) = with_whole_file() else { return };
    let file = File::open(fixture.path("file")).unwrap();
    let mapping = Mapping::new(&file, LEN, false);
    assert!(fixture.unmount().as_secs() < 2);
    assert!(!is_mounted(fixture.root()));
    // The kernel goes on by itself.
    assert!(mapping.bytes() == bytes);
    let mut some = [0; 4096];
    assert!(file.read_exact_at(&mut some, 8192).is_err() || some == bytes[8192..][..4096]);
}

#[test]
fn a_mount_that_is_taken_away_is_served_until_files_are_closed() {
    let Some((mut fixture, _, bytes)) = with_whole_file() else { return };
    let file = File::open(fixture.path("file")).unwrap();
    unmount(fixture.root(), UnmountFlags::DETACH).unwrap();
    assert!(all_of(&file) == bytes);
    drop(file);
    fixture.wait();
}
