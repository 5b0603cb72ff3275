//! A read-only summary of an engine, for logs, the status command and tests.

use crate::content::Content;
use crate::download::DownloadState;
use crate::engine::Engine;
use crate::event::Position;
use crate::identity::ContentIdentity;
use crate::ids::{ContentId, Ino, PeerId};
use crate::path::RelPath;
use crate::peers::Link;
use std::collections::BTreeMap;

/// What an engine has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Inputs that were taken.
    pub steps: u64,
    /// Reads that were answered at once.
    pub read_hits: u64,
    /// Reads that had to wait for bytes.
    pub read_misses: u64,
    /// Verified bytes that came from peers.
    pub fetched_bytes: u64,
    /// Bytes that need not be fetched: the store had them, from an earlier life or another version.
    pub resumed_bytes: u64,
    /// Chunks that the store had, and whose bytes were not what they should be.
    pub damaged_chunks: u64,
    /// Attempts to fetch a chunk that failed.
    pub failed_fetches: u64,
    /// Chunks that the store refused.
    pub store_failures: u64,
    /// Rules that peers broke.
    pub peer_faults: u64,
    /// Waiting requests that ended with an error.
    pub failed_requests: u64,
}

/// A look at an engine. See the methods.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(crate) engine: &'a Engine,
}

/// A peer that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerView {
    /// Who.
    pub peer: PeerId,
    /// How things stand with the connection.
    pub link: Link,
    /// Where we stand in its events.
    pub position: Position,
    /// Whether its tree has been told as a whole in this life: by a listing, or, if it was remembered from an earlier life,
    /// by all that has happened since. Until then, what is remembered is shown.
    pub listed: bool,
}

/// A file of which bytes are here or on their way.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentView {
    /// Our name for these bytes.
    pub content: ContentId,
    /// The entry that they belong to.
    pub ino: Ino,
    /// Where the peer has them.
    pub path: RelPath,
    /// Chunks in the store.
    pub have_chunks: u64,
    /// Chunks in all.
    pub total_chunks: u64,
    /// What the store needs for it, in bytes, with what it holds of another version.
    pub stored_bytes: u64,
    /// Chunks on their way.
    pub open_chunks: usize,
    /// Requests that wait for bytes of it.
    pub waiters: usize,
    /// How it is doing.
    pub download: DownloadState,
}

impl Engine {
    /// A read-only summary.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View { engine: self }
    }
}

impl View<'_> {
    /// What was done so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.engine.totals
    }

    /// Entries in the tree: the root, everything named, and what lost its name and is still known.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.engine.tree.len()
    }

    /// Open handles.
    #[must_use]
    pub fn open_handles(&self) -> usize {
        self.engine.handles.len()
    }

    /// How often an entry is open.
    #[must_use]
    pub fn open_count(&self, ino: Ino) -> u32 {
        self.engine.tree.get(ino).map_or(0, |node| node.opens.count())
    }

    /// The files that are open, and how often each.
    #[must_use]
    pub fn open_files(&self) -> BTreeMap<Ino, u32> {
        let mut opens = BTreeMap::new();
        for (_, file) in self.engine.handles.iter() {
            *opens.entry(file.ino).or_default() += 1;
        }
        opens
    }

    /// Where an entry is, or `None` if it has no name any more.
    #[must_use]
    pub fn path_of(&self, ino: Ino) -> Option<RelPath> {
        self.engine.tree.path_of(ino)
    }

    /// Requests that are not answered yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.engine.waiting.len()
    }

    /// Effects that have not ended yet.
    #[must_use]
    pub fn running(&self) -> usize {
        self.engine.running.len()
    }

    /// Where a follower of our folder stands that knows everything.
    #[must_use]
    pub fn position(&self) -> Position {
        self.engine.share.position()
    }

    /// What is stored of what was fetched, in bytes.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.engine.cache.stored_bytes()
    }

    /// What the store holds from an earlier life and nobody has asked for in this one.
    pub fn held(&self) -> impl Iterator<Item = &crate::stored::Held> {
        self.engine.cache.held()
    }

    /// The paths that stay.
    pub fn pins(&self) -> impl Iterator<Item = &RelPath> {
        self.engine.cache.pins().iter()
    }

    /// The peers that are followed.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> {
        self.engine.peers.iter().map(|(id, peer)| PeerView {
            peer: *id,
            link: peer.link,
            position: peer.position,
            listed: peer.listed,
        })
    }

    /// The files of which bytes are here or on their way.
    pub fn contents(&self) -> impl Iterator<Item = ContentView> {
        self.engine.contents.iter().map(|(id, content)| view_of(*id, content))
    }

    /// Those of [`View::contents`] of which chunks are on their way or waited for.
    pub fn fetching(&self) -> impl Iterator<Item = ContentView> {
        let is_fetched = |content: &&Content| !content.chunks.is_empty() || !content.waiters.is_empty();
        self.engine
            .contents
            .iter()
            .filter(move |(_, content)| is_fetched(content))
            .map(|(id, content)| view_of(*id, content))
    }

    /// The bytes of one entry that are here or on their way, if anybody asked for any.
    #[must_use]
    pub fn content(&self, ino: Ino) -> Option<ContentView> {
        let id = self.engine.tree.get(ino)?.content?;
        Some(view_of(id, self.engine.contents.get(&id)?))
    }

    /// Which bytes a content is.
    #[must_use]
    pub fn identity(&self, content: ContentId) -> Option<ContentIdentity> {
        self.engine.contents.get(&content).map(Content::identity)
    }

    /// Every named entry but the root, in no order that matters, with its record.
    pub fn tree(&self) -> impl Iterator<Item = (RelPath, &crate::record::Record)> {
        self.engine.tree.iter().filter_map(|(ino, node)| {
            node.place.as_ref()?;
            Some((self.engine.tree.path_of(ino)?, &node.record))
        })
    }

    /// The inode number, in our own folder, of what was last seen at a path of it.
    #[must_use]
    pub fn own_inode(&self, path: &RelPath) -> Option<u64> {
        Some(self.engine.held_at(path)?.facts.inode)
    }

    /// Whether our own folder has what the tree says of a path.
    #[must_use]
    pub fn is_in_folder(&self, path: &RelPath) -> bool {
        self.engine.tree.resolve(path.names()).is_some_and(|ino| self.engine.is_in_folder(ino))
    }

    /// The entry at a path.
    #[must_use]
    pub fn resolve(&self, path: &RelPath) -> Option<Ino> {
        self.engine.tree.resolve(path.names())
    }
}

fn view_of(id: ContentId, content: &Content) -> ContentView {
    ContentView {
        content: id,
        ino: content.ino,
        path: content.path.clone(),
        have_chunks: content.bitmap.as_ref().map_or(0, |bitmap| bitmap.have()),
        total_chunks: content.bitmap.as_ref().map_or(0, |bitmap| bitmap.total()),
        stored_bytes: content.charged_bytes,
        open_chunks: content.chunks.len(),
        waiters: content.waiters.len(),
        download: content.download,
    }
}
