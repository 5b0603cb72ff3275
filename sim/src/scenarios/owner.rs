//! The owner goes away, and comes back as a new process with a new epoch.

use super::{PIECE, Scenario, chunks, far, millis, secs, with_reader};
use crate::history::History;
use crate::world::{Fault, Setup, Stage};
use farshore_engine::{Config, Errno, Notice};
use std::time::Duration;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "crash-unchanged",
        about: "the owner restarts with the same files: nothing is fetched twice",
        run: crash_unchanged,
    },
    Scenario {
        name: "crash-changed",
        about: "the owner restarts with other files: new bytes, never a mix",
        run: crash_changed,
    },
    Scenario {
        name: "power-cut",
        about: "the owner's machine dies without a word in the middle of a read",
        run: power_cut,
    },
    Scenario { name: "crash-loop", about: "the owner crashes five times in the middle of a file", run: crash_loop },
];

/// Nothing is fetched that nobody asked for, so that bytes can be counted.
fn no_read_ahead(seed: u64) -> Setup {
    Setup { config: Config { read_ahead_chunks: 0, ..Config::default() }, ..far(seed, millis(5)) }
}

async fn crash(stage: &Stage, fault: Fault) {
    let listed = stage.count(|notice| matches!(notice, Notice::Listed { .. }));
    stage.net.bring(fault).await;
    tokio::time::sleep(secs(3)).await;
    stage.net.bring(Fault::Restart).await;
    stage.until("a new listing", secs(40), || listed.get() > 0).await;
}

fn crash_unchanged(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        no_read_ahead(seed),
        history,
        |folder| folder.write("f", chunks(32)),
        |stage| async move {
            stage.listed().await;
            let file = stage.open("f");
            for chunk in (0..32).step_by(2) {
                stage.read(file, chunks(chunk), chunks(1)).await;
            }
            crash(&stage, Fault::Crash).await;
            let cached = stage.read(file, chunks(4), chunks(1)).await;
            assert_eq!(cached.took, Duration::ZERO, "what was fetched before stays valid");
            assert_eq!(stage.read_to_end(file).await, chunks(32));
            assert_eq!(stage.fetched(), chunks(32), "a byte was fetched twice");
            assert_eq!(stage.folder.served().bytes, chunks(32), "a byte was served twice");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn crash_changed(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &crate::folder::SimFolder| {
        folder.write("f", chunks(16));
        folder.write("same-size", chunks(4));
        folder.write("gone", chunks(2));
        folder.write("untouched", chunks(2));
    };
    with_reader(no_read_ahead(seed), history, prepare, |stage| async move {
        stage.listed().await;
        let (file, same, gone, kept) =
            (stage.open("f"), stage.open("same-size"), stage.open("gone"), stage.open("untouched"));
        stage.read(file, 0, chunks(8)).await;
        stage.read(same, 0, chunks(4)).await;
        stage.read(gone, 0, chunks(1)).await;
        stage.read(kept, 0, chunks(2)).await;
        stage.net.bring(Fault::Crash).await;
        stage.folder.write("f", chunks(16) + 77);
        stage.folder.edit_in_secret("same-size");
        stage.folder.remove("gone");
        crash(&stage, Fault::Crash).await;
        let new = stage.read(file, 0, chunks(2)).await;
        assert_eq!(new.version.text.version, 1, "an open file shows its new bytes");
        assert_eq!(stage.read_to_end(file).await, chunks(16) + 77);
        assert_eq!(stage.read(same, 0, chunks(4)).await.version.text.version, 1, "only the time of the inode told");
        let old = stage.read(gone, 0, chunks(1)).await;
        assert_eq!(old.took, Duration::ZERO, "what is here of a removed file can be read");
        let missing = stage.kernel.read(gone, chunks(1), PIECE).await;
        assert_eq!(missing.unwrap_err(), Errno::Stale, "and the rest is an error");
        assert_eq!(stage.kernel.lookup("gone").unwrap_err(), Errno::NoEntry);
        let fetched = stage.fetched();
        stage.read(kept, 0, chunks(2)).await;
        assert_eq!(stage.fetched(), fetched, "what did not change was fetched again");
        stage.agreed(secs(1)).await;
        for open in [file, same, gone, kept] {
            stage.kernel.release(open);
        }
        stage.end().await;
    })
}

fn power_cut(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        no_read_ahead(seed),
        history,
        |folder| folder.write("f", chunks(16)),
        |stage| async move {
            stage.listed().await;
            let file = stage.open("f");
            stage.read(file, 0, chunks(4)).await;
            stage.net.bring(Fault::PowerCut).await;
            let waiting = tokio::task::spawn_local({
                let stage = stage.clone();
                async move { stage.read(file, chunks(10), chunks(2)).await.took }
            });
            tokio::time::sleep(secs(8)).await;
            stage.net.bring(Fault::Restart).await;
            let took = waiting.await.unwrap();
            assert!(secs(8) <= took && took < secs(20), "the read waited {took:?}");
            assert_eq!(stage.read_to_end(file).await, chunks(16));
            assert_eq!(stage.fetched(), chunks(16), "a byte was fetched twice");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn crash_loop(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        Setup::new(seed),
        history,
        |folder| folder.write("f", chunks(64)),
        |stage| async move {
            stage.listed().await;
            stage.net.line.set_bytes_per_ms(4_000);
            let file = stage.open("f");
            let reading = tokio::task::spawn_local({
                let stage = stage.clone();
                async move { stage.read_to_end(file).await }
            });
            for _ in 0..5 {
                tokio::time::sleep(secs(1)).await;
                stage.net.bring(Fault::Crash).await;
                tokio::time::sleep(millis(500)).await;
                stage.net.bring(Fault::Restart).await;
            }
            assert_eq!(reading.await.unwrap(), chunks(64));
            assert_eq!(stage.fetched(), chunks(64), "a byte was fetched twice");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}
