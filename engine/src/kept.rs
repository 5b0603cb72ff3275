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

/// Chunks of another version of the file, or of this one without a hash.
#[derive(Debug)]
pub(crate) struct Base {
    /// Those that have not been compared yet, by where they are in this version.
    pub(crate) chunks: ChunkBitmap,
    /// What the store needs for it as long as it is kept, in bytes.
    pub(crate) stored_bytes: u64,
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
        (chunks.have() > 0).then_some(Base { chunks, stored_bytes })
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
        }
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
        if self.contents.get(&id).is_some_and(|content| self.link_to(content.peer).is_none()) {
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
            self.begin_again(id, chunk, out);
        }
        // Either way the sidecar says something else now: that it was verified, or that it is not there.
        self.note_unsaved(id, self.config.save_interval);
    }

    /// Asks what the owner has where another version has something.
    pub(crate) fn compare(&mut self, id: ContentId, chunk: u64, link: LinkId, out: &mut Vec<Output>) {
        let (max_retries, now) = (self.config.max_retries, self.now);
        let Some(content) = self.contents.get(&id) else { return };
        let Some(base) = &content.base else { return };
        let is_free = |at: &u64| {
            let queued = content.chunks.get(at).is_none_or(|fetch| fetch.phase == Phase::Queued);
            *at == chunk || base.chunks.has(*at) && queued && !content.has(*at) && !content.claims(*at)
        };
        let limit = (chunk + COMPARED_AT_ONCE).min(base.chunks.total());
        let chunks = chunk..chunk + (chunk..limit).take_while(is_free).count() as u64;
        let (peer, wanted, size_bytes) = (content.peer, content.wanted(id), content.size_bytes);
        let stall_at = now + self.config.stall_timeout;
        let running = Running::Compare { content: id, chunks: chunks.clone(), link, stall_at };
        let effect = self.effect(running, Effect::Compare { peer, link, wanted, chunks: chunks.clone() }, out);
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
        id: ContentId,
        chunks: Range<u64>,
        link: LinkId,
        result: Result<Vec<u64>, FetchError>,
        out: &mut Vec<Output>,
    ) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        let peer = content.peer;
        let waits = |content: &Content, chunk: u64| {
            content.chunks.get(&chunk).is_some_and(|fetch| fetch.phase == Phase::Comparing(effect))
        };
        let ours: Vec<u64> = chunks.filter(|chunk| waits(content, *chunk)).collect();
        if result == Err(FetchError::LinkLost) && self.link_to(peer).is_none_or(|up| up == link) {
            for chunk in ours {
                self.set_phase(id, chunk, Phase::Parked);
            }
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
        self.note_unsaved(id, self.config.save_interval);
        self.wake(id, out);
        for chunk in ours.into_iter().filter(|chunk| !same.contains(chunk)) {
            self.begin_again(id, chunk, out);
        }
        let exhausted = |content: &Content| {
            content.is_complete() || content.base.as_ref().is_some_and(|base| base.chunks.have() == 0)
        };
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
        self.note_present(id, out);
        bytes.end - bytes.start
    }

    /// A chunk that was believed to be there is not: it is fetched, at once if somebody waits for it.
    fn begin_again(&mut self, id: ContentId, chunk: u64, out: &mut Vec<Output>) {
        self.set_phase(id, chunk, Phase::Queued);
        let needed = self.contents.get(&id).and_then(|content| self.needed_by_waiters(content, chunk));
        if needed.is_some() {
            self.issue(id, chunk, needed, out);
        } else {
            self.ahead.push_back((id, chunk));
        }
    }

    /// Whatever another version had is not needed any more.
    fn drop_base(&mut self, id: ContentId, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        if content.base.take().is_some() {
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
        let is_useful = before.opening == Opening::Done && (has_own || before.base.is_some());
        let new = if is_useful { self.content_of(ino, out) } else { None };
        let Some((new, before)) = new.and_then(|new| Some((new, self.contents.remove(&old)?))) else {
            return self.discard(old, out).map(|content| content.waiters.into_iter().collect()).unwrap_or_default();
        };
        self.cache.forget(&before);
        let waiters = before.waiters.iter().copied().collect();
        let Some(content) = self.contents.get_mut(&new) else { return waiters };
        let size_bytes = content.size_bytes;
        let base = match has_own {
            true => before.stored().and_then(|stored| Base::of(&stored, size_bytes, stored.have_bytes())),
            false => before.base.as_ref().and_then(|base| Base::of(&base.chunks, size_bytes, base.stored_bytes)),
        };
        // A store that holds something of the new version already knows best.
        if content.opening != Opening::Done || base.is_none() {
            self.effect_unreported(Effect::Discard { content: old }, out);
            return waiters;
        }
        content.base = base;
        let (identity, path) = (content.identity(), content.path.clone());
        self.effect_unreported(Effect::Rebase { content: new, identity, path, from: old, older: !has_own }, out);
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
        let Some(Running::Compare { content, chunks, link, .. }) = self.running.get(&effect) else { return };
        let (content, chunks, link) = (*content, chunks.clone(), *link);
        self.abandon(effect, true, out);
        self.on_compared(effect, content, chunks, link, Err(FetchError::StreamLost), out);
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
        let mut ended = std::collections::BTreeSet::new();
        for content in self.contents.values_mut().filter(|content| content.peer == peer) {
            for fetch in content.chunks.values_mut() {
                if let Phase::Comparing(effect) = fetch.phase {
                    ended.insert(effect);
                    fetch.phase = Phase::Parked;
                }
            }
        }
        for effect in ended {
            self.abandon(effect, true, out);
        }
    }
}
