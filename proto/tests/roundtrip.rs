//! What one side encodes, the other parses back to the same; whatever else arrives is refused without a panic.

use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE, FRAMES_PER_CHUNK, MAX_FILE_BYTES};
use farshore_engine::path::{Name, RelPath};
use farshore_engine::record::{FileTime, Kind, Record, Stamp};
use farshore_engine::version::{MAX_COUNTER, MAX_PAIRS, MAX_SIBLINGS, Sibling};
use farshore_engine::xattrs::{XATTR_COST_BYTES, XATTR_PREFIX, XATTR_VALUE_MAX_BYTES, XATTRS_MAX_BYTES};
use farshore_engine::{Change, DeviceTag, Dot, Position, Revision, TreeUpdate, Version, Xattrs};
use farshore_proto::codec::decode;
use farshore_proto::hello::{encode_watch, parse_watch};
use farshore_proto::verify::seal;
use farshore_proto::{
    Fetch, Hash, Hashes, Hello, MAX_BATCH_BYTES, MAX_BATCH_UPDATES, MAX_HASH_CHUNKS, MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES, Open, ReadReply, ReadRequest, Refusal, Secret, ShareId, VERSION_MAX, Welcome, Whole, batches,
    parse_any, parse_batch, v1,
};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;

fn names() -> impl Strategy<Value = Name> {
    vec(any::<u8>(), 1..20).prop_filter_map("not a name", |bytes| Name::new(&bytes).ok())
}

fn paths(least: usize) -> impl Strategy<Value = RelPath> {
    vec(names(), least..6).prop_map(|names| RelPath::new(names).unwrap())
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (0..=MAX_FILE_BYTES, any::<u64>())
            .prop_map(|(size_bytes, stamp)| Kind::File { size_bytes, stamp: Stamp(stamp) }),
        Just(Kind::Dir),
        vec(1..=u8::MAX, 1..50).prop_map(|target| Kind::Symlink { target: target.into() }),
    ]
}

/// Nearly always there are none.
fn xattrs() -> impl Strategy<Value = Xattrs> {
    let one = (vec(1..=u8::MAX, 1..9), vec(any::<u8>(), 0..40));
    let some = vec(one, 1..4).prop_map(|all| {
        all.into_iter().map(|(name, value)| ([XATTR_PREFIX, &name].concat(), value)).collect::<Xattrs>()
    });
    prop_oneof![3 => Just(Xattrs::default()), 1 => some]
}

fn records() -> impl Strategy<Value = Record> {
    let fields = (kinds(), 0..=0o7777u16, any::<i64>(), 0..1_000_000_000u32, xattrs());
    fields.prop_map(|(kind, mode, seconds, nanos, xattrs)| Record {
        xattrs: if matches!(kind, Kind::Symlink { .. }) { Xattrs::default() } else { xattrs },
        kind,
        mode,
        modified: FileTime { seconds, nanos },
    })
}

fn revisions() -> impl Strategy<Value = Revision> {
    let counters = proptest::collection::btree_map(any::<u64>(), 1..=MAX_COUNTER, 1..5);
    (counters, any::<proptest::sample::Index>()).prop_map(|(counters, author)| {
        let dots: Vec<Dot> =
            counters.into_iter().map(|(author, counter)| Dot { author: DeviceTag(author), counter }).collect();
        let dot = dots[author.index(dots.len())];
        Revision { dot, ..Revision::after(&Version::new(dots).unwrap(), dot) }
    })
}

/// With something that was written beside it.
fn disputed() -> impl Strategy<Value = Revision> {
    (revisions(), proptest::collection::vec((1..=MAX_COUNTER, records()), 0..4)).prop_map(|(revision, others)| {
        let others: BTreeMap<Dot, Record> =
            others.into_iter().map(|(counter, record)| (Dot { counter, ..revision.dot }, record)).collect();
        let covered = |dot: &Dot| revision.version.covers(*dot) && *dot != revision.dot;
        let others = others.into_iter().filter(|(dot, _)| covered(dot));
        let others: Vec<Sibling> = others.map(|(dot, record)| Sibling { dot, record }).collect();
        Revision { others: others.into(), ..revision }
    })
}

fn removals() -> impl Strategy<Value = Revision> {
    revisions().prop_map(|revision| Revision::removed(revision.version))
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        (paths(0), records(), disputed(), any::<bool>()).prop_map(|(path, record, revision, replaced)| Change::Put {
            path,
            record,
            revision,
            replaced
        }),
        (paths(0), removals()).prop_map(|(path, revision)| Change::Remove { path, revision }),
        (paths(0), paths(0), records(), revisions(), any::<u64>()).prop_map(|(from, to, record, revision, digest)| {
            let left = revision.dot.into();
            Change::Rename { from, to, record, revision, left, digest }
        }),
    ]
}

fn updates() -> impl Strategy<Value = TreeUpdate> {
    prop_oneof![
        (1u64.., any::<u64>()).prop_map(|(epoch, seq)| TreeUpdate::Begin { position: Position { epoch, seq } }),
        (paths(0), records(), revisions()).prop_map(|(path, record, revision)| TreeUpdate::Entry {
            path,
            record,
            revision
        }),
        (paths(0), removals()).prop_map(|(path, revision)| TreeUpdate::Removed { path, revision }),
        any::<u64>().prop_map(|seq| TreeUpdate::Skip { seq }),
        any::<u64>().prop_map(|settled| TreeUpdate::End { settled }),
        (any::<u64>(), changes()).prop_map(|(seq, change)| TreeUpdate::Event { seq, change }),
    ]
}

fn refusals() -> impl Strategy<Value = Refusal> {
    prop_oneof![Just(Refusal::Stale), Just(Refusal::Gone), Just(Refusal::Io), Just(Refusal::NotYet)]
}

fn requests() -> impl Strategy<Value = ReadRequest> {
    let frames = (0..FRAMES_PER_CHUNK).prop_flat_map(|first| (Just(first), first + 1..=FRAMES_PER_CHUNK));
    let open = |size_bytes| {
        let parts = (paths(1), any::<u64>(), size_bytes);
        parts.prop_map(|(path, stamp, size_bytes)| Open { path, stamp: Stamp(stamp), size_bytes })
    };
    prop_oneof![
        open(0..=MAX_FILE_BYTES).prop_map(ReadRequest::Open),
        (1u64.., open(1..=CHUNK_SIZE)).prop_map(|(request, file)| ReadRequest::Whole(Whole { request, file })),
        (1u64.., any::<u64>(), frames, any::<bool>()).prop_map(|(request, chunk, (first, end), urgent)| {
            ReadRequest::Fetch(Fetch { request, chunk, frames: first..end, urgent })
        }),
        (1u64..).prop_map(|request| ReadRequest::Cancel { request }),
        (1u64.., 0..u64::MAX / 2, 1..=MAX_HASH_CHUNKS, any::<bool>()).prop_map(|(request, first, count, urgent)| {
            ReadRequest::Hash(Hash { request, chunks: first..first + count, urgent })
        }),
    ]
}

fn replies() -> impl Strategy<Value = ReadReply> {
    prop_oneof![
        (any::<u64>(), any::<u32>(), vec(any::<u8>(), 0..100))
            .prop_map(|(request, frame, data)| ReadReply::Frame(seal(request, frame, data.into()))),
        any::<u64>().prop_map(|request| ReadReply::Done { request }),
        (any::<u64>(), refusals()).prop_map(|(request, reason)| ReadReply::Refused { request, reason }),
        refusals().prop_map(|reason| ReadReply::OpenRefused { reason }),
        (any::<u64>(), any::<u64>(), vec(any::<u64>(), 0..=MAX_HASH_CHUNKS as usize))
            .prop_map(|(request, first_chunk, xxh3)| ReadReply::Hashes(Hashes { request, first_chunk, xxh3 })),
    ]
}

/// The message as the other side decodes it.
fn sent<T: Message + Default>(message: &T, limit_bytes: usize) -> T {
    let bytes = message.encode_to_vec();
    assert!(bytes.len() <= limit_bytes, "{} bytes", bytes.len());
    decode(&bytes[..]).unwrap()
}

proptest! {
    #[test]
    fn hello(
        share: [u8; 16],
        secret: Option<[u8; 16]>,
        agent in "[ -~]{0,64}",
        membership in proptest::option::of(vec("[a-z0-9][a-z0-9.-]{0,240}:[1-9][0-9]{0,3}", 0..=8)),
    ) {
        let hello = Hello { membership, ..Hello::new(ShareId(share), secret.map(Secret), &agent) };
        prop_assert_eq!(Hello::parse(&sent(&hello.encode(), MAX_REQUEST_BYTES)), Ok(hello));
    }

    #[test]
    fn welcome_and_watch(epoch in 1u64.., seq: u64, calls_back: bool) {
        let welcome = Welcome { version: VERSION_MAX, epoch, calls_back };
        prop_assert_eq!(Welcome::parse(&sent(&welcome.encode(), MAX_REPLY_BYTES)), Ok(welcome));
        let position = Position { epoch, seq };
        prop_assert_eq!(parse_watch(&sent(&encode_watch(position), MAX_REQUEST_BYTES)), position);
    }

    #[test]
    fn tree(updates in vec(updates(), 0..50)) {
        let mut received = Vec::new();
        for batch in batches(&updates) {
            received.extend(parse_batch(sent(&batch, MAX_REPLY_BYTES)).unwrap());
        }
        prop_assert_eq!(received, updates);
    }

    #[test]
    fn read_requests(request in requests()) {
        prop_assert_eq!(ReadRequest::parse(sent(&request.encode(), MAX_REQUEST_BYTES)), Ok(request));
    }

    #[test]
    fn read_replies(reply in replies()) {
        prop_assert_eq!(ReadReply::parse(sent(&reply.clone().encode(), MAX_REPLY_BYTES)), Ok(reply));
    }

    #[test]
    fn arbitrary_bytes_never_panic(tag: u8, bytes in vec(any::<u8>(), 0..300)) {
        let _ = parse_any(tag, &bytes);
    }

    /// Closer to the truth than noise: a valid message with one byte changed.
    #[test]
    fn damaged_messages_never_panic(
        updates in vec(updates(), 1..5), request in requests(), reply in replies(), at: prop::sample::Index, byte: u8,
    ) {
        let messages = [
            (3, batches(&updates)[0].encode_to_vec()),
            (4, request.encode().encode_to_vec()),
            (5, reply.encode().encode_to_vec()),
        ];
        for (tag, mut bytes) in messages {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse_any(tag, &bytes);
            let _ = parse_any(tag, &bytes[..at]);
        }
    }
}

/// The largest update of this kind: a rename between two longest paths, with as much beside it as there can be.
fn largest(kind: Kind, xattrs: Xattrs) -> TreeUpdate {
    let name = Name::new(b"x").unwrap();
    let path = RelPath::new(vec![name; 2048]).unwrap();
    let modified = FileTime { seconds: i64::MIN, nanos: 999_999_999 };
    let record = Record { kind, mode: 0o7777, modified, xattrs };
    let dot =
        |device: usize| Dot { author: DeviceTag(u64::MAX - MAX_PAIRS as u64 + device as u64), counter: MAX_COUNTER };
    let version = Version::new((0..MAX_PAIRS).map(dot).collect()).unwrap();
    let sibling = |device: usize| Sibling { dot: dot(device), record: record.clone() };
    let others: Vec<Sibling> = (0..MAX_SIBLINGS).map(sibling).collect();
    let revision = Revision { others: others.into(), ..Revision::after(&version, dot(MAX_PAIRS - 1)) };
    let change = Change::Rename { from: path.clone(), to: path, record, revision, left: version, digest: u64::MAX };
    TreeUpdate::Event { seq: u64::MAX, change }
}

#[test]
fn batches_are_split_by_bytes_and_by_number() {
    let link = Kind::Symlink { target: vec![b'y'; 4095].into() };
    let large = vec![largest(link, Xattrs::default()); 100];
    let split = batches(&large);
    assert!(split.len() > 20 && split.len() < 50, "{}", split.len());
    assert!(split.iter().all(|batch| batch.encoded_len() <= MAX_BATCH_BYTES));
    let received: Vec<_> = split.iter().flat_map(|batch| parse_batch(sent(batch, MAX_REPLY_BYTES)).unwrap()).collect();
    assert_eq!(received, large);

    let many = vec![TreeUpdate::End { settled: 1 }; 2 * MAX_BATCH_UPDATES + 1];
    let lens: Vec<_> = batches(&many).iter().map(|batch| sent(batch, MAX_REPLY_BYTES).updates.len()).collect();
    assert_eq!(lens, [MAX_BATCH_UPDATES, MAX_BATCH_UPDATES, 1]);

    assert_eq!(batches(&[]), [v1::TreeBatch::default()], "no news is one empty batch");
}

/// Two values that are as long as may be, but for what names cost; or as many names as there is room for.
fn most_xattrs() -> [Xattrs; 2] {
    let rest_bytes = XATTRS_MAX_BYTES - XATTR_VALUE_MAX_BYTES - 2 * (b"user.a".len() + XATTR_COST_BYTES);
    let long = Xattrs::default().with(b"user.a", &[7; XATTR_VALUE_MAX_BYTES]).with(b"user.b", &vec![8; rest_bytes]);
    let names =
        (0..XATTRS_MAX_BYTES / (b"user.0000".len() + XATTR_COST_BYTES)).map(|number| format!("user.{number:04x}"));
    let many: Xattrs = names.map(|name| (name.into_bytes(), Vec::new())).collect();
    [long, many]
}

#[test]
fn extended_attributes_go_in_one_message_also_where_much_stands_beside_each_other() {
    for xattrs in most_xattrs() {
        assert_eq!(xattrs.check(), Ok(()));
        let large = largest(Kind::Dir, xattrs);
        let split = batches(&[TreeUpdate::End { settled: 1 }, large.clone(), large.clone()]);
        let lens: Vec<_> = split.iter().map(|batch| sent(batch, MAX_REPLY_BYTES).updates.len()).collect();
        assert_eq!(lens, [1, 1, 1]);
        assert_eq!(parse_batch(sent(&split[1], MAX_REPLY_BYTES)), Ok(vec![large]));
    }
}

#[test]
fn the_largest_messages_fit() {
    let reply = ReadReply::Frame(seal(u64::MAX, u32::MAX, vec![7; usize::try_from(FRAME_SIZE).unwrap()].into()));
    sent(&reply.encode(), MAX_REPLY_BYTES);
    let path = RelPath::new(vec![Name::new(b"x").unwrap(); 2048]).unwrap();
    let open = ReadRequest::Open(Open { path, stamp: Stamp(u64::MAX), size_bytes: MAX_FILE_BYTES });
    let bytes = open.encode().encode_to_vec();
    assert!(bytes.len() <= MAX_REQUEST_BYTES);
    assert_eq!(ReadRequest::parse(decode(&bytes[..]).unwrap()), Ok(open));
}
