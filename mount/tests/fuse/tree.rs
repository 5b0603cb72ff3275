//! A host for tests: a tree in memory that counts what the kernel knows of it, and whose files can be made to wait.

use farshore::fuse::{Answer, Host, Invalidation, Notifier, Readable, StatFs};
use farshore_engine::path::Name;
use farshore_engine::record::FileTime;
use farshore_engine::{
    Attr, AttrKind, ContentId, DirEntry, DirEntryName, Errno, Handle, Ino, Opened, Reply, Request, Xattrs,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What a node holds.
enum Holds {
    File(Arc<Vec<u8>>, Option<Arc<File>>),
    Dir(BTreeMap<Vec<u8>, u64>),
    Link(Vec<u8>),
}

struct Node {
    holds: Holds,
    parent: u64,
    mode: u16,
    modified: FileTime,
    xattrs: Xattrs,
}

type Waiting = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    handles: BTreeMap<u64, u64>,
    last_handle: u64,
    /// What the kernel was told and has not forgotten.
    lookups: BTreeMap<u64, i64>,
    /// Files that were whole when they were first opened, and are still open.
    bound: BTreeSet<u64>,
    /// Files whose reads wait.
    held: BTreeSet<u64>,
    waiting: Vec<(u64, Waiting)>,
    /// Files whose bytes turn out to be unreadable.
    broken: BTreeSet<u64>,
    /// The kinds of requests so far.
    counts: BTreeMap<&'static str, u64>,
}

/// A tree in memory.
pub(crate) struct Tree {
    state: Mutex<State>,
    notifier: OnceLock<Notifier>,
}

const ROOT: u64 = Ino::ROOT.0;

impl Tree {
    pub(crate) fn new() -> Tree {
        let mut state = State::default();
        let modified = FileTime { seconds: 1_000_000_000, nanos: 5 };
        state.nodes.insert(
            ROOT,
            Node { holds: Holds::Dir(BTreeMap::new()), parent: ROOT, mode: 0o755, modified, xattrs: Xattrs::default() },
        );
        Tree { state: Mutex::new(state), notifier: OnceLock::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, parent: u64, name: &[u8], mode: u16, holds: Holds) -> u64 {
        let mut state = self.lock();
        let ino = state.nodes.last_key_value().unwrap().0 + 1;
        let modified = FileTime { seconds: 1_000_000_000 + i64::try_from(ino).unwrap(), nanos: 123_456_789 };
        state.nodes.insert(ino, Node { holds, parent, mode, modified, xattrs: Xattrs::default() });
        state.dir(parent).unwrap().insert(name.to_vec(), ino);
        ino
    }

    pub(crate) fn file(&self, parent: u64, name: &[u8], bytes: Vec<u8>) -> u64 {
        self.add(parent, name, 0o644, Holds::File(Arc::new(bytes), None))
    }

    pub(crate) fn dir(&self, parent: u64, name: &[u8]) -> u64 {
        self.add(parent, name, 0o755, Holds::Dir(BTreeMap::new()))
    }

    pub(crate) fn link(&self, parent: u64, name: &[u8], target: &[u8]) -> u64 {
        self.add(parent, name, 0o777, Holds::Link(target.to_vec()))
    }

    /// What a file holds is in a file of its own from now on, which the kernel may be given when it is opened next.
    pub(crate) fn make_whole(&self, ino: u64) {
        let mut state = self.lock();
        let Holds::File(bytes, whole) = &mut state.nodes.get_mut(&ino).unwrap().holds else {
            panic!("{ino} is no file")
        };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        *whole = Some(Arc::new(file));
    }

    /// The kernel is given this file for the bytes of another one.
    pub(crate) fn back_with(&self, ino: u64, file: File) {
        let mut state = self.lock();
        let Holds::File(_, whole) = &mut state.nodes.get_mut(&ino).unwrap().holds else { panic!("{ino} is no file") };
        *whole = Some(Arc::new(file));
    }

    /// Takes a name away; the node stays for whoever has it open.
    pub(crate) fn unlink(&self, parent: u64, name: &[u8]) {
        self.lock().dir(parent).unwrap().remove(name);
    }

    /// Gives a file other bytes, and another time.
    pub(crate) fn write(&self, ino: u64, bytes: Vec<u8>) {
        let mut state = self.lock();
        let node = state.nodes.get_mut(&ino).unwrap();
        node.holds = Holds::File(Arc::new(bytes), None);
        node.modified.seconds += 1;
    }

    pub(crate) fn set_xattrs(&self, ino: u64, xattrs: Xattrs) {
        self.lock().nodes.get_mut(&ino).unwrap().xattrs = xattrs;
    }

    pub(crate) fn set_modified(&self, ino: u64, modified: FileTime) {
        self.lock().nodes.get_mut(&ino).unwrap().modified = modified;
    }

    /// Reads of this file wait from now on.
    pub(crate) fn hold(&self, ino: u64) {
        self.lock().held.insert(ino);
    }

    /// Reads of this file go on, the waiting ones from another thread.
    pub(crate) fn release(&self, ino: u64) {
        let mut state = self.lock();
        state.held.remove(&ino);
        let (go, stay) = std::mem::take(&mut state.waiting).into_iter().partition(|(of, _)| *of == ino);
        state.waiting = stay;
        drop(state);
        answer_elsewhere(go);
    }

    /// Answers everything that still waits.
    pub(crate) fn release_all(&self) {
        let mut state = self.lock();
        state.held.clear();
        let go = std::mem::take(&mut state.waiting);
        drop(state);
        answer_elsewhere(go);
    }

    /// Drops, without an answer, everything that waits. A defect, on purpose.
    pub(crate) fn lose_all(&self) {
        let lost = std::mem::take(&mut self.lock().waiting);
        drop(lost);
    }

    pub(crate) fn break_bytes(&self, ino: u64) {
        self.lock().broken.insert(ino);
    }

    /// How many reads of this file wait.
    pub(crate) fn waiting(&self, ino: u64) -> usize {
        self.lock().waiting.iter().filter(|(of, _)| *of == ino).count()
    }

    /// How many lookups of this node the kernel has not forgotten.
    pub(crate) fn lookups(&self, ino: u64) -> i64 {
        self.lock().lookups.get(&ino).copied().unwrap_or(0)
    }

    /// How many requests of this kind there were.
    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.lock().counts.get(kind).copied().unwrap_or(0)
    }

    pub(crate) fn open_handles(&self) -> usize {
        self.lock().handles.len()
    }

    pub(crate) fn inval_inode(&self, ino: u64, data: bool) {
        self.notifier.get().unwrap().send(Invalidation::Inode { ino: Ino(ino), data });
    }

    pub(crate) fn inval_entry(&self, parent: u64, name: &[u8]) {
        let name = Name::new(name).unwrap();
        self.notifier.get().unwrap().send(Invalidation::Entry { parent: Ino(parent), name });
    }
}

fn answer_elsewhere(waiting: Vec<(u64, Waiting)>) {
    if waiting.is_empty() {
        return;
    }
    let answering = std::thread::spawn(move || waiting.into_iter().for_each(|(_, answer)| answer()));
    answering.join().unwrap();
}

impl State {
    fn dir(&mut self, ino: u64) -> Result<&mut BTreeMap<Vec<u8>, u64>, Errno> {
        match &mut self.nodes.get_mut(&ino).ok_or(Errno::NoEntry)?.holds {
            Holds::Dir(entries) => Ok(entries),
            Holds::File(..) | Holds::Link(_) => Err(Errno::NotDir),
        }
    }

    fn attr(&self, ino: u64) -> Result<Attr, Errno> {
        let node = self.nodes.get(&ino).ok_or(Errno::NoEntry)?;
        let (kind, size_bytes, links) = match &node.holds {
            Holds::File(bytes, _) => (AttrKind::File, bytes.len() as u64, 1),
            Holds::Link(target) => (AttrKind::Symlink, target.len() as u64, 1),
            Holds::Dir(_) => (AttrKind::Dir, 0, 2),
        };
        Ok(Attr { ino: Ino(ino), kind, size_bytes, mode: node.mode, modified: node.modified, links })
    }

    /// Entries by inode number, which is their cookie, less two: 1 is `.`, 2 is `..`.
    fn list(&mut self, dir: u64, after: u64, budget_bytes: u32, plus: bool) -> Result<Vec<DirEntry>, Errno> {
        let parent = self.nodes.get(&dir).ok_or(Errno::NoEntry)?.parent;
        let mut children: Vec<_> = self.dir(dir)?.iter().map(|(name, ino)| (*ino, name.clone())).collect();
        children.sort();
        let dots = [(1, DirEntryName::Dot, dir), (2, DirEntryName::DotDot, parent)];
        let named =
            children.into_iter().map(|(ino, name)| (ino + 2, DirEntryName::Name(Name::new(&name).unwrap()), ino));
        let mut entries = Vec::new();
        let mut left = budget_bytes as usize;
        for (cookie, name, ino) in dots.into_iter().chain(named).filter(|(cookie, ..)| *cookie > after) {
            let size = (if plus { 152 } else { 24 }) + name.as_bytes().len().next_multiple_of(8);
            if size > left {
                break;
            }
            left -= size;
            if plus && matches!(name, DirEntryName::Name(_)) {
                *self.lookups.entry(ino).or_default() += 1;
            }
            entries.push(DirEntry { cookie, name, attr: self.attr(ino)? });
        }
        Ok(entries)
    }

    fn answer(&mut self, request: &Request) -> Result<Answer<Slice>, Errno> {
        let reply = match request {
            Request::Lookup { parent, name } => {
                let ino = *self.dir(parent.0)?.get(name.as_bytes()).ok_or(Errno::NoEntry)?;
                *self.lookups.entry(ino).or_default() += 1;
                Reply::Entry(self.attr(ino)?)
            }
            Request::GetAttr { ino } => Reply::Attr(self.attr(ino.0)?),
            Request::Xattrs { ino } => Reply::Xattrs(self.nodes.get(&ino.0).ok_or(Errno::Stale)?.xattrs.clone()),
            Request::ReadLink { ino } => match &self.nodes.get(&ino.0).ok_or(Errno::NoEntry)?.holds {
                Holds::Link(target) => Reply::Target(target.clone().into()),
                Holds::File(..) | Holds::Dir(_) => return Err(Errno::Invalid),
            },
            Request::Open { write: true, .. } => return Err(Errno::ReadOnly),
            Request::Open { ino, write: false, whole_from } => {
                if !self.is_open(ino.0) && self.is_whole(ino.0, *whole_from) {
                    self.bound.insert(ino.0);
                }
                self.last_handle += 1;
                self.handles.insert(self.last_handle, ino.0);
                let whole = self.bound.get(&ino.0).map(|ino| ContentId(*ino));
                Reply::Opened(Opened { handle: Handle(self.last_handle), local: None, whole })
            }
            Request::Read { handle, offset, len } => {
                let ino = *self.handles.get(&handle.0).ok_or(Errno::BadHandle)?;
                return self.slice(ino, *offset, *len).map(Answer::Bytes);
            }
            Request::Release { handle } => {
                let ino = self.handles.remove(&handle.0).ok_or(Errno::BadHandle)?;
                if !self.is_open(ino) {
                    self.bound.remove(&ino);
                }
                Reply::Released
            }
            Request::ReadDir { ino, after, budget_bytes, plus } => {
                Reply::Entries(self.list(ino.0, *after, *budget_bytes, *plus)?)
            }
            Request::FetchAll { .. }
            | Request::Bring { .. }
            | Request::Pin { .. }
            | Request::Unpin { .. }
            | Request::Evict { .. }
            | Request::PeerOpen { .. }
            | Request::PeerWatch { .. } => {
                panic!("the kernel does not ask for {request:?}")
            }
        };
        Ok(Answer::Reply(reply))
    }

    fn is_open(&self, ino: u64) -> bool {
        self.handles.values().any(|open| *open == ino)
    }

    fn is_whole(&self, ino: u64, from_bytes: Option<u64>) -> bool {
        match self.nodes.get(&ino).map(|node| &node.holds) {
            Some(Holds::File(bytes, Some(_))) => from_bytes.is_some_and(|from| bytes.len() as u64 >= from),
            Some(Holds::File(_, None) | Holds::Dir(_) | Holds::Link(_)) | None => false,
        }
    }

    fn slice(&self, ino: u64, offset: u64, len: u32) -> Result<Slice, Errno> {
        match &self.nodes.get(&ino).ok_or(Errno::Stale)?.holds {
            Holds::File(bytes, _) => {
                let start = usize::try_from(offset).unwrap().min(bytes.len());
                let end = (start + len as usize).min(bytes.len());
                Ok(Slice { bytes: Arc::clone(bytes), range: start..end, broken: self.broken.contains(&ino) })
            }
            Holds::Dir(_) => Err(Errno::IsDir),
            Holds::Link(_) => Err(Errno::Invalid),
        }
    }
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::Lookup { .. } => "lookup",
        Request::GetAttr { .. } => "getattr",
        Request::Xattrs { .. } => "xattrs",
        Request::ReadLink { .. } => "readlink",
        Request::Open { .. } => "open",
        Request::Read { .. } => "read",
        Request::Release { .. } => "release",
        Request::ReadDir { plus: false, .. } => "readdir",
        Request::ReadDir { plus: true, .. } => "readdirplus",
        Request::FetchAll { .. }
        | Request::Bring { .. }
        | Request::Pin { .. }
        | Request::Unpin { .. }
        | Request::Evict { .. }
        | Request::PeerOpen { .. }
        | Request::PeerWatch { .. } => "other",
    }
}

impl Host for Tree {
    type Bytes = Slice;

    fn ask<F>(&self, request: Request, answer: F)
    where
        F: FnOnce(Result<Answer<Slice>, Errno>) + Send + 'static,
    {
        let mut state = self.lock();
        *state.counts.entry(kind(&request)).or_default() += 1;
        if let Request::Read { handle, .. } = request {
            let ino = state.handles.get(&handle.0).copied().unwrap_or(0);
            if state.held.contains(&ino) {
                // What it reads is decided now, as a read of bytes that are under way would be.
                let known = state.answer(&request);
                state.waiting.push((ino, Box::new(move || answer(known))));
                return;
            }
        }
        let known = state.answer(&request);
        drop(state);
        answer(known);
    }

    fn backing(&self, opened: &Opened) -> Option<Arc<File>> {
        let state = self.lock();
        match &state.nodes.get(state.handles.get(&opened.handle.0)?)?.holds {
            // Opened anew, so that it stays open for nobody but the kernel.
            Holds::File(_, Some(whole)) => {
                Some(Arc::new(File::open(format!("/proc/self/fd/{}", whole.as_raw_fd())).unwrap()))
            }
            Holds::File(_, None) => None,
            Holds::Dir(_) | Holds::Link(_) => None,
        }
    }

    fn forget(&self, ino: Ino, lookups: u64) {
        *self.lock().lookups.entry(ino.0).or_default() -= i64::try_from(lookups).unwrap();
    }

    fn statfs(&self) -> io::Result<StatFs> {
        let (block_bytes, blocks, blocks_free, blocks_available) = (4096, 1000, 600, 500);
        Ok(StatFs { block_bytes, blocks, blocks_free, blocks_available, files: 70, files_free: 7 })
    }

    fn mounted(&self, notifier: Notifier) {
        assert!(self.notifier.set(notifier).is_ok(), "told once");
    }
}

/// Bytes of a file.
pub(crate) struct Slice {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
    broken: bool,
}

impl Readable for Slice {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn read_into(&self, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.bytes[self.range.clone()]);
        if self.broken { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Bytes that differ everywhere, for every seed.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

/// A small generator (splitmix64): the same numbers for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is more than zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}
