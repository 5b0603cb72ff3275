//! Small files, many of them over one stream.

use crate::hello::raw_client;
use crate::memory::within;
use crate::owner::{Owner, content, dial, fetch, hello, name, start, start_with, until, wanted};
use farshore::folder::ServeError;
use farshore::net::{Leases, cancel_pair};
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE};
use farshore_engine::record::Stamp;
use farshore_engine::{ContentId, FetchError};
use farshore_proto::{Fetch, Open, ReadReply, ReadRequest, Whole, v1};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tonic::Code;

fn ask(request: u64, path: &str, stamp: u64, size_bytes: u64) -> v1::ReadRequest {
    let file = Open { path: name(path), stamp: Stamp(stamp), size_bytes };
    ReadRequest::Whole(Whole { request, file }).encode()
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_small_files_come_with_their_own_bytes() {
    let owner = Owner::new();
    let sizes = [1, 5, 4096, FRAME_SIZE, FRAME_SIZE + 1, CHUNK_SIZE];
    let files: Vec<_> =
        (1..=600).zip(sizes.into_iter().cycle()).map(|(number, size)| (number, number.to_string(), size)).collect();
    for (number, path, size) in &files {
        owner.put(path, *number, *size);
    }
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let all: Vec<_> = files.iter().map(|(number, path, size)| wanted(*number, path, *number, *size)).collect();
    let fetched = within(join_all(all.iter().map(|wanted| fetch(&link, wanted, 0, 0..4, false)))).await;
    for (wanted, bytes) in all.iter().zip(fetched) {
        assert!(bytes.unwrap() == content(0..wanted.size_bytes), "{} bytes", wanted.size_bytes);
    }
    assert_eq!(*owner.opens.lock().unwrap(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_had_is_told_apart() {
    let owner = Owner::new();
    owner.put("a", 1, 5);
    owner.put("edited", 2, 5);
    owner.put("shrunk", 3, 4);
    *owner.put("broken", 4, 5).failure.lock().unwrap() = Some(ServeError::Io);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let get = async |content, path, stamp| within(fetch(&link, &wanted(content, path, stamp, 5), 0, 0..1, false)).await;
    assert_eq!(get(1, "gone", 1).await, Err(FetchError::Gone));
    assert_eq!(get(2, "edited", 1).await, Err(FetchError::Stale));
    assert_eq!(get(3, "shrunk", 3).await, Err(FetchError::Stale), "it has fewer bytes than was said");
    assert_eq!(get(4, "broken", 4).await, Err(FetchError::OwnerIo));
    assert_eq!(get(5, "a", 1).await.unwrap(), content(0..5));
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_in_time_is_never_read() {
    let owner = Owner::new();
    let slow = owner.put_gated("slow", 1, CHUNK_SIZE);
    let files: Vec<_> = (2..40).map(|number| owner.put(&number.to_string(), number, CHUNK_SIZE)).collect();
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let all: Vec<_> = (2..40).map(|number| wanted(number, &number.to_string(), number, CHUNK_SIZE)).collect();
    let first = wanted(1, "slow", 1, CHUNK_SIZE);
    // Each takes a reader of the owner's for itself.
    let slow_ones: Vec<_> = (0..4).map(|_| fetch(&link, &first, 0, 0..4, false)).collect();
    let (canceller, cancel) = cancel_pair();
    let queued = join_all(all.iter().map(|wanted| link.fetch(wanted, 0, 0..4, false, cancel.clone(), |_, _| {})));
    let when = async {
        until(|| slow.reads.lock().unwrap().len() == 4).await;
        canceller.cancel();
        sleep(Duration::from_millis(1)).await;
        slow.gate.add_permits(4);
    };
    let (read, queued, ()) = within(async { tokio::join!(join_all(slow_ones), queued, when) }).await;
    assert!(read.iter().all(Result::is_ok));
    assert!(queued.iter().all(|result| *result == Err(FetchError::Cancelled)));
    assert!(files.iter().all(|file| file.reads.lock().unwrap().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn what_is_open_or_waited_for_has_a_stream_and_a_lease_of_its_own() {
    for (is_open, urgent) in [(true, false), (false, true)] {
        let owner = Owner::new();
        owner.put("a", 1, 5);
        let running = start_with(owner.clone(), Arc::new(Leases::new(Duration::from_secs(60)))).await;
        let link = dial(&running.network).await.unwrap();
        let file = wanted(1, "a", 1, 5);
        if is_open {
            link.open_content(&file);
        }
        assert_eq!(within(fetch(&link, &file, 0, 0..1, urgent)).await.unwrap(), content(0..5));
        owner.remove("a");
        assert_eq!(within(fetch(&link, &file, 0, 0..1, urgent)).await.unwrap(), content(0..5), "it is held open");
        link.close_content(ContentId(1));
        let other = within(fetch(&link, &wanted(2, "a", 1, 5), 0, 0..1, false)).await;
        assert_eq!(other, Err(FetchError::Gone));
    }
}

/// How a stream of these requests ends.
async fn end_of(requests: Vec<v1::ReadRequest>) -> Option<(Code, String)> {
    let owner = Owner::new();
    owner.put_gated("a", 1, 5);
    let running = start(owner).await;
    let mut client = raw_client(&running.network).await;
    client.hello(hello().encode()).await.unwrap();
    let replies = client.read(stream::iter(requests).chain(stream::pending())).await;
    let mut replies = replies.unwrap().into_inner();
    let ended = tokio::time::timeout(Duration::from_secs(60), replies.message()).await;
    ended.ok().map(|reply| reply.unwrap_err()).map(|status| (status.code(), status.message().into()))
}

#[tokio::test(start_paused = true)]
async fn requests_that_break_a_rule_end_their_stream() {
    let invalid = |text: &str| Some((Code::InvalidArgument, text.to_string()));
    let small = |request| ask(request, "a", 1, 5);
    assert_eq!(end_of(vec![small(1), small(2)]).await, None);
    let open = ReadRequest::Open(Open { path: name("a"), stamp: Stamp(1), size_bytes: 5 }).encode();
    assert_eq!(end_of(vec![small(1), open]).await, invalid("it sent a message without `whole`"));
    let frames = ReadRequest::Fetch(Fetch { request: 2, chunk: 0, frames: 0..1, urgent: false }).encode();
    assert_eq!(end_of(vec![small(1), frames]).await, invalid("it sent a message without `whole`"));
    assert_eq!(end_of(vec![small(2), small(2)]).await, invalid("it sent a value out of range in `request`"));
    let many = (1..=400).map(small).collect();
    assert_eq!(end_of(many).await, invalid("it sent more than 256 items in one message"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_take_its_replies_costs_little() {
    let owner = Owner::new();
    let file = owner.put("a", 1, CHUNK_SIZE);
    let running = start(owner).await;
    let mut client = raw_client(&running.network).await;
    client.hello(hello().encode()).await.unwrap();
    let requests = (1..=250).map(|request| ask(request, "a", 1, CHUNK_SIZE));
    let replies = client.read(stream::iter(requests).chain(stream::pending())).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    let reads = file.reads.lock().unwrap().len();
    assert!((1..=12).contains(&reads), "{reads} files were read for nobody");
    drop(replies);
}

#[tokio::test(start_paused = true)]
async fn the_last_answers_come_when_nothing_more_is_asked() {
    let owner = Owner::new();
    owner.put("a", 1, 5);
    let running = start(owner).await;
    let mut client = raw_client(&running.network).await;
    client.hello(hello().encode()).await.unwrap();
    let requests = (1..=20).map(|request| ask(request, "a", 1, 5));
    let mut replies = client.read(stream::iter(requests)).await.unwrap().into_inner();
    let mut ended = Vec::new();
    while let Some(reply) = within(replies.message()).await.unwrap() {
        match ReadReply::parse(reply).unwrap() {
            ReadReply::Frame(frame) => assert_eq!(frame.data, content(0..5)),
            ReadReply::Done { request } => ended.push(request),
            other @ (ReadReply::Refused { .. } | ReadReply::OpenRefused { .. } | ReadReply::Hashes(_)) => {
                panic!("{other:?}")
            }
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, (1..=20).collect::<Vec<_>>());
}
