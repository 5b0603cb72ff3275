//! Our own folder and the tree: where they differ, and what is done in the folder so that they do not.
//!
//! What peers changed is done in the folder in batches, one at a time. Each operation says what it expects to find; if it
//! finds something else it does nothing, and the driver is asked to look: what it sees is a change of ours, which is merged. So
//! nothing that anybody did in the folder is ever overwritten unseen.

use crate::content::Content;
use crate::engine::{Engine, Running};
use crate::ids::{ContentId, EffectId, Ino};
use crate::output::{Apply, ApplyError, Effect, Notice, Output, ServedFile};
use crate::path::RelPath;
use crate::record::{Facts, Kind, Record, Stamp};
use crate::replica::Telling;
use crate::time::Time;
use crate::timers::Timer;
use crate::tree::{Node, Origin};
use crate::version::Revision;
use std::collections::{BTreeMap, BTreeSet};

/// The most operations in one batch.
const MAX_BATCH: usize = 256;

/// What our folder holds at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) record: Record,
    /// Which state of the path that was.
    pub(crate) revision: Revision,
    pub(crate) facts: Facts,
    /// The scan that saw it last.
    pub(crate) mark: u64,
}

/// What is known of our folder besides the tree.
#[derive(Debug, Default)]
pub(crate) struct FolderState {
    /// What it holds where the tree says something else. Where the tree says that something is in our folder, it is.
    pub(crate) behind: BTreeMap<RelPath, Held>,
    /// Where it may differ from the tree, and nothing is being done about it.
    due: BTreeSet<RelPath>,
    /// Files whose bytes are not here yet.
    waiting: BTreeSet<RelPath>,
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
    /// Contents whose files are in our folder now.
    landed: Vec<ContentId>,
    /// When what the disk refused is tried again.
    pub(crate) retry_at: Option<Time>,
}

/// An operation that is being done.
#[derive(Debug, Clone)]
struct Planned {
    op: Apply,
    /// What is at the path then.
    becomes: Option<(Record, Revision)>,
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

    /// Whether what is being done concerns this path or anything below it.
    pub(crate) fn is_in_flight_below(&self, path: &RelPath) -> bool {
        self.in_flight.range(path.clone()..).next().is_some_and(|inner| path.is_prefix_of(inner))
    }

    /// The directory that the folder has at a path, if the tree says something else.
    pub(crate) fn dir_at(&self, path: &RelPath) -> Option<Record> {
        self.behind.get(path).map(|held| held.record.clone()).filter(|record| record.kind == Kind::Dir)
    }

    /// What the folder holds at and below a path where the tree says something else.
    pub(crate) fn behind_below(&self, path: &RelPath) -> Vec<RelPath> {
        let below = self.behind.range(path.clone()..).map(|(inner, _)| inner.clone());
        below.take_while(|inner| path.is_prefix_of(inner)).collect()
    }

    /// Nothing is under way or left to do but what waits for bytes.
    pub(crate) fn is_idle(&self) -> bool {
        self.batch.is_none() && self.due.is_empty() && self.unclear.is_empty()
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
        Some(Held { record: node.record.clone(), revision: node.revision.clone(), facts, mark: node.mark })
    }

    /// Whether our folder has a directory at a path.
    pub(crate) fn has_dir(&self, path: &RelPath) -> bool {
        path.is_root() || self.held_at(path).is_some_and(|held| held.record.kind == Kind::Dir)
    }

    /// The tree is about to say something else of an entry than our folder holds.
    pub(crate) fn leave_behind(&mut self, ino: Ino, telling: Telling) {
        let (Some(path), Some(node)) = (self.tree.path_of(ino), self.tree.get(ino)) else { return };
        if let (Origin::Local(facts), Origin::Peer(_)) = (node.origin, telling.origin) {
            let held = Held { record: node.record.clone(), revision: node.revision.clone(), facts, mark: node.mark };
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
        if !self.config.keeps_folder || self.stopping || folder.batch.is_some() || folder.retry_at.is_some() {
            return;
        }
        // What a listing has not come to yet may want what the folder would lose.
        if folder.due.is_empty() || self.peers.values().any(|peer| peer.listing.is_some()) {
            return;
        }
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

    /// The operations that can be done now, in an order in which they can.
    fn plan(&mut self) -> Vec<Planned> {
        let mut due = std::mem::take(&mut self.replica.folder.due);
        due.retain(|path| !self.replica.folder.unclear.contains(path));
        let mut left = BTreeSet::new();
        let mut plan = Plan::default();
        // Bytes that the folder is about to lose may be wanted elsewhere. In a folder that only receives there are none.
        let is_file = |held: &Held| matches!(held.record.kind, Kind::File { .. });
        let wanted = if self.replica.folder.behind.values().any(is_file) {
            self.note_waiting();
            let missing: BTreeSet<RelPath> = due.union(&self.replica.folder.waiting).cloned().collect();
            let wanted = self.wanted_stamps(&missing);
            self.plan_renames(&missing, &wanted, &mut plan);
            wanted
        } else {
            BTreeSet::new()
        };
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
                    Next::Wait => _ = self.replica.folder.waiting.insert(path.clone()),
                    Next::Nothing => {}
                }
            }
        }
        // What is done in a directory gives it another time: that is set right at the end.
        for dir in plan.touched_dirs() {
            let node = self.tree.resolve(dir.names()).and_then(|ino| self.tree.get(ino));
            if let Some(node) = node.filter(|node| matches!(node.origin, Origin::Local(_)) && !plan.touches(&dir)) {
                let Record { mode, modified, .. } = node.record;
                let op = Apply::SetAttributes { path: dir, mode, modified, expect: None };
                plan.push(Planned { op, becomes: Some((node.record.clone(), node.revision.clone())) });
            }
        }
        // What is only waited for by others in the same batch comes again when that has ended.
        self.replica.folder.due = left;
        plan.ops
    }

    /// The folder has lost bytes that were to be moved to where they are wanted: they have to come from elsewhere.
    pub(crate) fn fetch_instead_of(&mut self, lost: &Held) {
        let Kind::File { stamp, .. } = lost.record.kind else { return };
        let folder = &self.replica.folder;
        let wants = |ino: &Ino| {
            let node = self.tree.get(*ino);
            node.is_some_and(|node| stamp_of(node) == Some(stamp) && matches!(node.origin, Origin::Peer(_)))
        };
        let paths = folder.due.iter().chain(&folder.waiting).chain(&folder.unclear).chain(&folder.in_flight);
        let inos: BTreeSet<Ino> = paths.filter_map(|path| self.tree.resolve(path.names())).filter(wants).collect();
        inos.into_iter().for_each(|ino| self.prefetch_below(ino));
    }

    /// Of the files that wait for their bytes, only those stay that do so still.
    fn note_waiting(&mut self) {
        let waits = |path: &RelPath| {
            let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
            node.is_some_and(|node| is_file(node) && matches!(node.origin, Origin::Peer(_)))
        };
        let waiting = std::mem::take(&mut self.replica.folder.waiting).into_iter().filter(waits).collect();
        self.replica.folder.waiting = waiting;
    }

    /// The bytes that are wanted at the paths that are due: what has them is not to be lost.
    fn wanted_stamps(&self, due: &BTreeSet<RelPath>) -> BTreeSet<Stamp> {
        let node_at = |path: &RelPath| self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
        due.iter()
            .filter_map(node_at)
            .filter(|node| matches!(node.origin, Origin::Peer(_)))
            .filter_map(stamp_of)
            .collect()
    }

    /// What is in the folder under another name is renamed: no bytes are moved.
    fn plan_renames(&self, due: &BTreeSet<RelPath>, wanted: &BTreeSet<Stamp>, plan: &mut Plan) {
        let folder = &self.replica.folder;
        let by_stamp: BTreeMap<Stamp, &RelPath> = folder
            .behind
            .iter()
            .filter_map(|(path, held)| match held.record.kind {
                Kind::File { stamp, .. } => Some((stamp, path)),
                Kind::Dir | Kind::Symlink { .. } => None,
            })
            .collect();
        for path in due {
            let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
            let Some(node) = node.filter(|node| matches!(node.origin, Origin::Peer(_))) else { continue };
            let Some(from) = stamp_of(node).and_then(|stamp| by_stamp.get(&stamp)).copied() else { continue };
            let over = folder.behind.get(path);
            let can_go = |held: &Held| match held.record.kind {
                Kind::File { stamp, .. } => !wanted.contains(&stamp),
                Kind::Symlink { .. } => true,
                Kind::Dir => false,
            };
            let is_free = over.is_none_or(can_go) && !plan.touches(from) && !plan.touches(path) && !plan.is_full();
            if from == path || !is_free || !self.has_parent(path) {
                continue;
            }
            let Some(held) = folder.behind.get(from) else { continue };
            let Record { mode, modified, .. } = node.record;
            let (from, to, expect) = (from.clone(), path.clone(), held.facts);
            let op = Apply::Rename { from, to, mode, modified, expect, over: over.map(|held| held.facts) };
            plan.push(Planned { op, becomes: Some((node.record.clone(), node.revision.clone())) });
        }
    }

    /// Removes what the folder has where the tree has nothing. Returns whether nothing is left to be done.
    fn plan_removal(&self, path: &RelPath, wanted: &BTreeSet<Stamp>, plan: &mut Plan) -> bool {
        let Some(held) = self.replica.folder.behind.get(path) else { return true };
        if let Kind::File { stamp, .. } = held.record.kind
            && wanted.contains(&stamp)
        {
            // It will be renamed.
            return false;
        }
        let mut inner = self.replica.folder.behind_below(path).into_iter();
        if inner.any(|inner| inner != *path && !plan.removes(&inner)) {
            return false;
        }
        let op = Apply::Remove { path: path.clone(), expect: held.facts };
        plan.push(Planned { op, becomes: None });
        true
    }

    /// Makes the folder what the tree says at a path.
    fn plan_entry(&self, path: &RelPath, ino: Ino, wanted: &BTreeSet<Stamp>, plan: &Plan) -> Next {
        let Some(node) = self.tree.get(ino) else { return Next::Nothing };
        if matches!(node.origin, Origin::Local(_)) {
            return Next::Nothing;
        }
        let (record, revision) = (node.record.clone(), node.revision.clone());
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
                return Next::Do(Box::new(Planned { op, becomes: Some((record, revision)) }));
            }
            let is_wanted = matches!(held.record.kind, Kind::File { stamp, .. } if wanted.contains(&stamp));
            let stands_over_dir = held.record.kind == Kind::Dir;
            if is_wanted || stands_over_dir && self.replica.folder.behind_below(&path).len() > 1 {
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
                // It is due again when its bytes are here.
                None if self.is_in_folder_elsewhere(ino) => return Next::Later,
                None => return Next::Wait,
            },
        };
        Next::Do(Box::new(Planned { op, becomes: Some((record, revision)) }))
    }

    /// The content of a file, if all of it is here.
    fn whole_content(&self, ino: Ino) -> Option<ContentId> {
        let content = self.tree.get(ino)?.content?;
        self.contents.get(&content).is_some_and(Content::is_complete).then_some(content)
    }

    fn has_parent(&self, path: &RelPath) -> bool {
        let parent = path.split_last().and_then(|(parents, _)| RelPath::new(parents.to_vec()).ok());
        parent.is_none_or(|parent| self.has_dir(&parent))
    }

    /// Whether these bytes are in our folder, or known to be somewhere, under whatever name.
    pub(crate) fn stands_somewhere(&self, stamp: Stamp) -> bool {
        let is_it = |record: &Record| matches!(record.kind, Kind::File { stamp: of, .. } if of == stamp);
        self.replica.folder.behind.values().any(|held| is_it(&held.record))
            || self.tree.iter().any(|(_, node)| is_it(&node.record))
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
        let Some(stamp) = self.tree.get(ino).and_then(stamp_of).filter(|_| self.config.keeps_folder) else {
            return false;
        };
        let is_it = |held: &Held| matches!(held.record.kind, Kind::File { stamp: of, .. } if of == stamp);
        self.replica.folder.behind.values().any(is_it)
    }

    /// A file that peers may read where it still is in our folder, although the tree has it elsewhere already.
    pub(crate) fn serve_behind(&self, path: &RelPath, stamp: Stamp) -> Option<ServedFile> {
        let is_it = |held: &Held| matches!(held.record.kind, Kind::File { stamp: of, .. } if of == stamp);
        let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino))?;
        if stamp_of(node) != Some(stamp) || matches!(node.origin, Origin::Local(_)) {
            return None;
        }
        let behind = self.replica.folder.behind.iter().find(|(_, held)| is_it(held));
        let (at, held) = behind.map(|(at, held)| (at.clone(), held.clone())).or_else(|| {
            let is_here = |node: &Node| stamp_of(node) == Some(stamp) && matches!(node.origin, Origin::Local(_));
            let at = self.tree.iter().find(|(_, node)| is_here(node)).and_then(|(ino, _)| self.tree.path_of(ino))?;
            let held = self.held_at(&at)?;
            Some((at, held))
        })?;
        let Record { modified, .. } = held.record;
        Some(ServedFile { path: at, size_bytes: held.record.size_bytes(), modified, facts: held.facts })
    }

    /// A batch has ended.
    pub(crate) fn on_applied(&mut self, results: Vec<Result<Facts, ApplyError>>, out: &mut Vec<Output>) {
        let Some((_, planned)) = self.replica.folder.batch.take() else { return };
        assert_eq!(planned.len(), results.len(), "each operation of a batch ends, and no other");
        self.replica.folder.in_flight.clear();
        for (planned, result) in planned.into_iter().zip(results) {
            match result {
                Ok(facts) => self.on_applied_one(planned, facts),
                Err(error) => self.on_refused(&planned.op, error, out),
            }
        }
        for path in std::mem::take(&mut self.replica.folder.look) {
            out.push(Output::Notice(Notice::LookAt { path }));
        }
    }

    fn on_applied_one(&mut self, planned: Planned, facts: Facts) {
        let Planned { op, becomes } = planned;
        if let Apply::Rename { from, .. } | Apply::Remove { path: from, .. } = &op {
            let gone = self.replica.folder.behind.remove(from);
            self.replica.folder.note_due(from.clone());
            // It may have been wanted at more than one path.
            gone.iter().for_each(|gone| self.fetch_instead_of(gone));
        }
        let (Some((record, revision)), path) = (becomes, op.target()) else { return };
        let held = Held { record, revision, facts, mark: self.last_mark };
        // The tree may have come to say something else meanwhile.
        if let Some(node) = self.tree.resolve(path.names()).and_then(|ino| self.tree.get_mut(ino))
            && matches!(node.origin, Origin::Local(_))
        {
            node.origin = Origin::Local(facts);
            return;
        }
        let over = self.replica.folder.behind.insert(path.clone(), held);
        self.replica.folder.note_due(path.clone());
        self.settle(path);
        over.iter().for_each(|over| self.fetch_instead_of(over));
    }

    fn on_refused(&mut self, op: &Apply, error: ApplyError, out: &mut Vec<Output>) {
        match error {
            ApplyError::Changed => {
                self.replica.folder.look.extend(op.paths().cloned());
                self.replica.folder.unclear.extend(op.paths().cloned());
            }
            ApplyError::NoSpace | ApplyError::Io => {
                op.paths().for_each(|path| self.replica.folder.note_due(path.clone()));
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
        let is_known = |path: &RelPath| {
            folder.due.contains(path)
                || folder.in_flight.contains(path)
                || folder.unclear.contains(path)
                || self.stopping
        };
        for (path, held) in &folder.behind {
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
