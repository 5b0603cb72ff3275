//! Messages in a file: each after its length, and a checksum of everything at the end.

use crate::MAX_REPLY_BYTES;
use bytes::Bytes;
use prost::{EncodeError, Message};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of the length before each message.
const LENGTH_BYTES: usize = 4;

/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 16;

/// Appends a message of at most [`MAX_REPLY_BYTES`].
pub(crate) fn put_message(bytes: &mut Vec<u8>, message: &impl Message) {
    bytes.extend((message.encoded_len() as u32).to_le_bytes());
    // There is always room in what grows.
    let _: Result<(), EncodeError> = message.encode(bytes);
}

/// Takes the next message off. It is copied once, and what is decoded of it refers to that: a name then needs no memory of its
/// own on its way.
///
/// # Errors
/// The length that it says, or the bytes that are left if they are too few for one, if it does not fit.
pub(crate) fn take_message(bytes: &mut &[u8]) -> Result<Bytes, u32> {
    let (len, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(bytes.len() as u32)?;
    let len = u32::from_le_bytes(*len);
    if len as usize > MAX_REPLY_BYTES {
        return Err(len);
    }
    let (message, rest) = rest.split_at_checked(len as usize).ok_or(len)?;
    *bytes = rest;
    Ok(Bytes::copy_from_slice(message))
}

/// Appends the checksum of all that is there.
pub(crate) fn put_checksum(bytes: &mut Vec<u8>) {
    let checksum = xxh3_128(bytes);
    bytes.extend(checksum.to_le_bytes());
}

/// All but the checksum, and that; `None` if there is no room for one.
pub(crate) fn split_checksum(bytes: &[u8]) -> Option<(&[u8], &[u8; CHECKSUM_BYTES])> {
    bytes.split_last_chunk()
}

/// Whether this is the checksum of `body`.
pub(crate) fn is_checksum(body: &[u8], checksum: &[u8; CHECKSUM_BYTES]) -> bool {
    xxh3_128(body).to_le_bytes() == *checksum
}
