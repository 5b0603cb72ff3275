//! Farshore, the doing of it: FUSE, disk, network, security. It drives the engine and decides nothing itself.

pub mod circle;
pub mod commands;
pub mod control;
pub mod folder;
pub mod fuse;
pub mod identity;
pub mod joining;
pub mod json_path;
pub mod kernel_host;
pub mod listening;
pub mod live;
pub mod net;
pub mod node;
pub mod notices;
pub mod own_folder;
mod ranked;
pub mod sharing;
pub mod state;
pub mod store;
pub mod ticket;
pub mod waking;
mod xattrs;
