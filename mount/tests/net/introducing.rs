//! Devices that have a share in folders of their own hear of each other from its owner, and from nobody else; they follow each
//! other, and let nobody else in.

use crate::both_ways::{Files, Gate, node, tell};
use crate::memory::{Memory, OWNER, READER, Weather, within};
use crate::owner::{Owner, dial, name, start, until};
use farshore::circle::{Circle, Reach};
use farshore::net::transport::{Caller, Conn, Listener, Role, Transport};
use farshore::net::{Link as Connection, WatchEnd, serve};
use farshore::node::{Introduced, Introducing, Node, Route};
use farshore::state::State;
use farshore::ticket::ShareId;
use farshore_engine::{DialError, Link, Notice, PeerId};
use farshore_proto::{Hello, Members};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const SHARE: ShareId = ShareId([3; 16]);
const ANN: PeerId = PeerId([10; 32]);
const BOB: PeerId = PeerId([11; 32]);

fn members(named: &[(PeerId, &[&str])]) -> Members {
    let addresses = |all: &[&str]| all.iter().map(|address| (*address).to_owned()).collect();
    named.iter().map(|(peer, all)| (*peer, addresses(all))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_member_hears_who_the_others_are_now_and_whenever_that_changes() {
    let (tell, told) = watch::channel(members(&[(READER, &["r:1"]), (ANN, &["a:1"])]));
    let running = start(Owner::introducing(told)).await;
    let link = dial(&running.network).await.unwrap();
    let mut heard = link.members(READER).await.unwrap();
    assert_eq!(within(heard.next()).await, Ok(members(&[(ANN, &["a:1"])])));
    assert!(timeout(Duration::from_secs(3600), heard.next()).await.is_err(), "nothing has changed");
    tell.send_replace(members(&[(READER, &[]), (ANN, &["a:2", "[::1]:3"]), (BOB, &[])]));
    assert_eq!(within(heard.next()).await, Ok(members(&[(ANN, &["a:2", "[::1]:3"]), (BOB, &[])])));
    tell.send_replace(members(&[(ANN, &["a:2"]), (BOB, &[])]));
    assert_eq!(within(heard.next()).await, Ok(Members::new()), "who is no member is told nothing");
}

#[tokio::test(start_paused = true)]
async fn who_asks_again_hears_it_once() {
    let (tell, told) = watch::channel(members(&[(READER, &[]), (ANN, &["a:1"])]));
    let running = start(Owner::introducing(told)).await;
    let (link, other_link) = (dial(&running.network).await.unwrap(), dial(&running.network).await.unwrap());
    let mut first = link.members(READER).await.unwrap();
    let mut elsewhere = other_link.members(READER).await.unwrap();
    let one = Ok(members(&[(ANN, &["a:1"])]));
    assert_eq!((within(first.next()).await, within(elsewhere.next()).await), (one.clone(), one.clone()));
    let mut second = link.members(READER).await.unwrap();
    assert_eq!(within(second.next()).await, one);
    assert_eq!(within(first.next()).await, Err(WatchEnd::StreamLost), "it is told by the newer one");
    tell.send_replace(members(&[(READER, &[]), (BOB, &[])]));
    let other = Ok(members(&[(BOB, &[])]));
    assert_eq!((within(second.next()).await, within(elsewhere.next()).await), (other.clone(), other));
}

#[tokio::test(start_paused = true)]
async fn who_only_looks_or_is_not_let_in_hears_of_nobody() {
    let (_tell, told) = watch::channel(members(&[(ANN, &["a:1"])]));
    let running = start(Owner::introducing(told)).await;
    let link = dial(&running.network).await.unwrap();
    let mut heard = link.members(READER).await.unwrap();
    assert_eq!(within(heard.next()).await, Ok(Members::new()));
    // One that introduces nobody says so.
    let running = start(Owner::new()).await;
    let link = dial(&running.network).await.unwrap();
    assert_eq!(link.members(READER).await.err(), Some(WatchEnd::StreamLost));
}

/// A device with the share in a folder of its own.
struct Guest {
    node: Arc<Node>,
    files: Arc<Owner>,
    circle: Arc<Circle>,
    /// Who refused it.
    refused_by: Arc<Mutex<BTreeSet<PeerId>>>,
    state: TempDir,
}

/// An owner that introduces, and says what the test wants.
struct Stage {
    network: Memory,
    tell: watch::Sender<Members>,
    owner: Arc<Node>,
    server: JoinHandle<()>,
}

impl Stage {
    async fn new() -> Stage {
        let network = Memory::new();
        let (tell, told) = watch::channel(Members::new());
        let owner = node(&network.of(OWNER), 7, |parts| parts.admission = Arc::<Gate>::default());
        owner.introduce(Introducing::Tells(told));
        let listener = network.listen("owner").await.unwrap();
        let server = tokio::spawn(serve(listener, owner.clone(), std::future::pending()));
        Stage { network, tell, owner, server }
    }

    /// A guest that listens at `address`, if there is one.
    async fn guest(&self, id: PeerId, address: Option<&str>) -> Guest {
        let network = self.network.of(id);
        let state = tempfile::tempdir().unwrap();
        let dir = State::open(Some(state.path().join("state"))).unwrap();
        let circle = Circle::new(dir, id, OWNER, SHARE);
        let reach = match address {
            Some(address) => Reach::At { listen: address.to_owned(), advertise: Vec::new() },
            None => Reach::Nowhere,
        };
        let listener = circle.receive(&network, &reach).await.unwrap();
        let files = Owner::new();
        let folder = Arc::new(Files(files.clone()));
        let node = node(&network, u64::from(id.0[0]), |parts| {
            parts.folder = Some(folder);
            parts.admission = circle.clone();
            parts.peers = BTreeMap::from([(OWNER, Route { addresses: vec!["owner".into()], hello: circle.hello() })]);
            parts.call_back = Some(circle.hello());
        });
        let refused_by = Arc::<Mutex<BTreeSet<PeerId>>>::default();
        let heard = refused_by.clone();
        node.on_notice(Box::new(move |notice| {
            if let Notice::DialFailed { peer, error: DialError::Denied } = notice {
                heard.lock().unwrap().insert(*peer);
            }
        }));
        circle.begin(&node, listener);
        node.follow_peers();
        Guest { node, files, circle, refused_by, state }
    }

    async fn end(self, guests: [Guest; 2]) {
        for guest in guests {
            guest.node.shut_down().await;
            assert_eq!(guest.node.view(|view| (view.running(), view.waiting())), (0, 0));
        }
        self.owner.shut_down().await;
        self.server.abort();
    }
}

impl Guest {
    fn connected(&self) -> BTreeSet<PeerId> {
        let up = |view: farshore_engine::View<'_>| {
            view.peers().filter(|peer| matches!(peer.link, Link::Up(_))).map(|peer| peer.peer).collect()
        };
        self.node.view(up)
    }

    async fn follows(&self, all: &[PeerId]) {
        until(|| self.connected() == all.iter().copied().collect()).await;
    }

    async fn shows(&self, path: &str) {
        until(|| self.node.view(|view| view.resolve(&name(path)).is_some())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whom_the_owner_names_they_follow_and_let_in_and_nobody_dials_without_need() {
    let stage = Stage::new().await;
    let (ann, bob) = (stage.guest(ANN, Some("a:1")).await, stage.guest(BOB, Some("b:1")).await);
    ann.follows(&[OWNER]).await;
    bob.follows(&[OWNER]).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((ann.connected().len(), bob.connected().len()), (1, 1), "nobody has named the other one");
    stage.tell.send_replace(members(&[(ANN, &["a:1"]), (BOB, &["b:1"])]));
    ann.follows(&[OWNER, BOB]).await;
    bob.follows(&[OWNER, ANN]).await;
    tell(&ann.node, &ann.files, "a");
    bob.shows("a").await;
    // However often the network fails, and also if nobody can call back for a while, so that each has dialled the other.
    for (weather, reverse_weather) in [(Weather::Silent, Weather::Fair), (Weather::Cut, Weather::Cut)] {
        stage.network.set(weather);
        ann.follows(&[]).await;
        bob.follows(&[]).await;
        stage.network.set(Weather::Fair);
        stage.network.set_reverse(reverse_weather);
        ann.follows(&[OWNER, BOB]).await;
        bob.follows(&[OWNER, ANN]).await;
        stage.network.set_reverse(Weather::Fair);
        sleep(Duration::from_secs(60)).await;
        let made = stage.network.reverse();
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(stage.network.reverse(), made, "who is connected both ways offers no more connections");
    }
    stage.end([ann, bob]).await;
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_dialled_is_called_back() {
    let stage = Stage::new().await;
    let (ann, bob) = (stage.guest(ANN, None).await, stage.guest(BOB, Some("b:1")).await);
    stage.tell.send_replace(members(&[(ANN, &[]), (BOB, &["b:1"])]));
    ann.follows(&[OWNER, BOB]).await;
    bob.follows(&[OWNER, ANN]).await;
    tell(&ann.node, &ann.files, "a");
    bob.shows("a").await;
    // It is elsewhere now: there it is called at once.
    let listener = stage.network.of(PeerId([99; 32])).listen("b:1").await;
    stage.network.set(Weather::Cut);
    bob.follows(&[]).await;
    stage.network.set(Weather::Fair);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ann.connected(), BTreeSet::from([OWNER]), "somebody else is there");
    drop(listener);
    stage.end([ann, bob]).await;
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_any_more_is_not_dialled_where_it_was() {
    let stage = Stage::new().await;
    let (ann, bob) = (stage.guest(ANN, Some("a:1")).await, stage.guest(BOB, Some("b:1")).await);
    stage.tell.send_replace(members(&[(ANN, &["a:1"]), (BOB, &["b:1"])]));
    ann.follows(&[OWNER, BOB]).await;
    bob.follows(&[OWNER, ANN]).await;
    assert_eq!(bob.node.addresses_of(ANN), ["a:1"]);
    stage.tell.send_replace(members(&[(ANN, &[]), (BOB, &["b:1"])]));
    until(|| bob.node.addresses_of(ANN).is_empty()).await;
    assert_eq!(bob.connected(), BTreeSet::from([OWNER, ANN]), "it need not hang up");
    stage.network.set(Weather::Cut);
    bob.follows(&[]).await;
    stage.network.set(Weather::Fair);
    ann.follows(&[OWNER, BOB]).await;
    bob.follows(&[OWNER, ANN]).await;
    tell(&ann.node, &ann.files, "a");
    bob.shows("a").await;
    stage.tell.send_replace(members(&[(ANN, &["a:1"]), (BOB, &["b:1"])]));
    until(|| bob.node.addresses_of(ANN) == ["a:1"]).await;
    stage.end([ann, bob]).await;
}

#[tokio::test(start_paused = true)]
async fn whom_the_owner_names_no_more_is_hung_up_on_at_once_and_not_let_in() {
    for address in [Some("a:1"), None] {
        let stage = Stage::new().await;
        let (ann, bob) = (stage.guest(ANN, address).await, stage.guest(BOB, Some("b:1")).await);
        let all = members(&[(ANN, address.as_slice()), (BOB, &["b:1"])]);
        stage.tell.send_replace(all.clone());
        ann.follows(&[OWNER, BOB]).await;
        bob.follows(&[OWNER, ANN]).await;
        // Only Bob hears of it: who is revoked will not keep to it.
        bob_hears(&bob, Members::new()).await;
        let cut = async { until(|| bob.connected() == BTreeSet::from([OWNER])).await };
        timeout(Duration::from_secs(1), cut).await.expect("it is cut at once");
        until(|| ann.refused_by.lock().unwrap().contains(&BOB)).await;
        tell(&bob.node, &bob.files, "secret");
        sleep(Duration::from_secs(600)).await;
        assert_eq!((ann.connected(), bob.connected()), (BTreeSet::from([OWNER]), BTreeSet::from([OWNER])));
        assert_eq!(ann.node.view(|view| view.resolve(&name("secret"))), None);
        let followed = bob.node.view(|view| view.peers().map(|peer| peer.peer).collect::<Vec<_>>());
        assert_eq!(followed, [OWNER], "and forgotten");
        // Let in again, it is a member like any other.
        bob_hears(&bob, members(&[(ANN, address.as_slice())])).await;
        ann.follows(&[OWNER, BOB]).await;
        bob.follows(&[OWNER, ANN]).await;
        ann.shows("secret").await;
        stage.end([ann, bob]).await;
    }
}

async fn bob_hears(bob: &Guest, members: Members) {
    bob.circle.hear(members).await;
}

#[tokio::test(start_paused = true)]
async fn a_stranger_gets_nothing_from_a_member_and_neither_does_who_asks_for_another_share() {
    let stage = Stage::new().await;
    let (ann, bob) = (stage.guest(ANN, Some("a:1")).await, stage.guest(BOB, Some("b:1")).await);
    stage.tell.send_replace(members(&[(ANN, &["a:1"]), (BOB, &["b:1"])]));
    bob.follows(&[OWNER, ANN]).await;
    let ask = async |who: PeerId, share: ShareId| {
        let hello = Hello::new(share, Some(crate::owner::SECRET), "test").of_member(vec!["x:1".into()]);
        Connection::dial(&stage.network.of(who), &["b:1".to_owned()], BOB, &hello).await.map(drop)
    };
    assert_eq!(ask(PeerId([99; 32]), SHARE).await, Err(DialError::Denied));
    assert_eq!(ask(ANN, ShareId([4; 16])).await, Err(DialError::Denied));
    assert_eq!(ask(ANN, SHARE).await, Ok(()));
    assert_eq!(ask(OWNER, SHARE).await, Ok(()), "the owner may call");
    assert_eq!(ask(PeerId([99; 32]), SHARE).await, Err(DialError::Denied));
    stage.end([ann, bob]).await;
}

/// What was said last holds while the owner is away, and in the next life.
#[tokio::test(start_paused = true)]
async fn what_the_owner_said_last_is_remembered() {
    let stage = Stage::new().await;
    let (ann, bob) = (stage.guest(ANN, Some("a:1")).await, stage.guest(BOB, Some("b:1")).await);
    stage.tell.send_replace(members(&[(ANN, &["a:1"]), (BOB, &["b:1"])]));
    bob.follows(&[OWNER, ANN]).await;
    let state = State::open(Some(bob.state.path().join("state"))).unwrap();
    let next_life = |owner| Circle::new(state.clone(), BOB, owner, SHARE);
    until(|| next_life(OWNER).members() == members(&[(ANN, &["a:1"])])).await;
    let routes = next_life(OWNER).routes().into_iter();
    assert_eq!(routes.map(|(peer, route)| (peer, route.addresses)).collect::<Members>(), members(&[(ANN, &["a:1"])]));
    assert_eq!(next_life(PeerId([99; 32])).members(), Members::new(), "another owner has not said it");
    stage.end([ann, bob]).await;
}

#[tokio::test]
async fn what_could_not_be_written_is_written_when_it_is_said_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(Some(dir.path().join("state"))).unwrap();
    let life = || Circle::new(state.clone(), BOB, OWNER, SHARE);
    let (circle, named) = (life(), members(&[(ANN, &["a:1"])]));
    // Who said it hangs up before it is written.
    drop(circle.hear(named.clone()));
    assert_eq!(life().members(), Members::new());
    circle.hear(named.clone()).await;
    assert_eq!(life().members(), named);
    // The disk refuses it.
    let (kept, blocked) = (dir.path().join("state/members"), dir.path().join("state/members-elsewhere"));
    fs::rename(&kept, &blocked).unwrap();
    fs::write(&kept, "in the way").unwrap();
    let named = members(&[(ANN, &["a:2"])]);
    circle.hear(named.clone()).await;
    fs::remove_file(&kept).unwrap();
    fs::rename(&blocked, &kept).unwrap();
    assert_ne!(life().members(), named);
    circle.hear(named.clone()).await;
    assert_eq!(life().members(), named);
    // What is written already is not written again.
    fs::remove_dir_all(&kept).unwrap();
    circle.hear(named).await;
    assert!(!kept.exists());
}

/// A machine with a few ports: what listens at any gets the next one that is free.
#[derive(Default)]
struct Ports(Mutex<BTreeSet<u16>>);

impl Transport for Ports {
    fn connect<'a>(&'a self, _: &'a str, _: PeerId, _: Role) -> BoxFuture<'a, io::Result<Conn>> {
        ready(Err(io::ErrorKind::NetworkUnreachable.into())).boxed()
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        let wanted: SocketAddr = address.parse().unwrap();
        let mut taken = self.0.lock().unwrap();
        let next = (5000..).find(|port| !taken.contains(port)).unwrap();
        let port = if wanted.port() == 0 { next } else { wanted.port() };
        ready(match taken.insert(port) {
            true => Ok(Box::new(At(SocketAddr::new(wanted.ip(), port))) as Box<dyn Listener>),
            false => Err(io::ErrorKind::AddrInUse.into()),
        })
        .boxed()
    }
}

struct At(SocketAddr);

impl Listener for At {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Caller>> {
        std::future::pending().boxed()
    }

    fn address(&self) -> String {
        self.0.to_string()
    }
}

#[tokio::test]
async fn the_port_of_the_last_life_is_taken_again_if_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(Some(dir.path().join("state"))).unwrap();
    let receive = async |ports: &[u16], reach: Reach| {
        let ports = Ports(Mutex::new(ports.iter().copied().collect()));
        let circle = Circle::new(state.clone(), ANN, OWNER, SHARE);
        circle.receive(&ports, &reach).await.map(|_| circle)
    };
    let listening = async |ports: &[u16], reach: Reach| {
        receive(ports, reach).await.map(|circle| circle.listening().map(str::to_owned))
    };
    let anywhere = || Reach::Anywhere { advertise: Vec::new() };
    let at = |listen: &str| Reach::At { listen: listen.to_owned(), advertise: Vec::new() };
    assert_eq!(listening(&[], anywhere()).await.unwrap().as_deref(), Some("[::]:5000"));
    assert_eq!(listening(&[5000, 5001], anywhere()).await.unwrap().as_deref(), Some("[::]:5002"));
    assert_eq!(listening(&[], anywhere()).await.unwrap().as_deref(), Some("[::]:5002"), "that is where it was last");
    assert_eq!(listening(&[], at("127.0.0.1:0")).await.unwrap().as_deref(), Some("127.0.0.1:5002"));
    assert_eq!(listening(&[], at("127.0.0.1:7000")).await.unwrap().as_deref(), Some("127.0.0.1:7000"));
    let taken = listening(&[7000], at("127.0.0.1:7000")).await.unwrap_err();
    assert!(taken.to_string().contains("127.0.0.1:7000"), "{taken}");
    assert_eq!(listening(&[], Reach::Nowhere).await.unwrap(), None);
    // What the others are told.
    assert_eq!(receive(&[], at("127.0.0.1:7000")).await.unwrap().addresses(), ["127.0.0.1:7000"]);
    let known = receive(&[], anywhere()).await.unwrap().addresses();
    let loopback = |address: &String| address.parse::<SocketAddr>().unwrap().ip().is_loopback();
    assert!(known.iter().all(|address| address.ends_with(":7000")) && !known.is_empty(), "{known:?}");
    assert!(known == ["127.0.0.1:7000"] || !known.iter().any(loopback), "that is theirs to others: {known:?}");
    let behind = Reach::Anywhere { advertise: vec!["nas:1".to_owned(), "[::1]:2".to_owned()] };
    assert_eq!(receive(&[], behind).await.unwrap().addresses(), ["nas:1", "[::1]:2"]);
    assert_eq!(receive(&[], Reach::Nowhere).await.unwrap().addresses(), [""; 0]);
}
