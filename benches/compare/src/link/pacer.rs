//! When a packet arrives at the other end, if it does: arithmetic without a clock.

use super::Shape;
use std::time::Duration;

/// One direction of a line. Times are counted from any fixed moment.
#[derive(Debug)]
pub(super) struct Pacer {
    shape: Shape,
    /// When the last packet will have left the queue.
    free_at: Duration,
}

impl Pacer {
    pub(super) fn new(shape: Shape) -> Pacer {
        Pacer { shape, free_at: Duration::ZERO }
    }

    /// A packet of this size is sent now. When it arrives; `None` if the queue is full and it is lost.
    pub(super) fn send(&mut self, now: Duration, bytes: u64) -> Option<Duration> {
        let begin = self.free_at.max(now);
        if begin - now > self.time_of(self.shape.queue_bytes) {
            return None;
        }
        self.free_at = begin + self.time_of(bytes);
        Some(self.free_at + self.shape.delay)
    }

    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(self.shape.bits_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000 bytes a millisecond, 10 ms away, room for 3,000 bytes.
    fn pacer() -> Pacer {
        Pacer::new(Shape { delay: ms(10), bits_per_second: 8_000_000, queue_bytes: 3_000 })
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_packet_takes_its_time_on_the_line_and_the_delay() {
        assert_eq!(pacer().send(ms(5), 1_000), Some(ms(16)));
    }

    #[test]
    fn packets_leave_one_after_the_other() {
        let mut pacer = pacer();
        assert_eq!(pacer.send(ms(0), 1_000), Some(ms(11)));
        assert_eq!(pacer.send(ms(0), 2_000), Some(ms(13)));
        assert_eq!(pacer.send(ms(2), 1_000), Some(ms(14)));
        assert_eq!(pacer.send(ms(50), 1_000), Some(ms(61)), "an idle line saves nothing up");
    }

    #[test]
    fn what_does_not_fit_into_the_queue_is_lost_and_takes_no_time() {
        let mut pacer = pacer();
        let arrivals: Vec<_> = (0..6).map(|_| pacer.send(ms(0), 1_000)).collect();
        assert_eq!(arrivals, [Some(ms(11)), Some(ms(12)), Some(ms(13)), Some(ms(14)), None, None]);
        assert_eq!(pacer.send(ms(1), 1_000), Some(ms(15)), "there is room again");
    }
}
