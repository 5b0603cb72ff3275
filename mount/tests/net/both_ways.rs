//! Two nodes of which only one can be reached: each follows the other's tree and reads its bytes.

use crate::memory::{Memory, OWNER, READER, Weather};
use crate::owner::{Owner, content, hello, name, until};
use crate::table::{look_up, open};
use farshore::folder::{Folder, ServeError, ServedBytes};
use farshore::identity::Identity;
use farshore::net::tls::TlsTransport;
use farshore::net::transport::{Role, Transport};
use farshore::net::{Guests, serve_with};
use farshore::node::{Admission, Answer, Node, Parts, Route};
use farshore::store::MemoryStore;
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::record::{Facts, FileTime};
use farshore_engine::{
    Config, DialError, Errno, Link, Notice, Observation, PeerFault, PeerId, Request, Seen, SeenKind, ServedFile, Time,
};
use farshore_proto::{Hello, ShareId};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// What every file holds, in bytes.
const SIZE_BYTES: u64 = 3 * CHUNK_SIZE + 5;

/// A folder in memory. What is in it is told to the node by [`tell`].
pub(crate) struct Files(pub(crate) Arc<Owner>);

impl Folder for Files {
    fn open(&self, served: ServedFile) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>> {
        let file = self.0.files.lock().unwrap().get(&served.path).map(|(_, file)| file.clone() as Arc<dyn ServedBytes>);
        ready(file.ok_or(ServeError::Gone)).boxed()
    }
}

/// A file has appeared in a node's folder.
pub(crate) fn tell(node: &Node, files: &Owner, path: &str) {
    files.put(path, 1, SIZE_BYTES);
    let modified = FileTime { seconds: 1, nanos: 1 };
    let facts = Facts { inode: u64::from(path.as_bytes()[0]), changed: modified };
    let seen = Seen { kind: SeenKind::File { size_bytes: SIZE_BYTES }, mode: 0o644, modified, xattrs: None, facts };
    node.observe(vec![Observation::Found { path: name(path), seen }]);
}

/// Lets everybody in, until it does not.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) is_shut: AtomicBool,
}

impl Admission for Gate {
    fn admit(&self, _: PeerId, _: Hello) -> BoxFuture<'static, bool> {
        ready(!self.is_shut.load(Ordering::Acquire)).boxed()
    }
}

/// A node in this network, with what it is made of.
pub(crate) fn node(network: &Memory, epoch: u64, parts: impl FnOnce(&mut Parts)) -> Arc<Node> {
    node_of(Arc::new(network.clone()), epoch, parts)
}

fn node_of(transport: Arc<dyn Transport>, epoch: u64, parts: impl FnOnce(&mut Parts)) -> Arc<Node> {
    let mut whole = Parts {
        config: Config { epoch, ..Config::default() },
        seed: epoch,
        transport,
        store: Arc::new(MemoryStore::default()),
        folder: None,
        admission: Arc::<Gate>::default(),
        peers: BTreeMap::new(),
        call_back: None,
        remembered: None,
    };
    parts(&mut whole);
    Node::start(whole)
}

/// A guest with a folder of its own.
fn guest(network: &Memory, epoch: u64) -> (Arc<Node>, Arc<Owner>) {
    let files = Owner::new();
    let folder = Arc::new(Files(files.clone()));
    let route = Route { addresses: vec!["owner".into()], hello: hello() };
    let node = node(network, epoch, |parts| {
        parts.folder = Some(folder);
        parts.peers = BTreeMap::from([(OWNER, route)]);
    });
    node.follow_peers();
    (node, files)
}

/// An owner with nothing of its own who follows its guests, and one guest with a file `f`.
struct Stage {
    network: Memory,
    owner: Arc<Node>,
    gate: Arc<Gate>,
    guests: Arc<Guests>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
    guest: Arc<Node>,
    files: Arc<Owner>,
    /// Why dials of the owner failed.
    refusals: Arc<Mutex<Vec<DialError>>>,
}

impl Stage {
    async fn new(call_back: Option<Hello>) -> Stage {
        let network = Memory::new();
        let gate = Arc::<Gate>::default();
        let admission = gate.clone();
        let owner = node(&network, 7, |parts| {
            parts.admission = admission;
            parts.call_back = call_back;
        });
        let refusals = Arc::<Mutex<Vec<DialError>>>::default();
        let heard = refusals.clone();
        owner.on_notice(Box::new(move |notice| {
            if let Notice::DialFailed { error, .. } = notice {
                heard.lock().unwrap().push(*error);
            }
        }));
        let listener = network.listen("owner").await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let guests = Arc::<Guests>::default();
        let server = tokio::spawn(serve_with(listener, owner.clone(), guests.clone(), stopped.map(drop)));
        let (guest, files) = guest(&network, 1);
        tell(&guest, &files, "f");
        Stage { network, owner, gate, guests, stop: Some(stop), server, guest, files, refusals }
    }

    /// With the guest's file in the owner's tree.
    async fn seen() -> Stage {
        let stage = Stage::new(Some(hello())).await;
        stage.shows("f").await;
        stage
    }

    async fn shows(&self, path: &str) {
        until(|| self.owner.view(|view| view.resolve(&name(path)).is_some())).await;
    }

    /// Whether each is connected to the other: the guest to the owner, and the owner to the guest.
    fn connected(&self) -> (bool, bool) {
        (is_connected(&self.guest), is_connected(&self.owner))
    }

    async fn end(mut self) {
        let steps = || self.owner.view(|view| view.totals().steps);
        let (began, before) = (Instant::now(), steps());
        self.guest.shut_down().await;
        assert!(steps() - before < 100, "who stops has no more to say: {} steps", steps() - before);
        drop(self.stop.take());
        self.owner.shut_down().await;
        self.server.await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        for node in [self.guest, self.owner] {
            assert_eq!(node.view(|view| (view.running(), view.waiting())), (0, 0));
            until(|| Arc::strong_count(&node) == 1).await;
        }
    }
}

fn is_connected(node: &Node) -> bool {
    node.view(|view| view.peers().any(|peer| matches!(peer.link, Link::Up(_))))
}

/// All bytes of a file, as a program on `node` reads them.
async fn read(node: &Node, path: &str) -> Result<Vec<u8>, Errno> {
    let handle = open(node, look_up(node, path).await?.ino).await?;
    let mut read = Vec::new();
    loop {
        let request = Request::Read { handle, offset: read.len() as u64, len: 400_000 };
        let Answer::Bytes(bytes) = node.ask_and_wait(request).await? else { panic!("no bytes") };
        if bytes.is_empty() {
            break;
        }
        let at = read.len();
        read.resize(at + bytes.len(), 0);
        bytes.read_into(&mut read[at..]).unwrap();
    }
    node.reply(Request::Release { handle }).await.unwrap();
    Ok(read)
}

#[tokio::test(start_paused = true)]
async fn whoever_is_dialled_sees_the_files_of_who_dials_and_reads_their_bytes() {
    let stage = Stage::seen().await;
    assert_eq!(read(&stage.owner, "f").await.unwrap(), content(0..SIZE_BYTES));
    tell(&stage.guest, &stage.files, "later");
    stage.shows("later").await;
    // A long while without a word ends nothing.
    sleep(Duration::from_secs(3600)).await;
    assert_eq!((stage.connected(), stage.network.reverse()), ((true, true), 1));
    assert_eq!(read(&stage.owner, "later").await.unwrap(), content(0..SIZE_BYTES));
    stage.end().await;
}

#[tokio::test]
async fn it_works_over_tls_on_a_real_network() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [ours, theirs] = [0, 1].map(|at| Identity::open(dirs[at].path()).unwrap());
    let transport = Arc::new(TlsTransport::new(ours.clone()));
    let listener = transport.listen("127.0.0.1:0").await.unwrap();
    let route = Route { addresses: vec![listener.address()], hello: hello() };
    let owner = node_of(transport, 7, |parts| parts.call_back = Some(hello()));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve_with(listener, owner.clone(), Arc::default(), stopped.map(drop)));
    let files = Owner::new();
    let folder = Arc::new(Files(files.clone()));
    let guest = node_of(Arc::new(TlsTransport::new(theirs.clone())), 1, |parts| {
        parts.folder = Some(folder);
        parts.peers = BTreeMap::from([(ours.id(), route)]);
    });
    guest.follow_peers();
    tell(&guest, &files, "f");
    until(|| owner.view(|view| view.resolve(&name("f")).is_some())).await;
    assert_eq!(owner.view(|view| view.peers().map(|peer| peer.peer).collect::<Vec<_>>()), [theirs.id()]);
    assert_eq!(read(&owner, "f").await.unwrap(), content(0..SIZE_BYTES));
    guest.shut_down().await;
    until(|| !is_connected(&owner)).await;
    drop(stop);
    owner.shut_down().await;
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_dials_twice_if_nobody_would_call() {
    let stage = Stage::new(None).await;
    until(|| stage.connected().0).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!((stage.connected(), stage.network.reverse()), ((true, false), 0));
    stage.end().await;
    // Nor does one dial twice who has nothing.
    let stage = Stage::seen().await;
    let network = stage.network.of(PeerId([9; 32]));
    let route = Route { addresses: vec!["owner".into()], hello: hello() };
    let idle = node(&network, 3, |parts| parts.peers = BTreeMap::from([(OWNER, route)]));
    idle.follow_peers();
    until(|| is_connected(&idle)).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.network.reverse(), 1);
    idle.shut_down().await;
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_who_would_change_what_it_may_only_read_is_cut_off_and_named() {
    let stage = Stage::new(None).await;
    until(|| stage.connected().0).await;
    let faults = Arc::<Mutex<Vec<Notice>>>::default();
    let heard = faults.clone();
    stage.owner.on_notice(Box::new(move |notice| heard.lock().unwrap().push(notice.clone())));
    let began = Instant::now();
    let _offered = stage.network.dial("owner", Role::Server).unwrap();
    until(|| !stage.connected().0).await;
    sleep(Duration::from_secs(30)).await;
    assert!(!stage.connected().0, "it is kept out");
    while !stage.connected().0 {
        assert!(began.elapsed() < Duration::from_secs(120), "but not for good");
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(*faults.lock().unwrap(), [Notice::PeerFault { peer: READER, fault: PeerFault::MayOnlyRead }]);
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn both_directions_come_back_whatever_the_network_does() {
    let stage = Stage::seen().await;
    for (round, weather) in [Weather::Cut, Weather::Silent, Weather::Cut, Weather::Silent].into_iter().enumerate() {
        stage.network.set(weather);
        let noticed = async { until(|| stage.connected() == (false, false)).await };
        timeout(Duration::from_secs(12), noticed).await.expect("both sides notice it");
        let path = round.to_string();
        tell(&stage.guest, &stage.files, &path);
        sleep(Duration::from_secs(60)).await;
        stage.network.set(Weather::Fair);
        let back = async { until(|| stage.connected().0).await };
        timeout(Duration::from_secs(11), back).await.expect("one side is connected again");
        let back = async { until(|| stage.connected() == (true, true)).await };
        timeout(Duration::from_millis(100), back).await.expect("and then the other is at once");
        stage.shows(&path).await;
        assert_eq!(read(&stage.owner, &path).await.unwrap(), content(0..SIZE_BYTES));
    }
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_second_connection_alone_comes_back_as_well() {
    let stage = Stage::seen().await;
    for (weather, notice) in [(Weather::Cut, 1), (Weather::Silent, 11)] {
        let made = stage.network.reverse();
        stage.network.set_reverse(weather);
        let noticed = async { until(|| stage.connected() == (true, false)).await };
        timeout(Duration::from_secs(notice), noticed).await.expect("it is noticed");
        sleep(Duration::from_secs(300)).await;
        assert_eq!(stage.connected(), (true, false), "the first one is well");
        let attempts = stage.network.reverse() - made;
        assert!((10..=35).contains(&attempts), "it is made again now and then: {attempts}");
        stage.network.set_reverse(Weather::Fair);
        let back = async { until(|| stage.connected() == (true, true)).await };
        timeout(Duration::from_secs(25), back).await.expect("it is there again");
    }
    assert_eq!(read(&stage.owner, "f").await.unwrap(), content(0..SIZE_BYTES));
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_revoked_is_not_called_any_more() {
    let stage = Stage::seen().await;
    stage.gate.is_shut.store(true, Ordering::Release);
    stage.guests.dismiss(READER);
    let cut = async { until(|| stage.connected() == (false, false)).await };
    timeout(Duration::from_secs(1), cut).await.expect("it is cut at once");
    let made = stage.network.reverse();
    sleep(Duration::from_secs(600)).await;
    assert_eq!((stage.connected(), stage.network.reverse()), ((false, false), made));
    stage.gate.is_shut.store(false, Ordering::Release);
    let back = async { until(|| stage.connected() == (true, true)).await };
    timeout(Duration::from_secs(11), back).await.expect("whoever is let in again is called again");
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_dials_answers_only_for_the_share_that_it_has_joined() {
    let stage = Stage::new(Some(Hello::new(ShareId([8; 16]), None, "test"))).await;
    until(|| stage.refusals.lock().unwrap().contains(&DialError::Denied)).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.connected(), (true, false));
    assert_eq!(stage.owner.view(|view| view.resolve(&name("f"))), None);
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_read_is_held_open_over_a_lost_connection_and_not_after_the_end() {
    let stage = Stage::seen().await;
    let file = stage.files.files.lock().unwrap()[&name("f")].1.clone();
    let unread = Arc::strong_count(&file);
    let attr = look_up(&stage.owner, "f").await.unwrap();
    open(&stage.owner, attr.ino).await.unwrap();
    until(|| Arc::strong_count(&file) > unread).await;
    stage.network.set(Weather::Cut);
    sleep(Duration::from_secs(300)).await;
    assert!(Arc::strong_count(&file) > unread, "its reader may come back");
    stage.guest.shut_down().await;
    assert_eq!(Arc::strong_count(&file), unread);
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn either_side_may_start_again() {
    let mut stage = Stage::seen().await;
    // The guest's process is gone, and there is a new one.
    stage.guest.shut_down().await;
    until(|| !stage.connected().1).await;
    (stage.guest, stage.files) = guest(&stage.network, 2);
    tell(&stage.guest, &stage.files, "g");
    stage.shows("g").await;
    until(|| stage.owner.view(|view| view.resolve(&name("f")).is_none())).await;
    // The owner's.
    drop(stage.stop.take());
    stage.owner.shut_down().await;
    until(|| stage.server.is_finished() && !stage.connected().0).await;
    stage.owner = node(&stage.network, 8, |parts| parts.call_back = Some(hello()));
    let listener = stage.network.listen("owner").await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    stage.stop = Some(stop);
    stage.server = tokio::spawn(serve_with(listener, stage.owner.clone(), stage.guests.clone(), stopped.map(drop)));
    stage.shows("g").await;
    assert_eq!(read(&stage.owner, "g").await.unwrap(), content(0..SIZE_BYTES));
    assert!(stage.owner.now() > Time::ZERO);
    stage.end().await;
}
