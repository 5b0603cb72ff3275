//! From which peers the bytes of a file are asked for.
//!
//! Of a share that all change, whoever holds these bytes in its folder can serve them: the stamp says which bytes are meant. One
//! peer is asked first, the one that is known to have them. While it is away, or if it has not got them, the others are; and a
//! large file comes from all of them at once, from each as much as its connection carries. Who has not got these bytes says so,
//! and is not asked for them again until nobody is left, or it has connected anew.

use crate::content::Phase;
use crate::engine::{Engine, Running};
use crate::ids::{ContentId, LinkId, PeerId};
use crate::input::FetchError;
use crate::output::Output;

/// Files of at least so many bytes (8 MiB) come from several peers at once. Of a smaller one, the questions to those who have
/// not got it would cost more than the others bring.
const SHARED_OUT_FROM_BYTES: u64 = 16 * crate::chunk::CHUNK_SIZE;

impl Engine {
    /// Whom to ask for a content now, if anybody. Of what is `urgent`, the peer that is most certain to have it.
    pub(crate) fn source_of(&self, id: ContentId, urgent: bool) -> Option<(PeerId, LinkId)> {
        let content = self.contents.get(&id)?;
        let is_usable = |peer: &PeerId| !content.lacking.contains(peer);
        let first = self.link_to(content.peer).map(|link| (content.peer, link)).filter(|(peer, _)| is_usable(peer));
        let is_shared_out = !urgent && content.size_bytes >= SHARED_OUT_FROM_BYTES;
        if !self.config.keeps_folder || first.is_some() && !is_shared_out {
            return first;
        }
        let others = self.peers.keys().filter(|peer| **peer != content.peer && is_usable(peer));
        let others = others.filter_map(|peer| Some((*peer, self.link_to(*peer)?)));
        // Of equals, the first one is taken.
        first.into_iter().chain(others).min_by(|(one, _), (other, _)| self.compare_load(*one, *other))
    }

    /// Which of two peers has less to bring, in relation to what its connection carries.
    fn compare_load(&self, one: PeerId, other: PeerId) -> core::cmp::Ordering {
        let load = |peer: PeerId| -> u64 {
            let of_peer = |running: &Running| {
                let Running::Fetch { peer: from, ahead_bytes, .. } = running else { return 0 };
                if *from == peer { *ahead_bytes } else { 0 }
            };
            self.running.values().map(of_peer).sum()
        };
        let carries = |peer: PeerId| u128::from(self.window_bytes_of(peer).max(1));
        (u128::from(load(one)) * carries(other)).cmp(&(u128::from(load(other)) * carries(one)))
    }

    /// A peer did not bring a chunk of a content. Asks somebody else for it, if there is somebody: then nothing has failed.
    pub(crate) fn ask_elsewhere(
        &mut self,
        id: ContentId,
        chunk: u64,
        peer: PeerId,
        error: FetchError,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(content) = self.contents.get_mut(&id).filter(|_| self.config.keeps_folder) else { return false };
        let lacks = match error {
            FetchError::Stale | FetchError::Gone | FetchError::OwnerIo | FetchError::NotYet => true,
            // Who is known to have it may do better the next time, but not for ever.
            FetchError::StreamLost | FetchError::Fault(_) => {
                let fetch = content.chunks.get(&chunk);
                peer != content.peer || fetch.is_some_and(|fetch| fetch.download.attempts() > 0)
            }
            FetchError::LinkLost | FetchError::Cancelled => false,
        };
        if !lacks {
            return false;
        }
        content.lacking.insert(peer);
        if self.source_of(id, true).is_none() {
            self.contents.get_mut(&id).into_iter().for_each(|content| content.lacking.clear());
            return false;
        }
        self.drop_requests(id, chunk, true, out);
        self.ask_again(id, chunk, out);
        true
    }

    /// Asks for a chunk of which nothing is under way: at once if somebody waits for it, and otherwise in its turn.
    pub(crate) fn ask_again(&mut self, id: ContentId, chunk: u64, out: &mut Vec<Output>) {
        let needed = self.contents.get(&id).and_then(|content| self.needed_by_waiters(content, chunk));
        if needed.is_some() {
            return self.issue(id, chunk, needed, out);
        }
        self.set_phase(id, chunk, Phase::Queued);
        self.ahead.push_back((id, chunk));
    }

    /// A peer has connected anew: it may have by now what it had not.
    pub(crate) fn note_may_have(&mut self, peer: PeerId) {
        for content in self.contents.values_mut() {
            content.lacking.remove(&peer);
        }
    }

    /// A peer is away: what was to come from it is asked of others, if there are any.
    pub(crate) fn go_on_elsewhere(&mut self, out: &mut Vec<Output>) {
        if !self.config.keeps_folder {
            return;
        }
        let is_somebody_there = self.peers.keys().any(|peer| self.link_to(*peer).is_some());
        let lacking = self.contents.iter().filter(|(_, content)| is_somebody_there && !content.lacking.is_empty());
        let nobody_left: Vec<ContentId> =
            lacking.filter(|(id, _)| self.source_of(**id, true).is_none()).map(|(id, _)| *id).collect();
        for id in nobody_left {
            // Who had not got it may have it by now.
            self.contents.get_mut(&id).into_iter().for_each(|content| content.lacking.clear());
        }
        self.let_others_be_prefetched(out);
        let parked: Vec<(ContentId, u64)> = self
            .contents
            .iter()
            .flat_map(|(id, content)| content.chunks.iter().map(|(chunk, fetch)| (*id, *chunk, &fetch.phase)))
            .filter(|(id, _, phase)| **phase == Phase::Parked && self.source_of(*id, true).is_some())
            .map(|(id, chunk, _)| (id, chunk))
            .collect();
        for (id, chunk) in parked {
            self.ask_again(id, chunk, out);
        }
    }
}
