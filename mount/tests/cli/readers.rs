//! Many readers at once, and what is left when they have gone.

use crate::process::eventually;
use crate::tree::{hash, hash_file, write_noise};
use crate::world::World;
use farshore_engine::chunk::CHUNK_SIZE;
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

const FILES: usize = 8;
const READERS: usize = 32;

/// How large each of the files is.
fn size_bytes(file: usize) -> usize {
    5 * CHUNK_SIZE as usize + 100_003 * file
}

/// The open descriptors and the threads of a process.
fn holdings(pid: u32) -> (usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    (count("fd"), count("task"))
}

/// Hashes a file, read from the end to the beginning in pieces that fit nothing.
fn hash_backwards(path: &Path, size_bytes: usize) -> u64 {
    let file = File::open(path).unwrap();
    let mut bytes = vec![0; size_bytes];
    for (piece, number) in bytes.rchunks_mut(77_777).zip(1..) {
        let offset = size_bytes.saturating_sub(77_777 * number);
        file.read_exact_at(piece, offset as u64).unwrap();
    }
    hash(&bytes)
}

/// All files by all readers at once.
fn read_all(root: &Path, hashes: &[u64]) {
    thread::scope(|scope| {
        for reader in 0..READERS {
            let file = reader % FILES;
            let path = root.join(file.to_string());
            scope.spawn(move || {
                let hash = match reader % 3 {
                    0 => hash_backwards(&path, size_bytes(file)),
                    _ => hash_file(&path).unwrap(),
                };
                assert_eq!(hash, hashes[file], "{}", path.display());
            });
        }
    });
}

#[test]
fn many_readers_get_the_right_bytes_and_leave_nothing_behind() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    let write = |file: usize| hash(&write_noise(&folder.join(file.to_string()), file as u64, size_bytes(file)));
    let hashes: Vec<u64> = (0..FILES).map(write).collect();
    let share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    let pid = mount.process().pid();
    let round = || {
        read_all(mount.root(), &hashes);
        for file in 0..FILES {
            // The next round asks us, and not the kernel's memory.
            let file = File::open(mount.path(&file.to_string())).unwrap();
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
    };
    // By then everything runs that is begun when it is first needed, and the store has each file open, once.
    round();
    let (mut fds, mut threads) = holdings(pid);
    for _ in 0..3 {
        round();
        // Threads that have been idle for a while end by themselves.
        eventually("descriptors and threads are no more than they were", || {
            let now = holdings(pid);
            if now.0 <= fds && now.1 <= threads { Ok(()) } else { Err(format!("{now:?}, not {fds}, {threads}")) }
        });
        let now = holdings(pid);
        (fds, threads) = (fds.min(now.0), threads.min(now.1));
    }
    mount.stop();
    // Of each file its bytes and its sidecar, and the mark of a clean stop.
    let left = world.stored_files();
    assert_eq!(left.len(), 2 * FILES + 1, "left in the store: {left:?}");
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}
