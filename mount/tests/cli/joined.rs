//! The mount of a share that was joined to be changed: a file system like any other, in which everything is that peers have.

use crate::process::eventually;
use crate::tree::{Chance, Sight, noise, walk, write_noise};
use crate::world::{Mount, Share, World, files_below, take_down};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The size of a file that is worth fetching, in bytes.
const LARGE_BYTES: usize = 3_000_000;

/// An owner who lets others write, and a guest who mounts the share to do so.
pub(crate) struct Joined {
    mount: Option<Mount>,
    share: Option<Share>,
    folder: PathBuf,
    store: PathBuf,
    pub(crate) world: World,
}

impl Joined {
    pub(crate) fn new(fill: impl FnOnce(&Path)) -> Option<Joined> {
        Joined::with("2", fill)
    }

    /// A read of the guest waits for so many seconds.
    fn with(patience: &str, fill: impl FnOnce(&Path)) -> Option<Joined> {
        let world = World::with_fuse()?;
        let (folder, store) = (world.new_dir("folder"), world.new_dir("store"));
        fill(&folder);
        let share = world.share_at(&folder, "127.0.0.1:0", &[]);
        let mount = world.join(&share, &["--read-timeout", patience, "--store", store.to_str().unwrap()]);
        Some(Joined { mount: Some(mount), share: Some(share), folder, store, world })
    }

    /// Kills the guest's process, and mounts again.
    pub(crate) fn kill_and_mount_again(&mut self, meanwhile: impl FnOnce()) {
        let mountpoint = self.root().to_owned();
        self.mount.take().unwrap().kill_and_leave();
        meanwhile();
        take_down(&mountpoint);
        let store = self.store.to_str().unwrap();
        self.mount = Some(self.world.join(self.share.as_ref().unwrap(), &["--read-timeout", "2", "--store", store]));
    }

    pub(crate) fn stop(mut self) {
        self.mount.take().unwrap().stop();
        self.share.take().unwrap().process.stop(Signal::INT).went_well();
    }

    pub(crate) fn root(&self) -> &Path {
        self.mount.as_ref().unwrap().root()
    }

    /// On the mount.
    pub(crate) fn here(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    /// In the owner's folder.
    pub(crate) fn theirs(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// In the folder that is mounted, without what peers have.
    fn ours(&self, below: &str) -> PathBuf {
        self.store.join(below)
    }

    /// The owner's folder and the mount come to be the same.
    #[track_caller]
    pub(crate) fn agree(&self) {
        eventually("the owner has what is on the mount", || {
            let (theirs, here) = (shared(&self.folder), shared(self.root()));
            match (theirs, here) {
                (Ok(theirs), Ok(here)) if theirs == here => Ok(()),
                (Ok(theirs), Ok(here)) => {
                    let differs = |path: &&PathBuf| theirs.get(*path) != here.get(*path);
                    let path = theirs.keys().chain(here.keys()).find(differs).unwrap();
                    Err(format!("{}: {:?}, {:?}", path.display(), theirs.get(path), here.get(path)))
                }
                (theirs, here) => Err(format!("{:?}, {:?}", theirs.err(), here.err())),
            }
        });
    }
}

/// What of a folder is shared. Every file that comes changes the time of its directory on the way.
fn shared(folder: &Path) -> io::Result<BTreeMap<PathBuf, Sight>> {
    let mut all = walk(folder)?;
    all.retain(|path, sight| {
        if let Sight::Dir { modified, .. } = sight {
            *modified = (0, 0);
        }
        !path.starts_with(".farshore")
    });
    Ok(all)
}

#[test]
fn what_is_done_on_the_mount_is_done_at_the_owners_too() {
    let fill = |folder: &Path| {
        fs::create_dir_all(folder.join("dir/inner")).unwrap();
        for (seed, name) in ["read", "edited", "dir/moved", "dir/inner/deep", "removed", "cut"].into_iter().enumerate()
        {
            write_noise(&folder.join(name), seed as u64, LARGE_BYTES);
        }
    };
    let Some(joined) = Joined::new(fill) else { return };
    assert!(fs::read(joined.here("read")).unwrap() == noise(0, LARGE_BYTES));
    let edited = OpenOptions::new().write(true).open(joined.here("edited")).unwrap();
    edited.write_all_at(b"edited", 1_000_000).unwrap();
    drop(edited);
    fs::rename(joined.here("dir"), joined.here("renamed")).unwrap();
    fs::rename(joined.here("renamed/moved"), joined.here("moved")).unwrap();
    fs::remove_file(joined.here("removed")).unwrap();
    fs::write(joined.here("cut"), "anew").unwrap();
    fs::set_permissions(joined.here("renamed/inner/deep"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::create_dir(joined.here("new dir")).unwrap();
    write_noise(&joined.here("new dir/new"), 9, LARGE_BYTES);
    symlink("new", joined.here("new dir/link")).unwrap();
    eventually("the owner has what was made last", || fs::read_link(joined.theirs("new dir/link")).is_ok());
    joined.agree();
    let mut expected = noise(1, LARGE_BYTES);
    expected[1_000_000..1_000_006].copy_from_slice(b"edited");
    assert!(fs::read(joined.theirs("edited")).unwrap() == expected);
    assert!(fs::read(joined.theirs("renamed/inner/deep")).unwrap() == noise(3, LARGE_BYTES));
    assert_eq!(fs::metadata(joined.theirs("renamed/inner/deep")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(joined.theirs("cut")).unwrap(), "anew");
    joined.stop();
}

#[test]
fn what_is_away_is_changed_without_being_fetched_while_the_owner_is_away() {
    let fill = |folder: &Path| {
        fs::create_dir(folder.join("dir")).unwrap();
        for name in ["read", "removed", "moved", "cut", "mode", "dir/inner"] {
            write_noise(&folder.join(name), 1, LARGE_BYTES);
        }
    };
    let Some(joined) = Joined::new(fill) else { return };
    let owner = joined.share.as_ref().unwrap();
    owner.process.signal(Signal::STOP);
    let code = |result: io::Result<()>| result.unwrap_err().raw_os_error();
    assert_eq!(code(fs::read(joined.here("read")).map(drop)), Some(libc::EIO));
    let mut append = OpenOptions::new().append(true).open(joined.here("read")).unwrap();
    assert_eq!(code(append.write_all(b"more")), Some(libc::EIO));
    fs::remove_file(joined.here("removed")).unwrap();
    fs::rename(joined.here("moved"), joined.here("dir/moved")).unwrap();
    fs::rename(joined.here("dir"), joined.here("renamed")).unwrap();
    fs::write(joined.here("cut"), "anew").unwrap();
    fs::set_permissions(joined.here("mode"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(joined.here("new"), "new").unwrap();
    let names = |dir: PathBuf| {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(joined.root().to_owned()), ["cut", "mode", "new", "read", "renamed"]);
    assert_eq!(names(joined.here("renamed")), ["inner", "moved"]);
    let here: Vec<_> =
        files_below(&joined.store).into_iter().filter(|path| !path.starts_with(joined.ours(".farshore"))).collect();
    assert_eq!(here.len(), 2, "{here:?}");
    owner.process.signal(Signal::CONT);
    eventually("the owner hears of it", || {
        let seen = fs::metadata(joined.theirs("mode")).unwrap();
        joined.theirs("new").exists() && joined.theirs("renamed/moved").exists() && seen.mode() & 0o777 == 0o600
    });
    joined.agree();
    assert!(fs::read(joined.theirs("renamed/moved")).unwrap() == noise(1, LARGE_BYTES));
    assert_eq!(names(joined.here("")), ["cut", "mode", "new", "read", "renamed"]);
    joined.stop();
}

#[test]
fn all_is_there_from_the_beginning() {
    const DIRS: usize = 1_000;
    let dir = |number: usize| format!("dir{}/dir{number}", number % 10);
    let Some(joined) = Joined::new(|folder| {
        for number in 0..DIRS {
            fs::create_dir_all(folder.join(dir(number))).unwrap();
            fs::write(folder.join(dir(number)).join("file"), "text").unwrap();
        }
    }) else {
        return;
    };
    for number in (0..DIRS).rev() {
        assert_eq!(fs::metadata(joined.here(&dir(number)).join("file")).unwrap().len(), 4);
    }
    joined.stop();
}

#[test]
fn what_the_owner_does_shows_on_the_mount() {
    let Some(joined) = Joined::new(|folder| {
        fs::create_dir(folder.join("dir")).unwrap();
        fs::write(folder.join("dir/edited"), "before").unwrap();
        fs::write(folder.join("removed"), "removed").unwrap();
    }) else {
        return;
    };
    let text = |name: &str| fs::read_to_string(joined.here(name)).ok();
    assert_eq!((text("new"), text("removed")), (None, Some("removed".to_owned())));
    assert_eq!(text("dir/edited").unwrap(), "before");
    let open = File::open(joined.here("dir/edited")).unwrap();
    fs::write(joined.theirs("new"), "new").unwrap();
    fs::write(joined.theirs("dir/edited"), "after that").unwrap();
    fs::remove_file(joined.theirs("removed")).unwrap();
    eventually("what is new shows", || text("new").is_some_and(|text| text == "new"));
    eventually("the edit shows", || text("dir/edited").is_some_and(|text| text == "after that"));
    eventually("what is gone goes", || text("removed").is_none());
    fs::rename(joined.theirs("dir"), joined.theirs("other")).unwrap();
    eventually("the new name shows", || text("other/edited").is_some_and(|text| text == "after that"));
    joined.agree();
    drop(open);
    joined.stop();
}

#[test]
fn a_file_on_its_way_is_read_and_written_as_any_other() {
    let Some(joined) = Joined::new(|folder| drop(write_noise(&folder.join("file"), 7, LARGE_BYTES))) else { return };
    let (path, mut expected, mut chance) = (joined.here("file"), noise(7, LARGE_BYTES), Chance::new(7));
    // Open from the beginning on, while it is away.
    let reader = File::open(&path).unwrap();
    for step in 0..400 {
        let offset = chance.below(LARGE_BYTES as u64);
        let len = chance.below(70_000) as usize;
        let end = |expected: &[u8]| (offset as usize + len).min(expected.len());
        match chance.below(if step < 40 { 1 } else { 4 }) {
            0..2 => {
                let mut read = vec![0; len];
                let mut done = 0;
                while let got @ 1.. = reader.read_at(&mut read[done..], offset + done as u64).unwrap() {
                    done += got;
                }
                assert!(read[..done] == expected[(offset as usize).min(expected.len())..end(&expected)], "step {step}");
            }
            2 => {
                let bytes = noise(step, len);
                OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&bytes, offset).unwrap();
                expected.resize(expected.len().max(offset as usize + len), 0);
                expected[offset as usize..offset as usize + len].copy_from_slice(&bytes);
            }
            _ => {
                OpenOptions::new().write(true).open(&path).unwrap().set_len(offset).unwrap();
                expected.resize(offset as usize, 0);
            }
        }
        assert_eq!(reader.metadata().unwrap().len(), expected.len() as u64, "step {step}");
    }
    eventually("the owner has it too", || fs::read(joined.theirs("file")).is_ok_and(|bytes| bytes == expected));
    joined.stop();
}

#[test]
fn a_mount_ends_although_somebody_waits_to_write() {
    let fill = |folder: &Path| drop(write_noise(&folder.join("file"), 1, LARGE_BYTES));
    let Some(mut joined) = Joined::with("600", fill) else { return };
    joined.share.as_ref().unwrap().process.signal(Signal::STOP);
    let path = joined.here("file");
    let writer = std::thread::spawn(move || OpenOptions::new().append(true).open(path)?.write_all(b"more"));
    eventually("somebody waits", || {
        let said = joined.world.run("reader", &["status", "--json"]).went_well();
        said.text().replace(' ', "").contains("\"waiters\":1")
    });
    joined.mount.take().unwrap().stop();
    assert!(writer.join().unwrap().is_err());
    joined.share.as_ref().unwrap().process.signal(Signal::CONT);
    joined.share.take().unwrap().process.stop(Signal::INT).went_well();
}

/// The names that there are, and how deep they lie.
const NAMES: u64 = 6;
const DEPTH: u64 = 2;

fn somewhere(root: &Path, chance: &mut Chance) -> PathBuf {
    let mut path = root.to_owned();
    for _ in 0..=chance.below(DEPTH) {
        path.push(format!("n{}", chance.below(NAMES)));
    }
    path
}

/// Does something. It may well fail: there may be nothing there, or something else, or somebody is faster.
pub(crate) fn step(root: &Path, chance: &mut Chance) -> io::Result<()> {
    let path = somewhere(root, chance);
    match chance.below(12) {
        0..3 => {
            let bytes = vec![b'x'; chance.below(900_000) as usize];
            OpenOptions::new().append(true).create(true).open(path)?.write_all(&bytes)
        }
        3 => fs::create_dir(path),
        4..6 => {
            let to = root.join(format!("n{}", chance.below(NAMES)));
            fs::rename(path, to)
        }
        6 => fs::remove_file(path),
        7 => fs::remove_dir(path),
        8 => symlink("target", path),
        9 => OpenOptions::new().write(true).open(path)?.set_len(chance.below(9_000)),
        10 => fs::read(path).map(drop),
        _ => fs::read_dir(path)?.try_for_each(|entry| entry?.metadata().map(drop)),
    }
}

#[test]
fn whatever_both_do_in_the_end_they_have_the_same() {
    let Some(joined) = Joined::new(|_| {}) else { return };
    std::thread::scope(|scope| {
        for (seed, root) in [(1, joined.root()), (2, joined.root()), (3, &joined.folder)] {
            scope.spawn(move || {
                let mut chance = Chance::new(seed);
                let done = (0..150).filter(|_| step(root, &mut chance).is_ok()).count();
                assert!(done > 10, "{done} steps went well");
            });
        }
    });
    // Path by path, as the kernel remembers them: a listing would bring it up to date.
    let names: Vec<String> = (0..NAMES).map(|name| format!("n{name}")).collect();
    let inner = names.iter().flat_map(|dir| names.iter().map(move |name| format!("{dir}/{name}")));
    let glance =
        |path: PathBuf| fs::symlink_metadata(path).map(|seen| (seen.mode(), seen.is_file().then_some(seen.len()))).ok();
    for path in inner.chain(names.clone()) {
        eventually("the kernel knows of it", || match (glance(joined.here(&path)), glance(joined.theirs(&path))) {
            (here, theirs) if here == theirs => Ok(()),
            (here, theirs) => Err(format!("{path}: {here:?}, {theirs:?}")),
        });
    }
    joined.agree();
    joined.stop();
}
