//! What happens in a seeded run in which all write: drawn as a whole before anything happens, printed, and then carried out.
//!
//! In the first phase programs write everywhere and faults happen; only safety must hold: no engine breaks a rule, nothing is
//! put into a folder that nobody has written. In the second, faults and programs stop. Within bounded time all devices
//! hold the same then, and of what was written all is there to which nobody has put an end who saw it.

use super::folder::Replica;
use super::programs::{away, draw_small, work_on_mount, write_behind};
use super::referee;
use super::works::Edit;
use super::world::{self, Device, MAX_DEVICES, Stage, Team};
use crate::faults::{Fault, LinkTrouble, Well};
use crate::folder::path;
use crate::history::History;
use crate::lots::Lots;
use crate::plan::{FAULT_MILLIS, MAX_FAULTS, draw_config};
use crate::sabotage::Sabotage;
use crate::world::{OWNER_HOST, READER_HOSTS, Setup};
use farshore_engine::path::RelPath;
use farshore_engine::{Config, Request};
use futures_util::FutureExt;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the first phase is, in milliseconds.
const HURT_MILLIS: std::ops::RangeInclusive<u64> = 3_000..=15_000;

/// How long it may take until all devices hold the same after the last fault: until connections work again (the silence is noticed,
/// the longest pause between attempts passes, twice, in both directions), and until everything has come.
const AGREEMENT: Duration = Duration::from_secs(90);

/// How often a disk makes everything durable by itself.
const COMMIT: Duration = Duration::from_secs(5);

/// How often a process looks whether it is to stop, or whether all is over.
const LOOK: Duration = Duration::from_millis(10);

/// How often is looked in the second phase whether something is to be brought. What cannot be had is asked for again only then:
/// as long as somebody has it open, it is not looked for elsewhere.
const BRING: Duration = Duration::from_secs(3);

/// A run, before it happens.
#[derive(Debug, Clone)]
pub struct WritingPlan {
    /// All chance in the world.
    pub seed: u64,
    /// The devices, the owner first.
    pub devices: Vec<DevicePlan>,
    /// How the engines are set.
    pub config: Config,
    /// How long a step of the simulation is.
    pub tick: Duration,
    /// The shortest and the longest that a message travels.
    pub latency: (Duration, Duration),
    /// How many bytes a connection carries in a millisecond; zero for no limit.
    pub bytes_per_ms: u64,
    /// How long a watcher takes to tell of a change.
    pub watcher_delay: Duration,
    /// How many events are kept.
    pub event_log: usize,
    /// What goes wrong.
    pub mishaps: Vec<Mishap>,
    /// How long the first phase is.
    pub hurt: Duration,
}

/// What is drawn for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlan {
    /// How many files are in its folder in the beginning.
    pub files: u64,
    /// Whether it fetches all files unasked.
    pub fetches_all: bool,
    /// How many programs work on its mount.
    pub programs: u64,
    /// How many changes are made behind it.
    pub edits: u64,
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone, Copy)]
pub struct Mishap {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// Which device it is about.
    pub device: usize,
    /// What it is.
    pub kind: MishapKind,
}

/// What can go wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MishapKind {
    /// The link to the owner is not well.
    Link(LinkTrouble),
    /// The disk is full.
    DiskFull,
    /// The disk fails.
    DiskFailing,
    /// The disk takes so long for each operation.
    DiskSlow(Duration),
    /// The process is away. It was ended in the middle of whatever it did.
    Crash,
    /// The machine is away. Its disk has what was durable.
    PowerCut,
    /// The device is away. It was stopped as it should be.
    Stop,
    /// The process is away, and what it remembers gets lost.
    MemoryLost,
    /// The process is away, and its store gets lost.
    StoreLost,
}

impl WritingPlan {
    /// What `seed` means.
    #[must_use]
    pub fn draw(seed: u64) -> WritingPlan {
        let mut lots = Lots::new(seed ^ 0x003a_3173);
        let hurt = lots.millis(HURT_MILLIS);
        let count = *lots.pick(&[2, 2, 2, 3, 3, 4, MAX_DEVICES]);
        let fastest = lots.millis(1..=20);
        let devices: Vec<DevicePlan> = (0..count).map(|number| DevicePlan::draw(&mut lots, number == 0)).collect();
        // Where anybody has forgotten anything, less can be asked of all.
        let forgets = lots.chance(40);
        let mishaps = (0..lots.within(0..=MAX_FAULTS)).map(|_| Mishap::draw(&mut lots, hurt, count, forgets)).collect();
        WritingPlan {
            seed,
            devices,
            config: Config { cache_bytes: None, ..draw_config(&mut lots) },
            tick: Duration::from_millis(*lots.pick(&[3, 5])),
            latency: (fastest, fastest + lots.millis(0..=20)),
            bytes_per_ms: if lots.chance(30) { lots.within(2_000..=50_000) } else { 0 },
            watcher_delay: lots.millis(0..=150),
            event_log: *lots.pick(&[2, 16, 65_536]),
            mishaps,
            hurt,
        }
    }

    fn well(&self) -> Well {
        Well { latency: self.latency.1, bytes_per_ms: self.bytes_per_ms }
    }
}

impl DevicePlan {
    fn draw(lots: &mut Lots, is_owner: bool) -> DevicePlan {
        let is_full = is_owner || lots.chance(30);
        DevicePlan {
            files: if is_full { lots.below(8) } else { 0 },
            fetches_all: is_owner || lots.chance(50),
            programs: lots.below(3),
            edits: if lots.chance(80) { lots.within(1..=25) } else { 0 },
        }
    }

    /// Makes what is in the folder in the beginning.
    fn prepare(&self, folder: &Replica, lots: &mut Lots) {
        folder.make_dir(&path("d"));
        folder.make_dir(&path("d/e"));
        for number in 0..self.files {
            let dir = *lots.pick(&["", "d/", "d/e/"]);
            folder.write(&path(&format!("{dir}f{number}")), Edit::Whole(draw_small(lots)));
        }
    }
}

impl Mishap {
    /// One after which a device has forgotten something, only if it `forgets`.
    fn draw(lots: &mut Lots, hurt: Duration, devices: usize, forgets: bool) -> Mishap {
        let mut device = lots.below(devices as u64) as usize;
        let kind = match lots.below(if forgets { 20 } else { 15 }) {
            0..7 => {
                device = device.max(1);
                MishapKind::Link(LinkTrouble::draw(lots.below(LinkTrouble::KINDS), lots))
            }
            7 => MishapKind::DiskFull,
            8 => MishapKind::DiskFailing,
            9 => MishapKind::DiskSlow(lots.millis(5..=300)),
            10 | 11 => MishapKind::Stop,
            12..15 => MishapKind::Crash,
            15..18 => MishapKind::PowerCut,
            18 => MishapKind::MemoryLost,
            _ => MishapKind::StoreLost,
        };
        let at = lots.millis(0..=hurt.as_millis() as u64);
        let lasts = lots.millis(FAULT_MILLIS).min(hurt - at);
        Mishap { at, lasts, device, kind }
    }

    async fn begin(&self, plan: &WritingPlan, device: &Device) {
        let (net, store, folder) = (&device.machine.net, &device.machine.store, &device.folder);
        match self.kind {
            MishapKind::Link(trouble) => trouble.begin(net, plan.well()).await,
            MishapKind::DiskFull => {
                store.set_full(true);
                folder.set_full(true);
            }
            MishapKind::DiskFailing => {
                store.set_failing(true);
                folder.set_failing(true);
            }
            MishapKind::DiskSlow(delay) => {
                store.set_delay(delay);
                folder.set_delay(delay);
            }
            MishapKind::PowerCut => net.bring(Fault::CutPower).await,
            MishapKind::Stop => device.machine.set_stop(true),
            MishapKind::Crash => {
                net.bring(Fault::End).await;
                // What was just done in the folder for peers may not be noted.
                if folder.has_just_applied() || !store.knows_all() {
                    folder.works().forget();
                }
            }
            MishapKind::MemoryLost | MishapKind::StoreLost => {
                net.bring(Fault::End).await;
                folder.works().forget();
            }
        }
    }

    async fn end(&self, plan: &WritingPlan, device: &Device) {
        let (net, store, folder) = (&device.machine.net, &device.machine.store, &device.folder);
        match self.kind {
            MishapKind::Link(trouble) => return trouble.end(net, plan.well()).await,
            MishapKind::DiskFull => {
                store.set_full(false);
                return folder.set_full(false);
            }
            MishapKind::DiskFailing => {
                store.set_failing(false);
                return folder.set_failing(false);
            }
            MishapKind::DiskSlow(_) => {
                store.set_delay(Duration::ZERO);
                return folder.set_delay(Duration::ZERO);
            }
            MishapKind::Crash | MishapKind::PowerCut => {}
            MishapKind::Stop => device.machine.set_stop(false),
            // Another mishap may have started it meanwhile: it forgets when it ends.
            MishapKind::MemoryLost => store.lose_memory(),
            MishapKind::StoreLost => {
                net.bring(Fault::End).await;
                store.lose_all();
            }
        }
        net.bring(Fault::Start).await;
    }
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Faults happen.
    Hurt,
    /// They are over, and all devices come to hold the same.
    Heal,
    /// They do.
    Over,
}

/// Runs a plan, perhaps with a planted bug.
///
/// # Errors
/// It did not end in time, or something was logged as an error.
///
/// # Panics
/// If anything is not as it must be.
pub fn run_with(plan: WritingPlan, history: &History, sabotage: Option<Sabotage>) -> Result<(), String> {
    let setup = Setup {
        config: plan.config.clone(),
        tick: plan.tick,
        latency: plan.latency,
        watcher_delay: plan.watcher_delay,
        event_log: plan.event_log,
        sabotage,
        ..Setup::new(plan.seed)
    };
    let (plan, phase) = (Rc::new(plan), Rc::new(Cell::new(Phase::Hurt)));
    let fetch_all: Vec<bool> = plan.devices.iter().map(|device| device.fetches_all).collect();
    let prepare = |team: &[Device]| {
        let mut lots = Lots::new(plan.seed ^ 5);
        plan.devices.iter().zip(team).for_each(|(drawn, device)| drawn.prepare(&device.folder, &mut lots));
    };
    let script = {
        let (plan, phase) = (plan.clone(), phase.clone());
        Rc::new(move |stage| live(plan.clone(), stage, phase.clone()).boxed_local())
    };
    let fate = {
        let plan = plan.clone();
        Box::new(move |team| hurt_and_heal(plan, team, phase).boxed_local())
    };
    world::run(setup, &fetch_all, history, prepare, script, fate)
}

/// What happens to all: what is written behind everybody, the faults, and the end of them.
async fn hurt_and_heal(plan: Rc<WritingPlan>, team: Team, phase: Rc<Cell<Phase>>) {
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(owner) = team.first() {
        owner.machine.net.line.set_bytes_per_ms(plan.bytes_per_ms);
    }
    for (drawn, device) in plan.devices.iter().zip(team.iter()) {
        let lots = Lots::new(plan.seed ^ (device.number as u64 + 1) << 8);
        tasks.spawn_local(write_behind(device.folder.clone(), lots, drawn.edits, plan.hurt));
        let folder = device.folder.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(COMMIT).await;
                folder.sync();
            }
        });
    }
    for mishap in plan.mishaps.iter().copied() {
        let (plan, device) = (plan.clone(), team[mishap.device].clone());
        tasks.spawn_local(async move {
            tokio::time::sleep(mishap.at).await;
            mishap.begin(&plan, &device).await;
            tokio::time::sleep(mishap.lasts).await;
            mishap.end(&plan, &device).await;
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            panic!("a fault ended badly: {error}");
        }
    }
    // Mishaps overlap: the end of one may have begun another.
    for device in team.iter() {
        device.machine.set_stop(false);
        device.machine.net.bring(Fault::Start).await;
        if device.number > 0 {
            device.machine.net.bring(Fault::Flaky(0)).await;
            device.machine.net.bring(Fault::Repair).await;
        }
    }
    phase.set(Phase::Heal);
    referee::settled(&team, AGREEMENT).await;
    phase.set(Phase::Over);
}

/// What one process of a device does.
async fn live(plan: Rc<WritingPlan>, stage: Stage, phase: Rc<Cell<Phase>>) {
    let mut lots = Lots::new(plan.seed ^ (stage.device.number as u64 + 1) << 32 ^ stage.life << 48);
    let left = plan.hurt.saturating_sub(turmoil::sim_elapsed().unwrap_or_default());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..plan.devices[stage.device.number].programs {
        tasks.spawn_local(work_on_mount(stage.clone(), lots.split(), left));
    }
    let machine = stage.device.machine.clone();
    while phase.get() == Phase::Hurt && !machine.is_stop_wanted() {
        tokio::time::sleep(LOOK).await;
    }
    if phase.get() == Phase::Hurt {
        return stop_cleanly(&stage).await;
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            panic!("a program ended badly: {error}");
        }
    }
    stage.history.note(stage.device.host, format_args!("the faults are over"));
    come_to_rest(stage, &phase).await;
}

/// Brings everything that is not here, until all is over, and ends.
pub(crate) async fn come_to_rest(stage: Stage, phase: &Cell<Phase>) {
    heal(&stage, phase).await;
    end(stage).await;
}

/// Ends this process as it should be, until it is wanted again.
async fn stop_cleanly(stage: &Stage) {
    stage.shut_down().await;
    let Device { machine, folder, .. } = &stage.device;
    if !machine.store.knows_all() {
        folder.works().forget();
    }
    if machine.is_stop_wanted() {
        machine.net.bring(Fault::End).await;
    } else {
        machine.net.restart(Fault::End).await;
    }
    panic!("a process went on after its end");
}

/// The second phase: everything is brought that is not here.
async fn heal(stage: &Stage, phase: &Cell<Phase>) {
    let asked: Arc<Mutex<BTreeSet<RelPath>>> = Arc::default();
    while phase.get() == Phase::Heal {
        for path in away(stage) {
            if asked.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone()) {
                let asked = asked.clone();
                // If it cannot be had now, it is asked for again.
                stage.node.ask(Request::Bring { path: path.clone() }, move |_| {
                    asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
                });
            }
        }
        tokio::time::sleep(BRING).await;
    }
}

/// Ends a device, and checks that nothing is left of it.
async fn end(stage: Stage) {
    stage.shut_down().await;
    let node = &stage.node;
    let (waiting, running) = node.view(|view| (view.waiting(), view.running()));
    assert_eq!((waiting, running, node.held_frames()), (0, 0, 0), "requests, effects and frames at the end");
}

impl fmt::Display for WritingPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |device: usize| if device == 0 { OWNER_HOST } else { READER_HOSTS[device - 1] };
        writeln!(f, "  {} devices write for {:?}", self.devices.len(), self.hurt)?;
        for (number, DevicePlan { files, fetches_all, programs, edits }) in self.devices.iter().enumerate() {
            let all = if *fetches_all { "fetches all" } else { "fetches what is asked for" };
            writeln!(f, "  {}: {files} files, {all}, {programs} programs, {edits} edits behind", host(number))?;
        }
        write!(f, "  latency {:?} to {:?}, {} B/ms, ", self.latency.0, self.latency.1, self.bytes_per_ms)?;
        write!(f, "watchers {:?} late, {} events kept", self.watcher_delay, self.event_log)?;
        for Mishap { at, lasts, device, kind } in &self.mishaps {
            write!(f, "\n  {at:?} for {lasts:?}: {kind:?} ({})", host(*device))?;
        }
        Ok(())
    }
}
