//! What of the shared folders is not offered: by path, remembered with each share.
//!
//! A change here is for the next start of `farshore share`; one that runs is told by [`crate::sharing::Sharing::reload_unshared`].

use super::{ShareEntry, State, StateError};
use crate::ticket::ShareId;
use farshore_engine::path::RelPath;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The most paths of one share that are not offered.
pub const UNSHARED_MAX: usize = 4096;

/// A path, as it lies in a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InShare {
    /// Which share.
    pub share: ShareId,
    /// Its folder.
    pub folder: PathBuf,
    /// Where in it; never the root.
    pub path: RelPath,
}

impl State {
    /// Does not offer `path`, a file or a directory with all that is below it, in any share whose folder holds it. It
    /// need not exist. Returns where it lies; in each of these it is not offered from the next start on.
    ///
    /// # Errors
    /// No shared folder holds it, it is a shared folder itself, too many paths are left out already, or the list of
    /// shares cannot be read or written.
    pub fn unshare(&self, path: &Path) -> Result<Vec<InShare>, StateError> {
        self.change_unshared(path, |entry, inside| {
            if entry.unshared.len() >= UNSHARED_MAX && !entry.unshared.contains(inside) {
                return Err(StateError::TooManyUnshared { path: entry.path.clone() });
            }
            entry.unshared.insert(inside.clone());
            Ok(())
        })
    }

    /// Takes back [`State::unshare`] of this very path.
    ///
    /// # Errors
    /// As for that, and: the path was not left out by itself, though perhaps with a directory above it.
    pub fn share_again(&self, path: &Path) -> Result<Vec<InShare>, StateError> {
        self.change_unshared(path, |entry, inside| {
            if entry.unshared.remove(inside) {
                return Ok(());
            }
            let above = entry.unshared.iter().find(|above| above.is_prefix_of(inside));
            let above = above.map(|above| entry.path.join(native(above)));
            Err(StateError::NotUnshared { path: path.to_owned(), above })
        })
    }

    /// What of a share is not offered.
    ///
    /// # Errors
    /// There is no such share, or the list cannot be read.
    pub fn unshared_of(&self, share: ShareId) -> Result<BTreeSet<RelPath>, StateError> {
        let entry = self.shares()?.into_iter().find(|entry| entry.share == share);
        entry.map(|entry| entry.unshared).ok_or(StateError::UnknownShare(share))
    }

    fn change_unshared(
        &self,
        path: &Path,
        mut change: impl FnMut(&mut ShareEntry, &RelPath) -> Result<(), StateError>,
    ) -> Result<Vec<InShare>, StateError> {
        let real = real_path(path).map_err(|source| StateError::Path { path: path.to_owned(), source })?;
        self.update(|shares| {
            let mut found = Vec::new();
            for entry in shares {
                let Ok(inside) = real.strip_prefix(&entry.path) else { continue };
                let inside = RelPath::parse(inside.as_os_str().as_bytes())
                    .map_err(|error| StateError::Path { path: path.to_owned(), source: io::Error::other(error) })?;
                if inside.is_root() {
                    return Err(StateError::WholeShare { path: entry.path.clone() });
                }
                change(entry, &inside)?;
                found.push(InShare { share: entry.share, folder: entry.path.clone(), path: inside });
            }
            if found.is_empty() { Err(StateError::NoShareHolds { path: real.clone() }) } else { Ok(found) }
        })
    }
}

/// Where `path` is, without symlinks on the way to it. It may be a symlink itself, and need not exist, nor its parents.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        // It ends in `..`, or is the root of the file system.
        return absolute.canonicalize();
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(real_path(parent)?.join(name)),
        Err(error) => Err(error),
    }
}

fn native(path: &RelPath) -> PathBuf {
    std::ffi::OsStr::from_bytes(&path.to_bytes()).into()
}
