//! Open files, at most so many at once: a store may hold far more contents than a process may have descriptors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Open files by number. One that was not used for a while is closed when another needs its place, and opened anew
/// when it is needed again. A hit allocates nothing.
#[derive(Debug)]
pub(super) struct Descriptors {
    limit: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    slots: Vec<Slot>,
    places: BTreeMap<u64, usize>,
    /// The next slot that may have to go.
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    file: Arc<File>,
    /// Used since the hand came by.
    used: bool,
}

impl Descriptors {
    /// For at most `limit` open files, and at least one.
    pub(super) fn new(limit: usize) -> Descriptors {
        Descriptors { limit: limit.max(1), open: Mutex::default() }
    }

    /// The file with this number, opened by `open` if it is not open.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn get(&self, number: u64, open: impl FnOnce() -> io::Result<File>) -> io::Result<Arc<File>> {
        if let Some(file) = self.lock().find(number) {
            return Ok(file);
        }
        let file = Arc::new(open()?);
        let mut now_open = self.lock();
        // Somebody else may have opened it meanwhile; then theirs is used.
        if let Some(theirs) = now_open.find(number) {
            return Ok(theirs);
        }
        let closed = now_open.put(number, Arc::clone(&file), self.limit);
        drop(now_open);
        // Closing may take a while; nobody waits for it.
        drop(closed);
        Ok(file)
    }

    /// Closes the file with this number, if it is open and once nobody uses it.
    pub(super) fn close(&self, number: u64) {
        let closed = self.lock().remove(number);
        drop(closed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn find(&mut self, number: u64) -> Option<Arc<File>> {
        let slot = self.slots.get_mut(*self.places.get(&number)?)?;
        slot.used = true;
        Some(Arc::clone(&slot.file))
    }

    /// Puts a file in. Returns the one that had to go, if one had to.
    fn put(&mut self, number: u64, file: Arc<File>, limit: usize) -> Option<Slot> {
        let slot = Slot { number, file, used: true };
        if self.slots.len() < limit {
            self.places.insert(number, self.slots.len());
            self.slots.push(slot);
            return None;
        }
        // Ends within two rounds: the first one takes every mark away.
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[place].used) {
                self.places.remove(&self.slots[place].number);
                self.places.insert(number, place);
                return Some(std::mem::replace(&mut self.slots[place], slot));
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Slot> {
        let place = self.places.remove(&number)?;
        let slot = self.slots.swap_remove(place);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.number, place);
        }
        if self.hand >= self.slots.len() {
            self.hand = 0;
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn no_more_than_the_limit_stay_open_and_the_unused_go_first() {
        let descriptors = Descriptors::new(3);
        let opened = Cell::new(0);
        let get = |number| {
            let open = || {
                opened.set(opened.get() + 1);
                tempfile::tempfile()
            };
            descriptors.get(number, open).unwrap()
        };
        for number in 0..3 {
            get(number);
        }
        assert_eq!(opened.get(), 3);
        get(3);
        for number in [1, 2, 3] {
            get(number);
        }
        assert_eq!(opened.get(), 4, "number 0 went, the others stayed");
        get(4);
        get(5);
        assert_eq!(descriptors.lock().slots.len(), 3);
        assert_eq!(opened.get(), 6);
    }

    #[test]
    fn what_is_closed_is_gone_and_the_others_are_found() {
        let descriptors = Descriptors::new(8);
        let files: Vec<_> = (0..5).map(|number| descriptors.get(number, tempfile::tempfile).unwrap()).collect();
        descriptors.close(1);
        descriptors.close(1);
        descriptors.close(4);
        assert_eq!(Arc::strong_count(&files[1]), 1, "nobody but us has it any more");
        for number in [0, 2, 3] {
            let never = || -> io::Result<File> { panic!("number {number} was closed") };
            let found = descriptors.get(number, never).unwrap();
            assert!(Arc::ptr_eq(&found, &files[number as usize]));
        }
    }
}
