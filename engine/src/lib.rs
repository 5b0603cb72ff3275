//! What Farshore does, as a state machine: no I/O, no clock, no threads, no chance of its own, and no content bytes.
//!
//! An [`Engine`] holds everything that is known of one share on one device. It is told what happens by
//! [`Engine::step`] and says what should be done; a driver (the FUSE mount, the simulator, a test) does it and reports.
//! The contract between them:
//!
//! - Each [`Input::Request`] has a number higher than the one before and gets exactly one [`Output::Reply`], in the
//!   same step or later, and no later than its deadline.
//! - Each [`Output::Effect`] for which [`Effect::is_reported`] holds gets exactly one [`Input::Done`], also after
//!   [`Output::Cancel`].
//! - Outputs are carried out in the order in which they came.
//! - Time never goes back. When [`Engine::next_timer`] says so, the driver sends a [`Input::Tick`].
//! - Bytes never pass through here. A driver that fetches frames asks [`Engine::wants`], keeps the verified frames in
//!   memory, and tells [`Input::Arrived`]; it lets go of them after [`Effect::Store`] has ended well or at
//!   [`Effect::DropFrames`] and [`Effect::Discard`]. After a store that failed it keeps them until one of these.
//!
//! What a driver does wrong panics. What a peer or an application does wrong is data: [`PeerFault`], [`Errno`].
//!
//! The smallest driver there is: it shares a folder of one file with itself, in memory.
//!
//! ```
//! use farshore_engine::record::{Facts, FileTime};
//! use farshore_engine::*;
//!
//! let mut engine = Engine::new(Config::default(), 1, Time::ZERO);
//! let mut out = Vec::new();
//!
//! // The driver has looked into its folder.
//! let seen = Seen {
//!     kind: SeenKind::File { size_bytes: 5 },
//!     mode: 0o644,
//!     modified: FileTime { seconds: 1_700_000_000, nanos: 0 },
//!     xattrs: None,
//!     facts: Facts::default(),
//! };
//! let path = path::RelPath::parse(b"hello.txt").unwrap();
//! engine.step(Time::ZERO, Input::Observed(Observation::Found { path, seen }), &mut out);
//!
//! // The kernel asks for the name.
//! out.clear();
//! let name = path::Name::new(b"hello.txt").unwrap();
//! let lookup = Request::Lookup { parent: Ino::ROOT, name };
//! engine.step(Time::from_millis(1), Input::Request(ReqId(1), lookup), &mut out);
//! let [Output::Reply(ReqId(1), Ok(Reply::Entry(attr)))] = &out[..] else { panic!("{out:?}") };
//! assert_eq!((attr.size_bytes, attr.kind), (5, AttrKind::File));
//!
//! // Nothing waits, so nothing is due.
//! assert_eq!(engine.next_timer(), None);
//! engine.check();
//! ```

// What those are is in this crate's clippy.toml: clocks, threads, I/O, and collections in the order of chance.
#![deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::disallowed_macros)]

pub mod bitmap;
pub mod chunk;
pub mod config;
pub mod download;
pub mod event;
pub mod fault;
pub mod handles;
pub mod identity;
pub mod ids;
pub mod input;
mod memory;
pub mod merge;
pub mod output;
pub mod path;
pub mod record;
pub mod remembered;
pub mod share;
pub mod sidecar;
pub mod stored;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod timers;
pub mod version;
pub mod view;
pub mod xattrs;

mod backoff;
mod behind;
mod blocked;
mod bring;
mod cache;
mod check;
mod content;
mod due;
mod engine;
mod entries;
mod fetch;
mod folder;
mod follow;
mod journal;
mod kept;
mod kernel;
mod leases;
mod names;
mod observed;
mod older;
mod pace;
mod pages;
mod peers;
mod planning;
mod prefetch;
mod readahead;
mod reads;
mod rename;
mod replica;
mod rng;
mod save;
mod sources;
mod tombstones;
mod tree;
mod unsettled;
mod walks;

pub use bitmap::ChunkBitmap;
pub use config::{Config, OnDisconnect};
pub use download::DownloadState;
pub use engine::Engine;
pub use entries::Entries;
pub use event::{Change, Observation, Position, Seen, SeenKind, TreeUpdate};
pub use fault::PeerFault;
pub use follow::MAX_ENTRIES;
pub use identity::{ContentIdentity, ContentKey};
pub use ids::{ContentId, EffectId, Handle, Ino, LinkId, PeerId, ReqId};
pub use input::{Command, DialError, Done, FetchError, Input, PeerEvent, Request, StoreError, Wanted, WatchCursor};
pub use journal::{AtPath, Changes, Standing};
pub use memory::{InFolder, Memory, Remembering};
pub use merge::Stated;
pub use output::{
    Apply, ApplyError, Attr, AttrKind, DirEntry, DirEntryName, Effect, Errno, Notice, Opened, Output, Reply,
    ServedFile, Source, Span,
};
pub use peers::Link;
pub use remembered::{Collected, Remembered, Snapshot};
pub use stored::{Held, Resumed, Trust};
pub use time::Time;
pub use timers::Timer;
pub use version::{DeviceTag, Dot, Revision, Version};
pub use view::{ContentView, View};
pub use xattrs::Xattrs;
