//! Why something could not be mounted or unmounted, for whoever asked for it.

use std::io;
use std::path::PathBuf;

/// Why something could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mountpoint is not there.
    #[error("{} does not exist; make the directory first: mkdir -p {:?}", .0.display(), .0)]
    Missing(PathBuf),
    /// The mountpoint is something else.
    #[error("{} is not a directory; name an empty directory to mount on", .0.display())]
    NotDirectory(PathBuf),
    /// The mountpoint has entries, which the mount would hide.
    #[error(
        "{} is not empty (it holds {example:?}); name an empty directory, because a mount hides what is in it",
        path.display()
    )]
    NotEmpty {
        /// The mountpoint.
        path: PathBuf,
        /// One of its entries.
        example: String,
    },
    /// Something is mounted there.
    #[error("{} has something mounted on it already ({what}); unmount it first, or name another directory", path.display())]
    AlreadyMounted {
        /// The mountpoint.
        path: PathBuf,
        /// The type of what is mounted.
        what: String,
    },
    /// Something is mounted there whose process is gone, and it is not ours to take down.
    #[error(
        "{} is left over from a {what} mount whose process is gone; take it down with: umount -l {path:?}",
        path.display()
    )]
    Stale {
        /// The mountpoint.
        path: PathBuf,
        /// The type of what is mounted.
        what: String,
    },
    /// Nothing is mounted there.
    #[error("nothing is mounted on {}", .0.display())]
    NotMounted(PathBuf),
    /// What is mounted there is not ours.
    #[error("what is mounted on {} is not Farshore's ({what}); take it down with: umount {path:?}", path.display())]
    NotOurs {
        /// The mountpoint.
        path: PathBuf,
        /// The type of what is mounted.
        what: String,
    },
    /// The kernel offers no FUSE.
    #[error(
        "this machine offers no FUSE: {0} (load it with `modprobe fuse`; a container needs the device /dev/fuse and the \
         capability SYS_ADMIN, e.g. `--device /dev/fuse --cap-add SYS_ADMIN`)"
    )]
    NoFuse(io::Error),
    /// The helper that mounts for ordinary users is not installed.
    #[error(
        "only root may mount directly, and fusermount3, which mounts for others, is not installed or may not be run \
         by this user: install the package `fuse3` (a container whose root may not mount needs the capability \
         SYS_ADMIN instead)"
    )]
    NoHelper,
    /// The helper said no.
    #[error("fusermount3 refuses {}: {reason}", path.display())]
    Helper {
        /// The mountpoint.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// `allow_other` is for root, unless the machine allows it to everybody.
    #[error(
        "the option allow_other is not allowed to ordinary users here; put the line `user_allow_other` into \
         /etc/fuse.conf, or leave the option out"
    )]
    AllowOther,
    /// The kernel or the machine said no.
    #[error("cannot {doing} {}: {error}", path.display())]
    System {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The mountpoint.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}
