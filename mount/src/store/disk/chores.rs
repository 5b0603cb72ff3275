//! Disk work of many small pieces, such as removing what was let go of: done one after the other, in the order in which it
//! came, by one of the threads that may wait for a disk. To have each piece done by a thread of its own would cost more
//! than the piece.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something to be done.
pub(super) type Chore = Box<dyn FnOnce() + Send>;

/// What is to be done. Clones are the same list.
#[derive(Clone, Default)]
pub(super) struct Chores(Arc<Inner>);

#[derive(Default)]
struct Inner {
    list: Mutex<List>,
    /// Held by who does them.
    doing: Mutex<()>,
}

#[derive(Default)]
struct List {
    waiting: VecDeque<Chore>,
    /// Somebody does them, or is about to, until none is left.
    is_taken: bool,
}

impl Chores {
    /// Has something done soon; at once if there is no runtime.
    pub(super) fn add(&self, chore: Chore) {
        let is_taken = {
            let mut list = lock(&self.0.list);
            list.waiting.push_back(chore);
            std::mem::replace(&mut list.is_taken, true)
        };
        match tokio::runtime::Handle::try_current() {
            Ok(_) if is_taken => {}
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
        let _unless_it_panics = GivenBack(&self.0);
        loop {
            let chore = {
                let mut list = lock(&self.0.list);
                list.is_taken = !list.waiting.is_empty();
                list.waiting.pop_front()
            };
            // The list is not held while it is done.
            let Some(chore) = chore else { return };
            chore();
        }
    }
}

/// One that panics takes nobody else's along: whoever adds the next one has the rest done.
struct GivenBack<'a>(&'a Inner);

impl Drop for GivenBack<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.list).is_taken = false;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Chores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} chores", lock(&self.0.list).waiting.len())
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

    #[tokio::test]
    async fn one_that_panics_keeps_no_other_from_being_done() {
        let (chores, (sender, mut done)) = (Chores::default(), tokio::sync::mpsc::unbounded_channel());
        chores.add(Box::new(|| panic!("on purpose")));
        // Whether it is added before or after that, it is done at the latest with the next one.
        let chore = |number: u32| {
            let sender = sender.clone();
            Box::new(move || sender.send(number).unwrap())
        };
        chores.add(chore(1));
        while lock(&chores.0.list).is_taken {
            tokio::task::yield_now().await;
        }
        chores.add(chore(2));
        assert_eq!((done.recv().await, done.recv().await), (Some(1), Some(2)));
    }

    #[test]
    fn without_a_runtime_they_are_done_at_once() {
        let (chores, done) = (Chores::default(), Arc::new(Mutex::new(false)));
        let note = done.clone();
        chores.add(Box::new(move || *note.lock().unwrap() = true));
        assert!(*done.lock().unwrap());
    }
}
