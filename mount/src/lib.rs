//! Farshore, the doing of it: FUSE, disk, network, security. It drives the engine and decides nothing itself.

pub mod folder;
pub mod fuse;
pub mod net;
pub mod store;
