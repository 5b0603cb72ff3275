//! Files that peers have and the folder has not yet, on the mount of the folder.

use crate::far::Halves;
use crate::fixture::{SOON, eventually};
use crate::tree::pattern;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, RenameFlags, SeekFrom, StatxFlags, Timespec, Timestamps, XattrFlags, getxattr,
    listxattr, mknodat, removexattr, renameat_with, setxattr, statx, utimensat,
};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

fn code(result: std::io::Result<()>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

/// Cuts a file by its path, which opens nothing.
fn cut(path: &Path, size_bytes: i64) {
    // The standard library opens it first.
    let program = "truncate($ARGV[0], $ARGV[1]) or die $!";
    let done = Command::new("perl").args(["-e", program]).arg(path).arg(size_bytes.to_string()).status();
    assert!(done.unwrap().success());
}

#[test]
fn what_is_away_is_listed_and_looked_at_beside_what_is_here() {
    let Some(halves) = Halves::new() else { return };
    fs::create_dir(halves.there("dir")).unwrap();
    fs::write(halves.there("m"), "here").unwrap();
    let far = &halves.far;
    for name in ["a", "z", "dir/x"] {
        far.put(name, &pattern(5000, 1));
    }
    assert_eq!(halves.list(""), ["a", "dir", "m", "z"]);
    assert_eq!(halves.list("dir"), ["x"]);
    let seen = fs::metadata(halves.here("dir/x")).unwrap();
    assert_eq!((seen.len(), seen.mode(), seen.nlink(), seen.blocks()), (5000, 0o100_640, 1, 0));
    assert_eq!((seen.mtime() / 1000, seen.mtime_nsec()), (1_000_000, 7));
    let owner = fs::metadata(halves.root()).unwrap();
    assert_eq!((seen.uid(), seen.gid()), (owner.uid(), owner.gid()));
    let listed = fs::read_dir(halves.here("dir")).unwrap().next().unwrap().unwrap();
    assert_eq!(std::os::unix::fs::DirEntryExt::ino(&listed), seen.ino());
    assert_eq!(fs::symlink_metadata(halves.here("dir/y")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(far.told().is_empty() && far.brought().is_empty() && far.reads() == 0, "looking changes nothing");
}

#[test]
fn a_large_listing_shows_everything_once_while_files_come() {
    let Some(halves) = Halves::new() else { return };
    for number in 0..3000 {
        halves.far.put(&format!("far {number:04}"), b"far");
    }
    // So many that the folder is read in several parts, and shows what has come meanwhile.
    for number in 0..4000 {
        fs::write(halves.there(&format!("near {number:04}")), "near").unwrap();
    }
    let mut names = Vec::new();
    for (number, entry) in fs::read_dir(halves.root()).unwrap().enumerate() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
        if number % 3 == 0 && number < 3000 {
            halves.far.come(&format!("far {number:04}"));
        }
    }
    names.sort();
    let expected: Vec<String> =
        (0..3000).map(|n| format!("far {n:04}")).chain((0..4000).map(|n| format!("near {n:04}"))).collect();
    assert!(names == expected, "{} names, not {}", names.len(), expected.len());
}

#[test]
fn what_comes_in_the_moment_in_which_it_is_looked_for_is_found() {
    let Some(halves) = Halves::new() else { return };
    halves.far.put("file", b"bytes");
    halves.far.come_when_asked("file");
    assert_eq!(fs::metadata(halves.here("file")).unwrap().len(), 5);
    assert!(halves.there("file").exists(), "it came too early or too late");
}

#[test]
fn reading_fetches_only_what_is_read_and_goes_on_when_the_file_comes() {
    let Some(halves) = Halves::new() else { return };
    let bytes = pattern(3_000_000, 2);
    halves.far.put("file", &bytes);
    let file = File::open(halves.here("file")).unwrap();
    let number = file.metadata().unwrap().ino();
    let mut part = [0; 1000];
    file.read_exact_at(&mut part, 1_000_000).unwrap();
    assert!(part == bytes[1_000_000..1_001_000]);
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(5)).unwrap(), 3_000_000);
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(5)).unwrap(), 5);
    assert!(halves.far.brought().is_empty());
    halves.far.come("file");
    let seen = fs::metadata(halves.here("file")).unwrap();
    assert_eq!((seen.ino(), seen.len()), (number, 3_000_000), "it stays the same file");
    assert!(fs::read(halves.here("file")).unwrap() == bytes);
    // And is written as any other file, which whoever has it open sees.
    OpenOptions::new().write(true).open(halves.here("file")).unwrap().write_all_at(b"new", 2_500_000).unwrap();
    file.read_exact_at(&mut part, 2_500_000).unwrap();
    assert_eq!(&part[..3], b"new");
    assert_eq!(&fs::read(halves.there("file")).unwrap()[2_500_000..2_500_003], b"new");
}

#[test]
fn a_reader_that_waits_holds_up_nobody_and_an_end_ends_it() {
    let Some(mut halves) = Halves::new() else { return };
    halves.far.put("file", &pattern(3_000_000, 3));
    halves.far.put("other", b"other");
    fs::write(halves.there("here"), "here").unwrap();
    halves.far.cut();
    let (sender, ended) = channel();
    for _ in 0..20 {
        let (path, sender) = (halves.here("file"), sender.clone());
        thread::spawn(move || {
            let read = File::open(path).and_then(|file| file.read_exact_at(&mut [0; 10], 2_000_000));
            sender.send(read.is_ok()).unwrap();
        });
    }
    eventually("reads do not come", || halves.far.waiting() > 0);
    // A write to what is away waits too.
    let path = halves.here("other");
    let writer = thread::spawn(move || OpenOptions::new().append(true).open(path)?.write_all(b"more"));
    eventually("the file is not asked for", || halves.far.waiting() > 1);
    assert_eq!(fs::read_to_string(halves.here("here")).unwrap(), "here");
    fs::write(halves.here("new"), "new").unwrap();
    assert_eq!(halves.list(""), ["file", "here", "new", "other"]);
    halves.unmount();
    for _ in 0..20 {
        assert!(!ended.recv_timeout(SOON).unwrap(), "nothing was there to be read");
    }
    assert!(writer.join().unwrap().is_err());
}

#[test]
fn who_writes_to_what_is_away_gets_all_of_it_first() {
    let Some(halves) = Halves::new() else { return };
    let (far, bytes) = (&halves.far, pattern(1_000_000, 4));
    for name in ["write", "append", "cut", "allocate", "link", "chown", "exchange"] {
        far.put(name, &bytes);
    }
    OpenOptions::new().write(true).open(halves.here("write")).unwrap().write_all_at(b"new", 500_000).unwrap();
    let mut expected = bytes.clone();
    expected[500_000..500_003].copy_from_slice(b"new");
    assert!(fs::read(halves.there("write")).unwrap() == expected);
    OpenOptions::new().append(true).open(halves.here("append")).unwrap().write_all(b"end").unwrap();
    assert!(fs::read(halves.there("append")).unwrap() == [&bytes[..], b"end"].concat());
    cut(&halves.here("cut"), 1000);
    assert!(fs::read(halves.there("cut")).unwrap() == bytes[..1000]);
    fs::hard_link(halves.here("link"), halves.here("linked")).unwrap();
    assert_eq!(fs::metadata(halves.there("linked")).unwrap().nlink(), 2);
    std::os::unix::fs::chown(halves.here("chown"), None, Some(fs::metadata(halves.root()).unwrap().gid())).unwrap();
    assert!(fs::read(halves.there("chown")).unwrap() == bytes);
    fs::write(halves.here("other"), "other").unwrap();
    renameat_with(CWD, halves.here("other"), CWD, halves.here("exchange"), RenameFlags::EXCHANGE).unwrap();
    assert!(fs::read(halves.here("other")).unwrap() == bytes);
    assert_eq!(fs::read_to_string(halves.here("exchange")).unwrap(), "other");
    assert_eq!(far.brought(), ["write", "append", "cut", "link", "chown", "exchange"]);
    assert_eq!(far.names(), ["allocate"]);
}

#[test]
fn extended_attributes_of_what_is_away_are_set_where_it_is() {
    let Some(halves) = Halves::new() else { return };
    halves.far.put("file", b"far away");
    let path = halves.here("file");
    let (mut value, none) = ([0; 9], XattrFlags::empty());
    assert_eq!(getxattr(&path, "user.a", &mut value), Err(Errno::NODATA));
    assert_eq!(listxattr(&path, &mut [0; 9]), Ok(0));
    assert_eq!(setxattr(&path, "user.a", b"value", XattrFlags::REPLACE), Err(Errno::NODATA));
    setxattr(&path, "user.a", b"value", XattrFlags::CREATE).unwrap();
    assert_eq!(setxattr(&path, "user.a", b"other", XattrFlags::CREATE), Err(Errno::EXIST));
    setxattr(&path, "user.b", b"", none).unwrap();
    let mut names = [0; 20];
    assert_eq!(listxattr(&path, &mut names), Ok(14));
    assert_eq!(&names[..14], b"user.a\0user.b\0");
    assert_eq!(getxattr(&path, "user.a", &mut value), Ok(5));
    assert_eq!(&value[..5], b"value");
    assert_eq!(getxattr(&path, "user.a", &mut value[..2]), Err(Errno::RANGE));
    removexattr(&path, "user.b").unwrap();
    assert_eq!(removexattr(&path, "user.b"), Err(Errno::NODATA));
    // Two of the longest are more than others can be told of.
    setxattr(&path, "user.long", &[0; 65_536], none).unwrap();
    assert_eq!(setxattr(&path, "user.longer", &[0; 65_536], none), Err(Errno::NOSPC));
    assert_eq!(halves.far.told(), ["amended file"; 4]);
    assert!(halves.far.brought().is_empty() && !halves.there("file").exists(), "nothing is fetched for that");
}

#[test]
fn what_peers_edit_meanwhile_is_not_written_into() {
    let Some(halves) = Halves::new() else { return };
    halves.far.put("file", b"what was read");
    let open = OpenOptions::new().read(true).write(true).open(halves.here("file")).unwrap();
    open.read_exact_at(&mut [0; 13], 0).unwrap();
    halves.far.edit("file", b"an edit of a peer");
    assert_eq!(code(open.write_all_at(b"WAS", 5)), Errno::STALE);
    assert_eq!(fs::read(halves.here("file")).unwrap(), b"an edit of a peer");
    OpenOptions::new().write(true).open(halves.here("file")).unwrap().write_all_at(b"AN", 0).unwrap();
    assert_eq!(fs::read(halves.there("file")).unwrap(), b"AN edit of a peer");
}

#[test]
fn what_cannot_come_is_not_written_to() {
    let Some(halves) = Halves::new() else { return };
    halves.far.put("file", b"bytes");
    halves.far.break_down();
    assert_eq!(code(OpenOptions::new().write(true).open(halves.here("file")).unwrap().write_all(b"new")), Errno::IO);
    assert_eq!(code(fs::read(halves.here("file")).map(drop)), Errno::IO);
    assert!(!halves.there("file").exists());
    assert_eq!(halves.far.bytes("file"), b"bytes");
}

#[test]
fn cutting_what_is_away_to_nothing_fetches_nothing() {
    let Some(halves) = Halves::new() else { return };
    let far = &halves.far;
    far.cut();
    far.put("opened", &pattern(100_000, 5));
    far.put("cut", &pattern(100_000, 6));
    far.put("emptied", &pattern(100_000, 7));
    let number = fs::metadata(halves.here("opened")).unwrap().ino();
    let mut opened = OpenOptions::new().write(true).truncate(true).open(halves.here("opened")).unwrap();
    assert_eq!(far.told(), ["sighted opened", "found opened"]);
    opened.write_all(b"anew").unwrap();
    assert_eq!(fs::read_to_string(halves.there("opened")).unwrap(), "anew");
    let seen = fs::metadata(halves.here("opened")).unwrap();
    assert_eq!((seen.ino(), seen.len(), seen.mode() & 0o7777), (number, 4, 0o640));
    drop(opened);
    far.has_told("found opened");
    far.told();
    cut(&halves.here("cut"), 0);
    assert_eq!(far.told()[..2], ["sighted cut", "found cut"]);
    assert_eq!(fs::metadata(halves.there("cut")).unwrap().len(), 0);
    let mut emptied = OpenOptions::new().read(true).write(true).open(halves.here("emptied")).unwrap();
    assert_eq!(far.told(), [""; 0], "who opens it may never write");
    emptied.set_len(0).unwrap();
    emptied.write_all(b"anew").unwrap();
    assert_eq!(fs::read_to_string(halves.here("emptied")).unwrap(), "anew");
    assert!(far.names().is_empty() && far.brought().is_empty());
}

#[test]
fn mode_and_time_of_what_is_away_are_set_where_it_is() {
    let Some(halves) = Halves::new() else { return };
    halves.far.put("file", b"bytes");
    fs::set_permissions(halves.here("file"), PermissionsExt::from_mode(0o604)).unwrap();
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time(5, 0), last_modification: time(-7, 9) };
    utimensat(CWD, halves.here("file"), &times, AtFlags::empty()).unwrap();
    let seen = fs::metadata(halves.here("file")).unwrap();
    assert_eq!((seen.mode() & 0o7777, seen.mtime(), seen.mtime_nsec()), (0o604, -7, 9));
    assert_eq!(halves.far.told(), ["amended file", "amended file"]);
    halves.far.come("file");
    assert_eq!(fs::metadata(halves.here("file")).unwrap().mtime(), -7);
    assert!(halves.far.brought().is_empty());
}

#[test]
fn names_of_what_is_away_are_taken() {
    let Some(halves) = Halves::new() else { return };
    halves.far.put("far", b"far");
    fs::write(halves.there("near"), "near").unwrap();
    let (far, near) = (halves.here("far"), halves.here("near"));
    let anew = OpenOptions::new().write(true).create_new(true).open(&far).map(drop);
    assert_eq!(code(anew), Errno::EXIST);
    assert_eq!(code(fs::create_dir(&far)), Errno::EXIST);
    assert_eq!(code(symlink("to", &far)), Errno::EXIST);
    assert_eq!(mknodat(CWD, &far, FileType::Fifo, Mode::RUSR, 0), Err(Errno::EXIST));
    assert_eq!(code(fs::hard_link(&near, &far)), Errno::EXIST);
    let rename = |from, to, flags| renameat_with(CWD, halves.here(from), CWD, halves.here(to), flags);
    assert_eq!(rename("near", "far", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(rename("far", "near", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    fs::create_dir(halves.there("dir")).unwrap();
    assert_eq!(rename("dir", "far", RenameFlags::empty()), Err(Errno::NOTDIR));
    assert_eq!(rename("far", "dir", RenameFlags::empty()), Err(Errno::ISDIR));
    assert_eq!(rename("far", "missing", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    assert_eq!(code(fs::remove_dir(&far)), Errno::NOTDIR);
    assert!(halves.far.told().is_empty() && halves.far.brought().is_empty());
    // The same where the kernel does not know of them yet, and believes that it may make what it is asked for.
    let at = |name| halves.here(name);
    for name in ["a", "b", "c", "d", "e", "f"] {
        assert!(fs::metadata(at(name)).is_err());
        halves.far.put_unheard(name, b"far");
    }
    assert_eq!(code(OpenOptions::new().write(true).create_new(true).open(at("a")).map(drop)), Errno::EXIST);
    assert_eq!(code(fs::create_dir(at("b"))), Errno::EXIST);
    assert_eq!(code(symlink("to", at("c"))), Errno::EXIST);
    assert_eq!(code(fs::hard_link(&near, at("d"))), Errno::EXIST);
    assert_eq!(rename("near", "e", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    OpenOptions::new().append(true).create(true).open(at("f")).unwrap().write_all(b"more").unwrap();
    assert_eq!(fs::read(halves.there("f")).unwrap(), b"farmore");
    assert_eq!(halves.far.names(), ["a", "b", "c", "d", "e", "far"]);
}

#[test]
fn what_is_away_is_removed_and_renamed_where_it_is() {
    let Some(halves) = Halves::new() else { return };
    let far = &halves.far;
    far.cut();
    for name in ["gone", "open", "from", "over", "d/in", "d/e/deep"] {
        far.put(name, name.as_bytes());
    }
    fs::create_dir_all(halves.there("d/e")).unwrap();
    fs::remove_file(halves.here("gone")).unwrap();
    assert_eq!(far.told(), ["sighted gone", "missing gone"]);
    assert!(fs::metadata(halves.here("gone")).is_err());
    fs::write(halves.here("gone"), "again").unwrap();
    assert_eq!(fs::read_to_string(halves.there("gone")).unwrap(), "again");
    far.has_told("found gone");
    far.told();

    let number = fs::metadata(halves.here("from")).unwrap().ino();
    fs::rename(halves.here("from"), halves.here("d/to")).unwrap();
    assert_eq!(far.told(), ["sighted from", "moved from to d/to"]);
    assert_eq!(fs::metadata(halves.here("d/to")).unwrap().ino(), number);
    assert!(fs::metadata(halves.here("from")).is_err());
    fs::rename(halves.here("d/to"), halves.here("over")).unwrap();
    assert_eq!(far.bytes("over"), b"from");
    far.told();

    assert_eq!(code(fs::remove_dir(halves.here("d"))), Errno::NOTEMPTY);
    assert_eq!(code(fs::remove_dir(halves.here("d/e"))), Errno::NOTEMPTY);
    fs::rename(halves.here("d"), halves.here("g")).unwrap();
    assert_eq!(far.told(), ["sighted d", "moved d to g", "found g", "missing d"]);
    assert_eq!(halves.list("g"), ["e", "in"]);
    assert_eq!(far.names(), ["g/e/deep", "g/in", "open", "over"]);
    assert_eq!(fs::metadata(halves.here("g/e/deep")).unwrap().len(), 8);

    fs::rename(halves.here("gone"), halves.here("over")).unwrap();
    assert_eq!(far.told(), ["sighted over", "sighted gone", "moved gone to over", "found over", "missing gone"]);
    assert_eq!(fs::read_to_string(halves.here("over")).unwrap(), "again");
    far.heal();
    fs::rename(halves.here("open"), halves.here("over")).unwrap();
    assert_eq!(fs::read_to_string(halves.there("over")).unwrap(), "open");
    assert_eq!(far.brought(), ["open"]);
    fs::remove_dir_all(halves.here("g")).unwrap();
    assert!(far.names().is_empty());
}

#[test]
fn what_is_just_coming_is_removed_and_renamed_where_it_comes_to() {
    let Some(halves) = Halves::new() else { return };
    let far = &halves.far;
    for name in ["removed", "renamed", "replaced", "over"] {
        far.put(name, name.as_bytes());
        if name != "over" {
            far.begin_to_come(name);
        }
    }
    fs::remove_file(halves.here("removed")).unwrap();
    fs::rename(halves.here("renamed"), halves.here("to")).unwrap();
    fs::rename(halves.here("over"), halves.here("replaced")).unwrap();
    for gone in ["removed", "renamed", "over"] {
        assert!(!halves.here(gone).exists() && !halves.there(gone).exists(), "{gone}");
    }
    assert_eq!(fs::read(halves.there("to")).unwrap(), b"renamed");
    assert_eq!(fs::read(halves.here("replaced")).unwrap(), b"over");
    assert!(far.names().is_empty(), "{:?} is away", far.names());
}

#[test]
fn who_has_it_open_goes_on_when_it_has_lost_its_name() {
    let Some(halves) = Halves::new() else { return };
    halves.far.put("file", b"bytes");
    let file = File::open(halves.here("file")).unwrap();
    fs::remove_file(halves.here("file")).unwrap();
    let seen = file.metadata().unwrap();
    assert_eq!((seen.nlink(), seen.len()), (0, 5));
    let mut read = [0; 5];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"bytes");
    fs::write(halves.here("file"), "other").unwrap();
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"bytes");
    file.sync_all().unwrap();
}

/// What the mount says of a file now, whatever the kernel remembers.
fn changed(path: &Path) -> (i64, u32) {
    let seen = statx(CWD, path, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS).unwrap();
    (seen.stx_ctime.tv_sec, seen.stx_ctime.tv_nsec)
}

#[test]
fn what_comes_has_not_changed_and_neither_has_its_directory() {
    let Some(halves) = Halves::new() else { return };
    fs::create_dir(halves.there("dir")).unwrap();
    halves.far.put("dir/file", b"bytes");
    let (dir, file) = (halves.here("dir"), halves.here("dir/file"));
    let open = File::open(&file).unwrap();
    let before = (changed(&dir), changed(&file));
    let modified = fs::metadata(halves.there("dir")).unwrap();
    halves.far.come("dir/file");
    let time = Timespec { tv_sec: modified.mtime(), tv_nsec: modified.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, halves.there("dir"), &times, AtFlags::empty()).unwrap();
    assert_eq!((changed(&dir), changed(&file)), before);
    // It was no program that did this. What programs do shows.
    fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(changed(&file).0, fs::metadata(halves.there("dir/file")).unwrap().ctime());
    fs::write(halves.here("dir/new"), "new").unwrap();
    assert_eq!(changed(&dir).0, fs::metadata(halves.there("dir")).unwrap().ctime());
    assert_ne!(changed(&dir), before.0);
    drop(open);
}

#[test]
fn what_peers_do_shows_although_the_kernel_remembers() {
    let Some(halves) = Halves::new() else { return };
    let far = &halves.far;
    fs::create_dir(halves.there("dir")).unwrap();
    let size = |name: &str| fs::metadata(halves.here(name)).map(|seen| seen.len()).ok();
    assert_eq!((size("new"), size("dir/moved")), (None, None));
    far.put("new", b"12345");
    eventually("it does not appear", || size("new") == Some(5));
    assert_eq!(fs::read(halves.here("new")).unwrap(), b"12345");
    far.edit("new", b"67890!");
    eventually("the edit does not show", || fs::read(halves.here("new")).is_ok_and(|read| read == b"67890!"));
    far.rename("new", "dir/moved");
    eventually("the new name does not show", || size("dir/moved") == Some(6));
    eventually("the old name stays", || size("new").is_none());
    far.put("dir/moved", b"another");
    eventually("another file does not show", || size("dir/moved") == Some(7));
    far.remove("dir/moved");
    eventually("it does not go", || size("dir/moved").is_none());
}

#[test]
fn the_stores_own_directory_is_not_shown() {
    let Some(halves) = Halves::new() else { return };
    fs::create_dir_all(halves.there(".farshore/partial")).unwrap();
    fs::create_dir_all(halves.there("dir/.farshore")).unwrap();
    assert_eq!(halves.list(""), ["dir"]);
    assert_eq!(halves.list("dir"), [".farshore"]);
    assert!(fs::metadata(halves.here(".farshore")).is_err());
    assert_eq!(code(fs::create_dir(halves.here(".farshore"))), Errno::PERM);
    assert_eq!(code(fs::rename(halves.here("dir"), halves.here(".farshore"))), Errno::PERM);
}
