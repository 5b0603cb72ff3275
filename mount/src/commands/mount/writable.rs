//! Joining a share to change it: with a folder of our own that is a replica of it.

use crate::circle::{Circle, Reach};
use crate::commands::Failure;
use crate::folder::WhileWritten;
use crate::joining::{Absence, Joined, Membership, join_with_folder};
use crate::live::Live;
use crate::net::transport::Transport;
use crate::own_folder::{OwnFolder, Writers};
use crate::sharing::Unshared;
use crate::state::{Replica, State};
use crate::store::Store;
use crate::ticket::Ticket;
use farshore_engine::{Config, PeerId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The right to change a share, and the folder in which it is, once it was joined.
pub(super) struct Writing {
    replica: Replica,
    circle: Arc<Circle>,
    folder: Option<OwnFolder>,
    while_written: WhileWritten,
}

impl Writing {
    /// Takes the right to change the share of `ticket`, for the device `own`.
    pub(super) fn begin(state: &State, ticket: &Ticket, own: PeerId) -> Result<Writing, Failure> {
        let replica = state.replica(ticket.share()).map_err(Failure::failed)?;
        let circle = Circle::new(state.clone(), own, ticket.owner(), ticket.share());
        Ok(Writing { replica, circle, folder: None, while_written: WhileWritten::default() })
    }

    /// Others hear of a file that is being written when this says.
    pub(super) fn tell(&mut self, while_written: WhileWritten) {
        self.while_written = while_written;
    }

    /// Where the share was kept last.
    pub(super) fn kept_in(&self) -> Option<&Path> {
        self.replica.folder()
    }

    /// Whether that is in `folder`, which need not exist.
    pub(super) fn is_kept_in(&self, folder: &Path) -> bool {
        folder.canonicalize().is_ok_and(|folder| self.kept_in() == Some(&folder))
    }

    /// Joins with the folder at `path`, which holds the store.
    pub(super) async fn join(
        &mut self,
        ticket: &Ticket,
        transport: Arc<dyn Transport>,
        store: Arc<dyn Store>,
        config: Config,
        (path, absence): (PathBuf, Absence),
        reach: &Reach,
    ) -> Result<Joined, Failure> {
        let path = path.canonicalize()?;
        let folder = OwnFolder::open(&path, Writers::Everybody, self.while_written, Unshared::default())
            .map_err(Failure::failed)?;
        let listener = self.circle.receive(&*transport, reach).await.map_err(Failure::failed)?;
        let (folder, circle) = (self.folder.insert(folder), self.circle.clone());
        let membership = Membership { folder, absence, circle, listener };
        let joined = join_with_folder(ticket, transport, store, config, membership).await?;
        if let Err(error) = self.replica.keep_in(&path) {
            joined.node.shut_down().await;
            return Err(Failure::failed(error));
        }
        Ok(joined)
    }

    /// The others who have the share; `None` if nothing is to be changed.
    pub(super) fn circle(&self) -> Option<Arc<Circle>> {
        self.folder.as_ref().map(|_| self.circle.clone())
    }

    /// The folder as a file system, with what is not in it yet; `None` before it was joined.
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
