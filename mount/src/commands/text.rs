//! How things are written for people.

use std::fmt;
use std::time::{Duration, SystemTime};

/// A text on a terminal, without what the terminal would take for commands.
pub(super) struct Plain<'a>(pub(super) &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter.is_control() {
                true => write!(f, "{}", letter.escape_default())?,
                false => write!(f, "{letter}")?,
            }
        }
        Ok(())
    }
}

/// A moment that can be printed: years before 1970 and after 9999 are shown as the nearest that can.
pub(super) fn moment(seconds: i64) -> SystemTime {
    const LAST: u64 = 253_402_300_799;
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(LAST))
}

/// A moment in seconds since 1970, as people write it.
pub(super) fn time(unix_seconds: u64) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(moment(i64::try_from(unix_seconds).unwrap_or(i64::MAX)))
}

/// A device's id, short: enough to tell devices apart, and to name one to `farshore peers revoke`.
pub(super) fn short_id(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}
