//! Who has our share in a folder of its own: what the state directory says, told to each of them.

use crate::state::State;
use crate::ticket::ShareId;
use farshore_engine::PeerId;
use farshore_proto::Members;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

/// For how long the addresses of a device stay as they are once they have changed: each change is written durably, told to all
/// members, and dialled by them.
const HOLD_FOR: Duration = Duration::from_secs(10);

/// The members of a share, as those hear it who are told.
pub struct Roster {
    state: State,
    share: ShareId,
    told: watch::Sender<Members>,
    /// Held from reading the state directory until what it says is told, so that nothing older is told after it.
    reading: Mutex<()>,
    /// The devices whose addresses have changed a moment ago.
    held: Mutex<BTreeMap<PeerId, Held>>,
}

/// What a device says while its addresses stay as they are.
struct Held {
    until: Instant,
    /// What it has said last since then, if anything: somebody waits to take it up.
    next: Option<Vec<String>>,
}

impl Roster {
    /// What is known of them now. Waits for the disk.
    #[must_use]
    pub fn new(state: State, share: ShareId) -> Roster {
        let (told, reading, held) = (watch::Sender::new(Members::new()), Mutex::default(), Mutex::default());
        let roster = Roster { state, share, told, reading, held };
        roster.read();
        roster
    }

    /// What is known of them, as it changes.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Members> {
        self.told.subscribe()
    }

    /// `peer`, which was let in, has the share in a folder of its own, and can be reached like this. If its addresses have
    /// changed in the last ten seconds, what it says last is taken up after that. Waits for the disk.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn note(self: &Arc<Roster>, peer: PeerId, addresses: Vec<String>) {
        let mut held = self.held();
        let now = Instant::now();
        held.retain(|_, held| held.until > now || held.next.is_some());
        if let Some(Held { until, next }) = held.get_mut(&peer) {
            if next.replace(addresses).is_none() {
                self.take_up_at(*until, peer);
            }
            return;
        }
        match self.state.note_member(self.share, peer, &addresses) {
            Ok(true) => {
                held.insert(peer, Held { until: now + HOLD_FOR, next: None });
                drop(held);
                self.read();
            }
            Ok(false) => {}
            Err(error) => tracing::warn!("{peer} is not made known to the other devices of the share: {error}"),
        }
    }

    /// Notes what `peer` will have said last at this time.
    fn take_up_at(self: &Arc<Roster>, until: Instant, peer: PeerId) {
        let roster = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep_until(until).await;
            let Some(roster) = roster.upgrade() else { return };
            let taken_up = spawn_blocking(move || {
                let held = roster.held().remove(&peer);
                if let Some(addresses) = held.and_then(|held| held.next) {
                    roster.note(peer, addresses);
                }
            });
            // It says itself what goes wrong.
            let _ = taken_up.await;
        });
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<PeerId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state directory may say something else now, because another process has changed it. Waits for the disk.
    pub fn read(&self) {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        match self.state.members_of(self.share) {
            Ok(members) => {
                self.told.send_if_modified(|told| std::mem::replace(told, members) != *told);
            }
            Err(error) => tracing::warn!("the devices of the share are not told who the others are: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;
    use tokio::time::{sleep, timeout};

    const ONE: PeerId = PeerId([1; 32]);
    const OTHER: PeerId = PeerId([2; 32]);

    fn at(address: &str) -> Vec<String> {
        vec![address.to_owned()]
    }

    fn shared(dir: &TempDir) -> (State, ShareId) {
        let state = State::open(Some(dir.path().join("state"))).unwrap();
        let share = state.share_for(dir.path()).unwrap().share;
        state.remember(share, ONE).unwrap();
        (state, share)
    }

    #[tokio::test]
    async fn what_changes_is_told_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (state, share) = shared(&dir);
        state.note_member(share, ONE, &at("a:1")).unwrap();
        let roster = Arc::new(Roster::new(state.clone(), share));
        let mut members = roster.members();
        assert_eq!(members.borrow_and_update().keys().collect::<Vec<_>>(), [&ONE]);
        roster.note(ONE, at("a:1"));
        roster.note(OTHER, at("b:1"));
        roster.read();
        assert!(!members.has_changed().unwrap(), "nothing is new, and the other one was not let in");
        state.remember(share, OTHER).unwrap();
        roster.note(OTHER, Vec::new());
        assert!(members.has_changed().unwrap());
        assert_eq!(members.borrow_and_update().len(), 2);
        state.revoke(ONE).unwrap();
        roster.read();
        assert_eq!(members.borrow_and_update().keys().collect::<Vec<_>>(), [&OTHER]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_again_and_again_is_told_of_once_in_a_while_and_then_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (state, share) = shared(&dir);
        state.remember(share, OTHER).unwrap();
        let roster = Arc::new(Roster::new(state.clone(), share));
        let mut members = roster.members();
        let begun = Instant::now();
        (1..=100).for_each(|port| roster.note(ONE, at(&format!("a:{port}"))));
        roster.note(OTHER, at("b:1"));
        assert_eq!(*members.borrow_and_update(), Members::from([(ONE, at("a:1")), (OTHER, at("b:1"))]));
        timeout(HOLD_FOR * 2, members.changed()).await.unwrap().unwrap();
        assert!(begun.elapsed() >= HOLD_FOR);
        assert_eq!(members.borrow_and_update()[&ONE], at("a:100"));
        assert_eq!(state.members_of(share).unwrap()[&ONE], at("a:100"));
        // The time begins anew; and who is back where it was has not moved.
        roster.note(ONE, at("a:1"));
        roster.note(ONE, at("a:100"));
        sleep(HOLD_FOR * 2).await;
        assert!(!members.has_changed().unwrap());
        roster.note(ONE, at("a:1"));
        assert_eq!(members.borrow_and_update()[&ONE], at("a:1"), "that was long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_let_in_any_more_when_it_is_taken_up_is_no_member() {
        let dir = tempfile::tempdir().unwrap();
        let (state, share) = shared(&dir);
        let roster = Arc::new(Roster::new(state.clone(), share));
        ["a:1", "a:2"].into_iter().for_each(|address| roster.note(ONE, at(address)));
        state.revoke(ONE).unwrap();
        roster.read();
        sleep(HOLD_FOR * 2).await;
        assert_eq!(*roster.members().borrow(), Members::new());
        assert!(roster.held().is_empty(), "nothing is kept of it");
    }
}
