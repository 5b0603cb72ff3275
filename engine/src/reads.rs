//! Requests that wait for bytes: answered when the bytes are here, or at their deadline, and exactly once.

use crate::chunk::{FrameSet, chunk_range};
use crate::config::OnDisconnect;
use crate::content::{Content, Phase};
use crate::engine::Engine;
use crate::ids::{ContentId, Handle, Ino, PeerId, ReqId};
use crate::input::{FetchError, WatchCursor};
use crate::output::{Errno, Output, Reply, Source, Span};
use crate::record::Kind;
use crate::time::Time;
use crate::timers::Timer;
use crate::tree::Origin;
use core::ops::Range;
use core::time::Duration;
use std::collections::BTreeMap;

/// A read that comes this soon after one through the same handle has failed is the same one, asked for again.
const REPEATED_WITHIN: Duration = Duration::from_secs(1);

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// For a range of bytes.
    Read(Waiter),
    /// For all bytes.
    All(Waiter),
    /// For all bytes to be in our folder.
    Bring(Waiter),
    /// For news of our tree.
    Watch { peer: PeerId, cursor: WatchCursor, until: Time },
}

/// Somebody who waits for bytes.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) handle: Handle,
    pub(crate) ino: Ino,
    pub(crate) content: ContentId,
    /// What was asked for, cut at the end of the file by whoever answers.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) deadline: Time,
    /// Failed attempts in a row at each chunk that it needs, since anything that it needs has arrived. Its own: others
    /// may have more patience left. By chunk, because a stream that ends fails many of them at once.
    pub(crate) failures: BTreeMap<u64, u32>,
}

/// What those who wait for a chunk make of one more failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Nobody waits for it, and nobody did.
    NobodyWaited,
    /// Somebody waits on.
    SomeLeft,
    /// Everybody who waited has got an error now.
    NoneLeft,
}

impl Waiting {
    /// What a request gets that still waits when everything ends.
    pub(crate) fn at_shutdown(self) -> Result<Reply, Errno> {
        match self {
            Waiting::Read(_) | Waiting::All(_) | Waiting::Bring(_) => Err(Errno::Io),
            Waiting::Watch { cursor, .. } => Ok(Reply::Watched { updates: Vec::new(), cursor }),
        }
    }

    pub(crate) fn waiter(&self) -> Option<&Waiter> {
        match self {
            Waiting::Read(waiter) | Waiting::All(waiter) | Waiting::Bring(waiter) => Some(waiter),
            Waiting::Watch { .. } => None,
        }
    }

    /// Whoever waits for a whole file.
    pub(crate) fn for_whole(&self) -> Option<&Waiter> {
        match self {
            Waiting::All(waiter) | Waiting::Bring(waiter) => Some(waiter),
            Waiting::Read(_) | Waiting::Watch { .. } => None,
        }
    }

    fn waiter_mut(&mut self) -> Option<&mut Waiter> {
        match self {
            Waiting::Read(waiter) | Waiting::All(waiter) | Waiting::Bring(waiter) => Some(waiter),
            Waiting::Watch { .. } => None,
        }
    }
}

impl Waiter {
    /// What it needs of a file of `size_bytes`.
    pub(crate) fn range(&self, size_bytes: u64) -> Range<u64> {
        cut(self.offset, self.len, size_bytes)
    }
}

/// The bytes of a request that lie inside a file of `size_bytes`; the rest is behind the end of the file.
fn cut(offset: u64, len: u64, size_bytes: u64) -> Range<u64> {
    let start = offset.min(size_bytes);
    start..offset.saturating_add(len).min(size_bytes).max(start)
}

impl Engine {
    pub(crate) fn read(&mut self, id: ReqId, handle: Handle, offset: u64, len: u32, out: &mut Vec<Output>) {
        match self.read_now(handle, offset, len, out) {
            Ok(Some(span)) => self.reply(id, Ok(Reply::Read(span)), out),
            Err(errno) => self.reply(id, Err(errno), out),
            Ok(None) => self.wait_for(id, handle, offset, u64::from(len), Waiting::Read, out),
        }
    }

    pub(crate) fn fetch_all(&mut self, id: ReqId, handle: Handle, out: &mut Vec<Output>) {
        let Some(ino) = self.handles.get(handle).map(|file| file.ino) else {
            return self.reply(id, Err(Errno::BadHandle), out);
        };
        match self.content_of(ino, out) {
            Some(content) if !self.contents[&content].is_complete() => {
                self.wait_for(id, handle, 0, u64::MAX, Waiting::All, out);
            }
            Some(content) => self.reply(id, Ok(Reply::Fetched(content)), out),
            None => {
                let own = self.tree.get(ino).is_some_and(|node| matches!(node.origin, Origin::Local(_)));
                // A file of our own folder has nothing to be fetched; one that is gone has nothing left to fetch.
                self.reply(id, Err(if own { Errno::Invalid } else { Errno::Stale }), out);
            }
        }
    }

    /// Answers a read whose bytes are here; `None` if they are not. Runs ahead of a sequential reader either way.
    fn read_now(
        &mut self,
        handle: Handle,
        offset: u64,
        len: u32,
        out: &mut Vec<Output>,
    ) -> Result<Option<Span>, Errno> {
        let Some(file) = self.handles.get_mut(handle) else { return Err(Errno::BadHandle) };
        let node = self.tree.get(file.ino).ok_or(Errno::Stale)?;
        let Kind::File { size_bytes, .. } = node.record.kind else { return Err(Errno::Invalid) };
        let range = cut(offset, u64::from(len), size_bytes);
        if range.is_empty() {
            return Ok(Some(Span { source: Source::Nothing, offset, len: 0 }));
        }
        // Not longer than what was asked for, which is a u32.
        let cut_len = (range.end - range.start) as u32;
        let ino = file.ino;
        let source = match (node.origin, node.content) {
            // The folder itself knows best where its files end.
            (Origin::Local(_), None) => return Ok(Some(Span { source: Source::Local(handle), offset, len })),
            // What was opened when it was not in our folder is read on as it was opened.
            (Origin::Local(_) | Origin::Peer(_), Some(content)) => content,
            (Origin::Peer(_), None) => self.content_of(ino, out).ok_or(Errno::Stale)?,
        };
        self.run_ahead(handle, source, &range);
        if offset == 0 {
            self.walk_on(ino, out);
        }
        if self.contents.get(&source).is_some_and(|content| content.is_here(&range)) {
            self.totals.read_hits += 1;
            return Ok(Some(Span { source: Source::Content(source), offset, len: cut_len }));
        }
        self.totals.read_misses += 1;
        Ok(None)
    }

    pub(crate) fn wait_for(
        &mut self,
        id: ReqId,
        handle: Handle,
        offset: u64,
        len: u64,
        kind: fn(Waiter) -> Waiting,
        out: &mut Vec<Output>,
    ) {
        let Some(ino) = self.handles.get(handle).map(|file| file.ino) else {
            return self.reply(id, Err(Errno::BadHandle), out);
        };
        if let Some(errno) = self.repeated_failure(handle, offset, len) {
            return self.reply(id, Err(errno), out);
        }
        let Some(content) = self.content_of(ino, out) else { return self.reply(id, Err(Errno::Stale), out) };
        if self.stopping || self.fails_while_down(content, offset..offset.saturating_add(len)) {
            return self.reply(id, Err(Errno::Io), out);
        }
        let deadline = self.now + self.config.read_timeout;
        self.timers.set(deadline, Timer::Deadline(id));
        self.waiting
            .insert(id, kind(Waiter { handle, ino, content, offset, len, deadline, failures: BTreeMap::new() }));
        if let Some(content) = self.contents.get_mut(&content) {
            content.waiters.insert(id);
        }
        self.demand(id, out);
    }

    /// What a read through a handle has just failed with, if it was just now. The kernel reads ahead, and asks again for
    /// what that did not bring: without this, whoever reads would wait for two deadlines, one after the other.
    fn repeated_failure(&self, handle: Handle, offset: u64, len: u64) -> Option<Errno> {
        let (at, errno, range) = self.handles.get(handle)?.failed.as_ref()?;
        let same = overlaps(range, &(offset..offset.saturating_add(len)));
        (same && *at + REPEATED_WITHIN > self.now).then_some(*errno)
    }

    /// Whether a read of what is not here has to fail at once, because the peer is known to be away.
    fn fails_while_down(&self, content: ContentId, range: Range<u64>) -> bool {
        self.config.on_disconnect == OnDisconnect::Fail
            && self.source_of(content, true).is_none()
            && self.contents.get(&content).is_some_and(|content| {
                let range = cut(range.start, range.end - range.start, content.size_bytes);
                self.needs_peer(content, &range)
            })
    }

    /// Sees to it that everything a waiting request needs is on its way.
    pub(crate) fn demand(&mut self, id: ReqId, out: &mut Vec<Output>) {
        match self.waiting.get(&id) {
            Some(Waiting::Read(waiter)) => {
                let content_id = waiter.content;
                let Some(content) = self.contents.get(&content_id) else { return };
                for (chunk, needed) in content.missing(&waiter.range(content.size_bytes)) {
                    self.want_chunk(content_id, chunk, needed, out);
                }
            }
            // Whole files come through the queue of what nobody waits for yet, a window at a time.
            Some(Waiting::All(_) | Waiting::Bring(_) | Waiting::Watch { .. }) | None => {}
        }
    }

    /// Answers what now can be answered of those who wait for a content.
    pub(crate) fn wake(&mut self, content_id: ContentId, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get(&content_id) else { return };
        let ready: Vec<(ReqId, Reply)> = content
            .waiters
            .iter()
            .filter_map(|id| Some((*id, self.answer(content_id, content, self.waiting.get(id)?)?)))
            .collect();
        for (id, reply) in ready {
            self.finish(id, Ok(reply), out);
        }
    }

    fn answer(&self, id: ContentId, content: &Content, waiting: &Waiting) -> Option<Reply> {
        match waiting {
            Waiting::Read(waiter) => {
                let range = waiter.range(content.size_bytes);
                if range.is_empty() {
                    return Some(Reply::Read(Span { source: Source::Nothing, offset: range.start, len: 0 }));
                }
                // A read asks for at most a u32.
                let len = (range.end - range.start) as u32;
                let source = Source::Content(id);
                content.is_here(&range).then_some(Reply::Read(Span { source, offset: range.start, len }))
            }
            Waiting::All(_) => content.is_complete().then_some(Reply::Fetched(id)),
            Waiting::Bring(waiter) => self.is_in_folder(waiter.ino).then_some(Reply::Brought),
            Waiting::Watch { .. } => None,
        }
    }

    /// Ends a waiting request.
    pub(crate) fn finish(&mut self, id: ReqId, result: Result<Reply, Errno>, out: &mut Vec<Output>) {
        let Some(waiting) = self.waiting.remove(&id) else { return };
        match &waiting {
            Waiting::Read(waiter) | Waiting::All(waiter) | Waiting::Bring(waiter) => {
                self.timers.unset(waiter.deadline, Timer::Deadline(id));
                if let Some(content) = self.contents.get_mut(&waiter.content) {
                    content.waiters.remove(&id);
                }
            }
            Waiting::Watch { until, .. } => self.timers.unset(*until, Timer::NoNews(id)),
        }
        if let Err(errno) = result {
            self.totals.failed_requests += 1;
            let now = self.now;
            if let Waiting::Read(waiter) = &waiting
                && let Some(file) = self.handles.get_mut(waiter.handle)
            {
                file.failed = Some((now, errno, waiter.offset..waiter.offset.saturating_add(waiter.len)));
            }
        }
        self.reply(id, result, out);
        if let Waiting::Read(waiter) = waiting {
            self.let_go_of(waiter.content, waiter.offset..waiter.offset.saturating_add(waiter.len), out);
        } else if let Waiting::Bring(waiter) = waiting {
            let _released = self.release(waiter.handle, out);
        }
    }

    pub(crate) fn on_deadline(&mut self, id: ReqId, out: &mut Vec<Output>) {
        let Some(waiter) = self.waiting.get(&id).and_then(Waiting::waiter) else { return };
        let (content, range) = (waiter.content, waiter.offset..waiter.offset.saturating_add(waiter.len));
        if self.is_waiting_for_its_turn(id) {
            return self.extend(id);
        }
        let full = self.contents.get(&content).is_some_and(|content| content.is_stopped_by_full_disk(&range));
        self.finish(id, Err(if full { Errno::NoSpace } else { Errno::Io }), out);
        self.give_up_stuck(content, &range, out);
    }

    /// Whether a whole-file fetch has nothing under way only because others are before it.
    fn is_waiting_for_its_turn(&self, id: ReqId) -> bool {
        let Some(waiter) = self.waiting.get(&id).and_then(Waiting::for_whole) else { return false };
        let Some(content) = self.contents.get(&waiter.content) else { return false };
        let others =
            || self.waiting.values().filter_map(Waiting::for_whole).any(|other| other.content != waiter.content);
        let is_here = content.is_complete();
        !is_here && content.chunks.is_empty() && self.source_of(waiter.content, true).is_some() && others()
    }

    fn extend(&mut self, id: ReqId) {
        let deadline = self.now + self.config.read_timeout;
        if let Some(waiter) = self.waiting.get_mut(&id).and_then(Waiting::waiter_mut) {
            self.timers.unset(waiter.deadline, Timer::Deadline(id));
            waiter.deadline = deadline;
            self.timers.set(deadline, Timer::Deadline(id));
        }
    }

    /// Bytes that were not there before have arrived for chunk `chunk`: whoever needs it has its patience back, and a
    /// whole-file fetch its deadline.
    pub(crate) fn note_progress(&mut self, content_id: ContentId, chunk: u64) {
        let Some(content) = self.contents.get(&content_id) else { return };
        let bytes = chunk_range(chunk, content.size_bytes);
        let deadline = self.now + self.config.read_timeout;
        for id in &content.waiters {
            let Some(waiting) = self.waiting.get_mut(id) else { continue };
            let whole = waiting.for_whole().is_some();
            let Some(waiter) = waiting.waiter_mut() else { continue };
            if overlaps(&waiter.range(content.size_bytes), &bytes) {
                waiter.failures.clear();
                if whole {
                    self.timers.unset(waiter.deadline, Timer::Deadline(*id));
                    waiter.deadline = deadline;
                    self.timers.set(deadline, Timer::Deadline(*id));
                }
            }
        }
    }

    /// An attempt at chunk `chunk` has failed: those who need what is missing of it have one attempt less, and those who
    /// have none left get an error.
    pub(crate) fn note_failure(
        &mut self,
        content_id: ContentId,
        chunk: u64,
        error: FetchError,
        out: &mut Vec<Output>,
    ) -> Patience {
        let Some(content) = self.contents.get(&content_id) else { return Patience::NobodyWaited };
        let arrived = content.chunks.get(&chunk).map_or(FrameSet::EMPTY, |fetch| fetch.arrived);
        let (mut waits, mut failed) = (false, Vec::new());
        for id in &content.waiters {
            let Some(waiter) = self.waiting.get_mut(id).and_then(Waiting::waiter_mut) else { continue };
            let touched = FrameSet::touched(chunk, &waiter.range(content.size_bytes));
            if touched.is_empty() {
                continue;
            }
            if arrived.contains(touched) {
                // It has all that it needs of this chunk, and waits for another one: this one stays.
                waits = true;
                continue;
            }
            let failures = waiter.failures.entry(chunk).or_default();
            *failures += 1;
            if *failures < self.config.max_retries {
                waits = true;
            } else {
                failed.push(*id);
            }
        }
        let patience = match (waits, failed.is_empty()) {
            (true, _) => Patience::SomeLeft,
            (false, false) => Patience::NoneLeft,
            (false, true) => Patience::NobodyWaited,
        };
        for id in failed {
            self.finish(id, Err(errno_of(error)), out);
        }
        patience
    }

    /// Fails everybody who waits for bytes of a peer that is known to be away, if that is what was asked for.
    pub(crate) fn fail_waiters_of(&mut self, peer: PeerId, out: &mut Vec<Output>) {
        if self.config.on_disconnect == OnDisconnect::Wait {
            return;
        }
        let is_concerned = |content: &Content| content.peer == peer || self.config.keeps_folder;
        let waited_for = self.contents.iter().filter(|(_, content)| !content.waiters.is_empty());
        let concerned =
            waited_for.filter(|(id, content)| is_concerned(content) && self.source_of(**id, true).is_none());
        let contents: Vec<ContentId> = concerned.map(|(id, _)| *id).collect();
        for id in contents {
            self.fail_those_without(id, out);
        }
    }

    /// Ends what still waits on a handle that is being released.
    pub(crate) fn end_waits_on(&mut self, handle: Handle, out: &mut Vec<Output>) {
        let on_handle = |waiting: &Waiting| waiting.waiter().is_some_and(|waiter| waiter.handle == handle);
        let ended: Vec<ReqId> =
            self.waiting.iter().filter(|(_, waiting)| on_handle(waiting)).map(|(id, _)| *id).collect();
        for id in ended {
            self.finish(id, Err(Errno::Io), out);
        }
    }

    /// An entry has lost its name: whoever waits for it to come into our folder waits in vain, whatever stands there now.
    pub(crate) fn end_bringing(&mut self, ino: Ino, out: &mut Vec<Output>) {
        let content = self.tree.get(ino).and_then(|node| self.contents.get(&node.content?));
        let is_brought =
            |id: &&ReqId| matches!(self.waiting.get(*id), Some(Waiting::Bring(waiter)) if waiter.ino == ino);
        let ended: Vec<ReqId> =
            content.map(|content| content.waiters.iter().filter(is_brought).copied().collect()).unwrap_or_default();
        for id in ended {
            self.finish(id, Err(Errno::Stale), out);
        }
    }

    /// Those who waited for bytes of a file wait for its bytes as they are now.
    pub(crate) fn move_waiters(&mut self, waiters: Vec<ReqId>, to: ContentId, out: &mut Vec<Output>) {
        for id in &waiters {
            let Some(waiter) = self.waiting.get_mut(id).and_then(Waiting::waiter_mut) else { continue };
            waiter.content = to;
            waiter.failures.clear();
            if let Some(content) = self.contents.get_mut(&to) {
                content.waiters.insert(*id);
            }
        }
        self.wake(to, out);
        for id in waiters {
            self.demand(id, out);
        }
    }

    /// A request has waited in vain. What it needed and what brought nothing meanwhile is begun again for the next one.
    fn give_up_stuck(&mut self, content_id: ContentId, range: &Range<u64>, out: &mut Vec<Output>) {
        let Some(content) = self.contents.get(&content_id) else { return };
        let stuck: Vec<u64> = content
            .chunks
            .iter()
            .filter(|(chunk, fetch)| {
                let moved_at = fetch.download.last_success_at().unwrap_or(fetch.download.started_at());
                matches!(fetch.phase, Phase::Fetching(_))
                    && moved_at + self.config.read_timeout <= self.now
                    && overlaps(range, &chunk_range(**chunk, content.size_bytes))
            })
            .map(|(chunk, _)| *chunk)
            .collect();
        for chunk in stuck {
            self.fetch_failed(content_id, chunk, FetchError::StreamLost, out);
        }
    }
}

/// What an application sees of a fetch that failed for good.
fn errno_of(error: FetchError) -> Errno {
    match error {
        // The name may still be there, but the bytes that were opened are not to be had any more.
        FetchError::Stale | FetchError::Gone => Errno::Stale,
        FetchError::LinkLost
        | FetchError::StreamLost
        | FetchError::Cancelled
        | FetchError::OwnerIo
        | FetchError::NotYet
        | FetchError::Fault(_) => Errno::Io,
    }
}

fn overlaps(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}
