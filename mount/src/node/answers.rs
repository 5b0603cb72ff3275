//! Answers as an application gets them: replies, and bytes that are here and only have to be copied.

use super::contents::Content;
use bytes::Bytes as Frame;
use farshore_engine::Reply;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
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
    Local(Arc<File>),
    Nothing,
    Lost,
}

impl Bytes {
    pub(super) fn content(content: Arc<Content>, frames: Vec<(u64, Frame)>, offset: u64, len: u32) -> Bytes {
        Bytes { offset, len, place: Place::Content { content, frames } }
    }

    pub(super) fn local(file: Arc<File>, offset: u64, len: u32) -> Bytes {
        Bytes { offset, len, place: Place::Local(file) }
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
        match &self.place {
            // The folder itself knows best where its files end.
            Place::Local(file) => {
                let size_bytes = file.metadata().map_or(0, |meta| meta.len());
                size_bytes.saturating_sub(self.offset).min(u64::from(self.len)) as usize
            }
            Place::Content { .. } | Place::Nothing | Place::Lost => self.len as usize,
        }
    }

    /// Whether the read began at the end of the file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into`, which is [`Bytes::len`] long.
    ///
    /// # Errors
    /// What the disk says. Never a short answer.
    pub fn read_into(&self, into: &mut [u8]) -> io::Result<()> {
        match &self.place {
            Place::Content { content, frames } => read_content(content, frames, self.offset, into),
            Place::Local(file) => file.read_exact_at(into, self.offset),
            Place::Lost => Err(io::ErrorKind::NotFound.into()),
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
