//! What a device remembers of a share that it has in a folder of its own, as a file; `docs/TREE.md` has it byte by byte.
//!
//! Reading is strict: nothing is allocated on the word of a count before the checksum of the whole was right, and after that
//! every message keeps the limits that it has on the wire.

use crate::codec::decode;
use crate::frames::{is_checksum, put_checksum, put_message, split_checksum, take_message};
use crate::tree::{each_batch, encode_entry, encode_record, encode_removed, parse_batch, parse_record};
use crate::tree_file::MAX_TREE_BYTES;
use crate::{MAX_BATCH_BYTES, MAX_BATCH_UPDATES, ShareId, path, v1};
use bytes::Bytes;
use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, FileTime};
use farshore_engine::version::MAX_COUNTER;
use farshore_engine::{DeviceTag, Dot, Entries, InFolder, Memory, PeerFault, PeerId, Position, Standing, TreeUpdate};
use prost::Message;
use std::collections::BTreeMap;

/// The version of the format that is written.
pub const MEMORY_VERSION: u8 = 2;

/// The most peers of which it is remembered where the device stands in their events. Of others it has them list anew.
pub const MAX_STANDINGS: usize = 1024;

const MAGIC: [u8; 4] = *b"FSMR";
/// Bytes before the first message: magic, version and three zero bytes, the share, the number of the journal that follows, and the
/// number of messages of the tree.
const HEADER_BYTES: usize = 4 + 4 + SHARE_BYTES + 8 + 8;
const SHARE_BYTES: usize = size_of::<ShareId>();

/// Why bytes are not what is remembered of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryFileError {
    /// It has no room for a header and a checksum.
    #[error("it is cut off: {0} bytes are fewer than any such file has")]
    TooShort(u64),
    /// It is larger than [`MAX_TREE_BYTES`].
    #[error("it has {0} bytes, and the most there can be is {MAX_TREE_BYTES}")]
    TooLong(u64),
    /// It is something else.
    #[error("it does not begin as the memory of a share does")]
    Magic,
    /// It is of another version.
    #[error("it is in version {0} of the format, and this program reads version {MEMORY_VERSION}")]
    Version(u8),
    /// Its bytes are not those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is the memory of another share.
    #[error("it is the memory of share {0}")]
    WrongShare(ShareId),
    /// A message is longer than any is, or than what is left of the file.
    #[error("a message of {0} bytes does not fit")]
    MessageLength(u32),
    /// What it says is no share.
    #[error("what it says makes no share: {0}")]
    Share(#[from] PeerFault),
}

/// The bytes of the file. What has changed since then is in the journals from number `journal` on.
///
/// # Errors
/// [`MemoryFileError::TooLong`] if they would be too many to be read again.
pub fn encode_memory(share: ShareId, journal: u64, memory: &Memory) -> Result<Vec<u8>, MemoryFileError> {
    let removed = memory.removed().iter().map(|(path, revision)| encode_removed(path, revision));
    let entries = memory.entries().iter().map(|(path, record, revision)| encode_entry(&path, record, revision));
    let (mut tree, mut messages) = (Vec::new(), 0_u64);
    each_batch(removed.chain(entries), |batch| {
        put_message(&mut tree, batch);
        messages += 1;
    });
    let mut bytes = Vec::new();
    bytes.extend(MAGIC);
    bytes.extend([MEMORY_VERSION, 0, 0, 0]);
    bytes.extend(share.0);
    bytes.extend(journal.to_le_bytes());
    bytes.extend(messages.to_le_bytes());
    put_message(&mut bytes, &encode_standings(memory.standings()));
    bytes.append(&mut tree);
    let mut batch = v1::InFolderBatch::default();
    let mut batch_bytes = 0;
    for (path, in_folder) in memory.held() {
        let held = encode_held(&path, &in_folder);
        // Its key, its length, itself.
        let held_bytes = 1 + prost::length_delimiter_len(held.encoded_len()) + held.encoded_len();
        if batch.held.len() == MAX_BATCH_UPDATES || batch_bytes + held_bytes > MAX_BATCH_BYTES {
            put_message(&mut bytes, &core::mem::take(&mut batch));
            batch_bytes = 0;
        }
        batch_bytes += held_bytes;
        batch.held.push(held);
    }
    put_message(&mut bytes, &batch);
    put_checksum(&mut bytes);
    check_len(&bytes)?;
    Ok(bytes)
}

/// What these bytes say is remembered of `share`, and the number of the journal that follows.
///
/// # Errors
/// The first rule that they break.
pub fn decode_memory(bytes: &[u8], share: ShareId) -> Result<(u64, Memory), MemoryFileError> {
    check_len(bytes)?;
    let short = MemoryFileError::TooShort(bytes.len() as u64);
    let (body, checksum) = split_checksum(bytes).ok_or(short)?;
    let (header, mut messages) = body.split_first_chunk::<HEADER_BYTES>().ok_or(short)?;
    if header[..4] != MAGIC {
        return Err(MemoryFileError::Magic);
    }
    if header[4] != MEMORY_VERSION || header[5..8] != [0; 3] {
        return Err(MemoryFileError::Version(header[4]));
    }
    if !is_checksum(body, checksum) {
        return Err(MemoryFileError::Checksum);
    }
    let found = ShareId(core::array::from_fn(|byte| header[8 + byte]));
    if found != share {
        return Err(MemoryFileError::WrongShare(found));
    }
    let number = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| header[8 + SHARE_BYTES + at + byte]));
    let (journal, tree) = (number(0), number(8));
    let standings = take_message(&mut messages).map_err(MemoryFileError::MessageLength)?;
    let standings = parse_standings(decode::<v1::Standings>(standings)?)?;
    let (mut entries, mut removed, mut held) = (Entries::default(), Vec::new(), Vec::new());
    let mut count = 0;
    while !messages.is_empty() {
        let message = take_message(&mut messages).map_err(MemoryFileError::MessageLength)?;
        if count < tree {
            for update in parse_batch(decode::<v1::TreeBatch>(message)?)? {
                match update {
                    TreeUpdate::Removed { path, revision } => removed.push((path, revision)),
                    TreeUpdate::Entry { path, record, revision } => entries.push(&path, record, revision)?,
                    TreeUpdate::Begin { .. }
                    | TreeUpdate::End { .. }
                    | TreeUpdate::Event { .. }
                    | TreeUpdate::Skip { .. } => return Err(PeerFault::OutOfPlace.into()),
                }
            }
        } else {
            for in_folder in decode::<v1::InFolderBatch>(message)?.held {
                held.push((path::parse(&in_folder.path)?, parse_held(in_folder)?));
            }
        }
        count += 1;
    }
    Ok((journal, Memory::new(entries, removed, held, standings)?))
}

fn check_len(bytes: &[u8]) -> Result<(), MemoryFileError> {
    let len = bytes.len() as u64;
    if len > MAX_TREE_BYTES { Err(MemoryFileError::TooLong(len)) } else { Ok(()) }
}

fn encode_held(path: &RelPath, in_folder: &InFolder) -> v1::InFolder {
    v1::InFolder { path: path::encode(path), ..encode_in_folder(in_folder) }
}

/// What the folder holds, without its path.
pub(crate) fn encode_in_folder(in_folder: &InFolder) -> v1::InFolder {
    let InFolder { record, dot, facts } = in_folder;
    v1::InFolder {
        path: Vec::new(),
        record: record.as_ref().map(encode_record),
        author: dot.author.0,
        change: dot.counter,
        inode: facts.inode,
        changed_seconds: facts.changed.seconds,
        changed_nanos: facts.changed.nanos,
    }
}

/// What the folder held, wherever that is.
pub(crate) fn parse_held(held: v1::InFolder) -> Result<InFolder, PeerFault> {
    let v1::InFolder { path: _, record, author, change, inode, changed_seconds, changed_nanos } = held;
    if !(1..=MAX_COUNTER).contains(&change) {
        return Err(PeerFault::Version);
    }
    if changed_nanos >= 1_000_000_000 {
        return Err(PeerFault::OutOfRange("changed_nanos"));
    }
    let record = record.map(|record| parse_record(Some(record))).transpose()?;
    let dot = Dot { author: DeviceTag(author), counter: change };
    let facts = Facts { inode, changed: FileTime { seconds: changed_seconds, nanos: changed_nanos } };
    Ok(InFolder { record, dot, facts })
}

pub(crate) fn encode_standings(standings: &BTreeMap<PeerId, Standing>) -> v1::Standings {
    let standing = |(peer, standing): (&PeerId, &Standing)| {
        let Standing { position: Position { epoch, seq }, settled } = *standing;
        v1::Standing { peer: Bytes::copy_from_slice(&peer.0), epoch, seq, settled }
    };
    v1::Standings { standings: standings.iter().take(MAX_STANDINGS).map(standing).collect() }
}

pub(crate) fn parse_standings(standings: v1::Standings) -> Result<BTreeMap<PeerId, Standing>, PeerFault> {
    if standings.standings.len() > MAX_STANDINGS {
        return Err(PeerFault::TooMany(MAX_STANDINGS));
    }
    let mut parsed = BTreeMap::new();
    for v1::Standing { peer, epoch, seq, settled } in standings.standings {
        let peer = PeerId(peer.as_ref().try_into().map_err(|_| PeerFault::OutOfRange("peer"))?);
        if epoch == 0 {
            return Err(PeerFault::OutOfRange("epoch"));
        }
        if parsed.insert(peer, Standing { position: Position { epoch, seq }, settled }).is_some() {
            return Err(PeerFault::OutOfPlace);
        }
    }
    Ok(parsed)
}
