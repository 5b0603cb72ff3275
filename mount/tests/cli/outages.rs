//! The owner's process dies in the middle: readers wait or get an error in time, and never get a wrong byte.

use crate::process::{Process, SOON, eventually};
use crate::tree::{hash, noise, write_noise};
use crate::world::{FARSHORE, World, is_mounted};
use farshore_engine::chunk::CHUNK_SIZE;
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::Xxh3;

/// Longer than everything that is read ahead, so that the end of it cannot have come when its beginning is read.
const LARGE_BYTES: usize = 64 * 1024 * 1024;

/// What is answered from memory and disk comes within this.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A reader in a thread of its own, which reads a part of a file whenever it is told to.
struct Reader {
    allow: Sender<usize>,
    /// How much it has read, each time.
    progress: Receiver<io::Result<usize>>,
    thread: JoinHandle<u64>,
}

impl Reader {
    fn start(path: &Path) -> Reader {
        let mut file = File::open(path).unwrap();
        let (allow, allowed) = channel::<usize>();
        let (progressed, progress) = channel();
        let thread = thread::spawn(move || {
            let mut hash = Xxh3::new();
            for size_bytes in allowed {
                let mut part = vec![0; size_bytes];
                let result = file.read_exact(&mut part).map(|()| size_bytes);
                hash.update(&part);
                // The test may have seen enough.
                let _ = progressed.send(result);
            }
            hash.digest()
        });
        Reader { allow, progress, thread }
    }

    fn read(&self, size_bytes: usize) {
        self.allow.send(size_bytes).unwrap();
    }

    fn has_read(&self) -> io::Result<usize> {
        self.progress.recv_timeout(2 * SOON).expect("the reader never came back")
    }

    fn hash(self) -> u64 {
        drop(self.allow);
        self.thread.join().unwrap()
    }
}

fn read_at(file: &File, offset: usize, size_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size_bytes];
    file.read_exact_at(&mut bytes, offset as u64)?;
    Ok(bytes)
}

#[track_caller]
fn is_io_error<T: std::fmt::Debug>(result: io::Result<T>) {
    assert_eq!(result.unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed())
}

#[test]
fn a_reader_survives_the_death_and_return_of_the_owner() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    let bytes = write_noise(&folder.join("large"), 1, LARGE_BYTES);
    let mut share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    let reader = Reader::start(&mount.path("large"));
    reader.read(LARGE_BYTES / 16);
    assert_eq!(reader.has_read().unwrap(), LARGE_BYTES / 16);
    share.process.kill();
    reader.read(LARGE_BYTES - LARGE_BYTES / 16);
    mount.process().says("lost the connection");
    assert!(reader.progress.try_recv().is_err(), "not all of it can have come yet");
    let again = world.share_at(&folder, &share.address, &[]);
    assert_eq!(again.ticket, share.ticket, "the ticket stays the same");
    assert_eq!(reader.has_read().unwrap(), LARGE_BYTES - LARGE_BYTES / 16);
    assert_eq!(reader.hash(), hash(&bytes));
    mount.stop();
}

#[test]
fn a_file_that_changed_while_the_owner_was_dead_is_not_mixed() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    let before = write_noise(&folder.join("large"), 1, LARGE_BYTES);
    let mut share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    let file = File::open(mount.path("large")).unwrap();
    assert_eq!(read_at(&file, 0, 4096).unwrap(), before[..4096]);
    share.process.kill();
    mount.process().says("lost the connection");
    let after = write_noise(&folder.join("large"), 2, LARGE_BYTES);
    let _again = world.share_at(&folder, &share.address, &[]);
    // Each piece is that of the old version or of the new one, and soon all are of the new one, or an error for who
    // has had it open all the time.
    let is_new = |file: &File, offset: usize| match read_at(file, offset, 4096) {
        Ok(bytes) if bytes == after[offset..offset + 4096] => Ok(true),
        Ok(bytes) if bytes == before[offset..offset + 4096] => Ok(false),
        Ok(_) => panic!("neither old nor new at {offset}"),
        Err(error) => Err(error),
    };
    let offsets = [0, LARGE_BYTES / 2, LARGE_BYTES - 4096];
    eventually("the new content shows", || {
        let fresh = File::open(mount.path("large")).unwrap();
        offsets.iter().all(|offset| is_new(&fresh, *offset).is_ok_and(|new| new))
    });
    eventually("the new content shows or is refused", || {
        offsets.iter().all(|offset| is_new(&file, *offset).map_or(true, |new| new))
    });
    drop(file);
    mount.stop();
}

#[test]
fn while_the_owner_is_dead_nothing_hangs() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    let bytes = write_noise(&folder.join("large"), 1, LARGE_BYTES);
    fs::write(folder.join("small"), "small").unwrap();
    let mut share = world.share(&folder);
    let timeout = Duration::from_secs(2);
    let mount = world.mount(&share, &["--read-timeout", "2"]);
    let file = File::open(mount.path("large")).unwrap();
    let chunk = CHUNK_SIZE as usize;
    assert_eq!(read_at(&file, chunk, chunk).unwrap(), bytes[chunk..2 * chunk]);
    share.process.kill();
    mount.process().says("lost the connection");

    let reader = Reader::start(&mount.path("large"));
    let missing = thread::spawn({
        let file = file.try_clone().unwrap();
        move || timed(|| read_at(&file, LARGE_BYTES - 4096, 4096))
    });
    // While that one waits, whatever needs no bytes is answered.
    let root = mount.root().to_owned();
    let (names, took) = timed(|| fs::read_dir(&root).unwrap().flatten().count());
    assert!(names == 2 && took < AT_ONCE, "ls: {names} names after {took:?}");
    let (meta, took) = timed(|| fs::metadata(root.join("large")).unwrap());
    assert!(meta.len() == LARGE_BYTES as u64 && took < AT_ONCE, "stat took {took:?}");
    let (absent, took) = timed(|| fs::metadata(root.join("no such thing")).is_err());
    assert!(absent && took < AT_ONCE, "the stat of a missing name took {took:?}");
    let (disk, took) = timed(|| rustix::fs::statvfs(&root).unwrap());
    assert!(disk.f_blocks > 0 && took < AT_ONCE, "df took {took:?}");

    // What was fetched is served, and not only because the kernel remembers it.
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    let (present, took) = timed(|| read_at(&file, chunk, chunk).unwrap());
    assert!(present == bytes[chunk..2 * chunk] && took < AT_ONCE, "present bytes took {took:?}");

    let (result, took) = missing.join().unwrap();
    is_io_error(result);
    assert!(took >= timeout.mul_f32(0.9), "the read gave up after {took:?} already");
    assert!(took < timeout + 5 * AT_ONCE, "the read took {took:?}");
    reader.read(chunk);
    is_io_error(reader.has_read());
    drop(reader);

    // When the owner is back, so is the file.
    let _again = world.share_at(&folder, &share.address, &[]);
    eventually("the bytes can be had again", || {
        read_at(&file, LARGE_BYTES - 4096, 4096).is_ok_and(|tail| tail == bytes[LARGE_BYTES - 4096..])
    });
    drop(file);
    mount.stop();
}

#[test]
fn who_does_not_want_to_wait_gets_the_error_at_once() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    write_noise(&folder.join("large"), 1, LARGE_BYTES);
    let mut share = world.share(&folder);
    let mount = world.mount(&share, &["--on-disconnect=fail"]);
    let file = File::open(mount.path("large")).unwrap();
    assert_eq!(read_at(&file, 0, 4096).unwrap(), noise(1, 4096));
    share.process.kill();
    mount.process().says("lost the connection");
    let (result, took) = timed(|| read_at(&file, LARGE_BYTES - 4096, 4096));
    is_io_error(result);
    assert!(took < AT_ONCE, "the read took {took:?}");
    drop(file);
    mount.stop();
}

#[test]
fn a_waiting_reader_does_not_keep_the_mount_up() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    write_noise(&folder.join("large"), 1, LARGE_BYTES);
    let mut share = world.share(&folder);
    let unmount = |mountpoint: &Path| {
        let mut command = Command::new(FARSHORE);
        command.arg("unmount").arg(mountpoint);
        command
    };
    for by_command in [true, false] {
        let mount = world.mount(&share, &["--read-timeout", "600"]);
        let file = File::open(mount.path("large")).unwrap();
        share.process.kill();
        mount.process().says("lost the connection");
        let (tell, told) = channel();
        let reader = thread::spawn(move || {
            tell.send(thread_stat()).unwrap();
            read_at(&file, LARGE_BYTES - 4096, 4096)
        });
        let stat = told.recv().unwrap();
        eventually("the reader waits", || is_asleep(&stat));
        let (ended, took) = timed(|| match by_command {
            true => {
                Process::run(unmount(mount.root())).went_well();
                assert!(!is_mounted(mount.root()));
                mount.end()
            }
            false => mount.stop_by(Signal::TERM),
        });
        ended.went_well();
        assert!(took < Duration::from_secs(10), "it took {took:?}");
        assert!(reader.join().unwrap().is_err());
        share = world.share_at(&folder, &share.address, &[]);
    }
}

/// Where the state of the current thread can be read.
fn thread_stat() -> std::path::PathBuf {
    Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap()).join("stat")
}

/// Whether a thread waits for something.
fn is_asleep(stat: &Path) -> bool {
    let stat = fs::read_to_string(stat).unwrap();
    matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('S' | 'D'))
}
