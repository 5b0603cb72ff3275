//! Answers as an application gets them: replies, and bytes that are here and only have to be copied.

use super::contents::Content;
use bytes::Bytes as Frame;
use farshore_engine::{Handle, Reply};
use std::io;
use std::sync::Arc;

/// A successful answer.
#[derive(Debug)]
pub enum Answer {
    /// To everything but a read.
    Reply(Reply),
    /// To a read.
    Bytes(Bytes),
}

/// The bytes that answer a read.
pub struct Bytes {
    offset: u64,
    len: u32,
    place: Place,
}

enum Place {
    /// In memory as far as `frames` go (each with its offset, in order), in the store otherwise.
    Content {
        content: Arc<Content>,
        frames: Vec<(u64, Frame)>,
    },
    /// In our own folder.
    Local(Handle),
    Nothing,
    Lost,
}

impl Bytes {
    pub(super) fn content(content: Arc<Content>, frames: Vec<(u64, Frame)>, offset: u64, len: u32) -> Bytes {
        Bytes { offset, len, place: Place::Content { content, frames } }
    }

    pub(super) fn local(handle: Handle, offset: u64, len: u32) -> Bytes {
        Bytes { offset, len, place: Place::Local(handle) }
    }

    pub(super) fn nothing() -> Bytes {
        Bytes { offset: 0, len: 0, place: Place::Nothing }
    }

    pub(super) fn lost(len: u32) -> Bytes {
        Bytes { offset: 0, len, place: Place::Lost }
    }

    /// How many bytes; fewer than were asked for only at the end of the file.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the read began at the end of the file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `into`, which is [`Bytes::len`] long.
    ///
    /// # Errors
    /// What the disk says. Never a short answer.
    pub fn read_into(&self, into: &mut [u8]) -> io::Result<()> {
        match &self.place {
            Place::Content { content, frames } => read_content(content, frames, self.offset, into),
            Place::Local(_) | Place::Lost => Err(io::ErrorKind::NotFound.into()),
            Place::Nothing => Ok(()),
        }
    }
}

/// Copies from the frames where they cover the range, and reads the store in between.
fn read_content(content: &Content, frames: &[(u64, Frame)], offset: u64, into: &mut [u8]) -> io::Result<()> {
    let end = offset + into.len() as u64;
    let mut at = offset;
    let index = |position: u64| (position - offset) as usize;
    let from_store = |range: &mut [u8], position: u64| match content.stored() {
        Some(stored) => stored.read(position, range),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    for (start, frame) in frames {
        let (from, until) = ((*start).max(at), (start + frame.len() as u64).min(end));
        if from >= until {
            continue;
        }
        if at < from {
            from_store(&mut into[index(at)..index(from)], at)?;
        }
        let inside = (from - start) as usize..(until - start) as usize;
        into[index(from)..index(until)].copy_from_slice(&frame[inside]);
        at = until;
    }
    if at < end {
        from_store(&mut into[index(at)..], at)?;
    }
    Ok(())
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {}", self.len, self.offset)
    }
}
