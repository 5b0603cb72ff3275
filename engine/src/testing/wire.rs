//! Connections in memory: what travels over them, and how an owner's driver serves.

use super::host::{Asked, HostId, Job};
use super::world::{Event, World};
use crate::chunk::{FrameSet, chunk_range, frames_range};
use crate::event::{Position, TreeUpdate};
use crate::fault::PeerFault;
use crate::ids::{EffectId, LinkId};
use crate::input::{Done, FetchError, Input, PeerEvent, Request, Wanted, WatchCursor};
use crate::output::{Errno, Reply};
use crate::time::Time;
use core::ops::Range;
use core::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// A connection, numbered by the world.
pub type ConnId = usize;

/// A connection from a follower to an owner.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) dialer: HostId,
    /// In which of its lives it dialled: a later one hears nothing of what travels here.
    life: u32,
    pub(super) link: LinkId,
    pub(super) owner: HostId,
    pub(super) alive: bool,
    /// Whether something that was sent to the dialer is lost: what was sent after it is too.
    pub(super) broken: bool,
    /// What was sent last arrives then, in each direction: nothing overtakes.
    last_at: [Time; 2],
    /// What would have arrived while the network was held.
    pub(super) held: Vec<Message>,
}

/// What travels.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Watch { position: Position },
    Fetch { effect: EffectId, wanted: Wanted, chunk: u64, frames: Range<u32> },
    Hash { effect: EffectId, wanted: Wanted, chunks: Range<u64> },
    Open { wanted: Wanted },
    Close { wanted: Wanted },
    Tree { updates: Vec<TreeUpdate> },
    Frame { effect: EffectId, frame: u32, bytes: Vec<u8>, hash: u64 },
    FetchEnd { effect: EffectId, result: Result<(), FetchError> },
    Hashes { effect: EffectId, result: Result<Vec<u64>, FetchError> },
}

/// An owner on its way through the frames that were asked for.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) conn: ConnId,
    effect: EffectId,
    inode: u64,
    version: u64,
    wanted: Wanted,
    chunk: u64,
    frames: Range<u32>,
}

/// Something that an owner does wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// A frame's bytes do not match its hash.
    Hash,
    /// A frame that was not asked for.
    Range,
    /// It says that it is done before it is.
    TooLittle,
    /// It refuses, or fails.
    Refuse(FetchError),
}

impl Message {
    fn direction(&self) -> usize {
        match self {
            Message::Watch { .. }
            | Message::Fetch { .. }
            | Message::Hash { .. }
            | Message::Open { .. }
            | Message::Close { .. } => 0,
            Message::Tree { .. } | Message::Frame { .. } | Message::FetchEnd { .. } | Message::Hashes { .. } => 1,
        }
    }
}

impl World {
    pub(super) fn connect(&mut self, dialer: HostId, link: LinkId, owner: HostId) -> ConnId {
        let last_at = [self.now; 2];
        let life = self.hosts[dialer].life;
        let conn = Conn { dialer, life, link, owner, alive: true, broken: false, last_at, held: Vec::new() };
        self.conns.push(conn);
        let id = self.conns.len() - 1;
        self.hosts[dialer].links.insert(link, id);
        id
    }

    pub(super) fn send(&mut self, conn: ConnId, message: Message) {
        if !self.conns[conn].alive {
            return;
        }
        let travels = self.latency + self.jitter(self.latency);
        let direction = message.direction();
        let last = &mut self.conns[conn].last_at[direction];
        let at = (self.now + travels).max(*last + Duration::from_micros(1));
        *last = at;
        self.schedule(at, Event::Message { conn, message });
    }

    pub(super) fn deliver(&mut self, conn: ConnId, message: Message) {
        let Conn { dialer, link, owner, alive, .. } = self.conns[conn];
        if self.held.contains(&pair(dialer, owner)) {
            if alive {
                self.conns[conn].held.push(message);
            } else {
                self.conns[conn].broken = true;
            }
            return;
        }
        if self.hosts[dialer].life != self.conns[conn].life {
            return;
        }
        match message {
            // A driver may have had it in hand when the connection ended.
            Message::Tree { updates } if alive || self.is_in_hand(conn) => {
                let peer = self.hosts[owner].peer;
                self.input(dialer, Input::Peer(peer, PeerEvent::Tree { link, updates }));
            }
            _ if !alive => {}
            Message::Tree { .. } => {}
            Message::Watch { position } => self.ask_watch(conn, WatchCursor::at(position)),
            Message::Fetch { effect, wanted, chunk, frames } => self.serve(conn, effect, wanted, chunk, frames),
            Message::Hash { effect, wanted, chunks } => self.serve_hashes(conn, effect, &wanted, chunks),
            Message::Hashes { effect, result } => self.end_compare(dialer, effect, result),
            // Who cannot be given a lease hears of it when it asks for bytes.
            Message::Open { wanted } => drop(self.lease(conn, &wanted)),
            Message::Close { wanted } => self.end_lease(conn, &wanted),
            Message::Frame { effect, frame, bytes, hash } => self.on_frame(dialer, effect, frame, bytes, hash),
            Message::FetchEnd { effect, result } => self.end_fetch(dialer, effect, result),
        }
    }

    fn is_in_hand(&mut self, conn: ConnId) -> bool {
        let lost = self.conns[conn].broken || self.chance(2);
        self.conns[conn].broken = lost;
        !lost
    }

    // The owner's side.

    pub(super) fn ask_watch(&mut self, conn: ConnId, cursor: WatchCursor) {
        let Conn { dialer, owner, alive, .. } = self.conns[conn];
        if alive {
            let peer = self.hosts[dialer].peer;
            self.ask_for(owner, Request::PeerWatch { peer, cursor }, Some(conn));
        }
    }

    pub(super) fn on_watched(&mut self, _owner: HostId, asked: &Asked, updates: Vec<TreeUpdate>, cursor: WatchCursor) {
        let Some(conn) = asked.conn else { return };
        if updates.is_empty() {
            let stood = asked.cursor().map(|cursor| (cursor.position, cursor.listing.clone()));
            let stands = (cursor.position, cursor.listing.clone());
            assert_eq!(stood, Some(stands), "a follower was told nothing and stands somewhere else");
        }
        self.send(conn, Message::Tree { updates });
        let again = self.now + self.watch_pause + self.jitter(self.latency);
        self.schedule(again, Event::WatchAgain { conn, cursor });
    }

    fn serve(&mut self, conn: ConnId, effect: EffectId, wanted: Wanted, chunk: u64, frames: Range<u32>) {
        if let Some(Spoil::Refuse(error)) = self.spoils.front().copied() {
            self.spoils.pop_front();
            self.trouble();
            return self.send(conn, Message::FetchEnd { effect, result: Err(error) });
        }
        let (inode, version) = match self.lease(conn, &wanted) {
            Ok(opened) => opened,
            Err(error) => return self.send(conn, Message::FetchEnd { effect, result: Err(error) }),
        };
        let serving = Serving { conn, effect, inode, version, wanted, chunk, frames };
        let at = self.now + self.jitter(self.frame_gap);
        self.schedule(at, Event::Serve(serving));
    }

    fn serve_hashes(&mut self, conn: ConnId, effect: EffectId, wanted: &Wanted, chunks: Range<u64>) {
        let owner = self.conns[conn].owner;
        let opened = match self.spoils.front().copied() {
            Some(Spoil::Refuse(error)) => {
                self.spoils.pop_front();
                self.trouble();
                Err(error)
            }
            _ => self.lease(conn, wanted),
        };
        let result = opened.map(|(inode, version)| {
            let serving = Serving { conn, effect, inode, version, wanted: wanted.clone(), chunk: 0, frames: 0..0 };
            self.note_version(&serving);
            let hash = |chunk| {
                let range = chunk_range(chunk, wanted.size_bytes);
                let bytes = self.hosts[owner].folder.read(inode, range.start, range.end - range.start);
                xxh3_64(&bytes.unwrap_or_default())
            };
            chunks.map(hash).collect()
        });
        self.send(conn, Message::Hashes { effect, result });
    }

    /// Which file an owner reads for a follower, in which version: the one that it asks the engine for.
    pub(super) fn open_now(&mut self, conn: ConnId, wanted: &Wanted) -> Result<(u64, u64), FetchError> {
        let Conn { dialer, owner, .. } = self.conns[conn];
        let peer = self.hosts[dialer].peer;
        let request = Request::PeerOpen { peer, path: wanted.path.clone(), stamp: wanted.stamp };
        match self.ask_now(owner, request) {
            Ok(Reply::PeerOpened(served)) => {
                let seen = self.hosts[owner].folder.seen(&served.path);
                let as_told = seen.is_some_and(|seen| seen.facts == served.facts && seen.modified == served.modified);
                if as_told { self.open_version(owner, served.facts.inode) } else { Err(FetchError::Stale) }
            }
            Ok(Reply::NotHereYet) => Err(FetchError::NotYet),
            Ok(other) => panic!("{other:?}"),
            Err(Errno::NoEntry) => Err(FetchError::Gone),
            Err(Errno::Stale) => Err(FetchError::Stale),
            Err(errno) => panic!("an owner answered {errno:?}"),
        }
    }

    fn open_version(&self, owner: HostId, inode: u64) -> Result<(u64, u64), FetchError> {
        match self.hosts[owner].folder.object_of(inode).map(|object| &object.kind) {
            Some(super::folder::ObjectKind::File { version, .. }) => Ok((inode, *version)),
            Some(super::folder::ObjectKind::Dir | super::folder::ObjectKind::Symlink(_)) | None => {
                Err(FetchError::Gone)
            }
        }
    }

    pub(super) fn serve_frame(&mut self, mut serving: Serving) {
        let Conn { owner, alive, .. } = self.conns[serving.conn];
        if !alive {
            return;
        }
        let (conn, effect) = (serving.conn, serving.effect);
        if self.open_version(owner, serving.inode) != Ok((serving.inode, serving.version)) {
            return self.send(conn, Message::FetchEnd { effect, result: Err(FetchError::Stale) });
        }
        let Some(frame) = serving.frames.next() else {
            return self.send(conn, Message::FetchEnd { effect, result: Ok(()) });
        };
        let spoil = self.spoils.front().copied().filter(|spoil| !matches!(spoil, Spoil::Refuse(_)));
        if spoil.is_some() {
            self.spoils.pop_front();
            self.trouble();
        }
        let whole = chunk_range(serving.chunk, serving.wanted.size_bytes);
        let range = frames_range(serving.chunk, &(frame..frame + 1), serving.wanted.size_bytes);
        assert!(!range.is_empty(), "frame {frame} of {whole:?} was asked for");
        let bytes = self.hosts[owner].folder.read(serving.inode, range.start, range.end - range.start);
        let bytes = bytes.unwrap_or_default();
        self.note_version(&serving);
        let hash = xxh3_64(&bytes);
        match spoil {
            Some(Spoil::TooLittle) => return self.send(conn, Message::FetchEnd { effect, result: Ok(()) }),
            Some(Spoil::Hash) => self.send(conn, Message::Frame { effect, frame, bytes, hash: !hash }),
            Some(Spoil::Range) => self.send(conn, Message::Frame { effect, frame: 9, bytes, hash }),
            Some(Spoil::Refuse(_)) | None => self.send(conn, Message::Frame { effect, frame, bytes, hash }),
        }
        let at = self.now + self.frame_gap + self.jitter(self.frame_gap);
        self.schedule(at, Event::Serve(serving));
    }

    /// One stamp never means two versions.
    fn note_version(&mut self, serving: &Serving) {
        let owner = serving.wanted.owner;
        let version = (serving.version, serving.wanted.size_bytes);
        let known = *self.versions.entry((owner, serving.wanted.stamp)).or_insert(version);
        assert_eq!(known, version, "one stamp names two versions of {}", serving.wanted.path);
    }

    // The follower's side.

    fn on_frame(&mut self, at: HostId, effect: EffectId, frame: u32, bytes: Vec<u8>, hash: u64) {
        let Some(Job::Fetch { content, chunk, asked, told, .. }) = self.hosts[at].jobs.get(&effect).cloned() else {
            return;
        };
        let set = FrameSet::span(frame, frame + 1);
        if set.is_empty() || !asked.minus(told).contains(set) {
            return self.end_fetch(at, effect, Err(FetchError::Fault(PeerFault::WrongRange)));
        }
        if xxh3_64(&bytes) != hash {
            return self.end_fetch(at, effect, Err(FetchError::Fault(PeerFault::WrongHash)));
        }
        if !self.hosts[at].engine.wants(effect) {
            return;
        }
        self.hosts[at].store.hold(content, chunk, frame, bytes);
        if let Some(Job::Fetch { told, .. }) = self.hosts[at].jobs.get_mut(&effect) {
            *told = told.union(set);
        }
        self.input(at, Input::Arrived(effect, set));
    }

    pub(super) fn end_fetch(&mut self, at: HostId, effect: EffectId, result: Result<(), FetchError>) {
        if matches!(self.hosts[at].jobs.get(&effect), Some(Job::Fetch { .. })) {
            self.hosts[at].jobs.remove(&effect);
            self.input(at, Input::Done(effect, Done::Fetched(result)));
        }
    }

    /// Takes over what is the same in another version.
    pub(super) fn end_compare(&mut self, at: HostId, effect: EffectId, result: Result<Vec<u64>, FetchError>) {
        let Some(Job::Compare { content, chunks, in_folder, .. }) = self.hosts[at].jobs.get(&effect).cloned() else {
            return;
        };
        self.hosts[at].jobs.remove(&effect);
        let host = &mut self.hosts[at];
        let mut adopt = |chunk: u64, hash: u64| match &in_folder {
            Some(older) => {
                let bytes = host.folder.chunk_of(older, chunk);
                bytes.is_some_and(|bytes| host.store.adopt_bytes(content, chunk, hash, bytes))
            }
            None => host.store.adopt(content, chunk, hash),
        };
        let same = |hashes: Vec<u64>| {
            chunks.zip(hashes).filter(|(chunk, hash)| adopt(*chunk, *hash)).map(|(chunk, _)| chunk).collect()
        };
        let result = result.map(same);
        self.input(at, Input::Done(effect, Done::Compared(result)));
    }

    /// Ends what runs over a connection that is gone.
    pub(super) fn lose_effect(&mut self, at: HostId, effect: EffectId) {
        match self.hosts[at].jobs.get(&effect) {
            Some(Job::Fetch { .. }) => self.end_fetch(at, effect, Err(FetchError::LinkLost)),
            Some(Job::Compare { .. }) => self.end_compare(at, effect, Err(FetchError::LinkLost)),
            Some(Job::Watch { .. }) => {
                self.hosts[at].jobs.remove(&effect);
                self.input(at, Input::Done(effect, Done::WatchEnded));
            }
            Some(
                Job::Dial { .. }
                | Job::Store { .. }
                | Job::Resume { .. }
                | Job::Verify { .. }
                | Job::Save { .. }
                | Job::Apply { .. },
            )
            | None => {}
        }
    }
}

/// Two hosts, in whichever order.
pub(super) fn pair(a: HostId, b: HostId) -> (HostId, HostId) {
    (a.min(b), a.max(b))
}
