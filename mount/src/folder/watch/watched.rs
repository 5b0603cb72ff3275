//! Which directories are watched, and where they stand.
//!
//! A directory is listed here while it is being watched, with whether it was told with everything in it. If it was, a
//! look at it needs to tell of the directory alone; if not, it must be read.

use super::inotify::WatchId;
use crate::folder::beneath::InodeId;
use farshore_engine::path::RelPath;
use std::collections::{BTreeMap, HashMap};

/// The watched directories.
#[derive(Debug, Default)]
pub(super) struct Watched {
    by_path: BTreeMap<RelPath, Entry>,
    by_watch: HashMap<WatchId, RelPath>,
}

#[derive(Debug)]
struct Entry {
    watch: WatchId,
    id: InodeId,
    /// The scan that met it last.
    round: u64,
    /// Whether everything in it was told.
    whole: bool,
}

impl Watched {
    /// The directory at `path` is watched. It stands nowhere else from now on; what stood at `path` does not any
    /// more, and its watch is given back to be ended.
    #[must_use]
    pub(super) fn insert(&mut self, path: RelPath, watch: WatchId, id: InodeId, round: u64) -> Option<WatchId> {
        if let Some(elsewhere) = self.by_watch.insert(watch, path.clone())
            && elsewhere != path
        {
            self.by_path.remove(&elsewhere);
        }
        let before = self.by_path.insert(path, Entry { watch, id, round, whole: true })?;
        if before.watch == watch {
            return None;
        }
        self.by_watch.remove(&before.watch);
        Some(before.watch)
    }

    /// Where a watched directory stands.
    pub(super) fn path(&self, watch: WatchId) -> Option<&RelPath> {
        self.by_watch.get(&watch)
    }

    /// Which directory is listed at `path`, if it was told with everything in it.
    pub(super) fn at(&self, path: &RelPath) -> Option<InodeId> {
        self.by_path.get(path).filter(|entry| entry.whole).map(|entry| entry.id)
    }

    /// What is at `path` was not told with everything in it, and so neither were the directories above it.
    pub(super) fn doubt(&mut self, path: &RelPath) {
        for depth in 1..=path.names().len() {
            if let Some(entry) =
                RelPath::new(path.names()[..depth].to_vec()).ok().and_then(|above| self.by_path.get_mut(&above))
            {
                entry.whole = false;
            }
        }
    }

    /// Nothing that was told of `path` and of what is below it counts any more.
    pub(super) fn doubt_all_below(&mut self, path: &RelPath) {
        let below = self.by_path.range_mut(path.clone()..).take_while(|(at, _)| path.is_prefix_of(at));
        below.for_each(|(_, entry)| entry.whole = false);
    }

    /// The kernel has ended a watch.
    pub(super) fn ended(&mut self, watch: WatchId) {
        if let Some(path) = self.by_watch.remove(&watch) {
            self.by_path.remove(&path);
        }
    }

    /// Strikes off `path` and everything below it; the watches are to be ended.
    #[must_use]
    pub(super) fn forget(&mut self, path: &RelPath) -> Vec<WatchId> {
        self.strike(path, |_, _| true)
    }

    /// Strikes off what lies below `path` and was not met by scan number `round`.
    #[must_use]
    pub(super) fn forget_unmet(&mut self, path: &RelPath, round: u64) -> Vec<WatchId> {
        self.strike(path, |_, entry| entry.round < round)
    }

    fn strike(&mut self, path: &RelPath, which: impl Fn(&RelPath, &Entry) -> bool) -> Vec<WatchId> {
        let below = self.by_path.range(path.clone()..).take_while(|(below, _)| path.is_prefix_of(below));
        let struck: Vec<RelPath> =
            below.filter(|(path, entry)| which(path, entry)).map(|(path, _)| path.clone()).collect();
        let entries = struck.iter().filter_map(|path| self.by_path.remove(path));
        let watches: Vec<WatchId> = entries.map(|entry| entry.watch).collect();
        for watch in &watches {
            self.by_watch.remove(watch);
        }
        watches
    }

    /// A directory has another name, with everything below it. Nothing is listed at or below `to`.
    pub(super) fn rename(&mut self, from: &RelPath, to: &RelPath) {
        let below = self.by_path.range(from.clone()..).take_while(|(below, _)| from.is_prefix_of(below));
        let paths: Vec<RelPath> = below.map(|(path, _)| path.clone()).collect();
        for path in paths {
            let Some(entry) = self.by_path.remove(&path) else { continue };
            match rebase(&path, from, to) {
                Some(path) => {
                    self.by_watch.insert(entry.watch, path.clone());
                    self.by_path.insert(path, entry);
                }
                // Too deep under its new name to be shared; a scan would have left it out.
                None => {
                    self.by_watch.remove(&entry.watch);
                }
            }
        }
    }

    #[cfg(test)]
    fn check(&self) {
        assert_eq!(self.by_path.len(), self.by_watch.len());
        for (path, entry) in &self.by_path {
            assert_eq!(self.by_watch.get(&entry.watch), Some(path));
        }
    }
}

/// `path`, which is `from` or lies below it, as it is called when `from` is called `to`. `None` if that is too long.
pub(super) fn rebase(path: &RelPath, from: &RelPath, to: &RelPath) -> Option<RelPath> {
    let rest = path.names().get(from.names().len()..)?;
    RelPath::new([to.names(), rest].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn id(inode: u64) -> InodeId {
        InodeId { device: 1, inode }
    }

    fn listed(paths: &[&str]) -> Watched {
        let mut watched = Watched::default();
        for (number, text) in (1..).zip(paths) {
            assert_eq!(watched.insert(path(text), number, id(number as u64), 1), None);
        }
        watched
    }

    #[test]
    fn a_directory_stands_in_one_place() {
        let mut watched = listed(&["a", "b"]);
        assert_eq!(watched.insert(path("c"), 1, id(1), 2), None, "it was moved there");
        assert_eq!(watched.at(&path("a")), None);
        assert_eq!(watched.path(1), Some(&path("c")));
        assert_eq!(watched.insert(path("b"), 1, id(1), 2), Some(2), "over another one, whose watch ends");
        assert_eq!(watched.path(2), None);
        watched.ended(1);
        assert_eq!(watched.at(&path("b")), None);
        watched.check();
    }

    #[test]
    fn forgetting_takes_all_below_and_nothing_beside() {
        let mut watched = listed(&["a", "a/x", "a/x/y", "a.b", "ab", "b"]);
        let mut ended = watched.forget(&path("a"));
        ended.sort_unstable();
        assert_eq!(ended, [1, 2, 3]);
        for kept in ["a.b", "ab", "b"] {
            assert!(watched.at(&path(kept)).is_some(), "{kept}");
        }
        watched.check();
    }

    #[test]
    fn what_a_scan_did_not_meet_is_forgotten() {
        let mut watched = listed(&["a", "a/x", "a/y", "b"]);
        assert_eq!(watched.insert(path("a"), 1, id(1), 2), None);
        assert_eq!(watched.insert(path("a/y"), 3, id(3), 2), None);
        assert_eq!(watched.forget_unmet(&path("a"), 2), [2]);
        assert!(watched.at(&path("b")).is_some(), "outside of what was scanned");
        watched.check();
    }

    #[test]
    fn doubt_goes_up_and_ends_with_the_next_scan() {
        let mut watched = listed(&["a", "a/x", "a/y", "a/x/z"]);
        watched.doubt(&path("a/x/gone"));
        assert_eq!(watched.at(&path("a")), None);
        assert_eq!(watched.at(&path("a/x")), None);
        assert_eq!(watched.at(&path("a/y")), Some(id(3)));
        assert_eq!(watched.at(&path("a/x/z")), Some(id(4)));
        assert_eq!(watched.insert(path("a/x"), 2, id(2), 2), None);
        assert_eq!(watched.at(&path("a/x")), Some(id(2)));
        watched.check();
    }

    #[test]
    fn a_rename_takes_all_below_along() {
        let mut watched = listed(&["a", "a/x", "a/x/y", "ab"]);
        watched.rename(&path("a"), &path("q/r"));
        assert_eq!(watched.path(3), Some(&path("q/r/x/y")));
        assert_eq!(watched.at(&path("q/r")), Some(id(1)));
        assert_eq!(watched.at(&path("a/x")), None);
        assert!(watched.at(&path("ab")).is_some());
        watched.check();
    }
}
