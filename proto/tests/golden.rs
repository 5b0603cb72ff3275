//! The encoding of every message, byte for byte. A test here that fails means that old and new programs cannot talk:
//! change the version, not the test.

use bytes::Bytes;
use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Kind, Record, Stamp};
use farshore_engine::version::Sibling;
use farshore_engine::{Change, DeviceTag, Dot, PeerId, Position, Revision, TreeUpdate, Xattrs};
use farshore_proto::hello::encode_watch;
use farshore_proto::verify::seal;
use farshore_proto::{
    Fetch, Hash, Hashes, Hello, Members, Open, ReadReply, ReadRequest, Refusal, Secret, ShareId, Welcome, Whole,
    batches, encode_members, v1,
};
use prost::Message;

fn hex(message: &impl Message) -> String {
    message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn update(update: TreeUpdate) -> String {
    let batches = batches(&[update]);
    assert_eq!(batches.len(), 1);
    hex(&batches[0])
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn record(kind: Kind) -> Record {
    Record { kind, mode: 0o644, modified: FileTime { seconds: -2, nanos: 3 }, xattrs: Xattrs::default() }
}

fn file() -> Record {
    record(Kind::File { size_bytes: 300, stamp: Stamp(0x0102_0304_0506_0708) })
}

#[test]
fn hello() {
    let share = ShareId([0x11; 16]);
    let hello = Hello::new(share, Some(Secret([0x22; 16])), "a/1");
    assert_eq!(
        hex(&hello.encode()),
        "080510051a10111111111111111111111111111111112210222222222222222222222222222222222a03612f31"
    );
    assert_eq!(hex(&Hello::new(share, None, "").encode()), "080510051a1011111111111111111111111111111111");
    let member = Hello::new(share, None, "").of_member(vec!["a:1".into()]);
    assert_eq!(hex(&member.encode()), "080510051a101111111111111111111111111111111132050a03613a31");
    let welcome = Welcome { version: 5, epoch: 5, calls_back: false };
    assert_eq!(hex(&welcome.encode()), "0805110500000000000000");
    assert_eq!(hex(&Welcome { calls_back: true, ..welcome }.encode()), "08051105000000000000001801");
    assert_eq!(hex(&v1::GoodbyeRequest {}), "");
    assert_eq!(hex(&v1::GoodbyeReply {}), "");
}

#[test]
fn members() {
    let members: Members = [(1, vec!["a:1".to_owned(), "b:2".to_owned()]), (2, Vec::new()), (3, Vec::new())]
        .map(|(number, addresses)| (PeerId([number; 32]), addresses))
        .into();
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    let told = format!("0a2c0a20{one}1203613a311203623a320a220a20{two}");
    assert_eq!(hex(&encode_members(&members, PeerId([3; 32]))), told);
    assert_eq!(hex(&v1::MembersRequest {}), "");
}

#[test]
fn watch() {
    assert_eq!(hex(&encode_watch(Position { epoch: 7, seq: 300 })), "09070000000000000010ac02");
    assert_eq!(hex(&encode_watch(Position::default())), "");
    assert_eq!(hex(&v1::TreeBatch::default()), "");
}

/// The third change of a device.
fn revision() -> Revision {
    Dot { author: DeviceTag(0x0102), counter: 3 }.into()
}

/// The same after the first change of another device.
fn two() -> Revision {
    let other = Dot { author: DeviceTag(0x0101), counter: 1 };
    Revision { version: revision().version.with(other), ..revision() }
}

#[test]
fn tree() {
    let begin = TreeUpdate::Begin { position: Position { epoch: 7, seq: 9 } };
    assert_eq!(update(begin), "0a0d0a0b0907000000000000001009");
    assert_eq!(update(TreeUpdate::End { settled: 5 }), "0a041a020805");
    assert_eq!(
        update(TreeUpdate::Entry { path: path("a/bc"), record: file(), revision: revision() }),
        "0a2f122d0a01610a02626312150a0c08ac0211080706050403020120a403280330031a0d0a080201000000000000120103"
    );
    assert_eq!(
        update(TreeUpdate::Entry { path: RelPath::ROOT, record: record(Kind::Dir), revision: revision() }),
        "0a1c121a1209120020a403280330031a0d0a080201000000000000120103"
    );
    let others = vec![Sibling { dot: Dot { counter: 2, ..revision().dot }, record: record(Kind::Dir) }];
    let disputed = Revision { others: others.into(), ..two() };
    assert_eq!(
        update(TreeUpdate::Entry { path: path("a"), record: file(), revision: disputed }),
        "0a4712450a016112150a0c08ac0211080706050403020120a403280330031a290a10010100000000000002010000000000001202010318012a0f080110021a09120020a40328033003"
    );
    let removed = TreeUpdate::Removed { path: path("a"), revision: two() };
    assert_eq!(update(removed), "0a1f2a1d0a016112180a1001010000000000000201000000000000120201031801");
    assert_eq!(update(TreeUpdate::Skip { seq: 9 }), "0a0432020809");
    let xattrs = Xattrs::default().with(b"user.b", b"xyz").with(b"user.a", b"");
    let marked = Record { xattrs, ..record(Kind::Dir) };
    assert_eq!(
        update(TreeUpdate::Entry { path: path("a"), record: marked, revision: revision() }),
        "0a3a12380a01611224120020a403280330033a190a0e757365722e6100757365722e6200120200031a0378797a1a0d0a080201000000000000120103"
    );
    let link = record(Kind::Symlink { target: b"t".as_slice().into() });
    assert_eq!(
        update(TreeUpdate::Entry { path: path("l"), record: link, revision: revision() }),
        "0a2212200a016c120c1a030a017420a403280330031a0d0a080201000000000000120103"
    );
}

#[test]
fn events() {
    let put = Change::Put { path: path("a"), record: record(Kind::Dir), revision: revision(), replaced: true };
    assert_eq!(
        update(TreeUpdate::Event { seq: 1, change: put }),
        "0a2522230801121f0a01611209120020a403280330031801220d0a080201000000000000120103"
    );
    let remove = Change::Remove { path: path("a"), revision: revision() };
    assert_eq!(
        update(TreeUpdate::Event { seq: 2, change: remove }),
        "0a18221608021a120a0161120d0a080201000000000000120103"
    );
    let (from, to, left) = (path("a"), path("b"), revision().version);
    let rename = Change::Rename { from, to, record: record(Kind::Dir), revision: two(), left, digest: 5 };
    assert_eq!(
        update(TreeUpdate::Event { seq: 3, change: rename }),
        "0a492247080322430a01611201621a09120020a4032803300322180a10010100000000000002010000000000001202010318012a0d0a080201000000000000120103310500000000000000"
    );
}

#[test]
fn reading() {
    let open = ReadRequest::Open(Open { path: path("a"), stamp: Stamp(2), size_bytes: 3 });
    assert_eq!(hex(&open.encode()), "0a0e0a01611102000000000000001803");
    let fetch = Fetch { request: 1, chunk: 2, frames: 1..4, urgent: true };
    assert_eq!(hex(&ReadRequest::Fetch(fetch).encode()), "120a08011002180120042801");
    assert_eq!(hex(&ReadRequest::Cancel { request: 1 }.encode()), "1a020801");
    let hash = Hash { request: 1, chunks: 2..5, urgent: true };
    assert_eq!(hex(&ReadRequest::Hash(hash).encode()), "22080801100218032001");
    let file = Open { path: path("a"), stamp: Stamp(2), size_bytes: 3 };
    assert_eq!(
        hex(&ReadRequest::Whole(Whole { request: 1, file }).encode()),
        "2a120801120e0a01611102000000000000001803"
    );
    let frame = ReadReply::Frame(seal(1, 2, Bytes::from_static(b"abc")));
    assert_eq!(hex(&frame.encode()), "0a12080110021950392f89945faf782203616263");
    assert_eq!(hex(&ReadReply::Done { request: 1 }.encode()), "12020801");
    let hashes = ReadReply::Hashes(Hashes { request: 1, first_chunk: 2, xxh3: vec![3, 4] });
    assert_eq!(hex(&hashes.encode()), "2a16080110021a1003000000000000000400000000000000");
    for (reason, golden) in
        [(Refusal::Stale, "01"), (Refusal::Gone, "02"), (Refusal::Io, "03"), (Refusal::NotYet, "04")]
    {
        assert_eq!(hex(&ReadReply::Refused { request: 1, reason }.encode()), format!("1a04080110{golden}"));
        assert_eq!(hex(&ReadReply::OpenRefused { reason }.encode()), format!("220208{golden}"));
    }
}
