//! Where this machine takes connections, and where others can reach it.

use crate::net::transport::{Listener, Transport};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// Every address of this machine.
const EVERYWHERE: &str = "[::]:";

/// Why nobody can be listened for.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error("cannot listen at {address}: it is in use; stop what listens there, or choose another port with --listen")]
    InUse {
        /// Where.
        address: String,
    },
    /// It is no address of ours.
    #[error("cannot listen at {address}: {source}")]
    Failed {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
}

/// Listens at `address`. A machine without IPv6 listens at its IPv4 addresses where all are meant.
///
/// # Errors
/// The address is in use, or not ours.
pub async fn listen(transport: &dyn Transport, address: &str) -> Result<Box<dyn Listener>, ListenError> {
    let listening = match (transport.listen(address).await, address.strip_prefix(EVERYWHERE)) {
        (Err(error), Some(port)) if error.kind() != io::ErrorKind::AddrInUse => {
            transport.listen(&format!("0.0.0.0:{port}")).await.map_err(|_| error)
        }
        (listening, _) => listening,
    };
    listening.map_err(|source| {
        let address = address.to_owned();
        let in_use = source.kind() == io::ErrorKind::AddrInUse;
        if in_use { ListenError::InUse { address } } else { ListenError::Failed { address, source } }
    })
}

/// Where this machine can be reached that listens at `listening`, as far as it knows: the addresses that it would use towards
/// others, and itself.
#[must_use]
pub fn own_addresses(listening: &str) -> Vec<String> {
    let Ok(address) = listening.parse::<SocketAddr>() else { return vec![listening.to_owned()] };
    if !address.ip().is_unspecified() {
        return vec![listening.to_owned()];
    }
    // No packet is sent: connecting a datagram socket only chooses an address. The targets are for documentation.
    let towards = |from: &str, to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let mut found: Vec<IpAddr> = Vec::new();
    found.extend(towards("0.0.0.0:0", "192.0.2.1:9"));
    if address.is_ipv6() {
        found.extend(towards("[::]:0", "[2001:db8::1]:9"));
    }
    let local: IpAddr = Ipv4Addr::LOCALHOST.into();
    found.push(local);
    found.dedup();
    found.into_iter().map(|ip| SocketAddr::new(ip, address.port()).to_string()).collect()
}

/// Where this machine can be reached that listens at `listening`, for devices that may be elsewhere: what means this machine
/// only, and theirs to them, is left out if there is anything else.
#[must_use]
pub fn addresses_for_others(listening: &str) -> Vec<String> {
    let (own, elsewhere): (Vec<_>, Vec<_>) =
        own_addresses(listening).into_iter().partition(|address| is_loopback(address));
    if elsewhere.is_empty() { own } else { elsewhere }
}

fn is_loopback(address: &str) -> bool {
    address.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback())
}
