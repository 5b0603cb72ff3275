//! Who has a share in a folder of its own and changes it, as its owner says.

use crate::address::parse_addresses;
use crate::v1;
use bytes::Bytes;
use farshore_engine::{PeerFault, PeerId};
use std::collections::BTreeMap;

/// The most members that a share has beside its owner: with it, as many devices as a version can name.
pub const MAX_MEMBERS: usize = 63;

/// Members, and where each can be reached: at most [`crate::address::ADDRESSES_MAX`] addresses, none if nobody can call it.
pub type Members = BTreeMap<PeerId, Vec<String>>;

/// What `owner` says to `us` of the others.
///
/// # Errors
/// There are too many, one stands there twice or out of order, it is one of us two, or something about it breaks its limit.
pub fn parse_members(message: v1::MemberList, owner: PeerId, us: PeerId) -> Result<Members, PeerFault> {
    let v1::MemberList { members } = message;
    if members.len() >= MAX_MEMBERS {
        return Err(PeerFault::TooMany(MAX_MEMBERS - 1));
    }
    let mut parsed = Members::new();
    for v1::Member { device, addresses } in members {
        let device = PeerId(device.as_ref().try_into().map_err(|_| PeerFault::OutOfRange("device"))?);
        let is_in_order = parsed.last_key_value().is_none_or(|(last, _)| *last < device);
        if !is_in_order || device == owner || device == us {
            return Err(PeerFault::OutOfPlace);
        }
        parsed.insert(device, parse_addresses(addresses)?);
    }
    Ok(parsed)
}

/// What `peer` is told of `members`: all others, if it is one of them, and nothing if not.
#[must_use]
pub fn encode_members(members: &Members, peer: PeerId) -> v1::MemberList {
    let others = members.iter().filter(|(device, _)| members.contains_key(&peer) && **device != peer);
    let member = |(device, addresses): (&PeerId, &Vec<String>)| v1::Member {
        device: Bytes::copy_from_slice(&device.0),
        addresses: addresses.clone(),
    };
    v1::MemberList { members: others.map(member).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{ADDRESS_BYTES_MAX, ADDRESSES_MAX};
    use crate::{MAX_REPLY_BYTES, codec};
    use prost::Message;

    const OWNER: PeerId = PeerId([1; 32]);
    const US: PeerId = PeerId([200; 32]);

    /// As many as there may be beside the owner, of whom `us` is one, each with as many and as long addresses as there may be.
    fn largest() -> Members {
        let longest = |turn| format!("{}:{}", "x".repeat(ADDRESS_BYTES_MAX - 6), 50_000 + turn);
        let all = (0..).map(|number| PeerId([number + 2; 32])).take(MAX_MEMBERS - 1).chain([US]);
        all.map(|device| (device, (0..ADDRESSES_MAX).map(longest).collect())).collect()
    }

    fn told(message: v1::MemberList) -> Result<Members, PeerFault> {
        parse_members(message, OWNER, US)
    }

    #[test]
    fn a_member_is_told_of_all_others_and_nobody_else_of_anybody() {
        let members = largest();
        let bytes = encode_members(&members, US).encode_to_vec();
        assert!(bytes.len() <= MAX_REPLY_BYTES, "{}", bytes.len());
        let others: Members = members.clone().into_iter().filter(|(device, _)| *device != US).collect();
        assert_eq!(codec::decode(&bytes[..]).and_then(told), Ok(others));
        assert_eq!(encode_members(&members, PeerId([250; 32])), v1::MemberList::default());
    }

    #[test]
    fn limits_of_what_is_said_of_members() {
        let fault = |change: fn(&mut Vec<v1::Member>)| {
            let mut message = encode_members(&largest(), US);
            change(&mut message.members);
            told(message).unwrap_err()
        };
        let one_more = |members: &mut Vec<v1::Member>| {
            let device = vec![199; 32].into();
            members.push(v1::Member { device, addresses: Vec::new() });
        };
        assert_eq!(fault(one_more), PeerFault::TooMany(MAX_MEMBERS - 1));
        assert_eq!(fault(|members| members[3].device = vec![5; 31].into()), PeerFault::OutOfRange("device"));
        assert_eq!(fault(|members| members[3].device = vec![5; 33].into()), PeerFault::OutOfRange("device"));
        assert_eq!(fault(|members| members.swap(3, 4)), PeerFault::OutOfPlace);
        assert_eq!(fault(|members| members[4] = members[3].clone()), PeerFault::OutOfPlace);
        assert_eq!(fault(|members| members[0].device = vec![1; 32].into()), PeerFault::OutOfPlace);
        assert_eq!(fault(|members| members[61].device = vec![200; 32].into()), PeerFault::OutOfPlace);
        assert_eq!(fault(|members| members[5].addresses.push("a:1".into())), PeerFault::TooMany(ADDRESSES_MAX));
        let bad = ["", "a", "a:0", "a:65536", "a b:1", "[::1:1", "/etc/passwd", "http://a:1", "a:1\n", "u@a:1"];
        for address in bad {
            let mut message = encode_members(&largest(), US);
            message.members[7].addresses[2] = address.to_owned();
            assert_eq!(told(message), Err(PeerFault::OutOfRange("address")), "{address:?}");
        }
        assert_eq!(fault(|members| members[9].addresses[1] += "9"), PeerFault::OutOfRange("address"));
    }
}
