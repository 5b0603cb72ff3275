//! What was known of the tree of the share, in a file of its own: `docs/TREE.md`.

use super::home::Home;
use super::known;
use farshore_proto::tree_file::{TreeFile, TreeFileError, TreeId};
use std::io;
use std::path::Path;

/// The file.
const TREE: &str = "tree";

/// Why what was written down cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// It breaks a rule.
    #[error(transparent)]
    Refused(#[from] TreeFileError),
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether anything was ever written down in the store in `dir`, which need not be open.
pub(super) fn is_in(dir: &Path) -> bool {
    dir.join(super::PRIVATE).join(TREE).is_file()
}

/// What was written down last; `None` if nothing ever was.
pub(super) fn load(home: &Home, id: TreeId) -> Result<Option<TreeFile>, LoadError> {
    let bytes = known::load(home, TREE)?;
    Ok(bytes.map(|bytes| TreeFile::decode(&bytes, id)).transpose()?)
}

/// Replaces what was written down. Durable when it returns: there is always a whole tree, this one or the one before.
pub(super) fn save(home: &Home, tree: &TreeFile) -> io::Result<()> {
    let bytes = tree.encode().map_err(|error| io::Error::new(io::ErrorKind::FileTooLarge, error))?;
    known::save(home, &home.enter()?, TREE, &bytes)
}
