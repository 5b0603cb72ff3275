//! Bytes: all of them, from anywhere, and while others wait.

use crate::fixture::{Fixture, SOON, eventually};
use crate::tree::{Random, Tree, pattern};
use farshore::fuse::MountOptions;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::mpsc;

const SIZES: [usize; 9] = [0, 1, 511, 4095, 4096, 4097, 512 * 1024, 512 * 1024 + 1, 5 * 1024 * 1024 + 17];

#[test]
fn whole_files_and_random_ranges_are_right() {
    let tree = Tree::new();
    for size in SIZES {
        tree.file(1, format!("{size}").as_bytes(), pattern(size, size as u64));
    }
    let Some(fixture) = Fixture::new(tree) else { return };
    let mut random = Random(1);
    for size in SIZES {
        let expected = pattern(size, size as u64);
        let file = File::open(fixture.path(&size.to_string())).unwrap();
        for _ in 0..50 {
            let start = random.below(size + 10);
            let mut buffer = vec![0xee; random.below(300_000)];
            let got = read_fully(&file, &mut buffer, start as u64);
            let end = (start + buffer.len()).min(size);
            assert!(buffer[..got] == expected[start.min(size)..end], "{size} bytes, from {start}");
        }
        assert!(fs::read(fixture.path(&size.to_string())).unwrap() == expected, "{size} bytes");
    }
    eventually("a handle stays open", || fixture.tree.open_handles() == 0);
}

fn read_fully(file: &File, buffer: &mut [u8], start: u64) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], start + done as u64).unwrap() {
            0 => break,
            got => done += got,
        }
    }
    done
}

#[test]
fn bytes_that_cannot_be_read_are_an_error_and_not_the_end() {
    let tree = Tree::new();
    let ino = tree.file(1, b"file", pattern(100_000, 1));
    tree.break_bytes(ino);
    let Some(fixture) = Fixture::new(tree) else { return };
    let error = fs::read(fixture.path("file")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn waiting_reads_hold_up_nothing_else() {
    let tree = Tree::new();
    let slow: Vec<u64> = (0..64).map(|n| tree.file(1, format!("slow{n}").as_bytes(), pattern(300_000, n))).collect();
    tree.file(1, b"fast", pattern(3_000_000, 99));
    slow.iter().for_each(|ino| tree.hold(*ino));
    // One thread: if a read that waits took it, nothing else would be answered.
    let options = MountOptions { threads: 1, ..MountOptions::default() };
    let Some(fixture) = Fixture::with(tree, options) else { return };

    let (done, results) = mpsc::channel();
    let readers: Vec<_> = (0..64u64)
        .map(|number| {
            let (path, done) = (fixture.path(&format!("slow{number}")), done.clone());
            std::thread::spawn(move || done.send((number, fs::read(path))).unwrap())
        })
        .collect();
    for ino in &slow {
        eventually("a read does not reach the host", || fixture.tree.waiting(*ino) > 0);
    }
    // With all of them waiting, everything else answers.
    assert_eq!(fs::metadata(fixture.path("fast")).unwrap().len(), 3_000_000);
    assert_eq!(fs::metadata(fixture.path("slow7")).unwrap().len(), 300_000);
    assert_eq!(fs::read_dir(fixture.root()).unwrap().count(), 65);
    assert!(fs::read(fixture.path("fast")).unwrap() == pattern(3_000_000, 99));
    assert!(results.try_recv().is_err(), "a read that has to wait was answered");

    for ino in slow.iter().rev() {
        fixture.tree.release(*ino);
    }
    for _ in 0..64 {
        let (number, bytes) = results.recv_timeout(SOON).unwrap();
        assert!(bytes.unwrap() == pattern(300_000, number), "slow{number}");
    }
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

#[test]
fn a_lost_reply_is_an_error_and_is_counted() {
    let tree = Tree::new();
    let ino = tree.file(1, b"file", pattern(100, 1));
    tree.hold(ino);
    let Some(mut fixture) = Fixture::new(tree) else { return };
    let path = fixture.path("file");
    let reader = std::thread::spawn(move || fs::read(path));
    eventually("the read does not reach the host", || fixture.tree.waiting(ino) > 0);
    while !reader.is_finished() {
        fixture.tree.lose_all();
        std::thread::yield_now();
    }
    assert_eq!(reader.join().unwrap().unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(fixture.mounted().lost_replies() > 0);
    fixture.unmount();
}
