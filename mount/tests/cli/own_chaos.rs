//! Whatever is done on the mount of one's own folder, and in the folder behind it, in the end both are the same, and a peer
//! has it too.

use crate::own::Own;
use crate::process::eventually;
use crate::tree::{Chance, difference};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How many things each thread does on the mount, and how many behind it, where each takes so much less time.
const STEPS: usize = 1_500;
const STEPS_BEHIND: usize = 15 * STEPS;

/// The names that there are, and how deep they lie.
const NAMES: u64 = 8;
const DEPTH: u64 = 3;

fn somewhere(root: &Path, chance: &mut Chance) -> PathBuf {
    let mut path = root.to_owned();
    for _ in 0..=chance.below(DEPTH) {
        path.push(format!("n{}", chance.below(NAMES)));
    }
    path
}

/// Does something. It may well fail: there may be nothing there, or something else, or somebody is faster.
fn step(root: &Path, chance: &mut Chance) -> std::io::Result<()> {
    let path = somewhere(root, chance);
    match chance.below(12) {
        0..3 => OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)?
            .write_all(&vec![b'x'; chance.below(9_000) as usize]),
        3 => fs::create_dir(path),
        // A tree that grows into itself would be all that there is in the end.
        4..6 => {
            let to = root.join(format!("n{}", chance.below(NAMES)));
            fs::rename(path, to)
        }
        6 => fs::remove_file(path),
        7 => fs::remove_dir(path),
        8 => fs::hard_link(path, somewhere(root, chance)),
        9 => std::os::unix::fs::symlink("target", path),
        10 => OpenOptions::new().write(true).open(path)?.set_len(chance.below(9_000)),
        _ => fs::read_dir(path)?.try_for_each(|entry| entry?.metadata().map(drop)),
    }
}

fn work(root: &Path, seed: u64, steps: usize) {
    let mut chance = Chance::new(seed);
    let done = (0..steps).filter(|_| step(root, &mut chance).is_ok()).count();
    assert!(done > steps / 20, "of {steps} steps {done} went well");
}

/// Every path that there may be, one by one: a listing would bring the kernel up to date.
fn paths() -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::new()];
    let mut level = paths.clone();
    for _ in 0..DEPTH {
        level = level.iter().flat_map(|path| (0..NAMES).map(|name| path.join(format!("n{name}")))).collect();
        paths.extend(level.clone());
    }
    paths
}

/// What the kernel says of one path, from its memory if it thinks that this is good.
fn glance(path: &Path) -> Option<(u64, u32, i64, u64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.len(), meta.mode(), meta.ctime_nsec(), meta.nlink()))
}

fn agree(what: &str, one: &Path, other: &Path) {
    eventually(what, || match difference(one, other) {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(found),
        Err(error) => Err(error.to_string()),
    });
}

#[test]
fn in_the_end_both_sides_and_a_peer_are_the_same() {
    let Some(own) = Own::new() else { return };
    let peer = own.world.mount(own.share(), &[]);
    std::thread::scope(|scope| {
        let sides = [(own.root(), STEPS), (own.root(), STEPS), (own.folder(), STEPS_BEHIND)];
        for (seed, (root, steps)) in (1..).zip(sides) {
            scope.spawn(move || work(root, seed, steps));
        }
    });
    for path in paths().iter().skip(1) {
        eventually(&format!("{} is seen as it is", path.display()), || {
            glance(&own.root().join(path)) == glance(&own.folder().join(path))
        });
    }
    agree("the mount shows the folder", own.folder(), own.root());
    agree("the peer shows the folder", own.folder(), peer.root());
    peer.stop();
    own.stop();
}
