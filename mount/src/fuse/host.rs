//! What the kernel's side asks of the node, and in which form it wants the answers.

use super::notifier::Notifier;
use farshore_engine::{Errno, Ino, Opened, Reply, Request};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Answers what the kernel asks. The node is one; tests bring their own.
pub trait Host: Send + Sync + 'static {
    /// The bytes that answer a read.
    type Bytes: Readable;

    /// Asks the engine. `answer` runs exactly once: on this thread before `ask` returns if the answer is known,
    /// otherwise later, on whichever thread brings what was missing. It is never called under a lock: it copies up
    /// to 1 MiB, may read a local file for that, and writes to the kernel.
    ///
    /// Only reads may wait. Everything else is answered before `ask` returns, because the kernel holds locks of its
    /// own over those calls.
    fn ask<F>(&self, request: Request, answer: F)
    where
        F: FnOnce(Result<Answer<Self::Bytes>, Errno>) + Send + 'static;

    /// The file that holds the bytes of what was opened and nothing else, for the kernel to read it by itself; `None` if
    /// there is none. Asked right after the answer to [`Request::Open`], before that handle can be released, and only if
    /// that said that all of the file is here.
    fn backing(&self, opened: &Opened) -> Option<Arc<File>>;

    /// The kernel has forgotten `lookups` of the times that an answer told it about `ino`. Not called for what the
    /// kernel still knows when the mount ends.
    fn forget(&self, ino: Ino, lookups: u64);

    /// How full the file system is; never asks the network.
    ///
    /// # Errors
    /// What the store's disk says.
    fn statfs(&self) -> io::Result<StatFs>;

    /// Called once, before the first request: whatever the host changes from now on, it tells through `notifier`.
    fn mounted(&self, notifier: Notifier);
}

/// A successful answer to a request.
#[derive(Debug)]
pub enum Answer<B> {
    /// To everything but [`Request::Read`].
    Reply(Reply),
    /// To [`Request::Read`].
    Bytes(B),
}

/// Bytes that are here and only need to be copied: from a file, from memory, or some from each.
pub trait Readable {
    /// How many bytes; at most as many as were asked for, and fewer only at the end of the file.
    fn len(&self) -> usize;

    /// Whether there are none: the read began at the end of the file.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into`, which is [`Readable::len`] bytes long.
    ///
    /// # Errors
    /// If not every byte could be had. The reader gets EIO, and nothing of `into`.
    fn read_into(&self, into: &mut [u8]) -> io::Result<()>;
}

/// How full the file system is, in units of `block_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatFs {
    /// The unit of the three block counts, in bytes; more than zero.
    pub block_bytes: u32,
    /// All blocks.
    pub blocks: u64,
    /// Blocks that are free.
    pub blocks_free: u64,
    /// Blocks that are free for ordinary users.
    pub blocks_available: u64,
    /// All inodes.
    pub files: u64,
    /// Inodes that are free.
    pub files_free: u64,
}
