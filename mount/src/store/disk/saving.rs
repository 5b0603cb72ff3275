//! Writing down what is stored, in the order that `docs/SIDECAR.md` demands: bytes, sidecars, names.

use super::home::{CLEAN, Home};
use super::names;
use super::stored::{DiskStored, Purpose};
use crate::store::ledger::Draft;
use farshore_engine::ContentKey;
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// If more contents than this are saved at once, everything on the file system is made durable in one call: for many
/// small files that is far cheaper than one after the other.
const ONE_BY_ONE: usize = 8;

/// One content that is being saved.
struct Saving<'a> {
    stored: &'a DiskStored,
    key: ContentKey,
    draft: Draft,
}

/// Saves what has changed of these contents.
///
/// # Errors
/// The first of the errors. Contents that had none are saved all the same.
pub(super) fn save(home: &Home, contents: &[&DiskStored]) -> io::Result<()> {
    let _alone = home.saving.lock();
    let mut failures = Failures::default();
    // Each once, though it was given twice.
    let contents: BTreeMap<u64, &DiskStored> = contents.iter().map(|stored| (stored.number(), *stored)).collect();
    let begun = contents.into_values().filter_map(|stored| failures.note(begin(stored)).flatten());
    let mut savings: Vec<Saving<'_>> = begun.collect();
    if savings.is_empty() {
        return failures.end();
    }
    if savings.len() > ONE_BY_ONE {
        savings.retain(|saving| failures.note(saving.write(home).map(drop)).is_some());
        // The bytes, and what says that they are there, under a name that nobody believes yet.
        let synced = home.partial.sync_all();
        savings.iter().for_each(|saving| saving.synced(synced.is_ok()));
        synced?;
    } else {
        savings.retain(|saving| failures.note(saving.make_durable(home)).is_some());
    }
    savings.retain(|saving| failures.note(saving.rename(home)).is_some());
    if !savings.is_empty() {
        home.partial.sync_names()?;
    }
    for saving in savings {
        saving.stored.ledger().saved(saving.draft.revision);
        saving.stored.remove_saved_soon(home);
    }
    failures.end()
}

/// The first error of several.
#[derive(Default)]
struct Failures(Option<io::Error>);

impl Failures {
    fn note<T>(&mut self, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.get_or_insert(error);
                None
            }
        }
    }

    fn end(self) -> io::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// What is to be saved of a content, if anything is.
fn begin(stored: &DiskStored) -> io::Result<Option<Saving<'_>>> {
    let Some(key) = stored.key() else { return Ok(None) };
    stored.rewrite()?;
    let draft = stored.ledger().draft().map_err(io::Error::other)?;
    Ok(draft.map(|draft| Saving { stored, key, draft }))
}

impl Saving<'_> {
    /// Makes the bytes durable, and then the new sidecar.
    fn make_durable(&self, home: &Home) -> io::Result<()> {
        if !self.draft.unsynced.is_empty() {
            let synced = self.stored.opened().and_then(|file| home.partial.sync(self.stored.name(), &file));
            self.synced(synced.is_ok());
            synced?;
        }
        let sidecar = self.write(home)?;
        home.partial.sync(&names::new_sidecar(self.key), &sidecar)
    }

    fn synced(&self, is_durable: bool) {
        let mut ledger = self.stored.ledger();
        if is_durable {
            ledger.synced(&self.draft.unsynced);
        } else {
            ledger.sync_failed();
        }
    }

    /// Writes the sidecar beside the one that stands.
    fn write(&self, home: &Home) -> io::Result<File> {
        let name = names::new_sidecar(self.key);
        let file = home.partial.create(&name)?;
        home.partial.write_all(&name, &file, &self.draft.sidecar.encode())?;
        if let Some(used_at) = self.stored.used_at() {
            let accessed = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            rustix::fs::futimens(&file, &Timestamps { last_access: accessed, last_modification: used_at })?;
        }
        Ok(file)
    }

    /// Puts the new sidecar in the place of the one that stands.
    fn rename(&self, home: &Home) -> io::Result<()> {
        let new = names::new_sidecar(self.key);
        // Who keeps the content waits, and removes the sidecar after that.
        let _naming = self.stored.naming();
        match self.stored.key() {
            Some(key) => home.partial.rename(&new, &names::sidecar(key)),
            None => home.partial.remove(&new),
        }
    }
}

/// Saves everything, and says that this stop is clean.
pub(super) fn close(home: &Arc<Home>) -> io::Result<()> {
    let mut is_closed = home.shut();
    if *is_closed {
        return Ok(());
    }
    let mut contents = home.open_contents();
    let mut failures = Failures::default();
    for key in home.unsettled() {
        // One that cannot be opened keeps this stop from being clean, and none of the others from being saved.
        contents.extend(failures.note(DiskStored::resume(home, key, None, Purpose::LookAfter)).flatten());
    }
    let contents: Vec<&DiskStored> = contents.iter().map(|stored| &**stored).collect();
    failures.note(save(home, &contents));
    failures.end()?;
    // What was removed must not come back beside something else that has its name.
    home.partial.sync_names()?;
    // Otherwise the next life would believe more than was written down.
    if home.noting.lock().is_told() {
        let mark = home.private.create(CLEAN)?;
        home.private.sync(CLEAN, &mark)?;
        home.private.sync_names()?;
    }
    *is_closed = true;
    Ok(())
}
