//! What Farshore costs, measured: `cargo bench -p farshore-benches`. The benches drive the engine like a program does,
//! through its public functions; what they share is here.

use farshore_engine::chunk::{CHUNK_SIZE, FrameSet};
use farshore_engine::path::{Name, RelPath};
use farshore_engine::record::{FileTime, Kind, Record, Stamp};
use farshore_engine::{
    Command, Config, DeviceTag, Done, Dot, Effect, EffectId, Engine, Handle, Ino, Input, LinkId, Output, PeerEvent,
    PeerId, Position, Reply, ReqId, Request, Time, TreeUpdate, Xattrs,
};

/// Entries of the tree that the engine knows, as many as a large source tree has.
pub const ENTRIES: u64 = 20_000;

/// Chunks of every file in it.
pub const FILE_CHUNKS: u64 = 1_024;

const PEER: PeerId = PeerId([7; 32]);

/// An engine that is connected to a peer, and has heard of [`ENTRIES`] files in directories of 200.
#[derive(Debug)]
pub struct Driver {
    engine: Engine,
    now: u64,
    request: u64,
    /// What the last step put out.
    pub out: Vec<Output>,
}

/// A fetch that the engine asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Its number.
    pub effect: EffectId,
    /// The frames that it asked for.
    pub frames: FrameSet,
}

impl Driver {
    /// Connects an engine with `config`, and lists the tree.
    ///
    /// # Panics
    /// If the engine does not do what it should.
    #[must_use]
    pub fn connected(config: Config) -> Driver {
        let mut driver = Driver { engine: Engine::new(config, 1, Time::ZERO), now: 0, request: 0, out: Vec::new() };
        driver.step(Input::Command(Command::Follow { peer: PEER }));
        let [Output::Effect(dial, Effect::Dial { link, .. })] = driver.out[..] else { panic!("{:?}", driver.out) };
        driver.step(Input::Done(dial, Done::Dialed(Ok(()))));
        let updates = listing();
        driver.step(Input::Peer(PEER, PeerEvent::Tree { link: LinkId(link.0), updates }));
        driver
    }

    /// One step, a microsecond after the one before.
    pub fn step(&mut self, input: Input) {
        self.now += 1;
        self.out.clear();
        self.engine.step(Time::from_micros(self.now), input, &mut self.out);
    }

    /// One request. Its answer, if it came at once, is in `out`.
    pub fn ask(&mut self, request: Request) {
        self.request += 1;
        self.step(Input::Request(ReqId(self.request), request));
    }

    /// Looks up and opens a file of the tree.
    ///
    /// # Panics
    /// If it is not there.
    pub fn open(&mut self, dir: u64, file: u64) -> Handle {
        let mut ino = Ino::ROOT;
        for name in [dir_name(dir), file_name(file)] {
            self.ask(Request::Lookup { parent: ino, name });
            let [Output::Reply(_, Ok(Reply::Entry(attr)))] = &self.out[..] else { panic!("{:?}", self.out) };
            ino = attr.ino;
        }
        self.ask(Request::Open { ino, write: false, whole_from: None });
        // It may ask for streams as well.
        let opened = self.out.iter().find_map(|output| match output {
            Output::Reply(_, Ok(Reply::Opened(opened))) => Some(opened.handle),
            Output::Reply(..) | Output::Effect(..) | Output::Cancel(_) | Output::Notice(_) => None,
        });
        opened.unwrap_or_else(|| panic!("{:?}", self.out))
    }

    /// The first fetch that the last step asked for.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn fetch(&self) -> Asked {
        let asked = fetches(&self.out).next();
        asked.unwrap_or_else(|| panic!("nothing is fetched: {:?}", self.out))
    }

    /// Tells that all frames of a fetch have arrived, that it has ended, and that the chunk is stored.
    pub fn bring(&mut self, asked: Asked) {
        self.step(Input::Arrived(asked.effect, asked.frames));
        let store = self.out.iter().find_map(|output| match output {
            Output::Effect(effect, Effect::Store { .. }) => Some(*effect),
            Output::Reply(..) | Output::Effect(..) | Output::Cancel(_) | Output::Notice(_) => None,
        });
        self.step(Input::Done(asked.effect, Done::Fetched(Ok(()))));
        if let Some(store) = store {
            self.step(Input::Done(store, Done::Stored(Ok(()))));
        }
    }
}

/// The name of a directory of the tree.
///
/// # Panics
/// Never: the name is short.
#[must_use]
pub fn dir_name(dir: u64) -> Name {
    Name::new(format!("dir{dir:03}").as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// The name of a file of the tree.
///
/// # Panics
/// Never: the name is short.
#[must_use]
pub fn file_name(file: u64) -> Name {
    Name::new(format!("file{file:03}.bin").as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// A listing of [`ENTRIES`] files.
///
/// # Panics
/// Never: the paths are short.
#[must_use]
pub fn listing() -> Vec<TreeUpdate> {
    let record =
        |kind| Record { kind, mode: 0o755, modified: FileTime { seconds: 1, nanos: 0 }, xattrs: Xattrs::default() };
    let path = |names: Vec<Name>| RelPath::new(names).unwrap_or_else(|error| panic!("{error}"));
    let revision = || Dot { author: DeviceTag(1), counter: 1 }.into();
    let mut updates = vec![TreeUpdate::Begin { position: Position { epoch: 1, seq: 0 } }];
    for index in 0..ENTRIES {
        let (dir, file) = (index / 200, index % 200);
        if file == 0 {
            updates.push(TreeUpdate::Entry {
                path: path(vec![dir_name(dir)]),
                record: record(Kind::Dir),
                revision: revision(),
            });
        }
        let kind = Kind::File { size_bytes: FILE_CHUNKS * CHUNK_SIZE, stamp: Stamp(index) };
        updates.push(TreeUpdate::Entry {
            path: path(vec![dir_name(dir), file_name(file)]),
            record: record(kind),
            revision: revision(),
        });
    }
    updates.push(TreeUpdate::End { settled: 0 });
    updates
}

/// All fetches that a step asked for.
pub fn fetches(out: &[Output]) -> impl Iterator<Item = Asked> {
    out.iter().filter_map(|output| match output {
        Output::Effect(effect, Effect::Fetch { frames, .. }) => {
            Some(Asked { effect: *effect, frames: FrameSet::span(frames.start, frames.end) })
        }
        Output::Reply(..) | Output::Effect(..) | Output::Cancel(_) | Output::Notice(_) => None,
    })
}
