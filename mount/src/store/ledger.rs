//! What a store remembers of the chunks of one content: which are there, what they hash to, and how sure that is.

use farshore_engine::bitmap::ChunkBitmap;
use farshore_engine::chunk::{CHUNK_SIZE, chunk_range};
use farshore_engine::path::RelPath;
use farshore_engine::sidecar::{Claimed, Sidecar, SidecarError};
use farshore_engine::{ContentIdentity, Resumed, Trust};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// So many changes have to be unlisted before a second sidecar is written for them: a chunk alone is not worth a file.
const SOON_CHANGES: u64 = 2;

/// The chunks of one content. Takes memory for those that are there, however large the whole is.
#[derive(Debug)]
pub(super) struct Ledger {
    identity: ContentIdentity,
    path: RelPath,
    /// The chunks that are there, each with its hash.
    hashes: BTreeMap<u64, u64>,
    /// Those of them that were not looked at since a stop that was not clean.
    unverified: BTreeSet<u64>,
    /// Chunks that somebody says are there, and no hash was written down.
    claimed: BTreeSet<u64>,
    /// Chunks that were written since the bytes were last made durable.
    unsynced: BTreeSet<u64>,
    /// Those of them that the system may have let go of, so that they have to be written again: making them durable has
    /// failed, or nobody knows whether it has.
    adrift: BTreeSet<u64>,
    /// Counts changes of what a sidecar would say.
    revision: u64,
    /// The revision that was last saved.
    saved: u64,
    /// The revision that stands in the second sidecar, which is written between two saves; `None` if there is none.
    soon: Option<u64>,
    /// Before this moment no other second sidecar is written.
    soon_from: Option<Instant>,
}

/// What is to be saved of a ledger.
pub(super) struct Draft {
    /// To be told to [`Ledger::saved`].
    pub(super) revision: u64,
    /// To be told to [`Ledger::synced`].
    pub(super) unsynced: BTreeSet<u64>,
    pub(super) sidecar: Sidecar,
}

impl Ledger {
    /// Of a content of which nothing is there.
    pub(super) fn new(identity: &ContentIdentity, path: &RelPath) -> Ledger {
        Ledger {
            identity: *identity,
            path: path.clone(),
            hashes: BTreeMap::new(),
            unverified: BTreeSet::new(),
            claimed: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            adrift: BTreeSet::new(),
            revision: 0,
            saved: 0,
            soon: None,
            soon_from: None,
        }
    }

    /// Of what a sidecar says. If it `is_doubtful`, the last stop was not clean.
    pub(super) fn from_sidecar(sidecar: &Sidecar, is_doubtful: bool) -> Ledger {
        let mut ledger = Ledger::new(sidecar.identity(), sidecar.path());
        ledger.hashes = sidecar.chunks().collect();
        if is_doubtful || sidecar.is_unverified() {
            ledger.unverified = ledger.hashes.keys().copied().collect();
        }
        ledger.saved = 1;
        // If nothing says so yet, the next sidecar has to say that it was not verified.
        ledger.revision = if is_doubtful && !sidecar.is_unverified() { 2 } else { 1 };
        ledger
    }

    /// Of chunks that a sidecar without hashes claims.
    pub(super) fn from_claim(identity: &ContentIdentity, path: &RelPath, claimed: &Claimed) -> Ledger {
        Ledger { claimed: claimed.chunks().collect(), revision: 1, saved: 1, ..Ledger::new(identity, path) }
    }

    /// Adds what a second sidecar says, which was there after a stop that was not clean. Nothing says that its bytes are
    /// durable, even if they have the right hash when they are read: so they are written again before the next save.
    pub(super) fn add_soon(&mut self, sidecar: &Sidecar) {
        for (chunk, hash) in sidecar.chunks() {
            self.claimed.remove(&chunk);
            if self.hashes.insert(chunk, hash) != Some(hash) {
                self.unsynced.insert(chunk);
                self.adrift.insert(chunk);
                self.revision += 1;
            }
            self.unverified.insert(chunk);
        }
        self.soon = Some(self.revision);
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.identity.size_bytes
    }

    pub(super) fn identity(&self) -> &ContentIdentity {
        &self.identity
    }

    /// What to tell whoever goes on with it; `None` for an empty file, which has no chunks.
    pub(super) fn resumed(&self) -> Option<Resumed> {
        let mut chunks = ChunkBitmap::with_chunk_size(self.size_bytes(), CHUNK_SIZE).ok()?;
        self.hashes.keys().chain(&self.claimed).for_each(|chunk| chunks.set(*chunk));
        let trust = match (self.claimed.is_empty(), self.unverified.is_empty()) {
            (false, _) => Trust::Claimed,
            (true, false) => Trust::Hashed,
            (true, true) => Trust::Verified,
        };
        Some(Resumed { chunks, trust })
    }

    /// Where the owner has it.
    pub(super) fn path(&self) -> &RelPath {
        &self.path
    }

    /// The chunks that have a hash.
    pub(super) fn chunks(&self) -> impl Iterator<Item = u64> + '_ {
        self.hashes.keys().copied()
    }

    /// Whether nothing is there.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty() && self.claimed.is_empty()
    }

    pub(super) fn hash_of(&self, chunk: u64) -> Option<u64> {
        self.hashes.get(&chunk).copied()
    }

    /// The chunk is to be written: until [`Ledger::record`] nothing is known of it.
    pub(super) fn forget(&mut self, chunk: u64) {
        self.claimed.remove(&chunk);
        self.unverified.remove(&chunk);
        self.adrift.remove(&chunk);
        if self.hashes.remove(&chunk).is_some() {
            self.revision += 1;
        }
    }

    /// Forgets every chunk that reaches beyond the first `len_bytes`.
    pub(super) fn forget_beyond(&mut self, len_bytes: u64) {
        let size_bytes = self.size_bytes();
        let beyond = |chunk: &&u64| chunk_range(**chunk, size_bytes).end > len_bytes;
        let gone: Vec<u64> = self.hashes.keys().chain(&self.claimed).filter(beyond).copied().collect();
        gone.into_iter().for_each(|chunk| self.forget(chunk));
    }

    /// The chunk was written, and has this hash.
    pub(super) fn record(&mut self, chunk: u64, hash: u64) {
        self.unsynced.insert(chunk);
        self.adrift.remove(&chunk);
        self.confirm(chunk, hash);
    }

    /// The chunk was read, and has this hash.
    pub(super) fn confirm(&mut self, chunk: u64, hash: u64) {
        self.claimed.remove(&chunk);
        let was_unverified = self.unverified.remove(&chunk);
        if self.hashes.insert(chunk, hash) != Some(hash) || was_unverified && self.unverified.is_empty() {
            self.revision += 1;
        }
    }

    pub(super) fn set_path(&mut self, path: &RelPath) {
        if self.path != *path {
            self.path = path.clone();
            self.revision += 1;
        }
    }

    /// Whether a sidecar would say something else than the last one that was saved.
    pub(super) fn is_changed(&self) -> bool {
        self.revision != self.saved && self.size_bytes() > 0
    }

    /// What is to be saved, if anything has changed.
    ///
    /// # Errors
    /// There can be no sidecar of such a content.
    pub(super) fn draft(&self) -> Result<Option<Draft>, SidecarError> {
        if !self.is_changed() {
            return Ok(None);
        }
        let sidecar = self.sidecar()?.with_unverified(!self.unverified.is_empty());
        Ok(Some(Draft { revision: self.revision, unsynced: self.unsynced.clone(), sidecar }))
    }

    fn sidecar(&self) -> Result<Sidecar, SidecarError> {
        let mut bitmap = ChunkBitmap::with_chunk_size(self.size_bytes(), CHUNK_SIZE)?;
        self.hashes.keys().for_each(|chunk| bitmap.set(*chunk));
        let hashes = self.hashes.values().copied().collect();
        Sidecar::new(self.identity, self.path.clone(), bitmap, hashes)
    }

    /// Whether enough has changed, and enough time has passed, for another second sidecar.
    pub(super) fn is_soon_due(&self, now: Instant) -> bool {
        let listed = self.soon.map_or(self.saved, |soon| soon.max(self.saved));
        self.size_bytes() > CHUNK_SIZE
            && self.revision >= listed + SOON_CHANGES
            && self.soon_from.is_none_or(|from| from <= now)
    }

    /// What is to stand in the second sidecar, and which revision that is.
    ///
    /// # Errors
    /// There can be no sidecar of such a content.
    pub(super) fn draft_soon(&self) -> Result<(u64, Sidecar), SidecarError> {
        Ok((self.revision, self.sidecar()?.with_unverified(true)))
    }

    /// The second sidecar lists this revision now.
    pub(super) fn soon_written(&mut self, revision: u64) {
        self.soon = Some(revision);
    }

    /// Before this moment no other second sidecar is to be written.
    pub(super) fn no_soon_before(&mut self, from: Instant) {
        self.soon_from = Some(from);
    }

    /// Whether there is a second sidecar, and everything that it lists is saved.
    pub(super) fn is_soon_saved(&self) -> bool {
        self.soon.is_some_and(|soon| soon <= self.saved)
    }

    /// There is no second sidecar any more.
    pub(super) fn soon_removed(&mut self) {
        self.soon = None;
    }

    /// These chunks were made durable.
    pub(super) fn synced(&mut self, chunks: &BTreeSet<u64>) {
        self.unsynced.retain(|chunk| !chunks.contains(chunk));
    }

    /// Making what was written durable has failed.
    pub(super) fn sync_failed(&mut self) {
        self.adrift = self.unsynced.clone();
    }

    /// The chunks that have to be written again before the next attempt to make them durable.
    pub(super) fn to_rewrite(&self) -> Vec<u64> {
        self.adrift.iter().copied().collect()
    }

    /// This revision was saved.
    pub(super) fn saved(&mut self, revision: u64) {
        self.saved = self.saved.max(revision);
    }

    /// Whether there ever was a sidecar of it.
    pub(super) fn was_saved(&self) -> bool {
        self.saved > 0
    }
}
