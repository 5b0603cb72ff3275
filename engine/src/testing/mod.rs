//! A world for engines to be tested in: N of them, with an in-memory network, folders and stores, and one clock.
//!
//! It stands behind the feature `testing` and is no part of the product. [`World`] carries real bytes and plays every
//! driver strictly by the contract, but with all the freedom that it leaves: orders are drawn from a seed,
//! cancelled effects end late or well, news of dead connections arrives. After every step it runs [`Engine::check`],
//! and holds every answer against what must hold (see `oracle.rs`).
//!
//! - [`Pair`] is an owner and a follower, for tests that say one thing.
//! - [`Hand`] is one engine whose driver is the test itself, for rules about single effects.
//! - [`Op`] is one thing that can happen, drawn by property tests and decoded by the fuzzer, for [`play`].
//!
//! [`Engine::check`]: crate::Engine::check

// A test looks for one answer, and panics or looks on at every other.
#![allow(clippy::wildcard_enum_match_arm)]

mod app;
mod bytes;
mod faults;
mod folder;
mod fuzz;
mod hand;
mod host;
mod leases;
mod ops;
mod oracle;
mod pair;
mod replicas;
mod store;
mod wire;
mod world;

pub use app::path;
pub use bytes::bytes_of;
pub use folder::{Folder, Look, Object, ObjectKind};
pub use fuzz::{fuzz_bitmap, fuzz_engine, fuzz_replicas, fuzz_sidecar, fuzz_sidecar_crash};
pub use hand::{FetchSeen, Hand, dir_record, file_record, removed, renamed, revision};
pub use host::{Host, HostId};
pub use leases::LEASE_GRACE;
pub use ops::{Op, play};
pub use oracle::{Kernel, OpenHandle};
pub use pair::Pair;
pub use replicas::{Age, ReplicaOp, Replicas, play_replicas};
pub use store::MemStore;
pub use wire::{ConnId, Spoil};
pub use world::World;
