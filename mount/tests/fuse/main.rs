//! Real mounts, with the kernel as the client and a tree in memory as the host.
//!
//! Without /dev/fuse each test says loudly that it was skipped. The tests run one after the other: each one checks
//! that it leaves no mount and no thread behind.

mod away;
mod ending;
mod far;
mod fixture;
mod invalidating;
mod listing;
mod looking;
#[path = "../shared/mapping.rs"]
mod mapping;
#[path = "../shared/passing.rs"]
mod passing;
mod passthrough;
mod past;
mod reading;
mod tree;
