//! Who may change a share: everybody who has joined it, unless its owner or they themselves say otherwise.

use crate::process::{Process, eventually};
use crate::tree::{assert_same, shared_difference, write_noise};
use crate::world::{Mount, World, files_below};
use rustix::process::Signal;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const LARGE_BYTES: usize = 3_000_000;

/// Where the reader has what it has of its only share, below its state directory.
fn kept(world: &World, kind: &str) -> Vec<PathBuf> {
    fs::read_dir(world.path("state of reader").join(kind))
        .map_or(Vec::new(), |dirs| dirs.map(|dir| dir.unwrap().path()).collect())
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn who_joins_may_write_unless_somebody_says_otherwise() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    fs::write(folder.join("file"), "theirs").unwrap();
    let share = world.share(&folder);
    let mount = world.join(&share, &[]);
    let said = mount.process().says("what you have of it is in ");
    let [ours] = &kept(&world, "folders")[..] else { panic!("it has one folder") };
    assert!(said.contains(ours.to_str().unwrap()), "{said}");
    assert!(kept(&world, "store").is_empty());
    fs::write(mount.path("file"), "ours").unwrap();
    fs::create_dir(mount.path("dir")).unwrap();
    fs::write(mount.path("dir/new"), "new").unwrap();
    eventually("the owner has it", || text(folder.join("file")) == "ours" && text(folder.join("dir/new")) == "new");
    assert_eq!(text(ours.join("dir/new")), "new");
    mount.stop();
    // The share stays where it was, also when nobody says where.
    let elsewhere = world.new_dir("elsewhere");
    let more = ["--store", elsewhere.to_str().unwrap()];
    world.join(&share, &more).stop();
    let mount = world.join(&share, &[]);
    mount.process().says(elsewhere.to_str().unwrap());
    fs::write(mount.path("later"), "later").unwrap();
    assert_eq!(text(elsewhere.join("later")), "later");
    mount.stop();
    fs::rename(&elsewhere, world.path("gone")).unwrap();
    let ended = world.run("reader", &["mount", &share.ticket, world.path("mnt").to_str().unwrap()]);
    ended.has_code(1).only_says(&[elsewhere.to_str().unwrap(), "not there", "--store"]);
    let inside = world.path("gone/dir");
    let ended = world.run("reader", &["mount", &share.ticket, inside.to_str().unwrap(), "--store", "gone"]);
    ended.has_code(2).also_says(&["outside"]);
}

/// Each way to say that a share is only to be looked at, on the owner's side and on the reader's.
const READ_ONLY: [(&[&str], &[&str]); 4] =
    [(&["--read-only"], &[]), (&[], &["--read-only"]), (&[], &["-o", "ro"]), (&["--read-only"], &["-o", "rw,ro"])];

/// Has `look` look at a share that is read-only, each time for another reason.
fn where_it_is_read_only(look: impl Fn(&World, &Path, &Mount)) {
    for (of_owner, of_reader) in READ_ONLY {
        let Some(world) = World::with_fuse() else { return };
        let folder = world.new_dir("folder");
        fs::create_dir(folder.join("dir")).unwrap();
        write_noise(&folder.join("dir/file"), 1, LARGE_BYTES);
        let share = world.share_at(&folder, "127.0.0.1:0", of_owner);
        let mount = world.join(&share, of_reader);
        look(&world, &folder, &mount);
        mount.stop();
        share.process.stop(Signal::INT).went_well();
    }
}

#[test]
fn every_change_of_what_is_only_to_be_looked_at_is_refused_at_once() {
    where_it_is_read_only(|_, folder, mount| {
        let attempts = [
            fs::write(mount.path("dir/file"), "changed"),
            fs::write(mount.path("new"), "new"),
            fs::create_dir(mount.path("other")),
            fs::remove_file(mount.path("dir/file")),
            fs::remove_dir_all(mount.path("dir")),
            fs::rename(mount.path("dir"), mount.path("moved")),
            symlink("dir", mount.path("link")),
            fs::hard_link(mount.path("dir/file"), mount.path("hard")),
            fs::set_permissions(mount.path("dir/file"), fs::metadata(folder).unwrap().permissions()),
            fs::File::options().write(true).open(mount.path("dir/file")).map(drop),
        ];
        for attempt in attempts {
            assert_eq!(attempt.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        }
        assert_same(folder, mount.root());
    });
}

#[test]
fn what_is_fetched_of_what_is_only_looked_at_is_kept_apart_and_goes_when_it_is_told_to() {
    where_it_is_read_only(|world, folder, mount| {
        assert!(fs::read(mount.path("dir/file")).unwrap() == fs::read(folder.join("dir/file")).unwrap());
        assert!(kept(world, "folders").is_empty());
        assert!(files_below(&kept(world, "store")[0]).iter().all(|file| file.to_str().unwrap().contains(".farshore")));
        let evicted = world.run("reader", &["evict", mount.path("dir").to_str().unwrap()]).went_well();
        assert!(evicted.text().contains("let go of 1 files"), "{evicted:?}");
    });
}

#[test]
fn who_wants_to_write_where_nobody_may_is_told_at_once() {
    let Some(world) = World::with_fuse() else { return };
    let (folder, mnt) = (world.new_dir("folder"), world.new_dir("mnt"));
    let share = world.share_at(&folder, "127.0.0.1:0", &["--read-only"]);
    let mount = |more: &[&str]| world.run("reader", &[&["mount", &share.ticket, mnt.to_str().unwrap()], more].concat());
    mount(&["-o", "rw"]).has_code(2).only_says(&["read-only", "-o rw"]);
    mount(&["-o", "rw", "--read-only"]).has_code(2).only_says(&["contradict"]);
    // What of a folder is left out is for shares that are only looked at.
    world.run("owner", &["unshare", folder.join("file").to_str().unwrap()]).went_well();
}

#[test]
fn a_mount_that_begins_without_its_owner_is_what_it_was() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    fs::write(folder.join("file"), "content").unwrap();
    let share = world.share_at(&folder, "127.0.0.1:0", &["--read-only"]);
    let mount = world.join(&share, &[]);
    assert_eq!(text(mount.path("file")), "content");
    mount.stop();
    let ticket = share.ticket.clone();
    share.process.stop(Signal::INT).went_well();
    let mount = world.join_as("reader", &world.path("mnt"), &ticket, &[]);
    mount.process().says("cannot be asked");
    assert_eq!(text(mount.path("file")), "content");
    assert_eq!(fs::write(mount.path("file"), "").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    mount.stop();
}

#[test]
fn a_device_that_only_looks_on_as_well_sees_what_it_changes_itself() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    fs::write(folder.join("file"), "theirs").unwrap();
    let share = world.share(&folder);
    let mount = world.join(&share, &[]);
    let looking = world.mount_on(&world.path("looking"), &share.ticket, &[]);
    assert_eq!(text(looking.path("file")), "theirs");
    fs::create_dir(mount.path("dir")).unwrap();
    fs::write(mount.path("dir/new"), "new").unwrap();
    fs::write(mount.path("file"), "ours").unwrap();
    eventually("it is seen", || text(looking.path("dir/new")) == "new" && text(looking.path("file")) == "ours");
    fs::rename(mount.path("dir"), mount.path("moved")).unwrap();
    fs::remove_file(mount.path("file")).unwrap();
    eventually("it is seen", || text(looking.path("moved/new")) == "new" && !looking.path("file").exists());
    eventually("it is the same", || shared_difference(&folder, looking.root()));
    looking.stop();
    mount.stop();
}

#[test]
fn what_was_changed_by_others_before_stays_private_when_they_may_only_look() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    fs::write(folder.join("file"), "content").unwrap();
    let share = world.share(&folder);
    let mount = world.join(&share, &[]);
    fs::write(mount.path("file"), "changed").unwrap();
    eventually("the owner has it", || text(folder.join("file")) == "changed");
    mount.stop();
    let address = share.address.clone();
    share.process.stop(Signal::INT).went_well();
    assert!(folder.join(".farshore").exists());
    let share = world.share_at(&folder, &address, &["--read-only"]);
    let mount = world.join(&share, &[]);
    mount.process().says("the owner shares this read-only");
    assert!(!mount.path(".farshore").exists());
    assert_same(&folder, mount.root());
    mount.stop();
}

#[test]
fn what_is_whole_is_the_users_and_is_not_let_go_of() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    write_noise(&folder.join("whole"), 1, LARGE_BYTES);
    // More than is ever read ahead of anybody.
    fs::File::create(folder.join("begun")).unwrap().set_len(48 << 20).unwrap();
    let share = world.share(&folder);
    let mount = world.join(&share, &["--cache-size", "40M"]);
    let command = |command: &str, name: &str| {
        Process::run(world.farshore("reader", &[command, mount.path(name).to_str().unwrap()]))
    };
    assert!(fs::read(mount.path("whole")).unwrap() == fs::read(folder.join("whole")).unwrap());
    let ours = kept(&world, "folders")[0].clone();
    eventually("it is in the folder", || ours.join("whole").exists());
    command("evict", "whole").has_code(1).also_says(&[ours.to_str().unwrap(), "stay", "--read-only"]);
    assert!(ours.join("whole").exists());
    fs::File::open(mount.path("begun")).unwrap().read_exact(&mut vec![0; 1 << 20]).unwrap();
    eventually("it is stored", || {
        let evicted = command("evict", "begun").went_well();
        evicted.text().contains("let go of 1 files")
    });
    command("pin", "begun").went_well();
    eventually("it is in the folder", || ours.join("begun").exists());
    let unpinned = command("unpin", "begun").went_well();
    assert!(unpinned.text().contains("stays there"), "{unpinned:?}");
    let status = world.run("reader", &["status"]).went_well();
    let row = status.text().lines().find(|line| line.trim_start().starts_with("folder"));
    assert!(row.is_some_and(|row| row.contains(ours.to_str().unwrap())), "{status:?}");
    mount.stop();
}
