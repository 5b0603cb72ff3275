//! The sidecar of a content that is stored, whole or in part: which content, which chunks, and what each hashes to.
//!
//! This module decides which bytes say so and which are refused; `docs/SIDECAR.md` lists them one by one. It reads
//! and writes no files: the store does, and it also decides when a sidecar may be believed without looking at what is
//! stored.
//!
//! Reading is strict. What cannot be checked on the bytes themselves (whose content it is) is compared with what is
//! expected, and nothing is allocated on the word of a count before the length and the checksum of the whole were
//! right.

mod error;
#[cfg(test)]
mod tests;
mod v1;

pub use error::SidecarError;
pub use v1::{Claimed, decode_v1};

use crate::bitmap::{ChunkBitmap, MAX_CHUNKS};
use crate::chunk::MAX_FILE_BYTES;
use crate::identity::ContentIdentity;
use crate::ids::PeerId;
use crate::path::{PATH_MAX_BYTES, PathError, RelPath};
use crate::record::{FileTime, Stamp};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// What a sidecar's name ends with.
pub const SIDECAR_SUFFIX: &str = ".kdbitmap";

/// The version of the format that is written.
pub const SIDECAR_VERSION: u8 = 2;

/// The largest sidecar there can be, in bytes (a little over 1 GiB): that of a whole file of [`MAX_CHUNKS`] chunks.
pub const MAX_SIDECAR_BYTES: u64 = encoded_bytes(MAX_CHUNKS, MAX_CHUNKS, PATH_MAX_BYTES as u64);

/// What every version begins with.
const MAGIC: [u8; 4] = *b"KDBM";
/// Bytes before the words of the bitmap.
const HEADER_BYTES: usize = 80;
/// The flag that says that some chunks were not verified since a stop that was not clean.
const UNVERIFIED: u8 = 1;
/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 16;

/// The name of the sidecar of the file `partial`: the same with [`SIDECAR_SUFFIX`] behind it. The name of the file
/// must leave room for that: names end at 255 bytes.
#[must_use]
pub fn bitmap_path(partial: &Path) -> PathBuf {
    let mut name = partial.as_os_str().to_owned();
    name.push(SIDECAR_SUFFIX);
    name.into()
}

/// Checks the limits of every field of an identity.
fn check_identity(identity: &ContentIdentity) -> Result<(), SidecarError> {
    if identity.size_bytes > MAX_FILE_BYTES {
        return Err(SidecarError::FileTooLarge(identity.size_bytes));
    }
    if identity.modified.nanos >= 1_000_000_000 {
        return Err(SidecarError::Nanos(identity.modified.nanos));
    }
    Ok(())
}

/// The root is no file.
fn check_path(path: &RelPath) -> Result<(), SidecarError> {
    if path.is_root() { Err(PathError::EmptyPath.into()) } else { Ok(()) }
}

/// Compares what a sidecar says with what is expected. What people can see is compared first, so that the error
/// names it: every other version has another stamp.
fn compare(found: &ContentIdentity, expected: &ContentIdentity) -> Result<(), SidecarError> {
    if found.owner != expected.owner {
        return Err(SidecarError::WrongOwner { expected: expected.owner, found: found.owner });
    }
    if found.size_bytes != expected.size_bytes {
        return Err(SidecarError::WrongSize { expected: expected.size_bytes, found: found.size_bytes });
    }
    if found.modified != expected.modified {
        return Err(SidecarError::WrongTime { expected: expected.modified, found: found.modified });
    }
    if found.stamp != expected.stamp {
        return Err(SidecarError::WrongStamp { expected: expected.stamp, found: found.stamp });
    }
    Ok(())
}

/// What is stored of one content. Every chunk that is present has a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    identity: ContentIdentity,
    path: RelPath,
    is_unverified: bool,
    bitmap: ChunkBitmap,
    hashes: Vec<u64>,
}

impl Sidecar {
    /// A sidecar that says that the chunks in `bitmap` are stored of the file that its owner had at `path`. `hashes` has
    /// the xxh3 (64 bits, no seed) of each of them, in the order of the chunks; the last chunk of a file may be short, and
    /// its hash is that of its own bytes.
    ///
    /// # Errors
    /// [`SidecarError`] if a limit is broken, if the path is the root, if the bitmap is one of a file of another size, or
    /// if there are more or fewer hashes than chunks that are present.
    pub fn new(
        identity: ContentIdentity,
        path: RelPath,
        bitmap: ChunkBitmap,
        hashes: Vec<u64>,
    ) -> Result<Sidecar, SidecarError> {
        check_identity(&identity)?;
        check_path(&path)?;
        if bitmap.file_size() != identity.size_bytes {
            return Err(SidecarError::WrongSize { expected: identity.size_bytes, found: bitmap.file_size() });
        }
        if bitmap.have() != hashes.len() as u64 {
            return Err(SidecarError::HashCount { present: bitmap.have(), hashes: hashes.len() as u64 });
        }
        Ok(Sidecar { identity, path, is_unverified: false, bitmap, hashes })
    }

    /// Says whether some of its chunks were not verified since a stop that was not clean. Then none of them is believed
    /// before it was hashed, also after a stop that was clean.
    #[must_use]
    pub fn with_unverified(self, is_unverified: bool) -> Sidecar {
        Sidecar { is_unverified, ..self }
    }

    /// Reads a sidecar, whatever content it tells about: for looking through a directory of them.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Sidecar, SidecarError> {
        let raw = Raw::split(bytes)?;
        let path = raw.check()?;
        raw.load(path)
    }

    /// Reads the sidecar of `expected`, in chunks of `chunk_bytes`.
    ///
    /// # Errors
    /// The first rule that is broken. If only the content is another one, it says what differs:
    /// [`SidecarError::WrongOwner`], [`SidecarError::WrongSize`], [`SidecarError::WrongTime`],
    /// [`SidecarError::WrongStamp`], or [`SidecarError::WrongChunkSize`].
    pub fn decode_for(bytes: &[u8], expected: &ContentIdentity, chunk_bytes: u64) -> Result<Sidecar, SidecarError> {
        let raw = Raw::split(bytes)?;
        let path = raw.check()?;
        compare(&raw.identity, expected)?;
        if raw.chunk_bytes != chunk_bytes {
            return Err(SidecarError::WrongChunkSize { expected: chunk_bytes, found: raw.chunk_bytes });
        }
        raw.load(path)
    }

    /// The bytes of the file, as [`Sidecar::decode`] reads them. Takes time and memory in proportion to what it says:
    /// one bit a chunk, and eight bytes for each that is present.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (total, have) = (self.bitmap.total(), self.bitmap.have());
        let path = self.path.to_bytes();
        let len = encoded_bytes(total, have, path.len() as u64);
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        bytes.extend(MAGIC);
        bytes.extend([SIDECAR_VERSION, if self.is_unverified { UNVERIFIED } else { 0 }]);
        // At most PATH_MAX_BYTES.
        bytes.extend((path.len() as u16).to_le_bytes());
        bytes.extend(self.identity.owner.0);
        bytes.extend(self.identity.stamp.0.to_le_bytes());
        bytes.extend(self.identity.size_bytes.to_le_bytes());
        bytes.extend(self.identity.modified.seconds.to_le_bytes());
        bytes.extend(self.identity.modified.nanos.to_le_bytes());
        for count in [self.bitmap.chunk_size_bytes(), total, have] {
            // At most MAX_CHUNK_BYTES (2^30) and MAX_CHUNKS (2^27): the upper half is zero.
            bytes.extend((count as u32).to_le_bytes());
        }
        for word in self.bitmap.words().chain(self.hashes.iter().copied()) {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(path);
        seal(bytes)
    }

    /// Which bytes it tells about.
    #[must_use]
    pub fn identity(&self) -> &ContentIdentity {
        &self.identity
    }

    /// Where the owner had the file when that was last known. For people, and to find the version before this one.
    #[must_use]
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// Whether some of its chunks were not verified since a stop that was not clean.
    #[must_use]
    pub fn is_unverified(&self) -> bool {
        self.is_unverified
    }

    /// Which chunks it says are stored.
    #[must_use]
    pub fn bitmap(&self) -> &ChunkBitmap {
        &self.bitmap
    }

    /// The chunks that it says are stored, in order, each with its hash.
    pub fn chunks(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bitmap.present().zip(self.hashes.iter().copied())
    }
}

/// The fields of a sidecar whose length and checksum are right; nothing else is known of them yet. It borrows the
/// bytes and holds no memory of its own.
#[derive(Clone, Copy)]
struct Raw<'a> {
    flags: u8,
    identity: ContentIdentity,
    chunk_bytes: u64,
    total: u64,
    have: u64,
    words: &'a [[u8; 8]],
    hashes: &'a [[u8; 8]],
    path: &'a [u8],
}

impl Raw<'_> {
    /// Finds the fields. The checksum comes before every rule about what they say, so that damage is called damage.
    fn split(bytes: &[u8]) -> Result<Raw<'_>, SidecarError> {
        check_version(bytes, SIDECAR_VERSION)?;
        let found = bytes.len() as u64;
        let truncated = |needed| SidecarError::Truncated { needed, found };
        let least = encoded_bytes(0, 0, 0);
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(truncated(least))?;
        let (body, checksum) = rest.split_last_chunk::<CHECKSUM_BYTES>().ok_or(truncated(least))?;

        let total = u64::from(u32::from_le_bytes(field(header, 72)));
        let have = u64::from(u32::from_le_bytes(field(header, 76)));
        let path_bytes = u16::from_le_bytes(field(header, 6));
        check_length(found, encoded_bytes(total, have, u64::from(path_bytes)))?;
        if checksum_of(&bytes[..bytes.len() - CHECKSUM_BYTES]) != *checksum {
            return Err(SidecarError::Damaged);
        }

        // The length was right: the path is there, all words of `total`, and the rest are `have` hashes.
        let (numbers, path) = body.split_at(body.len().saturating_sub(usize::from(path_bytes)));
        let (numbers, _) = numbers.as_chunks::<8>();
        let (words, hashes) = numbers.split_at(numbers.len().min(total.div_ceil(64) as usize));
        let identity = ContentIdentity {
            owner: PeerId(field(header, 8)),
            stamp: Stamp(u64::from_le_bytes(field(header, 40))),
            size_bytes: u64::from_le_bytes(field(header, 48)),
            modified: FileTime {
                seconds: i64::from_le_bytes(field(header, 56)),
                nanos: u32::from_le_bytes(field(header, 64)),
            },
        };
        let chunk_bytes = u64::from(u32::from_le_bytes(field(header, 68)));
        Ok(Raw { flags: header[5], identity, chunk_bytes, total, have, words, hashes, path })
    }

    /// Compares every field with its limits and with every other. Returns the only one that has to be taken apart.
    fn check(&self) -> Result<RelPath, SidecarError> {
        if self.flags & !UNVERIFIED != 0 {
            return Err(SidecarError::Flags(self.flags & !UNVERIFIED));
        }
        check_identity(&self.identity)?;
        check_bits(self.identity.size_bytes, self.chunk_bytes, self.total, self.have, self.words)?;
        let path = RelPath::parse(self.path)?;
        check_path(&path)?;
        Ok(path)
    }

    /// The sidecar, of fields that were checked.
    fn load(&self, path: RelPath) -> Result<Sidecar, SidecarError> {
        let bitmap = ChunkBitmap::from_words(self.identity.size_bytes, self.chunk_bytes, numbers(self.words))?;
        let sidecar = Sidecar::new(self.identity, path, bitmap, numbers(self.hashes).collect())?;
        Ok(sidecar.with_unverified(self.flags & UNVERIFIED != 0))
    }
}

/// Bytes of a sidecar of `total` chunks of which `have` are present, with a path of `path_bytes`. All are less than
/// 2^32, so that it cannot overflow.
const fn encoded_bytes(total: u64, have: u64, path_bytes: u64) -> u64 {
    (HEADER_BYTES + CHECKSUM_BYTES) as u64 + (total.div_ceil(64) + have) * 8 + path_bytes
}

/// Appends the checksum of everything before it.
pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(checksum_of(&bytes));
    bytes
}

/// What stands at the end: 128 bits of xxh3, so that damage goes unnoticed by no accident.
fn checksum_of(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    xxh3_128(bytes).to_le_bytes()
}

/// Checks what every version begins with: the magic and its number.
fn check_version(bytes: &[u8], version: u8) -> Result<(), SidecarError> {
    let magic = bytes.len().min(MAGIC.len());
    if bytes[..magic] != MAGIC[..magic] {
        return Err(SidecarError::NotASidecar);
    }
    match bytes.get(MAGIC.len()) {
        None => Err(SidecarError::Truncated { needed: MAGIC.len() as u64 + 1, found: bytes.len() as u64 }),
        Some(found) if *found < version => Err(SidecarError::OlderFormat { found: *found, read: version }),
        Some(found) if *found > version => Err(SidecarError::NewerFormat { found: *found, read: version }),
        Some(_) => Ok(()),
    }
}

/// Checks that there are exactly as many bytes as the counts say.
fn check_length(found: u64, needed: u64) -> Result<(), SidecarError> {
    match found.cmp(&needed) {
        core::cmp::Ordering::Less => Err(SidecarError::Truncated { needed, found }),
        core::cmp::Ordering::Greater => Err(SidecarError::TooLong { needed, found }),
        core::cmp::Ordering::Equal => Ok(()),
    }
}

/// Checks that `words` are those of a bitmap for a file of `size_bytes`, and that the counts are true. Looks at the
/// bytes where they are, and allocates nothing.
fn check_bits(size_bytes: u64, chunk_bytes: u64, total: u64, have: u64, words: &[[u8; 8]]) -> Result<(), SidecarError> {
    let chunks = ChunkBitmap::chunks_in(size_bytes, chunk_bytes)? as u64;
    if total != chunks {
        return Err(SidecarError::ChunkCount { stated: total, chunks });
    }
    let in_last = total % 64;
    let beyond = numbers(words).next_back().filter(|last| in_last > 0 && last >> in_last != 0);
    if beyond.is_some() {
        return Err(SidecarError::BeyondTheEnd { chunks });
    }
    let present = numbers(words).map(|word| u64::from(word.count_ones())).sum();
    if have != present {
        return Err(SidecarError::PresentCount { stated: have, present });
    }
    Ok(())
}

/// The field of `N` bytes at `offset` of a header, which is longer.
fn field<const N: usize>(header: &[u8], offset: usize) -> [u8; N] {
    core::array::from_fn(|index| header[offset + index])
}

/// Numbers of 64 bits, as they are written.
fn numbers(words: &[[u8; 8]]) -> impl DoubleEndedIterator<Item = u64> + '_ {
    words.iter().map(|word| u64::from_le_bytes(*word))
}
