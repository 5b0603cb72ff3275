//! What a device remembers of a share reads back as it was, and whatever else the file holds is refused.

use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, FileTime, Kind, Record, Stamp};
use farshore_engine::version::Sibling;
use farshore_engine::{
    DeviceTag, Dot, Entries, InFolder, Memory, PeerFault, PeerId, Position, Revision, Standing, Xattrs,
};
use farshore_proto::{MemoryFileError, ShareId, decode_memory, encode_memory};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn record(kind: Kind) -> Record {
    Record { kind, mode: 0o640, modified: FileTime { seconds: -3, nanos: 7 }, xattrs: Xattrs::default() }
}

fn file(stamp: u64) -> Record {
    record(Kind::File { size_bytes: 9, stamp: Stamp(stamp) })
}

fn dot(counter: u64) -> Dot {
    Dot { author: DeviceTag(5), counter }
}

fn facts(inode: u64) -> Facts {
    Facts { inode, changed: FileTime { seconds: 8, nanos: 999_999_999 } }
}

fn memory(files: u64) -> Memory {
    let disputed = Revision {
        others: vec![Sibling { dot: dot(2), record: file(2) }].into(),
        ..Revision::after(&dot(2).into(), dot(3))
    };
    let mut entries = vec![(RelPath::ROOT, record(Kind::Dir), dot(1).into()), (path("d"), file(1), disputed)];
    entries.extend((0..files).map(|index| (path(&format!("f{index:05}")), file(index), dot(index + 9).into())));
    let marked = Record { xattrs: Xattrs::default().with(b"user.a", b"1"), ..file(2) };
    let held = |record, inode| InFolder { record, dot: dot(4), facts: facts(inode) };
    let mut in_folder = vec![(RelPath::ROOT, held(None, 1)), (path("d"), held(Some(marked), 2))];
    in_folder.extend((0..files).map(|index| (path(&format!("f{index:05}")), held(None, index + 3))));
    let removed = vec![(path("a/b"), Revision::removed(dot(7).into())), (path("e"), Revision::removed(dot(8).into()))];
    let standing = |seq| Standing { position: Position { epoch: 7, seq }, settled: 2 * seq };
    let standings = (0..files.min(9)).map(|index| (PeerId([index as u8; 32]), standing(index))).collect();
    Memory::new(Entries::of(entries).unwrap(), removed, in_folder, standings).unwrap()
}

const SHARE: ShareId = ShareId([7; size_of::<ShareId>()]);

#[test]
fn what_is_written_reads_back() {
    for memory in [Memory::default(), memory(0), memory(3), memory(5_000)] {
        let bytes = encode_memory(SHARE, 17, &memory).unwrap();
        assert_eq!(decode_memory(&bytes, SHARE), Ok((17, memory)));
    }
}

#[test]
fn whatever_is_cut_off_or_changed_is_refused() {
    let bytes = encode_memory(SHARE, 1, &memory(3)).unwrap();
    for len in 0..bytes.len() {
        assert!(decode_memory(&bytes[..len], SHARE).is_err(), "{len} bytes");
    }
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        assert!(decode_memory(&bytes, SHARE).is_err(), "byte {at}");
    }
}

#[test]
fn each_rule_has_its_error() {
    let bytes = encode_memory(SHARE, 1, &memory(3)).unwrap();
    let changed = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        let body = bytes.len() - 16;
        let checksum = xxh3_128(&bytes[..body]).to_le_bytes();
        bytes[body..].copy_from_slice(&checksum);
        decode_memory(&bytes, SHARE).unwrap_err()
    };
    assert_eq!(decode_memory(&[], SHARE), Err(MemoryFileError::TooShort(0)));
    assert_eq!(changed(0, b'X'), MemoryFileError::Magic);
    assert_eq!(changed(4, 9), MemoryFileError::Version(9));
    assert_eq!(changed(5, 1), MemoryFileError::Version(2));
    let header = 8 + size_of::<ShareId>() + 8 + 8;
    assert!(matches!(changed(8, 1), MemoryFileError::WrongShare(_)));
    assert!(matches!(changed(header + 3, 0xff), MemoryFileError::MessageLength(_)));
    // The messages of the tree are taken for something else.
    assert!(matches!(changed(header - 8, 0), MemoryFileError::Share(_)));
    let mut torn = bytes.clone();
    *torn.last_mut().unwrap() ^= 1;
    assert_eq!(decode_memory(&torn, SHARE), Err(MemoryFileError::Checksum));
}

#[test]
fn what_makes_no_share_is_refused() {
    let root = || (RelPath::ROOT, record(Kind::Dir), Revision::from(dot(1)));
    let entry = |at: &str| (path(at), file(1), Revision::from(dot(1)));
    let held = |at: &str| (path(at), InFolder { record: None, dot: dot(1), facts: facts(1) });
    let removed = |at: &str| (path(at), Revision::removed(dot(1).into()));
    let fault = |entries: Vec<_>, removed, held: Vec<_>| {
        Entries::of(entries).and_then(|entries| Memory::new(entries, removed, held, BTreeMap::new())).unwrap_err()
    };
    assert_eq!(fault(vec![root(), entry("b"), entry("a")], vec![], vec![]), PeerFault::OutOfPlace);
    assert_eq!(fault(vec![root(), entry("a"), entry("a/b")], vec![], vec![]), PeerFault::NoParent);
    assert_eq!(fault(vec![root(), entry("a/b")], vec![], vec![]), PeerFault::NoParent);
    assert_eq!(fault(vec![root(), entry("a")], vec![removed("a")], vec![]), PeerFault::OutOfPlace);
    assert_eq!(fault(vec![root()], vec![], vec![held("a")]), PeerFault::OutOfPlace);
    let (a, b) = (|| entry("a"), || entry("b"));
    assert_eq!(fault(vec![root(), a(), b()], vec![], vec![held("b"), held("a")]), PeerFault::OutOfPlace);
    assert_eq!(fault(vec![root(), a()], vec![], vec![held("a"), held("a")]), PeerFault::OutOfPlace);
    assert_eq!(fault(vec![root()], vec![removed("b"), removed("a")], vec![]), PeerFault::OutOfPlace);
}
