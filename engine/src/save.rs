//! When what was fetched is written down, so that a download goes on where it stood after whatever happens.
//!
//! About once a second while chunks are being stored, and soon after a file was closed or a connection lost. One save
//! is about everything that is not saved yet, and there is never more than one, so that a disk that is slow is asked
//! less often and not more. At the end the driver closes the store, which saves the rest.

use crate::engine::{Engine, Running};
use crate::ids::{ContentId, EffectId};
use crate::input::StoreError;
use crate::output::{Effect, Notice, Output};
use crate::time::Time;
use crate::timers::Timer;
use core::time::Duration;
use std::collections::BTreeSet;

/// Chunks whose hashes fill a mebibyte of a sidecar: 64 GiB of a file.
const CHUNKS_PER_MIB: u64 = 1 << 17;

/// How soon what is forced is saved: those that are forced at about the same time share one save.
pub(crate) const FORCED_WITHIN: Duration = Duration::from_millis(100);

/// What is not saved yet.
#[derive(Debug, Default)]
pub(crate) struct Saving {
    /// Contents that have chunks that are not written down.
    pub(crate) unsaved: BTreeSet<ContentId>,
    /// When the next save is due; none is while one is under way.
    pub(crate) at: Option<Time>,
    /// The one that is under way.
    pub(crate) under_way: Option<EffectId>,
    /// Something was forced since it began.
    again: bool,
}

impl Engine {
    /// Something of a content is stored that is not written down: that is done `within` that time.
    pub(crate) fn note_unsaved(&mut self, id: ContentId, within: Duration) {
        if self.contents.contains_key(&id) && !self.stopping {
            self.saving.unsaved.insert(id);
            self.save_within(within);
        }
    }

    /// How long a chunk of a content may be not written down. A sidecar has eight bytes for each chunk and is written as a
    /// whole, so that one for each mebibyte of it is taken longer.
    pub(crate) fn save_interval(&self, id: ContentId) -> Duration {
        let chunks = self.contents.get(&id).and_then(|content| Some(content.bitmap.as_ref()?.have()));
        // At most 2^27 chunks: a thousand times the interval.
        self.config.save_interval * (1 + (chunks.unwrap_or(0) / CHUNKS_PER_MIB) as u32)
    }

    /// A file was closed, or a connection lost: what is not written down is, soon.
    pub(crate) fn force_save(&mut self) {
        if self.saving.unsaved.is_empty() || self.stopping {
            return;
        }
        self.saving.again |= self.saving.under_way.is_some();
        self.save_within(FORCED_WITHIN);
    }

    fn save_within(&mut self, within: Duration) {
        let at = self.now + within;
        if self.saving.under_way.is_some() || self.saving.at.is_some_and(|set| set <= at) {
            return;
        }
        if let Some(set) = self.saving.at.replace(at) {
            self.timers.unset(set, Timer::Save);
        }
        self.timers.set(at, Timer::Save);
    }

    pub(crate) fn on_save_due(&mut self, out: &mut Vec<Output>) {
        self.saving.at = None;
        let unsaved = std::mem::take(&mut self.saving.unsaved);
        let contents: Vec<ContentId> = unsaved.into_iter().filter(|id| self.contents.contains_key(id)).collect();
        if contents.is_empty() {
            return;
        }
        let running = Running::Save { contents: contents.clone() };
        self.saving.under_way = Some(self.effect(running, Effect::Save { contents }, out));
    }

    pub(crate) fn on_saved(&mut self, contents: Vec<ContentId>, result: Result<(), StoreError>, out: &mut Vec<Output>) {
        self.saving.under_way = None;
        let within = match result {
            Ok(()) if std::mem::take(&mut self.saving.again) => FORCED_WITHIN,
            Ok(()) => self.config.save_interval,
            Err(error) => {
                self.totals.store_failures += 1;
                out.push(Output::Notice(Notice::SaveFailed { error }));
                let known = contents.into_iter().filter(|id| self.contents.contains_key(id));
                self.saving.unsaved.extend(known.collect::<Vec<_>>());
                self.config.retry_cap
            }
        };
        if !self.saving.unsaved.is_empty() {
            self.save_within(within);
        }
    }
}
