//! Reading files on the wire: a stream carries one version of one file, or many small ones.

use crate::MAX_HASH_CHUNKS;
use crate::path;
use crate::v1::{self, read_reply, read_request};
use bytes::Bytes;
use core::ops::Range;
use farshore_engine::PeerFault;
use farshore_engine::chunk::{CHUNK_SIZE, FRAMES_PER_CHUNK, MAX_FILE_BYTES, chunk_range, frames_range};
use farshore_engine::path::{PathError, RelPath};
use farshore_engine::record::{RecordError, Stamp};

/// What a reader says on a read stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadRequest {
    /// Which bytes the stream is about. The first message, and only the first, unless that is [`ReadRequest::Whole`].
    Open(Open),
    /// Asks for frames.
    Fetch(Fetch),
    /// Does not need the answer any more.
    Cancel {
        /// To which request.
        request: u64,
    },
    /// Asks for the hashes of chunks.
    Hash(Hash),
    /// Asks for all of a small file, on a stream that is about no other.
    Whole(Whole),
}

/// Which bytes a stream is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Where the owner has them; never the root.
    pub path: RelPath,
    /// The owner's name for them.
    pub stamp: Stamp,
    /// How many there are, at most [`MAX_FILE_BYTES`].
    pub size_bytes: u64,
}

impl Open {
    fn parse(message: &v1::Open) -> Result<Open, PeerFault> {
        let path = path::parse(&message.path)?;
        if path.is_root() {
            return Err(PathError::EmptyPath.into());
        }
        if message.size_bytes > MAX_FILE_BYTES {
            return Err(RecordError::TooLarge.into());
        }
        Ok(Open { path, stamp: Stamp(message.stamp), size_bytes: message.size_bytes })
    }

    fn encode(&self) -> v1::Open {
        let Open { path, stamp, size_bytes } = self;
        v1::Open { path: path::encode(path), stamp: stamp.0, size_bytes: *size_bytes }
    }
}

/// Asks for neighbouring frames of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Its number, more than any before it on the stream; never zero.
    pub request: u64,
    /// Which chunk.
    pub chunk: u64,
    /// Which frames of it: at least one.
    pub frames: Range<u32>,
    /// Whether it goes before all that are not urgent.
    pub urgent: bool,
}

impl Fetch {
    /// The bytes that are asked for, in a file of `size_bytes`.
    ///
    /// # Errors
    /// [`PeerFault::OutOfRange`] if a frame lies outside the file.
    pub fn range(&self, size_bytes: u64) -> Result<Range<u64>, PeerFault> {
        if chunk_range(self.chunk, size_bytes).is_empty() {
            return Err(PeerFault::OutOfRange("chunk"));
        }
        let last = frames_range(self.chunk, &(self.frames.end.saturating_sub(1)..self.frames.end), size_bytes);
        if self.frames.is_empty() || last.is_empty() {
            return Err(PeerFault::OutOfRange("frames"));
        }
        Ok(frames_range(self.chunk, &self.frames, size_bytes))
    }
}

/// Asks for the hashes of neighbouring chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    /// Its number, more than any before it on the stream; never zero.
    pub request: u64,
    /// Which chunks: 1 to [`MAX_HASH_CHUNKS`].
    pub chunks: Range<u64>,
    /// Whether it goes before all that are not urgent.
    pub urgent: bool,
}

impl Hash {
    /// Checks that the chunks are those of a file of `size_bytes`.
    ///
    /// # Errors
    /// [`PeerFault::OutOfRange`] if one lies outside the file.
    pub fn check(&self, size_bytes: u64) -> Result<(), PeerFault> {
        let inside = self.chunks.end <= size_bytes.div_ceil(CHUNK_SIZE);
        if inside { Ok(()) } else { Err(PeerFault::OutOfRange("chunks")) }
    }
}

/// Asks for all of a small file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Its number, more than any before it on the stream; never zero.
    pub request: u64,
    /// Which file: it has 1 to [`CHUNK_SIZE`] bytes.
    pub file: Open,
}

impl ReadRequest {
    /// Checks every limit that does not depend on the file; see [`Fetch::range`] and [`Hash::check`] for the others.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn parse(message: v1::ReadRequest) -> Result<ReadRequest, PeerFault> {
        Ok(match message.kind.ok_or(PeerFault::Missing("request"))? {
            read_request::Kind::Open(open) => ReadRequest::Open(Open::parse(&open)?),
            read_request::Kind::Fetch(v1::Fetch { request, chunk, first_frame, end_frame, urgent }) => {
                if first_frame >= end_frame || end_frame > FRAMES_PER_CHUNK {
                    return Err(PeerFault::OutOfRange("frames"));
                }
                let frames = first_frame..end_frame;
                ReadRequest::Fetch(Fetch { request: parse_number(request)?, chunk, frames, urgent })
            }
            read_request::Kind::Cancel(v1::Cancel { request }) => {
                ReadRequest::Cancel { request: parse_number(request)? }
            }
            read_request::Kind::Hash(v1::Hash { request, first_chunk, chunks, urgent }) => {
                if chunks == 0 || u64::from(chunks) > MAX_HASH_CHUNKS {
                    return Err(PeerFault::OutOfRange("chunks"));
                }
                let end = first_chunk.checked_add(chunks.into()).ok_or(PeerFault::OutOfRange("chunks"))?;
                ReadRequest::Hash(Hash { request: parse_number(request)?, chunks: first_chunk..end, urgent })
            }
            read_request::Kind::Whole(v1::Whole { request, file }) => {
                let file = Open::parse(&file.ok_or(PeerFault::Missing("file"))?)?;
                if !(1..=CHUNK_SIZE).contains(&file.size_bytes) {
                    return Err(PeerFault::OutOfRange("size"));
                }
                ReadRequest::Whole(Whole { request: parse_number(request)?, file })
            }
        })
    }

    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> v1::ReadRequest {
        let kind = match self {
            ReadRequest::Open(open) => read_request::Kind::Open(open.encode()),
            ReadRequest::Fetch(Fetch { request, chunk, frames, urgent }) => read_request::Kind::Fetch(v1::Fetch {
                request: *request,
                chunk: *chunk,
                first_frame: frames.start,
                end_frame: frames.end,
                urgent: *urgent,
            }),
            ReadRequest::Cancel { request } => read_request::Kind::Cancel(v1::Cancel { request: *request }),
            ReadRequest::Hash(Hash { request, chunks, urgent }) => read_request::Kind::Hash(v1::Hash {
                request: *request,
                first_chunk: chunks.start,
                // At most MAX_HASH_CHUNKS.
                chunks: (chunks.end - chunks.start) as u32,
                urgent: *urgent,
            }),
            ReadRequest::Whole(Whole { request, file }) => {
                read_request::Kind::Whole(v1::Whole { request: *request, file: Some(file.encode()) })
            }
        };
        v1::ReadRequest { kind: Some(kind) }
    }
}

fn parse_number(request: u64) -> Result<u64, PeerFault> {
    if request == 0 { Err(PeerFault::OutOfRange("request")) } else { Ok(request) }
}

/// What an owner answers on a read stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadReply {
    /// Bytes; to be verified by [`crate::Asked::accept`] before anything else is done with them.
    Frame(Frame),
    /// A request has ended; unless it was cancelled, all its frames were sent.
    Done {
        /// Which.
        request: u64,
    },
    /// A request has ended without all its frames.
    Refused {
        /// Which.
        request: u64,
        /// Why.
        reason: Refusal,
    },
    /// The file cannot be read; the stream ends.
    OpenRefused {
        /// Why.
        reason: Refusal,
    },
    /// Hashes, and with them the end of a request; to be checked by [`crate::AskedHashes::accept`].
    Hashes(Hashes),
}

/// The hashes of neighbouring chunks, as the sender says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// Which request it answers.
    pub request: u64,
    /// Which chunk the first one is of.
    pub first_chunk: u64,
    /// The XXH3 of each chunk in turn, at most [`MAX_HASH_CHUNKS`].
    pub xxh3: Vec<u64>,
}

/// A part of a chunk, not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which request it answers, as the sender says.
    pub request: u64,
    /// Which frame of the chunk, as the sender says.
    pub frame: u32,
    /// The XXH3 of the data, as the sender says.
    pub xxh3: u64,
    /// The bytes.
    pub data: Bytes,
}

/// Why bytes cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There are other bytes under that path now.
    Stale,
    /// The path is not shared any more.
    Gone,
    /// The owner cannot read the file.
    Io,
    /// Who was asked knows these bytes, and has not got them, yet.
    NotYet,
}

impl ReadReply {
    /// Checks everything but frames and hashes, which only make sense beside what was asked.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn parse(message: v1::ReadReply) -> Result<ReadReply, PeerFault> {
        Ok(match message.kind.ok_or(PeerFault::Missing("reply"))? {
            read_reply::Kind::Frame(v1::Frame { request, frame, xxh3, data }) => {
                ReadReply::Frame(Frame { request, frame, xxh3, data })
            }
            read_reply::Kind::Done(v1::Done { request }) => ReadReply::Done { request },
            read_reply::Kind::Refused(v1::Refused { request, reason }) => {
                ReadReply::Refused { request, reason: Refusal::parse(reason)? }
            }
            read_reply::Kind::OpenRefused(v1::OpenRefused { reason }) => {
                ReadReply::OpenRefused { reason: Refusal::parse(reason)? }
            }
            read_reply::Kind::Hashes(v1::Hashes { request, first_chunk, xxh3 }) => {
                let most = MAX_HASH_CHUNKS as usize;
                if xxh3.len() > most {
                    return Err(PeerFault::TooMany(most));
                }
                ReadReply::Hashes(Hashes { request, first_chunk, xxh3 })
            }
        })
    }

    /// As it travels.
    #[must_use]
    pub fn encode(self) -> v1::ReadReply {
        let kind = match self {
            ReadReply::Frame(Frame { request, frame, xxh3, data }) => {
                read_reply::Kind::Frame(v1::Frame { request, frame, xxh3, data })
            }
            ReadReply::Done { request } => read_reply::Kind::Done(v1::Done { request }),
            ReadReply::Refused { request, reason } => {
                read_reply::Kind::Refused(v1::Refused { request, reason: reason.encode().into() })
            }
            ReadReply::OpenRefused { reason } => {
                read_reply::Kind::OpenRefused(v1::OpenRefused { reason: reason.encode().into() })
            }
            ReadReply::Hashes(Hashes { request, first_chunk, xxh3 }) => {
                read_reply::Kind::Hashes(v1::Hashes { request, first_chunk, xxh3 })
            }
        };
        v1::ReadReply { kind: Some(kind) }
    }
}

impl Refusal {
    fn parse(reason: i32) -> Result<Refusal, PeerFault> {
        match v1::Refusal::try_from(reason) {
            Ok(v1::Refusal::Stale) => Ok(Refusal::Stale),
            Ok(v1::Refusal::Gone) => Ok(Refusal::Gone),
            Ok(v1::Refusal::Io) => Ok(Refusal::Io),
            Ok(v1::Refusal::NotYet) => Ok(Refusal::NotYet),
            Ok(v1::Refusal::Unspecified) => Err(PeerFault::Missing("reason")),
            Err(_) => Err(PeerFault::OutOfRange("reason")),
        }
    }

    fn encode(self) -> v1::Refusal {
        match self {
            Refusal::Stale => v1::Refusal::Stale,
            Refusal::Gone => v1::Refusal::Gone,
            Refusal::Io => v1::Refusal::Io,
            Refusal::NotYet => v1::Refusal::NotYet,
        }
    }
}
