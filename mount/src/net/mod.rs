//! Talking to peers: one transport underneath, one client and one server on top.

pub mod tls;
pub mod transport;
