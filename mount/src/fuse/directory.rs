//! Directory listings: how entries get into the kernel's buffer, and that each one that does not is forgotten again.
//!
//! The kernel's buffer is never smaller than a page, and since protocol 7.44 as large as the program's own; the
//! library does not tell how large. So a listing is asked for page by page until it ends or the buffer is full. What
//! did not fit any more is dropped; the kernel comes back for it with the cookie of the last entry that did.

use super::attr::{GENERATION, TTL, file_attr, file_type};
use super::host::{Answer, Host};
use super::options::Owner;
use super::pending::{Pending, Refuse};
use farshore_engine::{DirEntry, DirEntryName, Errno, Ino, Reply, Request};
use fuser::INodeNo;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// What is asked for at once, in bytes as the kernel counts them: the smallest buffer that the kernel ever offers.
const PAGE_BYTES: u32 = 4096;

/// How often a kernel with large buffers is given another page in one reply: 32 KiB, which is what the C library reads
/// at once.
const LARGE_BUFFER_PAGES: u32 = 8;

/// The kernel's buffer for one listing.
pub(super) trait Listing: Refuse + Send + 'static {
    /// Whether entries come with attributes, and each then counts as a lookup.
    const PLUS: bool;

    /// Adds an entry; returns whether the buffer was too full for it.
    fn is_full_for(&mut self, entry: &DirEntry, owner: Owner) -> bool;

    /// Sends the buffer.
    fn ok(self);
}

impl Listing for fuser::ReplyDirectory {
    const PLUS: bool = false;

    fn is_full_for(&mut self, entry: &DirEntry, _owner: Owner) -> bool {
        let name = OsStr::from_bytes(entry.name.as_bytes());
        self.add(INodeNo(entry.attr.ino.0), entry.cookie, file_type(entry.attr.kind), name)
    }

    fn ok(self) {
        self.ok();
    }
}

impl Listing for fuser::ReplyDirectoryPlus {
    const PLUS: bool = true;

    fn is_full_for(&mut self, entry: &DirEntry, owner: Owner) -> bool {
        let name = OsStr::from_bytes(entry.name.as_bytes());
        let attr = file_attr(&entry.attr, owner);
        self.add(attr.ino, entry.cookie, name, &TTL, &attr, GENERATION)
    }

    fn ok(self) {
        self.ok();
    }
}

/// How many pages one reply may take from a kernel that speaks this version of the protocol.
pub(super) fn pages_per_reply(kernel: fuser::Version) -> u32 {
    if (kernel.0, kernel.1) >= (7, 44) { LARGE_BUFFER_PAGES } else { 1 }
}

/// A listing on its way into the kernel's buffer.
pub(super) struct Filling<H: Host, L: Listing> {
    pub(super) host: Arc<H>,
    pub(super) owner: Owner,
    pub(super) dir: Ino,
    pub(super) reply: Pending<L>,
    /// The cookie of the last entry in the buffer, or that which the kernel came with.
    pub(super) after: u64,
    /// How many more pages may be asked for.
    pub(super) pages_left: u32,
}

/// What became of the entries of one page.
enum Added {
    /// All are in the buffer.
    All,
    /// The buffer is full, or the listing is at its end.
    NoMore,
}

impl<H: Host, L: Listing> Filling<H, L> {
    /// Asks for the first page; the reply is sent when the last one is there.
    pub(super) fn start(self) {
        self.ask(true);
    }

    fn ask(mut self, first: bool) {
        self.pages_left = self.pages_left.saturating_sub(1);
        let request = Request::ReadDir { ino: self.dir, after: self.after, budget_bytes: PAGE_BYTES, plus: L::PLUS };
        let host = Arc::clone(&self.host);
        host.ask(request, move |answer| self.take(first, answer));
    }

    fn take(mut self, first: bool, answer: Result<Answer<H::Bytes>, Errno>) {
        match answer {
            Ok(Answer::Reply(Reply::Entries(entries))) => match self.add(&entries) {
                Added::All if self.pages_left > 0 => self.ask(false),
                Added::All | Added::NoMore => self.reply.send(Listing::ok),
            },
            failed if first => self.reply.fail(failed),
            // What was found before the failure is good; the kernel comes back, and gets the error then.
            _ => self.reply.send(Listing::ok),
        }
    }

    fn add(&mut self, entries: &[DirEntry]) -> Added {
        if entries.is_empty() {
            return Added::NoMore;
        }
        for (index, entry) in entries.iter().enumerate() {
            let owner = self.owner;
            if self.reply.edit(|listing| listing.is_full_for(entry, owner)) != Some(false) {
                self.forget(&entries[index..]);
                return Added::NoMore;
            }
            self.after = entry.cookie;
        }
        Added::All
    }

    /// Takes back the lookups of entries that the kernel was not told of.
    fn forget(&self, entries: &[DirEntry]) {
        if !L::PLUS {
            return;
        }
        for entry in entries {
            match entry.name {
                DirEntryName::Name(_) => self.host.forget(entry.attr.ino, 1),
                DirEntryName::Dot | DirEntryName::DotDot => {}
            }
        }
    }
}
