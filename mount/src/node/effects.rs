//! Carrying out effects: each runs as a task of its own and reports its end exactly once.

use super::Node;
use super::contents::Content;
use crate::folder::Contents;
use crate::net::client::{CancelSignal, Link, WatchEnd};
use crate::store::{Store, Stored};
use bytes::Bytes as Frame;
use farshore_engine::chunk::{FrameSet, chunk_range};
use farshore_engine::{
    Apply, ApplyError, ContentKey, DialError, Done, EffectId, FetchError, Input, LinkId, PeerEvent, PeerId, Position,
    ServedFile, StoreError, Wanted,
};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// An effect with everything that it needs, looked up while the lock was held. `on` is the connection that it is to use,
/// if that still is there.
pub(super) enum Job {
    Dial {
        peer: PeerId,
        link: LinkId,
        cancel: CancelSignal,
    },
    Watch {
        peer: PeerId,
        link: LinkId,
        on: Option<Arc<Link>>,
        position: Position,
        cancel: CancelSignal,
    },
    Fetch {
        on: Option<Arc<Link>>,
        content: Arc<Content>,
        wanted: Wanted,
        chunk: u64,
        frames: Range<u32>,
        urgent: bool,
        cancel: CancelSignal,
    },
    Store {
        content: Arc<Content>,
        chunk: u64,
        frames: Vec<Frame>,
    },
    Resume {
        content: Arc<Content>,
        own: bool,
        base: Option<ContentKey>,
    },
    Verify {
        content: Option<Arc<Content>>,
        chunk: u64,
    },
    Compare {
        on: Option<Arc<Link>>,
        content: Arc<Content>,
        wanted: Wanted,
        chunks: Range<u64>,
        in_folder: Option<ServedFile>,
        cancel: CancelSignal,
    },
    Save {
        contents: Vec<Arc<dyn Stored>>,
    },
    Apply {
        ops: Vec<Apply>,
        contents: Contents,
    },
    /// The content is gone, or not all of the chunk is in memory, which would be a bug.
    StoreNothing,
}

impl Node {
    pub(super) fn begin(&self, id: EffectId, job: Job) {
        // A node that is being dropped has nobody left to report to.
        let Some(node) = self.this.upgrade() else { return };
        self.runtime.spawn(async move {
            let done = match job {
                Job::Dial { peer, link, cancel } => return node.dial(id, peer, link, cancel).await,
                Job::Watch { peer, link, on, position, cancel } => {
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => {}
                        () = node.watch(peer, link, on, position) => {}
                    }
                    Done::WatchEnded
                }
                Job::Fetch { on: None, .. } => Done::Fetched(Err(FetchError::LinkLost)),
                Job::Fetch { on: Some(on), content, wanted, chunk, frames, urgent, cancel } => {
                    let take = |frame: u32, bytes: Frame| node.arrived(id, &content, chunk, frame, bytes);
                    Done::Fetched(on.fetch(&wanted, chunk, frames, urgent, cancel, take).await)
                }
                Job::Store { content, chunk, frames } => {
                    return node.store(id, &content, chunk, frames).await;
                }
                Job::Resume { content, own, base } => {
                    let (own, base) = content.resume(&*node.store, own, base).await;
                    Done::Resumed { own, base }
                }
                Job::Verify { content, chunk } => Done::Verified(verify(content, chunk).await),
                Job::Compare { on: None, .. } => Done::Compared(Err(FetchError::LinkLost)),
                Job::Compare { on: Some(on), content, wanted, chunks, in_folder, cancel } => {
                    Done::Compared(match on.hashes(&wanted, chunks.clone(), true, cancel).await {
                        Ok(hashes) => Ok(match in_folder {
                            Some(older) => node.take_over_from_folder(older, &content, chunks, hashes).await,
                            None => take_over(&content, &*node.store, chunks, hashes).await,
                        }),
                        Err(error) => Err(error),
                    })
                }
                Job::Apply { ops, contents } => {
                    let applied = Done::Applied(match &node.folder {
                        Some(folder) => folder.apply(ops, contents).await,
                        // Asked only of whoever keeps a folder.
                        None => vec![Err(ApplyError::Io); ops.len()],
                    });
                    node.finish(id, applied);
                    // At once: after a kill, what the folder holds and nobody knows of looks like a change of our own.
                    return node.note_changes().await;
                }
                Job::Save { contents } => {
                    let saved = node.store.save(contents).await;
                    if let Err(error) = &saved {
                        tracing::warn!("what was downloaded cannot be written down for later: {error}");
                    }
                    Done::Saved(saved.map_err(|error| store_error(&error)))
                }
                Job::StoreNothing => {
                    tracing::error!("a chunk was to be stored that is not in memory; it is fetched again");
                    Done::Stored(Err(StoreError::Io))
                }
            };
            node.finish(id, done);
        });
    }

    fn finish(&self, id: EffectId, done: Done) {
        let mut core = self.lock();
        core.cancels.remove(&id);
        core.step(self.now(), Input::Done(id, done));
        let todo = self.settle(&mut core);
        drop(core);
        self.carry_out(todo);
    }

    /// Stores those chunks of a content which a file of our own folder has as well. Returns which these are.
    async fn take_over_from_folder(
        &self,
        older: ServedFile,
        content: &Content,
        chunks: Range<u64>,
        hashes: Vec<u64>,
    ) -> Vec<u64> {
        let size_bytes = older.size_bytes;
        let mut same = Vec::new();
        let Some(folder) = &self.folder else { return same };
        // Whoever has changed or removed it since has said so, or will: what is missing is fetched.
        let Ok(file) = folder.open(older).await else { return same };
        for (chunk, hash) in chunks.zip(hashes) {
            let Ok(bytes) = file.clone().read(chunk_range(chunk, size_bytes)).await else { break };
            match store_if_same(content, &*self.store, chunk, hash, bytes).await {
                Ok(true) => same.push(chunk),
                Ok(false) => {}
                Err(error) => tracing::debug!("a chunk of the version before cannot be taken over: {error}"),
            }
        }
        same
    }

    async fn dial(self: Arc<Self>, id: EffectId, peer: PeerId, link: LinkId, cancel: CancelSignal) {
        let dialed = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(DialError::Unreachable),
            dialed = self.connect(peer) => dialed,
        };
        let made = match dialed {
            Ok(made) => Arc::new(made),
            Err(error) => return self.finish(id, Done::Dialed(Err(error))),
        };
        {
            let mut core = self.lock();
            if core.has_ended {
                return;
            }
            core.links.insert(link, made.clone());
        }
        self.finish(id, Done::Dialed(Ok(())));
        self.live_with(link, &made).await;
        self.lock().links.remove(&link);
        self.step(Input::Peer(peer, PeerEvent::LinkDown { link }));
    }

    /// Hands in what the peer tells of its tree, until it ends.
    async fn watch(&self, peer: PeerId, link: LinkId, on: Option<Arc<Link>>, position: Position) {
        let Some(on) = on else { return };
        // It says what has been applied: that must not be forgotten.
        self.note_changes().await;
        let ended = match on.watch(position).await {
            Ok(mut watch) => loop {
                match watch.next().await {
                    Ok(updates) => {
                        self.step(Input::Peer(peer, PeerEvent::Tree { link, updates }));
                        if let Some(remembering) = &self.remembering {
                            remembering.note_news();
                        }
                    }
                    Err(ended) => break ended,
                }
            },
            Err(ended) => ended,
        };
        match ended {
            WatchEnd::Fault(fault) => self.step(Input::Peer(peer, PeerEvent::Fault { link, fault })),
            WatchEnd::LinkLost | WatchEnd::StreamLost => {}
        }
    }

    /// Keeps a verified frame, if it still is wanted. Both under one lock: the engine must not hear of a frame that is
    /// not in memory, nor forget one that is.
    fn arrived(&self, id: EffectId, content: &Content, chunk: u64, frame: u32, bytes: Frame) {
        let mut core = self.lock();
        if !core.engine.wants(id) {
            return;
        }
        content.keep_frame(chunk, frame, bytes);
        core.step(self.now(), Input::Arrived(id, FrameSet::span(frame, frame + 1)));
        let todo = self.settle(&mut core);
        drop(core);
        self.carry_out(todo);
    }

    async fn store(&self, id: EffectId, content: &Content, chunk: u64, frames: Vec<Frame>) {
        let written = match content.stored_in(&*self.store) {
            Ok(stored) => stored.write(chunk, frames).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &written {
            tracing::warn!("a downloaded chunk cannot be stored: {error}");
        }
        let stored = written.map_err(|error| store_error(&error));
        let mut core = self.lock();
        core.step(self.now(), Input::Done(id, Done::Stored(stored)));
        if stored.is_ok() {
            content.drop_frames(chunk);
        }
        let todo = self.settle(&mut core);
        drop(core);
        self.carry_out(todo);
    }
}

/// Whether a chunk from an earlier life is what was written down of it.
async fn verify(content: Option<Arc<Content>>, chunk: u64) -> bool {
    let Some(stored) = content.and_then(|content| content.stored()) else { return false };
    match stored.verify(chunk).await {
        Ok(is_right) => is_right,
        Err(error) => {
            tracing::warn!("a chunk that was stored cannot be read, and is fetched again: {error}");
            false
        }
    }
}

/// Stores those of `chunks` that another version has as well, going by the `hashes` that the owner has of them. What cannot
/// be read or stored is not among them.
async fn take_over(content: &Content, store: &dyn Store, chunks: Range<u64>, hashes: Vec<u64>) -> Vec<u64> {
    let mut same = Vec::new();
    for (chunk, hash) in chunks.zip(hashes) {
        let taken = match content.base() {
            Some(base) => copy_chunk(&base, content, store, chunk, hash).await,
            None => match content.stored() {
                Some(stored) => stored.verify_against(chunk, hash).await,
                None => Ok(false),
            },
        };
        match taken {
            Ok(true) => same.push(chunk),
            Ok(false) => {}
            Err(error) => tracing::debug!("a chunk of another version cannot be taken over: {error}"),
        }
    }
    same
}

async fn copy_chunk(
    base: &Arc<dyn Stored>,
    content: &Content,
    store: &dyn Store,
    chunk: u64,
    hash: u64,
) -> io::Result<bool> {
    if base.hash_of(chunk) != Some(hash) {
        return Ok(false);
    }
    // What stands there now is what counts, not what was written down.
    let bytes = base.clone().read_chunk(chunk).await?;
    store_if_same(content, store, chunk, hash, bytes).await
}

async fn store_if_same(content: &Content, store: &dyn Store, chunk: u64, hash: u64, bytes: Frame) -> io::Result<bool> {
    if xxh3_64(&bytes) != hash {
        return Ok(false);
    }
    content.stored_in(store)?.write(chunk, vec![bytes]).await?;
    Ok(true)
}

fn store_error(error: &io::Error) -> StoreError {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if is_full { StoreError::NoSpace } else { StoreError::Io }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::store::suite::{identity, path, sample, write};

    /// The hash that was written down is right, and the bytes are not: the disk fails, or it was switched off.
    #[tokio::test]
    async fn a_damaged_chunk_of_another_version_is_not_taken_over() {
        const LEN: u64 = 100;
        let key = identity(1, LEN).key();
        let before = MemoryStore::default();
        let base = before.create(&identity(1, LEN), &path("a")).unwrap();
        write(&base, &sample(1, LEN), 0).await.unwrap();
        before.save(vec![base]).await.unwrap();
        for is_damaged in [false, true] {
            assert!(!is_damaged || before.damage(key, LEN / 2));
            let store = before.next_life();
            let (base, _) = store.resume(key, None).await.unwrap().unwrap();
            let hash = base.hash_of(0).unwrap();
            let content = Content::new(identity(2, LEN), path("a"));
            assert!(!copy_chunk(&base, &content, &store, 0, hash ^ 1).await.unwrap(), "the owner has something else");
            assert!(content.stored().is_none());
            assert_eq!(copy_chunk(&base, &content, &store, 0, hash).await.unwrap(), !is_damaged);
            assert_eq!(content.stored().is_some(), !is_damaged);
        }
    }
}
