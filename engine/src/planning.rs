//! What is to be done next in our own folder, in an order in which it can be done.
//!
//! A batch is small, however much there is to be done, and only some of that is looked at for one.

use crate::behind::Held;
use crate::blocked::Blocker;
use crate::content::Content;
use crate::due::wanted_by;
use crate::engine::Engine;
use crate::ids::{ContentId, Ino};
use crate::merge::conflict_name;
use crate::output::{Apply, Output};
use crate::path::RelPath;
use crate::record::{Kind, Record, Stamp};
use crate::tree::{Node, Origin};
use crate::version::Dot;
use std::collections::BTreeSet;

/// How many names are tried for a conflict copy. Somebody would have to use all of them on purpose.
const MOST_NAMES: u32 = 1_000;

/// The most operations in one batch.
const MAX_BATCH: usize = 256;

/// How many paths are looked at together.
const LOOKED_AT_ONCE: usize = 512;

/// An operation that is being done.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) op: Apply,
    /// What is at the path then.
    pub(crate) becomes: Option<(Record, Dot)>,
}

impl Engine {
    /// Where our folder has what the tree says, what is beside it and nothing would be lost of is dropped.
    pub(crate) fn tidy(&mut self, out: &mut Vec<Output>) {
        while self.replica.folder.due.has_news() {
            for path in self.sort_due() {
                let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
                let is_disputed =
                    |node: &Node| matches!(node.origin, Origin::Local(_)) && !node.revision.others.is_empty();
                if !node.is_some_and(is_disputed) {
                    continue;
                }
                let Some(stated) = self.stated_at(&path) else { continue };
                let tidied = stated.tidied();
                if tidied != stated {
                    self.tell_own_state(&path, tidied, out);
                }
            }
        }
    }

    /// The operations that can be done now, in an order in which they can.
    pub(crate) fn plan(&mut self) -> Vec<Planned> {
        let mut plan = Plan::default();
        let (mut before, mut after) = (None, None);
        while plan.ops.is_empty() && !self.replica.folder.due.is_stuck() {
            let gone = self.replica.folder.due.gone_before(before.as_ref(), LOOKED_AT_ONCE);
            let there = self.replica.folder.due.there_after(after.as_ref(), LOOKED_AT_ONCE);
            if gone.is_empty() && there.is_empty() {
                self.replica.folder.due.note_stuck();
            }
            before = gone.last().cloned().or(before);
            after = there.last().cloned().or(after);
            self.plan_some(gone, there, &mut plan);
        }
        // What is done in a directory gives it another time: that is set right at the end.
        for dir in plan.touched_dirs() {
            let node = self.tree.resolve(dir.names()).and_then(|ino| self.tree.get(ino));
            let is_clear = !plan.touches(&dir) && !self.replica.folder.unclear.contains(&dir);
            if let Some(node) = node.filter(|node| matches!(node.origin, Origin::Local(_)) && is_clear) {
                let Record { mode, modified, .. } = node.record;
                let op = Apply::SetAttributes { path: dir, mode, modified, xattrs: None, expect: None };
                plan.push(Planned { op, becomes: Some((node.record.clone(), node.revision.dot)) });
            }
        }
        plan.ops
    }

    /// Plans for some of what is due, and takes off it what is dealt with.
    fn plan_some(&mut self, mut gone: Vec<RelPath>, mut there: Vec<RelPath>, plan: &mut Plan) {
        for paths in [&mut gone, &mut there] {
            // These are due again when they have been looked at, or are tried again.
            paths.retain(|path| {
                let folder = &mut self.replica.folder;
                let is_to_wait = folder.unclear.contains(path) || folder.refused.contains(path);
                if is_to_wait {
                    folder.due.remove(path);
                }
                !is_to_wait
            });
        }
        // Bytes that the folder is about to lose may be wanted elsewhere.
        self.plan_renames(&gone, &there, plan);
        // What was removed, with what a directory held before the directory.
        for path in &gone {
            if plan.is_full() {
                break;
            }
            if !plan.touches(path) {
                let next = self.plan_removal(path, plan);
                self.take_up(path, next, plan);
            }
        }
        for path in &there {
            if plan.is_full() {
                break;
            }
            let Some(ino) = self.tree.resolve(path.names()).filter(|_| !plan.touches(path)) else { continue };
            let next = self.plan_entry(path, ino, plan);
            if let Next::Wait = next {
                self.fetch_what_waits(ino);
            }
            self.take_up(path, next, plan);
        }
    }

    fn take_up(&mut self, path: &RelPath, next: Next, plan: &mut Plan) {
        let due = &mut self.replica.folder.due;
        match next {
            Next::Do(planned) => {
                plan.push(*planned);
                due.remove(path);
            }
            Next::Later => {}
            Next::After(blockers) => due.block(path, blockers),
            Next::Wait | Next::Nothing => due.remove(path),
        }
    }

    /// A file is due again when its bytes are here. It may have been about to be renamed from elsewhere in the folder and
    /// cannot be any more, and nobody fetches it then.
    fn fetch_what_waits(&mut self, ino: Ino) {
        let content = self.tree.get(ino).and_then(|node| node.content);
        if !content.is_some_and(|content| self.is_prefetched(content)) {
            self.prefetch_if_pinned(ino);
        }
    }

    /// Where the bytes of what the folder holds at a path are wanted, if they are not here otherwise: of files that exchange their
    /// names, none can be renamed before the other. Where they are wanted below that path, it is in the way.
    fn wanted_elsewhere(&self, path: &RelPath, held: &Held) -> Option<RelPath> {
        let is_in_need = |(ino, at): &(Ino, RelPath)| !path.is_prefix_of(at) && self.whole_content(*ino).is_none();
        self.wanted_at(held.stamp()?).find(is_in_need).map(|(_, at)| at)
    }

    /// Whether a peer that has more to tell may want the bytes of what the folder holds at a path.
    fn may_be_wanted(&self, path: &RelPath, held: &Held) -> bool {
        held.stamp().is_some() && self.replica.folder.unsettled.contains(path)
    }

    /// Nothing can be done at a path before its bytes are at another one, where they are wanted.
    fn after_rename_to(&self, wanted: RelPath) -> Next {
        let parent = wanted.parent().filter(|_| !self.has_parent(&wanted)).map(Blocker::Directory);
        Next::After(parent.into_iter().chain([Blocker::Change(wanted)]).collect())
    }

    /// What is in the folder under another name is renamed: no bytes are moved.
    fn plan_renames(&self, gone: &[RelPath], there: &[RelPath], plan: &mut Plan) {
        let folder = &self.replica.folder;
        let mut wanted: BTreeSet<(Stamp, RelPath)> = BTreeSet::new();
        for path in there {
            let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
            wanted.extend(node.and_then(wanted_by).map(|stamp| (stamp, path.clone())));
        }
        for stamp in gone.iter().chain(there).filter_map(|path| folder.behind.get(path)?.stamp()) {
            wanted.extend(self.wanted_at(stamp).map(|(_, path)| (stamp, path)));
        }
        for (stamp, path) in wanted {
            self.plan_rename(stamp, &path, plan);
        }
    }

    fn plan_rename(&self, stamp: Stamp, path: &RelPath, plan: &mut Plan) {
        let folder = &self.replica.folder;
        let Some((from, held)) = folder.behind.with_stamp(stamp) else { return };
        let Some(node) = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino)) else { return };
        let is_wanted = |stamp| self.wanted_at(stamp).next().is_some();
        let can_go = |held: &Held| match held.record.kind {
            Kind::File { .. } => {
                !held.stamp().is_some_and(is_wanted) && !self.may_be_wanted(path, held) && !self.conflicts(held, node)
            }
            Kind::Symlink { .. } => !self.conflicts(held, node),
            Kind::Dir => false,
        };
        let is_clear = |path| !folder.unclear.contains(path) && !folder.refused.contains(path) && !plan.touches(path);
        if from == path || !is_clear(from) || !is_clear(path) || !self.has_parent(path) || plan.is_full() {
            return;
        }
        if path.is_prefix_of(from) {
            // The directory that it is in is in the way: it waits beside it until that is gone.
            return self.plan_aside(path, (from, held), plan);
        }
        let over = folder.behind.get(path);
        if over.is_none_or(can_go) {
            let Record { mode, modified, xattrs, .. } = node.record.clone();
            let (from, to, expect) = (from.clone(), path.clone(), held.facts);
            let op = Apply::Rename { from, to, mode, modified, xattrs, expect, over: over.map(|held| held.facts) };
            plan.push(Planned { op, becomes: Some((node.record.clone(), node.revision.dot)) });
        }
    }

    /// Renames a file out of a directory in the place of which it is wanted.
    fn plan_aside(&self, place: &RelPath, (from, held): (&RelPath, &Held), plan: &mut Plan) {
        let Some(to) = self.free_name_for(place, held).filter(|to| !plan.touches(to)) else { return };
        let Record { mode, modified, xattrs, .. } = held.record.clone();
        let op = Apply::Rename { from: from.clone(), to, mode, modified, xattrs, expect: held.facts, over: None };
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

    /// Removes what the folder has where the tree has nothing.
    fn plan_removal(&self, path: &RelPath, plan: &Plan) -> Next {
        let Some(held) = self.replica.folder.behind.get(path) else { return Next::Nothing };
        if let Some(wanted) = self.wanted_elsewhere(path, held) {
            return self.after_rename_to(wanted);
        }
        if self.may_be_wanted(path, held) {
            return Next::After(vec![Blocker::Change(path.clone())]);
        }
        if let Some(inner) =
            self.replica.folder.behind.within(path).find(|inner| *inner != path && !plan.removes(inner))
        {
            return Next::After(vec![Blocker::Change(inner.clone())]);
        }
        let op = match self.place_beside(path, held) {
            None => Apply::Remove { path: path.clone(), expect: held.facts },
            Some(to) if plan.touches(&to) => return Next::After(vec![Blocker::Change(to)]),
            Some(to) => match to.parent().filter(|_| !self.has_parent(&to)) {
                Some(parent) => return Next::After(vec![Blocker::Directory(parent)]),
                None => Apply::KeepCopy { path: path.clone(), to, expect: held.facts, unless: None },
            },
        };
        Next::Do(Box::new(Planned { op, becomes: None }))
    }

    /// The name of the conflict copy that a file is to become of which the folder loses the name, because somebody who had not got
    /// its bytes has given it another name that is taken: nobody else may have them.
    fn place_beside(&self, path: &RelPath, held: &Held) -> Option<RelPath> {
        let has_it_there = |place: &RelPath| {
            let there = self.replica.folder.behind.get(place);
            there.is_some_and(|there| there.stamp() == held.stamp())
        };
        let mut beside = self.standing_beside(held.stamp()?);
        let (place, other) = beside.find(|(place, _)| place != path && !has_it_there(place))?;
        self.free_name_for(&place, &Held { record: other.record.clone(), dot: other.dot, ..held.clone() })
    }

    /// Makes the folder what the tree says at a path.
    fn plan_entry(&self, path: &RelPath, ino: Ino, plan: &Plan) -> Next {
        let Some(node) = self.tree.get(ino) else { return Next::Nothing };
        if matches!(node.origin, Origin::Local(_)) {
            return Next::Nothing;
        }
        let (record, dot) = (node.record.clone(), node.revision.dot);
        let Record { mode, modified, xattrs, .. } = record.clone();
        if let Some(parent) = path.parent().filter(|parent| !self.has_parent(path) && !plan.makes_dir(parent)) {
            return Next::After(vec![Blocker::Directory(parent)]);
        }
        let held = self.replica.folder.behind.get(path);
        let path = path.clone();
        if let Some(held) = held {
            let is_same = match (&held.record.kind, &record.kind) {
                (Kind::Symlink { .. }, Kind::Symlink { .. }) => false,
                (before, after) => before == after,
            };
            if is_same {
                let op = Apply::SetAttributes { path, mode, modified, xattrs: Some(xattrs), expect: Some(held.facts) };
                return Next::Do(Box::new(Planned { op, becomes: Some((record, dot)) }));
            }
            if let Some(wanted) = self.wanted_elsewhere(&path, held) {
                return self.after_rename_to(wanted);
            }
            if self.conflicts(held, node) {
                return self.plan_copy(&path, held, ino);
            }
            let stands_over_dir = held.record.kind == Kind::Dir;
            if let Some(inner) = self.replica.folder.behind.within(&path).nth(1).filter(|_| stands_over_dir) {
                return Next::After(vec![Blocker::Change(inner.clone())]);
            }
            if stands_over_dir || record.kind == Kind::Dir {
                // Another kind of thing cannot be put over it. What it is comes next.
                return Next::Do(Box::new(Planned { op: Apply::Remove { path, expect: held.facts }, becomes: None }));
            }
        }
        if held.is_some_and(|held| self.may_be_wanted(&path, held)) {
            return Next::After(vec![Blocker::Change(path)]);
        }
        let expect = held.map(|held| held.facts);
        let op = match &record.kind {
            Kind::Dir => Apply::MakeDir { path, mode, modified, xattrs },
            Kind::Symlink { target } => Apply::MakeSymlink { path, target: target.clone(), modified, expect },
            Kind::File { size_bytes: 0, .. } => Apply::Publish { path, content: None, mode, modified, xattrs, expect },
            Kind::File { .. } => match self.whole_content(ino) {
                Some(content) => Apply::Publish { path, content: Some(content), mode, modified, xattrs, expect },
                None if self.is_in_folder_elsewhere(ino) => return Next::Later,
                None => return Next::Wait,
            },
        };
        Next::Do(Box::new(Planned { op, becomes: Some((record, dot)) }))
    }

    /// The content of a file, if all of it is here.
    pub(crate) fn whole_content(&self, ino: Ino) -> Option<ContentId> {
        let content = self.tree.get(ino)?.content?;
        self.contents.get(&content).is_some_and(Content::is_complete).then_some(content)
    }

    fn has_parent(&self, path: &RelPath) -> bool {
        path.parent().is_none_or(|parent| self.is_ready_for_more(&parent))
    }

    /// Whether our folder has a directory at a path, as far as is known for sure.
    pub(crate) fn is_ready_for_more(&self, path: &RelPath) -> bool {
        self.has_dir(path) && !self.replica.folder.unclear.contains(path)
    }

    /// For [`Engine::check`]: what waits for something to happen could not go on without that.
    pub(crate) fn check_blocked(&self) {
        for path in self.replica.folder.due.blocked() {
            let next = match self.tree.resolve(path.names()) {
                Some(ino) => self.plan_entry(path, ino, &Plan::default()),
                None => self.plan_removal(path, &Plan::default()),
            };
            assert!(matches!(next, Next::After(_)), "{path} waits for something, and could be dealt with: {next:?}");
        }
    }
}

/// What can be done at a path.
#[derive(Debug)]
enum Next {
    Do(Box<Planned>),
    /// Something else has to be done before.
    Later,
    /// One of these has to happen before.
    After(Vec<Blocker>),
    /// Its bytes are not here.
    Wait,
    Nothing,
}

/// Operations that are collected for a batch.
#[derive(Default)]
struct Plan {
    ops: Vec<Planned>,
    /// All that they are about.
    paths: BTreeSet<RelPath>,
    removed: BTreeSet<RelPath>,
    made_dirs: BTreeSet<RelPath>,
}

impl Plan {
    fn push(&mut self, planned: Planned) {
        self.paths.extend(planned.op.paths().cloned());
        match &planned.op {
            Apply::Remove { path, .. } => _ = self.removed.insert(path.clone()),
            Apply::MakeDir { path, .. } => _ = self.made_dirs.insert(path.clone()),
            Apply::MakeSymlink { .. }
            | Apply::Publish { .. }
            | Apply::KeepCopy { .. }
            | Apply::Rename { .. }
            | Apply::SetAttributes { .. } => {}
        }
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
        self.removed.contains(path)
    }

    fn makes_dir(&self, path: &RelPath) -> bool {
        self.made_dirs.contains(path)
    }

    /// The directories in which something is made or removed.
    fn touched_dirs(&self) -> BTreeSet<RelPath> {
        let changes = self.ops.iter().filter(|planned| !matches!(planned.op, Apply::SetAttributes { .. }));
        changes.flat_map(|planned| planned.op.paths()).filter_map(RelPath::parent).collect()
    }
}
