//! A folder of ours beneath a node: what is seen in it is told, its files are served, and it is changed if peers may change it.

use crate::folder::apply::SHARED_MODE_BITS;
use crate::folder::lacking::Lacking;
use crate::folder::look::{Sight, look_in};
use crate::folder::{DiskFolder, Folder, FolderError, FolderEvent, Watcher, WhileWritten};
use crate::live::Live;
use crate::node::Node;
use crate::sharing::Unshared;
use crate::store::{DiskStore, PRIVATE};
use farshore_engine::path::RelPath;
use farshore_engine::{Command, Observation};
use rustix::fs::{Mode, OFlags};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use tokio::sync::{oneshot, watch};

/// Who changes what is in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Programs on this machine.
    Us,
    /// They, and peers, through the node. What is on its way lies in [`PRIVATE`], which is nobody's to see.
    Everybody,
}

/// A folder that is being watched. When it is dropped, nothing is watched any more.
pub struct OwnFolder {
    path: PathBuf,
    ears: Ears,
    live: LateLive,
    served: Arc<DiskFolder>,
    /// Comes true when everything that was there has been told.
    ready: Option<oneshot::Receiver<()>>,
    vanished: watch::Receiver<bool>,
    watcher: Option<Watcher>,
}

impl OwnFolder {
    /// Begins to watch the folder at an absolute `path`. What is seen is kept until there is a node to tell.
    ///
    /// # Errors
    /// It cannot be opened or watched.
    pub(crate) fn open(
        path: &Path,
        writers: Writers,
        while_written: WhileWritten,
        unshared: Unshared,
    ) -> Result<OwnFolder, FolderError> {
        let (told, vanished) = watch::channel(false);
        let (ready, is_ready) = oneshot::channel();
        let lacking = Lacking::default();
        let ears = Ears { node: LateNode::default(), unshared: unshared.clone(), writers, lacking: lacking.clone() };
        let live = LateLive::default();
        let sink = folder_sink(path.to_owned(), ears.clone(), live.clone(), ready, told);
        // Others may have changed it before, and their changes lie there still.
        let private = (writers == Writers::Everybody || DiskStore::lies_in(path)).then_some(PRIVATE);
        let watcher = Watcher::start_beside(path, private, while_written, sink)?;
        unshared.set_recheck(watcher.recheck());
        let served = match writers {
            Writers::Us => DiskFolder::open(path, Some(watcher.recheck())),
            Writers::Everybody => DiskFolder::writable(path, &watcher, lacking),
        };
        // The watcher waits for a node, and must not wait for ever.
        let served = Arc::new(served.inspect_err(|_| ears.node.give_up())?);
        Ok(OwnFolder {
            path: path.to_owned(),
            ears,
            live,
            served,
            ready: Some(is_ready),
            vanished,
            watcher: Some(watcher),
        })
    }

    /// Its files, for the node.
    pub(crate) fn served(&self) -> Arc<dyn Folder> {
        self.served.clone()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on `node` is told what is seen. Returns when it has heard of all that was there; says whether the folder
    /// still was then.
    ///
    /// # Panics
    /// If there was a node before.
    pub(crate) async fn begin(&mut self, node: &Arc<Node>) -> bool {
        // Before it hears what is there.
        self.ears.unshared.tell(node);
        self.ears.node.set(node.clone());
        match self.ready.take() {
            Some(ready) => ready.await.is_ok(),
            None => false,
        }
    }

    /// The folder as a file system, to be mounted: what is done there is done in the folder, and told.
    ///
    /// # Errors
    /// The folder cannot be opened any more.
    ///
    /// # Panics
    /// If it is asked for twice: two mounts of a folder would each hide from the kernel what is done on the other.
    pub(crate) fn live(&self) -> Result<Arc<Live>, FolderError> {
        // It is taken away only at the end.
        let order = self.watcher.as_ref().map(Watcher::order).unwrap_or_default();
        let away = self.ears.node.get().and_then(Node::away);
        let ears = self.ears.clone();
        let live = Live::open(&self.path, order, away, move |seen| ears.hear(seen))?;
        assert!(self.live.0.set(Arc::downgrade(&live)).is_ok(), "the folder is mounted once");
        Ok(live)
    }

    /// Waits until the folder itself is gone.
    pub(crate) async fn vanished(&mut self) {
        // The sender lives in the watcher, which lives here.
        if self.vanished.wait_for(|gone| *gone).await.is_err() {
            std::future::pending().await
        }
    }

    /// Stops watching.
    pub(crate) async fn stop(mut self) {
        self.ears.node.give_up();
        let watcher = self.watcher.take();
        // It joins a thread that may be in the middle of a scan.
        let _ = tokio::task::spawn_blocking(move || drop(watcher)).await;
    }
}

impl fmt::Debug for OwnFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnFolder").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        self.ears.node.give_up();
    }
}

/// The node, for a watcher that is started before it: the watcher waits for it. `None` if there will be none.
#[derive(Clone, Default)]
struct LateNode(Arc<OnceLock<Option<Arc<Node>>>>);

impl LateNode {
    fn set(&self, node: Arc<Node>) {
        assert!(self.0.set(Some(node)).is_ok(), "it is set once");
    }

    fn get(&self) -> Option<&Arc<Node>> {
        self.0.get().and_then(Option::as_ref)
    }

    /// There will be none, if there is none.
    fn give_up(&self) {
        let _ = self.0.set(None);
    }
}

/// Whoever hears what is seen in the folder.
#[derive(Clone)]
struct Ears {
    node: LateNode,
    unshared: Unshared,
    writers: Writers,
    lacking: Lacking,
}

impl Ears {
    fn hear(&self, mut observations: Vec<Observation>) {
        if let Some(node) = self.node.0.wait() {
            self.unshared.hear(&observations);
            if self.writers == Writers::Everybody {
                observations.iter_mut().for_each(withhold);
            }
            if self.lacking.has_happened() {
                node.command(Command::LacksXattrs);
            }
            node.observe(observations);
        }
    }
}

/// What is each device's own is not told to others who would set it as well.
fn withhold(observation: &mut Observation) {
    match observation {
        Observation::Found { seen, .. } => seen.mode &= SHARED_MODE_BITS,
        Observation::Amended { mode, .. } => *mode = mode.map(|mode| mode & SHARED_MODE_BITS),
        Observation::Missing { .. }
        | Observation::Moved { .. }
        | Observation::Sighted { .. }
        | Observation::Unknown { .. }
        | Observation::ScanBegin { .. }
        | Observation::ScanEnd { .. } => {}
    }
}

/// The folder as a file system, once it is mounted.
#[derive(Clone, Default)]
struct LateLive(Arc<OnceLock<Weak<Live>>>);

impl LateLive {
    /// Has `hear` told first, and then the mount, if there is one.
    fn hear_after(&self, observations: Vec<Observation>, hear: impl FnOnce(Vec<Observation>)) {
        match self.0.get().and_then(Weak::upgrade) {
            Some(live) => {
                hear(observations.clone());
                live.heard(&observations);
            }
            None => hear(observations),
        }
    }
}

/// What the watcher tells goes to the node, and to the mount if there is one.
fn folder_sink(
    folder: PathBuf,
    ears: Ears,
    live: LateLive,
    ready: oneshot::Sender<()>,
    vanished: watch::Sender<bool>,
) -> impl Fn(FolderEvent) + Send + 'static {
    let ready = Mutex::new(Some(ready));
    move |event| match event {
        FolderEvent::Observed(mut observations) => {
            // The watcher does not tell by itself of the folder, whose time changes with what is in it.
            observations.extend(look_at_root(&folder));
            // What is away shows where there is nothing any more, so who knows of it hears first.
            live.hear_after(observations, |seen| ears.hear(seen));
        }
        FolderEvent::Skipped(skipped) => tracing::warn!("{skipped}"),
        FolderEvent::Ready => {
            ears.hear(look_at_root(&folder).into_iter().collect());
            let ready = ready.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(ready) = ready {
                // Whoever waited may have given up.
                let _ = ready.send(());
            }
        }
        FolderEvent::Unwatched(error) => {
            tracing::warn!("{error}; until then changes show up to ten seconds late, or longer in a large folder");
        }
        FolderEvent::Vanished => {
            tracing::error!("the shared folder {} is gone", folder.display());
            vanished.send_replace(true);
        }
    }
}

fn look_at_root(folder: &Path) -> Option<Observation> {
    let opened = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    match look_in(std::os::fd::AsFd::as_fd(&opened), c".") {
        Sight::There(there) => Some(Observation::Found { path: RelPath::ROOT, seen: there.seen }),
        Sight::Nothing | Sight::Skip(_) => None,
    }
}
