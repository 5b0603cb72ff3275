//! How long to wait before the next attempt.

use crate::rng::Rng;
use core::time::Duration;

/// The wait before attempt number `failures` + 1: `base` doubled for every failure after the first, at most `cap`, and
/// of that a random part between one half and all, so that peers which failed together do not return together.
pub(crate) fn delay(base: Duration, cap: Duration, failures: u32, rng: &mut Rng) -> Duration {
    let doubled = base.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let whole = u64::try_from(doubled.min(cap).as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(whole / 2 + rng.up_to(whole - whole / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_cap_and_varies_by_half() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut rng = Rng::new(7);
        for failures in 0..80_u32 {
            let whole = base.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(cap);
            let wait = delay(base, cap, failures, &mut rng);
            assert!(whole / 2 <= wait && wait <= whole, "failure {failures}: {wait:?} of {whole:?}");
        }
    }
}
