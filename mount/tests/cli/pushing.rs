//! What others see of a file while a program still writes to it, with `--push-on-write` and without.

use crate::process::eventually;
use crate::status::only_process;
use crate::tree::noise;
use crate::world::{Mount, Share, World, take_down};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How much a program writes to its log before it looks whether others have seen it, in bytes. No whole number of chunks.
const STEP_BYTES: usize = 700_000;

/// An owner with a mount of its own, and a guest who writes on another one.
struct Pair {
    mount: Option<Mount>,
    share: Option<Share>,
    owners_root: PathBuf,
    world: World,
}

impl Pair {
    fn new(of_owner: &[&str], of_guest: &[&str]) -> Option<Pair> {
        let world = World::with_fuse()?;
        let (folder, owners_root) = (world.new_dir("folder"), world.new_dir("own mnt"));
        let share =
            world.share_at(&folder, "127.0.0.1:0", &[&["--mount", owners_root.to_str().unwrap()], of_owner].concat());
        let mount = world.join(&share, of_guest);
        Some(Pair { mount: Some(mount), share: Some(share), owners_root, world })
    }

    fn guests_root(&self) -> PathBuf {
        self.mount.as_ref().unwrap().root().to_owned()
    }

    /// A program appends to a log and keeps it open. The other side sees each part of it, and reads it.
    fn log_grows(&self, writer: PathBuf, reader: PathBuf, device: &str) {
        let bytes = noise(1, 10 * STEP_BYTES);
        let fetched = || only_process(&self.world, device)["totals"]["fetched_bytes"].as_u64().unwrap();
        let before = fetched();
        let mut log = File::options().create_new(true).append(true).open(writer).unwrap();
        for end in (STEP_BYTES..=bytes.len()).step_by(STEP_BYTES) {
            log.write_all(&bytes[end - STEP_BYTES..end]).unwrap();
            eventually("what was written is seen while the file is open", || {
                let seen = fs::read(&reader).map_err(|error| error.to_string())?;
                if seen == bytes[..end] { Ok(()) } else { Err(format!("{} bytes of {end}", seen.len())) }
            });
        }
        let moved = fetched() - before;
        assert!(moved < 2 * bytes.len() as u64, "{moved} bytes were fetched of {}", bytes.len());
    }

    fn stop(mut self) {
        self.mount.take().unwrap().stop();
        self.share.take().unwrap().process.stop(Signal::INT).went_well();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        drop(self.share.take());
        take_down(&self.owners_root);
    }
}

/// How often a program tries to write without rest on a machine that may have much else to do.
const TRIES: usize = 10;

/// How long a program writes without anybody seeing it. At the latest after five seconds somebody would.
const UNSEEN: Duration = Duration::from_secs(2);

impl Pair {
    /// A program appends to a new file of the guest's until `is_enough` says so of how many bytes the owner sees, and closes it.
    /// Returns how many the owner saw before that, and the longest time between two writes.
    fn write_until(&self, name: &str, mut is_enough: impl FnMut(u64) -> bool) -> (u64, Duration) {
        let mut log = File::options().create_new(true).append(true).open(self.guests_root().join(name)).unwrap();
        let seen = || fs::metadata(self.owners_root.join(name)).map_or(0, |seen| seen.len());
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        let (mut written_bytes, mut before) = (0, 0);
        eventually("enough is written", || {
            log.write_all(&[7; 10_000]).unwrap();
            written_bytes += 10_000;
            longest = longest.max(last.elapsed());
            last = Instant::now();
            before = seen();
            is_enough(before)
        });
        drop(log);
        eventually("all of it is seen", || seen() == written_bytes);
        (before, longest)
    }
}

#[test]
fn what_is_written_shows_before_the_file_is_closed_if_that_is_wanted() {
    let Some(pair) = Pair::new(&["--push-on-write"], &["--push-on-write"]) else { return };
    pair.write_until("log", |seen| seen > 0);
    pair.log_grows(pair.guests_root().join("by the guest"), pair.owners_root.join("by the guest"), "owner");
    pair.log_grows(pair.owners_root.join("by the owner"), pair.guests_root().join("by the owner"), "reader");
    pair.stop();
}

#[test]
fn what_is_written_without_rest_shows_when_the_file_is_closed() {
    let Some(pair) = Pair::new(&[], &[]) else { return };
    // A file that rests is told, and a busy machine gives it a rest.
    let seen = (0..TRIES).find_map(|number| {
        let begun = Instant::now();
        let (seen, longest) = pair.write_until(&format!("log {number}"), |_| begun.elapsed() > UNSEEN);
        (longest < UNSEEN / 4).then_some(seen)
    });
    assert_eq!(seen, Some(0), "it is seen while it is written");
    pair.stop();
}
