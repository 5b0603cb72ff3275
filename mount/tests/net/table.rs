//! The table "When a file is taken away from its readers" of `docs/SEMANTICS.md`, played: two nodes, a folder on disk,
//! the real client and server between them. Each cell of the table is what really came out.

use crate::memory::{Memory, OWNER, READER, Weather};
use crate::owner::{hello, name};
use farshore::folder::{DiskFolder, FolderEvent, Watcher};
use farshore::net::transport::Transport;
use farshore::net::{Guests, Leases, serve_with};
use farshore::node::{Admission, Answer, Node, Parts, Route};
use farshore::store::MemoryStore;
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::path::RelPath;
use farshore_engine::{Attr, Command, Config, Errno, Handle, Ino, Link, PeerId, Reply, Request};
use farshore_proto::Hello;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;

const HEADING: &str = "## When a file is taken away from its readers";

const COLUMNS: [&str; 5] =
    ["the file is", "look up, open", "read what is here", "read the rest, with a lease", "read the rest, without one"];

/// What may become of a file, as the table names it.
const STATES: [(&str, State); 9] = [
    ("shared", State::Shared),
    ("renamed by its owner", State::Renamed),
    ("not shared any more", State::Unshared),
    ("removed", State::Removed),
    ("renamed over by another one", State::RenamedOver),
    ("rewritten in place", State::Rewritten),
    ("removed, and then rewritten", State::RemovedAndRewritten),
    ("shared by an owner who cannot be reached", State::Unreachable),
    ("removed, and its owner started again", State::RemovedAndRestarted),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Shared,
    Renamed,
    Unshared,
    Removed,
    RenamedOver,
    Rewritten,
    RemovedAndRewritten,
    Unreachable,
    RemovedAndRestarted,
}

const SIZE_BYTES: u64 = 4 * CHUNK_SIZE;
const LIMIT: Duration = Duration::from_secs(60);

/// The bytes of a version of the file.
fn version(number: u8) -> Vec<u8> {
    (0..SIZE_BYTES).map(|at| (at / 1000) as u8 ^ (at as u8).wrapping_mul(31) ^ number).collect()
}

pub(crate) struct Anybody;

impl Admission for Anybody {
    fn admit(&self, _: PeerId, _: Hello) -> BoxFuture<'static, bool> {
        async { true }.boxed()
    }
}

fn node(config: Config, network: &Memory, folder: Option<DiskFolder>, peers: BTreeMap<PeerId, Route>) -> Arc<Node> {
    Node::start(Parts {
        config,
        seed: 1,
        transport: Arc::new(network.clone()),
        store: Arc::new(MemoryStore::default()),
        folder: folder.map(|folder| Arc::new(folder) as Arc<_>),
        admission: Arc::new(Anybody),
        peers,
        call_back: None,
        remembered: None,
    })
}

/// An owner's process.
pub(crate) struct Owning {
    node: Arc<Node>,
    leases: Arc<Leases>,
    server: tokio::task::JoinHandle<()>,
    watcher: Option<Watcher>,
}

impl Owning {
    pub(crate) async fn start(folder: &Path, network: &Memory, epoch: u64) -> Owning {
        let late: Arc<OnceLock<Arc<Node>>> = Arc::default();
        let (ready, mut is_ready) = mpsc::unbounded_channel();
        let told = late.clone();
        let sink = move |event| match event {
            FolderEvent::Observed(observations) => told.wait().observe(observations),
            FolderEvent::Ready => drop(ready.send(())),
            FolderEvent::Skipped(_) | FolderEvent::Unwatched(_) | FolderEvent::Vanished => {}
        };
        let watcher = Watcher::start(folder, sink).unwrap();
        let served = DiskFolder::open(folder, Some(watcher.recheck())).unwrap();
        let node = node(Config { epoch, ..Config::default() }, network, Some(served), BTreeMap::new());
        assert!(late.set(node.clone()).is_ok());
        is_ready.recv().await.unwrap();
        let leases = Arc::new(Leases::default());
        let listener = network.listen("owner").await.unwrap();
        let serving = serve_with(listener, node.clone(), Arc::new(Guests::new(leases.clone())), std::future::pending());
        Owning { node, leases, server: tokio::spawn(serving), watcher: Some(watcher) }
    }

    pub(crate) async fn end(&mut self) {
        self.server.abort();
        let _aborted = (&mut self.server).await;
        self.node.shut_down().await;
        let watcher = self.watcher.take();
        tokio::task::spawn_blocking(move || drop(watcher)).await.unwrap();
    }
}

/// An owner with a file `f`, and a reader who has it open and has read its first chunk.
struct Stage {
    dir: TempDir,
    network: Memory,
    owner: Owning,
    reader: Arc<Node>,
    file: Attr,
    handle: Handle,
}

impl Stage {
    async fn new(config: Config) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("f"), version(0)).unwrap();
        let network = Memory::new();
        let owner = Owning::start(&folder, &network, 1).await;
        let route = Route { addresses: vec!["owner".into()], hello: hello() };
        let reader = node(config, &network, None, BTreeMap::from([(OWNER, route)]));
        reader.follow_peers();
        until("the reader has heard of the file", || reader.view(|view| view.resolve(&name("f")).is_some())).await;
        let file = look_up(&reader, "f").await.unwrap();
        let handle = open(&reader, file.ino).await.unwrap();
        let stage = Stage { dir, network, owner, reader, file, handle };
        assert_eq!(stage.read(0).await.as_deref(), Ok(&version(0)[..CHUNK_SIZE as usize]));
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("folder").join(name)
    }

    /// One whole chunk.
    async fn read(&self, chunk: u64) -> Result<Vec<u8>, Errno> {
        let request = Request::Read { handle: self.handle, offset: chunk * CHUNK_SIZE, len: CHUNK_SIZE as u32 };
        match self.reader.ask_and_wait(request).await? {
            Answer::Bytes(bytes) => {
                let mut read = vec![0; bytes.len()];
                bytes.read_into(&mut read).unwrap();
                Ok(read)
            }
            Answer::Reply(reply) => panic!("{reply:?}"),
        }
    }

    /// The connection breaks, and none can be made until [`Stage::connect`].
    async fn disconnect(&self) {
        self.network.set(Weather::Cut);
        until("both sides have noticed", || !self.is_connected() && self.owner.leases.kept() == 1).await;
    }

    async fn connect(&self) {
        self.network.set(Weather::Fair);
        until("the reader is connected", || self.is_connected()).await;
    }

    fn is_connected(&self) -> bool {
        self.reader.view(|view| view.peers().any(|peer| matches!(peer.link, Link::Up(_))))
    }

    /// The owner's lease for the reader is not there any more, nor is the connection.
    async fn lose_lease(&self) {
        self.disconnect().await;
        self.owner.leases.forget(READER);
        assert_eq!(self.owner.leases.kept(), 0);
    }

    /// Brings the file into a state. Returns when the owner has taken note of it.
    async fn bring(&mut self, state: State) {
        let f = self.path("f");
        match state {
            State::Shared | State::Unreachable => {}
            State::Renamed => fs::rename(f, self.path("g")).unwrap(),
            State::Unshared => self.owner.node.command(Command::Unshare { path: name("f") }),
            State::Removed => fs::remove_file(f).unwrap(),
            State::RenamedOver => {
                fs::write(self.path("new"), version(9)).unwrap();
                fs::rename(self.path("new"), f).unwrap();
            }
            State::Rewritten => fs::write(f, version(1)).unwrap(),
            State::RemovedAndRewritten => {
                let file = File::options().write(true).open(&f).unwrap();
                fs::remove_file(f).unwrap();
                file.write_all_at(&version(1), 0).unwrap();
            }
            State::RemovedAndRestarted => {
                self.owner.end().await;
                fs::remove_file(f).unwrap();
                self.owner = Owning::start(&self.dir.path().join("folder"), &self.network, 2).await;
            }
        }
        let before = self.file;
        until("the owner has noticed", || is_noticed(&self.owner.node, state, before)).await;
    }

    /// What a look at the names gives.
    async fn looked_up(&self) -> &'static str {
        match (look_up(&self.reader, "f").await, look_up(&self.reader, "g").await) {
            (Err(Errno::NoEntry), Ok(attr)) if attr.ino == self.file.ino => "the same file, under its new name",
            (Err(Errno::NoEntry), Err(Errno::NoEntry)) => "ENOENT",
            (Ok(attr), Err(Errno::NoEntry)) => {
                assert!(open(&self.reader, attr.ino).await.is_ok());
                if attr.ino == self.file.ino { "the same file" } else { "the other file" }
            }
            other => panic!("{other:?}"),
        }
    }

    /// What a read of a chunk gives.
    async fn chunk_is(&self, chunk: u64) -> &'static str {
        let range = (chunk * CHUNK_SIZE) as usize..((chunk + 1) * CHUNK_SIZE) as usize;
        match self.read(chunk).await {
            Ok(bytes) if bytes == version(0)[range.clone()] => "its bytes",
            Ok(bytes) if bytes == version(1)[range] => "the new bytes",
            Ok(_) => "wrong bytes",
            Err(Errno::Stale) => "ESTALE",
            Err(Errno::Io) => "EIO",
            Err(errno) => panic!("{errno:?}"),
        }
    }

    async fn end(mut self) {
        self.reader.shut_down().await;
        self.owner.end().await;
    }
}

pub(crate) async fn look_up(node: &Node, at: &str) -> Result<Attr, Errno> {
    let name = name(at).names()[0].clone();
    let reply = node.reply(Request::Lookup { parent: Ino::ROOT, name }).await?;
    let Reply::Entry(attr) = reply else { panic!("{reply:?}") };
    Ok(attr)
}

pub(crate) async fn open(node: &Node, ino: Ino) -> Result<Handle, Errno> {
    let reply = node.reply(Request::Open { ino, write: false, whole_from: None }).await?;
    let Reply::Opened(opened) = reply else { panic!("{reply:?}") };
    Ok(opened.handle)
}

pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a node's tree shows the state.
fn is_noticed(node: &Node, state: State, before: Attr) -> bool {
    let modified_at =
        |path: &RelPath| node.view(|view| view.tree().find(|(at, _)| at == path).map(|(_, record)| record.modified));
    let (f, g) = (modified_at(&name("f")), modified_at(&name("g")));
    match state {
        State::Shared | State::Unreachable => f == Some(before.modified),
        State::Renamed => f.is_none() && g.is_some(),
        State::Unshared | State::Removed | State::RemovedAndRewritten | State::RemovedAndRestarted => f.is_none(),
        State::RenamedOver | State::Rewritten => {
            let new = modified_at(&name("new"));
            f.is_some_and(|modified| modified != before.modified) && new.is_none()
        }
    }
}

/// What really happens: how the names look, what is read of what was here, and of the rest.
async fn play(state: State, has_lease: bool) -> [&'static str; 3] {
    let read_timeout = if state == State::Unreachable { Duration::from_secs(4) } else { LIMIT };
    let mut stage = Stage::new(Config { read_ahead_chunks: 0, read_timeout, ..Config::default() }).await;
    if has_lease {
        stage.bring(state).await;
    } else {
        stage.lose_lease().await;
        stage.bring(state).await;
        if state != State::Unreachable {
            stage.connect().await;
        }
    }
    if has_lease && state == State::Unreachable {
        stage.disconnect().await;
    }
    until("the reader has noticed", || is_noticed(&stage.reader, state, stage.file)).await;
    // The rest first: to look a name up, and to open it again, would take a new lease.
    let rest = stage.chunk_is(2).await;
    let played = [stage.looked_up().await, stage.chunk_is(0).await, rest];
    stage.end().await;
    played
}

/// The rows of the table, cell by cell.
fn rows() -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SEMANTICS.md");
    let text = fs::read_to_string(path).unwrap();
    let after = text.split_once(HEADING).expect("the table has gone").1;
    let lines = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.map(cells).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_table_is_what_really_happens() {
    let rows = rows();
    assert_eq!(rows[0], COLUMNS);
    let named: BTreeSet<&str> = rows[2..].iter().map(|row| row[0].as_str()).collect();
    assert_eq!(named, STATES.map(|(name, _)| name).into(), "the rows are the states that this test knows, once each");
    assert_eq!(rows.len(), STATES.len() + 2);
    let played = join_all(STATES.map(|(name, state)| async move {
        let [with, without] = [true, false].map(|lease| tokio::spawn(play(state, lease)));
        let [names, here, leased] = with.await.unwrap();
        let [other_names, other_here, unleased] = without.await.unwrap();
        assert_eq!((names, here), (other_names, other_here), "{name}: these do not depend on the lease");
        [name, names, here, leased, unleased]
    }))
    .await;
    for row in played {
        let told = rows.iter().find(|told| told[0] == row[0]).unwrap();
        assert_eq!(*told, row, "what docs/SEMANTICS.md says, and what happens");
    }
}
