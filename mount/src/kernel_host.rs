//! A node as the kernel's side of a mount sees it.

use crate::fuse::{self, Invalidation, Notifier, StatFs};
use crate::node::{self, Node};
use farshore_engine::{Errno, Ino, Notice, Opened, Request};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Lets a mount ask a node.
pub struct KernelHost {
    node: Arc<Node>,
    /// The disk that fetched bytes are kept on: its space is what `df` shows.
    store: PathBuf,
}

impl KernelHost {
    /// For a mount of what `node` follows, whose store is at `store`.
    #[must_use]
    pub fn new(node: Arc<Node>, store: PathBuf) -> KernelHost {
        KernelHost { node, store }
    }
}

impl fuse::Readable for node::Bytes {
    fn len(&self) -> usize {
        node::Bytes::len(self)
    }

    fn read_into(&self, into: &mut [u8]) -> io::Result<()> {
        node::Bytes::read_into(self, into)
    }
}

impl fuse::Host for KernelHost {
    type Bytes = node::Bytes;

    fn ask<F>(&self, request: Request, answer: F)
    where
        F: FnOnce(Result<fuse::Answer<node::Bytes>, Errno>) + Send + 'static,
    {
        self.node.ask(request, move |result| {
            answer(result.map(|found| match found {
                node::Answer::Reply(reply) => fuse::Answer::Reply(reply),
                node::Answer::Bytes(bytes) => fuse::Answer::Bytes(bytes),
            }));
        });
    }

    fn backing(&self, opened: &Opened) -> Option<Arc<File>> {
        self.node.file_of(opened)
    }

    fn forget(&self, ino: Ino, lookups: u64) {
        self.node.forget(ino, lookups);
    }

    fn statfs(&self) -> io::Result<StatFs> {
        let disk = rustix::fs::statvfs(&self.store)?;
        let block_bytes = u32::try_from(disk.f_frsize).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(StatFs {
            block_bytes: block_bytes.max(1),
            blocks: disk.f_blocks,
            blocks_free: disk.f_bfree,
            blocks_available: disk.f_bavail,
            files: disk.f_files,
            files_free: disk.f_ffree,
        })
    }

    fn mounted(&self, notifier: Notifier) {
        self.node.on_notice(Box::new(move |notice| {
            if let Some(invalidation) = invalidation_of(notice) {
                notifier.send(invalidation);
            }
        }));
    }
}

/// What the kernel must forget because of a notice.
fn invalidation_of(notice: &Notice) -> Option<Invalidation> {
    match notice {
        Notice::InvalidateInode { ino, data } => Some(Invalidation::Inode { ino: *ino, data: *data }),
        Notice::InvalidateEntry { parent, name } => Some(Invalidation::Entry { parent: *parent, name: name.clone() }),
        Notice::LinkUp { .. }
        | Notice::LinkDown { .. }
        | Notice::DialFailed { .. }
        | Notice::Listed { .. }
        | Notice::PeerFault { .. }
        | Notice::FetchFailed { .. }
        | Notice::StoreFailed { .. }
        | Notice::SaveFailed { .. }
        | Notice::PinsChanged
        | Notice::NotShared { .. }
        | Notice::LookAt { .. }
        | Notice::ApplyFailed { .. }
        | Notice::Announced { .. } => None,
    }
}
