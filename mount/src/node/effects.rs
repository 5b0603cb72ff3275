//! Carrying out effects: each runs as a task of its own and reports its end exactly once.

use super::Node;
use super::contents::Content;
use crate::net::client::{CancelSignal, Link, WatchEnd};
use bytes::Bytes as Frame;
use farshore_engine::chunk::FrameSet;
use farshore_engine::{
    DialError, Done, EffectId, FetchError, Input, LinkId, PeerEvent, PeerId, Position, StoreError, Wanted,
};
use std::io;
use std::ops::Range;
use std::sync::Arc;

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

    async fn dial(self: Arc<Self>, id: EffectId, peer: PeerId, link: LinkId, cancel: CancelSignal) {
        let dialed = match self.peers.get(&peer) {
            Some(route) => tokio::select! {
                biased;
                () = cancel.cancelled() => Err(DialError::Unreachable),
                dialed = Link::dial(&*self.transport, &route.addresses, peer, &route.hello) => dialed,
            },
            None => Err(DialError::Unreachable),
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
        made.closed().await;
        self.lock().links.remove(&link);
        self.step(Input::Peer(peer, PeerEvent::LinkDown { link }));
    }

    /// Hands in what the peer tells of its tree, until it ends.
    async fn watch(&self, peer: PeerId, link: LinkId, on: Option<Arc<Link>>, position: Position) {
        let Some(on) = on else { return };
        let ended = match on.watch(position).await {
            Ok(mut watch) => loop {
                match watch.next().await {
                    Ok(updates) => self.step(Input::Peer(peer, PeerEvent::Tree { link, updates })),
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

fn store_error(error: &io::Error) -> StoreError {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if is_full { StoreError::NoSpace } else { StoreError::Io }
}
