//! A new version of a file that our folder holds: of what both have in common nothing is fetched.
//!
//! The file in the folder is another version like one in the store (see `kept`): the peer's hashes are compared with its chunks,
//! and those that are the same are copied. Somebody may change or remove it meanwhile; then what was compared by then counts,
//! and the rest is fetched.

use crate::bitmap::ChunkBitmap;
use crate::content::Phase;
use crate::engine::Engine;
use crate::ids::{ContentId, PeerId};
use crate::input::FetchError;
use crate::kept::{Base, Opening};
use crate::output::{Output, ServedFile};
use crate::record::Kind;

/// The fewest chunks for which it is worth a round trip to ask for hashes.
const FEWEST_CHUNKS: u64 = 2;

impl Engine {
    /// What our folder holds where a content is to come, if its bytes are others.
    pub(crate) fn older_in_folder(&self, id: ContentId) -> Option<ServedFile> {
        let content = self.contents.get(&id)?;
        let path = self.tree.path_of(content.ino)?;
        let held = self.replica.folder.behind.get(&path)?;
        let Kind::File { size_bytes, stamp } = held.record.kind else { return None };
        let is_another = stamp != content.stamp && size_bytes > 0;
        is_another.then_some(ServedFile { path, size_bytes, modified: held.record.modified, facts: held.facts })
    }

    /// Has a content compared with what our folder holds in its place, unless the store has something to compare it with.
    pub(crate) fn compare_with_folder(&mut self, id: ContentId) {
        let is_open_to = |content: &crate::content::Content| {
            content.opening == Opening::Done && content.base.is_none() && content.bitmap.is_some()
        };
        if !self.contents.get(&id).is_some_and(|content| is_open_to(content) && !content.is_complete()) {
            return;
        }
        let Some(older) = self.older_in_folder(id) else { return };
        let Some(content) = self.contents.get_mut(&id) else { return };
        let Some(mut all) = ChunkBitmap::new(older.size_bytes) else { return };
        all.set_range(0, older.size_bytes);
        let base = Base::of(&all, content.size_bytes, 0).filter(|base| base.chunks.have() >= FEWEST_CHUNKS);
        content.base = base.map(|base| Base { is_in_folder: true, ..base });
    }

    /// A peer did not say what the hashes of these chunks are. Whether somebody else is asked, now or later: then nothing has
    /// failed.
    pub(crate) fn compare_elsewhere(
        &mut self,
        id: ContentId,
        (chunks, asked): (&[u64], &[u64]),
        peer: PeerId,
        error: FetchError,
        out: &mut Vec<Output>,
    ) -> bool {
        let lacks = match error {
            FetchError::Stale | FetchError::Gone | FetchError::OwnerIo | FetchError::NotYet => self.config.keeps_folder,
            FetchError::StreamLost | FetchError::Fault(_) | FetchError::LinkLost | FetchError::Cancelled => false,
        };
        let Some(content) = self.contents.get_mut(&id).filter(|_| lacks) else { return false };
        content.lacking.insert(peer);
        let is_somebody_left = self.source_of(id, true).is_some();
        if !is_somebody_left {
            self.contents.get_mut(&id).into_iter().for_each(|content| content.lacking.clear());
            if error != FetchError::NotYet {
                return false;
            }
        }
        for chunk in chunks {
            self.set_phase(id, *chunk, Phase::Queued);
        }
        for chunk in chunks {
            if !asked.contains(chunk) && !self.is_waited_for(id, *chunk) {
                self.forget_chunk(id, *chunk, out);
            } else if is_somebody_left {
                self.ask_again(id, *chunk, out);
            } else {
                self.wait_for_who_has_it(id, *chunk, out);
            }
        }
        true
    }
}
