//! The reader's process ends, well or not, and the next one goes on with what is on its disk.

use super::{PIECE, Scenario, chunks, millis, secs, with_reader};
use crate::folder::{SimFolder, path};
use crate::history::History;
use crate::lots::Lots;
use crate::world::{Fault, Setup, Stage};
use farshore_engine::Config;
use farshore_engine::chunk::CHUNK_SIZE;
use std::time::Duration;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "ten-crashes",
        about: "the reader crashes ten times in the middle of a file: little is fetched twice",
        run: ten_crashes,
    },
    Scenario {
        name: "clean-stop",
        about: "the reader is stopped and starts again: nothing is fetched or verified again",
        run: clean_stop,
    },
    Scenario {
        name: "damaged",
        about: "a loss of power damages what was saved: that is found, and fetched again",
        run: damaged,
    },
    Scenario {
        name: "edited-while-down",
        about: "one chunk is edited while the reader is down: only that one is fetched",
        run: edited_while_down,
    },
    Scenario {
        name: "edited-while-open",
        about: "one chunk is edited while the file is open: only that one is fetched",
        run: edited_while_open,
    },
    Scenario {
        name: "small-cache",
        about: "a limit of what is kept holds under load, and after restarts",
        run: small_cache,
    },
    Scenario {
        name: "full-then-room",
        about: "the disk is full over a restart, and then there is room",
        run: full_then_room,
    },
    Scenario {
        name: "pinned",
        about: "a pinned directory is fetched, and stays readable while the owner is away and after a crash",
        run: pinned,
    },
];

impl Stage {
    /// Stops the process as it should be.
    async fn shut_down(&self) {
        self.kernel.node().shut_down().await;
    }

    /// Waits until nothing is unsaved.
    async fn saved(&self) {
        tokio::time::sleep(Config::default().save_interval * 2).await;
    }

    /// What this process has found in its store.
    fn resumed(&self) -> u64 {
        self.kernel.node().view(|view| view.totals().resumed_bytes)
    }
}

/// Nothing is fetched that nobody asked for, so that bytes can be counted.
fn no_read_ahead(seed: u64) -> Setup {
    Setup { config: Config { read_ahead_chunks: 0, ..Config::default() }, ..Setup::new(seed) }
}

fn ten_crashes(seed: u64, history: &History) -> Result<(), String> {
    const CHUNKS: u64 = 600;
    /// The file takes 105 seconds. A crash costs what has come since the last save, about half a second of that, and the
    /// chunks that are on their way, of which each stream has one.
    const BYTES_PER_MS: u64 = 3_000;
    let counted = history.clone();
    let prepare = |folder: &SimFolder| folder.write("f", chunks(CHUNKS));
    with_reader(Setup::new(seed), history, prepare, move |stage| {
        let history = counted.clone();
        async move {
            stage.net.line.set_bytes_per_ms(BYTES_PER_MS);
            stage.listed().await;
            let file = stage.open("f");
            if stage.life <= 10 {
                let mut lots = Lots::new(seed ^ stage.life);
                let crash = async {
                    tokio::time::sleep(lots.millis(1_000..=6_000)).await;
                    stage.net.restart(Fault::End).await;
                };
                let ((), read) = tokio::join!(crash, stage.read_to_end(file));
                unreachable!("a crash ends this: {read} bytes were read");
            }
            assert_eq!(stage.read_to_end(file).await, chunks(CHUNKS));
            let (tally, size) = (history.tally(), chunks(CHUNKS));
            assert_eq!(tally.lives, 11);
            assert!(tally.fetched_bytes * 10 < size * 11, "{} bytes were fetched of {size}", tally.fetched_bytes);
            assert!(tally.resumed_bytes > 0 && tally.damaged_chunks == 0);
            stage.kernel.release(file);
            stage.end().await;
        }
    })
}

fn clean_stop(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| folder.write("f", chunks(20) + 5);
    with_reader(no_read_ahead(seed), history, prepare, |stage| async move {
        stage.listed().await;
        let file = stage.open("f");
        if stage.life == 1 {
            assert_eq!(stage.read_to_end(file).await, chunks(20) + 5);
            stage.shut_down().await;
            stage.net.restart(Fault::End).await;
        }
        let served = stage.folder.served().bytes;
        let first = stage.read(file, 0, 1).await;
        assert!(first.took < secs(1), "it was opened in {:?}", first.took);
        let rest = stage.read(file, 0, chunks(20) + 5).await;
        assert_eq!(rest.took, Duration::ZERO, "all of it is believed at once");
        assert_eq!((stage.fetched(), stage.resumed()), (0, chunks(20) + 5));
        assert_eq!(stage.folder.served().bytes, served, "the owner was asked for something");
        stage.kernel.release(file);
        stage.end().await;
    })
}

fn damaged(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| folder.write("f", chunks(12));
    with_reader(no_read_ahead(seed), history, prepare, |stage| async move {
        stage.listed().await;
        let file = stage.open("f");
        if stage.life == 1 {
            assert_eq!(stage.read_to_end(file).await, chunks(12));
            stage.saved().await;
            stage.net.restart(Fault::CutPower).await;
        }
        assert_eq!(stage.read_to_end(file).await, chunks(12));
        assert_eq!((stage.fetched(), stage.resumed()), (chunks(1), chunks(11)));
        stage.kernel.release(file);
        stage.end().await;
    })
}

fn edited_while_down(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| folder.write("f", chunks(24) + 100);
    with_reader(no_read_ahead(seed), history, prepare, |stage| async move {
        stage.listed().await;
        let file = stage.open("f");
        if stage.life == 1 {
            assert_eq!(stage.read_to_end(file).await, chunks(24) + 100);
            stage.shut_down().await;
            stage.folder.edit_chunk("f", 7, chunks(24) + 100);
            stage.net.restart(Fault::End).await;
        }
        stage.agreed(secs(5)).await;
        assert_eq!(stage.read_to_end(file).await, chunks(24) + 100);
        assert_eq!((stage.fetched(), stage.resumed()), (chunks(1), chunks(23) + 100));
        stage.kernel.release(file);
        stage.end().await;
    })
}

fn edited_while_open(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| folder.write("f", chunks(24));
    with_reader(no_read_ahead(seed), history, prepare, |stage| async move {
        stage.listed().await;
        let file = stage.open("f");
        assert_eq!(stage.read_to_end(file).await, chunks(24));
        stage.saved().await;
        // It grows: what was its last chunk is whole, and stays.
        stage.folder.edit_chunk("f", 3, chunks(25));
        stage.agreed(secs(1)).await;
        assert_eq!(stage.read_to_end(file).await, chunks(25));
        assert_eq!((stage.fetched(), stage.resumed()), (chunks(24) + chunks(2), chunks(23)));
        stage.kernel.release(file);
        stage.end().await;
    })
}

fn small_cache(seed: u64, history: &History) -> Result<(), String> {
    const LIMIT: u64 = 10 * CHUNK_SIZE;
    const FILES: u64 = 12;
    let setup = no_read_ahead(seed);
    let setup = Setup { config: Config { cache_bytes: Some(LIMIT), ..setup.config }, ..setup };
    let prepare = |folder: &SimFolder| (0..FILES).for_each(|file| folder.write(&format!("f{file}"), chunks(3)));
    with_reader(setup, history, prepare, |stage| async move {
        stage.listed().await;
        for round in 0..3 {
            for file in 0..FILES {
                let name = format!("f{}", (file * 5 + round) % FILES);
                assert_eq!(stage.kernel.read_file(&name, PIECE).await, Ok(chunks(3)));
                let stored_bytes = stage.kernel.node().view(|view| view.stored_bytes());
                assert!(stored_bytes <= LIMIT, "{stored_bytes} bytes are kept");
            }
            // What is being saved goes when that has ended.
            stage.until("what may be kept", secs(1), || stage.store.used_bytes() <= LIMIT).await;
        }
        // What was read last is here.
        let last = stage.open(&format!("f{}", ((FILES - 1) * 5 + 2) % FILES));
        let before = stage.fetched();
        assert_eq!(stage.read_to_end(last).await, chunks(3));
        assert_eq!(stage.fetched(), before);
        stage.kernel.release(last);
        if stage.life <= 2 {
            stage.saved().await;
            stage.net.restart(Fault::End).await;
        }
        stage.end().await;
    })
}

fn full_then_room(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| folder.write("f", chunks(16));
    with_reader(no_read_ahead(seed), history, prepare, |stage| async move {
        stage.listed().await;
        let file = stage.open("f");
        if stage.life == 1 {
            stage.read(file, 0, chunks(4)).await;
            stage.saved().await;
            stage.store.set_full(true);
            assert_eq!(stage.read_to_end(file).await, chunks(16), "reading needs no room");
            stage.net.restart(Fault::End).await;
        }
        assert_eq!(stage.read_to_end(file).await, chunks(16), "nor does it after a crash");
        let saved = if stage.life == 2 { 4 } else { 16 };
        assert_eq!(stage.resumed(), chunks(saved), "what was saved before is there");
        stage.store.set_full(false);
        assert!(stage.kernel.fetch_all(file).await.is_ok());
        stage.saved().await;
        if stage.life == 2 {
            stage.net.restart(Fault::End).await;
        }
        stage.kernel.release(file);
        stage.end().await;
    })
}

fn pinned(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| {
        folder.make_dir("d");
        folder.make_dir("d/e");
        folder.write("d/f", chunks(6));
        folder.write("d/e/g", chunks(3) + 9);
        folder.write("other", chunks(8));
    };
    // There is no room for more than what is pinned.
    let config = Config { cache_bytes: Some(chunks(10)), read_timeout: secs(5), ..Config::default() };
    with_reader(Setup { config, ..Setup::new(seed) }, history, prepare, |stage| async move {
        stage.listed().await;
        if stage.life == 1 {
            assert_eq!(stage.kernel.pin(path("d")), Ok(()));
            // What is made in it later is pinned too.
            stage.folder.write("d/new", chunks(1));
            let whole = chunks(10) + 9;
            stage.until("all that is pinned", secs(10), || stage.store.used_bytes() >= whole).await;
            assert_eq!(stage.kernel.read_file("other", PIECE).await, Ok(chunks(8)));
            assert_eq!(stage.kernel.evict(path("d")), Ok(0), "what is pinned does not go");
            stage.saved().await;
            stage.net.bring(Fault::Partition).await;
            tokio::time::sleep(secs(12)).await;
        }
        let before = stage.fetched();
        for (name, size) in [("d/f", chunks(6)), ("d/e/g", chunks(3) + 9), ("d/new", chunks(1))] {
            assert_eq!(stage.kernel.read_file(name, PIECE).await, Ok(size), "{name}");
        }
        assert_eq!(stage.fetched(), before);
        assert_eq!(stage.kernel.node().view(|view| view.pins().count()), 1);
        if stage.life == 1 {
            assert!(stage.kernel.read_file("other", PIECE).await.is_err(), "there was no room for it");
            stage.net.bring(Fault::Repair).await;
            tokio::time::sleep(millis(100)).await;
            stage.net.restart(Fault::End).await;
        }
        assert_eq!(stage.kernel.unpin(path("d")), Ok(()));
        assert!(stage.kernel.evict(path("d")).is_ok_and(|freed_bytes| freed_bytes > 0));
        stage.end().await;
    })
}
