//! Locks that a thread can take in one order only.
//!
//! Two threads that take two locks in two orders may wait for each other for ever, and tests seldom see it happen. So each
//! lock has a rank, and who takes one while holding another of the same or a later rank panics, in builds with debug
//! assertions, whether or not anybody else is there.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// What a lock is for, in the order in which a thread may take them. Those that are held while a disk is waited for come
/// before the node's, so that nobody who holds that one waits for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    /// Looking at the shared folder and telling what was seen.
    Telling,
    /// Making the file of a content.
    Making,
    /// Saving what is stored.
    Saving,
    /// Giving a content, or its sidecar, its name.
    Naming,
    /// Writing the journal of what is remembered.
    Journal,
    /// The engine, and everything that changes together with it.
    Node,
    /// The frames of a content, or where it is stored.
    Content,
    /// What a store knows of one content.
    Ledger,
    /// What a store knows of all.
    Shelf,
}

thread_local! {
    /// The ranks of the locks that this thread holds, a bit for each.
    static HELD: Cell<u16> = const { Cell::new(0) };
}

/// A value behind a lock that has its place in the order.
#[derive(Debug)]
pub(crate) struct Ranked<T> {
    rank: Rank,
    value: Mutex<T>,
}

/// The right to use the value, until it is dropped.
pub(crate) struct RankedGuard<'a, T> {
    rank: Rank,
    value: MutexGuard<'a, T>,
}

impl<T> Ranked<T> {
    pub(crate) fn new(rank: Rank, value: T) -> Ranked<T> {
        Ranked { rank, value: Mutex::new(value) }
    }

    /// Waits for the lock. What somebody left who panicked is taken as it is.
    ///
    /// # Panics
    /// In builds with debug assertions, if the thread holds a lock that comes after this one.
    pub(crate) fn lock(&self) -> RankedGuard<'_, T> {
        self.check();
        self.guard(self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lock, if nobody has it, this thread included.
    ///
    /// # Panics
    /// As [`Ranked::lock`], unless somebody has it.
    pub(crate) fn try_lock(&self) -> Option<RankedGuard<'_, T>> {
        let value = match self.value.try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(left)) => left.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.check();
        Some(self.guard(value))
    }

    fn check(&self) {
        if cfg!(debug_assertions) {
            let held = HELD.get();
            assert!(held >> self.rank as u8 == 0, "{:?} is locked out of its order: {held:#b} are held", self.rank);
        }
    }

    fn guard<'a>(&self, value: MutexGuard<'a, T>) -> RankedGuard<'a, T> {
        if cfg!(debug_assertions) {
            HELD.set(HELD.get() | 1 << self.rank as u8);
        }
        RankedGuard { rank: self.rank, value }
    }

    /// The value, for who alone has it.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for RankedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for RankedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for RankedGuard<'_, T> {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            HELD.set(HELD.get() & !(1 << self.rank as u8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_taken_in_their_order_again_and_again() {
        let (node, content) = (Ranked::new(Rank::Node, 1), Ranked::new(Rank::Content, 2));
        for _ in 0..2 {
            let held = node.lock();
            *content.lock() += 1;
            let inner = content.lock();
            drop(held);
            drop(inner);
            drop(content.lock());
        }
        assert_eq!(*content.lock(), 4);
    }

    #[test]
    #[should_panic(expected = "Node is locked out of its order")]
    fn a_lock_that_is_taken_out_of_its_order_is_noticed() {
        let (node, content) = (Ranked::new(Rank::Node, ()), Ranked::new(Rank::Content, ()));
        let _content = content.lock();
        let _node = node.lock();
    }

    #[test]
    #[should_panic(expected = "Saving is locked out of its order")]
    fn who_holds_the_nodes_lock_cannot_wait_for_a_disk() {
        let (node, saving) = (Ranked::new(Rank::Node, ()), Ranked::new(Rank::Saving, ()));
        let _node = node.lock();
        let _saving = saving.lock();
    }
}
