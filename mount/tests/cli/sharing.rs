//! A folder is shared by one process and mounted by another: it looks the same in both.

use crate::process::eventually;
use crate::tree::{assert_same, set_modified, write_zoo};
use crate::world::World;
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE};
use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

#[test]
fn a_mount_looks_like_the_folder() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    write_zoo(&folder, &[CHUNK_SIZE as usize, 3 * CHUNK_SIZE as usize, FRAME_SIZE as usize]);
    let share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    assert_same(&folder, mount.root());
    // Again, from what is here already.
    assert_same(&folder, mount.root());
    mount.stop();
}

#[test]
fn times_before_1970_are_kept() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    for (name, seconds, nanos) in [("moon landing", -14_182_940, 500_000_000), ("almost", -1, 999_999_999)] {
        fs::write(folder.join(name), name).unwrap();
        set_modified(&folder.join(name), seconds, nanos);
    }
    let share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    assert_same(&folder, mount.root());
    mount.stop();
}

#[test]
fn what_cannot_be_shared_is_told_once_and_left_out() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    fs::create_dir(folder.join("dir")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("dir/pipe")).status().unwrap().success());
    let _socket = UnixListener::bind(folder.join("socket")).unwrap();
    fs::write(folder.join("file"), "fine").unwrap();
    let share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    assert_same(&folder, mount.root());
    fs::write(folder.join("dir/later"), "fine too").unwrap();
    eventually("the later file shows", || mount.path("dir/later").exists());
    assert_same(&folder, mount.root());
    for (name, what) in [("dir/pipe", "named pipe"), ("socket", "socket")] {
        let said = share.process.says(&format!("not shared: {name}:"));
        assert!(said.contains(what), "{said}");
        assert_eq!(share.process.said(&format!(" {name}:")), 1);
    }
    assert_eq!(share.process.said("not shared"), 2);
    mount.stop();
}

#[test]
fn an_empty_folder_can_be_shared() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    let share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    assert_same(&folder, mount.root());
    fs::create_dir(folder.join("first")).unwrap();
    eventually("the first directory shows", || mount.path("first").is_dir());
    mount.stop();
}
