//! Remembering the tree of the peer that is followed, so that a later life can begin while the peer is away.
//!
//! Under the lock only what is known is copied, in one go over the tree. What is made of that, and the disk, are the
//! store's, on threads that may wait.

use super::Node;
use crate::store::KnownTree;
use farshore_engine::{Input, Link, Position};
use farshore_proto::{TreeFile, TreeId};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// The time between two writes while the tree changes. Whoever is killed shows a tree that is at most so old.
const REMEMBER_INTERVAL: Duration = Duration::from_secs(30);

/// The tree that is remembered.
pub(super) struct Remembering {
    id: TreeId,
    /// Rung when the peer has told something.
    news: Arc<Notify>,
    /// Held by who writes.
    written: tokio::sync::Mutex<Written>,
}

#[derive(Default)]
struct Written {
    /// Where in the peer's events it is what was written down last.
    position: Option<Position>,
    /// Nothing is written any more.
    is_over: bool,
}

impl Remembering {
    pub(super) fn new(id: TreeId) -> Remembering {
        Remembering { id, news: Arc::default(), written: tokio::sync::Mutex::default() }
    }

    pub(super) fn note_news(&self) {
        self.news.notify_one();
    }
}

impl Node {
    /// Tells the engine what was known of the tree when that was last written down. Returns when that was, in
    /// seconds since 1970.
    pub(super) fn recall(&self) -> Option<u64> {
        let remembering = self.remembering.as_ref()?;
        let TreeFile { known_unix_seconds, tree, .. } = self.store.tree(remembering.id)?;
        // Nobody writes yet.
        if let Ok(mut written) = remembering.written.try_lock() {
            written.position = Some(tree.position());
        }
        self.step(Input::Remembered { peer: remembering.id.owner, remembered: tree });
        Some(known_unix_seconds)
    }

    /// Writes down what is known of the tree, if that is whole and is not written down. Says whether anything was.
    async fn remember(&self) -> bool {
        let Some(remembering) = &self.remembering else { return false };
        let mut written = remembering.written.lock().await;
        let snapshot = self.view(|view| {
            let position = view.peers().find(|peer| peer.peer == remembering.id.owner)?.position;
            let is_new = !written.is_over && written.position != Some(position);
            is_new.then(|| view.snapshot(remembering.id.owner))?
        });
        let Some(snapshot) = snapshot else { return false };
        written.position = Some(snapshot.position());
        self.write_tree(KnownTree::now(remembering.id, snapshot)).await;
        true
    }

    /// What is to be written down at the end, before anything is taken down. All of it if the peer is there, though it may
    /// not have changed: it is known to be so now.
    pub(super) fn last_known(&self) -> Option<KnownTree> {
        let remembering = self.remembering.as_ref()?;
        let snapshot = self.view(|view| {
            let peer = view.peers().find(|peer| peer.peer == remembering.id.owner)?;
            let is_up = matches!(peer.link, Link::Up(_));
            let written = remembering.written.try_lock();
            let is_written = written.is_ok_and(|written| written.position == Some(peer.position));
            (is_up || !is_written).then(|| view.snapshot(remembering.id.owner))?
        });
        Some(KnownTree::now(remembering.id, snapshot?))
    }

    /// Writes down what is known at the end, and nothing after that.
    pub(super) async fn end_remembering(&self, known: Option<KnownTree>) {
        let Some(remembering) = &self.remembering else { return };
        remembering.written.lock().await.is_over = true;
        if let Some(known) = known {
            self.write_tree(known).await;
        }
        // The task looks whether there is anything left to do.
        remembering.note_news();
    }

    async fn write_tree(&self, tree: KnownTree) {
        if let Err(error) = self.store.save_tree(tree).await {
            tracing::warn!("what is known of the share's tree cannot be written down for a later start: {error}");
        }
    }
}

/// Writes down the tree when it has changed, until the node is gone or has ended.
pub(super) async fn run_remembering(node: Weak<Node>) {
    let Some(news) = node.upgrade().and_then(|node| Some(node.remembering.as_ref()?.news.clone())) else { return };
    loop {
        // Not held while it waits: a node that nobody else holds goes.
        news.notified().await;
        let Some(node) = node.upgrade() else { return };
        if node.lock().has_ended {
            return;
        }
        let has_written = node.remember().await;
        drop(node);
        if has_written {
            sleep(REMEMBER_INTERVAL).await;
        }
    }
}
