//! The journal of what a device remembers of a share: what has changed since the whole was written down, in the order in which it
//! was noted; `docs/TREE.md` has it byte by byte.
//!
//! A process can be killed, and a machine can lose its power, while it is written. So each frame has a checksum of its own, and what
//! counts is what is before the first frame that is not whole. Nothing is allocated on the word of a length that is not true.

use crate::codec::decode;
use crate::frames::{is_checksum, put_checksum, put_message, split_checksum, take_message};
use crate::memory_file::{encode_in_folder, encode_standings, parse_held, parse_standings};
use crate::tree::{encode_record, encode_revision, parse_record, parse_removed, parse_revision};
use crate::tree_file::MAX_TREE_BYTES;
use crate::{MAX_BATCH_BYTES, MAX_BATCH_UPDATES, ShareId, path, v1};
use farshore_engine::path::RelPath;
use farshore_engine::{AtPath, Changes, PeerFault, Stated};
use prost::Message;

/// The version of the format that is written.
pub const JOURNAL_VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"FSJR";
/// Bytes of a header before its checksum: magic, version and three zero bytes, the share, two numbers, the boot.
const HEADER_BYTES: usize = 4 + 4 + size_of::<ShareId>() + 8 + 8 + size_of::<Boot>();
const CHECKSUM_BYTES: usize = 16;
/// Bytes of the length before each frame, which is that of what is between the kind and the checksum.
const LENGTH_BYTES: usize = 4;
/// Bytes before what a frame says: its length, and which kind it is.
const FRAME_BYTES: usize = LENGTH_BYTES + 1;
/// It says what has changed.
const CHANGES: u8 = 1;
/// It says how much of the journal is durable.
const MARK: u8 = 2;

/// Which time it is that the machine is running. What was written down before it last began may have been lost in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot(pub [u8; 16]);

impl Boot {
    /// The machine does not say.
    pub const UNKNOWN: Boot = Boot([0; 16]);
}

/// What a journal begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalHeader {
    /// Of which share it is.
    pub share: ShareId,
    /// Its number. It follows the journal with the number before, or what was written down as a whole with this number.
    pub number: u64,
    /// How many bytes of the journal with the number before count, if there is one: what is behind them was not believed.
    pub follows_bytes: u64,
    /// When the machine was running that has written it.
    pub boot: Boot,
}

/// Why bytes are no journal, or from somewhere on are none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// It has no room for a header.
    #[error("it is cut off: {0} bytes are fewer than any journal has")]
    TooShort(u64),
    /// It is larger than [`MAX_TREE_BYTES`].
    #[error("it has {0} bytes, and the most there can be is {MAX_TREE_BYTES}")]
    TooLong(u64),
    /// It is something else.
    #[error("it does not begin as a journal does")]
    Magic,
    /// It is of another version.
    #[error("it is in version {0} of the format, and this program reads version {JOURNAL_VERSION}")]
    Version(u8),
    /// Its bytes are not those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is the journal of another share.
    #[error("it is the journal of share {0}")]
    WrongShare(ShareId),
    /// A frame is not whole.
    #[error("it is cut off, or damaged, at byte {0}")]
    Torn(u64),
    /// What it says is nothing that can be remembered.
    #[error("what it says cannot be so: {0}")]
    Share(#[from] PeerFault),
}

impl JournalHeader {
    /// How many bytes it has.
    pub const BYTES: u64 = (HEADER_BYTES + CHECKSUM_BYTES) as u64;

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + CHECKSUM_BYTES);
        bytes.extend(MAGIC);
        bytes.extend([JOURNAL_VERSION, 0, 0, 0]);
        bytes.extend(self.share.0);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.follows_bytes.to_le_bytes());
        bytes.extend(self.boot.0);
        put_checksum(&mut bytes);
        bytes
    }
}

/// A frame that says what has changed. Nobody may be told of that before it is written.
///
/// # Errors
/// [`JournalError::TooLong`] if it could not be read again.
pub fn encode_changes(changes: &Changes) -> Result<Vec<u8>, JournalError> {
    let mut frame = begin(CHANGES);
    let mut batch = v1::JournalBatch { standings: changes.standings.as_ref().map(encode_standings), paths: Vec::new() };
    let mut batch_bytes = batch.encoded_len();
    for (path, at) in &changes.paths {
        let at = encode_at(path, at);
        // Its key, its length, itself.
        let at_bytes = 1 + prost::length_delimiter_len(at.encoded_len()) + at.encoded_len();
        if batch.paths.len() == MAX_BATCH_UPDATES || batch_bytes + at_bytes > MAX_BATCH_BYTES {
            put_message(&mut frame, &core::mem::take(&mut batch));
            batch_bytes = 0;
        }
        batch_bytes += at_bytes;
        batch.paths.push(at);
    }
    put_message(&mut frame, &batch);
    let len = (frame.len() - FRAME_BYTES) as u64;
    if len > MAX_TREE_BYTES {
        return Err(JournalError::TooLong(len));
    }
    Ok(finish(frame))
}

/// A frame that says that the first `durable_bytes` of the journal, and what the folder held then, have been made durable.
#[must_use]
pub fn encode_mark(durable_bytes: u64) -> Vec<u8> {
    let mut frame = begin(MARK);
    frame.extend(durable_bytes.to_le_bytes());
    finish(frame)
}

/// A frame that says nothing yet.
fn begin(kind: u8) -> Vec<u8> {
    let mut frame = vec![0; FRAME_BYTES];
    frame[LENGTH_BYTES] = kind;
    frame
}

/// A frame that says these changes, whatever they are.
#[cfg(feature = "testing")]
pub(crate) fn sealed_changes(said: &[u8]) -> Vec<u8> {
    let mut frame = begin(CHANGES);
    frame.extend(said);
    finish(frame)
}

/// Says how long a frame is, and appends its checksum.
fn finish(mut frame: Vec<u8>) -> Vec<u8> {
    let len = (frame.len() - FRAME_BYTES) as u32;
    frame[..LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
    put_checksum(&mut frame);
    frame
}

/// A journal, of which the checksums were compared and nothing else was looked at.
#[derive(Debug, Clone, Copy)]
pub struct JournalFile<'a> {
    header: JournalHeader,
    bytes: &'a [u8],
    whole_bytes: u64,
    durable_bytes: u64,
}

impl<'a> JournalFile<'a> {
    /// Looks through the journal of a share.
    ///
    /// # Errors
    /// What is wrong with its beginning.
    pub fn open(bytes: &'a [u8], share: ShareId) -> Result<JournalFile<'a>, JournalError> {
        let len = bytes.len() as u64;
        if len > MAX_TREE_BYTES {
            return Err(JournalError::TooLong(len));
        }
        let begin = bytes.get(..HEADER_BYTES + CHECKSUM_BYTES).ok_or(JournalError::TooShort(len))?;
        let (body, checksum) = split_checksum(begin).ok_or(JournalError::TooShort(len))?;
        if body[..4] != MAGIC {
            return Err(JournalError::Magic);
        }
        if body[4] != JOURNAL_VERSION || body[5..8] != [0; 3] {
            return Err(JournalError::Version(body[4]));
        }
        if !is_checksum(body, checksum) {
            return Err(JournalError::Checksum);
        }
        let number = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| body[at + byte]));
        let header = JournalHeader {
            share: ShareId(core::array::from_fn(|byte| body[8 + byte])),
            number: number(24),
            follows_bytes: number(32),
            boot: Boot(core::array::from_fn(|byte| body[40 + byte])),
        };
        if header.share != share {
            return Err(JournalError::WrongShare(header.share));
        }
        let mut rest = &bytes[begin.len()..];
        let at = |rest: &[u8]| len - rest.len() as u64;
        let mut durable_bytes = at(rest);
        let mut whole_bytes = at(rest);
        while let Some(frame) = take_frame(&mut rest) {
            let before_bytes = core::mem::replace(&mut whole_bytes, at(rest));
            if let Frame::Mark(bytes) = frame {
                // It cannot speak of what comes behind it. If all before it is durable, nothing is lost with the mark itself.
                let is_all = bytes >= before_bytes;
                durable_bytes = durable_bytes.max(if is_all { whole_bytes } else { bytes });
            }
        }
        Ok(JournalFile { header, bytes, whole_bytes, durable_bytes })
    }

    /// What it begins with.
    #[must_use]
    pub fn header(&self) -> JournalHeader {
        self.header
    }

    /// How many bytes there are before the first frame that is not whole.
    #[must_use]
    pub fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    /// How many of these were durable, with what they say of the folder.
    #[must_use]
    pub fn durable_bytes(&self) -> u64 {
        self.durable_bytes
    }

    /// Whether there is anything behind that.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.whole_bytes != self.bytes.len() as u64
    }

    /// What its first `until` bytes say has changed.
    ///
    /// # Errors
    /// [`JournalError::Torn`] if these are not whole frames, and otherwise the first rule that one of them breaks.
    pub fn changes(&self, until: u64) -> Result<Changes, JournalError> {
        let torn = JournalError::Torn(self.whole_bytes.min(until));
        let until = usize::try_from(until).map_err(|_| torn)?;
        let mut rest = self.bytes.get(HEADER_BYTES + CHECKSUM_BYTES..until).ok_or(torn)?;
        let mut changes = Changes::default();
        while !rest.is_empty() {
            let Frame::Changes(mut messages) = take_frame(&mut rest).ok_or(torn)? else { continue };
            while !messages.is_empty() {
                let message = take_message(&mut messages).map_err(|_| torn)?;
                changes.extend(parse_changes(decode::<v1::JournalBatch>(message)?)?);
            }
        }
        Ok(changes)
    }
}

/// What a frame says.
enum Frame<'a> {
    /// What has changed: messages, each after its length.
    Changes(&'a [u8]),
    /// So many bytes of the journal are durable.
    Mark(u64),
}

/// Takes the next frame off; `None` if it is not whole.
fn take_frame<'a>(bytes: &mut &'a [u8]) -> Option<Frame<'a>> {
    let len = u32::from_le_bytes(*bytes.first_chunk::<LENGTH_BYTES>()?) as usize;
    let (frame, rest) = bytes.split_at_checked(len.checked_add(FRAME_BYTES + CHECKSUM_BYTES)?)?;
    let (body, checksum) = split_checksum(frame)?;
    if !is_checksum(body, checksum) {
        return None;
    }
    let said = &body[FRAME_BYTES..];
    let frame = match body[LENGTH_BYTES] {
        CHANGES => Frame::Changes(said),
        MARK => Frame::Mark(u64::from_le_bytes(said.try_into().ok()?)),
        _ => return None,
    };
    *bytes = rest;
    Some(frame)
}

fn encode_at(path: &RelPath, at: &AtPath) -> v1::AtPath {
    let AtPath { stated, held } = at;
    v1::AtPath {
        path: path::encode(path),
        record: stated.as_ref().and_then(|stated| stated.record.as_ref()).map(encode_record),
        revision: stated.as_ref().map(|stated| encode_revision(&stated.revision)),
        held: held.as_ref().map(encode_in_folder),
    }
}

fn parse_changes(batch: v1::JournalBatch) -> Result<Changes, PeerFault> {
    let v1::JournalBatch { paths, standings } = batch;
    if paths.len() > MAX_BATCH_UPDATES {
        return Err(PeerFault::TooMany(MAX_BATCH_UPDATES));
    }
    let paths = paths.into_iter().map(parse_at).collect::<Result<_, PeerFault>>()?;
    Ok(Changes { paths, standings: standings.map(parse_standings).transpose()? })
}

fn parse_at(at: v1::AtPath) -> Result<(RelPath, AtPath), PeerFault> {
    let v1::AtPath { path, record, revision, held } = at;
    let stated = match (record, revision) {
        (record @ Some(_), revision) => {
            Some(Stated { record: Some(parse_record(record)?), revision: parse_revision(revision)? })
        }
        (None, revision @ Some(_)) => Some(Stated { record: None, revision: parse_removed(revision)? }),
        (None, None) => None,
    };
    let held = held.map(parse_held).transpose()?;
    Ok((path::parse(&path)?, AtPath { stated, held }))
}
