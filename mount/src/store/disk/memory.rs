//! What is remembered of a share that is kept in a folder, in a file of its own: `docs/TREE.md`.

use super::home::Home;
use super::known;
use farshore_engine::Memory;
use farshore_proto::{MemoryFileError, ShareId, decode_memory, encode_memory};
use std::io;

/// The file.
pub(super) const MEMORY: &str = "memory";

/// Why what was written down cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// It breaks a rule.
    #[error(transparent)]
    Refused(#[from] MemoryFileError),
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What was written down last; `None` if nothing ever was.
pub(super) fn load(home: &Home, share: ShareId) -> Result<Option<Memory>, LoadError> {
    let bytes = known::load(home, MEMORY)?;
    Ok(bytes.map(|bytes| decode_memory(&bytes, share)).transpose()?)
}

/// Replaces what was written down. Durable when it returns: there is always a whole one, this one or the one before.
pub(super) fn save(home: &Home, share: ShareId, memory: &Memory) -> io::Result<()> {
    let bytes = encode_memory(share, memory).map_err(|error| io::Error::new(io::ErrorKind::FileTooLarge, error))?;
    // It says what the folder held: that must not be lost by what it is remembered through.
    home.private.sync_all()?;
    known::save(home, MEMORY, &bytes)
}
