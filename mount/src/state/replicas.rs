//! The folders in which this device has a share of somebody else's that it changes as well: one folder for each share, and
//! one process at a time.

use super::{State, StateError};
use crate::ticket::ShareId;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const REPLICAS_DIR: &str = "replicas";

/// The right to change a share from this device, until it is dropped. Its file holds where the share was kept last.
#[derive(Debug)]
pub struct Replica {
    path: PathBuf,
    file: File,
    folder: Option<PathBuf>,
}

impl State {
    /// Takes the right to change `share`.
    ///
    /// # Errors
    /// [`StateError::JoinedAlready`] if another process has it, otherwise what the disk says.
    pub fn replica(&self, share: ShareId) -> Result<Replica, StateError> {
        let dir = self.dir.join(REPLICAS_DIR);
        let path = dir.join(share.to_string());
        let failed = |source: io::Error| StateError::Write { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        let mut text = Vec::new();
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        file.read_to_end(&mut text).map_err(|source| StateError::Read { path: path.clone(), source })?;
        let folder = (!text.is_empty()).then(|| PathBuf::from(OsString::from_vec(text)));
        match locked {
            Ok(()) => Ok(Replica { path, file, folder }),
            Err(Errno::WOULDBLOCK) => Err(StateError::JoinedAlready { folder }),
            Err(error) => Err(failed(error.into())),
        }
    }
}

impl Replica {
    /// Where the share was kept last, if it was kept anywhere.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Writes down that it is kept in `folder`, an absolute path.
    ///
    /// # Errors
    /// What the disk says.
    pub fn keep_in(&mut self, folder: &Path) -> Result<(), StateError> {
        if self.folder.as_deref() == Some(folder) {
            return Ok(());
        }
        // In place, because the lock is on this very file; whoever reads half a path takes it for another folder.
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(folder.as_os_str().as_bytes())?;
            self.file.sync_all()
        };
        write().map_err(|source| StateError::Write { path: self.path.clone(), source })?;
        self.folder = Some(folder.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::new_share_id;

    #[test]
    fn one_at_a_time_changes_a_share_and_the_next_one_knows_where() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(Some(dir.path().join("state"))).unwrap();
        let (share, other) = (new_share_id(), new_share_id());
        let mut replica = state.replica(share).unwrap();
        assert_eq!(replica.folder(), None);
        for folder in ["/a/long/path", "/short"] {
            replica.keep_in(Path::new(folder)).unwrap();
        }
        assert!(state.replica(other).is_ok());
        let error = state.replica(share).unwrap_err();
        assert!(error.to_string().contains("/short"), "{error}");
        drop(replica);
        assert_eq!(state.replica(share).unwrap().folder(), Some(Path::new("/short")));
    }
}
