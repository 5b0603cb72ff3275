//! The power fails in the middle of a download: what the file system had not brought to the disk by then is gone.
//!
//! A file system in a file stands in for the disk, and `xfs_io -x -c shutdown` for the cut: from then on nothing gets to
//! the disk any more, not even what was written before. When it is mounted again it has what a machine finds that is
//! switched on after a power failure, its journal replayed. Needs root, loop devices, `mkfs.ext4` and `xfs_io`.

use crate::process::{Process, SOON, within};
use crate::tree::{assert_same, below, hash_file, offered, shared, shared_difference, write_noise};
use crate::valve::Valve;
use crate::world::{Share, World, files_below, is_mounted, skipped, take_down};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

const CUTS: u64 = 3;
const LARGE_BYTES: usize = 40 << 20;
const SMALL_FILES: u64 = 120;
/// Slow enough for every cut to be seconds after the one before: what a second brings may be lost each time.
const BYTES_PER_SECOND: u64 = 6 << 20;
const DISK_BYTES: u64 = 512 << 20;

/// A disk whose power can fail.
struct Disk {
    image: PathBuf,
    path: PathBuf,
}

impl Disk {
    /// `None`, and a loud word about it, if this machine cannot have one.
    fn new(world: &World) -> Option<Disk> {
        let disk = Disk { image: world.path("image"), path: world.new_dir("disk") };
        File::create(&disk.image).unwrap().set_len(DISK_BYTES).unwrap();
        let steps = [Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image).output(), disk.mount().output()];
        let tools = Command::new("xfs_io").arg("-V").output();
        for done in steps.into_iter().chain([tools]) {
            let why = match done {
                Ok(output) if output.status.success() => continue,
                Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                Err(error) => error.to_string(),
            };
            skipped(&format!("no disk whose power can fail: {}", why.trim()));
            return None;
        }
        Some(disk)
    }

    fn mount(&self) -> Command {
        let mut command = Command::new("mount");
        command.args(["-o", "loop"]).arg(&self.image).arg(&self.path);
        command
    }

    /// Nothing gets to the disk from here on.
    fn cut_power(&self) {
        assert!(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.path).status().unwrap().success());
    }

    /// Nobody who had it open is left.
    fn power_on(&self) {
        within(SOON, "the disk is let go of", || {
            let done = Command::new("umount").arg(&self.path).output().unwrap();
            done.status.success() || !is_mounted(&self.path)
        });
        assert!(self.mount().status().unwrap().success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        take_down(&self.path);
    }
}

/// A shared folder and a slow way to it.
struct Source {
    folder: PathBuf,
    content_bytes: u64,
    valve: Valve,
    ticket: String,
    _share: Share,
}

impl Source {
    fn new(world: &World) -> Source {
        let folder = world.new_dir("folder");
        let mut content_bytes = write_noise(&folder.join("large"), 0, LARGE_BYTES).len();
        fs::create_dir(folder.join("small")).unwrap();
        for file in 1..=SMALL_FILES {
            content_bytes += write_noise(&folder.join(format!("small/{file}")), file, (file * 517) as usize).len();
        }
        let share = world.share(&folder);
        let valve = Valve::slow(&share.address, BYTES_PER_SECOND);
        let ticket = valve.ticket(&share.ticket);
        Source { folder, content_bytes: content_bytes as u64, valve, ticket, _share: share }
    }

    /// Waits for the moment of a cut; the moments lie even in what has to be fetched.
    fn wait_for_cut(&self, cut: u64) {
        let moment = self.content_bytes * cut / (CUTS + 1);
        within(Duration::from_secs(120), "the power fails", || self.valve.passed_bytes() >= moment);
    }

    /// What was on the disk has not been fetched again. Whoever began anew after each cut would need more.
    fn check_passed(&self) {
        let passed = self.valve.passed_bytes();
        assert!(passed < 2 * self.content_bytes, "{passed} bytes were fetched of {}", self.content_bytes);
    }
}

#[test]
fn a_get_goes_on_with_what_was_on_the_disk() {
    let world = World::new();
    let Some(disk) = Disk::new(&world) else { return };
    let source = Source::new(&world);
    let out = disk.path("out");
    let start = || {
        let mut command = world.farshore("reader", &["get", &source.ticket, "-o"]);
        command.arg(&out);
        Process::start(command)
    };
    for cut in 1..=CUTS {
        let mut process = start();
        source.wait_for_cut(cut);
        disk.cut_power();
        process.kill();
        disk.power_on();
        for file in files_below(&out) {
            let name = file.strip_prefix(&out).unwrap();
            // What has its own name is whole.
            if !name.starts_with(".farshore") {
                let same = hash_file(&file).unwrap() == hash_file(&source.folder.join(name)).unwrap();
                assert!(same, "{} is wrong after a power failure", name.display());
            }
        }
    }
    start().end_within(Duration::from_secs(120)).went_well();
    let (there, here) = (offered(&source.folder), below(&out));
    let first = there.keys().chain(here.keys()).find(|path| there.get(*path) != here.get(*path));
    assert_eq!(first.map(|path| (there.get(path), here.get(path))), None);
    source.check_passed();
}

#[test]
fn a_mount_serves_nothing_that_was_not_on_the_disk() {
    let Some(world) = World::with_fuse() else { return };
    let Some(disk) = Disk::new(&world) else { return };
    let source = Source::new(&world);
    let store = disk.path("store");
    let mount = || world.mount_on(&world.path("mnt"), &source.ticket, &["--store", store.to_str().unwrap()]);
    for cut in 1..=CUTS {
        let life = mount();
        let root = life.root().to_owned();
        thread::scope(|scope| {
            let reading = scope.spawn(|| read_until_it_fails(&source.folder, &root));
            source.wait_for_cut(cut);
            disk.cut_power();
            life.kill_and_leave();
            take_down(&root);
            reading.join().unwrap();
        });
        disk.power_on();
    }
    let life = mount();
    assert_same(&source.folder, life.root());
    life.stop();
    source.check_passed();
    let verified = world.run("reader", &["verify", "--store", store.to_str().unwrap()]).went_well();
    assert!(verified.text().ends_with(", 0 are damaged, in 0 files\n"), "{}", verified.text());
}

/// A file gets its name in the folder only when its bytes are on the disk, and nobody takes one for changed that is not.
#[test]
fn a_folder_that_is_changed_by_all_holds_nothing_that_was_not_on_the_disk() {
    let Some(world) = World::with_fuse() else { return };
    let Some(disk) = Disk::new(&world) else { return };
    let source = Source::new(&world);
    let copy = disk.path("copy");
    let mount = || {
        let more = ["--store", copy.to_str().unwrap()];
        let life = world.join_as("reader", &world.path("mnt"), &source.ticket, &more);
        let mut pin = world.farshore("reader", &["pin"]);
        pin.arg(life.root());
        Process::run(pin).went_well();
        life
    };
    for cut in 1..=CUTS {
        let life = mount();
        let root = life.root().to_owned();
        source.wait_for_cut(cut);
        disk.cut_power();
        life.kill_and_leave();
        take_down(&root);
        disk.power_on();
        for file in files_below(&copy) {
            let name = file.strip_prefix(&copy).unwrap();
            if !name.starts_with(".farshore") {
                let same = hash_file(&file).unwrap() == hash_file(&source.folder.join(name)).unwrap();
                assert!(same, "{} is wrong after a power failure", name.display());
            }
        }
    }
    let life = mount();
    let before = shared(&source.folder).unwrap();
    within(Duration::from_secs(120), "the copy is whole", || shared_difference(&source.folder, &copy));
    assert_eq!(shared(&source.folder).unwrap(), before, "the owner's folder is as it was");
    life.stop();
    source.check_passed();
}

/// What is read, until reading fails because the disk does, is right.
fn read_until_it_fails(folder: &Path, root: &Path) {
    for original in files_below(folder) {
        let Ok(shown) = fs::read(root.join(original.strip_prefix(folder).unwrap())) else { return };
        assert!(shown == fs::read(&original).unwrap(), "{} is shown wrong", original.display());
    }
}
