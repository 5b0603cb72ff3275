//! Paths where something was, and was removed: kept so that what is older does not come back, until everybody has heard of it.

use crate::engine::Engine;
use crate::event::Position;
use crate::ids::PeerId;
use crate::journal::Noted;
use crate::path::{Name, RelPath};
use crate::version::Revision;
use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};

/// The most that are kept. Beyond that the oldest go: a peer that was away since then may bring back what it has.
const MAX_TOMBSTONES: usize = 1 << 20;

/// So many are kept although everybody who is known in this life has heard of them: somebody who is not may come back.
const KEPT_ANYWAY: usize = 1 << 16;

/// What was removed, by path and by when.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    by_path: BTreeMap<RelPath, Tombstone>,
    /// By the numbers of the events that told of them.
    by_event: BTreeMap<u64, BTreeSet<RelPath>>,
    /// The last event that each follower is known to have applied.
    heard: BTreeMap<PeerId, u64>,
    /// Where there is another one, or none any more because something is there again. That one was forgotten is not said: it
    /// does no harm to remember it.
    pub(crate) noted: Noted,
}

#[derive(Debug)]
struct Tombstone {
    revision: Revision,
    event: u64,
}

impl Tombstones {
    pub(crate) fn get(&self, path: &[Name]) -> Option<&Revision> {
        // Only a path has a tombstone, and a path is no longer than paths may be.
        let path = RelPath::new(path.to_vec()).ok()?;
        Some(&self.by_path.get(&path)?.revision)
    }

    /// Something was removed, as event number `event` tells.
    pub(crate) fn insert(&mut self, path: RelPath, revision: Revision, event: u64) {
        self.remove(&path);
        self.noted.note(&path);
        self.by_event.entry(event).or_default().insert(path.clone());
        self.by_path.insert(path, Tombstone { revision, event });
        while self.by_path.len() > MAX_TOMBSTONES {
            let Some((_, oldest)) = self.by_event.pop_first() else { break };
            oldest.iter().for_each(|path| _ = self.by_path.remove(path));
        }
    }

    /// A follower does not come back.
    pub(crate) fn forget_follower(&mut self, peer: PeerId) {
        self.heard.remove(&peer);
    }

    /// Something is there again.
    pub(crate) fn remove(&mut self, path: &RelPath) {
        let Some(Tombstone { event, .. }) = self.by_path.remove(path) else { return };
        self.noted.note(path);
        if let Some(paths) = self.by_event.get_mut(&event) {
            paths.remove(path);
            if paths.is_empty() {
                self.by_event.remove(&event);
            }
        }
    }

    /// Those behind `path`, or all, in the order of their paths.
    pub(crate) fn behind(&self, path: Option<&RelPath>) -> impl Iterator<Item = (&RelPath, &Revision)> {
        let begin = path.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.by_path.range::<RelPath, _>((begin, Bound::Unbounded));
        behind.map(|(path, tombstone)| (path, &tombstone.revision))
    }

    /// The one before `path` in the order of paths, or the last of all: what was in a directory comes before the directory.
    pub(crate) fn before(&self, path: Option<&RelPath>) -> Option<(&RelPath, &Revision)> {
        let end = path.map_or(Bound::Unbounded, Bound::Excluded);
        let (path, tombstone) = self.by_path.range::<RelPath, _>((Bound::Unbounded, end)).next_back()?;
        Some((path, &tombstone.revision))
    }

    /// For [`Engine::check`].
    pub(crate) fn check(&self) {
        let by_event: usize = self.by_event.values().map(BTreeSet::len).sum();
        assert_eq!(
            by_event,
            self.by_path.len(),
            "a tombstone is known by its path and not by its event, or the reverse"
        );
        for path in self.by_event.values().flatten() {
            assert!(self.by_path.contains_key(path), "the tombstone of {path} is nowhere");
        }
    }
}

impl Engine {
    /// A follower says where it stands: it has applied everything up to there. What every peer has heard of is forgotten.
    pub(crate) fn note_heard(&mut self, peer: PeerId, position: Position) {
        if !self.config.keeps_folder {
            return;
        }
        let ours = self.share.position();
        let heard = if position.epoch == ours.epoch { position.seq.min(ours.seq) } else { 0 };
        let tombstones = &mut self.replica.tombstones;
        tombstones.heard.insert(peer, heard);
        let all = self.peers.keys().all(|peer| tombstones.heard.contains_key(peer));
        let least = tombstones.heard.values().copied().min().filter(|_| all).unwrap_or(0);
        while tombstones.by_path.len() > KEPT_ANYWAY
            && let Some(entry) = tombstones.by_event.first_entry().filter(|entry| *entry.key() <= least)
        {
            entry.remove().iter().for_each(|path| _ = tombstones.by_path.remove(path));
        }
    }
}
