//! The owner follows a reader that has a folder of its own, over a connection that the reader has dialled.

use super::{PIECE, Scenario, chunks, far, millis, secs};
use crate::folder::SimFolder;
use crate::history::History;
use crate::kernel::Kernel;
use crate::world::{self, Fault, Guest, Setup, Stage};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const ALL: &[Scenario] = &[
    Scenario { name: "both-ways", about: "who is dialled has the files of who dials, and their bytes", run: both_ways },
    Scenario {
        name: "both-ways-cut",
        about: "both directions come back after a cut, a long hold and a link that breaks at random",
        run: cut,
    },
    Scenario {
        name: "both-ways-crash",
        about: "both directions come back after either side has crashed or lost its power",
        run: crash,
    },
];

/// How long it may take until both directions work again: the silence is noticed (10 s), the first connection is made (5 s
/// between attempts, 5 s for one), then the second one (10 s between attempts), and some bytes travel.
const RECOVERY: Duration = Duration::from_secs(45);

/// How large each file is.
const SIZE_CHUNKS: u64 = 3;

/// What the reader and the owner's program have in common.
#[derive(Clone)]
struct Shared {
    /// The reader's own folder.
    folder: SimFolder,
    /// The files that the owner's program has read to the end.
    read: Rc<RefCell<BTreeSet<String>>>,
}

impl Shared {
    /// What runs on the owner: reads every file of the reader, once each in every process.
    async fn read_all(self, kernel: Kernel) {
        let mut read = BTreeSet::new();
        loop {
            for (path, size_bytes) in self.folder.paths() {
                // What cannot be read now, because one side is away, can be read later.
                if !read.contains(&path) && kernel.read_file(&path, PIECE).await.ok() == size_bytes {
                    read.insert(path.clone());
                    self.read.borrow_mut().insert(path);
                }
            }
            tokio::time::sleep(millis(50)).await;
        }
    }

    /// The reader makes a file. Returns when the owner has read it.
    async fn make(&self, stage: &Stage, path: &str, limit: Duration) {
        self.folder.write(path, chunks(SIZE_CHUNKS));
        stage.until(&format!("the owner to read {path}"), limit, || self.read.borrow().contains(path)).await;
    }

    /// Ends the reader, and checks that the owner has nothing open any more.
    async fn end(&self, stage: Stage) {
        stage.end().await;
        let began = Instant::now();
        while self.folder.served().open > 0 {
            assert!(began.elapsed() < secs(5), "the reader still has {:?} open", self.folder.served());
            tokio::time::sleep(millis(50)).await;
        }
    }
}

/// Much time passes in these worlds, so it passes in larger steps.
fn setup(seed: u64) -> Setup {
    Setup { tick: millis(5), ..far(seed, millis(10)) }
}

/// Runs a world whose owner has nothing, and whose reader has a folder of its own.
fn with_guest<F: Future<Output = ()> + 'static>(
    setup: Setup,
    history: &History,
    body: impl Fn(Stage, Shared) -> F + 'static,
) -> Result<(), String> {
    let folder = SimFolder::new(history.clone());
    let shared = Shared { folder: SimFolder::new(history.clone()), read: Rc::default() };
    let script: world::OwnerScript = Rc::new({
        let shared = shared.clone();
        move |kernel| Box::pin(shared.clone().read_all(kernel))
    });
    let guest = Some(Guest { folder: shared.folder.clone(), script });
    world::run(
        Setup { guest, ..setup },
        &folder,
        history,
        vec![world::script(move |stage| body(stage, shared.clone()))],
    )
}

fn both_ways(seed: u64, history: &History) -> Result<(), String> {
    with_guest(setup(seed), history, |stage, shared| async move {
        for path in ["a", "b", "c"] {
            shared.make(&stage, path, secs(5)).await;
        }
        assert_eq!(shared.folder.served().bytes, 3 * chunks(SIZE_CHUNKS), "a byte was served twice");
        // Nothing happens for a while, and then something does.
        tokio::time::sleep(secs(60)).await;
        shared.make(&stage, "d", secs(1)).await;
        shared.end(stage).await;
    })
}

fn cut(seed: u64, history: &History) -> Result<(), String> {
    with_guest(setup(seed), history, |stage, shared| async move {
        shared.make(&stage, "before", secs(5)).await;
        for (round, lasts) in [millis(20), secs(3), secs(15), secs(40)].into_iter().enumerate() {
            for (fault, heal) in
                [(Fault::Partition, Fault::Repair), (Fault::Hold, Fault::Release), (Fault::Flaky(30), Fault::Flaky(0))]
            {
                // Made before, so that some of it may be on its way when it happens.
                let path = format!("{fault:?}-{round}");
                shared.folder.write(&path, chunks(SIZE_CHUNKS));
                stage.net.bring(fault).await;
                tokio::time::sleep(lasts).await;
                stage.net.bring(heal).await;
                stage.net.bring(Fault::Repair).await;
                stage.until(&path, RECOVERY, || shared.read.borrow().contains(&path)).await;
                shared.make(&stage, &format!("after-{path}"), RECOVERY).await;
            }
        }
        shared.end(stage).await;
    })
}

fn crash(seed: u64, history: &History) -> Result<(), String> {
    with_guest(setup(seed), history, |stage, shared| async move {
        let life = stage.life;
        shared.make(&stage, &format!("in-life-{life}"), RECOVERY).await;
        // What was lost with the owner's process is had again from the reader.
        for fault in [Fault::Crash, Fault::PowerCut] {
            stage.net.bring(fault).await;
            tokio::time::sleep(secs(3)).await;
            shared.read.borrow_mut().clear();
            stage.net.bring(Fault::Restart).await;
            let everything = shared.folder.paths().len();
            stage.until("the owner to read everything", RECOVERY, || shared.read.borrow().len() == everything).await;
        }
        match life {
            1 => stage.net.restart(Fault::End).await,
            2 => stage.net.restart(Fault::CutPower).await,
            _ => shared.end(stage).await,
        }
    })
}
