//! The simulator's only source of chance: numbers drawn from a seed.

use std::ops::RangeInclusive;
use std::time::Duration;

/// SplitMix64. The same seed gives the same numbers, on every machine.
#[derive(Debug, Clone)]
pub struct Lots(u64);

impl Lots {
    /// Numbers for `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Lots {
        Lots(seed)
    }

    /// The next number: any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Numbers that are independent of these, for somebody else.
    #[must_use]
    pub fn split(&mut self) -> Lots {
        Lots(self.bits())
    }

    /// A number below `count`, which is not zero.
    pub fn below(&mut self, count: u64) -> u64 {
        self.bits() % count
    }

    /// A number in `range`, which is not empty.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// A span of whole milliseconds in `range`, which is not empty.
    pub fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// Yes in `of_hundred` of a hundred cases.
    pub fn chance(&mut self, of_hundred: u64) -> bool {
        self.below(100) < of_hundred
    }

    /// One of `choices`, which are not none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let at = self.below(choices.len() as u64) as usize;
        &choices[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut lots = Lots::new(0);
        assert_eq!(lots.bits(), 0xe220_a839_7b1d_cdaf);
        assert!((0..1000).all(|_| (3..=5).contains(&lots.within(3..=5))));
        assert!(!(0..1000).any(|_| lots.chance(0)) && (0..1000).all(|_| lots.chance(100)));
    }
}
