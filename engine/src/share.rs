//! Our own folder: what the driver sees in it becomes the tree, and numbered events for those who follow.

use crate::config::Config;
use crate::engine::Engine;
use crate::event::{Change, Position, Seen, SeenKind, TreeUpdate};
use crate::ids::{Ino, PeerId, ReqId};
use crate::input::{ToldUpTo, WatchCursor};
use crate::merge::Stated;
use crate::output::{Errno, Notice, Output, Reply, ServedFile};
use crate::path::{Name, RelPath};
use crate::reads::Waiting;
use crate::record::{Facts, FileTime, Kind, Record, Stamp};
use crate::timers::Timer;
use crate::tree::{Known, Node, Origin};
use crate::version::{Dot, Revision};
use crate::xattrs::Xattrs;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The most updates in one answer to a follower.
pub const WATCH_BATCH: usize = 256;

/// The events of our own folder, as far as they are kept.
#[derive(Debug)]
pub(crate) struct Share {
    epoch: u64,
    /// The last of these has number `last`.
    /// Each with who told us, and need not be told.
    log: VecDeque<(Change, Option<PeerId>)>,
    last: u64,
    capacity: usize,
    /// The last event that renamed a directory: a listing that was under way then may have missed what moved.
    last_dir_rename: u64,
    /// The events of the log that renamed a directory, by the change that each made.
    dir_renames: BTreeMap<Dot, u64>,
    /// Directories that are being read, innermost last, each with the mark that was current when it began.
    scans: Vec<(RelPath, u64)>,
    /// The path that the file system said was renamed last: its new inode time is explained by that.
    moved: Option<RelPath>,
    /// The paths, name by name, that are not offered, with all that is below them. Never the root.
    unshared: BTreeSet<Vec<Name>>,
}

impl Share {
    pub(crate) fn new(config: &Config) -> Share {
        Share {
            epoch: config.epoch,
            log: VecDeque::new(),
            last: 0,
            capacity: config.event_log,
            last_dir_rename: 0,
            dir_renames: BTreeMap::new(),
            scans: Vec::new(),
            moved: None,
            unshared: BTreeSet::new(),
        }
    }

    /// Where a follower stands that knows everything.
    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.last }
    }

    fn can_resume(&self, position: Position) -> bool {
        let oldest = self.last - self.log.len() as u64;
        position.epoch == self.epoch && (oldest..=self.last).contains(&position.seq)
    }

    /// Whether a path is left out, or lies below one that is.
    pub(crate) fn is_left_out(&self, path: &RelPath) -> bool {
        (1..=path.names().len()).any(|depth| self.unshared.contains(&path.names()[..depth]))
    }

    pub(crate) fn offer_again(&mut self, path: &RelPath) {
        self.unshared.remove(path.names());
    }

    /// The number of the event that comes next.
    pub(crate) fn next_event(&self) -> u64 {
        self.last + 1
    }

    /// What was remembered counts as the first event: whoever stands there has been told it in a listing.
    pub(crate) fn begin_after_memory(&mut self) -> u64 {
        self.last = self.last.max(1);
        self.last
    }

    /// The file system said that this was renamed.
    pub(crate) fn note_moved(&mut self, to: RelPath) {
        self.moved = Some(to);
    }

    fn append(&mut self, change: Change, from: Option<PeerId>) {
        self.last += 1;
        if let Some(dot) = dir_rename_of(&change) {
            self.last_dir_rename = self.last;
            self.dir_renames.insert(dot, self.last);
        }
        if self.log.len() == self.capacity {
            let oldest = self.last - self.log.len() as u64;
            let dot = self.log.pop_front().and_then(|(change, _)| dir_rename_of(&change));
            if let Some(dot) = dot.filter(|dot| self.dir_renames.get(dot) == Some(&oldest)) {
                self.dir_renames.remove(&dot);
            }
        }
        self.log.push_back((change, from));
    }

    /// Whether an event behind `seq` has renamed a directory, and this is the change that it made.
    fn is_renamed_behind(&self, dot: Dot, seq: u64) -> bool {
        self.dir_renames.get(&dot).is_some_and(|renamed| *renamed > seq)
    }

    /// The events behind `seq`, oldest first, for `peer`, if they are for a peer; `None` for those that came from there.
    fn events_after(&self, seq: u64, peer: Option<PeerId>) -> impl Iterator<Item = (u64, Option<&Change>)> {
        let known = self.last - self.log.len() as u64;
        // A position that can be resumed is at most as old as the log is long.
        let skip = seq.saturating_sub(known) as usize;
        let numbers = seq.max(known) + 1..;
        self.log.iter().skip(skip).zip(numbers).map(move |((change, from), seq)| {
            let is_news = from.is_none() || *from != peer;
            (seq, is_news.then_some(change))
        })
    }
}

// What the driver sees.

impl Engine {
    pub(crate) fn on_found(&mut self, path: &RelPath, seen: Seen, out: &mut Vec<Output>) {
        let moved = self.share.moved.take().is_some_and(|moved| moved == *path);
        if self.share.is_left_out(path) {
            return;
        }
        if self.config.keeps_folder {
            return self.merge_found(path, seen, moved, out);
        }
        let existing = self.tree.resolve(path.names());
        let before = existing.and_then(|ino| self.tree.get(ino)).and_then(|node| match node.origin {
            Origin::Local(facts) => Some((&node.record, facts)),
            Origin::Peer(_) => None,
        });
        let (record, facts) = record_of(seen, before, moved, self);
        if let Err(reason) = record.check() {
            out.push(Output::Notice(Notice::NotShared { path: path.clone(), reason }));
            return self.on_missing(path.clone(), out);
        }
        let origin = Origin::Local(facts);
        let Some((parents, name)) = path.split_last() else {
            if record.kind == Kind::Dir {
                self.change(Ino::ROOT, path, record, origin, out);
            }
            return;
        };
        // Without its directory there is no place for it: the scan of that directory will tell it again.
        let Some(parent) = self.tree.resolve(parents) else { return };
        if !self.tree.get(parent).is_some_and(Node::is_dir) {
            return;
        }
        match existing {
            Some(ino) if self.is_same_thing(ino, &record, facts) => {
                self.change(ino, path, record, origin, out);
            }
            _ => {
                let revision = self.next_revision(&self.version_at(path.names()));
                if let Some(ino) = existing {
                    self.lose_inner(ino, out);
                    self.remove(ino, out);
                }
                let known = Known { record, revision, origin, mark: self.last_mark };
                self.add(parent, name.clone(), known.clone(), out);
                let Known { record, revision, .. } = known;
                self.announce(
                    Change::Put { path: path.clone(), record, revision, replaced: existing.is_some() },
                    None,
                    out,
                );
            }
        }
    }

    /// Whether what stands at a place is what stood there before, perhaps edited, rather than something put over it.
    fn is_same_thing(&self, ino: Ino, record: &Record, facts: Facts) -> bool {
        let Some(node) = self.tree.get(ino) else { return false };
        match (&node.record.kind, &record.kind, node.origin) {
            (Kind::File { .. }, Kind::File { .. }, Origin::Local(before)) => before.inode == facts.inode,
            (Kind::Dir, Kind::Dir, _) | (Kind::Symlink { .. }, Kind::Symlink { .. }, _) => true,
            _ => false,
        }
    }

    fn change(&mut self, ino: Ino, path: &RelPath, record: Record, origin: Origin, out: &mut Vec<Output>) {
        let Some(node) = self.tree.get(ino) else { return };
        let changed = node.record != record;
        let before = node.revision.clone();
        let revision = if changed { self.next_revision(&before.version) } else { before };
        let known = Known { record, revision, origin, mark: self.last_mark };
        self.update(ino, known.clone(), out);
        if changed {
            let Known { record, revision, .. } = known;
            self.announce(Change::Put { path: path.clone(), record, revision, replaced: false }, None, out);
        }
    }

    pub(crate) fn on_missing(&mut self, path: RelPath, out: &mut Vec<Output>) {
        if self.config.keeps_folder {
            return self.merge_missing(&path, out);
        }
        let Some(ino) = self.tree.resolve(path.names()) else { return };
        if ino == Ino::ROOT {
            // Only what it held can be gone from the tree; that the folder itself vanished is for the driver to say.
            let held: Vec<Ino> = self.tree.children_after(Ino::ROOT, Ino::ROOT).map(|(child, _)| child).collect();
            for child in held {
                self.lose(child, out);
            }
            return;
        }
        self.lose(ino, out);
    }

    /// An entry is gone with everything below it: each is told to be, what a directory held before the directory.
    fn lose(&mut self, ino: Ino, out: &mut Vec<Output>) {
        let Some(path) = self.tree.path_of(ino) else { return };
        self.lose_inner(ino, out);
        let revision = self.next_revision(&self.version_at(path.names()));
        self.remove(ino, out);
        self.announce(Change::Remove { path, revision }, None, out);
    }

    /// What is below an entry is gone.
    fn lose_inner(&mut self, ino: Ino, out: &mut Vec<Output>) {
        let inner: Vec<Ino> = self.tree.within(ino).into_iter().skip(1).collect();
        for ino in inner.into_iter().rev() {
            let Some(path) = self.tree.path_of(ino) else { continue };
            let revision = self.next_revision(&self.version_at(path.names()));
            self.remove(ino, out);
            self.announce(Change::Remove { path, revision }, None, out);
        }
    }

    pub(crate) fn on_moved(&mut self, from: RelPath, to: RelPath, out: &mut Vec<Output>) {
        if self.config.keeps_folder {
            return self.merge_moved(&from, &to, out);
        }
        let Some(ino) = self.tree.resolve(from.names()) else { return };
        let Some((parents, name)) = to.split_last() else { return };
        if ino == Ino::ROOT || from == to {
            return;
        }
        if self.share.is_left_out(&to) {
            return self.lose(ino, out);
        }
        let parent = self.tree.resolve(parents).filter(|parent| self.tree.get(*parent).is_some_and(Node::is_dir));
        let Some(parent) = parent.filter(|parent| !self.tree.is_within(*parent, ino)) else {
            // Our picture is behind: what we take for its parent is not there, or has moved as well. It is not where
            // it was in any case; the look that follows sees where it is.
            return self.lose(ino, out);
        };
        if let Some(over) = self.tree.child(parent, name.as_bytes()).filter(|over| self.tree.is_within(ino, *over)) {
            // The same: it cannot stand over what it is in.
            return self.lose(over, out);
        }
        let digest = self.rename_digest(&from, &to);
        let (before, over) = (self.version_at(from.names()), self.version_at(to.names()));
        let dot = self.clock.dot_after(&before.join(&over));
        self.rename(ino, parent, name.clone(), out);
        self.mark_moved(ino, dot);
        let revision = Revision::after(&before.join(&over), dot);
        if let Some(node) = self.tree.get_mut(ino) {
            node.revision = revision.clone();
        }
        if !self.share.scans.is_empty() {
            // It may have moved to where a scan has passed already.
            for inner in self.tree.within(ino) {
                if let Some(node) = self.tree.get_mut(inner) {
                    node.mark = self.last_mark;
                }
            }
        }
        self.share.moved = Some(to.clone());
        if let Some(record) = self.tree.get(ino).map(|node| node.record.clone()) {
            let left = before.with(dot);
            self.announce(Change::Rename { from, to: to.clone(), record, revision, left, digest }, None, out);
        }
        // What came to stand where nothing is offered.
        let within = self.share.unshared.range(to.names().to_vec()..).take_while(|path| path.starts_with(to.names()));
        let left_out: Vec<Ino> = within.filter_map(|path| self.tree.resolve(path)).collect();
        for ino in left_out {
            self.lose(ino, out);
        }
    }

    pub(crate) fn on_scan_begin(&mut self, path: RelPath) {
        let mark = self.next_mark();
        self.share.scans.push((path, mark));
    }

    pub(crate) fn on_scan_end(&mut self, path: &RelPath, out: &mut Vec<Output>) {
        let Some(at) = self.share.scans.iter().rposition(|(scanned, _)| scanned == path) else { return };
        let (_, mark) = self.share.scans.remove(at);
        if self.config.keeps_folder {
            return self.merge_unseen(path, mark, out);
        }
        let Some(top) = self.tree.resolve(path.names()) else { return };
        let unseen = |ino: &Ino| *ino != top && self.tree.get(*ino).is_some_and(|node| node.mark < mark);
        let unseen: Vec<Ino> = self.tree.within(top).into_iter().filter(unseen).collect();
        for ino in unseen {
            self.lose(ino, out);
        }
    }

    /// A path is not offered any more.
    pub(crate) fn unshare(&mut self, path: RelPath, out: &mut Vec<Output>) {
        if path.is_root() {
            return;
        }
        // What others have too cannot be taken from them: it would be removed there.
        if self.config.keeps_folder {
            return;
        }
        if let Some(ino) = self.tree.resolve(path.names())
            && self.tree.get(ino).is_some_and(|node| matches!(node.origin, Origin::Local(_)))
        {
            self.lose(ino, out);
        }
        self.share.unshared.insert(path.names().to_vec());
    }

    /// Tells those who follow of a change, but for the one who told us.
    pub(crate) fn announce(&mut self, change: Change, from: Option<PeerId>, out: &mut Vec<Output>) {
        let (path, record) = match &change {
            Change::Put { path, record, .. } | Change::Rename { to: path, record, .. } => {
                (path.clone(), Some(record.clone()))
            }
            Change::Remove { path, .. } => (path.clone(), None),
        };
        self.note_unwritten(&path);
        self.share.append(change, from);
        out.push(Output::Notice(Notice::Announced { path, record }));
        self.tell_followers(out);
    }
}

/// The stamp that a file keeps: the one it has, if nothing suggests that its bytes may have changed.
///
/// The inode's own time also changes when a file is renamed or its attributes are set. Where one of these explains it, the
/// bytes are taken to be the same; anything unexplained is a new version.
fn kept_stamp(record: &Record, facts: Facts, seen: &Seen, xattrs: &Xattrs, moved: bool) -> Option<Stamp> {
    let Kind::File { size_bytes, stamp } = &record.kind else { return None };
    let is_explained = || moved || record.mode != seen.mode || record.xattrs != *xattrs;
    let SeenKind::File { size_bytes: seen_bytes } = seen.kind else { return None };
    let untouched = *size_bytes == seen_bytes
        && record.modified == seen.modified
        && facts.inode == seen.facts.inode
        && (facts.changed == seen.facts.changed || is_explained());
    untouched.then_some(*stamp)
}

/// The extended attributes of what was seen. Where they are not known they are as they were; and so are those that are
/// missing where the disk `lacks` what it does not take, unless that and what was set are more than there can be.
fn xattrs_of(seen: &Seen, before: Option<(&Record, Facts)>, lacks: bool) -> Xattrs {
    let same = before.filter(|(_, facts)| facts.inode == seen.facts.inode);
    match (&seen.kind, &seen.xattrs, same) {
        (SeenKind::Symlink { .. }, ..) => Xattrs::default(),
        (_, None, same) => same.map(|(record, _)| record.xattrs.clone()).unwrap_or_default(),
        (_, Some(seen_now), Some((record, _))) if lacks => {
            let all: Xattrs = record.xattrs.iter().chain(seen_now.iter()).collect();
            if all.check().is_ok() { all } else { seen_now.clone() }
        }
        (_, Some(seen_now), _) => seen_now.clone(),
    }
}

/// What peers of `engine` may know of what was seen, where `before` was there, and whether the file system said that it was
/// `moved` there.
pub(crate) fn record_of(seen: Seen, before: Option<(&Record, Facts)>, moved: bool, engine: &Engine) -> (Record, Facts) {
    let xattrs = xattrs_of(&seen, before, engine.replica.folder.lacks_xattrs);
    let kept = before.and_then(|(record, facts)| kept_stamp(record, facts, &seen, &xattrs, moved));
    let kind = match seen.kind {
        SeenKind::File { size_bytes } => {
            let stamp = kept.unwrap_or_else(|| seen.facts.stamp(engine.config.device, size_bytes, seen.modified));
            Kind::File { size_bytes, stamp }
        }
        SeenKind::Dir => Kind::Dir,
        SeenKind::Symlink { target } => Kind::Symlink { target },
    };
    (Record { kind, mode: seen.mode, modified: seen.modified, xattrs }, seen.facts)
}

// What followers ask.

impl Engine {
    pub(crate) fn peer_open(&self, path: &RelPath, stamp: Stamp) -> Result<Reply, Errno> {
        if let Some(served) = self.serve_behind(stamp) {
            return Ok(Reply::PeerOpened(served));
        }
        let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino)).ok_or(Errno::NoEntry)?;
        match (&node.record.kind, node.origin) {
            (Kind::File { size_bytes, stamp: ours }, Origin::Local(facts)) if *ours == stamp => {
                let modified: FileTime = node.record.modified;
                Ok(Reply::PeerOpened(ServedFile { path: path.clone(), size_bytes: *size_bytes, modified, facts }))
            }
            (Kind::File { .. }, Origin::Local(_)) => Err(Errno::Stale),
            (Kind::File { stamp: known, .. }, Origin::Peer(_)) if *known == stamp && self.config.keeps_folder => {
                Ok(Reply::NotHereYet)
            }
            (Kind::File { .. } | Kind::Dir | Kind::Symlink { .. }, _) => Err(Errno::NoEntry),
        }
    }

    pub(crate) fn peer_watch(&mut self, id: ReqId, peer: PeerId, mut cursor: WatchCursor, out: &mut Vec<Output>) {
        // What an onlooker has applied, the folder of the same device has not.
        if std::mem::take(&mut cursor.is_said) && !cursor.looks_on {
            self.note_heard(peer, cursor.position);
        }
        let (updates, mut cursor) = self.news(peer, cursor);
        // Whoever begins to follow has to know when everything was told, also if that is nothing.
        let is_last = updates.is_empty() && !cursor.is_told_all;
        // Who merges does not lose anything before it has heard what comes with it: it is told each time when that was all.
        cursor.is_told_all = is_last || cursor.is_told_all && (updates.is_empty() || !self.config.keeps_folder);
        if !updates.is_empty() || is_last || self.stopping {
            return self.reply(id, Ok(Reply::Watched { updates, cursor }), out);
        }
        let until = self.now + self.config.watch_timeout;
        self.timers.set(until, Timer::NoNews(id));
        self.waiting.insert(id, Waiting::Watch { peer, cursor, until });
    }

    pub(crate) fn on_no_news(&mut self, id: ReqId, out: &mut Vec<Output>) {
        if let Some(Waiting::Watch { cursor, .. }) = self.waiting.get(&id) {
            let cursor = cursor.clone();
            self.finish(id, Ok(Reply::Watched { updates: Vec::new(), cursor }), out);
        }
    }

    fn tell_followers(&mut self, out: &mut Vec<Output>) {
        let watching: Vec<(ReqId, PeerId, WatchCursor)> = self
            .waiting
            .iter()
            .filter_map(|(id, waiting)| match waiting {
                Waiting::Watch { peer, cursor, .. } => Some((*id, *peer, cursor.clone())),
                Waiting::Read(_) | Waiting::All(_) | Waiting::Bring(_) => None,
            })
            .collect();
        for (id, peer, cursor) in watching {
            let (updates, mut cursor) = self.news(peer, cursor);
            if !updates.is_empty() {
                cursor.is_told_all &= !self.config.keeps_folder;
                self.finish(id, Ok(Reply::Watched { updates, cursor }), out);
            }
        }
    }

    /// What to tell a follower who stands at `cursor`, and where it stands then.
    fn news(&self, peer: PeerId, mut cursor: WatchCursor) -> (Vec<TreeUpdate>, WatchCursor) {
        let mut updates = Vec::new();
        // A directory that was renamed may have moved from what is still to be listed to what has been.
        let overtaken = cursor.listing.is_some() && self.share.last_dir_rename > cursor.position.seq;
        // Without the events that happened while it was made, a listing is worth nothing.
        if overtaken || !self.share.can_resume(cursor.position) {
            let listing = Some(ToldUpTo { path: RelPath::ROOT, is_dir: true });
            cursor = WatchCursor { position: self.share.position(), listing, removed: Some(None), ..cursor };
            updates.push(TreeUpdate::Begin { position: cursor.position });
        }
        let batch = self.config.watch_batch;
        while let Some(told) = cursor.removed.take_if(|_| updates.len() < batch) {
            let Some((path, revision)) = self.replica.tombstones.before(told.as_ref()) else {
                updates.extend(self.entry(Ino::ROOT));
                break;
            };
            cursor.removed = Some(Some(path.clone()));
            updates.push(TreeUpdate::Removed { path: path.clone(), revision: revision.clone() });
        }
        while let Some(at) = cursor.listing.take_if(|_| updates.len() < batch && cursor.removed.is_none()) {
            let Some(next) = self.tree.next_in_order(&at.path, at.is_dir) else {
                updates.push(TreeUpdate::End { settled: self.share.last });
                cursor.is_told_all = true;
                break;
            };
            let is_dir = self.tree.get(next).is_some_and(Node::is_dir);
            // What is in the order of listings has a path.
            cursor.listing = Some(ToldUpTo { path: self.tree.path_of(next).unwrap_or_default(), is_dir });
            updates.extend(self.entry(next));
        }
        if cursor.listing.is_none() {
            let merger = Some(peer).filter(|_| !cursor.looks_on);
            for (seq, change) in self.share.events_after(cursor.position.seq, merger) {
                let is_full = updates.len() >= batch;
                match (change.and_then(|change| self.as_of_now(merger, seq, change)), updates.last_mut()) {
                    (None, Some(TreeUpdate::Skip { seq: skipped })) => *skipped = seq,
                    _ if is_full => break,
                    (None, _) => updates.push(TreeUpdate::Skip { seq }),
                    (Some(change), _) => updates.push(TreeUpdate::Event { seq, change }),
                }
                cursor.position.seq = seq;
            }
        }
        (updates, cursor)
    }

    /// What an event says by now. Of a path of which a later one says something else, that is told at once: what this one said
    /// was written over, and may be nowhere any more. What comes after it may need that something is there. Only who merges
    /// what we say with what it has itself is told so, and notices by its digest if a rename moved more than it heard of; who
    /// only looks on is told everything in turn. What a directory's rename has made of a path is told in its turn, with all else
    /// that it moved: whoever knew of the directory alone would take the rename to be known.
    fn as_of_now(&self, merger: Option<PeerId>, seq: u64, change: &Change) -> Option<Change> {
        if !self.config.keeps_folder || !merger.is_some_and(|peer| self.peers.contains_key(&peer)) {
            return Some(change.clone());
        }
        match change {
            Change::Put { path, replaced, .. } => {
                let Stated { record, revision } = self.stated_at(path)?;
                if self.share.is_renamed_behind(revision.dot, seq) {
                    return None;
                }
                Some(Change::Put { path: path.clone(), record: record?, revision, replaced: *replaced })
            }
            Change::Remove { path, revision } => {
                let is_so = self.stated_at(path).is_some_and(|stated| stated.revision == *revision);
                is_so.then(|| change.clone())
            }
            Change::Rename { .. } => Some(change.clone()),
        }
    }

    /// How an entry is listed. Who only shows what a peer has does not tell it on: perhaps it is the very one who asks.
    fn entry(&self, ino: Ino) -> Option<TreeUpdate> {
        let path = self.tree.path_of(ino)?;
        let node = self.tree.get(ino)?;
        let is_told = self.config.keeps_folder || matches!(node.origin, Origin::Local(_));
        is_told.then(|| TreeUpdate::Entry { path, record: node.record.clone(), revision: node.revision.clone() })
    }
}

/// The change that an event made, if that renamed a directory.
fn dir_rename_of(change: &Change) -> Option<Dot> {
    match change {
        Change::Rename { record: Record { kind: Kind::Dir, .. }, revision, .. } => Some(revision.dot),
        Change::Rename { .. } | Change::Put { .. } | Change::Remove { .. } => None,
    }
}
