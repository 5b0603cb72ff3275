//! Files that are all here are read by the kernel itself, where this process may let it. What they are about to become
//! shows to whoever opens them next.

use crate::mapping::Mapping;
use crate::passing;
use crate::process::{eventually, within};
use crate::status::only_process;
use crate::tree::{noise, write_noise};
use crate::world::{Mount, Share, World, skipped};
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
    world: World,
}

fn may_pass() -> bool {
    let reason = passing::reason_against();
    reason.into_iter().for_each(skipped);
    reason.is_none()
}

impl Stage {
    fn new(more: &[&str]) -> Option<Stage> {
        let world = World::with_fuse()?;
        let folder = world.new_dir("folder");
        let bytes = write_noise(&folder.join("file"), 1, LEN);
        let share = world.share(&folder);
        let mount = world.mount(&share, more);
        Some(Stage { folder, bytes, mount, share, world })
    }

    /// Where all of the file is here, and nobody has it open.
    fn whole(more: &[&str]) -> Option<Stage> {
        let stage = Stage::new(more)?;
        assert!(fs::read(stage.mount.path("file")).unwrap() == stage.bytes);
        stage.is_quiet(LEN);
        Some(stage)
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

#[test]
fn the_own_folder_is_read_by_the_kernel_itself_and_shows_edits_at_once() {
    if !may_pass() {
        return;
    }
    let Some(world) = World::with_fuse() else { return };
    let (folder, own) = (world.new_dir("folder"), world.new_dir("own"));
    let mut bytes = write_noise(&folder.join("file"), 1, LEN);
    let share = world.share_at(&folder, "127.0.0.1:0", &["--mount", own.to_str().unwrap()]);
    let passed = || only_process(&world, "owner")["fuse"]["passthrough_opens"].as_u64().unwrap();
    let open = || File::open(own.join("file")).unwrap();
    let first = open();
    assert!(bytes_of(&first, LEN) == bytes);
    assert_eq!(passed(), 1);
    let file = File::options().write(true).open(folder.join("file")).unwrap();
    file.write_all_at(b"changed in place", 1_000_000).unwrap();
    bytes[1_000_000..1_000_016].copy_from_slice(b"changed in place");
    let second = open();
    for file in [&first, &second] {
        assert!(bytes_of(file, LEN) == bytes, "it is the file itself");
        assert!(Mapping::new(file, LEN, false).bytes() == bytes);
    }
    // As editors save: another file over the name.
    let saved = write_noise(&folder.join("new"), 2, LEN + 1);
    fs::rename(folder.join("new"), folder.join("file")).unwrap();
    within(NOTICED, "the new file shows", || fs::read(own.join("file")).is_ok_and(|now| now == saved));
    assert!(bytes_of(&first, LEN) == bytes, "who has it open keeps it");
    let third = open();
    assert!(Mapping::new(&third, saved.len(), true).bytes() == saved);
    assert_eq!(only_process(&world, "owner")["fuse"]["read_bytes"], 0);
    drop((first, second, third));
    share.process.stop(rustix::process::Signal::INT).went_well();
}
