//! How Farshore's peers talk: the wire, and its parsing into engine types.
//!
//! [`v1`] is what `proto/farshore.proto` says, generated. Nothing of it is trusted: each message becomes a type of the
//! engine, or of [`hello`] and [`read`], by a `parse` function that holds every limit, and comes back by an encoder.
//! A broken rule is a [`farshore_engine::PeerFault`]. Even bytes that are no message at all are one, because the
//! generated code reads and writes through [`codec::StrictCodec`].

pub mod address;
pub mod any;
pub mod codec;
mod frames;
pub mod hello;
pub mod journal;
pub mod members;
pub mod memory_file;
mod path;
pub mod read;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tree;
pub mod tree_file;
pub mod verify;
mod xattrs;

/// The generated messages, client and server.
#[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::wildcard_enum_match_arm)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/farshore.v1.rs"));
}

use farshore_engine::version::MAX_SIBLINGS;
use farshore_engine::xattrs::XATTRS_MAX_BYTES;

pub use any::parse_any;
pub use codec::{UNREADABLE, fault_of};
pub use hello::{Hello, Secret, ShareId, Welcome, choose_version};
pub use journal::{Boot, JournalError, JournalFile, JournalHeader, encode_changes, encode_mark};
pub use members::{MAX_MEMBERS, Members, encode_members, parse_members};
pub use memory_file::{MemoryFileError, decode_memory, encode_memory};
pub use read::{Fetch, Frame, Hash, Hashes, Open, ReadReply, ReadRequest, Refusal, Whole};
pub use tree::{batches, parse_batch};
pub use tree_file::{TreeFile, TreeFileError, TreeId};
pub use verify::{Asked, AskedHashes};

/// The first protocol version that this program speaks: whoever speaks an earlier one knows of no extended attributes, and would
/// take them from all files that it writes.
pub const VERSION_MIN: u32 = 5;

/// The last protocol version that this program speaks.
pub const VERSION_MAX: u32 = 5;

/// The largest message from a reader to an owner, in bytes: the longest path in its least compact form, and room.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// The largest message from an owner to a reader, or in a file, in bytes: the extended attributes of all that can be said to be at
/// a path, and of what a folder holds there, and room.
pub const MAX_REPLY_BYTES: usize = (2 + MAX_SIBLINGS) * XATTRS_MAX_BYTES + 256 * 1024;

/// The largest batch of several updates, in bytes: about as much as a message with a frame has.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;

/// The most updates in one batch.
pub const MAX_BATCH_UPDATES: usize = 1024;

/// The most requests that may wait on one read stream, besides the one that is being answered.
pub const MAX_WAITING_REQUESTS: usize = 256;

/// The most chunks whose hashes one request may ask for.
pub const MAX_HASH_CHUNKS: u64 = 64;

/// The longest time an owner lets pass on a watch stream without sending a batch, in seconds.
pub const MAX_WATCH_SILENCE_SECONDS: u64 = 60;
