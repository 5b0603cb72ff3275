//! Who is not let in, and what they are told: one clear line, and nothing about what there is.

use crate::process::{Ended, Process};
use crate::world::{Share, World};
use farshore::identity::Identity;
use farshore::net::tls::TlsTransport;
use farshore::net::transport::{Io, Transport};
use farshore::ticket::{Secret, Ticket, new_secret, new_share_id};
use farshore_proto::v1;
use farshore_proto::v1::farshore_server::{Farshore, FarshoreServer};
use futures_util::stream::{self, BoxStream};
use rustix::process::Signal;
use std::fs;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

/// The exit code for a ticket that is no good.
const USAGE: i32 = 2;

/// The commands that take a ticket, each given this one.
fn commands(world: &World, ticket: &str) -> Vec<Ended> {
    let (mnt, out) = (world.path("nowhere"), world.path("out"));
    fs::create_dir_all(&mnt).unwrap();
    let (mnt, out) = (mnt.to_str().unwrap(), out.to_str().unwrap());
    [vec!["ls", ticket], vec!["mount", ticket, mnt], vec!["get", ticket, "-o", out]]
        .map(|arguments| world.run("stranger", &arguments))
        .into()
}

fn parts(share: &Share) -> Ticket {
    Ticket::parse(&share.ticket).unwrap()
}

#[test]
fn a_text_that_is_no_ticket_is_told_apart() {
    let world = World::new();
    let folder = world.new_dir("folder");
    let share = world.share(&folder);
    let good = share.ticket.clone();
    let mut swapped = good.clone().into_bytes();
    swapped.swap(20, 21);
    swapped[30] = if swapped[30] == b'A' { b'B' } else { b'A' };
    let damaged = String::from_utf8(swapped).unwrap();
    let cases = [
        ("", "not a ticket"),
        ("hello", "not a ticket"),
        ("farshare:AXhqI2dkOzr2sV5ELCVMINisZTUEC9hr", "not a ticket"),
        (&good["farshore:".len()..], "not a ticket"),
        ("farshore:", "damaged"),
        ("farshore:!!!", "damaged"),
        (&good[..good.len() - 1], "damaged"),
        (&damaged, "damaged"),
        (&format!("farshore:{}", "A".repeat(100_000)), "too long"),
    ];
    for (text, reason) in cases {
        world.run("stranger", &["ls", text]).has_code(USAGE).only_says(&[reason, "`farshore share`"]);
    }
    for ended in commands(&world, &damaged) {
        ended.has_code(USAGE).only_says(&["damaged"]);
    }
    // White space around it comes with copying.
    world.run("stranger", &["ls", &format!("  {good}\n")]).went_well();
    share.process.stop(Signal::INT).went_well();
}

#[test]
fn a_revoked_ticket_and_one_for_another_share_get_the_same_answer() {
    let world = World::new();
    let (folder, other) = (world.new_dir("folder"), world.new_dir("other"));
    fs::write(folder.join("very private name"), "very private content").unwrap();
    let old = world.share(&folder);
    let (old_ticket, address) = (old.ticket.clone(), old.address.clone());
    // This device has been here before.
    world.run("friend", &["ls", &old_ticket]).went_well();
    old.process.stop(Signal::INT).went_well();

    let share = world.share_at(&folder, &address, &["--new-ticket"]);
    assert_ne!(share.ticket, old_ticket);
    let other = world.share(&other);
    let here = parts(&share);
    let at = |share, secret: Secret| Ticket::new(share, here.owner(), secret, vec![address.clone()]).unwrap().encode();
    let refused = [
        old_ticket.clone(),
        at(parts(&other).share(), *parts(&other).secret()),
        at(here.share(), new_secret()),
        at(new_share_id(), *here.secret()),
    ];
    let mut said = Vec::new();
    for ticket in &refused {
        for ended in commands(&world, ticket) {
            let ended = ended.has_code(USAGE).only_says(&["does not accept this ticket", "`farshore share`"]);
            said.push(ended.stderr);
        }
    }
    let friend = world.run("friend", &["ls", &old_ticket]).has_code(USAGE);
    said.push(friend.only_says(&["does not accept this ticket"]).stderr);
    assert!(said.iter().all(|text| *text == said[0]), "the answers differ: {said:?}");
    assert!(!fs::exists(world.path("out/very private name")).unwrap());

    // Whoever asks for the new one is back.
    let listed = world.run("friend", &["ls", &share.ticket]).went_well();
    assert!(listed.text().contains("very private name"));
}

#[test]
fn an_owner_that_is_not_there_is_named_with_its_address() {
    let world = World::new();
    let gone = world.share(&world.new_dir("folder"));
    let ticket = parts(&gone);
    // At the one address is nobody, at the other somebody else.
    let mut command = world.farshore("impostor", &["share", "--listen", "127.0.0.1:0"]);
    command.arg(world.new_dir("other"));
    let impostor = Process::start(command);
    let said = impostor.says("sharing ");
    let elsewhere = said.rsplit(" at ").next().unwrap().split(';').next().unwrap().to_owned();
    gone.process.stop(Signal::TERM).went_well();
    let askers = [gone.address, elsewhere].map(|address| {
        let ticket = Ticket::new(ticket.share(), ticket.owner(), *ticket.secret(), vec![address.clone()]).unwrap();
        (Process::start(world.farshore("stranger", &["ls", &ticket.encode()])), address)
    });
    for (asker, address) in askers {
        asker.end().has_code(1).only_says(&["cannot reach the owner", &address, "`farshore share`"]);
    }
}

/// An owner that lets nobody in because it speaks other versions.
struct OfAnotherAge;

#[tonic::async_trait]
impl Farshore for OfAnotherAge {
    type WatchStream = BoxStream<'static, Result<v1::TreeBatch, Status>>;
    type MembersStream = BoxStream<'static, Result<v1::MemberList, Status>>;
    type ReadStream = BoxStream<'static, Result<v1::ReadReply, Status>>;

    async fn hello(&self, _: Request<v1::HelloRequest>) -> Result<Response<v1::HelloReply>, Status> {
        Err(Status::failed_precondition("this program speaks versions 7 to 9"))
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody gets so far"))
    }

    async fn members(&self, _: Request<v1::MembersRequest>) -> Result<Response<Self::MembersStream>, Status> {
        Err(Status::unimplemented("nobody gets so far"))
    }

    async fn read(&self, _: Request<Streaming<v1::ReadRequest>>) -> Result<Response<Self::ReadStream>, Status> {
        Err(Status::unimplemented("nobody gets so far"))
    }

    async fn goodbye(&self, _: Request<v1::GoodbyeRequest>) -> Result<Response<v1::GoodbyeReply>, Status> {
        Err(Status::unimplemented("nobody gets so far"))
    }
}

/// A connection as the server wants it.
struct Line(Box<dyn Io>);

impl Connected for Line {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_another_version_is_called_that() {
    let world = World::new();
    let identity = Identity::open(&world.new_dir("owner")).unwrap();
    let owner = identity.id();
    let listener = TlsTransport::new(identity).listen("127.0.0.1:0").await.unwrap();
    let ticket = Ticket::new(new_share_id(), owner, new_secret(), vec![listener.address()]).unwrap();
    let callers = stream::unfold(listener, |mut listener| async move {
        let caller = listener.accept().await.unwrap().await;
        Some((caller.map(|conn| Line(conn.io)), listener))
    });
    let server = tonic::transport::Server::builder().serve_with_incoming(FarshoreServer::new(OfAnotherAge), callers);
    let server = tokio::spawn(server);
    let all = tokio::task::spawn_blocking(move || commands(&world, &ticket.encode())).await.unwrap();
    for ended in all {
        ended.has_code(1).only_says(&["version"]);
    }
    server.abort();
}
