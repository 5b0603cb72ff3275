//! Extended attributes travel with files and directories, as modes and times do.

use crate::process::eventually;
use crate::status::only_process;
use crate::together::{Both, copies};
use crate::tree::{below, look, mark, noise, offered, write_noise, xattrs};
use crate::world::{World, files_below, skipped};
use rustix::fs::{XattrFlags, removexattr, setxattr};
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The size of a file that is worth fetching, in bytes.
const LARGE_BYTES: usize = 3_000_000;

/// Whether there are such things where tests have their folders.
fn has_them(folder: &Path) -> bool {
    let there = mark(folder, "user.probe", b"1");
    if there {
        removexattr(folder, "user.probe").unwrap();
    } else {
        skipped("the disk keeps no extended attributes");
    }
    there
}

fn fetched(world: &World, device: &str) -> u64 {
    only_process(world, device)["totals"]["fetched_bytes"].as_u64().unwrap()
}

#[test]
fn what_is_set_on_one_side_shows_on_the_other_and_moves_no_bytes() {
    let fill = |folder: &Path| {
        write_noise(&folder.join("file"), 1, LARGE_BYTES);
        fs::create_dir(folder.join("dir")).unwrap();
    };
    let Some(both) = Both::with(fill, |_| {}) else { return };
    if !has_them(&both.folder) {
        return;
    }
    both.become_same();
    let before = ["owner", "reader"].map(|device| fetched(&both.world, device));
    for (one, other) in [(&both.folder, &both.copy), (&both.copy, &both.folder)] {
        for name in ["file", "dir"] {
            assert!(mark(&one.join(name), "user.long", &noise(1, 2_000)) && mark(&one.join(name), "user.empty", b""));
            both.become_same();
            assert_eq!(xattrs(&other.join(name)).unwrap().len(), 2);
            mark(&other.join(name), "user.long", b"short");
            both.become_same();
            assert_eq!(xattrs(&one.join(name)).unwrap()[&b"user.long"[..]], b"short");
            removexattr(one.join(name), "user.long").unwrap();
            removexattr(other.join(name), "user.empty").unwrap();
            both.become_same();
        }
    }
    assert_eq!(["owner", "reader"].map(|device| fetched(&both.world, device)), before);
    // With a new file, and with one that is edited and renamed.
    write_noise(&both.theirs("new"), 2, 1_000);
    mark(&both.theirs("new"), "user.a", b"1");
    both.become_same();
    fs::write(both.ours("new"), "edited").unwrap();
    mark(&both.ours("new"), "user.b", b"2");
    fs::rename(both.ours("new"), both.ours("dir/renamed")).unwrap();
    both.become_same();
    assert_eq!(xattrs(&both.theirs("dir/renamed")).unwrap().len(), 2);
    assert!(copies(&both.folder).is_empty());
}

#[test]
fn what_is_set_while_they_are_apart_or_nobody_runs_is_not_lost() {
    let fill = |folder: &Path| {
        for name in ["ours", "theirs", "both", "edited"] {
            fs::write(folder.join(name), "text").unwrap();
        }
    };
    let Some(mut both) = Both::with(fill, |_| {}) else { return };
    if !has_them(&both.folder) {
        return;
    }
    both.come_to_rest();
    for is_guest_alive in [true, false] {
        if !is_guest_alive {
            both.stop_guest();
        }
        both.stop_owner();
        let value = if is_guest_alive { &b"1"[..] } else { b"2" };
        mark(&both.ours("ours"), "user.a", value);
        mark(&both.theirs("theirs"), "user.a", value);
        mark(&both.ours("both"), "user.ours", value);
        mark(&both.theirs("both"), "user.theirs", value);
        both.start_owner();
        if !is_guest_alive {
            both.start_guest();
        }
        both.come_to_rest();
        for folder in [&both.folder, &both.copy] {
            for name in ["ours", "theirs"] {
                assert_eq!(xattrs(&folder.join(name)).unwrap()[&b"user.a"[..]], value, "{name}");
            }
            // As of two modes, one stays.
            let kept = xattrs(&folder.join("both")).unwrap();
            assert!(kept.values().any(|kept| kept == value), "{kept:?}");
            assert_eq!(fs::read(folder.join("both")).unwrap(), b"text");
            assert!(copies(folder).is_empty(), "{:?}", copies(folder));
        }
    }
}

#[test]
fn of_what_is_away_they_show_and_are_set_without_fetching_it() {
    let Some(world) = World::with_fuse() else { return };
    let (folder, store) = (world.new_dir("folder"), world.new_dir("store"));
    if !has_them(&folder) {
        return;
    }
    for name in ["read", "away"] {
        write_noise(&folder.join(name), 1, LARGE_BYTES);
        mark(&folder.join(name), "user.theirs", b"1");
    }
    let share = world.share(&folder);
    let mount = world.join(&share, &["--store", store.to_str().unwrap()]);
    share.process.signal(Signal::STOP);
    let (read, away) = (mount.path("read"), mount.path("away"));
    for path in [&read, &away] {
        assert_eq!(xattrs(path).unwrap().len(), 1);
        assert_eq!(setxattr(path, "user.theirs", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
        assert_eq!(setxattr(path, "user.ours", b"2", XattrFlags::REPLACE), Err(Errno::NODATA));
        assert_eq!(setxattr(path, "user.ours", b"2", XattrFlags::CREATE), Ok(()));
        assert_eq!(removexattr(path, "user.theirs"), Ok(()));
    }
    share.process.signal(Signal::CONT);
    let ours = [(b"user.ours".to_vec(), b"2".to_vec())].into();
    eventually("the owner hears of it", || xattrs(&folder.join("away")).unwrap() == ours);
    assert!(!store.join("away").exists(), "it was not fetched");
    assert!(fs::read(&read).unwrap() == noise(1, LARGE_BYTES));
    eventually("what was read is there as it is shown", || {
        store.join("read").exists() && look(&store.join("read")).unwrap() == look(&read).unwrap()
    });
    assert_eq!(xattrs(&store.join("read")).unwrap(), ours);
    mount.stop();
}

#[test]
fn who_only_looks_sees_them_also_while_the_owner_is_away_and_gets_them() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    if !has_them(&folder) {
        return;
    }
    fs::create_dir(folder.join("dir")).unwrap();
    write_noise(&folder.join("dir/file"), 1, LARGE_BYTES);
    mark(&folder.join("dir/file"), "user.a", b"1");
    mark(&folder.join("dir"), "user.b", &noise(2, 1_000));
    let mut share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    let shows_all =
        || ["dir", "dir/file"].iter().all(|at| xattrs(&mount.path(at)).unwrap() == xattrs(&folder.join(at)).unwrap());
    assert!(shows_all());
    assert_eq!(setxattr(mount.path("dir"), "user.c", b"", XattrFlags::empty()), Err(Errno::ROFS));
    assert_eq!(removexattr(mount.path("dir"), "user.b"), Err(Errno::ROFS));
    mark(&folder.join("dir"), "user.c", b"3");
    eventually("what the owner sets shows", shows_all);
    assert_eq!(only_process(&world, "reader")["totals"]["fetched_bytes"], 0);
    let output = world.new_dir("output");
    world.run("getter", &["get", &share.ticket, "-o", output.to_str().unwrap()]).went_well();
    assert!(offered(&output) == offered(&folder));
    mount.stop();
    share.process.kill();
    let mount = world.mount(&share, &[]);
    assert_eq!(xattrs(&mount.path("dir/file")).unwrap(), xattrs(&folder.join("dir/file")).unwrap());
    mount.stop();
}

#[test]
fn rsync_that_copies_them_as_well_finds_nothing_to_do_the_second_time() {
    let Some(world) = World::with_fuse() else { return };
    let (folder, store, source) = (world.new_dir("folder"), world.new_dir("store"), world.new_dir("source"));
    if !has_them(&source) {
        return;
    }
    if !Path::new("/usr/bin/rsync").exists() {
        return skipped("there is no rsync");
    }
    for number in 0..20 {
        let (dir, file) = (source.join(format!("dir{number}")), source.join(format!("dir{number}/file")));
        fs::create_dir(&dir).unwrap();
        write_noise(&file, number, 1_000);
        mark(&dir, "user.number", &[number as u8]);
        mark(&file, "user.number", &noise(number, 500));
    }
    let all: Vec<_> = below(&source).into_keys().collect();
    let share = world.share(&folder);
    let mount = world.join(&share, &["--store", store.to_str().unwrap()]);
    for round in 0..2 {
        let mut sync = std::process::Command::new("rsync");
        sync.args(["-aX", "--omit-dir-times", "--itemize-changes"]).arg(source.join("./")).arg(mount.root());
        let said = sync.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        assert_eq!(said.stdout.is_empty(), round == 1, "{}", String::from_utf8_lossy(&said.stdout));
        eventually("the owner has it", || {
            all.iter().all(
                |at| matches!((xattrs(&source.join(at)), xattrs(&folder.join(at))), (Ok(one), Ok(two)) if one == two),
            )
        });
    }
    assert!(files_below(&store).iter().filter(|file| !file.starts_with(store.join(".farshore"))).count() == 20);
    mount.stop();
}

/// Most disks have room for a few kilobytes of them.
#[test]
fn what_a_disk_has_no_room_for_comes_without_and_stays_with_the_others() {
    let Some(world) = World::with_fuse() else { return };
    let Ok(roomy) = tempfile::tempdir_in("/dev/shm") else { return skipped("there is no other file system") };
    let store = world.new_dir("store");
    let (file, large) = (roomy.path().join("file"), noise(1, 10_000));
    write_noise(&file, 1, LARGE_BYTES);
    let has_room = |folder: &Path| setxattr(folder, "user.large", &large, XattrFlags::empty()).is_ok();
    if !has_room(&file) || !mark(&file, "user.small", b"1") || !has_them(&store) || has_room(&store) {
        return skipped("the disks here have as much room as each other");
    }
    // What is put into a directory, and its own time that it is given back, change it.
    let marked = ["file", "dir", "dir/inner", "dir/inner/innermost"].map(|name| roomy.path().join(name));
    for dir in &marked[1..] {
        fs::create_dir(dir).unwrap();
        assert!(has_room(dir) && mark(dir, "user.small", b"1"));
    }
    fs::write(roomy.path().join("dir/inner/innermost/file"), "text").unwrap();
    let both = xattrs(&file).unwrap();
    let share = world.share(roomy.path());
    for round in 0..2 {
        let mount = world.join(&share, &["--store", store.to_str().unwrap()]);
        assert!(fs::read(mount.path("file")).unwrap() == noise(1, LARGE_BYTES));
        eventually("it comes", || store.join("file").exists());
        assert_eq!(fs::read(mount.path("dir/inner/innermost/file")).unwrap(), b"text");
        eventually("so does what is in directories", || store.join("dir/inner/innermost/file").exists());
        assert_eq!(xattrs(&store.join("file")).unwrap(), [(b"user.small".to_vec(), b"1".to_vec())].into());
        // Something else of them is changed there.
        let mode = if round == 0 { 0o700 } else { 0o755 };
        for name in ["file", "dir", "dir/inner"] {
            fs::set_permissions(store.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(store.join("dir/inner").join(format!("new {round}")), "new").unwrap();
        mark(&store.join("dir"), "user.new", format!("{round}").as_bytes());
        // What is done after it has gone both ways.
        fs::write(mount.path("after"), format!("{round}")).unwrap();
        eventually("it is there", || fs::read(roomy.path().join("after")).is_ok_and(|text| text == [b'0' + round]));
        let has_come = |name: &str| fs::metadata(roomy.path().join(name)).unwrap().permissions().mode() & 0o777 == mode;
        eventually("it has the mode there", || ["file", "dir", "dir/inner"].iter().all(|name| has_come(name)));
        eventually("what was put there has come", || marked[2].join(format!("new {round}")).exists());
        for at in &marked {
            let mut there = xattrs(at).unwrap();
            there.remove(&b"user.new"[..]);
            assert!(there == both, "round {round}: {}: {:?}", at.display(), there.keys());
        }
        mount.stop();
    }
}
