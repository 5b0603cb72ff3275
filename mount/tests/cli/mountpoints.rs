//! Where one can mount, and how a mount is taken down.

use crate::process::{Process, eventually};
use crate::tree::{assert_same, write_noise};
use crate::world::{FARSHORE, World, is_mounted};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn unmount(mountpoint: &Path) -> Process {
    let mut command = Command::new(FARSHORE);
    command.arg("unmount").arg(mountpoint);
    Process::start(command)
}

#[test]
fn a_bad_mountpoint_is_named() {
    let Some(world) = World::with_fuse() else { return };
    let share = world.share(&world.new_dir("folder"));
    let mount = world.mount(&share, &[]);
    fs::write(world.path("a file"), "").unwrap();
    fs::write(world.new_dir("full").join("thing"), "").unwrap();
    let cases = [
        ("missing", "does not exist"),
        ("a file", "not a directory"),
        ("full", "thing"),
        ("mnt", "mounted on it already"),
    ];
    for (name, reason) in cases {
        let path = world.path(name);
        let path = path.to_str().unwrap();
        // On another device, so that nothing but the mountpoint is in the way.
        world.run("other", &["mount", &share.ticket, path]).has_code(2).only_says(&[path, reason]);
        world.run("other", &["mount", &share.ticket, path, "--daemon"]).has_code(2).only_says(&[path, reason]);
    }
    mount.stop();
}

#[test]
fn one_device_mounts_a_share_once_unless_it_has_another_store() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    fs::write(folder.join("file"), "content").unwrap();
    let share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    let second = world.new_dir("second");
    let ended = world.run("reader", &["mount", &share.ticket, second.to_str().unwrap(), "--read-only"]);
    ended.has_code(1).only_says(&["in use", &mount.process().pid().to_string()]);
    let store = world.path("another store");
    let other = world.mount_on(&second, &share.ticket, &["--store", store.to_str().unwrap()]);
    assert_same(&folder, other.root());
    assert_same(&folder, mount.root());
    mount.stop();
    assert_same(&folder, other.root());
    other.stop();
}

#[test]
fn what_a_killed_mount_left_behind_is_recovered() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    write_noise(&folder.join("file"), 1, 2_000_000);
    let share = world.share(&folder);
    let mut dead = world.mount(&share, &[]);
    assert_same(&folder, dead.root());
    assert!(!world.stored_files().is_empty());
    dead.process_mut().kill();
    let mount = world.mount(&share, &[]);
    assert_same(&folder, mount.root());
    mount.stop();
    assert!(!is_mounted(dead.root()), "nothing was left below the new mount");
    assert!(world.stored_files().iter().any(|file| file.ends_with(".farshore/clean")), "this one ended well");
}

#[test]
fn a_mount_whose_process_was_killed_can_be_unmounted() {
    let Some(world) = World::with_fuse() else { return };
    let share = world.share(&world.new_dir("folder"));
    let mut mount = world.mount(&share, &[]);
    mount.process_mut().kill();
    unmount(mount.root()).end().went_well();
    assert!(!is_mounted(mount.root()));
}

#[test]
fn unmounting_takes_it_down_once() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    write_noise(&folder.join("file"), 1, 5_000_000);
    let share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    let path = mount.root().to_owned();
    // Somebody has files open, and one read only half.
    let mut half = File::open(mount.path("file")).unwrap();
    half.read_exact(&mut [0; 1000]).unwrap();
    let ended = unmount(&path).end().went_well().within(Duration::from_secs(10));
    assert!(ended.stdout.is_empty() && ended.stderr.is_empty(), "{ended:?}");
    assert!(!is_mounted(&path));
    mount.end().went_well().within(Duration::from_secs(10));
    assert!(half.read_to_end(&mut Vec::new()).is_err(), "it ended as if it were whole");
    let name = path.to_str().unwrap();
    unmount(&path).end().has_code(2).only_says(&["nothing is mounted", name]);
    unmount(&world.path("missing")).end().has_code(2).only_says(&["missing", "does not exist"]);
    unmount(Path::new("/proc")).end().has_code(2).only_says(&["/proc", "not Farshore's"]);
    // The place is free again.
    eventually("the directory is empty", || fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none()));
    let again = world.mount(&share, &[]);
    assert_same(&folder, again.root());
    again.stop();
}
