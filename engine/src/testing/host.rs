//! One engine of a [`super::World`], with everything that its driver keeps.

use super::folder::{Folder, Look};
use super::oracle::Kernel;
use super::store::MemStore;
use super::wire::ConnId;
use crate::chunk::FrameSet;
use crate::config::Config;
use crate::engine::Engine;
use crate::ids::{ContentId, EffectId, LinkId, PeerId, ReqId};
use crate::input::{Request, StoreError, Wanted, WatchCursor};
use crate::memory::Memory;
use crate::output::{Apply, ApplyError, ServedFile};
use crate::path::RelPath;
use crate::record::Facts;
use crate::remembered::{Remembered, Snapshot};
use crate::time::Time;
use crate::version::DeviceTag;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Which engine of a world.
pub type HostId = usize;

/// One engine and its driver.
#[derive(Debug)]
pub struct Host {
    /// Its device.
    pub peer: PeerId,
    /// The engine.
    pub engine: Engine,
    /// Its own folder, if it is an owner.
    pub folder: Folder,
    /// What of the folder it does not offer.
    pub unshared: BTreeSet<RelPath>,
    /// What it has fetched.
    pub store: MemStore,
    /// What was written down of its owner's tree, at some moment.
    pub(super) remembered: Option<Remembered>,
    /// The next of it, as far as it is collected.
    pub(super) snapshot: Option<Snapshot>,
    /// What was written down of a share that it keeps in a folder: all that it has told anybody.
    pub(super) written: Memory,
    /// How many of its coming stores fail, and why.
    pub store_faults: Option<(StoreError, u32)>,
    /// What its applications know.
    pub kernel: Kernel,
    /// Counts its lives: news of an earlier one reaches nobody.
    pub(super) life: u32,
    pub(super) config: Config,
    pub(super) watcher: Watcher,
    pub(super) jobs: BTreeMap<EffectId, Job>,
    pub(super) links: BTreeMap<LinkId, ConnId>,
    pub(super) asked: BTreeMap<ReqId, Asked>,
    pub(super) last_request: u64,
    /// The contents that were ever fetched, as they were asked for.
    pub(super) wanted: BTreeMap<ContentId, Wanted>,
}

/// What a driver does for its engine and has not reported yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    Dial { peer: PeerId, link: LinkId },
    Watch { conn: Option<ConnId> },
    Fetch { conn: Option<ConnId>, content: ContentId, chunk: u64, asked: FrameSet, told: FrameSet },
    Store { content: ContentId, chunk: u64, size_bytes: u64 },
    Resume { content: ContentId },
    Verify { content: ContentId, chunk: u64 },
    Compare { conn: Option<ConnId>, content: ContentId, chunks: core::ops::Range<u64>, in_folder: Option<ServedFile> },
    Save { contents: Vec<ContentId> },
    Apply { ops: VecDeque<Apply>, results: Vec<Result<Facts, ApplyError>> },
}

/// A request that is not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) at: Time,
    /// The last moment at which whoever asked may be told.
    pub(super) until: Option<Time>,
    /// On behalf of which connection, for requests of peers.
    pub(super) conn: Option<ConnId>,
}

/// Looks into the folder and tells the engine, a little at a time.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    pub(super) looks: VecDeque<Look>,
    /// The directory that is being read, and what is still to be looked at of it.
    pub(super) scan: Option<(RelPath, VecDeque<RelPath>)>,
    /// Whether a look is scheduled.
    pub(super) busy: bool,
}

impl Host {
    pub(super) fn new(index: HostId, config: Config, seed: u64, now: Time) -> Host {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(index as u64 + 1).to_be_bytes());
        let peer = PeerId(id);
        let config = Config { device: DeviceTag::of(&peer), ..config };
        Host {
            peer,
            engine: Engine::new(config.clone(), seed, now),
            folder: Folder::default(),
            unshared: BTreeSet::new(),
            store: MemStore::default(),
            remembered: None,
            snapshot: None,
            written: Memory::default(),
            store_faults: None,
            kernel: Kernel::default(),
            life: 0,
            config,
            watcher: Watcher::default(),
            jobs: BTreeMap::new(),
            links: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_request: 0,
            wanted: BTreeMap::new(),
        }
    }

    pub(super) fn next_request(&mut self, request: Request, now: Time, conn: Option<ConnId>) -> ReqId {
        self.last_request += 1;
        let id = ReqId(self.last_request);
        let until = match &request {
            Request::Read { .. } => Some(now + self.config.read_timeout),
            Request::PeerWatch { .. } => Some(now + self.config.watch_timeout),
            // Answered at once, or as long as it gets on.
            Request::FetchAll { .. } | Request::Bring { .. } => None,
            Request::Lookup { .. }
            | Request::GetAttr { .. }
            | Request::Xattrs { .. }
            | Request::ReadLink { .. }
            | Request::Open { .. }
            | Request::Release { .. }
            | Request::ReadDir { .. }
            | Request::Pin { .. }
            | Request::Unpin { .. }
            | Request::Evict { .. }
            | Request::PeerOpen { .. } => Some(now),
        };
        self.asked.insert(id, Asked { request, at: now, until, conn });
        id
    }

    /// Writes down what has changed of what it remembers.
    ///
    /// # Panics
    /// If that is not what it is to remember now.
    pub(super) fn write_down(&mut self) {
        if self.config.keeps_folder {
            let changes = self.engine.take_changes();
            let written = core::mem::take(&mut self.written).after(changes);
            self.written =
                written.unwrap_or_else(|fault| panic!("{:?} remembers what makes no share: {fault}", self.peer));
            // While a peer lists, nobody collects it at once.
            if let Some(memory) = self.engine.view().memory() {
                assert_eq!(self.written, memory, "{:?} has written down something else", self.peer);
            }
        }
    }

    /// Whether it offers what is at a path of its folder.
    pub(super) fn offers(&self, path: &RelPath) -> bool {
        !self.unshared.iter().any(|unshared| unshared.is_prefix_of(path))
    }

    /// Whether it waits for nothing but news and connections.
    pub(super) fn is_quiet(&self) -> bool {
        let waits = |asked: &Asked| !matches!(asked.request, Request::PeerWatch { .. });
        let works = |job: &Job| !matches!(job, Job::Dial { .. } | Job::Watch { .. });
        let saves = !self.engine.saving.unsaved.is_empty() || self.engine.saving.at.is_some();
        let retries = self.engine.prefetch.again_at.is_some();
        !saves && !retries && !self.asked.values().any(waits) && !self.jobs.values().any(works) && !self.watcher.busy
    }
}

impl Asked {
    pub(super) fn cursor(&self) -> Option<&WatchCursor> {
        match &self.request {
            Request::PeerWatch { cursor, .. } => Some(cursor),
            _ => None,
        }
    }
}
