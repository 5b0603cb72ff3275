//! What must hold of everything that an engine answers and tells, whatever happens around it.
//!
//! - Every request is answered once, by its deadline; what is asked about the tree is answered at once.
//! - A successful read is as long as it was asked to be, except at the end of the file, and every byte of it is of
//!   one version of the file.
//! - A kernel that caches what it was told, until a notice takes it back, is never wrong for long: what it caches
//!   of an inode's bytes is of one version, and when all is quiet, its attributes and names are those of the tree.
//! - An error has a reason: something was broken or changed a short while ago.

use super::bytes::bytes_of;
use super::host::{Asked, HostId};
use super::world::World;
use crate::fault::PeerFault;
use crate::ids::{ContentId, Handle, Ino, ReqId};
use crate::input::Request;
use crate::output::{Attr, DirEntryName, Errno, Notice, Reply, Source, Span};
use crate::path::{Name, RelPath};
use crate::record::Stamp;
use crate::time::Time;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// For how long after the last trouble an error may still be the consequence of it: a stall, the retries and the
/// reconnects behind it.
const AFTERMATH: Duration = Duration::from_secs(45);

/// What the applications of one machine, and the kernel between them and the engine, know.
#[derive(Debug, Default)]
pub struct Kernel {
    /// Open handles, with what they are open on and where the last read of each ended.
    pub handles: BTreeMap<Handle, OpenHandle>,
    /// How often each entry was looked up and not forgotten.
    pub lookups: BTreeMap<Ino, u64>,
    /// How the reads ended that waited or were answered at once.
    pub reads: BTreeMap<ReqId, Result<Vec<u8>, Errno>>,
    /// How the fetches of whole files ended.
    pub fetches: BTreeMap<ReqId, Result<ContentId, Errno>>,
    /// The handle that is being released. What still waits for bytes through it ends with it.
    pub releasing: Option<Handle>,
    /// All notices, oldest first.
    pub notices: VecDeque<Notice>,
    /// The version of which it caches bytes.
    pages: BTreeMap<Ino, Stamp>,
    attrs: BTreeMap<Ino, Attr>,
    names: BTreeMap<(Ino, Name), Option<Ino>>,
}

/// An open handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenHandle {
    /// What it is open on.
    pub ino: Ino,
    /// Where the last read through it ended.
    pub position: u64,
    /// What it is to be read past the engine.
    pub whole: Option<ContentId>,
}

impl Kernel {
    pub(super) fn note(&mut self, notice: Notice) {
        match &notice {
            Notice::InvalidateInode { ino, data } => {
                self.attrs.remove(ino);
                if *data {
                    self.pages.remove(ino);
                }
            }
            Notice::InvalidateEntry { parent, name } => {
                self.names.remove(&(*parent, name.clone()));
            }
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
            | Notice::Announced { .. } => {}
        }
        self.notices.push_back(notice);
        if self.notices.len() > 10_000 {
            self.notices.pop_front();
        }
    }

    fn learn(&mut self, attr: Attr) {
        self.attrs.insert(attr.ino, attr);
    }

    pub(super) fn forget(&mut self, ino: Ino) -> u64 {
        self.attrs.remove(&ino);
        self.pages.remove(&ino);
        self.names.retain(|(parent, _), child| *parent != ino && *child != Some(ino));
        self.lookups.remove(&ino).unwrap_or(0)
    }
}

impl World {
    /// Takes an answer of an engine and compares it with what must hold.
    pub(super) fn on_reply(&mut self, at: HostId, id: ReqId, result: Result<Reply, Errno>) -> Option<Reply> {
        let Some(asked) = self.hosts[at].asked.remove(&id) else {
            panic!("request {id} of host {at} was answered, but it is not waiting: {result:?}")
        };
        if let Some(until) = asked.until {
            assert!(self.now <= until, "request {id} was answered at {} and not by {until}: {asked:?}", self.now);
        }
        if let Err(errno) = result {
            self.check_error(at, &asked, errno);
        }
        match (&asked.request, result) {
            (Request::Read { handle, offset, len }, Ok(Reply::Read(span))) => {
                let bytes = self.check_read(at, *handle, *offset, *len, span);
                let kernel = &mut self.hosts[at].kernel;
                if let Some(open) = kernel.handles.get_mut(handle) {
                    open.position = *offset + bytes.len() as u64;
                }
                kernel.reads.insert(id, Ok(bytes));
                None
            }
            (Request::Read { .. }, Err(errno)) => {
                self.hosts[at].kernel.reads.insert(id, Err(errno));
                None
            }
            (Request::FetchAll { .. }, Ok(Reply::Fetched(content))) => {
                self.check_fetched(at, content);
                self.hosts[at].kernel.fetches.insert(id, Ok(content));
                None
            }
            (Request::FetchAll { .. }, Err(errno)) => {
                self.hosts[at].kernel.fetches.insert(id, Err(errno));
                None
            }
            (Request::Lookup { parent, name }, Ok(Reply::Entry(attr))) => {
                let kernel = &mut self.hosts[at].kernel;
                kernel.learn(attr);
                *kernel.lookups.entry(attr.ino).or_default() += 1;
                kernel.names.insert((*parent, name.clone()), Some(attr.ino));
                Some(Reply::Entry(attr))
            }
            (Request::Lookup { parent, name }, Err(Errno::NoEntry)) => {
                self.hosts[at].kernel.names.insert((*parent, name.clone()), None);
                None
            }
            (Request::GetAttr { .. }, Ok(Reply::Attr(attr))) => {
                self.hosts[at].kernel.learn(attr);
                Some(Reply::Attr(attr))
            }
            (Request::Open { ino, .. }, Ok(Reply::Opened(opened))) => {
                self.check_opened(at, *ino, opened.whole);
                let open = OpenHandle { ino: *ino, position: 0, whole: opened.whole };
                let before = self.hosts[at].kernel.handles.insert(opened.handle, open);
                assert!(before.is_none(), "handle {} was given out twice", opened.handle);
                Some(Reply::Opened(opened))
            }
            (Request::Release { handle }, Ok(Reply::Released)) => {
                self.hosts[at].kernel.handles.remove(handle);
                Some(Reply::Released)
            }
            (Request::ReadDir { plus, .. }, Ok(Reply::Entries(entries))) => {
                let kernel = &mut self.hosts[at].kernel;
                for entry in entries.iter().filter(|entry| *plus && matches!(entry.name, DirEntryName::Name(_))) {
                    kernel.learn(entry.attr);
                    *kernel.lookups.entry(entry.attr.ino).or_default() += 1;
                }
                Some(Reply::Entries(entries))
            }
            (Request::PeerWatch { .. }, Ok(Reply::Watched { updates, cursor })) => {
                self.on_watched(at, &asked, updates, cursor);
                None
            }
            (Request::Pin { .. }, Ok(reply @ Reply::Pinned))
            | (Request::Unpin { .. }, Ok(reply @ Reply::Unpinned))
            | (Request::Evict { .. }, Ok(reply @ Reply::Evicted { .. })) => Some(reply),
            (Request::ReadLink { .. }, Ok(Reply::Target(target))) => Some(Reply::Target(target)),
            (Request::PeerOpen { .. }, Ok(Reply::PeerOpened(served))) => Some(Reply::PeerOpened(served)),
            (Request::PeerOpen { .. }, Ok(Reply::NotHereYet)) => Some(Reply::NotHereYet),
            (_, Err(_)) => None,
            (request, Ok(reply)) => panic!("{request:?} was answered with {reply:?}"),
        }
    }

    /// Requests that should have been answered by now.
    pub(super) fn check_deadlines(&self) {
        for (at, host) in self.hosts.iter().enumerate() {
            for (id, asked) in &host.asked {
                let late = asked.until.is_some_and(|until| until < self.now);
                assert!(!late, "request {id} of host {at} was not answered in time: {asked:?}, now {}", self.now);
            }
        }
    }

    fn check_error(&self, at: HostId, asked: &Asked, errno: Errno) {
        let is_released = |handle| self.hosts[at].kernel.releasing == Some(handle) && errno == Errno::Io;
        match asked.request {
            // A follower that has something open that was removed long ago asks whether it still can be had.
            Request::PeerOpen { .. } => return,
            Request::Read { handle, .. } | Request::FetchAll { handle } if is_released(handle) => return,
            Request::Read { handle, .. } | Request::FetchAll { handle }
                if errno == Errno::Stale && self.came_too_late(at, handle) =>
            {
                return;
            }
            _ => {}
        }
        let unexplained = match errno {
            Errno::Io | Errno::Stale | Errno::NoSpace => !self.is_hurt() && self.trouble_at + AFTERMATH < asked.at,
            Errno::NoEntry
            | Errno::TooMany
            | Errno::BadHandle
            | Errno::NotDir
            | Errno::IsDir
            | Errno::Invalid
            | Errno::ReadOnly => {
                matches!(asked.request, Request::Read { .. } | Request::FetchAll { .. })
            }
        };
        assert!(
            self.lenient || !unexplained,
            "{asked:?} was answered with {errno:?} at {}, without a reason",
            self.now
        );
    }

    fn check_read(&mut self, at: HostId, handle: Handle, offset: u64, len: u32, span: Span) -> Vec<u8> {
        let Some(open) = self.hosts[at].kernel.handles.get(&handle).copied() else {
            panic!("a read through handle {handle} was answered, which is not open")
        };
        match span.source {
            Source::Nothing => {
                assert_eq!(span.len, 0);
                let size = self.hosts[at].engine.tree.get(open.ino).map_or(0, |node| node.record.size_bytes());
                assert!(offset >= size || len == 0, "a read at {offset} of a file of {size} bytes came back empty");
                Vec::new()
            }
            Source::Local(_) => self.read_own(at, open.ino, offset, u64::from(len)),
            Source::Content(content) => self.check_content_read(at, open.ino, content, (offset, len), span),
        }
    }

    /// What is read past the engine is all here, and everybody who has it open reads the same.
    fn check_opened(&self, at: HostId, ino: Ino, whole: Option<ContentId>) {
        let others = self.hosts[at].kernel.handles.values().filter(|open| open.ino == ino);
        assert!(others.clone().all(|open| open.whole == whole), "entry {ino} is open as {others:?} and as {whole:?}");
        whole.into_iter().for_each(|content| self.check_fetched(at, content));
    }

    fn read_own(&self, at: HostId, ino: Ino, offset: u64, len: u64) -> Vec<u8> {
        let host = &self.hosts[at];
        let inode = host.engine.tree.get(ino).map(|node| match node.origin {
            crate::tree::Origin::Local(facts) => facts.inode,
            crate::tree::Origin::Peer(_) => panic!("entry {ino} is a peer's and was read in our own folder"),
        });
        inode.and_then(|inode| host.folder.read(inode, offset, len)).unwrap_or_default()
    }

    fn check_content_read(
        &mut self,
        at: HostId,
        ino: Ino,
        content: ContentId,
        (offset, len): (u64, u32),
        span: Span,
    ) -> Vec<u8> {
        if let Some(whole) =
            self.hosts[at].kernel.handles.values().find(|open| open.ino == ino).and_then(|open| open.whole)
        {
            assert_eq!(content, whole, "entry {ino} has got other bytes than those that are read past the engine");
        }
        let Some(wanted) = self.hosts[at].wanted.get(&content).cloned() else {
            panic!("bytes of content {content} were promised, but none were ever fetched")
        };
        let Some((version, size)) = self.versions.get(&(wanted.owner, wanted.stamp)).copied() else {
            panic!("{wanted:?} was never served")
        };
        assert_eq!(size, wanted.size_bytes, "the size of {wanted:?}");
        assert_eq!(span.offset, offset);
        let expected_len = u64::from(len).min(size.saturating_sub(offset));
        assert_eq!(u64::from(span.len), expected_len, "a read of {len} at {offset} of {wanted:?} came back short");
        let bytes = self.hosts[at].store.read(content, &(offset..offset + expected_len));
        assert!(
            bytes == bytes_of(version, offset, expected_len),
            "a read of {len} at {offset} of {wanted:?} has bytes that its owner never had"
        );
        let cached = *self.hosts[at].kernel.pages.entry(ino).or_insert(wanted.stamp);
        assert_eq!(cached, wanted.stamp, "the kernel would mix two versions of entry {ino}: {wanted:?}");
        bytes
    }

    fn check_fetched(&self, at: HostId, content: ContentId) {
        let host = &self.hosts[at];
        let here = host.engine.view().contents().find(|view| view.content == content);
        let Some(here) = here else { panic!("content {content} was fetched whole and is not here") };
        assert_eq!(here.have_chunks, here.total_chunks, "content {content} is not whole");
        if let Some(wanted) = host.wanted.get(&content) {
            let (version, size) = self.versions[&(wanted.owner, wanted.stamp)];
            assert!(host.store.read(content, &(0..size)) == bytes_of(version, 0, size), "{wanted:?} was fetched wrong");
        }
    }

    /// What must hold when everything has been quiet for a while and all connections are there.
    pub fn check_converged(&self) {
        for owner in 0..self.hosts.len() {
            self.check_owner(owner);
            for follower in self.followers_of(owner) {
                let (theirs, ours) = (self.tree_of(owner), self.tree_of(follower));
                assert_same_tree(&theirs, &ours, owner, follower);
                self.check_kernel(follower);
                let position = self.hosts[owner].engine.view().position();
                let stands = self.hosts[follower].engine.view().peers().next().map(|peer| peer.position);
                assert_eq!(stands, Some(position), "host {follower} has not heard everything");
            }
        }
        for (at, host) in self.hosts.iter().enumerate() {
            let view = host.engine.view();
            assert!(host.is_quiet(), "host {at} is still busy: {:?} {:?}", host.jobs, host.asked);
            let accused = host.kernel.notices.iter().find(|notice| match notice {
                // These are what the world itself spoils answers with.
                Notice::PeerFault {
                    fault: PeerFault::WrongHash | PeerFault::WrongRange | PeerFault::TooLittle,
                    ..
                } => false,
                Notice::PeerFault { fault, .. } => *fault != super::faults::GARBAGE,
                _ => false,
            });
            assert_eq!(accused, None, "host {at} accuses an owner that keeps to the rules");
            assert_eq!(host.store.frames_held(), 0, "host {at} holds frames in memory for nobody");
            let known: std::collections::BTreeSet<ContentId> = view.contents().map(|c| c.content).collect();
            let kept = host.store.contents();
            assert!(kept.is_subset(&known), "host {at} keeps contents that its engine has forgotten: {kept:?}");
            assert_eq!(host.store.stored_bytes(), view.stored_bytes(), "host {at} miscounts what it stores");
        }
    }

    /// What must hold when, besides, every handle is released and every entry forgotten.
    pub fn check_let_go(&self) {
        for (at, host) in self.hosts.iter().enumerate() {
            let view = host.engine.view();
            assert_eq!(view.open_handles(), 0, "host {at}");
            assert_eq!(view.entries(), view.tree().count() as u64 + 1, "host {at} remembers what nobody knows");
            assert!(view.contents().all(|content| content.waiters == 0 && content.open_chunks == 0), "host {at}");
            assert_eq!(host.store.unsaved(), 0, "host {at} has not written down everything that it stores");
            let pinned = |path: &RelPath| host.engine.cache.is_pinned(path);
            let may_go =
                view.contents().filter(|content| content.stored_bytes > 0).any(|content| !pinned(&content.path))
                    || view.held().any(|held| !pinned(&held.path));
            let most = host.config.cache_bytes.unwrap_or(u64::MAX);
            assert!(view.stored_bytes() <= most || !may_go, "host {at} stores {} bytes of {most}", view.stored_bytes());
            let timer = host.engine.next_timer().map(|(_, timer)| timer);
            use crate::Timer::{NoNews, Redial, WalkIdle};
            let idle = matches!(timer, None | Some(NoNews(_) | Redial(_) | WalkIdle));
            assert!(idle, "host {at} still has {timer:?} before it");
        }
    }

    /// The owner's picture of its folder is what is in the folder.
    fn check_owner(&self, at: HostId) {
        let host = &self.hosts[at];
        let mut told = self.tree_of(at);
        if self.followers_of(at).is_empty() {
            return;
        }
        for path in host.folder.paths().filter(|path| host.offers(path)) {
            let Some(seen) = host.folder.seen(path) else { continue };
            let Some(record) = told.remove(path) else { panic!("host {at} does not know of its own {path}") };
            assert_eq!((record.mode, record.modified), (seen.mode, seen.modified), "{path} of host {at}");
            let same = match (&record.kind, &seen.kind) {
                (crate::record::Kind::File { size_bytes, .. }, crate::SeenKind::File { size_bytes: seen }) => {
                    size_bytes == seen
                }
                (crate::record::Kind::Dir, crate::SeenKind::Dir) => true,
                (crate::record::Kind::Symlink { target }, crate::SeenKind::Symlink { target: seen }) => target == seen,
                _ => false,
            };
            assert!(same, "{path} of host {at} is {:?} and not {record:?}", seen.kind);
        }
        assert!(told.is_empty(), "host {at} still has {:?}, which are gone", told.keys());
    }

    /// What the kernel caches and was not told to drop is what the engine would answer now.
    fn check_kernel(&self, at: HostId) {
        let host = &self.hosts[at];
        let tree = &host.engine.tree;
        for (ino, cached) in &host.kernel.attrs {
            let now = tree.get(*ino).map(|node| node.attr(*ino));
            assert_eq!(now, Some(*cached), "the kernel of host {at} was not told that {ino} changed");
        }
        for ((parent, name), cached) in &host.kernel.names {
            let linked = *parent == Ino::ROOT || tree.get(*parent).is_some_and(|node| node.place.is_some());
            let now = tree.child(*parent, name.as_bytes());
            assert!(
                !linked || now == *cached,
                "the kernel of host {at} believes {name:?} in {parent} to be {cached:?}"
            );
        }
    }

    /// The named entries of an engine, with their records.
    #[must_use]
    pub fn tree_of(&self, at: HostId) -> BTreeMap<RelPath, crate::record::Record> {
        self.hosts[at].engine.view().tree().map(|(path, record)| (path, record.clone())).collect()
    }

    /// Moves the moment of the last trouble to now: errors are to be expected for a while.
    pub(super) fn trouble(&mut self) {
        self.trouble_at = self.trouble_at.max(self.now);
    }

    /// Whether something is broken at this moment.
    fn is_hurt(&self) -> bool {
        let full = |host: &super::Host| host.store_faults.is_some_and(|(_, left)| left > 0);
        let slow = self.latency > Duration::from_millis(100);
        !self.cut.is_empty() || !self.held.is_empty() || !self.spoils.is_empty() || slow || self.hosts.iter().any(full)
    }

    /// For how long an error may still follow from what happened before.
    #[must_use]
    pub fn aftermath_ends(&self) -> Time {
        self.trouble_at + AFTERMATH
    }
}

fn assert_same_tree(
    theirs: &BTreeMap<RelPath, crate::record::Record>,
    ours: &BTreeMap<RelPath, crate::record::Record>,
    owner: HostId,
    follower: HostId,
) {
    for (path, record) in theirs {
        assert_eq!(ours.get(path), Some(record), "{path} of host {owner} is something else on host {follower}");
    }
    let extra: Vec<&RelPath> = ours.keys().filter(|path| !theirs.contains_key(*path)).collect();
    assert!(extra.is_empty(), "host {follower} has {extra:?}, which host {owner} does not have");
}
