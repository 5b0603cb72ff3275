//! Files that are all here are read by the kernel itself, where this process may let it. What they are about to become
//! shows to whoever opens them next.

use crate::mapping::Mapping;
use crate::passing;
use crate::process::{eventually, within};
use crate::restarts::Disk;
use crate::status::only_process;
use crate::tree::{noise, write_noise};
use crate::world::{Mount, Share, World, skipped};
use rustix::mount::MountFlags;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

const LEN: usize = 3_000_000;

/// How long a change may take to show.
const NOTICED: Duration = Duration::from_secs(5);

/// A folder with one file, mounted.
struct Stage {
    folder: PathBuf,
    bytes: Vec<u8>,
    mount: Mount,
    share: Share,
    /// Where the store is, if that has a disk of its own. It lies in the world.
    disk: Option<Disk>,
    world: World,
}

fn may_pass() -> bool {
    let reason = passing::reason_against();
    reason.into_iter().for_each(skipped);
    reason.is_none()
}

impl Stage {
    fn new(more: &[&str]) -> Option<Stage> {
        Some(Stage::in_world(World::with_fuse()?, None, more))
    }

    /// With a store on a small disk of its own.
    fn on_a_small_disk() -> Option<Stage> {
        let world = World::with_fuse()?;
        let disk = Disk::new(&world, 64 << 20, MountFlags::empty())?;
        let store = disk.store();
        Some(Stage::in_world(world, Some(disk), &["--store", &store]))
    }

    fn in_world(world: World, disk: Option<Disk>, more: &[&str]) -> Stage {
        let folder = world.new_dir("folder");
        let bytes = write_noise(&folder.join("file"), 1, LEN);
        let share = world.share(&folder);
        let mount = world.mount(&share, more);
        Stage { folder, bytes, mount, share, disk, world }
    }

    /// Where all of the file is here, and nobody has it open.
    fn whole(more: &[&str]) -> Option<Stage> {
        let stage = Stage::new(more)?;
        stage.fetch();
        Some(stage)
    }

    /// All of the file comes.
    fn fetch(&self) {
        assert!(fs::read(self.mount.path("file")).unwrap() == self.bytes);
        self.is_quiet(LEN);
    }

    fn open(&self) -> File {
        File::open(self.mount.path("file")).unwrap()
    }

    /// What the mount says of itself.
    fn report(&self) -> Value {
        only_process(&self.world, "reader")
    }

    /// How many bytes were read through the process, and how many opens were passed through.
    fn counts(&self) -> (u64, u64) {
        let fuse = &self.report()["fuse"];
        (fuse["read_bytes"].as_u64().unwrap(), fuse["passthrough_opens"].as_u64().unwrap())
    }

    /// Waits until nothing is open, and exactly so much is kept.
    fn is_quiet(&self, kept_bytes: usize) {
        eventually("nothing is open and all is kept", || {
            let report = self.report();
            let is_quiet = report["open_handles"] == 0 && report["cache_bytes"] == kept_bytes;
            if is_quiet { Ok(()) } else { Err(format!("{report:#?}")) }
        });
    }
}

fn bytes_of(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_file_that_is_all_here_is_read_by_the_kernel_itself() {
    if !may_pass() {
        return;
    }
    let Some(stage) = Stage::whole(&[]) else { return };
    let (read, passed) = stage.counts();
    assert_eq!((read, passed), (LEN as u64, 0));
    let file = stage.open();
    assert!(bytes_of(&file, LEN) == stage.bytes);
    assert!(Mapping::new(&file, LEN, false).bytes() == stage.bytes);
    assert_eq!(stage.counts(), (read, 1), "not a byte of it came by us");
    let text = stage.world.run("reader", &["status"]).went_well();
    assert!(text.text().contains("passed through 1 opens of whole files"), "{}", text.text());
    drop(file);
    stage.mount.stop();
}

#[test]
fn where_it_is_not_wanted_files_are_read_through_the_process() {
    let Some(stage) = Stage::whole(&["-o", "nopassthrough"]) else { return };
    let file = stage.open();
    let mapping = Mapping::new(&file, LEN, false);
    assert!(bytes_of(&file, LEN) == stage.bytes && mapping.bytes() == stage.bytes);
    assert_eq!(stage.counts().1, 0);
    drop((file, mapping));
    stage.mount.stop();
}

#[test]
fn an_edit_shows_to_new_opens_and_mappings_and_who_has_it_open_keeps_the_old_bytes() {
    if !may_pass() {
        return;
    }
    let Some(stage) = Stage::whole(&[]) else { return };
    let before = stage.open();
    let old_mapping = Mapping::new(&before, LEN, false);
    assert_eq!(stage.counts().1, 1);
    let mut new = stage.bytes.clone();
    new[1_700_000..1_700_016].copy_from_slice(b"changed in place");
    new.extend(noise(2, 700_000));
    let file = File::options().write(true).open(stage.folder.join("file")).unwrap();
    file.write_all_at(b"changed in place", 1_700_000).unwrap();
    file.write_all_at(&new[LEN..], LEN as u64).unwrap();
    within(NOTICED, "the new bytes show", || fs::read(stage.mount.path("file")).is_ok_and(|bytes| bytes == new));
    let after = stage.open();
    assert!(Mapping::new(&after, new.len(), false).bytes() == new);
    assert!(bytes_of(&before, LEN) == stage.bytes && old_mapping.bytes() == stage.bytes);
    let (old, now) = (before.metadata().unwrap(), after.metadata().unwrap());
    assert_eq!((old.len(), old.nlink()), (LEN as u64, 0), "as if another file had been renamed over it");
    assert_eq!((now.len(), now.nlink()), (new.len() as u64, 1));
    drop((before, after, old_mapping));
    // Of the old bytes nothing stays. The owner may go on writing, so whoever opens it from now on sees that.
    stage.is_quiet(new.len());
    let (_, passed) = stage.counts();
    let follower = stage.open();
    assert!(bytes_of(&follower, new.len()) == new);
    file.write_all_at(b"and appended", new.len() as u64).unwrap();
    within(NOTICED, "what is appended shows", || {
        let mut tail = [0; 12];
        follower.read_exact_at(&mut tail, new.len() as u64).is_ok() && tail == *b"and appended"
    });
    assert_eq!(stage.counts().1, passed);
    drop(follower);
    stage.mount.stop();
}

#[test]
fn a_file_that_is_removed_is_read_on_and_then_forgotten() {
    if !may_pass() {
        return;
    }
    let Some(stage) = Stage::whole(&[]) else { return };
    let file = stage.open();
    let evicted = stage.world.run("reader", &["evict", stage.mount.path("file").to_str().unwrap()]);
    assert!(stage.report()["cache_bytes"] == LEN, "it is open: {}", evicted.stderr);
    fs::remove_file(stage.folder.join("file")).unwrap();
    within(NOTICED, "the name is gone", || fs::metadata(stage.mount.path("file")).is_err());
    assert!(bytes_of(&file, LEN) == stage.bytes);
    assert!(Mapping::new(&file, LEN, true).bytes() == stage.bytes);
    drop(file);
    stage.is_quiet(0);
    stage.mount.stop();
}

#[test]
fn the_disk_has_its_room_back_when_nobody_has_it_open() {
    if !may_pass() {
        return;
    }
    let Some(stage) = Stage::on_a_small_disk() else { return };
    let (disk, path) = (stage.disk.as_ref().unwrap(), stage.mount.path("file"));
    for is_removed in [false, true] {
        stage.fetch();
        let free_bytes = disk.free_bytes();
        let passed = stage.counts().1;
        let file = stage.open();
        assert!(bytes_of(&file, LEN) == stage.bytes);
        assert_eq!(stage.counts().1, passed + 1);
        if is_removed {
            fs::remove_file(stage.folder.join("file")).unwrap();
            within(NOTICED, "the name is gone", || fs::metadata(&path).is_err());
            drop(file);
        } else {
            drop(file);
            stage.is_quiet(LEN);
            stage.world.run("reader", &["evict", path.to_str().unwrap()]).went_well();
        }
        // The kernel closes its own file a little later.
        eventually("the room is free", || disk.free_bytes() >= free_bytes + LEN as u64);
    }
    stage.mount.stop();
}

#[test]
fn a_process_that_is_killed_leaves_nothing_behind_that_cannot_be_taken_down() {
    if !may_pass() {
        return;
    }
    let Some(stage) = Stage::whole(&[]) else { return };
    let file = stage.open();
    assert_eq!(stage.counts().1, 1);
    let mapping = Mapping::new(&file, LEN, false);
    // It is killed, and what is left of it is taken down.
    drop(stage.mount);
    assert!(mapping.bytes() == stage.bytes);
    let mut some = [0; 4096];
    assert!(file.read_exact_at(&mut some, 0).is_err() || some == stage.bytes[..4096]);
    drop((file, mapping));
    let mount = stage.world.mount(&stage.share, &[]);
    assert!(fs::read(mount.path("file")).unwrap() == stage.bytes);
    mount.stop();
}
