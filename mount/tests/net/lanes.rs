//! Large files of a peer that is far away come over several connections.

use crate::owner::{Owner, Running, content, dial, fetch, hello, start, wanted};
use farshore::net::Link;
use farshore_engine::ContentId;
use farshore_engine::chunk::{CHUNK_SIZE, FRAMES_PER_CHUNK};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const SIZE_BYTES: u64 = 20 * CHUNK_SIZE;
const ALL: std::ops::Range<u32> = 0..FRAMES_PER_CHUNK;

/// An owner whose answers take so long, and a link to it that may become wider.
async fn linked(greets_after: Duration) -> (Arc<Owner>, Running, Arc<Link>) {
    let owner = Owner::far(greets_after);
    let running = start(owner.clone()).await;
    let link = Arc::new(dial(&running.network).await.unwrap());
    let (widened, network) = (link.clone(), running.network.clone());
    tokio::spawn(async move {
        let hello = hello();
        tokio::select! {
            () = widened.widen(&network, &hello) => {}
            () = widened.closed() => {}
        }
    });
    (owner, running, link)
}

fn connections(owner: &Owner) -> usize {
    owner.hellos.lock().unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn what_is_large_and_far_away_comes_over_several_and_what_was_asked_for_before_comes_too() {
    let (owner, _running, link) = linked(Duration::from_millis(50)).await;
    owner.put("small", 1, CHUNK_SIZE);
    fetch(&link, &wanted(1, "small", 1, CHUNK_SIZE), 0, ALL, true).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(connections(&owner), 1, "that is not worth it");

    let file = owner.put_gated("large", 2, SIZE_BYTES);
    let large = wanted(2, "large", 2, SIZE_BYTES);
    let begun = {
        let (link, large) = (link.clone(), large.clone());
        tokio::spawn(async move { fetch(&link, &large, 1, ALL, true).await })
    };
    while connections(&owner) < 4 {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert!(!begun.is_finished());
    let all = join_all((0..20).map(|chunk| fetch(&link, &large, chunk, ALL, false)));
    let opened = async {
        sleep(Duration::from_secs(1)).await;
        file.gate.add_permits(100);
    };
    let (all, ()) = tokio::join!(all, opened);
    for (chunk, bytes) in (0..).zip(all) {
        let start = chunk * CHUNK_SIZE;
        assert!(bytes.unwrap() == content(start..start + CHUNK_SIZE), "chunk {chunk}");
    }
    assert!(begun.await.unwrap().unwrap() == content(CHUNK_SIZE..2 * CHUNK_SIZE));
    link.close_content(ContentId(2));
    assert_eq!(connections(&owner), 4);

    // They end with the first one.
    link.hang_up();
    link.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_near_has_one_connection() {
    let (owner, _running, link) = linked(Duration::from_millis(5)).await;
    owner.put("large", 2, SIZE_BYTES);
    let large = wanted(2, "large", 2, SIZE_BYTES);
    for chunk in 0..20 {
        fetch(&link, &large, chunk, ALL, false).await.unwrap();
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(connections(&owner), 1);
}
