//! The paths that a person has pinned, in a file of their own: each as it is, with a zero byte behind it.

use super::home::Home;
use farshore_engine::path::{PATH_MAX_BYTES, RelPath};
use std::fs::File;
use std::io::{self, Read};

/// The file.
const PINS: &str = "pins";
const NEW_PINS: &str = "pins.new";

/// The most that is read of it, in bytes: 4,096 paths of the greatest length.
const MAX_PINS_BYTES: u64 = 4_096 * (PATH_MAX_BYTES as u64 + 1);

/// What was written down last; nothing if nothing ever was.
///
/// # Errors
/// What the disk says; [`io::ErrorKind::InvalidData`] if it is not what was written.
pub(super) fn load(home: &Home) -> io::Result<Vec<RelPath>> {
    let file = match home.private.open(PINS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut bytes = Vec::new();
    File::take(file, MAX_PINS_BYTES).read_to_end(&mut bytes)?;
    let Some(bytes) = bytes.strip_suffix(b"\0") else {
        return if bytes.is_empty() { Ok(Vec::new()) } else { Err(broken()) };
    };
    bytes.split(|byte| *byte == 0).map(|path| RelPath::parse(path).map_err(|_| broken())).collect()
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the list of pinned paths is damaged")
}

/// Replaces what was written down. Durable when it returns: there is always a whole list, this one or the one before.
///
/// # Errors
/// What the disk says.
pub(super) fn save(home: &Home, pins: &[RelPath]) -> io::Result<()> {
    let _open = home.enter()?;
    if pins.is_empty() {
        home.private.remove(PINS)?;
        return home.private.sync_names();
    }
    let bytes: Vec<u8> = pins.iter().flat_map(|pin| pin.to_bytes().into_iter().chain([0])).collect();
    let file = home.private.create(NEW_PINS)?;
    home.private.write_all(NEW_PINS, &file, &bytes)?;
    home.private.sync(NEW_PINS, &file)?;
    home.private.rename(NEW_PINS, PINS)?;
    home.private.sync_names()
}
