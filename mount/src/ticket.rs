//! Tickets: what one person gives another so that they can join a share.
//!
//! A ticket is the text `farshore:` followed by base64url without padding of
//!
//! ```text
//! format version  1 byte
//! share id       16 bytes
//! owner's id     32 bytes
//! secret         16 bytes
//! address count   1 byte, 1..=8
//! addresses       each: length, 1 byte, 1..=255; then that many bytes of text, host:port
//! checksum        4 bytes, the first of the SHA-256 of all before
//! ```
//!
//! The checksum is there for slips of copying, not for security: whoever has a ticket may join with it, and may make
//! others like it. It comes last in every version of the format, so that "damaged" and "newer" can be told apart.

use crate::identity::sha256;
use aws_lc_rs::{constant_time, rand};
use data_encoding::BASE64URL_NOPAD;
use farshore_engine::PeerId;
use farshore_proto::address::{ADDRESSES_MAX, is_address};
pub use farshore_proto::{Secret, ShareId};

/// What every ticket begins with.
const PREFIX: &str = "farshore:";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
/// The longest ticket there is, decoded, in any version: generous, so that later versions have room.
const TICKET_BYTES_MAX: usize = 4096;

/// A new name for a share: random, made with the share, and the same for as long as the folder is shared.
pub fn new_share_id() -> ShareId {
    ShareId(random())
}

/// A new secret, which lets its bearer join a share.
pub fn new_secret() -> Secret {
    Secret(random())
}

/// Whether `presented` is this secret. How long that takes tells nothing about where they differ.
pub fn is_secret(secret: &Secret, presented: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(&secret.0, presented).is_ok()
}

/// An invitation to a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    share: ShareId,
    owner: PeerId,
    secret: Secret,
    addresses: Vec<String>,
}

impl Ticket {
    /// A ticket for `share`, which `owner` serves at `addresses` (`host:port`, IPv6 hosts in brackets).
    ///
    /// # Errors
    /// There are no addresses or more than [`ADDRESSES_MAX`], or one is not `host:port` or is too long.
    pub fn new(share: ShareId, owner: PeerId, secret: Secret, addresses: Vec<String>) -> Result<Ticket, TicketError> {
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(TicketError::AddressCount(addresses.len()));
        }
        if let Some(wrong) = addresses.iter().find(|address| !is_address(address)) {
            return Err(TicketError::Address(wrong.clone()));
        }
        Ok(Ticket { share, owner, secret, addresses })
    }

    /// Reads a ticket from text that a person pasted; white space around it does not matter.
    ///
    /// # Errors
    /// One [`TicketError`] per reason.
    pub fn parse(text: &str) -> Result<Ticket, TicketError> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        if encoded.len() > BASE64URL_NOPAD.encode_len(TICKET_BYTES_MAX) {
            return Err(TicketError::TooLong);
        }
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| TicketError::Damaged)?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TicketError::Damaged)?;
        if checksum_of(body) != *checksum {
            return Err(TicketError::Damaged);
        }
        let (version, fields) = body.split_first().ok_or(TicketError::Damaged)?;
        if *version > VERSION {
            return Err(TicketError::Newer(*version));
        }
        if *version < VERSION {
            return Err(TicketError::Damaged);
        }
        parse_fields(fields)
    }

    /// The ticket as text. It contains the secret, so there is no `Display` that a log line could use by accident.
    pub fn encode(&self) -> String {
        let mut body = vec![VERSION];
        body.extend(self.share.0);
        body.extend(self.owner.0);
        body.extend(self.secret.0);
        body.push(length_byte(self.addresses.len()));
        for address in &self.addresses {
            body.push(length_byte(address.len()));
            body.extend(address.as_bytes());
        }
        body.extend(checksum_of(&body));
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&body))
    }

    /// The share that it opens.
    pub fn share(&self) -> ShareId {
        self.share
    }

    /// The device that owns the share.
    pub fn owner(&self) -> PeerId {
        self.owner
    }

    /// What the owner wants to see before it lets a device join.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Where the owner may be reached, best first: one to [`ADDRESSES_MAX`], each `host:port`.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

/// Why a text is not a ticket that can be used, or why a ticket cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not begin as tickets do.
    #[error("this is not a ticket; a ticket begins with `{PREFIX}`, as `farshore share` prints it")]
    NotATicket,
    /// It is longer than any ticket.
    #[error("this is too long to be a ticket; copy one ticket only, the whole line that `farshore share` printed")]
    TooLong,
    /// Something was lost or changed on the way.
    #[error("the ticket is damaged; copy it again, the whole line that `farshore share` printed")]
    Damaged,
    /// It is of a later format.
    #[error("the ticket is from a newer version of Farshore (ticket format {0}); update Farshore on this machine")]
    Newer(u8),
    /// It names no address, or too many.
    #[error("a ticket holds 1 to {ADDRESSES_MAX} addresses, not {0}")]
    AddressCount(usize),
    /// One of its addresses is not one.
    #[error(
        "{0:?} is not an address; an address is host:port, such as 192.0.2.7:7000, [2001:db8::7]:7000 or nas.example:7000"
    )]
    Address(String),
}

/// The fields of a version 1 ticket, which must fill `bytes` exactly. The checksum was right, so what is wrong here is
/// the doing of whoever made the ticket.
fn parse_fields(bytes: &[u8]) -> Result<Ticket, TicketError> {
    let (share, bytes) = take_array(bytes)?;
    let (owner, bytes) = take_array(bytes)?;
    let (secret, bytes) = take_array(bytes)?;
    let ([count], mut bytes) = take_array(bytes)?;
    // Few enough to be looked at one by one before anything of them is kept.
    if usize::from(count) > ADDRESSES_MAX {
        return Err(TicketError::AddressCount(count.into()));
    }
    let mut addresses = Vec::with_capacity(count.into());
    for _ in 0..count {
        let ([length], rest) = take_array(bytes)?;
        let (address, rest) = rest.split_at_checked(length.into()).ok_or(TicketError::Damaged)?;
        addresses.push(String::from_utf8(address.to_vec()).map_err(|_| TicketError::Damaged)?);
        bytes = rest;
    }
    if !bytes.is_empty() {
        return Err(TicketError::Damaged);
    }
    Ticket::new(ShareId(share), PeerId(owner), Secret(secret), addresses)
}

fn take_array<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), TicketError> {
    bytes.split_first_chunk().map(|(array, rest)| (*array, rest)).ok_or(TicketError::Damaged)
}

fn checksum_of(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    std::array::from_fn({
        let hash = sha256(body);
        move |i| hash[i]
    })
}

fn length_byte(length: usize) -> u8 {
    u8::try_from(length).expect("Ticket::new lets no more through than a byte can count")
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("without randomness from the system there are no secrets, and nothing can be shared");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_proto::address::ADDRESS_BYTES_MAX;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    fn any_address() -> impl Strategy<Value = String> {
        prop_oneof![
            ("[a-z0-9][a-z0-9.-]{0,240}", 1u16..).prop_map(|(host, port)| format!("{host}:{port}")),
            (any::<[u8; 16]>(), 1u16..).prop_map(|(ip, port)| format!("[{}]:{port}", Ipv6Addr::from(ip))),
        ]
    }

    fn any_ticket() -> impl Strategy<Value = Ticket> {
        (
            any::<[u8; 16]>(),
            any::<[u8; 32]>(),
            any::<[u8; 16]>(),
            proptest::collection::vec(any_address(), 1..=ADDRESSES_MAX),
        )
            .prop_map(|(share, owner, secret, addresses)| {
                Ticket::new(ShareId(share), PeerId(owner), Secret(secret), addresses).unwrap()
            })
    }

    fn sample() -> Ticket {
        let addresses = vec!["192.0.2.7:7000".into(), "[2001:db8::7]:7000".into()];
        Ticket::new(ShareId([1; 16]), PeerId([2; 32]), Secret([0xa5; 16]), addresses).unwrap()
    }

    /// A text whose checksum is right, whatever the rest is.
    fn sealed(body: &[u8]) -> String {
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&[body, &checksum_of(body)].concat()))
    }

    fn body_with(count: u8, addresses: &[u8]) -> Vec<u8> {
        [&[VERSION], &[0; 64][..], &[count], addresses].concat()
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(ticket in any_ticket(), before in "[ \t\r\n]{0,3}", after in "[ \t\r\n]{0,3}") {
            prop_assert_eq!(Ticket::parse(&format!("{before}{}{after}", ticket.encode())), Ok(ticket));
        }

        #[test]
        fn one_flipped_bit_is_noticed(ticket in any_ticket(), place in any::<prop::sample::Index>(), bit in 0u8..7) {
            let mut text = ticket.encode().into_bytes();
            let place = place.index(text.len());
            text[place] ^= 1 << bit;
            let text = String::from_utf8(text).unwrap();
            // At either end the flip may have made white space of a character; nothing else may be forgiven.
            prop_assert!(Ticket::parse(&text).is_err());
        }

        #[test]
        fn a_flip_beneath_the_base64_is_noticed(ticket in any_ticket(), place in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = BASE64URL_NOPAD.decode(&ticket.encode().as_bytes()[PREFIX.len()..]).unwrap();
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
            prop_assert_eq!(Ticket::parse(&text), Err(TicketError::Damaged));
        }

        #[test]
        fn a_cut_ticket_is_noticed(ticket in any_ticket(), place in any::<prop::sample::Index>()) {
            let text = ticket.encode();
            prop_assert!(Ticket::parse(&text[..place.index(text.len())]).is_err());
            prop_assert!(Ticket::parse(&text[1 + place.index(text.len() - 1)..]).is_err());
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = Ticket::parse(&text);
            let _ = Ticket::parse(&format!("{PREFIX}{text}"));
        }

        /// The parser behind the checksum: what it takes is in the one form that [`Ticket::encode`] writes.
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200), count in 0u8..10) {
            let _ = Ticket::parse(&sealed(&body));
            let text = sealed(&body_with(count, &body));
            if let Ok(ticket) = Ticket::parse(&text) {
                prop_assert_eq!(ticket.encode(), text);
            }
        }
    }

    /// The text was made by another implementation, from the description at the top of this file.
    #[test]
    fn the_format_stays_as_it_is() {
        let text = sample().encode();
        assert_eq!(
            text,
            "farshore:AQEBAQEBAQEBAQEBAQEBAQECAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICA\
             qWlpaWlpaWlpaWlpaWlpaUCDjE5Mi4wLjIuNzo3MDAwElsyMDAxOmRiODo6N106NzAwMM8KF1c"
        );
        assert_eq!(Ticket::parse(&text), Ok(sample()));
    }

    #[test]
    fn each_reason_has_its_name() {
        let good = sample().encode();
        assert_eq!(Ticket::parse(""), Err(TicketError::NotATicket));
        assert_eq!(Ticket::parse("https://example.org/"), Err(TicketError::NotATicket));
        assert_eq!(Ticket::parse(&good.to_uppercase()), Err(TicketError::NotATicket));
        assert_eq!(Ticket::parse(PREFIX), Err(TicketError::Damaged));
        assert_eq!(Ticket::parse(&good[..good.len() - 2]), Err(TicketError::Damaged));
        assert_eq!(Ticket::parse(&format!("{good} {good}")), Err(TicketError::Damaged));
        assert_eq!(Ticket::parse(&format!("{PREFIX}{}", "A".repeat(1 << 20))), Err(TicketError::TooLong));
        assert_eq!(Ticket::parse(&sealed(&[2, 9, 9])), Err(TicketError::Newer(2)));
        assert_eq!(Ticket::parse(&sealed(&[0; 80])), Err(TicketError::Damaged));
        assert_eq!(Ticket::parse(&sealed(&body_with(0, &[]))), Err(TicketError::AddressCount(0)));
        assert_eq!(Ticket::parse(&sealed(&body_with(9, &[]))), Err(TicketError::AddressCount(9)));
        assert_eq!(Ticket::parse(&sealed(&body_with(1, b"\x02no"))), Err(TicketError::Address("no".into())));
        assert_eq!(Ticket::parse(&sealed(&body_with(1, b"\x09h:1"))), Err(TicketError::Damaged));
        assert_eq!(Ticket::parse(&sealed(&body_with(1, b"\x03h:1more"))), Err(TicketError::Damaged));
    }

    #[test]
    fn addresses_are_host_and_port() {
        let longest = format!("{}:1", "h".repeat(ADDRESS_BYTES_MAX - 2));
        for well in ["h:1", "192.0.2.7:65535", "[::1]:7000", "my_nas.local:80", &longest] {
            assert!(is_address(well), "{well:?}");
        }
        let too_long = format!("h{longest}");
        for wrong in [
            "",
            "h",
            ":1",
            "h:",
            "h:0",
            "h:65536",
            "h:+1",
            "h: 1",
            "h 1:1",
            "::1:7000",
            "[::1:7000",
            "[]:1",
            "[h]:1",
            "h\n:1",
            "ä:1",
            "h/x:1",
            &too_long,
        ] {
            assert!(!is_address(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn the_longest_ticket_fits() {
        let longest = format!("{}:1", "h".repeat(ADDRESS_BYTES_MAX - 2));
        let ticket = Ticket::new(new_share_id(), PeerId([7; 32]), new_secret(), vec![longest; ADDRESSES_MAX]).unwrap();
        assert_eq!(Ticket::parse(&ticket.encode()), Ok(ticket));
    }

    #[test]
    fn secrets_stay_secret_and_differ() {
        let shown = format!("{:?}", sample());
        assert!(shown.contains("Secret(..)") && !shown.contains("165") && !shown.contains("a5"), "{shown}");
        assert_ne!(new_secret(), new_secret());
        assert_ne!(new_share_id(), new_share_id());
        let secret = Secret([1; 16]);
        assert!(is_secret(&secret, &[1; 16]));
        for wrong in [&[][..], &[1; 15], &[1; 17], &[2; 16]] {
            assert!(!is_secret(&secret, wrong));
        }
    }
}
