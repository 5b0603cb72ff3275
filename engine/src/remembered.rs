//! A peer's tree as it was once known, kept for a start at which the peer cannot be reached.
//!
//! It is a listing that was heard earlier: entries, and where in the peer's events it was that they were so. Whoever begins
//! with one shows it at once and follows from there: if the peer still has its events since then, only those are told;
//! otherwise it lists anew, and what it does not name goes.

use crate::engine::Engine;
use crate::event::Position;
use crate::fault::PeerFault;
use crate::follow::MAX_ENTRIES;
use crate::ids::{Ino, PeerId};
use crate::output::Output;
use crate::path::{Name, RelPath};
use crate::record::{Kind, Record};
use crate::tree::{Known, Origin};
use crate::version::Revision;
use crate::view::View;
use std::collections::BTreeMap;

/// A peer's tree, and where in its events it was that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    position: Position,
    settled: u64,
    entries: Vec<(RelPath, Record, Revision)>,
}

impl Remembered {
    /// A tree of these entries, the root among them or not, in the order of their paths. `settled` is the last event that
    /// may be told for the second time, as in [`crate::TreeUpdate::End`].
    ///
    /// # Errors
    /// The rule of a listing that they break; [`PeerFault::OutOfPlace`] if they are in another order.
    pub fn new(
        position: Position,
        settled: u64,
        entries: Vec<(RelPath, Record, Revision)>,
    ) -> Result<Remembered, PeerFault> {
        if position.epoch == 0 {
            return Err(PeerFault::OutOfRange("epoch"));
        }
        if settled < position.seq {
            return Err(PeerFault::OutOfRange("settled"));
        }
        if entries.len() as u64 > MAX_ENTRIES {
            return Err(PeerFault::TooManyEntries(MAX_ENTRIES));
        }
        if !entries.is_sorted_by(|(before, ..), (after, ..)| before < after) {
            return Err(PeerFault::OutOfPlace);
        }
        // In this order, what a directory holds follows it: those that lead to the last entry are all that is needed.
        let mut open: Vec<&RelPath> = Vec::new();
        for (path, record, revision) in &entries {
            record.check()?;
            revision.check()?;
            while open.pop_if(|above| !above.is_prefix_of(path)).is_some() {}
            let Some((parents, _)) = path.split_last() else {
                if record.kind == Kind::Dir {
                    continue;
                }
                return Err(PeerFault::Root);
            };
            if open.last().map_or(0, |above| above.names().len()) != parents.len() {
                return Err(PeerFault::NoParent);
            }
            if record.kind == Kind::Dir {
                open.push(path);
            }
        }
        Ok(Remembered { position, settled, entries })
    }

    /// Where in the peer's events it was that.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The last event that may be told for the second time.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Every path with its record and which state of it that is, in the order of the paths, so that each directory is before what it holds.
    #[must_use]
    pub fn entries(&self) -> &[(RelPath, Record, Revision)] {
        &self.entries
    }
}

/// What is at a path, and which state of it that is.
type Said = (Record, Revision);

/// What [`Remembered`] is made of, as it can be collected in one go over the tree: each entry with the number of its
/// directory. What takes longer is left to who has the time ([`Snapshot::into_remembered`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    position: Position,
    settled: u64,
    root: Said,
    nodes: Vec<(Ino, Ino, Name, Said)>,
}

impl Snapshot {
    /// Where in the peer's events it is.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The same with paths, in their order.
    #[must_use]
    pub fn into_remembered(self) -> Remembered {
        let mut held: BTreeMap<Ino, BTreeMap<Name, (Ino, Said)>> = BTreeMap::new();
        let count = self.nodes.len();
        for (ino, parent, name, known) in self.nodes {
            held.entry(parent).or_default().insert(name, (ino, known));
        }
        let mut entries = Vec::with_capacity(count + 1);
        let (record, revision) = self.root;
        entries.push((RelPath::ROOT, record, revision));
        let mut open = Vec::from_iter(held.remove(&Ino::ROOT).map(|first| (RelPath::ROOT, first.into_iter())));
        while let Some((dir, rest)) = open.last_mut() {
            let Some((name, (ino, (record, revision)))) = rest.next() else {
                open.pop();
                continue;
            };
            // The tree keeps no path that is too long to be said.
            let Ok(path) = dir.join(name) else { continue };
            entries.push((path.clone(), record, revision));
            if let Some(inner) = held.remove(&ino) {
                open.push((path, inner.into_iter()));
            }
        }
        Remembered { position: self.position, settled: self.settled, entries }
    }
}

impl View<'_> {
    /// What is known of a peer's tree now, to be remembered. `None` while that is nothing, or not whole: before the first
    /// listing, during each, and after the peer broke a rule.
    #[must_use]
    pub fn snapshot(&self, peer: PeerId) -> Option<Snapshot> {
        let from = self.engine.peers.get(&peer)?;
        if from.position.epoch == 0 || from.listing.is_some() {
            return None;
        }
        let tree = &self.engine.tree;
        let nodes = tree.iter().filter(|(_, node)| node.origin == Origin::Peer(peer)).filter_map(|(ino, node)| {
            let (parent, name) = node.place.as_ref()?;
            Some((ino, *parent, name.clone(), (node.record.clone(), node.revision.clone())))
        });
        Some(Snapshot {
            position: from.position,
            settled: from.settled.max(from.position.seq),
            root: tree.get(Ino::ROOT).map(|root| (root.record.clone(), root.revision.clone()))?,
            nodes: nodes.collect(),
        })
    }
}

impl Engine {
    /// What was known of a peer's tree in an earlier life is shown until the peer says more.
    pub(crate) fn on_remembered(&mut self, peer: PeerId, remembered: Remembered, out: &mut Vec<Output>) {
        assert!(!self.peers.contains_key(&peer), "{peer:?} is followed already, and its tree is remembered now");
        if self.stopping {
            return;
        }
        let Remembered { position, settled, entries } = remembered;
        let mark = self.last_mark;
        for (path, record, revision) in entries {
            let known = Known { record, revision, origin: Origin::Peer(peer), mark };
            if self.put(&path, known, false, out).is_err() {
                // More than there may be by now. Nothing of it is shown, and the peer lists anew.
                let top: Vec<Ino> = self.tree.children_after(Ino::ROOT, Ino::ROOT).map(|(ino, _)| ino).collect();
                return top.into_iter().for_each(|ino| self.remove(ino, out));
            }
        }
        self.remembered.insert(peer, (position, settled));
    }
}
