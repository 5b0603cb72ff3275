//! What of a folder is not offered, while it is being shared.

use crate::folder::Recheck;
use crate::node::Node;
use crate::state::{InShare, State, StateError};
use crate::ticket::ShareId;
use farshore_engine::path::RelPath;
use farshore_engine::{Command, Observation};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The paths that are left out of a share. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Unshared(Arc<Inner>);

#[derive(Default)]
struct Inner {
    paths: Mutex<BTreeSet<RelPath>>,
    /// Held from reading the state directory until it has been acted on: what was read last counts.
    reloading: tokio::sync::Mutex<()>,
    /// Has the watcher tell again what the engine did not take note of. Set once there is a watcher.
    recheck: OnceLock<Recheck>,
}

impl Unshared {
    pub(super) fn new(paths: BTreeSet<RelPath>) -> Unshared {
        let (paths, reloading) = (Mutex::new(paths), tokio::sync::Mutex::default());
        Unshared(Arc::new(Inner { paths, reloading, recheck: OnceLock::new() }))
    }

    pub(crate) fn set_recheck(&self, recheck: Recheck) {
        assert!(self.0.recheck.set(recheck).is_ok(), "it is set once");
    }

    /// Tells a node that has seen nothing yet.
    pub(crate) fn tell(&self, node: &Node) {
        for path in self.lock().iter() {
            node.command(Command::Unshare { path: path.clone() });
        }
    }

    /// Hears what the watcher tells. What is renamed from where nothing is offered, or with something that is not
    /// offered below it, is told as a rename of what the engine does not know: it is told anew, with all that it holds.
    pub(crate) fn hear(&self, observations: &[Observation]) {
        let paths = self.lock();
        for observation in observations {
            if let Observation::Moved { from, to } = observation
                && paths.iter().any(|path| path.is_prefix_of(from) || from.is_prefix_of(path))
            {
                self.look_anew(to);
            }
        }
    }

    /// From now on these are left out, and no others.
    fn become_paths(&self, now: BTreeSet<RelPath>, node: &Node) {
        let before = std::mem::replace(&mut *self.lock(), now.clone());
        for path in now.difference(&before) {
            node.command(Command::Unshare { path: path.clone() });
        }
        for path in before.difference(&now) {
            node.command(Command::Share { path: path.clone() });
            self.look_anew(path);
        }
    }

    fn look_anew(&self, path: &RelPath) {
        if let Some(recheck) = self.0.recheck.get() {
            recheck.look_anew_at(path);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<RelPath>> {
        self.0.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a running share is offered, and what is not. Clones are about the same share.
#[derive(Clone)]
pub struct Offer {
    node: Arc<Node>,
    state: State,
    share: ShareId,
    unshared: Unshared,
    /// Peers hold all of it as we do.
    is_writable: bool,
}

impl Offer {
    pub(super) fn new(node: Arc<Node>, state: State, share: ShareId, unshared: Unshared, is_writable: bool) -> Offer {
        Offer { node, state, share, unshared, is_writable }
    }

    /// Does not offer `path` any more, now and after a restart; see [`State::unshare`]. Who has files of it open reads on.
    /// Returns where it lies; if another share holds it as well, somebody else has to tell that one.
    ///
    /// # Errors
    /// Those of [`State::unshare`].
    pub async fn unshare(&self, path: PathBuf) -> Result<Vec<InShare>, StateError> {
        if self.is_writable {
            return Err(StateError::Writable { path });
        }
        let changed = self.blocking(move |state, _| state.unshare(&path)).await?;
        self.reload().await?;
        Ok(changed)
    }

    /// Takes back [`Offer::unshare`] of this very path.
    ///
    /// # Errors
    /// Those of [`State::share_again`].
    pub async fn share_again(&self, path: PathBuf) -> Result<Vec<InShare>, StateError> {
        let changed = self.blocking(move |state, _| state.share_again(&path)).await?;
        self.reload().await?;
        Ok(changed)
    }

    /// Reads in the state directory what is not to be offered, and acts on it: for when another process has changed it.
    ///
    /// # Errors
    /// The list of shares cannot be read, or does not hold this one any more; then everything stays as it is.
    pub async fn reload(&self) -> Result<(), StateError> {
        let _turn = self.unshared.0.reloading.lock().await;
        let now = self.blocking(|state, share| state.unshared_of(share)).await?;
        if let (true, Some(path)) = (self.is_writable, now.first()) {
            return Err(StateError::Writable { path: PathBuf::from(path.to_string()) });
        }
        self.unshared.become_paths(now, &self.node);
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State, ShareId) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let (state, share) = (self.state.clone(), self.share);
        let done = tokio::task::spawn_blocking(move || work(&state, share)).await;
        // It fails only if the runtime is being shut down.
        done.unwrap_or(Err(StateError::UnknownShare(share)))
    }
}
