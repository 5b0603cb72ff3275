//! Asking for the hashes of chunks, and the owners who answer.

use crate::memory::within;
use crate::owner::{Owner, content, dial, fetch, start, until, wanted};
use farshore::folder::ServeError;
use farshore::net::{Link, cancel_pair};
use farshore_engine::chunk::{CHUNK_SIZE, chunk_range};
use farshore_engine::{FetchError, Wanted};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// What the owner says of these chunks.
async fn hashes(link: &Link, wanted: &Wanted, chunks: Range<u64>, urgent: bool) -> Result<Vec<u64>, FetchError> {
    let (_canceller, cancel) = cancel_pair();
    within(link.hashes(wanted, chunks, urgent, cancel)).await
}

fn hashes_of(chunks: Range<u64>, size_bytes: u64) -> Vec<u64> {
    chunks.map(|chunk| xxh3_64(&content(chunk_range(chunk, size_bytes)))).collect()
}

#[tokio::test(start_paused = true)]
async fn every_chunk_has_its_own_and_the_last_may_be_short() {
    let owner = Owner::new();
    let size_bytes = 130 * CHUNK_SIZE + 5;
    let file = owner.put("a", 1, size_bytes);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let wanted = wanted(1, "a", 1, size_bytes);
    assert_eq!(hashes(&link, &wanted, 129..131, true).await, Ok(hashes_of(129..131, size_bytes)));
    assert_eq!(hashes(&link, &wanted, 0..131, false).await, Ok(hashes_of(0..131, size_bytes)));
    let read = file.reads.lock().unwrap().len();
    assert_eq!(read, 133, "each chunk is read once, whole");
    assert_eq!(hashes(&link, &wanted, 130..u64::MAX, false).await, Ok(hashes_of(130..131, size_bytes)));
    assert_eq!(hashes(&link, &wanted, 131..140, false).await, Ok(Vec::new()), "chunks that are not there");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused_like_a_fetch() {
    let owner = Owner::new();
    let file = owner.put("a", 1, 10 * CHUNK_SIZE);
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let wanted_a = wanted(1, "a", 1, 10 * CHUNK_SIZE);
    assert!(hashes(&link, &wanted_a, 0..10, false).await.is_ok());
    for (failure, error) in [
        (ServeError::Stale, FetchError::Stale),
        (ServeError::Gone, FetchError::Gone),
        (ServeError::Io, FetchError::OwnerIo),
        (ServeError::NotYet, FetchError::NotYet),
    ] {
        *file.failure.lock().unwrap() = Some(failure);
        assert_eq!(hashes(&link, &wanted_a, 0..10, false).await, Err(error));
    }
    *file.failure.lock().unwrap() = None;
    assert!(hashes(&link, &wanted_a, 0..10, false).await.is_ok(), "the stream lives on");
    assert_eq!(hashes(&link, &wanted(2, "b", 7, 10), 0..1, false).await, Err(FetchError::Gone));
    assert_eq!(hashes(&link, &wanted(3, "a", 9, 10), 0..1, false).await, Err(FetchError::Stale));
    let greedy = wanted(4, "a", 1, 20 * CHUNK_SIZE);
    assert_eq!(hashes(&link, &greedy, 9..12, false).await, Err(FetchError::Stale), "a size that is not the file's");
}

#[tokio::test(start_paused = true)]
async fn somebody_who_waits_for_bytes_goes_before() {
    let owner = Owner::new();
    let file = owner.put_gated("a", 1, 64 * CHUNK_SIZE);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let wanted = wanted(1, "a", 1, 64 * CHUNK_SIZE);
    let all = hashes(&link, &wanted, 0..64, false);
    let urgent = async {
        until(|| file.reads.lock().unwrap().len() == 1).await;
        let urgent = fetch(&link, &wanted, 40, 0..4, true);
        let open = async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            file.gate.add_permits(65);
        };
        tokio::join!(urgent, open).0
    };
    let (all, urgent) = within(async { tokio::join!(all, urgent) }).await;
    assert_eq!(all, Ok(hashes_of(0..64, 64 * CHUNK_SIZE)));
    assert!(urgent.is_ok());
    let order: Vec<u64> = file.reads.lock().unwrap().iter().map(|range| range.start / CHUNK_SIZE).collect();
    assert_eq!(order[..4], [0, 40, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn who_changes_its_mind_costs_one_chunk_more_at_most() {
    let owner = Owner::new();
    let file = owner.put_gated("a", 1, 64 * CHUNK_SIZE);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let wanted = wanted(1, "a", 1, 64 * CHUNK_SIZE);
    let (canceller, cancel) = cancel_pair();
    let cancelled = link.hashes(&wanted, 0..64, false, cancel);
    let when = async {
        until(|| file.reads.lock().unwrap().len() == 1).await;
        canceller.cancel();
    };
    let (cancelled, ()) = within(async { tokio::join!(cancelled, when) }).await;
    assert_eq!(cancelled, Err(FetchError::Cancelled));
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    file.gate.add_permits(64);
    assert!(hashes(&link, &wanted, 4..5, false).await.is_ok(), "the stream lives on");
    assert_eq!(file.reads.lock().unwrap().len(), 2);
}
