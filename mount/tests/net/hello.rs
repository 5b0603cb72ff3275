//! Who gets in.

use crate::memory::{Memory, OWNER, READER, within};
use crate::owner::{EPOCH, Owner, dial, hello, start};
use farshore::net::Link;
use farshore_engine::{DialError, Position};
use farshore_proto::hello::encode_watch;
use farshore_proto::v1::farshore_client::FarshoreClient;
use farshore_proto::{Hello, ReadRequest, Secret, ShareId, VERSION_MAX, v1};
use futures_util::stream;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// A client that need not behave.
pub(crate) async fn raw_client(network: &Memory) -> FarshoreClient<Channel> {
    let mut wire = Some(TokioIo::new(network.call("owner").unwrap()));
    let connector = tower::service_fn(move |_| {
        let wire = wire.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
        async move { wire }
    });
    let endpoint = Endpoint::from_static("http://owner").initial_stream_window_size(64 * 1024);
    FarshoreClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_the_secret_gets_in() {
    let owner = Owner::new();
    let running = start(owner.clone()).await;
    let link = within(dial(&running.network)).await.unwrap();
    assert_eq!((link.peer(), link.welcome().epoch, link.welcome().version), (OWNER, EPOCH, VERSION_MAX));
    assert_eq!(*owner.hellos.lock().unwrap(), [(READER, hello())]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_it_does_not() {
    let running = start(Owner::new()).await;
    for secret in [None, Some(Secret([6; 16]))] {
        let hello = Hello::new(ShareId([3; 16]), secret, "test");
        let denied = within(Link::dial(&running.network, &["owner".into()], OWNER, &hello)).await;
        assert_eq!(denied.err(), Some(DialError::Denied));
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_of_another_age_hears_which_versions_are_spoken() {
    let running = start(Owner::new()).await;
    // Also who knows of no extended attributes: what it writes would have none.
    for versions in [VERSION_MAX + 1..=9, 2..=4] {
        let other = Hello { versions, ..hello() };
        let refused = within(Link::dial(&running.network, &["owner".into()], OWNER, &other)).await;
        assert_eq!(refused.err(), Some(DialError::Incompatible));
        let status = raw_client(&running.network).await.hello(other.encode()).await.unwrap_err();
        let said = (status.code(), status.message());
        assert_eq!(said, (Code::FailedPrecondition, "this program speaks versions 5 to 5"));
    }
}

#[tokio::test(start_paused = true)]
async fn all_addresses_are_tried_and_none_for_ever() {
    let running = start(Owner::new()).await;
    let dial = async |addresses: &[&str]| {
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).into()).collect();
        let begin = Instant::now();
        let link = within(Link::dial(&running.network, &addresses, OWNER, &hello())).await;
        (link.map(|link| link.peer()), begin.elapsed())
    };
    assert_eq!(dial(&["nobody", "impostor", "hang", "owner"]).await.0, Ok(OWNER));
    let (silent, took) = dial(&["hang"]).await;
    assert_eq!(silent, Err(DialError::Unreachable));
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!(dial(&["nobody", "impostor"]).await.0, Err(DialError::Unreachable));
    assert_eq!(dial(&[]).await.0, Err(DialError::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn before_the_greeting_every_call_gets_the_same_answer() {
    let owner = Owner::new();
    owner.put("a", 1, 10);
    let running = start(owner.clone()).await;
    let mut client = raw_client(&running.network).await;
    let same = |status: Status| assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not allowed"));
    let ask = async |client: &mut FarshoreClient<Channel>| {
        same(client.watch(encode_watch(Position::default())).await.unwrap_err());
        same(client.read(stream::iter([ReadRequest::Cancel { request: 1 }.encode()])).await.unwrap_err());
        same(client.goodbye(v1::GoodbyeRequest {}).await.unwrap_err());
    };
    within(ask(&mut client)).await;
    let bad = Hello::new(ShareId([3; 16]), None, "test").encode();
    same(client.hello(bad).await.unwrap_err());
    within(ask(&mut client)).await;
    same(client.hello(hello().encode()).await.unwrap_err());

    let mut garbled = raw_client(&running.network).await;
    same(garbled.hello(v1::HelloRequest::default()).await.unwrap_err());
    assert_eq!(*owner.opens.lock().unwrap(), 0);
    assert_eq!(owner.cursors.lock().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn there_is_one_greeting_per_connection() {
    let running = start(Owner::new()).await;
    let mut client = raw_client(&running.network).await;
    client.hello(hello().encode()).await.unwrap();
    assert_eq!(client.hello(hello().encode()).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(client.watch(encode_watch(Position::default())).await.is_ok(), "who is in stays in");
}

#[tokio::test(start_paused = true)]
async fn who_says_goodbye_is_out() {
    let running = start(Owner::new()).await;
    let mut client = raw_client(&running.network).await;
    client.hello(hello().encode()).await.unwrap();
    client.goodbye(v1::GoodbyeRequest {}).await.unwrap();
    let after = client.watch(encode_watch(Position::default())).await.unwrap_err();
    assert_eq!(after.code(), Code::PermissionDenied);

    let link = dial(&running.network).await.unwrap();
    within(async { tokio::join!(link.say_goodbye(), link.closed()) }).await;
}
