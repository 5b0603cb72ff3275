//! Our own folder and the tree: where they differ, and what is done in the folder so that they do not.
//!
//! What peers changed is done in the folder in batches, one at a time. Each operation says what it expects to find; if it
//! finds something else it does nothing, and the driver is asked to look: what it sees is a change of ours, which is merged. So
//! nothing that anybody did in the folder is ever overwritten unseen.

use crate::behind::{Behind, Held};
use crate::content::Content;
use crate::engine::{Engine, Running};
use crate::ids::{ContentId, EffectId, Ino};
use crate::merge::{Stated, conflict_name};
use crate::output::{Apply, ApplyError, Effect, Notice, Output, ServedFile};
use crate::path::RelPath;
use crate::record::{Facts, Kind, Record, Stamp};
use crate::replica::Telling;
use crate::time::Time;
use crate::timers::Timer;
use crate::tree::{Node, Origin};
use crate::version::Dot;
use std::collections::BTreeSet;

/// How many names are tried for a conflict copy. Somebody would have to use all of them on purpose.
const MOST_NAMES: u32 = 1_000;

/// The most operations in one batch.
const MAX_BATCH: usize = 256;

/// What is known of our folder besides the tree.
#[derive(Debug, Default)]
pub(crate) struct FolderState {
    /// What it holds where the tree says something else. Where the tree says that something is in our folder, it is.
    pub(crate) behind: Behind,
    /// Where it may differ from the tree, and nothing is being done about it.
    due: BTreeSet<RelPath>,
    /// What is being done, and what each operation makes of its path.
    batch: Option<(EffectId, Vec<Planned>)>,
    /// The paths that this is about.
    in_flight: BTreeSet<RelPath>,
    /// Where the driver has to look once it is done.
    look: BTreeSet<RelPath>,
    /// Where something else was found than was expected: nothing is done there until it was looked at.
    unclear: BTreeSet<RelPath>,
    /// Where what is told next was done by somebody who saw what the tree has.
    pub(crate) sighted: BTreeSet<RelPath>,
    /// How often something about it changed that no event tells.
    pub(crate) changes: u64,
    /// Contents whose files are in our folder now.
    landed: Vec<ContentId>,
    /// What the disk refused, and when that is tried again. Everything else goes on.
    refused: BTreeSet<RelPath>,
    pub(crate) retry_at: Option<Time>,
}

/// An operation that is being done.
#[derive(Debug, Clone)]
struct Planned {
    op: Apply,
    /// What is at the path then.
    becomes: Option<(Record, Dot)>,
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

    /// What is being done concerns this path: what is seen there now says nothing, and is looked at again.
    pub(crate) fn is_in_flight(&mut self, path: &RelPath) -> bool {
        let is = self.in_flight.contains(path);
        if is {
            self.look.insert(path.clone());
        }
        is
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

    /// What the disk refused is tried again.
    pub(crate) fn try_again(&mut self) {
        self.retry_at = None;
        self.due.append(&mut self.refused);
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
            self.replica.folder.behind.insert(path, held);
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
        // What a listing has not come to yet may want what the folder would lose.
        if folder.due.is_empty() || self.peers.values().any(|peer| peer.listing.is_some()) {
            return;
        }
        self.tidy(out);
        let planned = self.plan();
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

    /// Where our folder has what the tree says, what is beside it and nothing would be lost of is dropped.
    fn tidy(&mut self, out: &mut Vec<Output>) {
        let is_disputed = |path: &&RelPath| {
            let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
            node.is_some_and(|node| matches!(node.origin, Origin::Local(_)) && !node.revision.others.is_empty())
        };
        let disputed: Vec<RelPath> = self.replica.folder.due.iter().filter(is_disputed).cloned().collect();
        for path in disputed {
            let Some(stated) = self.stated_at(&path) else { continue };
            let tidied = stated.tidied();
            if tidied != stated {
                self.tell_own_state(&path, tidied, out);
            }
        }
    }

    /// The operations that can be done now, in an order in which they can.
    fn plan(&mut self) -> Vec<Planned> {
        let mut due = std::mem::take(&mut self.replica.folder.due);
        let folder = &self.replica.folder;
        due.retain(|path| !folder.unclear.contains(path) && !folder.refused.contains(path));
        let mut left = BTreeSet::new();
        let mut waits = Vec::new();
        let mut plan = Plan::default();
        // Bytes that the folder is about to lose may be wanted elsewhere.
        let wanted = self.wanted_of(&due);
        self.plan_renames(&wanted, &mut plan);
        // Where they are here already, they are not wanted from the folder: of files that exchange their names, none can be
        // renamed before the other.
        let is_here =
            |path: &RelPath| self.tree.resolve(path.names()).and_then(|ino| self.whole_content(ino)).is_some();
        let wanted = Wanted(wanted.into_iter().filter(|(_, path)| !is_here(path)).collect());
        // What was removed, with what a directory held before the directory.
        for path in due.iter().rev() {
            let has_turn = !plan.is_full() && !plan.touches(path);
            let is_gone = self.tree.resolve(path.names()).is_none();
            if !has_turn || is_gone && !self.plan_removal(path, &wanted, &mut plan) {
                left.insert(path.clone());
            }
        }
        for path in &due {
            if plan.touches(path) {
                continue;
            }
            if plan.is_full() {
                left.insert(path.clone());
            } else if let Some(ino) = self.tree.resolve(path.names()) {
                match self.plan_entry(path, ino, &wanted, &plan) {
                    Next::Do(planned) => plan.push(*planned),
                    Next::Later => _ = left.insert(path.clone()),
                    // It is due again when its bytes are here.
                    Next::Wait => waits.push(ino),
                    Next::Nothing => {}
                }
            }
        }
        // What is done in a directory gives it another time: that is set right at the end.
        for dir in plan.touched_dirs() {
            let node = self.tree.resolve(dir.names()).and_then(|ino| self.tree.get(ino));
            let is_clear = !plan.touches(&dir) && !self.replica.folder.unclear.contains(&dir);
            if let Some(node) = node.filter(|node| matches!(node.origin, Origin::Local(_)) && is_clear) {
                let Record { mode, modified, .. } = node.record;
                let op = Apply::SetAttributes { path: dir, mode, modified, expect: None };
                plan.push(Planned { op, becomes: Some((node.record.clone(), node.revision.dot)) });
            }
        }
        // What is only waited for by others in the same batch comes again when that has ended.
        self.replica.folder.due = left;
        // What was to be renamed from elsewhere in the folder may not be any more, and nobody fetches it then.
        for ino in waits {
            self.prefetch_if_pinned(ino);
        }
        plan.ops
    }

    /// The bytes that are wanted somewhere, of those that the folder has where the tree wants others, and where. Of these
    /// it is enough to know some: those that the folder is to lose now, and those that are to be there now.
    fn wanted_of(&self, due: &BTreeSet<RelPath>) -> BTreeSet<(Stamp, RelPath)> {
        let behind = &self.replica.folder.behind;
        if !behind.has_files() {
            return BTreeSet::new();
        }
        let wants = |node: &Node| {
            let stamp = stamp_of(node).filter(|_| matches!(node.origin, Origin::Peer(_)))?;
            behind.with_stamp(stamp).map(|_| stamp)
        };
        let at = |path: &RelPath| {
            let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino))?;
            Some((wants(node)?, path.clone()))
        };
        let mut wanted: BTreeSet<(Stamp, RelPath)> = due.iter().filter_map(at).collect();
        if due.iter().any(|path| behind.get(path).is_some_and(|held| held.stamp().is_some())) {
            let all = self.tree.iter().filter_map(|(ino, node)| Some((wants(node)?, self.tree.path_of(ino)?)));
            wanted.extend(all);
        }
        wanted
    }

    /// What is in the folder under another name is renamed: no bytes are moved.
    fn plan_renames(&self, wanted: &BTreeSet<(Stamp, RelPath)>, plan: &mut Plan) {
        let folder = &self.replica.folder;
        let is_wanted =
            |stamp: Stamp| wanted.range((stamp, RelPath::ROOT)..).next().is_some_and(|(of, _)| *of == stamp);
        for (stamp, path) in wanted {
            let Some((from, held)) = folder.behind.with_stamp(*stamp) else { continue };
            let Some(node) = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino)) else { continue };
            let over = folder.behind.get(path);
            let can_go = |held: &Held| match held.record.kind {
                Kind::File { .. } => held.stamp().is_none_or(|stamp| !is_wanted(stamp)) && !self.conflicts(held, node),
                Kind::Symlink { .. } => !self.conflicts(held, node),
                Kind::Dir => false,
            };
            let is_clear = |path| !folder.unclear.contains(path) && !plan.touches(path);
            let may_be = from != path && is_clear(from) && is_clear(path) && self.has_parent(path) && !plan.is_full();
            if may_be && path.is_prefix_of(from) {
                // The directory that it is in is in the way: it waits beside it until that is gone.
                self.plan_aside(path, (from, held), plan);
                continue;
            }
            if !may_be || !over.is_none_or(can_go) {
                continue;
            }
            let Record { mode, modified, .. } = node.record;
            let (from, to, expect) = (from.clone(), path.clone(), held.facts);
            let op = Apply::Rename { from, to, mode, modified, expect, over: over.map(|held| held.facts) };
            plan.push(Planned { op, becomes: Some((node.record.clone(), node.revision.dot)) });
        }
    }

    /// Renames a file out of a directory in the place of which it is wanted.
    fn plan_aside(&self, place: &RelPath, (from, held): (&RelPath, &Held), plan: &mut Plan) {
        let Some(to) = self.free_name_for(place, held).filter(|to| !plan.touches(to)) else { return };
        let Record { mode, modified, .. } = held.record;
        let op = Apply::Rename { from: from.clone(), to, mode, modified, expect: held.facts, over: None };
        plan.push(Planned { op, becomes: Some((held.record.clone(), held.dot)) });
    }

    /// Whether what our folder holds was written without knowledge of what the tree says, and has to live on beside it.
    fn conflicts(&self, held: &Held, node: &Node) -> bool {
        let is_empty = matches!(held.record.kind, Kind::File { size_bytes: 0, .. });
        let is_the_same = held.record.kind == node.record.kind;
        !is_the_same && !is_empty && node.revision.others.iter().any(|other| other.dot == held.dot)
    }

    /// What lost its name to what the tree says lives on beside it.
    fn plan_copy(&self, path: &RelPath, held: &Held, ino: Ino) -> Next {
        let Some(node) = self.tree.get(ino) else { return Next::Nothing };
        let unless = match (&held.record.kind, &node.record.kind) {
            // It may be the same file, made known by two devices.
            (Kind::File { size_bytes, .. }, Kind::File { size_bytes: other, .. }) if size_bytes == other => {
                let Some(content) = self.whole_content(ino) else { return Next::Wait };
                Some(content)
            }
            _ => None,
        };
        let Some(to) = self.free_name_for(path, held) else { return Next::Nothing };
        let op = Apply::KeepCopy { path: path.clone(), to, expect: held.facts, unless };
        Next::Do(Box::new(Planned { op, becomes: None }))
    }

    /// The name of a conflict copy: that which follows from what it holds, unless something else has it already.
    fn free_name_for(&self, path: &RelPath, held: &Held) -> Option<RelPath> {
        let (parents, name) = path.split_last()?;
        (0..MOST_NAMES).find_map(|nth| {
            let name = conflict_name(name, &held.record, held.dot.author, nth);
            // Where a longer name makes a path that is too long, there is room at the top.
            let beside = RelPath::new([parents, core::slice::from_ref(&name)].concat());
            let to = beside.or_else(|_| RelPath::new(vec![name])).ok()?;
            let is_free = self.tree.resolve(to.names()).is_none() && !self.replica.folder.behind.contains(&to);
            is_free.then_some(to)
        })
    }

    /// Bytes that were in the folder are not there any more: who was to get them by a rename has to fetch them.
    pub(crate) fn fetch_what_was_lost(&mut self) {
        for stamp in self.replica.folder.behind.take_lost() {
            self.prefetch_passed(stamp);
        }
    }

    /// Removes what the folder has where the tree has nothing. Returns whether nothing is left to be done.
    fn plan_removal(&self, path: &RelPath, wanted: &Wanted, plan: &mut Plan) -> bool {
        let Some(held) = self.replica.folder.behind.get(path) else { return true };
        if wanted.wants(path, held) {
            // It will be renamed.
            return false;
        }
        let mut inner = self.replica.folder.behind.below(path).into_iter();
        if inner.any(|inner| inner != *path && !plan.removes(&inner)) {
            return false;
        }
        let op = Apply::Remove { path: path.clone(), expect: held.facts };
        plan.push(Planned { op, becomes: None });
        true
    }

    /// Makes the folder what the tree says at a path.
    fn plan_entry(&self, path: &RelPath, ino: Ino, wanted: &Wanted, plan: &Plan) -> Next {
        let Some(node) = self.tree.get(ino) else { return Next::Nothing };
        if matches!(node.origin, Origin::Local(_)) {
            return Next::Nothing;
        }
        let (record, dot) = (node.record.clone(), node.revision.dot);
        let Record { mode, modified, .. } = record;
        if !self.has_parent(path) && !path.split_last().is_some_and(|(parents, _)| plan.makes_dir(parents)) {
            return Next::Later;
        }
        let held = self.replica.folder.behind.get(path);
        let path = path.clone();
        if let Some(held) = held {
            let is_same = match (&held.record.kind, &record.kind) {
                (Kind::Symlink { .. }, Kind::Symlink { .. }) => false,
                (before, after) => before == after,
            };
            if is_same {
                let op = Apply::SetAttributes { path, mode, modified, expect: Some(held.facts) };
                return Next::Do(Box::new(Planned { op, becomes: Some((record, dot)) }));
            }
            let is_wanted = wanted.wants(&path, held);
            if !is_wanted && self.conflicts(held, node) {
                return self.plan_copy(&path, held, ino);
            }
            let stands_over_dir = held.record.kind == Kind::Dir;
            if is_wanted || stands_over_dir && self.replica.folder.behind.below(&path).len() > 1 {
                return Next::Later;
            }
            if stands_over_dir || record.kind == Kind::Dir {
                // Another kind of thing cannot be put over it. What it is comes next.
                return Next::Do(Box::new(Planned { op: Apply::Remove { path, expect: held.facts }, becomes: None }));
            }
        }
        let expect = held.map(|held| held.facts);
        let op = match &record.kind {
            Kind::Dir => Apply::MakeDir { path, mode, modified },
            Kind::Symlink { target } => Apply::MakeSymlink { path, target: target.clone(), modified, expect },
            Kind::File { size_bytes: 0, .. } => Apply::Publish { path, content: None, mode, modified, expect },
            Kind::File { .. } => match self.whole_content(ino) {
                Some(content) => Apply::Publish { path, content: Some(content), mode, modified, expect },
                None if self.is_in_folder_elsewhere(ino) => return Next::Later,
                None => return Next::Wait,
            },
        };
        Next::Do(Box::new(Planned { op, becomes: Some((record, dot)) }))
    }

    /// The content of a file, if all of it is here.
    fn whole_content(&self, ino: Ino) -> Option<ContentId> {
        let content = self.tree.get(ino)?.content?;
        self.contents.get(&content).is_some_and(Content::is_complete).then_some(content)
    }

    fn has_parent(&self, path: &RelPath) -> bool {
        let parent = path.split_last().and_then(|(parents, _)| RelPath::new(parents.to_vec()).ok());
        parent.is_none_or(|parent| self.has_dir(&parent) && !self.replica.folder.unclear.contains(&parent))
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
        self.replica.folder.changes += 1;
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
        // also if it came to stand there meanwhile: nobody could fetch it from here under that name.
        for (path, held) in before {
            let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
            let is_renamed = matches!(&op, Apply::Rename { from, .. } if *from == path);
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

    fn tell_own_state(&mut self, path: &RelPath, stated: Stated, out: &mut Vec<Output>) {
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
                if self.replica.folder.retry_at.is_none() && !self.stopping {
                    let at = self.now + self.config.retry_cap;
                    self.replica.folder.retry_at = Some(at);
                    self.timers.set(at, Timer::Apply);
                }
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

fn stamp_of(node: &Node) -> Option<Stamp> {
    match node.record.kind {
        Kind::File { stamp, .. } => Some(stamp),
        Kind::Dir | Kind::Symlink { .. } => None,
    }
}

/// What can be done at a path.
enum Next {
    Do(Box<Planned>),
    /// Something else has to be done before.
    Later,
    /// Its bytes are not here.
    Wait,
    Nothing,
}

/// Bytes that are wanted, and where.
struct Wanted(BTreeSet<(Stamp, RelPath)>);

impl Wanted {
    /// Whether what the folder holds at a path is wanted elsewhere. Where it is wanted below that path, it is in the way.
    fn wants(&self, path: &RelPath, held: &Held) -> bool {
        let Some(stamp) = held.stamp() else { return false };
        let places = self.0.range((stamp, RelPath::ROOT)..).take_while(|(of, _)| *of == stamp);
        places.into_iter().any(|(_, at)| !path.is_prefix_of(at))
    }
}

/// Operations that are collected for a batch.
#[derive(Default)]
struct Plan {
    ops: Vec<Planned>,
    paths: BTreeSet<RelPath>,
}

impl Plan {
    fn push(&mut self, planned: Planned) {
        self.paths.extend(planned.op.paths().cloned());
        self.ops.push(planned);
    }

    fn is_full(&self) -> bool {
        // Room for what is done to each directory in the end.
        self.ops.len() >= MAX_BATCH / 2
    }

    fn touches(&self, path: &RelPath) -> bool {
        self.paths.contains(path)
    }

    fn removes(&self, path: &RelPath) -> bool {
        self.ops.iter().any(|planned| matches!(&planned.op, Apply::Remove { path: gone, .. } if gone == path))
    }

    fn makes_dir(&self, names: &[crate::path::Name]) -> bool {
        self.ops.iter().any(|planned| matches!(&planned.op, Apply::MakeDir { path, .. } if path.names() == names))
    }

    /// The directories in which something is made or removed.
    fn touched_dirs(&self) -> BTreeSet<RelPath> {
        let dir_of = |path: &RelPath| RelPath::new(path.split_last()?.0.to_vec()).ok();
        let changes = self.ops.iter().filter(|planned| !matches!(planned.op, Apply::SetAttributes { .. }));
        changes.flat_map(|planned| planned.op.paths()).filter_map(dir_of).collect()
    }
}
