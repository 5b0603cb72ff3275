//! Nothing goes wrong.

use super::{PIECE, Scenario, chunks, secs, with_reader};
use crate::folder::SimFolder;
use crate::history::History;
use crate::world::{self, Setup};
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE};
use farshore_engine::{Errno, Notice};

pub(super) const ALL: &[Scenario] = &[
    Scenario { name: "sizes", about: "files of every awkward size are read whole, each byte once", run: sizes },
    Scenario { name: "two-readers", about: "two readers see the same tree and the same bytes", run: two_readers },
    Scenario { name: "idle", about: "a connection that is not used stays up", run: idle },
    Scenario { name: "probe", about: "a random probe costs no more than the chunks that it touches", run: probe },
];

fn sizes(seed: u64, history: &History) -> Result<(), String> {
    let sizes = [
        0,
        1,
        FRAME_SIZE - 1,
        FRAME_SIZE,
        FRAME_SIZE + 1,
        CHUNK_SIZE - 1,
        CHUNK_SIZE,
        CHUNK_SIZE + 1,
        7 * CHUNK_SIZE + 12_345,
    ];
    let prepare = move |folder: &SimFolder| sizes.iter().for_each(|size| folder.write(&format!("f{size}"), *size));
    with_reader(Setup::new(seed), history, prepare, move |stage| async move {
        stage.listed().await;
        for size in sizes {
            let read = stage.kernel.read_file(&format!("f{size}"), PIECE).await;
            assert_eq!(read, Ok(size));
        }
        assert_eq!(stage.fetched(), sizes.iter().sum::<u64>(), "bytes that came, against bytes there are");
        assert_eq!(stage.kernel.lookup("nothing").unwrap_err(), Errno::NoEntry);
        stage.agreed(secs(1)).await;
        stage.end().await;
    })
}

fn two_readers(seed: u64, history: &History) -> Result<(), String> {
    let folder = SimFolder::new(history.clone());
    folder.make_dir("d");
    folder.write("d/f", chunks(5));
    folder.link("l", "d/f");
    let reader = || {
        world::script(|stage| async move {
            stage.listed().await;
            assert_eq!(stage.kernel.read_file("d/f", PIECE).await, Ok(chunks(5)));
            assert_eq!(stage.fetched(), chunks(5));
            stage.agreed(secs(1)).await;
            stage.end().await;
        })
    };
    world::run(Setup::new(seed), &folder, history, vec![reader(), reader()])
}

fn idle(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        Setup::new(seed),
        history,
        |folder| folder.write("f", 10),
        |stage| async move {
            stage.listed().await;
            let lost = stage.count(|notice| matches!(notice, Notice::LinkDown { .. }));
            tokio::time::sleep(secs(200)).await;
            assert_eq!(stage.kernel.read_file("f", PIECE).await, Ok(10));
            assert_eq!(lost.get(), 0, "connections that were lost for no reason");
            stage.end().await;
        },
    )
}

fn probe(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        Setup::new(seed),
        history,
        |folder| folder.write("f", chunks(100)),
        |stage| async move {
            stage.listed().await;
            let file = stage.open("f");
            for chunk in [90, 3, 47] {
                stage.read(file, chunks(chunk) + 100, 4_096).await;
            }
            tokio::time::sleep(secs(2)).await;
            assert_eq!(stage.fetched(), chunks(3));
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}
