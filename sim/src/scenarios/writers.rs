//! Devices that all write, each in a folder of its own.

use super::{Scenario, millis, secs};
use crate::faults::Fault;
use crate::folder::path;
use crate::history::History;
use crate::world::Setup;
use crate::writers::plan::{Phase, come_to_rest};
use crate::writers::referee::{difference, settled};
use crate::writers::works::Edit;
use crate::writers::world::{self, Device, Team};
use futures_util::FutureExt;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "both-offline",
        about: "two devices edit 1,000 files, rename directories, delete and recreate, each alone; then they meet",
        run: both_offline,
    },
    Scenario { name: "three-offline", about: "the same with three devices and 200 files", run: three_offline },
    Scenario {
        name: "crash-in-apply",
        about: "a process is ended again and again while it does in its folder what a peer did",
        run: crash_in_apply,
    },
    Scenario {
        name: "memory-lost",
        about: "a device forgets what it knew of the share: what is the same is one file, and nothing is lost",
        run: memory_lost,
    },
];

/// In how many directories they are.
const DIRS: usize = 10;

/// How long it may take until a connection works again, and everything has come.
const AGREEMENT: Duration = Duration::from_secs(60);

/// Runs a world in which devices come to rest when `fate` has come to its end.
fn together<F: Future<Output = ()> + 'static>(
    setup: Setup,
    devices: usize,
    history: &History,
    prepare: impl FnOnce(&[Device]),
    fate: impl FnOnce(Team) -> F + 'static,
) -> Result<(), String> {
    let phase = Rc::new(Cell::new(Phase::Heal));
    let script = {
        let phase = phase.clone();
        Rc::new(move |stage| {
            let phase = phase.clone();
            async move { come_to_rest(stage, &phase).await }.boxed_local()
        })
    };
    let fate = Box::new(move |team: Team| {
        async move {
            fate(team.clone()).await;
            settled(&team, AGREEMENT).await;
            let began = Instant::now();
            // The disk takes its time for each content, and the end waits for that only for a while.
            while team.iter().any(|device| is_busy(device, team.len())) {
                assert!(began.elapsed() < AGREEMENT, "what was fetched is not saved");
                tokio::time::sleep(millis(100)).await;
            }
            phase.set(Phase::Over);
        }
        .boxed_local()
    });
    world::run(setup, &vec![true; devices], history, prepare, script, fate)
}

/// Whether anything is under way but what waits for news of the other devices.
fn is_busy(device: &Device, devices: usize) -> bool {
    device.running.get().is_some_and(|node| node.view(|view| view.running()) >= devices)
}

fn setup(seed: u64) -> Setup {
    Setup { tick: millis(5), watcher_delay: millis(20), ..Setup::new(seed) }
}

fn file(number: usize) -> String {
    format!("d{}/f{number}", number % DIRS)
}

/// The owner has many files.
fn many_files(team: &[Device], files: usize) {
    let folder = &team[0].folder;
    (0..DIRS).for_each(|dir| assert!(folder.make_dir(&path(&format!("d{dir}")))));
    (0..files).for_each(|number| assert!(folder.write(&path(&file(number)), Edit::Whole(100 + number as u64))));
    assert!(folder.make_dir(&path("old")) && folder.write(&path("old/kept"), Edit::Whole(5_000)));
}

fn copies(device: &Device) -> usize {
    device.folder.paths().iter().filter(|(path, _)| path.to_string().contains(".conflict-")).count()
}

fn both_offline(seed: u64, history: &History) -> Result<(), String> {
    offline(seed, history, 2, 1_000)
}

fn three_offline(seed: u64, history: &History) -> Result<(), String> {
    offline(seed, history, 3, 200)
}

fn offline(seed: u64, history: &History, devices: usize, files: usize) -> Result<(), String> {
    let prepare = |team: &[Device]| many_files(team, files);
    together(setup(seed), devices, history, prepare, move |team| async move {
        settled(&team, AGREEMENT).await;
        for device in &team[1..] {
            device.machine.net.bring(Fault::Partition).await;
        }
        for device in team.iter() {
            let (folder, own) = (&device.folder, device.number);
            // All edit the first half of the files; of the other half each has its own part.
            for number in (0..files).filter(|number| *number < files / 2 || number % devices == own) {
                assert!(folder.write(&path(&file(number)), Edit::Whole(200 + number as u64)));
            }
            assert!(folder.rename(&path(&format!("d{own}")), &path(&format!("renamed{own}"))));
            if own == 0 {
                assert!(folder.remove(&path("old")) && folder.make_dir(&path("old")));
                assert!(folder.write(&path("old/new"), Edit::Whole(77)));
            }
        }
        tokio::time::sleep(secs(12)).await;
        for device in &team[1..] {
            device.machine.net.bring(Fault::Repair).await;
        }
        let began = Instant::now();
        while let Some(what) = difference(&team) {
            assert!(began.elapsed() < AGREEMENT, "they do not come to the same: {what}");
            tokio::time::sleep(millis(100)).await;
        }
        // Of each file that all wrote one stands, and each other one is beside it.
        let in_common = (0..files / 2).filter(|number| number % DIRS >= devices).count();
        assert!(copies(&team[0]) >= in_common * (devices - 1), "{} conflict copies", copies(&team[0]));
        let folder = &team[0].folder;
        assert!(folder.seen(&path("old/new")).is_some() && folder.seen(&path("old/kept")).is_none());
    })
}

fn crash_in_apply(seed: u64, history: &History) -> Result<(), String> {
    together(
        setup(seed),
        2,
        history,
        |_| {},
        |team| async move {
            let [owner, joined] = &team[..] else { panic!("there are two") };
            for round in 0..12 {
                for number in 0..20 {
                    owner.folder.write(&path(&format!("f{number}")), Edit::Whole(1_000 + number));
                }
                owner.folder.remove(&path(&format!("f{round}")));
                let began = Instant::now();
                let before = joined.folder.places();
                // In the middle of what it does: some of it has come.
                while joined.folder.places() == before && began.elapsed() < secs(30) {
                    tokio::time::sleep(millis(1)).await;
                }
                joined.machine.net.bring(if round % 3 == 2 { Fault::CutPower } else { Fault::End }).await;
                joined.machine.net.bring(Fault::Start).await;
            }
            settled(&team, AGREEMENT).await;
        },
    )
}

fn memory_lost(seed: u64, history: &History) -> Result<(), String> {
    let prepare = |team: &[Device]| {
        (0..50).for_each(|number| assert!(team[0].folder.write(&path(&format!("f{number}")), Edit::Whole(300))));
    };
    together(setup(seed), 2, history, prepare, |team| async move {
        settled(&team, AGREEMENT).await;
        let joined = &team[1];
        joined.machine.net.bring(Fault::End).await;
        joined.machine.store.lose_memory();
        joined.folder.works().forget();
        assert!(joined.folder.write(&path("f1"), Edit::Whole(300)));
        assert!(joined.folder.write(&path("new"), Edit::Whole(300)));
        assert!(joined.folder.remove(&path("f2")));
        assert!(team[0].folder.write(&path("f3"), Edit::Whole(400)));
        joined.machine.net.bring(Fault::Start).await;
        settled(&team, AGREEMENT).await;
        assert!(joined.folder.seen(&path("f2")).is_some(), "nobody remembers that it was removed");
        // What both have is compared: only of what differs there are two.
        assert_eq!(copies(joined), 2, "f1 and f3 were written");
    })
}
