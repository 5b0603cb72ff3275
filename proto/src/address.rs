//! Where devices can be reached: in tickets, in greetings, and in what an owner says of the members of its share.

use farshore_engine::PeerFault;
use std::net::Ipv6Addr;

/// The most addresses of one device.
pub const ADDRESSES_MAX: usize = 8;

/// The longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// Whether `text` is `host:port`, with a port that can be connected to. Names are not resolved.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_is_well = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ipv6) => ipv6.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    let port_is_well = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    text.len() <= ADDRESS_BYTES_MAX && host_is_well && port_is_well
}

/// Takes a peer's addresses if all of them are, and there are no more than there may be.
pub(crate) fn parse_addresses(addresses: Vec<String>) -> Result<Vec<String>, PeerFault> {
    if addresses.len() > ADDRESSES_MAX {
        return Err(PeerFault::TooMany(ADDRESSES_MAX));
    }
    match addresses.iter().all(|address| is_address(address)) {
        true => Ok(addresses),
        false => Err(PeerFault::OutOfRange("address")),
    }
}
