//! A peer's tree as it was once known, kept for a start at which the peer cannot be reached.
//!
//! It is a listing that was heard earlier: entries, and where in the peer's events it was that they were so. Whoever begins
//! with one shows it at once and follows from there: if the peer still has its events since then, only those are told;
//! otherwise it lists anew, and what it does not name goes.

use crate::engine::Engine;
use crate::entries::{Entries, Index, Item};
use crate::event::Position;
use crate::fault::PeerFault;
use crate::ids::{Ino, PeerId};
use crate::output::Output;
use crate::path::RelPath;
use crate::tree::{Known, Origin};
use crate::view::View;

/// A peer's tree, and where in its events it was that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    position: Position,
    settled: u64,
    entries: Entries,
}

impl Remembered {
    /// A tree of these entries. `settled` is the last event that may be told for the second time, as in
    /// [`crate::TreeUpdate::End`].
    ///
    /// # Errors
    /// The rule of a listing that they break.
    pub fn new(position: Position, settled: u64, entries: Entries) -> Result<Remembered, PeerFault> {
        if position.epoch == 0 {
            return Err(PeerFault::OutOfRange("epoch"));
        }
        if settled < position.seq {
            return Err(PeerFault::OutOfRange("settled"));
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

    /// Every path with its record and which state of it that is.
    #[must_use]
    pub fn entries(&self) -> &Entries {
        &self.entries
    }
}

/// What becomes a [`Remembered`], collected in portions while the peer goes on telling: like a listing by the peer itself, it
/// begins at one of its events and is whole with all that happened until its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    peer: PeerId,
    position: Position,
    /// How many directories had been moved: what moves meanwhile may never be passed.
    moved_dirs: u64,
    entries: Entries,
}

/// How far something has come that is collected in portions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collected<Part, Whole> {
    /// There may be more.
    Part(Part),
    /// That is all.
    Whole(Whole),
    /// It is worth nothing: something happened that it would have to begin anew for.
    Overtaken,
}

impl View<'_> {
    /// What is known of a peer's tree now, to be remembered. `None` while that is nothing, or not whole: before the first
    /// listing, during each, and after the peer broke a rule.
    #[must_use]
    pub fn snapshot(&self, peer: PeerId) -> Option<Remembered> {
        match self.collect(self.begin_snapshot(peer)?, usize::MAX) {
            Collected::Whole(remembered) => Some(remembered),
            Collected::Part(_) | Collected::Overtaken => None,
        }
    }

    /// The beginning of what [`View::snapshot`] does at once, with nothing but the root in it.
    #[must_use]
    pub fn begin_snapshot(&self, peer: PeerId) -> Option<Snapshot> {
        let tree = &self.engine.tree;
        let position = self.whole_position(peer)?;
        let root = tree.get(Ino::ROOT)?;
        let mut entries = Entries::default();
        entries.set_root(root.record.clone(), root.revision.clone()).ok()?;
        Some(Snapshot { peer, position, moved_dirs: tree.moved_dirs(), entries })
    }

    /// Looks at `most` more entries for a snapshot. Things may have happened since it was begun.
    #[must_use]
    pub fn collect(&self, mut snapshot: Snapshot, most: usize) -> Collected<Snapshot, Remembered> {
        let tree = &self.engine.tree;
        let Snapshot { peer, position, moved_dirs, ref mut entries } = snapshot;
        let Some(now) = self.whole_position(peer).filter(|now| now.epoch == position.epoch) else {
            return Collected::Overtaken;
        };
        if tree.moved_dirs() != moved_dirs {
            return Collected::Overtaken;
        }
        let (at, is_dir) = entries.last().unwrap_or((RelPath::ROOT, true));
        let mut walk = tree.walk_behind(&at, is_dir);
        for _ in 0..most {
            let Some((depth, name, node)) = walk.next() else {
                let settled = self.engine.peers.get(&peer).map_or(0, |peer| peer.settled).max(now.seq);
                return Collected::Whole(Remembered { position, settled, entries: snapshot.entries });
            };
            if node.origin == Origin::Peer(peer) {
                entries.push_below(depth, name.clone(), node.record.clone(), node.revision.clone());
            } else {
                walk.pass_over(node);
            }
        }
        Collected::Part(snapshot)
    }

    /// Where in a peer's events the tree is; `None` while it is not whole.
    fn whole_position(&self, peer: PeerId) -> Option<Position> {
        let from = self.engine.peers.get(&peer)?;
        (from.position.epoch != 0 && from.listing.is_none()).then_some(from.position)
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
        if self.put_all(entries, |_| Origin::Peer(peer), out).is_err() {
            // More than there may be by now. Nothing of it is shown, and the peer lists anew.
            let top: Vec<Ino> = self.tree.children_after(Ino::ROOT, Ino::ROOT).map(|(ino, _)| ino).collect();
            return top.into_iter().for_each(|ino| self.remove(ino, out));
        }
        self.remembered.insert(peer, (position, settled));
    }

    /// Puts entries into the tree, each directory before what it holds: where that is need not be looked for. Who has each is
    /// asked in their order; the root has no place among the others.
    pub(crate) fn put_all(
        &mut self,
        entries: Entries,
        mut origin_of: impl FnMut(Option<Index>) -> Origin,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerFault> {
        let mark = self.last_mark;
        let mut known = |place, record, revision| Known { record, revision, origin: origin_of(place), mark };
        let (root, items) = entries.into_parts();
        if let Some((record, revision)) = root {
            self.update(Ino::ROOT, known(None, record, revision), out);
        }
        let mut inos: Vec<Ino> = Vec::with_capacity(items.len());
        for Item { parent, name, record, revision } in items {
            let parent = parent.map_or(Ino::ROOT, |parent| inos[parent as usize]);
            let known = known(Some(inos.len() as Index), record, revision);
            inos.push(self.put_in(parent, name, known, false, out)?);
        }
        Ok(())
    }
}
