//! What is seen in our own folder, for a device that merges it with what peers say.
//!
//! Only what differs from what the folder held before is a change, and it is a change of that: where the tree has come to
//! say something newer, the two are merged like those of two devices.

use crate::behind::Held;
use crate::engine::Engine;
use crate::event::{Change, Seen};
use crate::ids::Ino;
use crate::output::{Notice, Output};
use crate::path::RelPath;
use crate::record::{Kind, Record};
use crate::replica::Telling;
use crate::share::record_of;
use crate::tree::{Node, Origin};
use crate::version::{Dot, Revision, Sibling, Version};

impl Engine {
    /// This is in our folder.
    pub(crate) fn merge_found(&mut self, path: &RelPath, seen: Seen, moved: bool, out: &mut Vec<Output>) {
        if self.replica.folder.is_in_flight(path) {
            return;
        }
        self.replica.folder.note_seen(path);
        let held = self.held_at(path);
        if self.replica.folder.is_doubted(path, seen.facts, held.as_ref().map(|held| held.facts)) {
            return out.push(Output::Notice(Notice::LookAt { path: path.clone() }));
        }
        let before = held.as_ref().map(|held| (&held.record, held.facts));
        let (record, facts) = record_of(seen, before, moved, self);
        if let Err(reason) = record.check() {
            out.push(Output::Notice(Notice::NotShared { path: path.clone(), reason }));
            return self.merge_missing(path, out);
        }
        let mark = self.last_mark;
        if held.as_ref().is_some_and(|held| held.record == record) {
            return self.note_held(path, Held { facts, mark, ..held.unwrap_or_else(|| unreachable!()) });
        }
        if path.is_root() && record.kind != Kind::Dir {
            return;
        }
        let parent = path.split_last().and_then(|(parents, _)| RelPath::new(parents.to_vec()).ok());
        if let Some(parent) = parent.filter(|parent| !self.has_dir(parent)) {
            // Without its directory there is no place for it: the scan of that directory will tell it again. One that has just
            // been made is known at the end of what is being done, and need not be scanned.
            return self.replica.folder.look_after(&parent, path);
        }
        if record.kind != Kind::Dir && held.as_ref().is_some_and(|held| held.record.kind == Kind::Dir) {
            self.lose_held_below(path, out);
        }
        let over = self.seen_by_whoever_changed(path, held.as_ref());
        let dot = Dot::default();
        self.tell_found(path, Held { record, dot, facts, mark }, &over, out);
    }

    /// Which changes were seen by whoever has changed what our folder has at a path: what was there, and what the tree says if
    /// that is what they looked at.
    fn seen_by_whoever_changed(&mut self, path: &RelPath, held: Option<&Held>) -> Vec<Dot> {
        let sighted = self.replica.folder.sighted.remove(path);
        let Some(stated) = self.stated_at(path) else { return Vec::new() };
        let was_seen = |sibling: &Sibling| {
            let is_held = |held: &Held| held.dot == sibling.dot || held.record.kind == sibling.record.kind;
            held.is_some_and(is_held) || sighted && sibling.dot == stated.revision.dot
        };
        stated.written().iter().filter(|sibling| was_seen(sibling)).map(|sibling| sibling.dot).collect()
    }

    /// It is as it was.
    fn note_held(&mut self, path: &RelPath, held: Held) {
        if self.replica.folder.behind.contains(path) {
            self.replica.folder.behind.insert(path.clone(), held);
            return self.replica.folder.note_due(path.clone());
        }
        if let Some(node) = self.tree.resolve(path.names()).and_then(|ino| self.tree.get_mut(ino)) {
            let is_as_before = node.origin == Origin::Local(held.facts);
            node.origin = Origin::Local(held.facts);
            node.mark = held.mark;
            if !is_as_before {
                self.note_unwritten(path);
            }
        }
    }

    pub(crate) fn drop_behind_if_local(&mut self, path: &RelPath) {
        let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
        if node.is_some_and(|node| matches!(node.origin, Origin::Local(_))) {
            self.replica.folder.behind.remove(path);
        }
    }

    /// Nothing is in our folder at a path, nor below it.
    pub(crate) fn merge_missing(&mut self, path: &RelPath, out: &mut Vec<Output>) {
        // Whoever saw what is away and removed it did nothing in the folder: what comes there meanwhile is removed again.
        let is_meant = self.replica.folder.sighted.contains(path) && self.is_away(path);
        if !is_meant && self.replica.folder.is_in_flight(path) {
            return;
        }
        self.replica.folder.note_seen(path);
        self.lose_held_below(path, out);
        if !path.is_root() {
            self.lose_held(path, out);
        }
    }

    fn lose_held_below(&mut self, path: &RelPath, out: &mut Vec<Output>) {
        let mut inner = self.replica.folder.behind.below(path);
        if let Some(top) = self.tree.resolve(path.names()) {
            let is_local = |ino: &Ino| self.tree.get(*ino).is_some_and(|node| matches!(node.origin, Origin::Local(_)));
            inner.extend(self.tree.within(top).into_iter().filter(is_local).filter_map(|ino| self.tree.path_of(ino)));
        }
        inner.sort();
        inner.dedup();
        for path in inner.into_iter().rev().filter(|inner| inner != path) {
            if !self.replica.folder.is_in_flight(&path) {
                self.lose_held(&path, out);
            }
        }
    }

    /// Our folder does not hold anything at a path any more.
    fn lose_held(&mut self, path: &RelPath, out: &mut Vec<Output>) {
        self.replica.folder.note_seen(path);
        let held = self.held_at(path);
        if self.replica.folder.behind.remove(path).is_some() {
            // The tree says something newer, which is not there yet.
            self.replica.folder.note_due(path.clone());
        }
        for seen in self.seen_by_whoever_changed(path, held.as_ref()) {
            self.tell_gone(path, seen, out);
        }
    }

    /// The file system said that this was renamed. It is one change if all that is known of it moves with it; otherwise it
    /// is gone from one place, and what is seen at the other is new.
    pub(crate) fn merge_moved(&mut self, from: &RelPath, to: &RelPath, out: &mut Vec<Output>) {
        let sighted = [from, to].map(|path| self.replica.folder.sighted.remove(path));
        let is_away = self.is_away(from);
        let is_one = self.can_move(from, to, sighted);
        let place = to.split_last().and_then(|(parents, name)| Some((self.directory(parents).ok()?, name.clone())));
        let (Some(top), Some((parent, name)), true) = (self.tree.resolve(from.names()), place, is_one) else {
            return self.move_apart(from, to, sighted, out);
        };
        if self.tree.is_within(parent, top) {
            return self.look_at_both(from, to, out);
        }
        if !is_away {
            self.replica.folder.behind.remove(to);
            self.replica.folder.moved(from, to);
        }
        let digest = self.rename_digest(from, to);
        let highest = self.version_at(from.names()).join(&self.version_at(to.names()));
        let dot = self.clock.dot_after(&highest);
        self.move_tree((top, from), (parent, &name), dot, None, out);
        let Some(node) = self.tree.get(top) else { return };
        let (record, revision) = (node.record.clone(), node.revision.clone());
        let left = self.version_at(from.names());
        self.share.note_moved(to.clone());
        self.announce(Change::Rename { from: from.clone(), to: to.clone(), record, revision, left, digest }, None, out);
    }

    /// Whether all that is known of what was renamed moves with it, so that it is one change. What our folder has not got
    /// was moved only by somebody who saw it; so was what it stands over, and what is being done in a directory: where it
    /// is done there or not, what is found later says.
    fn can_move(&self, from: &RelPath, to: &RelPath, [saw_from, saw_to]: [bool; 2]) -> bool {
        let (folder, is_away) = (&self.replica.folder, self.is_away(from));
        let is_busy = |path| folder.is_in_flight_below(path);
        if !is_away && is_busy(to) || !saw_from && is_busy(from) || self.share.is_left_out(to) {
            return false;
        }
        let is_local = |ino: Ino| self.is_in_folder(ino);
        let can_stand_over = self.tree.resolve(to.names()).is_none_or(|over| {
            (saw_to || is_local(over)) && self.tree.children_after(over, Ino::ROOT).next().is_none()
        });
        let is_clean = |path| folder.behind.within(path).all(|inner| saw_to && inner == to);
        let Some(top) = self.tree.resolve(from.names()).filter(|top| *top != Ino::ROOT) else { return false };
        // What is not in our folder yet was not moved by who only moved what is there: whoever has it may be writing over it.
        let is_whole = saw_from && self.tree.get(top).is_some_and(Node::is_dir)
            || is_clean(from) && (saw_from || self.tree.within(top).into_iter().all(is_local));
        is_whole && can_stand_over && is_clean(to) && self.is_undisputed(from) && self.is_undisputed(to)
    }

    /// Whether nothing stands beside what the tree says of a path, and of all below it.
    fn is_undisputed(&self, path: &RelPath) -> bool {
        let top = self.tree.resolve(path.names());
        let within = top.map(|top| self.tree.within(top)).unwrap_or_default();
        within.into_iter().filter_map(|ino| self.tree.get(ino)).all(|node| node.revision.others.is_empty())
    }

    /// It is gone from one place, and what is seen at the other is new. What is not in our folder was not there to be
    /// seen.
    fn move_apart(&mut self, from: &RelPath, to: &RelPath, sighted: [bool; 2], out: &mut Vec<Output>) {
        // What is away and was not moved keeps its name: nobody has removed it, nor what it was to replace.
        let is_done = !self.is_away(from);
        for (path, sighted) in [from, to].into_iter().zip(sighted) {
            if sighted && is_done {
                self.replica.folder.note_sighted(path.clone());
            }
        }
        self.look_at_both(from, to, out);
    }

    /// Something in our folder could not be looked at. That is no reason to take it from others.
    pub(crate) fn on_unknown(&mut self, path: &RelPath) {
        if !self.config.keeps_folder {
            return;
        }
        let mark = self.last_mark;
        let within = self.tree.resolve(path.names()).map(|top| self.tree.within(top)).unwrap_or_default();
        for ino in within {
            if let Some(node) = self.tree.get_mut(ino) {
                node.mark = mark;
            }
        }
        self.replica.folder.behind.mark_below(path, mark);
    }

    /// A file that is not in our folder yet was given other attributes.
    pub(crate) fn merge_amended(
        &mut self,
        path: &RelPath,
        amend: impl FnOnce(Record) -> Record,
        out: &mut Vec<Output>,
    ) {
        let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
        let Some(node) = node.filter(|node| matches!(node.origin, Origin::Peer(_))) else { return };
        let (origin, record) = (node.origin, amend(node.record.clone()));
        if record.check().is_err() || record == node.record {
            return;
        }
        let Some(stated) = self.stated_at(path) else { return };
        let dot = self.clock.dot_after(&stated.revision.version);
        let after = stated.after(dot, record, &[stated.revision.dot]);
        let telling = Telling { origin, from: None, seen: None, replaced: false, mark: self.last_mark };
        let _set = self.set_state(path, after, telling, out);
    }

    fn look_at_both(&mut self, from: &RelPath, to: &RelPath, out: &mut Vec<Output>) {
        for path in [from, to] {
            out.push(Output::Notice(Notice::LookAt { path: path.clone() }));
        }
    }

    /// What lies below a path and was not seen since a scan of it began is not in our folder any more.
    pub(crate) fn merge_unseen(&mut self, path: &RelPath, mark: u64, out: &mut Vec<Output>) {
        let mut unseen: Vec<RelPath> = self.replica.folder.behind.below(path);
        unseen.retain(|inner| self.replica.folder.behind.get(inner).is_some_and(|held| held.mark < mark));
        if let Some(top) = self.tree.resolve(path.names()) {
            let is_unseen = |ino: &Ino| {
                self.tree.get(*ino).is_some_and(|node| matches!(node.origin, Origin::Local(_)) && node.mark < mark)
            };
            unseen.extend(self.tree.within(top).into_iter().filter(is_unseen).filter_map(|ino| self.tree.path_of(ino)));
        }
        unseen.sort();
        for inner in unseen.into_iter().rev().filter(|inner| inner != path) {
            if !self.replica.folder.is_in_flight(&inner) {
                self.lose_held(&inner, out);
            }
        }
        self.replica.folder.note_seen_below(path);
    }

    /// The state that a change of ours makes of what has this version.
    pub(crate) fn next_revision(&mut self, before: &Version) -> Revision {
        Revision::after(before, self.clock.dot_after(before))
    }
}
