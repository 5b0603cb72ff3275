//! What the store kept of a content, from an earlier life or of an earlier version, and how far it is believed.
//!
//! A content of which the store holds something begins by being opened there. What was verified, and written down before
//! a clean stop, is present. After any other stop a chunk is present once the store has read it and found the hash that
//! was written down. The chunks of another version are compared with what the owner has now, some at a time; those that
//! are the same are taken over, and only the others are fetched.

use crate::bitmap::ChunkBitmap;
use crate::chunk::{CHUNK_SIZE, chunk_range};
use crate::content::{ChunkFetch, Content, Phase};
use crate::engine::{Engine, Running};
use crate::ids::{ContentId, EffectId, Ino, LinkId, PeerId};
use crate::input::FetchError;
use crate::output::{Effect, Output};
use crate::reads::Waiting;
use crate::stored::{Resumed, Trust};
use crate::time::Time;
use crate::timers::Timer;
use core::ops::Range;

/// Chunks that one comparison is about at most (8 MiB): the owner reads all of them before it answers.
const COMPARED_AT_ONCE: u64 = 16;

/// What is known of what the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// It is being looked up.
    Under(EffectId),
    /// Everything is known.
    Done,
}

/// A question to an owner about several chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) content: ContentId,
    pub(crate) chunks: Range<u64>,
    /// Those of them that were wanted anyway; the others came along.
    pub(crate) asked: Vec<u64>,
    pub(crate) peer: PeerId,
    pub(crate) link: LinkId,
    pub(crate) issued_at: Time,
    pub(crate) stall_at: Time,
}

/// Chunks of another version of the file, or of this one without a hash.
#[derive(Debug)]
pub(crate) struct Base {
    /// Those that have not been compared yet, by where they are in this version.
    pub(crate) chunks: ChunkBitmap,
    /// What the store needs for it as long as it is kept, in bytes.
    pub(crate) stored_bytes: u64,
    /// It is not in the store, but in our folder (see `older`).
    pub(crate) is_in_folder: bool,
}

impl Base {
    /// The chunks of `of` that could be chunks of a file of `size_bytes`: a chunk that is cut off by the end of one of the
    /// two files is not a chunk of the other. `None` if there are none.
    pub(crate) fn of(of: &ChunkBitmap, size_bytes: u64, stored_bytes: u64) -> Option<Base> {
        let mut chunks = ChunkBitmap::new(size_bytes)?;
        for chunk in of.present() {
            if chunk_range(chunk, of.file_size()) == chunk_range(chunk, size_bytes) {
                chunks.set(chunk);
            }
        }
        (chunks.have() > 0).then_some(Base { chunks, stored_bytes, is_in_folder: false })
    }
}

impl Engine {
    /// Has the store look up what it holds of a new content, if it holds anything.
    pub(crate) fn open_kept(&mut self, id: ContentId, out: &mut Vec<Output>) {
        // Of an empty file there is nothing to be held.
        let Some(content) = self.contents.get(&id).filter(|content| content.bitmap.is_some()) else { return };
        let identity = content.identity();
        let own = self.cache.take_held(&identity.key());
        let base = self.cache.take_version_at(&content.path);
        if own.is_none() && base.is_none() {
            return;
        }
        let held_bytes = [&own, &base].into_iter().flatten().map(|held| held.stored_bytes).sum();
        let effect = Effect::Resume {
            content: id,
            identity,
            path: content.path.clone(),
            own: own.is_some(),
            base: base.map(|held| held.key),
        };
        let effect = self.effect(Running::Resume { content: id }, effect, out);
        if let Some(content) = self.contents.get_mut(&id) {
            content.opening = Opening::Under(effect);
            content.charged_bytes = held_bytes;
        }
    }

    /// The store has looked up what it holds.
    pub(crate) fn on_resumed(
        &mut self,
        id: ContentId,
        own: Option<Resumed>,
        base: Option<ChunkBitmap>,
        out: &mut Vec<Output>,
    ) {
        let now = self.now;
        let Some(content) = self.contents.get_mut(&id) else { return };
        content.opening = Opening::Done;
        let size_bytes = content.size_bytes;
        let is_older_open = base.is_some();
        content.base = base.and_then(|base| Base::of(&base, size_bytes, base.have_bytes()));
        let trust = own.as_ref().map(|own| own.trust);
        if let Some(Resumed { chunks, trust }) = own {
            assert_eq!(
                (chunks.file_size(), chunks.chunk_size_bytes()),
                (size_bytes, CHUNK_SIZE),
                "the store opened another file than content {id}"
            );
            match trust {
                Trust::Verified => {
                    content.download.update_progress(0, chunks.have_bytes(), now);
                    self.totals.resumed_bytes += chunks.have_bytes();
                    content.bitmap = Some(chunks);
                }
                Trust::Hashed => content.claimed = (chunks.have() > 0).then_some(chunks),
                // What it claims takes the place of another version.
                Trust::Claimed => content.base = Base::of(&chunks, size_bytes, chunks.have_bytes()),
            }
        }
        let is_claimed = trust == Some(Trust::Claimed);
        if content.is_complete() {
            content.base = None;
        }
        if is_older_open && (is_claimed || content.base.is_none()) {
            self.effect_unreported(Effect::DropBase { content: id }, out);
        }
        if self.contents.get(&id).is_some_and(Content::is_complete) {
            self.stop_prefetch(id);
            self.note_whole(id);
        }
        self.compare_with_folder(id);
        self.charge(id);
        let ino = self.contents.get(&id).map(|content| content.ino);
        if let Some(ino) = ino.filter(|ino| self.tree.get(*ino).is_some_and(|node| node.opens.count() > 0)) {
            self.lease(ino, out);
        }
        self.wake(id, out);
        self.go_on_waiting(id, out);
        self.trim(out);
    }

    /// Those who still wait for bytes of a content, now that more is known of it.
    fn go_on_waiting(&mut self, id: ContentId, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get(&id) else { return };
        for waiter in content.waiters.clone() {
            self.demand(waiter, out);
        }
        if self.source_of(id, true).is_none() {
            self.fail_those_without(id, out);
        }
    }

    /// Has the store read a chunk that it holds, and compare it with its hash.
    pub(crate) fn verify(&mut self, id: ContentId, chunk: u64, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get(&id) else { return };
        let bytes = chunk_range(chunk, content.size_bytes);
        let ahead_bytes = bytes.end - bytes.start;
        self.ahead_bytes += ahead_bytes;
        let running = Running::Verify { content: id, chunk, ahead_bytes };
        let effect = self.effect(running, Effect::Verify { content: id, chunk }, out);
        self.set_phase(id, chunk, Phase::Verifying(effect));
    }

    /// The store has compared a chunk with its hash.
    pub(crate) fn on_verified(&mut self, id: ContentId, chunk: u64, is_right: bool, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        if let Some(claimed) = &mut content.claimed {
            claimed.clear(chunk);
            if claimed.have() == 0 {
                content.claimed = None;
            }
        }
        if is_right {
            self.totals.resumed_bytes += self.take_over(id, chunk, out);
            self.wake(id, out);
        } else {
            self.totals.damaged_chunks += 1;
            self.charge(id);
            self.begin_again(id, chunk, true, out);
        }
        // Either way the sidecar says something else now: that it was verified, or that it is not there.
        self.note_unsaved(id, self.save_interval(id));
    }

    /// Asks what the owner has where another version has something.
    pub(crate) fn compare(&mut self, id: ContentId, chunk: u64, (peer, link): (PeerId, LinkId), out: &mut Vec<Output>) {
        let (max_retries, now) = (self.config.max_retries, self.now);
        let older = self.older_in_folder(id);
        let Some(content) = self.contents.get_mut(&id) else { return };
        content.base.take_if(|base| base.is_in_folder && older.is_none());
        let Some(base) = &content.base else {
            let needed = self.contents.get(&id).and_then(|content| self.needed_by_waiters(content, chunk));
            return self.issue(id, chunk, needed, out);
        };
        let in_folder = older.filter(|_| base.is_in_folder);
        let is_free = |at: &u64| {
            let queued = content.chunks.get(at).is_none_or(|fetch| fetch.phase == Phase::Queued);
            *at == chunk || base.chunks.has(*at) && queued && !content.has(*at) && !content.claims(*at)
        };
        let limit = (chunk + COMPARED_AT_ONCE).min(base.chunks.total());
        let chunks = chunk..chunk + (chunk..limit).take_while(is_free).count() as u64;
        let asked: Vec<u64> = content.chunks.range(chunks.clone()).map(|(chunk, _)| *chunk).collect();
        let (wanted, size_bytes) = (content.wanted(id), content.size_bytes);
        let stall_at = now + self.config.stall_timeout;
        let running = Running::Compare(Comparison {
            content: id,
            chunks: chunks.clone(),
            asked,
            peer,
            link,
            issued_at: now,
            stall_at,
        });
        let effect =
            self.effect(running, Effect::Compare { peer, link, wanted, chunks: chunks.clone(), in_folder }, out);
        self.timers.set(stall_at, Timer::Stall(effect));
        let Some(content) = self.contents.get_mut(&id) else { return };
        for chunk in chunks {
            let bytes = chunk_range(chunk, size_bytes);
            let new = || ChunkFetch::new(bytes.end - bytes.start, max_retries, now);
            content.chunks.entry(chunk).or_insert_with(new).phase = Phase::Comparing(effect);
        }
    }

    /// The chunks in `same` are what the owner has, and are stored for this version now. If that could not be found out,
    /// the chunks are fetched like any other.
    pub(crate) fn on_compared(
        &mut self,
        effect: EffectId,
        comparison: Comparison,
        result: Result<Vec<u64>, FetchError>,
        out: &mut Vec<Output>,
    ) {
        let Comparison { content: id, chunks, asked, peer, link, .. } = comparison;
        let Some(content) = self.contents.get_mut(&id) else { return };
        let waits = |content: &Content, chunk: u64| {
            content.chunks.get(&chunk).is_some_and(|fetch| fetch.phase == Phase::Comparing(effect))
        };
        let ours: Vec<u64> = chunks.filter(|chunk| waits(content, *chunk)).collect();
        if result == Err(FetchError::LinkLost) && self.link_to(peer).is_none_or(|up| up == link) {
            return self.park_comparison(id, ours, &asked, out);
        }
        if let Err(error) = result
            && self.compare_elsewhere(id, (&ours, &asked), peer, error, out)
        {
            return;
        }
        let same = result.unwrap_or_default();
        let Some(content) = self.contents.get_mut(&id) else { return };
        if let Some(base) = &mut content.base {
            ours.iter().for_each(|chunk| base.chunks.clear(*chunk));
        }
        for chunk in &ours {
            if same.contains(chunk) {
                self.totals.resumed_bytes += self.take_over(id, *chunk, out);
            }
        }
        self.note_unsaved(id, self.save_interval(id));
        self.wake(id, out);
        for chunk in ours.into_iter().filter(|chunk| !same.contains(chunk)) {
            self.begin_again(id, chunk, asked.contains(&chunk), out);
        }
        let exhausted = |content: &Content| content.base.as_ref().is_some_and(|base| base.chunks.have() == 0);
        if self.contents.get(&id).is_some_and(exhausted) {
            self.drop_base(id, out);
        }
    }

    /// A chunk that was on its way is in the store, without having been fetched. Returns its size in bytes.
    fn take_over(&mut self, id: ContentId, chunk: u64, out: &mut Vec<Output>) -> u64 {
        let now = self.now;
        let Some(content) = self.contents.get_mut(&id) else { return 0 };
        content.take_chunk(chunk);
        let bytes = chunk_range(chunk, content.size_bytes);
        content.download.update_progress(bytes.start, bytes.end - bytes.start, now);
        if let Some(bitmap) = &mut content.bitmap {
            bitmap.set(chunk);
        }
        self.note_progress(id, chunk);
        self.note_present(id, out);
        bytes.end - bytes.start
    }

    /// A chunk that was believed to be there is not: it is fetched, at once if somebody waits for it, and later if it
    /// `is_asked_for` and its file is of use to anybody still.
    fn begin_again(&mut self, id: ContentId, chunk: u64, is_asked_for: bool, out: &mut Vec<Output>) {
        self.set_phase(id, chunk, Phase::Queued);
        let needed = self.contents.get(&id).and_then(|content| self.needed_by_waiters(content, chunk));
        if needed.is_some() {
            self.issue(id, chunk, needed, out);
        } else if is_asked_for && self.is_of_use(id) {
            self.ahead.push_back((id, chunk));
        } else {
            self.forget_chunk(id, chunk, out);
        }
    }

    /// Whether a content is wanted for more than what is waited for: it is open, or fetched whole.
    pub(crate) fn is_of_use(&self, id: ContentId) -> bool {
        self.is_open(id) || self.is_prefetched(id)
    }

    /// Whether anybody has the file of a content open.
    pub(crate) fn is_open(&self, id: ContentId) -> bool {
        let ino = self.contents.get(&id).map(|content| content.ino);
        ino.and_then(|ino| self.tree.get(ino)).is_some_and(|node| node.opens.count() > 0)
    }

    /// Whatever another version had is not needed any more.
    pub(crate) fn drop_base(&mut self, id: ContentId, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        if content.base.take().is_some_and(|base| !base.is_in_folder) {
            self.effect_unreported(Effect::DropBase { content: id }, out);
            self.charge(id);
        }
    }

    /// The bytes of a file are others now. What the store has of those before is kept to be compared with, if there is
    /// anything; otherwise it goes. Returns those who waited.
    pub(crate) fn supersede(&mut self, ino: Ino, old: ContentId, out: &mut Vec<Output>) -> Vec<crate::ids::ReqId> {
        self.abandon_fetches(old, out);
        if self.is_prefetched(old) {
            self.prefetch_first(ino);
        }
        self.stop_prefetch(old);
        let Some(before) = self.contents.get(&old) else { return Vec::new() };
        let has_some = |bitmap: &Option<ChunkBitmap>| bitmap.as_ref().is_some_and(|bitmap| bitmap.have() > 0);
        let has_own = has_some(&before.bitmap) || has_some(&before.claimed);
        let has_base = before.base.as_ref().is_some_and(|base| !base.is_in_folder);
        let is_useful = before.opening == Opening::Done && (has_own || has_base);
        let new = if is_useful { self.content_of(ino, out) } else { None };
        let Some((new, before)) = new.and_then(|new| Some((new, self.contents.remove(&old)?))) else {
            return self.discard(old, out).map(|content| content.waiters.into_iter().collect()).unwrap_or_default();
        };
        self.cache.forget(&before);
        let waiters = before.waiters.iter().copied().collect();
        let Some(content) = self.contents.get_mut(&new) else { return waiters };
        let size_bytes = content.size_bytes;
        // Of the two versions before this one, the one of which there is more.
        let stored = before.stored();
        let own_chunks = stored.as_ref().map_or(0, ChunkBitmap::have);
        let older = before.base.as_ref().is_some_and(|base| has_base && base.chunks.have() > own_chunks);
        let base = match older {
            false => stored.and_then(|stored| Base::of(&stored, size_bytes, stored.have_bytes())),
            true => before.base.as_ref().and_then(|base| Base::of(&base.chunks, size_bytes, base.stored_bytes)),
        };
        // A store that holds something of the new version already knows best, and a file in our folder has all of the one before.
        if content.opening != Opening::Done || base.is_none() || content.base.is_some() {
            self.effect_unreported(Effect::Discard { content: old }, out);
            return waiters;
        }
        content.base = base;
        let (identity, path) = (content.identity(), content.path.clone());
        self.effect_unreported(Effect::Rebase { content: new, identity, path, from: old, older }, out);
        self.charge(new);
        waiters
    }

    /// Whether a read of `range` needs the peer: something is missing that the store does not hold either.
    pub(crate) fn needs_peer(&self, content: &Content, range: &Range<u64>) -> bool {
        content.opening == Opening::Done
            && content.missing(range).iter().any(|(chunk, _)| {
                !content.claims(*chunk)
                    && content.chunks.get(chunk).is_none_or(|fetch| !matches!(fetch.phase, Phase::Verifying(_)))
            })
    }

    /// Those who wait for what only the peer has, of one content, if that is to fail while the peer is away.
    pub(crate) fn fail_those_without(&mut self, id: ContentId, out: &mut Vec<Output>) {
        if self.config.on_disconnect == crate::config::OnDisconnect::Wait {
            return;
        }
        let Some(content) = self.contents.get(&id) else { return };
        let needs = |waiter: &&crate::ids::ReqId| {
            let waiter = self.waiting.get(waiter).and_then(Waiting::waiter);
            waiter.is_some_and(|waiter| self.needs_peer(content, &waiter.range(content.size_bytes)))
        };
        let failed: Vec<_> = content.waiters.iter().filter(needs).copied().collect();
        for waiter in failed {
            self.finish(waiter, Err(crate::output::Errno::Io), out);
        }
    }

    /// The comparison did not come to an end in time.
    pub(crate) fn on_compare_stall(&mut self, effect: EffectId, out: &mut Vec<Output>) {
        let Some(Running::Compare(comparison)) = self.running.get(&effect) else { return };
        let comparison = comparison.clone();
        // As a fetch, it waits for those before it: only a peer that brings nothing at all has stalled.
        let moved_at = self.last_frame_from(comparison.peer).unwrap_or(comparison.issued_at).max(comparison.issued_at);
        let next = moved_at + self.config.stall_timeout;
        if next > self.now {
            if let Some(Running::Compare(comparison)) = self.running.get_mut(&effect) {
                comparison.stall_at = next;
            }
            return self.timers.set(next, Timer::Stall(effect));
        }
        self.abandon(effect, true, out);
        self.on_compared(effect, comparison, Err(FetchError::StreamLost), out);
    }

    /// One of the chunks that are being compared is not wanted any more. The comparison ends with the last of them.
    pub(crate) fn abandon_comparison(&mut self, id: ContentId, effect: EffectId, out: &mut Vec<Output>) {
        let others = self
            .contents
            .get(&id)
            .is_some_and(|content| content.chunks.values().any(|fetch| fetch.phase == Phase::Comparing(effect)));
        if !others {
            self.abandon(effect, true, out);
        }
    }

    /// The comparisons of a peer that is away end.
    pub(crate) fn park_comparisons(&mut self, peer: PeerId, out: &mut Vec<Output>) {
        let of_peer = |running: &Running| matches!(running, Running::Compare(comparison) if comparison.peer == peer);
        let ended: Vec<EffectId> =
            self.running.iter().filter(|(_, running)| of_peer(running)).map(|(effect, _)| *effect).collect();
        for effect in ended {
            let Some(Running::Compare(comparison)) = self.running.get(&effect) else { continue };
            let Comparison { content, chunks, asked, .. } = comparison.clone();
            self.abandon(effect, true, out);
            let compared = |chunk: &u64| {
                let fetch = self.contents.get(&content).and_then(|content| content.chunks.get(chunk));
                fetch.is_some_and(|fetch| fetch.phase == Phase::Comparing(effect))
            };
            let ours = chunks.filter(compared).collect();
            self.park_comparison(content, ours, &asked, out);
        }
    }

    /// What was asked for of a comparison waits for the peer; what only came along with it does not.
    fn park_comparison(&mut self, id: ContentId, chunks: Vec<u64>, asked: &[u64], out: &mut Vec<Output>) {
        for chunk in chunks {
            self.set_phase(id, chunk, Phase::Parked);
            // Somebody may have begun to wait for it since.
            if !asked.contains(&chunk) && !self.is_waited_for(id, chunk) {
                self.forget_chunk(id, chunk, out);
            }
        }
    }
}
