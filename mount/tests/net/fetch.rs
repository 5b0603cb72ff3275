//! Reading files.

use crate::memory::within;
use crate::owner::{Owner, content, dial, fetch, start, until, wanted};
use farshore::folder::ServeError;
use farshore::net::cancel_pair;
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE, chunk_range};
use farshore_engine::{ContentId, FetchError};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// Lets what was sent arrive. The clock only moves when nothing else does, so this is exact.
async fn delivered() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn whole_chunks_parts_and_the_short_last_one() {
    let owner = Owner::new();
    let size_bytes = 2 * CHUNK_SIZE + FRAME_SIZE + 5;
    let file = owner.put("a", 1, size_bytes);
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let wanted = wanted(1, "a", 1, size_bytes);
    let get = async |chunk, frames| within(fetch(&link, &wanted, chunk, frames, false)).await.unwrap();
    assert_eq!(get(0, 0..4).await, content(0..CHUNK_SIZE));
    assert_eq!(get(1, 1..3).await, content(CHUNK_SIZE + FRAME_SIZE..CHUNK_SIZE + 3 * FRAME_SIZE));
    assert_eq!(get(2, 0..2).await, content(2 * CHUNK_SIZE..size_bytes));
    assert_eq!(get(2, 1..2).await, content(2 * CHUNK_SIZE + FRAME_SIZE..size_bytes));
    assert_eq!(get(2, 0..4).await, content(2 * CHUNK_SIZE..size_bytes), "what the file does not have is not asked for");
    assert!(get(3, 0..4).await.is_empty());
    assert_eq!(file.reads.lock().unwrap().len(), 5);
    assert_eq!(*owner.opens.lock().unwrap(), 1, "four streams share one opened file");
}

#[tokio::test(start_paused = true)]
async fn two_hundred_requests_at_once() {
    let owner = Owner::new();
    let size_bytes = 200 * CHUNK_SIZE - 7;
    owner.put("a", 1, size_bytes);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let wanted = wanted(1, "a", 1, size_bytes);
    let chunks = (0..200).map(|chunk| fetch(&link, &wanted, chunk, 0..4, chunk % 3 == 0));
    for (chunk, bytes) in (0..).zip(within(join_all(chunks)).await) {
        assert!(bytes.unwrap() == content(chunk_range(chunk, size_bytes)), "chunk {chunk}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_one_stream_takes_wait_for_their_turn() {
    let owner = Owner::new();
    let size_bytes = 2400 * CHUNK_SIZE;
    let file = owner.put_gated("a", 1, size_bytes);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let wanted = wanted(1, "a", 1, size_bytes);
    let chunks = (0..600).map(|turn| fetch(&link, &wanted, turn * 4, 0..1, false));
    let open = async {
        until(|| !file.reads.lock().unwrap().is_empty()).await;
        file.gate.add_permits(600);
    };
    let (fetched, ()) = within(async { tokio::join!(join_all(chunks), open) }).await;
    assert!(fetched.iter().all(Result::is_ok), "{:?}", fetched.iter().find_map(|one| one.as_ref().err()));
}

#[tokio::test(start_paused = true)]
async fn what_is_urgent_overtakes() {
    let owner = Owner::new();
    let size_bytes = 100 * CHUNK_SIZE;
    let file = owner.put_gated("a", 1, size_bytes);
    let running = start(owner).await;
    let link = Arc::new(dial(&running.network).await.unwrap());
    let wanted = wanted(1, "a", 1, size_bytes);
    // All on the same stream; the first is being read while the others arrive.
    let slow = join_all((0..10).map(|turn| fetch(&link, &wanted, turn * 4, 0..4, false)));
    let urgent = async {
        until(|| !file.reads.lock().unwrap().is_empty()).await;
        let urgent = fetch(&link, &wanted, 80, 0..1, true);
        let open = async {
            delivered().await;
            file.gate.add_permits(100);
        };
        tokio::join!(urgent, open).0
    };
    let (slow, urgent) = within(async { tokio::join!(slow, urgent) }).await;
    assert!(slow.iter().all(Result::is_ok));
    assert_eq!(urgent.unwrap(), content(80 * CHUNK_SIZE..80 * CHUNK_SIZE + FRAME_SIZE));
    let order: Vec<u64> = file.reads.lock().unwrap().iter().map(|range| range.start / CHUNK_SIZE).collect();
    assert_eq!(order, [0, 80, 4, 8, 12, 16, 20, 24, 28, 32, 36]);
}

#[tokio::test(start_paused = true)]
async fn cancelling_is_prompt_and_harms_nobody_else() {
    let owner = Owner::new();
    let size_bytes = 100 * CHUNK_SIZE;
    let file = owner.put_gated("a", 1, size_bytes);
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let wanted = wanted(1, "a", 1, size_bytes);
    let (canceller, cancel) = cancel_pair();
    let read = link.fetch(&wanted, 0, 0..4, false, cancel.clone(), |_, _| {});
    let queued = link.fetch(&wanted, 4, 0..4, false, cancel.clone(), |_, _| {});
    let when = async {
        until(|| !file.reads.lock().unwrap().is_empty()).await;
        canceller.cancel();
    };
    let (read, queued, ()) = within(async { tokio::join!(read, queued, when) }).await;
    assert_eq!((read, queued), (Err(FetchError::Cancelled), Err(FetchError::Cancelled)));

    // The first is still being read for nobody; the same stream goes on to what came after.
    delivered().await;
    file.gate.add_permits(100);
    assert_eq!(within(fetch(&link, &wanted, 8, 0..1, false)).await.unwrap().len(), 128 * 1024);
    let order: Vec<u64> = file.reads.lock().unwrap().iter().map(|range| range.start / CHUNK_SIZE).collect();
    assert_eq!(order, [0, 8], "what was cancelled in time is never read");
    assert_eq!(*owner.opens.lock().unwrap(), 1, "no stream had to be opened again");

    let before = link.fetch(&wanted, 0, 0..4, false, cancel, |_, _| {});
    assert_eq!(within(before).await, Err(FetchError::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_fetch_is_cancelled() {
    let owner = Owner::new();
    let file = owner.put_gated("a", 1, 100 * CHUNK_SIZE);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let wanted = wanted(1, "a", 1, 100 * CHUNK_SIZE);
    {
        let mut first = Box::pin(fetch(&link, &wanted, 0, 0..4, false));
        let mut dropped = Box::pin(fetch(&link, &wanted, 4, 0..4, false));
        tokio::select! {
            _ = &mut first => panic!("the gate is closed"),
            _ = &mut dropped => panic!("the gate is closed"),
            () = until(|| !file.reads.lock().unwrap().is_empty()) => {}
        }
    }
    delivered().await;
    file.gate.add_permits(100);
    assert!(within(fetch(&link, &wanted, 8, 0..4, false)).await.is_ok());
    assert_eq!(file.reads.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn files_that_changed_vanished_or_cannot_be_read() {
    let owner = Owner::new();
    let file = owner.put("a", 1, 10 * CHUNK_SIZE);
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let get = async |content, path, stamp, chunk| {
        within(fetch(&link, &wanted(content, path, stamp, 10 * CHUNK_SIZE), chunk, 0..1, false)).await.err()
    };
    assert_eq!(get(1, "a", 2, 0).await, Some(FetchError::Stale));
    assert_eq!(get(2, "b", 1, 0).await, Some(FetchError::Gone));
    assert_eq!(get(3, "a", 1, 0).await, None);
    for (failure, error) in [
        (ServeError::Stale, FetchError::Stale),
        (ServeError::Gone, FetchError::Gone),
        (ServeError::Io, FetchError::OwnerIo),
        (ServeError::NotYet, FetchError::NotYet),
    ] {
        *file.failure.lock().unwrap() = Some(failure);
        assert_eq!(get(3, "a", 1, 4).await, Some(error));
    }
    *file.failure.lock().unwrap() = None;
    assert_eq!(get(3, "a", 1, 4).await, None, "a refused request leaves its stream alone");
}

#[tokio::test(start_paused = true)]
async fn a_file_replaced_while_it_is_read_is_stale_and_the_new_one_is_another_content() {
    let owner = Owner::new();
    let old = owner.put("a", 1, 10 * CHUNK_SIZE);
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    assert!(within(fetch(&link, &wanted(1, "a", 1, 10 * CHUNK_SIZE), 0, 0..1, false)).await.is_ok());
    owner.put("a", 2, 3);
    *old.failure.lock().unwrap() = Some(ServeError::Stale);
    let refused = within(fetch(&link, &wanted(1, "a", 1, 10 * CHUNK_SIZE), 1, 0..1, false)).await;
    assert_eq!(refused, Err(FetchError::Stale));
    assert_eq!(within(fetch(&link, &wanted(2, "a", 2, 3), 0, 0..1, false)).await.unwrap(), content(0..3));
}

#[tokio::test(start_paused = true)]
async fn a_lease_outlives_the_name_and_ends_with_the_content() {
    let owner = Owner::new();
    let file = owner.put("a", 1, 10 * CHUNK_SIZE);
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let reader = wanted(1, "a", 1, 10 * CHUNK_SIZE);
    assert!(within(fetch(&link, &reader, 0, 0..1, false)).await.is_ok());
    owner.remove("a");
    assert!(within(fetch(&link, &reader, 7, 0..4, false)).await.is_ok(), "a part that was never read before");
    let second = wanted(2, "a", 1, 10 * CHUNK_SIZE);
    assert!(within(fetch(&link, &second, 3, 0..4, false)).await.is_ok(), "a stream that is opened only now");
    assert_eq!(*owner.opens.lock().unwrap(), 1);

    link.close_content(ContentId(1));
    link.close_content(ContentId(2));
    until(|| Arc::strong_count(&file) == 1).await;
    assert_eq!(within(fetch(&link, &reader, 0, 0..1, false)).await, Err(FetchError::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_size_that_is_not_the_files_gets_nothing() {
    let owner = Owner::new();
    owner.put("a", 1, 100);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let greedy = wanted(1, "a", 1, 10 * CHUNK_SIZE);
    assert_eq!(within(fetch(&link, &greedy, 0, 0..4, false)).await, Err(FetchError::Stale));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_files_may_be_read_over_one_link() {
    let owner = Owner::new();
    let file = owner.put("a", 1, 10);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    for content in 1..=1000 {
        let fetched = within(fetch(&link, &wanted(content, "a", 1, 10), 0, 0..1, false)).await;
        assert!(fetched.is_ok(), "{content}: {fetched:?}");
    }
    assert_eq!(file.reads.lock().unwrap().len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn changing_ones_mind_a_hundred_times_does_not_cost_the_link() {
    let owner = Owner::new();
    owner.put("a", 1, 100 * CHUNK_SIZE);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let mut lost = 0;
    // At every stage: not sent yet, opening, with bytes on their way.
    for turns in [0, 1, 2, 3, 5, 8, 13, 21, 34] {
        let contents = (1..=100).map(|content| wanted(content, "a", 1, 100 * CHUNK_SIZE));
        let fetches = contents.map(|wanted| {
            let link = &link;
            async move { fetch(link, &wanted, wanted.content.0 % 100, 0..4, false).await.err() }
        });
        let close = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            (1..=100).for_each(|content| link.close_content(ContentId(content)));
        };
        let (errors, ()) = within(async { tokio::join!(join_all(fetches), close) }).await;
        assert!(errors.iter().all(|error| matches!(error, None | Some(FetchError::StreamLost))), "{turns}: {errors:?}");
        lost += errors.iter().flatten().count();
    }
    assert!(lost > 300, "{lost}");
    assert!(within(fetch(&link, &wanted(1, "a", 1, 100 * CHUNK_SIZE), 0, 0..4, false)).await.is_ok());
}
