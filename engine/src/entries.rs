//! Entries of a tree, as they are remembered: in the order of their paths, each with its name and the place of its directory
//! among them.
//!
//! So they need one piece of memory, which goes back as a whole. With a path of its own each of a million entries would need
//! more than the tree itself, in pieces that lie between those of the tree.

use crate::fault::PeerFault;
use crate::follow::MAX_ENTRIES;
use crate::path::{Name, RelPath};
use crate::record::{Kind, Record};
use crate::version::Revision;
use core::cmp::Ordering;
use core::fmt;

/// Entries of a tree in the order of their paths, so that each directory is before what it holds. The root may be among them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Entries {
    root: Option<(Record, Revision)>,
    items: Vec<Item>,
    /// The entries that lead to the last one, from the top down, and that one.
    last: Vec<Index>,
}

/// A place among the entries that are not the root. There are at most [`MAX_ENTRIES`].
pub(crate) type Index = u32;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The directory that it is in; `None` for the root.
    pub(crate) parent: Option<Index>,
    pub(crate) name: Name,
    pub(crate) record: Record,
    pub(crate) revision: Revision,
}

impl Entries {
    /// These entries, in the order of their paths.
    ///
    /// # Errors
    /// As [`Entries::push`].
    pub fn of(all: impl IntoIterator<Item = (RelPath, Record, Revision)>) -> Result<Entries, PeerFault> {
        let mut entries = Entries::default();
        all.into_iter().try_for_each(|(path, record, revision)| entries.push(&path, record, revision))?;
        Ok(entries)
    }

    /// Adds the entry that comes next in the order of paths.
    ///
    /// # Errors
    /// The rule of a listing that it breaks; [`PeerFault::OutOfPlace`] if it is not behind those that are there, and
    /// [`PeerFault::NoParent`] if its directory is not among them.
    pub fn push(&mut self, path: &RelPath, record: Record, revision: Revision) -> Result<(), PeerFault> {
        if self.len() as u64 >= MAX_ENTRIES {
            return Err(PeerFault::TooManyEntries(MAX_ENTRIES));
        }
        record.check()?;
        revision.check()?;
        let Some((parents, name)) = path.split_last() else {
            if record.kind != Kind::Dir {
                return Err(PeerFault::Root);
            }
            return self.set_root(record, revision);
        };
        let last = self.last.iter().map(|at| &self.items[*at as usize]);
        for (name, item) in parents.iter().zip(last.clone()) {
            match name.cmp(&item.name) {
                Ordering::Less => return Err(PeerFault::OutOfPlace),
                Ordering::Equal if item.record.kind == Kind::Dir => {}
                Ordering::Equal | Ordering::Greater => return Err(PeerFault::NoParent),
            }
        }
        if self.last.len() < parents.len() {
            return Err(PeerFault::NoParent);
        }
        if last.clone().nth(parents.len()).is_some_and(|before| before.name >= *name) {
            return Err(PeerFault::OutOfPlace);
        }
        self.push_below(parents.len(), name.clone(), record, revision);
        Ok(())
    }

    /// The root, which comes before all others.
    pub(crate) fn set_root(&mut self, record: Record, revision: Revision) -> Result<(), PeerFault> {
        if !self.items.is_empty() || self.root.is_some() {
            return Err(PeerFault::OutOfPlace);
        }
        self.root = Some((record, revision));
        Ok(())
    }

    /// Adds what comes next, in the directory that is `depth` names below the root on the way to the last one.
    pub(crate) fn push_below(&mut self, depth: usize, name: Name, record: Record, revision: Revision) -> Index {
        self.last.truncate(depth);
        let parent = self.last.last().copied();
        let index = self.items.len() as Index;
        self.last.push(index);
        self.items.push(Item { parent, name, record, revision });
        index
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len() + usize::from(self.root.is_some())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every path with what is there and which state of it that is, in the order of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (RelPath, &Record, &Revision)> {
        let root = self.root.iter().map(|(record, revision)| (RelPath::ROOT, record, revision));
        let item = |item| (self.path_of(item), &item.record, &item.revision);
        root.chain(self.items.iter().map(item))
    }

    /// Which state of each path it is.
    pub(crate) fn revisions(&self) -> impl Iterator<Item = &Revision> {
        self.root.iter().map(|(_, revision)| revision).chain(self.items.iter().map(|item| &item.revision))
    }

    /// Every path with its place, in the order of the paths.
    pub(crate) fn places(&self) -> impl Iterator<Item = (RelPath, Option<Index>)> {
        let root = self.root.iter().map(|_| None);
        let places = root.chain((0..self.items.len()).map(|at| Some(at as Index)));
        places.map(|place| (self.path_at(place), place))
    }

    /// The path at a place; `None` is that of the root.
    pub(crate) fn path_at(&self, place: Option<Index>) -> RelPath {
        place.map_or(RelPath::ROOT, |at| self.path_of(&self.items[at as usize]))
    }

    /// The path of the last one, and whether something may be in it; `None` if there is none but the root.
    pub(crate) fn last(&self) -> Option<(RelPath, bool)> {
        let last = self.items.last()?;
        Some((self.path_of(last), last.record.kind == Kind::Dir))
    }

    pub(crate) fn into_parts(self) -> (Option<(Record, Revision)>, Vec<Item>) {
        (self.root, self.items)
    }

    fn path_of(&self, item: &Item) -> RelPath {
        let above = core::iter::successors(Some(item), |item| Some(&self.items[item.parent? as usize]));
        let mut names: Vec<Name> = above.map(|item| item.name.clone()).collect();
        names.reverse();
        // It was a path when it was added.
        RelPath::new(names).unwrap_or_default()
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
