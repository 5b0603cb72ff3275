//! Our own folder and the tree: where they differ, and what is done in the folder so that they do not.
//!
//! What peers changed is done in the folder in batches, one at a time. Each operation says what it expects to find; if it
//! finds something else it does nothing, and the driver is asked to look: what it sees is a change of ours, which is merged. So
//! nothing that anybody did in the folder is ever overwritten unseen.

use crate::behind::{Behind, Held};
use crate::due::Due;
use crate::engine::{Engine, Running};
use crate::ids::{ContentId, EffectId, Ino, PeerId};
use crate::merge::Stated;
use crate::output::{Apply, ApplyError, Effect, Notice, Output, ServedFile};
use crate::path::RelPath;
use crate::peers::NEWS_WITHIN;
use crate::planning::Planned;
use crate::record::{Facts, Kind, Record, Stamp};
use crate::replica::Telling;
use crate::time::Time;
use crate::timers::Timer;
use crate::tree::{Node, Origin};
use crate::unsettled::Unsettled;
use crate::version::Dot;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of our folder besides the tree.
#[derive(Debug, Default)]
pub(crate) struct FolderState {
    /// What it holds where the tree says something else. Where the tree says that something is in our folder, it is.
    pub(crate) behind: Behind,
    /// Where it may differ from the tree, and nothing is being done about it.
    pub(crate) due: Due,
    /// What is being done, and what each operation makes of its path.
    batch: Option<(EffectId, Vec<Planned>)>,
    /// The paths that this is about.
    in_flight: BTreeSet<RelPath>,
    /// Where the driver has to look once it is done.
    look: BTreeSet<RelPath>,
    /// Where something else was found than was expected: nothing is done there until it was looked at.
    pub(crate) unclear: BTreeSet<RelPath>,
    /// Where something was seen that is older than what is known to be there.
    doubted: BTreeMap<RelPath, Facts>,
    /// Where what is told next was done by somebody who saw what the tree has.
    pub(crate) sighted: BTreeSet<RelPath>,
    pub(crate) unsettled: Unsettled,
    /// Its disk does not take all extended attributes: that one is missing is not told.
    pub(crate) lacks_xattrs: bool,
    /// Contents whose files are in our folder now.
    landed: Vec<ContentId>,
    /// What the disk refused, and when that is tried again. Everything else goes on.
    pub(crate) refused: BTreeSet<RelPath>,
    pub(crate) retry_at: Option<Time>,
}

impl FolderState {
    /// Who did what is told next of this path saw what the tree has there.
    pub(crate) fn note_sighted(&mut self, path: RelPath) {
        self.sighted.insert(path);
    }

    /// The folder may have to be made like the tree at this path.
    pub(crate) fn note_due(&mut self, path: RelPath) {
        self.due.insert(path);
    }

    /// Whether not to believe what was seen at a path. If it is older than what is known to be there, whoever saw it looked before
    /// that was done, and tells of it afterwards. It is doubted once: a clock may have been set back.
    pub(crate) fn is_doubted(&mut self, path: &RelPath, seen: Facts, known: Option<Facts>) -> bool {
        let before = self.doubted.remove(path);
        let is_older = known.is_some_and(|known| known.inode == seen.inode && seen.changed < known.changed);
        let is_doubted = is_older && before != Some(seen);
        if is_doubted {
            self.doubted.insert(path.clone(), seen);
        }
        is_doubted
    }

    /// What is being done concerns this path: what is seen there now says nothing, and is looked at again.
    pub(crate) fn is_in_flight(&mut self, path: &RelPath) -> bool {
        let is = self.in_flight.contains(path);
        if is {
            self.look.insert(path.clone());
        }
        is
    }

    /// If what is being done concerns this directory, what is in it is looked at again.
    pub(crate) fn look_after(&mut self, dir: &RelPath, inner: &RelPath) {
        if self.is_in_flight(dir) {
            self.look.insert(inner.clone());
        }
    }

    /// This path was looked at.
    pub(crate) fn note_seen(&mut self, path: &RelPath) {
        if self.unclear.remove(path) {
            self.due.insert(path.clone());
        }
    }

    /// All below this path was looked at.
    pub(crate) fn note_seen_below(&mut self, path: &RelPath) {
        let below = self.unclear.range(path.clone()..).take_while(|inner| path.is_prefix_of(inner)).cloned();
        for inner in below.collect::<Vec<_>>() {
            self.note_seen(&inner);
        }
    }

    /// Whether what is being done concerns this path or anything below it.
    pub(crate) fn is_in_flight_below(&self, path: &RelPath) -> bool {
        self.in_flight.range(path.clone()..).next().is_some_and(|inner| path.is_prefix_of(inner))
    }

    /// The directory that the folder has at a path, if the tree says something else.
    pub(crate) fn dir_at(&self, path: &RelPath) -> Option<Record> {
        self.behind.get(path).map(|held| held.record.clone()).filter(|record| record.kind == Kind::Dir)
    }

    /// A peer has told all that it has to tell, or is not followed any more.
    pub(crate) fn settle_all_of(&mut self, peer: PeerId) {
        self.due.append(&mut self.unsettled.take_all_of(peer));
    }

    /// What the folder holds at and below a path was renamed there.
    pub(crate) fn moved(&mut self, from: &RelPath, to: &RelPath) {
        for inner in self.behind.below(from) {
            let by = self.unsettled.remove(&inner);
            let Some((held, new)) = self.behind.remove(&inner).zip(inner.moved(from, to)) else { continue };
            if let Some(by) = by {
                self.unsettled.insert(new.clone(), by);
            }
            self.behind.insert(new.clone(), held);
            self.due.insert(inner);
            self.due.insert(new);
        }
    }

    /// Nothing is under way or left to do but what waits for bytes.
    pub(crate) fn is_idle(&self) -> bool {
        self.batch.is_none() && self.due.is_empty() && self.unclear.is_empty() && self.refused.is_empty()
    }
}

impl Engine {
    /// What our folder holds at a path.
    pub(crate) fn held_at(&self, path: &RelPath) -> Option<Held> {
        if let Some(held) = self.replica.folder.behind.get(path) {
            return Some(held.clone());
        }
        let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino))?;
        let Origin::Local(facts) = node.origin else { return None };
        Some(Held { record: node.record.clone(), dot: node.revision.dot, facts, mark: node.mark })
    }

    /// Whether our folder has a directory at a path.
    pub(crate) fn has_dir(&self, path: &RelPath) -> bool {
        path.is_root() || self.held_at(path).is_some_and(|held| held.record.kind == Kind::Dir)
    }

    /// The tree is about to say something else of an entry than our folder holds.
    pub(crate) fn leave_behind(&mut self, ino: Ino, telling: Telling) {
        let (Some(path), Some(node)) = (self.tree.path_of(ino), self.tree.get(ino)) else { return };
        if let (Origin::Local(facts), Origin::Peer(_)) = (node.origin, telling.origin) {
            let held = Held { record: node.record.clone(), dot: node.revision.dot, facts, mark: node.mark };
            if let (Origin::Peer(by), Some(_)) = (telling.origin, held.stamp()) {
                self.replica.folder.unsettled.insert(path.clone(), by);
            }
            self.replica.folder.behind.insert(path, held);
        }
    }

    /// What the disk refused is tried again. Who has told nothing more for a while has told all: not every peer says so.
    pub(crate) fn on_apply_again(&mut self) {
        let folder = &mut self.replica.folder;
        folder.retry_at = None;
        folder.due.append(&mut folder.refused);
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            if self.is_silent(id) {
                self.replica.folder.settle_all_of(id);
            }
        }
    }

    fn apply_again_at(&mut self, at: Time) {
        if self.replica.folder.retry_at.is_none() && !self.stopping {
            self.replica.folder.retry_at = Some(at);
            self.timers.set(at, Timer::Apply);
        }
    }

    /// If our folder holds what the tree says, the tree says so.
    pub(crate) fn settle(&mut self, path: &RelPath) {
        let Some(held) = self.replica.folder.behind.get(path).cloned() else { return };
        let Some(ino) = self.tree.resolve(path.names()) else { return };
        if let Some(node) = self.tree.get_mut(ino).filter(|node| node.record == held.record) {
            node.origin = Origin::Local(held.facts);
            node.mark = node.mark.max(held.mark);
            self.replica.folder.behind.remove(path);
            self.stop_fetching(ino);
        }
    }

    /// Our folder has an entry's bytes now: nobody needs to fetch them.
    fn stop_fetching(&mut self, ino: Ino) {
        let Some(node) = self.tree.get(ino) else { return };
        if let Some(content) = node.content {
            self.replica.folder.landed.push(content);
        }
    }

    /// Does in the folder what is to be done, if nothing is being done.
    pub(crate) fn apply_more(&mut self, out: &mut Vec<Output>) {
        for content in std::mem::take(&mut self.replica.folder.landed) {
            self.wake(content, out);
            self.let_go_of_local(content, out);
        }
        let folder = &self.replica.folder;
        if !self.config.keeps_folder || self.stopping || folder.batch.is_some() {
            return;
        }
        if folder.due.is_empty() {
            return;
        }
        self.tidy(out);
        let planned = self.plan();
        if self.replica.folder.unsettled.tellers().any(|by| self.link_to(by).is_some()) {
            self.apply_again_at(self.now + NEWS_WITHIN);
        }
        if planned.is_empty() {
            return;
        }
        let ops: Vec<Apply> = planned.iter().map(|planned| planned.op.clone()).collect();
        for op in &ops {
            self.replica.folder.in_flight.extend(op.paths().cloned());
        }
        let effect = self.effect(Running::Apply, Effect::Apply { ops }, out);
        self.replica.folder.batch = Some((effect, planned));
    }

    /// Bytes that were in the folder are not there any more: who was to get them by a rename has to fetch them.
    pub(crate) fn fetch_what_was_lost(&mut self) {
        for stamp in self.replica.folder.behind.take_lost() {
            self.replica.folder.due.unstick();
            // What else has them may be renamed now, and only who wants them knows where.
            let mut wanted: BTreeSet<RelPath> = self.wanted_at(stamp).map(|(_, path)| path).collect();
            self.replica.folder.due.append(&mut wanted);
            self.prefetch_passed(stamp);
        }
    }

    /// All bytes of a content are here: they can go into our folder.
    pub(crate) fn note_whole(&mut self, id: ContentId) {
        if !self.config.keeps_folder {
            return;
        }
        let ino = self.contents.get(&id).map(|content| content.ino);
        if let Some(path) = ino.and_then(|ino| self.tree.path_of(ino)) {
            self.replica.folder.note_due(path);
        }
    }

    /// Whether a file's bytes are in our folder under another name, or under its own with other attributes.
    pub(crate) fn is_in_folder_elsewhere(&self, ino: Ino) -> bool {
        self.stamp_in_folder(ino).is_some()
    }

    /// The bytes of a file that our folder has under another name, from where it can be renamed: nothing stands in the way
    /// that may be wanted elsewhere itself.
    pub(crate) fn stamp_in_folder(&self, ino: Ino) -> Option<Stamp> {
        let stamp = self.tree.get(ino).and_then(stamp_of)?;
        let behind = &self.replica.folder.behind;
        let over = self.tree.path_of(ino).and_then(|path| behind.get(&path)?.stamp()).filter(|over| *over != stamp);
        behind.with_stamp(stamp).filter(|_| over.is_none()).map(|_| stamp)
    }

    /// A file that peers may read where it still is in our folder, although the tree has it elsewhere already.
    pub(crate) fn serve_behind(&self, stamp: Stamp) -> Option<ServedFile> {
        let (path, held) = self.replica.folder.behind.with_stamp(stamp)?;
        let Record { modified, .. } = held.record;
        Some(ServedFile { path: path.clone(), size_bytes: held.record.size_bytes(), modified, facts: held.facts })
    }

    /// A batch has ended.
    pub(crate) fn on_applied(&mut self, results: Vec<Result<Facts, ApplyError>>, out: &mut Vec<Output>) {
        let Some((_, planned)) = self.replica.folder.batch.take() else { return };
        assert_eq!(planned.len(), results.len(), "each operation of a batch ends, and no other");
        self.replica.folder.in_flight.clear();
        for (planned, result) in planned.into_iter().zip(results) {
            match result {
                Ok(facts) => self.on_applied_one(planned, facts, out),
                Err(ApplyError::Same) => self.on_same(&planned.op, out),
                Err(error) => self.on_refused(&planned.op, error, out),
            }
        }
        for path in std::mem::take(&mut self.replica.folder.look) {
            out.push(Output::Notice(Notice::LookAt { path }));
        }
    }

    fn on_applied_one(&mut self, planned: Planned, facts: Facts, out: &mut Vec<Output>) {
        let Planned { op, becomes } = planned;
        if let Apply::KeepCopy { path, to, .. } = &op {
            return self.on_copy_kept(path, to, facts, out);
        }
        // Whatever the tree came to say meanwhile of what was there before: it is not there any more.
        let before: Vec<(RelPath, Held)> =
            op.paths().filter_map(|path| Some((path.clone(), self.held_at(path)?))).collect();
        for path in op.paths() {
            self.replica.folder.behind.remove(path);
            self.note_not_there(path);
        }
        if let Some((record, dot)) = becomes {
            let held = Held { record, dot, facts, mark: self.last_mark };
            self.replica.folder.behind.insert(op.target().clone(), held);
            self.settle(op.target());
        }
        // What stood beside what the tree says lives on elsewhere, or there was nothing to be lost. What was renamed does so
        // also if it came to stand there meanwhile, and is to stay where it is now: nobody could fetch it from here under the
        // name that it had.
        let stays = !self.replica.folder.behind.contains(op.target());
        for (path, held) in before {
            let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
            let is_renamed = stays && matches!(&op, Apply::Rename { from, .. } if *from == path);
            let lives_on = |node: &Node| {
                let mut others = node.revision.others.iter();
                is_renamed && node.revision.dot == held.dot || others.any(|other| other.dot == held.dot)
            };
            if node.is_some_and(lives_on) {
                self.tell_gone(&path, held.dot, out);
            }
        }
    }

    /// What lost its name has another one now. That is told before anything that says so to others who have the same bytes:
    /// they let go of them then.
    fn on_copy_kept(&mut self, path: &RelPath, to: &RelPath, facts: Facts, out: &mut Vec<Output>) {
        // The tree may have come to say just that of it meanwhile.
        let lost = self.held_at(path);
        self.replica.folder.behind.remove(path);
        self.note_not_there(path);
        let Some(lost) = lost else { return };
        self.tell_found(to, Held { facts, ..lost.clone() }, &[], out);
        self.tell_gone(path, lost.dot, out);
        if let (None, Some(stamp)) = (self.tree.resolve(path.names()), lost.stamp()) {
            // It was kept because its bytes stand beside something else, under a name that it never had here.
            let beside: Vec<(RelPath, Dot)> =
                self.standing_beside(stamp).map(|(place, other)| (place, other.dot)).collect();
            beside.iter().for_each(|(place, dot)| self.tell_gone(place, *dot, out));
        }
    }

    /// Our folder has nothing at a path any more, because that was to be so. The tree may have come to say that it is there
    /// again.
    fn note_not_there(&mut self, path: &RelPath) {
        self.replica.folder.note_due(path.clone());
        let Some(ino) = self.tree.resolve(path.names()).filter(|ino| self.is_in_folder(*ino)) else { return };
        let Some(author) = self.tree.get(ino).map(|node| node.revision.dot.author) else { return };
        let source = self.source_by(author);
        if let Some(node) = self.tree.get_mut(ino) {
            node.origin = source;
            self.note_unwritten(path);
        }
    }

    /// What lost its name holds the bytes of what took it: they are one file.
    fn on_same(&mut self, op: &Apply, out: &mut Vec<Output>) {
        let Apply::KeepCopy { path, unless: Some(content), .. } = op else { return };
        self.replica.folder.note_due(path.clone());
        let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
        let Some(node) = node.filter(|node| node.content == Some(*content)) else { return };
        let (kind, dot) = (node.record.kind.clone(), node.revision.dot);
        let Some(held) = self.replica.folder.behind.get(path).cloned() else { return };
        self.tell_gone(path, held.dot, out);
        let record = Record { kind, ..held.record };
        self.replica.folder.behind.insert(path.clone(), Held { record, dot, ..held });
        self.settle(path);
    }

    /// What this change made of a path is not there any more.
    pub(crate) fn tell_gone(&mut self, path: &RelPath, gone: Dot, out: &mut Vec<Output>) {
        let Some(stated) = self.stated_at(path) else { return };
        let without = stated.without(gone);
        if without != stated {
            self.tell_own_state(path, without, out);
        }
    }

    pub(crate) fn tell_own_state(&mut self, path: &RelPath, stated: Stated, out: &mut Vec<Output>) {
        let origin = Origin::Local(Facts::default());
        let telling = Telling { origin, from: None, seen: None, replaced: true, mark: self.last_mark };
        let _set = self.set_state(path, stated, telling, out);
    }

    /// Our folder holds this: a change of ours, of somebody who saw what `over` made.
    pub(crate) fn tell_found(&mut self, path: &RelPath, held: Held, over: &[Dot], out: &mut Vec<Output>) {
        let before = self.stated_at(path).unwrap_or_default();
        let dot = self.clock.dot_after(&before.revision.version);
        let after = before.after(dot, held.record.clone(), over);
        let is_same_object =
            |node: &Node| matches!(node.origin, Origin::Local(facts) if facts.inode == held.facts.inode);
        let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
        let replaced = !node.is_some_and(is_same_object);
        let telling =
            Telling { origin: Origin::Local(held.facts), from: None, seen: Some(dot), replaced, mark: held.mark };
        self.replica.folder.behind.insert(path.clone(), Held { dot, ..held });
        self.replica.folder.note_due(path.clone());
        // Only what peers say can break a rule; beyond the most entries there is no place for it, and it stays as it is.
        if self.set_state(path, after, telling, out).is_err() {
            self.replica.folder.behind.remove(path);
        }
        self.settle(path);
        self.drop_behind_if_local(path);
    }

    fn on_refused(&mut self, op: &Apply, error: ApplyError, out: &mut Vec<Output>) {
        match error {
            ApplyError::Same | ApplyError::Changed => {
                self.replica.folder.look.extend(op.paths().cloned());
                self.replica.folder.unclear.extend(op.paths().cloned());
            }
            ApplyError::NoSpace | ApplyError::Io => {
                self.replica.folder.refused.extend(op.paths().cloned());
                out.push(Output::Notice(Notice::ApplyFailed { path: op.target().clone(), error }));
                self.apply_again_at(self.now + self.config.retry_cap);
            }
        }
    }

    /// A file's bytes are in our folder, and nobody reads them elsewhere: the store can let go of them.
    pub(crate) fn let_go_of_local(&mut self, id: ContentId, out: &mut Vec<Output>) {
        let Some(ino) = self.contents.get(&id).map(|content| content.ino) else { return };
        let is_local = |node: &Node| matches!(node.origin, Origin::Local(_)) && node.opens.count() == 0;
        if self.tree.get(ino).is_some_and(is_local) {
            self.discard(id, out);
            if let Some(node) = self.tree.get_mut(ino) {
                node.content = None;
            }
        }
    }

    /// For [`Engine::check`]: what differs is being dealt with, or waits for bytes.
    pub(crate) fn check_folder(&self) -> usize {
        let folder = &self.replica.folder;
        if !self.config.keeps_folder {
            assert!(folder.is_idle() && folder.behind.is_empty(), "a folder is made like the tree, and there is none");
            return 0;
        }
        self.replica.tombstones.check();
        folder.behind.check();
        let is_known = |path: &RelPath| {
            folder.due.contains(path)
                || folder.in_flight.contains(path)
                || folder.unclear.contains(path)
                || folder.refused.contains(path)
                || self.stopping
        };
        if folder.batch.is_none() && !folder.due.has_news() {
            self.check_blocked();
        }
        for (path, held) in folder.behind.iter() {
            let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
            let waits = node.is_some_and(is_file);
            assert!(waits || is_known(path), "{path} is in our folder and not as the tree has it, and nothing is done");
            let is_local =
                node.is_some_and(|node| matches!(node.origin, Origin::Local(_)) || node.record == held.record);
            assert!(!is_local, "{path} is in our folder, and is said not to be");
        }
        for (ino, node) in self.tree.iter() {
            if let (Origin::Peer(_), Some(path), false) = (node.origin, self.tree.path_of(ino), is_file(node)) {
                assert!(is_known(&path), "{path} is not in our folder, and nothing is done about it");
            }
        }
        if let Some(at) = folder.retry_at {
            assert!(self.timers.is_set(at, Timer::Apply), "what was refused is never tried again");
        }
        usize::from(folder.retry_at.is_some())
    }
}

fn is_file(node: &Node) -> bool {
    matches!(node.record.kind, Kind::File { .. })
}

/// Which bytes an entry has, if it is a file.
pub(crate) fn stamp_of(node: &Node) -> Option<Stamp> {
    match node.record.kind {
        Kind::File { stamp, .. } => Some(stamp),
        Kind::Dir | Kind::Symlink { .. } => None,
    }
}
