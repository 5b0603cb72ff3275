//! What peers get from this node: the right to come in, news of our tree, and our files.

use super::{Answer, Node};
use crate::folder::{ServeError, ServedBytes};
use crate::net::Callbacks;
use crate::net::server::Host;
use farshore_engine::path::RelPath;
use farshore_engine::record::Stamp;
use farshore_engine::{Errno, PeerId, Reply, Request, TreeUpdate, WatchCursor};
use farshore_proto::Hello;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;

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
            match node.ok_or(Errno::Io)?.ask_and_wait(Request::PeerWatch { peer, cursor }).await? {
                Answer::Reply(Reply::Watched { updates, cursor }) => Ok((updates, cursor)),
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
            match node.ask_and_wait(Request::PeerOpen { peer, path, stamp }).await {
                Ok(Answer::Reply(Reply::PeerOpened(served))) => folder.open(served).await,
                Err(Errno::Stale) => Err(ServeError::Stale),
                Ok(_) | Err(_) => Err(ServeError::Gone),
            }
        }
        .boxed()
    }

    fn callbacks(&self) -> Option<Arc<Callbacks>> {
        self.calling_back.as_ref().map(|calling| calling.callbacks.clone())
    }
}
