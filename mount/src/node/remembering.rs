//! Remembering the tree of the peer that is followed, for a later life, so that it can be shown while the peer is away.
//!
//! Under the lock what is known is only copied, so many entries at once that nobody waits for long; others come to their turn
//! in between. What is made of it, and the disk, are the store's, on threads that may wait.

use super::Node;
use crate::store::KnownTree;
use farshore_engine::{Collected, Input, Link, PeerId, Position, View};
use farshore_proto::{ShareId, TreeFile, TreeId};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

/// The time between two writes while the tree changes. Whoever is killed shows a tree that is at most so old.
const REMEMBER_INTERVAL: Duration = Duration::from_secs(30);

/// So many entries are copied at once under the lock: a millisecond or less.
const AT_ONCE: usize = 4_096;

/// How often what is known is collected anew when something happens that makes a collection worthless.
const MOST_ATTEMPTS: usize = 3;

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// The tree of a peer.
    Tree(TreeId),
    /// What is known of a share that is kept in the node's folder.
    Folder(ShareId),
}

/// What is remembered, and what of it is written down.
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
    /// Tells the engine what was known when that was last written down. Returns when that was, in seconds since 1970, if it is the
    /// tree of a peer.
    pub(super) fn recall(&self, what: Option<Remembered>) -> Option<u64> {
        let id = match what? {
            Remembered::Tree(id) => id,
            Remembered::Folder(share) => {
                if let Some(memory) = self.store.memory(share) {
                    self.step(Input::Recalled(memory));
                }
                self.begin_journaling();
                return None;
            }
        };
        let TreeFile { known_unix_seconds, tree, .. } = self.store.tree(id)?;
        // Nobody writes yet.
        if let Some(Ok(mut written)) = self.remembering.as_ref().map(|remembering| remembering.written.try_lock()) {
            written.position = Some(tree.position());
        }
        self.step(Input::Remembered { peer: id.owner, remembered: tree });
        Some(known_unix_seconds)
    }

    /// Writes down what is known, if that is whole and is not written down. Says whether anything was.
    async fn remember(&self) -> bool {
        let Some(remembering) = &self.remembering else { return false };
        let mut written = remembering.written.lock().await;
        if written.is_over {
            return false;
        }
        let Some(known) = self.known(remembering.id, &mut written).await else { return false };
        if !self.write_down(known).await {
            // It is tried again, also if nothing else changes.
            *written = Written::default();
        }
        true
    }

    /// What is known and not written down.
    async fn known(&self, id: TreeId, written: &mut Written) -> Option<KnownTree> {
        let tree = self.known_tree(id.owner, written.position).await?;
        written.position = Some(tree.position());
        Some(KnownTree::now(id, tree))
    }

    /// The tree of `owner`, if it is whole and is not as it was at `written`.
    async fn known_tree(&self, owner: PeerId, written: Option<Position>) -> Option<farshore_engine::Remembered> {
        for _ in 0..MOST_ATTEMPTS {
            let mut snapshot = self.view(|view| {
                let position = view.peers().find(|peer| peer.peer == owner)?.position;
                (written != Some(position)).then(|| view.begin_snapshot(owner))?
            })?;
            loop {
                snapshot = match self.view(|view| view.collect(snapshot, AT_ONCE)) {
                    Collected::Part(part) => part,
                    Collected::Whole(tree) => return Some(tree),
                    Collected::Overtaken => break,
                };
                yield_now().await;
            }
        }
        None
    }

    /// What is to be written down at the end, before anything is taken down. All of a tree if the peer is there, though it may
    /// not have changed: it is known to be so now.
    pub(super) async fn last_known(&self) -> Option<KnownTree> {
        let remembering = self.remembering.as_ref()?;
        let mut written = remembering.written.try_lock().ok();
        let mut unknown = Written::default();
        let written = written.as_deref_mut().unwrap_or(&mut unknown);
        let id = remembering.id;
        let is_up = |view: View<'_>| view.peers().any(|peer| peer.peer == id.owner && matches!(peer.link, Link::Up(_)));
        if self.view(is_up) {
            written.position = None;
        }
        self.known(id, written).await
    }

    /// Writes down what is known at the end, and nothing after that.
    pub(super) async fn end_remembering(&self, known: Option<KnownTree>) {
        let Some(remembering) = &self.remembering else { return };
        remembering.written.lock().await.is_over = true;
        if let Some(known) = known {
            self.write_down(known).await;
        }
        // The task looks whether there is anything left to do.
        remembering.note_news();
    }

    /// Says whether it is written down.
    async fn write_down(&self, known: KnownTree) -> bool {
        let written = self.store.save_tree(known).await;
        if let Err(error) = &written {
            tracing::warn!("what is known of the share cannot be written down for a later start: {error}");
        }
        written.is_ok()
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
