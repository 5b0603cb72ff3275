//! The owner's folder, in memory: what is true. Every change is told to the owner's node as its watcher would tell it.
//!
//! The folder outlives its owner's process: what changes while that is down is found by the scan of its next start.

use crate::content::Text;
use crate::history::History;
use bytes::Bytes;
use farshore::folder::{Folder, ServeError, ServedBytes};
use farshore_engine::path::{Name, RelPath};
use farshore_engine::record::{Facts, FileTime, Kind};
use farshore_engine::{Attr, Observation, Seen, SeenKind, ServedFile, View};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// When the simulated world begins, in seconds since 1970.
const BEGINNING_SECONDS: i64 = 1_700_000_000;

/// One version of a file, as it was when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its bytes.
    pub text: Text,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its modification time. Only [`SimFolder::edit_in_secret`] gives two versions the same.
    pub modified: FileTime,
    /// Counts the versions of all files, in the order in which they were made.
    pub order: u64,
}

/// The owner's folder. Clones share it.
#[derive(Clone)]
pub struct SimFolder {
    inner: Arc<Mutex<Inner>>,
    history: History,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<RelPath, Entry>,
    /// What files hold, also those that have lost their name, by inode number.
    files: BTreeMap<u64, Vec<Version>>,
    clock: u32,
    last_inode: u64,
    last_order: u64,
    /// The owner's watcher, while the owner runs.
    watcher: Option<mpsc::UnboundedSender<Vec<Observation>>>,
    health: Health,
    served: Served,
}

#[derive(Debug, Clone)]
struct Entry {
    kind: EntryKind,
    mode: u16,
    modified: FileTime,
    facts: Facts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum EntryKind {
    File { size_bytes: u64 },
    Dir,
    Symlink { target: Box<[u8]> },
}

/// How the owner's disk fares.
#[derive(Debug, Default, Clone, Copy)]
struct Health {
    /// How long a read takes.
    delay: Duration,
    failing: bool,
    /// A planted bug: versions are not told apart.
    forgets_versions: bool,
    /// A planted bug: what was opened for a peer is never closed.
    leaks: bool,
    /// A planted bug: the watcher tells of no change.
    silent: bool,
}

/// What was served to peers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Bytes that were read for peers.
    pub bytes: u64,
    /// Files that are open for peers now.
    pub open: usize,
}

/// A path from text.
///
/// # Panics
/// If the text is no path: a mistake in a scenario.
#[must_use]
pub fn path(text: &str) -> RelPath {
    match RelPath::parse(text.as_bytes()) {
        Ok(path) => path,
        Err(error) => panic!("{text:?} is no path: {error}"),
    }
}

impl SimFolder {
    /// An empty folder.
    #[must_use]
    pub fn new(history: History) -> SimFolder {
        SimFolder { inner: Arc::default(), history }
    }

    // What a program does in the folder.

    /// Makes a file, or gives an existing one other bytes. Its inode stays.
    pub fn write(&self, at: &str, size_bytes: u64) {
        self.history.note("folder", format_args!("write {at} {size_bytes}"));
        let mut inner = self.inner();
        let modified = inner.tick();
        let existing = inner.entries.get(&path(at)).filter(|entry| matches!(entry.kind, EntryKind::File { .. }));
        let existing = existing.map(|entry| (entry.facts.inode, entry.mode));
        let (inode, mode) = existing.unwrap_or_else(|| (inner.next_inode(), 0o644));
        inner.put_file(at, inode, size_bytes, mode, modified, Text::new);
        let found = inner.found(&path(at));
        inner.tell(found);
    }

    /// Gives a file other bytes of the same size, and sets its modification time back to what it was. Only the time of
    /// the inode's last change tells.
    pub fn edit_in_secret(&self, at: &str) {
        self.history.note("folder", format_args!("edit in secret {at}"));
        let mut inner = self.inner();
        let Some(entry) = inner.entries.get(&path(at)).cloned() else { return };
        let EntryKind::File { size_bytes } = entry.kind else { return };
        inner.put_file(at, entry.facts.inode, size_bytes, entry.mode, entry.modified, Text::new);
        let found = inner.found(&path(at));
        inner.tell(found);
    }

    /// Changes the bytes of one chunk of a file, and gives it another size. All of its other chunks stay as they are, but
    /// for those that [`Text::with_changed`] changes too.
    pub fn edit_chunk(&self, at: &str, chunk: u64, size_bytes: u64) {
        self.history.note("folder", format_args!("edit chunk {chunk} of {at}, {size_bytes}"));
        let mut inner = self.inner();
        let Some(entry) = inner.entries.get(&path(at)).cloned() else { return };
        let (inode, modified) = (entry.facts.inode, inner.tick());
        let Some(before) = inner.current(inode) else { return };
        let text = |_, version| before.text.with_changed(version, chunk);
        inner.put_file(at, inode, size_bytes, entry.mode, modified, text);
        let found = inner.found(&path(at));
        inner.tell(found);
    }

    /// Writes a new file beside an existing one and renames it over that, as editors do.
    pub fn replace(&self, at: &str, size_bytes: u64) {
        let beside = format!("{at}.new");
        self.write(&beside, size_bytes);
        self.rename(&beside, at);
    }

    /// Makes a directory.
    pub fn make_dir(&self, at: &str) {
        self.history.note("folder", format_args!("mkdir {at}"));
        let mut inner = self.inner();
        let (modified, inode) = (inner.tick(), inner.next_inode());
        let facts = Facts { inode, changed: modified };
        inner.entries.insert(path(at), Entry { kind: EntryKind::Dir, mode: 0o755, modified, facts });
        let found = inner.found(&path(at));
        inner.tell(found);
    }

    /// Makes a symbolic link.
    pub fn link(&self, at: &str, target: &str) {
        self.history.note("folder", format_args!("symlink {at} -> {target}"));
        let mut inner = self.inner();
        let (modified, inode) = (inner.tick(), inner.next_inode());
        let facts = Facts { inode, changed: modified };
        let kind = EntryKind::Symlink { target: target.as_bytes().into() };
        inner.entries.insert(path(at), Entry { kind, mode: 0o777, modified, facts });
        let found = inner.found(&path(at));
        inner.tell(found);
    }

    /// Sets the permission bits.
    pub fn set_mode(&self, at: &str, mode: u16) {
        self.history.note("folder", format_args!("chmod {at} {mode:o}"));
        let mut inner = self.inner();
        let changed = inner.tick();
        if let Some(entry) = inner.entries.get_mut(&path(at)) {
            entry.mode = mode;
            entry.facts.changed = changed;
        }
        let found = inner.found(&path(at));
        inner.tell(found);
    }

    /// Renames, with everything below. What stood under the new name is gone.
    pub fn rename(&self, from: &str, to: &str) {
        self.history.note("folder", format_args!("rename {from} -> {to}"));
        let (from, to) = (path(from), path(to));
        let mut inner = self.inner();
        let changed = inner.tick();
        inner.take(&to);
        for (old, mut entry) in inner.take(&from) {
            if old == from {
                entry.facts.changed = changed;
            }
            let names = to.names().iter().chain(&old.names()[from.names().len()..]).cloned().collect();
            let new = RelPath::new(names).unwrap_or_default();
            inner.entries.insert(new, entry);
        }
        let mut news = vec![Observation::Moved { from, to: to.clone() }];
        news.extend(inner.found(&to));
        inner.tell(news);
    }

    /// Removes, with everything below.
    pub fn remove(&self, at: &str) {
        self.history.note("folder", format_args!("remove {at}"));
        let mut inner = self.inner();
        inner.take(&path(at));
        inner.tell(vec![Observation::Missing { path: path(at) }]);
    }

    // What is known of the folder.

    /// The version of a file that is there now.
    ///
    /// # Panics
    /// If there is no such file: a mistake in a scenario.
    #[must_use]
    pub fn version(&self, at: &str) -> Version {
        let inner = self.inner();
        let Some(entry) = inner.entries.get(&path(at)) else { panic!("there is no {at}") };
        inner.files[&entry.facts.inode][inner.files[&entry.facts.inode].len() - 1]
    }

    /// Whether something is there.
    #[must_use]
    pub fn holds(&self, at: &str) -> bool {
        self.inner().entries.contains_key(&path(at))
    }

    /// Everything that is there, files with their sizes.
    #[must_use]
    pub fn paths(&self) -> Vec<(String, Option<u64>)> {
        let inner = self.inner();
        let size = |entry: &Entry| match entry.kind {
            EntryKind::File { size_bytes } => Some(size_bytes),
            EntryKind::Dir | EntryKind::Symlink { .. } => None,
        };
        inner.entries.iter().map(|(path, entry)| (path.to_string(), size(entry))).collect()
    }

    /// Whether something is a directory.
    #[must_use]
    pub fn is_dir(&self, at: &str) -> bool {
        self.inner().entries.get(&path(at)).is_some_and(|entry| entry.kind == EntryKind::Dir)
    }

    /// The versions that a reader may be shown who was told of a file `before` when it asked and `after` when it was
    /// answered: these two, and those of the same files in between.
    #[must_use]
    pub fn versions_between(&self, before: &Attr, after: &Attr) -> Vec<Version> {
        let inner = self.inner();
        let all = || inner.files.values().flatten().copied();
        let named =
            |version: &Version, attr: &Attr| version.modified == attr.modified && version.size_bytes == attr.size_bytes;
        let ends: Vec<Version> = all().filter(|version| named(version, before) || named(version, after)).collect();
        let (Some(first), Some(last)) =
            (ends.iter().map(|version| version.order).min(), ends.iter().map(|version| version.order).max())
        else {
            return Vec::new();
        };
        let same_file = |version: &Version| ends.iter().any(|end| end.text.file == version.text.file);
        all().filter(|version| (first..=last).contains(&version.order) && same_file(version)).collect()
    }

    /// What a reader's tree has that is not so, or lacks; `None` if it is the same as the folder.
    #[must_use]
    pub fn difference(&self, view: View<'_>) -> Option<String> {
        let inner = self.inner();
        let mut missing = inner.entries.clone();
        for (path, record) in view.tree() {
            let Some(entry) = missing.remove(&path) else { return Some(format!("{path} is not there any more")) };
            let same_kind = match (&record.kind, &entry.kind) {
                (Kind::File { size_bytes, .. }, EntryKind::File { size_bytes: ours }) => size_bytes == ours,
                (Kind::Dir, EntryKind::Dir) => true,
                (Kind::Symlink { target }, EntryKind::Symlink { target: ours }) => target == ours,
                (Kind::File { .. } | Kind::Dir | Kind::Symlink { .. }, _) => false,
            };
            if !same_kind || record.mode != entry.mode || record.modified != entry.modified {
                return Some(format!("{path} is shown as {record:?} and is {entry:?}"));
            }
        }
        missing.first_key_value().map(|(path, _)| format!("{path} is not shown"))
    }

    /// What was served so far.
    #[must_use]
    pub fn served(&self) -> Served {
        self.inner().served
    }

    // Faults.

    /// How long each read for a peer takes from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.inner().health.delay = delay;
    }

    /// Whether the owner's disk fails from now on.
    pub fn set_failing(&self, failing: bool) {
        self.inner().health.failing = failing;
    }

    /// Plants a bug: from now on a file is served whatever version was asked for.
    pub fn forget_versions(&self) {
        self.inner().health.forgets_versions = true;
    }

    /// Plants a bug: from now on what was opened for a peer stays open.
    pub fn leak(&self) {
        self.inner().health.leaks = true;
    }

    /// Plants a bug: from now on the watcher tells of no change.
    pub fn silence(&self) {
        self.inner().health.silent = true;
    }

    // What the owner's process does.

    /// The owner's watcher starts: everything that is there, and then what changes.
    #[must_use]
    pub fn watch(&self) -> (Vec<Observation>, mpsc::UnboundedReceiver<Vec<Observation>>) {
        let (watcher, changes) = mpsc::unbounded_channel();
        let mut inner = self.inner();
        inner.watcher = Some(watcher);
        let everything: Vec<RelPath> = inner.entries.keys().cloned().collect();
        let mut scan = vec![Observation::ScanBegin { path: RelPath::ROOT }];
        scan.extend(everything.iter().flat_map(|path| inner.found(path)));
        scan.push(Observation::ScanEnd { path: RelPath::ROOT });
        (scan, changes)
    }

    /// The owner's process is gone.
    pub fn unwatch(&self) {
        self.inner().watcher = None;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A time that was never before.
    fn tick(&mut self) -> FileTime {
        self.clock += 1;
        FileTime { seconds: BEGINNING_SECONDS, nanos: self.clock }
    }

    fn next_inode(&mut self) -> u64 {
        self.last_inode += 1;
        self.last_inode
    }

    /// Gives a file other bytes: those that `text` makes of its inode and of the number of the version.
    fn put_file(
        &mut self,
        at: &str,
        inode: u64,
        size_bytes: u64,
        mode: u16,
        modified: FileTime,
        text: impl FnOnce(u64, u32) -> Text,
    ) {
        let changed = self.tick();
        self.last_order += 1;
        let versions = self.files.entry(inode).or_default();
        let text = text(inode, versions.len() as u32);
        versions.push(Version { text, size_bytes, modified, order: self.last_order });
        let facts = Facts { inode, changed };
        self.entries.insert(path(at), Entry { kind: EntryKind::File { size_bytes }, mode, modified, facts });
    }

    /// Takes out a path and everything below it.
    fn take(&mut self, at: &RelPath) -> Vec<(RelPath, Entry)> {
        let inside: Vec<RelPath> =
            self.entries.range(at.clone()..).map(|(path, _)| path.clone()).take_while(|p| at.is_prefix_of(p)).collect();
        inside.into_iter().filter_map(|path| self.entries.remove_entry(&path)).collect()
    }

    fn found(&self, at: &RelPath) -> Vec<Observation> {
        let Some(entry) = self.entries.get(at) else { return Vec::new() };
        let kind = match &entry.kind {
            EntryKind::File { size_bytes } => SeenKind::File { size_bytes: *size_bytes },
            EntryKind::Dir => SeenKind::Dir,
            EntryKind::Symlink { target } => SeenKind::Symlink { target: target.clone() },
        };
        let seen = Seen { kind, mode: entry.mode, modified: entry.modified, xattrs: None, facts: entry.facts };
        vec![Observation::Found { path: at.clone(), seen }]
    }

    fn tell(&self, news: Vec<Observation>) {
        if let Some(watcher) = self.watcher.as_ref().filter(|_| !self.health.silent) {
            // An owner that is going down does not listen any more.
            let _ = watcher.send(news);
        }
    }

    fn current(&self, inode: u64) -> Option<Version> {
        self.files.get(&inode)?.last().copied()
    }

    fn open(&self, served: &ServedFile) -> Result<Version, ServeError> {
        let entry = self.entries.get(&served.path).ok_or(ServeError::Gone)?;
        let EntryKind::File { size_bytes } = entry.kind else { return Err(ServeError::Gone) };
        let same = size_bytes == served.size_bytes && entry.modified == served.modified && entry.facts == served.facts;
        if !same && !self.health.forgets_versions {
            return Err(ServeError::Stale);
        }
        let current = self.current(entry.facts.inode).ok_or(ServeError::Gone)?;
        Ok(Version { size_bytes: served.size_bytes, ..current })
    }
}

impl Folder for SimFolder {
    fn open(&self, served: ServedFile) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>> {
        let folder = self.clone();
        async move {
            let version = folder.inner().open(&served)?;
            folder.inner().served.open += 1;
            Ok(Arc::new(SimServed { folder, version }) as Arc<dyn ServedBytes>)
        }
        .boxed()
    }
}

/// A file that is open for a peer.
struct SimServed {
    folder: SimFolder,
    version: Version,
}

impl Drop for SimServed {
    fn drop(&mut self) {
        let mut inner = self.folder.inner();
        if !inner.health.leaks {
            inner.served.open -= 1;
        }
    }
}

impl ServedBytes for SimServed {
    fn read(self: Arc<Self>, range: Range<u64>) -> BoxFuture<'static, Result<Bytes, ServeError>> {
        async move {
            let health = self.folder.inner().health;
            if !health.delay.is_zero() {
                tokio::time::sleep(health.delay).await;
            }
            assert!(range.end <= self.version.size_bytes, "a peer was let read beyond the end");
            let mut inner = self.folder.inner();
            if inner.health.failing {
                return Err(ServeError::Io);
            }
            let now = inner.current(self.version.text.file).ok_or(ServeError::Gone)?;
            if now != self.version && !health.forgets_versions {
                return Err(ServeError::Stale);
            }
            inner.served.bytes += range.end - range.start;
            drop(inner);
            Ok(now.text.bytes(range))
        }
        .boxed()
    }
}

/// A name from text.
///
/// # Panics
/// If the text is no name: a mistake in a scenario.
#[must_use]
pub fn name(text: &str) -> Name {
    match Name::new(text.as_bytes()) {
        Ok(name) => name,
        Err(error) => panic!("{text:?} is no name: {error}"),
    }
}
