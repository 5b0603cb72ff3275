//! What can be set on an engine, with the defaults of `docs/SEMANTICS.md`.

use crate::version::DeviceTag;
use core::time::Duration;

/// What a read does while the peer that has its bytes is known to be unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDisconnect {
    /// It waits until its deadline.
    #[default]
    Wait,
    /// It fails at once.
    Fail,
}

/// What can be set on an engine. Every duration is longer than zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This life of the process, never zero, different from every other: it tells followers that sequence numbers
    /// began anew. The driver draws it.
    pub epoch: u64,
    /// This device, as versions name it.
    pub device: DeviceTag,
    /// The versions that this device makes have higher numbers than this. A driver that says how many microseconds have
    /// passed since 1970 makes them higher than those of an earlier life of which nothing is remembered.
    pub version_base: u64,
    /// How long a read waits for bytes before it fails.
    pub read_timeout: Duration,
    /// What a read does while the peer is known to be unreachable.
    pub on_disconnect: OnDisconnect,
    /// Failed attempts in a row, without a byte of progress, after which a waiting read fails.
    pub max_retries: u32,
    /// How long the first retry of a fetch waits; doubled each time.
    pub retry_base: Duration,
    /// The longest a retry of a fetch waits.
    pub retry_cap: Duration,
    /// How long a fetch may bring nothing before it counts as failed.
    pub stall_timeout: Duration,
    /// How long the first reconnect waits; doubled each time.
    pub redial_base: Duration,
    /// The longest a reconnect waits. There is no last one.
    pub redial_cap: Duration,
    /// How far read-ahead runs before a sequential reader at most, in chunks. Zero turns it off.
    pub read_ahead_chunks: u32,
    /// How many small files, those of one chunk, are fetched ahead of somebody who reads one after the other, at most.
    /// Zero turns it off.
    pub walk_ahead_files: u32,
    /// How many bytes that nobody waits for yet may be under way at once at most, in all. There are fewer where the
    /// connections carry less: what comes in a quarter of a second and two round trips.
    pub ahead_bytes: u64,
    /// How many may be under way however little the connections carry.
    pub least_ahead_bytes: u64,
    /// How many files of more than one chunk are fetched whole at once; the others wait their turn.
    pub max_prefetches: usize,
    /// How many files are fetched whole at once in all, if that is more.
    pub max_small_prefetches: usize,
    /// Whether a file that is opened is fetched whole.
    pub prefetch_on_open: bool,
    /// How long a chunk that was stored may be not written down.
    pub save_interval: Duration,
    /// How much of what was fetched is kept, in bytes; `None` for as much as there is room for.
    pub cache_bytes: Option<u64>,
    /// How long a peer that follows our tree waits for news before it is told that there is none.
    pub watch_timeout: Duration,
    /// How many events are kept for peers that come back; who is further behind gets the listing.
    pub event_log: usize,
    /// The most updates in one answer to a follower, at least two and at most [`crate::share::WATCH_BATCH`].
    pub watch_batch: usize,
    /// The most entries that peers can make us remember.
    pub max_entries: u64,
    /// Whether there is a folder of our own into which goes what peers change, and whose changes are merged with theirs. A
    /// device without one only shows what a peer says.
    pub keeps_folder: bool,
    /// Whether all files are fetched whole, as if everything was pinned.
    pub fetches_all: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            epoch: 1,
            device: DeviceTag(1),
            version_base: 0,
            read_timeout: Duration::from_secs(30),
            on_disconnect: OnDisconnect::Wait,
            max_retries: 5,
            retry_base: Duration::from_millis(100),
            retry_cap: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(10),
            redial_base: Duration::from_millis(200),
            redial_cap: Duration::from_secs(5),
            read_ahead_chunks: 64,
            walk_ahead_files: 512,
            ahead_bytes: 32 * 1024 * 1024,
            least_ahead_bytes: 1024 * 1024,
            max_prefetches: 8,
            max_small_prefetches: 64,
            prefetch_on_open: false,
            save_interval: Duration::from_secs(1),
            cache_bytes: None,
            watch_timeout: Duration::from_secs(20),
            event_log: 65_536,
            watch_batch: crate::share::WATCH_BATCH,
            max_entries: crate::follow::MAX_ENTRIES,
            keeps_folder: false,
            fetches_all: false,
        }
    }
}
