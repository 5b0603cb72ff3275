//! The state directory: who this device is, which folders it shares, and which devices may have them.
//!
//! Several processes use one state directory at the same time: one shares, others mount. So nothing is remembered in
//! memory: every question reads the file (`shares.json`, see `state/file.rs`), and every change is read, made and
//! written under an advisory lock. A change that another process made counts from the next question on.
//!
//! Everything here waits for the disk, and changes wait for the lock: call it where blocking is allowed.

mod file;
mod members;
mod replicas;
mod unshared;

pub use members::Acquaintance;
pub use replicas::Replica;
pub use unshared::{InShare, UNSHARED_MAX};

use crate::identity::{Identity, IdentityError};
use crate::ticket::{Secret, ShareId, is_secret, new_secret, new_share_id};
use farshore_engine::PeerId;
use farshore_engine::path::RelPath;
use farshore_proto::Members;
use rustix::fs::FlockOperation;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The most devices that are remembered for one share, so that one ticket in wrong hands cannot fill the disk.
pub const DEVICES_MAX: usize = 1024;

const SHARES_FILE: &str = "shares.json";
const LOCK_FILE: &str = "shares.lock";

/// A state directory that is there and usable. Holds no file open.
#[derive(Debug, Clone)]
pub struct State {
    dir: PathBuf,
}

/// A folder that this device shares, or has shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareEntry {
    /// The folder: absolute, without symlinks.
    pub path: PathBuf,
    /// Its id, which stays.
    pub share: ShareId,
    /// What the current tickets carry.
    pub secret: Secret,
    /// The devices that have joined, at most [`DEVICES_MAX`], and when each first came in: seconds since 1970, `None` if
    /// that was not written down.
    pub devices: BTreeMap<PeerId, Option<u64>>,
    /// Those of them that have the share in a folder of their own, at most [`farshore_proto::MAX_MEMBERS`], and where each said
    /// that it can be reached.
    pub members: Members,
    /// What of the folder is not offered, at most [`UNSHARED_MAX`] paths; never the root.
    pub unshared: BTreeSet<RelPath>,
}

impl State {
    /// Opens the state directory, and makes it if need be: `dir` if given, else what the environment says
    /// (`FARSHORE_STATE`, `$XDG_STATE_HOME/farshore`, `~/.local/state/farshore`, in this order).
    ///
    /// # Errors
    /// The environment names no place, the directory cannot be made, or other users may write in it.
    pub fn open(dir: Option<PathBuf>) -> Result<State, StateError> {
        let dir = locate(dir, |name| std::env::var_os(name))?;
        // Absolute, so that a later change of the working directory does not move it.
        let dir = std::path::absolute(&dir).map_err(|source| StateError::Dir { path: dir, source })?;
        let failed = |source| StateError::Dir { path: dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
        let mode = fs::metadata(&dir).map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(StateError::Exposed { path: dir, mode });
        }
        Ok(State { dir })
    }

    /// Where it is: an absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Who this device is. Its key is made at the first call.
    ///
    /// # Errors
    /// See [`Identity::open`].
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        Identity::open(&self.dir)
    }

    /// All folders that were ever shared from here.
    ///
    /// # Errors
    /// The list cannot be read, or is damaged.
    pub fn shares(&self) -> Result<Vec<ShareEntry>, StateError> {
        file::load(&self.dir.join(SHARES_FILE))
    }

    /// What is known of the share of this folder. The first call gives it an id and a secret.
    ///
    /// # Errors
    /// The folder is not there, or the list of shares cannot be read or written.
    pub fn share_for(&self, folder: &Path) -> Result<ShareEntry, StateError> {
        let path = canonical(folder)?;
        self.update(|shares| Ok(entry_for(shares, path).clone()))
    }

    /// Gives the share of this folder a new secret and forgets the devices that have joined it: tickets given out
    /// earlier are worth nothing any more, and every device needs a new one.
    ///
    /// # Errors
    /// As for [`State::share_for`].
    pub fn renew_ticket(&self, folder: &Path) -> Result<ShareEntry, StateError> {
        let path = canonical(folder)?;
        self.update(|shares| {
            let entry = entry_for(shares, path);
            entry.secret = new_secret();
            entry.devices.clear();
            entry.members.clear();
            Ok(entry.clone())
        })
    }

    /// Remembers that `peer` may have `share` from now on, without a ticket.
    ///
    /// # Errors
    /// There is no such share, it has [`DEVICES_MAX`] devices already, or the list cannot be read or written.
    pub fn remember(&self, share: ShareId, peer: PeerId) -> Result<(), StateError> {
        self.update(|shares| entry_of(shares, share)?.admit(peer))
    }

    /// Whether `peer` is remembered for `share`.
    ///
    /// # Errors
    /// The list of shares cannot be read, or is damaged.
    pub fn is_trusted(&self, share: ShareId, peer: PeerId) -> Result<bool, StateError> {
        Ok(self.shares()?.iter().any(|entry| entry.share == share && entry.devices.contains_key(&peer)))
    }

    /// Forgets `peer` in every share that it has joined. Those shares get a new secret, because the device knows the
    /// old one; the other devices stay. Returns the shares concerned, as they are now.
    ///
    /// # Errors
    /// The list of shares cannot be read or written.
    pub fn revoke(&self, peer: PeerId) -> Result<Vec<ShareEntry>, StateError> {
        self.update(|shares| {
            let mut changed = Vec::new();
            for entry in shares {
                if entry.devices.remove(&peer).is_some() {
                    entry.members.remove(&peer);
                    entry.secret = new_secret();
                    changed.push(entry.clone());
                }
            }
            Ok(changed)
        })
    }

    /// Whether `peer`, who has proved to be that device, may have the share `serving`: it asks for that share, and it
    /// is remembered or knows the secret. Whoever comes in by the secret is remembered.
    ///
    /// Any other outcome is `false`, whatever the reason, so that a stranger learns nothing. What is wrong on this side
    /// (a damaged list, a full disk) is `false` too, and logged.
    pub fn admit(&self, serving: ShareId, asked: ShareId, secret: &[u8], peer: PeerId) -> bool {
        if asked != serving {
            return false;
        }
        let admitted = self.is_trusted(serving, peer).and_then(|trusted| {
            if trusted {
                return Ok(true);
            }
            // The secret is compared under the lock: it may have been renewed since.
            self.update(|shares| {
                let entry = entry_of(shares, serving)?;
                if !is_secret(&entry.secret, secret) {
                    return Ok(false);
                }
                entry.admit(peer)?;
                Ok(true)
            })
        });
        admitted.unwrap_or_else(|error| {
            tracing::warn!(%peer, share = %serving, "a device could not be let in: {error}");
            false
        })
    }

    /// Changes the list of shares while no other process or thread does. Writes only if something changed.
    fn update<T>(&self, change: impl FnOnce(&mut Vec<ShareEntry>) -> Result<T, StateError>) -> Result<T, StateError> {
        let _locked = self.lock()?;
        let path = self.dir.join(SHARES_FILE);
        let before = file::load(&path)?;
        let mut shares = before.clone();
        let answer = change(&mut shares)?;
        if shares != before {
            file::save(&path, &shares)?;
        }
        Ok(answer)
    }

    /// Holds the lock until the file is dropped. The lock has its own file, because `shares.json` is replaced.
    fn lock(&self) -> Result<File, StateError> {
        let path = self.dir.join(LOCK_FILE);
        let failed = |source| StateError::Write { path: path.clone(), source };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
            .map_err(|error| failed(error.into()))?;
        Ok(file)
    }
}

impl ShareEntry {
    fn admit(&mut self, peer: PeerId) -> Result<(), StateError> {
        if self.devices.len() >= DEVICES_MAX && !self.devices.contains_key(&peer) {
            return Err(StateError::TooManyDevices { path: self.path.clone() });
        }
        self.devices.entry(peer).or_insert_with(seconds_now);
        Ok(())
    }
}

/// What is wrong with the state directory, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Neither the command line nor the environment says where it is.
    #[error("no place for Farshore's state: HOME is not set; set it, or give a directory with --state")]
    NoPlace,
    /// The directory cannot be made or looked at.
    #[error("cannot use the state directory {}: {source}; give another with --state", path.display())]
    Dir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Other users could put their own key into it.
    #[error(
        "other users may write in the state directory {} (mode {mode:o}); run `chmod 700` on it, or give another \
         with --state", path.display()
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The list of shares makes no sense. It is left as it is.
    #[error(
        "the list of shares {} is damaged ({reason}); put a backup of it back, or move it away to begin with an empty \
         one: tickets given out earlier then stop working", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The list of shares is of a later format.
    #[error("the list of shares {} was written by a newer version of Farshore; use that one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// A file of the state cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the state cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder to share cannot be found.
    #[error("cannot share {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A path makes no sense.
    #[error("cannot tell where {} is: {source}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A path lies in no shared folder.
    #[error("{} lies in no folder that is shared from here; `farshore share` shares one", path.display())]
    NoShareHolds {
        /// The path.
        path: PathBuf,
    },
    /// A shared folder is not left out of itself.
    #[error("{} is a shared folder itself; to stop sharing all of it, stop its `farshore share`", path.display())]
    WholeShare {
        /// The folder.
        path: PathBuf,
    },
    /// A path cannot be offered again, because it was not left out by itself.
    #[error("{} was not unshared{}", path.display(), above.as_ref().map_or(String::new(), |above| format!(
        "; it is not offered because {} is not: share that again", above.display()
    )))]
    NotUnshared {
        /// The path.
        path: PathBuf,
        /// The directory above it that was.
        above: Option<PathBuf>,
    },
    /// One more path would be too many.
    #[error(
        "{UNSHARED_MAX} paths in {} are not shared already; unshare a directory instead of what is in it",
        path.display()
    )]
    TooManyUnshared {
        /// The shared folder.
        path: PathBuf,
    },
    /// A path cannot be left out of a share that others hold as well.
    #[error(
        "{} cannot be left out of a share that others may change: the others hold it too; share the folder with \
         `--read-only`, or offer that again with `farshore unshare --undo`",
        path.display()
    )]
    Writable {
        /// What is left out, or was to be.
        path: PathBuf,
    },
    /// What was kept of the members of a share makes no sense.
    #[error("{} is damaged ({reason}), and not used; the owner of the share tells anew who its members are", path.display())]
    DamagedMembers {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process changes the same share from this device.
    #[error(
        "this device has mounted this share already{}; unmount that, or look at it here as well with `--read-only`",
        folder.as_ref().map_or(String::new(), |folder| format!(" and keeps it in {}", folder.display()))
    )]
    JoinedAlready {
        /// Where it keeps it, if it said.
        folder: Option<PathBuf>,
    },
    /// No folder is shared under this id.
    #[error("there is no share {0} here")]
    UnknownShare(ShareId),
    /// One more device would be too many.
    #[error(
        "{DEVICES_MAX} devices have joined the share of {} already; renew its ticket to begin anew", path.display()
    )]
    TooManyDevices {
        /// The shared folder.
        path: PathBuf,
    },
}

/// Whether [`write_durably`] may replace a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overwrite {
    /// Replaces the old one in one step.
    Allowed,
    /// Fails with [`io::ErrorKind::AlreadyExists`] if there is one.
    Never,
}

/// Writes a file, mode 0600, that is either there in full or not at all, also after a power cut.
pub(crate) fn write_durably(path: &Path, bytes: &[u8], overwrite: Overwrite) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match overwrite {
        Overwrite::Allowed => file.persist(path)?,
        Overwrite::Never => file.persist_noclobber(path)?,
    };
    File::open(dir)?.sync_all()
}

/// Where the state directory is, given the one from the command line and the environment.
fn locate(dir: Option<PathBuf>, env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, StateError> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG rules say that a path which is not absolute is to be ignored.
    let xdg = || set("XDG_STATE_HOME").filter(|base| base.is_absolute()).map(|base| base.join("farshore"));
    let home = || set("HOME").map(|home| home.join(".local/state/farshore"));
    dir.or_else(|| set("FARSHORE_STATE")).or_else(xdg).or_else(home).ok_or(StateError::NoPlace)
}

fn canonical(folder: &Path) -> Result<PathBuf, StateError> {
    let failed = |source| StateError::Folder { path: folder.to_owned(), source };
    let path = fs::canonicalize(folder).map_err(failed)?;
    if !fs::metadata(&path).map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    Ok(path)
}

/// The entry of this folder, which is made if there is none.
fn entry_for(shares: &mut Vec<ShareEntry>, path: PathBuf) -> &mut ShareEntry {
    let at = shares.iter().position(|entry| entry.path == path).unwrap_or_else(|| {
        let (share, secret) = (new_share_id(), new_secret());
        shares.push(ShareEntry {
            path,
            share,
            secret,
            devices: BTreeMap::new(),
            members: Members::new(),
            unshared: BTreeSet::new(),
        });
        shares.len() - 1
    });
    &mut shares[at]
}

/// Seconds since 1970; `None` on a machine whose clock is before that.
fn seconds_now() -> Option<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn entry_of(shares: &mut [ShareEntry], share: ShareId) -> Result<&mut ShareEntry, StateError> {
    shares.iter_mut().find(|entry| entry.share == share).ok_or(StateError::UnknownShare(share))
}

#[cfg(test)]
mod tests;
