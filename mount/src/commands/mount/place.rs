//! Where a mount keeps what it has, and whether the share is changed there: that follows from what the person says, from
//! what this device did before, and from what the owner lets others do.

use super::writable::Writing;
use crate::commands::Failure;
use crate::joining::{Absence, JoinError, PATIENCE, REACH_LIMIT, takes_changes};
use crate::net::transport::Transport;
use crate::state::State;
use crate::store::DiskStore;
use crate::ticket::{ShareId, Ticket};
use farshore_engine::PeerId;
use std::path::{Path, PathBuf};

/// Where the folders are in which shares are changed, unless it is said otherwise: below the state directory.
const FOLDERS_DIR: &str = "folders";

/// The same for what is only kept for reading.
const STORES_DIR: &str = "store";

/// What a person wants to do with a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Look at it.
    Read,
    /// Change it.
    Write,
    /// Change it if its owner lets others do that, else look at it.
    AsShared,
}

/// Where a mount keeps what it has.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    /// The right to change the share in that directory, which is a folder of plain files then.
    pub(super) writing: Option<Writing>,
    /// What is done if the owner cannot be reached.
    pub(super) absence: Absence,
}

/// All directories in the state directory in which something is kept for a mount, as the parents of those for single shares.
pub(in crate::commands) fn parents(state: &State) -> [PathBuf; 2] {
    [STORES_DIR, FOLDERS_DIR].map(|dir| state.dir().join(dir))
}

/// Finds out where the device `own` is to keep the share of `ticket`: in `store`, if that is said.
///
/// # Errors
/// The owner does not let us in or cannot be reached, it does not let others change what is to be changed, or another
/// process of this device changes it already.
pub(super) async fn choose(
    (state, own): (&State, PeerId),
    ticket: &Ticket,
    transport: &dyn Transport,
    access: Access,
    store: Option<PathBuf>,
) -> Result<Place, Failure> {
    let cache = store.clone().unwrap_or_else(|| below(state, STORES_DIR, ticket.share()));
    if access == Access::Read {
        return Ok(Place { dir: cache, writing: None, absence: Absence::IsBridged });
    }
    if ticket.owner() == own {
        return Err(Failure::usage(
            "this device shares that folder itself: have it mounted by `farshore share --mount`, or look at it with \
             `farshore mount --read-only`",
        ));
    }
    let writing = Writing::begin(state, ticket, own)?;
    let usual = below(state, FOLDERS_DIR, ticket.share());
    let folder = match (store, writing.kept_in()) {
        (Some(store), _) => store,
        // A disk that is not there now must not look like an empty folder.
        (None, Some(known)) if known != usual && !known.is_dir() => {
            return Err(Failure::failed(format!(
                "this share was kept in {}, which is not there; bring that back, or say with `--store` where to keep it",
                known.display()
            )));
        }
        (None, Some(known)) => known.to_owned(),
        (None, None) => usual,
    };
    let is_known = writing.is_kept_in(&folder);
    let is_remembered = DiskStore::knows_tree(&cache);
    let patience = if is_known || is_remembered { PATIENCE } else { REACH_LIMIT };
    let read = |absence| Ok(Place { dir: cache, writing: None, absence });
    let write = |absence| Ok(Place { dir: folder, writing: Some(writing), absence });
    match takes_changes(ticket, transport, patience).await {
        Ok(true) => write(if is_known { Absence::IsBridged } else { Absence::IsAnError }),
        // It wanted to hear of changes before.
        Err(JoinError::Unreachable { .. }) if is_known => write(Absence::IsKnown),
        Ok(false) if access == Access::Write => {
            Err(Failure::usage("the owner shares this read-only: it cannot be changed here; leave out `-o rw`"))
        }
        Ok(false) => {
            say!("the owner shares this read-only: nothing can be changed here");
            read(Absence::IsBridged)
        }
        Err(JoinError::Unreachable { .. }) if is_remembered && access == Access::AsShared => {
            say!("the owner cannot be asked whether this may be changed here: it is mounted read-only for now");
            read(Absence::IsKnown)
        }
        Err(error) => Err(error.into()),
    }
}

fn below(state: &State, dir: &str, share: ShareId) -> PathBuf {
    state.dir().join(dir).join(share.to_string())
}

/// A mount in the folder that it shows would be changed by being there, and would hide what is in it.
pub(super) fn check_apart(folder: &Path, mountpoint: &Path) -> Result<(), Failure> {
    // What is not there yet holds no mountpoint.
    match folder.canonicalize() {
        Ok(folder) if mountpoint.starts_with(&folder) => Err(Failure::usage(format!(
            "{} lies in {}, in which the share is kept; choose a mountpoint outside of it",
            mountpoint.display(),
            folder.display()
        ))),
        Ok(_) | Err(_) => Ok(()),
    }
}
