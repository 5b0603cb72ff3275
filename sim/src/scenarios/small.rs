//! Many small files, read one after the other.

use super::{PIECE, Scenario, far, millis, secs, with_reader};
use crate::folder::SimFolder;
use crate::history::History;
use crate::world::Fault;
use tokio::time::Instant;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "copied",
        about: "a tree of small files is copied in few round trips, each byte once",
        run: copied,
    },
    Scenario {
        name: "copied-through-trouble",
        about: "a tree of small files is copied while its owner changes it and the link is cut",
        run: copied_through_trouble,
    },
];

const DIRS: u64 = 10;
const FILES: u64 = 60;

fn name(dir: u64, file: u64) -> String {
    format!("d{dir}/f{file:02}")
}

fn size(dir: u64, file: u64) -> u64 {
    1 + (dir * FILES + file) * 20
}

fn make(folder: &SimFolder) {
    for dir in 0..DIRS {
        folder.make_dir(&format!("d{dir}"));
        (0..FILES).for_each(|file| folder.write(&name(dir, file), size(dir, file)));
    }
}

fn all() -> impl Iterator<Item = (u64, u64)> {
    (0..DIRS).flat_map(|dir| (0..FILES).map(move |file| (dir, file)))
}

fn copied(seed: u64, history: &History) -> Result<(), String> {
    with_reader(far(seed, millis(12)), history, make, |stage| async move {
        stage.listed().await;
        let began = Instant::now();
        for (dir, file) in all() {
            assert_eq!(stage.kernel.read_file(&name(dir, file), PIECE).await, Ok(size(dir, file)));
        }
        // One round trip for each would be more than 14 seconds.
        assert!(began.elapsed() < secs(2), "600 small files took {:?}", began.elapsed());
        let bytes: u64 = all().map(|(dir, file)| size(dir, file)).sum();
        assert_eq!((stage.fetched(), stage.folder.served().bytes), (bytes, bytes), "a byte came twice");
        stage.end().await;
    })
}

fn copied_through_trouble(seed: u64, history: &History) -> Result<(), String> {
    with_reader(far(seed, millis(12)), history, make, |stage| async move {
        stage.listed().await;
        let mut read = 0;
        for (dir, file) in all() {
            if file == 30 {
                // All of it is about files that come soon, and of which some are on their way.
                (40..44).for_each(|file| stage.folder.write(&name(dir, file), 7));
                (44..46).for_each(|file| stage.folder.replace(&name(dir, file), 8));
                (46..48).for_each(|file| stage.folder.edit_in_secret(&name(dir, file)));
                stage.folder.remove(&name(dir, 48));
                stage.folder.rename(&name(dir, 49), &name(dir, 99));
            }
            if file == 35 && dir % 3 == 1 {
                stage.net.bring(Fault::Partition).await;
                tokio::time::sleep(millis(if dir == 4 { 50 } else { 12_000 })).await;
                stage.net.bring(Fault::Repair).await;
            }
            // The bytes are checked to be those of a version that the owner had; a file may be gone.
            let whole = stage.kernel.read_file(&name(dir, file), PIECE).await;
            read += u64::from(whole.is_ok());
            assert!(whole.is_ok() || (40..50).contains(&file), "{}: {whole:?}", name(dir, file));
        }
        assert!(read >= DIRS * (FILES - 10), "only {read} files could be read");
        stage.agreed(secs(30)).await;
        stage.end().await;
    })
}
