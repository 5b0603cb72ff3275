//! Named scenarios: what must happen when something particular goes wrong. Real bytes are carried in each, and checked.

mod basics;
mod both_ways;
mod folder;
mod lies;
mod link;
mod load;
mod owner;
mod restarts;
mod small;
mod store;
mod writers;

use crate::folder::SimFolder;
use crate::history::History;
use crate::kernel::OpenFile;
use crate::world::{self, LEASE_GRACE, Setup, Stage};
use farshore_engine::Notice;
use farshore_engine::chunk::CHUNK_SIZE;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    /// Runs it.
    ///
    /// # Panics
    /// If something is not as it must be.
    pub run: fn(u64, &History) -> Result<(), String>,
}

/// All scenarios.
pub const ALL: &[&[Scenario]] = &[
    basics::ALL,
    both_ways::ALL,
    link::ALL,
    owner::ALL,
    folder::ALL,
    lies::ALL,
    load::ALL,
    small::ALL,
    store::ALL,
    restarts::ALL,
    writers::ALL,
];

/// Every scenario, one after the other.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    ALL.iter().copied().flatten()
}

/// The scenario of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}

/// What a read from front to back asks for at once, in bytes: what the kernel's own read-ahead does.
const PIECE: u32 = 128 * 1024;

/// How long the owner remembers those who have gone without a word: until its watch has nothing to tell, and until it
/// does not expect them back.
const OWNER_FORGETS: Duration = Duration::from_secs(20).saturating_add(LEASE_GRACE);

/// Runs a world with one reader.
fn with_reader<F: Future<Output = ()> + 'static>(
    setup: Setup,
    history: &History,
    prepare: impl FnOnce(&SimFolder),
    body: impl Fn(Stage) -> F + 'static,
) -> Result<(), String> {
    let folder = SimFolder::new(history.clone());
    prepare(&folder);
    world::run(setup, &folder, history, vec![world::script(body)])
}

impl Stage {
    /// Waits until the tree was listed.
    async fn listed(&self) {
        self.until("the listing", Duration::from_secs(60), || {
            self.kernel.node().view(|view| view.peers().all(|peer| peer.listed))
        })
        .await;
    }

    /// Waits until the reader's tree is the owner's folder.
    pub(crate) async fn agreed(&self, limit: Duration) {
        self.until("the same tree", limit, || self.kernel.node().view(|view| self.folder.difference(view)).is_none())
            .await;
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, limit: Duration, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < limit, "waited {limit:?} for {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Verified bytes that came so far.
    fn fetched(&self) -> u64 {
        self.kernel.node().view(|view| view.totals().fetched_bytes)
    }

    /// Opens a file that is there.
    fn open(&self, path: &str) -> OpenFile {
        self.kernel.open(path).unwrap_or_else(|errno| panic!("{path} cannot be opened: {errno:?}"))
    }

    /// Reads a part of a file, which must succeed.
    async fn read(&self, file: OpenFile, offset: u64, len: u64) -> crate::kernel::Checked {
        let read = self.kernel.read(file, offset, len as u32).await;
        read.unwrap_or_else(|errno| panic!("{len} bytes at {offset} cannot be read: {errno:?}"))
    }

    /// Reads a file from front to back, which must succeed.
    async fn read_to_end(&self, file: OpenFile) -> u64 {
        let read = self.kernel.read_to_end(file, PIECE).await;
        read.unwrap_or_else(|errno| panic!("{file:?} cannot be read to the end: {errno:?}"))
    }

    /// Counts notices from now on.
    fn count(&self, counted: impl Fn(&Notice) -> bool + Send + 'static) -> Count {
        let count = Count::default();
        let counter = count.clone();
        self.kernel.node().on_notice(Box::new(move |notice| {
            if counted(notice) {
                *counter.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            }
        }));
        count
    }

    /// Ends the reader, and checks that nothing is left of it anywhere.
    pub(crate) async fn end(self) {
        let node = self.kernel.node().clone();
        self.kernel.forget_all();
        node.shut_down().await;
        let (waiting, running) = node.view(|view| (view.waiting(), view.running()));
        assert_eq!((waiting, running, node.held_frames()), (0, 0, 0), "requests, effects and frames at the end");
        drop(node);
        let (store, folder, owner) = (self.store.clone(), self.folder.clone(), self.owner.clone());
        drop(self);
        assert_eq!(store.open_contents(), 0, "contents that nobody has closed");
        let began = Instant::now();
        let left = || {
            let waiting = owner.get().map_or(0, |owner| owner.view(|view| view.waiting()));
            (folder.served().open, waiting)
        };
        while left() != (0, 0) {
            assert!(began.elapsed() < OWNER_FORGETS, "the owner still has (open files, waiting requests) {:?}", left());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A number that goes up.
#[derive(Clone, Default)]
struct Count(Arc<Mutex<u64>>);

impl Count {
    fn get(&self) -> u64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn chunks(count: u64) -> u64 {
    count * CHUNK_SIZE
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A world whose messages take `one_way` each.
fn far(seed: u64, one_way: Duration) -> Setup {
    Setup { latency: (one_way, one_way), ..Setup::new(seed) }
}
