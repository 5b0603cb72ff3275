//! The hosts of a world in which all write, and the course of it.

use super::folder::Replica;
use super::works::{Places, Works};
use crate::faults::{self, BEGINNING_SECONDS, Course, Fault, Net, Queue};
use crate::history::History;
use crate::store::SimStore;
use crate::transport::{Line, SimTransport};
use crate::world::{
    Anybody, FATE_HOST, LEASE_GRACE, Machine, OWNER, OWNER_HOST, OWNER_WATCH_TIMEOUT, PORT, READER_HOSTS, Running,
    SHARE, Setup, hello, reader_id, record,
};
use farshore::net::transport::Transport;
use farshore::net::{Guests, Leases, server};
use farshore::node::{Node, Parts, Remembered, Route};
use farshore_engine::{Config, DeviceTag, PeerId};
use futures_util::future::LocalBoxFuture;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// The most devices: the owner, and those who have joined.
pub const MAX_DEVICES: usize = READER_HOSTS.len() + 1;

/// One device: what outlives its processes. Clones are the same.
#[derive(Clone)]
pub struct Device {
    /// Counted from zero, which is the owner.
    pub number: usize,
    /// The name of its host.
    pub host: &'static str,
    /// Its folder.
    pub folder: Replica,
    /// The disk of its store, its network, its processes.
    pub machine: Machine,
    /// Its node, while there is one.
    pub running: Running,
    /// Whether it fetches all files whole, without being asked for them.
    pub fetches_all: bool,
}

impl Device {
    fn id(&self) -> PeerId {
        // Fewer than fit.
        if self.number == 0 { OWNER } else { reader_id(self.number as u8 - 1) }
    }
}

/// All devices of a world.
pub type Team = Rc<[Device]>;

/// What one process of a device has at hand.
#[derive(Clone)]
pub struct Stage {
    /// The device.
    pub device: Device,
    /// What it runs.
    pub node: Arc<Node>,
    /// Which of its processes it is, counted from one.
    pub life: u64,
    /// The history of the run.
    pub history: History,
    /// Rung when nobody is to be answered any more.
    pub(super) hangs_up: Arc<Notify>,
}

impl Stage {
    /// Ends the process as the program does: nobody is answered any more, then the node ends.
    pub async fn shut_down(&self) {
        self.hangs_up.notify_one();
        self.node.shut_down().await;
    }
}

/// What runs on every device: from the beginning in every process.
pub type Script = Rc<dyn Fn(Stage) -> LocalBoxFuture<'static, ()>>;

/// What happens to all devices, and outlives their processes.
pub type Fate = Box<dyn FnOnce(Team) -> LocalBoxFuture<'static, ()>>;

/// Runs a world with as many devices as there are entries in `fetch_all`, which says of each whether it fetches all files
/// unasked. `prepare` makes what is in their folders in the beginning.
///
/// # Errors
/// It did not end in time, or something was logged as an error.
///
/// # Panics
/// If a script or anything else in the world does.
pub fn run(
    setup: Setup,
    fetch_all: &[bool],
    history: &History,
    prepare: impl FnOnce(&[Device]),
    script: Script,
    fate: Fate,
) -> Result<(), String> {
    history.capture(|| run_captured(setup, fetch_all, history, prepare, script, fate))?;
    match history.errors().first() {
        Some(error) => Err(format!("an error was logged:{error}")),
        None => Ok(()),
    }
}

fn run_captured(
    setup: Setup,
    fetch_all: &[bool],
    history: &History,
    prepare: impl FnOnce(&[Device]),
    script: Script,
    fate: Fate,
) -> Result<(), String> {
    assert!((2..=MAX_DEVICES).contains(&fetch_all.len()), "a world has two to {MAX_DEVICES} devices");
    let mut sim = faults::build(&setup);
    let (queue, line, works) = (Queue::default(), Arc::<Line>::default(), Works::default());
    let others = &READER_HOSTS[..fetch_all.len() - 1];
    let hosts = std::iter::once(OWNER_HOST).chain(others.iter().copied());
    let devices = hosts.zip(fetch_all).enumerate().map(|(number, (host, fetches_all))| {
        let net = Net::new(host, queue.clone(), setup.tick, line.clone());
        let seed = setup.seed ^ ((number as u64 + 1) << 16);
        let tag = DeviceTag::of(&if number == 0 { OWNER } else { reader_id(number as u8 - 1) });
        let folder = Replica::new(host, tag, seed ^ (1 << 40), works.clone(), history.clone());
        let store = SimStore::new(seed);
        let beside = folder.clone();
        store.lie_beside(move || beside.sync());
        let (machine, running) = (Machine::new(store, net), Running::default());
        Device { number, host, folder, machine, running, fetches_all: *fetches_all }
    });
    let team: Team = devices.collect();
    prepare(&team);
    team.iter().for_each(|device| device.folder.sync());
    let setup = Rc::new(setup);
    for device in team.iter() {
        let (setup, device, history) = (setup.clone(), device.clone(), history.clone());
        let (line, script) = (line.clone(), script.clone());
        sim.host(device.host, move || {
            live(setup.clone(), device.clone(), history.clone(), line.clone(), script.clone())
        });
    }
    let all = team.clone();
    sim.client(FATE_HOST, async move {
        fate(all).await;
        Ok(())
    });
    let disks = |host: &'static str, fault| {
        if fault == Fault::CutPower {
            let (cut, others): (Vec<&Device>, Vec<&Device>) = team.iter().partition(|device| device.host == host);
            let others: Vec<Places> = others.iter().map(|device| device.folder.places()).collect();
            cut.iter().for_each(|device| {
                device.folder.lose_power(&others);
                device.machine.store.lose_power();
            });
        }
    };
    let course = Course { queue: &queue, others, history, limit: setup.limit };
    course.run(&mut sim, disks, || team.iter().all(|device| device.machine.has_ended()))
}

/// One life of a device's process.
async fn live(setup: Rc<Setup>, device: Device, history: History, line: Arc<Line>, script: Script) -> turmoil::Result {
    let life = device.machine.begin_life();
    if let Some(sabotage) = setup.sabotage {
        sabotage.plant_in(&device, &history);
    }
    let is_owner = device.number == 0;
    let transport = Arc::new(SimTransport::new(device.id(), line));
    let listener = if is_owner { Some(transport.listen(&format!("0.0.0.0:{PORT}")).await?) } else { None };
    let route = Route { addresses: vec![format!("{OWNER_HOST}:{PORT}")], hello: hello() };
    let since = Duration::from_secs(BEGINNING_SECONDS) + turmoil::sim_elapsed().unwrap_or_default();
    let node = Node::start(Parts {
        config: Config {
            epoch: (life << 8) | (device.number as u64 + 1),
            device: DeviceTag::of(&device.id()),
            version_base: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            event_log: setup.event_log,
            watch_timeout: OWNER_WATCH_TIMEOUT,
            keeps_folder: true,
            fetches_all: device.fetches_all,
            ..setup.config.clone()
        },
        seed: setup.seed ^ device.number as u64 ^ life << 24,
        transport,
        store: Arc::new(device.machine.store.clone()),
        folder: Some(Arc::new(device.folder.clone())),
        admission: Arc::new(Anybody),
        peers: if is_owner { BTreeMap::new() } else { BTreeMap::from([(OWNER, route)]) },
        call_back: is_owner.then(hello),
        remembered: Some(Remembered::Folder(SHARE)),
    });
    record(&node, &history, device.host, Some(life));
    device.running.set(&node);
    device.folder.scan(&node);
    tokio::spawn(device.folder.clone().watch(node.clone(), setup.watcher_delay));
    let hangs_up = Arc::<Notify>::default();
    match listener {
        Some(listener) => {
            let guests = Arc::new(Guests::new(Arc::new(Leases::new(LEASE_GRACE))));
            let (node, hung_up) = (node.clone(), hangs_up.clone());
            tokio::spawn(async move { server::serve_with(listener, node, guests, hung_up.notified()).await });
        }
        None => node.follow_peers(),
    }
    let machine = device.machine.clone();
    script(Stage { device, node, life, history, hangs_up }).await;
    machine.end();
    Ok(())
}
