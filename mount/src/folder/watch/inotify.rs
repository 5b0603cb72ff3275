//! The kernel's notices of what happens in directories.
//!
//! A directory is watched through its open descriptor, so that the watch is on the directory that is then read and
//! not on what has its name by now.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// The kernel's number of a watched directory; it is not used again for a long time.
pub(super) type WatchId = i32;

/// Room for notices that are read at once, in bytes.
const NOTICES_BYTES: usize = 64 * 1024;

/// One notice.
#[derive(Debug)]
pub(super) struct Notice {
    /// The watch it belongs to; a negative number if it belongs to none.
    pub(super) watch: WatchId,
    /// What happened.
    pub(super) flags: ReadFlags,
    /// Equal for both halves of a rename.
    pub(super) cookie: u32,
    /// The entry it is about; `None` for the directory itself.
    pub(super) name: Option<Box<[u8]>>,
}

/// An inotify instance.
#[derive(Debug)]
pub(super) struct Inotify {
    fd: OwnedFd,
    buffer: Vec<MaybeUninit<u8>>,
}

impl Inotify {
    pub(super) fn new() -> Result<Inotify, Errno> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Inotify { fd, buffer: vec![MaybeUninit::uninit(); NOTICES_BYTES] })
    }

    /// Watches an open directory. Watching it twice gives the same number. Opening and reading is not told: serving
    /// a file must not look like a change.
    pub(super) fn watch(&self, directory: BorrowedFd<'_>, is_root: bool) -> Result<WatchId, Errno> {
        let mut flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::EXCL_UNLINK
            | WatchFlags::ONLYDIR;
        if is_root {
            flags |= WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        }
        inotify::add_watch(&self.fd, format!("/proc/self/fd/{}", directory.as_raw_fd()), flags)
    }

    /// Ends a watch. It may have ended by itself already, with its directory.
    pub(super) fn unwatch(&self, watch: WatchId) {
        let _: Result<(), Errno> = inotify::remove_watch(&self.fd, watch);
    }

    /// Takes what the kernel has, without waiting.
    pub(super) fn read(&mut self, mut take: impl FnMut(Notice)) -> Result<(), Errno> {
        let mut reader = inotify::Reader::new(&self.fd, &mut self.buffer);
        loop {
            match reader.next() {
                Ok(event) => take(Notice {
                    watch: event.wd(),
                    flags: event.events(),
                    cookie: event.cookie(),
                    name: event.file_name().map(|name| name.to_bytes().into()),
                }),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until there is something to read, the bell rings, or `until` comes.
    pub(super) fn wait(&self, bell: &Bell, until: Instant) {
        wait(&mut [PollFd::new(&self.fd, PollFlags::IN), PollFd::new(&bell.fd, PollFlags::IN)], until);
    }
}

/// Wakes a thread that waits. Stays rung until it is answered.
#[derive(Debug)]
pub(super) struct Bell {
    fd: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> Result<Bell, Errno> {
        Ok(Bell { fd: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    pub(super) fn ring(&self) {
        // It fails only if the bell was rung as often as a counter goes: it is rung then.
        let _: Result<usize, Errno> = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// From now on it has not rung.
    pub(super) fn answer(&self) {
        // It fails only if it has not rung.
        let _: Result<usize, Errno> = rustix::io::read(&self.fd, &mut [0u8; 8]);
    }

    /// Waits until it rings or `until` comes.
    pub(super) fn wait(&self, until: Instant) {
        wait(&mut [PollFd::from_borrowed_fd(self.fd.as_fd(), PollFlags::IN)], until);
    }
}

fn wait(fds: &mut [PollFd<'_>], until: Instant) {
    let span = until.saturating_duration_since(Instant::now());
    // Rounded up, so that waking means that the time has come.
    let span = Timespec::try_from(span + Duration::from_micros(1)).ok();
    // An interrupted wait is a short one: whoever waits looks what there is anyway.
    let _: Result<usize, Errno> = rustix::event::poll(fds, span.as_ref());
}
