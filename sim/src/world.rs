//! One simulated world: an owner, its readers, the network between them, and what happens to all of it.
//!
//! Owner and readers are hosts of turmoil, each with its own runtime, and run the same node, client and server as the
//! program does. A script runs on each reader; it asks through the fake kernel and brings about faults through [`Net`].
//! When a reader's process ends, its script ends with it, and the next process begins it anew, on the same disk. What
//! has to outlive all processes is done by [`Fate`].

use crate::faults::{self, Course, Queue};
use crate::folder::SimFolder;
use crate::history::History;
use crate::kernel::Kernel;
use crate::liar::Liar;
use crate::sabotage::{LATE, Sabotage};
use crate::store::SimStore;
use crate::transport::{Line, SimTransport};
use farshore::net::transport::Transport;
use farshore::net::{Guests, Leases, server};
use farshore::node::{Admission, Node, Parts, Route, Step};
use farshore_engine::{Config, DeviceTag, Done, Input, Observation, PeerId};
use farshore_proto::{Hello, ShareId};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, LocalBoxFuture};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

pub use crate::faults::{Fault, Net};

/// The owner's device.
pub const OWNER: PeerId = PeerId([0x22; 32]);

/// The name of the owner's host.
pub const OWNER_HOST: &str = "owner";

/// The names of the readers' hosts.
pub const READER_HOSTS: [&str; 4] = ["reader", "other", "third", "fourth"];

/// The share.
pub(crate) const SHARE: ShareId = ShareId([7; 16]);

/// Where the owner listens.
pub(crate) const PORT: u16 = 4177;

/// The shortest and the usual length of a step of the simulation.
const TICK: Duration = Duration::from_millis(1);

/// A tree of up to so many entries is checked after every step, a larger one after every [`SELDOM`]th.
const SMALL_TREE: u64 = 500;
const SELDOM: u64 = 200;

/// How long the owner lets readers wait for news: short, so that it soon notices those who have gone.
pub(crate) const OWNER_WATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the owner keeps files open for readers who have lost their connection: short, so that a world can wait for
/// it. What counts is that it is longer than what the readers' connections need to come back.
pub const LEASE_GRACE: Duration = Duration::from_secs(30);

/// Observations that a watcher hands over at once.
const WATCHER_BATCH: usize = 1024;

/// What a world is made of.
pub struct Setup {
    /// All chance.
    pub seed: u64,
    /// How the readers' engines are set.
    pub config: Config,
    /// How long a step of the simulation is: whole milliseconds. Messages arrive, and faults happen, between steps; each
    /// costs the same time on the clock on the wall.
    pub tick: Duration,
    /// The shortest and the longest that a message travels.
    pub latency: (Duration, Duration),
    /// How long the owner's watcher takes to tell of a change.
    pub watcher_delay: Duration,
    /// How many events the owner keeps for those who come back.
    pub event_log: usize,
    /// The simulated time at which a world that has not ended has failed.
    pub limit: Duration,
    /// Who answers in the owner's place, if not the owner.
    pub liar: Option<Liar>,
    /// A folder of the first reader's own, which the owner follows, if it has one.
    pub guest: Option<Guest>,
    /// A planted bug.
    pub sabotage: Option<Sabotage>,
}

/// A reader's own folder.
pub struct Guest {
    /// The folder.
    pub folder: SimFolder,
    /// What runs on the owner, who has the reader's files: from the beginning in every process.
    pub script: OwnerScript,
}

/// What runs on an owner who follows a reader.
pub type OwnerScript = Rc<dyn Fn(Kernel) -> LocalBoxFuture<'static, ()>>;

impl Setup {
    /// A quick network, and an owner who tells the truth.
    #[must_use]
    pub fn new(seed: u64) -> Setup {
        Setup {
            seed,
            config: Config::default(),
            tick: TICK,
            latency: (Duration::from_millis(1), Duration::from_millis(1)),
            watcher_delay: Duration::from_millis(1),
            event_log: Config::default().event_log,
            limit: Duration::from_secs(600),
            liar: None,
            guest: None,
            sabotage: None,
        }
    }
}

/// The name of the host from which [`Fate`] acts. It has no connections.
pub(crate) const FATE_HOST: &str = "fate";

/// One reader's machine: what outlives its processes. Clones are the same machine.
#[derive(Clone)]
pub struct Machine {
    /// Its disk.
    pub store: SimStore,
    /// The network, and the processes.
    pub net: Net,
    stop: Arc<AtomicBool>,
    lives: Arc<AtomicU64>,
    has_ended: Arc<AtomicBool>,
}

impl Machine {
    pub(crate) fn new(store: SimStore, net: Net) -> Machine {
        Machine { store, net, stop: Arc::default(), lives: Arc::default(), has_ended: Arc::default() }
    }

    /// The next of its processes begins, with what its disk has kept. Which one it is, counted from one.
    pub(crate) fn begin_life(&self) -> u64 {
        let life = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        if life > 1 {
            self.store.next_life();
        }
        life
    }

    /// Its script has come to its end.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// From now on the reader is to stop cleanly, or no more.
    pub fn set_stop(&self, stop: bool) {
        self.stop.store(stop, Ordering::Relaxed);
    }

    /// Whether the reader is to stop cleanly.
    #[must_use]
    pub fn is_stop_wanted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What happens to the readers of a world, and outlives them.
pub type Fate = Box<dyn FnOnce(Vec<Machine>) -> LocalBoxFuture<'static, ()>>;

/// What a script has at hand.
#[derive(Clone)]
pub struct Stage {
    /// Asks and checks.
    pub kernel: Kernel,
    /// The owner's folder.
    pub folder: SimFolder,
    /// The reader's store.
    pub store: SimStore,
    /// The network, and the processes.
    pub net: Net,
    /// The reader's machine.
    pub machine: Machine,
    /// Which process on this machine it is, counted from one.
    pub life: u64,
    /// The history of the run.
    pub history: History,
    /// The owner's node, while there is one.
    pub owner: Running,
}

/// The node of a host, while there is one.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<Weak<Node>>>);

impl Running {
    /// The node that runs now.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Node>> {
        lock(&self.0).upgrade()
    }

    /// From now on it is this one.
    pub(crate) fn set(&self, node: &Arc<Node>) {
        *lock(&self.0) = Arc::downgrade(node);
    }
}

/// What runs on a reader: from the beginning in every process.
pub type Script = Rc<dyn Fn(Stage) -> LocalBoxFuture<'static, ()>>;

/// A script from an async function.
pub fn script<F: Future<Output = ()> + 'static>(body: impl Fn(Stage) -> F + 'static) -> Script {
    Rc::new(move |stage| body(stage).boxed_local())
}

/// Runs a world until every script has come to its end.
///
/// # Errors
/// It did not end in time, or something was logged as an error.
///
/// # Panics
/// If a script or anything else in the world does.
pub fn run(setup: Setup, folder: &SimFolder, history: &History, scripts: Vec<Script>) -> Result<(), String> {
    run_under(None, setup, folder, history, scripts)
}

/// As [`run`], with something that happens to the readers.
///
/// # Errors
/// Those of [`run`].
///
/// # Panics
/// As [`run`].
pub fn run_under(
    fate: Option<Fate>,
    setup: Setup,
    folder: &SimFolder,
    history: &History,
    scripts: Vec<Script>,
) -> Result<(), String> {
    history.capture(|| run_captured(fate, setup, folder, history, scripts))?;
    match history.errors().first() {
        Some(error) => Err(format!("an error was logged:{error}")),
        None => Ok(()),
    }
}

fn run_captured(
    fate: Option<Fate>,
    setup: Setup,
    folder: &SimFolder,
    history: &History,
    scripts: Vec<Script>,
) -> Result<(), String> {
    assert!(scripts.len() <= READER_HOSTS.len(), "a world has at most {} readers", READER_HOSTS.len());
    let mut sim = faults::build(&setup);
    let readers: Vec<&'static str> = READER_HOSTS[..scripts.len()].to_vec();
    let (queue, line, owner) = (Queue::default(), Arc::<Line>::default(), Running::default());
    let setup = Rc::new(setup);
    {
        let lives = Arc::new(Mutex::new(0));
        let place =
            Place { setup: setup.clone(), folder: folder.clone(), history: history.clone(), line: line.clone() };
        let owner = owner.clone();
        sim.host(OWNER_HOST, move || {
            let mut lives = lock(&lives);
            *lives += 1;
            live_as_owner(place.clone(), owner.clone(), *lives)
        });
    }
    let mut machines = Vec::new();
    for ((host, script), number) in readers.iter().copied().zip(scripts).zip(0..) {
        let place =
            Place { setup: setup.clone(), folder: folder.clone(), history: history.clone(), line: line.clone() };
        let net = Net::new(host, queue.clone(), setup.tick, line.clone());
        let machine = Machine::new(SimStore::new(setup.seed ^ (u64::from(number) + 1) << 16), net);
        machines.push(machine.clone());
        let owner = owner.clone();
        sim.host(host, move || live_as_reader(place.clone(), number, machine.clone(), owner.clone(), script.clone()));
    }
    if let Some(fate) = fate {
        let readers = machines.clone();
        sim.client(FATE_HOST, async move {
            fate(readers).await;
            Ok(())
        });
    }
    let disks = |host: &'static str, fault| match fault {
        // Whoever watched has gone.
        Fault::Crash | Fault::PowerCut | Fault::Restart => folder.unwatch(),
        Fault::CutPower => {
            machines.iter().filter(|machine| machine.net.host() == host).for_each(|machine| machine.store.lose_power());
        }
        Fault::Partition
        | Fault::Repair
        | Fault::Hold
        | Fault::Release
        | Fault::Flaky(_)
        | Fault::Latency(_)
        | Fault::End
        | Fault::Start => {}
    };
    let course = Course { queue: &queue, others: &readers, history, limit: setup.limit };
    course.run(&mut sim, disks, || machines.iter().all(Machine::has_ended))
}

/// What a host needs of its world.
#[derive(Clone)]
struct Place {
    setup: Rc<Setup>,
    folder: SimFolder,
    history: History,
    line: Arc<Line>,
}

pub(crate) fn reader_id(number: u8) -> PeerId {
    PeerId([0x11 + number; 32])
}

/// One life of a reader's process.
async fn live_as_reader(place: Place, number: u8, machine: Machine, owner: Running, script: Script) -> turmoil::Result {
    let (host, store, net) = (READER_HOSTS[usize::from(number)], machine.store.clone(), machine.net.clone());
    let life = machine.begin_life();
    let guest = place.setup.guest.as_ref().filter(|_| number == 0).map(|guest| guest.folder.clone());
    let node = start_reader(&place, host, number, store.clone(), life, guest.clone());
    if let Some(folder) = guest {
        tokio::spawn(tell_changes(node.clone(), scan(&node, &folder), place.setup.watcher_delay));
    }
    let Place { setup, folder, history, line: _ } = place;
    let late = if setup.sabotage == Some(Sabotage::AnswersLate) { LATE } else { Duration::ZERO };
    let read_timeout = setup.config.read_timeout.saturating_sub(late);
    let kernel = Kernel::new(node, folder.clone(), history.clone(), host, read_timeout);
    let this = machine.clone();
    let stage = Stage { kernel, folder, store, net, machine, life, history, owner };
    if let Some(sabotage) = setup.sabotage {
        sabotage.plant(&stage);
    }
    script(stage).await;
    this.end();
    Ok(())
}

fn start_reader(
    place: &Place,
    host: &'static str,
    number: u8,
    store: SimStore,
    life: u64,
    folder: Option<SimFolder>,
) -> Arc<Node> {
    let route = Route { addresses: vec![format!("{OWNER_HOST}:{PORT}")], hello: hello() };
    let node = Node::start(Parts {
        config: Config { epoch: life << 8 | u64::from(number), ..place.setup.config.clone() },
        seed: place.setup.seed ^ u64::from(number) ^ life << 24,
        transport: Arc::new(SimTransport::new(reader_id(number), place.line.clone())),
        store: Arc::new(store),
        folder: folder.map(|folder| Arc::new(folder) as Arc<_>),
        admission: Arc::new(Anybody),
        peers: BTreeMap::from([(OWNER, route)]),
        call_back: None,
        remembered: None,
    });
    record(&node, &place.history, host, Some(life));
    node.follow_peers();
    node
}

/// One life of the owner's process.
async fn live_as_owner(place: Place, running: Running, life: u64) -> turmoil::Result {
    let Place { setup, folder, history, line } = place;
    let transport = Arc::new(SimTransport::new(OWNER, line));
    let listener = transport.listen(&format!("0.0.0.0:{PORT}")).await?;
    if let Some(liar) = &setup.liar {
        liar.clone().serve(listener).await;
        return Ok(());
    }
    let node = Node::start(Parts {
        config: Config {
            epoch: 100 + life,
            device: DeviceTag::of(&OWNER),
            version_base: life << 40,
            event_log: setup.event_log,
            watch_timeout: OWNER_WATCH_TIMEOUT,
            ..Config::default()
        },
        seed: setup.seed ^ life << 8,
        transport,
        store: Arc::new(SimStore::default()),
        folder: Some(Arc::new(folder.clone())),
        admission: Arc::new(Anybody),
        peers: BTreeMap::new(),
        call_back: setup.guest.as_ref().map(|_| hello()),
        remembered: None,
    });
    record(&node, &history, OWNER_HOST, None);
    running.set(&node);
    let changes = scan(&node, &folder);
    let guests = Arc::new(Guests::new(Arc::new(Leases::new(LEASE_GRACE))));
    tokio::spawn(server::serve_with(listener, node.clone(), guests, std::future::pending()));
    if let Some(Guest { folder, script }) = &setup.guest {
        let read_timeout = Config::default().read_timeout;
        tokio::task::spawn_local(script(Kernel::new(
            node.clone(),
            folder.clone(),
            history.clone(),
            OWNER_HOST,
            read_timeout,
        )));
    }
    tell_changes(node, changes, setup.watcher_delay).await;
    // The folder has another watcher now, or none: this life is over.
    std::future::pending().await
}

/// Tells a node what is in its folder. What changes comes by what this returns.
fn scan(node: &Node, folder: &SimFolder) -> UnboundedReceiver<Vec<Observation>> {
    let (scan, changes) = folder.watch();
    for batch in scan.chunks(WATCHER_BATCH) {
        node.observe(batch.to_vec());
    }
    changes
}

/// Tells a node what changes in its folder, until that has another watcher or none.
async fn tell_changes(node: Arc<Node>, mut changes: UnboundedReceiver<Vec<Observation>>, delay: Duration) {
    while let Some(news) = changes.recv().await {
        tokio::time::sleep(delay).await;
        let mut news: Vec<Observation> = news;
        while let Ok(more) = changes.try_recv() {
            news.extend(more);
        }
        node.observe(news);
    }
}

pub(crate) fn hello() -> Hello {
    Hello::new(SHARE, None, "sim")
}

/// Writes every step into the history, and checks the engine after it. What a reader does in this `life` is counted.
pub(crate) fn record(node: &Node, history: &History, host: &'static str, life: Option<u64>) {
    let (history, whole) = (history.clone(), history.is_whole());
    let mut steps = 0u64;
    node.record(Box::new(move |step: Step<'_>| {
        steps += 1;
        if whole {
            history.note_step(host, format_args!("{} < {:?}", step.now, step.input));
            for output in step.outputs {
                history.note_step(host, format_args!("{} > {output:?}", step.now));
            }
        }
        if let Some(life) = life {
            let compared =
                if let Input::Done(_, Done::Compared(Ok(same))) = step.input { same.as_slice() } else { &[] };
            history.count(host, life, step.engine.view().totals(), compared.len() as u64);
        }
        if step.engine.view().entries() <= SMALL_TREE || steps.is_multiple_of(SELDOM) {
            step.engine.check();
        }
    }));
}

/// Lets everybody in: who may come in is tested elsewhere.
pub(crate) struct Anybody;

impl Admission for Anybody {
    fn admit(&self, _: PeerId, _: Hello) -> BoxFuture<'static, bool> {
        async { true }.boxed()
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
