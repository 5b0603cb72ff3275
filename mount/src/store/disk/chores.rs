//! Disk work that nobody waits for, such as removing what was let go of: done one after the other, in the order in which
//! it came, on the threads that may wait for a disk.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something to be done.
pub(super) type Chore = Box<dyn FnOnce() + Send>;

/// What is to be done. Clones are the same list.
#[derive(Clone, Default)]
pub(super) struct Chores(Arc<Inner>);

#[derive(Default)]
struct Inner {
    waiting: Mutex<VecDeque<Chore>>,
    /// Held by who does them.
    doing: Mutex<()>,
}

impl Chores {
    /// Has something done soon; at once if there is no runtime.
    pub(super) fn add(&self, chore: Chore) {
        lock(&self.0.waiting).push_back(chore);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let chores = self.clone();
                runtime.spawn_blocking(move || chores.finish());
            }
            Err(_) => self.finish(),
        }
    }

    /// Does what is to be done, and waits for who does some of it already.
    pub(super) fn finish(&self) {
        let _doing = lock(&self.0.doing);
        loop {
            // Not held while it is done.
            let Some(chore) = lock(&self.0.waiting).pop_front() else { return };
            chore();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Chores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} chores", lock(&self.0.waiting).len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn they_are_done_in_order_and_finishing_waits_for_them() {
        let (chores, done) = (Chores::default(), Arc::new(Mutex::new(Vec::new())));
        for number in 0..100 {
            let done = done.clone();
            chores.add(Box::new(move || done.lock().unwrap().push(number)));
        }
        tokio::task::spawn_blocking(move || chores.finish()).await.unwrap();
        assert_eq!(*done.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_runtime_they_are_done_at_once() {
        let (chores, done) = (Chores::default(), Arc::new(Mutex::new(false)));
        let note = done.clone();
        chores.add(Box::new(move || *note.lock().unwrap() = true));
        assert!(*done.lock().unwrap());
    }
}
