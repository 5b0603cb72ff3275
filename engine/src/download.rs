//! How a download is doing: how much there is, and how often it failed since it last got anywhere.

use crate::time::Time;

/// How a download of a known number of bytes is doing.
///
/// Bytes are counted by the caller once each, when they are verified; what comes twice is not progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadState {
    total_bytes: u64,
    downloaded_bytes: u64,
    last_offset: u64,
    started_at: Time,
    last_success_at: Option<Time>,
    attempts: u32,
    max_retries: u32,
}

impl DownloadState {
    /// A download of `total_bytes` that begins at `now` and may fail `max_retries` times in a row without progress.
    #[must_use]
    pub fn new(total_bytes: u64, max_retries: u32, now: Time) -> DownloadState {
        DownloadState {
            total_bytes,
            downloaded_bytes: 0,
            last_offset: 0,
            started_at: now,
            last_success_at: None,
            attempts: 0,
            max_retries,
        }
    }

    /// Begins again, with another size.
    pub fn reset(&mut self, total_bytes: u64, now: Time) {
        *self = DownloadState::new(total_bytes, self.max_retries, now);
    }

    /// `bytes` that were not there before have arrived at `offset`. None at all is no progress: the attempts stay.
    pub fn update_progress(&mut self, offset: u64, bytes: u64, now: Time) {
        if bytes == 0 {
            return;
        }
        self.downloaded_bytes = self.downloaded_bytes.saturating_add(bytes).min(self.total_bytes);
        self.last_offset = offset;
        self.last_success_at = Some(now);
        self.attempts = 0;
    }

    /// An attempt has failed. Returns how many have, since the last progress.
    pub fn record_attempt(&mut self) -> u32 {
        self.attempts = self.attempts.saturating_add(1);
        self.attempts
    }

    /// Whether another attempt is allowed.
    #[must_use]
    pub fn can_retry(&self) -> bool {
        self.attempts < self.max_retries
    }

    /// Whether every byte has arrived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.downloaded_bytes == self.total_bytes
    }

    /// Percent of the bytes that have arrived, from 0 to 100. For people: decisions use the counts.
    #[must_use]
    pub fn progress(&self) -> f64 {
        if self.total_bytes == 0 { 100.0 } else { self.downloaded_bytes as f64 * 100.0 / self.total_bytes as f64 }
    }

    /// Bytes in all.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes that have arrived.
    #[must_use]
    pub fn downloaded_bytes(&self) -> u64 {
        self.downloaded_bytes
    }

    /// Where the last bytes that arrived begin.
    #[must_use]
    pub fn last_offset(&self) -> u64 {
        self.last_offset
    }

    /// When it began.
    #[must_use]
    pub fn started_at(&self) -> Time {
        self.started_at
    }

    /// When bytes last arrived, if any have.
    #[must_use]
    pub fn last_success_at(&self) -> Option<Time> {
        self.last_success_at
    }

    /// Attempts that failed since the last progress.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_gives_the_attempts_back_and_nothing_does_not() {
        let mut state = DownloadState::new(100, 2, Time::ZERO);
        assert_eq!(state.record_attempt(), 1);
        assert!(state.can_retry());
        assert_eq!(state.record_attempt(), 2);
        assert!(!state.can_retry());
        state.update_progress(0, 0, Time::from_millis(1));
        assert!(!state.can_retry(), "a success that brought nothing is a failure");
        state.update_progress(10, 5, Time::from_millis(2));
        assert!(state.can_retry());
        assert_eq!((state.attempts(), state.last_offset()), (0, 10));
        assert_eq!(state.last_success_at(), Some(Time::from_millis(2)));
    }

    #[test]
    fn it_ends_at_its_total_and_can_begin_again() {
        let mut state = DownloadState::new(10, 5, Time::ZERO);
        state.update_progress(0, 9, Time::ZERO);
        assert!(!state.is_complete());
        assert!((state.progress() - 90.0).abs() < f64::EPSILON);
        state.update_progress(9, 1, Time::ZERO);
        assert!(state.is_complete());
        state.reset(20, Time::from_millis(5));
        assert_eq!((state.downloaded_bytes(), state.total_bytes()), (0, 20));
        assert_eq!(state.started_at(), Time::from_millis(5));
        assert!((DownloadState::new(0, 5, Time::ZERO).progress() - 100.0).abs() < f64::EPSILON);
    }
}
