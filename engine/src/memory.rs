//! What a device with a folder of its own remembers of a share, for its next life: what the tree says, what was removed, and
//! what the folder held when that was last looked at. What differs then was changed while the device did not run.
//!
//! It may be lost, or older than what the folder holds: nothing is lost by that. Files that two devices then take for their
//! own are compared, and are one file if they hold the same.

use crate::behind::Held;
use crate::engine::Engine;
use crate::entries::{Entries, Index};
use crate::fault::PeerFault;
use crate::follow::MAX_ENTRIES;
use crate::ids::{Ino, PeerId};
use crate::journal::Standing;
use crate::output::Output;
use crate::path::RelPath;
use crate::record::{Facts, Record};
use crate::remembered::Collected;
use crate::replica::NOBODY;
use crate::tree::{Node, Origin};
use crate::version::{Dot, Revision};
use crate::view::View;
use std::collections::BTreeMap;

/// What the folder held at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFolder {
    /// What it was; `None` if it was what the tree says.
    pub record: Option<Record>,
    /// The change that had made it so.
    pub dot: Dot,
    /// What the file system said of it.
    pub facts: Facts,
}

/// What a device remembers of a share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    entries: Entries,
    removed: Vec<(RelPath, Revision)>,
    /// The entries that the folder held as the tree says, in their order; `None` is the root.
    as_said: Vec<(Option<Index>, Dot, Facts)>,
    /// Where it held something else.
    otherwise: Vec<(RelPath, InFolder)>,
    standings: BTreeMap<PeerId, Standing>,
}

impl Memory {
    /// What the tree says, what was removed, and what the folder held; each in the order of the paths, and each path once. And
    /// where the device stood in the events of its peers.
    ///
    /// # Errors
    /// The rule of a listing that they break; [`PeerFault::OutOfPlace`] if they are in another order, or if the folder held
    /// what the tree says where that says nothing; [`PeerFault::OutOfRange`] if nobody can stand there.
    pub fn new(
        entries: Entries,
        removed: Vec<(RelPath, Revision)>,
        held: impl IntoIterator<Item = (RelPath, InFolder)>,
        standings: BTreeMap<PeerId, Standing>,
    ) -> Result<Memory, PeerFault> {
        let (mut as_said, mut otherwise) = (Vec::new(), Vec::new());
        let mut known = entries.places().peekable();
        let mut last = None;
        for (path, in_folder) in held {
            if last.as_ref().is_some_and(|last| *last >= path) {
                return Err(PeerFault::OutOfPlace);
            }
            last = Some(path.clone());
            match &in_folder.record {
                None => {
                    while known.next_if(|(known, _)| *known < path).is_some() {}
                    let (_, place) = known.next_if(|(known, _)| *known == path).ok_or(PeerFault::OutOfPlace)?;
                    as_said.push((place, in_folder.dot, in_folder.facts));
                }
                Some(record) => {
                    record.check()?;
                    otherwise.push((path, in_folder));
                }
            }
        }
        drop(known);
        let mut known = entries.places().peekable();
        for (path, _) in &removed {
            while known.next_if(|(known, _)| known < path).is_some() {}
            if path.is_root() || known.peek().is_some_and(|(known, _)| known == path) {
                return Err(PeerFault::OutOfPlace);
            }
        }
        drop(known);
        if otherwise.len().max(removed.len()) as u64 > MAX_ENTRIES {
            return Err(PeerFault::TooManyEntries(MAX_ENTRIES));
        }
        if !removed.is_sorted_by(|(before, _), (after, _)| before < after) {
            return Err(PeerFault::OutOfPlace);
        }
        standings.values().try_for_each(Standing::check)?;
        Ok(Memory { entries, removed, as_said, otherwise, standings })
    }

    /// Every path of the tree, with what it says of it.
    #[must_use]
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Every path where something was removed.
    #[must_use]
    pub fn removed(&self) -> &[(RelPath, Revision)] {
        &self.removed
    }

    /// Where the device stood in the events of its peers.
    #[must_use]
    pub fn standings(&self) -> &BTreeMap<PeerId, Standing> {
        &self.standings
    }

    /// The same of a device that may have told more than it remembers: peers do not say again what they heard from it, unless
    /// they list everything.
    #[must_use]
    pub fn without_standings(self) -> Memory {
        Memory { standings: BTreeMap::new(), ..self }
    }

    /// Every path where the folder held something, in their order.
    pub fn held(&self) -> impl Iterator<Item = (RelPath, InFolder)> {
        let as_said = self.as_said.iter().map(|(place, dot, facts)| {
            (self.entries.path_at(*place), InFolder { record: None, dot: *dot, facts: *facts })
        });
        let (mut as_said, mut otherwise) = (as_said.peekable(), self.otherwise.iter().cloned().peekable());
        core::iter::from_fn(move || match (as_said.peek(), otherwise.peek()) {
            (Some((path, _)), Some((other, _))) if other < path => otherwise.next(),
            (Some(_), _) => as_said.next(),
            (None, _) => otherwise.next(),
        })
    }
}

/// What becomes a [`Memory`], collected in portions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembering {
    /// Which version of what is known it is.
    version: u64,
    memory: Memory,
    /// All of the tree is in it.
    has_tree: bool,
}

impl Remembering {
    /// Which version of what is known it is, as [`View::memory_version`] says.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl View<'_> {
    /// What is to be remembered now of a share that is kept in a folder. `None` while a peer lists it: then it is not known
    /// which part of that has been told.
    #[must_use]
    pub fn memory(&self) -> Option<Memory> {
        let mut part = self.begin_memory()?;
        loop {
            part = match self.collect_memory(part, usize::MAX) {
                Collected::Part(part) => part,
                Collected::Whole(memory) => return Some(memory),
                Collected::Overtaken => return None,
            }
        }
    }

    /// The beginning of what [`View::memory`] does at once, with nothing in it.
    #[must_use]
    pub fn begin_memory(&self) -> Option<Remembering> {
        if self.engine.peers.values().any(|peer| peer.listing.is_some()) {
            return None;
        }
        Some(Remembering { version: self.memory_version(), memory: Memory::default(), has_tree: false })
    }

    /// Looks at `most` more of what is to be remembered. If anything of it changed since that was begun, it is worth nothing.
    #[must_use]
    pub fn collect_memory(&self, mut part: Remembering, most: usize) -> Collected<Remembering, Memory> {
        let engine = self.engine;
        if part.version != self.memory_version() || engine.peers.values().any(|peer| peer.listing.is_some()) {
            return Collected::Overtaken;
        }
        let Remembering { memory: Memory { entries, removed, as_said, otherwise, standings }, has_tree, .. } =
            &mut part;
        if !*has_tree {
            let mut note = |place: Option<Index>, node: &Node| {
                if let Origin::Local(facts) = node.origin {
                    as_said.push((place, node.revision.dot, facts));
                }
            };
            if entries.is_empty()
                && let Some(root) = engine.tree.get(Ino::ROOT)
            {
                // It comes first.
                let _: Result<(), PeerFault> = entries.set_root(root.record.clone(), root.revision.clone());
                note(None, root);
            }
            let (at, is_dir) = entries.last().unwrap_or((RelPath::ROOT, true));
            let mut walk = engine.tree.walk_behind(&at, is_dir);
            let mut taken = 0;
            while taken < most
                && let Some((depth, name, node)) = walk.next()
            {
                taken += 1;
                let place = entries.push_below(depth, name.clone(), node.record.clone(), node.revision.clone());
                note(Some(place), node);
            }
            *has_tree = taken < most;
            return Collected::Part(part);
        }
        let (before, last) = (removed.len(), removed.last().map(|(path, _)| path.clone()));
        let more = engine.replica.tombstones.behind(last.as_ref());
        removed.extend(more.take(most).map(|(path, revision)| (path.clone(), revision.clone())));
        if removed.len() - before == most {
            return Collected::Part(part);
        }
        let (before, last) = (otherwise.len(), otherwise.last().map(|(path, _)| path.clone()));
        let more = engine.replica.folder.behind.after(last.as_ref());
        otherwise.extend(more.take(most).map(|(path, held)| {
            let Held { record, dot, facts, mark: _ } = held.clone();
            (path.clone(), InFolder { record: Some(record), dot, facts })
        }));
        if otherwise.len() - before == most {
            return Collected::Part(part);
        }
        // At the end: events that said nothing new are applied without anything else changing.
        *standings = self.standings();
        Collected::Whole(part.memory)
    }
}

impl Engine {
    /// What was known in an earlier life is so until the folder and the peers say more.
    pub(crate) fn on_recalled(&mut self, memory: Memory, out: &mut Vec<Output>) {
        assert!(
            self.peers.is_empty() && self.tree.len() == 1,
            "something is remembered, and something else is known already"
        );
        if self.stopping || !self.config.keeps_folder {
            return;
        }
        let Memory { entries, removed, as_said, otherwise, standings } = memory;
        entries.revisions().for_each(|revision| self.clock.note(&revision.version));
        removed.iter().for_each(|(_, revision)| self.clock.note(&revision.version));
        let mark = self.last_mark;
        let mut as_said = as_said.into_iter().peekable();
        let origin_of = |place: Option<Index>| {
            let said = as_said.next_if(|(said, ..)| *said == place);
            said.map_or(Origin::Peer(NOBODY), |(_, _, facts)| Origin::Local(facts))
        };
        // More than there may be by now has no place.
        _ = self.put_all(entries, origin_of, out);
        for (path, in_folder) in otherwise {
            let InFolder { record: Some(record), dot, facts } = in_folder else { continue };
            self.replica.folder.unsettled.insert(path.clone(), NOBODY);
            self.replica.folder.behind.insert(path.clone(), Held { record, dot, facts, mark });
            self.replica.folder.note_due(path);
        }
        // Elsewhere the folder is as the tree says, and has nothing that has to be put elsewhere.
        let is_new = |node: &Node| matches!(node.origin, Origin::Peer(_)) || !node.revision.others.is_empty();
        let new: Vec<Ino> = self.tree.iter().filter(|(_, node)| is_new(node)).map(|(ino, _)| ino).collect();
        new.into_iter().for_each(|ino| self.note_new(ino));
        // Whoever follows has not heard of them from this life: they are told in the listing that ends with this event.
        let event = self.share.begin_after_memory();
        for (path, revision) in removed {
            self.replica.tombstones.insert(path, revision, event);
        }
        self.replica.has_orphans = true;
        let from = |(peer, standing): (&PeerId, &Standing)| (*peer, (standing.position, standing.settled));
        self.remembered = standings.iter().map(from).collect();
        self.replica.note_written(standings);
    }

    /// A peer is there, and nobody else is known to have what was remembered.
    pub(crate) fn adopt_orphans(&mut self, peer: PeerId) {
        if !core::mem::take(&mut self.replica.has_orphans) {
            return;
        }
        let orphans: Vec<Ino> =
            self.tree.iter().filter(|(_, node)| node.origin == Origin::Peer(NOBODY)).map(|(ino, _)| ino).collect();
        for ino in orphans {
            let Some(author) = self.tree.get(ino).map(|node| node.revision.dot.author) else { continue };
            let source = match self.source_by(author) {
                Origin::Peer(known) if known != NOBODY => known,
                Origin::Peer(_) | Origin::Local(_) => peer,
            };
            let content = self.tree.get_mut(ino).and_then(|node| {
                node.origin = Origin::Peer(source);
                node.content
            });
            if let Some(content) = content.and_then(|content| self.contents.get_mut(&content)) {
                content.peer = source;
            }
            self.prefetch_if_pinned(ino);
        }
    }
}
