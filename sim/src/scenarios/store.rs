//! The reader's disk is full, slow or broken.

use super::{PIECE, Scenario, chunks, far, millis, secs, with_reader};
use crate::history::History;
use crate::world::Setup;
use farshore_engine::{Notice, StoreError};

pub(super) const ALL: &[Scenario] = &[
    Scenario { name: "full", about: "a full disk delays what is kept, not what is read", run: full },
    Scenario { name: "broken", about: "a disk that fails, and then does not", run: broken },
    Scenario {
        name: "slow-disk",
        about: "a slow disk: reads are answered from memory, which stays bounded",
        run: slow,
    },
    Scenario { name: "swamped", about: "a disk that cannot keep up does not fill the memory", run: swamped },
];

/// Frames that may be in memory at once: what nobody waits for yet is at most 32 MiB, and each read has its own.
const MAX_FRAMES: usize = 300;

fn full(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        far(seed, millis(5)),
        history,
        |folder| folder.write("f", chunks(32)),
        |stage| async move {
            stage.listed().await;
            let refused = stage.count(|n| matches!(n, Notice::StoreFailed { error: StoreError::NoSpace, .. }));
            stage.store.set_full(true);
            let file = stage.open("f");
            assert_eq!(stage.read_to_end(file).await, chunks(32), "reading needs no disk");
            assert!(refused.get() >= 32 && stage.store.writes() == 0);
            // What has come for a read is kept until all of it has, be there room or not. The narrow link sees to it that the
            // three chunks do not come at once.
            stage.net.line.set_bytes_per_ms(5_000);
            assert!(stage.read(file, chunks(18), chunks(3)).await.took < secs(1), "a read of three chunks");
            stage.net.line.set_bytes_per_ms(0);
            stage.until("empty memory", secs(6), || stage.kernel.node().held_frames() == 0).await;
            // Who wants to keep the file waits until there is room.
            let keeping = tokio::task::spawn_local({
                let stage = stage.clone();
                async move { stage.kernel.fetch_all(file).await }
            });
            tokio::time::sleep(secs(8)).await;
            assert!(!keeping.is_finished());
            assert!(stage.kernel.node().held_frames() <= MAX_FRAMES, "{}", stage.kernel.node().held_frames());
            stage.store.set_full(false);
            assert!(keeping.await.unwrap().is_ok());
            assert_eq!(stage.store.writes(), 32);
            let here = stage.read(file, 0, chunks(32)).await;
            assert!(here.took.is_zero());
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn broken(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        Setup::new(seed),
        history,
        |folder| folder.write("f", chunks(8)),
        |stage| async move {
            stage.listed().await;
            let refused = stage.count(|n| matches!(n, Notice::StoreFailed { error: StoreError::Io, .. }));
            stage.store.set_failing(true);
            assert_eq!(stage.kernel.read_file("f", PIECE).await, Ok(chunks(8)));
            tokio::time::sleep(millis(10)).await;
            assert!(refused.get() >= 8);
            stage.store.set_failing(false);
            assert_eq!(stage.kernel.read_file("f", PIECE).await, Ok(chunks(8)));
            let file = stage.open("f");
            stage.until("all chunks stored", secs(1), || stage.store.writes() == 8).await;
            assert!(stage.read(file, 0, chunks(8)).await.took.is_zero());
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn swamped(seed: u64, history: &History) -> Result<(), String> {
    const CHUNKS: u64 = 600;
    with_reader(
        far(seed, millis(5)),
        history,
        |folder| folder.write("f", chunks(CHUNKS)),
        |stage| async move {
            stage.listed().await;
            stage.store.set_delay(secs(20));
            let file = stage.open("f");
            let (mut at, mut most) = (0, 0);
            while at < chunks(CHUNKS) {
                at += stage.read(file, at, 1024 * 1024).await.len;
                most = most.max(stage.kernel.node().held_frames());
            }
            assert!(most <= 2 * MAX_FRAMES, "{most} frames were in memory");
            stage.store.set_delay(millis(0));
            stage.until("empty memory", secs(30), || stage.kernel.node().held_frames() == 0).await;
            assert_eq!(stage.read_to_end(file).await, chunks(CHUNKS));
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn slow(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        far(seed, millis(5)),
        history,
        |folder| folder.write("f", chunks(128)),
        |stage| async move {
            stage.listed().await;
            stage.store.set_delay(millis(200));
            let file = stage.open("f");
            assert!(stage.read(file, 0, 4_096).await.took < millis(50), "an answer does not wait for the disk");
            let mut at = 0;
            let mut most = 0;
            while at < chunks(128) {
                at += stage.read(file, at, u64::from(PIECE)).await.len;
                most = most.max(stage.kernel.node().held_frames());
            }
            // And for each round trip within the disk's 200 ms, one chunk that somebody waited for.
            assert!(most <= MAX_FRAMES + 100, "{most} frames were in memory");
            stage.until("empty memory", secs(2), || stage.kernel.node().held_frames() == 0).await;
            assert_eq!(stage.fetched(), chunks(128), "a byte was fetched twice");
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}
