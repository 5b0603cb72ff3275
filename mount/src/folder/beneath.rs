//! Opening what lies beneath the shared folder, and nothing else.
//!
//! Every path is resolved by the kernel from the folder's own descriptor, with no symbolic link followed anywhere
//! on the way (`openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`). Checking the text
//! of a path would not do: a directory can be exchanged for a symlink between the check and the open.

use farshore_engine::path::RelPath;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::path::Path;

/// Which directory an open one is, while it exists: two with equal identities are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct InodeId {
    /// The device that its file system is on.
    pub(crate) device: u64,
    /// Its number in that file system; may be used again once it is gone.
    pub(crate) inode: u64,
}

impl InodeId {
    /// The identity in what `stat` said.
    #[allow(clippy::unnecessary_cast, reason = "the width of st_dev and st_ino differs between architectures")]
    pub(crate) fn of(stat: &Stat) -> InodeId {
        InodeId { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
    }
}

/// The root of the folder, held open: it stays the same directory, whatever happens to its name.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
}

impl Beneath {
    /// Opens the folder itself. Its own path may lead over symbolic links: whoever shares it chose that path.
    pub(crate) fn open(root: &Path) -> Result<Beneath, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Beneath { root: rustix::fs::open(root, flags, Mode::empty())? })
    }

    /// The descriptor of the root.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a directory for listing; the root too.
    pub(crate) fn directory(&self, path: &RelPath) -> Result<OwnedFd, Errno> {
        self.resolve(&path.to_bytes(), OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens a file for reading. What is opened may be anything: the caller has to look. Never waits, also not for
    /// the other end of a pipe. Leaves the file's access time alone where that is allowed.
    pub(crate) fn file(&self, path: &RelPath) -> Result<OwnedFd, Errno> {
        let path = path.to_bytes();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self.resolve(&path, flags | OFlags::NOATIME) {
            Err(Errno::PERM) => self.resolve(&path, flags),
            opened => opened,
        }
    }

    /// What `stat` says of `path` itself; a symbolic link is not followed.
    pub(crate) fn stat(&self, path: &RelPath) -> Result<Stat, Errno> {
        match path.split_last() {
            None => rustix::fs::fstat(&self.root),
            Some((_, name)) => stat_in(self.parent(path)?.as_fd(), name.as_bytes()),
        }
    }

    /// Opens the directory that holds `path`, to ask for `path` in it by name. For the root that is the root.
    pub(crate) fn parent(&self, path: &RelPath) -> Result<OwnedFd, Errno> {
        let mut bytes = path.to_bytes();
        let end = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        bytes.truncate(end);
        self.resolve(&bytes, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::io::retry_on_intr(|| rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve))
    }
}

/// What `stat` says of `name` in an open directory; a symbolic link is not followed, an automount not triggered.
pub(crate) fn stat_in<N: rustix::path::Arg>(directory: BorrowedFd<'_>, name: N) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

/// Opens a directory that is nobody else's, and makes it if it is not there.
pub(super) fn open_private(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Whether an error means that what was asked for is not there, or not inside the folder.
pub(crate) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::STALE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_lies_beneath_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/c"), b"text").unwrap();
        let beneath = Beneath::open(folder.path()).unwrap();
        assert_eq!(beneath.stat(&path("a/b/c")).unwrap().st_size, 4);
        assert!(beneath.file(&path("a/b/c")).is_ok());
        assert!(beneath.directory(&path("a/b")).is_ok());
        assert!(beneath.directory(&RelPath::ROOT).is_ok());
        let root = rustix::fs::fstat(beneath.root()).unwrap();
        assert_eq!(InodeId::of(&beneath.stat(&RelPath::ROOT).unwrap()), InodeId::of(&root));
        assert_eq!(beneath.directory(&path("a/b/c")).unwrap_err(), Errno::NOTDIR);
        assert_eq!(beneath.file(&path("a/x")).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn no_symlink_is_followed_wherever_it_stands() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("sub")).unwrap();
        std::fs::write(outside.path().join("sub/secret"), b"secret").unwrap();
        let folder = tempfile::tempdir().unwrap();
        symlink(outside.path(), folder.path().join("way")).unwrap();
        symlink(outside.path().join("sub/secret"), folder.path().join("file")).unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        symlink("real", folder.path().join("inside")).unwrap();
        let beneath = Beneath::open(folder.path()).unwrap();
        for text in ["way", "way/sub", "inside"] {
            assert!(is_gone(beneath.directory(&path(text)).unwrap_err()), "{text}");
        }
        for text in ["file", "way/sub/secret"] {
            assert!(is_gone(beneath.file(&path(text)).unwrap_err()), "{text}");
        }
        assert!(is_gone(beneath.stat(&path("way/sub/secret")).unwrap_err()));
        assert!(beneath.stat(&path("way")).is_ok(), "the link itself is there");
    }

    #[test]
    fn a_pipe_is_opened_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let beneath = Beneath::open(folder.path()).unwrap();
        assert!(beneath.file(&path("pipe")).is_ok());
    }

    #[test]
    fn the_longest_path_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let beneath = Beneath::open(folder.path()).unwrap();
        let name = "d".repeat(255);
        let mut at = beneath.directory(&RelPath::ROOT).unwrap();
        for _ in 0..16 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let deepest = path(&vec![name; 16].join("/"));
        assert_eq!(deepest.len_bytes(), 4095);
        assert!(beneath.directory(&deepest).is_ok());
        assert!(beneath.stat(&deepest).is_ok());
    }
}
