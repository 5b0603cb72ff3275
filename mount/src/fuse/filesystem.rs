//! The kernel's calls, one by one: each becomes a request to the host, and its answer the reply.
//!
//! No call waits here. A read that the host cannot answer yet keeps its reply inside the host, so it costs memory and
//! not a thread.

use super::attr::{GENERATION, TTL, file_attr, no_entry};
use super::directory::{Filling, Listing, pages_per_reply};
use super::errno::name_errno;
use super::host::{Answer, Host, Readable};
use super::options::Owner;
use super::passthrough::Passthrough;
use super::pending::{Pending, Refuse};
use super::stats::{Operation, Stats};
use farshore_engine::path::{NAME_MAX_BYTES, Name};
use farshore_engine::xattrs::XATTR_PREFIX;
use farshore_engine::{Errno, Handle, Ino, Opened, Reply, Request, Xattrs};
use fuser::{
    BackingId, BsdFileFlags, CopyFileRangeFlags, FileHandle, FopenFlags, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, TimeOrNow,
    WriteFlags,
};
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// The most that the kernel reads or writes at once, in bytes; also what each thread that answers reads keeps for it.
pub(crate) const MAX_READ_BYTES: u32 = 1024 * 1024;

/// The longest name, in bytes, as `statfs` tells it.
pub(crate) const NAME_MAX: u32 = 255;
const _: () = assert!(NAME_MAX as usize == NAME_MAX_BYTES);

/// How many reads ahead of a program may wait at once. The kernel's own 16 would let one slow file stop all others.
pub(crate) const MAX_BACKGROUND: u16 = 512;

/// What the kernel is asked to do, as far as it can:
///  - several reads of one file, and several calls in one directory, at once;
///  - listings with attributes when a program looks at them, and targets of symlinks remembered;
///  - cached bytes dropped when a new size or modification time is seen. The notifier does that as well, but a
///    page that ends in the middle must never be seen together with a larger size: it would show zeros.
const CAPABILITIES: InitFlags = InitFlags::FUSE_ASYNC_READ
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_READDIRPLUS_AUTO)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_AUTO_INVAL_DATA)
    .union(InitFlags::FUSE_NO_OPENDIR_SUPPORT);

/// The file system as the library drives it.
pub(super) struct FileSystem<H: Host> {
    host: Arc<H>,
    owner: Owner,
    stats: Arc<Stats>,
    /// What the kernel reads by itself, unless that is not wanted.
    passthrough: Option<Arc<Passthrough<BackingId>>>,
    /// Whether the kernel opens and caches directories by itself once it is told that we need not know.
    opens_dirs_itself: bool,
    /// How many pages of a listing one reply may take.
    pages_per_reply: u32,
}

impl<H: Host> FileSystem<H> {
    /// Shows what `host` has, everything belonging to `owner`. Files of at least `passthrough_from_bytes` are read by the
    /// kernel itself where that is possible.
    pub(super) fn new(
        host: Arc<H>,
        owner: Owner,
        passthrough_from_bytes: Option<u64>,
        stats: Arc<Stats>,
    ) -> FileSystem<H> {
        let passthrough = passthrough_from_bytes.map(|from_bytes| Arc::new(Passthrough::new(from_bytes)));
        FileSystem { host, owner, stats, passthrough, opens_dirs_itself: false, pages_per_reply: 1 }
    }

    fn pending<R: Refuse>(&self, operation: Operation, reply: R) -> Pending<R> {
        Pending::new(operation, reply, &self.stats)
    }

    fn with_xattrs(
        &self,
        ino: INodeNo,
        reply: ReplyXattr,
        answer: impl FnOnce(Pending<ReplyXattr>, Xattrs) + Send + 'static,
    ) {
        let reply = self.pending(Operation::Xattr, reply);
        self.host.ask(Request::Xattrs { ino: Ino(ino.0) }, move |found| match found {
            Ok(Answer::Reply(Reply::Xattrs(xattrs))) => answer(reply, xattrs),
            failed => reply.fail(failed),
        });
    }

    fn list<L: Listing>(&self, dir: INodeNo, after: u64, reply: Pending<L>) {
        let filling = Filling {
            host: Arc::clone(&self.host),
            owner: self.owner,
            dir: Ino(dir.0),
            reply,
            after,
            pages_left: self.pages_per_reply,
        };
        filling.start();
    }
}

/// What this version answers to everything that would change something.
const READ_ONLY: fuser::Errno = fuser::Errno::EROFS;

impl<H: Host> fuser::Filesystem for FileSystem<H> {
    fn init(&mut self, _request: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = CAPABILITIES & config.capabilities();
        config.add_capabilities(wanted).map_err(|missing| refused("capabilities", missing))?;
        config.set_max_write(MAX_READ_BYTES).map_err(|nearest| refused("max_write", nearest))?;
        config.set_max_background(MAX_BACKGROUND).map_err(|nearest| refused("max_background", nearest))?;
        self.opens_dirs_itself = wanted.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        self.pages_per_reply = pages_per_reply(config.kernel_abi());
        self.passthrough.as_ref().map_or(Ok(()), |passthrough| passthrough.offer(config))
    }

    fn lookup(&self, _request: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let reply = self.pending(Operation::Lookup, reply);
        let name = match Name::new(name.as_bytes()) {
            Ok(name) => name,
            Err(error) => return reply.refuse(name_errno(error)),
        };
        let owner = self.owner;
        self.host.ask(Request::Lookup { parent: Ino(parent.0), name }, move |answer| match answer {
            Ok(Answer::Reply(Reply::Entry(attr))) => {
                reply.send(|reply| reply.entry(&TTL, &file_attr(&attr, owner), GENERATION));
            }
            Err(Errno::NoEntry) => reply.send(|reply| reply.entry(&TTL, &no_entry(owner), GENERATION)),
            failed => reply.fail(failed),
        });
    }

    fn forget(&self, _request: &fuser::Request, ino: INodeNo, lookups: u64) {
        self.host.forget(Ino(ino.0), lookups);
    }

    fn getattr(&self, _request: &fuser::Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let reply = self.pending(Operation::Getattr, reply);
        let owner = self.owner;
        self.host.ask(Request::GetAttr { ino: Ino(ino.0) }, move |answer| match answer {
            Ok(Answer::Reply(Reply::Attr(attr))) => reply.send(|reply| reply.attr(&TTL, &file_attr(&attr, owner))),
            failed => reply.fail(failed),
        });
    }

    fn readlink(&self, _request: &fuser::Request, ino: INodeNo, reply: ReplyData) {
        let reply = self.pending(Operation::Readlink, reply);
        self.host.ask(Request::ReadLink { ino: Ino(ino.0) }, move |answer| match answer {
            Ok(Answer::Reply(Reply::Target(target))) => reply.send(|reply| reply.data(&target)),
            failed => reply.fail(failed),
        });
    }

    fn open(&self, _request: &fuser::Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let reply = self.pending(Operation::Open, reply);
        let write = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => flags.0 & libc::O_TRUNC != 0,
            OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR => true,
        };
        let (host, stats, passthrough) = (Arc::clone(&self.host), Arc::clone(&self.stats), self.passthrough.clone());
        let whole_from = passthrough.as_ref().and_then(|passthrough| passthrough.smallest_bytes());
        let ino = Ino(ino.0);
        self.host.ask(Request::Open { ino, write, whole_from }, move |answer| match answer {
            Ok(Answer::Reply(Reply::Opened(opened))) => {
                let mut reply = reply;
                let backing = passthrough.and_then(|through| backing_of(&through, &*host, ino, &opened, &mut reply));
                send_opened(reply, opened.handle, backing.as_deref(), &stats);
            }
            failed => reply.fail(failed),
        });
    }

    fn read(
        &self,
        _request: &fuser::Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let reply = self.pending(Operation::Read, reply);
        let stats = Arc::clone(&self.stats);
        self.host.ask(Request::Read { handle: Handle(handle.0), offset, len: size }, move |answer| match answer {
            Ok(Answer::Bytes(bytes)) => send_bytes(reply, &bytes, size, &stats),
            failed => reply.fail(failed),
        });
    }

    /// Only kernels that do not know `FOPEN_NOFLUSH` ask. Nothing is ever unwritten.
    fn flush(
        &self,
        _request: &fuser::Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &fuser::Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let reply = self.pending(Operation::Release, reply);
        if let Some(passthrough) = &self.passthrough {
            passthrough.release(Ino(ino.0), Handle(handle.0));
        }
        self.host.ask(Request::Release { handle: Handle(handle.0) }, move |answer| match answer {
            Ok(Answer::Reply(Reply::Released)) => reply.send(ReplyEmpty::ok),
            failed => reply.fail(failed),
        });
    }

    /// Directories need no handle. A kernel that is told ENOSYS does not ask again, and caches listings just as
    /// this answer lets others do.
    fn opendir(&self, _request: &fuser::Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.opens_dirs_itself {
            reply.error(fuser::Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn readdir(
        &self,
        _request: &fuser::Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.list(ino, offset, self.pending(Operation::Readdir, reply));
    }

    fn readdirplus(
        &self,
        _request: &fuser::Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.list(ino, offset, self.pending(Operation::Readdirplus, reply));
    }

    fn releasedir(
        &self,
        _request: &fuser::Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    /// Programs disagree on whether the block size or the fragment size is the unit of the counts, so they are one.
    fn statfs(&self, _request: &fuser::Request, _ino: INodeNo, reply: ReplyStatfs) {
        let reply = self.pending(Operation::Statfs, reply);
        match self.host.statfs() {
            Ok(all) => reply.send(|reply| {
                reply.statfs(
                    all.blocks,
                    all.blocks_free,
                    all.blocks_available,
                    all.files,
                    all.files_free,
                    all.block_bytes,
                    NAME_MAX,
                    all.block_bytes,
                );
            }),
            Err(error) => {
                tracing::warn!(%error, "the store does not say how full it is");
                reply.refuse(fuser::Errno::EIO);
            }
        }
    }

    fn getxattr(&self, _: &fuser::Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        // All others mean something only on the machine that they are on.
        if !name.as_bytes().starts_with(XATTR_PREFIX) {
            return reply.error(fuser::Errno::EOPNOTSUPP);
        }
        let name = name.to_owned();
        self.with_xattrs(ino, reply, move |reply, xattrs| match xattrs.get(name.as_bytes()) {
            Some(value) => reply.send(|reply| send_xattr(reply, value, size)),
            None => reply.refuse(fuser::Errno::NO_XATTR),
        });
    }

    fn listxattr(&self, _: &fuser::Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.with_xattrs(ino, reply, move |reply, xattrs| reply.send(|reply| send_xattr(reply, &xattrs.list(), size)));
    }

    // Nothing is ever unwritten: the kernel remembers ENOSYS and lets `fsync` succeed by itself.

    fn fsync(&self, _: &fuser::Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn fsyncdir(&self, _: &fuser::Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    /// No file here knows any; ENOTTY is how a file says so.
    fn ioctl(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    // On a mount with `ro` the kernel refuses all of the following by itself.

    fn setattr(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(READ_ONLY);
    }

    fn mknod(&self, _: &fuser::Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(READ_ONLY);
    }

    fn mkdir(&self, _: &fuser::Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(READ_ONLY);
    }

    fn unlink(&self, _: &fuser::Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(READ_ONLY);
    }

    fn rmdir(&self, _: &fuser::Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(READ_ONLY);
    }

    fn symlink(&self, _: &fuser::Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(READ_ONLY);
    }

    fn rename(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(READ_ONLY);
    }

    fn link(&self, _: &fuser::Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(READ_ONLY);
    }

    fn write(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(READ_ONLY);
    }

    fn create(&self, _: &fuser::Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(READ_ONLY);
    }

    fn setxattr(&self, _: &fuser::Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(READ_ONLY);
    }

    fn removexattr(&self, _: &fuser::Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(READ_ONLY);
    }

    fn fallocate(&self, _: &fuser::Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(READ_ONLY);
    }

    fn copy_file_range(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(READ_ONLY);
    }
}

/// What the kernel reads by itself when it reads what was opened, if it can.
fn backing_of<H: Host>(
    passthrough: &Passthrough<BackingId>,
    host: &H,
    ino: Ino,
    opened: &Opened,
    reply: &mut Pending<ReplyOpen>,
) -> Option<Arc<BackingId>> {
    opened.whole?;
    let register =
        |file: &Arc<File>| reply.edit(|reply| reply.open_backing(file)).ok_or(io::ErrorKind::NotConnected)?;
    let large_enough = |file: &Arc<File>, from_bytes| file.metadata().is_ok_and(|meta| meta.len() >= from_bytes);
    let file = |from_bytes| host.backing(opened).filter(|file| large_enough(file, from_bytes));
    passthrough.open(ino, opened.handle, file, register)
}

/// Answers an open. A close has nothing to flush.
fn send_opened(reply: Pending<ReplyOpen>, handle: Handle, backing: Option<&BackingId>, stats: &Stats) {
    let (handle, flags) = (FileHandle(handle.0), FopenFlags::FOPEN_NOFLUSH);
    match backing {
        Some(backing) => {
            stats.has_passed_through();
            reply.send(|reply| reply.opened_passthrough(handle, flags, backing));
        }
        // What is cached stays good until the notifier says otherwise.
        None => reply.send(|reply| reply.opened(handle, flags | FopenFlags::FOPEN_KEEP_CACHE)),
    }
}

pub(crate) fn refused(what: &str, limit: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("the kernel does not take our {what} (its limit is {limit:?})"))
}

thread_local! {
    /// Where bytes are put together for the kernel. Kept, so that a read allocates nothing.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Answers with a value or a list of names; with no room for one with how long it is. Longer ones than that says the kernel does
/// not keep.
pub(crate) fn send_xattr(reply: ReplyXattr, value: &[u8], room_bytes: u32) {
    match room_bytes {
        0 => reply.size(value.len() as u32),
        room if value.len() > room as usize => reply.error(fuser::Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// Answers a read of `wanted` bytes: with all of `bytes` or with an error, because a short answer would be taken for
/// the end of the file.
pub(crate) fn send_bytes(reply: Pending<ReplyData>, bytes: &dyn Readable, wanted: u32, stats: &Stats) {
    let len = bytes.len();
    if len > wanted as usize {
        tracing::error!(len, wanted, "the answer to a read is longer than the read; the program gets EIO");
        return reply.refuse(fuser::Errno::EIO);
    }
    let mut buffer = BUFFER.take();
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    match bytes.read_into(&mut buffer[..len]) {
        Ok(()) => {
            stats.has_read(len);
            reply.send(|reply| reply.data(&buffer[..len]));
        }
        Err(error) => {
            tracing::warn!(%error, "bytes that were here cannot be read; the program gets EIO");
            reply.refuse(fuser::Errno::EIO);
        }
    }
    if buffer.len() <= MAX_READ_BYTES as usize {
        BUFFER.set(buffer);
    }
}
