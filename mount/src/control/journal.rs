//! What lately went wrong in a process, so that it can be asked for later.

use super::report::Event;
use crate::json_path::JsonPath;
use crate::notices;
use farshore_engine::{Notice, PeerId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::Level;

/// How many different things are remembered.
const EVENTS_MAX: usize = 20;

/// What lately went wrong. Cloning it gives another handle on the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// When the connection to a peer was lost, in seconds since 1970, until it is back.
    down_since: BTreeMap<PeerId, u64>,
}

impl Journal {
    /// Takes down what a notice says, at `now` in seconds since 1970. What was said before counts once more.
    pub(super) fn note(&self, notice: &Notice, now: u64) {
        let Some(told) = notices::told(notice) else { return };
        let mut kept = self.lock();
        match notice {
            Notice::LinkUp { peer } => _ = kept.down_since.remove(peer),
            Notice::LinkDown { peer } => _ = kept.down_since.insert(*peer, now),
            Notice::DialFailed { .. }
            | Notice::Listed { .. }
            | Notice::PeerFault { .. }
            | Notice::FetchFailed { .. }
            | Notice::StoreFailed { .. }
            | Notice::SaveFailed { .. }
            | Notice::PinsChanged
            | Notice::NotShared { .. }
            | Notice::LookAt { .. }
            | Notice::ApplyFailed { .. }
            | Notice::InvalidateInode { .. }
            | Notice::InvalidateEntry { .. }
            | Notice::Announced { .. } => {}
        }
        if told.level == Level::INFO {
            return;
        }
        let known = kept.events.iter().position(|event| event.kind == told.kind && event.text == told.text);
        let times = known.and_then(|at| kept.events.remove(at)).map_or(0, |event| event.times) + 1;
        if kept.events.len() == EVENTS_MAX {
            kept.events.pop_front();
        }
        kept.events.push_back(Event {
            unix_seconds: now,
            kind: told.kind.to_owned(),
            text: told.text,
            path: told.path.as_deref().map(JsonPath::from_bytes),
            times,
        });
    }

    /// What is remembered, the oldest first.
    pub(super) fn events(&self) -> Vec<Event> {
        self.lock().events.iter().cloned().collect()
    }

    pub(super) fn down_since(&self, peer: PeerId) -> Option<u64> {
        self.lock().down_since.get(&peer).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_engine::path::RelPath;
    use farshore_engine::{DialError, FetchError};

    const PEER: PeerId = PeerId([7; 32]);

    fn failed(chunk: u64) -> Notice {
        let path = RelPath::parse(b"a/b").unwrap();
        Notice::FetchFailed { peer: PEER, path, chunk, error: FetchError::StreamLost }
    }

    #[test]
    fn what_happens_again_is_counted_and_the_oldest_is_forgotten() {
        let journal = Journal::default();
        journal.note(&failed(1), 10);
        journal.note(&Notice::DialFailed { peer: PEER, error: DialError::Denied }, 11);
        journal.note(&failed(1), 12);
        let events = journal.events();
        let seen: Vec<_> = events.iter().map(|event| (&event.kind[..], event.unix_seconds, event.times)).collect();
        assert_eq!(seen, [("denied", 11, 1), ("fetch_failed", 12, 2)]);
        assert_eq!(events[1].path, Some(JsonPath::Text("a/b".into())));
        (100..).take(EVENTS_MAX).for_each(|chunk| journal.note(&failed(chunk), 13));
        assert_eq!(journal.events().len(), EVENTS_MAX);
        assert!(journal.events().iter().all(|event| event.times == 1));
    }

    #[test]
    fn it_knows_since_when_the_link_is_down() {
        let journal = Journal::default();
        journal.note(&Notice::LinkDown { peer: PEER }, 5);
        journal.note(&Notice::DialFailed { peer: PEER, error: DialError::Unreachable }, 6);
        assert_eq!(journal.down_since(PEER), Some(5));
        journal.note(&Notice::LinkUp { peer: PeerId([8; 32]) }, 6);
        assert_eq!(journal.down_since(PEER), Some(5), "that was another one's");
        journal.note(&Notice::LinkUp { peer: PEER }, 7);
        assert_eq!(journal.down_since(PEER), None);
        assert!(journal.events().iter().all(|event| event.kind != "link_up"), "that is no trouble");
    }
}
