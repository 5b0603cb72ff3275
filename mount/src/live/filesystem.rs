//! The kernel's calls, one by one: each is done in the folder before it is answered.

use super::attributes::{NewAttributes, NewTime};
use super::files::{How, OpenFile, Part, Readable, may_be_mapped};
use super::inodes::{Kept, Place};
use super::listing::{Entry, OpenDir};
use super::mapped::Looking;
use super::names::New;
use super::stat::{file_attr, file_type};
use super::volume::{Caller, Live, Outcome, Seen};
use super::waiting::{Held, Tried, Turn, settle};
use crate::fuse::attr::{GENERATION, TTL, no_entry};
use crate::fuse::filesystem::{MAX_BACKGROUND, MAX_READ_BYTES, NAME_MAX, refused, send_bytes, send_xattr};
use crate::fuse::passthrough::Passthrough;
use crate::fuse::pending::{Pending, Refuse};
use crate::fuse::{MountError, MountOptions, Mounted, Operation, Stats};
use farshore_engine::{Handle, Ino};
use fuser::{
    BackingId, BsdFileFlags, CopyFileRangeFlags, FileHandle, FopenFlags, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, TimeOrNow,
    WriteFlags,
};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// What the kernel is asked to do, as far as it can:
///  - several reads and writes of one file, and several calls in one directory, at once;
///  - writes of more than a page;
///  - listings with attributes when a program looks at them, and targets of symlinks remembered;
///  - cached bytes dropped when a new size or modification time is seen.
///
/// And to leave the loss of set-id bits to us, when a file is written by who may not keep them: else it asks before every
/// write what capabilities the file has, also of a file that it writes by itself. These the disk takes care of.
///
/// It is not asked to leave locks to us: it keeps them itself, which is right among the programs of one machine. Nor to
/// leave the mask of a program to us: it takes care of that before it asks. Nor to tell with an
/// open that the file is to be cut: it asks for that afterwards, when it has seen that this may be (no program runs from it).
const CAPABILITIES: InitFlags = InitFlags::FUSE_ASYNC_READ
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_BIG_WRITES)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_READDIRPLUS_AUTO)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_AUTO_INVAL_DATA)
    .union(InitFlags::FUSE_HANDLE_KILLPRIV_V2);

/// How many threads take requests at least: they wait for the disk.
const LEAST_THREADS: usize = 8;

/// Mounts a folder on `mountpoint`, an empty directory outside of it, and serves it in threads of its own.
///
/// # Errors
/// What is wrong with the mountpoint or with the machine, and what to do about it.
pub fn mount(folder: Arc<Live>, mountpoint: &Path, options: MountOptions) -> Result<Mounted, MountError> {
    let options = MountOptions { threads: options.threads.max(LEAST_THREADS), ..options };
    let notified = Arc::clone(&folder);
    let passthrough = options.passthrough_from_bytes.map(Passthrough::new);
    let looking = match &passthrough {
        Some(_) => Looking::start(Arc::clone(&folder)).map(Some),
        None => Ok(None),
    };
    let looking = looking.map_err(|error| MountError::System {
        doing: "start a thread for",
        path: mountpoint.to_owned(),
        error,
    })?;
    let make = move |stats| FileSystem { folder, stats, passthrough, _looking: looking };
    Mounted::serve(mountpoint, options, make, move |notifier| {
        // A folder is mounted once.
        let _ = notified.notifier.set(notifier);
    })
}

/// The folder as the library drives it.
struct FileSystem {
    folder: Arc<Live>,
    stats: Arc<Stats>,
    /// What the kernel reads and writes by itself, unless that is not wanted.
    passthrough: Option<Passthrough<BackingId>>,
    /// Looks at what is written past us.
    _looking: Option<Looking>,
}

impl FileSystem {
    /// Answers with what came of a call.
    fn answer<R: Refuse, T>(
        &self,
        operation: Operation,
        reply: R,
        call: impl FnOnce(&Live) -> Outcome<T>,
        send: impl FnOnce(R, T),
    ) {
        let reply = Pending::new(operation, reply, &self.stats);
        end(reply, call(&self.folder), send);
    }

    /// Answers with what comes of a call that may have to wait.
    fn answer_in_time<R: Refuse + Send + 'static, T: Send + 'static>(
        &self,
        operation: Operation,
        reply: R,
        call: impl Fn(&Live, Turn) -> Tried<T> + Send + 'static,
        send: impl FnOnce(R, T) + Send + 'static,
    ) {
        let reply = Pending::new(operation, reply, &self.stats);
        settle(&self.folder, Box::new(call), Box::new(move |outcome| end(reply, outcome, send)));
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, flags: AtFlags, reply: ReplyEmpty) {
        let place = Place::new(parent.0, name.as_bytes());
        let remove = move |folder: &Live, turn| folder.remove(&place, flags, turn);
        self.answer_in_time(Operation::Remove, reply, remove, done);
    }

    /// What the kernel reads and writes by itself when it reads and writes what was opened as `handle`, if it can.
    fn backing<R: Refuse + Register>(
        &self,
        number: u64,
        handle: u64,
        reply: &mut Pending<R>,
    ) -> Option<Arc<BackingId>> {
        let passthrough = self.passthrough.as_ref()?;
        let file = |from_bytes| self.folder.files.get(handle).ok().filter(|open| open.is_worth_passing(from_bytes));
        let register = |open: &Arc<OpenFile>| {
            let file = open.in_folder().ok_or(io::ErrorKind::NotFound)?;
            reply.edit(|reply| reply.register(file)).ok_or(io::ErrorKind::NotConnected)?
        };
        let backing = passthrough.open(Ino(number), Handle(handle), file, register)?;
        self.folder.passes(handle);
        self.stats.has_passed_through();
        Some(backing)
    }

    fn make(&self, request: &fuser::Request, parent: INodeNo, name: &OsStr, new: New<'_>, reply: ReplyEntry) {
        let make = |folder: &Live| folder.make(parent.0, name.as_bytes(), new, caller(request));
        self.answer(Operation::Make, reply, make, entry);
    }
}

impl fuser::Filesystem for FileSystem {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = CAPABILITIES & config.capabilities();
        config.add_capabilities(wanted).map_err(|missing| refused("capabilities", missing))?;
        config.set_max_write(MAX_READ_BYTES).map_err(|nearest| refused("max_write", nearest))?;
        config.set_max_background(MAX_BACKGROUND).map_err(|nearest| refused("max_background", nearest))?;
        self.passthrough.as_ref().map_or(Ok(()), |passthrough| passthrough.offer(config))
    }

    fn lookup(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let look = |folder: &Live| match folder.lookup(parent.0, name.as_bytes()) {
            Ok(seen) => Ok(Some(seen)),
            // The kernel remembers that too.
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        };
        self.answer(Operation::Lookup, reply, look, |reply, found| match found {
            Some(seen) => entry(reply, seen),
            None => reply.entry(&TTL, &no_entry(crate::fuse::Owner { uid: 0, gid: 0 }), GENERATION),
        });
    }

    fn forget(&self, _: &fuser::Request, ino: INodeNo, lookups: u64) {
        self.folder.inodes.forget(ino.0, lookups);
    }

    fn getattr(&self, _: &fuser::Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(Operation::Getattr, reply, |folder| folder.attributes(ino.0), attributes);
    }

    fn setattr(
        &self,
        request: &fuser::Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (accessed, modified) = (new_time(accessed), new_time(modified));
        let handle = handle.map(|handle| handle.0);
        // The library does not hand on what the kernel says to this.
        let loses_set_ids = request.uid() != 0;
        let new = NewAttributes { mode, uid, gid, size, accessed, modified, handle, loses_set_ids };
        let set = move |folder: &Live, turn| folder.set_attributes(ino.0, new, turn);
        self.answer_in_time(Operation::Setattr, reply, set, attributes);
    }

    fn readlink(&self, _: &fuser::Request, ino: INodeNo, reply: ReplyData) {
        let read = |folder: &Live| rustix::fs::readlinkat(&*folder.anchor(ino.0)?, c"", Vec::new());
        self.answer(Operation::Readlink, reply, read, |reply, target| reply.data(target.as_bytes()));
    }

    fn mknod(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        self.make(request, parent, name, New::Node { mode, device }, reply);
    }

    fn mkdir(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.make(request, parent, name, New::Directory { mode }, reply);
    }

    fn symlink(&self, request: &fuser::Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.make(request, parent, name, New::Symlink { target: target.as_os_str().as_bytes() }, reply);
    }

    fn link(&self, _: &fuser::Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let place = Place::new(parent.0, name.as_bytes());
        self.answer_in_time(Operation::Link, reply, move |folder, _| folder.link(ino.0, &place), entry);
    }

    fn unlink(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, AtFlags::empty(), reply);
    }

    fn rmdir(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, AtFlags::REMOVEDIR, reply);
    }

    fn rename(
        &self,
        _: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (Place::new(parent.0, name.as_bytes()), Place::new(new_parent.0, new_name.as_bytes()));
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let rename = move |folder: &Live, turn| folder.rename(&from, &to, flags, turn);
        self.answer_in_time(Operation::Rename, reply, rename, done);
    }

    fn create(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let flags = open_flags(flags);
        let create = |folder: &Live| folder.create(parent.0, name.as_bytes(), mode, flags, caller(request));
        let mut reply = Pending::new(Operation::Create, reply, &self.stats);
        let (seen, handle) = match create(&self.folder) {
            Ok(created) => created,
            Err(error) => return refuse(reply, error),
        };
        let attr = file_attr(&seen);
        match self.backing(seen.number, handle, &mut reply) {
            Some(backing) => reply.send(|reply| {
                let flags = passed_flags(flags);
                reply.created_passthrough(&TTL, &attr, GENERATION, FileHandle(handle), flags, &backing);
            }),
            None => reply.send(|reply| {
                reply.created(&TTL, &attr, GENERATION, FileHandle(handle), cache_flags(flags, true));
            }),
        }
    }

    fn open(&self, _: &fuser::Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = open_flags(flags.0);
        let mut reply = Pending::new(Operation::Open, reply, &self.stats);
        let (handle, is_good) = match self.folder.open_file(ino.0, flags) {
            Ok(opened) => opened,
            Err(error) => return refuse(reply, error),
        };
        match self.backing(ino.0, handle, &mut reply) {
            Some(backing) => {
                reply.send(|reply| reply.opened_passthrough(FileHandle(handle), passed_flags(flags), &backing));
            }
            None => reply.send(|reply| reply.opened(FileHandle(handle), cache_flags(flags, is_good))),
        }
    }

    fn read(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let reply = Pending::new(Operation::Read, reply, &self.stats);
        let open = match self.folder.files.get(handle.0) {
            Ok(open) => open,
            Err(error) => return refuse(reply, error),
        };
        match self.folder.readable(&open) {
            Ok(Readable::Here(file)) => self.read_here(file, offset, size, reply),
            Ok(Readable::Away(away)) => {
                let stats = Arc::clone(&self.stats);
                let read = move |read: super::Read| match read {
                    Ok(bytes) => send_bytes(reply, &*bytes, size, &stats),
                    Err(error) => reply.refuse(crate::fuse::errno(error)),
                };
                away.read(offset, size, Box::new(read));
            }
            Err(error) => refuse(reply, error),
        }
    }

    fn write(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // What the kernel writes by itself, from a memory map, has its place.
        let append = open_flags(flags.0).contains(OFlags::APPEND) && !how.contains(WriteFlags::FUSE_WRITE_CACHE);
        let part = Part { handle: handle.0, offset };
        let how = How { append, loses_set_ids: how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) };
        let reply = Pending::new(Operation::Write, reply, &self.stats);
        match self.folder.write(part, data, how) {
            Ok(bytes) => end(reply, Ok(bytes), written),
            Err(Held::Failed(error)) => refuse(reply, error),
            // The kernel's own buffer is needed for what it asks next.
            Err(Held::ForTurn | Held::ForFile(_)) => {
                let data = data.to_vec();
                let write = move |folder: &Live, _| folder.write(part, &data, how);
                settle(&self.folder, Box::new(write), Box::new(move |outcome| end(reply, outcome, written)));
            }
        }
    }

    fn flush(&self, _: &fuser::Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.answer(Operation::Flush, reply, |folder| folder.flush(handle.0), done);
    }

    fn fsync(&self, _: &fuser::Request, _: INodeNo, handle: FileHandle, is_data_only: bool, reply: ReplyEmpty) {
        self.answer(Operation::Fsync, reply, |folder| folder.sync(handle.0, is_data_only), done);
    }

    fn release(
        &self,
        _: &fuser::Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(passthrough) = &self.passthrough {
            passthrough.release(Ino(ino.0), Handle(handle.0));
        }
        self.answer(Operation::Release, reply, |folder| folder.release(handle.0), done);
    }

    fn opendir(&self, _: &fuser::Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer(
            Operation::Open,
            reply,
            |folder| folder.open_dir(ino.0),
            |reply, (handle, kept)| {
                reply.opened(FileHandle(handle), listing_flags(kept));
            },
        );
    }

    fn readdir(&self, _: &fuser::Request, _: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let mut reply = Pending::new(Operation::Readdir, reply, &self.stats);
        let listed = self.folder.list(handle.0, offset, |open, entry| {
            let number = INodeNo(self.folder.number_of(open, entry));
            let (kind, name) = (file_type(entry.kind), OsStr::from_bytes(&entry.name));
            reply.edit(|reply| reply.add(number, entry.cookie, kind, name)) == Some(false)
        });
        end(reply, listed, |reply, ()| reply.ok());
    }

    fn readdirplus(&self, _: &fuser::Request, _: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let mut reply = Pending::new(Operation::Readdirplus, reply, &self.stats);
        let listed = self.folder.list(handle.0, offset, |open, entry| {
            reply.edit(|reply| self.folder.add(reply, open, entry)) == Some(true)
        });
        end(reply, listed, |reply, ()| reply.ok());
    }

    fn releasedir(&self, _: &fuser::Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.answer(Operation::Release, reply, |folder| folder.release_dir(handle.0), done);
    }

    fn fsyncdir(&self, _: &fuser::Request, _: INodeNo, handle: FileHandle, is_data_only: bool, reply: ReplyEmpty) {
        self.answer(Operation::Fsync, reply, |folder| folder.sync_dir(handle.0, is_data_only), done);
    }

    fn statfs(&self, _: &fuser::Request, _: INodeNo, reply: ReplyStatfs) {
        self.answer(Operation::Statfs, reply, Live::statfs, |reply, all| {
            let (blocks, free, available) = (all.blocks, all.blocks_free, all.blocks_available);
            reply.statfs(
                blocks,
                free,
                available,
                all.files,
                all.files_free,
                all.block_bytes,
                NAME_MAX,
                all.block_bytes,
            );
        });
    }

    fn setxattr(
        &self,
        _: &fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let (name, value) = (name.to_owned(), value.to_vec());
        let set = move |folder: &Live, turn| folder.set_extended(ino.0, &name, &value, flags, turn);
        self.answer_in_time(Operation::Xattr, reply, set, done);
    }

    fn getxattr(&self, _: &fuser::Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let send = move |reply, value: Vec<u8>| send_xattr(reply, &value, size);
        self.answer(Operation::Xattr, reply, |folder| folder.extended(ino.0, name), send);
    }

    fn listxattr(&self, _: &fuser::Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let send = move |reply, names: Vec<u8>| send_xattr(reply, &names, size);
        self.answer(Operation::Xattr, reply, |folder| folder.list_extended(ino.0), send);
    }

    fn removexattr(&self, _: &fuser::Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        let remove = move |folder: &Live, turn| folder.remove_extended(ino.0, &name, turn);
        self.answer_in_time(Operation::Xattr, reply, remove, done);
    }

    fn fallocate(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let part = Part { handle: handle.0, offset };
        self.answer_in_time(Operation::Write, reply, move |folder, _| folder.allocate(part, len, mode), done);
    }

    fn lseek(&self, _: &fuser::Request, _: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let seek = |folder: &Live| {
            let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
            let found = folder.seek(Part { handle: handle.0, offset }, whence)?;
            i64::try_from(found).map_err(|_| Errno::OVERFLOW)
        };
        self.answer(Operation::Read, reply, seek, ReplyLseek::offset);
    }

    fn copy_file_range(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = (Part { handle: from.0, offset: from_offset }, Part { handle: to.0, offset: to_offset });
        self.answer_in_time(Operation::Write, reply, move |folder, _| folder.copy(from, to, len), written);
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
}

/// A reply to an open, which can make a file known to the kernel.
trait Register {
    fn register(&self, file: &OwnedFd) -> io::Result<BackingId>;
}

impl Register for ReplyOpen {
    fn register(&self, file: &OwnedFd) -> io::Result<BackingId> {
        self.open_backing(file)
    }
}

impl Register for ReplyCreate {
    fn register(&self, file: &OwnedFd) -> io::Result<BackingId> {
        self.open_backing(file)
    }
}

thread_local! {
    /// Where bytes are put together for the kernel. Kept, so that a read allocates nothing.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl FileSystem {
    fn read_here(&self, file: &OwnedFd, offset: u64, size: u32, reply: Pending<ReplyData>) {
        BUFFER.with_borrow_mut(|buffer| {
            // The kernel asks for no more than it was told that it may.
            let wanted = size.min(MAX_READ_BYTES) as usize;
            if buffer.len() < wanted {
                buffer.resize(wanted, 0);
            }
            end(reply, Live::read(file, offset, &mut buffer[..wanted]), |reply, len| {
                self.stats.has_read(len);
                reply.data(&buffer[..len]);
            });
        });
    }
}

impl Live {
    /// Adds an entry to a listing with attributes. Returns whether there was room.
    fn add(&self, reply: &mut ReplyDirectoryPlus, open: &OpenDir, entry: &Entry) -> bool {
        let name = OsStr::from_bytes(&entry.name);
        // The kernel takes no attributes of these two, and does not count them as known.
        let is_dot = matches!(&*entry.name, b"." | b"..");
        let seen = match self.look_at(open, entry) {
            Some(look) if is_dot => self.seen(self.number_of(open, entry), look),
            Some(look) => self.met(Live::place_of(open, entry), look),
            None => return true,
        };
        let is_full = reply.add(INodeNo(seen.number), entry.cookie, name, &TTL, &file_attr(&seen), GENERATION);
        if is_full && !is_dot {
            self.inodes.forget(seen.number, 1);
        }
        !is_full
    }
}

fn end<R: Refuse, T>(reply: Pending<R>, result: Outcome<T>, send: impl FnOnce(R, T)) {
    match result {
        Ok(done) => reply.send(|reply| send(reply, done)),
        Err(error) => refuse(reply, error),
    }
}

fn refuse<R: Refuse>(reply: Pending<R>, error: Errno) {
    reply.refuse(fuser::Errno::from_i32(error.raw_os_error()));
}

fn entry(reply: ReplyEntry, seen: Seen) {
    reply.entry(&TTL, &file_attr(&seen), GENERATION);
}

fn attributes(reply: ReplyAttr, seen: Seen) {
    reply.attr(&TTL, &file_attr(&seen));
}

fn done(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

fn written(reply: ReplyWrite, bytes: usize) {
    // At most as many as the kernel offered, which counts in 32 bits.
    reply.written(bytes as u32);
}

/// What the kernel keeps of a file's bytes when it is opened. Only what is written through a memory map has to be flushed:
/// everything else is on the disk before the program hears that it is written.
fn cache_flags(flags: OFlags, is_good: bool) -> FopenFlags {
    let mut cache = FopenFlags::empty();
    cache.set(FopenFlags::FOPEN_KEEP_CACHE, is_good);
    cache.set(FopenFlags::FOPEN_NOFLUSH, !may_be_mapped(flags));
    cache
}

/// The same, of a file that the kernel reads and writes by itself. It keeps nothing that it has cached before, and takes no other
/// answer.
fn passed_flags(flags: OFlags) -> FopenFlags {
    cache_flags(flags, false)
}

/// What the kernel keeps of a directory's list when it is opened.
fn listing_flags(kept: Kept) -> FopenFlags {
    match kept {
        Kept::Good => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        Kept::Old => FopenFlags::FOPEN_CACHE_DIR,
        Kept::Others => FopenFlags::FOPEN_KEEP_CACHE,
    }
}

fn open_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}

fn caller(request: &fuser::Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

fn new_time(time: Option<TimeOrNow>) -> NewTime {
    match time {
        None => NewTime::Omitted,
        Some(TimeOrNow::Now) => NewTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => NewTime::At(time),
    }
}
