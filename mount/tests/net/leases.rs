//! What an owner keeps open for its readers, and for how long.

use crate::memory::{Memory, OWNER, READER, Weather, within};
use crate::owner::{Owner, content, dial, fetch, hello, start_with, until, wanted};
use farshore::net::{LEASE_GRACE, Leases, Link};
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE};
use farshore_engine::{ContentId, DialError, FetchError, Wanted};
use farshore_proto::Secret;
use std::sync::Arc;
use tokio::time::sleep;

const SIZE_BYTES: u64 = 10 * CHUNK_SIZE;

fn file_a() -> Wanted {
    wanted(1, "a", 1, SIZE_BYTES)
}

/// The connection of a reader that has the file open breaks. Gives the network, mended.
async fn lose(network: &Memory, link: Link, how: Weather) {
    network.set(how);
    within(link.closed()).await;
    drop(link);
    network.set(Weather::Fair);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_opened_and_not_read_outlives_its_name() {
    let owner = Owner::new();
    let file = owner.put("a", 1, SIZE_BYTES);
    let running = start_with(owner.clone(), Arc::default()).await;
    let link = dial(&running.network).await.unwrap();
    link.open_content(&file_a());
    until(|| *owner.opens.lock().unwrap() == 1).await;
    assert!(file.reads.lock().unwrap().is_empty(), "nothing was read for that");
    owner.remove("a");
    assert_eq!(within(fetch(&link, &file_a(), 9, 0..1, false)).await.unwrap().len() as u64, FRAME_SIZE);
    assert_eq!(*owner.opens.lock().unwrap(), 1);
    link.close_content(ContentId(1));
    until(|| Arc::strong_count(&file) == 1).await;
    assert_eq!(within(fetch(&link, &file_a(), 9, 0..1, false)).await, Err(FetchError::Gone));
}

#[tokio::test(start_paused = true)]
async fn opening_and_closing_at_once_leaves_nothing_behind() {
    let owner = Owner::new();
    let file = owner.put("a", 1, SIZE_BYTES);
    let running = start_with(owner.clone(), Arc::default()).await;
    let link = dial(&running.network).await.unwrap();
    for turns in 0..20 {
        link.open_content(&file_a());
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        link.close_content(ContentId(1));
    }
    sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&file), 2, "the folder has it, and this test");
}

#[tokio::test(start_paused = true)]
async fn what_was_opened_can_be_read_after_a_lost_connection_whatever_became_of_its_name() {
    for how in [Weather::Cut, Weather::Silent] {
        let (owner, leases) = (Owner::new(), Arc::new(Leases::default()));
        let file = owner.put("a", 1, SIZE_BYTES);
        let running = start_with(owner.clone(), leases.clone()).await;
        let link = dial(&running.network).await.unwrap();
        assert!(within(fetch(&link, &file_a(), 0, 0..4, false)).await.is_ok());
        lose(&running.network, link, how).await;
        until(|| leases.kept() == 1).await;
        owner.put("a", 2, 7);
        let link = dial(&running.network).await.unwrap();
        let rest = within(fetch(&link, &file_a(), 1, 0..4, false)).await;
        assert!(rest.unwrap() == content(CHUNK_SIZE..2 * CHUNK_SIZE));
        assert_eq!((*owner.opens.lock().unwrap(), leases.kept()), (1, 0));
        // Whoever closes it in good order does not need it any more.
        link.close_content(ContentId(1));
        until(|| Arc::strong_count(&file) == 1).await;
        assert_eq!(leases.kept(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stays_away_loses_its_leases() {
    let (owner, leases) = (Owner::new(), Arc::new(Leases::default()));
    let file = owner.put("a", 1, SIZE_BYTES);
    let running = start_with(owner.clone(), leases.clone()).await;
    let link = dial(&running.network).await.unwrap();
    link.open_content(&file_a());
    until(|| *owner.opens.lock().unwrap() == 1).await;
    lose(&running.network, link, Weather::Cut).await;
    until(|| leases.kept() == 1).await;
    owner.remove("a");
    sleep(LEASE_GRACE).await;
    until(|| leases.kept() == 0).await;
    assert_eq!(Arc::strong_count(&file), 1, "it is closed");
    let link = dial(&running.network).await.unwrap();
    assert_eq!(within(fetch(&link, &file_a(), 0, 0..4, false)).await, Err(FetchError::Gone));
}

#[tokio::test(start_paused = true)]
async fn who_says_goodbye_leaves_no_lease_behind() {
    let (owner, leases) = (Owner::new(), Arc::new(Leases::default()));
    let file = owner.put("a", 1, SIZE_BYTES);
    let running = start_with(owner.clone(), leases.clone()).await;
    let link = dial(&running.network).await.unwrap();
    assert!(within(fetch(&link, &file_a(), 0, 0..4, false)).await.is_ok());
    owner.remove("a");
    link.say_goodbye().await;
    until(|| Arc::strong_count(&file) == 1).await;
    assert_eq!(leases.kept(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_let_in_any_more_loses_its_leases() {
    let (owner, leases) = (Owner::new(), Arc::new(Leases::default()));
    let file = owner.put("a", 1, SIZE_BYTES);
    let running = start_with(owner.clone(), leases.clone()).await;
    let link = dial(&running.network).await.unwrap();
    assert!(within(fetch(&link, &file_a(), 0, 0..4, false)).await.is_ok());
    lose(&running.network, link, Weather::Cut).await;
    until(|| leases.kept() == 1).await;
    let mut stranger = hello();
    stranger.secret = Some(Secret([6; 16]));
    let denied = Link::dial(&running.network, &["owner".into()], OWNER, &stranger).await;
    assert_eq!(denied.err(), Some(DialError::Denied));
    assert_eq!(leases.kept(), 0);
    owner.remove("a");
    until(|| Arc::strong_count(&file) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_dismissed_while_it_is_away_loses_its_leases() {
    let (owner, leases) = (Owner::new(), Arc::new(Leases::default()));
    let file = owner.put("a", 1, SIZE_BYTES);
    let running = start_with(owner.clone(), leases.clone()).await;
    let link = dial(&running.network).await.unwrap();
    assert!(within(fetch(&link, &file_a(), 0, 0..4, false)).await.is_ok());
    lose(&running.network, link, Weather::Cut).await;
    until(|| leases.kept() == 1).await;
    running.guests.dismiss(OWNER);
    assert_eq!(leases.kept(), 1, "that is somebody else");
    running.guests.dismiss(READER);
    assert_eq!(leases.kept(), 0);
    owner.remove("a");
    until(|| Arc::strong_count(&file) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn shutting_down_closes_what_was_kept() {
    let (owner, leases) = (Owner::new(), Arc::new(Leases::default()));
    let file = owner.put("a", 1, SIZE_BYTES);
    let mut running = start_with(owner.clone(), leases.clone()).await;
    let link = dial(&running.network).await.unwrap();
    assert!(within(fetch(&link, &file_a(), 0, 0..4, false)).await.is_ok());
    lose(&running.network, link, Weather::Cut).await;
    until(|| leases.kept() == 1).await;
    owner.remove("a");
    drop(running.stop.take());
    (&mut running.task).await.unwrap();
    assert_eq!((leases.kept(), Arc::strong_count(&file)), (0, 1));
}

/// The owner takes only so many streams on one connection.
#[tokio::test(start_paused = true)]
async fn a_link_holds_only_so_many_files_open_and_lets_go_of_what_was_idle_first() {
    let owner = Owner::new();
    let running = start_with(owner.clone(), Arc::default()).await;
    let link = dial(&running.network).await.unwrap();
    let file = |number: u64| wanted(number, &format!("f{number}"), number, SIZE_BYTES);
    for number in 1..=970 {
        owner.put(&format!("f{number}"), number, SIZE_BYTES);
        link.open_content(&file(number));
    }
    sleep(std::time::Duration::from_secs(1)).await;
    // What is read while so many others are only open is read over all its streams.
    let last = file(970);
    let chunks = (0..4).map(|chunk| fetch(&link, &last, chunk, 0..4, false));
    assert!(within(futures_util::future::join_all(chunks)).await.iter().all(Result::is_ok));
    sleep(std::time::Duration::from_secs(1)).await;
    (1..=970).for_each(|number| owner.remove(&format!("f{number}")));
    assert_eq!(within(fetch(&link, &file(1), 5, 0..1, false)).await, Err(FetchError::Gone));
    for number in [100, 500, 970] {
        assert!(within(fetch(&link, &file(number), 5, 0..1, false)).await.is_ok(), "file {number}");
    }
}
