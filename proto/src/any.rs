//! One door for arbitrary bytes, used by the fuzzer: what a hostile peer can reach, without a network.

use crate::codec::decode;
use crate::hello::{Hello, Welcome, parse_watch};
use crate::members::parse_members;
use crate::read::{ReadReply, ReadRequest};
use crate::tree::parse_batch;
use crate::v1;
use crate::verify::{Asked, AskedHashes};
use farshore_engine::chunk::{CHUNK_SIZE, FRAMES_PER_CHUNK};
use farshore_engine::{PeerFault, PeerId};

/// How many kinds of message [`parse_any`] knows.
pub const KINDS: u8 = 7;

/// Reads `bytes` as the message that `tag` (modulo [`KINDS`]) names, exactly as if a peer had sent them: decodes,
/// parses and, where the message asks for bytes or carries them, checks the geometry.
///
/// # Errors
/// The rule that the bytes break. It never panics.
pub fn parse_any(tag: u8, bytes: &[u8]) -> Result<(), PeerFault> {
    match tag % KINDS {
        0 => Hello::parse(&decode(bytes)?).map(drop),
        1 => Welcome::parse(&decode(bytes)?).map(drop),
        2 => {
            let _position = parse_watch(&decode::<v1::WatchRequest>(bytes)?);
            Ok(())
        }
        3 => parse_batch(decode(bytes)?).map(drop),
        4 => match ReadRequest::parse(decode(bytes)?)? {
            ReadRequest::Fetch(fetch) => fetch.range(3 * CHUNK_SIZE + 1).map(drop),
            ReadRequest::Hash(hash) => hash.check(3 * CHUNK_SIZE + 1),
            ReadRequest::Open(_) | ReadRequest::Whole(_) | ReadRequest::Cancel { .. } => Ok(()),
        },
        5 => match ReadReply::parse(decode(bytes)?)? {
            ReadReply::Frame(frame) => Asked::new(3, 0..FRAMES_PER_CHUNK, 3 * CHUNK_SIZE + 1).accept(frame).map(drop),
            ReadReply::Hashes(hashes) => AskedHashes::new(1..4).accept(hashes).map(drop),
            ReadReply::Done { .. } | ReadReply::Refused { .. } | ReadReply::OpenRefused { .. } => Ok(()),
        },
        _ => parse_members(decode(bytes)?, PeerId([0; 32]), PeerId([255; 32])).map(drop),
    }
}
