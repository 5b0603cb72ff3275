//! The tree of the share: which names there are, and what is under them.
//!
//! Entries are keyed by [`Ino`] and know their place; paths are derived. An entry that has lost its name stays as long
//! as the kernel or an open handle knows it, and not longer.

use crate::handles::OpenCount;
use crate::ids::{ContentId, Ino, PeerId};
use crate::names::{Names, NamesBehind};
use crate::output::{Attr, AttrKind};
use crate::pages::{InoSet, Pages};
use crate::path::{Name, PATH_MAX_BYTES, RelPath};
use crate::record::{Facts, FileTime, Kind, Record};
use crate::version::{Dot, Revision};
use crate::xattrs::Xattrs;

/// The first number for entries other than the root: cookies below it mean `.` and `..`.
const FIRST_INO: u64 = 16;

/// Who told us of an entry, and so who has its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Our own folder.
    Local(Facts),
    /// A peer.
    Peer(PeerId),
}

/// What is known of what stands at a path.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) record: Record,
    pub(crate) revision: Revision,
    pub(crate) origin: Origin,
    /// The listing or scan that named it last: what was not named by a whole one is gone.
    pub(crate) mark: u64,
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Node {
    /// The directory and the name in it; `None` for the root and for what lost its name.
    pub(crate) place: Option<(Ino, Name)>,
    pub(crate) record: Record,
    /// Which state of its path that is.
    pub(crate) revision: Revision,
    pub(crate) origin: Origin,
    /// What a directory holds; `None` for everything else.
    entries: Option<Box<Entries>>,
    /// How many of its lookups the kernel has not forgotten.
    pub(crate) lookups: u64,
    pub(crate) opens: OpenCount,
    /// Whoever has it open reads it past the engine, until the last of them releases it: it cannot get other bytes.
    pub(crate) is_bound: bool,
    /// It was edited while it was read past the engine. It may be again, by an owner who writes it bit by bit, so whoever
    /// opens it from now on asks the engine and sees that.
    pub(crate) is_lively: bool,
    /// The listing or scan that named it last: what was not named by a whole one is gone.
    pub(crate) mark: u64,
    /// Its bytes, as far as they are here, if anybody has asked for any.
    pub(crate) content: Option<ContentId>,
}

#[derive(Debug, Default)]
struct Entries {
    by_name: Names,
    /// The same entries in the order of their numbers, which is the order of listings: it does not change when the
    /// directory does.
    by_ino: InoSet,
    subdirs: u32,
}

/// All entries.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Pages<Node>,
    last_ino: u64,
    moved_dirs: u64,
}

/// A walk through the tree in the order of paths, at its place in each directory from the top down. See [`Tree::walk_behind`].
pub(crate) struct Walk<'a> {
    tree: &'a Tree,
    /// The directories that the walk is in, from the root down, each with what comes next in it.
    open: Vec<NamesBehind<'a>>,
}

impl<'a> Walk<'a> {
    /// What is in `node`, which was met last, is passed over.
    pub(crate) fn pass_over(&mut self, node: &Node) {
        if node.is_dir() {
            self.open.pop();
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    /// How many directories are above it below the root, its name, and itself.
    type Item = (usize, &'a Name, &'a Node);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((name, ino)) = self.open.last_mut()?.next() else {
                self.open.pop();
                continue;
            };
            let depth = self.open.len() - 1;
            // What is in a directory is in the tree.
            let node = self.tree.get(ino)?;
            self.open.extend(node.entries.as_ref().map(|entries| entries.by_name.iter_behind(None)));
            return Some((depth, name, node));
        }
    }
}

impl Node {
    fn new(known: Known, place: Option<(Ino, Name)>) -> Node {
        let Known { record, revision, origin, mark } = known;
        let entries = matches!(record.kind, Kind::Dir).then(Box::default);
        let opens = OpenCount::default();
        let (is_bound, is_lively) = (false, false);
        Node { place, record, revision, origin, entries, lookups: 0, opens, is_bound, is_lively, mark, content: None }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.entries.is_some()
    }

    fn is_linked(&self, ino: Ino) -> bool {
        self.place.is_some() || ino == Ino::ROOT
    }

    /// Whether the kernel may remember anything of it.
    pub(crate) fn is_known_to_kernel(&self, ino: Ino) -> bool {
        self.lookups > 0 || ino == Ino::ROOT
    }

    pub(crate) fn attr(&self, ino: Ino) -> Attr {
        let (kind, links) = match (&self.record.kind, &self.entries) {
            (Kind::File { .. }, _) => (AttrKind::File, 1),
            (Kind::Symlink { .. }, _) => (AttrKind::Symlink, 1),
            (Kind::Dir, entries) => (AttrKind::Dir, 2 + entries.as_ref().map_or(0, |entries| entries.subdirs)),
        };
        Attr {
            ino,
            kind,
            size_bytes: self.record.size_bytes(),
            mode: self.record.mode,
            modified: self.record.modified,
            links: if self.is_linked(ino) { links } else { 0 },
        }
    }
}

impl Tree {
    /// A tree with nothing but its root, which a change has made.
    pub(crate) fn new(origin: Origin, dot: Dot) -> Tree {
        let (modified, xattrs) = (FileTime::default(), Xattrs::default());
        let record = Record { kind: Kind::Dir, mode: 0o755, modified, xattrs };
        let root = Node::new(Known { record, revision: dot.into(), origin, mark: 0 }, None);
        let mut nodes = Pages::default();
        nodes.insert(Ino::ROOT, root);
        Tree { nodes, last_ino: FIRST_INO - 1, moved_dirs: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.nodes.len()
    }

    pub(crate) fn get(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(ino)
    }

    pub(crate) fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(ino)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ino, &Node)> {
        self.nodes.iter()
    }

    /// The entry called `name` in the directory `parent`.
    pub(crate) fn child(&self, parent: Ino, name: &[u8]) -> Option<Ino> {
        self.entries(parent)?.by_name.get(name)
    }

    /// The entry at `path`.
    pub(crate) fn resolve(&self, path: &[Name]) -> Option<Ino> {
        path.iter().try_fold(Ino::ROOT, |parent, name| self.child(parent, name.as_bytes()))
    }

    /// Where an entry is; `None` if it, or a directory above it, has lost its name.
    pub(crate) fn path_of(&self, ino: Ino) -> Option<RelPath> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let (parent, name) = self.get(at)?.place.as_ref()?;
            names.push(name.clone());
            at = *parent;
        }
        names.reverse();
        RelPath::new(names).ok()
    }

    /// The entries of a directory with a number above `after`, in the order of their numbers.
    pub(crate) fn children_after(&self, dir: Ino, after: Ino) -> impl Iterator<Item = (Ino, &Node)> {
        self.entries(dir)
            .into_iter()
            .flat_map(move |entries| entries.by_ino.above(after))
            .filter_map(|ino| Some((ino, self.get(ino)?)))
    }

    /// The entries of a directory, in the order of their names.
    pub(crate) fn children_by_name(&self, dir: Ino) -> impl Iterator<Item = (&Name, Ino)> {
        self.entries(dir).into_iter().flat_map(|entries| entries.by_name.iter())
    }

    /// The first entry behind `path` in the order of listings: directories before what they hold, and names in order.
    /// `path` itself need not exist any more. What lies below it is passed over unless `descend`.
    pub(crate) fn next_in_order(&self, path: &RelPath, descend: bool) -> Option<Ino> {
        let below = self.resolve(path.names()).filter(|_| descend);
        if let Some(first) = below.and_then(|ino| self.entries(ino)?.by_name.first()) {
            return Some(first);
        }
        (1..=path.names().len()).rev().find_map(|depth| {
            let (name, parents) = path.names()[..depth].split_last()?;
            self.entries(self.resolve(parents)?)?.by_name.behind(name)
        })
    }

    /// All entries behind `path` in the order of paths. `path` itself need not exist any more. What lies below it is passed over
    /// unless `descend`.
    pub(crate) fn walk_behind(&self, path: &RelPath, descend: bool) -> Walk<'_> {
        let behind = |depth: usize| {
            let (name, parents) = path.names()[..depth].split_last()?;
            Some(self.entries(self.resolve(parents)?)?.by_name.iter_behind(Some(name)))
        };
        let mut open: Vec<_> = (1..=path.names().len()).map_while(behind).collect();
        if descend && open.len() == path.names().len() {
            let below = self.resolve(path.names()).and_then(|ino| self.entries(ino));
            open.extend(below.map(|entries| entries.by_name.iter_behind(None)));
        }
        Walk { tree: self, open }
    }

    /// How many directories have been given another place.
    pub(crate) fn moved_dirs(&self) -> u64 {
        self.moved_dirs
    }

    /// The entry behind `ino` in the order of a walk through the tree: what a directory holds comes right behind it, in the
    /// order of its listing.
    pub(crate) fn next_in_walk(&self, ino: Ino) -> Option<Ino> {
        if let Some(first) = self.entries(ino).and_then(|entries| entries.by_ino.iter().next()) {
            return Some(first);
        }
        let mut at = ino;
        loop {
            let dir = self.dir_of(at)?;
            if let Some(next) = self.entries(dir)?.by_ino.above(at).next() {
                return Some(next);
            }
            at = dir;
        }
    }

    /// The entries before `ino` in the listing of its directory, the nearest first.
    pub(crate) fn siblings_before(&self, ino: Ino) -> impl Iterator<Item = Ino> {
        let entries = self.dir_of(ino).and_then(|dir| self.entries(dir));
        entries.into_iter().flat_map(move |entries| entries.by_ino.below(ino))
    }

    /// The directory that an entry is in, if it has a name.
    pub(crate) fn dir_of(&self, ino: Ino) -> Option<Ino> {
        self.get(ino)?.place.as_ref().map(|(dir, _)| *dir)
    }

    /// Adds an entry. The name must be free and the parent a directory.
    pub(crate) fn insert(&mut self, parent: Ino, name: Name, known: Known) -> Ino {
        self.last_ino += 1;
        let ino = Ino(self.last_ino);
        let node = Node::new(known, Some((parent, name.clone())));
        let is_dir = node.is_dir();
        self.nodes.insert(ino, node);
        self.link(parent, name, ino, is_dir);
        ino
    }

    /// Takes an entry and everything below it out of the tree. Returns them all, the top one first; those that the
    /// kernel or a handle knows stay until they are forgotten.
    pub(crate) fn unlink(&mut self, ino: Ino) -> Vec<Ino> {
        self.detach(ino);
        let gone = self.within(ino);
        for at in &gone {
            if let Some(node) = self.get_mut(*at) {
                node.place = None;
                if let Some(entries) = &mut node.entries {
                    **entries = Entries::default();
                }
            }
        }
        gone
    }

    /// An entry and everything below it, each directory before what it holds.
    pub(crate) fn within(&self, ino: Ino) -> Vec<Ino> {
        let mut found = vec![ino];
        let mut next = 0;
        while let Some(at) = found.get(next).copied() {
            next += 1;
            found.extend(self.entries(at).into_iter().flat_map(|entries| entries.by_ino.iter()));
        }
        found
    }

    /// Gives an entry another place. The name must be free, the parent a directory, and not below the entry.
    pub(crate) fn rename(&mut self, ino: Ino, parent: Ino, name: Name) {
        self.detach(ino);
        let Some(node) = self.get_mut(ino) else { return };
        node.place = Some((parent, name.clone()));
        let is_dir = node.is_dir();
        self.moved_dirs += u64::from(is_dir);
        self.link(parent, name, ino, is_dir);
    }

    /// The entries below `ino` whose paths are too long to be said, without what lies below those.
    pub(crate) fn beyond_path_max(&self, ino: Ino) -> Vec<Ino> {
        let (mut found, mut open) = (Vec::new(), vec![(ino, self.path_of(ino).map_or(0, |path| path.len_bytes()))]);
        while let Some((dir, len)) = open.pop() {
            for (name, child) in self.children_by_name(dir) {
                let len = len + 1 + name.as_bytes().len();
                if len > PATH_MAX_BYTES { found.push(child) } else { open.push((child, len)) }
            }
        }
        found
    }

    /// Drops an entry that has no name and that nobody knows any more. Returns what it held.
    pub(crate) fn reap(&mut self, ino: Ino) -> Option<Node> {
        let node = self.get(ino)?;
        if node.is_linked(ino) || node.lookups > 0 || node.opens.count() > 0 {
            return None;
        }
        self.nodes.remove(ino)
    }

    /// Whether `ino` is `above` or lies below it.
    pub(crate) fn is_within(&self, ino: Ino, above: Ino) -> bool {
        let mut at = Some(ino);
        while let Some(here) = at {
            if here == above {
                return true;
            }
            at = self.get(here).and_then(|node| node.place.as_ref()).map(|(parent, _)| *parent);
        }
        false
    }

    /// Says what about the tree contradicts itself.
    pub(crate) fn check(&self) {
        let mut linked = 1;
        for (ino, node) in self.iter() {
            assert_eq!(node.is_dir(), matches!(node.record.kind, Kind::Dir), "entry {ino} is and is not a directory");
            if let Some((parent, name)) = &node.place {
                assert_eq!(self.child(*parent, name.as_bytes()), Some(ino), "entry {ino} is not where it says it is");
                assert!(self.path_of(ino).is_some(), "entry {ino} has a name, but no path");
            } else if ino != Ino::ROOT {
                let known = node.lookups > 0 || node.opens.count() > 0;
                assert!(known, "entry {ino} has no name, and nobody knows it");
            }
            let Some(entries) = &node.entries else { continue };
            linked += entries.by_name.iter().count() as u64;
            let numbers: InoSet = entries.by_name.iter().map(|(_, child)| child).collect();
            assert_eq!(numbers, entries.by_ino, "directory {ino} has two opinions of what it holds");
            let subdirs = numbers.iter().filter(|child| self.get(*child).is_some_and(Node::is_dir)).count();
            assert_eq!(subdirs, entries.subdirs as usize, "directory {ino} miscounts its directories");
        }
        let placed = self.iter().filter(|(ino, node)| node.is_linked(*ino)).count() as u64;
        assert_eq!(linked, placed, "an entry is in a directory but has no place, or the other way round");
    }

    fn entries(&self, dir: Ino) -> Option<&Entries> {
        self.get(dir)?.entries.as_deref()
    }

    fn link(&mut self, parent: Ino, name: Name, ino: Ino, is_dir: bool) {
        let Some(entries) = self.get_mut(parent).and_then(|node| node.entries.as_deref_mut()) else {
            panic!("entry {parent} is not a directory, but something was put into it");
        };
        let before = entries.by_name.insert(name, ino);
        assert!(before.is_none(), "a name in directory {parent} was given twice");
        entries.by_ino.insert(ino);
        entries.subdirs += u32::from(is_dir);
    }

    fn detach(&mut self, ino: Ino) {
        let Some(node) = self.get(ino) else { return };
        let is_dir = node.is_dir();
        let Some((parent, name)) = node.place.clone() else { return };
        if let Some(entries) = self.get_mut(parent).and_then(|node| node.entries.as_deref_mut()) {
            entries.by_name.remove(&name);
            entries.by_ino.remove(ino);
            entries.subdirs -= u32::from(is_dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Stamp;
    use crate::version::DeviceTag;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn record(kind: Kind) -> Record {
        Record { kind, mode: 0o644, modified: FileTime::default(), xattrs: Xattrs::default() }
    }

    fn known(kind: Kind) -> Known {
        let origin = Origin::Local(Facts::default());
        Known { record: record(kind), revision: Revision::default(), origin, mark: 0 }
    }

    fn file() -> Known {
        known(Kind::File { size_bytes: 1, stamp: Stamp(1) })
    }

    fn tree() -> (Tree, Ino, Ino) {
        let dot = Dot { author: DeviceTag(1), counter: 1 };
        let mut tree = Tree::new(Origin::Local(Facts::default()), dot);
        let dir = tree.insert(Ino::ROOT, name("d"), known(Kind::Dir));
        let leaf = tree.insert(dir, name("f"), file());
        tree.check();
        (tree, dir, leaf)
    }

    #[test]
    fn paths_are_derived_and_follow_a_rename() {
        let (mut tree, dir, leaf) = tree();
        tree.rename(dir, Ino::ROOT, name("e"));
        tree.check();
        assert_eq!(tree.path_of(leaf).unwrap().to_bytes(), b"e/f");
        assert_eq!(tree.resolve(RelPath::parse(b"e/f").unwrap().names()), Some(leaf));
        assert!(tree.is_within(leaf, dir) && !tree.is_within(dir, leaf));
    }

    #[test]
    fn what_loses_its_name_stays_until_nobody_knows_it() {
        let (mut tree, dir, leaf) = tree();
        tree.get_mut(leaf).unwrap().lookups = 1;
        assert_eq!(tree.unlink(dir), [dir, leaf]);
        assert!(tree.reap(dir).is_some());
        assert!(tree.reap(leaf).is_none(), "the kernel still knows it");
        assert_eq!(tree.get(leaf).unwrap().attr(leaf).links, 0);
        tree.get_mut(leaf).unwrap().lookups = 0;
        assert!(tree.reap(leaf).is_some());
        tree.check();
        assert_eq!(tree.len(), 1);
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Node>() <= 216, "{} bytes are paid for every file of a share", size_of::<Node>());
    }

    #[test]
    fn numbers_are_never_reused() {
        let (mut tree, _, leaf) = tree();
        tree.unlink(leaf);
        tree.reap(leaf);
        let again = tree.insert(Ino::ROOT, name("f"), file());
        assert!(again > leaf);
    }

    #[test]
    fn the_order_of_listings_has_parents_first_and_survives_removals() {
        let (mut tree, ..) = tree();
        tree.insert(Ino::ROOT, name("z"), file());
        tree.insert(Ino::ROOT, name("a"), file());
        let walk = |tree: &Tree| {
            let mut at = RelPath::ROOT;
            let mut seen = Vec::new();
            while let Some(ino) = tree.next_in_order(&at, true) {
                at = tree.path_of(ino).unwrap();
                seen.push(at.to_string());
            }
            seen
        };
        assert_eq!(walk(&tree), ["a", "d", "d/f", "z"]);
        let here = RelPath::parse(b"d/f").unwrap();
        tree.unlink(tree.resolve(&here.names()[..1]).unwrap());
        assert_eq!(tree.path_of(tree.next_in_order(&here, true).unwrap()).unwrap().to_string(), "z");
    }
}
