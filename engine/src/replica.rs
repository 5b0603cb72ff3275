//! Merging what a peer says into our own tree, for a device that keeps the share in a folder of its own and changes it.
//!
//! What is said of one path is merged by [`crate::merge`]. Here is what follows from it for the tree: a directory lives as long
//! as something in it does, what stands where a directory has to be becomes a conflict copy, and whatever changes is told on.

use crate::config::Config;
use crate::engine::Engine;
use crate::event::Change;
use crate::fault::PeerFault;
use crate::folder::FolderState;
use crate::ids::{Ino, PeerId};
use crate::journal::{Standing, Unwritten};
use crate::merge::{Stated, merge};
use crate::output::Output;
use crate::path::{Name, RelPath};
use crate::record::{FileTime, Kind, Record};
use crate::tombstones::Tombstones;
use crate::tree::{Known, Node, Origin};
use crate::version::{DeviceTag, Dot, Revision, Version};
use crate::xattrs::Xattrs;
use std::collections::BTreeMap;

/// How far the numbers of a peer may be ahead of ours: as many as there are microseconds in 35 years. Who was at the end of
/// all numbers could not be told from who comes after.
const FARTHEST_AHEAD: u64 = 1 << 50;

/// Who has what no peer is known to have.
pub(crate) const NOBODY: PeerId = PeerId([0; 32]);

/// What a device keeps that has the share in a folder of its own.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) tombstones: Tombstones,
    pub(crate) folder: FolderState,
    /// Something was remembered of which it is not known who has it.
    pub(crate) has_orphans: bool,
    pub(crate) unwritten: Unwritten,
}

impl Replica {
    /// Of a share of which nothing is written down, not even that it has a root.
    pub(crate) fn new(config: &Config) -> Replica {
        let mut replica = Replica::default();
        if config.keeps_folder {
            replica.unwritten.tree.note(&RelPath::ROOT);
        }
        replica
    }

    /// All that is known was written down, and that the device stands there.
    pub(crate) fn note_written(&mut self, standings: BTreeMap<PeerId, Standing>) {
        self.unwritten.tree.clear();
        self.tombstones.noted.clear();
        self.folder.behind.noted.clear();
        self.unwritten.standings = standings;
    }
}

/// How we know what is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Telling {
    /// Who has it. Our own folder, if we saw it there.
    pub(crate) origin: Origin,
    /// Who said exactly this, and need not be told.
    pub(crate) from: Option<PeerId>,
    /// What was seen in our own folder is what this change made.
    pub(crate) seen: Option<Dot>,
    /// Another object stands there now.
    pub(crate) replaced: bool,
    pub(crate) mark: u64,
}

impl Telling {
    fn is_own(&self) -> bool {
        matches!(self.origin, Origin::Local(_))
    }

    /// Somebody may have to be told who said something like it.
    fn to_all(self) -> Telling {
        Telling { from: None, replaced: false, ..self }
    }
}

impl Engine {
    /// What is known of a path, be it that something was removed there.
    pub(crate) fn stated_at(&self, path: &RelPath) -> Option<Stated> {
        let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
        match node {
            Some(node) => Some(Stated { record: Some(node.record.clone()), revision: node.revision.clone() }),
            None => {
                let revision = self.replica.tombstones.get(path.names())?.clone();
                Some(Stated { record: None, revision })
            }
        }
    }

    /// The version of what is at a path, or of its removal; none if nothing was ever known to be there.
    pub(crate) fn version_at(&self, path: &[Name]) -> Version {
        let node = self.tree.resolve(path).and_then(|ino| self.tree.get(ino));
        let revision = node.map(|node| &node.revision).or_else(|| self.replica.tombstones.get(path));
        revision.map(|revision| revision.version.clone()).unwrap_or_default()
    }

    /// Takes over what a peer says, as far as that is news.
    pub(crate) fn take_over_stated(
        &mut self,
        path: &RelPath,
        theirs: Stated,
        telling: Telling,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerFault> {
        if let Some(record) = &theirs.record {
            record.check()?;
            theirs.revision.check()?;
        }
        self.check_numbers(&theirs.revision.version)?;
        if path.is_root() && theirs.record.as_ref().is_none_or(|record| record.kind != Kind::Dir) {
            return Err(PeerFault::Root);
        }
        self.merge_in(path, theirs, telling, out)
    }

    /// A peer's numbers may be ahead of ours, but not by so much that there would be none left.
    fn check_numbers(&self, theirs: &Version) -> Result<(), PeerFault> {
        let most = self.config.version_base.saturating_add(FARTHEST_AHEAD);
        if theirs.highest() > most { Err(PeerFault::Version) } else { Ok(()) }
    }

    /// Merges what is said of a path with what we know of it.
    pub(crate) fn merge_in(
        &mut self,
        path: &RelPath,
        theirs: Stated,
        telling: Telling,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerFault> {
        self.renumber(path, &theirs.revision.version, out);
        let Some(ours) = self.stated_at(path) else { return self.set_state(path, theirs, telling, out) };
        let merged = merge(&ours, &theirs);
        if merged == ours {
            self.note_named(path, &theirs, telling);
            return Ok(());
        }
        let telling = if merged == theirs { telling } else { telling.to_all() };
        self.set_state(path, merged, telling, out)
    }

    /// Whoever made something has it for sure: it is had from there, if that peer is there. Our own folder has only what was
    /// seen in it.
    fn best_source(&self, telling: Telling, revision: &Revision) -> Origin {
        if let (Origin::Local(_), Some(seen)) = (telling.origin, telling.seen)
            && seen == revision.dot
        {
            return telling.origin;
        }
        let is_linked = |author: &PeerId| self.link_to(*author).is_some();
        match (telling.origin, self.peer_called(revision.dot.author)) {
            (Origin::Peer(_), Some(author)) if is_linked(&author) => Origin::Peer(author),
            (Origin::Peer(told), _) => Origin::Peer(told),
            (Origin::Local(_), _) => self.source_by(revision.dot.author),
        }
    }

    fn peer_called(&self, tag: DeviceTag) -> Option<PeerId> {
        self.peers.keys().find(|id| DeviceTag::of(id) == tag).copied()
    }

    /// Where what a device made is to be had: from it, if it is known.
    pub(crate) fn source_by(&self, author: DeviceTag) -> Origin {
        let author = self.peer_called(author).or(self.peers.keys().next().copied());
        Origin::Peer(author.unwrap_or(NOBODY))
    }

    /// We know it already. Who made it has it for sure, and what a listing names is there.
    fn note_named(&mut self, path: &RelPath, theirs: &Stated, telling: Telling) {
        let Some(node) = self.tree.resolve(path.names()).and_then(|ino| self.tree.get_mut(ino)) else { return };
        let is_same = node.revision == theirs.revision;
        if let (Origin::Peer(_), Origin::Peer(by), true, None) = (node.origin, telling.origin, is_same, node.content) {
            node.origin = Origin::Peer(by);
        }
        node.mark = telling.mark;
    }

    /// A version names a change that we made in a life of which we have no memory, with a number as high as those that we give
    /// in this one: what our folder holds gets a new number, or it would be taken for what was written over.
    fn renumber(&mut self, path: &RelPath, theirs: &Version, out: &mut Vec<Output>) {
        let held = self.held_at(path).filter(|held| self.clock.is_overtaken(held.dot, theirs));
        self.clock.note(theirs);
        if let Some(held) = held {
            let dot = held.dot;
            self.tell_found(path, held, &[dot], out);
        }
    }

    /// This is said of a path from now on.
    pub(crate) fn set_state(
        &mut self,
        path: &RelPath,
        stated: Stated,
        telling: Telling,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerFault> {
        let Stated { record, revision } = stated;
        let Some(record) = record else {
            self.set_removed(path, revision, telling, out);
            return Ok(());
        };
        let standing = self.tree.resolve(path.names()).and_then(|ino| self.tree.get_mut(ino));
        if let Some(node) = standing.filter(|node| node.revision.dot == revision.dot && node.record == record) {
            // Only what else is known of the path is news.
            node.revision = revision.clone();
            node.mark = telling.mark;
            self.replica.folder.note_due(path.clone());
            let change = Change::Put { path: path.clone(), record, revision, replaced: false };
            self.announce(change, telling.from, out);
            return Ok(());
        }
        self.set_record(path, record, revision, telling, out)
    }

    fn set_removed(&mut self, path: &RelPath, revision: Revision, telling: Telling, out: &mut Vec<Output>) {
        if let Some(ino) = self.tree.resolve(path.names()) {
            let inner = self.tree.children_after(ino, Ino::ROOT).next().map(|(_, inner)| inner.origin);
            if let Some(origin) = inner {
                // Something in it lives on, and so does the directory.
                let revision = self.next_revision(&revision.version);
                let Some(node) = self.tree.get_mut(ino) else { return };
                node.revision = revision.clone();
                if telling.is_own() {
                    node.origin = origin;
                }
                let change = Change::Put { path: path.clone(), record: node.record.clone(), revision, replaced: false };
                self.replica.folder.note_due(path.clone());
                return self.announce(change, None, out);
            }
            self.leave_behind(ino, telling);
            self.remove(ino, out);
        }
        self.replica.tombstones.insert(path.clone(), revision.clone(), self.share.next_event());
        self.replica.folder.note_due(path.clone());
        self.announce(Change::Remove { path: path.clone(), revision }, telling.from, out);
    }

    fn set_record(
        &mut self,
        path: &RelPath,
        record: Record,
        revision: Revision,
        telling: Telling,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerFault> {
        let Some((parents, name)) = path.split_last() else {
            let known = Known {
                record: record.clone(),
                revision: revision.clone(),
                origin: telling.origin,
                mark: telling.mark,
            };
            self.leave_behind(Ino::ROOT, telling);
            self.update(Ino::ROOT, known, out);
            self.replica.folder.note_due(RelPath::ROOT);
            let put = Change::Put { path: path.clone(), record, revision, replaced: false };
            self.announce(put, telling.from, out);
            self.settle(path);
            return Ok(());
        };
        let parent = self.directory_for(parents, record.modified, telling, out)?;
        let existing = self.tree.child(parent, name.as_bytes());
        let is_dir = record.kind == Kind::Dir;
        if let Some(ino) = existing.filter(|ino| !is_dir && self.tree.children_after(*ino, Ino::ROOT).next().is_some())
        {
            // What is in the directory lives on, and so does the directory: there is no place here for anything else. Whoever
            // has that finds a directory which it was made without knowledge of, and keeps a copy.
            let written = Stated { record: Some(record), revision };
            return self.keep_dir(path, ino, &written, telling, out);
        }
        let origin = self.best_source(telling, &revision);
        let known = Known { record: record.clone(), revision: revision.clone(), origin, mark: telling.mark };
        match existing {
            Some(ino) if (is_dir || !telling.replaced) && self.is_same_kind(ino, &record) => {
                self.leave_behind(ino, telling);
                self.update(ino, known, out);
            }
            existing => {
                if let Some(ino) = existing {
                    self.leave_behind(ino, telling);
                    self.remove(ino, out);
                }
                if self.tree.len() >= self.config.max_entries {
                    return Err(PeerFault::TooManyEntries(self.config.max_entries));
                }
                self.add(parent, name.clone(), known, out);
            }
        }
        self.replica.tombstones.remove(path);
        match self.tree.resolve(path.names()).filter(|_| existing.is_none()) {
            Some(new) => self.note_new(new),
            None => self.replica.folder.note_due(path.clone()),
        }
        let replaced = telling.replaced && existing.is_some() && !is_dir;
        self.announce(Change::Put { path: path.clone(), record, revision, replaced }, telling.from, out);
        self.settle(path);
        Ok(())
    }

    /// A directory stays where something else was put in its place, by somebody who did not know all that is in it.
    fn keep_dir(
        &mut self,
        path: &RelPath,
        ino: Ino,
        written: &Stated,
        telling: Telling,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerFault> {
        let dot = self.clock.dot_after(&written.revision.version);
        let inner = self.tree.children_after(ino, Ino::ROOT).map(|(_, inner)| inner.origin);
        let inner = inner.reduce(|one, other| if matches!(one, Origin::Peer(_)) { one } else { other });
        let Some(node) = self.tree.get_mut(ino) else { return Ok(()) };
        if let (true, Some(inner)) = (telling.is_own(), inner) {
            // In our folder it is not there any more.
            node.origin = inner;
        }
        let revision = written.after(dot, node.record.clone(), &[]).revision;
        node.revision = revision.clone();
        node.mark = telling.mark;
        let change = Change::Put { path: path.clone(), record: node.record.clone(), revision, replaced: false };
        self.replica.folder.note_due(path.clone());
        self.announce(change, None, out);
        Ok(())
    }

    /// The directory at a path. One that was removed is there again, since something in it lives; what else stands there
    /// becomes a conflict copy.
    fn directory_for(
        &mut self,
        names: &[Name],
        modified: FileTime,
        telling: Telling,
        out: &mut Vec<Output>,
    ) -> Result<Ino, PeerFault> {
        let mut at = Ino::ROOT;
        for depth in 1..=names.len() {
            let here = RelPath::new(names[..depth].to_vec())?;
            let existing = self.tree.child(at, names[depth - 1].as_bytes());
            if let Some(ino) = existing.filter(|ino| self.tree.get(*ino).is_some_and(Node::is_dir)) {
                at = ino;
                continue;
            }
            let before = self.stated_at(&here);
            if before.is_none() && !telling.is_own() {
                return Err(PeerFault::NoParent);
            }
            if let Some(ino) = existing {
                self.leave_behind(ino, telling);
                self.remove(ino, out);
            }
            let made = Record { kind: Kind::Dir, mode: 0o755, modified, xattrs: Xattrs::default() };
            let record = self.replica.folder.dir_at(&here).unwrap_or(made);
            // What else stands there is beside it now: whoever has that keeps a copy.
            let before = before.unwrap_or_default();
            let dot = self.clock.dot_after(&before.revision.version);
            let revision = before.after(dot, record.clone(), &[]).revision;
            let known = Known {
                record: record.clone(),
                revision: revision.clone(),
                origin: telling.origin,
                mark: telling.mark,
            };
            at = self.add(at, names[depth - 1].clone(), known, out);
            self.replica.tombstones.remove(&here);
            self.replica.folder.note_due(here.clone());
            let put = Change::Put { path: here.clone(), record, revision, replaced: existing.is_some() };
            self.announce(put, None, out);
            self.settle(&here);
        }
        Ok(at)
    }

    /// A peer has renamed something.
    pub(crate) fn take_over_rename(
        &mut self,
        (from, to): (&RelPath, &RelPath),
        (record, revision): (Record, Revision),
        (left, digest): (Version, u64),
        telling: Telling,
        out: &mut Vec<Output>,
    ) -> Result<Renamed, PeerFault> {
        let dot = revision.dot;
        record.check()?;
        revision.check()?;
        self.check_numbers(&revision.version.join(&left))?;
        let gone = Stated { record: None, revision: Revision::removed(left) };
        if record.kind == Kind::Dir {
            // What came to the new place may be known already, and what left the old one not yet.
            if [to, from].iter().all(|path| self.version_at(path.names()).covers(dot)) {
                return Ok(Renamed::Known);
            }
            let parent = to.split_last().and_then(|(parents, _)| self.directory(parents).ok());
            let top = self.tree.resolve(from.names());
            let (Some(parent), Some(top), true) = (parent, top, self.rename_digest(from, to) == digest) else {
                return Ok(Renamed::Otherwise);
            };
            let Some((_, name)) = to.split_last() else { return Err(PeerFault::Root) };
            if let Some(over) = self.tree.resolve(to.names()) {
                self.leave_behind(over, telling);
            }
            self.move_tree((top, from), (parent, name), dot, Some(telling), out);
            let change = Change::Rename {
                from: from.clone(),
                to: to.clone(),
                record,
                revision,
                left: gone.revision.version,
                digest,
            };
            self.announce(change, telling.from, out);
            return Ok(Renamed::Done);
        }
        let theirs = Stated { record: Some(record), revision };
        if let (Some(ino), true) = (self.tree.resolve(from.names()), self.is_plain_rename(from, to, &theirs, &gone)) {
            let parent = to.split_last().and_then(|(parents, name)| Some((self.directory(parents).ok()?, name)));
            if let Some((parent, name)) = parent {
                self.leave_behind(ino, telling);
                if let Some(over) = self.tree.resolve(to.names()) {
                    self.leave_behind(over, telling);
                }
                if let Some(node) = self.tree.get_mut(ino) {
                    // What follows puts right all the rest.
                    node.origin = telling.origin;
                    node.revision = Revision::default();
                }
                self.rename(ino, parent, name.clone(), out);
            }
        }
        self.merge_in(to, theirs, telling, out)?;
        self.merge_in(from, gone, telling, out)?;
        Ok(Renamed::Done)
    }

    /// Whether what we know of two paths is older than that a file was renamed from one to the other.
    fn is_plain_rename(&self, from: &RelPath, to: &RelPath, theirs: &Stated, gone: &Stated) -> bool {
        let takes = |path: &RelPath, theirs: &Stated| match self.stated_at(path) {
            Some(ours) => merge(&ours, theirs) == *theirs,
            None => true,
        };
        let ours = self.stated_at(from).and_then(|ours| ours.record);
        let is_same = ours.zip(theirs.record.as_ref()).is_some_and(|(ours, theirs)| ours.kind == theirs.kind);
        is_same && takes(from, gone) && takes(to, theirs)
    }

    /// Moves an entry with everything below it: a change of each path that it has left, and of each to which it has come.
    /// What is in our folder is left behind there if a peer tells it.
    pub(crate) fn move_tree(
        &mut self,
        (top, from): (Ino, &RelPath),
        (parent, name): (Ino, &Name),
        dot: Dot,
        telling: Option<Telling>,
        out: &mut Vec<Output>,
    ) {
        let Some(to) = self.tree.path_of(parent).and_then(|dir| dir.join(name.clone()).ok()) else { return };
        let event = self.share.next_event();
        let moved = self.below(top);
        let over: Vec<Version> =
            moved.iter().map(|(names, _)| self.version_at(&[to.names(), names].concat())).collect();
        for (names, ino) in &moved {
            if let Some(telling) = telling {
                self.leave_behind(*ino, telling);
                if let Some(node) = self.tree.get_mut(*ino).filter(|node| matches!(node.origin, Origin::Local(_))) {
                    node.origin = telling.origin;
                }
            }
            let Ok(old) = RelPath::new([from.names(), names].concat()) else { continue };
            let version = self.version_at(old.names()).with(dot);
            self.replica.tombstones.insert(old.clone(), Revision::removed(version), event);
            self.replica.folder.note_due(old);
        }
        self.rename(top, parent, name.clone(), out);
        for ((names, ino), over) in moved.iter().zip(over) {
            let Some(node) = self.tree.get_mut(*ino) else { continue };
            // Not after what it was at its old path: a device's numbers for other paths would be taken for changes of this one.
            node.revision = Revision::after(&over, dot);
            if let Ok(new) = RelPath::new([to.names(), names].concat()) {
                self.replica.tombstones.remove(&new);
                self.note_unwritten(&new);
                self.settle(&new);
                self.replica.folder.note_due(new);
            }
        }
    }
}

/// What became of a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renamed {
    /// It is done.
    Done,
    /// We know it from somebody else.
    Known,
    /// We know something else of what it is about, and have to be told everything.
    Otherwise,
}
