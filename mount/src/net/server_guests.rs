//! Who is connected, so that it can be told, and so that somebody can be shown the door.

use super::server::Visitor;
use super::server_leases::Leases;
use farshore_engine::PeerId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The connections of a server, and what it holds open for those at their other ends.
#[derive(Default)]
pub struct Guests {
    visitors: Mutex<Vec<Weak<Visitor>>>,
    leases: Arc<Leases>,
}

impl Guests {
    /// Nobody yet, and these leases.
    #[must_use]
    pub fn new(leases: Arc<Leases>) -> Guests {
        Guests { visitors: Mutex::default(), leases }
    }

    /// The devices that were let in and are connected, with the number of their connections.
    #[must_use]
    pub fn present(&self) -> BTreeMap<PeerId, usize> {
        let mut present = BTreeMap::new();
        for visitor in self.lock().iter().filter_map(Weak::upgrade).filter(|visitor| visitor.is_inside()) {
            *present.entry(visitor.peer).or_default() += 1;
        }
        present
    }

    /// Cuts every connection of `peer` at once, those that are on their way in or over which it can be called as well, closes what is held open for it,
    /// and returns how many had been let in. It may come back: whoever does not want that has forgotten the device
    /// before.
    pub fn dismiss(&self, peer: PeerId) -> usize {
        let visitors: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        let dismissed =
            visitors.iter().filter(|visitor| visitor.peer == peer).filter(|visitor| visitor.dismiss()).count();
        // After that: what a dismissed visitor lets go of is not kept.
        self.leases.forget(peer);
        dismissed
    }

    /// Ends when `peer` is gone, as far as the newest of the connections goes over which it was let in; `None` if there is
    /// none.
    pub(super) fn gone(&self, peer: PeerId) -> Option<impl Future<Output = ()> + Send + use<>> {
        let visitors = self.lock();
        let mut theirs = visitors.iter().rev().filter_map(Weak::upgrade).filter(|visitor| visitor.peer == peer);
        theirs.find(|visitor| visitor.is_inside() && !visitor.line.is_closed()).map(|visitor| visitor.gone())
    }

    pub(super) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    pub(super) fn enter(&self, visitor: &Arc<Visitor>) {
        let mut visitors = self.lock();
        visitors.retain(|visitor| visitor.strong_count() > 0);
        visitors.push(Arc::downgrade(visitor));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Visitor>>> {
        self.visitors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::server_lobby::Lobby;
    use super::super::transport::{Conn, Role};
    use super::*;
    use tokio::sync::watch;

    #[test]
    fn who_is_dismissed_while_it_is_being_let_in_stays_outside() {
        let (lobby, guests, peer) = (Lobby::new(9), Guests::default(), PeerId([7; 32]));
        let (_cut, cut_off) = watch::channel(false);
        let enter = || {
            let (place, shown_out) = lobby.enter();
            let conn = Conn { io: Box::new(tokio::io::duplex(1).0), peer, role: Role::Server };
            let line = Visitor::receive(conn, place, shown_out, cut_off.clone());
            guests.enter(line.info());
            assert!(line.info().begin_greeting());
            line
        };
        let (first, second) = (enter(), enter());
        first.info().end_greeting(Some(4));
        assert_eq!(guests.present(), BTreeMap::from([(peer, 1)]));
        assert_eq!(guests.dismiss(peer), 1, "the other was not in yet");
        // It was decided before, and is told now.
        second.info().end_greeting(Some(4));
        assert!(guests.present().is_empty() && !second.info().begin_greeting());
        let third = enter();
        third.info().end_greeting(Some(4));
        assert_eq!(guests.present(), BTreeMap::from([(peer, 1)]));
        drop((first, second, third));
        assert!(guests.present().is_empty());
    }
}
