//! Peers that break the rules: each broken rule is told apart, and nothing wrong gets through.

use crate::memory::{Memory, OWNER, READER, within};
use crate::owner::{content, dial, fetch, until, wanted};
use bytes::Bytes;
use farshore::net::transport::{Listener, Transport};
use farshore::net::{Link, WatchEnd, cancel_pair};
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE, FRAMES_PER_CHUNK};
use farshore_engine::path::PathError;
use farshore_engine::{FetchError, PeerFault, PeerId, Position};
use farshore_proto::codec::StrictCodec;
use farshore_proto::v1::farshore_server::{Farshore, FarshoreServer};
use farshore_proto::verify::seal;
use farshore_proto::{
    Fetch, Frame, Hashes, MAX_MEMBERS, MAX_REPLY_BYTES, Members, ReadReply, ReadRequest, UNREADABLE, VERSION_MAX,
    Welcome, Whole, v1,
};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{self, BoxStream};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

const SIZE_BYTES: u64 = 100 * CHUNK_SIZE;

/// What a liar answers to a fetch.
type Lie = Arc<dyn Fn(Fetch) -> Vec<Result<ReadReply, Status>> + Send + Sync>;

#[derive(Clone)]
struct Liar {
    lie: Lie,
    /// How many streams were opened, and which of them is refused.
    opened: Arc<Mutex<u32>>,
    refused: Option<u32>,
    /// What it answers to who asks for hashes.
    hashes: Vec<ReadReply>,
    batch: v1::TreeBatch,
    /// Who the members are, in turn.
    members: Vec<v1::MemberList>,
}

impl Liar {
    fn new(lie: impl Fn(Fetch) -> Vec<Result<ReadReply, Status>> + Send + Sync + 'static) -> Liar {
        Liar {
            lie: Arc::new(lie),
            opened: Arc::default(),
            refused: None,
            hashes: Vec::new(),
            batch: v1::TreeBatch::default(),
            members: Vec::new(),
        }
    }
}

#[tonic::async_trait]
impl Farshore for Liar {
    async fn hello(&self, _: Request<v1::HelloRequest>) -> Result<Response<v1::HelloReply>, Status> {
        Ok(Response::new(Welcome { version: VERSION_MAX, epoch: 1, calls_back: false }.encode()))
    }

    type WatchStream = BoxStream<'static, Result<v1::TreeBatch, Status>>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(stream::iter([Ok(self.batch.clone())]).chain(stream::pending()).boxed()))
    }

    type MembersStream = BoxStream<'static, Result<v1::MemberList, Status>>;

    async fn members(&self, _: Request<v1::MembersRequest>) -> Result<Response<Self::MembersStream>, Status> {
        Ok(Response::new(stream::iter(self.members.clone().into_iter().map(Ok)).chain(stream::pending()).boxed()))
    }

    type ReadStream = BoxStream<'static, Result<v1::ReadReply, Status>>;

    async fn read(&self, request: Request<Streaming<v1::ReadRequest>>) -> Result<Response<Self::ReadStream>, Status> {
        let turn = {
            let mut opened = self.opened.lock().unwrap();
            *opened += 1;
            *opened
        };
        if self.refused == Some(turn) {
            return Err(Status::resource_exhausted("no more streams"));
        }
        let (lie, hashes) = (self.lie.clone(), self.hashes.clone());
        let replies = request.into_inner().flat_map(move |message| {
            let replies = match ReadRequest::parse(message.unwrap()).unwrap() {
                ReadRequest::Fetch(fetch) => lie(fetch),
                ReadRequest::Hash(_) => hashes.iter().cloned().map(Ok).collect(),
                ReadRequest::Whole(Whole { request, .. }) => {
                    lie(Fetch { request, chunk: 0, frames: 0..FRAMES_PER_CHUNK, urgent: false })
                }
                ReadRequest::Open(_) | ReadRequest::Cancel { .. } => Vec::new(),
            };
            stream::iter(replies.into_iter().map(|reply| reply.map(ReadReply::encode)))
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn goodbye(&self, _: Request<v1::GoodbyeRequest>) -> Result<Response<v1::GoodbyeReply>, Status> {
        Ok(Response::new(v1::GoodbyeReply {}))
    }
}

/// A link to a peer that serves like `service`, and a guard that ends the peer.
async fn link_to<S>(service: S) -> (Link, tokio::task::JoinHandle<()>)
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let network = Memory::new();
    let mut listener: Box<dyn Listener> = network.listen("owner").await.unwrap();
    let lasting = network.clone();
    let task = tokio::spawn(async move {
        let _lasting = lasting;
        let conn = listener.accept().await.unwrap().await.unwrap();
        let incoming = stream::iter([Ok::<_, Infallible>(Plain(conn.io))]);
        tonic::transport::Server::builder().serve_with_incoming(service, incoming).await.unwrap();
        std::future::pending::<()>().await;
    });
    (within(dial(&network)).await.unwrap(), task)
}

/// What one fetch of chunk 0 gives when the peer answers with `lie`.
async fn told(
    lie: impl Fn(Fetch) -> Vec<Result<ReadReply, Status>> + Send + Sync + 'static,
) -> Result<Vec<u8>, FetchError> {
    let (link, task) = link_to(FarshoreServer::new(Liar::new(lie))).await;
    let result = within(fetch(&link, &wanted(1, "a", 1, SIZE_BYTES), 0, 0..2, false)).await;
    task.abort();
    result
}

fn frame(request: u64, frame: u32) -> Frame {
    let start = u64::from(frame) * FRAME_SIZE;
    seal(request, frame, content(start..start + FRAME_SIZE))
}

fn done(request: u64) -> Result<ReadReply, Status> {
    Ok(ReadReply::Done { request })
}

fn sent(frame: Frame) -> Result<ReadReply, Status> {
    Ok(ReadReply::Frame(frame))
}

fn fault(fault: PeerFault) -> Result<Vec<u8>, FetchError> {
    Err(FetchError::Fault(fault))
}

#[tokio::test(start_paused = true)]
async fn the_truth_is_believed() {
    let truth =
        told(|Fetch { request, .. }| vec![sent(frame(request, 0)), sent(frame(request, 1)), done(request)]).await;
    assert_eq!(truth.unwrap(), content(0..2 * FRAME_SIZE));
}

#[tokio::test(start_paused = true)]
async fn every_lie_about_bytes_has_its_name() {
    let wrong_hash = told(|f| vec![sent(Frame { xxh3: 1, ..frame(f.request, 0) })]).await;
    assert_eq!(wrong_hash, fault(PeerFault::WrongHash));
    let flipped = told(|f| {
        let good = frame(f.request, 0);
        let mut data = good.data.to_vec();
        data[1000] ^= 1;
        vec![sent(Frame { data: data.into(), ..good })]
    });
    assert_eq!(flipped.await, fault(PeerFault::WrongHash));
    assert_eq!(told(|f| vec![sent(frame(f.request, 1))]).await, fault(PeerFault::WrongRange));
    assert_eq!(told(|f| vec![sent(frame(f.request, 9))]).await, fault(PeerFault::WrongRange));
    let twice = told(|f| vec![sent(frame(f.request, 0)), sent(frame(f.request, 0))]).await;
    assert_eq!(twice, fault(PeerFault::WrongRange));
    let many = told(|f| (0..3).map(|index| sent(frame(f.request, index))).collect()).await;
    assert_eq!(many, fault(PeerFault::TooMuch));
    let long = told(|f| vec![sent(seal(f.request, 0, content(0..FRAME_SIZE + 1)))]).await;
    assert_eq!(long, fault(PeerFault::TooMuch));
    let short = told(|f| vec![sent(seal(f.request, 0, content(0..FRAME_SIZE - 1)))]).await;
    assert_eq!(short, fault(PeerFault::TooLittle));
    assert_eq!(told(|f| vec![sent(seal(f.request, 0, Bytes::new()))]).await, fault(PeerFault::TooLittle));
    assert_eq!(told(|f| vec![sent(frame(f.request, 0)), done(f.request)]).await, fault(PeerFault::TooLittle));
    assert_eq!(told(|f| vec![done(f.request)]).await, fault(PeerFault::TooLittle));
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_asked_for() {
    assert_eq!(told(|f| vec![sent(frame(f.request + 1, 0))]).await, fault(PeerFault::Unasked));
    assert_eq!(told(|f| vec![done(f.request + 1)]).await, fault(PeerFault::Unasked));
    assert_eq!(told(|_| vec![sent(frame(0, 0))]).await, fault(PeerFault::Unasked));
}

#[tokio::test(start_paused = true)]
async fn lies_about_hashes() {
    let hashes =
        |request, first_chunk, xxh3: &[u64]| ReadReply::Hashes(Hashes { request, first_chunk, xxh3: xxh3.to_vec() });
    for (answer, expected) in [
        (hashes(1, 2, &[5, 6]), Ok(vec![5, 6])),
        (hashes(1, 2, &[5]), Err(PeerFault::TooLittle)),
        (hashes(1, 2, &[]), Err(PeerFault::TooLittle)),
        (hashes(1, 2, &[5, 6, 7]), Err(PeerFault::TooMuch)),
        (hashes(1, 3, &[5, 6]), Err(PeerFault::WrongRange)),
        (hashes(1, 2, &[5; 65]), Err(PeerFault::TooMany(64))),
        (hashes(9, 2, &[5, 6]), Err(PeerFault::Unasked)),
        (ReadReply::Done { request: 1 }, Err(PeerFault::TooLittle)),
        (ReadReply::Frame(frame(1, 0)), Err(PeerFault::Unasked)),
    ] {
        let liar = Liar { hashes: vec![answer.clone()], ..Liar::new(|_| Vec::new()) };
        let (link, task) = link_to(FarshoreServer::new(liar)).await;
        let (_canceller, cancel) = cancel_pair();
        let told = within(link.hashes(&wanted(1, "a", 1, SIZE_BYTES), 2..4, false, cancel)).await;
        assert_eq!(told, expected.map_err(FetchError::Fault), "{answer:?}");
        task.abort();
    }
    let instead = told(move |f| vec![Ok(hashes(f.request, 0, &[5]))]).await;
    assert_eq!(instead, fault(PeerFault::Unasked), "hashes instead of frames");
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_too_large_are_not_taken_in() {
    let huge = told(|f| vec![sent(seal(f.request, 0, content(0..MAX_REPLY_BYTES as u64)))]).await;
    assert_eq!(huge, fault(PeerFault::OutOfRange("message length")));
}

#[tokio::test(start_paused = true)]
async fn a_peer_cannot_blame_itself_for_what_it_did_not_do() {
    let ended = told(|_| vec![Err(Status::invalid_argument("it sent bytes that do not match their hash"))]).await;
    assert_eq!(ended, Err(FetchError::StreamLost));
}

#[tokio::test(start_paused = true)]
async fn a_lie_to_one_request_leaves_the_others_of_its_stream_alone() {
    let liar = Liar::new(|Fetch { request, chunk, .. }| match chunk {
        0 => vec![sent(Frame { xxh3: 1, ..frame(request, 0) }), sent(frame(request, 1)), done(request)],
        _ => vec![sent(seal(request, 0, content(chunk * CHUNK_SIZE..chunk * CHUNK_SIZE + FRAME_SIZE))), done(request)],
    });
    let opened = liar.opened.clone();
    let (link, task) = link_to(FarshoreServer::new(liar)).await;
    let wanted = wanted(1, "a", 1, SIZE_BYTES);
    let both = async { tokio::join!(fetch(&link, &wanted, 0, 0..2, false), fetch(&link, &wanted, 4, 0..1, false)) };
    let (lied_to, other) = within(both).await;
    assert_eq!(lied_to, fault(PeerFault::WrongHash));
    assert!(other.is_ok(), "{other:?}");
    assert!(within(fetch(&link, &wanted, 8, 0..1, false)).await.is_ok());
    assert_eq!(*opened.lock().unwrap(), 4);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_dies_takes_only_its_own_and_is_opened_again() {
    let liar = Liar::new(|Fetch { request, chunk, .. }| match chunk {
        0 => vec![Err(Status::unavailable("this stream is over"))],
        4 => Vec::new(),
        _ => vec![sent(seal(request, 0, content(chunk * CHUNK_SIZE..chunk * CHUNK_SIZE + FRAME_SIZE))), done(request)],
    });
    let opened = liar.opened.clone();
    let (link, task) = link_to(FarshoreServer::new(liar)).await;
    let wanted = wanted(1, "a", 1, SIZE_BYTES);
    let chunks = [4, 1, 2, 3, 5, 0].map(|chunk| fetch(&link, &wanted, chunk, 0..1, false));
    let results = within(join_all(chunks)).await;
    let lost: Vec<bool> = results.iter().map(|result| *result == Err(FetchError::StreamLost)).collect();
    assert_eq!(lost, [true, false, false, false, false, true], "{:?}", results.iter().map(|r| r.as_ref().err()));
    assert_eq!(*opened.lock().unwrap(), 4);
    assert!(within(fetch(&link, &wanted, 8, 0..1, false)).await.is_ok());
    assert_eq!(*opened.lock().unwrap(), 5, "the one that died, and no other");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn streams_are_opened_together_or_not_at_all() {
    for refused in 1..=4 {
        let answer = |Fetch { request, chunk, .. }: Fetch| {
            let data = content(chunk * CHUNK_SIZE..chunk * CHUNK_SIZE + FRAME_SIZE);
            vec![sent(seal(request, 0, data)), done(request)]
        };
        let liar = Liar { refused: Some(refused), ..Liar::new(answer) };
        let opened = liar.opened.clone();
        let (link, task) = link_to(FarshoreServer::new(liar)).await;
        let wanted = wanted(1, "a", 1, SIZE_BYTES);
        // The stream that is refused cannot answer; the others may have, before they were closed.
        let first = within(join_all((0..4).map(|chunk| fetch(&link, &wanted, chunk, 0..1, false)))).await;
        assert!(first.contains(&Err(FetchError::StreamLost)), "{refused}");
        let again = within(join_all((0..4).map(|chunk| fetch(&link, &wanted, chunk, 0..1, false)))).await;
        assert!(again.iter().all(Result::is_ok), "{refused}");
        assert_eq!(*opened.lock().unwrap(), 8, "all four were opened again");
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_that_holds_the_lease_is_the_first_of_those_that_bring_the_bytes() {
    let answer = |Fetch { request, chunk, .. }: Fetch| {
        let data = content(chunk * CHUNK_SIZE..chunk * CHUNK_SIZE + FRAME_SIZE);
        vec![sent(seal(request, 0, data)), done(request)]
    };
    for (size_bytes, useful) in [(CHUNK_SIZE, 1), (SIZE_BYTES, 4)] {
        let liar = Liar::new(answer);
        let opened = liar.opened.clone();
        let (link, task) = link_to(FarshoreServer::new(liar)).await;
        let wanted = wanted(1, "a", 1, size_bytes);
        link.open_content(&wanted);
        link.open_content(&wanted);
        until(|| *opened.lock().unwrap() == 1).await;
        assert!(within(fetch(&link, &wanted, 0, 0..1, false)).await.is_ok());
        until(|| *opened.lock().unwrap() == useful).await;
        link.open_content(&wanted);
        assert!(within(fetch(&link, &wanted, 0, 0..1, false)).await.is_ok());
        assert_eq!(*opened.lock().unwrap(), useful, "as many as without a lease");
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_goes_on_without_bringing_anything_is_given_up() {
    let (link, task) = link_to(FarshoreServer::new(Liar::new(|_| Vec::new()))).await;
    let wanted = wanted(1, "a", 1, SIZE_BYTES);
    assert_eq!(within(fetch(&link, &wanted, 0, 0..1, false)).await, Err(FetchError::StreamLost));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_breaks_a_rule_is_a_fault() {
    let path = vec![Bytes::from_static(b"..")];
    let remove = v1::event::Change::Remove(v1::Remove { path, revision: None });
    let event = v1::Event { seq: 1, change: Some(remove) };
    let updates = vec![v1::TreeUpdate { kind: Some(v1::tree_update::Kind::Event(event)) }];
    let liar = Liar { batch: v1::TreeBatch { updates }, ..Liar::new(|_| Vec::new()) };
    let (link, task) = link_to(FarshoreServer::new(liar)).await;
    let mut watch = link.watch(Position::default()).await.unwrap();
    assert_eq!(within(watch.next()).await, Err(WatchEnd::Fault(PeerFault::Path(PathError::DotName))));
    task.abort();
}

/// The first list is good, so that it is the second one that is refused, and not whoever introduces.
#[tokio::test(start_paused = true)]
async fn members_that_break_a_rule_are_a_fault() {
    let member = |id: PeerId, address: &str| v1::Member {
        device: Bytes::copy_from_slice(&id.0),
        addresses: vec![address.to_owned()],
    };
    let good = member(PeerId([7; 32]), "a:1");
    let crowd = (0..MAX_MEMBERS as u8).map(|number| member(PeerId([number + 10; 32]), "a:1")).collect();
    for (members, rule) in [
        (vec![good.clone(), good.clone()], PeerFault::OutOfPlace),
        (vec![member(READER, "a:1")], PeerFault::OutOfPlace),
        (vec![member(OWNER, "a:1")], PeerFault::OutOfPlace),
        (vec![member(PeerId([7; 32]), "not an address")], PeerFault::OutOfRange("address")),
        (vec![v1::Member { addresses: vec!["a:1".into(); 9], ..good.clone() }], PeerFault::TooMany(8)),
        (vec![v1::Member { device: vec![7; 16].into(), addresses: Vec::new() }], PeerFault::OutOfRange("device")),
        (crowd, PeerFault::TooMany(MAX_MEMBERS - 1)),
    ] {
        let lists = [vec![good.clone()], members].map(|members| v1::MemberList { members });
        let liar = Liar { members: lists.into(), ..Liar::new(|_| Vec::new()) };
        let (link, task) = link_to(FarshoreServer::new(liar)).await;
        let mut told = link.members(READER).await.unwrap();
        assert_eq!(within(told.next()).await, Ok(Members::from([(PeerId([7; 32]), vec!["a:1".to_owned()])])));
        assert_eq!(within(told.next()).await, Err(WatchEnd::Fault(rule)));
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message_are_a_fault() {
    let (link, task) = link_to(Garbler(FarshoreServer::new(Liar::new(|_| Vec::new())))).await;
    let result = within(fetch(&link, &wanted(1, "a", 1, SIZE_BYTES), 0, 0..2, false)).await;
    assert_eq!(result, fault(UNREADABLE));
    task.abort();
}

/// Answers a read with messages of another kind.
#[derive(Clone)]
struct Garbler(FarshoreServer<Liar>);

impl NamedService for Garbler {
    const NAME: &'static str = "farshore.v1.Farshore";
}

impl Service<http::Request<Body>> for Garbler {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if !request.uri().path().ends_with("/Read") {
            return Box::pin(self.0.call(request));
        }
        Box::pin(async {
            let codec = StrictCodec::<v1::HelloRequest, v1::ReadRequest>::default();
            Ok(Grpc::new(codec).streaming(Garbage, request).await)
        })
    }
}

struct Garbage;

impl StreamingService<v1::ReadRequest> for Garbage {
    type Response = v1::HelloRequest;
    type ResponseStream = BoxStream<'static, Result<v1::HelloRequest, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<Streaming<v1::ReadRequest>>) -> Self::Future {
        let message = v1::HelloRequest { min_version: 7, ..Default::default() };
        Box::pin(async { Ok(Response::new(stream::iter([Ok(message)]).chain(stream::pending()).boxed())) })
    }
}

/// The bytes of a connection, as tonic wants them.
struct Plain(Box<dyn farshore::net::transport::Io>);

impl tonic::transport::server::Connected for Plain {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for Plain {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Plain {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Fetches 50 small files at once from a peer that answers with `lie`; says what each gave, and how many streams that took.
async fn small_files(
    lie: impl Fn(Fetch) -> Vec<Result<ReadReply, Status>> + Send + Sync + 'static,
) -> (Vec<Result<Vec<u8>, FetchError>>, u32) {
    let liar = Liar::new(lie);
    let opened = liar.opened.clone();
    let (link, task) = link_to(FarshoreServer::new(liar)).await;
    let all: Vec<_> = (1..=50).map(|number| wanted(number, "a", number, 5)).collect();
    let results = within(join_all(all.iter().map(|wanted| fetch(&link, wanted, 0, 0..1, false)))).await;
    task.abort();
    let opened = *opened.lock().unwrap();
    (results, opened)
}

fn small(request: u64, bytes: std::ops::Range<u64>) -> Vec<Result<ReadReply, Status>> {
    vec![sent(seal(request, 0, content(bytes))), done(request)]
}

#[tokio::test(start_paused = true)]
async fn small_files_share_a_stream() {
    let (results, opened) = small_files(|Fetch { request, .. }| small(request, 0..5)).await;
    assert!(results.iter().all(|result| *result == Ok(content(0..5).to_vec())), "{results:?}");
    assert_eq!(opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lie_about_one_small_file_harms_no_other() {
    for (lie, expected) in [
        (small as fn(u64, _) -> _, 0..6, PeerFault::TooMuch),
        (small, 0..4, PeerFault::TooLittle),
        (|request, _| vec![sent(seal(request, 1, content(0..5))), done(request)], 0..0, PeerFault::WrongRange),
        (|request, _| vec![done(request)], 0..0, PeerFault::TooLittle),
        (
            |request, bytes| vec![sent(Frame { xxh3: 7, ..seal(request, 0, content(bytes)) }), done(request)],
            0..5,
            PeerFault::WrongHash,
        ),
    ]
    .map(|(lie, bytes, expected): (fn(u64, std::ops::Range<u64>) -> Vec<_>, _, _)| ((lie, bytes), expected))
    {
        let (lie, bytes) = lie;
        let answer = move |Fetch { request, .. }: Fetch| match request {
            7 => lie(request, bytes.clone()),
            _ => small(request, 0..5),
        };
        let (results, opened) = small_files(answer).await;
        let wrong: Vec<_> = results.iter().filter(|result| result.is_err()).collect();
        assert_eq!(wrong, [&Err(FetchError::Fault(expected))]);
        assert_eq!(opened, 1);
    }
}
