//! What was fetched outlives the process: it is neither fetched again nor forgotten, and it stays within its bounds.

use crate::process::eventually;
use crate::tree::{assert_same, write_noise};
use crate::valve::Valve;
use crate::world::{Mount, Share, World, files_below, skipped};
use farshore_engine::chunk::CHUNK_SIZE;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;

/// The most that is said besides the bytes of files when a mount begins and ends, in bytes.
const TALK_BYTES: u64 = CHUNK_SIZE / 4;

/// A folder with some files that are shared over a way on which everything is counted.
struct Place {
    folder: PathBuf,
    share: Share,
    valve: Valve,
    /// Last, so that nothing runs any more when it is tidied up.
    world: World,
}

impl Place {
    fn new(files: u64, size_bytes: u64) -> Option<Place> {
        Place::with(&[], files, size_bytes)
    }

    /// The owner says more about its share.
    fn with(more: &[&str], files: u64, size_bytes: u64) -> Option<Place> {
        let world = World::with_fuse()?;
        let folder = world.new_dir("folder");
        for file in 0..files {
            write_noise(&folder.join(file.to_string()), file, usize::try_from(size_bytes).unwrap());
        }
        let share = world.share_at(&folder, "127.0.0.1:0", more);
        let valve = Valve::new(&share.address, u64::MAX);
        Some(Place { folder, share, valve, world })
    }

    fn mount(&self, more: &[&str]) -> Mount {
        self.world.mount_on(&self.world.path("mnt"), &self.valve.ticket(&self.share.ticket), more)
    }

    /// What passes while something is done, in bytes.
    fn passing(&self, work: impl FnOnce()) -> u64 {
        let before = self.valve.passed_bytes();
        work();
        self.valve.passed_bytes() - before
    }

    /// What the store takes of the disk, in bytes.
    fn stored_bytes(&self) -> u64 {
        disk_bytes(&self.world.path("state of reader/store"))
    }

    /// Says something about a path of the mount, and returns what is answered.
    fn tell(&self, mount: &Mount, command: &str, path: &str) -> String {
        let path = mount.path(path);
        self.world.run("reader", &[command, path.to_str().unwrap()]).went_well().text().to_owned()
    }

    /// Everything can be read though the owner is gone.
    fn is_here(&mut self, mount: &Mount) {
        self.share.process.kill();
        mount.process().says("lost the connection");
        assert_same(&self.folder, mount.root());
    }
}

/// What the files below a directory take of its disk, in bytes. They may come and go meanwhile.
fn disk_bytes(dir: &Path) -> u64 {
    files_below(dir).iter().filter_map(|file| fs::symlink_metadata(file).ok()).map(|meta| meta.blocks() * 512).sum()
}

#[test]
fn nothing_is_fetched_again_after_a_stop() {
    let Some(place) = Place::new(3, 3 * CHUNK_SIZE + 1) else { return };
    let content_bytes = 3 * (3 * CHUNK_SIZE + 1);
    let mount = place.mount(&[]);
    let first = place.passing(|| assert_same(&place.folder, mount.root()));
    assert!(first >= content_bytes);
    mount.stop();
    let again = place.passing(|| {
        let mount = place.mount(&[]);
        assert_same(&place.folder, mount.root());
        mount.stop();
    });
    assert!(again < TALK_BYTES, "{again} bytes have passed");
}

#[test]
fn an_edit_while_the_mount_was_down_costs_the_chunk_that_it_touches() {
    let Some(place) = Place::new(1, 16 * CHUNK_SIZE) else { return };
    let mount = place.mount(&[]);
    assert_same(&place.folder, mount.root());
    mount.stop();
    let listed = || place.world.run("asker", &["ls", "--json", &place.share.ticket]).went_well().text().to_owned();
    let before = listed();
    let file = File::options().write(true).open(place.folder.join("0")).unwrap();
    file.write_all_at(b"edited", 5 * CHUNK_SIZE + 1000).unwrap();
    drop(file);
    eventually("the owner has noticed", || listed() != before);
    // The owner has noticed it when somebody who asks anew hears of it.
    let again = place.passing(|| {
        let mount = place.mount(&[]);
        eventually("it is the new version", || {
            let bytes = fs::read(mount.path("0")).unwrap();
            bytes == fs::read(place.folder.join("0")).unwrap()
        });
        assert_same(&place.folder, mount.root());
        mount.stop();
    });
    assert!((CHUNK_SIZE..CHUNK_SIZE + TALK_BYTES).contains(&again), "{again} bytes have passed");
}

#[test]
fn a_cache_stays_within_its_size_also_over_restarts() {
    let Some(place) = Place::new(12, CHUNK_SIZE) else { return };
    let limit = 4 * CHUNK_SIZE;
    let options = ["--cache-size", &limit.to_string()];
    // Sidecars are not counted; each takes a block of the disk.
    let is_within = || {
        let stored = place.stored_bytes();
        if stored <= limit + 12 * 8192 { Ok(()) } else { Err(format!("{stored} bytes are stored")) }
    };
    for _ in 0..2 {
        let mount = place.mount(&options);
        for _ in 0..2 {
            assert_same(&place.folder, mount.root());
            eventually("it is within its size", is_within);
        }
        mount.stop();
        is_within().unwrap();
    }
    // A size that was lowered meanwhile holds at once.
    let mount = place.mount(&["--cache-size", "1K"]);
    eventually("there is nothing more", || {
        let stored = place.stored_bytes();
        if stored <= 12 * 8192 {
            Ok(())
        } else {
            Err(format!("{stored} bytes are stored: {:?}", place.world.stored_files()))
        }
    });
    mount.stop();
}

#[test]
fn a_pin_outlives_a_restart_and_is_fetched_after_it() {
    let Some(mut place) = Place::new(3, 2 * CHUNK_SIZE) else { return };
    let mount = place.mount(&["--cache-size", "1K"]);
    // What is pinned cannot come before the restart.
    place.valve.shut();
    place.tell(&mount, "pin", "");
    mount.stop();
    assert!(place.stored_bytes() < CHUNK_SIZE);
    place.valve.cut();
    place.valve.open();
    let mount = place.mount(&["--cache-size", "1K"]);
    eventually("all of it has come, though nobody reads", || place.stored_bytes() >= 6 * CHUNK_SIZE);
    let said = place.tell(&mount, "evict", "");
    assert!(said.contains("let go of 0 files"), "{said}");
    place.is_here(&mount);
    mount.stop();
}

#[test]
fn evicting_gives_the_disk_back() {
    let Some(place) = Place::new(2, 2 * CHUNK_SIZE) else { return };
    let mount = place.mount(&[]);
    assert_same(&place.folder, mount.root());
    eventually("it is stored", || place.stored_bytes() >= 4 * CHUNK_SIZE);
    let mut said = String::new();
    // The kernel tells of the last close a little later.
    eventually("it can be let go of", || {
        said = place.tell(&mount, "evict", "0");
        said.contains("let go of 1 files")
    });
    eventually("half of it is gone", || place.stored_bytes() < 2 * CHUNK_SIZE + 4 * 8192);
    assert_same(&place.folder, mount.root());
    mount.stop();
}

#[test]
fn a_file_is_fetched_whole_when_it_is_opened_if_that_is_wanted() {
    let Some(mut place) = Place::new(1, 80 * CHUNK_SIZE) else { return };
    let mount = place.mount(&["--prefetch-on-open"]);
    let mut file = File::open(mount.path("0")).unwrap();
    file.read_exact(&mut [0]).unwrap();
    eventually("all of it has come", || place.stored_bytes() >= 80 * CHUNK_SIZE);
    place.is_here(&mount);
    drop(file);
    mount.stop();
}

#[test]
fn what_is_unshared_is_read_on_by_who_has_it_open_and_is_gone_for_others() {
    let Some(place) = Place::with(&["--read-only"], 1, 80 * CHUNK_SIZE) else { return };
    let mount = place.mount(&[]);
    let (path, original) = (mount.path("0"), place.folder.join("0"));
    let mut file = File::open(&path).unwrap();
    let mut bytes = vec![0; 1000];
    file.read_exact(&mut bytes).unwrap();
    let original_path = original.to_str().unwrap();
    place.world.run("owner", &["unshare", original_path]).went_well();
    eventually("its name is gone", || File::open(&path).is_err_and(|error| error.raw_os_error() == Some(2)));
    assert_eq!(fs::read_dir(mount.root()).unwrap().count(), 0);
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == fs::read(&original).unwrap());
    drop(file);
    place.world.run("owner", &["unshare", "--undo", original_path]).went_well();
    eventually("it is back", || path.exists());
    assert_same(&place.folder, mount.root());
    mount.stop();
}

/// A small disk of its own, which goes with it.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None`, and a loud word about it, if this user may not mount one.
    pub(crate) fn new(world: &World, size_bytes: u64, flags: MountFlags) -> Option<Disk> {
        let path = world.new_dir("disk");
        let options = std::ffi::CString::new(format!("size={size_bytes}")).unwrap();
        match mount("farshore-test", &path, "tmpfs", flags, &*options) {
            Ok(()) => Some(Disk(path)),
            Err(error) => {
                skipped(&format!("no disk of its own can be mounted ({error})"));
                None
            }
        }
    }

    pub(crate) fn store(&self) -> String {
        self.0.join("store").to_str().unwrap().to_owned()
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        space.f_bavail * space.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still uses it is about to be killed.
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_store_on_a_full_or_read_only_disk_is_told_at_the_start() {
    for (flags, reason) in [(MountFlags::RDONLY, "Read-only"), (MountFlags::empty(), "full")] {
        let Some(place) = Place::new(1, 1000) else { return };
        let Some(disk) = Disk::new(&place.world, 4 << 20, flags) else { return };
        if flags.is_empty() {
            write_noise(&disk.0.join("ballast"), 1, 4 << 20);
        }
        let mnt = place.world.new_dir("mnt");
        let arguments = ["mount", &place.share.ticket, mnt.to_str().unwrap(), "--store", &disk.store()];
        let ended = place.world.run("reader", &arguments).has_code(1);
        ended.only_says(&[disk.0.to_str().unwrap(), reason]);
        // Nor can others change a folder there.
        let ended = place.world.run("owner", &["share", "--listen", "127.0.0.1:0", disk.0.to_str().unwrap()]);
        ended.has_code(1).only_says(&[disk.0.to_str().unwrap(), reason, "--read-only"]);
    }
}

#[test]
fn downloads_stop_before_the_disk_is_full_and_go_on_when_there_is_room() {
    let Some(mut place) = Place::new(4, 16 * CHUNK_SIZE) else { return };
    let Some(disk) = Disk::new(&place.world, 400 * CHUNK_SIZE, MountFlags::empty()) else { return };
    let ballast = disk.0.join("ballast");
    fallocate(File::create(&ballast).unwrap(), FallocateFlags::empty(), 0, 360 * CHUNK_SIZE).unwrap();
    let mount = place.mount(&["--store", &disk.store()]);
    // All of it is right, though not all of it can be kept.
    let least_free_bytes = thread::scope(|scope| {
        let reading = scope.spawn(|| assert_same(&place.folder, mount.root()));
        let mut least = disk.free_bytes();
        while !reading.is_finished() {
            least = least.min(disk.free_bytes());
            thread::yield_now();
        }
        least
    });
    assert!(disk_bytes(&disk.0.join("store")) > 0);
    // Of 400 chunks 5 % are left to others, less what was on its way to the disk when the store last looked at it.
    assert!(least_free_bytes >= 10 * CHUNK_SIZE, "{least_free_bytes} bytes were free");
    fs::remove_file(ballast).unwrap();
    place.tell(&mount, "pin", "");
    eventually("all of it is kept", || disk_bytes(&disk.0.join("store")) >= 64 * CHUNK_SIZE);
    place.is_here(&mount);
    mount.stop();
}
