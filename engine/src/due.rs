//! Where our own folder may have to be made like the tree, and which bytes are wanted in it.

use crate::engine::Engine;
use crate::ids::Ino;
use crate::path::RelPath;
use crate::record::{Kind, Record, Stamp};
use crate::tree::{Node, Origin};
use crate::version::Sibling;
use core::ops::Bound;
use std::collections::BTreeSet;

/// So many notes of files that are not wanted any more do no harm.
const HARMLESS: usize = 1_024;

/// The paths at which something may have to be done, and nothing is being done.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Where something changed since [`Engine::sort_due`].
    news: BTreeSet<RelPath>,
    /// Where the tree has something.
    there: BTreeSet<RelPath>,
    /// Where it has nothing.
    gone: BTreeSet<RelPath>,
    /// Nothing can be done at any of them until something changes.
    is_stuck: bool,
    /// The files that peers have and our folder has not, by their bytes. Some may not be so any more.
    wanted: BTreeSet<(Stamp, Ino)>,
    /// The files that stand beside what the tree has somewhere, by their bytes. Some may not do so any more.
    beside: BTreeSet<(Stamp, Ino)>,
}

impl Due {
    pub(crate) fn insert(&mut self, path: RelPath) {
        self.news.insert(path);
    }

    pub(crate) fn append(&mut self, paths: &mut BTreeSet<RelPath>) {
        self.news.append(paths);
    }

    pub(crate) fn remove(&mut self, path: &RelPath) {
        self.there.remove(path);
        self.gone.remove(path);
    }

    pub(crate) fn contains(&self, path: &RelPath) -> bool {
        self.news.contains(path) || self.there.contains(path) || self.gone.contains(path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.news.is_empty() && self.there.is_empty() && self.gone.is_empty()
    }

    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Something changed that may make something possible.
    pub(crate) fn unstick(&mut self) {
        self.is_stuck = false;
    }

    pub(crate) fn note_stuck(&mut self) {
        self.is_stuck = true;
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// The paths behind `after` where the tree has something: a directory comes before what it holds.
    pub(crate) fn there_after(&self, after: Option<&RelPath>, most: usize) -> Vec<RelPath> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.there.range((from, Bound::Unbounded)).take(most).cloned().collect()
    }

    /// The paths before `before` where the tree has nothing, the last one first: what a directory held comes before it.
    pub(crate) fn gone_before(&self, before: Option<&RelPath>, most: usize) -> Vec<RelPath> {
        let until = before.map_or(Bound::Unbounded, Bound::Excluded);
        self.gone.range((Bound::Unbounded, until)).rev().take(most).cloned().collect()
    }
}

impl Engine {
    /// The tree has something new. If that is a file, and its bytes are nowhere here, nothing can be done before they have come,
    /// and then it is due: until then it is enough to know what it wants. Most of a large share is such, and a path for each
    /// would cost as much as the tree.
    pub(crate) fn note_new(&mut self, ino: Ino) {
        let Some(node) = self.tree.get(ino) else { return };
        let folder = &mut self.replica.folder;
        let waits = node.content.is_none() && node.revision.others.is_empty() && folder.behind.is_empty();
        if let Some(stamp) = wanted_by(node).filter(|_| waits) {
            folder.due.wanted.insert((stamp, ino));
        } else if let Some(path) = self.tree.path_of(ino) {
            folder.note_due(path);
        }
    }

    /// Finds out for each path at which something changed whether the tree has something there. Returns these paths.
    pub(crate) fn sort_due(&mut self) -> BTreeSet<RelPath> {
        let news = std::mem::take(&mut self.replica.folder.due.news);
        for path in &news {
            let ino = self.tree.resolve(path.names());
            let node = ino.and_then(|ino| self.tree.get(ino));
            let wanted = node.and_then(wanted_by).zip(ino);
            let others = node.map(|node| node.revision.others.iter()).into_iter().flatten();
            let beside: Vec<(Stamp, Ino)> = others.filter_map(|other| bytes_of(&other.record)).zip(ino).collect();
            let due = &mut self.replica.folder.due;
            due.is_stuck = false;
            due.remove(path);
            let sorted = if ino.is_some() { &mut due.there } else { &mut due.gone };
            sorted.insert(path.clone());
            due.wanted.extend(wanted);
            due.beside.extend(beside);
        }
        let noted = self.replica.folder.due.wanted.len();
        if noted > HARMLESS && noted as u64 > 2 * self.tree.len() {
            let tree = &self.tree;
            let is_so = |(stamp, ino): &(Stamp, Ino)| tree.get(*ino).and_then(wanted_by) == Some(*stamp);
            self.replica.folder.due.wanted.retain(is_so);
        }
        let beside = std::mem::take(&mut self.replica.folder.due.beside);
        let is_so = |(stamp, ino): &(Stamp, Ino)| self.sibling_with(*ino, *stamp).is_some();
        self.replica.folder.due.beside = beside.into_iter().filter(is_so).collect();
        news
    }

    /// What stands beside what the tree says of an entry, and has these bytes.
    fn sibling_with(&self, ino: Ino, stamp: Stamp) -> Option<&Sibling> {
        let mut others = self.tree.get(ino)?.revision.others.iter();
        others.find(|other| bytes_of(&other.record) == Some(stamp))
    }

    /// The files that have these bytes and stand beside what the tree says of a path.
    pub(crate) fn standing_beside(&self, stamp: Stamp) -> impl Iterator<Item = (RelPath, &Sibling)> {
        let noted = self.replica.folder.due.beside.range((stamp, Ino(0))..=(stamp, Ino(u64::MAX)));
        noted.filter_map(move |(_, ino)| Some((self.tree.path_of(*ino)?, self.sibling_with(*ino, stamp)?)))
    }

    /// The files that are to have these bytes and do not have them in our folder.
    pub(crate) fn wanted_at(&self, stamp: Stamp) -> impl Iterator<Item = (Ino, RelPath)> {
        let noted = self.replica.folder.due.wanted.range((stamp, Ino(0))..=(stamp, Ino(u64::MAX)));
        noted.filter_map(move |(_, ino)| {
            let is_so = self.tree.get(*ino).and_then(wanted_by) == Some(stamp);
            Some((*ino, self.tree.path_of(*ino).filter(|_| is_so)?))
        })
    }
}

/// Which bytes it is that something has, if it has any.
fn bytes_of(record: &Record) -> Option<Stamp> {
    match record.kind {
        Kind::File { size_bytes: 1.., stamp } => Some(stamp),
        Kind::File { .. } | Kind::Dir | Kind::Symlink { .. } => None,
    }
}

/// The bytes of a file that our folder has not.
pub(crate) fn wanted_by(node: &Node) -> Option<Stamp> {
    match node.origin {
        Origin::Peer(_) => bytes_of(&node.record),
        Origin::Local(_) => None,
    }
}
