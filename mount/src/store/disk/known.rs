//! A file that is there as a whole, and replaced as a whole: what was known of a share, as `docs/TREE.md` says.

use super::home::{Home, Open};
use farshore_proto::tree_file::MAX_TREE_BYTES;
use std::io;

/// What was written down last under `name`; `None` if nothing ever was.
pub(super) fn load(home: &Home, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match home.private.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let len = file.metadata()?.len();
    // Before room is made for it.
    if len > MAX_TREE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {len} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    home.private.read_exact(&file, &mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Replaces what was written down under `name`. Durable when it returns: there is always a whole file, this one or the one
/// before. The right to change the disk is the caller's: whoever asks for it again, while somebody waits to close the store, waits
/// for ever.
pub(super) fn save(home: &Home, _open: &Open<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{name}.new");
    let file = home.private.create(&new)?;
    home.private.write_all(&new, &file, bytes)?;
    home.private.sync(&new, &file)?;
    home.private.rename(&new, name)?;
    home.private.sync_names()
}
