//! Noticing that somebody reads a file from front to back, and how far to run ahead of them.

use crate::chunk::CHUNK_SIZE;
use core::ops::Range;

/// How far a read may lie from where the last one ended and still continue it, in bytes (1 MiB). The kernel's own
/// read-ahead asks from several threads, whose requests overtake one another.
const SLACK_BYTES: u64 = 1024 * 1024;

/// What is known of how one open handle is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ReadAhead {
    /// Where the furthest read of this run ended.
    next: u64,
    /// Bytes read in this run, not counting its first read.
    run_bytes: u64,
    /// The chunk up to which this run was already run ahead of.
    reached: u64,
}

impl ReadAhead {
    /// A read of `range`, which is not empty. Returns the chunks to run ahead with: they lie behind the chunks of the
    /// read itself, and each is returned once in a run.
    ///
    /// A run has to prove itself: nothing is fetched ahead of its first read, and never more than twice what it
    /// has read. So a random probe costs the chunks that it touches.
    pub(crate) fn note(&mut self, range: &Range<u64>, file_chunks: u64, max_chunks: u32) -> Range<u64> {
        let continues = self.next > 0
            && range.start <= self.next.saturating_add(SLACK_BYTES)
            && range.end.saturating_add(SLACK_BYTES) >= self.next;
        let after_read = range.end.div_ceil(CHUNK_SIZE);
        if !continues {
            *self = ReadAhead { next: range.end, run_bytes: 0, reached: after_read };
            return 0..0;
        }
        if range.end > self.next {
            self.run_bytes = self.run_bytes.saturating_add(range.end - self.next.max(range.start));
            self.next = range.end;
        }
        let window = (2 * self.run_bytes / CHUNK_SIZE).max(u64::from(self.run_bytes > 0)).min(u64::from(max_chunks));
        let from = self.reached.max(after_read);
        let until = (after_read + window).min(file_chunks);
        if from >= until {
            return 0..0;
        }
        self.reached = until;
        from..until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn a_sequential_reader_gets_a_growing_lead_and_each_chunk_once() {
        let mut ahead = ReadAhead::default();
        let mut asked = Vec::new();
        for block in 0..64 {
            let start = block * 128 * KIB;
            asked.extend(ahead.note(&(start..start + 128 * KIB), 1_000, 8));
        }
        let expected: Vec<u64> = (1..24).collect();
        assert_eq!(asked, expected, "up to 8 chunks ahead of the 16 that were read");
    }

    #[test]
    fn probes_cost_nothing_more() {
        let mut ahead = ReadAhead::default();
        for probe in [5_000, 900, 40_000, 0, 77_777_u64] {
            let start = probe * 1_024 * KIB;
            assert!(ahead.note(&(start..start + 4 * KIB), 1_000_000, 64).is_empty());
        }
    }

    #[test]
    fn reads_that_overtake_each_other_still_are_one_run() {
        let mut ahead = ReadAhead::default();
        assert!(ahead.note(&(0..128 * KIB), 100, 64).is_empty());
        assert_eq!(ahead.note(&(256 * KIB..384 * KIB), 100, 64), 1..2);
        assert!(ahead.note(&(128 * KIB..256 * KIB), 100, 64).is_empty(), "nothing new to run ahead with");
    }

    #[test]
    fn it_ends_with_the_file_and_can_be_turned_off() {
        let mut ahead = ReadAhead::default();
        ahead.note(&(0..CHUNK_SIZE), 3, 64);
        assert_eq!(ahead.note(&(CHUNK_SIZE..2 * CHUNK_SIZE), 3, 64), 2..3);
        let mut off = ReadAhead::default();
        off.note(&(0..CHUNK_SIZE), 100, 0);
        assert!(off.note(&(CHUNK_SIZE..2 * CHUNK_SIZE), 100, 0).is_empty());
    }
}
