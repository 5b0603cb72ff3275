//! The names in one directory, in their order.
//!
//! They lie side by side in runs of at most [`RUN`]: a listing comes in order, and leaves every run full behind it, where the
//! nodes of a tree would be left half empty. A name that comes in between moves only what is in its run.

use crate::ids::Ino;
use crate::path::Name;

/// The most names in one run.
const RUN: usize = 64;

/// Two runs that have no more than this together become one.
const SMALL: usize = RUN / 2;

type Run = Vec<(Name, Ino)>;

/// Names, each with the entry that has it.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// None is empty.
    runs: Vec<Run>,
}

impl Names {
    /// The run that holds `name` if any does, and where in it that is or would be.
    fn place(&self, name: &[u8]) -> (usize, Result<usize, usize>) {
        // What comes in order is behind all others.
        if let Some(((last, _), run)) = self.runs.last().and_then(|run| Some((run.last()?, run)))
            && last.as_bytes() < name
        {
            return (self.runs.len() - 1, Err(run.len()));
        }
        let behind = self.runs.partition_point(|run| run.first().is_some_and(|(first, _)| first.as_bytes() <= name));
        let at = behind.saturating_sub(1);
        let run = self.runs.get(at).map_or(&[][..], Vec::as_slice);
        (at, run.binary_search_by(|(other, _)| other.as_bytes().cmp(name)))
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<Ino> {
        let (at, place) = self.place(name);
        Some(self.runs.get(at)?[place.ok()?].1)
    }

    /// Gives a name to an entry. Returns which one had it before.
    pub(crate) fn insert(&mut self, name: Name, ino: Ino) -> Option<Ino> {
        let (at, place) = self.place(name.as_bytes());
        let mut place = match place {
            Ok(place) => return Some(core::mem::replace(&mut self.runs[at][place].1, ino)),
            Err(place) => place,
        };
        let mut at = at;
        match self.runs.get_mut(at) {
            None => self.runs.push(Run::new()),
            Some(run) if run.len() < RUN => {}
            // What comes in order leaves full runs behind.
            Some(_) if place == RUN => {
                (at, place) = (at + 1, 0);
                self.runs.insert(at, Run::new());
            }
            Some(run) => {
                let second = run.split_off(RUN / 2);
                run.shrink_to_fit();
                self.runs.insert(at + 1, second);
                if place > RUN / 2 {
                    (at, place) = (at + 1, place - RUN / 2);
                }
            }
        }
        let run = &mut self.runs[at];
        if run.len() == run.capacity() {
            // Most directories hold less than a run: not twice as much room at once.
            run.reserve_exact(run.len().clamp(2, RUN / 4));
        }
        run.insert(place, (name, ino));
        None
    }

    pub(crate) fn remove(&mut self, name: &Name) -> Option<Ino> {
        let (at, place) = self.place(name.as_bytes());
        let run = self.runs.get_mut(at)?;
        let (_, ino) = run.remove(place.ok()?);
        let len = run.len();
        let next = self.runs.get(at + 1).map_or(RUN, Vec::len);
        if len == 0 {
            self.runs.remove(at);
        } else if len + next <= SMALL {
            let next = self.runs.remove(at + 1);
            self.runs[at].extend(next);
        } else if len <= self.runs[at].capacity() / 4 {
            self.runs[at].shrink_to(2 * len);
        }
        Some(ino)
    }

    /// All of them, in their order.
    pub(crate) fn iter(&self) -> NamesBehind<'_> {
        self.iter_behind(None)
    }

    /// All of them behind `name`, which need not be there, or all.
    pub(crate) fn iter_behind(&self, name: Option<&Name>) -> NamesBehind<'_> {
        let (run, place) = name.map_or((0, 0), |name| {
            let (run, place) = self.place(name.as_bytes());
            (run, place.map_or_else(|place| place, |place| place + 1))
        });
        NamesBehind { names: self, run, place }
    }

    /// The entry with the first name.
    pub(crate) fn first(&self) -> Option<Ino> {
        self.iter().next().map(|(_, ino)| ino)
    }

    /// The entry with the first name behind `name`, which need not be there.
    pub(crate) fn behind(&self, name: &Name) -> Option<Ino> {
        self.iter_behind(Some(name)).next().map(|(_, ino)| ino)
    }
}

/// See [`Names::iter_behind`].
pub(crate) struct NamesBehind<'a> {
    names: &'a Names,
    run: usize,
    place: usize,
}

impl<'a> Iterator for NamesBehind<'a> {
    type Item = (&'a Name, Ino);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let run = self.names.runs.get(self.run)?;
            if let Some((name, ino)) = run.get(self.place) {
                self.place += 1;
                return Some((name, *ino));
            }
            (self.run, self.place) = (self.run + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ops::Bound;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn name(number: u64) -> Name {
        Name::new(format!("{number:03}").as_bytes()).unwrap()
    }

    fn check(names: &Names) {
        assert!(names.runs.iter().all(|run| (1..=RUN).contains(&run.len())));
    }

    proptest! {
        #[test]
        fn names_are_a_map(
            in_order in 0..300u64,
            changes in proptest::collection::vec((0..400u64, prop::bool::weighted(0.5)), 0..400),
            at in 0..400u64,
        ) {
            let (mut names, mut model) = (Names::default(), BTreeMap::new());
            let begun = (0..in_order).map(|number| (number, true));
            for (ino, (number, comes)) in (1..).zip(begun.chain(changes)) {
                if comes {
                    prop_assert_eq!(names.insert(name(number), Ino(ino)), model.insert(name(number), Ino(ino)));
                } else {
                    prop_assert_eq!(names.remove(&name(number)), model.remove(&name(number)));
                }
                check(&names);
            }
            prop_assert!(names.iter().eq(model.iter().map(|(name, ino)| (name, *ino))));
            prop_assert_eq!(names.first(), model.values().next().copied());
            let at = name(at);
            prop_assert_eq!(names.get(at.as_bytes()), model.get(&at).copied());
            let behind = (Bound::Excluded(at.clone()), Bound::Unbounded);
            prop_assert_eq!(names.behind(&at), model.range(behind).next().map(|(_, ino)| *ino));
        }
    }

    #[test]
    fn names_that_come_in_order_leave_no_room_unused() {
        let mut names = Names::default();
        (0..640).for_each(|number| _ = names.insert(name(number), Ino(number)));
        assert_eq!(names.runs.iter().map(Vec::capacity).sum::<usize>(), 640);
        (0..640).filter(|number| number % 64 != 7).for_each(|number| _ = names.remove(&name(number)));
        let room = names.runs.iter().map(Vec::capacity).sum::<usize>();
        assert!(room <= 64, "{room} for the 10 that are left");
    }
}
