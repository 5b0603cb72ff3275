//! Where callers are until they are let in. It has so many places; when they are taken, a newcomer gets the place of
//! whoever has been there longest. So callers that never come to the point keep nobody out who does.

use super::line::raised;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The places.
pub(super) struct Lobby {
    places: usize,
    callers: Mutex<Callers>,
}

#[derive(Default)]
struct Callers {
    entered: u64,
    /// By the order in which they came. Dropping a sender shows its caller out.
    present: BTreeMap<u64, watch::Sender<bool>>,
}

/// A caller's place, free again when this is dropped.
pub(super) struct Place {
    lobby: Arc<Lobby>,
    number: u64,
}

/// Tells a caller that its place is needed. It also does so once the place was given back.
#[derive(Clone)]
pub(super) struct ShownOut(watch::Receiver<bool>);

impl Lobby {
    /// A lobby with this many places, at least one.
    pub(super) fn new(places: usize) -> Arc<Lobby> {
        Arc::new(Lobby { places, callers: Mutex::default() })
    }

    /// Takes a place, if need be that of the oldest caller.
    pub(super) fn enter(self: &Arc<Self>) -> (Place, ShownOut) {
        let (present, shown_out) = watch::channel(false);
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.entered += 1;
        let number = callers.entered;
        callers.present.insert(number, present);
        if callers.present.len() > self.places {
            callers.present.pop_first();
        }
        (Place { lobby: self.clone(), number }, ShownOut(shown_out))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lobby.callers.lock().unwrap_or_else(PoisonError::into_inner).present.remove(&self.number);
    }
}

impl ShownOut {
    pub(super) async fn wait(self) {
        raised(self.0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_oldest_makes_room() {
        let lobby = Lobby::new(2);
        let is_out = |shown_out: &ShownOut| shown_out.clone().wait().now_or_never().is_some();
        let (first, first_out) = lobby.enter();
        let (second, second_out) = lobby.enter();
        assert!(!is_out(&first_out) && !is_out(&second_out));
        let (third, third_out) = lobby.enter();
        assert!(is_out(&first_out) && !is_out(&second_out) && !is_out(&third_out));
        drop(second);
        let (fourth, fourth_out) = lobby.enter();
        assert!(!is_out(&third_out) && !is_out(&fourth_out), "the place of the second was free");
        drop((first, third, fourth));
        assert!(lobby.callers.lock().unwrap().present.is_empty());
    }
}
