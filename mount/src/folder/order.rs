//! Looking at the folder and telling what was seen, one at a time.
//!
//! What somebody looked at before a change and tells after it would undo the change for whoever listens. So looking and
//! telling are one thing that nobody else's looking and telling comes between. Changing the folder needs no part in
//! it: whoever has changed something looks afterwards, and whoever tells last has looked last.
//!
//! The thread that watches may look for long (it reads whole directories), and a program's call must not wait for that.
//! So who finds somebody else at it leaves the work to them, to be done as soon as they are through.

use crate::ranked::{Rank, Ranked};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// The order in which is looked and told.
pub(crate) struct Order {
    turn: Ranked<()>,
    /// What is left to whoever has the turn.
    waiting: Mutex<VecDeque<Job>>,
}

impl Default for Order {
    fn default() -> Order {
        Order { turn: Ranked::new(Rank::Telling, ()), waiting: Mutex::default() }
    }
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Order({} wait)", self.waiting().len())
    }
}

impl Order {
    /// Waits for its turn. What was left to it before is done first, and what is left meanwhile at the end.
    pub(crate) fn wait_for<T>(&self, work: impl FnOnce() -> T) -> T {
        let turn = self.turn.lock();
        while let Some(job) = self.next() {
            job();
        }
        let done = work();
        drop(turn);
        self.catch_up();
        done
    }

    /// Does `work` now, after what was left to whoever has the turn, if nobody has it.
    pub(crate) fn at_once<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let turn = self.turn.try_lock()?;
        while let Some(job) = self.next() {
            job();
        }
        let done = work();
        drop(turn);
        self.catch_up();
        Some(done)
    }

    /// Does `job` now, or, if somebody else has the turn, leaves it to them. Jobs are done in the order in which they came.
    pub(crate) fn now_or_next(&self, job: impl FnOnce() + Send + 'static) {
        self.waiting().push_back(Box::new(job));
        self.catch_up();
    }

    /// Does what waits, unless somebody has the turn, be it this thread: they will, because they look again after they have
    /// given it back.
    fn catch_up(&self) {
        while !self.waiting().is_empty() {
            let Some(_turn) = self.turn.try_lock() else { return };
            while let Some(job) = self.next() {
                job();
            }
        }
    }

    fn next(&self) -> Option<Job> {
        self.waiting().pop_front()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    #[test]
    fn what_comes_while_somebody_looks_is_done_by_them_and_in_order() {
        let (order, (sender, done)) = (Arc::new(Order::default()), channel());
        order.wait_for(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 0..3 {
                        let sender = sender.clone();
                        order.now_or_next(move || sender.send(number).unwrap());
                    }
                });
            });
            assert!(done.try_recv().is_err(), "they wait for whoever looks, and hold up nobody");
        });
        assert_eq!(done.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn nobody_is_left_waiting_and_nobody_comes_between() {
        let (order, inside, done) = (Arc::new(Order::default()), Arc::new(Mutex::new(())), Arc::new(Mutex::new(0)));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let (alone, done) = (inside.clone(), done.clone());
                        order.now_or_next(move || {
                            let _alone = alone.try_lock().expect("nobody else has the turn");
                            *done.lock().unwrap() += 1;
                        });
                        order.wait_for(|| drop(inside.try_lock().expect("nobody else has the turn")));
                    }
                });
            }
        });
        assert_eq!(*done.lock().unwrap(), 2_000);
    }
}
