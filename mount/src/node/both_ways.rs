//! Calling each other, whichever side has dialled. Who has dialled an owner can be called by it, if it has a folder of its
//! own; who is dialled follows those who can be called, if it was started so.

use super::Node;
use crate::folder::{ServeError, ServedBytes};
use crate::net::server::{Guests, Host};
use crate::net::transport::Listener;
use crate::net::{BackDoor, Callability, Callbacks, Link, server};
use bytes::Bytes;
use farshore_engine::path::RelPath;
use farshore_engine::record::Stamp;
use farshore_engine::{
    Command, DialError, Errno, Input, LinkId, PeerEvent, PeerFault, PeerId, TreeUpdate, WatchCursor,
};
use farshore_proto::{Hello, Open};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::sync::{Arc, Weak};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

/// What it takes to call those who have dialled us.
pub(super) struct CallingBack {
    hello: Hello,
    pub(super) callbacks: Arc<Callbacks>,
}

impl CallingBack {
    /// Whoever can be called is greeted with `hello` and followed by `node`.
    pub(super) fn new(node: Weak<Node>, hello: Hello) -> CallingBack {
        let tell = move |peer, can: Callability| {
            let Some(node) = node.upgrade() else { return };
            match can {
                Callability::Callable => {
                    // Only the first time it is somebody new.
                    node.command(Command::Follow { peer });
                    node.step(Input::Peer(peer, PeerEvent::Reachable));
                }
                Callability::Dismissed => node.unfollow(peer),
            }
        };
        CallingBack { hello, callbacks: Arc::new(Callbacks::new(tell)) }
    }
}

/// A server for those whom we have dialled.
pub(super) struct Callable {
    door: BackDoor,
    pub(super) answering: Answering,
}

impl Callable {
    /// Begins to answer in the name of `node`. Ends when this is dropped.
    pub(super) fn start(node: Weak<Node>, runtime: &Runtime) -> Callable {
        let (door, listener) = BackDoor::open();
        let answering = Answering::start(listener, Arc::new(ForOwners(node)), Arc::default(), runtime);
        Callable { door, answering }
    }
}

/// A server that runs.
pub(super) struct Answering {
    stop: watch::Sender<bool>,
    ended: watch::Receiver<()>,
}

impl Answering {
    /// Begins to answer those who come to `listener`. Ends when this is dropped.
    pub(super) fn start(
        listener: Box<dyn Listener>,
        host: Arc<dyn Host>,
        guests: Arc<Guests>,
        runtime: &Runtime,
    ) -> Answering {
        let (stop, mut stopped) = watch::channel(false);
        let (ending, ended) = watch::channel(());
        runtime.spawn(async move {
            // Dropped at the end.
            let _ending = ending;
            let shutdown = async { drop(stopped.wait_for(|stop| *stop).await) };
            server::serve_with(listener, host, guests, shutdown).await;
        });
        Answering { stop, ended }
    }

    /// Ends what is told, and hangs up on everybody within two seconds.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until nothing is left.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.clone();
        // Nothing is ever sent: this ends when the server has.
        while ended.changed().await.is_ok() {}
    }
}

impl Node {
    /// Connects to `peer`: over the connection that it made for that, if there is one, else by one of its addresses.
    pub(super) async fn connect(&self, peer: PeerId) -> Result<Link, DialError> {
        if let Some(CallingBack { hello, callbacks }) = &self.calling_back
            && let Some(conn) = callbacks.take(peer)
        {
            return Link::over(conn, hello).await;
        }
        match self.way_to(peer) {
            Some(route) => Link::dial(&*self.transport, &route.addresses, peer, &route.hello).await,
            None => Err(DialError::Unreachable),
        }
    }

    /// Can be called by the peer of `link`, if the peer wants that and there is anything to call for, and hears from it who else
    /// has the share, until the link is gone.
    pub(super) async fn live_with(&self, id: LinkId, link: &Link) {
        let called = async {
            if let (Some(callable), Some(address), true) =
                (&self.callable, link.reached_at(), link.welcome().calls_back)
            {
                let (peer, calls_anyway) = (link.peer(), || self.is_called_by(link.peer()));
                callable.door.stay_callable(&*self.transport, address, peer, calls_anyway).await;
            }
            std::future::pending::<()>().await;
        };
        let widened = async {
            match self.route_to(link.peer()) {
                Some(route) => link.widen(&*self.transport, &route.hello).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = link.closed() => {}
            () = called => {}
            () = widened => {}
            fault = self.hear_members(link) => self.step(Input::Peer(link.peer(), PeerEvent::Fault { link: id, fault })),
        }
    }
}

/// The node, as those see it whom it has dialled: nobody else can come in by the back door, and each has the share that we
/// have joined of it, and no other.
struct ForOwners(Weak<Node>);

impl Host for ForOwners {
    fn greet(&self, peer: PeerId, hello: Hello) -> BoxFuture<'static, Result<u64, ()>> {
        let epoch = self.0.upgrade().and_then(|node| {
            let route = node.route_to(peer)?;
            (route.hello.share == hello.share).then_some(node.epoch)
        });
        ready(epoch.ok_or(())).boxed()
    }

    fn watch(
        &self,
        peer: PeerId,
        cursor: WatchCursor,
    ) -> BoxFuture<'static, Result<(Vec<TreeUpdate>, WatchCursor), Errno>> {
        self.0.upgrade().map_or_else(|| ready(Err(Errno::Io)).boxed(), |node| Host::watch(&*node, peer, cursor))
    }

    fn read_whole(&self, peer: PeerId, files: Vec<Open>) -> BoxFuture<'static, Vec<Result<Bytes, ServeError>>> {
        match self.0.upgrade() {
            Some(node) => Host::read_whole(&*node, peer, files),
            None => ready(vec![Err(ServeError::Gone); files.len()]).boxed(),
        }
    }

    fn open(
        &self,
        peer: PeerId,
        path: RelPath,
        stamp: Stamp,
    ) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>> {
        self.0.upgrade().map_or_else(|| ready(Err(ServeError::Gone)).boxed(), |node| node.open(peer, path, stamp))
    }

    fn broke_rule(&self, peer: PeerId, fault: PeerFault) {
        if let Some(node) = self.0.upgrade() {
            node.broke_rule(peer, fault);
        }
    }
}
