//! Where fetched bytes are kept: on disk, in memory, or in the simulator. One suite of tests holds for all.
//!
//! A store keeps contents, each under its [`ContentKey`], and of each which chunks are there and what they hash to. What
//! was saved survives the process; how far it can be believed after that is said by [`Trust`](farshore_engine::Trust).
//! The rules are in `docs/SIDECAR.md`.

pub mod disk;
mod journal;
mod ledger;
pub mod memory;
mod publish;
#[cfg(any(test, feature = "testing"))]
pub mod suite;

pub use disk::{APPLYING, DiskStore, KEPT_MODE_BITS, OpenError, PRIVATE};
pub use memory::MemoryStore;
pub(crate) use publish::publish;

use bytes::Bytes;
use farshore_engine::chunk::chunk_range;
use farshore_engine::path::RelPath;
use farshore_engine::record::FileTime;
use farshore_engine::{Changes, ContentIdentity, ContentKey, Held, Memory, Remembered, Resumed, Xattrs};
use farshore_proto::{ShareId, TreeFile, TreeId};
use futures_util::future::BoxFuture;
use std::any::Any;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use xxhash_rust::xxh3::Xxh3;

/// What was found under a key, and the content to go on with.
pub type Found = Option<(Arc<dyn Stored>, Resumed)>;

/// Keeps contents.
pub trait Store: Send + Sync + 'static {
    /// What it holds from an earlier life, in no order. Reads every sidecar: asked once, at the start. What is damaged is
    /// told in the log, removed, and left out.
    fn held(&self) -> Vec<Held>;

    /// A content of which nothing is here, which its owner has at `path`. What is held of it is removed when the first of it
    /// is written, and room is made then: this does not wait for the disk. If somebody has the same
    /// content open already, this one is a second one of its own, which is not saved, and goes when it is dropped.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::StorageFull`] if it is full.
    fn create(&self, identity: &ContentIdentity, path: &RelPath) -> io::Result<Arc<dyn Stored>>;

    /// Opens what it holds under `key`, which is that of `expected` if that is known. `None` if it holds nothing that can
    /// be used, or somebody has it open: [`Store::create`] begins anew. What is damaged is told in the log and removed.
    ///
    /// Of a sidecar of version 1, which says of no content, nothing can be used unless something is expected.
    ///
    /// # Errors
    /// What the disk says. What is held stays, and it may be tried again.
    fn resume(&self, key: ContentKey, expected: Option<&ContentIdentity>) -> BoxFuture<'static, io::Result<Found>>;

    /// Writes down what is stored of these contents, as far as it has changed since that was last done. Durable when it
    /// returns: first the bytes, then what says that they are there.
    ///
    /// # Errors
    /// The first that the disk said; what could be saved was. What was not is saved by the next call.
    fn save(&self, contents: Vec<Arc<dyn Stored>>) -> BoxFuture<'static, io::Result<()>>;

    /// Notes that what it holds under `key` is in use: [`Held::last_used`]. Not durable; if it fails, nothing is lost.
    fn touch(&self, key: ContentKey);

    /// Removes what it holds under `key`, unless somebody has it open.
    fn evict(&self, key: ContentKey);

    /// Does something soon that may wait for the disk, and that nobody waits for: after what was given before, and before
    /// [`Store::close`] has ended.
    fn later(&self, chore: Box<dyn FnOnce() + Send>) {
        chore();
    }

    /// The end: saves everything that is not saved, also what was let go of, and says that this stop is clean. After that
    /// nothing is written any more: whoever tries is refused.
    ///
    /// # Errors
    /// What the disk says. The stop is not clean then, unless a later call ends well.
    fn close(&self) -> BoxFuture<'static, io::Result<()>>;

    /// The paths that were pinned when that was last written down. What cannot be read is told in the log.
    fn pins(&self) -> Vec<RelPath>;

    /// Writes down which paths are pinned. Durable when it returns.
    ///
    /// # Errors
    /// What the disk says. Then those before are.
    fn save_pins(&self, pins: &[RelPath]) -> io::Result<()>;

    /// What was known of the tree `id` when that was last written down. What cannot be used is told in the log.
    fn tree(&self, id: TreeId) -> Option<TreeFile>;

    /// Writes down what is known of a tree, in the place of the one before. Durable when it returns.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::FileTooLarge`] if there is too much of it. Then the one before is there.
    fn save_tree(&self, tree: KnownTree) -> BoxFuture<'static, io::Result<()>>;

    /// What is remembered of a share that is kept in a folder: what was written down last, with all that was noted since. What
    /// cannot be used is told in the log. Of a life that may have told peers more, not where it stood in their events.
    fn memory(&self, share: ShareId) -> Option<Memory>;

    /// Whether all that [`Store::memory`] has said lies there as [`Store::save_memory`] left it: then a life in which nothing changes
    /// has nothing to write.
    fn is_copied(&self, share: ShareId) -> bool;

    /// Notes what has changed of what is remembered of a share, of which [`Store::memory`] was asked in this life. When it returns,
    /// the end of the process does not undo it; that of the machine may, until [`Store::sync_journal`]. Says whether it is time
    /// for [`Store::save_memory`].
    ///
    /// # Errors
    /// What the disk says. Then all that is noted is worth nothing until [`Store::save_memory`] has ended well.
    fn note(&self, share: ShareId, changes: Changes) -> BoxFuture<'static, io::Result<bool>>;

    /// Makes durable what was noted before, in earlier lives too, and what the folder held then. Says whether it is time for
    /// [`Store::save_memory`].
    ///
    /// # Errors
    /// What the disk says. Nothing is lost by that as long as the machine runs.
    fn sync_journal(&self, share: ShareId) -> BoxFuture<'static, io::Result<bool>>;

    /// What is noted from now on is what has changed since what [`Store::save_memory`] is given with the number that this returns.
    ///
    /// # Errors
    /// What the disk says.
    fn begin_journal(&self, share: ShareId) -> BoxFuture<'static, io::Result<u64>>;

    /// Writes down what was remembered of a share that is kept in a folder when journal number `journal` was begun, in the place of
    /// what was before, and of what was noted until then. Durable when it returns.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::FileTooLarge`] if there is too much of it. Then what was before is there.
    fn save_memory(&self, share: ShareId, journal: u64, memory: Memory) -> BoxFuture<'static, io::Result<()>>;

    /// How much room there is.
    ///
    /// # Errors
    /// What the disk says.
    fn space(&self) -> io::Result<Space>;
}

/// What is known of a share's tree, to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTree {
    id: TreeId,
    known_unix_seconds: u64,
    tree: Remembered,
}

impl KnownTree {
    /// The tree `id` as it is known now.
    #[must_use]
    pub fn now(id: TreeId, tree: Remembered) -> KnownTree {
        // Before 1970 no clock is right.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        KnownTree { id, known_unix_seconds: since.as_secs(), tree }
    }

    /// What is written.
    #[must_use]
    pub fn into_file(self) -> TreeFile {
        let KnownTree { id, known_unix_seconds, tree } = self;
        TreeFile { id, known_unix_seconds, tree }
    }
}

/// The room of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that are free for this user, where the store keeps its files.
    pub free_bytes: u64,
    /// Bytes in all there.
    pub total_bytes: u64,
}

/// One content that is open: some of its chunks. When the last reference is dropped, what is there stays in the store.
pub trait Stored: Any + Send + Sync {
    /// Writes all of chunk number `chunk`, which is `frames` one after the other, and remembers its hash. When it has ended
    /// well, [`Stored::read`] finds it.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::StorageFull`] if it is full, or nearly so; [`io::ErrorKind::InvalidInput`] if
    /// the frames are not as long as the chunk. The chunk is not there then; writing it again is fine.
    fn write(self: Arc<Self>, chunk: u64, frames: Vec<Bytes>) -> BoxFuture<'static, io::Result<()>>;

    /// Fills `into` with the bytes at `offset`, whose chunks are all there.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::UnexpectedEof`] if there are fewer bytes: never a short answer.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// The file that holds its bytes and nothing else, if it is kept in one: what has all its chunks can be read there,
    /// for as long as the file is open, whatever becomes of the content. Not to be written.
    fn file(&self) -> Option<Arc<File>> {
        None
    }

    /// All bytes of chunk number `chunk`, as they lie there.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::UnexpectedEof`] if it is not there.
    fn read_chunk(self: Arc<Self>, chunk: u64) -> BoxFuture<'static, io::Result<Bytes>>;

    /// Reads chunk number `chunk` and compares it with the hash that is remembered. If it is another one, or none is, the
    /// chunk is forgotten: it is not there any more.
    ///
    /// # Errors
    /// What the disk says. The chunk is as it was then.
    fn verify(self: Arc<Self>, chunk: u64) -> BoxFuture<'static, io::Result<bool>>;

    /// As [`Stored::verify`], with the hash that its owner says it has: for a chunk that is only claimed.
    ///
    /// # Errors
    /// As for [`Stored::verify`].
    fn verify_against(self: Arc<Self>, chunk: u64, hash: u64) -> BoxFuture<'static, io::Result<bool>>;

    /// The xxh3 (64 bits, no seed) of chunk number `chunk`, if it is there and was not only claimed.
    fn hash_of(&self, chunk: u64) -> Option<u64>;

    /// The owner has it at `path` now.
    fn note_path(&self, path: &RelPath);

    /// What is stored of it goes when the last reference is dropped. Until then it can be read.
    fn discard(&self);

    /// Makes a complete content an ordinary file at `target`, with this mode, modification time and these extended
    /// attributes, as far as its disk takes them, durable when it returns. Never overwrites. The store does not hold it any more then; it can still be read.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if something is there; otherwise what the disk says. The content is as before
    /// then, and it may be tried again.
    fn keep(
        self: Arc<Self>,
        target: PathBuf,
        mode: u16,
        modified: FileTime,
        xattrs: Xattrs,
    ) -> BoxFuture<'static, io::Result<()>>;

    /// Makes the bytes of a complete content a file `name` in the directory `to`, where nothing has that name: the very file
    /// of the store where the file systems allow that, otherwise a copy. Its mode is its owner's alone, its time any, and
    /// it is not durable. The content stays the store's. Waits for the disk.
    ///
    /// Whoever writes to that file before [`Stored::give_away`] spoils the content. After that it can be lent again, as
    /// long as nobody has written to what was given away.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if something is there; [`io::ErrorKind::InvalidData`] if somebody has written to it;
    /// otherwise what the disk says.
    fn lend(&self, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()>;

    /// What was lent belongs to others now: the store does not hold the content any more. It can still be read, as long as
    /// nobody writes to the file. Waits for the disk.
    ///
    /// # Errors
    /// What the disk says: the store may still have some of it, which the next start removes.
    fn give_away(&self) -> io::Result<()>;
}

/// Whether `frames` are chunk number `chunk` of a content of `size_bytes`, and what they hash to.
fn hash_chunk(chunk: u64, frames: &[Bytes], size_bytes: u64) -> io::Result<u64> {
    let range = chunk_range(chunk, size_bytes);
    let len: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
    if range.is_empty() || len != range.end - range.start {
        let text = format!("{len} bytes are not chunk {chunk} of a content of {size_bytes}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut hasher = Xxh3::new();
    frames.iter().for_each(|frame| hasher.update(frame));
    Ok(hasher.digest())
}

/// Whether bytes that are read lie in their content.
fn check_read(offset: u64, len: usize, size_bytes: u64) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= size_bytes => Ok(()),
        Some(_) | None => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a read goes beyond the end of the content"))
        }
    }
}

/// What whoever comes too late is told.
fn closed() -> io::Error {
    io::Error::other("the store is closed")
}

/// Contents of another store can be saved only there.
fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the content belongs to another store")
}
