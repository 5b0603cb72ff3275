//! Files with several names (hard links).
//!
//! The kernel tells of a change under the one name by which it was made. The other names change with it: their
//! bytes, and the time of the inode's last change even if only a name was added or removed. A file with one name is
//! not listed here (most files are such), so if it gets a second one, the first has to be searched for.

use super::watched::rebase;
use crate::folder::beneath::InodeId;
use crate::folder::look::There;
use farshore_engine::path::RelPath;
use farshore_engine::record::Facts;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The names of every file in the folder that has more than one.
#[derive(Debug, Default)]
pub(super) struct Links {
    files: HashMap<InodeId, File>,
    ids: BTreeMap<RelPath, InodeId>,
}

/// What follows from a look at a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Met {
    /// Other names that need a look too.
    pub(super) others: Vec<RelPath>,
    /// The file has got this name, and has names that are not known; they may be in the folder.
    pub(super) strangers: bool,
}

#[derive(Debug)]
struct File {
    told: Facts,
    names: BTreeSet<RelPath>,
}

impl Links {
    /// `path` was looked at and is told as `there`.
    #[must_use]
    pub(super) fn met(&mut self, path: &RelPath, there: &There) -> Met {
        if there.links < 2 || there.is_directory() {
            return Met { others: self.gone(path), strangers: false };
        }
        let mut others = Vec::new();
        let is_new = self.ids.get(path) != Some(&there.id);
        if is_new {
            others = self.gone(path);
            self.ids.insert(path.clone(), there.id);
        }
        let told = there.seen.facts;
        let file = self.files.entry(there.id).or_insert_with(|| File { told, names: BTreeSet::new() });
        file.names.insert(path.clone());
        if file.told != told {
            file.told = told;
            others.extend(file.names.iter().filter(|name| *name != path).cloned());
        }
        Met { others, strangers: is_new && (file.names.len() as u64) < there.links }
    }

    /// Nothing of what stood at `path` or below stands there now. Gives the other names that need a look.
    #[must_use]
    pub(super) fn gone(&mut self, path: &RelPath) -> Vec<RelPath> {
        let mut others = Vec::new();
        for path in self.below(path) {
            let Some(id) = self.ids.remove(&path) else { continue };
            let Some(file) = self.files.get_mut(&id) else { continue };
            file.names.remove(&path);
            others.extend(file.names.iter().cloned());
            if file.names.is_empty() {
                self.files.remove(&id);
            }
        }
        others
    }

    /// `from` has the name `to` now, with everything below it.
    pub(super) fn rename(&mut self, from: &RelPath, to: &RelPath) {
        for path in self.below(from) {
            let Some(id) = self.ids.remove(&path) else { continue };
            let Some(file) = self.files.get_mut(&id) else { continue };
            file.names.remove(&path);
            if let Some(path) = rebase(&path, from, to) {
                file.names.insert(path.clone());
                self.ids.insert(path, id);
            } else if file.names.is_empty() {
                self.files.remove(&id);
            }
        }
    }

    fn below(&self, path: &RelPath) -> Vec<RelPath> {
        let below = self.ids.range(path.clone()..).take_while(|(below, _)| path.is_prefix_of(below));
        below.map(|(path, _)| path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_engine::event::{Seen, SeenKind};
    use farshore_engine::record::FileTime;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn file(inode: u64, links: u64, changed: i64) -> There {
        let facts = Facts { inode, changed: FileTime { seconds: changed, nanos: 0 } };
        let kind = SeenKind::File { size_bytes: 1 };
        let seen = Seen { kind, mode: 0o644, modified: FileTime::default(), xattrs: None, facts };
        There { seen, id: InodeId { device: 1, inode }, links }
    }

    #[test]
    fn a_change_under_one_name_is_a_change_under_all_but_only_once() {
        let mut links = Links::default();
        assert!(links.met(&path("a"), &file(7, 2, 1)).strangers, "its other name may be anywhere");
        assert_eq!(links.met(&path("b"), &file(7, 2, 1)), Met::default());
        assert_eq!(links.met(&path("a"), &file(7, 2, 2)), Met { others: vec![path("b")], strangers: false });
        assert_eq!(links.met(&path("b"), &file(7, 2, 2)), Met::default(), "no look leads to a look for ever");
    }

    #[test]
    fn the_last_name_hears_that_the_others_are_gone() {
        let mut links = Links::default();
        for name in ["a", "d/b", "d/c"] {
            assert!(links.met(&path(name), &file(7, 3, 1)).others.is_empty());
        }
        let others = links.gone(&path("d"));
        assert!(others.contains(&path("a")));
        assert_eq!(links.met(&path("a"), &file(7, 1, 2)), Met::default());
        assert!(links.files.is_empty() && links.ids.is_empty(), "nothing is kept for a file with one name");
    }

    #[test]
    fn names_follow_a_renamed_directory() {
        let mut links = Links::default();
        assert!(links.met(&path("a"), &file(7, 2, 1)).others.is_empty());
        assert!(links.met(&path("d/b"), &file(7, 2, 1)).others.is_empty());
        links.rename(&path("d"), &path("e/f"));
        assert_eq!(links.met(&path("a"), &file(7, 2, 2)).others, [path("e/f/b")]);
    }
}
