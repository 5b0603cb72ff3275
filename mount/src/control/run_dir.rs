//! The directory of the sockets: `run` in the state directory, one `<random>.sock` for each process that listens.
//!
//! A process that was killed leaves its socket behind. Nobody listens there any more, so connecting is refused; that,
//! and nothing else, is how a stale socket is told from one whose process is merely slow. Between the making of a socket
//! and the moment at which it is listened to, connecting is refused, too; so making one and removing stale ones happen
//! under a lock on the directory.

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, fstat, open, openat, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Its name in the state directory.
const NAME: &str = "run";

/// What the names of sockets end with.
const SUFFIX: &str = ".sock";

/// The directory of the sockets, open.
#[derive(Debug)]
pub struct RunDir {
    fd: OwnedFd,
    path: PathBuf,
}

/// What was found in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    /// The names of those that are listened to, in order.
    pub alive: Vec<String>,
    /// How many were left by dead processes, and have been removed.
    pub removed: usize,
}

/// Why the sockets of a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Others could listen or connect there.
    #[error("{} is open to other users (owner {owner}, mode {mode:o}); remove it, it will be made anew", path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The system says no.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl RunDir {
    /// Opens the directory of a state directory, and makes it if there is none.
    ///
    /// # Errors
    /// It cannot be made or opened, or is not for this user alone.
    pub fn open(state: &Path) -> Result<RunDir, RunDirError> {
        let path = state.join(NAME);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(RunDirError::Io { path, source }),
            Ok(()) | Err(_) => Ok(RunDir::existing(state)?
                .ok_or_else(|| RunDirError::Io { path, source: io::ErrorKind::NotFound.into() })?),
        }
    }

    /// Opens the directory of a state directory; `None` if there is none: nothing has ever listened there.
    ///
    /// # Errors
    /// It cannot be opened, or is not for this user alone.
    pub fn existing(state: &Path) -> Result<Option<RunDir>, RunDirError> {
        let path = state.join(NAME);
        let failed = |error: Errno| RunDirError::Io { path: path.clone(), source: error.into() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match open(&path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let stat = fstat(&fd).map_err(failed)?;
        let (owner, mode) = (stat.st_uid, stat.st_mode & 0o7777);
        if owner != rustix::process::geteuid().as_raw() || mode & 0o077 != 0 {
            return Err(RunDirError::Exposed { path, owner, mode });
        }
        Ok(Some(RunDir { fd, path }))
    }

    /// Begins to listen under a name of its own, which is returned, and removes what dead processes have left.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn listen(&self) -> Result<(UnixListener, String), RunDirError> {
        let name = format!("{:016x}{SUFFIX}", crate::sharing::random_u64());
        let listening = || {
            let _locked = self.lock()?;
            self.remove_stale()?;
            let listener = UnixListener::bind(self.address(&name))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        listening().map(|listener| (listener, name)).map_err(|source| self.error(source))
    }

    /// The sockets that are listened to. Stale ones are removed.
    ///
    /// # Errors
    /// What the system says.
    pub fn sockets(&self) -> Result<Sockets, RunDirError> {
        let alive = || {
            let _locked = self.lock()?;
            self.remove_stale()
        };
        alive().map_err(|source| self.error(source))
    }

    /// Connects to the socket of this name, without waiting. The stream is not blocking.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionRefused`] if nobody listens there any more, [`io::ErrorKind::WouldBlock`] if too many
    /// wait already.
    pub(super) fn connect(&self, name: &str) -> io::Result<UnixStream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(self.address(name))?)?;
        Ok(UnixStream::from(socket))
    }

    /// Removes a socket.
    pub(super) fn remove(&self, name: &str) {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!("{} stays behind: {error}", self.path.join(name).display()),
        }
    }

    /// Where a socket is, in a form that is always short enough: an address has room for 107 bytes, and a state
    /// directory may lie deeper. The way through the open directory leads to the same place.
    fn address(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
    }

    /// Removes the sockets of dead processes. Under the lock.
    fn remove_stale(&self) -> io::Result<Sockets> {
        let mut sockets = Sockets { alive: Vec::new(), removed: 0 };
        for entry in std::fs::read_dir(self.address("."))? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if !name.ends_with(SUFFIX) {
                continue;
            }
            match self.connect(&name) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.remove(&name);
                    sockets.removed += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(_) | Err(_) => sockets.alive.push(name),
            }
        }
        sockets.alive.sort();
        Ok(sockets)
    }

    /// Held until the descriptor is dropped. It is one of its own, because a lock belongs to a descriptor.
    fn lock(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(&self.fd, ".", flags, Mode::empty())?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&fd, FlockOperation::LockExclusive))?;
        Ok(fd)
    }

    fn error(&self, source: io::Error) -> RunDirError {
        RunDirError::Io { path: self.path.clone(), source }
    }
}
