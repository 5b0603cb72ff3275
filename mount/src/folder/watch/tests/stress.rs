//! Anything, in any order, at any speed; then quiet.

use super::Rig;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

/// What happens outside of the folder to another name of a file in it is told by nobody. So a run has either files
/// with several names, or an outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Play {
    Outside,
    Links,
}

/// A generator that gives the same numbers for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// A path of few possible names, so that they meet often.
    fn path(&mut self, rig: &Rig, play: Play) -> std::path::PathBuf {
        let outside = play == Play::Outside && self.roll(20) == 0;
        let mut path = if outside { rig.outside("") } else { rig.root() };
        for _ in 0..=self.roll(4) {
            path.push(["a", "b", "c", "d"][usize::try_from(self.roll(4)).unwrap()]);
        }
        path
    }

    /// One operation. Most fail, for what they need is not there; that is fine.
    fn act(&mut self, rig: &Rig, play: Play) {
        let (path, other) = (self.path(rig, play), self.path(rig, play));
        let _ = match self.roll(14) {
            0..=2 => fs::create_dir(&path),
            3 => fs::create_dir_all(&path),
            4 | 5 => fs::write(&path, vec![b'x'; usize::try_from(self.roll(3_000)).unwrap()]),
            6 => fs::remove_file(&path),
            7 => fs::remove_dir_all(&path),
            8..=10 => fs::rename(&path, &other),
            11 => renameat_with(CWD, &path, CWD, &other, RenameFlags::EXCHANGE).map_err(Into::into),
            12 => symlink(&other, &path),
            _ => match self.roll(2) {
                0 if play == Play::Links => fs::hard_link(&path, &other),
                _ => match fs::symlink_metadata(&path) {
                    Ok(meta) if !meta.is_symlink() => {
                        let mode = 0o700 | u32::try_from(self.roll(0o100)).unwrap();
                        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                    }
                    _ => Ok(()),
                },
            },
        };
    }
}

fn converges(seed: u64, play: Play) {
    let mut dice = Dice(seed);
    let rig = Rig::with(|rig| (0..40).for_each(|_| dice.act(rig, play)));
    for _ in 0..8 {
        for _ in 0..dice.roll(300) {
            dice.act(&rig, play);
            match dice.roll(60) {
                0 => std::thread::sleep(Duration::from_millis(60)),
                1..=5 => std::thread::sleep(Duration::from_millis(dice.roll(8))),
                _ => {}
            }
        }
        rig.settle();
    }
}

#[test]
fn random_operations_converge() {
    // More for who wants to search for longer.
    let seeds = std::env::var("STRESS_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6);
    for seed in 1..=seeds {
        let play = if seed % 2 == 0 { Play::Links } else { Play::Outside };
        println!("seed {seed}");
        converges(seed, play);
    }
}
