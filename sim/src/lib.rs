//! Farshore, the doing of it badly: the same node, client and server in a simulated world with faults.
//!
//! A world ([`world`]) has an owner and readers, each a host of turmoil with simulated time and a simulated network.
//! On the owner there is a folder ([`folder`]) whose bytes are a function of file, version and place ([`content`]);
//! on each reader a fake kernel ([`kernel`]) asks, and checks every answer. What happens is drawn from one seed
//! ([`plan`]) or told by a named scenario ([`scenarios`]), and written down line by line ([`history`]): one seed gives
//! one history.

pub mod content;
pub mod drawn;
pub mod failure;
pub mod faults;
pub mod folder;
pub mod history;
pub mod kernel;
pub mod liar;
pub mod lots;
pub mod meta;
pub mod plan;
mod programs;
pub mod sabotage;
pub mod scenarios;
pub mod store;
pub mod sweep;
pub mod transport;
pub mod world;
pub mod writers;
