//! Engines, the wire between them, their folders and stores, and one clock that they share.

use super::folder::Look;
use super::host::{Host, HostId, Job};
use super::leases::{Lease, LeaseKey};
use super::wire::{Conn, ConnId, Message, Serving, Spoil, pair};
use crate::chunk::FrameSet;
use crate::config::Config;
use crate::entries::Entries;
use crate::event::Observation;
use crate::ids::{EffectId, PeerId, ReqId};
use crate::input::{Command, DialError, Done, FetchError, Input, Request, WatchCursor};
use crate::output::{Effect, Errno, Output, Reply};
use crate::path::RelPath;
use crate::record::Stamp;
use crate::remembered::Collected;
use crate::rng::Rng;
use crate::time::Time;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// More steps than any test needs: something goes round in circles.
const MAX_STEPS: u64 = 3_000_000;

/// A follower writes down its owner's tree with news that are a step whose number is a multiple of this.
const REMEMBER_EVERY: u64 = 7;

/// So many entries at most are remembered at once, between two things that happen.
const REMEMBERED_AT_ONCE: usize = 8;

/// N engines and everything around them. The same seed and the same calls give the same history.
#[derive(Debug)]
pub struct World {
    /// The time of all engines.
    pub now: Time,
    /// The engines.
    pub hosts: Vec<Host>,
    /// How long a message travels, at least; up to twice that.
    pub latency: Duration,
    /// The pause between two frames of one answer.
    pub frame_gap: Duration,
    /// How long an owner's driver takes, at least, before it asks for more news.
    pub watch_pause: Duration,
    /// How long a store takes to write a chunk, at most.
    pub store_delay: Duration,
    /// Whether owners keep files open that they have begun to serve.
    pub leases: bool,
    /// What owners will do wrong next.
    pub spoils: VecDeque<Spoil>,
    /// Whether errors need no reason.
    pub lenient: bool,
    /// From which size on, in bytes, what is opened and all here is read past the engine.
    pub whole_from: Option<u64>,
    /// Everything that every engine has put out, if it is kept.
    pub history: Option<Vec<(Time, HostId, Output)>>,
    pub(super) rng: Rng,
    pub(super) conns: Vec<Conn>,
    /// Pairs of hosts between which nothing goes.
    pub(super) cut: BTreeSet<(HostId, HostId)>,
    /// Pairs of hosts between which everything waits.
    pub(super) held: BTreeSet<(HostId, HostId)>,
    pub(super) dead: BTreeSet<HostId>,
    pub(super) follows: BTreeMap<HostId, HostId>,
    /// Which version a stamp means, and its size.
    pub(super) versions: BTreeMap<(PeerId, Stamp), (u64, u64)>,
    /// What owners keep open for their followers.
    pub(super) kept: BTreeMap<LeaseKey, Lease>,
    /// What they were asked to keep when it was gone already.
    pub(super) refused_leases: BTreeSet<LeaseKey>,
    pub(super) trouble_at: Time,
    events: BTreeMap<(Time, u64), Event>,
    last_event: u64,
    steps: u64,
    /// More steps than it can take: something goes round in circles.
    pub(super) max_steps: u64,
}

/// Something that will happen around the engines.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Message { conn: ConnId, message: Message },
    Serve(Serving),
    WatchAgain { conn: ConnId, cursor: WatchCursor },
    DialEnds { at: HostId, life: u32, effect: EffectId },
    StoreEnds { at: HostId, life: u32, effect: EffectId },
    CancelSeen { at: HostId, life: u32, effect: EffectId },
    LinkLost { conn: ConnId, life: u32 },
    EffectLost { at: HostId, life: u32, effect: EffectId },
    Watcher { at: HostId, life: u32 },
}

impl World {
    /// A world without anybody in it. All chance comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> World {
        World {
            now: Time::ZERO,
            hosts: Vec::new(),
            latency: Duration::from_millis(2),
            frame_gap: Duration::from_micros(200),
            watch_pause: Duration::from_millis(1),
            store_delay: Duration::from_millis(5),
            leases: true,
            spoils: VecDeque::new(),
            lenient: false,
            whole_from: None,
            history: None,
            rng: Rng::new(seed),
            conns: Vec::new(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            dead: BTreeSet::new(),
            follows: BTreeMap::new(),
            versions: BTreeMap::new(),
            kept: BTreeMap::new(),
            refused_leases: BTreeSet::new(),
            trouble_at: Time::ZERO,
            events: BTreeMap::new(),
            last_event: 0,
            steps: 0,
            max_steps: MAX_STEPS,
        }
    }

    /// Adds an engine.
    pub fn add(&mut self, config: Config) -> HostId {
        let index = self.hosts.len();
        let seed = self.rng.up_to(u64::MAX);
        self.hosts.push(Host::new(index, config, seed, self.now));
        index
    }

    /// Has one engine follow another.
    pub fn follow(&mut self, follower: HostId, owner: HostId) {
        self.follows.insert(follower, owner);
        let peer = self.hosts[owner].peer;
        self.input(follower, Input::Command(Command::Follow { peer }));
    }

    pub(super) fn followers_of(&self, owner: HostId) -> Vec<HostId> {
        self.follows.iter().filter(|(_, followed)| **followed == owner).map(|(follower, _)| *follower).collect()
    }

    pub(super) fn host_of(&self, peer: PeerId) -> HostId {
        let found = self.hosts.iter().position(|host| host.peer == peer);
        let Some(found) = found else { panic!("{peer:?} is nobody here") };
        found
    }

    // One step of an engine.

    /// Gives an engine an input, checks it, and carries out what it wants.
    pub fn input(&mut self, at: HostId, input: Input) {
        let mut out = Vec::new();
        let is_news = matches!(input, Input::Peer(..));
        let is_applied = matches!(input, Input::Done(_, Done::Applied(_)));
        self.hosts[at].engine.step(self.now, input, &mut out);
        self.hosts[at].engine.check();
        if is_applied {
            self.hosts[at].write_down();
        }
        // At moments that are as good as any, and when events are still to be told for the second time.
        let engine = &self.hosts[at].engine;
        let is_unsettled = engine.peers.values().any(|peer| peer.settled > peer.position.seq);
        if is_news && (is_unsettled || engine.totals.steps.is_multiple_of(REMEMBER_EVERY)) {
            self.remember(at);
        }
        for output in out {
            self.carry_out(at, output);
        }
        self.check_deadlines();
    }

    /// A follower writes down what it knows of its owner's tree, if that is whole.
    pub(super) fn remember(&mut self, at: HostId) {
        let Some(owner) = self.follows.get(&at).map(|owner| self.hosts[*owner].peer) else { return };
        let host = &mut self.hosts[at];
        let view = host.engine.view();
        let Some(snapshot) = host.snapshot.take().or_else(|| view.begin_snapshot(owner)) else { return };
        // In portions, between which things happen.
        let remembered = match view.collect(snapshot, 1 + view.totals().steps as usize % REMEMBERED_AT_ONCE) {
            Collected::Whole(remembered) => remembered,
            Collected::Part(snapshot) => return host.snapshot = Some(snapshot),
            Collected::Overtaken => return,
        };
        // What is written down can be read: it keeps every rule.
        let entries = remembered.entries();
        let again = entries.iter().map(|(path, record, revision)| (path, record.clone(), revision.clone()));
        assert_eq!(Entries::of(again).as_ref(), Ok(entries), "host {at} remembers what makes no tree");
        host.remembered = Some(remembered);
    }

    /// Asks an engine something; the answer is checked and kept when it comes.
    pub fn ask(&mut self, at: HostId, request: Request) -> ReqId {
        self.ask_for(at, request, None)
    }

    pub(super) fn ask_for(&mut self, at: HostId, request: Request, conn: Option<ConnId>) -> ReqId {
        let id = self.hosts[at].next_request(request.clone(), self.now, conn);
        self.input(at, Input::Request(id, request));
        id
    }

    /// Asks an engine something that it has to answer at once.
    ///
    /// # Panics
    /// If it does not.
    pub fn ask_now(&mut self, at: HostId, request: Request) -> Result<Reply, Errno> {
        let id = self.hosts[at].next_request(request.clone(), self.now, None);
        let mut out = Vec::new();
        self.hosts[at].engine.step(self.now, Input::Request(id, request.clone()), &mut out);
        self.hosts[at].engine.check();
        let mut answer = None;
        for output in out {
            if let Output::Reply(of, result) = &output
                && *of == id
            {
                let errno = result.as_ref().err().copied();
                self.record(at, &output);
                let Output::Reply(_, result) = output else { continue };
                let reply = self.on_reply(at, id, result);
                answer = Some(reply.ok_or_else(|| errno.unwrap_or(Errno::Io)));
            } else {
                self.carry_out(at, output);
            }
        }
        answer.unwrap_or_else(|| panic!("{request:?} was not answered at once"))
    }

    fn carry_out(&mut self, at: HostId, output: Output) {
        self.record(at, &output);
        if tells_peers(&output) {
            self.hosts[at].write_down();
        }
        match output {
            Output::Reply(id, result) => {
                self.on_reply(at, id, result);
            }
            Output::Effect(id, effect) => self.on_effect(at, id, effect),
            Output::Cancel(effect) => {
                assert!(self.hosts[at].jobs.contains_key(&effect), "effect {effect} was cancelled, but does not run");
                let when = self.now + self.jitter(Duration::from_millis(20));
                let life = self.hosts[at].life;
                self.schedule(when, Event::CancelSeen { at, life, effect });
            }
            Output::Notice(notice) => {
                if let crate::Notice::LookAt { path } = &notice {
                    self.look(at, Look::Path(path.clone()));
                }
                self.hosts[at].kernel.note(notice);
            }
        }
    }

    fn record(&mut self, at: HostId, output: &Output) {
        let now = self.now;
        if let Some(history) = &mut self.history {
            history.push((now, at, output.clone()));
        }
    }

    fn on_effect(&mut self, at: HostId, id: EffectId, effect: Effect) {
        let reported = effect.is_reported();
        let job = match effect {
            Effect::Dial { peer, link } => {
                let takes = self.latency * 2 + self.jitter(self.latency);
                let life = self.hosts[at].life;
                self.schedule(self.now + takes, Event::DialEnds { at, life, effect: id });
                Some(Job::Dial { peer, link })
            }
            Effect::Watch { link, position, .. } => {
                let conn = self.send_or_lose(at, id, link, Message::Watch { position });
                Some(Job::Watch { conn })
            }
            Effect::Fetch { peer: _, link, wanted, chunk, frames, urgent: _ } => {
                let (content, asked) = (wanted.content, FrameSet::span(frames.start, frames.end));
                let known = self.hosts[at].wanted.entry(content).or_insert_with(|| wanted.clone());
                let (before, now) = ((known.owner, known.stamp), (wanted.owner, wanted.stamp));
                assert_eq!(before, now, "content {content} changed its version");
                self.hosts[at].store.create(content, &identity_of(&wanted), &wanted.path);
                let conn = self.send_or_lose(at, id, link, Message::Fetch { effect: id, wanted, chunk, frames });
                Some(Job::Fetch { conn, content, chunk, asked, told: FrameSet::EMPTY })
            }
            Effect::Store { content, size_bytes, chunk } => {
                let when = self.now + self.jitter(self.store_delay);
                let life = self.hosts[at].life;
                self.schedule(when, Event::StoreEnds { at, life, effect: id });
                Some(Job::Store { content, chunk, size_bytes })
            }
            Effect::Resume { content, identity, path, own, base } => {
                let crate::ContentIdentity { owner, stamp, size_bytes, modified } = identity;
                let wanted = crate::Wanted { content, path: path.clone(), owner, stamp, size_bytes, modified };
                self.hosts[at].wanted.insert(content, wanted);
                self.hosts[at].store.resume(content, &identity, &path, own, base);
                self.local_job(at, id, Job::Resume { content })
            }
            Effect::Verify { content, chunk } => self.local_job(at, id, Job::Verify { content, chunk }),
            Effect::Save { contents } => self.local_job(at, id, Job::Save { contents }),
            Effect::Apply { ops } => self.local_job(at, id, Job::Apply { ops: ops.into(), results: Vec::new() }),
            Effect::Compare { peer: _, link, wanted, chunks, in_folder } => {
                let content = wanted.content;
                self.hosts[at].store.create(content, &identity_of(&wanted), &wanted.path);
                self.hosts[at].wanted.insert(content, wanted.clone());
                let hash = Message::Hash { effect: id, wanted, chunks: chunks.clone() };
                let conn = self.send_or_lose(at, id, link, hash);
                Some(Job::Compare { conn, content, chunks, in_folder })
            }
            Effect::Rebase { content, identity, path, from, older } => {
                self.hosts[at].store.rebase(content, &identity, &path, from, older);
                None
            }
            Effect::DropBase { content } => {
                self.hosts[at].store.drop_base(content);
                None
            }
            Effect::Moved { content, path } => {
                self.hosts[at].store.note_path(content, path);
                None
            }
            Effect::Evict { key } => {
                self.hosts[at].store.evict(key);
                None
            }
            Effect::DropFrames { content, chunk } => {
                self.hosts[at].store.drop_frames(content, chunk);
                None
            }
            Effect::OpenStreams { link, wanted, .. } => {
                self.open_streams(at, link, wanted);
                None
            }
            Effect::CloseStreams { content } => {
                self.close_streams(at, content);
                None
            }
            Effect::Discard { content } => {
                self.close_streams(at, content);
                self.hosts[at].store.discard(content);
                None
            }
            Effect::HangUp { link, .. } => {
                if let Some(conn) = self.hosts[at].links.get(&link).copied() {
                    self.end_conn(conn);
                }
                None
            }
        };
        assert_eq!(job.is_some(), reported);
        if let Some(job) = job {
            let before = self.hosts[at].jobs.insert(id, job);
            assert!(before.is_none(), "effect {id} was begun twice");
        }
    }

    /// Something that only the store has to do with.
    fn local_job(&mut self, at: HostId, effect: EffectId, job: Job) -> Option<Job> {
        let when = self.now + self.jitter(self.store_delay);
        let life = self.hosts[at].life;
        self.schedule(when, Event::StoreEnds { at, life, effect });
        Some(job)
    }

    /// Sends a message over a link; if the link is gone, its effect ends a little later.
    fn send_or_lose(&mut self, at: HostId, effect: EffectId, link: crate::LinkId, message: Message) -> Option<ConnId> {
        let conn = self.hosts[at].links.get(&link).copied();
        match conn {
            Some(conn) if self.conns[conn].alive => self.send(conn, message),
            _ => {
                let when = self.now + self.jitter(Duration::from_millis(5));
                let life = self.hosts[at].life;
                self.schedule(when, Event::EffectLost { at, life, effect });
            }
        }
        conn
    }

    // What happens around the engines.

    pub(super) fn schedule(&mut self, at: Time, event: Event) {
        self.last_event += 1;
        self.events.insert((at.max(self.now), self.last_event), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Message { conn, message } => self.deliver(conn, message),
            Event::Serve(serving) => self.serve_frame(serving),
            Event::WatchAgain { conn, cursor } => self.ask_watch(conn, cursor),
            Event::DialEnds { at, life, effect } if self.is_life(at, life) => self.end_dial(at, effect),
            Event::StoreEnds { at, life, effect } if self.is_life(at, life) => self.end_store(at, effect),
            Event::CancelSeen { at, life, effect } if self.is_life(at, life) => self.cancel(at, effect),
            Event::EffectLost { at, life, effect } if self.is_life(at, life) => self.lose_effect(at, effect),
            Event::LinkLost { conn, life } => {
                let Conn { dialer, link, owner, .. } = self.conns[conn];
                if self.is_life(dialer, life) {
                    let peer = self.hosts[owner].peer;
                    self.input(dialer, Input::Peer(peer, crate::PeerEvent::LinkDown { link }));
                }
            }
            Event::Watcher { at, life } if self.is_life(at, life) => self.watch(at),
            Event::DialEnds { .. }
            | Event::StoreEnds { .. }
            | Event::CancelSeen { .. }
            | Event::EffectLost { .. }
            | Event::Watcher { .. } => {}
        }
    }

    fn is_life(&self, at: HostId, life: u32) -> bool {
        self.hosts[at].life == life
    }

    fn end_dial(&mut self, at: HostId, effect: EffectId) {
        let Some(Job::Dial { peer, link }) = self.hosts[at].jobs.get(&effect).cloned() else { return };
        self.hosts[at].jobs.remove(&effect);
        let to = self.host_of(peer);
        let between = pair(at, to);
        if self.cut.contains(&between) || self.held.contains(&between) || self.dead.contains(&to) {
            return self.input(at, Input::Done(effect, Done::Dialed(Err(DialError::Unreachable))));
        }
        self.connect(at, link, to);
        self.input(at, Input::Done(effect, Done::Dialed(Ok(()))));
    }

    fn end_store(&mut self, at: HostId, effect: EffectId) {
        let Some(job) = self.hosts[at].jobs.remove(&effect) else { return };
        let host = &mut self.hosts[at];
        let mut fault = || match &mut host.store_faults {
            Some((error, left)) if *left > 0 => {
                *left -= 1;
                Err(*error)
            }
            _ => Ok(()),
        };
        let (done, result) = match job {
            Job::Store { content, chunk, size_bytes } => {
                let result = fault();
                if result.is_ok() {
                    host.store.write(content, chunk, size_bytes);
                }
                (Done::Stored(result), result)
            }
            Job::Save { contents } => {
                let result = fault();
                if result.is_ok() {
                    host.store.save(&contents);
                }
                (Done::Saved(result), result)
            }
            Job::Resume { content } => {
                let (own, base) = host.store.resumed(content);
                (Done::Resumed { own, base }, Ok(()))
            }
            Job::Verify { content, chunk } => (Done::Verified(host.store.verify(content, chunk)), Ok(())),
            job @ Job::Apply { .. } => return self.apply_one(at, effect, job),
            Job::Dial { .. } | Job::Watch { .. } | Job::Fetch { .. } | Job::Compare { .. } => return,
        };
        if result.is_err() {
            self.trouble();
        }
        self.input(at, Input::Done(effect, done));
    }

    /// Does the next operation of a batch in a host's own folder: others change it between two of them.
    fn apply_one(&mut self, at: HostId, effect: EffectId, job: Job) {
        let Job::Apply { mut ops, mut results } = job else { return };
        let Some(op) = ops.pop_front() else {
            return self.input(at, Input::Done(effect, Done::Applied(results)));
        };
        let host = &mut self.hosts[at];
        let mut failed = match &mut host.store_faults {
            Some((error, left)) if *left > 0 => {
                *left -= 1;
                Some(match error {
                    crate::StoreError::NoSpace => crate::ApplyError::NoSpace,
                    crate::StoreError::Io => crate::ApplyError::Io,
                })
            }
            _ => None,
        };
        let version = match &op {
            // Nobody wants it any more: something newer is to be there.
            crate::Apply::Publish { content: Some(content), .. }
            | crate::Apply::KeepCopy { unless: Some(content), .. }
                if !host.store.contents().contains(content) =>
            {
                failed.get_or_insert(crate::ApplyError::Changed);
                None
            }
            crate::Apply::Publish { content: Some(content), .. }
            | crate::Apply::KeepCopy { unless: Some(content), .. } => {
                let wanted = host.wanted.get(content).unwrap_or_else(|| panic!("{op:?} has no content"));
                let (version, size) = self.versions[&(wanted.owner, wanted.stamp)];
                let there = host.store.read(*content, &(0..size));
                assert!(there == super::bytes_of(version, 0, size), "{op:?} puts other bytes there than were fetched");
                Some((version, size))
            }
            _ => None,
        };
        let host = &mut self.hosts[at];
        let result = failed.map_or_else(|| host.folder.apply(&op, version), Err);
        // The watcher of a real file system is told of what its own program does.
        op.paths().cloned().collect::<Vec<_>>().into_iter().for_each(|path| self.look(at, Look::Path(path)));
        results.push(result);
        let when = self.now + self.jitter(Duration::from_millis(1));
        let life = self.hosts[at].life;
        self.hosts[at].jobs.insert(effect, Job::Apply { ops, results });
        self.schedule(when, Event::StoreEnds { at, life, effect });
    }

    /// A driver sees that something was cancelled: it ends it at once, or lets it run to its end.
    fn cancel(&mut self, at: HostId, effect: EffectId) {
        let Some(job) = self.hosts[at].jobs.get(&effect).cloned() else { return };
        let heeds = self.chance(2);
        match job {
            Job::Fetch { conn, .. } => {
                let alive = conn.is_some_and(|conn| self.conns[conn].alive);
                if heeds || !alive {
                    self.end_fetch(at, effect, Err(FetchError::Cancelled));
                }
            }
            Job::Watch { .. } => self.lose_effect(at, effect),
            Job::Dial { .. } if heeds => {
                self.hosts[at].jobs.remove(&effect);
                self.input(at, Input::Done(effect, Done::Dialed(Err(DialError::Unreachable))));
            }
            Job::Compare { .. } => self.end_compare(at, effect, Err(FetchError::Cancelled)),
            Job::Dial { .. }
            | Job::Store { .. }
            | Job::Resume { .. }
            | Job::Verify { .. }
            | Job::Save { .. }
            | Job::Apply { .. } => {}
        }
    }

    // Looking into the folder.

    /// Changes an owner's folder, and has its watcher look. Returns whether there was anything to do.
    pub fn change(&mut self, at: HostId, change: impl FnOnce(&mut super::folder::Folder) -> Option<Vec<Look>>) -> bool {
        let Some(looks) = change(&mut self.hosts[at].folder) else { return false };
        self.trouble();
        for look in looks {
            self.look(at, look);
        }
        true
    }

    /// An owner does not offer a path any more.
    pub fn unshare(&mut self, at: HostId, path: RelPath) {
        self.trouble();
        self.hosts[at].unshared.insert(path.clone());
        self.input(at, Input::Command(Command::Unshare { path }));
    }

    /// An owner offers a path again, and has its watcher tell what is there.
    pub fn share_again(&mut self, at: HostId, path: RelPath) {
        self.trouble();
        self.hosts[at].unshared.remove(&path);
        self.input(at, Input::Command(Command::Share { path: path.clone() }));
        self.look(at, Look::Scan(path));
    }

    /// Has an owner's watcher look at something.
    pub fn look(&mut self, at: HostId, look: Look) {
        self.hosts[at].watcher.looks.push_back(look);
        self.wake_watcher(at);
    }

    pub(super) fn wake_watcher(&mut self, at: HostId) {
        let watcher = &mut self.hosts[at].watcher;
        if !watcher.busy && (watcher.scan.is_some() || !watcher.looks.is_empty()) {
            watcher.busy = true;
            let life = self.hosts[at].life;
            let when = self.now + self.jitter(Duration::from_millis(4));
            self.schedule(when, Event::Watcher { at, life });
        }
    }

    fn watch(&mut self, at: HostId) {
        self.hosts[at].watcher.busy = false;
        for _ in 0..=self.rng.up_to(4) {
            self.watch_one(at);
        }
        self.wake_watcher(at);
    }

    fn watch_one(&mut self, at: HostId) {
        if let Some((top, mut todo)) = self.hosts[at].watcher.scan.take() {
            match todo.pop_front() {
                Some(path) => {
                    if self.found(at, &path) && path != top {
                        for child in self.hosts[at].folder.children(&path).into_iter().rev() {
                            todo.push_front(child);
                        }
                    }
                    self.hosts[at].watcher.scan = Some((top, todo));
                }
                None => self.observed(at, Observation::ScanEnd { path: top }),
            }
            return;
        }
        match self.hosts[at].watcher.looks.pop_front() {
            Some(Look::Path(path)) => {
                let was_dir = self.tells_dir(at, &path);
                if self.found(at, &path) && !was_dir {
                    self.begin_scan(at, path);
                }
            }
            Some(Look::Scan(path)) => {
                let is_dir = self.found(at, &path);
                if is_dir {
                    self.begin_scan(at, path);
                }
            }
            Some(Look::Moved { from, to, inode }) => self.moved(at, from, to, inode),
            None => {}
        }
    }

    pub(super) fn begin_scan(&mut self, at: HostId, path: RelPath) {
        self.observed(at, Observation::ScanBegin { path: path.clone() });
        let todo = self.hosts[at].folder.children(&path).into();
        self.hosts[at].watcher.scan = Some((path, todo));
    }

    fn moved(&mut self, at: HostId, from: RelPath, to: RelPath, inode: u64) {
        let host = &self.hosts[at];
        let told = host.engine.tree.resolve(from.names()).and_then(|ino| host.engine.tree.get(ino));
        let told = told.and_then(|node| match node.origin {
            crate::tree::Origin::Local(facts) => Some(facts.inode),
            crate::tree::Origin::Peer(_) => None,
        });
        if told == Some(inode) && host.folder.inode_at(&to) == Some(inode) {
            self.observed(at, Observation::Moved { from: from.clone(), to: to.clone() });
        }
        let is_dir = self.found(at, &to);
        self.hosts[at].watcher.looks.push_front(Look::Path(from));
        if is_dir {
            self.begin_scan(at, to);
        }
    }

    /// Tells what is at a path. Returns whether that is a directory.
    fn found(&mut self, at: HostId, path: &RelPath) -> bool {
        match self.hosts[at].folder.seen(path) {
            Some(seen) => {
                let is_dir = seen.kind == crate::SeenKind::Dir;
                self.observed(at, Observation::Found { path: path.clone(), seen });
                is_dir
            }
            None => {
                self.observed(at, Observation::Missing { path: path.clone() });
                false
            }
        }
    }

    fn tells_dir(&self, at: HostId, path: &RelPath) -> bool {
        let tree = &self.hosts[at].engine.tree;
        tree.resolve(path.names()).and_then(|ino| tree.get(ino)).is_some_and(crate::tree::Node::is_dir)
    }

    fn observed(&mut self, at: HostId, observation: Observation) {
        self.input(at, Input::Observed(observation));
    }

    // The clock.

    /// Does the next thing, wherever it happens. `false` if nothing ever will.
    pub fn step(&mut self) -> bool {
        self.step_until(Time::from_micros(u64::MAX))
    }

    fn step_until(&mut self, limit: Time) -> bool {
        self.steps += 1;
        assert!(self.steps < self.max_steps, "the world goes round in circles");
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let timers = self.hosts.iter().enumerate().filter(|(at, _)| !self.dead.contains(at));
        let timer = timers.filter_map(|(at, host)| Some((host.engine.next_timer()?.0, at))).min();
        match (event, timer) {
            (Some(when), timer) if when <= limit && timer.is_none_or(|(due, _)| when <= due) => {
                let Some((_, event)) = self.events.pop_first() else { return false };
                self.now = when;
                self.happen(event);
            }
            (_, Some((due, at))) if due <= limit => {
                self.now = due.max(self.now);
                self.input(at, Input::Tick);
            }
            _ => return false,
        }
        true
    }

    /// Lets time pass.
    pub fn drive_for(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step_until(until) {}
        self.now = until;
        self.check_deadlines();
    }

    /// Goes on until `reached`, for at most `limit`. Returns whether it was.
    pub fn drive_bounded(&mut self, limit: Duration, mut reached: impl FnMut(&World) -> bool) -> bool {
        let until = self.now + limit;
        while !reached(self) {
            if !self.step_until(until) {
                return false;
            }
        }
        true
    }

    /// Goes on until nothing is under way any more: no message, no request, no effect but watches and dials.
    ///
    /// # Panics
    /// If that takes longer than ten minutes.
    pub fn drive(&mut self) {
        let quiet = self.drive_bounded(Duration::from_secs(600), World::is_quiet);
        assert!(quiet, "nothing becomes quiet: {:?}", self.events);
    }

    /// Whether nothing is under way but watches and dials.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.hosts.iter().all(Host::is_quiet)
            && self.events.values().all(|event| matches!(event, Event::DialEnds { .. }))
    }

    pub(super) fn jitter(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.rng.up_to(most.as_micros() as u64))
    }

    /// True once in `of` times.
    pub(super) fn chance(&mut self, of: u64) -> bool {
        self.rng.up_to(of - 1) == 0
    }
}

/// Which bytes a fetch is about.
/// Whether a peer comes to know by it what the engine knows.
fn tells_peers(output: &Output) -> bool {
    matches!(output, Output::Reply(_, Ok(Reply::Watched { .. })) | Output::Effect(_, Effect::Watch { .. }))
}

fn identity_of(wanted: &crate::Wanted) -> crate::ContentIdentity {
    let crate::Wanted { owner, stamp, size_bytes, modified, .. } = *wanted;
    crate::ContentIdentity { owner, stamp, size_bytes, modified }
}
