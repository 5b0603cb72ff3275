//! The first words on a connection: who calls, for which share, with what right, in which version.

use crate::address::parse_addresses;
use crate::v1;
use crate::{VERSION_MAX, VERSION_MIN};
use bytes::Bytes;
use core::fmt;
use core::ops::RangeInclusive;
use farshore_engine::{PeerFault, Position};

/// The longest agent text, in bytes.
pub const MAX_AGENT_BYTES: usize = 64;

/// A share, by the name that its owner drew for it. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareId(pub [u8; 16]);

impl fmt::Display for ShareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ShareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({self})")
    }
}

/// The secret of a ticket. It is not shown in logs; whoever compares it must take the same time for every value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a caller says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The protocol versions that it speaks.
    pub versions: RangeInclusive<u32>,
    /// Which share it wants.
    pub share: ShareId,
    /// The ticket's secret; none if it believes to be remembered.
    pub secret: Option<Secret>,
    /// Its program and version, for logs: at most [`MAX_AGENT_BYTES`] bytes of printable ASCII.
    pub agent: String,
    /// Where others reach it who have the share as well, if it has the share in a folder of its own: at most
    /// [`crate::address::ADDRESSES_MAX`] addresses, none if nobody can call it. `None` if it only looks at the share.
    pub membership: Option<Vec<String>>,
}

impl Hello {
    /// What this program says. An agent text that is too long or not printable is cut to what is allowed.
    #[must_use]
    pub fn new(share: ShareId, secret: Option<Secret>, agent: &str) -> Hello {
        let agent = agent.chars().filter(is_printable).take(MAX_AGENT_BYTES).collect();
        Hello { versions: VERSION_MIN..=VERSION_MAX, share, secret, agent, membership: None }
    }

    /// The same, by a device that has the share in a folder of its own, and that others reach at these addresses.
    #[must_use]
    pub fn of_member(self, addresses: Vec<String>) -> Hello {
        Hello { membership: Some(addresses), ..self }
    }

    /// Takes a caller at its word as far as the limits go.
    ///
    /// # Errors
    /// The field that breaks its limit.
    pub fn parse(message: &v1::HelloRequest) -> Result<Hello, PeerFault> {
        let v1::HelloRequest { min_version, max_version, share, secret, agent, membership } = message;
        if *min_version == 0 || min_version > max_version {
            return Err(PeerFault::OutOfRange("version"));
        }
        if agent.len() > MAX_AGENT_BYTES || !agent.chars().all(|c| is_printable(&c)) {
            return Err(PeerFault::OutOfRange("agent"));
        }
        let secret = match secret.is_empty() {
            true => None,
            false => Some(Secret(sixteen(secret, "secret")?)),
        };
        Ok(Hello {
            versions: *min_version..=*max_version,
            share: ShareId(sixteen(share, "share")?),
            secret,
            agent: agent.clone(),
            membership: membership.clone().map(|known| parse_addresses(known.addresses)).transpose()?,
        })
    }

    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> v1::HelloRequest {
        v1::HelloRequest {
            min_version: *self.versions.start(),
            max_version: *self.versions.end(),
            share: Bytes::copy_from_slice(&self.share.0),
            secret: self.secret.map(|secret| Bytes::copy_from_slice(&secret.0)).unwrap_or_default(),
            agent: self.agent.clone(),
            membership: self.membership.clone().map(|addresses| v1::Membership { addresses }),
        }
    }
}

fn is_printable(c: &char) -> bool {
    matches!(c, ' '..='~')
}

fn sixteen(bytes: &Bytes, field: &'static str) -> Result<[u8; 16], PeerFault> {
    bytes.as_ref().try_into().map_err(|_| PeerFault::OutOfRange(field))
}

/// The newest version in both `theirs` and ours; `None` if there is none.
#[must_use]
pub fn choose_version(theirs: &RangeInclusive<u32>) -> Option<u32> {
    let newest = VERSION_MAX.min(*theirs.end());
    (newest >= VERSION_MIN && newest >= *theirs.start()).then_some(newest)
}

/// The answer to a caller that is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The version that is spoken from here on.
    pub version: u32,
    /// The owner's epoch, never zero.
    pub epoch: u64,
    /// The owner would call us as well, if we made a connection for that.
    pub calls_back: bool,
}

impl Welcome {
    /// Checks an answer.
    ///
    /// # Errors
    /// A version that we do not speak, or no epoch.
    pub fn parse(message: &v1::HelloReply) -> Result<Welcome, PeerFault> {
        let v1::HelloReply { version, epoch, calls_back } = *message;
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(PeerFault::OutOfRange("version"));
        }
        if epoch == 0 {
            return Err(PeerFault::OutOfRange("epoch"));
        }
        Ok(Welcome { version, epoch, calls_back })
    }

    /// As it travels.
    #[must_use]
    pub fn encode(self) -> v1::HelloReply {
        v1::HelloReply { version: self.version, epoch: self.epoch, calls_back: self.calls_back }
    }
}

/// Where a follower says that it stands. Every value is possible.
#[must_use]
pub fn parse_watch(message: &v1::WatchRequest) -> Position {
    Position { epoch: message.epoch, seq: message.seq }
}

/// As it travels.
#[must_use]
pub fn encode_watch(position: Position) -> v1::WatchRequest {
    v1::WatchRequest { epoch: position.epoch, seq: position.seq }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> v1::HelloRequest {
        Hello::new(ShareId([7; 16]), Some(Secret([9; 16])), "farshore/0.1").encode()
    }

    fn reached_at(addresses: &[&str]) -> Option<v1::Membership> {
        Some(v1::Membership { addresses: addresses.iter().map(|address| (*address).to_owned()).collect() })
    }

    #[test]
    fn limits_of_a_hello() {
        let fault = |change: fn(&mut v1::HelloRequest)| {
            let mut message = valid();
            change(&mut message);
            Hello::parse(&message).unwrap_err()
        };
        assert_eq!(fault(|m| m.min_version = 0), PeerFault::OutOfRange("version"));
        assert_eq!(fault(|m| m.min_version = m.max_version + 1), PeerFault::OutOfRange("version"));
        assert_eq!(fault(|m| m.share = Bytes::new()), PeerFault::OutOfRange("share"));
        assert_eq!(fault(|m| m.share = vec![0; 17].into()), PeerFault::OutOfRange("share"));
        assert_eq!(fault(|m| m.secret = vec![0; 15].into()), PeerFault::OutOfRange("secret"));
        assert_eq!(fault(|m| m.agent = "x".repeat(65)), PeerFault::OutOfRange("agent"));
        assert_eq!(fault(|m| m.agent = "\x1b[2J".into()), PeerFault::OutOfRange("agent"));
        assert_eq!(fault(|m| m.membership = reached_at(&["a:1"; 9])), PeerFault::TooMany(8));
        assert_eq!(fault(|m| m.membership = reached_at(&["a:1", "a"])), PeerFault::OutOfRange("address"));
        assert_eq!(fault(|m| m.membership = reached_at(&[""])), PeerFault::OutOfRange("address"));
        let mut remembered = valid();
        remembered.secret = Bytes::new();
        assert_eq!(Hello::parse(&remembered).unwrap().secret, None);
    }

    #[test]
    fn an_agent_text_is_cut_and_a_secret_is_not_shown() {
        let hello = Hello::new(ShareId([0; 16]), Some(Secret([0xab; 16])), &"\u{fc}x\n".repeat(100));
        assert_eq!(hello.agent, "x".repeat(64));
        assert!(!format!("{hello:?}").contains("171"));
        assert!(!format!("{hello:?}").contains("ab, "));
        assert_eq!(Hello::parse(&hello.encode()), Ok(hello));
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        assert_eq!(choose_version(&(VERSION_MIN..=VERSION_MAX)), Some(VERSION_MAX));
        assert_eq!(choose_version(&(1..=u32::MAX)), Some(VERSION_MAX));
        assert_eq!(choose_version(&(VERSION_MAX + 1..=u32::MAX)), None);
        assert_eq!(choose_version(&(1..=VERSION_MIN - 1)), None);
    }

    #[test]
    fn limits_of_a_welcome() {
        assert_eq!(
            Welcome::parse(&v1::HelloReply { version: VERSION_MIN, epoch: 0, calls_back: false }),
            Err(PeerFault::OutOfRange("epoch"))
        );
        for version in [0, VERSION_MIN - 1, VERSION_MAX + 1] {
            let reply = v1::HelloReply { version, epoch: 1, calls_back: false };
            assert_eq!(Welcome::parse(&reply), Err(PeerFault::OutOfRange("version")));
        }
    }
}
