//! Who is connected, so that it can be told, and so that somebody can be shown the door.

use super::server::{Stay, Visitor};
use super::server_leases::Leases;
use farshore_engine::PeerId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How long a device that has broken a rule is hung up on as soon as it has proved who it is.
const KEPT_OUT_FOR: Duration = Duration::from_secs(60);

/// How many devices are kept out at once; beyond that, who was to be let in first may come.
const MAX_KEPT_OUT: usize = 256;

/// The connections of a server, and what it holds open for those at their other ends.
#[derive(Default)]
pub struct Guests {
    visitors: Mutex<Vec<Weak<Visitor>>>,
    /// Devices that broke a rule, and until when they have to stay away.
    kept_out: Mutex<BTreeMap<PeerId, Instant>>,
    leases: Arc<Leases>,
}

impl Guests {
    /// Nobody yet, and these leases.
    #[must_use]
    pub fn new(leases: Arc<Leases>) -> Guests {
        Guests { visitors: Mutex::default(), kept_out: Mutex::default(), leases }
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

    /// Dismisses `peer`, which has broken a rule, and lets it in again after [`KEPT_OUT_FOR`].
    pub(super) fn keep_out(&self, peer: PeerId) {
        let now = Instant::now();
        let mut kept_out = self.kept_out.lock().unwrap_or_else(PoisonError::into_inner);
        kept_out.retain(|_, until| *until > now);
        if kept_out.len() >= MAX_KEPT_OUT
            && let Some(first) = kept_out.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
        {
            kept_out.remove(&first);
        }
        kept_out.insert(peer, now + KEPT_OUT_FOR);
        drop(kept_out);
        // After that: who enters in between is looked for afterwards.
        self.dismiss(peer);
    }

    /// Whether `peer` has broken a rule lately.
    pub(super) fn is_kept_out(&self, peer: PeerId) -> bool {
        let kept_out = self.kept_out.lock().unwrap_or_else(PoisonError::into_inner);
        kept_out.get(&peer).is_some_and(|until| *until > Instant::now())
    }

    /// The right of `peer` to be here, as far as the newest of the connections goes over which it was let in; `None` if there
    /// is none.
    pub(super) fn stay_of(&self, peer: PeerId) -> Option<Stay> {
        let visitors = self.lock();
        let mut theirs = visitors.iter().rev().filter_map(Weak::upgrade).filter(|visitor| visitor.peer == peer);
        theirs.find(|visitor| visitor.is_inside() && !visitor.line.is_closed()).map(|visitor| visitor.stay())
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
    use futures_util::FutureExt;
    use tokio::sync::watch;

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_kept_out_and_each_for_a_while() {
        let guests = Guests::default();
        let peer = |number: usize| PeerId(std::array::from_fn(|at| (number >> (8 * (at % 2))) as u8));
        for number in 0..=MAX_KEPT_OUT {
            guests.keep_out(peer(number));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(!guests.is_kept_out(peer(0)), "it came first");
        assert!((1..=MAX_KEPT_OUT).all(|number| guests.is_kept_out(peer(number))));
        tokio::time::advance(KEPT_OUT_FOR).await;
        assert!(!guests.is_kept_out(peer(MAX_KEPT_OUT)));
        guests.keep_out(peer(0));
        assert_eq!(guests.kept_out.lock().unwrap().len(), 1);
    }

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
        first.info().end_greeting(true);
        assert_eq!(guests.present(), BTreeMap::from([(peer, 1)]));
        let stay = guests.stay_of(peer).unwrap();
        assert!(!stay.is_dismissed());
        assert_eq!(guests.dismiss(peer), 1, "the other was not in yet");
        assert!(stay.is_dismissed() && stay.over().now_or_never().is_some() && guests.stay_of(peer).is_none());
        // It was decided before, and is told now.
        second.info().end_greeting(true);
        assert!(guests.present().is_empty() && !second.info().begin_greeting());
        let third = enter();
        third.info().end_greeting(true);
        assert_eq!(guests.present(), BTreeMap::from([(peer, 1)]));
        drop((first, second, third));
        assert!(guests.present().is_empty());
    }
}
