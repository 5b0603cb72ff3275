//! Programs that copy from a mount while its link is cut: what they have made is whole, or they say that they failed.
//!
//! `FARSHORE_CUTS_MIB` makes the files larger than they are by themselves.

use crate::process::{Ended, Process, SOON, eventually, within};
use crate::tree::{Chance, write_noise};
use crate::valve::Valve;
use crate::world::{Mount, World, skipped};
use rustix::process::Signal;
use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

const CUTS: u64 = 20;

/// The longest that the link is silent before it is cut.
const SILENCE: Duration = Duration::from_millis(100);

/// As much as is behind what is read ahead for all programs, so that they are in the middle when the link goes.
const TOO_MUCH_BYTES: usize = 40 << 20;

/// How fast the link is, in bytes per second.
const SPEED: u64 = 24 << 20;

/// Copies a file through a memory map, in a program that knows nothing of us.
const COPY_MAPPED: &str = "
import mmap, sys
with open(sys.argv[1], 'rb') as file, open(sys.argv[2], 'wb') as copy:
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for at in range(0, len(mapped), 100000):
            copy.write(mapped[at:at + 100000])
";

/// The ways to copy a file. Each is given the file and the copy.
const PROGRAMS: [(&str, &[&str]); 5] = [
    ("cp", &["cp"]),
    ("cat", &["sh", "-c", "exec cat \"$0\" > \"$1\""]),
    ("dd", &["sh", "-c", "exec dd \"if=$0\" \"of=$1\" bs=64K status=none"]),
    ("sha256sum", &["sh", "-c", "exec sha256sum < \"$0\" > \"$1\""]),
    ("mapped", &["python3", "-c", COPY_MAPPED]),
];

/// A program at work on a file of its own.
struct Copying {
    name: &'static str,
    original: PathBuf,
    copy: PathBuf,
    process: Process,
}

/// How it came out.
struct Copied {
    name: &'static str,
    /// Whether the copy is what it should be.
    is_whole: bool,
    ended: Ended,
}

impl Copying {
    fn end(self, limit: Duration) -> Copied {
        let ended = self.process.end_within(limit);
        let is_whole = match self.name {
            "sha256sum" => fs::read(&self.copy).unwrap() == sum(&self.original),
            _ => fs::read(&self.copy).unwrap() == fs::read(&self.original).unwrap(),
        };
        fs::remove_file(&self.copy).unwrap();
        Copied { name: self.name, is_whole, ended }
    }
}

impl Copied {
    #[track_caller]
    fn went_well(self) {
        let ended = self.ended.went_well();
        assert!(self.is_whole, "{}: another copy than the original, and no word about it: {ended:?}", self.name);
    }

    /// It ended with an error that a person understands, or with the signal of a memory map whose bytes cannot be had.
    #[track_caller]
    fn failed(self) {
        let Copied { name, ended, .. } = self;
        match name {
            "mapped" => assert_eq!(ended.status.signal(), Some(Signal::BUS.as_raw()), "{name}: {ended:?}"),
            _ => {
                assert!(ended.status.code().is_some_and(|code| code != 0), "{name}: {ended:?}");
                assert!(ended.stderr.contains("Input/output error"), "{name}: {ended:?}");
            }
        }
    }
}

fn sum(file: &Path) -> Vec<u8> {
    let summed = Command::new("sha256sum").stdin(fs::File::open(file).unwrap()).output().unwrap();
    assert!(summed.status.success());
    summed.stdout
}

/// The programs that this machine has.
fn programs() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let has_python = Command::new("python3").args(["-c", "import mmap"]).status().is_ok_and(|status| status.success());
    if !has_python {
        skipped("no python3 to map files with");
    }
    PROGRAMS.into_iter().filter(move |(name, _)| has_python || *name != "mapped")
}

/// A folder with a file for each program.
fn write_originals(world: &World, size_bytes: usize) -> PathBuf {
    let folder = world.new_dir("folder");
    for ((name, _), seed) in PROGRAMS.into_iter().zip(1..) {
        write_noise(&folder.join(name), seed, size_bytes);
    }
    folder
}

/// Starts all programs, each on its file.
fn start(folder: &Path, mount: &Mount, world: &World) -> Vec<Copying> {
    let start = |(name, words): (&'static str, &'static [&'static str])| {
        let (original, copy) = (folder.join(name), world.path(&format!("copy by {name}")));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(mount.path(name)).arg(&copy).env("LC_ALL", "C");
        Copying { name, original, copy, process: Process::start(command) }
    };
    programs().map(start).collect()
}

#[test]
fn copies_over_a_link_that_is_cut_twenty_times_are_whole() {
    let Some(world) = World::with_fuse() else { return };
    let mib = env::var("FARSHORE_CUTS_MIB").map_or(8, |text| text.parse().unwrap());
    let size_bytes = (mib << 20) + 12_345;
    let folder = write_originals(&world, size_bytes);
    let share = world.share(&folder);
    let valve = Valve::slow(&share.address, SPEED);
    let mount = world.mount_on(&world.path("mnt"), &valve.ticket(&share.ticket), &[]);
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let mut copying = start(&folder, &mount, &world);
    let limit = SOON * 10;
    // All cuts come before everything has been fetched for the first time.
    let part = (copying.len() * size_bytes) as u64 / (CUTS + 1);
    for cut in 0..CUTS {
        let moment = part * cut + chance.below(part);
        within(limit, "the next cut", || {
            let is_over = copying.iter_mut().any(|copying| !copying.process.is_running());
            is_over || valve.passed_bytes() >= moment
        });
        if chance.below(2) == 0 {
            valve.shut();
            thread::sleep(Duration::from_micros(chance.below(SILENCE.as_micros() as u64)));
        }
        valve.cut();
        valve.open();
    }
    for copying in copying {
        copying.end(limit).went_well();
    }
    assert!(mount.process().said("lost the connection") >= 3, "hardly any of the cuts was felt");
    mount.stop();
}

#[test]
fn in_fail_mode_a_copy_over_a_link_that_is_cut_fails() {
    a_copy_fails(&["--on-disconnect=fail"]);
}

#[test]
fn a_copy_over_a_link_that_stays_down_fails_when_its_time_is_over() {
    a_copy_fails(&["--on-disconnect=wait", "--read-timeout=1"]);
}

/// The link goes away in the middle, and comes back only when the programs have ended.
fn a_copy_fails(options: &[&str]) {
    let Some(world) = World::with_fuse() else { return };
    let folder = write_originals(&world, TOO_MUCH_BYTES / 4);
    let share = world.share(&folder);
    let valve = Valve::new(&share.address, 2 << 20);
    let mount = world.mount_on(&world.path("mnt"), &valve.ticket(&share.ticket), options);
    let copying = start(&folder, &mount, &world);
    eventually("they are in the middle", || valve.is_shut());
    valve.cut();
    for copying in copying {
        copying.end(SOON).failed();
    }
    valve.open();
    // A connection that began in silence may be held until it is given up.
    valve.cut();
    mount.process().says("connected to");
    for copying in start(&folder, &mount, &world) {
        copying.end(SOON).went_well();
    }
    mount.stop();
}
