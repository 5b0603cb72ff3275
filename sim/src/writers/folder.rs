//! A folder that a device keeps as a replica of the share: what programs do in it, what its watcher sees, what is served from it,
//! and what peers' changes do to it.
//!
//! It outlives the processes that use it. A power cut leaves what was last made durable.

use super::works::{Edit, Places, Version, Works};
use crate::history::History;
use crate::lots::Lots;
use crate::store::all_of;
use bytes::Bytes;
use farshore::folder::{Contents, Folder as Served, ServeError, ServedBytes};
use farshore::node::Node;
use farshore_engine::path::RelPath;
use farshore_engine::record::Facts;
use farshore_engine::testing::{Folder, Look, ObjectKind};
use farshore_engine::{Apply, ApplyError, DeviceTag, Observation, Seen, SeenKind, ServedFile};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The longest pause between two operations of a batch, in milliseconds.
const MAX_PAUSE_MILLIS: u64 = 3;

/// So soon after it was done, what was done for peers is noted, on a disk that is slow, too.
const NOTED_WITHIN: Duration = Duration::from_secs(1);

/// After how many batches what was published is so again, if that bug is planted.
const BATCHES_BETWEEN: u32 = 8;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A removal removes whatever is there.
    RemovesBlindly,
    /// What was published once is published again later, whatever is there by then.
    PublishesTwice,
    /// What was done in the folder by programs is not seen.
    SeesNothing,
}

/// How the disk fares.
#[derive(Debug, Clone, Copy, Default)]
struct Health {
    delay: Duration,
    full: bool,
    failing: bool,
    bug: Option<Bug>,
}

/// A replica's folder. Clones are the same folder.
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Mutex<Inner>>,
    /// Rung when there is something to look at.
    news: Arc<Notify>,
    works: Works,
    history: History,
    host: &'static str,
    device: DeviceTag,
}

struct Inner {
    folder: Folder,
    /// What a power cut leaves.
    durable: Folder,
    looks: VecDeque<Look>,
    health: Health,
    lots: Lots,
    open: usize,
    /// Something is being done for peers, or was when the process ended.
    is_applying: bool,
    /// When that ended last, in simulated time.
    applied_at: Option<Duration>,
    /// What was published first, and how many batches ago, for a planted bug.
    first: Option<(RelPath, (Version, u64))>,
    batches_since: u32,
}

impl Replica {
    /// An empty folder of the device `device` on `host`.
    #[must_use]
    pub fn new(host: &'static str, device: DeviceTag, seed: u64, works: Works, history: History) -> Replica {
        let inner = Inner {
            folder: Folder::default(),
            durable: Folder::default(),
            looks: VecDeque::new(),
            health: Health::default(),
            lots: Lots::new(seed),
            open: 0,
            is_applying: false,
            applied_at: None,
            first: None,
            batches_since: 0,
        };
        Replica { inner: Arc::new(Mutex::new(inner)), news: Arc::default(), works, history, host, device }
    }

    // What programs do. Each says whether it could be done.

    /// Gives a file other bytes, or makes it.
    pub fn write(&self, at: &RelPath, edit: Edit) -> bool {
        self.change(format_args!("{edit:?} {at}"), &[at], |folder| {
            let before = version_at(folder, at).map(|(version, _)| version);
            if folder.at(at).is_some_and(|there| !matches!(there.kind, ObjectKind::File { .. })) {
                return None;
            }
            let parent = RelPath::new(at.split_last()?.0.to_vec()).ok()?;
            if !folder.at(&parent).is_some_and(|there| there.kind == ObjectKind::Dir) {
                return None;
            }
            let (version, size_bytes) = self.works.write(self.host, at, before, edit);
            folder.write(at, version, size_bytes)
        })
    }

    /// Writes a new file beside an existing one and renames it over that, as editors do.
    pub fn replace(&self, at: &RelPath, edit: Edit) -> bool {
        let Ok(beside) = super::path_beside(at) else { return false };
        self.write(&beside, edit) && self.rename(&beside, at)
    }

    /// Makes a directory.
    pub fn make_dir(&self, at: &RelPath) -> bool {
        self.change(format_args!("mkdir {at}"), &[at], |folder| folder.make_dir(at))
    }

    /// Makes a symlink.
    pub fn link(&self, at: &RelPath, target: &str) -> bool {
        self.change(format_args!("symlink {at} -> {target}"), &[at], |folder| folder.symlink(at, target.as_bytes()))
    }

    /// Renames, with everything below.
    pub fn rename(&self, from: &RelPath, to: &RelPath) -> bool {
        self.change(format_args!("rename {from} -> {to}"), &[from, to], |folder| folder.rename(from, to))
    }

    /// Removes, with everything below.
    pub fn remove(&self, at: &RelPath) -> bool {
        self.change(format_args!("remove {at}"), &[at], |folder| folder.remove(at))
    }

    /// Sets the permission bits of what is no symlink.
    pub fn set_mode(&self, at: &RelPath, mode: u16) -> bool {
        self.change(format_args!("chmod {at} {mode:o}"), &[at], |folder| {
            if matches!(folder.at(at)?.kind, ObjectKind::Symlink(_)) {
                return None;
            }
            if let Some((version, _)) = version_at(folder, at) {
                self.works.handle(version);
            }
            folder.chmod(at, mode)
        })
    }

    /// Makes everything durable.
    pub fn sync(&self) {
        let mut inner = self.inner();
        inner.durable = inner.folder.clone();
    }

    // What is known of it.

    /// Every path but the root, and whether that is a directory.
    #[must_use]
    pub fn paths(&self) -> Vec<(RelPath, bool)> {
        let inner = self.inner();
        let is_dir = |path: &RelPath| inner.folder.at(path).is_some_and(|there| there.kind == ObjectKind::Dir);
        inner.folder.paths().map(|path| (path.clone(), is_dir(path))).collect()
    }

    /// What stands at a path.
    #[must_use]
    pub fn seen(&self, at: &RelPath) -> Option<Seen> {
        self.inner().folder.seen(at)
    }

    /// Every file that is not empty, with its version.
    pub(crate) fn places(&self) -> Places {
        places(&self.inner().folder)
    }

    /// Files of it that are open for peers.
    #[must_use]
    pub fn open_for_peers(&self) -> usize {
        self.inner().open
    }

    /// Whether something is being done, or has just been done, for peers of which nothing may be noted yet.
    pub(crate) fn has_just_applied(&self) -> bool {
        let inner = self.inner();
        let now = turmoil::sim_elapsed().unwrap_or_default();
        inner.is_applying || inner.applied_at.is_some_and(|at| now.saturating_sub(at) < NOTED_WITHIN)
    }

    /// What was written here and elsewhere.
    #[must_use]
    pub fn works(&self) -> &Works {
        &self.works
    }

    // Faults.

    /// The machine loses its power: what is not durable is gone, and is to be there in the end only if one of the `others` has it.
    pub(crate) fn lose_power(&self, others: &[Places]) {
        let mut inner = self.inner();
        let (before, after) = (places(&inner.folder), places(&inner.durable));
        let is_kept = |version| others.iter().chain([&after]).any(|there| there.values().any(|kept| *kept == version));
        let gone: Vec<Version> = before.into_values().filter(|version| !is_kept(*version)).collect();
        self.works.lose(gone);
        // What was removed may be there again.
        self.works.forget();
        let durable = inner.durable.clone();
        inner.folder.go_back_to(&durable);
    }

    /// How long each operation, and each read for a peer, takes from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.inner().health.delay = delay;
    }

    /// Whether there is no room from now on.
    pub fn set_full(&self, full: bool) {
        self.inner().health.full = full;
    }

    /// Whether the disk fails from now on.
    pub fn set_failing(&self, failing: bool) {
        self.inner().health.failing = failing;
    }

    /// Plants a bug.
    pub fn plant(&self, bug: Bug) {
        self.inner().health.bug = Some(bug);
    }

    // What the process on its host does.

    /// Tells a node that has just started everything that is there.
    pub fn scan(&self, node: &Node) {
        self.inner().looks.clear();
        let mut told = vec![Observation::ScanBegin { path: RelPath::ROOT }];
        told.extend(self.found_within(&RelPath::ROOT));
        told.push(Observation::ScanEnd { path: RelPath::ROOT });
        node.observe(told);
    }

    /// Watches for a node: tells it what changes, each time `delay` after it has.
    pub async fn watch(self, node: Arc<Node>, delay: Duration) {
        loop {
            self.news.notified().await;
            tokio::time::sleep(delay).await;
            self.tell(&node);
        }
    }

    /// Looks where something has changed, and tells what is there now.
    pub fn tell(&self, node: &Node) {
        loop {
            let Some(look) = self.inner().looks.pop_front() else { return };
            self.tell_one(node, look);
        }
    }

    /// Tells of a rename at once, as whoever did it on a mount; `over` and `from` were seen there, also where they are not in
    /// the folder.
    pub fn tell_moved(&self, node: &Node, over: bool, from: &RelPath, to: &RelPath) {
        let mut told = Vec::new();
        if over {
            told.push(Observation::Sighted { path: to.clone() });
        }
        told.push(Observation::Sighted { path: from.clone() });
        let moved = self.look(to);
        if matches!(moved, Observation::Found { .. }) {
            told.push(Observation::Moved { from: from.clone(), to: to.clone() });
        }
        told.extend([moved, self.look(from)]);
        node.observe(told);
    }

    /// What is at a path.
    #[must_use]
    pub fn look(&self, at: &RelPath) -> Observation {
        let seen = self.inner().folder.seen(at);
        match seen {
            Some(seen) => self.found(at, seen),
            None => Observation::Missing { path: at.clone() },
        }
    }

    fn tell_one(&self, node: &Node, look: Look) {
        match look {
            Look::Path(at) => self.tell_path(node, &at),
            Look::Scan(at) => self.tell_dir(node, &at),
            Look::Moved { from, to, inode } => {
                if self.inner().folder.inode_at(&to) == Some(inode) {
                    node.observe(vec![Observation::Moved { from: from.clone(), to: to.clone() }, self.look(&to)]);
                    if self.is_dir(&to) {
                        self.tell_dir(node, &to);
                    }
                } else {
                    self.tell_path(node, &to);
                }
                self.tell_path(node, &from);
            }
        }
        node.observe(vec![self.look(&RelPath::ROOT)]);
    }

    /// What a node has not heard of, it is told with all that is in it.
    fn tell_path(&self, node: &Node, at: &RelPath) {
        let is_known = node.view(|view| view.own_inode(at)) == self.inner().folder.inode_at(at);
        if self.is_dir(at) && !is_known {
            return self.tell_dir(node, at);
        }
        node.observe(vec![self.look(at)]);
    }

    fn tell_dir(&self, node: &Node, at: &RelPath) {
        let mut told = vec![self.look(at)];
        if self.is_dir(at) {
            told.push(Observation::ScanBegin { path: at.clone() });
            told.extend(self.found_within(at).into_iter().skip(1));
            told.push(Observation::ScanEnd { path: at.clone() });
        }
        node.observe(told);
    }

    fn is_dir(&self, at: &RelPath) -> bool {
        self.inner().folder.at(at).is_some_and(|there| there.kind == ObjectKind::Dir)
    }

    /// What is at a path, and all below it.
    fn found_within(&self, at: &RelPath) -> Vec<Observation> {
        let below = self.inner().folder.below(at);
        std::iter::once(at.clone()).chain(below).map(|path| self.look(&path)).collect()
    }

    fn found(&self, at: &RelPath, seen: Seen) -> Observation {
        if let SeenKind::File { size_bytes } = seen.kind
            && let Some((version, _)) = version_at(&self.inner().folder, at)
        {
            self.works.note_stamp(seen.facts.stamp(self.device, size_bytes, seen.modified), version);
        }
        Observation::Found { path: at.clone(), seen }
    }

    /// Does something at and below some paths.
    fn change(
        &self,
        what: std::fmt::Arguments<'_>,
        at: &[&RelPath],
        change: impl FnOnce(&mut Folder) -> Option<Vec<Look>>,
    ) -> bool {
        let mut inner = self.inner();
        let before = places_within(&inner.folder, at);
        let Some(looks) = change(&mut inner.folder) else { return false };
        self.history.note(self.host, what);
        self.works.note_change(&before, &places_within(&inner.folder, at));
        if inner.health.bug != Some(Bug::SeesNothing) {
            inner.looks.extend(looks);
            self.news.notify_one();
        }
        true
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Doing what peers did.

    /// The bytes that an operation needs, if it needs any.
    fn prepare(&self, op: &Apply, contents: &Contents) -> Result<Option<(Version, u64)>, ApplyError> {
        let (Apply::Publish { content: Some(content), .. } | Apply::KeepCopy { unless: Some(content), .. }) = op else {
            return Ok(None);
        };
        let bytes = contents
            .get(content)
            .ok_or(ApplyError::Io)
            .and_then(|stored| all_of(stored).map_err(|_| ApplyError::Io))?;
        match self.works.version_of(&bytes) {
            Some(version) => Ok(Some((version, bytes.len() as u64))),
            None => panic!("{op:?} would put {} bytes there that nobody has written", bytes.len()),
        }
    }

    fn apply_one(&self, op: &Apply, file: Option<(Version, u64)>) -> Result<Facts, ApplyError> {
        let mut inner = self.inner();
        let Health { full, failing, bug, .. } = inner.health;
        if failing {
            return Err(ApplyError::Io);
        }
        if full && matches!(op, Apply::Publish { .. } | Apply::MakeDir { .. } | Apply::MakeSymlink { .. }) {
            return Err(ApplyError::NoSpace);
        }
        let blind = match (op, bug) {
            (Apply::Remove { path, .. }, Some(Bug::RemovesBlindly)) => {
                inner.folder.seen(path).map(|seen| Apply::Remove { path: path.clone(), expect: seen.facts })
            }
            _ => None,
        };
        let done = inner.folder.apply(blind.as_ref().unwrap_or(op), file);
        if let (Apply::KeepCopy { to, .. }, Ok(_)) = (op, done)
            && let Some((version, _)) = version_at(&inner.folder, to)
        {
            self.works.handle(version);
        }
        if let (Apply::Publish { path, .. }, Some(file), Ok(_)) = (op, file, done) {
            inner.first.get_or_insert((path.clone(), file));
        }
        // The watcher sees what its own program does, too.
        inner.looks.extend(op.paths().cloned().map(Look::Path));
        self.news.notify_one();
        done
    }

    /// A planted bug: what was published first is so again, some time later.
    fn repeat(&self) {
        let mut inner = self.inner();
        let Some((path, (version, size_bytes))) = inner.first.clone() else { return };
        inner.batches_since += 1;
        let is_due = inner.health.bug == Some(Bug::PublishesTwice) && inner.batches_since == BATCHES_BETWEEN;
        if is_due && inner.folder.write(&path, version, size_bytes).is_some() {
            inner.looks.push_back(Look::Path(path));
            self.news.notify_one();
        }
    }

    fn pause(&self) -> Duration {
        let mut inner = self.inner();
        inner.health.delay + inner.lots.millis(0..=MAX_PAUSE_MILLIS)
    }

    fn open_now(&self, served: &ServedFile) -> Result<(u64, Version), ServeError> {
        let mut inner = self.inner();
        let seen = inner.folder.seen(&served.path).ok_or(ServeError::Gone)?;
        let SeenKind::File { size_bytes } = seen.kind else { return Err(ServeError::Gone) };
        if size_bytes != served.size_bytes || seen.modified != served.modified || seen.facts != served.facts {
            return Err(ServeError::Stale);
        }
        let (version, _) = version_at(&inner.folder, &served.path).ok_or(ServeError::Gone)?;
        inner.open += 1;
        Ok((seen.facts.inode, version))
    }
}

fn version_at(folder: &Folder, at: &RelPath) -> Option<(Version, u64)> {
    match folder.at(at)?.kind {
        ObjectKind::File { version, size_bytes } => Some((version, size_bytes)),
        ObjectKind::Dir | ObjectKind::Symlink(_) => None,
    }
}

fn places(folder: &Folder) -> Places {
    folder.files().filter_map(|path| place(folder, path)).collect()
}

fn places_within(folder: &Folder, at: &[&RelPath]) -> Places {
    let below = at.iter().flat_map(|path| folder.below(path)).chain(at.iter().copied().cloned());
    below.filter_map(|path| place(folder, &path)).collect()
}

/// Of an empty file nothing is to be kept.
fn place(folder: &Folder, path: &RelPath) -> Option<(RelPath, Version)> {
    let (version, size_bytes) = version_at(folder, path)?;
    (size_bytes > 0).then(|| (path.clone(), version))
}

impl Served for Replica {
    fn open(&self, served: ServedFile) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>> {
        let replica = self.clone();
        async move {
            let opened = replica.open_now(&served);
            if opened.is_err() {
                replica.look_at(&served.path, None);
            }
            let (inode, version) = opened?;
            Ok(Arc::new(SimServed { replica, inode, version, path: served.path }) as Arc<dyn ServedBytes>)
        }
        .boxed()
    }

    fn apply(&self, ops: Vec<Apply>, contents: Contents) -> BoxFuture<'static, Vec<Result<Facts, ApplyError>>> {
        let replica = self.clone();
        async move {
            replica.inner().is_applying = true;
            let prepared: Vec<_> = ops.iter().map(|op| replica.prepare(op, &contents)).collect();
            tokio::time::sleep(replica.pause()).await;
            // The bytes are durable before they have their names.
            replica.sync();
            let mut done = Vec::new();
            for (op, file) in ops.iter().zip(prepared) {
                let result = file.and_then(|file| replica.apply_one(op, file));
                if let (Apply::Publish { content: Some(content), .. }, Ok(_)) = (op, &result)
                    && let Some(stored) = contents.get(content)
                {
                    // A store that is closed keeps it.
                    let _ = stored.give_away();
                }
                done.push(result);
                tokio::time::sleep(replica.pause()).await;
            }
            replica.repeat();
            let mut inner = replica.inner();
            (inner.is_applying, inner.applied_at) = (false, turmoil::sim_elapsed());
            done
        }
        .boxed()
    }

    fn look_at(&self, path: &RelPath, _: Option<u64>) {
        self.inner().looks.push_back(Look::Path(path.clone()));
        self.news.notify_one();
    }
}

/// A file that is open for a peer.
struct SimServed {
    replica: Replica,
    inode: u64,
    version: Version,
    path: RelPath,
}

impl Drop for SimServed {
    fn drop(&mut self) {
        self.replica.inner().open -= 1;
    }
}

impl ServedBytes for SimServed {
    fn read(self: Arc<Self>, range: Range<u64>) -> BoxFuture<'static, Result<Bytes, ServeError>> {
        async move {
            let health = self.replica.inner().health;
            if !health.delay.is_zero() {
                tokio::time::sleep(health.delay).await;
            }
            if health.failing {
                return Err(ServeError::Io);
            }
            let now = self.replica.inner().folder.object_of(self.inode).map(|object| object.kind.clone());
            match now {
                Some(ObjectKind::File { version, .. }) if version == self.version => {
                    let bytes = self.replica.works.bytes(version);
                    assert!(range.end <= bytes.len() as u64, "a peer was let read beyond the end");
                    Ok(bytes.slice(range.start as usize..range.end as usize))
                }
                _ => {
                    self.replica.look_at(&self.path, None);
                    Err(ServeError::Stale)
                }
            }
        }
        .boxed()
    }
}
