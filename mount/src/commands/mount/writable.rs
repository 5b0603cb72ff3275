//! Joining a share to change it: with a folder of our own that is a replica of it.

use crate::circle::{Circle, Reach, Reception};
use crate::commands::Failure;
use crate::joining::{JoinError, Joined, Membership, PATIENCE, REACH_LIMIT, join_with_folder, takes_changes};
use crate::live::Live;
use crate::net::transport::Transport;
use crate::node::Node;
use crate::own_folder::{OwnFolder, Writers};
use crate::sharing::Unshared;
use crate::state::{Replica, State};
use crate::store::Store;
use crate::ticket::Ticket;
use farshore_engine::record::Kind;
use farshore_engine::{Config, PeerId, View};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often is looked whether all directories are in the folder.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The right to change a share, and the folder in which it is, once it is known that its owner wants to hear of changes.
pub(super) struct Writing {
    replica: Replica,
    circle: Arc<Circle>,
    folder: Option<OwnFolder>,
    /// Where the others reach this device, if they do.
    listening: Option<String>,
}

impl Writing {
    /// Takes the right to change the share of `ticket`, for the device `own`.
    pub(super) fn begin(state: &State, ticket: &Ticket, own: PeerId) -> Result<Writing, Failure> {
        if ticket.owner() == own {
            return Err(Failure::usage(
                "this device shares that folder itself; to mount it writable here, use `farshore share --mount`",
            ));
        }
        let replica = state.replica(ticket.share()).map_err(Failure::failed)?;
        let circle = Circle::new(state.clone(), own, ticket.owner(), ticket.share());
        Ok(Writing { replica, circle, folder: None, listening: None })
    }

    /// Joins with the folder at `path`, which holds the store. `None` if the owner does not want to hear of changes.
    pub(super) async fn join(
        &mut self,
        ticket: &Ticket,
        transport: Arc<dyn Transport>,
        store: Arc<dyn Store>,
        config: Config,
        (path, reach): (PathBuf, &Reach),
    ) -> Result<Option<Joined>, Failure> {
        let path = path.canonicalize()?;
        let is_known = self.replica.folder() == Some(&path);
        let patience = if is_known { PATIENCE } else { REACH_LIMIT };
        match takes_changes(ticket, &*transport, patience).await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            // It wanted to hear of them before.
            Err(JoinError::Unreachable { .. }) if is_known => {}
            Err(error) => return Err(error.into()),
        }
        let folder = OwnFolder::open(&path, Writers::Everybody, Unshared::default()).map_err(Failure::failed)?;
        let reception = self.circle.receive(&*transport, reach).await.map_err(Failure::failed)?;
        self.listening = reception.as_ref().map(Reception::listening);
        let (folder, circle) = (self.folder.insert(folder), self.circle.clone());
        let membership = Membership { folder, is_known, circle, reception };
        let joined = join_with_folder(ticket, transport, store, config, membership).await?;
        if let Err(error) = self.replica.keep_in(&path) {
            joined.node.shut_down().await;
            return Err(Failure::failed(error));
        }
        laid_out(&joined.node).await;
        Ok(Some(joined))
    }

    /// The others who have the share, and where they reach this device; `None` if nothing is to be changed.
    pub(super) fn circle(&self) -> Option<(Arc<Circle>, Option<String>)> {
        self.folder.as_ref().map(|_| (self.circle.clone(), self.listening.clone()))
    }

    /// Where the other devices of the share reach this one, if they do.
    pub(super) fn listening(&self) -> Option<&str> {
        self.listening.as_deref()
    }

    /// The folder as a file system, with what is not in it yet; `None` if nothing is to be changed.
    ///
    /// # Panics
    /// If it is asked for twice.
    pub(super) fn live(&self) -> Result<Option<Arc<Live>>, Failure> {
        self.folder.as_ref().map(OwnFolder::live).transpose().map_err(Failure::failed)
    }

    /// Waits until the folder is gone, if there is one; an error then.
    pub(super) async fn vanished(&mut self) -> Failure {
        match &mut self.folder {
            Some(folder) => {
                folder.vanished().await;
                Failure::failed(format!("the folder {} is gone; the share was left", folder.path().display()))
            }
            None => std::future::pending().await,
        }
    }

    /// Stops watching the folder. Somebody else may change the share after that.
    pub(super) async fn end(self) {
        if let Some(folder) = self.folder {
            folder.stop().await;
        }
    }
}

/// Waits, for a while, until all directories and symlinks that peers have are in the folder: files are shown where their
/// directory is.
async fn laid_out(node: &Node) {
    let is_missing = |view: View<'_>| {
        let mut dirs = view.tree().filter(|(_, record)| !matches!(record.kind, Kind::File { .. }));
        dirs.any(|(path, _)| view.own_inode(&path).is_none())
    };
    let laid_out = async {
        while node.view(is_missing) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if tokio::time::timeout(PATIENCE, laid_out).await.is_err() {
        tracing::info!("not all directories are in the folder yet; what is in the others shows when they are");
    }
}
