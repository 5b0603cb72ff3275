//! Paths at which nothing can be done in our own folder before something becomes of another path: however many they are, they are
//! looked at again only then.

use crate::path::RelPath;
use std::collections::{BTreeMap, BTreeSet};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blocker {
    /// The folder is to have this directory.
    Directory(RelPath),
    /// Something is to change at this path. Who waits for its own path waits until whoever told of it has told all.
    Change(RelPath),
}

/// Paths, and what each waits for.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    by_path: BTreeMap<RelPath, Vec<Blocker>>,
    by_blocker: BTreeMap<Blocker, BTreeSet<RelPath>>,
}

impl Blocked {
    /// From now on a path waits for any of these, and for nothing else.
    pub(crate) fn insert(&mut self, path: RelPath, blockers: Vec<Blocker>) {
        self.remove(&path);
        for blocker in &blockers {
            self.by_blocker.entry(blocker.clone()).or_default().insert(path.clone());
        }
        self.by_path.insert(path, blockers);
    }

    pub(crate) fn remove(&mut self, path: &RelPath) {
        for blocker in self.by_path.remove(path).unwrap_or_default() {
            if let Some(paths) = self.by_blocker.get_mut(&blocker) {
                paths.remove(path);
                if paths.is_empty() {
                    self.by_blocker.remove(&blocker);
                }
            }
        }
    }

    /// Takes off those that wait for this.
    pub(crate) fn take(&mut self, blocker: &Blocker) -> BTreeSet<RelPath> {
        let paths = self.by_blocker.get(blocker).cloned().unwrap_or_default();
        paths.iter().for_each(|path| self.remove(path));
        paths
    }

    pub(crate) fn contains(&self, path: &RelPath) -> bool {
        self.by_path.contains_key(path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.by_path.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn who_waits_for_several_things_is_free_when_one_of_them_happens() {
        let mut blocked = Blocked::default();
        let (dir, change) = (Blocker::Directory(path("d")), Blocker::Change(path("d")));
        blocked.insert(path("a"), vec![dir.clone(), change.clone()]);
        blocked.insert(path("b"), vec![dir.clone()]);
        assert_eq!(blocked.take(&change), BTreeSet::from([path("a")]));
        assert!(!blocked.contains(&path("a")) && blocked.contains(&path("b")));
        blocked.insert(path("b"), vec![change.clone()]);
        assert!(blocked.take(&dir).is_empty(), "it waits for something else now");
        blocked.remove(&path("b"));
        assert!(blocked.is_empty() && blocked.by_blocker.is_empty() && blocked.take(&change).is_empty());
    }
}
