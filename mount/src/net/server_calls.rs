//! What the server does for each call. Whether the visitor was let in has been asked before.

use super::CALL_LIMIT;
use super::line::raised;
use super::server::{Host, Visitor, denied, refusal};
use super::server_leases::Leases;
use super::server_read;
use super::server_wholes;
use farshore_engine::{PeerFault, PeerId, WatchCursor};
use farshore_proto::codec::status_of;
use farshore_proto::hello::parse_watch;
use farshore_proto::v1::farshore_server::Farshore;
use farshore_proto::{
    Hello, MAX_WATCH_SILENCE_SECONDS, ReadReply, ReadRequest, VERSION_MAX, VERSION_MIN, Welcome, batches,
    choose_version, encode_members, v1,
};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

/// The service.
pub(super) struct Calls {
    host: Arc<dyn Host>,
    leases: Arc<Leases>,
    stopped: watch::Receiver<bool>,
}

impl Calls {
    pub(super) fn new(host: Arc<dyn Host>, leases: Arc<Leases>, stopped: watch::Receiver<bool>) -> Calls {
        Calls { host, leases, stopped }
    }
}

fn visitor<T>(request: &Request<T>) -> Result<Arc<Visitor>, Status> {
    request.extensions().get::<Arc<Visitor>>().cloned().ok_or_else(denied)
}

#[tonic::async_trait]
impl Farshore for Calls {
    async fn hello(&self, request: Request<v1::HelloRequest>) -> Result<Response<v1::HelloReply>, Status> {
        let visitor = visitor(&request)?;
        if !visitor.begin_greeting() {
            return Err(denied());
        }
        let answer = self.consider(&visitor, request.get_ref()).await;
        visitor.end_greeting(answer.is_ok());
        answer.map(|welcome| Response::new(welcome.encode()))
    }

    type WatchStream = BoxStream<'static, Result<v1::TreeBatch, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let visitor = visitor(&request)?;
        let cursor = WatchCursor::at(parse_watch(request.get_ref()));
        let following = Following {
            host: self.host.clone(),
            peer: visitor.peer,
            cursor: if visitor.looks_on() { cursor.looking_on() } else { cursor },
            ready: VecDeque::new(),
        };
        let batches = stream::try_unfold(following, |mut following| async move {
            let batch = following.next().await?;
            Ok(Some((batch, following)))
        });
        Ok(Response::new(batches.take_until(raised(self.stopped.clone())).boxed()))
    }

    type MembersStream = BoxStream<'static, Result<v1::MemberList, Status>>;

    async fn members(&self, request: Request<v1::MembersRequest>) -> Result<Response<Self::MembersStream>, Status> {
        let visitor = visitor(&request)?;
        let peer = visitor.peer;
        let members = self.host.members().ok_or_else(|| Status::unimplemented("nobody is introduced here"))?;
        let lists = stream::unfold((members, true), move |(mut members, is_first)| async move {
            if !is_first {
                members.changed().await.ok()?;
            }
            let list = encode_members(&members.borrow_and_update(), peer);
            Some((Ok(list), (members, false)))
        });
        // Who opens many of these streams would have each of them told whatever changes.
        let lists = lists.take_until(visitor.hear_members());
        Ok(Response::new(lists.take_until(raised(self.stopped.clone())).boxed()))
    }

    type ReadStream = BoxStream<'static, Result<v1::ReadReply, Status>>;

    async fn read(&self, request: Request<Streaming<v1::ReadRequest>>) -> Result<Response<Self::ReadStream>, Status> {
        let visitor = visitor(&request)?;
        let mut inbound = request.into_inner();
        let Ok(first) = timeout(CALL_LIMIT, inbound.message()).await else {
            return Err(Status::deadline_exceeded("no file was named in time"));
        };
        let first = first?.ok_or_else(|| status_of(PeerFault::Missing("open")))?;
        let open = match ReadRequest::parse(first).map_err(|fault| blame(visitor.peer, fault))? {
            ReadRequest::Open(open) => open,
            ReadRequest::Whole(first) => {
                let replies = server_wholes::replies(first, inbound, self.host.clone(), visitor);
                return Ok(Response::new(replies.take_until(raised(self.stopped.clone())).boxed()));
            }
            ReadRequest::Fetch(_) | ReadRequest::Hash(_) | ReadRequest::Cancel { .. } => {
                return Err(blame(visitor.peer, PeerFault::Missing("open")));
            }
        };
        let opened = self
            .leases
            .hold(visitor.peer, open.path, open.stamp, |path| self.host.open(visitor.peer, path, open.stamp))
            .await;
        let replies = match opened {
            Ok(lease) => {
                let replies = server_read::replies(inbound, lease, open.size_bytes, visitor);
                replies.take_until(raised(self.stopped.clone())).boxed()
            }
            Err(error) => {
                let refused = ReadReply::OpenRefused { reason: refusal(error) };
                stream::iter([Ok(refused.encode())]).boxed()
            }
        };
        Ok(Response::new(replies))
    }

    async fn goodbye(&self, request: Request<v1::GoodbyeRequest>) -> Result<Response<v1::GoodbyeReply>, Status> {
        let visitor = visitor(&request)?;
        tracing::debug!("{:?} says goodbye", visitor.peer);
        visitor.leave();
        Ok(Response::new(v1::GoodbyeReply {}))
    }
}

impl Calls {
    /// Whether a visitor is let in, and in which version we speak.
    async fn consider(&self, visitor: &Visitor, message: &v1::HelloRequest) -> Result<Welcome, Status> {
        let peer = visitor.peer;
        let hello = Hello::parse(message).map_err(|fault| {
            blame(peer, fault);
            denied()
        })?;
        let Some(version) = choose_version(&hello.versions) else {
            return Err(Status::failed_precondition(format!(
                "this program speaks versions {VERSION_MIN} to {VERSION_MAX}"
            )));
        };
        // Who has the share in a folder of its own says so to whoever introduces it to the others, and to nobody else.
        if hello.membership.is_none() && self.host.members().is_some() {
            visitor.note_looks_on();
        }
        match timeout(CALL_LIMIT, self.host.greet(peer, hello)).await {
            Ok(Ok(epoch)) => Ok(Welcome { version, epoch, calls_back: self.host.callbacks().is_some() }),
            Ok(Err(())) => {
                self.leases.forget(peer);
                Err(denied())
            }
            Err(_) => Err(denied()),
        }
    }
}

/// Logs which rule `peer` broke, and makes the answer to that.
pub(super) fn blame(peer: PeerId, fault: PeerFault) -> Status {
    tracing::warn!("{peer:?} broke a rule: {fault}");
    status_of(fault)
}

/// A peer that follows our tree.
struct Following {
    host: Arc<dyn Host>,
    peer: PeerId,
    cursor: WatchCursor,
    /// Made, but not sent yet.
    ready: VecDeque<v1::TreeBatch>,
}

impl Following {
    /// The next batch; an empty one in time if there is no news.
    async fn next(&mut self) -> Result<v1::TreeBatch, Status> {
        if let Some(batch) = self.ready.pop_front() {
            return Ok(batch);
        }
        let patience = Duration::from_secs(MAX_WATCH_SILENCE_SECONDS / 2);
        match timeout(patience, self.host.watch(self.peer, self.cursor.clone())).await {
            Ok(Ok((updates, cursor))) => {
                self.cursor = cursor;
                self.ready = batches(&updates).into();
                Ok(self.ready.pop_front().unwrap_or_default())
            }
            Ok(Err(errno)) => {
                tracing::debug!("{:?} cannot follow the tree any more: {errno:?}", self.peer);
                Err(Status::unavailable("the tree cannot be followed now"))
            }
            Err(_) => Ok(v1::TreeBatch::default()),
        }
    }
}
