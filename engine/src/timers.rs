//! Everything that will happen because time passes, each with its name.

use crate::ids::{ContentId, EffectId, PeerId, ReqId};
use crate::time::Time;
use std::collections::BTreeSet;

/// What happens when time has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// A waiting read, or a whole-file fetch without progress, has waited long enough: it gets an error.
    Deadline(ReqId),
    /// A peer that waits for news of our tree is told that there is none.
    NoNews(ReqId),
    /// A chunk whose fetch or store failed is tried again.
    Retry(ContentId, u64),
    /// A fetch has brought nothing for too long: it counts as failed.
    Stall(EffectId),
    /// Files that wait to be fetched whole are looked at, some at a time.
    Prefetch,
    /// Files that were to be fetched whole and could not be had are tried again.
    PrefetchAgain,
    /// Small files that were fetched ahead of somebody who does not read on are given up.
    WalkIdle,
    /// What is stored and not written down is.
    Save,
    /// What our folder's disk refused is tried again.
    Apply,
    /// A peer that was not reached is tried again.
    Redial(PeerId),
}

/// The timers that are set. What a timer is about holds the moment too, so that it can be taken back.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Time, Timer)>);

impl Timers {
    pub(crate) fn set(&mut self, at: Time, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(crate) fn unset(&mut self, at: Time, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    pub(crate) fn is_set(&self, at: Time, timer: Timer) -> bool {
        self.0.contains(&(at, timer))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn next(&self) -> Option<(Time, Timer)> {
        self.0.first().copied()
    }

    /// Takes the first timer that is due at `now`.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<Timer> {
        if self.0.first()?.0 > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
