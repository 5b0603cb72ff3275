//! The network fails, and comes back or does not.

use super::{PIECE, Scenario, chunks, far, millis, secs, with_reader};
use crate::history::History;
use crate::world::{Fault, Setup};
use farshore_engine::{Config, Errno, Notice, OnDisconnect};
use std::time::Duration;
use tokio::time::Instant;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "partition",
        about: "a read waits while the link is cut and goes on where it stood, no byte twice",
        run: partition,
    },
    Scenario { name: "blink", about: "a cut too short to be noticed loses what was on its way", run: blink },
    Scenario { name: "held", about: "a link that holds everything for longer than the keep-alive", run: held },
    Scenario { name: "flapping", about: "a link that comes and goes ten times", run: flapping },
    Scenario { name: "lossy", about: "a link that breaks at random", run: lossy },
    Scenario {
        name: "stays-down",
        about: "EIO at the deadline and not later; what is here is served",
        run: stays_down,
    },
    Scenario { name: "fail-at-once", about: "EIO at once while the peer is known to be away", run: fail_at_once },
    Scenario { name: "distance", about: "throughput does not fall with the round trip", run: distance },
    Scenario { name: "narrow", about: "a read on a narrow link waits for its bytes and no others", run: narrow },
];

fn partition(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        far(seed, millis(10)),
        history,
        |folder| folder.write("f", chunks(64)),
        |stage| async move {
            stage.listed().await;
            let lost = stage.count(|notice| matches!(notice, Notice::LinkDown { .. }));
            let file = stage.open("f");
            stage.net.line.set_bytes_per_ms(20_000);
            // A whole file is asked for, so that much is on its way when the link is cut.
            let fetching = tokio::task::spawn_local({
                let stage = stage.clone();
                async move { stage.kernel.fetch_all(file).await }
            });
            stage.until("a part of the file", secs(5), || stage.fetched() > chunks(10)).await;
            stage.net.bring(Fault::Partition).await;
            let stood = stage.fetched();
            assert!(stood < chunks(64), "all of it came before the link was cut");
            let waiting = tokio::task::spawn_local({
                let stage = stage.clone();
                async move { stage.read(file, chunks(63), 4_096).await.took }
            });
            tokio::time::sleep(secs(12)).await;
            assert_eq!(lost.get(), 1, "the cut is noticed by the keep-alive");
            assert_eq!(stage.fetched(), stood);
            stage.net.bring(Fault::Repair).await;
            let took = waiting.await.unwrap();
            assert!(secs(12) <= took && took < secs(20), "the read waited {took:?}");
            assert!(fetching.await.unwrap().is_ok(), "the whole-file fetch survives a cut");
            assert_eq!(stage.read_to_end(file).await, chunks(64));
            assert_eq!(stage.fetched(), chunks(64), "a byte was fetched twice");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn blink(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        far(seed, millis(10)),
        history,
        |folder| folder.write("f", chunks(64)),
        |stage| async move {
            stage.listed().await;
            let file = stage.open("f");
            let reading = tokio::task::spawn_local({
                let stage = stage.clone();
                async move { stage.read_to_end(file).await }
            });
            stage.until("a part of the file", secs(5), || stage.fetched() > chunks(4)).await;
            stage.net.bring(Fault::Partition).await;
            stage.net.bring(Fault::Repair).await;
            assert_eq!(reading.await.unwrap(), chunks(64));
            assert_eq!(stage.fetched(), chunks(64), "a byte was fetched twice");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn held(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        far(seed, millis(5)),
        history,
        |folder| folder.write("f", chunks(40)),
        |stage| async move {
            stage.listed().await;
            let lost = stage.count(|notice| matches!(notice, Notice::LinkDown { .. }));
            let file = stage.open("f");
            stage.read(file, 0, chunks(1)).await;
            stage.net.bring(Fault::Hold).await;
            let waiting = tokio::task::spawn_local({
                let stage = stage.clone();
                async move { stage.read(file, chunks(20), chunks(1)).await.took }
            });
            tokio::time::sleep(secs(20)).await;
            assert_eq!(lost.get(), 1, "silence is noticed");
            // Everything that was held arrives now, also on the connection that was given up.
            stage.net.bring(Fault::Release).await;
            let took = waiting.await.unwrap();
            assert!(secs(20) <= took && took < secs(27), "the read waited {took:?}");
            assert_eq!(stage.read_to_end(file).await, chunks(40));
            assert_eq!(stage.fetched(), chunks(40), "a byte was fetched twice");
            assert_eq!(lost.get(), 1, "the new connection stays");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn flapping(seed: u64, history: &History) -> Result<(), String> {
    let config = Config { read_timeout: secs(60), ..Config::default() };
    let setup = Setup { config, ..far(seed, millis(10)) };
    with_reader(
        setup,
        history,
        |folder| folder.write("f", chunks(200)),
        |stage| async move {
            stage.listed().await;
            let file = stage.open("f");
            stage.net.line.set_bytes_per_ms(1_000);
            let reading = tokio::task::spawn_local({
                let stage = stage.clone();
                async move { stage.read_to_end(file).await }
            });
            for _ in 0..10 {
                tokio::time::sleep(secs(7)).await;
                stage.net.bring(Fault::Partition).await;
                tokio::time::sleep(secs(6)).await;
                stage.net.bring(Fault::Repair).await;
            }
            assert_eq!(reading.await.unwrap(), chunks(200));
            assert_eq!(stage.fetched(), chunks(200), "a byte was fetched twice");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn lossy(seed: u64, history: &History) -> Result<(), String> {
    let config = Config { read_timeout: secs(120), ..Config::default() };
    let setup = Setup { config, latency: (millis(1), millis(20)), ..Setup::new(seed) };
    with_reader(
        setup,
        history,
        |folder| folder.write("f", chunks(48)),
        |stage| async move {
            stage.listed().await;
            let file = stage.open("f");
            stage.net.bring(Fault::Flaky(1)).await;
            let mut at = 0;
            let began = Instant::now();
            while began.elapsed() < secs(100) && at < chunks(48) {
                at += stage.read(file, at, chunks(1)).await.len;
            }
            stage.net.bring(Fault::Flaky(0)).await;
            stage.net.bring(Fault::Repair).await;
            assert_eq!(stage.read_to_end(file).await, chunks(48));
            assert_eq!(stage.fetched(), chunks(48), "a byte was fetched twice");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn stays_down(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        Setup::new(seed),
        history,
        |folder| folder.write("f", chunks(64)),
        |stage| async move {
            stage.listed().await;
            let file = stage.open("f");
            stage.read(file, 0, chunks(2)).await;
            stage.net.bring(Fault::Partition).await;
            for chunk in [50, 51] {
                let asked_at = Instant::now();
                let failed = stage.kernel.read(file, chunks(chunk), PIECE).await;
                assert_eq!(failed.unwrap_err(), Errno::Io);
                let took = asked_at.elapsed();
                assert!(secs(30) <= took && took <= secs(30) + millis(2), "EIO after {took:?}");
            }
            let here = stage.read(file, 1_000, chunks(2) - 1_000).await;
            assert_eq!(here.took, Duration::ZERO, "what is here is served at once");
            assert_eq!(stage.kernel.lookup("nothing").unwrap_err(), Errno::NoEntry);
            stage.net.bring(Fault::Repair).await;
            assert_eq!(stage.read_to_end(file).await, chunks(64), "it carries on by itself");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn fail_at_once(seed: u64, history: &History) -> Result<(), String> {
    let config = Config { on_disconnect: OnDisconnect::Fail, ..Config::default() };
    let setup = Setup { config, ..Setup::new(seed) };
    with_reader(
        setup,
        history,
        |folder| folder.write("f", chunks(64)),
        |stage| async move {
            stage.listed().await;
            let lost = stage.count(|notice| matches!(notice, Notice::LinkDown { .. }));
            let file = stage.open("f");
            stage.read(file, 0, chunks(2)).await;
            stage.net.bring(Fault::Partition).await;
            let asked_at = Instant::now();
            // It fails when the silence is noticed, not at its own deadline.
            assert_eq!(stage.kernel.read(file, chunks(50), PIECE).await.unwrap_err(), Errno::Io);
            assert!(asked_at.elapsed() <= secs(12), "EIO after {:?}", asked_at.elapsed());
            assert_eq!(lost.get(), 1);
            let asked_at = Instant::now();
            assert_eq!(stage.kernel.read(file, chunks(51), PIECE).await.unwrap_err(), Errno::Io);
            assert_eq!(asked_at.elapsed(), Duration::ZERO, "it is known to be away");
            assert_eq!(stage.read(file, 0, chunks(2)).await.took, Duration::ZERO, "what is here is served");
            stage.net.bring(Fault::Repair).await;
            stage
                .until("the connection", secs(20), || {
                    stage
                        .kernel
                        .node()
                        .view(|view| view.peers().all(|peer| matches!(peer.link, farshore_engine::Link::Up(_))))
                })
                .await;
            assert_eq!(stage.read_to_end(file).await, chunks(64), "it carries on by itself");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn distance(seed: u64, history: &History) -> Result<(), String> {
    let round_trip = millis(100);
    with_reader(
        far(seed, round_trip / 2),
        history,
        |folder| folder.write("f", chunks(128)),
        move |stage| async move {
            stage.listed().await;
            let file = stage.open("f");
            let began = Instant::now();
            let reads = (0..64).map(|chunk| stage.read(file, chunks(chunk), chunks(1)));
            futures_util::future::join_all(reads).await;
            let took = began.elapsed();
            assert!(took <= round_trip * 3, "64 chunks at once took {took:?}, at a round trip of {round_trip:?}");
            // One after the other, as `cp` does: read-ahead has to hide the distance.
            let began = Instant::now();
            for chunk in 64..128 {
                stage.read(file, chunks(chunk), chunks(1)).await;
            }
            let took = began.elapsed();
            assert!(took <= round_trip * 8, "64 chunks in a row took {took:?}, at a round trip of {round_trip:?}");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn narrow(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        far(seed, millis(5)),
        history,
        |folder| folder.write("f", chunks(20)),
        |stage| async move {
            stage.listed().await;
            stage.net.line.set_bytes_per_ms(1_000);
            let file = stage.open("f");
            // One frame takes 131 ms, the chunk that it is in 524.
            let took = stage.read(file, chunks(7), 4_096).await.took;
            assert!(took < millis(220), "4 KiB took {took:?}");
            // The rest of that chunk is on its way and gives way to whom somebody waits for.
            let took = stage.read(file, chunks(13) + 300_000, 4_096).await.took;
            assert!(took < millis(420), "4 KiB took {took:?} while another chunk came");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}
