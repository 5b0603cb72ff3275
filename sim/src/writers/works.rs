//! What was written, by whomever and wherever, and what somebody has put an end to who saw it: the oracle of worlds in which
//! all write.
//!
//! Every state of a file has a number, its version, by its bytes. No two writers ever write the same bytes, except that
//! whoever cuts a file may come back to what was there before.

use crate::content::Text;
use bytes::Bytes;
use farshore_engine::path::RelPath;
use farshore_engine::record::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::xxh3_64;

/// The fewest bytes of a file that is not empty: enough that no two are the same by chance.
pub(crate) const LEAST_BYTES: u64 = 16;

/// A state of a file.
pub(crate) type Version = u64;

/// What somebody does to the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// It has so many other bytes.
    Whole(u64),
    /// So many bytes follow.
    Append(u64),
    /// Only so many are left, if there are more.
    Cut(u64),
    /// Some of them, from this place on, are others; so many, as far as there are.
    Patch(u64, u64),
}

/// All that was written. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Works(Arc<Mutex<Ledger>>);

#[derive(Debug, Default)]
struct Ledger {
    contents: BTreeMap<Version, Content>,
    by_hash: BTreeMap<u64, Version>,
    stamps: BTreeMap<Stamp, Version>,
    last: Version,
    ended: BTreeSet<Version>,
    /// Those that were given other names or attributes, kept as copies, or written again: somebody may have done that while
    /// somebody else put an end to them.
    handled: BTreeSet<Version>,
    /// Somebody has forgotten what was removed, or has it back.
    is_forgetful: bool,
    writes: u64,
}

#[derive(Debug, Clone)]
struct Content {
    bytes: Bytes,
    /// Who wrote it, and where.
    by: &'static str,
    path: RelPath,
}

/// Where each version is in one folder.
pub(crate) type Places = BTreeMap<RelPath, Version>;

impl Works {
    /// Somebody gives a file other bytes. Returns which version that is, and how many bytes it has.
    pub(crate) fn write(
        &self,
        by: &'static str,
        path: &RelPath,
        before: Option<Version>,
        edit: Edit,
    ) -> (Version, u64) {
        let mut works = self.ledger();
        works.last += 1;
        works.writes += 1;
        let new = works.last;
        let bytes = edited(before.and_then(|version| works.contents.get(&version)), new, edit);
        let size_bytes = bytes.len() as u64;
        let hash = xxh3_64(&bytes);
        let version = *works.by_hash.entry(hash).or_insert(new);
        if version == new {
            works.contents.insert(version, Content { bytes, by, path: path.clone() });
        } else {
            works.ended.remove(&version);
            works.handled.insert(version);
        }
        (version, size_bytes)
    }

    /// The version that has these bytes.
    pub(crate) fn version_of(&self, bytes: &[u8]) -> Option<Version> {
        self.ledger().by_hash.get(&xxh3_64(bytes)).copied()
    }

    /// All bytes of a version.
    pub(crate) fn bytes(&self, version: Version) -> Bytes {
        self.ledger().contents.get(&version).map(|content| content.bytes.clone()).unwrap_or_default()
    }

    /// Whether any version begins with these bytes.
    pub(crate) fn begins_with(&self, bytes: &[u8]) -> bool {
        self.ledger().contents.values().any(|content| content.bytes.starts_with(bytes))
    }

    /// Peers know a version by this stamp.
    pub(crate) fn note_stamp(&self, stamp: Stamp, version: Version) {
        self.ledger().stamps.insert(stamp, version);
    }

    /// The version that peers know by a stamp.
    pub(crate) fn by_stamp(&self, stamp: Stamp) -> Option<Version> {
        self.ledger().stamps.get(&stamp).copied()
    }

    /// What a program did to its folder: whatever is not there any more it has put an end to, and what is elsewhere was given
    /// another name.
    pub(crate) fn note_change(&self, before: &Places, after: &Places) {
        let there: BTreeSet<Version> = after.values().copied().collect();
        let mut works = self.ledger();
        for (path, version) in before.iter().filter(|(path, version)| after.get(*path) != Some(*version)) {
            if there.contains(version) {
                works.handled.insert(*version);
                // What has two names is taken away name by name, and perhaps one here and one there.
                if after.iter().any(|(at, now)| now == version && before.get(at) == Some(version) && at != path) {
                    works.ended.insert(*version);
                }
            } else {
                works.ended.insert(*version);
            }
        }
    }

    /// Somebody who saw it has put an end to a version that was not in the own folder.
    pub(crate) fn end(&self, version: Version) {
        self.ledger().ended.insert(version);
    }

    /// Whether somebody who saw a version has put an end to it.
    pub(crate) fn is_ended(&self, version: Version) -> bool {
        self.ledger().ended.contains(&version)
    }

    /// Whether a version was given another name or other attributes.
    pub(crate) fn is_handled(&self, version: Version) -> bool {
        self.ledger().handled.contains(&version)
    }

    /// A version was given another name or other attributes.
    pub(crate) fn handle(&self, version: Version) {
        self.ledger().handled.insert(version);
    }

    /// Some versions, which nobody else has and nobody had made durable, are gone.
    pub(crate) fn lose(&self, versions: impl IntoIterator<Item = Version>) {
        self.ledger().ended.extend(versions);
    }

    /// From now on things may come back that were removed.
    pub(crate) fn forget(&self) {
        self.ledger().is_forgetful = true;
    }

    /// Whether things may come back that were removed.
    pub(crate) fn is_forgetful(&self) -> bool {
        self.ledger().is_forgetful
    }

    /// Checks what is left in the end, in a folder that is the same as all others.
    ///
    /// # Panics
    /// If anything is lost, has come back, or is there more often than it may.
    pub(crate) fn check(&self, places: &Places) {
        let works = self.ledger();
        let mut found: BTreeMap<Version, Vec<&RelPath>> = BTreeMap::new();
        for (path, version) in places {
            found.entry(*version).or_default().push(path);
        }
        for (version, Content { bytes, by, path }) in &works.contents {
            let is_wanted = !bytes.is_empty() && !works.ended.contains(version);
            assert!(
                !is_wanted || found.contains_key(version),
                "what {by} wrote to {path} ({} bytes, version {version}) is nowhere",
                bytes.len()
            );
        }
        if works.is_forgetful {
            return;
        }
        for (version, paths) in found.iter().filter(|(version, _)| !works.handled.contains(*version)) {
            assert!(!works.ended.contains(version), "version {version} has come back from the dead: {paths:?}");
            assert!(paths.len() == 1, "version {version} is there more than once: {paths:?}");
        }
        let copies = places.keys().filter(|path| path.to_string().contains(".conflict-")).count() as u64;
        assert!(copies <= works.writes, "{copies} conflict copies of {} writes", works.writes);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn edited(before: Option<&Content>, new: Version, edit: Edit) -> Bytes {
    let before = before.map(|content| content.bytes.clone()).unwrap_or_default();
    let fresh = |range: Range<u64>| Text::new(new, 0).bytes(range);
    let len = before.len() as u64;
    match edit {
        Edit::Whole(0) => Bytes::new(),
        Edit::Whole(size_bytes) => fresh(0..size_bytes.max(LEAST_BYTES)),
        Edit::Append(more) => [before, fresh(0..more.max(LEAST_BYTES))].concat().into(),
        Edit::Cut(size_bytes) if size_bytes >= len => before,
        Edit::Cut(size_bytes) if size_bytes < LEAST_BYTES => Bytes::new(),
        Edit::Cut(size_bytes) => before.slice(..size_bytes as usize),
        Edit::Patch(..) if len < LEAST_BYTES => fresh(0..LEAST_BYTES),
        Edit::Patch(from, count) => {
            let from = from.min(len - LEAST_BYTES);
            let until = (from + count.max(LEAST_BYTES)).min(len);
            let mut bytes = before.to_vec();
            bytes[from as usize..until as usize].copy_from_slice(&fresh(0..until - from));
            bytes.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::path;

    #[test]
    fn what_is_cut_back_to_what_it_was_is_that_again() {
        let (works, at) = (Works::default(), path("f"));
        let (first, _) = works.write("a", &at, None, Edit::Whole(1_000));
        let (longer, size_bytes) = works.write("a", &at, Some(first), Edit::Append(20));
        assert_eq!(size_bytes, 1_020);
        assert_eq!(works.write("a", &at, Some(longer), Edit::Cut(1_000)), (first, 1_000));
        let (patched, size_bytes) = works.write("a", &at, Some(first), Edit::Patch(990, 5));
        assert_eq!(size_bytes, 1_000);
        assert_eq!(works.bytes(patched)[..984], works.bytes(first)[..984]);
        assert_ne!(patched, first);
    }

    #[test]
    #[should_panic(expected = "is nowhere")]
    fn what_is_lost_is_noticed() {
        let works = Works::default();
        works.write("a", &path("f"), None, Edit::Whole(20));
        works.check(&Places::new());
    }

    #[test]
    #[should_panic(expected = "from the dead")]
    fn what_comes_back_is_noticed() {
        let works = Works::default();
        let (version, _) = works.write("a", &path("f"), None, Edit::Whole(20));
        let places = Places::from([(path("f"), version)]);
        works.note_change(&places, &Places::new());
        works.check(&places);
    }

    #[test]
    #[should_panic(expected = "more than once")]
    fn what_is_done_twice_is_noticed() {
        let works = Works::default();
        let (version, _) = works.write("a", &path("f"), None, Edit::Whole(20));
        works.check(&Places::from([(path("f"), version), (path("g"), version)]));
    }
}
