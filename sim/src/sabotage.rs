//! Planted bugs: the simulator must catch each of them, or its silence means nothing.

use crate::store::Bug;
use crate::world::Stage;
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
        match self {
            Sabotage::StoreCorrupts => stage.store.plant(Bug::Corrupts),
            Sabotage::StoreHangs => stage.store.plant(Bug::Hangs),
            Sabotage::StoreForgetsCrashes => stage.store.plant(Bug::ForgetsCrashes),
            Sabotage::StoreClaimsTooMuch => stage.store.plant(Bug::ClaimsTooMuch),
            Sabotage::StoreNeverLooks => stage.store.plant(Bug::NeverLooks),
            Sabotage::StoreKeepsAll => stage.store.plant(Bug::KeepsAll),
            Sabotage::LineCorrupts => stage.net.line.corrupt(),
            Sabotage::FolderForgetsVersions => stage.folder.forget_versions(),
            Sabotage::FolderLeaks => stage.folder.leak(),
            Sabotage::WatcherSilent => stage.folder.silence(),
            Sabotage::AnswersLate => {}
            Sabotage::LogsError => tracing::error!("a planted error"),
            Sabotage::TaskPanics => drop(tokio::spawn(async { panic!("a planted panic") })),
            Sabotage::AsksRealClock => {
                let now = Instant::now();
                stage.history.note("sabotage", format_args!("{now:?}"));
            }
            Sabotage::DrawsRealLots => {
                let set: std::collections::HashSet<u32> = (0..100).collect();
                stage.history.note("sabotage", format_args!("{:?}", set.iter().next()));
            }
        }
    }
}
