//! Files of one's own folder that the kernel reads and writes by itself: nobody can tell but by the speed.

use crate::far::Halves;
use crate::fixture::eventually;
use crate::mapping::Mapping;
use crate::passing;
use crate::tree::pattern;
use farshore::fuse::{MountOptions, Operation};
use rustix::fs::{AtFlags, CWD, FallocateFlags, SeekFrom, copy_file_range, fallocate, seek, statat};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::process::Command;

const LEN: usize = 100_000;

/// Files smaller than that are read through us.
const FROM_BYTES: u64 = 4096;

/// A folder and its mount; `None` if the kernel may not do it here.
fn halves() -> Option<Halves> {
    if let Some(reason) = passing::reason_against() {
        eprintln!("\n*** SKIPPED: {reason} ***\n");
        return None;
    }
    let passthrough_from_bytes = Some(FROM_BYTES);
    Halves::with(MountOptions { read_only: false, passthrough_from_bytes, ..MountOptions::default() })
}

/// How many reads and writes have come to us, and how many files were opened past us.
fn counts(halves: &Halves) -> (u64, u64, u64) {
    let stats = halves.stats();
    let [reads, writes] = [Operation::Read, Operation::Write].map(|operation| stats.operation(operation).count);
    (reads, writes, stats.passthrough_opens())
}

fn to_write(halves: &Halves, name: &str) -> File {
    OpenOptions::new().read(true).write(true).open(halves.here(name)).unwrap()
}

/// `stat` says the same of a path on the mount and in the folder.
#[track_caller]
fn agrees(halves: &Halves, name: &str) {
    let all = |path| {
        let seen = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let times = [(seen.st_mtime, seen.st_mtime_nsec), (seen.st_ctime, seen.st_ctime_nsec)];
        (seen.st_size, seen.st_blocks, seen.st_mode, seen.st_nlink, times)
    };
    assert_eq!(all(halves.here(name)), all(halves.there(name)), "{name}");
}

#[test]
fn what_is_written_past_us_shows_in_every_stat() {
    let Some(halves) = halves() else { return };
    let mut file = File::create(halves.here("file")).unwrap();
    let looking = File::open(halves.here("file")).unwrap();
    for round in 1..=20 {
        file.write_all(&pattern(777, round)).unwrap();
        agrees(&halves, "file");
        assert_eq!(looking.metadata().unwrap().len(), 777 * round);
        // As seen by another program.
        let size = Command::new("stat").args(["-c", "%s"]).arg(halves.here("file")).output().unwrap();
        assert_eq!(String::from_utf8(size.stdout).unwrap().trim(), (777 * round).to_string());
    }
    // What is as long as before has another time.
    file.write_all_at(b"over", 5).unwrap();
    agrees(&halves, "file");
    assert_eq!((&looking).seek(std::io::SeekFrom::End(0)).unwrap(), 777 * 20);
    file.set_len(100).unwrap();
    agrees(&halves, "file");
    file.write_all_at(b"far", 500_000).unwrap();
    agrees(&halves, "file");
    drop(file);
    agrees(&halves, "file");
    assert_eq!(counts(&halves), (0, 0, 2), "not a byte came by us");
}

#[test]
fn what_is_written_past_us_is_told_when_it_is_closed_or_synced() {
    let Some(halves) = halves() else { return };
    let (far, path) = (&halves.far, halves.here("file"));
    File::create(&path).unwrap();
    far.has_told("found file");
    far.told();
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(b"text").unwrap();
    file.sync_all().unwrap();
    assert_eq!(far.told(), ["found file"]);
    file.sync_all().unwrap();
    assert_eq!(far.told(), [""; 0], "nothing is new");
    file.write_all(b"more").unwrap();
    drop(file);
    far.has_told("found file");
    far.told();
    drop(OpenOptions::new().read(true).write(true).open(&path).unwrap());
    fs::write(halves.here("last"), "").unwrap();
    far.has_told("found last");
    assert_eq!(far.told(), ["found last"], "who has written nothing has nothing to tell");
    assert_eq!(counts(&halves).1, 0);
}

#[test]
fn all_opens_of_a_file_are_alike_until_the_last_is_closed() {
    let Some(halves) = halves() else { return };
    fs::write(halves.there("file"), "small").unwrap();
    let open = || File::open(halves.here("file")).unwrap();
    // It is small, so it is read through us, and what is written to it meanwhile too.
    let small = open();
    let mut writer = to_write(&halves, "file");
    writer.write_all(&pattern(LEN, 1)).unwrap();
    assert!(fs::read(halves.here("file")).unwrap() == pattern(LEN, 1));
    let (reads, writes, passed) = counts(&halves);
    assert!(reads > 0 && writes > 0 && passed == 0, "{reads} {writes} {passed}");
    drop((small, writer));
    eventually("it is read past us when nobody has it open", || {
        drop(open());
        counts(&halves).2 > 0
    });
    // And then all are, how small ever it becomes.
    let writer = to_write(&halves, "file");
    let passed = counts(&halves).2;
    writer.set_len(0).unwrap();
    writer.write_all_at(b"tiny", 0).unwrap();
    let mut tiny = String::new();
    open().read_to_string(&mut tiny).unwrap();
    assert_eq!((tiny.as_str(), counts(&halves).2), ("tiny", passed + 1));
}

#[test]
fn what_the_kernel_reads_stays_open_until_the_last_close() {
    let Some(halves) = halves() else { return };
    fs::write(halves.there("file"), pattern(LEN, 1)).unwrap();
    let first = to_write(&halves, "file");
    let second = to_write(&halves, "file");
    drop(first);
    for round in 2..30 {
        // Each open would fail if the kernel had been given another file than for those that are still open.
        let third = to_write(&halves, "file");
        third.write_all_at(&pattern(5000, round), 20_000).unwrap();
        drop(third);
        let mut read = vec![0; 5000];
        second.read_exact_at(&mut read, 20_000).unwrap();
        assert!(read == pattern(5000, round));
    }
    assert_eq!(counts(&halves), (0, 0, 30));
}

#[test]
fn what_was_cached_before_is_not_what_is_read_after() {
    let Some(halves) = halves() else { return };
    let path = halves.here("file");
    fs::write(halves.there("file"), pattern(3000, 1)).unwrap();
    for round in 2..20 {
        // It is small: the kernel keeps what it reads.
        assert!(fs::read(&path).unwrap() == pattern(3000, round - 1));
        eventually("it is written past us", || {
            let passed = counts(&halves).2;
            let writer = OpenOptions::new().write(true).open(&path).unwrap();
            writer.write_all_at(&pattern(3000, round), 0).unwrap();
            counts(&halves).2 > passed
        });
        let reader = File::open(&path).unwrap();
        assert!(Mapping::new(&reader, 3000, false).bytes() == pattern(3000, round), "round {round}");
    }
}

#[test]
fn bytes_go_where_they_belong_and_holes_stay_holes() {
    let Some(halves) = halves() else { return };
    let path = halves.here("file");
    let append = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let (mut one, mut other) = (append(), append());
    let mut past = OpenOptions::new().append(true).open(halves.there("file")).unwrap();
    for text in ["a", "b"] {
        one.write_all(text.as_bytes()).unwrap();
        other.write_all(b",").unwrap();
        past.write_all(b";").unwrap();
    }
    one.set_len(5).unwrap();
    one.write_all(b"end").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a,;b,end");
    drop((one, other));
    let sparse = OpenOptions::new().read(true).write(true).create_new(true).open(halves.here("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"far", 1 << 20).unwrap();
    assert!((5..=1 << 16).contains(&seek(&sparse, SeekFrom::Hole(0)).unwrap()));
    assert!(seek(&sparse, SeekFrom::Data(1 << 17)).unwrap() > 1 << 17);
    fallocate(&sparse, FallocateFlags::empty(), 0, 1 << 21).unwrap();
    agrees(&halves, "sparse");
    fallocate(&sparse, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 4096).unwrap();
    agrees(&halves, "sparse");
    let (mut from, mut to) = (1 << 20, 7);
    copy_file_range(&sparse, Some(&mut from), &sparse, Some(&mut to), 3).unwrap();
    agrees(&halves, "sparse");
    let mut read = [1; 10];
    sparse.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"\0\0\0\0\0\0\0far");
    let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let direct = OpenOptions::new().write(true).custom_flags(flags).open(halves.here("sparse"));
    // Not every disk can.
    assert_eq!(direct.is_ok(), OpenOptions::new().write(true).custom_flags(flags).open(halves.there("sparse")).is_ok());
    assert_eq!(halves.stats().read_bytes(), 0);
}

#[test]
fn it_outlives_its_name() {
    let Some(halves) = halves() else { return };
    fs::write(halves.there("file"), pattern(LEN, 1)).unwrap();
    let file = to_write(&halves, "file");
    fs::rename(halves.here("file"), halves.here("moved")).unwrap();
    file.write_all_at(b"after it was renamed", 0).unwrap();
    agrees(&halves, "moved");
    fs::remove_file(halves.here("moved")).unwrap();
    fs::write(halves.here("moved"), "another").unwrap();
    file.write_all_at(b"after it was removed", 50).unwrap();
    let mut read = [0; 70];
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(read.starts_with(b"after it was renamed") && read.ends_with(b"after it was removed"));
    let seen = file.metadata().unwrap();
    assert_eq!((seen.nlink(), seen.len()), (0, LEN as u64));
    assert_eq!(fs::read_to_string(halves.there("moved")).unwrap(), "another");
}

#[test]
fn what_is_written_through_a_map_is_noticed_while_it_is_open() {
    let Some(halves) = halves() else { return };
    fs::write(halves.there("file"), pattern(LEN, 1)).unwrap();
    let file = to_write(&halves, "file");
    let mut mapping = Mapping::to_write(&file, LEN);
    for round in 0..3 {
        // The kernel remembers what it was told.
        agrees(&halves, "file");
        halves.far.told();
        mapping.write(5000, &[round; 5]);
        mapping.sync();
        halves.far.has_told("found file");
        eventually("its time shows", || {
            let time = |path| fs::metadata(path).unwrap().modified().unwrap();
            time(halves.here("file")) == time(halves.there("file"))
        });
        assert_eq!(fs::read(halves.there("file")).unwrap()[5000..5005], [round; 5]);
    }
    assert_eq!(counts(&halves), (0, 0, 1));
}

#[test]
fn what_was_away_is_read_past_us_when_it_has_come_and_all_have_closed_it() {
    let Some(halves) = halves() else { return };
    halves.far.put("file", &pattern(LEN, 1));
    let away = File::open(halves.here("file")).unwrap();
    halves.far.come("file");
    let come = to_write(&halves, "file");
    come.write_all_at(b"new", 70_000).unwrap();
    let mut read = [0; 3];
    away.read_exact_at(&mut read, 70_000).unwrap();
    assert_eq!((&read, counts(&halves).2), (b"new", 0));
    drop((away, come));
    eventually("it is read past us", || {
        drop(File::open(halves.here("file")).unwrap());
        counts(&halves).2 > 0
    });
    assert_eq!(fs::read(halves.here("file")).unwrap()[70_000..70_003], *b"new");
}

#[test]
fn many_files_leave_nothing_open_behind() {
    let Some(halves) = halves() else { return };
    let descriptors =
        || fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let open = || descriptors().filter(|path| path.starts_with(halves.there(""))).count();
    let before = open();
    for number in 0..500 {
        fs::write(halves.here(&format!("file {number}")), "text").unwrap();
        fs::remove_file(halves.here(&format!("file {number}"))).unwrap();
    }
    assert_eq!(counts(&halves), (0, 0, 500));
    eventually("descriptors stay behind", || open() <= before);
}
