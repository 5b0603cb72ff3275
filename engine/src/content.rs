//! One version of one file's bytes, as far as they are here, and what is under way of the rest.

use crate::bitmap::ChunkBitmap;
use crate::chunk::{FrameSet, chunk_range, chunks_touched};
use crate::download::DownloadState;
use crate::identity::ContentIdentity;
use crate::ids::{ContentId, EffectId, Ino, PeerId, ReqId};
use crate::input::{StoreError, Wanted};
use crate::kept::{Base, Opening};
use crate::path::RelPath;
use crate::record::{FileTime, Stamp};
use crate::time::Time;
use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

/// One version of one file's bytes.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) ino: Ino,
    /// Who names the bytes.
    pub(crate) owner: PeerId,
    /// Who is asked for them first.
    pub(crate) peer: PeerId,
    /// Who said that it has not got them.
    pub(crate) lacking: BTreeSet<PeerId>,
    pub(crate) stamp: Stamp,
    pub(crate) size_bytes: u64,
    pub(crate) modified: FileTime,
    /// Where the peer has them: follows the tree while the file has a name, and then stays.
    pub(crate) path: RelPath,
    /// The chunks that are in the store. `None` only for an empty file.
    pub(crate) bitmap: Option<ChunkBitmap>,
    /// What is known of what the store holds of it from an earlier life.
    pub(crate) opening: Opening,
    /// The chunks that the store holds from an earlier life, and that are not verified yet. None of them is in the bitmap.
    pub(crate) claimed: Option<ChunkBitmap>,
    /// What the store holds of another version.
    pub(crate) base: Option<Base>,
    /// What of it counts as stored, in bytes.
    pub(crate) charged_bytes: u64,
    /// Its place among those that could go; `None` while it is open.
    pub(crate) used: Option<u64>,
    /// The chunks that are on their way. None of them is in the bitmap.
    pub(crate) chunks: BTreeMap<u64, ChunkFetch>,
    /// The reads and whole-file fetches that wait for bytes of it.
    pub(crate) waiters: BTreeSet<ReqId>,
    /// Every chunk before this one is in the store or on its way.
    pub(crate) untouched_from: u64,
    /// How the file as a whole is doing.
    pub(crate) download: DownloadState,
}

/// One chunk on its way.
#[derive(Debug)]
pub(crate) struct ChunkFetch {
    /// The frames that are in memory, verified.
    pub(crate) arrived: FrameSet,
    pub(crate) phase: Phase,
    /// How this chunk is doing: its retries are its own.
    pub(crate) download: DownloadState,
}

/// Where a chunk stands on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody waits for it; it is fetched when there is room for it.
    Queued,
    /// Asked for. One or two requests: from the first frame that is needed on, and what lies before it.
    Fetching(Vec<(EffectId, FrameSet)>),
    /// The last attempt failed; the next one is at this time.
    Backoff(Time),
    /// The store reads it, and compares it with the hash that was written down.
    Verifying(EffectId),
    /// The owner is asked whether it is the same in another version, with others.
    Comparing(EffectId),
    /// The peer is not connected; it is asked for when the peer is back.
    Parked,
    /// All frames are in memory and are being written.
    Storing(EffectId),
    /// All frames are in memory, and somebody needs them; the store refused them and is asked again at this time.
    StoreBackoff(Time, StoreError),
}

impl ChunkFetch {
    pub(crate) fn new(chunk_bytes: u64, max_retries: u32, now: Time) -> ChunkFetch {
        ChunkFetch {
            arrived: FrameSet::EMPTY,
            phase: Phase::Queued,
            download: DownloadState::new(chunk_bytes, max_retries, now),
        }
    }
}

impl Content {
    /// Which bytes it is.
    pub(crate) fn identity(&self) -> ContentIdentity {
        let Content { owner, stamp, size_bytes, modified, .. } = *self;
        ContentIdentity { owner, stamp, size_bytes, modified }
    }

    /// What to ask the owner for.
    pub(crate) fn wanted(&self, id: ContentId) -> Wanted {
        let Content { owner, stamp, size_bytes, modified, .. } = *self;
        Wanted { content: id, path: self.path.clone(), owner, stamp, size_bytes, modified }
    }

    /// Whether the store holds chunk number `chunk` from an earlier life, unverified.
    pub(crate) fn claims(&self, chunk: u64) -> bool {
        self.claimed.as_ref().is_some_and(|claimed| claimed.has(chunk))
    }

    /// Every chunk that the store holds of this version, verified or not; `None` if there are none.
    pub(crate) fn stored(&self) -> Option<ChunkBitmap> {
        let mut stored = self.bitmap.clone()?;
        self.claimed.iter().flat_map(ChunkBitmap::present).for_each(|chunk| stored.set(chunk));
        (stored.have() > 0).then_some(stored)
    }

    /// What the store needs for it, in bytes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let of = |bitmap: &Option<ChunkBitmap>| bitmap.as_ref().map_or(0, ChunkBitmap::have_bytes);
        of(&self.bitmap) + of(&self.claimed) + self.base.as_ref().map_or(0, |base| base.stored_bytes)
    }

    /// Whether chunk number `chunk` is in the store.
    pub(crate) fn has(&self, chunk: u64) -> bool {
        self.bitmap.as_ref().is_some_and(|bitmap| bitmap.has(chunk))
    }

    /// Whether every byte is in the store.
    pub(crate) fn is_complete(&self) -> bool {
        self.bitmap.as_ref().is_none_or(ChunkBitmap::is_complete)
    }

    /// Whether every byte of `range` is in the store or in memory. The range lies inside the file.
    pub(crate) fn is_here(&self, range: &Range<u64>) -> bool {
        let Some(bitmap) = &self.bitmap else { return true };
        if bitmap.has_range(range.start, range.end - range.start) {
            return true;
        }
        chunks_touched(range).all(|chunk| {
            let arrived = self.chunks.get(&chunk).map_or(FrameSet::EMPTY, |fetch| fetch.arrived);
            bitmap.has(chunk) || arrived.contains(FrameSet::touched(chunk, range))
        })
    }

    /// Whether a chunk of `range` waits for room in the store.
    pub(crate) fn is_stopped_by_full_disk(&self, range: &Range<u64>) -> bool {
        let stopped = |phase: &Phase| matches!(phase, Phase::StoreBackoff(_, StoreError::NoSpace));
        let touched = chunks_touched(range);
        self.chunks.range(touched).any(|(_, fetch)| stopped(&fetch.phase))
    }

    /// The chunks of which `range` needs frames that are not here, each with those frames.
    pub(crate) fn missing(&self, range: &Range<u64>) -> Vec<(u64, FrameSet)> {
        chunks_touched(range)
            .filter(|chunk| !self.has(*chunk))
            .filter_map(|chunk| {
                let arrived = self.chunks.get(&chunk).map_or(FrameSet::EMPTY, |fetch| fetch.arrived);
                let needed = FrameSet::touched(chunk, range).minus(arrived);
                (!needed.is_empty()).then_some((chunk, needed))
            })
            .collect()
    }

    /// The first chunk that is neither in the store nor on its way.
    pub(crate) fn next_untouched(&mut self) -> Option<u64> {
        let bitmap = self.bitmap.as_ref()?;
        loop {
            let chunk = bitmap.next_missing(self.untouched_from)?;
            self.untouched_from = chunk;
            if !self.chunks.contains_key(&chunk) {
                return Some(chunk);
            }
            self.untouched_from += 1;
        }
    }

    /// Whether all that was asked for of it was not to be had, and nothing of that is here: it is tried again later.
    pub(crate) fn rests(&self) -> bool {
        let rests = |fetch: &ChunkFetch| matches!(fetch.phase, Phase::Backoff(_)) && fetch.arrived.is_empty();
        !self.chunks.is_empty() && self.chunks.values().all(rests)
    }

    /// Takes a chunk off those that are on their way. An empty map that once held something keeps room for eleven
    /// chunks, which is more than all the rest of a small file costs: it is given back.
    pub(crate) fn take_chunk(&mut self, chunk: u64) -> Option<ChunkFetch> {
        let taken = self.chunks.remove(&chunk);
        // It may have been given up.
        self.untouched_from = self.untouched_from.min(chunk);
        if self.chunks.is_empty() {
            self.chunks = BTreeMap::new();
        }
        taken
    }

    /// All frames of chunk number `chunk`.
    pub(crate) fn all_frames(&self, chunk: u64) -> FrameSet {
        let bytes = chunk_range(chunk, self.size_bytes);
        FrameSet::all(bytes.end - bytes.start)
    }
}
