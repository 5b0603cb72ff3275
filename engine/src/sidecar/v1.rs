//! Version 1 of the format: bits alone, without a content, hashes or a checksum. Read, and never written.
//!
//! Another program left it beside a file, and nothing in it says which bytes the file had. So what it says is a
//! claim, which saves work at best: each chunk has to be compared with what the owner has before it counts.

use super::{SidecarError, check_bits, check_length, check_version, field, numbers};
use crate::bitmap::ChunkBitmap;
use crate::chunk::MAX_FILE_BYTES;

/// The version that this file is about.
const VERSION: u8 = 1;
/// Bytes before the words of the bitmap.
const HEADER_BYTES: usize = 25;

/// Chunks that somebody says are stored, and nobody has looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed(ChunkBitmap);

impl Claimed {
    /// The chunks that are worth looking at, in order.
    pub fn chunks(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.present()
    }

    /// Bytes of one chunk.
    #[must_use]
    pub fn chunk_size_bytes(&self) -> u64 {
        self.0.chunk_size_bytes()
    }
}

/// Reads a file of version 1, which should be about a file of `expected_bytes`.
///
/// # Errors
/// The first rule that is broken.
pub fn decode_v1(bytes: &[u8], expected_bytes: u64) -> Result<Claimed, SidecarError> {
    check_version(bytes, VERSION)?;
    let found = bytes.len() as u64;
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(SidecarError::Truncated { needed: HEADER_BYTES as u64, found });
    };
    let size_bytes = u64::from_le_bytes(field(header, 5));
    let total = u64::from(u32::from_le_bytes(field(header, 13)));
    let have = u64::from(u32::from_le_bytes(field(header, 17)));
    let chunk_bytes = u64::from(u32::from_le_bytes(field(header, 21)));

    check_length(found, HEADER_BYTES as u64 + total.div_ceil(64) * 8)?;
    if size_bytes > MAX_FILE_BYTES {
        return Err(SidecarError::FileTooLarge(size_bytes));
    }
    let (words, _) = body.as_chunks::<8>();
    check_bits(size_bytes, chunk_bytes, total, have, words)?;
    if size_bytes != expected_bytes {
        return Err(SidecarError::WrongSize { expected: expected_bytes, found: size_bytes });
    }
    Ok(Claimed(ChunkBitmap::from_words(size_bytes, chunk_bytes, numbers(words))?))
}
