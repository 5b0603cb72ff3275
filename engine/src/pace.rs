//! How much that nobody waits for yet is asked of a peer at once: what its connection carries, and not much more.
//!
//! Too little, and the connection idles for a round trip again and again. Too much, and it all is on its way at the same
//! time: a read that somebody waits for comes behind it, and whoever is killed loses a part of every chunk of it.

use crate::time::Time;
use core::time::Duration;

/// Over how long bytes are counted. Frames come in bursts, which say nothing of a connection.
const SPELL: Duration = Duration::from_millis(250);

/// How many spells are remembered: the best of four seconds counts, so that a reader who pauses for a moment, or a disk
/// that does, costs nothing.
const SPELLS: usize = 16;

/// How one connection does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    /// When the current spell began.
    begun: Time,
    /// What has come in it, in bytes.
    bytes: u64,
    /// What came in the spells before, in bytes, by their number modulo [`SPELLS`].
    before: [u64; SPELLS],
    spell: usize,
    /// The shortest time from asking for something to a frame of it. It only falls: with much under way, what is asked
    /// for waits behind that, and a longer time would allow for even more.
    round_trip: Option<Duration>,
}

impl Pace {
    /// Bytes have come that were asked for at `asked_at`.
    pub(crate) fn note(&mut self, bytes: u64, asked_at: Time, now: Time) {
        let mut passed = (now - self.begun).as_micros() / SPELL.as_micros();
        if passed > 0 {
            self.begun = now;
        }
        while passed > 0 && passed <= SPELLS as u128 {
            self.before[self.spell] = std::mem::take(&mut self.bytes);
            self.spell = (self.spell + 1) % SPELLS;
            passed -= 1;
        }
        if passed > 0 {
            // Nothing came for so long that nothing is left of what was.
            self.before = [0; SPELLS];
            self.bytes = 0;
        }
        self.bytes += bytes;
        let took = now - asked_at;
        self.round_trip = Some(self.round_trip.map_or(took, |least| least.min(took)));
    }

    /// How many bytes may be under way: what comes in a spell and two round trips. So it at least doubles in every round
    /// trip for as long as the connection carries more. Nothing, if nothing has come for long.
    pub(crate) fn window_bytes(&self) -> u64 {
        let best = self.before.iter().copied().fold(self.bytes, u64::max);
        let round_trip = self.round_trip.unwrap_or_default().as_micros();
        let bytes = u128::from(best) * (SPELL.as_micros() + 2 * round_trip) / SPELL.as_micros();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LEAST_BYTES: u64 = MIB;

    fn ms(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    /// What is under way in the end on a connection that carries `bytes_per_ms` and has this round trip, if as much is
    /// asked for as may be.
    fn settles_at(bytes_per_ms: u64, round_trip_ms: u64) -> u64 {
        const FRAME: u64 = 128 * 1024;
        let mut pace = Pace::default();
        // When each frame was asked for, in the order in which they come, and when the line is free for the next one.
        let mut asked = std::collections::VecDeque::new();
        let mut free_us = 0;
        for now in 0..6_000 {
            while (asked.len() as u64) * FRAME < pace.window_bytes().max(LEAST_BYTES) {
                let begins_us = (now * 1000 + round_trip_ms * 1000).max(free_us);
                free_us = begins_us + FRAME * 1000 / bytes_per_ms;
                asked.push_back((now, free_us));
            }
            while let Some((at, _)) = asked.pop_front_if(|(_, arrives_us)| *arrives_us <= now * 1000) {
                pace.note(FRAME, ms(at), ms(now));
            }
        }
        pace.window_bytes()
    }

    #[test]
    fn it_finds_what_a_connection_carries_and_stays_near_that() {
        for (mib_per_s, round_trip_ms) in [(120, 5), (120, 24), (120, 100), (25, 200), (12, 600), (1000, 1)] {
            let bytes_per_ms = mib_per_s * MIB / 1000;
            let carried = bytes_per_ms * round_trip_ms;
            let window = settles_at(bytes_per_ms, round_trip_ms);
            let most = 3 * carried + bytes_per_ms * 600 + LEAST_BYTES;
            assert!(
                window > carried && window < most,
                "{mib_per_s} MiB/s, {round_trip_ms} ms: {carried} {window} {most}"
            );
        }
    }

    #[test]
    fn a_slow_connection_has_little_under_way() {
        assert!(settles_at(1500, 1) < LEAST_BYTES);
    }

    #[test]
    fn a_pause_is_forgiven_and_a_long_one_forgotten() {
        let mut pace = Pace::default();
        pace.note(8 * MIB, ms(0), ms(10));
        let full = pace.window_bytes();
        assert!(full > 8 * MIB);
        pace.note(1, ms(3_000), ms(3_010));
        assert_eq!(pace.window_bytes(), full);
        pace.note(1, ms(9_000), ms(9_010));
        assert_eq!(pace.window_bytes(), 1);
    }

    #[test]
    fn waiting_behind_others_is_not_taken_for_distance() {
        let mut pace = Pace::default();
        pace.note(MIB, ms(0), ms(10));
        let near = pace.window_bytes();
        pace.note(0, ms(0), ms(200));
        assert_eq!(pace.window_bytes(), near);
    }
}
