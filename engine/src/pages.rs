//! A table by entry number that costs little more than what it holds.
//!
//! Numbers are handed out upwards and never again, so entries that came together have numbers close together: 64 of them
//! share a page, which has room for those that are left. A tree with every entry in a node of its own, or in nodes that
//! are half full, would need twice the memory for a large share.

use crate::ids::Ino;
use std::collections::BTreeMap;

/// Numbers of one page.
const PAGE: u64 = u64::BITS as u64;

/// What has a number, in the order of the numbers.
#[derive(Debug)]
pub(crate) struct Pages<T> {
    pages: BTreeMap<u64, Page<T>>,
    len: u64,
}

#[derive(Debug)]
struct Page<T> {
    /// Which of its numbers are taken.
    taken: u64,
    /// What has them, in their order.
    items: Vec<T>,
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages { pages: BTreeMap::new(), len: 0 }
    }
}

impl<T> Default for Page<T> {
    fn default() -> Page<T> {
        Page { taken: 0, items: Vec::new() }
    }
}

impl<T> Page<T> {
    /// Where what has a number is among the items, or would be.
    fn place(&self, ino: Ino) -> Result<usize, usize> {
        let bit = 1 << (ino.0 % PAGE);
        let before = (self.taken & (bit - 1)).count_ones() as usize;
        if self.taken & bit != 0 { Ok(before) } else { Err(before) }
    }
}

impl<T> Pages<T> {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn get(&self, ino: Ino) -> Option<&T> {
        let page = self.pages.get(&(ino.0 / PAGE))?;
        page.items.get(page.place(ino).ok()?)
    }

    pub(crate) fn get_mut(&mut self, ino: Ino) -> Option<&mut T> {
        let page = self.pages.get_mut(&(ino.0 / PAGE))?;
        let at = page.place(ino).ok()?;
        page.items.get_mut(at)
    }

    /// Gives a number to something. Returns what had it before.
    pub(crate) fn insert(&mut self, ino: Ino, item: T) -> Option<T> {
        let page = self.pages.entry(ino.0 / PAGE).or_default();
        match page.place(ino) {
            Ok(at) => Some(core::mem::replace(&mut page.items[at], item)),
            Err(at) => {
                page.taken |= 1 << (ino.0 % PAGE);
                page.items.insert(at, item);
                self.len += 1;
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, ino: Ino) -> Option<T> {
        let page = self.pages.get_mut(&(ino.0 / PAGE))?;
        let at = page.place(ino).ok()?;
        page.taken &= !(1 << (ino.0 % PAGE));
        let item = page.items.remove(at);
        self.len -= 1;
        if page.items.is_empty() {
            self.pages.remove(&(ino.0 / PAGE));
        } else if page.items.len() <= page.items.capacity() / 4 {
            page.items.shrink_to(2 * page.items.len());
        }
        Some(item)
    }

    /// Everything with its number, in the order of the numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ino, &T)> {
        self.pages.iter().flat_map(|(number, page)| numbers(*number, page.taken).zip(&page.items))
    }
}

/// The numbers of page number `page` that are in the set `taken` of them, in their order.
pub(crate) fn numbers(page: u64, mut taken: u64) -> impl Iterator<Item = Ino> {
    core::iter::from_fn(move || {
        let bit = (taken != 0).then(|| u64::from(taken.trailing_zeros()))?;
        taken &= taken - 1;
        Some(Ino(page * PAGE + bit))
    })
}

/// A set of entry numbers, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct InoSet {
    /// For each page, which of its numbers are in the set; none is empty.
    pages: BTreeMap<u64, u64>,
}

impl InoSet {
    pub(crate) fn insert(&mut self, ino: Ino) {
        *self.pages.entry(ino.0 / PAGE).or_default() |= 1 << (ino.0 % PAGE);
    }

    pub(crate) fn remove(&mut self, ino: Ino) {
        let Some(page) = self.pages.get_mut(&(ino.0 / PAGE)) else { return };
        *page &= !(1 << (ino.0 % PAGE));
        if *page == 0 {
            self.pages.remove(&(ino.0 / PAGE));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Ino> {
        self.pages.iter().flat_map(|(page, taken)| numbers(*page, *taken))
    }

    /// Those above `after`, in their order.
    pub(crate) fn above(&self, after: Ino) -> impl Iterator<Item = Ino> {
        let (first, bit) = (after.0 / PAGE, after.0 % PAGE);
        // All bits above this one; there may be none.
        let rest = !0_u64 << bit << 1;
        let pages = self.pages.range(first..);
        pages.flat_map(move |(page, taken)| numbers(*page, if *page == first { taken & rest } else { *taken }))
    }

    /// Those below `before`, the highest first.
    pub(crate) fn below(&self, before: Ino) -> impl Iterator<Item = Ino> {
        let (last, bit) = (before.0 / PAGE, before.0 % PAGE);
        let rest = (1_u64 << bit) - 1;
        let pages = self.pages.range(..=last).rev();
        pages.flat_map(move |(page, taken)| {
            let mut taken = if *page == last { taken & rest } else { *taken };
            let page = *page;
            core::iter::from_fn(move || {
                let bit = taken.checked_ilog2()?;
                taken &= !(1 << bit);
                Some(Ino(page * PAGE + u64::from(bit)))
            })
        })
    }
}

impl FromIterator<Ino> for InoSet {
    fn from_iter<I: IntoIterator<Item = Ino>>(inos: I) -> InoSet {
        let mut set = InoSet::default();
        inos.into_iter().for_each(|ino| set.insert(ino));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Numbers near the borders of pages, some of them far away, and whether each comes or goes.
    fn changes() -> impl Strategy<Value = Vec<(Ino, bool)>> {
        let ino = prop_oneof![1..200u64, Just(u64::MAX), Just(u64::MAX - 63), Just(1 << 40)].prop_map(Ino);
        proptest::collection::vec((ino, prop::bool::weighted(0.6)), 0..300)
    }

    proptest! {
        #[test]
        fn a_table_is_a_map(changes in changes()) {
            let (mut pages, mut model) = (Pages::default(), BTreeMap::new());
            for (value, (ino, comes)) in changes.into_iter().enumerate() {
                if comes {
                    prop_assert_eq!(pages.insert(ino, value), model.insert(ino, value));
                } else {
                    prop_assert_eq!(pages.remove(ino), model.remove(&ino));
                }
                prop_assert_eq!(pages.get(ino), model.get(&ino));
                prop_assert_eq!(pages.get_mut(Ino(64)).copied(), model.get(&Ino(64)).copied());
                prop_assert_eq!(pages.len(), model.len() as u64);
            }
            prop_assert!(pages.iter().eq(model.iter().map(|(ino, value)| (*ino, value))));
            prop_assert!(pages.pages.values().all(|page| !page.items.is_empty()), "an empty page is given back");
        }

        #[test]
        fn a_set_is_a_set(changes in changes(), at in 0..200u64) {
            let (mut set, mut model) = (InoSet::default(), BTreeSet::new());
            for (ino, comes) in changes {
                if comes {
                    set.insert(ino);
                    model.insert(ino);
                } else {
                    set.remove(ino);
                    model.remove(&ino);
                }
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            for at in [Ino(at), Ino(63), Ino(64), Ino(u64::MAX)] {
                prop_assert!(set.above(at).eq(model.iter().copied().filter(|ino| *ino > at)));
                prop_assert!(set.below(at).eq(model.iter().rev().copied().filter(|ino| *ino < at)));
            }
            prop_assert_eq!(set, model.into_iter().collect());
        }
    }

    #[test]
    fn entries_that_came_together_share_full_pages_and_those_left_alone_give_room_back() {
        let mut pages = Pages::default();
        for ino in 0..640 {
            pages.insert(Ino(ino), ino);
        }
        let room = |pages: &Pages<u64>| pages.pages.values().map(|page| page.items.capacity()).sum::<usize>();
        assert_eq!(room(&pages), 640);
        for ino in (0..640).filter(|ino| ino % 64 != 7) {
            pages.remove(Ino(ino));
        }
        assert!(room(&pages) <= 40, "{}", room(&pages));
    }
}
