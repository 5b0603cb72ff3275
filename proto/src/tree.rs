//! The shared tree on the wire: batches of updates.

use crate::v1::{self, event, record, tree_update};
use crate::{MAX_BATCH_BYTES, MAX_BATCH_UPDATES};
use crate::{path, xattrs};
use bytes::Bytes;
use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Kind, Record, RecordError, Stamp};
use farshore_engine::version::{MAX_PAIRS, MAX_SIBLINGS, Sibling};
use farshore_engine::{Change, DeviceTag, Dot, PeerFault, Position, Revision, TreeUpdate, Version};
use prost::Message;

/// The updates of a batch, which may be none.
///
/// # Errors
/// The first rule that is broken, whichever update breaks it.
pub fn parse_batch(batch: v1::TreeBatch) -> Result<Vec<TreeUpdate>, PeerFault> {
    if batch.updates.len() > MAX_BATCH_UPDATES {
        return Err(PeerFault::TooMany(MAX_BATCH_UPDATES));
    }
    batch.updates.into_iter().map(parse_update).collect()
}

/// As many batches as it takes to keep each within its limits. One empty batch if there are no updates.
#[must_use]
pub fn batches(updates: &[TreeUpdate]) -> Vec<v1::TreeBatch> {
    let mut batches = Vec::new();
    each_batch(updates.iter().map(encode_update), |batch| batches.push(core::mem::take(batch)));
    batches
}

/// The same, one batch after the other. What is taken out of one need not be made anew for the next.
pub(crate) fn each_batch(updates: impl Iterator<Item = v1::TreeUpdate>, mut take: impl FnMut(&mut v1::TreeBatch)) {
    let mut is_first = true;
    let mut batch = v1::TreeBatch::default();
    let mut batch_bytes = 0;
    for update in updates {
        // Its key, its length, itself.
        let update_bytes = 1 + prost::length_delimiter_len(update.encoded_len()) + update.encoded_len();
        let is_full = batch.updates.len() == MAX_BATCH_UPDATES || batch_bytes + update_bytes > MAX_BATCH_BYTES;
        if is_full && !batch.updates.is_empty() {
            take(&mut batch);
            batch.updates.clear();
            (is_first, batch_bytes) = (false, 0);
        }
        batch_bytes += update_bytes;
        batch.updates.push(update);
    }
    if !batch.updates.is_empty() || is_first {
        take(&mut batch);
    }
}

fn parse_update(update: v1::TreeUpdate) -> Result<TreeUpdate, PeerFault> {
    Ok(match update.kind.ok_or(PeerFault::Missing("update"))? {
        tree_update::Kind::Begin(v1::Begin { epoch: 0, .. }) => return Err(PeerFault::OutOfRange("epoch")),
        tree_update::Kind::Begin(v1::Begin { epoch, seq }) => TreeUpdate::Begin { position: Position { epoch, seq } },
        tree_update::Kind::Entry(v1::Entry { path, record, revision }) => TreeUpdate::Entry {
            path: path::parse(&path)?,
            record: parse_record(record)?,
            revision: parse_revision(revision)?,
        },
        tree_update::Kind::Removed(v1::Remove { path, revision }) => {
            TreeUpdate::Removed { path: path::parse(&path)?, revision: parse_removed(revision)? }
        }
        tree_update::Kind::End(v1::End { settled }) => TreeUpdate::End { settled },
        tree_update::Kind::Event(v1::Event { seq, change }) => {
            TreeUpdate::Event { seq, change: parse_change(change.ok_or(PeerFault::Missing("change"))?)? }
        }
        tree_update::Kind::Skip(v1::Skip { seq }) => TreeUpdate::Skip { seq },
    })
}

fn parse_change(change: event::Change) -> Result<Change, PeerFault> {
    Ok(match change {
        event::Change::Put(v1::Put { path, record, revision, replaced }) => Change::Put {
            path: path::parse(&path)?,
            record: parse_record(record)?,
            revision: parse_revision(revision)?,
            replaced,
        },
        event::Change::Remove(v1::Remove { path, revision }) => {
            Change::Remove { path: path::parse(&path)?, revision: parse_removed(revision)? }
        }
        event::Change::Rename(v1::Rename { from, to, record, revision, left, digest }) => {
            let (from, to, record) = (path::parse(&from)?, path::parse(&to)?, parse_record(record)?);
            let (revision, left) = (parse_revision(revision)?, parse_removed(left)?);
            // It is one change.
            if left.version.counter_of(revision.dot.author) != revision.dot.counter {
                return Err(PeerFault::Version);
            }
            Change::Rename { from, to, record, revision, left: left.version, digest }
        }
    })
}

pub(crate) fn parse_revision(revision: Option<v1::Revision>) -> Result<Revision, PeerFault> {
    let v1::Revision { devices, counters, author, change, others } = revision.ok_or(PeerFault::Missing("revision"))?;
    if devices.len() != counters.len() || devices.len() > MAX_PAIRS || others.len() > MAX_SIBLINGS {
        return Err(PeerFault::Version);
    }
    let dot_of = |author: u32, change: u64| {
        let at = usize::try_from(author).ok().filter(|at| *at < devices.len()).ok_or(PeerFault::Version)?;
        let counter = if change == 0 { counters[at] } else { change };
        Ok::<Dot, PeerFault>(Dot { author: DeviceTag(devices[at]), counter })
    };
    let dot = dot_of(author, change)?;
    let sibling = |v1::Sibling { author, change, record }: v1::Sibling| {
        Ok(Sibling { dot: dot_of(author, change)?, record: parse_record(record)? })
    };
    let others: Vec<Sibling> = others.into_iter().map(sibling).collect::<Result<_, PeerFault>>()?;
    let pairs = devices.iter().zip(counters.iter());
    let pairs = pairs.map(|(device, counter)| Dot { author: DeviceTag(*device), counter: *counter });
    let revision = Revision { version: Version::new(pairs.collect())?, dot, others: others.into() };
    revision.check()?;
    Ok(revision)
}

/// Of what is gone, only what is known of it matters.
pub(crate) fn parse_removed(revision: Option<v1::Revision>) -> Result<Revision, PeerFault> {
    let revision = parse_revision(revision)?;
    if !revision.others.is_empty() {
        return Err(PeerFault::Version);
    }
    Ok(Revision::removed(revision.version))
}

pub(crate) fn parse_record(record: Option<v1::Record>) -> Result<Record, PeerFault> {
    let v1::Record { kind, mode, modified_seconds, modified_nanos, xattrs } =
        record.ok_or(PeerFault::Missing("record"))?;
    let kind = match kind.ok_or(PeerFault::Missing("kind"))? {
        record::Kind::File(v1::File { size_bytes, stamp }) => Kind::File { size_bytes, stamp: Stamp(stamp) },
        record::Kind::Dir(v1::Dir {}) => Kind::Dir,
        record::Kind::Symlink(v1::Symlink { target }) => {
            // Before it is copied; `check` holds the other rules.
            if target.len() > farshore_engine::path::PATH_MAX_BYTES {
                return Err(RecordError::Target.into());
            }
            Kind::Symlink { target: target.as_ref().into() }
        }
    };
    let record = Record {
        kind,
        mode: u16::try_from(mode).map_err(|_| RecordError::Mode)?,
        modified: FileTime { seconds: modified_seconds, nanos: modified_nanos },
        xattrs: xattrs.map(xattrs::parse).transpose()?.unwrap_or_default(),
    };
    record.check()?;
    Ok(record)
}

pub(crate) fn encode_update(update: &TreeUpdate) -> v1::TreeUpdate {
    let kind = match update {
        TreeUpdate::Begin { position: Position { epoch, seq } } => {
            tree_update::Kind::Begin(v1::Begin { epoch: *epoch, seq: *seq })
        }
        TreeUpdate::Entry { path, record, revision } => return encode_entry(path, record, revision),
        TreeUpdate::Removed { path, revision } => return encode_removed(path, revision),
        TreeUpdate::Skip { seq } => tree_update::Kind::Skip(v1::Skip { seq: *seq }),
        TreeUpdate::End { settled } => tree_update::Kind::End(v1::End { settled: *settled }),
        TreeUpdate::Event { seq, change } => {
            tree_update::Kind::Event(v1::Event { seq: *seq, change: Some(encode_change(change)) })
        }
    };
    v1::TreeUpdate { kind: Some(kind) }
}

/// What was removed, in a listing.
pub(crate) fn encode_removed(path: &RelPath, revision: &Revision) -> v1::TreeUpdate {
    v1::TreeUpdate { kind: Some(tree_update::Kind::Removed(encode_remove(path, revision))) }
}

/// An entry of a listing.
pub(crate) fn encode_entry(path: &RelPath, record: &Record, revision: &Revision) -> v1::TreeUpdate {
    let (path, record, revision) = (path::encode(path), Some(encode_record(record)), Some(encode_revision(revision)));
    v1::TreeUpdate { kind: Some(tree_update::Kind::Entry(v1::Entry { path, record, revision })) }
}

fn encode_change(change: &Change) -> event::Change {
    match change {
        Change::Put { path, record, revision, replaced } => event::Change::Put(v1::Put {
            path: path::encode(path),
            record: Some(encode_record(record)),
            replaced: *replaced,
            revision: Some(encode_revision(revision)),
        }),
        Change::Remove { path, revision } => event::Change::Remove(encode_remove(path, revision)),
        Change::Rename { from, to, record, revision, left, digest } => event::Change::Rename(v1::Rename {
            from: path::encode(from),
            to: path::encode(to),
            record: Some(encode_record(record)),
            revision: Some(encode_revision(revision)),
            left: Some(encode_revision(&Revision::removed(left.clone()))),
            digest: *digest,
        }),
    }
}

fn encode_remove(path: &RelPath, revision: &Revision) -> v1::Remove {
    v1::Remove { path: path::encode(path), revision: Some(encode_revision(revision)) }
}

pub(crate) fn encode_revision(revision: &Revision) -> v1::Revision {
    let dots = revision.version.dots();
    // At most MAX_PAIRS. A change that is the device's last one is not said.
    let place = |of: Dot| {
        let at = dots.iter().take_while(|dot| dot.author != of.author).count();
        let is_last = dots.get(at).is_some_and(|dot| dot.counter == of.counter);
        (at as u32, if is_last { 0 } else { of.counter })
    };
    let (author, change) = place(revision.dot);
    let sibling = |other: &Sibling| {
        let (author, change) = place(other.dot);
        v1::Sibling { author, change, record: Some(encode_record(&other.record)) }
    };
    v1::Revision {
        devices: dots.iter().map(|dot| dot.author.0).collect(),
        counters: dots.iter().map(|dot| dot.counter).collect(),
        author,
        change,
        others: revision.others.iter().map(sibling).collect(),
    }
}

pub(crate) fn encode_record(record: &Record) -> v1::Record {
    let kind = match &record.kind {
        Kind::File { size_bytes, stamp } => record::Kind::File(v1::File { size_bytes: *size_bytes, stamp: stamp.0 }),
        Kind::Dir => record::Kind::Dir(v1::Dir {}),
        Kind::Symlink { target } => record::Kind::Symlink(v1::Symlink { target: Bytes::copy_from_slice(target) }),
    };
    v1::Record {
        kind: Some(kind),
        mode: u32::from(record.mode),
        modified_seconds: record.modified.seconds,
        modified_nanos: record.modified.nanos,
        xattrs: xattrs::encode(&record.xattrs),
    }
}
