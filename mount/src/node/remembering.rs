//! Remembering what is known of a share, for a later life: the tree of the peer that is followed, so that it can be shown while
//! the peer is away; or all that is known of a share that is kept in a folder, so that what was changed in between is seen.
//!
//! Under the lock what is known is only copied, so many entries at once that nobody waits for long; others come to their turn
//! in between. Only what is known of a folder that is changed all the time is copied whole, when that has failed a few times. What is made of it, and the disk, are the store's, on threads that may wait.

use super::Node;
use crate::store::KnownTree;
use farshore_engine::{Collected, Input, Link, Memory, PeerId, Position, View};
use farshore_proto::{ShareId, TreeFile, TreeId};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

/// The time between two writes while the tree changes. Whoever is killed shows a tree that is at most so old.
const REMEMBER_INTERVAL: Duration = Duration::from_secs(30);

/// The time between two looks at whether there is something new to be remembered of a folder.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// For so much of the time at most, one part in so many, what is remembered of a folder is written down.
const MOST_OF_THE_TIME: u32 = 20;

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
    what: Remembered,
    /// Rung when the peer has told something.
    news: Arc<Notify>,
    /// Held by who writes.
    written: tokio::sync::Mutex<Written>,
}

#[derive(Default)]
struct Written {
    /// Where in the peer's events it is what was written down last.
    position: Option<Position>,
    /// Which version of what is known of the folder was.
    version: Option<u64>,
    /// Nothing is written any more.
    is_over: bool,
}

impl Remembering {
    pub(super) fn new(what: Remembered) -> Remembering {
        Remembering { what, news: Arc::default(), written: tokio::sync::Mutex::default() }
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
        let id = match remembering.what {
            Remembered::Tree(id) => id,
            Remembered::Folder(share) => {
                if let Some(memory) = self.store.memory(share) {
                    self.step(Input::Recalled(memory));
                }
                return None;
            }
        };
        let TreeFile { known_unix_seconds, tree, .. } = self.store.tree(id)?;
        // Nobody writes yet.
        if let Ok(mut written) = remembering.written.try_lock() {
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
        let Some(known) = self.known(remembering.what, &mut written).await else { return false };
        if !self.write_down(known).await {
            // It is tried again, also if nothing else changes.
            *written = Written::default();
        }
        true
    }

    /// What is known and not written down.
    async fn known(&self, what: Remembered, written: &mut Written) -> Option<Known> {
        match what {
            Remembered::Tree(id) => {
                let tree = self.known_tree(id.owner, written.position).await?;
                written.position = Some(tree.position());
                Some(Known::Tree(KnownTree::now(id, tree)))
            }
            Remembered::Folder(share) => {
                let (version, memory) = self.known_memory(written.version).await?;
                written.version = Some(version);
                Some(Known::Folder(share, memory))
            }
        }
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

    /// All that is known of the folder, if that is whole and is another version than `written`, and which it is.
    async fn known_memory(&self, written: Option<u64>) -> Option<(u64, Memory)> {
        let begin = |view: View<'_>| (written != Some(view.memory_version())).then(|| view.begin_memory())?;
        for _ in 0..MOST_ATTEMPTS {
            let mut part = self.view(begin)?;
            let version = part.version();
            loop {
                part = match self.view(|view| view.collect_memory(part, AT_ONCE)) {
                    Collected::Part(part) => part,
                    Collected::Whole(memory) => return Some((version, memory)),
                    Collected::Overtaken => break,
                };
                yield_now().await;
            }
        }
        // Something happens all the time: then at once, or what is remembered would grow old.
        self.view(|view| Some((view.memory_version(), view.memory()?)))
    }

    /// What is to be written down at the end, before anything is taken down. All of a tree if the peer is there, though it may
    /// not have changed: it is known to be so now.
    pub(super) async fn last_known(&self) -> Option<Known> {
        let remembering = self.remembering.as_ref()?;
        let mut written = remembering.written.try_lock().ok();
        let mut unknown = Written::default();
        let written = written.as_deref_mut().unwrap_or(&mut unknown);
        if let Remembered::Tree(id) = remembering.what {
            let is_up =
                |view: View<'_>| view.peers().any(|peer| peer.peer == id.owner && matches!(peer.link, Link::Up(_)));
            if self.view(is_up) {
                written.position = None;
            }
        }
        self.known(remembering.what, written).await
    }

    /// Writes down what is known at the end, and nothing after that.
    pub(super) async fn end_remembering(&self, known: Option<Known>) {
        let Some(remembering) = &self.remembering else { return };
        remembering.written.lock().await.is_over = true;
        if let Some(known) = known {
            self.write_down(known).await;
        }
        // The task looks whether there is anything left to do.
        remembering.note_news();
    }

    /// Says whether it is written down.
    async fn write_down(&self, known: Known) -> bool {
        let written = match known {
            Known::Tree(tree) => self.store.save_tree(tree).await,
            Known::Folder(share, memory) => self.store.save_memory(share, memory).await,
        };
        if let Err(error) = &written {
            tracing::warn!("what is known of the share cannot be written down for a later start: {error}");
        }
        written.is_ok()
    }
}

/// What is written down.
pub(super) enum Known {
    Tree(KnownTree),
    Folder(ShareId, Memory),
}

/// Writes down what is known of a folder now and then, until the node is gone or has ended.
pub(super) async fn run_remembering_folder(node: Weak<Node>) {
    let mut pause = LOOK_INTERVAL;
    loop {
        sleep(pause).await;
        // Not held while it waits: a node that nobody else holds goes.
        let Some(node) = node.upgrade() else { return };
        if node.lock().has_ended {
            return;
        }
        let began = tokio::time::Instant::now();
        node.remember().await;
        pause = LOOK_INTERVAL.max(began.elapsed() * MOST_OF_THE_TIME);
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
