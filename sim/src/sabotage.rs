//! Planted bugs: the simulator must catch each of them, or its silence means nothing.

use crate::history::History;
use crate::store::{Bug, SimStore};
use crate::world::Stage;
use crate::writers::folder;
use crate::writers::world::Device;
use std::time::{Duration, Instant};

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// The reader's store changes a byte of what it is given.
    StoreCorrupts,
    /// The reader's store never ends a write: the end of an effect is lost.
    StoreHangs,
    /// The reader's store says after a crash that the last stop was clean, and has lost bytes.
    StoreForgetsCrashes,
    /// What the reader's store has saved claims a chunk that was never written.
    StoreClaimsTooMuch,
    /// The reader's store says that chunks are right without looking at them.
    StoreNeverLooks,
    /// The reader's store keeps what is to go.
    StoreKeepsAll,
    /// The network changes a byte of every large message.
    LineCorrupts,
    /// The owner's folder serves a file whatever version was asked for.
    FolderForgetsVersions,
    /// The owner's folder never closes what was opened for a peer.
    FolderLeaks,
    /// The owner's watcher says nothing.
    WatcherSilent,
    /// Reads are answered later than they may be.
    AnswersLate,
    /// What is remembered of a replica's folder is durable before that itself is.
    RemembersTooSoon,
    /// A removal in a replica's folder removes whatever is there.
    RemovesBlindly,
    /// What was published in a replica's folder once is published again later.
    PublishesTwice,
    /// Something is logged as an error.
    LogsError,
    /// A task panics, and nobody waits for it.
    TaskPanics,
    /// The clock on the wall is asked.
    AsksRealClock,
    /// A random number is asked of the system.
    DrawsRealLots,
}

/// How much later than they may be answers come, with [`Sabotage::AnswersLate`].
pub(crate) const LATE: Duration = Duration::from_secs(2);

impl Sabotage {
    /// Plants the bug on a reader's stage. Those that have to be there earlier are planted by the world.
    pub(crate) fn plant(self, stage: &Stage) {
        self.plant_in_store(&stage.store);
        self.plant_anywhere(&stage.history);
        if self == Sabotage::LineCorrupts {
            stage.net.line.corrupt();
        } else if self == Sabotage::FolderForgetsVersions {
            stage.folder.forget_versions();
        } else if self == Sabotage::FolderLeaks {
            stage.folder.leak();
        } else if self == Sabotage::WatcherSilent {
            stage.folder.silence();
        }
    }

    /// Plants the bug on a device that writes.
    pub(crate) fn plant_in(self, device: &Device, history: &History) {
        self.plant_in_store(&device.machine.store);
        self.plant_anywhere(history);
        if self == Sabotage::LineCorrupts {
            device.machine.net.line.corrupt();
        } else if self == Sabotage::WatcherSilent {
            device.folder.plant(folder::Bug::SeesNothing);
        } else if self == Sabotage::RemovesBlindly {
            device.folder.plant(folder::Bug::RemovesBlindly);
        } else if self == Sabotage::PublishesTwice {
            device.folder.plant(folder::Bug::PublishesTwice);
        }
    }

    fn plant_in_store(self, store: &SimStore) {
        let bug = match self {
            Sabotage::StoreCorrupts => Bug::Corrupts,
            Sabotage::StoreHangs => Bug::Hangs,
            Sabotage::StoreForgetsCrashes => Bug::ForgetsCrashes,
            Sabotage::StoreClaimsTooMuch => Bug::ClaimsTooMuch,
            Sabotage::StoreNeverLooks => Bug::NeverLooks,
            Sabotage::StoreKeepsAll => Bug::KeepsAll,
            Sabotage::RemembersTooSoon => Bug::RemembersTooSoon,
            Sabotage::LineCorrupts
            | Sabotage::FolderForgetsVersions
            | Sabotage::FolderLeaks
            | Sabotage::WatcherSilent
            | Sabotage::AnswersLate
            | Sabotage::RemovesBlindly
            | Sabotage::PublishesTwice
            | Sabotage::LogsError
            | Sabotage::TaskPanics
            | Sabotage::AsksRealClock
            | Sabotage::DrawsRealLots => return,
        };
        store.plant(bug);
    }

    /// Plants a bug that needs neither a disk nor a network.
    fn plant_anywhere(self, history: &History) {
        if self == Sabotage::LogsError {
            tracing::error!("a planted error");
        } else if self == Sabotage::TaskPanics {
            drop(tokio::spawn(async { panic!("a planted panic") }));
        } else if self == Sabotage::AsksRealClock {
            let now = Instant::now();
            history.note("sabotage", format_args!("{now:?}"));
        } else if self == Sabotage::DrawsRealLots {
            let set: std::collections::HashSet<u32> = (0..100).collect();
            history.note("sabotage", format_args!("{:?}", set.iter().next()));
        }
    }
}
