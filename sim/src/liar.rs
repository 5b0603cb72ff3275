//! An owner who lies: a server of its own that lists one file and answers every request for bytes wrongly.

use crate::content::Text;
use bytes::Bytes;
use farshore::net::transport::{Io, Listener};
use farshore_engine::chunk::{FRAME_SIZE, frames_range};
use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Kind, Record, Stamp};
use farshore_engine::{DeviceTag, Dot, Position, TreeUpdate, Xattrs};
use farshore_proto::v1::farshore_server::{Farshore, FarshoreServer};
use farshore_proto::verify::seal;
use farshore_proto::{Fetch, Frame, MAX_REPLY_BYTES, ReadReply, ReadRequest, VERSION_MAX, Welcome, batches, v1};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

/// The name of the one file that a liar lists.
pub const LIARS_FILE: &str = "file";

/// How a liar answers a request for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// It does not lie: the control of the experiment.
    None,
    /// One byte is not what the hash says.
    WrongHash,
    /// Frames other than those asked for.
    WrongRange,
    /// More frames than were asked for.
    TooMuch,
    /// Says that it has sent all when it has sent half.
    TooLittle,
    /// Answers to questions that nobody asked.
    Unasked,
    /// A message far larger than any may be.
    Huge,
    /// Nothing at all, for ever.
    Silence,
    /// The first bytes of each request, and then the stream ends.
    Torn,
}

/// An owner who lies. Clones share what they count.
#[derive(Clone)]
pub struct Liar {
    lie: Lie,
    size_bytes: u64,
    asked: Arc<AtomicU64>,
}

impl Liar {
    /// Lists one file of `size_bytes` and answers requests for its bytes as `lie` says.
    #[must_use]
    pub fn new(lie: Lie, size_bytes: u64) -> Liar {
        Liar { lie, size_bytes, asked: Arc::default() }
    }

    /// Requests for bytes so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Answers everybody who calls, for ever.
    pub async fn serve(self, mut listener: Box<dyn Listener>) {
        let (ready, mut taken) = mpsc::channel::<Plain>(16);
        let incoming = stream::poll_fn(move |cx| taken.poll_recv(cx).map(|line| line.map(Ok::<_, Infallible>)));
        let calls = FarshoreServer::new(self).max_encoding_message_size(16 * MAX_REPLY_BYTES);
        tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(calls, incoming));
        while let Ok(caller) = listener.accept().await {
            if let Ok(conn) = caller.await {
                // The server lives as long as this does.
                let _ = ready.send(Plain(conn.io)).await;
            }
        }
    }

    fn listing(&self) -> Vec<TreeUpdate> {
        // As the first file of a simulated folder.
        let modified = FileTime { seconds: 1_700_000_000, nanos: 1 };
        let file = Kind::File { size_bytes: self.size_bytes, stamp: Stamp(1) };
        let revision = Dot { author: DeviceTag(1), counter: 1 }.into();
        let path = RelPath::parse(LIARS_FILE.as_bytes()).unwrap_or_default();
        vec![
            TreeUpdate::Begin { position: Position { epoch: 1, seq: 0 } },
            TreeUpdate::Entry {
                path,
                record: Record { kind: file, mode: 0o644, modified, xattrs: Xattrs::default() },
                revision,
            },
            TreeUpdate::End { settled: 0 },
        ]
    }

    fn answer(&self, fetch: &Fetch) -> Vec<Result<ReadReply, Status>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let Fetch { request, chunk, frames, urgent: _ } = fetch;
        let done = || Ok(ReadReply::Done { request: *request });
        let text = Text::new(1, 0);
        let data = |frame: u32| text.bytes(frames_range(*chunk, &(frame..frame + 1), self.size_bytes));
        let truth = |frame: u32| seal(*request, frame, data(frame));
        let all = |lie: &dyn Fn(u32) -> Frame| frames.clone().map(|frame| Ok(ReadReply::Frame(lie(frame)))).collect();
        let mut replies: Vec<Result<ReadReply, Status>> = match self.lie {
            Lie::None => all(&truth),
            Lie::WrongHash => all(&|frame| {
                let honest = truth(frame);
                let mut data = honest.data.to_vec();
                data.reverse();
                Frame { data: data.into(), ..honest }
            }),
            Lie::WrongRange => all(&|frame| seal(*request, frame + 1, data(frame))),
            Lie::TooMuch => {
                let mut replies: Vec<_> = all(&truth);
                replies.extend((frames.end..frames.end + 4).map(|frame| {
                    Ok(ReadReply::Frame(seal(*request, frame, Bytes::from(vec![0; FRAME_SIZE as usize]))))
                }));
                replies
            }
            Lie::TooLittle => frames.clone().skip(1).map(|frame| Ok(ReadReply::Frame(truth(frame - 1)))).collect(),
            Lie::Unasked => vec![Ok(ReadReply::Frame(seal(request + 1_000, frames.start, data(frames.start))))],
            Lie::Huge => {
                vec![Ok(ReadReply::Frame(seal(*request, frames.start, Bytes::from(vec![0; 8 * MAX_REPLY_BYTES]))))]
            }
            Lie::Silence => return Vec::new(),
            Lie::Torn => vec![Err(Status::unavailable("torn"))],
        };
        replies.push(done());
        replies
    }
}

#[tonic::async_trait]
impl Farshore for Liar {
    async fn hello(&self, _: Request<v1::HelloRequest>) -> Result<Response<v1::HelloReply>, Status> {
        Ok(Response::new(Welcome { version: VERSION_MAX, epoch: 1, calls_back: false }.encode()))
    }

    type WatchStream = BoxStream<'static, Result<v1::TreeBatch, Status>>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let listing: Vec<_> = batches(&self.listing()).into_iter().map(Ok).collect();
        Ok(Response::new(stream::iter(listing).chain(stream::pending()).boxed()))
    }

    type MembersStream = BoxStream<'static, Result<v1::MemberList, Status>>;

    async fn members(&self, _: Request<v1::MembersRequest>) -> Result<Response<Self::MembersStream>, Status> {
        Err(Status::unimplemented("nobody is introduced here"))
    }

    type ReadStream = BoxStream<'static, Result<v1::ReadReply, Status>>;

    async fn read(&self, request: Request<Streaming<v1::ReadRequest>>) -> Result<Response<Self::ReadStream>, Status> {
        let liar = self.clone();
        let replies = request.into_inner().flat_map(move |message| {
            let replies = match message.map(ReadRequest::parse) {
                Ok(Ok(ReadRequest::Fetch(fetch))) => liar.answer(&fetch),
                Ok(Ok(
                    ReadRequest::Open(_) | ReadRequest::Hash(_) | ReadRequest::Whole(_) | ReadRequest::Cancel { .. },
                )) => Vec::new(),
                Ok(Err(_)) | Err(_) => vec![Err(Status::aborted("over"))],
            };
            stream::iter(replies.into_iter().map(|reply| reply.map(ReadReply::encode)))
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn goodbye(&self, _: Request<v1::GoodbyeRequest>) -> Result<Response<v1::GoodbyeReply>, Status> {
        Ok(Response::new(v1::GoodbyeReply {}))
    }
}

/// The bytes of a connection, as tonic wants them.
struct Plain(Box<dyn Io>);

impl Connected for Plain {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
