//! Either process is killed again and again in the middle of a download, at moments that are drawn from a seed, and begins
//! again on what the one before it left.
//!
//! Nothing that is read may be wrong, nothing wrong may stay in the store, and little may be fetched twice. The tests here
//! are short. Longer ones are asked for through the environment, and what they measured is printed with `--nocapture`. What
//! was not saved for a second is lost, so the link has to be slow for the kills to be some seconds apart:
//!
//! ```sh
//! FARSHORE_KILLS=200 FARSHORE_KILLS_LARGE_MIB=1024 FARSHORE_KILLS_SMALL_FILES=2000 FARSHORE_KILLS_KIB_PER_SECOND=1024 \
//!     cargo test --release -p farshore --test cli -- kills --nocapture
//! ```
//!
//! `FARSHORE_KILLS_SEED` repeats the moments of another run.

use crate::process::{Process, SOON, within};
use crate::tree::{Chance, assert_same, below, hash_file, offered, write_noise};
use crate::valve::Valve;
use crate::world::{Mount, Share, World, is_mounted};
use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Of the content, in percent: what all lives may fetch together, with all that is said besides.
const MOST_PERCENT: u64 = 110;

/// A short story has too little content for its kills. There, each of a reader may also cost what comes in this time: that
/// which was not saved yet, and chunks of which a part has come.
const UNSAVED: Duration = Duration::from_millis(700);

/// How many kills come so soon after a start that it may not have been over, in percent.
const EARLY_PERCENT: u64 = 20;
/// How soon that is.
const EARLY: Duration = Duration::from_millis(400);

/// Small files that are read at once.
const AT_ONCE: usize = 8;

/// How long a download may take that is not held up, but slow.
const AT_LAST: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Plan {
    kills: u64,
    large_bytes: u64,
    small_files: u64,
    bytes_per_second: u64,
    seed: u64,
    is_short: bool,
}

impl Plan {
    /// What the environment asks for, and otherwise something short.
    fn new() -> Plan {
        let asked = |name: &str, otherwise: u64| match env::var(format!("FARSHORE_KILLS{name}")) {
            Ok(text) => text.parse().unwrap_or_else(|error| panic!("FARSHORE_KILLS{name}={text}: {error}")),
            Err(_) => otherwise,
        };
        let plan = Plan {
            kills: asked("", 8),
            large_bytes: asked("_LARGE_MIB", 48) << 20,
            small_files: asked("_SMALL_FILES", 200),
            bytes_per_second: asked("_KIB_PER_SECOND", 8192) << 10,
            seed: asked("_SEED", u64::from(std::process::id())),
            is_short: env::var_os("FARSHORE_KILLS").is_none(),
        };
        println!("{plan:?}");
        plan
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Owner,
    Reader,
}

/// A share that is being downloaded from, and how far the kills have come.
struct Story<'a> {
    world: &'a World,
    plan: Plan,
    folder: PathBuf,
    content_bytes: u64,
    share: Share,
    valve: Valve,
    chance: Chance,
    kills: u64,
    of_readers: u64,
    begun: Instant,
}

impl<'a> Story<'a> {
    fn begin(world: &'a World) -> Story<'a> {
        let plan = Plan::new();
        let folder = world.new_dir("folder");
        let mut chance = Chance::new(plan.seed);
        let large_bytes = plan.large_bytes + chance.below(1 << 20);
        write_noise(&folder.join("large"), plan.seed, usize::try_from(large_bytes).unwrap());
        fs::create_dir(folder.join("small")).unwrap();
        let mut content_bytes = large_bytes;
        for file in 0..plan.small_files {
            let size_bytes = chance.below(1 << 16);
            write_noise(&folder.join(format!("small/{file}")), file, usize::try_from(size_bytes).unwrap());
            content_bytes += size_bytes;
        }
        let share = world.share(&folder);
        let valve = Valve::slow(&share.address, plan.bytes_per_second);
        let begun = Instant::now();
        Story { world, plan, folder, content_bytes, share, valve, chance, kills: 0, of_readers: 0, begun }
    }

    fn ticket(&self) -> String {
        self.valve.ticket(&self.share.ticket)
    }

    /// Waits for the moment of the next kill. `None` when there are no more, or when the reader's work `is_over`.
    fn next_victim(&mut self, is_over: impl Fn() -> bool) -> Option<Victim> {
        let Plan { kills, .. } = self.plan;
        if self.kills == kills {
            return None;
        }
        if self.chance.below(100) < EARLY_PERCENT {
            thread::sleep(Duration::from_micros(self.chance.below(EARLY.as_micros() as u64)));
        } else {
            // All moments lie before the end, whatever is fetched twice.
            let part = self.content_bytes / (kills + 1);
            let moment = part * self.kills + self.chance.below(part);
            within(AT_LAST, "the next kill", || is_over() || self.valve.passed_bytes() >= moment);
        }
        if is_over() {
            return None;
        }
        self.kills += 1;
        let victim = if self.chance.below(2) == 0 { Victim::Owner } else { Victim::Reader };
        self.of_readers += u64::from(victim == Victim::Reader);
        Some(victim)
    }

    fn kill_owner(&mut self) {
        self.share.process.kill();
        self.share = self.world.share_at(&self.folder, &self.share.address, &[]);
    }

    /// Everything has been fetched: not much more than once.
    fn end(&self) {
        assert_eq!(self.kills, self.plan.kills, "it was over before all kills");
        let Story { kills, of_readers, content_bytes, begun, .. } = self;
        let passed_bytes = self.valve.passed_bytes();
        let percent = passed_bytes * 100 / content_bytes;
        let Plan { bytes_per_second, is_short, seed, .. } = self.plan;
        let unsaved_bytes =
            if is_short { of_readers * bytes_per_second * UNSAVED.as_millis() as u64 / 1000 } else { 0 };
        let most_bytes = content_bytes * MOST_PERCENT / 100 + unsaved_bytes;
        println!(
            "{kills} kills, {of_readers} of the reader, in {:.1} s: {passed_bytes} bytes fetched of {content_bytes}, {percent} %",
            begun.elapsed().as_secs_f32()
        );
        assert!(
            passed_bytes < most_bytes,
            "{passed_bytes} bytes were fetched, at most {most_bytes} may be; seed {seed}"
        );
    }
}

/// The lives of a mount, as its readers see them: an odd number while there is none.
#[derive(Default)]
struct Lives(AtomicU64);

impl Lives {
    fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn change(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until there is a mount. Returns in which life.
    fn wait(&self) -> u64 {
        within(2 * SOON, "there is a mount again", || self.count().is_multiple_of(2));
        self.count()
    }
}

/// Reads a file from its beginning to its end, as a program does that begins again where it stood when the mount is back.
/// Everything that it reads has to be right.
fn read_through(original: &Path, shown: &Path, lives: &Lives) {
    let original = File::open(original).unwrap();
    let size_bytes = original.metadata().unwrap().len();
    let (mut expected, mut bytes) = (vec![0; 128 * 1024], vec![0; 128 * 1024]);
    let mut at = 0;
    loop {
        let life = lives.wait();
        let error = match File::open(shown) {
            Ok(file) => loop {
                match file.read_at(&mut bytes, at) {
                    Ok(0) => {
                        assert_eq!(at, size_bytes, "{} has another end", shown.display());
                        return;
                    }
                    Ok(count) => {
                        original.read_exact_at(&mut expected[..count], at).unwrap();
                        assert!(bytes[..count] == expected[..count], "{} is wrong at {at}", shown.display());
                        at += count as u64;
                    }
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        assert_ne!(lives.count(), life, "{} at {at}, though its mount lives: {error}", shown.display());
    }
}

/// Reads everything: the large file, and beside that small ones, some at a time.
fn read_all(folder: &Path, root: &Path, small_files: u64, lives: &Lives) {
    let next = AtomicU64::new(0);
    let read_small_ones = || {
        while let Some(file) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|file| *file < small_files) {
            let name = format!("small/{file}");
            read_through(&folder.join(&name), &root.join(&name), lives);
        }
    };
    thread::scope(|scope| {
        (0..AT_ONCE).for_each(|_| drop(scope.spawn(read_small_ones)));
        read_through(&folder.join("large"), &root.join("large"), lives);
    });
}

#[test]
fn a_mount_is_killed_again_and_again() {
    let Some(world) = World::with_fuse() else { return };
    let mut story = Story::begin(&world);
    let (ticket, root, small_files) = (story.ticket(), world.path("mnt"), story.plan.small_files);
    let folder = story.folder.clone();
    let lives = Lives::default();
    let mount = thread::scope(|scope| {
        // If something goes wrong here, it goes down before the readers are waited for.
        let mut mount = world.mount_on(&root, &ticket, &[]);
        let story = &mut story;
        let reading = scope.spawn(|| read_all(&folder, &root, small_files, &lives));
        while let Some(victim) = story.next_victim(|| reading.is_finished()) {
            match victim {
                Victim::Owner => story.kill_owner(),
                Victim::Reader => {
                    lives.change();
                    mount.kill_and_leave();
                    mount = begin_again(story, &root, &ticket);
                    lives.change();
                }
            }
        }
        mount
    });
    assert_same(&folder, mount.root());
    mount.stop();
    story.end();

    let verified = world.run("reader", &["verify"]).went_well();
    assert!(verified.text().ends_with(", 0 are damaged, in 0 files\n"), "{}", verified.text());
    let empty = fs::read_dir(folder.join("small")).unwrap().filter(|file| size_bytes(file) == 0).count();
    // Of each file that is not empty its bytes and its sidecar, and the mark of a clean stop.
    assert_eq!(world.stored_files().len(), 2 * (1 + story.plan.small_files as usize - empty) + 1);
}

fn size_bytes(file: &io::Result<fs::DirEntry>) -> u64 {
    file.as_ref().unwrap().metadata().unwrap().len()
}

/// Mounts where a killed process has left its mount. It may be killed before it is ready, too.
fn begin_again(story: &mut Story<'_>, root: &Path, ticket: &str) -> Mount {
    loop {
        let mount = story.world.begin_to_mount_on(root, ticket, &[]);
        if story.kills == story.plan.kills || story.chance.below(100) >= EARLY_PERCENT {
            mount.wait_until_ready();
            assert!(is_mounted(root));
            return mount;
        }
        thread::sleep(Duration::from_micros(story.chance.below(EARLY.as_micros() as u64)));
        story.kills += 1;
        story.of_readers += 1;
        mount.kill_and_leave();
    }
}

#[test]
fn a_get_is_killed_again_and_again() {
    let world = World::new();
    let mut story = Story::begin(&world);
    let (ticket, folder, out) = (story.ticket(), story.folder.clone(), world.path("out"));
    let start = || Process::start(world.farshore("reader", &["get", &ticket, "-o", "out"]));
    let mut process = start();
    let mut right = BTreeSet::new();
    while let Some(victim) = story.next_victim(|| false) {
        match victim {
            Victim::Owner => story.kill_owner(),
            Victim::Reader => {
                process.kill();
                note_right(&folder, &out, &mut right);
                process = start();
            }
        }
    }
    process.end_within(AT_LAST).went_well();
    story.end();
    assert_eq!(below(&out), offered(&folder));
}

/// What stands under its own name is whole and right, also when nobody has tidied up.
fn note_right(folder: &Path, out: &Path, right: &mut BTreeSet<PathBuf>) {
    let small =
        fs::read_dir(folder.join("small")).unwrap().map(|entry| Path::new("small").join(entry.unwrap().file_name()));
    for path in small.chain([PathBuf::from("large")]) {
        if !right.contains(&path) && out.join(&path).exists() {
            assert_eq!(
                hash_file(&out.join(&path)).unwrap(),
                hash_file(&folder.join(&path)).unwrap(),
                "{}",
                path.display()
            );
            right.insert(path);
        }
    }
}
