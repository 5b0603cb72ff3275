//! The owner's folder changes while it is read.

use super::{PIECE, Scenario, chunks, far, millis, secs, with_reader};
use crate::folder::SimFolder;
use crate::history::History;
use crate::world::{Fault, LEASE_GRACE, Setup};
use farshore_engine::{Config, DirEntryName, Errno, Ino, Notice};
use std::collections::BTreeMap;

pub(super) const ALL: &[Scenario] = &[
    Scenario { name: "edited", about: "a file is edited while it is read: each read is of one version", run: edited },
    Scenario { name: "replaced", about: "a file is renamed over: who has the old one open keeps it", run: replaced },
    Scenario { name: "renamed", about: "files and directories are renamed while they are read", run: renamed },
    Scenario { name: "removed", about: "a file that is removed stays readable for who has it open", run: removed },
    Scenario {
        name: "removed-while-away",
        about: "files are removed while nobody is connected: who had them open reads on when the link is back",
        run: removed_while_away,
    },
    Scenario {
        name: "away-for-too-long",
        about: "a reader stays away for longer than the owner keeps a removed file open for it",
        run: away_for_too_long,
    },
    Scenario { name: "late-watcher", about: "the owner's watcher is slow, and readers are quick", run: late_watcher },
    Scenario { name: "large-listing", about: "20,000 entries are listed while they change", run: large_listing },
    Scenario { name: "long-away", about: "a reader comes back after more events than are kept", run: long_away },
];

fn edited(seed: u64, history: &History) -> Result<(), String> {
    with_reader(
        far(seed, millis(5)),
        history,
        |folder| folder.write("f", chunks(32)),
        |stage| async move {
            stage.listed().await;
            let file = stage.open("f");
            let mut versions = Vec::new();
            for round in 0..64u64 {
                if round % 8 == 7 {
                    stage.folder.write("f", chunks(32) + round);
                }
                // Each is checked to be of one version, and that a version which the tree showed.
                let read = stage.read(file, chunks(round % 32), chunks(1)).await;
                versions.push(read.version.text.version);
            }
            assert!(versions.is_sorted(), "an older version after a newer one: {versions:?}");
            stage.agreed(secs(1)).await;
            let last = stage.read(file, 0, 100).await;
            assert_eq!(last.version, stage.folder.version("f"));
            assert_eq!(stage.read_to_end(file).await, chunks(32) + 63);
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn replaced(seed: u64, history: &History) -> Result<(), String> {
    let setup = Setup { config: Config { read_ahead_chunks: 0, ..Config::default() }, ..far(seed, millis(5)) };
    with_reader(
        setup,
        history,
        |folder| folder.write("f", chunks(8)),
        |stage| async move {
            stage.listed().await;
            let old = stage.open("f");
            stage.read(old, 0, chunks(1)).await;
            stage.folder.replace("f", chunks(3));
            stage.agreed(secs(1)).await;
            let new = stage.open("f");
            assert_ne!(new.ino, old.ino);
            assert_eq!(stage.read_to_end(new).await, chunks(3));
            // The owner keeps the old one alive for as long as somebody reads it.
            assert_eq!(stage.read_to_end(old).await, chunks(8));
            assert_eq!(stage.fetched(), chunks(8) + chunks(3));
            stage.kernel.release(old);
            stage.kernel.release(new);
            stage.end().await;
        },
    )
}

fn renamed(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| {
        folder.make_dir("a");
        folder.make_dir("a/b");
        folder.write("a/b/f", chunks(24));
    };
    let setup = Setup { config: Config { read_ahead_chunks: 0, ..Config::default() }, ..far(seed, millis(5)) };
    with_reader(setup, history, prepare, |stage| async move {
        stage.listed().await;
        let file = stage.open("a/b/f");
        stage.read(file, 0, chunks(6)).await;
        stage.folder.rename("a/b/f", "a/g");
        stage.read(file, chunks(6), chunks(6)).await;
        stage.folder.rename("a", "z");
        stage.agreed(secs(1)).await;
        assert_eq!(stage.kernel.lookup("z/g").map(|attr| attr.ino), Ok(file.ino), "it is the same file");
        // Its streams are closed, so the owner opens it again, under its new name.
        stage.kernel.release(file);
        let file = stage.open("z/g");
        assert_eq!(stage.read_to_end(file).await, chunks(24));
        assert_eq!(stage.fetched(), chunks(24), "a rename moves bytes that are here");
        assert_eq!(stage.kernel.lookup("a").unwrap_err(), Errno::NoEntry);
        stage.kernel.release(file);
        stage.end().await;
    })
}

fn removed(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| {
        folder.make_dir("d");
        folder.write("d/f", chunks(8));
    };
    let setup = Setup { config: Config { read_ahead_chunks: 0, ..Config::default() }, ..far(seed, millis(5)) };
    with_reader(setup, history, prepare, |stage| async move {
        stage.listed().await;
        let file = stage.open("d/f");
        stage.read(file, 0, chunks(1)).await;
        stage.folder.remove("d");
        stage.agreed(secs(1)).await;
        assert_eq!(stage.kernel.lookup("d/f").unwrap_err(), Errno::NoEntry, "the name is gone at once");
        stage.read(file, chunks(4), chunks(1)).await;
        assert_eq!(stage.folder.served().open, 1, "the owner keeps it for the reader");
        stage.kernel.release(file);
        stage.kernel.forget_all();
        assert_eq!(stage.store.contents(), 0, "the last release forgets it");
        stage.until("the owner forgets it", secs(5), || stage.folder.served().open == 0).await;
        stage.end().await;
    })
}

fn removed_while_away(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| {
        folder.write("read", chunks(8));
        folder.write("opened", chunks(8));
        folder.write("replaced", chunks(8));
    };
    let setup = Setup { config: Config { read_ahead_chunks: 0, ..Config::default() }, ..far(seed, millis(5)) };
    with_reader(setup, history, prepare, |stage| async move {
        stage.listed().await;
        let (read, opened, replaced) = (stage.open("read"), stage.open("opened"), stage.open("replaced"));
        stage.read(read, 0, chunks(1)).await;
        stage.until("the owner has all three open", secs(5), || stage.folder.served().open == 3).await;
        stage.net.bring(Fault::Partition).await;
        stage.folder.remove("read");
        stage.folder.remove("opened");
        stage.folder.replace("replaced", chunks(1));
        tokio::time::sleep(LEASE_GRACE / 2).await;
        stage.net.bring(Fault::Repair).await;
        for file in [read, opened, replaced] {
            assert_eq!(stage.read_to_end(file).await, chunks(8));
        }
        stage.agreed(secs(5)).await;
        assert_eq!(stage.kernel.lookup("opened").unwrap_err(), Errno::NoEntry);
        // What is complete needs no lease.
        stage.until("the owner lets go of them", secs(5), || stage.folder.served().open == 0).await;
        for file in [read, opened, replaced] {
            stage.kernel.release(file);
        }
        stage.end().await;
    })
}

fn away_for_too_long(seed: u64, history: &History) -> Result<(), String> {
    let setup = Setup { config: Config { read_ahead_chunks: 0, ..Config::default() }, ..far(seed, millis(5)) };
    let prepare = |folder: &SimFolder| folder.write("f", chunks(8));
    with_reader(setup, history, prepare, |stage| async move {
        stage.listed().await;
        let file = stage.open("f");
        stage.read(file, 0, chunks(1)).await;
        stage.net.bring(Fault::Partition).await;
        stage.folder.remove("f");
        // Until the owner has noticed that the reader is gone, and then the grace.
        tokio::time::sleep(secs(15) + LEASE_GRACE).await;
        assert_eq!(stage.folder.served().open, 0, "the owner does not wait for ever");
        stage.net.bring(Fault::Repair).await;
        stage.agreed(secs(20)).await;
        assert_eq!(stage.kernel.read(file, chunks(6), PIECE).await.unwrap_err(), Errno::Stale);
        let here = stage.read(file, 0, chunks(1)).await;
        assert_eq!(here.took, secs(0), "what is here can be read");
        stage.kernel.release(file);
        stage.end().await;
    })
}

fn late_watcher(seed: u64, history: &History) -> Result<(), String> {
    let setup = Setup { watcher_delay: millis(300), ..far(seed, millis(5)) };
    with_reader(
        setup,
        history,
        |folder| folder.write("f", chunks(16)),
        |stage| async move {
            stage.listed().await;
            let file = stage.open("f");
            stage.read(file, 0, chunks(2)).await;
            for round in 0..6 {
                // The owner's node still believes in the old version; its folder does not serve it.
                stage.folder.write("f", chunks(16));
                let read = stage.read(file, chunks(4 + round), chunks(1)).await;
                assert!(read.took < secs(3), "the reader waited {:?} for what the watcher knew soon", read.took);
            }
            stage.agreed(secs(2)).await;
            assert_eq!(stage.read_to_end(file).await, chunks(16));
            stage.kernel.release(file);
            stage.end().await;
        },
    )
}

fn large_listing(seed: u64, history: &History) -> Result<(), String> {
    const ENTRIES: u64 = 20_000;
    let prepare = |folder: &SimFolder| {
        folder.make_dir("d");
        (0..ENTRIES).for_each(|number| folder.write(&format!("d/f{number:05}"), number));
    };
    with_reader(far(seed, millis(2)), history, prepare, |stage| async move {
        // The folder changes while the listing travels.
        for number in 0..20 {
            tokio::time::sleep(millis(1)).await;
            stage.folder.rename(&format!("d/f{:05}", number * 7), &format!("d/moved{number}"));
            stage.folder.remove(&format!("d/f{:05}", 19_000 - number * 3));
        }
        stage.listed().await;
        stage.agreed(secs(5)).await;

        // And while the reader lists it, a part at a time.
        let dir = stage.kernel.lookup("d").unwrap().ino;
        let before = names(&stage.kernel.list(dir, || {}).unwrap());
        let folder = stage.folder.clone();
        let mut turn = 0;
        let node = stage.kernel.node().clone();
        let listed = stage.kernel.list(dir, || {
            turn += 1;
            folder.remove(&format!("d/f{:05}", 10_000 + turn));
            folder.write(&format!("d/new{turn}"), 1);
            // The listing is one call of the kernel after the other, without a pause; what it sees changes in between.
            let _ = node.view(|view| view.entries());
        });
        let during = names(&listed.unwrap());
        assert!(during.values().all(|count| *count == 1), "an entry was listed twice");
        for name in before.keys().filter(|name| stage.folder.holds(&format!("d/{name}"))) {
            assert!(during.contains_key(name), "{name} was there all the time and is not listed");
        }
        stage.agreed(secs(5)).await;
        assert_eq!(names(&stage.kernel.list(dir, || {}).unwrap()).len() as u64, stage.folder.paths().len() as u64 - 1);
        assert_eq!(stage.kernel.read_file("d/f12345", PIECE).await, Ok(12_345));
        stage.end().await;
    })
}

/// The names in a listing, each with how often it is in it.
fn names(listed: &[farshore_engine::DirEntry]) -> BTreeMap<String, u32> {
    let mut names = BTreeMap::new();
    for entry in listed {
        match &entry.name {
            DirEntryName::Name(name) => {
                *names.entry(String::from_utf8_lossy(name.as_bytes()).into_owned()).or_default() += 1;
            }
            DirEntryName::Dot | DirEntryName::DotDot => {}
        }
    }
    names
}

fn long_away(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |folder: &SimFolder| {
        (0..50).for_each(|number| folder.write(&format!("f{number}"), 1_000 + number));
        folder.write("big", chunks(6));
    };
    let setup = Setup { event_log: 16, ..Setup::new(seed) };
    with_reader(setup, history, prepare, |stage| async move {
        stage.listed().await;
        let relisted = stage.count(|notice| matches!(notice, Notice::Listed { .. }));
        assert_eq!(stage.kernel.read_file("big", PIECE).await, Ok(chunks(6)));
        stage.net.bring(Fault::Partition).await;
        for number in 0..25 {
            stage.folder.remove(&format!("f{number}"));
            stage.folder.rename(&format!("f{}", number + 25), &format!("g{number}"));
        }
        stage.folder.make_dir("d");
        stage.folder.rename("big", "d/big");
        tokio::time::sleep(secs(15)).await;
        stage.net.bring(Fault::Repair).await;
        stage.until("the listing", secs(20), || relisted.get() == 1).await;
        stage.agreed(secs(2)).await;
        assert_eq!(stage.kernel.attr(Ino::ROOT).map(|attr| attr.links), Ok(3), "itself, its parent and one directory");
        assert_eq!(stage.kernel.read_file("d/big", PIECE).await, Ok(chunks(6)));
        stage.end().await;
    })
}
