//! What a seed means: a run in which some read what one shares, or one in which all write.

use crate::history::History;
use crate::plan::{self, Plan};
use crate::sabotage::Sabotage;
use crate::writers::plan::{self as writing, WritingPlan};
use std::fmt;

/// Of which kind a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Some read what one shares.
    Reading,
    /// All write.
    Writing,
}

impl Kind {
    /// All write in every so many-th run.
    const WRITING_EVERY: u64 = 4;

    /// The kind of run that goes with a seed.
    #[must_use]
    pub fn of(seed: u64) -> Kind {
        if seed % Kind::WRITING_EVERY == Kind::WRITING_EVERY - 1 { Kind::Writing } else { Kind::Reading }
    }
}

/// A run that was drawn from a seed.
pub enum Drawn {
    /// Some read.
    Reading(Plan),
    /// All write.
    Writing(WritingPlan),
}

impl Drawn {
    /// What `seed` means in a run of this kind; of the one that goes with the seed, if none is named.
    #[must_use]
    pub fn draw(seed: u64, kind: Option<Kind>) -> Drawn {
        match kind.unwrap_or(Kind::of(seed)) {
            Kind::Reading => Drawn::Reading(Plan::draw(seed)),
            Kind::Writing => Drawn::Writing(WritingPlan::draw(seed)),
        }
    }

    /// Runs it, perhaps with a planted bug.
    ///
    /// # Errors
    /// It did not end in time, or something was logged as an error.
    ///
    /// # Panics
    /// If anything is not as it must be.
    pub fn run(self, history: &History, sabotage: Option<Sabotage>) -> Result<(), String> {
        match self {
            Drawn::Reading(drawn) => plan::run_with(drawn, history, sabotage),
            Drawn::Writing(drawn) => writing::run_with(drawn, history, sabotage),
        }
    }
}

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drawn::Reading(drawn) => write!(f, "  some read\n{drawn}"),
            Drawn::Writing(drawn) => write!(f, "  all write\n{drawn}"),
        }
    }
}
