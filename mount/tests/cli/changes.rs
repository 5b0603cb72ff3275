//! What is done to the shared folder shows on the mount, also where the kernel had remembered what was before.

use crate::process::within;
use crate::tree::{assert_same, difference, noise, set_mode, set_modified, write_noise};
use crate::world::{Mount, Share, World};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a change may take to show.
const NOTICED: Duration = Duration::from_secs(5);

/// A folder that is mounted, with a few things in it.
struct Stage {
    folder: PathBuf,
    mount: Mount,
    _share: Share,
    _world: World,
}

fn stage() -> Option<Stage> {
    let world = World::with_fuse()?;
    let folder = world.new_dir("folder");
    fs::create_dir_all(folder.join("dir/inner")).unwrap();
    fs::write(folder.join("text"), "before").unwrap();
    fs::write(folder.join("dir/inner/leaf"), "leaf").unwrap();
    write_noise(&folder.join("large"), 1, 3_000_000);
    symlink("text", folder.join("link")).unwrap();
    let share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    // Everything has been looked at and read, so the kernel remembers all of it.
    assert_same(&folder, mount.root());
    Some(Stage { folder, mount, _share: share, _world: world })
}

impl Stage {
    fn here(&self, below: &str) -> PathBuf {
        self.mount.path(below)
    }

    fn there(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// Waits until a file on the mount holds exactly these bytes.
    #[track_caller]
    fn shows(&self, below: &str, bytes: &[u8]) {
        let path = self.here(below);
        within(NOTICED, &format!("{below} shows its new content"), || fs::read(&path).is_ok_and(|now| now == bytes));
    }

    #[track_caller]
    fn waits(&self, what: &str, condition: impl FnMut() -> bool) {
        within(NOTICED, what, condition);
    }

    /// In the end all is the same, and nothing was left over on the way.
    fn end(self) {
        assert_same(&self.folder, self.mount.root());
        self.mount.stop();
    }
}

fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

#[test]
fn new_entries_show_also_where_their_absence_was_seen() {
    let Some(stage) = stage() else { return };
    let news = ["new", "new link", "made"].map(|name| stage.here(name));
    assert!(news.iter().all(|path| is_gone(path)));
    fs::write(stage.there("new"), "fresh").unwrap();
    symlink("nowhere", stage.there("new link")).unwrap();
    fs::create_dir_all(stage.there("made/with/parents")).unwrap();
    write_noise(&stage.there("made/with/parents/large"), 2, 1_500_000);
    fs::write(stage.there("made/with/empty"), "").unwrap();
    stage.shows("new", b"fresh");
    stage.shows("made/with/parents/large", &noise(2, 1_500_000));
    stage.waits("the link shows", || fs::read_link(&news[1]).is_ok_and(|target| target == Path::new("nowhere")));
    // The listing was cached, too.
    stage.waits("the listing is new", || fs::read_dir(stage.mount.root()).unwrap().count() == 7);
    stage.end();
}

#[test]
fn edits_show_also_in_what_was_read_before() {
    let Some(stage) = stage() else { return };
    let mut reader = File::open(stage.here("text")).unwrap();
    fs::write(stage.there("text"), "after!").unwrap();
    stage.shows("text", b"after!");
    fs::write(stage.there("text"), "much longer than it was before").unwrap();
    stage.shows("text", b"much longer than it was before");
    fs::write(stage.there("text"), "short").unwrap();
    stage.shows("text", b"short");
    fs::write(stage.there("text"), "").unwrap();
    stage.shows("text", b"");
    // Who has held the file open all the time reads one version or an error, not a mixture.
    let mut seen = Vec::new();
    if reader.read_to_end(&mut seen).is_ok() {
        let versions = ["before", "after!", "much longer than it was before", "short", ""];
        assert!(versions.iter().any(|version| version.as_bytes() == seen), "{:?}", String::from_utf8_lossy(&seen));
    }
    stage.end();
}

#[test]
fn a_change_in_the_middle_and_an_append_show_in_a_large_file() {
    let Some(stage) = stage() else { return };
    let mut expected = noise(1, 3_000_000);
    let mut file = File::options().write(true).open(stage.there("large")).unwrap();
    file.seek(SeekFrom::Start(1_700_000)).unwrap();
    file.write_all(b"changed in place").unwrap();
    expected[1_700_000..1_700_016].copy_from_slice(b"changed in place");
    stage.shows("large", &expected);
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(&noise(3, 700_000)).unwrap();
    expected.extend(noise(3, 700_000));
    stage.shows("large", &expected);
    file.set_len(100).unwrap();
    expected.truncate(100);
    stage.shows("large", &expected);
    stage.end();
}

#[test]
fn renames_show_and_what_was_renamed_over_is_gone() {
    let Some(stage) = stage() else { return };
    let ino = fs::metadata(stage.here("dir/inner/leaf")).unwrap().ino();
    fs::rename(stage.there("text"), stage.there("renamed")).unwrap();
    stage.shows("renamed", b"before");
    stage.waits("the old name is gone", || is_gone(&stage.here("text")));
    fs::rename(stage.there("dir"), stage.there("moved")).unwrap();
    stage.shows("moved/inner/leaf", b"leaf");
    stage.waits("the old directory is gone", || is_gone(&stage.here("dir")));
    assert_eq!(fs::metadata(stage.here("moved/inner/leaf")).unwrap().ino(), ino, "it is the same file");
    // As editors save: a new file over the old name.
    fs::write(stage.there("renamed.new"), "saved!").unwrap();
    fs::rename(stage.there("renamed.new"), stage.there("renamed")).unwrap();
    stage.shows("renamed", b"saved!");
    stage.waits("the temporary name is gone", || is_gone(&stage.here("renamed.new")));
    fs::rename(stage.there("moved/inner/leaf"), stage.there("renamed")).unwrap();
    stage.shows("renamed", b"leaf");
    stage.waits("the listing is new", || fs::read_dir(stage.here("moved/inner")).unwrap().count() == 0);
    stage.end();
}

#[test]
fn removals_show_and_a_name_may_become_something_else() {
    let Some(stage) = stage() else { return };
    fs::remove_dir_all(stage.there("dir")).unwrap();
    fs::remove_file(stage.there("link")).unwrap();
    fs::remove_file(stage.there("text")).unwrap();
    stage.waits("all is gone", || ["dir", "link", "text"].iter().all(|name| is_gone(&stage.here(name))));
    stage.waits("the listing is new", || fs::read_dir(stage.mount.root()).unwrap().count() == 1);
    fs::create_dir(stage.there("text")).unwrap();
    fs::write(stage.there("dir"), "now a file").unwrap();
    stage.waits("a directory where a file was", || stage.here("text").is_dir());
    stage.shows("dir", b"now a file");
    stage.end();
}

#[test]
fn modes_and_times_show() {
    let Some(stage) = stage() else { return };
    set_mode(&stage.there("text"), 0o751);
    set_mode(&stage.there("dir"), 0o711);
    stage.waits("the modes show", || {
        let mode = |name: &str| fs::metadata(stage.here(name)).unwrap().mode() & 0o777;
        (mode("text"), mode("dir")) == (0o751, 0o711)
    });
    set_modified(&stage.there("text"), 1_111_111_111, 222_222_222);
    set_modified(&stage.there("link"), 1_333_333_333, 444_444_444);
    stage.waits("the times show", || {
        let time = |name: &str| fs::symlink_metadata(stage.here(name)).map(|meta| (meta.mtime(), meta.mtime_nsec()));
        time("text").unwrap() == (1_111_111_111, 222_222_222) && time("link").unwrap() == (1_333_333_333, 444_444_444)
    });
    stage.end();
}

#[test]
fn a_storm_of_changes_ends_in_the_same_tree() {
    let Some(stage) = stage() else { return };
    for round in 0..200_u64 {
        let (dir, file) = (stage.there(&format!("storm {}", round % 7)), format!("{}", round % 11));
        fs::create_dir_all(&dir).unwrap();
        match round % 5 {
            0 => {
                fs::rename(&dir, stage.there(&format!("storm {}", 7 + round % 3))).or(fs::remove_dir_all(&dir)).unwrap()
            }
            1 | 2 => fs::write(dir.join(file), noise(round, (round * 991) as usize)).unwrap(),
            3 => symlink(file, dir.join(format!("link {round}"))).unwrap(),
            _ => fs::remove_dir_all(&dir).unwrap(),
        }
    }
    fs::write(stage.there("the end"), "of the storm").unwrap();
    stage.shows("the end", b"of the storm");
    within(NOTICED, "the trees are the same", || match difference(&stage.folder, stage.mount.root()) {
        Ok(None) => Ok(()),
        Ok(Some(difference)) => Err(difference),
        Err(error) => Err(error.to_string()),
    });
    stage.end();
}
