//! What was known of the tree of the share, in a file of its own: `docs/TREE.md`.

use super::home::Home;
use farshore_proto::tree_file::{TreeFile, TreeFileError, TreeId, check_len};
use std::io;

/// The file.
const TREE: &str = "tree";
const NEW_TREE: &str = "tree.new";

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

/// What was written down last; `None` if nothing ever was.
pub(super) fn load(home: &Home, id: TreeId) -> Result<Option<TreeFile>, LoadError> {
    let file = match home.private.open(TREE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let len = file.metadata()?.len();
    // Before room is made for it.
    check_len(len)?;
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    home.private.read_exact(&file, &mut bytes, 0)?;
    Ok(Some(TreeFile::decode(&bytes, id)?))
}

/// Replaces what was written down. Durable when it returns: there is always a whole tree, this one or the one before.
pub(super) fn save(home: &Home, tree: &TreeFile) -> io::Result<()> {
    let bytes = tree.encode().map_err(|error| io::Error::new(io::ErrorKind::FileTooLarge, error))?;
    let _open = home.enter()?;
    let file = home.private.create(NEW_TREE)?;
    home.private.write_all(NEW_TREE, &file, &bytes)?;
    home.private.sync(NEW_TREE, &file)?;
    home.private.rename(NEW_TREE, TREE)?;
    home.private.sync_names()
}
