//! Bringing chunks: what is asked for, when, again after a failure, and what becomes of what arrives.
//!
//! A chunk that is neither in the store nor unwanted is in [`Content::chunks`], in exactly one [`Phase`]. The way is
//! `Queued -> Fetching -> Storing -> present`, with `Backoff` after a failure and `Parked` without a connection.

use crate::backoff;
use crate::bitmap::ChunkBitmap;
use crate::chunk::{CHUNK_SIZE, FrameSet, chunk_range, chunks_touched, frames_range};
use crate::config::OnDisconnect;
use crate::content::{ChunkFetch, Content, Phase};
use crate::download::DownloadState;
use crate::engine::{Engine, Running};
use crate::identity::ContentIdentity;
use crate::ids::{ContentId, EffectId, Handle, Ino, LinkId, PeerId};
use crate::input::{FetchError, StoreError};
use crate::kept::Opening;
use crate::output::{Effect, Notice, Output};
use crate::reads::{Patience, Waiting};
use crate::time::Time;
use crate::timers::Timer;
use crate::tree::Origin;
use core::ops::Range;
use std::collections::BTreeSet;

/// What nobody waits for may hold up what somebody does by this much at most, in bytes (4 MiB).
const FAR_BEHIND_BYTES: u64 = 8 * CHUNK_SIZE;

/// What is let go of at once when the disk is full, in bytes (16 MiB), as far as something may go.
const ROOM_BYTES: u64 = 32 * CHUNK_SIZE;

impl Engine {
    /// The content of a file that a peer has, made at first use; `None` for what is not such a file.
    pub(crate) fn content_of(&mut self, ino: Ino, out: &mut Vec<Output>) -> Option<ContentId> {
        let node = self.tree.get(ino)?;
        if node.content.is_some() {
            return node.content;
        }
        let Origin::Peer(peer) = node.origin else { return None };
        let ContentIdentity { owner, stamp, size_bytes, modified } = self.identity_of(ino)?;
        let path = self.tree.path_of(ino)?;
        let id = self.next_content();
        let content = Content {
            ino,
            owner,
            peer,
            lacking: BTreeSet::new(),
            stamp,
            size_bytes,
            modified,
            path,
            bitmap: ChunkBitmap::new(size_bytes),
            opening: Opening::Done,
            claimed: None,
            base: None,
            charged_bytes: 0,
            used: None,
            untouched_from: 0,
            chunks: std::collections::BTreeMap::new(),
            waiters: BTreeSet::new(),
            download: DownloadState::new(size_bytes, self.config.max_retries, self.now),
        };
        self.contents.insert(id, content);
        if let Some(node) = self.tree.get_mut(ino) {
            node.content = Some(id);
        }
        let is_open = self.tree.get(ino).is_some_and(|node| node.opens.count() > 0);
        self.note_use(id, is_open);
        self.open_kept(id, out);
        self.compare_with_folder(id);
        Some(id)
    }

    /// Notes a read of `range` for read-ahead, and queues what lies ahead.
    pub(crate) fn run_ahead(&mut self, handle: Handle, id: ContentId, range: &Range<u64>) {
        let (Some(file), Some(content)) = (self.handles.get_mut(handle), self.contents.get(&id)) else { return };
        let Some(bitmap) = &content.bitmap else { return };
        let ahead = file.read_ahead.note(range, bitmap.total(), self.config.read_ahead_chunks);
        if bitmap.is_complete() {
            return;
        }
        for chunk in ahead {
            self.queue(id, chunk);
        }
    }

    /// Puts a chunk into the queue of those that nobody waits for yet. What the store holds has to be known before.
    pub(crate) fn queue(&mut self, id: ContentId, chunk: u64) {
        let (max_retries, now) = (self.config.max_retries, self.now);
        let Some(content) = self.contents.get_mut(&id) else { return };
        if content.opening != Opening::Done || content.has(chunk) || content.chunks.contains_key(&chunk) {
            return;
        }
        let bytes = chunk_range(chunk, content.size_bytes);
        content.chunks.insert(chunk, ChunkFetch::new(bytes.end - bytes.start, max_retries, now));
        self.ahead.push_back((id, chunk));
    }

    /// Somebody waits for `needed` frames of a chunk that is not in the store.
    pub(crate) fn want_chunk(&mut self, id: ContentId, chunk: u64, needed: FrameSet, out: &mut Vec<Output>) {
        self.queue(id, chunk);
        let Some(fetch) = self.contents.get(&id).and_then(|content| content.chunks.get(&chunk)) else { return };
        match fetch.phase {
            // Its entry in the queue is passed over from now on.
            Phase::Queued => self.issue(id, chunk, Some(needed), out),
            Phase::Fetching(ref requests) if self.is_far_behind(requests, needed) => {
                self.drop_requests(id, chunk, true, out);
                self.issue(id, chunk, Some(needed), out);
            }
            Phase::Fetching(_)
            | Phase::Verifying(_)
            | Phase::Comparing(_)
            | Phase::Backoff(_)
            | Phase::Parked
            | Phase::Storing(_)
            | Phase::StoreBackoff(..) => {}
        }
    }

    /// Whether frames that somebody now waits for were asked for when nobody did, and stand behind much else that nobody
    /// waits for. A sequential reader that catches up with its read-ahead does not: what it needs is next in line.
    fn is_far_behind(&self, requests: &[(EffectId, FrameSet)], needed: FrameSet) -> bool {
        let Some((effect, _)) = requests.iter().find(|(_, rest)| rest.minus(needed) != *rest) else { return false };
        let ahead_of = |id: &EffectId| match self.running.get(id) {
            Some(Running::Fetch { ahead_bytes, .. }) => *ahead_bytes,
            _ => 0,
        };
        let before = self.running.range(..effect).map(|(id, _)| ahead_of(id)).sum::<u64>();
        ahead_of(effect) > 0 && before > FAR_BEHIND_BYTES
    }

    /// Fetches what nobody waits for yet, as much as is allowed to be under way at once.
    pub(crate) fn fetch_ahead(&mut self, out: &mut Vec<Output>) {
        if !self.stopping {
            self.fill_prefetch(out);
        }
        while !self.stopping && self.ahead_bytes < self.ahead_window_bytes() {
            let Some((id, chunk)) = self.ahead.pop_front().or_else(|| self.next_of_whole_files()) else { return };
            let queued =
                |content: &Content| content.chunks.get(&chunk).is_some_and(|fetch| fetch.phase == Phase::Queued);
            if self.contents.get(&id).is_some_and(queued) {
                self.issue(id, chunk, None, out);
            }
        }
    }

    /// Queues and takes the next chunk for those who want whole files: the one that has the fewest on their way has its
    /// turn, and of those the oldest. Parked and failed chunks are not missing in this sense: they come by themselves.
    ///
    /// Such files together have no more chunks open than may be under way, whatever has become of those: a peer that
    /// fails, or a store that is full, does not fill the memory with frames. What nobody has, and is only tried again later,
    /// holds up no other.
    fn next_of_whole_files(&mut self) -> Option<(ContentId, u64)> {
        let wanted_by = |waiting: &Waiting| waiting.for_whole().map(|waiter| waiter.content);
        let is_missing = |id: &ContentId| {
            let content = self.contents.get(id);
            !content.is_some_and(|content| content.is_complete() || content.rests())
        };
        let waited_for = self.waiting.values().filter_map(wanted_by).filter(is_missing);
        let mut whole: BTreeSet<ContentId> = BTreeSet::new();
        let mut large = 0;
        for id in waited_for.chain(self.prefetch.active()) {
            if self.may_be_fetched_whole(large, whole.len()) && whole.insert(id) {
                large += usize::from(self.is_large(id));
            }
        }
        let open_bytes = |content: &Content| (content.chunks.len() as u64 * CHUNK_SIZE).min(content.size_bytes);
        let open: u64 = whole.iter().filter_map(|id| self.contents.get(id)).map(open_bytes).sum();
        if open >= self.config.ahead_bytes {
            return None;
        }
        let next = whole.into_iter().filter_map(|id| {
            let is_up = self.source_of(id, true).is_some();
            let content = self.contents.get_mut(&id)?;
            let chunk = content.next_untouched()?;
            let can_come = is_up || content.claims(chunk);
            (content.opening == Opening::Done && can_come).then_some((content.chunks.len(), id, chunk))
        });
        let (_, id, chunk) = next.min_by_key(|(open, ..)| *open)?;
        self.queue(id, chunk);
        self.ahead.pop_back()
    }

    /// Asks for the frames of a chunk that are not in memory: from the first one that is `needed` on, and then what lies
    /// before it. Without a connection the chunk is parked.
    pub(crate) fn issue(&mut self, id: ContentId, chunk: u64, needed: Option<FrameSet>, out: &mut Vec<Output>) {
        let Some(wanted) = self.wanted(id) else { return };
        let Some(content) = self.contents.get(&id) else { return };
        if content.claims(chunk) {
            return self.verify(id, chunk, out);
        }
        let Some((peer, link)) = self.source_of(id, needed.is_some()) else {
            self.set_phase(id, chunk, Phase::Parked);
            return self.fail_those_without(id, out);
        };
        if content.base.as_ref().is_some_and(|base| base.chunks.has(chunk)) {
            return self.compare(id, chunk, (peer, link), out);
        }
        let Some(fetch) = content.chunks.get(&chunk) else { return };
        let missing = content.all_frames(chunk).minus(fetch.arrived);
        let first = needed.and_then(|needed| needed.runs().next()).map_or(0, |run| run.start);
        let behind = FrameSet::span(first, crate::chunk::FRAMES_PER_CHUNK);
        let mut requests = Vec::with_capacity(2);
        for (part, urgent) in [(missing.minus(missing.minus(behind)), needed.is_some()), (missing.minus(behind), false)]
        {
            for frames in part.runs() {
                let bytes = frames_range(chunk, &frames, wanted.size_bytes);
                let ahead_bytes = if urgent { 0 } else { bytes.end - bytes.start };
                self.ahead_bytes += ahead_bytes;
                let stall_at = self.now + self.config.stall_timeout;
                let issued_at = self.now;
                let running = Running::Fetch { content: id, chunk, peer, link, ahead_bytes, issued_at, stall_at };
                let set = FrameSet::span(frames.start, frames.end);
                let wanted = wanted.clone();
                let effect = self.effect(running, Effect::Fetch { peer, link, wanted, chunk, frames, urgent }, out);
                self.timers.set(stall_at, Timer::Stall(effect));
                requests.push((effect, set));
            }
        }
        self.set_phase(id, chunk, Phase::Fetching(requests));
    }

    pub(crate) fn set_phase(&mut self, id: ContentId, chunk: u64, phase: Phase) {
        if let Some(fetch) = self.contents.get_mut(&id).and_then(|content| content.chunks.get_mut(&chunk)) {
            fetch.phase = phase;
        }
    }

    pub(crate) fn on_arrived(&mut self, effect: EffectId, frames: FrameSet, out: &mut Vec<Output>) {
        let now = self.now;
        let (id, chunk, peer, issued_at) = match self.running.get(&effect) {
            Some(Running::Fetch { content, chunk, peer, issued_at, .. }) => (*content, *chunk, *peer, *issued_at),
            Some(Running::Abandoned) => return,
            other => panic!("frames arrived for effect {effect}, which is {other:?}"),
        };
        let Some(content) = self.contents.get_mut(&id) else { return };
        let all = content.all_frames(chunk);
        let Some(fetch) = content.chunks.get_mut(&chunk) else { return };
        let Phase::Fetching(requests) = &mut fetch.phase else { return };
        for (request, rest) in requests.iter_mut() {
            if *request == effect {
                assert!(rest.contains(frames), "effect {effect} brought frames that it was not asked for");
                *rest = rest.minus(frames);
            }
        }
        let new = frames.minus(fetch.arrived);
        let whole = chunk_range(chunk, content.size_bytes);
        let bytes: u64 = new
            .runs()
            .map(|run| frames_range(chunk, &run, content.size_bytes))
            .map(|range| range.end - range.start)
            .sum();
        fetch.arrived = fetch.arrived.union(new);
        fetch.download.update_progress(whole.start, bytes, now);
        let complete = fetch.arrived == all;
        self.totals.fetched_bytes += bytes;
        self.note_frames_from(peer, bytes, issued_at);
        self.note_progress(id, chunk);
        match complete {
            true if self.is_store_behind() && !self.is_wanted_whole(id) => self.pass_on(id, chunk, out),
            true => {
                self.store(id, chunk, out);
                self.wake(id, out);
            }
            false => self.wake(id, out),
        }
    }

    /// Whether so much waits to be written that no more may be added: readers can be quicker than the disk for as long
    /// as they like, and what is not written yet is in memory.
    fn is_store_behind(&self) -> bool {
        self.ahead_bytes >= self.config.ahead_bytes.max(16 * CHUNK_SIZE).saturating_mul(2)
    }

    /// Answers whoever waits for a chunk that is whole, without having it written.
    fn pass_on(&mut self, id: ContentId, chunk: u64, out: &mut Vec<Output>) {
        self.drop_requests(id, chunk, false, out);
        // Like one that the store refused; the next attempt is for those who still wait then.
        self.refused(id, chunk, StoreError::Io, out);
    }

    /// Has a chunk whose frames are all in memory written. Its requests may end later; nothing depends on that.
    fn store(&mut self, id: ContentId, chunk: u64, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get(&id) else { return };
        let bytes = chunk_range(chunk, content.size_bytes);
        let ahead_bytes = bytes.end - bytes.start;
        let size_bytes = content.size_bytes;
        self.drop_requests(id, chunk, false, out);
        self.ahead_bytes += ahead_bytes;
        let running = Running::Store { content: id, chunk, ahead_bytes };
        let effect = self.effect(running, Effect::Store { content: id, size_bytes, chunk }, out);
        self.set_phase(id, chunk, Phase::Storing(effect));
    }

    pub(crate) fn on_stored(
        &mut self,
        id: ContentId,
        chunk: u64,
        result: Result<(), StoreError>,
        out: &mut Vec<Output>,
    ) {
        let now = self.now;
        let Some(content) = self.contents.get_mut(&id) else { return };
        match result {
            Ok(()) => {
                content.take_chunk(chunk);
                // Counted when it is stored: frames can be let go of, and come again.
                let bytes = chunk_range(chunk, content.size_bytes);
                content.download.update_progress(bytes.start, bytes.end - bytes.start, now);
                if let Some(bitmap) = &mut content.bitmap {
                    bitmap.set(chunk);
                }
                self.note_present(id, out);
                self.wake(id, out);
            }
            Err(error) => {
                out.push(Output::Notice(Notice::StoreFailed { content: id, error }));
                self.totals.store_failures += 1;
                if !self.is_of_use(id) {
                    self.end_walks(out);
                }
                self.refused(id, chunk, error, out);
                if error == StoreError::NoSpace && self.make_room_soon(out) {
                    self.try_refused_again(id, chunk);
                }
            }
        }
    }

    /// A chunk that is whole in memory is not in the store. It is kept for as long as somebody needs it.
    fn refused(&mut self, id: ContentId, chunk: u64, error: StoreError, out: &mut Vec<Output>) {
        // Until it is in this phase, nobody brings it.
        let at = self.now + self.config.retry_cap;
        self.timers.set(at, Timer::Retry(id, chunk));
        self.set_phase(id, chunk, Phase::StoreBackoff(at, error));
        self.wake(id, out);
        self.let_go_of(id, chunk_range(chunk, u64::MAX), out);
    }

    /// Lets something go, unless that was done a moment ago: chunks that are refused come many at once.
    fn make_room_soon(&mut self, out: &mut Vec<Output>) -> bool {
        let again_at = self.room_made_at.map(|at| at + self.config.retry_base);
        if again_at.is_some_and(|at| at > self.now) {
            return true;
        }
        let went = self.make_room(ROOM_BYTES, out);
        if went {
            self.room_made_at = Some(self.now);
        }
        went
    }

    /// There is room again: what was refused need not wait for long.
    fn try_refused_again(&mut self, id: ContentId, chunk: u64) {
        let soon = self.now + self.config.retry_base;
        let Some(fetch) = self.contents.get_mut(&id).and_then(|content| content.chunks.get_mut(&chunk)) else { return };
        if let Phase::StoreBackoff(at, _) = &mut fetch.phase {
            self.timers.unset(*at, Timer::Retry(id, chunk));
            *at = soon;
            self.timers.set(soon, Timer::Retry(id, chunk));
        }
    }

    /// Lets go of what the store refused in `range` and nobody needs any more. Whoever wants the whole file waits until
    /// there is room for it, and a read that still waits for other chunks needs its own in memory until it is answered.
    /// All others have had the bytes.
    pub(crate) fn let_go_of(&mut self, id: ContentId, range: Range<u64>, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get(&id) else { return };
        let refused: Vec<u64> = content
            .chunks
            .range(chunks_touched(&range))
            .filter(|(_, fetch)| matches!(fetch.phase, Phase::StoreBackoff(..)))
            .map(|(chunk, _)| *chunk)
            .collect();
        for chunk in refused {
            if !self.is_waited_for(id, chunk) && !self.is_prefetched(id) {
                self.forget_chunk(id, chunk, out);
            }
        }
    }

    pub(crate) fn on_fetched(
        &mut self,
        effect: EffectId,
        id: ContentId,
        chunk: u64,
        (peer, link): (PeerId, LinkId),
        result: Result<(), FetchError>,
        out: &mut Vec<Output>,
    ) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        let Some(fetch) = content.chunks.get_mut(&chunk) else { return };
        let Phase::Fetching(requests) = &mut fetch.phase else { return };
        let Some(at) = requests.iter().position(|(request, _)| *request == effect) else { return };
        let (_, rest) = requests.remove(at);
        let error = match result {
            // The other request brings what is left.
            Ok(()) if rest.is_empty() => {
                debug_assert!(!requests.is_empty(), "a chunk was whole and nobody noticed");
                return;
            }
            Ok(()) => FetchError::Fault(crate::fault::PeerFault::TooLittle),
            Err(error) => error,
        };
        if error == FetchError::LinkLost && self.link_to(peer).is_none_or(|up| up == link) {
            // No attempt of ours has failed: the peer is away, or we are about to be told so.
            self.drop_requests(id, chunk, true, out);
            return self.set_phase(id, chunk, Phase::Parked);
        }
        let is_asked_elsewhere = self.ask_elsewhere(id, chunk, peer, error, out);
        if is_asked_elsewhere {
            if let FetchError::Fault(fault) = error {
                self.on_fetch_fault(peer, link, fault, out);
            }
            return;
        }
        if error == FetchError::NotYet {
            return self.wait_for_who_has_it(id, chunk, out);
        }
        if matches!(error, FetchError::Stale | FetchError::Gone) && !self.is_up_to_date(peer) {
            // We asked for what was there before: what is there now is about to be told.
            self.drop_requests(id, chunk, true, out);
            return self.try_again_later(id, chunk);
        }
        self.fetch_failed(id, chunk, error, out);
        if let FetchError::Fault(fault) = error {
            self.on_fetch_fault(peer, link, fault, out);
        }
    }

    /// Nobody who is there has a chunk, yet. That is no failure of an attempt: whoever waits for it waits on, until the deadline.
    pub(crate) fn wait_for_who_has_it(&mut self, id: ContentId, chunk: u64, out: &mut Vec<Output>) {
        self.drop_requests(id, chunk, true, out);
        let is_away = self.contents.get(&id).is_some_and(|content| self.link_to(content.peer).is_none());
        if is_away && self.config.on_disconnect == OnDisconnect::Fail {
            // Who has it is not there, and nobody is to wait for that.
            self.set_phase(id, chunk, Phase::Parked);
            self.fail_those_without(id, out);
        }
        if !self.is_waited_for(id, chunk) {
            self.give_up_prefetch(id, FetchError::NotYet, out);
            return self.forget_chunk(id, chunk, out);
        }
        let fetch = self.contents.get_mut(&id).and_then(|content| content.chunks.get_mut(&chunk));
        fetch.into_iter().for_each(|fetch| _ = fetch.download.record_attempt());
        self.try_again_later(id, chunk);
    }

    /// An attempt at a chunk has failed. Whoever waits for it, and has attempts left, gets another one a little later.
    pub(crate) fn fetch_failed(&mut self, id: ContentId, chunk: u64, error: FetchError, out: &mut Vec<Output>) {
        self.drop_requests(id, chunk, true, out);
        self.totals.failed_fetches += 1;
        let patience = self.note_failure(id, chunk, error, out);
        let Some(content) = self.contents.get_mut(&id) else { return };
        content.download.record_attempt();
        let (peer, path) = (content.peer, content.path.clone());
        let Some(fetch) = content.chunks.get_mut(&chunk) else { return };
        fetch.download.record_attempt();
        match patience {
            Patience::SomeLeft => {}
            Patience::NobodyWaited if fetch.download.can_retry() && self.is_of_use(id) => {}
            Patience::NobodyWaited => {
                self.give_up_prefetch(id, error, out);
                return self.forget_chunk(id, chunk, out);
            }
            Patience::NoneLeft => {
                self.give_up_prefetch(id, error, out);
                out.push(Output::Notice(Notice::FetchFailed { peer, path, chunk, error }));
                return self.forget_chunk(id, chunk, out);
            }
        }
        self.try_again_later(id, chunk);
    }

    /// The more attempts have failed, the later.
    fn try_again_later(&mut self, id: ContentId, chunk: u64) {
        let Some(fetch) = self.contents.get(&id).and_then(|content| content.chunks.get(&chunk)) else { return };
        let failures = fetch.download.attempts();
        let wait = backoff::delay(self.config.retry_base, self.config.retry_cap, failures, &mut self.rng);
        let at = self.now + wait;
        self.timers.set(at, Timer::Retry(id, chunk));
        self.set_phase(id, chunk, Phase::Backoff(at));
    }

    pub(crate) fn on_retry(&mut self, id: ContentId, chunk: u64, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get(&id) else { return };
        match content.chunks.get(&chunk).map(|fetch| &fetch.phase) {
            Some(Phase::Backoff(_)) => {
                let needed = self.needed_by_waiters(content, chunk);
                self.issue(id, chunk, needed, out);
            }
            Some(Phase::StoreBackoff(..)) => self.store(id, chunk, out),
            Some(
                Phase::Queued
                | Phase::Fetching(_)
                | Phase::Verifying(_)
                | Phase::Comparing(_)
                | Phase::Parked
                | Phase::Storing(_),
            )
            | None => {}
        }
    }

    /// The frames of a chunk that reads wait for; `None` if nobody does.
    pub(crate) fn needed_by_waiters(&self, content: &Content, chunk: u64) -> Option<FrameSet> {
        let arrived = content.chunks.get(&chunk).map_or(FrameSet::EMPTY, |fetch| fetch.arrived);
        let needed = content
            .waiters
            .iter()
            .filter_map(|id| match self.waiting.get(id)? {
                Waiting::Read(waiter) => Some(FrameSet::touched(chunk, &waiter.range(content.size_bytes))),
                Waiting::All(_) | Waiting::Bring(_) | Waiting::Watch { .. } => None,
            })
            .fold(FrameSet::EMPTY, FrameSet::union)
            .minus(arrived);
        (!needed.is_empty()).then_some(needed)
    }

    pub(crate) fn on_stall(&mut self, effect: EffectId, out: &mut Vec<Output>) {
        let Some(Running::Fetch { content, chunk, peer, issued_at, .. }) = self.running.get(&effect) else {
            return self.on_compare_stall(effect, out);
        };
        let (id, chunk, peer, since) = (*content, *chunk, *peer, *issued_at);
        // A fetch waits for those before it: only a peer that brings nothing at all has stalled.
        let moved_at = self.last_frame_from(peer).unwrap_or(since).max(since);
        let next = moved_at + self.config.stall_timeout;
        if next > self.now {
            if let Some(Running::Fetch { stall_at, .. }) = self.running.get_mut(&effect) {
                *stall_at = next;
            }
            return self.timers.set(next, Timer::Stall(effect));
        }
        if !self.ask_elsewhere(id, chunk, peer, FetchError::StreamLost, out) {
            self.fetch_failed(id, chunk, FetchError::StreamLost, out);
        }
    }

    /// The peer is back: what was parked is asked for, first of all what somebody waits for. So is what failed and would be
    /// tried again later: a new connection is a reason to try at once, and it may not last.
    pub(crate) fn unpark(&mut self, peer: PeerId, out: &mut Vec<Output>) {
        let parked: Vec<(ContentId, u64)> = self
            .contents
            .iter()
            .filter(|(_, content)| content.peer == peer || self.config.keeps_folder)
            .flat_map(|(id, content)| content.chunks.iter().map(|(chunk, fetch)| (*id, *chunk, &fetch.phase)))
            .filter(|(.., phase)| matches!(phase, Phase::Parked | Phase::Backoff(_)))
            .map(|(id, chunk, _)| (id, chunk))
            .collect();
        for (id, chunk) in parked {
            let phase = self.contents.get(&id).and_then(|content| Some(content.chunks.get(&chunk)?.phase.clone()));
            if let Some(Phase::Backoff(at)) = phase {
                self.timers.unset(at, Timer::Retry(id, chunk));
            }
            self.ask_again(id, chunk, out);
        }
    }

    /// The peer is away: what was asked of it will not come.
    pub(crate) fn park(&mut self, peer: PeerId, out: &mut Vec<Output>) {
        let of_peer = |running: &Running| {
            let Running::Fetch { content, chunk, peer: from, .. } = running else { return None };
            (*from == peer).then_some((*content, *chunk))
        };
        let fetching: BTreeSet<(ContentId, u64)> = self.running.values().filter_map(of_peer).collect();
        for (id, chunk) in fetching {
            self.drop_requests(id, chunk, true, out);
            self.set_phase(id, chunk, Phase::Parked);
        }
        self.park_comparisons(peer, out);
    }

    /// Gives up the requests of a chunk. Those that have brought everything end by themselves and need no cancelling.
    pub(crate) fn drop_requests(&mut self, id: ContentId, chunk: u64, cancel: bool, out: &mut Vec<Output>) {
        let Some(fetch) = self.contents.get_mut(&id).and_then(|content| content.chunks.get_mut(&chunk)) else {
            return;
        };
        let requests = match &mut fetch.phase {
            Phase::Fetching(requests) => std::mem::take(requests),
            Phase::Queued
            | Phase::Verifying(_)
            | Phase::Comparing(_)
            | Phase::Backoff(_)
            | Phase::Parked
            | Phase::Storing(_)
            | Phase::StoreBackoff(..) => return,
        };
        for (effect, _) in requests {
            self.abandon(effect, cancel, out);
        }
    }

    pub(crate) fn abandon(&mut self, effect: EffectId, cancel: bool, out: &mut Vec<Output>) {
        let Some(running) = self.running.get_mut(&effect) else { return };
        match std::mem::replace(running, Running::Abandoned) {
            Running::Fetch { ahead_bytes, stall_at, .. } => {
                self.ahead_bytes -= ahead_bytes;
                self.timers.unset(stall_at, Timer::Stall(effect));
            }
            Running::Store { ahead_bytes, .. } | Running::Verify { ahead_bytes, .. } => self.ahead_bytes -= ahead_bytes,
            Running::Compare(comparison) => self.timers.unset(comparison.stall_at, Timer::Stall(effect)),
            Running::Abandoned => return,
            Running::Dial { .. }
            | Running::Watch { .. }
            | Running::Resume { .. }
            | Running::Save { .. }
            | Running::Apply => {}
        }
        if cancel {
            out.push(Output::Cancel(effect));
        }
    }

    /// A chunk is not on its way any more, and not present either: whoever wants it begins anew.
    pub(crate) fn forget_chunk(&mut self, id: ContentId, chunk: u64, out: &mut Vec<Output>) {
        self.drop_requests(id, chunk, true, out);
        let Some(content) = self.contents.get_mut(&id) else { return };
        let Some(fetch) = content.take_chunk(chunk) else { return };
        self.cache.note_idle();
        match fetch.phase {
            Phase::Backoff(at) | Phase::StoreBackoff(at, _) => self.timers.unset(at, Timer::Retry(id, chunk)),
            Phase::Storing(effect) | Phase::Verifying(effect) => self.abandon(effect, false, out),
            Phase::Comparing(effect) => self.abandon_comparison(id, effect, out),
            Phase::Queued | Phase::Fetching(_) | Phase::Parked => {}
        }
        if !fetch.arrived.is_empty() {
            self.effect_unreported(Effect::DropFrames { content: id, chunk }, out);
        }
        self.note_empty(id);
    }

    /// Nobody reads the file any more: what is under way is given up, except what only has to be written or read.
    pub(crate) fn abandon_fetches(&mut self, id: ContentId, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get(&id) else { return };
        let open: Vec<u64> = content
            .chunks
            .iter()
            .filter(|(_, fetch)| !matches!(fetch.phase, Phase::Storing(_) | Phase::Verifying(_)))
            .map(|(chunk, _)| *chunk)
            .collect();
        for chunk in open {
            self.forget_chunk(id, chunk, out);
        }
        self.ahead.retain(|(queued, _)| *queued != id);
    }

    fn is_wanted_whole(&self, id: ContentId) -> bool {
        self.is_prefetched(id)
            || self.contents.get(&id).is_some_and(|content| {
                content
                    .waiters
                    .iter()
                    .any(|waiter| self.waiting.get(waiter).is_some_and(|waiting| waiting.for_whole().is_some()))
            })
    }

    /// Whether a request waits that needs bytes of a chunk.
    pub(crate) fn is_waited_for(&self, id: ContentId, chunk: u64) -> bool {
        self.contents.get(&id).is_some_and(|content| {
            let mut waiters = content.waiters.iter().filter_map(|waiter| self.waiting.get(waiter)?.waiter());
            waiters.any(|waiter| !FrameSet::touched(chunk, &waiter.range(content.size_bytes)).is_empty())
        })
    }

    /// Whether something still is to come for every frame that a waiting read needs; for [`Engine::check`].
    pub(crate) fn is_on_its_way(&self, content: &Content, range: &Range<u64>) -> bool {
        content.opening != Opening::Done
            || chunks_touched(range).filter(|chunk| !content.has(*chunk)).all(|chunk| {
                content.chunks.get(&chunk).is_some_and(|fetch| match &fetch.phase {
                    // What is needed of this chunk is here, and waits in memory for what is needed of others.
                    _ if fetch.arrived.contains(FrameSet::touched(chunk, range)) => true,
                    Phase::Fetching(requests) => !requests.is_empty(),
                    Phase::Backoff(at) | Phase::StoreBackoff(at, _) => *at > Time::ZERO,
                    Phase::Parked => true,
                    Phase::Storing(effect) | Phase::Verifying(effect) | Phase::Comparing(effect) => {
                        self.running.contains_key(effect)
                    }
                    Phase::Queued => false,
                })
            })
    }
}
