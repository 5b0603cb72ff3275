//! What must hold of the whole state, after every step. Run in tests, in the simulator and under the fuzzer.

use crate::chunk::{FrameSet, frames_range};
use crate::content::{Content, Phase};
use crate::engine::{Engine, Running};
use crate::ids::{ContentId, Ino};
use crate::kept::Opening;
use crate::peers::Link;
use crate::reads::Waiting;
use crate::timers::Timer;
use std::collections::BTreeMap;

impl Engine {
    /// Checks the invariants of the whole state. Costs as much as the state is large.
    ///
    /// # Panics
    /// If one does not hold: a bug in the engine.
    pub fn check(&self) {
        self.tree.check();
        self.check_handles();
        let mut timers = 0;
        for (id, content) in &self.contents {
            timers += self.check_content(*id, content);
        }
        timers += self.check_waiting();
        timers += self.check_running();
        timers += self.check_peers();
        timers += self.check_saving() + self.check_folder();
        timers += usize::from(self.prefetch.rest_at.is_some()) + usize::from(self.prefetch.again_at.is_some());
        timers += usize::from(self.walks.idle_at.is_some());
        self.walks.check();
        self.cache.check(&self.contents);
        assert_eq!(timers, self.timers.len(), "a timer is set that nothing waits for");
    }

    fn check_handles(&self) {
        let mut opens: BTreeMap<Ino, u32> = BTreeMap::new();
        for (_, file) in self.handles.iter() {
            *opens.entry(file.ino).or_default() += 1;
        }
        for (ino, node) in self.tree.iter() {
            let open = opens.remove(&ino).unwrap_or(0);
            assert_eq!(node.opens.count(), open, "entry {ino} miscounts its handles");
            let is_whole = node.content.is_some_and(|content| self.contents[&content].is_complete());
            assert!(!node.is_bound || open > 0 && is_whole, "entry {ino} is read past us, and not open or not here");
            if let Some(content) = node.content {
                let there = self.contents.get(&content).map(|content| content.ino);
                assert_eq!(there, Some(ino), "entry {ino} names a content that is not its own");
            }
        }
        assert!(opens.is_empty(), "handles are open on entries that do not exist: {opens:?}");
    }

    fn check_content(&self, id: ContentId, content: &Content) -> usize {
        let named = self.tree.get(content.ino).and_then(|node| node.content);
        assert_eq!(named, Some(id), "content {id} belongs to an entry that does not know it");
        let total = content.bitmap.as_ref().map_or(0, |bitmap| bitmap.total());
        let mut timers = 0;
        for (chunk, fetch) in &content.chunks {
            assert!(*chunk < total, "content {id} fetches chunk {chunk} of {total}");
            assert!(!content.has(*chunk), "chunk {chunk} of content {id} is present and on its way");
            let all = content.all_frames(*chunk);
            let arrived = fetch.arrived.runs().map(|run| frames_range(*chunk, &run, content.size_bytes));
            let arrived_bytes: u64 = arrived.map(|range| range.end - range.start).sum();
            assert_eq!(fetch.download.downloaded_bytes(), arrived_bytes, "bytes of chunk {chunk} are counted twice");
            assert!(all.contains(fetch.arrived), "chunk {chunk} of content {id} has more frames than it can");
            match &fetch.phase {
                Phase::Queued => {
                    assert!(self.ahead.contains(&(id, *chunk)), "chunk {chunk} of content {id} is queued nowhere");
                }
                Phase::Fetching(requests) => {
                    let asked = requests.iter().fold(FrameSet::EMPTY, |sum, (_, frames)| sum.union(*frames));
                    assert_eq!(asked.union(fetch.arrived), all, "nobody was asked for part of chunk {chunk}");
                    for (effect, _) in requests {
                        let running = self.running.get(effect);
                        let ours = matches!(running, Some(Running::Fetch { content, chunk: at, .. })
                            if *content == id && at == chunk);
                        assert!(ours, "chunk {chunk} of content {id} waits for effect {effect}: {running:?}");
                    }
                }
                Phase::Backoff(at) | Phase::StoreBackoff(at, _) => {
                    timers += 1;
                    assert!(self.timers.is_set(*at, Timer::Retry(id, *chunk)), "chunk {chunk} is never tried again");
                }
                Phase::Parked => {}
                Phase::Verifying(effect) => {
                    assert!(content.claims(*chunk), "chunk {chunk} of content {id} is verified, but not claimed");
                    assert!(matches!(self.running.get(effect), Some(Running::Verify { .. })));
                }
                Phase::Comparing(effect) => {
                    let running = self.running.get(effect);
                    let ours = matches!(running, Some(Running::Compare(comparison))
                        if comparison.content == id && comparison.chunks.contains(chunk));
                    assert!(ours, "chunk {chunk} of content {id} waits for effect {effect}: {running:?}");
                }
                Phase::Storing(effect) => {
                    assert_eq!(fetch.arrived, all, "chunk {chunk} of content {id} is stored before it is whole");
                    assert!(matches!(self.running.get(effect), Some(Running::Store { .. })));
                }
            }
        }
        if let Opening::Under(effect) = content.opening {
            assert!(self.running.contains_key(&effect), "nobody opens content {id}");
            assert!(content.chunks.is_empty(), "content {id} is fetched before it is known what there is of it");
        } else {
            assert_eq!(content.charged_bytes, content.stored_bytes(), "content {id} is miscounted");
        }
        let have_bytes = content.bitmap.as_ref().map_or(0, |bitmap| bitmap.have_bytes());
        assert_eq!(content.download.downloaded_bytes(), have_bytes, "content {id} counts other bytes than it has");
        let both = content.claimed.iter().flat_map(|claimed| claimed.present()).find(|chunk| content.has(*chunk));
        assert_eq!(both, None, "a chunk of content {id} is present and not verified");
        let is_open = self.tree.get(content.ino).is_some_and(|node| node.opens.count() > 0);
        assert!(!(is_open && content.used.is_some()), "content {id} is open and may go");
        assert!(self.stopping || !self.is_unused(id, content), "content {id} is remembered for nothing");
        for waiter in &content.waiters {
            let waits_for = self.waiting.get(waiter).and_then(Waiting::waiter).map(|waiter| waiter.content);
            assert_eq!(waits_for, Some(id), "request {waiter} is said to wait for content {id}");
        }
        timers
    }

    fn check_waiting(&self) -> usize {
        for (id, waiting) in &self.waiting {
            let (at, timer) = match waiting {
                Waiting::Read(waiter) | Waiting::All(waiter) | Waiting::Bring(waiter) => {
                    (waiter.deadline, Timer::Deadline(*id))
                }
                Waiting::Watch { until, .. } => (*until, Timer::NoNews(*id)),
            };
            assert!(at > self.now && self.timers.is_set(at, timer), "request {id} has no deadline");
            let Some(waiter) = waiting.waiter() else { continue };
            assert_eq!(self.handles.get(waiter.handle).map(|file| file.ino), Some(waiter.ino));
            let Some(content) = self.contents.get(&waiter.content) else {
                panic!("request {id} waits for content {}, which is gone", waiter.content)
            };
            assert!(content.waiters.contains(id), "request {id} waits and nobody knows");
            let range = waiter.range(content.size_bytes);
            match waiting {
                Waiting::Read(_) => {
                    assert!(!content.is_here(&range), "request {id} waits for what is here");
                    assert!(self.is_on_its_way(content, &range), "request {id} waits for what nobody brings");
                }
                Waiting::All(_) => assert!(!content.is_complete(), "request {id} waits for what is here"),
                Waiting::Bring(_) | Waiting::Watch { .. } => {}
            }
        }
        self.waiting.len()
    }

    fn check_running(&self) -> usize {
        let (mut ahead_bytes, mut timers) = (0, 0);
        for (id, running) in &self.running {
            match running {
                Running::Fetch { content, chunk, ahead_bytes: bytes, stall_at, .. } => {
                    ahead_bytes += bytes;
                    timers += 1;
                    assert!(self.timers.is_set(*stall_at, Timer::Stall(*id)), "fetch {id} can stall for ever");
                    let phase = self.contents.get(content).and_then(|content| content.chunks.get(chunk));
                    let known = phase.is_some_and(|fetch| match &fetch.phase {
                        Phase::Fetching(requests) => requests.iter().any(|(effect, _)| effect == id),
                        Phase::Queued
                        | Phase::Verifying(_)
                        | Phase::Comparing(_)
                        | Phase::Backoff(_)
                        | Phase::Parked
                        | Phase::Storing(_)
                        | Phase::StoreBackoff(..) => false,
                    });
                    assert!(known, "fetch {id} runs for nobody");
                }
                Running::Store { ahead_bytes: bytes, .. } | Running::Verify { ahead_bytes: bytes, .. } => {
                    ahead_bytes += bytes;
                }
                Running::Compare(comparison) => {
                    timers += 1;
                    assert!(
                        self.timers.is_set(comparison.stall_at, Timer::Stall(*id)),
                        "comparison {id} can stall for ever"
                    );
                }
                Running::Dial { .. }
                | Running::Watch { .. }
                | Running::Resume { .. }
                | Running::Save { .. }
                | Running::Apply
                | Running::Abandoned => {}
            }
        }
        assert_eq!(ahead_bytes, self.ahead_bytes, "the bytes that nobody waits for are miscounted");
        timers
    }

    fn check_saving(&self) -> usize {
        if let Some(effect) = self.saving.under_way {
            assert!(self.running.contains_key(&effect), "nobody saves");
            assert_eq!(self.saving.at, None, "a save waits beside another one");
            return 0;
        }
        let Some(at) = self.saving.at else {
            assert!(self.saving.unsaved.is_empty(), "what is not saved is never saved");
            return 0;
        };
        assert!(self.timers.is_set(at, Timer::Save), "nothing is saved when it is due");
        1
    }

    fn check_peers(&self) -> usize {
        let mut timers = 0;
        for (id, peer) in &self.peers {
            match peer.link {
                Link::Waiting(at) => {
                    timers += 1;
                    assert!(self.timers.is_set(at, Timer::Redial(*id)), "peer {id:?} is never dialled again");
                }
                Link::Dialing(effect, _) => assert!(self.running.contains_key(&effect), "nobody dials {id:?}"),
                Link::Up(_) => {}
                Link::Ended => assert!(self.stopping, "peer {id:?} was given up"),
            }
        }
        timers
    }
}
