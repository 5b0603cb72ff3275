//! Who may be called over a connection that it made for that, and for how long.

use crate::memory::{Memory, OWNER, READER, Wire, within};
use crate::owner::{Owner, Running, dial, hello, start, until};
use farshore::net::transport::Role;
use farshore::net::{Callbacks, Link};
use farshore_engine::{DialError, PeerFault, PeerId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// An owner who wants to call back, and how often it heard that it can.
async fn calling() -> (Running, Arc<Callbacks>, Arc<AtomicUsize>) {
    let told = Arc::<AtomicUsize>::default();
    let counted = told.clone();
    let callbacks = Arc::new(Callbacks::new(move |_, _| {
        counted.fetch_add(1, Ordering::AcqRel);
    }));
    (start(Owner::calling(Some(callbacks.clone()))).await, callbacks, told)
}

/// A second connection, over which the caller can be called.
fn offer(network: &Memory) -> Wire {
    network.dial("owner", Role::Server).unwrap()
}

/// Waits until the wire has ended, and tells how long that took.
async fn end_of(wire: &mut Wire) -> Duration {
    let began = Instant::now();
    let mut rest = Vec::new();
    // Closed or reset: it has ended.
    let _ended = within(wire.read_to_end(&mut rest)).await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn an_owner_says_whether_it_calls_back() {
    let (running, _callbacks, _) = calling().await;
    assert!(dial(&running.network).await.unwrap().welcome().calls_back);
    let running = start(Owner::new()).await;
    assert!(!dial(&running.network).await.unwrap().welcome().calls_back);
}

/// To be called is the only way in which somebody could change what an owner has.
#[tokio::test(start_paused = true)]
async fn who_offers_changes_to_an_owner_who_wants_none_is_cut_off_and_kept_out_for_a_while() {
    let owner = Owner::new();
    let running = start(owner.clone()).await;
    let faults = || owner.faults.lock().unwrap().clone();
    let other = dial(&running.network.of(PeerId([9; 32]))).await.unwrap();
    for times in 1..=2 {
        let links = [dial(&running.network).await.unwrap(), dial(&running.network).await.unwrap()];
        let fault = (READER, PeerFault::MayOnlyRead);
        assert!(end_of(&mut offer(&running.network)).await < Duration::from_secs(1));
        assert_eq!(faults(), vec![fault; times]);
        for link in &links {
            within(link.closed()).await;
        }
        // It may come again at once, and again, and is heard no more for all that.
        for _ in 0..200 {
            assert!(end_of(&mut offer(&running.network)).await < Duration::from_secs(1));
            assert!(dial(&running.network).await.is_err());
        }
        assert_eq!(faults().len(), times);
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert!(tokio::time::timeout(Duration::from_secs(60), other.closed()).await.is_err(), "others stay");
    assert!(dial(&running.network).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_offers_changes_is_only_hung_up_on() {
    let owner = Owner::new();
    let running = start(owner.clone()).await;
    assert!(end_of(&mut offer(&running.network)).await < Duration::from_secs(1));
    assert!(owner.faults.lock().unwrap().is_empty());
    assert!(dial(&running.network).await.is_ok(), "it may have been an earlier life of the owner that it wanted");
}

#[tokio::test(start_paused = true)]
async fn who_was_not_let_in_is_hung_up_on_at_once_however_often_it_comes() {
    let (running, callbacks, told) = calling().await;
    let mut wires: Vec<Wire> = (0..500).map(|_| offer(&running.network)).collect();
    for wire in &mut wires {
        assert!(end_of(wire).await < Duration::from_secs(1));
    }
    // Nor does a connection without a greeting help, the greeting of another device, or one that was refused.
    let _mute = running.network.call("owner").unwrap();
    let _link = dial(&running.network.of(PeerId([9; 32]))).await.unwrap();
    let stranger = farshore_proto::Hello { secret: None, ..hello() };
    let refused = Link::dial(&running.network, &["owner".into()], OWNER, &stranger).await;
    assert_eq!(refused.err(), Some(DialError::Denied));
    assert!(end_of(&mut offer(&running.network)).await < Duration::from_secs(1));
    assert!(callbacks.take(READER).is_none());
    assert_eq!(told.load(Ordering::Acquire), 0);
}

#[tokio::test(start_paused = true)]
async fn who_was_let_in_can_be_called_over_one_connection_at_a_time() {
    let (running, callbacks, told) = calling().await;
    let link = dial(&running.network).await.unwrap();
    let mut wires: Vec<Wire> = (0..500).map(|_| offer(&running.network)).collect();
    until(|| told.load(Ordering::Acquire) == 500).await;
    let (last, older) = wires.split_last_mut().unwrap();
    for wire in older {
        assert!(end_of(wire).await < Duration::from_secs(1), "a newer one takes its place");
    }
    let mut conn = callbacks.take(READER).unwrap();
    assert!(callbacks.take(READER).is_none());
    last.write_all(b"x").await.unwrap();
    assert_eq!(within(conn.io.read_u8()).await.unwrap(), b'x');
    assert!(tokio::time::timeout(Duration::from_secs(60), link.closed()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_device_that_leaves_or_is_lost_or_dismissed_cannot_be_called_any_more() {
    for way in 0..4 {
        let (mut running, callbacks, told) = calling().await;
        let link = dial(&running.network).await.unwrap();
        let mut wire = offer(&running.network);
        until(|| told.load(Ordering::Acquire) == 1).await;
        let mut taken = callbacks.take(READER).unwrap();
        match way {
            0 => link.say_goodbye().await,
            1 => link.hang_up(),
            2 => assert_eq!(running.guests.dismiss(READER), 1, "the connection that was let in"),
            _ => drop(running.stop.take()),
        }
        let began = Instant::now();
        assert!(within(taken.io.read(&mut [0])).await.is_err(), "way {way}");
        assert!(began.elapsed() < Duration::from_secs(3), "way {way}");
        drop(taken);
        end_of(&mut wire).await;
        within(link.closed()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_takes_does_not_stay() {
    let (running, callbacks, told) = calling().await;
    let _link = dial(&running.network).await.unwrap();
    let mut wire = offer(&running.network);
    until(|| told.load(Ordering::Acquire) == 1).await;
    assert!(end_of(&mut wire).await <= Duration::from_secs(11));
    assert!(callbacks.take(READER).is_none());
}

/// The older of two connections of a device is lost without a word, and only noticed later.
#[tokio::test(start_paused = true)]
async fn the_newest_greeting_counts() {
    let (running, callbacks, told) = calling().await;
    let older = dial(&running.network).await.unwrap();
    let newer = dial(&running.network).await.unwrap();
    let _wire = offer(&running.network);
    until(|| told.load(Ordering::Acquire) == 1).await;
    let mut taken = callbacks.take(READER).unwrap();
    older.hang_up();
    let ended = tokio::time::timeout(Duration::from_secs(60), taken.io.read_u8()).await;
    assert!(ended.is_err(), "it belongs to the other one");
    newer.hang_up();
    assert!(within(taken.io.read_u8()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_offers_to_be_called_and_does_not_answer_is_given_up() {
    let (running, callbacks, told) = calling().await;
    let link = dial(&running.network).await.unwrap();
    let mut wire = offer(&running.network);
    until(|| told.load(Ordering::Acquire) == 1).await;
    let began = Instant::now();
    let greeted = within(Link::over(callbacks.take(READER).unwrap(), &hello())).await;
    assert_eq!(greeted.err(), Some(DialError::Unreachable));
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(end_of(&mut wire).await < Duration::from_secs(1), "and hung up on");
    assert!(tokio::time::timeout(Duration::from_secs(60), link.closed()).await.is_err(), "its own calls go on");
}
