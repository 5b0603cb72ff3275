//! One engine, driven by hand: the test is the driver, and sees every single output.

use super::app::path;
use crate::chunk::FrameSet;
use crate::config::Config;
use crate::engine::Engine;
use crate::event::{Change, Observation, Position, Seen, SeenKind, TreeUpdate};
use crate::ids::{EffectId, Handle, Ino, LinkId, PeerId, ReqId};
use crate::input::{Command, Done, FetchError, Input, PeerEvent, Request};
use crate::output::{Effect, Errno, Notice, Output, Reply};
use crate::record::{Facts, FileTime, Kind, Record, Stamp};
use crate::time::Time;
use crate::version::{DeviceTag, Dot, Revision};
use crate::xattrs::Xattrs;
use core::ops::Range;
use core::time::Duration;

/// One engine whose driver is a test. After every input, [`Engine::check`] has run.
#[derive(Debug)]
pub struct Hand {
    /// The engine.
    pub engine: Engine,
    /// Its time.
    pub now: Time,
    /// The connection to the peer, if there is one.
    pub link: LinkId,
    /// The watch over it.
    pub watch: EffectId,
    /// The number of the last event told.
    pub seq: u64,
    last_request: u64,
}

/// A fetch that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchSeen {
    /// Its number.
    pub effect: EffectId,
    /// Who is asked.
    pub peer: PeerId,
    /// Of which chunk.
    pub chunk: u64,
    /// Which frames.
    pub frames: Range<u32>,
    /// Whether somebody waits.
    pub urgent: bool,
    /// Where the owner has the bytes.
    pub path: String,
    /// Which bytes.
    pub stamp: Stamp,
}

impl Hand {
    /// The peer that is followed.
    pub const PEER: PeerId = PeerId([9; 32]);

    /// An engine that follows nobody. What connections carry is of no account: nothing comes over them by itself here.
    #[must_use]
    pub fn new(config: Config) -> Hand {
        Hand::with(Config { least_ahead_bytes: config.ahead_bytes, ..config })
    }

    fn with(config: Config) -> Hand {
        let (link, watch) = (LinkId(0), EffectId(0));
        Hand { engine: Engine::new(config, 3, Time::ZERO), now: Time::ZERO, link, watch, seq: 0, last_request: 0 }
    }

    /// An engine that follows [`Hand::PEER`], is connected, and was told of these files.
    #[must_use]
    pub fn following(config: Config, files: &[(&str, u64)]) -> Hand {
        Hand::new(config).follow(files)
    }

    /// The same, and what is asked for depends on what the connection carries.
    #[must_use]
    pub fn following_at_its_pace(config: Config, files: &[(&str, u64)]) -> Hand {
        Hand::with(config).follow(files)
    }

    fn follow(mut self, files: &[(&str, u64)]) -> Hand {
        let hand = &mut self;
        let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
        hand.connect(&out);
        hand.list(files);
        self
    }

    /// Answers the dial in `out` with a connection, and takes note of its watch.
    ///
    /// # Panics
    /// If there is no dial in `out`.
    pub fn connect(&mut self, out: &[Output]) -> Vec<Output> {
        let dial = out.iter().find_map(|output| match output {
            Output::Effect(id, Effect::Dial { link, .. }) => Some((*id, *link)),
            _ => None,
        });
        let Some((dial, link)) = dial else { panic!("nobody is dialled: {out:?}") };
        let out = self.give(Input::Done(dial, Done::Dialed(Ok(()))));
        self.link = link;
        let watch = out.iter().find_map(|output| match output {
            Output::Effect(id, Effect::Watch { .. }) => Some(*id),
            _ => None,
        });
        self.watch = watch.unwrap_or_else(|| panic!("nothing is watched: {out:?}"));
        out
    }

    /// Tells a whole listing of these files, in epoch 1, with the directories that lead to them.
    pub fn list(&mut self, files: &[(&str, u64)]) -> Vec<Output> {
        let mut updates = vec![TreeUpdate::Begin { position: Position { epoch: 1, seq: self.seq } }];
        updates.extend(files.iter().map(|(file, size_bytes)| Hand::entry(file, file_record(*size_bytes, 1))));
        updates.push(TreeUpdate::End { settled: self.seq });
        self.tell(updates)
    }

    /// One entry of a listing.
    #[must_use]
    pub fn entry(at: &str, record: Record) -> TreeUpdate {
        TreeUpdate::Entry { path: path(at), record, revision: revision() }
    }

    /// Tells updates of the peer's tree over the connection that is there.
    pub fn tell(&mut self, updates: Vec<TreeUpdate>) -> Vec<Output> {
        let link = self.link;
        self.give(Input::Peer(Hand::PEER, PeerEvent::Tree { link, updates }))
    }

    /// Tells the next event.
    pub fn event(&mut self, change: Change) -> Vec<Output> {
        self.seq += 1;
        let seq = self.seq;
        self.tell(vec![TreeUpdate::Event { seq, change }])
    }

    /// Tells that a path has a record now.
    pub fn put(&mut self, at: &str, record: Record, replaced: bool) -> Vec<Output> {
        self.event(Change::Put { path: path(at), record, revision: revision(), replaced })
    }

    /// Gives an input.
    pub fn give(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.engine.step(self.now, input, &mut out);
        self.engine.check();
        out
    }

    /// Lets time pass, with every timer at its moment.
    pub fn pass(&mut self, span: Duration) -> Vec<Output> {
        let until = self.now + span;
        let mut all = Vec::new();
        while let Some((at, _)) = self.engine.next_timer().filter(|(at, _)| *at <= until) {
            self.now = at.max(self.now);
            all.extend(self.give(Input::Tick));
        }
        self.now = until;
        all
    }

    /// Asks something.
    pub fn ask(&mut self, request: Request) -> (ReqId, Vec<Output>) {
        self.last_request += 1;
        let id = ReqId(self.last_request);
        let out = self.give(Input::Request(id, request));
        (id, out)
    }

    /// Asks something that is answered at once.
    ///
    /// # Errors
    /// What the engine says.
    pub fn ask_now(&mut self, request: Request) -> Result<Reply, Errno> {
        let (id, out) = self.ask(request);
        Hand::reply(&out, id).unwrap_or_else(|| panic!("request {id} was not answered: {out:?}"))
    }

    /// Looks up a name in the root.
    ///
    /// # Panics
    /// If it is not there.
    pub fn ino(&mut self, at: &str) -> Ino {
        self.engine.view().resolve(&path(at)).unwrap_or_else(|| panic!("{at} is not there"))
    }

    /// Looks up a path, as the kernel does, and opens it.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn open(&mut self, at: &str) -> Handle {
        let mut parent = Ino::ROOT;
        for name in path(at).names() {
            match self.ask_now(Request::Lookup { parent, name: name.clone() }) {
                Ok(Reply::Entry(attr)) => parent = attr.ino,
                other => panic!("{at}: {other:?}"),
            }
        }
        match self.ask_now(Request::Open { ino: parent, write: false, whole_from: None }) {
            Ok(Reply::Opened(opened)) => opened.handle,
            other => panic!("{at}: {other:?}"),
        }
    }

    /// Reads.
    pub fn read(&mut self, handle: Handle, offset: u64, len: u32) -> (ReqId, Vec<Output>) {
        self.ask(Request::Read { handle, offset, len })
    }

    /// Tells that frames of a fetch have arrived.
    pub fn arrive(&mut self, effect: EffectId, frames: Range<u32>) -> Vec<Output> {
        self.give(Input::Arrived(effect, FrameSet::span(frames.start, frames.end)))
    }

    /// Tells that all frames of a fetch have arrived, and that it has ended.
    pub fn bring(&mut self, fetch: &FetchSeen) -> Vec<Output> {
        let mut out = self.arrive(fetch.effect, fetch.frames.clone());
        out.extend(self.give(Input::Done(fetch.effect, Done::Fetched(Ok(())))));
        out
    }

    /// Tells that a fetch has failed.
    pub fn fail(&mut self, fetch: &FetchSeen, error: FetchError) -> Vec<Output> {
        self.give(Input::Done(fetch.effect, Done::Fetched(Err(error))))
    }

    /// Tells that the connection is gone, and ends what ran over it.
    pub fn lose_link(&mut self, running: &[FetchSeen]) -> Vec<Output> {
        let (link, watch) = (self.link, self.watch);
        let mut out = self.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
        out.extend(self.give(Input::Done(watch, Done::WatchEnded)));
        for fetch in running {
            out.extend(self.fail(fetch, FetchError::LinkLost));
        }
        out
    }

    /// Tells that a file is in our own folder.
    pub fn found(&mut self, at: &str, kind: SeenKind, mode: u16, modified: i64, facts: (u64, i64)) -> Vec<Output> {
        let time = |seconds| FileTime { seconds, nanos: 0 };
        let facts = Facts { inode: facts.0, changed: time(facts.1) };
        let seen = Seen { kind, mode, modified: time(modified), xattrs: Some(Xattrs::default()), facts };
        self.give(Input::Observed(Observation::Found { path: path(at), seen }))
    }

    // What is in a list of outputs.

    /// The answer to a request.
    #[must_use]
    pub fn reply(out: &[Output], id: ReqId) -> Option<Result<Reply, Errno>> {
        let mut replies = out.iter().filter_map(|output| match output {
            Output::Reply(of, result) if *of == id => Some(result.clone()),
            _ => None,
        });
        let first = replies.next();
        assert!(replies.next().is_none(), "request {id} was answered twice: {out:?}");
        first
    }

    /// The fetches that were begun.
    #[must_use]
    pub fn fetches(out: &[Output]) -> Vec<FetchSeen> {
        out.iter()
            .filter_map(|output| match output {
                Output::Effect(effect, Effect::Fetch { peer, wanted, chunk, frames, urgent, .. }) => Some(FetchSeen {
                    effect: *effect,
                    peer: *peer,
                    chunk: *chunk,
                    frames: frames.clone(),
                    urgent: *urgent,
                    path: wanted.path.to_string(),
                    stamp: wanted.stamp,
                }),
                _ => None,
            })
            .collect()
    }

    /// The stores that were begun, with their chunks.
    #[must_use]
    pub fn stores(out: &[Output]) -> Vec<(EffectId, u64)> {
        out.iter()
            .filter_map(|output| match output {
                Output::Effect(effect, Effect::Store { chunk, .. }) => Some((*effect, *chunk)),
                _ => None,
            })
            .collect()
    }

    /// The effects that were cancelled.
    #[must_use]
    pub fn cancelled(out: &[Output]) -> Vec<EffectId> {
        out.iter()
            .filter_map(|output| match output {
                Output::Cancel(effect) => Some(*effect),
                _ => None,
            })
            .collect()
    }

    /// The notices.
    #[must_use]
    pub fn notices(out: &[Output]) -> Vec<&Notice> {
        out.iter()
            .filter_map(|output| match output {
                Output::Notice(notice) => Some(notice),
                _ => None,
            })
            .collect()
    }
}

/// The state of a path that [`Hand::PEER`] changed once.
#[must_use]
pub fn revision() -> Revision {
    Dot { author: DeviceTag::of(&Hand::PEER), counter: 1 }.into()
}

/// What a peer says of a path that is gone.
#[must_use]
pub fn removed(at: &str) -> Change {
    Change::Remove { path: path(at), revision: revision() }
}

/// What a peer says of what it has renamed.
#[must_use]
pub fn renamed(from: &str, to: &str, record: Record) -> Change {
    let revision = revision();
    let left = revision.version.clone();
    Change::Rename { from: path(from), to: path(to), record, revision, left, digest: 0 }
}

/// The record of a file.
#[must_use]
pub fn file_record(size_bytes: u64, stamp: u64) -> Record {
    let kind = Kind::File { size_bytes, stamp: Stamp(stamp) };
    Record { kind, mode: 0o644, modified: FileTime { seconds: 5, nanos: 0 }, xattrs: Xattrs::default() }
}

/// The record of a directory.
#[must_use]
pub fn dir_record() -> Record {
    Record { kind: Kind::Dir, mode: 0o755, ..file_record(0, 0) }
}
