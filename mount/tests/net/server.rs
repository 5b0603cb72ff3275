//! What the server does to protect itself, and how it ends.

use crate::hello::raw_client;
use crate::memory::{OWNER, READER, within};
use crate::owner::{Owner, dial, fetch, hello, name, start, start_with, until, wanted};
use farshore::net::Leases;
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::record::Stamp;
use farshore_engine::{FetchError, Position};
use farshore_proto::{Fetch, Open, ReadRequest, v1};
use futures_util::stream::{self, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::Code;

const SIZE_BYTES: u64 = 10_000 * CHUNK_SIZE;

fn open() -> v1::ReadRequest {
    ReadRequest::Open(Open { path: name("a"), stamp: Stamp(1), size_bytes: SIZE_BYTES }).encode()
}

fn ask(request: u64, chunk: u64) -> v1::ReadRequest {
    ReadRequest::Fetch(Fetch { request, chunk, frames: 0..4, urgent: false }).encode()
}

/// How a stream of these requests ends.
async fn end_of(requests: Vec<v1::ReadRequest>) -> Option<(Code, String)> {
    let owner = Owner::new();
    // Nothing is ever read, so everything stays in the queue.
    owner.put_gated("a", 1, SIZE_BYTES);
    let running = start(owner).await;
    let mut client = raw_client(&running.network).await;
    client.hello(hello().encode()).await.unwrap();
    let mut replies = match client.read(stream::iter(requests).chain(stream::pending())).await {
        Ok(replies) => replies.into_inner(),
        Err(status) => return Some((status.code(), status.message().into())),
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), replies.message()).await;
    ended.ok().map(|reply| reply.unwrap_err()).map(|status| (status.code(), status.message().into()))
}

#[tokio::test(start_paused = true)]
async fn requests_that_break_a_rule_end_their_stream() {
    let invalid = |text: &str| Some((Code::InvalidArgument, text.to_string()));
    assert_eq!(end_of(vec![open()]).await, None);
    assert_eq!(end_of(vec![ask(1, 0)]).await, invalid("it sent a message without `open`"));
    assert_eq!(end_of(vec![open(), open()]).await, invalid("it sent a message without `fetch`"));
    let beyond = vec![open(), ask(1, 10_000)];
    assert_eq!(end_of(beyond).await, invalid("it sent a value out of range in `chunk`"));
    let empty = vec![open(), v1::ReadRequest::default()];
    assert_eq!(end_of(empty).await, invalid("it sent a message without `request`"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_take_its_replies_costs_little() {
    let owner = Owner::new();
    let file = owner.put("a", 1, SIZE_BYTES);
    let running = start(owner).await;
    let mut client = raw_client(&running.network).await;
    client.hello(hello().encode()).await.unwrap();
    let requests: Vec<_> = [open()].into_iter().chain((1..=250).map(|request| ask(request, request))).collect();
    let replies = client.read(stream::iter(requests).chain(stream::pending())).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    let reads = file.reads.lock().unwrap().len();
    assert!((1..=3).contains(&reads), "{reads} chunks were read for nobody");
    drop(replies);
}

#[tokio::test(start_paused = true)]
async fn numbers_are_used_once_and_queues_are_bounded() {
    let owner = Owner::new();
    let file = owner.put_gated("a", 1, SIZE_BYTES);
    let running = start(owner).await;
    for (numbers, expected) in [
        (vec![1, 2, 2], "it sent a value out of range in `request`"),
        (vec![5, 4], "it sent a value out of range in `request`"),
        ((1..=300).collect(), "it sent more than 256 items in one message"),
    ] {
        let mut client = raw_client(&running.network).await;
        client.hello(hello().encode()).await.unwrap();
        let requests: Vec<_> = [open()].into_iter().chain(numbers.into_iter().map(|number| ask(number, 1))).collect();
        let mut replies = client.read(stream::iter(requests).chain(stream::pending())).await.unwrap().into_inner();
        // All of them have arrived, and the first may be being read.
        sleep(Duration::from_secs(1)).await;
        file.gate.add_permits(4);
        let status = loop {
            match within(replies.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended well"),
                Err(status) => break status,
            }
        };
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_never_come_to_the_point_keep_nobody_out() {
    let running = start(Owner::new()).await;
    let mut wires = Vec::new();
    for _ in 0..200 {
        running.network.knock("owner", Box::pin(std::future::pending())).unwrap();
        wires.push(running.network.call("owner").unwrap());
    }
    let begin = Instant::now();
    let link = within(dial(&running.network)).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    for _ in 0..200 {
        running.network.knock("owner", Box::pin(std::future::pending())).unwrap();
    }
    let stays = tokio::time::timeout(Duration::from_secs(60), link.closed()).await;
    assert!(stays.is_err(), "who is in stays in");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_greet_is_hung_up_on() {
    use tokio::io::AsyncReadExt;
    let running = start(Owner::new()).await;
    let mut wire = running.network.call("owner").unwrap();
    let begin = Instant::now();
    let mut bytes = Vec::new();
    // Whether it is closed or reset: it ends.
    let _ended = within(wire.read_to_end(&mut bytes)).await;
    assert!(begin.elapsed() <= Duration::from_secs(11), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn shutting_down_is_prompt_with_everything_open() {
    let owner = Owner::new();
    let file = owner.put_gated("a", 1, SIZE_BYTES);
    let mut running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let _watch = link.watch(Position::default()).await.unwrap();
    let wanted = wanted(1, "a", 1, SIZE_BYTES);
    let stop = running.stop.take().unwrap();
    let down = async {
        until(|| !file.reads.lock().unwrap().is_empty()).await;
        let begin = Instant::now();
        drop(stop);
        (&mut running.task).await.unwrap();
        begin.elapsed()
    };
    let (fetched, took) = within(async { tokio::join!(fetch(&link, &wanted, 0, 0..4, false), down) }).await;
    assert!(matches!(fetched, Err(FetchError::LinkLost | FetchError::StreamLost)), "{fetched:?}");
    assert!(took <= Duration::from_secs(2), "{took:?}");
    within(link.closed()).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_dismissed_is_cut_off_in_the_middle_and_nothing_is_held_open_for_it() {
    let owner = Owner::new();
    let file = owner.put_gated("a", 1, SIZE_BYTES);
    let leases = Arc::new(Leases::default());
    let running = start_with(owner, leases.clone()).await;
    assert!(running.guests.present().is_empty());
    let link = dial(&running.network).await.unwrap();
    let mut watch = link.watch(Position::default()).await.unwrap();
    assert_eq!(running.guests.present().into_iter().collect::<Vec<_>>(), [(READER, 1)]);
    let before = Arc::strong_count(&file);
    let wanted = wanted(1, "a", 1, SIZE_BYTES);
    let dismissed = async {
        until(|| !file.reads.lock().unwrap().is_empty()).await;
        assert!(Arc::strong_count(&file) > before, "it is held open");
        assert_eq!(running.guests.dismiss(OWNER), 0, "that is somebody else");
        let begin = Instant::now();
        assert_eq!(running.guests.dismiss(READER), 1);
        within(link.closed()).await;
        begin.elapsed()
    };
    let (fetched, took) = within(async { tokio::join!(fetch(&link, &wanted, 0, 0..4, false), dismissed) }).await;
    assert!(matches!(fetched, Err(FetchError::LinkLost | FetchError::StreamLost)), "{fetched:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    within(watch.next()).await.unwrap_err();
    // A disk that is being read is let come to its end.
    file.gate.add_permits(4);
    until(|| running.guests.present().is_empty() && Arc::strong_count(&file) == before).await;
    // Of somebody who was lost it would be kept.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(leases.kept(), 0);
    // Whoever is still trusted may come back.
    within(dial(&running.network)).await.unwrap();
}
