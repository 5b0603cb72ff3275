//! Every limit of the wire, one broken at a time. Hello and paths have theirs beside the code.

use bytes::Bytes;
use farshore_engine::PeerFault;
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE, MAX_FILE_BYTES};
use farshore_engine::path::PathError;
use farshore_engine::record::RecordError;
use farshore_engine::version::{MAX_COUNTER, MAX_PAIRS};
use farshore_engine::xattrs::{XATTR_VALUE_MAX_BYTES, XATTRS_MAX_BYTES};
use farshore_proto::v1::{self, event, read_reply, read_request, record, tree_update};
use farshore_proto::{Fetch, Hash, MAX_BATCH_UPDATES, ReadReply, ReadRequest, parse_batch};

fn fault(kind: Option<tree_update::Kind>) -> PeerFault {
    parse_batch(v1::TreeBatch { updates: vec![v1::TreeUpdate { kind }] }).unwrap_err()
}

fn entry_fault(record: Option<v1::Record>) -> PeerFault {
    fault(Some(tree_update::Kind::Entry(v1::Entry {
        path: vec![Bytes::from_static(b"a")],
        record,
        revision: revision(),
    })))
}

fn record(kind: record::Kind) -> v1::Record {
    v1::Record { kind: Some(kind), mode: 0o644, modified_seconds: 0, modified_nanos: 0, xattrs: None }
}

fn dir() -> v1::Record {
    record(record::Kind::Dir(v1::Dir {}))
}

fn revision() -> Option<v1::Revision> {
    Some(v1::Revision { devices: vec![3], counters: vec![4], ..v1::Revision::default() })
}

#[test]
fn updates() {
    assert_eq!(fault(None), PeerFault::Missing("update"));
    assert_eq!(fault(Some(tree_update::Kind::Begin(v1::Begin { epoch: 0, seq: 1 }))), PeerFault::OutOfRange("epoch"));
    assert_eq!(fault(Some(tree_update::Kind::Event(v1::Event { seq: 1, change: None }))), PeerFault::Missing("change"));
    let updates =
        vec![v1::TreeUpdate { kind: Some(tree_update::Kind::End(v1::End { settled: 1 })) }; MAX_BATCH_UPDATES + 1];
    assert_eq!(parse_batch(v1::TreeBatch { updates: updates[1..].to_vec() }).unwrap().len(), MAX_BATCH_UPDATES);
    assert_eq!(parse_batch(v1::TreeBatch { updates }), Err(PeerFault::TooMany(MAX_BATCH_UPDATES)));
}

#[test]
fn paths_of_every_update() {
    let bad = || vec![Bytes::from_static(b"..")];
    let good = || vec![Bytes::from_static(b"a")];
    let event = |change| fault(Some(tree_update::Kind::Event(v1::Event { seq: 1, change: Some(change) })));
    let expected = PeerFault::Path(PathError::DotName);
    let record = || Some(dir());
    assert_eq!(
        fault(Some(tree_update::Kind::Entry(v1::Entry { path: bad(), record: record(), revision: None }))),
        expected
    );
    let put = v1::Put { path: bad(), record: record(), replaced: false, revision: None };
    assert_eq!(event(event::Change::Put(put)), expected);
    let remove = v1::Remove { path: bad(), revision: None };
    assert_eq!(event(event::Change::Remove(remove.clone())), expected);
    assert_eq!(fault(Some(tree_update::Kind::Removed(remove))), expected);
    let rename = v1::Rename { from: good(), to: good(), record: record(), revision: None, left: None, digest: 0 };
    assert_eq!(event(event::Change::Rename(v1::Rename { from: bad(), ..rename.clone() })), expected);
    assert_eq!(event(event::Change::Rename(v1::Rename { to: bad(), ..rename.clone() })), expected);
    let without = v1::Rename { record: None, ..rename };
    assert_eq!(event(event::Change::Rename(without)), PeerFault::Missing("record"));
}

#[test]
fn revisions() {
    let event = |change| fault(Some(tree_update::Kind::Event(v1::Event { seq: 1, change: Some(change) })));
    let path = || vec![Bytes::from_static(b"a")];
    let remove = |revision| event(event::Change::Remove(v1::Remove { path: path(), revision }));
    assert_eq!(remove(None), PeerFault::Missing("revision"));
    let revision = |devices: &[u64], counters: &[u64], author| {
        let (devices, counters) = (devices.to_vec(), counters.to_vec());
        Some(v1::Revision { devices, counters, author, ..v1::Revision::default() })
    };
    let other = |author, change| v1::Sibling { author, change, record: Some(dir()) };
    let with = |others| Some(v1::Revision { devices: vec![1], counters: vec![3], others, ..v1::Revision::default() });
    // Nothing stands beside nothing.
    assert_eq!(remove(with(vec![other(0, 1)])), PeerFault::Version);
    let put =
        |revision| event(event::Change::Put(v1::Put { path: path(), record: Some(dir()), replaced: false, revision }));
    let many: Vec<u64> = (1..=MAX_PAIRS as u64 + 1).collect();
    let bad = [
        revision(&[], &[], 0),
        revision(&[1], &[], 0),
        revision(&[1], &[0], 0),
        revision(&[1], &[MAX_COUNTER + 1], 0),
        revision(&[1], &[1], 1),
        revision(&[1, 1], &[1, 1], 0),
        revision(&[2, 1], &[1, 1], 0),
        revision(&many, &many, 0),
        revision(&[1], &[3], 0).map(|revision| v1::Revision { change: 4, ..revision }),
        with(vec![other(1, 1)]),
        with(vec![other(0, 4)]),
        with(vec![other(0, 3)]),
        with(vec![other(0, 2), other(0, 1)]),
        with((1..=17).map(|change| other(0, change)).collect()),
    ];
    for bad in bad {
        assert_eq!(put(bad.clone()), PeerFault::Version, "{bad:?}");
    }
    let rename = |revision: Option<v1::Revision>, left: Option<v1::Revision>| {
        let (from, to, record) = (path(), path(), Some(dir()));
        event(event::Change::Rename(v1::Rename { from, to, record, revision, left, digest: 0 }))
    };
    assert_eq!(rename(None, revision(&[1], &[1], 0)), PeerFault::Missing("revision"));
    assert_eq!(rename(revision(&[1], &[1], 0), None), PeerFault::Missing("revision"));
    // It is one change.
    assert_eq!(rename(revision(&[1], &[1], 0), revision(&[1], &[2], 0)), PeerFault::Version);
}

#[test]
fn records() {
    assert_eq!(entry_fault(None), PeerFault::Missing("record"));
    assert_eq!(entry_fault(Some(v1::Record { kind: None, ..dir() })), PeerFault::Missing("kind"));
    for mode in [0o10000, 0x1_0000, u32::MAX] {
        assert_eq!(entry_fault(Some(v1::Record { mode, ..dir() })), PeerFault::Record(RecordError::Mode));
    }
    let late = v1::Record { modified_nanos: 1_000_000_000, ..dir() };
    assert_eq!(entry_fault(Some(late)), PeerFault::Record(RecordError::Nanos));
    for size_bytes in [MAX_FILE_BYTES + 1, u64::MAX] {
        let large = record(record::Kind::File(v1::File { size_bytes, stamp: 0 }));
        assert_eq!(entry_fault(Some(large)), PeerFault::Record(RecordError::TooLarge));
    }
    for target in [vec![], vec![b'x'; 4096], vec![0]] {
        let link = record(record::Kind::Symlink(v1::Symlink { target: target.into() }));
        assert_eq!(entry_fault(Some(link)), PeerFault::Record(RecordError::Target));
    }
}

#[test]
fn extended_attributes() {
    let of = |record: v1::Record, names: &[u8], value_bytes: &[usize], values: usize| {
        let value_bytes = value_bytes.iter().map(|len| *len as u32).collect();
        let xattrs = v1::Xattrs { names: Bytes::copy_from_slice(names), value_bytes, values: vec![0; values].into() };
        entry_fault(Some(v1::Record { xattrs: Some(xattrs), ..record }))
    };
    let misfit = PeerFault::OutOfRange("extended attributes");
    let cases: [(&[u8], &[usize], usize); 9] = [
        (b"", &[], 0),
        (b"user.a", &[0], 0),
        (b"user.a\0", &[], 0),
        (b"user.a\0", &[0, 0], 0),
        (b"user.a\0", &[3], 2),
        (b"user.a\0", &[3], 4),
        (b"user.a\0", &[u32::MAX as usize], 4),
        (b"user.a\0user.a\0", &[0, 0], 0),
        (b"user.b\0user.a\0", &[0, 0], 0),
    ];
    for (names, value_bytes, values) in cases {
        assert_eq!(of(dir(), names, value_bytes, values), misfit, "{} {value_bytes:?}", names.escape_ascii());
    }
    for name in [&b"user.\0"[..], b"trusted.a\0", b"\0", &[b"user.", &[b'x'; 251][..], b"\0"].concat()] {
        assert_eq!(of(dir(), name, &[0], 0), PeerFault::Record(RecordError::XattrName), "{}", name.escape_ascii());
    }
    let long = XATTR_VALUE_MAX_BYTES + 1;
    assert_eq!(of(dir(), b"user.a\0", &[long], long), PeerFault::Record(RecordError::XattrValue));
    let half = XATTRS_MAX_BYTES / 2;
    assert_eq!(of(dir(), b"user.a\0user.b\0", &[half, half], 2 * half), PeerFault::Record(RecordError::Xattrs));
    let link = record(record::Kind::Symlink(v1::Symlink { target: b"x"[..].into() }));
    assert_eq!(of(link, b"user.a\0", &[0], 0), PeerFault::Record(RecordError::Xattrs));
}

#[test]
fn read_requests() {
    let fault = |kind| ReadRequest::parse(v1::ReadRequest { kind: Some(kind) }).unwrap_err();
    assert_eq!(ReadRequest::parse(v1::ReadRequest { kind: None }), Err(PeerFault::Missing("request")));
    let open = |path, size_bytes| fault(read_request::Kind::Open(v1::Open { path, stamp: 0, size_bytes }));
    assert_eq!(open(vec![], 0), PeerFault::Path(PathError::EmptyPath));
    assert_eq!(open(vec![Bytes::from_static(b"a/b")], 0), PeerFault::Path(PathError::Slash));
    let path = vec![Bytes::from_static(b"a")];
    assert_eq!(open(path, MAX_FILE_BYTES + 1), PeerFault::Record(RecordError::TooLarge));

    let good = v1::Fetch { request: 1, chunk: 0, first_frame: 0, end_frame: 4, urgent: false };
    let fetch = |change: fn(&mut v1::Fetch)| {
        let mut message = good;
        change(&mut message);
        fault(read_request::Kind::Fetch(message))
    };
    assert_eq!(fetch(|m| m.request = 0), PeerFault::OutOfRange("request"));
    assert_eq!(fetch(|m| m.first_frame = 4), PeerFault::OutOfRange("frames"));
    assert_eq!(fetch(|m| (m.first_frame, m.end_frame) = (2, 1)), PeerFault::OutOfRange("frames"));
    assert_eq!(fetch(|m| m.end_frame = 5), PeerFault::OutOfRange("frames"));
    assert_eq!(fetch(|m| m.end_frame = u32::MAX), PeerFault::OutOfRange("frames"));
    assert_eq!(fault(read_request::Kind::Cancel(v1::Cancel { request: 0 })), PeerFault::OutOfRange("request"));
}

#[test]
fn hash_requests() {
    let good = v1::Hash { request: 1, first_chunk: 0, chunks: 64, urgent: false };
    let parse = |change: fn(&mut v1::Hash)| {
        let mut message = good;
        change(&mut message);
        ReadRequest::parse(v1::ReadRequest { kind: Some(read_request::Kind::Hash(message)) })
    };
    assert_eq!(parse(|_| {}), Ok(ReadRequest::Hash(Hash { request: 1, chunks: 0..64, urgent: false })));
    assert_eq!(parse(|m| m.request = 0), Err(PeerFault::OutOfRange("request")));
    let out_of_range = Err(PeerFault::OutOfRange("chunks"));
    assert_eq!(parse(|m| m.chunks = 0), out_of_range);
    assert_eq!(parse(|m| m.chunks = 65), out_of_range);
    assert_eq!(parse(|m| m.chunks = u32::MAX), out_of_range);
    assert_eq!(parse(|m| m.first_chunk = u64::MAX - 1), out_of_range);
    let check = |chunks| Hash { request: 1, chunks, urgent: false }.check(3 * CHUNK_SIZE + 1);
    assert_eq!(check(0..4), Ok(()), "the last chunk is short");
    assert_eq!(check(3..5), Err(PeerFault::OutOfRange("chunks")));
    assert_eq!(check(9..10), Err(PeerFault::OutOfRange("chunks")));
    assert_eq!(Hash { request: 1, chunks: 0..1, urgent: false }.check(0), Err(PeerFault::OutOfRange("chunks")));
}

#[test]
fn whole_files_are_small_and_not_empty() {
    let good = || v1::Open { path: vec![Bytes::from_static(b"a")], stamp: 2, size_bytes: CHUNK_SIZE };
    let parse = |request, file| {
        let message = v1::Whole { request, file };
        ReadRequest::parse(v1::ReadRequest { kind: Some(read_request::Kind::Whole(message)) })
    };
    assert!(parse(1, Some(good())).is_ok());
    assert_eq!(parse(0, Some(good())), Err(PeerFault::OutOfRange("request")));
    assert_eq!(parse(1, None), Err(PeerFault::Missing("file")));
    for size_bytes in [0, CHUNK_SIZE + 1, MAX_FILE_BYTES] {
        assert_eq!(parse(1, Some(v1::Open { size_bytes, ..good() })), Err(PeerFault::OutOfRange("size")));
    }
    assert_eq!(parse(1, Some(v1::Open { path: vec![], ..good() })), Err(PeerFault::Path(PathError::EmptyPath)));
}

#[test]
fn more_hashes_than_can_be_asked_for() {
    let hashes = |count| {
        let message = v1::Hashes { request: 1, first_chunk: 0, xxh3: vec![7; count] };
        ReadReply::parse(v1::ReadReply { kind: Some(read_reply::Kind::Hashes(message)) })
    };
    assert!(hashes(64).is_ok());
    assert_eq!(hashes(65), Err(PeerFault::TooMany(64)));
}

#[test]
fn fetches_stay_inside_the_file() {
    let size_bytes = CHUNK_SIZE + FRAME_SIZE + 1;
    let range = |chunk, frames| Fetch { request: 1, chunk, frames, urgent: false }.range(size_bytes);
    assert_eq!(range(0, 0..4), Ok(0..CHUNK_SIZE));
    assert_eq!(range(0, 1..2), Ok(FRAME_SIZE..2 * FRAME_SIZE));
    assert_eq!(range(1, 0..2), Ok(CHUNK_SIZE..size_bytes));
    assert_eq!(range(1, 1..2), Ok(CHUNK_SIZE + FRAME_SIZE..size_bytes));
    assert_eq!(range(1, 0..3), Err(PeerFault::OutOfRange("frames")));
    assert_eq!(range(2, 0..1), Err(PeerFault::OutOfRange("chunk")));
    assert_eq!(range(u64::MAX, 0..1), Err(PeerFault::OutOfRange("chunk")));
    assert_eq!(
        Fetch { request: 1, chunk: 0, frames: 0..1, urgent: false }.range(0),
        Err(PeerFault::OutOfRange("chunk"))
    );
}

#[test]
fn read_replies() {
    assert_eq!(ReadReply::parse(v1::ReadReply { kind: None }), Err(PeerFault::Missing("reply")));
    for (reason, fault) in [(0, PeerFault::Missing("reason")), (5, PeerFault::OutOfRange("reason"))] {
        let refused = read_reply::Kind::Refused(v1::Refused { request: 1, reason });
        assert_eq!(ReadReply::parse(v1::ReadReply { kind: Some(refused) }), Err(fault));
        let refused = read_reply::Kind::OpenRefused(v1::OpenRefused { reason });
        assert_eq!(ReadReply::parse(v1::ReadReply { kind: Some(refused) }), Err(fault));
    }
}
