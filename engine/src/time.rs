//! The engine's own time: microseconds since the engine began, told by the driver.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

/// A moment, in whole microseconds since the engine was made. It starts at zero and never goes back.
///
/// There is no value for "never": what will not happen has no timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The moment at which every engine begins.
    pub const ZERO: Time = Time(0);

    /// A moment `micros` microseconds after the beginning.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Time {
        Time(micros)
    }

    /// A moment `millis` milliseconds after the beginning.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Time {
        Time(millis * 1_000)
    }

    /// Microseconds since the beginning.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates: a deadline further away than 584,000 years is as good as that.
    fn add(self, span: Duration) -> Time {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(micros))
    }
}

impl Sub for Time {
    type Output = Duration;

    /// The span between two moments; zero if `earlier` is in fact later.
    fn sub(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_never_wraps_and_subtracting_never_goes_below_zero() {
        let late = Time::from_micros(u64::MAX - 1) + Duration::from_secs(5);
        assert_eq!(late, Time::from_micros(u64::MAX));
        assert_eq!(Time::ZERO - late, Duration::ZERO);
        assert_eq!(Time::from_millis(1_500).to_string(), "1.500000s");
    }
}
