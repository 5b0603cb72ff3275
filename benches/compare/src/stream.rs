//! The least that Farshore's kind of network costs: one gRPC stream over the same TLS, into a file.

use crate::helpers::{self, Meter};
use crate::process::Process;
use crate::stage::{START_LIMIT, Stage};
use crate::stopping::Trouble;
use anyhow::Context;
use bytes::Bytes;
use farshore::identity::Identity;
use farshore::net::tls::TlsTransport;
use farshore::net::transport::{Io, Role, Transport};
use futures_util::stream::{self, BoxStream, StreamExt};
use hyper_util::rt::TokioIo;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{self, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tonic::transport::server::Connected;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use wire::bulk_client::BulkClient;
use wire::bulk_server::{Bulk, BulkServer};
use wire::{Piece, SendRequest};

#[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::wildcard_enum_match_arm)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/bulk.rs"));
}

/// How much one message carries, in bytes: as much as one of Farshore's frames.
const PIECE_BYTES: usize = 128 * 1024;

/// Pieces that are read ahead of the network.
const PIECES_AHEAD: usize = 64;

/// What may be on its way, in bytes: more than any line here holds.
const WINDOW_BYTES: u32 = 32 * 1024 * 1024;

/// The largest HTTP/2 frame, in bytes, as Farshore has it.
const HTTP2_FRAME_BYTES: u32 = 256 * 1024;

/// Starts the owner's side on the first file of the folder. Where it listens is returned, too.
pub(crate) fn serve(stage: &Stage<'_>) -> Result<(Process, String), Trouble> {
    let mut command = helpers::this_program()?;
    command.args(["send", &format!("{}:0", stage.owner_address())]);
    command.arg(owner_dir(stage)?).arg(stage.folder.join(crate::folders::FILE));
    let mut process = stage.start_owner(command, "stream serve")?;
    let address = process.first_line(START_LIMIT)?;
    Ok((process, address))
}

/// Starts the reader's side.
pub(crate) fn fetch(address: &str, stage: &Stage<'_>) -> Result<Process, Trouble> {
    let mut command = helpers::this_program()?;
    command.args(["receive", address]);
    command.arg(owner_dir(stage)?).arg(stage.new_dir("stream reader")?).arg(stage.scratch.join("fetched"));
    stage.start_reader(command, "stream fetch")
}

fn owner_dir(stage: &Stage<'_>) -> Result<PathBuf, Trouble> {
    stage.new_dir("stream owner")
}

/// Sends `file` to whoever calls, for ever. Prints where it listens.
pub(crate) fn run_server(address: &str, keys: &Path, file: &Path) -> anyhow::Result<()> {
    let transport = TlsTransport::new(Identity::open(keys)?);
    runtime()?.block_on(async {
        let listener = transport.listen(address).await?;
        println!("{}", listener.address());
        let incoming = stream::unfold(listener, async |mut listener| {
            let caller = async { listener.accept().await?.await };
            let wire = caller.await.map(|connection| Wire(connection.io));
            Some((wire, listener))
        });
        Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .serve_with_incoming(BulkServer::new(Sender { file: file.to_owned() }), incoming)
            .await?;
        Ok(())
    })
}

/// Fetches what is sent at `address` into `to`. Prints what it took.
pub(crate) fn run_client(address: &str, owner_keys: &Path, keys: &Path, to: &Path) -> anyhow::Result<()> {
    let owner = Identity::open(owner_keys)?.id();
    let transport = TlsTransport::new(Identity::open(keys)?);
    let mut file = File::create(to)?;
    let took = runtime()?.block_on(async {
        let mut meter = Meter::start();
        let mut wire = Some(TokioIo::new(Wire(transport.connect(address, owner, Role::Client).await?.io)));
        let channel = Endpoint::from_static("http://stream")
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .connect_with_connector(tower::service_fn(move |_| {
                let wire = wire.take();
                async move { wire.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
            }))
            .await?;
        let mut pieces = BulkClient::new(channel).send(SendRequest {}).await?.into_inner();
        while let Some(piece) = pieces.message().await? {
            file.write_all(&piece.data)?;
            meter.add(piece.data.len());
        }
        anyhow::Ok(meter.stop())
    })?;
    println!("{}", serde_json::to_string(&took)?);
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")
}

struct Sender {
    file: PathBuf,
}

#[tonic::async_trait]
impl Bulk for Sender {
    type SendStream = BoxStream<'static, Result<Piece, Status>>;

    async fn send(&self, _: Request<SendRequest>) -> Result<Response<Self::SendStream>, Status> {
        let file = File::open(&self.file)?;
        let (ahead, pieces) = mpsc::channel(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || read_ahead(file, &ahead));
        let pieces = stream::unfold(pieces, async |mut pieces| Some((pieces.recv().await?, pieces)));
        Ok(Response::new(pieces.boxed()))
    }
}

/// Reads the file to its end, or until nobody wants more.
fn read_ahead(mut file: File, ahead: &mpsc::Sender<Result<Piece, Status>>) {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let read = match file.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                piece.truncate(count);
                Ok(Piece { data: Bytes::from(piece) })
            }
            Err(error) => Err(Status::from(error)),
        };
        if ahead.blocking_send(read).is_err() {
            return;
        }
    }
}

/// A connection as tonic's server wants it.
struct Wire(Box<dyn Io>);

impl Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
