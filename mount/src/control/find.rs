//! Which share or mount a path on the command line belongs to, and which path inside it that is.
//!
//! A mount whose owner is gone, or whose process hangs, may keep whoever looks at it waiting. So nothing inside of a
//! mount is looked at, nor the mountpoint itself: the path is followed name by name, symlinks and `..` included, only
//! until it meets a mountpoint. From there on it is taken as it stands.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// As the kernel has it.
const SYMLINKS_MAX: usize = 40;

/// A path, as seen from what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The mountpoint or the folder: one of those that were asked about.
    pub root: PathBuf,
    /// The path inside of it; empty if it is `root` itself.
    pub inside: PathBuf,
}

/// Why a path belongs to nothing.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// It lies elsewhere.
    #[error("{} is in none of them", .0.display())]
    Elsewhere(PathBuf),
    /// Where `..` leads inside of a mount depends on what is a symlink there, which is not looked at.
    #[error("cannot tell what `..` means in {}; name the path without it", .0.display())]
    DotDot(PathBuf),
    /// It cannot be followed.
    #[error("cannot find {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The mount among `mountpoints` that `path` lies in. They are absolute and without symlinks, and neither they nor what
/// is in them is touched.
///
/// # Errors
/// It is in none of them, or cannot be followed up to there.
pub fn mounted_path(path: &Path, mountpoints: &[PathBuf]) -> Result<Found, FindError> {
    match follow(path, mountpoints)? {
        (reached, Some(inside)) => Ok(Found { root: reached, inside }),
        (_, None) => Err(FindError::Elsewhere(path.to_owned())),
    }
}

/// The folder among `folders` that `path` lies in, the innermost if several do. They are absolute and without symlinks.
/// If the path itself is a symlink, that symlink is meant. Nothing inside of `mountpoints` is looked at.
///
/// # Errors
/// It is in none of them, or cannot be followed.
pub fn shared_path(path: &Path, folders: &[PathBuf], mountpoints: &[PathBuf]) -> Result<Found, FindError> {
    let elsewhere = || FindError::Elsewhere(path.to_owned());
    let (reached, None) = follow(path, mountpoints)? else { return Err(elsewhere()) };
    let around = folders.iter().filter(|folder| reached.starts_with(folder));
    let root = around.max_by_key(|folder| folder.components().count()).ok_or_else(elsewhere)?;
    let inside = reached.strip_prefix(root).map_err(|_| elsewhere())?.to_owned();
    Ok(Found { root: root.clone(), inside })
}

/// Follows a path to its end, or into the first of `mountpoints` that it meets: then the rest of it is returned, too.
/// Names that are not there are taken as they stand.
fn follow(path: &Path, mountpoints: &[PathBuf]) -> Result<(PathBuf, Option<PathBuf>), FindError> {
    let failed = |source| FindError::Io { path: path.to_owned(), source };
    let mut left = match path.is_absolute() {
        true => names(path),
        false => names_from(std::env::current_dir().map_err(failed)?, path),
    };
    let mut reached = PathBuf::from("/");
    let mut symlinks = 0;
    let mut is_missing = false;
    loop {
        // What is above a mountpoint does not depend on what is mounted.
        if mountpoints.contains(&reached) && left.front().is_none_or(|name| name != "..") {
            if left.iter().any(|name| name == "..") {
                return Err(FindError::DotDot(path.to_owned()));
            }
            return Ok((reached, Some(left.into_iter().collect())));
        }
        let Some(name) = left.pop_front() else { return Ok((reached, None)) };
        if name == ".." {
            if is_missing {
                return Err(failed(io::ErrorKind::NotFound.into()));
            }
            reached.pop();
            continue;
        }
        let next = reached.join(&name);
        // The end of the path is meant itself, whatever it is; and a mountpoint is not to be looked at.
        if left.is_empty() || is_missing || mountpoints.contains(&next) {
            reached = next;
            continue;
        }
        match fs::symlink_metadata(&next) {
            Ok(meta) if meta.is_symlink() => {
                symlinks += 1;
                if symlinks > SYMLINKS_MAX {
                    return Err(failed(rustix::io::Errno::LOOP.into()));
                }
                let target = fs::read_link(&next).map_err(failed)?;
                if target.is_absolute() {
                    reached = PathBuf::from("/");
                }
                let mut longer = names(&target);
                longer.append(&mut left);
                left = longer;
            }
            Ok(_) => reached = next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                is_missing = true;
                reached = next;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// The names of a path that is relative to `around`. That is the kernel's own answer and without symlinks, so that a `..`
/// takes its last name off, also inside of a mount.
fn names_from(mut around: PathBuf, path: &Path) -> VecDeque<OsString> {
    let mut left = names(path);
    while left.front().is_some_and(|name| name == "..") {
        left.pop_front();
        around.pop();
    }
    let mut whole = names(&around);
    whole.append(&mut left);
    whole
}

/// The names of a path in order, `..` among them.
fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// `real/mnt` is the mountpoint, `real/folder` the folder; `link` leads to `real`.
    struct Place {
        dir: tempfile::TempDir,
        mounts: Vec<PathBuf>,
        folders: Vec<PathBuf>,
    }

    impl Place {
        fn new() -> Place {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().canonicalize().unwrap();
            fs::create_dir_all(root.join("real/mnt")).unwrap();
            fs::create_dir_all(root.join("real/folder/sub")).unwrap();
            symlink("real", root.join("link")).unwrap();
            symlink(root.join("link/mnt"), root.join("to mount")).unwrap();
            symlink("sub", root.join("real/folder/to sub")).unwrap();
            let (mounts, folders) = (vec![root.join("real/mnt")], vec![root.join("real"), root.join("real/folder")]);
            Place { dir, mounts, folders }
        }

        fn path(&self, below: &str) -> PathBuf {
            self.dir.path().join(below)
        }

        fn mounted(&self, below: &str) -> Result<PathBuf, FindError> {
            mounted_path(&self.path(below), &self.mounts).map(|found| {
                assert_eq!(found.root, self.mounts[0]);
                found.inside
            })
        }

        fn shared(&self, below: &str) -> Result<PathBuf, FindError> {
            shared_path(&self.path(below), &self.folders, &self.mounts).map(|found| {
                assert_eq!(found.root, self.folders[1], "the innermost");
                found.inside
            })
        }
    }

    #[test]
    fn a_mount_is_found_by_every_way_that_leads_to_it() {
        let place = Place::new();
        for (way, inside) in [
            ("real/mnt", ""),
            ("real/mnt/a/b", "a/b"),
            ("link/mnt/a", "a"),
            ("to mount/a", "a"),
            ("real/mnt/../../link/mnt/a", "a"),
            ("real/folder/../mnt/./a//b", "a/b"),
            ("real/folder/to sub/../../mnt/a", "a"),
        ] {
            assert_eq!(place.mounted(way).unwrap(), Path::new(inside), "{way}");
        }
        assert!(matches!(place.mounted("real/folder"), Err(FindError::Elsewhere(_))));
        assert!(matches!(place.mounted("real/mnt2/a"), Err(FindError::Elsewhere(_))), "not by its letters");
        assert!(matches!(place.mounted("real/mnt/a/../b"), Err(FindError::DotDot(_))));
        assert!(matches!(place.mounted("real/none/../mnt/a"), Err(FindError::Io { .. })));
    }

    #[test]
    fn nothing_in_a_mount_is_looked_at() {
        let place = Place::new();
        // What looks like a symlink in the mount leads nowhere, because it is not followed.
        symlink("/", place.mounts[0].join("trap")).unwrap();
        assert_eq!(place.mounted("real/mnt/trap/etc").unwrap(), Path::new("trap/etc"));
        assert!(matches!(place.shared("real/mnt/trap/etc"), Err(FindError::Elsewhere(_))));
    }

    #[test]
    fn the_mountpoint_itself_is_not_looked_at() {
        let place = Place::new();
        // Who looked would see a symlink, and follow it.
        let hung = place.dir.path().canonicalize().unwrap().join("hung");
        symlink("real", &hung).unwrap();
        let found = mounted_path(&place.path("real/../hung/a"), std::slice::from_ref(&hung)).unwrap();
        assert_eq!(found, Found { root: hung, inside: "a".into() });
    }

    #[test]
    fn a_path_in_a_folder_is_found_also_when_it_is_gone() {
        let place = Place::new();
        assert_eq!(place.shared("link/folder/to sub/file").unwrap(), Path::new("sub/file"));
        assert_eq!(place.shared("real/folder/to sub").unwrap(), Path::new("to sub"), "the symlink itself is meant");
        assert_eq!(place.shared("real/folder/gone/for/long").unwrap(), Path::new("gone/for/long"));
        assert!(matches!(place.shared("elsewhere"), Err(FindError::Elsewhere(_))));
    }

    #[test]
    fn a_relative_path_begins_where_one_stands() {
        let names = |path: &str| names_from("/a/b".into(), Path::new(path)).into_iter().collect::<PathBuf>();
        assert_eq!(names("c/d"), Path::new("a/b/c/d"));
        assert_eq!(names("./../../c"), Path::new("c"));
        assert_eq!(names("../c/.."), Path::new("a/c/.."), "what c is, is not known here");
    }

    #[test]
    fn symlinks_in_a_circle_end() {
        let place = Place::new();
        symlink("circle", place.path("circle")).unwrap();
        assert!(matches!(place.mounted("circle/a"), Err(FindError::Io { .. })));
    }
}
