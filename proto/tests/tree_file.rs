//! The tree of a share as a file: what is written is read, and nothing else is.

use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Kind, Record, Stamp};
use farshore_engine::{DeviceTag, Dot, Entries, PeerFault, PeerId, Position, Remembered, Revision, TreeUpdate, Xattrs};
use farshore_proto::tree_file::{MAX_TREE_BYTES, TreeFile, TreeFileError, TreeId, check_len};
use farshore_proto::{MAX_REPLY_BYTES, ShareId, batches};
use prost::Message;
use xxhash_rust::xxh3::xxh3_128;

const ID: TreeId = TreeId { owner: PeerId([0xab; 32]), share: ShareId([0xcd; 16]) };
const HEADER_BYTES: usize = 72;
const CHECKSUM_BYTES: usize = 16;

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn record(kind: Kind) -> Record {
    Record { kind, mode: 0o644, modified: FileTime { seconds: -2, nanos: 3 }, xattrs: Xattrs::default() }
}

fn file() -> Record {
    record(Kind::File { size_bytes: 300, stamp: Stamp(9) })
}

fn revision() -> Revision {
    Dot { author: DeviceTag(0x0102), counter: 3 }.into()
}

fn tree(entries: Vec<(RelPath, Record)>) -> TreeFile {
    let entries = Entries::of(entries.into_iter().map(|(path, record)| (path, record, revision()))).unwrap();
    let tree = Remembered::new(Position { epoch: 3, seq: 4 }, 6, entries).unwrap();
    TreeFile { id: ID, known_unix_seconds: 1_700_000_000, tree }
}

/// A few entries of every kind.
fn small() -> TreeFile {
    let link = record(Kind::Symlink { target: b"../x".as_slice().into() });
    let dir = record(Kind::Dir);
    tree(vec![(RelPath::ROOT, dir.clone()), (path("docs"), dir), (path("docs/a b"), file()), (path("link"), link)])
}

/// A file with these messages behind the header of `small`, and the right checksum.
fn with_messages(messages: &[Vec<u8>], count: u64) -> Vec<u8> {
    let mut bytes = small().encode().unwrap()[..HEADER_BYTES].to_vec();
    bytes[64..72].copy_from_slice(&count.to_le_bytes());
    for message in messages {
        bytes.extend((message.len() as u32).to_le_bytes());
        bytes.extend(message);
    }
    seal(bytes)
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = xxh3_128(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// The same with one byte changed, and the right checksum.
fn patched(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = small().encode().unwrap();
    bytes.truncate(bytes.len() - CHECKSUM_BYTES);
    bytes[at] = byte;
    seal(bytes)
}

fn message(updates: &[TreeUpdate]) -> Vec<u8> {
    batches(updates)[0].encode_to_vec()
}

#[test]
fn what_is_written_is_read() {
    let many = (0..3_000).map(|name| (path(&format!("{name:05}")), file())).collect();
    for written in [small(), tree(Vec::new()), tree(many)] {
        let bytes = written.encode().unwrap();
        assert_eq!(TreeFile::decode(&bytes, ID).as_ref(), Ok(&written));
    }
}

/// The example in `docs/TREE.md`.
#[test]
fn the_format_is_the_documented_one() {
    let docs = include_str!("../../docs/TREE.md");
    let example = docs.split("```tree\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let words = example.lines().flat_map(|line| line[4..40.min(line.len())].split_whitespace());
    let documented: String = words.collect();
    let written: String = small().encode().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, documented);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = small().encode().unwrap();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(TreeFile::decode(&bytes, ID).is_err(), "bit {bit}");
    }
}

#[test]
fn every_missing_byte_is_noticed() {
    let good = small().encode().unwrap();
    for len in 0..good.len() {
        let error = TreeFile::decode(&good[..len], ID).unwrap_err();
        let is_short = len < HEADER_BYTES + CHECKSUM_BYTES;
        let expected = if is_short { TreeFileError::TooShort(len as u64) } else { TreeFileError::Checksum };
        assert_eq!(error, expected);
    }
    assert_eq!(TreeFile::decode(&[good, vec![0]].concat(), ID), Err(TreeFileError::Checksum));
}

#[test]
fn each_rule_of_the_header_has_its_error() {
    let refused = |bytes: &[u8]| TreeFile::decode(bytes, ID).unwrap_err();
    assert_eq!(refused(&patched(0, b'X')), TreeFileError::Magic);
    assert_eq!(refused(&patched(4, 1)), TreeFileError::Version(1));
    assert_eq!(refused(&patched(6, 1)), TreeFileError::Reserved);
    assert_eq!(refused(&patched(64, 7)), TreeFileError::Count);
    let bytes = small().encode().unwrap();
    let other = TreeId { owner: PeerId([1; 32]), ..ID };
    assert_eq!(TreeFile::decode(&bytes, other), Err(TreeFileError::WrongOwner(ID.owner)));
    let other = TreeId { share: ShareId([1; 16]), ..ID };
    assert_eq!(TreeFile::decode(&bytes, other), Err(TreeFileError::WrongShare(ID.share)));
    assert_eq!(check_len(MAX_TREE_BYTES), Ok(()));
    assert_eq!(check_len(MAX_TREE_BYTES + 1), Err(TreeFileError::TooLong(MAX_TREE_BYTES + 1)));
}

#[test]
fn what_is_said_is_one_listing_within_the_limits_of_the_wire() {
    let refused = |messages: &[Vec<u8>]| TreeFile::decode(&with_messages(messages, 2), ID).unwrap_err();
    let begin = TreeUpdate::Begin { position: Position { epoch: 3, seq: 4 } };
    let end = TreeUpdate::End { settled: 6 };
    let entry = |at: &str| TreeUpdate::Entry { path: path(at), record: file(), revision: revision() };
    let good = with_messages(&[message(std::slice::from_ref(&begin)), message(std::slice::from_ref(&end))], 2);
    assert_eq!(TreeFile::decode(&good, ID), Ok(tree(Vec::new())), "in two messages or in one");
    let event =
        TreeUpdate::Event { seq: 5, change: farshore_engine::Change::Remove { path: path("a"), revision: revision() } };
    let out_of_place = [
        vec![],
        vec![begin.clone()],
        vec![end.clone()],
        vec![begin.clone(), begin.clone(), end.clone()],
        vec![entry("a"), begin.clone(), end.clone()],
        vec![begin.clone(), end.clone(), entry("a")],
        vec![begin.clone(), event, end.clone()],
        vec![begin.clone(), entry("b"), entry("a"), end.clone()],
    ];
    for updates in out_of_place {
        assert_eq!(refused(&[message(&updates)]), PeerFault::OutOfPlace.into(), "{updates:?}");
    }
    assert_eq!(refused(&[message(&[begin.clone(), entry("a/b"), end])]), PeerFault::NoParent.into());
    assert_eq!(refused(&[message(&[begin, TreeUpdate::End { settled: 3 }])]), PeerFault::OutOfRange("settled").into());
    assert_eq!(refused(&[b"\x0a\x00".repeat(1025)]), PeerFault::TooMany(1024).into());
    assert_eq!(refused(&[vec![0xff]]), farshore_proto::UNREADABLE.into());
    let too_long = vec![0; MAX_REPLY_BYTES + 1];
    assert_eq!(refused(&[too_long]), TreeFileError::MessageLength(MAX_REPLY_BYTES as u32 + 1));
}

#[test]
fn a_message_that_does_not_fit_is_refused() {
    let header = small().encode().unwrap()[..HEADER_BYTES].to_vec();
    let cut = seal([&header[..], &[1, 0, 0]].concat());
    assert_eq!(TreeFile::decode(&cut, ID), Err(TreeFileError::MessageLength(3)));
    let cut = seal([&header[..], &[9, 0, 0, 0, 1]].concat());
    assert_eq!(TreeFile::decode(&cut, ID), Err(TreeFileError::MessageLength(9)));
}
