//! What our own folder holds and is to lose because of what a peer told. As long as that peer has more to tell, it may want these bytes
//! elsewhere.

use crate::ids::PeerId;
use crate::path::RelPath;
use crate::replica::NOBODY;
use std::collections::{BTreeMap, BTreeSet};

/// The paths, and who told of each. [`NOBODY`] stands for an earlier life.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    by_path: BTreeMap<RelPath, PeerId>,
    by_teller: BTreeMap<PeerId, BTreeSet<RelPath>>,
}

impl Unsettled {
    pub(crate) fn insert(&mut self, path: RelPath, by: PeerId) {
        if let Some(before) = self.by_path.insert(path.clone(), by) {
            self.forget(before, &path);
        }
        self.by_teller.entry(by).or_default().insert(path);
    }

    pub(crate) fn contains(&self, path: &RelPath) -> bool {
        self.by_path.contains_key(path)
    }

    pub(crate) fn remove(&mut self, path: &RelPath) -> Option<PeerId> {
        let by = self.by_path.remove(path)?;
        self.forget(by, path);
        Some(by)
    }

    /// Takes off what this peer told, and what was told in an earlier life.
    pub(crate) fn take_all_of(&mut self, peer: PeerId) -> BTreeSet<RelPath> {
        let mut settled = self.by_teller.remove(&peer).unwrap_or_default();
        settled.append(&mut self.by_teller.remove(&NOBODY).unwrap_or_default());
        settled.iter().for_each(|path| _ = self.by_path.remove(path));
        settled
    }

    /// Who has told of any.
    pub(crate) fn tellers(&self) -> impl Iterator<Item = PeerId> {
        self.by_teller.keys().copied()
    }

    fn forget(&mut self, by: PeerId, path: &RelPath) {
        if let Some(paths) = self.by_teller.get_mut(&by) {
            paths.remove(path);
            if paths.is_empty() {
                self.by_teller.remove(&by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_path_is_settled_by_whoever_told_of_it_last_and_what_is_older_by_anybody() {
        let (ann, bob) = (PeerId([1; 32]), PeerId([2; 32]));
        let mut unsettled = Unsettled::default();
        unsettled.insert(path("a"), ann);
        unsettled.insert(path("a"), bob);
        unsettled.insert(path("b"), ann);
        unsettled.insert(path("c"), NOBODY);
        assert_eq!(unsettled.take_all_of(ann), BTreeSet::from([path("b"), path("c")]));
        assert!(unsettled.contains(&path("a")) && !unsettled.contains(&path("b")));
        assert_eq!(unsettled.tellers().collect::<Vec<_>>(), [bob]);
        unsettled.insert(path("d"), bob);
        assert_eq!((unsettled.remove(&path("d")), unsettled.remove(&path("d"))), (Some(bob), None));
        assert_eq!(unsettled.take_all_of(bob), BTreeSet::from([path("a")]));
        assert!(unsettled.by_path.is_empty() && unsettled.by_teller.is_empty());
    }
}
