//! What our own folder holds where the tree says something else.

use crate::journal::Noted;
use crate::path::RelPath;
use crate::record::{Facts, Kind, Record, Stamp};
use crate::version::Dot;
use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};

/// What our folder holds at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) record: Record,
    /// The change that made it what it is.
    pub(crate) dot: Dot,
    pub(crate) facts: Facts,
    /// The scan that saw it last.
    pub(crate) mark: u64,
}

impl Held {
    /// Which bytes it has, if it is a file that has any.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match self.record.kind {
            Kind::File { stamp, size_bytes: 1.. } => Some(stamp),
            Kind::File { .. } | Kind::Dir | Kind::Symlink { .. } => None,
        }
    }
}

/// What our folder holds where the tree says something else, by path and by which bytes it has.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    by_path: BTreeMap<RelPath, Held>,
    by_stamp: BTreeMap<Stamp, BTreeSet<RelPath>>,
    /// The bytes that it no longer has somewhere: who was to get them from there may have to fetch them.
    lost: Vec<Stamp>,
    /// Where it holds something else.
    pub(crate) noted: Noted,
}

impl Behind {
    pub(crate) fn get(&self, path: &RelPath) -> Option<&Held> {
        self.by_path.get(path)
    }

    pub(crate) fn contains(&self, path: &RelPath) -> bool {
        self.by_path.contains_key(path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    pub(crate) fn insert(&mut self, path: RelPath, held: Held) {
        self.remove(&path);
        self.noted.note(&path);
        if let Some(stamp) = held.stamp() {
            self.by_stamp.entry(stamp).or_default().insert(path.clone());
        }
        self.by_path.insert(path, held);
    }

    pub(crate) fn remove(&mut self, path: &RelPath) -> Option<Held> {
        let held = self.by_path.remove(path)?;
        self.noted.note(path);
        if let Some(stamp) = held.stamp()
            && let Some(paths) = self.by_stamp.get_mut(&stamp)
        {
            self.lost.push(stamp);
            paths.remove(path);
            if paths.is_empty() {
                self.by_stamp.remove(&stamp);
            }
        }
        Some(held)
    }

    /// The bytes that it had somewhere and has not there any more, since this was last asked.
    pub(crate) fn take_lost(&mut self) -> Vec<Stamp> {
        core::mem::take(&mut self.lost)
    }

    /// A path at which it has these bytes.
    pub(crate) fn with_stamp(&self, stamp: Stamp) -> Option<(&RelPath, &Held)> {
        let path = self.by_stamp.get(&stamp)?.first()?;
        Some((path, self.by_path.get(path)?))
    }

    /// What it holds at and below a path counts as seen.
    pub(crate) fn mark_below(&mut self, path: &RelPath, mark: u64) {
        let below = self.by_path.range_mut(path.clone()..).take_while(|(inner, _)| path.is_prefix_of(inner));
        below.for_each(|(_, held)| held.mark = mark);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RelPath, &Held)> {
        self.by_path.iter()
    }

    /// What it holds behind `path` in the order of paths, or everywhere.
    pub(crate) fn after(&self, path: Option<&RelPath>) -> impl Iterator<Item = (&RelPath, &Held)> {
        let begin = path.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_path.range::<RelPath, _>((begin, Bound::Unbounded))
    }

    /// Where it holds something at or below a path.
    pub(crate) fn within<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = &'a RelPath> {
        let behind = self.by_path.range::<RelPath, _>(path..).map(|(inner, _)| inner);
        behind.take_while(|inner| path.is_prefix_of(inner))
    }

    /// The same, to be gone through while it changes.
    pub(crate) fn below(&self, path: &RelPath) -> Vec<RelPath> {
        self.within(path).cloned().collect()
    }

    /// For [`crate::Engine::check`].
    pub(crate) fn check(&self) {
        let of = |(path, held): (&RelPath, &Held)| Some((held.stamp()?, path.clone()));
        let by_path: BTreeSet<(Stamp, RelPath)> = self.by_path.iter().filter_map(of).collect();
        let by_stamp = self.by_stamp.iter().flat_map(|(stamp, paths)| paths.iter().map(|path| (*stamp, path.clone())));
        assert_eq!(
            by_path,
            by_stamp.collect(),
            "what the folder holds is found by its path or by its bytes, not by both"
        );
    }
}
