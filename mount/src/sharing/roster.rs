//! Who has our share in a folder of its own: what the state directory says, told to each of them.

use crate::state::State;
use crate::ticket::ShareId;
use farshore_engine::PeerId;
use farshore_proto::Members;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// The members of a share, as those hear it who are told.
pub struct Roster {
    state: State,
    share: ShareId,
    told: watch::Sender<Members>,
    /// Held from reading the state directory until what it says is told, so that nothing older is told after it.
    reading: Mutex<()>,
}

impl Roster {
    /// What is known of them now. Waits for the disk.
    #[must_use]
    pub fn new(state: State, share: ShareId) -> Roster {
        let roster = Roster { state, share, told: watch::Sender::new(Members::new()), reading: Mutex::default() };
        roster.read();
        roster
    }

    /// What is known of them, as it changes.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Members> {
        self.told.subscribe()
    }

    /// `peer`, which was let in, has the share in a folder of its own, and can be reached like this. Waits for the disk.
    pub fn note(&self, peer: PeerId, addresses: &[String]) {
        match self.state.note_member(self.share, peer, addresses) {
            Ok(true) => self.read(),
            Ok(false) => {}
            Err(error) => tracing::warn!("{peer} is not made known to the other devices of the share: {error}"),
        }
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

    #[test]
    fn what_changes_is_told_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(Some(dir.path().join("state"))).unwrap();
        let share = state.share_for(dir.path()).unwrap().share;
        let (one, other) = (PeerId([1; 32]), PeerId([2; 32]));
        state.remember(share, one).unwrap();
        state.note_member(share, one, &["a:1".into()]).unwrap();
        let roster = Roster::new(state.clone(), share);
        let mut members = roster.members();
        assert_eq!(members.borrow_and_update().keys().collect::<Vec<_>>(), [&one]);
        roster.note(one, &["a:1".into()]);
        roster.note(other, &["b:1".into()]);
        roster.read();
        assert!(!members.has_changed().unwrap(), "nothing is new, and the other one was not let in");
        state.remember(share, other).unwrap();
        roster.note(other, &[]);
        assert!(members.has_changed().unwrap());
        assert_eq!(members.borrow_and_update().len(), 2);
        state.revoke(one).unwrap();
        roster.read();
        assert_eq!(members.borrow_and_update().keys().collect::<Vec<_>>(), [&other]);
    }
}
