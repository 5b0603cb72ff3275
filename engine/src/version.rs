//! Which changes of a path are known: version vectors, so that what was written over what is a fact and not a reading of clocks.
//!
//! Every change of a path counts up the number of the device that made it. A version names, for each device, its last change
//! that is known; two that each name a change which the other does not were made without knowledge of each other, whatever
//! the clocks said.

use crate::fault::PeerFault;
use crate::ids::PeerId;
use crate::record::Record;
use core::cmp::Ordering;
use core::fmt;
use core::ops::RangeInclusive;

/// The highest number that a change may have. Numbers follow the time of day in microseconds, which gets there in a hundred
/// thousand years.
pub const MAX_COUNTER: u64 = 1 << 62;

/// The most devices that one version may name: more than will ever have written to one path.
pub const MAX_PAIRS: usize = 64;

/// The most that can stand beside what keeps a path: more than will ever have been written to one path at once.
pub const MAX_SIBLINGS: usize = 16;

/// A device, as versions name it: the first eight bytes of its [`PeerId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DeviceTag(pub u64);

impl DeviceTag {
    /// The tag of a device.
    #[must_use]
    pub fn of(peer: &PeerId) -> DeviceTag {
        let [a, b, c, d, e, f, g, h, ..] = peer.0;
        DeviceTag(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl fmt::Display for DeviceTag {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for DeviceTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}

/// One change: the device that made it, and that device's number for it, which it never gives to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dot {
    /// Who made it.
    pub author: DeviceTag,
    /// Its number, never zero.
    pub counter: u64,
}

/// The changes that led to one state of a path: for each device, the number of its last one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Pairs);

/// Nearly every path was only ever written by one device, and then needs no memory of its own.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Pairs {
    One(Dot),
    /// None, or at least two, in the order of their devices.
    Many(Box<[Dot]>),
}

impl Default for Version {
    fn default() -> Version {
        Version(Pairs::Many(Box::default()))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.dots().iter().map(|dot| (dot.author, dot.counter))).finish()
    }
}

impl From<Dot> for Version {
    fn from(dot: Dot) -> Version {
        Version(Pairs::One(dot))
    }
}

impl Version {
    /// A version of these pairs, as a peer says it.
    ///
    /// # Errors
    /// [`PeerFault::Version`] if there are none or more than [`MAX_PAIRS`], if a counter is not 1 to [`MAX_COUNTER`], or if
    /// the devices are not in their order, each once.
    pub fn new(pairs: Vec<Dot>) -> Result<Version, PeerFault> {
        let in_order = pairs.is_sorted_by(|before, after| before.author < after.author);
        let in_range = !pairs.is_empty()
            && pairs.len() <= MAX_PAIRS
            && pairs.iter().all(|dot| (1..=MAX_COUNTER).contains(&dot.counter));
        if in_order && in_range { Ok(Version::of(pairs)) } else { Err(PeerFault::Version) }
    }

    fn of(pairs: Vec<Dot>) -> Version {
        match pairs[..] {
            [dot] => dot.into(),
            _ => Version(Pairs::Many(pairs.into())),
        }
    }

    /// For each device its last change, in the order of the devices.
    #[must_use]
    pub fn dots(&self) -> &[Dot] {
        match &self.0 {
            Pairs::One(dot) => core::slice::from_ref(dot),
            Pairs::Many(dots) => dots,
        }
    }

    /// The number of a device's last change; zero if it made none.
    #[must_use]
    pub fn counter_of(&self, author: DeviceTag) -> u64 {
        let dots = self.dots();
        dots.binary_search_by_key(&author, |dot| dot.author).map_or(0, |at| dots[at].counter)
    }

    /// The highest number in it, of any device; zero if it names no change.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.dots().iter().map(|dot| dot.counter).max().unwrap_or(0)
    }

    /// Whether it names this change, or a later one of the same device.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        self.counter_of(dot.author) >= dot.counter
    }

    /// The version that names what either of the two names. Of the devices beyond [`MAX_PAIRS`] those with the lowest
    /// numbers are forgotten: what is left may then be taken for concurrent, which loses nothing.
    #[must_use]
    pub fn join(&self, other: &Version) -> Version {
        let (mut ours, mut theirs) = (self.dots().iter().peekable(), other.dots().iter().peekable());
        let mut joined = Vec::with_capacity(self.dots().len().max(other.dots().len()));
        loop {
            let dot = match (ours.peek(), theirs.peek()) {
                (Some(a), Some(b)) => match a.author.cmp(&b.author) {
                    Ordering::Less => ours.next(),
                    Ordering::Greater => theirs.next(),
                    Ordering::Equal => ours.next().max(theirs.next()),
                },
                (Some(_), None) => ours.next(),
                (None, _) => theirs.next(),
            };
            match dot {
                Some(dot) => joined.push(*dot),
                None => break,
            }
        }
        while joined.len() > MAX_PAIRS {
            if let Some(at) = (0..joined.len()).min_by_key(|at| (joined[*at].counter, joined[*at].author)) {
                joined.remove(at);
            }
        }
        Version::of(joined)
    }

    /// The version after one more change.
    #[must_use]
    pub fn with(&self, dot: Dot) -> Version {
        self.join(&dot.into())
    }
}

/// A device's own numbers for its changes: each higher than all that it has used or seen before.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    author: DeviceTag,
    /// At least this was used.
    last: u64,
    /// The numbers that were given in this life, in their order, as ranges.
    given: Vec<RangeInclusive<u64>>,
}

/// How many ranges of numbers are remembered. Beyond that the first two are taken for one, with what is between them.
const MOST_RANGES: usize = 1_024;

impl Clock {
    /// The numbers of `author` that are higher than `base`. A base that follows the time of day makes a device which lost
    /// its memory give higher numbers than before.
    pub(crate) fn new(author: DeviceTag, base: u64) -> Clock {
        Clock { author, last: base.min(MAX_COUNTER), given: Vec::new() }
    }

    /// The dot of a change of what has version `before`. Its number is higher than any in that, so that it is the highest
    /// of the version after it.
    pub(crate) fn dot_after(&mut self, before: &Version) -> Dot {
        self.last = (self.last.max(before.highest()) + 1).min(MAX_COUNTER);
        match self.given.last_mut() {
            Some(range) if *range.end() + 1 == self.last => *range = *range.start()..=self.last,
            _ => self.given.push(self.last..=self.last),
        }
        if self.given.len() > MOST_RANGES {
            let (first, second) = (self.given.remove(0), self.given.remove(0));
            self.given.insert(0, *first.start()..=*second.end());
        }
        Dot { author: self.author, counter: self.last }
    }

    /// A version names changes of this device: no number up to those is given any more.
    pub(crate) fn note(&mut self, version: &Version) {
        self.last = self.last.max(version.counter_of(self.author));
    }

    /// Whether a version names a change of this device that was made in an earlier life, and of which this one did not know
    /// when it gave `dot`: the version would be taken for one that knows of that, too.
    pub(crate) fn is_overtaken(&self, dot: Dot, version: &Version) -> bool {
        let named = version.counter_of(self.author);
        let is_ours = |counter: u64| self.given.iter().any(|range| range.contains(&counter));
        dot.author == self.author && is_ours(dot.counter) && named >= dot.counter && !is_ours(named)
    }
}

/// Which state of a path: which changes are known of it, which of them made what stands there, and what else was written
/// without knowledge of that.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Revision {
    /// The changes that are known of the path. What one of them made, and stands neither there nor among the others, was
    /// written over or removed.
    pub version: Version,
    /// The change that made what stands there. Of what was removed: the one with the highest number.
    pub dot: Dot,
    /// What else was written there, without knowledge of it, in the order of the changes that made it. Almost always nothing;
    /// never anything where something was removed.
    pub others: Siblings,
}

/// What was written at a path without knowledge of what stands there, and lives on until whoever has it has put it elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sibling {
    /// The change that made it.
    pub dot: Dot,
    /// What it is.
    pub record: Record,
}

/// Nearly every path has none, and then needs no memory of its own for them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[allow(clippy::box_collection, reason = "every entry of a tree has one of these, and pays for a pointer only")]
pub struct Siblings(Option<Box<Vec<Sibling>>>);

impl From<Vec<Sibling>> for Siblings {
    fn from(siblings: Vec<Sibling>) -> Siblings {
        Siblings((!siblings.is_empty()).then(|| Box::new(siblings)))
    }
}

impl core::ops::Deref for Siblings {
    type Target = [Sibling];

    fn deref(&self) -> &[Sibling] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl From<Dot> for Revision {
    /// The state of a path that nobody had changed before.
    fn from(dot: Dot) -> Revision {
        Revision { version: dot.into(), dot, others: Siblings::default() }
    }
}

impl Revision {
    /// The state that one change made of what had version `before`, with all that stood there.
    #[must_use]
    pub fn after(before: &Version, dot: Dot) -> Revision {
        Revision { version: before.with(dot), dot, others: Siblings::default() }
    }

    /// Nothing of what these changes made is there any more.
    #[must_use]
    pub fn removed(version: Version) -> Revision {
        let dot = version.dots().iter().max_by_key(|dot| (dot.counter, dot.author)).copied().unwrap_or_default();
        Revision { version, dot, others: Siblings::default() }
    }

    /// Checks what a peer says of something that is there.
    ///
    /// # Errors
    /// [`PeerFault::Version`] if its version does not name the changes that made it and what stands beside it, each once and
    /// in their order, or if there are more than [`MAX_SIBLINGS`]; the first rule that a record beside it breaks.
    pub fn check(&self) -> Result<(), PeerFault> {
        let in_order = self.others.is_sorted_by(|before, after| before.dot < after.dot);
        let is_named = |dot: Dot| dot.counter > 0 && self.version.covers(dot);
        let others_fit = self.others.iter().all(|other| is_named(other.dot) && other.dot != self.dot);
        if !is_named(self.dot) || !in_order || !others_fit || self.others.len() > MAX_SIBLINGS {
            return Err(PeerFault::Version);
        }
        self.others.iter().try_for_each(|other| other.record.check().map_err(PeerFault::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dot(author: u64, counter: u64) -> Dot {
        Dot { author: DeviceTag(author), counter }
    }

    fn versions() -> impl Strategy<Value = Version> {
        proptest::collection::btree_map(0..5_u64, 1..5_u64, 0..5)
            .prop_map(|pairs| Version::of(pairs.into_iter().map(|(author, counter)| dot(author, counter)).collect()))
    }

    proptest! {
        #[test]
        fn joining_is_commutative_associative_and_idempotent(a in versions(), b in versions(), c in versions()) {
            prop_assert_eq!(a.join(&b), b.join(&a));
            prop_assert_eq!(a.join(&b).join(&c), a.join(&b.join(&c)));
            prop_assert_eq!(a.join(&a), a);
        }

        #[test]
        fn a_change_is_newer_than_all_that_was_before(a in versions(), author in 0..6_u64, base in 0..9_u64) {
            let mut clock = Clock::new(DeviceTag(author), base);
            let after = Revision::after(&a, clock.dot_after(&a));
            prop_assert_eq!(after.version.join(&a), after.version.clone());
            prop_assert!(!a.covers(after.dot));
            prop_assert_eq!(after.version.highest(), after.dot.counter);
            prop_assert!(after.dot.counter > base);
            prop_assert!(clock.dot_after(&Version::default()) > after.dot);
        }

        #[test]
        fn what_a_version_says_reads_back(a in versions()) {
            let again = Version::new(a.dots().to_vec());
            prop_assert_eq!(again, if a.dots().is_empty() { Err(PeerFault::Version) } else { Ok(a) });
        }
    }

    #[test]
    fn a_peer_names_devices_in_order_each_once_with_a_number() {
        for pairs in [
            vec![],
            vec![dot(1, 0)],
            vec![dot(1, MAX_COUNTER + 1)],
            vec![dot(2, 1), dot(1, 1)],
            vec![dot(1, 1), dot(1, 2)],
        ] {
            assert_eq!(Version::new(pairs.clone()), Err(PeerFault::Version), "{pairs:?}");
        }
        let many = |count: u64| (0..count).map(|author| dot(author, 1)).collect::<Vec<_>>();
        assert!(Version::new(many(MAX_PAIRS as u64)).is_ok());
        assert_eq!(Version::new(many(MAX_PAIRS as u64 + 1)), Err(PeerFault::Version));
        let record = Record {
            kind: crate::record::Kind::Dir,
            mode: 0o755,
            modified: crate::record::FileTime::default(),
            xattrs: crate::xattrs::Xattrs::default(),
        };
        let with = |one: Dot, others: &[Dot]| {
            let others: Vec<Sibling> = others.iter().map(|dot| Sibling { dot: *dot, record: record.clone() }).collect();
            Revision { version: Version::of(vec![dot(1, 3), dot(2, 3)]), dot: one, others: others.into() }.check()
        };
        assert_eq!(with(dot(1, 1), &[dot(1, 2), dot(2, 3)]), Ok(()));
        assert_eq!(with(dot(3, 1), &[]), Err(PeerFault::Version), "a stranger");
        assert_eq!(with(dot(1, 4), &[]), Err(PeerFault::Version), "a change that is not known");
        assert_eq!(with(dot(1, 1), &[dot(1, 1)]), Err(PeerFault::Version), "twice");
        assert_eq!(with(dot(1, 1), &[dot(2, 3), dot(2, 1)]), Err(PeerFault::Version), "out of order");
        assert_eq!(with(dot(1, 1), &[dot(3, 1)]), Err(PeerFault::Version), "a stranger beside it");
    }

    #[test]
    fn a_join_keeps_to_what_may_be_said() {
        let many = |from: u64| Version::of((from..from + 40).map(|author| dot(author, author + 1)).collect());
        let joined = many(0).join(&many(40));
        assert_eq!(joined.dots().len(), MAX_PAIRS);
        assert_eq!(joined.counter_of(DeviceTag(79)), 80, "the latest changes are kept");
    }

    #[test]
    fn one_device_needs_no_memory_of_its_own() {
        assert!(size_of::<Version>() <= 24);
        assert!(matches!(Version::default().with(dot(1, 1)).0, Pairs::One(_)));
    }

    #[test]
    fn a_tag_is_the_beginning_of_a_device() {
        let mut id = [0; 32];
        id[..9].copy_from_slice(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(DeviceTag::of(&PeerId(id)).to_string(), "0001020304050607");
    }
}
