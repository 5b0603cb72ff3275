//! What peers get from this node: the right to come in, news of our tree, and our files.

use super::{Answer, Node};
use crate::folder::{ServeError, ServedBytes};
use crate::net::Callbacks;
use crate::net::server::Host;
use bytes::Bytes;
use farshore_engine::path::RelPath;
use farshore_engine::record::Stamp;
use farshore_engine::{Errno, Notice, PeerFault, PeerId, Reply, Request, ServedFile, TreeUpdate, WatchCursor};
use farshore_proto::{Hello, Members, Open};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::watch;

/// Decides who may read our folder.
pub trait Admission: Send + Sync + 'static {
    /// Whether `peer`, who has proved to be that, is let in with what it says.
    fn admit(&self, peer: PeerId, hello: Hello) -> BoxFuture<'static, bool>;
}

impl Host for Node {
    fn greet(&self, peer: PeerId, hello: Hello) -> BoxFuture<'static, Result<u64, ()>> {
        let (admitted, epoch) = (self.admission.admit(peer, hello), self.epoch);
        async move { if admitted.await { Ok(epoch) } else { Err(()) } }.boxed()
    }

    fn watch(
        &self,
        peer: PeerId,
        cursor: WatchCursor,
    ) -> BoxFuture<'static, Result<(Vec<TreeUpdate>, WatchCursor), Errno>> {
        let node = self.this.upgrade();
        async move {
            let node = node.ok_or(Errno::Io)?;
            match node.ask_and_wait(Request::PeerWatch { peer, cursor }).await? {
                Answer::Reply(Reply::Watched { updates, cursor }) => {
                    // What is told is known in the next life too.
                    node.note_changes().await;
                    Ok((updates, cursor))
                }
                Answer::Reply(_) | Answer::Bytes(_) => Err(Errno::Io),
            }
        }
        .boxed()
    }

    fn open(
        &self,
        peer: PeerId,
        path: RelPath,
        stamp: Stamp,
    ) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>> {
        let node = self.this.upgrade();
        async move {
            let node = node.ok_or(ServeError::Gone)?;
            let folder = node.folder.clone().ok_or(ServeError::Gone)?;
            folder.open(node.served(peer, path, stamp).await?).await
        }
        .boxed()
    }

    fn read_whole(&self, peer: PeerId, files: Vec<Open>) -> BoxFuture<'static, Vec<Result<Bytes, ServeError>>> {
        let (node, count) = (self.this.upgrade(), files.len());
        async move {
            let serving = node.and_then(|node| Some((node.folder.clone()?, node)));
            let Some((folder, node)) = serving else { return vec![Err(ServeError::Gone); count] };
            let mut found = Vec::with_capacity(count);
            for Open { path, stamp, size_bytes } in files {
                let served = node.served(peer, path, stamp).await;
                // The peer's word on the size counts for nothing.
                found.push(served.and_then(|served| {
                    if served.size_bytes == size_bytes { Ok(served) } else { Err(ServeError::Stale) }
                }));
            }
            let there = found.iter().filter_map(|served| served.as_ref().ok().cloned()).collect();
            let mut read = folder.read_whole(there).await.into_iter();
            let answer = |served: Result<_, _>| served.and_then(|_| read.next().unwrap_or(Err(ServeError::Io)));
            found.into_iter().map(answer).collect()
        }
        .boxed()
    }

    fn members(&self) -> Option<watch::Receiver<Members>> {
        self.members()
    }

    fn callbacks(&self) -> Option<Arc<Callbacks>> {
        self.calling_back.as_ref().map(|calling| calling.callbacks.clone())
    }

    fn broke_rule(&self, peer: PeerId, fault: PeerFault) {
        self.lock().tell(&Notice::PeerFault { peer, fault });
    }
}

impl Node {
    /// What `peer` may read at `path`, if that is the version that `stamp` names.
    async fn served(&self, peer: PeerId, path: RelPath, stamp: Stamp) -> Result<ServedFile, ServeError> {
        match self.ask_and_wait(Request::PeerOpen { peer, path, stamp }).await {
            Ok(Answer::Reply(Reply::PeerOpened(served))) => Ok(served),
            Ok(Answer::Reply(Reply::NotHereYet)) => Err(ServeError::NotYet),
            Err(Errno::Stale) => Err(ServeError::Stale),
            Ok(_) | Err(_) => Err(ServeError::Gone),
        }
    }
}
