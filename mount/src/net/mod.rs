//! Talking to peers: one transport underneath, one client and one server on top.
//!
//! The client is a [`Link`]: one connection that was made, greeted, and lives until it is lost or hung up. The
//! server is [`serve`], which asks a [`Host`]. Only one of two devices has to be reachable: the other one dials two
//! connections, one on which it is the client, and one on which it is the server ([`BackDoor`], [`Callbacks`]). All keep time by the runtime's clock, start no threads, draw no random
//! numbers and keep no order by hash, so that the simulator can run them as they are.

mod callable;
mod callbacks;
pub mod client;
mod lanes;
mod line;
mod pool;
mod pool_stream;
pub mod server;
mod server_calls;
mod server_guests;
mod server_leases;
mod server_lobby;
mod server_read;
mod server_wholes;
pub mod tls;
pub mod transport;

pub use callable::BackDoor;
pub use callbacks::{Callability, Callbacks};
pub use client::{CancelSignal, Canceller, Introductions, Link, Watch, WatchEnd, cancel_pair};
pub use server::{Guests, Host, serve, serve_with};
pub use server_leases::{LEASE_GRACE, Leases};

use std::time::Duration;

/// How long a connection may be silent before it is asked whether it is alive, on both sides.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How long the answer to that may take before the connection is given up.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long connecting to one address may take, and the greeting after it, each.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long opening a stream, or an answer that involves no content, may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A broken stream may be the first sign of a broken connection; the second comes within this time.
const LINE_END_GRACE: Duration = Duration::from_millis(100);

/// The largest HTTP/2 frame that is accepted, in bytes.
const HTTP2_FRAME_BYTES: u32 = 256 * 1024;
