//! The place to mount on: whether it is fit for that, and how to take a mount down.

use super::device;
use super::error::MountError;
use super::mountinfo::{self, Mount};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel lets connections be cut.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Takes down the Farshore mount on `path`, also if it is in use or its process is gone. Returns promptly; programs
/// that still have files of it open get errors.
///
/// # Errors
/// [`MountError::NotMounted`] and [`MountError::NotOurs`] if there is nothing to take down; otherwise what the system
/// says.
pub fn unmount(path: &Path) -> Result<(), MountError> {
    let path = resolve(path)?;
    match find(&path)? {
        None => Err(MountError::NotMounted(path)),
        Some(mount) if !mount.is_farshore() => Err(MountError::NotOurs { path, what: mount.kind }),
        Some(mount) => detach(&mount),
    }
}

/// Checks that `path` can be mounted on and returns it, absolute and without symlinks. A mount of ours whose process is
/// gone is taken down first.
pub fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    let path = resolve(path)?;
    if let Some(mount) = find(&path)? {
        if !is_stale(&path) {
            return Err(MountError::AlreadyMounted { path, what: mount.kind });
        }
        if !mount.is_farshore() {
            return Err(MountError::Stale { path, what: mount.kind });
        }
        tracing::info!(path = %path.display(), "took down what an earlier Farshore had left mounted here");
        detach(&mount)?;
        // Something else may stand below it.
        return prepare(&path);
    }
    check_directory(&path)?;
    Ok(path)
}

/// The mount on `path`, which is absolute and without symlinks.
pub(super) fn find(path: &Path) -> Result<Option<Mount>, MountError> {
    mountinfo::at(path).map_err(|error| system("find out what is mounted on", path, error))
}

/// Whether this very mount, and not another one in its place, is still in the mount table.
pub(super) fn is_up(mount: &Mount) -> Result<bool, MountError> {
    let seen = find(&mount.path)?;
    Ok(seen.is_some_and(|seen| (seen.id, seen.device) == (mount.id, mount.device)))
}

/// Takes `mount` out of the tree at once, whoever uses it, and ends its connection as far as this user may.
pub(super) fn detach(mount: &Mount) -> Result<(), MountError> {
    // Forced, so that calls that wait for an answer end now and do not keep the unmounting waiting.
    let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(&mount.path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => {
            let arguments = ["-u", "-z", "--"].map(OsStr::new);
            device::helper(&mount.path, &[&arguments[..], &[mount.path.as_os_str()]].concat())?;
            abort(mount);
            Ok(())
        }
        // Somebody else was faster.
        Err(_) if !is_up(mount)? => Ok(()),
        Err(error) => Err(system("unmount", &mount.path, error.into())),
    }
}

/// Cuts the connection of `mount`, so that whoever waits for it gets an error. Its owner may do so where the control
/// file system is mounted; otherwise the connection ends when the last file is closed.
fn abort(mount: &Mount) {
    let (_, minor) = mount.device;
    let control = Path::new(CONNECTIONS).join(minor.to_string()).join("abort");
    if let Err(error) = std::fs::write(&control, b"1") {
        tracing::debug!(%error, control = %control.display(), "the connection ends with its last open file");
    }
}

/// `path`, absolute and without symlinks. Works also if what is mounted there does not answer any more.
fn resolve(path: &Path) -> Result<PathBuf, MountError> {
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MountError::Missing(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(MountError::NotDirectory(path.to_owned())),
        Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
            let absolute = std::path::absolute(path).map_err(|error| system("find", path, error))?;
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => {
                    Ok(parent.canonicalize().map_err(|error| system("find", path, error))?.join(name))
                }
                _ => Err(system("find", path, error)),
            }
        }
        Err(error) => Err(system("find", path, error)),
    }
}

/// Whether the process behind the mount on `path` is gone. Asks for a fresh look: what the kernel remembers of a mount
/// outlives the process behind it.
pub(super) fn is_stale(path: &Path) -> bool {
    let fresh = AtFlags::STATX_FORCE_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    statx(CWD, path, fresh, StatxFlags::TYPE).is_err_and(|error| error == Errno::NOTCONN)
}

fn check_directory(path: &Path) -> Result<(), MountError> {
    let metadata = std::fs::metadata(path).map_err(|error| system("look at", path, error))?;
    if !metadata.is_dir() {
        return Err(MountError::NotDirectory(path.to_owned()));
    }
    let first = std::fs::read_dir(path).and_then(|mut entries| entries.next().transpose());
    match first.map_err(|error| system("look into", path, error))? {
        None => Ok(()),
        Some(entry) => {
            let example = entry.file_name().to_string_lossy().into_owned();
            Err(MountError::NotEmpty { path: path.to_owned(), example })
        }
    }
}

fn system(doing: &'static str, path: &Path, error: io::Error) -> MountError {
    MountError::System { doing, path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(prepare(&missing), Err(MountError::Missing(path)) if path == missing));
        let good = dir.path().join("good");
        std::fs::create_dir(&good).unwrap();
        assert_eq!(prepare(&good).unwrap(), good.canonicalize().unwrap());
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        assert!(matches!(prepare(&file), Err(MountError::NotDirectory(_))));
        std::fs::write(good.join("in the way"), b"x").unwrap();
        let error = prepare(&good).unwrap_err();
        assert!(matches!(&error, MountError::NotEmpty { example, .. } if example == "in the way"), "{error}");
    }

    #[test]
    fn symlinks_and_dots_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let found = prepare(&dir.path().join("real/../link/.")).unwrap();
        assert_eq!(found, real.canonicalize().unwrap());
    }

    #[test]
    fn what_is_mounted_already_is_named() {
        let error = prepare(Path::new("/proc")).unwrap_err();
        assert!(matches!(&error, MountError::AlreadyMounted { what, .. } if what == "proc"), "{error}");
    }

    #[test]
    fn only_our_own_mounts_are_taken_down() {
        assert!(matches!(unmount(Path::new("/proc")), Err(MountError::NotOurs { .. })));
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(unmount(dir.path()), Err(MountError::NotMounted(_))));
        assert!(matches!(unmount(&dir.path().join("none")), Err(MountError::Missing(_))));
    }
}
