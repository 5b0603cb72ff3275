//! How a running process is doing: what `farshore status --json` prints. Names stay; more may be added.

use crate::json_path::JsonPath;
use serde::{Deserialize, Serialize};

/// One running process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its process number.
    pub pid: u32,
    /// Which version of Farshore it is.
    pub version: String,
    /// When it began, in seconds since 1970.
    pub since_unix_seconds: u64,
    /// When this was written, in milliseconds since it began.
    pub uptime_milliseconds: u64,
    /// What it is: `share` or `mount`.
    #[serde(flatten)]
    pub role: Role,
    /// Where it is mounted, if it is.
    pub mountpoint: Option<JsonPath>,
    /// Files, directories and symlinks.
    pub entries: u64,
    /// Opens that have not been closed.
    pub open_handles: u64,
    /// The files that are open here, at most a few hundred.
    pub open_files: Vec<OpenFileReport>,
    /// Open files that are not listed.
    pub open_files_left_out: u64,
    /// The files of which bytes are on their way, at most a few hundred.
    pub fetching: Vec<FetchReport>,
    /// Files on their way that are not listed.
    pub fetching_left_out: u64,
    /// What the store holds of what was fetched, in bytes.
    pub cache_bytes: u64,
    /// How many paths are pinned: they stay.
    pub pins: u64,
    /// What was done since it began.
    pub totals: TotalsReport,
    /// What the kernel asked for, if it is mounted.
    pub fuse: Option<FuseReport>,
    /// What lately went wrong, the oldest first.
    pub events: Vec<Event>,
}

/// What a process does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It offers a folder.
    Share(ShareReport),
    /// It has joined a share.
    Mount(MountReport),
}

/// A folder that is offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareReport {
    /// The folder.
    pub folder: JsonPath,
    /// The share's id.
    pub share: String,
    /// Where it listens.
    pub listening: String,
    /// Where its tickets lead to.
    pub addresses: Vec<String>,
    /// The devices that are connected.
    pub peers: Vec<PeerReport>,
}

/// A device that is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its id.
    pub id: String,
    /// How many connections it has.
    pub connections: u64,
}

/// A share that was joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountReport {
    /// The share's id.
    pub share: String,
    /// The id of the device that owns it.
    pub owner: String,
    /// Where the ticket leads to.
    pub addresses: Vec<String>,
    /// Where fetched bytes are kept.
    pub store: JsonPath,
    /// Whether the share is changed here; the store is then a folder of plain files.
    pub writable: bool,
    /// The connection to the owner.
    pub link: LinkReport,
    /// Where it listens for the other devices of the share, if it does.
    #[serde(default)]
    pub listening: Option<String>,
    /// The other devices that have the share in folders of their own, if this one does.
    #[serde(default)]
    pub others: Vec<OtherReport>,
}

/// Another device that has a share in a folder of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherReport {
    /// Its id.
    pub id: String,
    /// Where it can be reached, as it told the owner.
    pub addresses: Vec<String>,
    /// The connection to it.
    #[serde(flatten)]
    pub link: LinkReport,
}

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LinkReport {
    /// It is there.
    Up {},
    /// It is being made.
    Connecting {
        /// When it was lost, in seconds since 1970, if it ever was.
        down_since_unix_seconds: Option<u64>,
    },
    /// It will be made.
    Waiting {
        /// In so many milliseconds.
        retry_in_milliseconds: u64,
        /// When it was lost, in seconds since 1970, if it ever was.
        down_since_unix_seconds: Option<u64>,
    },
    /// It cannot be made from here, and the other side has not made one.
    Unreachable {},
    /// The process is ending.
    Ended {},
}

/// A file that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFileReport {
    /// Where; `None` if it has no name any more.
    pub path: Option<JsonPath>,
    /// How often.
    pub opens: u32,
}

/// A file of which bytes are on their way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReport {
    /// Where the owner has it.
    pub path: JsonPath,
    /// Chunks that are here.
    pub have_chunks: u64,
    /// Chunks in all.
    pub total_chunks: u64,
    /// Chunks that are asked for.
    pub open_chunks: u64,
    /// Reads that wait for it.
    pub waiters: u64,
}

/// What was done since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TotalsReport {
    /// Inputs that the engine took.
    pub steps: u64,
    /// Reads that were answered at once.
    pub read_hits: u64,
    /// Reads that had to wait for bytes.
    pub read_misses: u64,
    /// Verified bytes that came from peers.
    pub fetched_bytes: u64,
    /// Bytes that need not be fetched: the store had them, from an earlier life or another version.
    pub resumed_bytes: u64,
    /// Chunks that the store had, and whose bytes were not what they should be.
    pub damaged_chunks: u64,
    /// Attempts to fetch a chunk that failed.
    pub failed_fetches: u64,
    /// Chunks that the store refused.
    pub store_failures: u64,
    /// Rules that peers broke.
    pub peer_faults: u64,
    /// Waiting requests that ended with an error.
    pub failed_requests: u64,
}

/// What the kernel asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FuseReport {
    /// Bytes that programs have read. What the kernel had cached, or read by itself, is not among them.
    pub read_bytes: u64,
    /// Files that were opened for the kernel to read by itself.
    #[serde(default)]
    pub passthrough_opens: u64,
    /// Replies that were lost: a defect of Farshore.
    pub lost_replies: u64,
    /// Each kind of operation.
    pub operations: Vec<OperationReport>,
}

/// What was done for one kind of operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationReport {
    /// The kernel's name for it.
    pub operation: String,
    /// Answers that were given.
    pub count: u64,
    /// Those of them that were errors.
    pub errors: u64,
    /// From the question to the answer, all of them together.
    pub time_nanoseconds: u64,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it last happened, in seconds since 1970.
    pub unix_seconds: u64,
    /// What kind it is: `link_down`, `unreachable`, `denied`, `incompatible`, `peer_fault`, `fetch_failed`,
    /// `store_failed`, `save_failed`, `not_shared`.
    pub kind: String,
    /// What happened, for people.
    pub text: String,
    /// To which path in the share.
    pub path: Option<JsonPath>,
    /// How often it happened.
    pub times: u64,
}
