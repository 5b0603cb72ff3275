//! Who is connected, so that it can be told, and so that somebody can be shown the door.

use super::server::Visitor;
use farshore_engine::PeerId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The connections of a server.
#[derive(Default)]
pub struct Guests(Mutex<Vec<Weak<Visitor>>>);

impl Guests {
    /// The devices that were let in and are connected, with the number of their connections.
    #[must_use]
    pub fn present(&self) -> BTreeMap<PeerId, usize> {
        let mut present = BTreeMap::new();
        for visitor in self.lock().iter().filter_map(Weak::upgrade).filter(|visitor| visitor.is_inside()) {
            *present.entry(visitor.peer).or_default() += 1;
        }
        present
    }

    /// Cuts every connection of `peer` at once, those that are on their way in as well, and returns how many had been
    /// let in. It may come back: whoever does not want that has forgotten the device before.
    pub fn dismiss(&self, peer: PeerId) -> usize {
        let visitors: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        visitors.iter().filter(|visitor| visitor.peer == peer).filter(|visitor| visitor.dismiss()).count()
    }

    pub(super) fn enter(&self, visitor: &Arc<Visitor>) {
        let mut visitors = self.lock();
        visitors.retain(|visitor| visitor.strong_count() > 0);
        visitors.push(Arc::downgrade(visitor));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Visitor>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
