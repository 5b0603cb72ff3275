//! Writing down what was fetched between two saves, so that a process that is killed does not lose it: the second
//! sidecar, which is made durable by nobody and believed by nobody who has not hashed the bytes. `docs/SIDECAR.md` says
//! why that is safe.

use super::home::Home;
use super::names;
use super::stored::DiskStored;
use farshore_engine::ContentKey;
use std::io;
use std::time::{Duration, Instant};

/// The least time between two of one content.
const PAUSE: Duration = Duration::from_millis(250);

/// Of one content no more bytes of second sidecars are written in a second than this, in the long run.
const BYTES_PER_SECOND: u64 = 1 << 20;

/// How long none is written after one of so many bytes.
fn pause(len_bytes: u64) -> Duration {
    PAUSE.max(Duration::from_millis(len_bytes * 1_000 / BYTES_PER_SECOND))
}

impl DiskStored {
    /// Writes the second sidecar if it is time to. If that fails, what it would have listed is as safe as it was without.
    pub(super) fn write_soon(&self, home: &Home) {
        if self.key().is_none() || !self.ledger().is_soon_due(Instant::now()) {
            return;
        }
        // Who keeps the content, or has just saved it, removes the second sidecar after that.
        let _naming = self.naming();
        let Some(key) = self.key() else { return };
        let draft = {
            let mut ledger = self.ledger();
            let now = Instant::now();
            // Somebody else may have written one.
            if !ledger.is_soon_due(now) {
                return;
            }
            ledger.no_soon_before(now + PAUSE);
            ledger.draft_soon()
        };
        let written = draft.map_err(io::Error::other).and_then(|(revision, sidecar)| {
            let bytes = sidecar.encode();
            put(home, key, &bytes)?;
            let mut ledger = self.ledger();
            ledger.soon_written(revision);
            ledger.no_soon_before(Instant::now() + pause(bytes.len() as u64));
            Ok(())
        });
        if let Err(error) = written {
            tracing::debug!(%error, content = self.name(), "what was fetched cannot be written down between two saves");
        }
    }

    /// Removes the second sidecar if all that it lists is saved. If that fails, it lists nothing that is not known.
    pub(super) fn remove_saved_soon(&self, home: &Home) {
        if !self.ledger().is_soon_saved() {
            return;
        }
        let _naming = self.naming();
        let Some(key) = self.key().filter(|_| self.ledger().is_soon_saved()) else { return };
        match home.partial.remove(&names::soon(key)) {
            Ok(()) => self.ledger().soon_removed(),
            Err(error) => tracing::debug!(%error, content = self.name(), "a second sidecar cannot be removed"),
        }
    }
}

/// Puts a second sidecar in the place of the one that stands.
fn put(home: &Home, key: ContentKey, bytes: &[u8]) -> io::Result<()> {
    let new = names::new_soon(key);
    let file = home.partial.create(&new)?;
    let put = home.partial.write_all(&new, &file, bytes).and_then(|()| home.partial.rename(&new, &names::soon(key)));
    if put.is_err() {
        // If this fails as well, the next one or the next start takes its place.
        let _ = home.partial.remove(&new);
    }
    put
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_sidecar_is_written_less_often() {
        assert_eq!(pause(96), PAUSE);
        assert_eq!(pause(256 << 10), PAUSE);
        assert_eq!(pause(1 << 20), Duration::from_secs(1));
        assert_eq!(pause(17 << 20), Duration::from_secs(17));
    }
}
