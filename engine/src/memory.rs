//! What a device with a folder of its own remembers of a share, for its next life: what the tree says, what was removed, and
//! what the folder held when that was last looked at. What differs then was changed while the device did not run.
//!
//! It may be lost, or older than what the folder holds: nothing is lost by that. Files that two devices then take for their
//! own are compared, and are one file if they hold the same.

use crate::behind::Held;
use crate::engine::Engine;
use crate::fault::PeerFault;
use crate::follow::MAX_ENTRIES;
use crate::ids::{Ino, PeerId};
use crate::output::Output;
use crate::path::RelPath;
use crate::record::{Facts, Kind, Record};
use crate::replica::NOBODY;
use crate::tree::{Known, Origin};
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
    entries: Vec<(RelPath, Record, Revision)>,
    removed: Vec<(RelPath, Revision)>,
    held: Vec<(RelPath, InFolder)>,
}

impl Memory {
    /// What the tree says, what was removed, and what the folder held; each in the order of the paths, and each path once.
    ///
    /// # Errors
    /// The rule of a listing that they break; [`PeerFault::OutOfPlace`] if they are in another order, or if the folder held
    /// what the tree says where that says nothing.
    pub fn new(
        entries: Vec<(RelPath, Record, Revision)>,
        removed: Vec<(RelPath, Revision)>,
        held: Vec<(RelPath, InFolder)>,
    ) -> Result<Memory, PeerFault> {
        if entries.len().max(removed.len()).max(held.len()) as u64 > MAX_ENTRIES {
            return Err(PeerFault::TooManyEntries(MAX_ENTRIES));
        }
        let in_order = entries.is_sorted_by(|(before, ..), (after, ..)| before < after)
            && removed.is_sorted_by(|(before, _), (after, _)| before < after)
            && held.is_sorted_by(|(before, _), (after, _)| before < after);
        if !in_order {
            return Err(PeerFault::OutOfPlace);
        }
        let known: BTreeMap<&RelPath, &Record> = entries.iter().map(|(path, record, _)| (path, record)).collect();
        for (path, record, revision) in &entries {
            record.check()?;
            revision.check()?;
            let Some((parents, _)) = path.split_last() else { continue };
            match known.get(&RelPath::new(parents.to_vec())?).map(|record| &record.kind) {
                Some(Kind::Dir) => {}
                Some(Kind::File { .. } | Kind::Symlink { .. }) => return Err(PeerFault::BelowFile),
                None => return Err(PeerFault::NoParent),
            }
        }
        for (path, in_folder) in &held {
            in_folder.record.as_ref().map_or(Ok(()), Record::check)?;
            if in_folder.record.is_none() && !known.contains_key(path) {
                return Err(PeerFault::OutOfPlace);
            }
        }
        if removed.iter().any(|(path, _)| path.is_root() || known.contains_key(path)) {
            return Err(PeerFault::OutOfPlace);
        }
        Ok(Memory { entries, removed, held })
    }

    /// Every path of the tree, with what it says of it.
    #[must_use]
    pub fn entries(&self) -> &[(RelPath, Record, Revision)] {
        &self.entries
    }

    /// Every path where something was removed.
    #[must_use]
    pub fn removed(&self) -> &[(RelPath, Revision)] {
        &self.removed
    }

    /// Every path where the folder held something.
    #[must_use]
    pub fn held(&self) -> &[(RelPath, InFolder)] {
        &self.held
    }
}

impl View<'_> {
    /// What is to be remembered now of a share that is kept in a folder. `None` while a peer lists it: then it is not known
    /// which part of that has been told.
    #[must_use]
    pub fn memory(&self) -> Option<Memory> {
        let engine = self.engine;
        if engine.peers.values().any(|peer| peer.listing.is_some()) {
            return None;
        }
        let mut memory = Memory::default();
        let mut open = vec![(RelPath::ROOT, Ino::ROOT)];
        while let Some((path, ino)) = open.pop() {
            let Some(node) = engine.tree.get(ino) else { continue };
            if let Origin::Local(facts) = node.origin {
                memory.held.push((path.clone(), InFolder { record: None, dot: node.revision.dot, facts }));
            }
            let inner: Vec<_> = engine.tree.children_by_name(ino).collect();
            // The last one is the next.
            open.extend(inner.into_iter().rev().filter_map(|(name, ino)| Some((path.join(name.clone()).ok()?, ino))));
            memory.entries.push((path, node.record.clone(), node.revision.clone()));
        }
        let behind = engine.replica.folder.behind.iter().map(|(path, held)| {
            let Held { record, dot, facts, mark: _ } = held.clone();
            (path.clone(), InFolder { record: Some(record), dot, facts })
        });
        memory.held.extend(behind);
        memory.held.sort_by(|(one, _), (other, _)| one.cmp(other));
        memory.removed = engine.replica.tombstones.all().map(|(path, at)| (path.clone(), at.clone())).collect();
        Some(memory)
    }

    /// A number that is another one when there may be something else to be remembered.
    #[must_use]
    pub fn memory_version(&self) -> u64 {
        let replica = &self.engine.replica;
        self.engine.share.position().seq + replica.folder.changes
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
        let Memory { entries, removed, held } = memory;
        entries.iter().for_each(|(_, _, revision)| self.clock.note(&revision.version));
        removed.iter().for_each(|(_, revision)| self.clock.note(&revision.version));
        let mut held: BTreeMap<RelPath, InFolder> = held.into_iter().collect();
        let mark = self.last_mark;
        for (path, record, revision) in entries {
            let in_folder = held.get(&path).filter(|in_folder| in_folder.record.is_none());
            let origin = in_folder.map_or(Origin::Peer(NOBODY), |in_folder| Origin::Local(in_folder.facts));
            if in_folder.is_some() {
                held.remove(&path);
            }
            // More than there may be by now has no place.
            if self.put(&path, Known { record, revision, origin, mark }, false, out).is_ok() {
                self.replica.folder.note_due(path);
            }
        }
        for (path, in_folder) in held {
            let InFolder { record: Some(record), dot, facts } = in_folder else { continue };
            self.replica.folder.behind.insert(path.clone(), Held { record, dot, facts, mark });
            self.replica.folder.note_due(path);
        }
        // Whoever follows has not heard of them from this life: they are told in the listing that ends with this event.
        let event = self.share.begin_after_memory();
        for (path, revision) in removed {
            self.replica.tombstones.insert(path, revision, event);
        }
        self.replica.has_orphans = true;
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
