//! Farshore, the doing of it: FUSE, disk, network, security. It drives the engine and decides nothing itself.

pub mod folder;
pub mod identity;
pub mod net;
pub mod state;
pub mod store;
pub mod ticket;
