//! How much may still be written: downloads stop before the disk is full.

use super::dir::Dir;
use crate::store::Space;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is always left free, in bytes, if it is less than [`RESERVED_PERCENT`] of the disk.
const RESERVED_BYTES: u64 = 256 * 1024 * 1024;
/// What is always left free, in percent of the disk, if it is less than [`RESERVED_BYTES`].
const RESERVED_PERCENT: u64 = 5;

/// At most so much is written before the disk is asked again, in bytes: others write there, too.
const GRANTED_BYTES: u64 = 16 * 1024 * 1024;
/// And at most for so long.
const GRANTED_FOR: Duration = Duration::from_secs(1);

/// What a store leaves free on such a disk, in bytes.
pub(super) fn reserve_bytes(space: Space) -> u64 {
    RESERVED_BYTES.min(space.total_bytes / 100 * RESERVED_PERCENT)
}

/// The room that was found at the last look at the disk, less what was written since.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Option<Granted>>);

#[derive(Debug, Clone, Copy)]
struct Granted {
    bytes: u64,
    until: Instant,
}

impl Room {
    /// Takes room for `len_bytes`.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if less than the reserve would be left; otherwise what the disk says.
    pub(super) fn take(&self, len_bytes: u64, disk: &Dir) -> io::Result<()> {
        let mut granted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let enough = granted.filter(|granted| now < granted.until && len_bytes <= granted.bytes);
        let bytes = match enough {
            Some(granted) => granted.bytes,
            None => {
                *granted = None;
                let space = disk.space()?;
                let reserve = reserve_bytes(space);
                let free = space.free_bytes.saturating_sub(reserve);
                if len_bytes > free {
                    let text = format!(
                        "the disk is nearly full: {} bytes are free, and {reserve} are left for others",
                        space.free_bytes
                    );
                    return Err(io::Error::new(io::ErrorKind::StorageFull, text));
                }
                free.min(GRANTED_BYTES.max(len_bytes))
            }
        };
        let until = enough.map_or(now + GRANTED_FOR, |granted| granted.until);
        *granted = Some(Granted { bytes: bytes - len_bytes, until });
        Ok(())
    }
}
