//! A mount that begins while its owner is away: what was there is shown, what is here can be read, and when the owner is
//! back everything goes on by itself.

use crate::process::{SOON, eventually};
use crate::tree::{noise, write_noise};
use crate::world::{Mount, Share, World, files_below, take_down};
use farshore_engine::chunk::CHUNK_SIZE;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;

const SIZE_BYTES: usize = 2 * CHUNK_SIZE as usize + 999;

/// What a mount says that shows what was there earlier.
const SHOWS_EARLIER: &str = "the owner cannot be reached; showing what was there at ";

/// A share with the files `here`, which has been read, and `there`, which has not, and a directory. Its mount has ended.
fn read_and_stopped(world: &World) -> (PathBuf, Share) {
    let (folder, share, mount) = read(world);
    mount.stop();
    (folder, share)
}

fn read(world: &World) -> (PathBuf, Share, Mount) {
    let folder = world.new_dir("folder");
    let bytes = write_noise(&folder.join("here"), 1, SIZE_BYTES);
    write_noise(&folder.join("there"), 2, SIZE_BYTES);
    fs::create_dir(folder.join("dir")).unwrap();
    fs::write(folder.join("dir/small"), "small").unwrap();
    let share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    assert!(fs::read(mount.path("here")).unwrap() == bytes);
    (folder, share, mount)
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn remembered(world: &World) -> Option<PathBuf> {
    files_below(&world.path("state of reader/store")).into_iter().find(|file| file.ends_with(".farshore/tree"))
}

fn is_whole(path: &Path, seed: u64) -> Result<(), String> {
    match fs::read(path) {
        Ok(bytes) if bytes == noise(seed, SIZE_BYTES) => Ok(()),
        Ok(bytes) => Err(format!("{} bytes, and others", bytes.len())),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn what_was_fetched_is_read_and_what_was_not_waits_until_the_owner_is_back() {
    let Some(world) = World::with_fuse() else { return };
    let (folder, mut share) = read_and_stopped(&world);
    share.process.kill();
    let mount = world.mount(&share, &["--read-timeout", "600"]);
    mount.process().says(SHOWS_EARLIER);
    assert_eq!(names(mount.root()), ["dir", "here", "there"].map(str::to_owned).into());
    assert_eq!(fs::metadata(mount.path("there")).unwrap().len(), SIZE_BYTES as u64);
    assert_eq!(is_whole(&mount.path("here"), 1), Ok(()));
    let (tell, told) = channel();
    let there = mount.path("there");
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = File::open(there).and_then(|mut file| file.read_to_end(&mut bytes));
        tell.send(()).unwrap();
        read.map(|_| bytes)
    });
    // What happens while the owner is away.
    write_noise(&folder.join("here"), 3, SIZE_BYTES);
    fs::rename(folder.join("dir"), folder.join("moved")).unwrap();
    fs::write(folder.join("new"), "new").unwrap();
    assert!(told.try_recv().is_err(), "nobody could have brought its bytes");
    let _again = world.share_at(&folder, &share.address, &[]);
    told.recv_timeout(SOON).expect("the reader goes on");
    assert!(reader.join().unwrap().unwrap() == noise(2, SIZE_BYTES));
    eventually("what has changed shows", || {
        names(mount.root()) == ["here", "moved", "new", "there"].map(str::to_owned).into()
    });
    eventually("the new bytes are read", || is_whole(&mount.path("here"), 3));
    assert_eq!(fs::read(mount.path("moved/small")).unwrap(), b"small");
    mount.stop();
}

#[test]
fn who_does_not_want_to_wait_gets_the_error_at_once_also_from_the_beginning() {
    let Some(world) = World::with_fuse() else { return };
    let (_, mut share) = read_and_stopped(&world);
    share.process.kill();
    let mount = world.mount(&share, &["--on-disconnect=fail", "--read-timeout", "600"]);
    mount.process().says(SHOWS_EARLIER);
    assert_eq!(is_whole(&mount.path("here"), 1), Ok(()));
    let file = File::open(mount.path("there")).unwrap();
    let error = file.read_exact_at(&mut [0; 10], 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    drop(file);
    mount.stop();
}

#[test]
fn an_owner_who_is_there_has_told_everything_before_it_is_mounted() {
    let Some(world) = World::with_fuse() else { return };
    let (folder, share) = read_and_stopped(&world);
    for round in 0..3 {
        fs::write(folder.join(format!("new {round}")), "new").unwrap();
        fs::rename(folder.join("there"), folder.join("elsewhere")).unwrap();
        eventually("the owner has seen it", || {
            let listed = world.run("other", &["ls", &share.ticket]).went_well();
            listed.text().contains("elsewhere") && listed.text().contains(&format!("new {round}"))
        });
        let mount = world.mount(&share, &[]);
        assert_eq!((mount.process().said(SHOWS_EARLIER), mount.process().said("has not told yet")), (0, 0));
        let shown = names(mount.root());
        assert!(shown.contains("elsewhere") && !shown.contains("there"), "{shown:?}");
        assert!(shown.contains(&format!("new {round}")), "{shown:?}");
        mount.stop();
        fs::rename(folder.join("elsewhere"), folder.join("there")).unwrap();
    }
}

#[test]
fn a_mount_that_was_killed_begins_again_without_its_owner() {
    let Some(world) = World::with_fuse() else { return };
    let (_, mut share, mut mount) = read(&world);
    eventually("what is known is written down", || {
        remembered(&world).is_some()
            && files_below(&world.path("state of reader/store"))
                .iter()
                .any(|file| file.extension().is_some_and(|extension| extension == "kdbitmap"))
    });
    mount.process_mut().kill();
    take_down(mount.root());
    drop(mount);
    share.process.kill();
    let mount = world.mount(&share, &["--on-disconnect=fail"]);
    mount.process().says(SHOWS_EARLIER);
    assert_eq!(names(mount.root()), ["dir", "here", "there"].map(str::to_owned).into());
    // Of what was read, what was saved when the process was killed is there: right, or not at all.
    let bytes = noise(1, SIZE_BYTES);
    let file = File::open(mount.path("here")).unwrap();
    for (chunk, expected) in bytes.chunks(CHUNK_SIZE as usize).enumerate() {
        let mut found = vec![0; expected.len()];
        if file.read_exact_at(&mut found, chunk as u64 * CHUNK_SIZE).is_ok() {
            assert!(found == expected, "chunk {chunk}");
        }
    }
    drop(file);
    let _again = world.share_at(&world.path("folder"), &share.address, &[]);
    for (name, seed) in [("here", 1), ("there", 2)] {
        eventually("it can be read", || is_whole(&mount.path(name), seed));
    }
    mount.stop();
}

#[test]
fn a_damaged_memory_means_a_clean_start() {
    let Some(world) = World::with_fuse() else { return };
    let (_, share) = read_and_stopped(&world);
    let file = remembered(&world).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let mount = world.mount(&share, &[]);
    assert_eq!(mount.process().said("is of no use"), 1);
    assert_eq!(names(mount.root()), ["dir", "here", "there"].map(str::to_owned).into());
    for (name, seed) in [("here", 1), ("there", 2)] {
        assert_eq!(is_whole(&mount.path(name), seed), Ok(()));
    }
    mount.stop();
    let mut share = share;
    share.process.kill();
    let mount = world.mount(&share, &[]);
    assert_eq!(mount.process().said("is of no use"), 0, "it was written anew");
    assert_eq!(is_whole(&mount.path("there"), 2), Ok(()));
    mount.stop();
}

#[test]
fn an_owner_who_refuses_is_an_error_before_it_is_mounted_and_news_after() {
    let Some(world) = World::with_fuse() else { return };
    let (folder, mut share) = read_and_stopped(&world);
    share.process.kill();
    let mount = world.mount(&share, &[]);
    mount.process().says(SHOWS_EARLIER);
    // The device is not remembered any more, and its ticket is worth nothing.
    let renewed = world.share_at(&folder, &share.address, &["--new-ticket"]);
    mount.process().says("does not let us in");
    assert_eq!(is_whole(&mount.path("here"), 1), Ok(()), "what is here stays");
    mount.stop();
    let mnt = world.path("mnt");
    let refused = world.run("reader", &["mount", &share.ticket, mnt.to_str().unwrap()]);
    refused.has_code(2).also_says(&["does not accept this ticket"]);
    drop(renewed);
}
