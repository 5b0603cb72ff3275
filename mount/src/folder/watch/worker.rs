//! The watching thread: reads the kernel's notices, looks where they point, tells what it saw.

use super::WhileWritten;
use super::inotify::{Inotify, Notice, WatchId};
use super::links::Links;
use super::pending::{Pending, QUIET};
use super::watched::{Watched, rebase};
use super::{Shared, unwatched};
use crate::folder::beneath::{Beneath, InodeId, is_gone};
use crate::folder::look::{Sight, SkipReason, Skipped, There, look, look_in, native};
use crate::folder::order::Order;
use crate::folder::scan::{self, BATCH, Stopped, Visitor};
use crate::folder::{FolderEvent, Sink};
use farshore_engine::Observation;
use farshore_engine::path::{Name, RelPath};
use rustix::fd::BorrowedFd;
use rustix::fs::inotify::ReadFlags;
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the thread sleeps after each reading of notices: many small ones are cheaper together. The kernel's
/// queue (16,384 notices by default) does not fill up in this time.
const BREATH: Duration = Duration::from_millis(5);

/// How often to make sure that the folder's path still leads to the folder.
const ROOT_CHECK: Duration = Duration::from_secs(2);

/// How often at most a folder is read again that cannot be read or watched as a whole.
const INCOMPLETE_RESCAN: Duration = Duration::from_secs(5);

/// How often at most a folder is read again to find the other names of files.
const SEARCH_PAUSE: Duration = Duration::from_millis(500);

/// How much longer than a scan the pause after it is, for a folder that is read again and again.
const PAUSE_FACTOR: u32 = 20;

/// Notices that may be kept in memory while a scan runs. Beyond that it is cheaper to read the folder again.
const BACKLOG: usize = 262_144;

/// Looks after which the kernel's queue is emptied, so that it does not overflow meanwhile.
const LOOKS_PER_READ: usize = 256;

/// What happens to the names in a directory.
const NAMES: ReadFlags =
    ReadFlags::CREATE.union(ReadFlags::DELETE).union(ReadFlags::MOVED_FROM).union(ReadFlags::MOVED_TO);

/// The old name of something that was renamed, until its new name is heard of.
struct Half {
    from: RelPath,
    /// Whether something else may have stood there than was told.
    renewed: bool,
}

/// Whether the folder's path leads to the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Present,
    /// Something happened to it: look.
    InDoubt,
    Vanished,
}

/// The folder that is watched.
pub(super) struct Watching {
    /// Where it is; this path stays the same.
    pub(super) root_path: PathBuf,
    /// Which directory it is.
    pub(super) root_id: InodeId,
    pub(super) beneath: Arc<Beneath>,
    /// The name in it that is passed over.
    pub(super) private: Option<&'static str>,
    /// When is told of a file that is being written.
    pub(super) while_written: WhileWritten,
}

pub(super) struct Worker {
    sink: Sink,
    shared: Arc<Shared>,
    folder: Watching,
    root: Root,
    root_check_at: Instant,
    inotify: Inotify,
    /// Notices that were read and not yet digested.
    backlog: VecDeque<Notice>,
    watched: Watched,
    pending: Pending,
    links: Links,
    halves: HashMap<u32, Half>,
    /// What was reported as not shared, so that it is reported once.
    skipped: HashMap<PathBuf, SkipReason>,
    /// Observations to be told together.
    told: Vec<Observation>,
    /// Counts scans.
    round: u64,
    rescan_at: Option<Instant>,
    /// A file has names that were not met.
    strangers: bool,
    /// How often at most the folder is read for that.
    no_search_before: Instant,
    /// Scans of the whole folder take at most half of the time, also if the kernel drops notices all the time.
    no_rescan_before: Instant,
    /// Some directory could not be watched, or not be read for a reason that may pass.
    incomplete: bool,
    /// It was told that not all is watched.
    told_unwatched: bool,
}

impl Worker {
    pub(super) fn new(sink: Sink, shared: Arc<Shared>, folder: Watching, inotify: Inotify) -> Worker {
        let now = Instant::now();
        Worker {
            sink,
            shared,
            pending: Pending::new(folder.while_written),
            folder,
            root: Root::Present,
            root_check_at: now + ROOT_CHECK,
            inotify,
            backlog: VecDeque::new(),
            watched: Watched::default(),
            links: Links::default(),
            halves: HashMap::new(),
            skipped: HashMap::new(),
            told: Vec::new(),
            round: 0,
            rescan_at: None,
            strangers: false,
            no_search_before: now,
            no_rescan_before: now,
            incomplete: false,
            told_unwatched: false,
        }
    }

    /// Runs until it is stopped or the folder has vanished.
    pub(super) fn run(mut self) {
        let order = Arc::clone(&self.shared.order);
        if order.wait_for(|| self.scan_all()).is_err() {
            return;
        }
        (self.sink)(FolderEvent::Ready);
        while self.turn(&order).is_ok() {
            match self.root {
                Root::Present | Root::InDoubt => {}
                Root::Vanished => return (self.sink)(FolderEvent::Vanished),
            }
        }
    }

    /// Waits for something, and deals with it.
    fn turn(&mut self, order: &Order) -> Result<(), Stopped> {
        let wake = [self.pending.next_due(), self.rescan_at].into_iter().flatten().fold(self.root_check_at, Ord::min);
        self.inotify.wait(&self.shared.bell, wake);
        self.shared.bell.answer();
        self.read();
        order.wait_for(|| self.look_and_tell())?;
        self.shared.bell.wait(Instant::now() + BREATH);
        self.go_on()
    }

    /// Looks where something happened, and tells what is there.
    fn look_and_tell(&mut self) -> Result<(), Stopped> {
        let now = Instant::now();
        for path in self.shared.take_rechecks() {
            self.pending.note_wanted(path, now);
        }
        for path in self.shared.take_forgotten() {
            self.watched.doubt_all_below(&path);
            self.pending.note(path, true, now);
        }
        for (path, known) in self.shared.take_wanted() {
            self.look_for(path, known, now);
        }
        self.hand_over();
        while let Some(notice) = self.backlog.pop_front() {
            self.digest(&notice)?;
        }
        let now = Instant::now();
        let due = self.pending.take_due(now);
        if !due.is_empty() || self.root == Root::InDoubt || now >= self.root_check_at {
            self.check_root(now);
        }
        if self.root == Root::Vanished {
            return Ok(());
        }
        self.look_at_all(due)?;
        if std::mem::take(&mut self.strangers) {
            self.rescan_by((now + QUIET).max(self.no_search_before));
        }
        if self.rescan_at.is_some_and(|at| at <= now) {
            self.scan_all()?;
        }
        Ok(())
    }

    fn go_on(&self) -> Result<(), Stopped> {
        if self.shared.is_stopped() { Err(Stopped) } else { Ok(()) }
    }

    /// Takes over what the kernel has noticed.
    fn read(&mut self) {
        let backlog = &mut self.backlog;
        let read = self.inotify.read(|notice| backlog.push_back(notice));
        if read.is_err() || self.backlog.len() > BACKLOG {
            self.backlog.clear();
            self.lost_notices();
        }
    }

    fn lost_notices(&mut self) {
        if self.root == Root::Present {
            self.root = Root::InDoubt;
        }
        self.rescan_by((Instant::now() + QUIET).max(self.no_rescan_before));
    }

    fn rescan_by(&mut self, at: Instant) {
        self.rescan_at = Some(self.rescan_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn check_root(&mut self, now: Instant) {
        self.root_check_at = now + ROOT_CHECK;
        if self.root == Root::Vanished {
            return;
        }
        self.root = match rustix::fs::stat(&self.folder.root_path) {
            Ok(stat) if InodeId::of(&stat) == self.folder.root_id => Root::Present,
            Ok(_) => Root::Vanished,
            Err(error) if is_gone(error) => Root::Vanished,
            // It cannot be told now. The next check will.
            Err(_) => self.root,
        };
    }
}

/// From notices to places to look at.
impl Worker {
    fn digest(&mut self, notice: &Notice) -> Result<(), Stopped> {
        if notice.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.lost_notices();
            return Ok(());
        }
        let Some(directory) = self.watched.path(notice.watch).cloned() else {
            return Ok(());
        };
        let now = Instant::now();
        let Some(name) = &notice.name else {
            self.digest_self(directory, notice.watch, notice.flags, now);
            return Ok(());
        };
        if self.is_private(&directory, name) {
            return Ok(());
        }
        let changes_names = notice.flags.intersects(NAMES);
        if changes_names && !directory.is_root() {
            self.pending.note(directory.clone(), false, now);
        }
        let path = match Name::new(name).and_then(|name| directory.join(name)) {
            Ok(path) => path,
            Err(error) => {
                let path = native(&directory).join(OsStr::from_bytes(name));
                self.skip(Skipped { path, reason: SkipReason::Path(error) });
                return Ok(());
            }
        };
        if notice.flags.contains(ReadFlags::MOVED_TO)
            && let Some(half) = self.halves.remove(&notice.cookie)
        {
            return self.moved(half, path, now);
        }
        if notice.flags.contains(ReadFlags::MOVED_FROM) {
            let half = Half { from: path.clone(), renewed: self.pending.is_renewed(&path) };
            self.halves.insert(notice.cookie, half);
        }
        if notice.flags.contains(ReadFlags::CLOSE_WRITE) {
            self.pending.note_closed(path, now);
        } else if notice.flags.contains(ReadFlags::MODIFY) {
            self.pending.note_written(path, now);
        } else {
            self.pending.note(path, changes_names, now);
        }
        Ok(())
    }

    /// A notice about a watched directory itself.
    fn digest_self(&mut self, directory: RelPath, watch: WatchId, flags: ReadFlags, now: Instant) {
        let ended = flags.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT);
        if ended {
            self.watched.ended(watch);
        }
        match (directory.is_root(), ended) {
            (true, true) => self.root = Root::Vanished,
            (true, false) => {
                if flags.intersects(ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF) {
                    self.check_root(now);
                }
            }
            (false, _) => self.pending.note(directory, false, now),
        }
    }

    /// Tells of a rename if it is certain what was renamed. If not, both names are looked at.
    fn moved(&mut self, half: Half, to: RelPath, now: Instant) -> Result<(), Stopped> {
        if self.renamed(&half, &to).is_none() {
            self.pending.note(to, true, now);
            return Ok(());
        }
        let from = &half.from;
        let along = self.pending.take_below(from);
        let earlier = self.pending.take_all();
        self.look_at_all(earlier)?;
        let now = Instant::now();
        self.pending.note(from.clone(), true, now);
        // Looking at the others took a while, and may have changed what is known.
        let Some(there) = self.renamed(&half, &to) else {
            self.pending.note(to, true, now);
            along.into_iter().for_each(|(path, renewed)| self.pending.note(path, renewed, now));
            return Ok(());
        };
        self.forget(&to);
        self.watched.rename(from, &to);
        self.links.rename(from, &to);
        let old = native(from);
        self.skipped.retain(|path, _| !path.starts_with(&old));
        self.tell(Observation::Moved { from: from.clone(), to: to.clone() });
        self.tell_there(to.clone(), there);
        for (path, renewed) in along {
            if path != *from
                && let Some(path) = rebase(&path, from, &to)
            {
                self.pending.note(path, renewed, now);
            }
        }
        self.hand_over();
        Ok(())
    }

    /// What stands at `to`, if it is known to be what was last told of at the old name.
    fn renamed(&self, half: &Half, to: &RelPath) -> Option<There> {
        let Some(Sight::There(there)) = self.look(to) else { return None };
        let known = self.watched.at(&half.from);
        let certain = if there.is_directory() { known == Some(there.id) } else { known.is_none() && !half.renewed };
        let apart = !half.from.is_prefix_of(to) && !to.is_prefix_of(&half.from);
        (certain && apart).then_some(there)
    }
}

/// From places to what is told of them.
impl Worker {
    fn look_at_all(&mut self, paths: Vec<RelPath>) -> Result<(), Stopped> {
        if paths.is_empty() {
            return Ok(());
        }
        // What was renamed is about to be told as gone from its old name.
        self.halves.clear();
        for (number, path) in (1..).zip(&paths) {
            if number % LOOKS_PER_READ == 0 {
                self.read();
            }
            self.go_on()?;
            self.look_at(path)?;
        }
        self.hand_over();
        Ok(())
    }

    /// Somebody has to hear what is at `path`. If its directory is gone, that is said at once: whoever looks later has
    /// only something to say of the directory.
    fn look_for(&mut self, path: RelPath, known: Option<u64>, now: Instant) {
        if path.is_root() {
            if let Sight::There(there) = look_in(self.folder.beneath.root(), c".") {
                self.tell(Observation::Found { path, seen: there.seen });
            }
            return;
        }
        match self.folder.beneath.stat(&path) {
            Err(error) if is_gone(error) => self.tell(Observation::Missing { path: path.clone() }),
            Ok(stat) if known != Some(InodeId::of(&stat).inode) => self.watched.doubt_all_below(&path),
            Ok(_) | Err(_) => {}
        }
        self.pending.note_wanted(path, now);
    }

    fn look_at(&mut self, path: &RelPath) -> Result<(), Stopped> {
        match self.look(path) {
            None => self.lost_way(path),
            Some(Sight::Nothing) => {
                self.forget(path);
                self.tell(Observation::Missing { path: path.clone() });
                if !self.skipped.is_empty() {
                    let gone = native(path);
                    self.skipped.retain(|path, _| !path.starts_with(&gone));
                }
            }
            Some(Sight::Skip(reason)) => {
                self.forget(path);
                let path_of = || path.clone();
                self.tell(match reason.is_trouble() {
                    true => Observation::Unknown { path: path_of() },
                    false => Observation::Missing { path: path_of() },
                });
                self.skip(Skipped::new(path, reason));
            }
            Some(Sight::There(there)) if there.is_directory() => {
                // A directory that was closed to us is shown empty, as by a scan.
                if self.watched.at(path) == Some(there.id) && scan::open(&self.folder.beneath, path).is_ok() {
                    self.tell_there(path.clone(), there);
                } else {
                    // There may have been a file with other names.
                    let others = self.links.gone(path);
                    self.note_all(others);
                    self.scan(path, Some(there))?;
                }
            }
            Some(Sight::There(there)) => {
                self.unwatch_below(path);
                self.skipped.remove(&native(path));
                self.tell_there(path.clone(), there);
            }
        }
        Ok(())
    }

    /// Looks at `path` in the directory that is known to hold it.
    fn look(&self, path: &RelPath) -> Option<Sight> {
        let parent = parent(path)?;
        let id = if parent.is_root() { self.folder.root_id } else { self.watched.at(&parent)? };
        look(&self.folder.beneath, path, id)
    }

    /// A directory on the way to `path` is not the one that is known there: notices are still to come, or were of no
    /// help. Nothing is told of `path`. What is above it is looked at, and whatever was moved is read anew.
    fn lost_way(&mut self, path: &RelPath) {
        self.watched.doubt(path);
        if let Some(parent) = parent(path)
            && !parent.is_root()
        {
            self.pending.note(parent, true, Instant::now());
        }
    }

    fn tell_there(&mut self, path: RelPath, there: There) {
        self.met(&path, &there);
        self.tell(Observation::Found { path, seen: there.seen });
    }

    fn met(&mut self, path: &RelPath, there: &There) {
        let met = self.links.met(path, there);
        self.note_all(met.others);
        self.strangers |= met.strangers;
    }

    /// Nothing of what was known at `path` or below it is there.
    fn forget(&mut self, path: &RelPath) {
        self.unwatch_below(path);
        let others = self.links.gone(path);
        self.note_all(others);
    }

    fn unwatch_below(&mut self, path: &RelPath) {
        for watch in self.watched.forget(path) {
            self.inotify.unwatch(watch);
        }
    }

    fn note_all(&mut self, paths: Vec<RelPath>) {
        let now = Instant::now();
        for path in paths {
            self.pending.note(path, false, now);
        }
    }

    fn skip(&mut self, skipped: Skipped) {
        if self.skipped.insert(skipped.path.clone(), skipped.reason) != Some(skipped.reason) {
            (self.sink)(FolderEvent::Skipped(skipped));
        }
    }

    fn tell(&mut self, observation: Observation) {
        self.told.push(observation);
        if self.told.len() >= BATCH {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if !self.told.is_empty() {
            (self.sink)(FolderEvent::Observed(std::mem::take(&mut self.told)));
        }
    }
}

/// The directory that holds `path`; `None` for the root.
fn parent(path: &RelPath) -> Option<RelPath> {
    let (parents, _) = path.split_last()?;
    RelPath::new(parents.to_vec()).ok()
}

/// Reading directories.
impl Worker {
    fn scan_all(&mut self) -> Result<(), Stopped> {
        let begun = Instant::now();
        self.rescan_at = None;
        self.incomplete = false;
        // Whatever waited to be looked at is looked at now.
        self.pending.take_all();
        self.halves.clear();
        self.links = Links::default();
        self.scan(&RelPath::ROOT, None)?;
        let now = Instant::now();
        self.no_rescan_before = now + (now - begun);
        self.told_unwatched &= self.incomplete;
        // Those that were not met now are outside of the folder.
        self.strangers = false;
        self.no_search_before = now + SEARCH_PAUSE.max((now - begun) * PAUSE_FACTOR);
        if self.incomplete {
            self.rescan_by(now + INCOMPLETE_RESCAN.max((now - begun) * PAUSE_FACTOR));
        }
        Ok(())
    }

    fn scan(&mut self, path: &RelPath, there: Option<There>) -> Result<(), Stopped> {
        self.hand_over();
        self.round += 1;
        let beneath = Arc::clone(&self.folder.beneath);
        scan::scan(&beneath, path, there, self)?;
        for watch in self.watched.forget_unmet(path, self.round) {
            self.inotify.unwatch(watch);
        }
        Ok(())
    }

    fn is_incomplete(&mut self) {
        self.incomplete = true;
        self.rescan_by(Instant::now() + INCOMPLETE_RESCAN);
    }
}

impl Visitor for Worker {
    fn is_private(&self, directory: &RelPath, name: &[u8]) -> bool {
        directory.is_root() && self.folder.private.is_some_and(|private| private.as_bytes() == name)
    }

    fn enter(&mut self, path: &RelPath, directory: BorrowedFd<'_>, id: InodeId) -> Result<(), Stopped> {
        self.go_on()?;
        self.read();
        if !self.skipped.is_empty() {
            self.skipped.remove(&native(path));
        }
        match self.inotify.watch(directory, path.is_root()) {
            Ok(watch) => {
                if let Some(ended) = self.watched.insert(path.clone(), watch, id, self.round) {
                    self.inotify.unwatch(ended);
                }
            }
            Err(error) => {
                self.is_incomplete();
                if !self.told_unwatched {
                    self.told_unwatched = true;
                    (self.sink)(FolderEvent::Unwatched(unwatched(native(path), error)));
                }
            }
        }
        Ok(())
    }

    fn observed(&mut self, observations: Vec<Observation>) {
        (self.sink)(FolderEvent::Observed(observations));
    }

    fn linked(&mut self, path: &RelPath, there: &There) {
        self.met(path, there);
    }

    fn lost(&mut self, path: &RelPath) {
        self.watched.doubt(path);
        self.pending.note(path.clone(), true, Instant::now());
    }

    fn skipped(&mut self, skipped: Skipped) {
        match skipped.reason {
            // The kernel tells when permissions change; it does not tell when a disk or memory recovers.
            SkipReason::Unreadable(error)
                if error != Errno::ACCESS.raw_os_error() && error != Errno::PERM.raw_os_error() =>
            {
                self.is_incomplete();
            }
            SkipReason::Unreadable(_)
            | SkipReason::Socket
            | SkipReason::Pipe
            | SkipReason::Device
            | SkipReason::Path(_)
            | SkipReason::Attributes(_)
            | SkipReason::Loop => {}
        }
        self.skip(skipped);
    }
}
