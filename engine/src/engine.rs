//! The engine: one input in, all of its consequences out.
//!
//! This file has the state, the way from an input to the rule that handles it, and nothing else. The rules are in the
//! modules beside it, one matter each.

use crate::cache::Cache;
use crate::config::Config;
use crate::content::Content;
use crate::event::{Observation, Position};
use crate::handles::HandleTable;
use crate::ids::{ContentId, EffectId, LinkId, PeerId, ReqId};
use crate::input::{Command, Done, Input, PeerEvent};
use crate::kept::Comparison;
use crate::output::{Effect, Errno, Output, Reply};
use crate::peers::Peer;
use crate::prefetch::Prefetch;
use crate::reads::Waiting;
use crate::record::{Facts, Record};
use crate::replica::Replica;
use crate::rng::Rng;
use crate::save::Saving;
use crate::share::Share;
use crate::time::Time;
use crate::timers::{Timer, Timers};
use crate::tree::{Origin, Tree};
use crate::version::{Clock, Dot};
use crate::view::Totals;
use crate::walks::Walks;
use std::collections::{BTreeMap, VecDeque};

/// Decides everything about one share on one device. See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) stopping: bool,
    pub(crate) tree: Tree,
    pub(crate) handles: HandleTable,
    pub(crate) contents: BTreeMap<ContentId, Content>,
    /// Requests that are not answered yet.
    pub(crate) waiting: BTreeMap<ReqId, Waiting>,
    /// Effects that are not done yet.
    pub(crate) running: BTreeMap<EffectId, Running>,
    /// Chunks that nobody waits for yet, in the order in which they will be fetched. One whose phase is no longer
    /// `Queued` is passed over.
    pub(crate) ahead: VecDeque<(ContentId, u64)>,
    /// Bytes that nobody waits for and that are under way or being written.
    pub(crate) ahead_bytes: u64,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    /// Where in the events of peers that are not followed yet their remembered trees stand, and what of those may be told
    /// for the second time.
    pub(crate) remembered: BTreeMap<PeerId, (Position, u64)>,
    pub(crate) share: Share,
    pub(crate) replica: Replica,
    /// The numbers of our own changes.
    pub(crate) clock: Clock,
    pub(crate) cache: Cache,
    pub(crate) saving: Saving,
    pub(crate) prefetch: Prefetch,
    pub(crate) walks: Walks,
    /// When something was last let go of because the disk was full.
    pub(crate) room_made_at: Option<Time>,
    pub(crate) timers: Timers,
    pub(crate) totals: Totals,
    /// The last listing or scan mark that was given out.
    pub(crate) last_mark: u64,
    last_request: u64,
    last_effect: u64,
    last_content: u64,
    last_link: u64,
}

/// An effect that is not done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Running {
    Dial {
        peer: PeerId,
        link: LinkId,
    },
    Watch {
        peer: PeerId,
        link: LinkId,
    },
    Fetch {
        content: ContentId,
        chunk: u64,
        peer: PeerId,
        link: LinkId,
        /// What of it counts against the limit of bytes that nobody waits for.
        ahead_bytes: u64,
        issued_at: Time,
        stall_at: Time,
    },
    Store {
        content: ContentId,
        chunk: u64,
        ahead_bytes: u64,
    },
    Resume {
        content: ContentId,
    },
    Verify {
        content: ContentId,
        chunk: u64,
        ahead_bytes: u64,
    },
    Compare(Comparison),
    Save {
        contents: Vec<ContentId>,
    },
    Apply,
    /// Nobody needs it any more; its end changes nothing.
    Abandoned,
}

impl Engine {
    /// An engine at `now`, with an empty tree. All chance comes from `seed`: the same inputs and seed give the same
    /// outputs.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Time) -> Engine {
        Engine {
            share: Share::new(&config),
            replica: Replica::new(&config),
            clock: Clock::new(config.device, config.version_base.max(1)),
            now,
            rng: Rng::new(seed),
            stopping: false,
            tree: Tree::new(Origin::Local(Facts::default()), Dot { author: config.device, counter: 1 }),
            handles: HandleTable::default(),
            contents: BTreeMap::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            peers: BTreeMap::new(),
            remembered: BTreeMap::new(),
            cache: Cache::new(config.fetches_all),
            saving: Saving::default(),
            prefetch: Prefetch::default(),
            walks: Walks::default(),
            room_made_at: None,
            timers: Timers::default(),
            totals: Totals::default(),
            last_mark: 0,
            last_request: 0,
            last_effect: 0,
            last_content: 0,
            last_link: 0,
            config,
        }
    }

    /// Takes one input and appends everything that follows from it to `out`. Nothing stays queued inside.
    ///
    /// Timers that are due at `now` are handled first, so a late driver sees the same order as a punctual one.
    ///
    /// # Panics
    /// If the driver breaks its side of the contract: time that goes back, a request number that was used before, the
    /// end of an effect that does not run. Nothing that a peer or an application does can cause that.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        assert!(now >= self.now, "time went back from {} to {now}", self.now);
        self.now = now;
        self.totals.steps += 1;
        while let Some(timer) = self.timers.take_due(now) {
            self.on_timer(timer, out);
        }
        match input {
            Input::Request(id, request) => {
                assert!(id.0 > self.last_request, "request number {id} was used before");
                self.last_request = id.0;
                self.on_request(id, request, out);
            }
            Input::Forget { ino, lookups } => self.on_forget(ino, lookups, out),
            Input::Arrived(id, frames) => self.on_arrived(id, frames, out),
            Input::Done(id, done) => self.on_done(id, done, out),
            Input::Peer(peer, event) => self.on_peer(peer, event, out),
            Input::Held { held, pins } => self.on_held(held, pins),
            Input::Observed(observation) => self.on_observed(observation, out),
            Input::Command(command) => self.on_command(command, out),
            Input::Tick => {}
            Input::Recalled(memory) => self.on_recalled(memory, out),
            Input::Remembered { peer, remembered } => self.on_remembered(peer, remembered, out),
        }
        self.fetch_what_was_lost();
        self.fetch_ahead(out);
        self.apply_more(out);
        self.forget_unused(out);
    }

    /// The earliest moment at which a [`Input::Tick`] would change anything, and what it would be.
    #[must_use]
    pub fn next_timer(&self) -> Option<(Time, Timer)> {
        self.timers.next()
    }

    /// Whether what a fetch brings is still wanted. A driver that holds frames in memory asks before it takes one more,
    /// and tells [`Input::Arrived`] only if it took it.
    #[must_use]
    pub fn wants(&self, effect: EffectId) -> bool {
        matches!(self.running.get(&effect), Some(Running::Fetch { .. }))
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Vec<Output>) {
        match timer {
            Timer::Deadline(id) => self.on_deadline(id, out),
            Timer::NoNews(id) => self.on_no_news(id, out),
            Timer::Retry(content, chunk) => self.on_retry(content, chunk, out),
            Timer::Stall(effect) => self.on_stall(effect, out),
            // The step goes on with it.
            Timer::Prefetch => self.prefetch.rest_at = None,
            Timer::PrefetchAgain => self.on_prefetch_again(),
            Timer::WalkIdle => self.on_walk_idle(out),
            Timer::Save => self.on_save_due(out),
            Timer::Redial(peer) => self.on_redial(peer, out),
            // The step goes on with it.
            Timer::Apply => self.on_apply_again(),
        }
    }

    fn on_done(&mut self, id: EffectId, done: Done, out: &mut Vec<Output>) {
        let Some(running) = self.running.remove(&id) else { panic!("effect {id} ended, but it was not running") };
        match (running, done) {
            (Running::Abandoned, _) => {}
            (Running::Dial { peer, link }, Done::Dialed(result)) => self.on_dialed(peer, link, result, out),
            (Running::Watch { peer, link }, Done::WatchEnded) => self.on_watch_ended(peer, link, out),
            (Running::Fetch { content, chunk, ahead_bytes, stall_at, peer, link, .. }, Done::Fetched(result)) => {
                self.ahead_bytes -= ahead_bytes;
                self.timers.unset(stall_at, Timer::Stall(id));
                self.on_fetched(id, content, chunk, (peer, link), result, out);
            }
            (Running::Store { content, chunk, ahead_bytes }, Done::Stored(result)) => {
                self.ahead_bytes -= ahead_bytes;
                self.on_stored(content, chunk, result, out);
            }
            (Running::Resume { content }, Done::Resumed { own, base }) => self.on_resumed(content, own, base, out),
            (Running::Verify { content, chunk, ahead_bytes }, Done::Verified(is_right)) => {
                self.ahead_bytes -= ahead_bytes;
                self.on_verified(content, chunk, is_right, out);
            }
            (Running::Compare(comparison), Done::Compared(result)) => {
                self.timers.unset(comparison.stall_at, Timer::Stall(id));
                self.on_compared(id, comparison, result, out);
            }
            (Running::Save { contents }, Done::Saved(result)) => self.on_saved(contents, result, out),
            (Running::Apply, Done::Applied(results)) => self.on_applied(results, out),
            (running, done) => panic!("effect {id} ended with {done:?}, but it was {running:?}"),
        }
    }

    fn on_peer(&mut self, peer: PeerId, event: PeerEvent, out: &mut Vec<Output>) {
        match event {
            PeerEvent::LinkDown { link } => self.on_link_down(peer, link, out),
            PeerEvent::Tree { link, updates } => self.on_tree(peer, link, updates, out),
            PeerEvent::Fault { link, fault } => self.on_fault(peer, link, fault, out),
            PeerEvent::Reachable => self.redial(peer, out),
        }
    }

    fn on_observed(&mut self, observation: Observation, out: &mut Vec<Output>) {
        match observation {
            Observation::Found { path, seen } => self.on_found(&path, seen, out),
            Observation::Missing { path } => self.on_missing(path, out),
            Observation::Moved { from, to } => self.on_moved(from, to, out),
            Observation::Unknown { path } => self.on_unknown(&path),
            Observation::Sighted { path } => self.replica.folder.note_sighted(path),
            Observation::Amended { path, mode, modified, xattrs } => {
                let amend = |record: Record| Record {
                    mode: mode.unwrap_or(record.mode),
                    modified: modified.unwrap_or(record.modified),
                    xattrs: xattrs.unwrap_or(record.xattrs),
                    ..record
                };
                self.merge_amended(&path, amend, out);
            }
            Observation::ScanBegin { path } => self.on_scan_begin(path),
            Observation::ScanEnd { path } => self.on_scan_end(&path, out),
        }
    }

    fn on_command(&mut self, command: Command, out: &mut Vec<Output>) {
        match command {
            Command::Follow { peer } => self.follow(peer, out),
            Command::Unfollow { peer } => self.unfollow(peer, out),
            Command::NetworkChanged => self.redial_all(out),
            Command::Shutdown => self.shut_down(out),
            Command::LacksXattrs => self.replica.folder.lacks_xattrs = true,
            Command::Unshare { path } => self.unshare(path, out),
            Command::Share { path } => self.share.offer_again(&path),
        }
    }

    /// Ends everything at once: nothing that waits is left waiting, and nothing new begins.
    fn shut_down(&mut self, out: &mut Vec<Output>) {
        self.stopping = true;
        self.timers.clear();
        for (id, waiting) in std::mem::take(&mut self.waiting) {
            out.push(Output::Reply(id, waiting.at_shutdown()));
        }
        for content in self.contents.values_mut() {
            content.waiters.clear();
            content.chunks.clear();
            content.opening = crate::kept::Opening::Done;
        }
        for id in self.contents.keys().copied().collect::<Vec<_>>() {
            self.charge(id);
        }
        self.ahead.clear();
        self.ahead_bytes = 0;
        self.end_prefetch();
        self.walks = Walks::default();
        self.saving = Saving::default();
        self.replica.folder.retry_at = None;
        for (id, running) in &mut self.running {
            match running {
                Running::Abandoned => continue,
                // If it connects in spite of this, the connection is hung up.
                Running::Dial { .. } => {}
                // What is done in the folder is done to its end.
                Running::Apply => continue,
                Running::Watch { .. }
                | Running::Fetch { .. }
                | Running::Store { .. }
                | Running::Resume { .. }
                | Running::Verify { .. }
                | Running::Compare(_)
                | Running::Save { .. } => *running = Running::Abandoned,
            }
            out.push(Output::Cancel(*id));
        }
        self.hang_up_all(out);
    }

    pub(crate) fn effect(&mut self, running: Running, effect: Effect, out: &mut Vec<Output>) -> EffectId {
        debug_assert!(effect.is_reported());
        let id = self.next_effect();
        self.running.insert(id, running);
        out.push(Output::Effect(id, effect));
        id
    }

    /// An effect that nobody reports the end of.
    pub(crate) fn effect_unreported(&mut self, effect: Effect, out: &mut Vec<Output>) {
        debug_assert!(!effect.is_reported());
        out.push(Output::Effect(self.next_effect(), effect));
    }

    fn next_effect(&mut self) -> EffectId {
        self.last_effect += 1;
        EffectId(self.last_effect)
    }

    pub(crate) fn next_content(&mut self) -> ContentId {
        self.last_content += 1;
        ContentId(self.last_content)
    }

    pub(crate) fn next_link(&mut self) -> LinkId {
        self.last_link += 1;
        LinkId(self.last_link)
    }

    pub(crate) fn next_mark(&mut self) -> u64 {
        self.last_mark += 1;
        self.last_mark
    }

    pub(crate) fn reply(&mut self, id: ReqId, result: Result<Reply, Errno>, out: &mut Vec<Output>) {
        out.push(Output::Reply(id, result));
    }
}
