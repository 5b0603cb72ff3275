//! The tree of a share as a file: what a reader knew of it, for a start at which its owner is away.
//!
//! It is what the owner told, in the messages in which it told it, between a header and a checksum; `docs/TREE.md` has it
//! byte by byte. Reading is strict: nothing is allocated on the word of a count before the length and the checksum of the
//! whole were right, and after that every message keeps the limits that it has on the wire.

use crate::codec::decode;
use crate::frames::{is_checksum, put_checksum, put_message, split_checksum, take_message};
use crate::tree::{each_batch, encode_entry, encode_update, parse_batch};
use crate::{ShareId, v1};
use bytes::Bytes;
use farshore_engine::{Entries, PeerFault, PeerId, Position, Remembered, TreeUpdate};

/// The version of the format that is written.
pub const TREE_VERSION: u8 = 2;

/// The largest file that is written or read, in bytes. About four million entries with names of a usual length.
pub const MAX_TREE_BYTES: u64 = 512 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"FSTR";
/// Bytes before the first message.
const HEADER_BYTES: usize = 72;

/// Which tree: an owner may have several shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeId {
    /// Whose tree it is.
    pub owner: PeerId,
    /// Of which share.
    pub share: ShareId,
}

/// A tree, and what has to be known to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Which tree it is.
    pub id: TreeId,
    /// When it was so, in seconds since 1970-01-01 UTC.
    pub known_unix_seconds: u64,
    /// The tree.
    pub tree: Remembered,
}

/// Why bytes are not the tree that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeFileError {
    /// It has no room for a header and a checksum.
    #[error("it is cut off: {0} bytes are fewer than any such file has")]
    TooShort(u64),
    /// It is larger than [`MAX_TREE_BYTES`].
    #[error("it has {0} bytes, and the most there can be is {MAX_TREE_BYTES}")]
    TooLong(u64),
    /// It is something else.
    #[error("it does not begin as the tree of a share does")]
    Magic,
    /// It is of another version.
    #[error("it is in version {0} of the format, and this program reads version {TREE_VERSION}")]
    Version(u8),
    /// A byte that has to be zero is not.
    #[error("bytes are used that have no meaning")]
    Reserved,
    /// Its bytes are not those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is the tree of somebody else.
    #[error("it is the tree of {0:?}")]
    WrongOwner(PeerId),
    /// It is the tree of another share.
    #[error("it is the tree of share {0}")]
    WrongShare(ShareId),
    /// A message is longer than any is, or than what is left of the file.
    #[error("a message of {0} bytes does not fit")]
    MessageLength(u32),
    /// There is another number of updates than the header says.
    #[error("it has another number of entries than it says")]
    Count,
    /// What it says is no tree.
    #[error("what it says makes no tree: {0}")]
    Tree(#[from] PeerFault),
}

impl TreeFile {
    /// The bytes of the file.
    ///
    /// # Errors
    /// [`TreeFileError::TooLong`] if they would be too many to be read again.
    pub fn encode(&self) -> Result<Vec<u8>, TreeFileError> {
        let entries = self.tree.entries();
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend([TREE_VERSION, 0, 0, 0]);
        bytes.extend(self.id.owner.0);
        bytes.extend(self.id.share.0);
        bytes.extend(self.known_unix_seconds.to_le_bytes());
        bytes.extend((entries.len() as u64 + 2).to_le_bytes());
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        let begin = encode_update(&TreeUpdate::Begin { position: self.tree.position() });
        let listed = entries.iter().map(|(path, record, revision)| encode_entry(&path, record, revision));
        let end = encode_update(&TreeUpdate::End { settled: self.tree.settled() });
        each_batch([begin].into_iter().chain(listed).chain([end]), |batch| put_message(&mut bytes, batch));
        put_checksum(&mut bytes);
        check_len(bytes.len() as u64)?;
        Ok(bytes)
    }

    /// The tree `id` that these bytes are.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn decode(bytes: &[u8], id: TreeId) -> Result<TreeFile, TreeFileError> {
        let len = bytes.len() as u64;
        check_len(len)?;
        let (body, checksum) = split_checksum(bytes).ok_or(TreeFileError::TooShort(len))?;
        let (header, mut messages) = body.split_first_chunk::<HEADER_BYTES>().ok_or(TreeFileError::TooShort(len))?;
        if header[..4] != MAGIC {
            return Err(TreeFileError::Magic);
        }
        if header[4] != TREE_VERSION {
            return Err(TreeFileError::Version(header[4]));
        }
        if !is_checksum(body, checksum) {
            return Err(TreeFileError::Checksum);
        }
        if header[5..8] != [0; 3] {
            return Err(TreeFileError::Reserved);
        }
        let found = TreeId { owner: PeerId(field(header, 8)), share: ShareId(field(header, 40)) };
        if found.owner != id.owner {
            return Err(TreeFileError::WrongOwner(found.owner));
        }
        if found.share != id.share {
            return Err(TreeFileError::WrongShare(found.share));
        }
        let mut listing = Listing::default();
        while !messages.is_empty() {
            listing.take(take_message(&mut messages).map_err(TreeFileError::MessageLength)?)?;
        }
        let updates = listing.updates;
        let tree = listing.end()?;
        if updates != u64::from_le_bytes(field(header, 64)) {
            return Err(TreeFileError::Count);
        }
        Ok(TreeFile { id, known_unix_seconds: u64::from_le_bytes(field(header, 56)), tree })
    }
}

/// Compares the length of a file with the largest there is. Who reads one asks before making room for it.
///
/// # Errors
/// [`TreeFileError::TooLong`].
pub fn check_len(len_bytes: u64) -> Result<(), TreeFileError> {
    if len_bytes > MAX_TREE_BYTES { Err(TreeFileError::TooLong(len_bytes)) } else { Ok(()) }
}

fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    core::array::from_fn(|byte| header[at + byte])
}

/// A listing that is being read: exactly one, from its beginning to its end.
#[derive(Default)]
struct Listing {
    updates: u64,
    begun: Option<Position>,
    entries: Entries,
    settled: Option<u64>,
}

impl Listing {
    fn take(&mut self, message: Bytes) -> Result<(), PeerFault> {
        for update in parse_batch(decode::<v1::TreeBatch>(message)?)? {
            self.updates += 1;
            match (update, self.begun, self.settled) {
                (TreeUpdate::Begin { position }, None, None) => self.begun = Some(position),
                (TreeUpdate::Entry { path, record, revision }, Some(_), None) => {
                    self.entries.push(&path, record, revision)?;
                }
                (TreeUpdate::End { settled }, Some(_), None) => self.settled = Some(settled),
                (
                    TreeUpdate::Begin { .. }
                    | TreeUpdate::Entry { .. }
                    | TreeUpdate::Removed { .. }
                    | TreeUpdate::End { .. }
                    | TreeUpdate::Event { .. }
                    | TreeUpdate::Skip { .. },
                    _,
                    _,
                ) => return Err(PeerFault::OutOfPlace),
            }
        }
        Ok(())
    }

    fn end(self) -> Result<Remembered, PeerFault> {
        let (Some(position), Some(settled)) = (self.begun, self.settled) else { return Err(PeerFault::OutOfPlace) };
        Remembered::new(position, settled, self.entries)
    }
}
