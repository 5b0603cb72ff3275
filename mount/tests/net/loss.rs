//! Links that are lost.

use crate::memory::{Weather, within};
use crate::owner::{Owner, dial, fetch, start, start_with, until, wanted};
use farshore::net::Leases;
use farshore_engine::FetchError;
use farshore_engine::chunk::CHUNK_SIZE;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const SIZE_BYTES: u64 = 100 * CHUNK_SIZE;

#[tokio::test(start_paused = true)]
async fn whatever_ends_a_link_ends_all_that_waits_on_it() {
    for (weather, patience) in [(Weather::Cut, 1), (Weather::Silent, 11)] {
        let owner = Owner::new();
        let file = owner.put_gated("a", 1, SIZE_BYTES);
        let running = start(owner).await;
        let link = dial(&running.network).await.unwrap();
        let wanted = wanted(1, "a", 1, SIZE_BYTES);
        let fetches = join_all((0..50).map(|chunk| fetch(&link, &wanted, chunk, 0..4, false)));
        let change = async {
            until(|| file.reads.lock().unwrap().len() == 4).await;
            running.network.set(weather);
            let begin = Instant::now();
            link.closed().await;
            begin.elapsed()
        };
        let (fetches, took) = within(async { tokio::join!(fetches, change) }).await;
        assert_eq!(fetches, vec![Err(FetchError::LinkLost); 50], "{weather:?}");
        assert!(took <= Duration::from_secs(patience), "{weather:?}: noticed after {took:?}");
        assert_eq!(within(fetch(&link, &wanted, 0, 0..1, false)).await, Err(FetchError::LinkLost));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_that_falls_silent_is_noticed_on_both_sides() {
    let owner = Owner::new();
    owner.put("a", 1, SIZE_BYTES);
    let leases = Arc::new(Leases::default());
    let running = start_with(owner, leases.clone()).await;
    let link = dial(&running.network).await.unwrap();
    assert!(within(fetch(&link, &wanted(1, "a", 1, SIZE_BYTES), 0, 0..1, false)).await.is_ok());
    let idle = tokio::time::timeout(Duration::from_secs(3600), link.closed()).await;
    assert!(idle.is_err(), "a link that has nothing to do stays");
    running.network.set(Weather::Silent);
    let begin = Instant::now();
    within(link.closed()).await;
    assert!(begin.elapsed() <= Duration::from_secs(11));
    // The owner has noticed, too.
    until(|| leases.kept() == 1).await;
}

/// Heartbeats are for links that nothing else is sent on as well.
#[tokio::test(start_paused = true)]
async fn a_link_on_which_nothing_was_ever_asked_is_noticed_when_it_falls_silent() {
    let running = start(Owner::new()).await;
    let link = dial(&running.network).await.unwrap();
    let idle = tokio::time::timeout(Duration::from_secs(3600), link.closed()).await;
    assert!(idle.is_err(), "it stays for as long as the other side answers");
    running.network.set(Weather::Silent);
    let begin = Instant::now();
    within(link.closed()).await;
    assert!(begin.elapsed() <= Duration::from_secs(11), "noticed after {:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn hanging_up_ends_everything_at_once() {
    let owner = Owner::new();
    let file = owner.put_gated("a", 1, SIZE_BYTES);
    let running = start(owner).await;
    let link = dial(&running.network).await.unwrap();
    let wanted = wanted(1, "a", 1, SIZE_BYTES);
    let change = async {
        until(|| !file.reads.lock().unwrap().is_empty()).await;
        link.hang_up();
        let begin = Instant::now();
        link.closed().await;
        assert!(begin.elapsed() < Duration::from_millis(10));
    };
    let (fetched, ()) = within(async { tokio::join!(fetch(&link, &wanted, 0, 0..4, false), change) }).await;
    assert_eq!(fetched, Err(FetchError::LinkLost));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_link_is_hung_up() {
    let owner = Owner::new();
    owner.put("a", 1, SIZE_BYTES);
    let leases = Arc::new(Leases::default());
    let running = start_with(owner, leases.clone()).await;
    let link = dial(&running.network).await.unwrap();
    assert!(within(fetch(&link, &wanted(1, "a", 1, SIZE_BYTES), 0, 0..1, false)).await.is_ok());
    drop(link);
    until(|| leases.kept() == 1).await;
}
