//! What happens in a seeded run: drawn as a whole before anything happens, printed, and then carried out.
//!
//! A run has two phases. In the first, programs read, the owner's folder changes, and faults happen within a budget;
//! only safety must hold: no wrong byte, no late answer. In the second the faults stop and the folder rests; then
//! within bounded time every request is answered, every file reads completely and right, both sides have the same tree,
//! and nothing is left over.

use crate::faults::{LinkTrouble, Well};
use crate::folder::{SimFolder, path};
use crate::history::History;
use crate::lots::Lots;
use crate::programs::{edit, read_for_a_while};
use crate::sabotage::Sabotage;
use crate::world::{self, Fault, Machine, READER_HOSTS, Setup, Stage};
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE};
use farshore_engine::path::RelPath;
use farshore_engine::record::{Kind, Record};
use farshore_engine::{Config, OnDisconnect, View};
use futures_util::FutureExt;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The fault budget: at most so many in one run.
pub(crate) const MAX_FAULTS: u64 = 8;

/// How long a fault lasts, in milliseconds.
pub(crate) const FAULT_MILLIS: std::ops::RangeInclusive<u64> = 20..=12_000;

/// How long the first phase is, in milliseconds.
const HURT_MILLIS: std::ops::RangeInclusive<u64> = 3_000..=20_000;

/// How long it may take after the last fault until a connection works again: the silence is noticed (10 s), the longest
/// pause between attempts (5 s), an attempt that was under way meanwhile (5 s), and as much again for bad luck.
const RECOVERY: Duration = Duration::from_secs(25);

/// How long it may take until both sides have the same tree after that.
const AGREEMENT: Duration = Duration::from_secs(20);

/// How long it may take until what is pinned is here, if nobody reads anything else.
const PINNED: Duration = Duration::from_secs(60);

/// How long what nobody waits for may take when nothing goes wrong.
const QUIET: Duration = Duration::from_secs(5);

/// How often a process looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(1);

/// A run, before it happens.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All chance in the world.
    pub seed: u64,
    /// What is in the folder at the beginning: paths, with the size of what is a file.
    pub files: Vec<(String, Option<u64>)>,
    /// How the readers' engines are set.
    pub config: Config,
    /// How long a step of the simulation is.
    pub tick: Duration,
    /// The shortest and the longest that a message travels.
    pub latency: (Duration, Duration),
    /// How many bytes a connection carries in a millisecond; zero for no limit.
    pub bytes_per_ms: u64,
    /// How long the owner's watcher takes to tell of a change.
    pub watcher_delay: Duration,
    /// How many events the owner keeps.
    pub event_log: usize,
    /// How many programs run on each reader.
    pub programs: Vec<u64>,
    /// Changes to the folder in the first phase.
    pub edits: u64,
    /// What goes wrong.
    pub faults: Vec<Trouble>,
    /// How long the first phase is.
    pub hurt: Duration,
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// Which reader it is about.
    pub reader: usize,
    /// What it is.
    pub kind: TroubleKind,
}

/// What can go wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// The link is not well.
    Link(LinkTrouble),
    /// The owner's process is away.
    Crash,
    /// The owner's machine is away.
    PowerCut,
    /// The reader's disk is full.
    StoreFull,
    /// The reader's disk fails.
    StoreFailing,
    /// The reader's disk takes so long for each write.
    StoreSlow(Duration),
    /// The reader's process is away. It was ended in the middle of whatever it did.
    ReaderCrash,
    /// The reader's machine is away. With its power it has lost a byte of each file that its store had saved.
    ReaderPowerCut,
    /// The reader is away. It was stopped as it should be.
    ReaderStop,
    /// The owner's disk fails.
    FolderFailing,
    /// The owner's disk takes so long for each read.
    FolderSlow(Duration),
}

impl Plan {
    /// What `seed` means.
    #[must_use]
    pub fn draw(seed: u64) -> Plan {
        let mut lots = Lots::new(seed ^ 0xfa25_f0e5);
        let hurt = lots.millis(HURT_MILLIS);
        let readers = if lots.chance(25) { 2 } else { 1 };
        let fastest = lots.millis(1..=20);
        let programs = (0..readers).map(|_| lots.within(1..=5)).collect();
        let faults = (0..lots.within(0..=MAX_FAULTS)).map(|_| Trouble::draw(&mut lots, hurt, readers)).collect();
        Plan {
            seed,
            files: draw_files(&mut lots),
            config: draw_config(&mut lots),
            tick: Duration::from_millis(*lots.pick(&[1, 3, 5])),
            latency: (fastest, fastest + lots.millis(0..=20)),
            bytes_per_ms: if lots.chance(40) { lots.within(2_000..=50_000) } else { 0 },
            watcher_delay: lots.millis(0..=150),
            event_log: *lots.pick(&[2, 16, 65_536]),
            programs,
            edits: if lots.chance(70) { lots.within(1..=40) } else { 0 },
            faults,
            hurt,
        }
    }

    fn well(&self) -> Well {
        Well { latency: self.latency.1, bytes_per_ms: self.bytes_per_ms }
    }
}

pub(crate) fn draw_config(lots: &mut Lots) -> Config {
    Config {
        read_timeout: if lots.chance(40) { lots.millis(1_500..=5_000) } else { lots.millis(5_000..=30_000) },
        on_disconnect: if lots.chance(20) { OnDisconnect::Fail } else { OnDisconnect::Wait },
        read_ahead_chunks: *lots.pick(&[0, 2, 64]),
        ahead_bytes: *lots.pick(&[CHUNK_SIZE, 4 * CHUNK_SIZE, 64 * CHUNK_SIZE]),
        max_prefetches: *lots.pick(&[1, 8]),
        stall_timeout: lots.millis(2_000..=10_000),
        prefetch_on_open: lots.chance(20),
        save_interval: lots.millis(200..=2_000),
        cache_bytes: lots.chance(40).then(|| lots.below(20) * CHUNK_SIZE),
        ..Config::default()
    }
}

/// Directories, and files of sizes on both sides of every border.
fn draw_files(lots: &mut Lots) -> Vec<(String, Option<u64>)> {
    let mut dirs = vec![String::new()];
    let mut files = Vec::new();
    for number in 0..lots.within(0..=3) {
        let dir = format!("{}d{number}/", lots.pick(&dirs));
        files.push((dir.trim_end_matches('/').to_owned(), None));
        dirs.push(dir);
    }
    for number in 0..lots.within(1..=10) {
        files.push((format!("{}f{number}", lots.pick(&dirs)), Some(draw_size(lots))));
    }
    files
}

/// A size of a file, small ones and borders more often.
pub(crate) fn draw_size(lots: &mut Lots) -> u64 {
    let border = *lots.pick(&[1, FRAME_SIZE, CHUNK_SIZE, 2 * CHUNK_SIZE, 5 * CHUNK_SIZE]);
    match lots.below(8) {
        0 => 0,
        1 => border - 1,
        2 => border,
        3 => border + 1,
        4 => lots.below(4_096),
        5 | 6 => lots.below(4 * CHUNK_SIZE),
        _ => lots.below(16 * CHUNK_SIZE),
    }
}

impl Trouble {
    fn draw(lots: &mut Lots, hurt: Duration, readers: u64) -> Trouble {
        let kind = match lots.below(16) {
            kind @ 0..LinkTrouble::KINDS => TroubleKind::Link(LinkTrouble::draw(kind, lots)),
            5 => TroubleKind::Crash,
            6 => TroubleKind::PowerCut,
            7 => TroubleKind::StoreFull,
            8 => TroubleKind::StoreFailing,
            9 => TroubleKind::StoreSlow(lots.millis(5..=500)),
            10 => TroubleKind::FolderFailing,
            11 => TroubleKind::ReaderCrash,
            12 => TroubleKind::ReaderPowerCut,
            13 | 14 => TroubleKind::ReaderStop,
            _ => TroubleKind::FolderSlow(lots.millis(5..=500)),
        };
        let at = lots.millis(0..=hurt.as_millis() as u64);
        let lasts = lots.millis(FAULT_MILLIS).min(hurt - at);
        Trouble { at, lasts, reader: lots.below(readers) as usize, kind }
    }

    async fn begin(&self, plan: &Plan, machine: &Machine, folder: &SimFolder) {
        match self.kind {
            TroubleKind::Link(trouble) => trouble.begin(&machine.net, plan.well()).await,
            TroubleKind::Crash => machine.net.bring(Fault::Crash).await,
            TroubleKind::PowerCut => machine.net.bring(Fault::PowerCut).await,
            TroubleKind::StoreFull => machine.store.set_full(true),
            TroubleKind::StoreFailing => machine.store.set_failing(true),
            TroubleKind::StoreSlow(delay) => machine.store.set_delay(delay),
            TroubleKind::ReaderCrash => machine.net.bring(Fault::End).await,
            TroubleKind::ReaderPowerCut => machine.net.bring(Fault::CutPower).await,
            TroubleKind::ReaderStop => machine.set_stop(true),
            TroubleKind::FolderFailing => folder.set_failing(true),
            TroubleKind::FolderSlow(delay) => folder.set_delay(delay),
        }
    }

    async fn end(&self, plan: &Plan, machine: &Machine, folder: &SimFolder) {
        match self.kind {
            TroubleKind::Link(trouble) => trouble.end(&machine.net, plan.well()).await,
            TroubleKind::Crash | TroubleKind::PowerCut => machine.net.bring(Fault::Restart).await,
            TroubleKind::StoreFull => machine.store.set_full(false),
            TroubleKind::StoreFailing => machine.store.set_failing(false),
            TroubleKind::StoreSlow(_) => machine.store.set_delay(Duration::ZERO),
            TroubleKind::ReaderCrash | TroubleKind::ReaderPowerCut => machine.net.bring(Fault::Start).await,
            TroubleKind::ReaderStop => {
                machine.set_stop(false);
                machine.net.bring(Fault::Start).await;
            }
            TroubleKind::FolderFailing => folder.set_failing(false),
            TroubleKind::FolderSlow(_) => folder.set_delay(Duration::ZERO),
        }
    }
}

/// Runs what `seed` means.
///
/// # Errors
/// It did not end in time, or something was logged as an error.
///
/// # Panics
/// If anything is not as it must be.
pub fn run(seed: u64, history: &History) -> Result<(), String> {
    run_with(Plan::draw(seed), history, None)
}

/// Runs a plan, perhaps with a planted bug.
///
/// # Errors
/// It did not end in time, or something was logged as an error.
///
/// # Panics
/// If anything is not as it must be.
pub fn run_with(plan: Plan, history: &History, sabotage: Option<Sabotage>) -> Result<(), String> {
    let folder = SimFolder::new(history.clone());
    for (path, size) in &plan.files {
        match size {
            Some(size) => folder.write(path, *size),
            None => folder.make_dir(path),
        }
    }
    let setup = Setup {
        config: plan.config.clone(),
        tick: plan.tick,
        latency: plan.latency,
        watcher_delay: plan.watcher_delay,
        event_log: plan.event_log,
        sabotage,
        ..Setup::new(plan.seed)
    };
    let is_over = Arc::<AtomicBool>::default();
    let scripts = (0..plan.programs.len()).map(|number| {
        let (plan, is_over) = (Rc::new(plan.clone()), is_over.clone());
        world::script(move |stage| live(plan.clone(), number, stage, is_over.clone()))
    });
    let scripts = scripts.collect();
    let fate = {
        let folder = folder.clone();
        Box::new(move |machines| hurt(plan, folder, machines, is_over).boxed_local())
    };
    world::run_under(Some(fate), setup, &folder, history, scripts)
}

/// What happens to all: the changes of the folder, and the faults.
async fn hurt(plan: Plan, folder: SimFolder, machines: Vec<Machine>, is_over: Arc<AtomicBool>) {
    let plan = Rc::new(plan);
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(first) = machines.first() {
        first.net.line.set_bytes_per_ms(plan.bytes_per_ms);
    }
    tasks.spawn_local(edit(folder.clone(), Lots::new(plan.seed), plan.edits, plan.hurt));
    for trouble in plan.faults.iter().copied() {
        let (plan, machine, folder) = (plan.clone(), machines[trouble.reader].clone(), folder.clone());
        tasks.spawn_local(async move {
            tokio::time::sleep(trouble.at).await;
            trouble.begin(&plan, &machine, &folder).await;
            tokio::time::sleep(trouble.lasts).await;
            trouble.end(&plan, &machine, &folder).await;
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            panic!("a fault ended badly: {error}");
        }
    }
    // Troubles overlap: the end of one may have begun another.
    let owner_was_away =
        plan.faults.iter().any(|trouble| matches!(trouble.kind, TroubleKind::Crash | TroubleKind::PowerCut));
    for (number, machine) in machines.iter().enumerate() {
        if number == 0 && owner_was_away {
            machine.net.bring(Fault::Restart).await;
        }
        machine.net.bring(Fault::Flaky(0)).await;
        machine.net.bring(Fault::Repair).await;
        machine.set_stop(false);
        machine.net.bring(Fault::Start).await;
    }
    is_over.store(true, Ordering::Relaxed);
}

/// What one process of a reader does.
async fn live(plan: Rc<Plan>, number: usize, stage: Stage, is_over: Arc<AtomicBool>) {
    let mut lots = Lots::new(plan.seed ^ (number as u64 + 1) << 32 ^ stage.life << 48);
    let left = plan.hurt.saturating_sub(turmoil::sim_elapsed().unwrap_or_default());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..plan.programs[number] {
        tasks.spawn_local(read_for_a_while(stage.clone(), lots.split(), left));
    }
    let programs = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                panic!("a program ended badly: {error}");
            }
        }
        while !is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let stop = async {
        while !stage.machine.is_stop_wanted() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let is_stopped = tokio::select! {
        biased;
        () = stop => true,
        () = programs => false,
    };
    if is_stopped {
        // Files stay open, as at an unmount that does not wait for programs.
        drop(tasks);
        return stop_cleanly(&stage).await;
    }
    stage.history.note(READER_HOSTS[number], format_args!("the faults are over"));
    heal(&plan, &stage).await;
    stage.end().await;
}

/// Ends this process as it should be, until it is wanted again.
async fn stop_cleanly(stage: &Stage) {
    stage.kernel.node().shut_down().await;
    if stage.machine.is_stop_wanted() {
        stage.net.bring(Fault::End).await;
    } else {
        stage.net.restart(Fault::End).await;
    }
    panic!("a process went on after its end");
}

/// The second phase.
async fn heal(plan: &Plan, stage: &Stage) {
    tokio::time::sleep(RECOVERY).await;
    stage.agreed(AGREEMENT).await;
    stage.until("all that is pinned to be here", PINNED, || pinned_is_here(stage)).await;
    for (path, size) in stage.folder.paths() {
        let Some(size) = size else { continue };
        let read = read_whole(stage, &path).await;
        assert_eq!(read, Ok(size), "reading {path} when all is well, within {:?}", plan.config.read_timeout);
    }
    stage.agreed(Duration::from_millis(1)).await;
    let (waiting, frames) = (stage.kernel.node().view(|view| view.waiting()), stage.kernel.node().held_frames());
    assert_eq!((waiting, frames), (0, 0), "requests and frames when all is read");
    check_store(plan, stage).await;
}

/// Whether every byte of every file that is pinned is in the store.
fn pinned_is_here(stage: &Stage) -> bool {
    let is_here = |view: View<'_>| {
        let pinned: Vec<RelPath> = view.pins().cloned().collect();
        let is_pinned = |at: &RelPath| pinned.iter().any(|pin| pin.is_prefix_of(at));
        view.tree().filter(|(at, record)| is_pinned(at) && is_stored_by_chunks(record)).all(|(at, _)| {
            let content = view.resolve(&at).and_then(|ino| view.content(ino));
            content.is_some_and(|content| content.have_chunks == content.total_chunks)
        })
    };
    stage.kernel.node().view(is_here)
}

/// Whether there is anything to store of it: an empty file has no chunks.
fn is_stored_by_chunks(record: &Record) -> bool {
    matches!(record.kind, Kind::File { size_bytes, .. } if size_bytes > 0)
}

/// When everything is closed and read, the store holds what the engine believes that it does, no more than it may, and all
/// that is pinned.
async fn check_store(plan: &Plan, stage: &Stage) {
    let pinned_bytes = || {
        let files = stage.folder.paths();
        let of_pinned = |(name, size): &(String, Option<u64>)| {
            let at = path(name);
            let is_pinned = stage.kernel.node().view(|view| view.pins().any(|pin| pin.is_prefix_of(&at)));
            if is_pinned { size.unwrap_or(0) } else { 0 }
        };
        files.iter().map(of_pinned).sum::<u64>()
    };
    let stored_bytes = || stage.kernel.node().view(|view| view.stored_bytes());
    // What is being saved goes when that has ended.
    stage.until("a store as the engine knows it", QUIET, || stage.store.used_bytes() == stored_bytes()).await;
    assert!(stored_bytes() >= pinned_bytes(), "{} bytes are stored, and {} pinned", stored_bytes(), pinned_bytes());
    let most = plan.config.cache_bytes.map_or(u64::MAX, |limit| limit.max(pinned_bytes()));
    assert!(stored_bytes() <= most, "{} bytes are stored, and {most} may be", stored_bytes());
}

/// Reads a file whole, and checks that it is the newest version.
async fn read_whole(stage: &Stage, path: &str) -> Result<u64, farshore_engine::Errno> {
    let file = stage.kernel.open(path)?;
    let newest = stage.folder.version(path);
    let mut at = 0;
    while at < newest.size_bytes {
        let read = stage.kernel.read(file, at, 1024 * 1024).await?;
        assert_eq!(read.version, newest, "an old version of {path}");
        at += read.len;
    }
    stage.kernel.release(file);
    Ok(at)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { read_timeout, on_disconnect, read_ahead_chunks, ahead_bytes, stall_timeout, .. } = &self.config;
        writeln!(f, "  {} entries, {} edits in {:?}", self.files.len(), self.edits, self.hurt)?;
        writeln!(f, "  {:?} programs on {} readers", self.programs, self.programs.len())?;
        write!(f, "  latency {:?} to {:?}, {} B/ms, ", self.latency.0, self.latency.1, self.bytes_per_ms)?;
        writeln!(f, "watcher {:?} late, {} events kept", self.watcher_delay, self.event_log)?;
        write!(f, "  read timeout {read_timeout:?} ({on_disconnect:?}), stall timeout {stall_timeout:?}, ")?;
        writeln!(f, "{read_ahead_chunks} chunks ahead, {} KiB in all", ahead_bytes / 1024)?;
        let Config { prefetch_on_open, save_interval, cache_bytes, .. } = &self.config;
        write!(
            f,
            "  saved within {save_interval:?}, cache {cache_bytes:?} bytes, prefetch on open: {prefetch_on_open}"
        )?;
        for Trouble { at, lasts, reader, kind } in &self.faults {
            write!(f, "\n  {at:?} for {lasts:?}: {kind:?} ({})", READER_HOSTS[*reader])?;
        }
        Ok(())
    }
}
