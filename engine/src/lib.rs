//! What Farshore does, as a state machine without I/O.

pub mod chunk;
pub mod config;
pub mod event;
pub mod fault;
pub mod ids;
pub mod input;
pub mod output;
pub mod path;
pub mod record;
pub mod share {
    //! placeholder
    /// The most updates in one answer to a follower.
    pub const WATCH_BATCH: usize = 256;
}
pub mod time;

pub use config::{Config, OnDisconnect};
pub use event::{Change, Observation, Position, Seen, SeenKind, TreeUpdate};
pub use fault::PeerFault;
pub use ids::{ContentId, EffectId, Handle, Ino, LinkId, PeerId, ReqId};
pub use input::{Command, DialError, Done, FetchError, Input, PeerEvent, Request, StoreError, Wanted, WatchCursor};
pub use output::{
    Attr, AttrKind, DirEntry, DirEntryName, Effect, Errno, Notice, Opened, Output, Reply, ServedFile, Source, Span,
};
pub use time::Time;
