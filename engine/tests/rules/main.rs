//! What the engine promises, one rule per file. Most tests drive one engine by hand ([`Hand`]) and see every output;
//! the others run an owner and a follower ([`Pair`]) over an in-memory network and compare every byte.
//!
//! [`Hand`]: farshore_engine::testing::Hand
//! [`Pair`]: farshore_engine::testing::Pair

// A test looks for one answer, and panics or looks on at every other.
#![allow(clippy::wildcard_enum_match_arm)]

mod cache;
mod contract;
mod disconnect;
mod folders;
mod frames;
mod handles;
mod kernel_notices;
mod left_out;
mod listings;
mod lookups;
mod memory;
mod older;
mod on_demand;
mod own_folder;
mod peer_faults;
mod read_ahead;
mod read_past;
mod readdir;
mod redial;
mod regressions;
mod remembered;
mod resume;
mod retries;
mod saving;
mod shutdown;
mod sources;
mod store_full;
mod unfollow;
mod unshared;
mod versions;
mod walks;
mod watchers;
mod whole_files;
mod xattrs;

/// A mebibyte, half a mebibyte, and so on: sizes that tests name.
const KIB: u64 = 1024;
const CHUNK: u64 = farshore_engine::chunk::CHUNK_SIZE;
const FRAME: u64 = farshore_engine::chunk::FRAME_SIZE;
