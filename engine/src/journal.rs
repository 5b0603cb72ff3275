//! What has changed of what a device remembers of a share since that was last written down: for each path all that is known of it
//! now, and where the device stands in the events of its peers.
//!
//! What is taken at one moment and added to what was remembered at the moment before is what is to be remembered at this one. So a
//! driver that writes it down before anybody is told of it can be killed at any time.

use crate::engine::Engine;
use crate::entries::Entries;
use crate::event::Position;
use crate::fault::PeerFault;
use crate::ids::PeerId;
use crate::memory::{InFolder, Memory};
use crate::merge::Stated;
use crate::path::RelPath;
use crate::tree::Origin;
use crate::view::View;
use std::collections::{BTreeMap, BTreeSet};

/// Where a device stands in the events of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The last event that it has applied.
    pub position: Position,
    /// Events up to this one may be told for the second time, as in [`crate::TreeUpdate::End`].
    pub settled: u64,
}

impl Standing {
    /// # Errors
    /// [`PeerFault::OutOfRange`] if nobody can stand there.
    pub(crate) fn check(&self) -> Result<(), PeerFault> {
        if self.position.epoch == 0 { Err(PeerFault::OutOfRange("epoch")) } else { Ok(()) }
    }
}

/// All that is remembered of one path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AtPath {
    /// What the tree says, or that something was removed; `None` if nothing is known.
    pub stated: Option<Stated>,
    /// What the folder holds; `None` if it holds nothing.
    pub held: Option<InFolder>,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The paths of which something else is known.
    pub paths: BTreeMap<RelPath, AtPath>,
    /// Where the device stands in the events of all its peers, if that has changed.
    pub standings: Option<BTreeMap<PeerId, Standing>>,
}

impl Changes {
    /// Nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.standings.is_none()
    }

    /// What has changed since then, if `later` has changed after this.
    pub fn extend(&mut self, later: Changes) {
        self.paths.extend(later.paths);
        self.standings = later.standings.or(self.standings.take());
    }
}

/// Paths of which something else is known than is written down.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    paths: BTreeSet<RelPath>,
    /// How often a path was noted in all.
    count: u64,
}

impl Noted {
    pub(crate) fn note(&mut self, path: &RelPath) {
        self.count += 1;
        if !self.paths.contains(path) {
            self.paths.insert(path.clone());
        }
    }

    /// What was noted is known to be written down.
    pub(crate) fn clear(&mut self) {
        self.paths.clear();
    }
}

/// What of a share is not written down.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    /// Where the tree says something else.
    pub(crate) tree: Noted,
    /// Where it was last known that the device stands in the events of its peers.
    pub(crate) standings: BTreeMap<PeerId, Standing>,
}

impl View<'_> {
    /// Whether there is anything to be taken by [`Engine::take_changes`].
    #[must_use]
    pub fn has_changes(&self) -> bool {
        let replica = &self.engine.replica;
        let mut noted = self.engine.noted().into_iter();
        noted.any(|noted| !noted.paths.is_empty()) || !self.engine.standings().eq(known(&replica.unwritten.standings))
    }

    /// A number that is another one when something else is known of a path.
    #[must_use]
    pub fn memory_version(&self) -> u64 {
        self.engine.noted().into_iter().map(|noted| noted.count).sum()
    }

    /// Where the device stands in the events of its peers.
    #[must_use]
    pub(crate) fn standings(&self) -> BTreeMap<PeerId, Standing> {
        self.engine.standings().collect()
    }
}

fn known(standings: &BTreeMap<PeerId, Standing>) -> impl Iterator<Item = (PeerId, Standing)> {
    standings.iter().map(|(peer, standing)| (*peer, *standing))
}

impl Engine {
    /// What has changed of what is remembered since this was last asked. It takes as long as what made the changes at most, and
    /// decides nothing: an engine of which nobody asks this does the same.
    pub fn take_changes(&mut self) -> Changes {
        let mut noted = core::mem::take(&mut self.replica.unwritten.tree.paths);
        noted.append(&mut self.replica.tombstones.noted.paths);
        noted.append(&mut self.replica.folder.behind.noted.paths);
        let paths = noted.into_iter().map(|path| self.remembered_at(path)).collect();
        let standings = (!self.standings().eq(known(&self.replica.unwritten.standings))).then(|| {
            let standings: BTreeMap<PeerId, Standing> = self.standings().collect();
            self.replica.unwritten.standings.clone_from(&standings);
            standings
        });
        Changes { paths, standings }
    }

    /// Something else is known of a path of a share that is kept in a folder.
    pub(crate) fn note_unwritten(&mut self, path: &RelPath) {
        if self.config.keeps_folder {
            self.replica.unwritten.tree.note(path);
        }
    }

    fn noted(&self) -> [&Noted; 3] {
        let replica = &self.replica;
        [&replica.unwritten.tree, &replica.tombstones.noted, &replica.folder.behind.noted]
    }

    /// Also of peers that were remembered, and are not followed yet.
    fn standings(&self) -> impl Iterator<Item = (PeerId, Standing)> {
        let (mut followed, mut remembered) = (self.peers.iter().peekable(), self.remembered.iter().peekable());
        let merged = core::iter::from_fn(move || match (followed.peek(), remembered.peek()) {
            (Some((one, _)), Some((other, _))) if other < one => remembered.next().map(|(id, from)| (*id, *from)),
            (Some(_), _) => followed.next().map(|(id, peer)| (*id, (peer.position, peer.settled))),
            (None, _) => remembered.next().map(|(id, from)| (*id, *from)),
        });
        let standing = |(id, (position, settled))| (id, Standing { position, settled });
        merged.map(standing).filter(|(_, standing)| standing.position.epoch != 0)
    }

    fn remembered_at(&self, path: RelPath) -> (RelPath, AtPath) {
        let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
        let held = match (self.replica.folder.behind.get(&path), node) {
            (Some(held), _) => Some(InFolder { record: Some(held.record.clone()), dot: held.dot, facts: held.facts }),
            (None, Some(node)) => match node.origin {
                Origin::Local(facts) => Some(InFolder { record: None, dot: node.revision.dot, facts }),
                Origin::Peer(_) => None,
            },
            (None, None) => None,
        };
        let at = AtPath { stated: self.stated_at(&path), held };
        (path, at)
    }
}

impl Memory {
    /// What is to be remembered after these changes.
    ///
    /// # Errors
    /// As for [`Memory::new`]: then they are not the changes of this.
    pub fn after(self, changes: Changes) -> Result<Memory, PeerFault> {
        let Changes { paths, standings } = changes;
        let standings = standings.unwrap_or_else(|| self.standings().clone());
        let mut entries = Entries::default();
        let mut changed = paths.iter().peekable();
        let there = |at: &AtPath| Some((at.stated.as_ref()?.record.clone()?, at.stated.as_ref()?.revision.clone()));
        for (path, record, revision) in self.entries().iter() {
            while let Some((new, at)) = changed.next_if(|(new, _)| **new < path) {
                there(at).map_or(Ok(()), |(record, revision)| entries.push(new, record, revision))?;
            }
            match changed.next_if(|(new, _)| **new == path) {
                Some((_, at)) => {
                    there(at).map_or(Ok(()), |(record, revision)| entries.push(&path, record, revision))?
                }
                None => entries.push(&path, record.clone(), revision.clone())?,
            }
        }
        for (new, at) in changed {
            there(at).map_or(Ok(()), |(record, revision)| entries.push(new, record, revision))?;
        }
        let is_as_before = |path: &RelPath| !paths.contains_key(path);
        let mut removed: Vec<_> = self.removed().iter().filter(|(path, _)| is_as_before(path)).cloned().collect();
        let mut held: Vec<_> = self.held().filter(|(path, _)| is_as_before(path)).collect();
        for (path, AtPath { stated, held: in_folder }) in paths {
            if let Some(Stated { record: None, revision }) = stated {
                removed.push((path.clone(), revision));
            }
            held.extend(in_folder.map(|in_folder| (path, in_folder)));
        }
        removed.sort_by(|(one, _), (other, _)| one.cmp(other));
        held.sort_by(|(one, _), (other, _)| one.cmp(other));
        Memory::new(entries, removed, held, standings)
    }
}
