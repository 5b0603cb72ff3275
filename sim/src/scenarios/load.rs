//! Many at once.

use super::{PIECE, Scenario, chunks, far, millis, secs, with_reader};
use crate::folder::SimFolder;
use crate::history::History;
use crate::world::Setup;
use farshore_engine::{Config, Request};
use futures_util::future::join_all;
use tokio::time::Instant;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "many-readers",
        about: "32 readers of 8 files at once, each byte fetched once",
        run: many_readers,
    },
    Scenario { name: "whole-files", about: "twelve whole files at once", run: whole_files },
    Scenario {
        name: "changed-mind",
        about: "files are closed while they come; what comes too late is dropped",
        run: changed_mind,
    },
];

fn many_readers(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| (0..8).for_each(|file| folder.write(&format!("f{file}"), chunks(6) + file));
    with_reader(far(seed, millis(10)), history, prepare, |stage| async move {
        stage.listed().await;
        let readers = (0..32u64).map(|reader| {
            let stage = stage.clone();
            async move {
                let file = stage.open(&format!("f{}", reader % 8));
                let read = match reader % 3 {
                    0 => stage.kernel.read_to_end(file, PIECE).await,
                    1 => stage.kernel.read_to_end(file, 1024 * 1024).await,
                    _ => stage.kernel.read_to_end(file, 50_001).await,
                };
                assert_eq!(read, Ok(chunks(6) + reader % 8));
                stage.kernel.release(file);
            }
        });
        join_all(readers).await;
        let all: u64 = (0..8).map(|file| chunks(6) + file).sum();
        assert_eq!(stage.fetched(), all, "a byte was fetched twice");
        assert_eq!(stage.folder.served().bytes, all, "a byte was served twice");
        stage.end().await;
    })
}

fn whole_files(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| (0..12).for_each(|file| folder.write(&format!("f{file}"), chunks(4) + file));
    with_reader(far(seed, millis(10)), history, prepare, |stage| async move {
        stage.listed().await;
        let fetches = (0..12u64).map(|number| {
            let stage = stage.clone();
            async move {
                let file = stage.open(&format!("f{number}"));
                assert!(stage.kernel.fetch_all(file).await.is_ok());
                let here = stage.read(file, 0, chunks(4) + number).await;
                assert!(here.took.is_zero(), "a file that was fetched whole is here");
                stage.kernel.release(file);
            }
        });
        let began = Instant::now();
        join_all(fetches).await;
        assert!(began.elapsed() < secs(2), "12 small files took {:?}", began.elapsed());
        assert_eq!(stage.store.writes(), 12 * 5 - 1, "each chunk is stored once; one file is four chunks sharp");
        stage.end().await;
    })
}

fn changed_mind(seed: u64, history: &History) -> Result<(), String> {
    let config = Config { read_ahead_chunks: 0, ..Config::default() };
    let setup = Setup { config, ..far(seed, millis(20)) };
    with_reader(
        setup,
        history,
        |folder| folder.write("f", chunks(40)),
        |stage| async move {
            stage.listed().await;
            for round in 0..5 {
                let file = stage.open("f");
                for chunk in 0..8 {
                    let (handle, offset) = (file.handle, chunks(8 * round + chunk));
                    stage.kernel.node().ask(Request::Read { handle, offset, len: PIECE }, |_| {});
                }
                tokio::time::sleep(millis(30)).await;
                stage.kernel.release(file);
            }
            tokio::time::sleep(secs(1)).await;
            assert_eq!(stage.kernel.node().held_frames(), 0, "frames that nobody waits for");
            assert_eq!(stage.kernel.read_file("f", PIECE).await, Ok(chunks(40)));
            stage.end().await;
        },
    )
}
