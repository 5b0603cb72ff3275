//! What was noted reads back as it was; what is cut off or damaged ends what is read, and nothing before that is lost.

use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, FileTime, Kind, Record, Stamp};
use farshore_engine::version::Sibling;
use farshore_engine::{
    AtPath, Changes, DeviceTag, Dot, InFolder, PeerFault, PeerId, Position, Revision, Standing, Stated, Xattrs,
};
use farshore_proto::{Boot, JournalError, JournalFile, JournalHeader, ShareId, encode_changes, encode_mark, v1};
use proptest::prelude::*;
use prost::Message;
use xxhash_rust::xxh3::xxh3_128;

const HEADER: JournalHeader =
    JournalHeader { share: ShareId([7; 16]), number: 5, follows_bytes: 90, boot: Boot([3; 16]) };

fn any_record() -> impl Strategy<Value = Record> {
    let kind = prop_oneof![
        (any::<u64>(), any::<u64>())
            .prop_map(|(size, stamp)| Kind::File { size_bytes: size >> 20, stamp: Stamp(stamp) }),
        Just(Kind::Dir),
        proptest::collection::vec(1..=255_u8, 1..9).prop_map(|target| Kind::Symlink { target: target.into() }),
    ];
    let xattrs = proptest::option::of(any::<[u8; 3]>());
    let fields = (kind, 0..=0o7777_u16, any::<i32>(), 0..1_000_000_000_u32, xattrs);
    fields.prop_map(|(kind, mode, seconds, nanos, xattrs)| Record {
        xattrs: match xattrs.filter(|_| !matches!(kind, Kind::Symlink { .. })) {
            Some(value) => Xattrs::default().with(b"user.a", &value),
            None => Xattrs::default(),
        },
        kind,
        mode,
        modified: FileTime { seconds: i64::from(seconds), nanos },
    })
}

fn any_dot() -> impl Strategy<Value = Dot> {
    (1..4_u64, 1..1_000_u64).prop_map(|(author, counter)| Dot { author: DeviceTag(author), counter })
}

fn any_at() -> impl Strategy<Value = AtPath> {
    let there =
        (any_record(), any_dot(), proptest::option::of((any_record(), any_dot()))).prop_map(|(record, dot, other)| {
            let mut revision = Revision::from(dot);
            if let Some((record, beside)) = other.filter(|(_, beside)| beside.author != dot.author) {
                revision = Revision::after(&beside.into(), dot);
                revision.others = vec![Sibling { dot: beside, record }].into();
            }
            Stated { record: Some(record), revision }
        });
    let gone = any_dot().prop_map(|dot| Stated { record: None, revision: Revision::removed(dot.into()) });
    let held = (proptest::option::of(any_record()), any_dot(), any::<u64>(), any::<i32>()).prop_map(
        |(record, dot, inode, seconds)| {
            let facts = Facts { inode, changed: FileTime { seconds: i64::from(seconds), nanos: 9 } };
            InFolder { record, dot, facts }
        },
    );
    (proptest::option::of(prop_oneof![there, gone]), proptest::option::of(held))
        .prop_map(|(stated, held)| AtPath { stated, held })
}

fn any_changes() -> impl Strategy<Value = Changes> {
    let path = proptest::collection::vec("[a-c]{1,2}", 0..3)
        .prop_map(|names| RelPath::parse(names.join("/").as_bytes()).expect("it is one"));
    let standing = (any::<u8>(), 1..9_u64, any::<u64>(), any::<u64>()).prop_map(|(peer, epoch, seq, settled)| {
        (PeerId([peer; 32]), Standing { position: Position { epoch, seq }, settled })
    });
    let paths = proptest::collection::btree_map(path, any_at(), 0..6);
    let standings = proptest::option::of(proptest::collection::vec(standing, 0..4));
    (paths, standings).prop_map(|(paths, standings)| Changes {
        paths,
        standings: standings.map(|standings| standings.into_iter().collect()),
    })
}

/// A journal with these changes, and where each frame ends.
fn journal(frames: &[Changes]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = HEADER.encode();
    let mut ends = vec![bytes.len()];
    for changes in frames {
        bytes.extend(encode_changes(changes).expect("it is not too long"));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// What the first of these frames say together.
fn together(frames: &[Changes]) -> Changes {
    let mut all = Changes::default();
    frames.iter().for_each(|changes| all.extend(changes.clone()));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back(frames in proptest::collection::vec(any_changes(), 0..4)) {
        let (bytes, ends) = journal(&frames);
        let file = JournalFile::open(&bytes, HEADER.share).unwrap();
        prop_assert_eq!(file.header(), HEADER);
        prop_assert_eq!((file.whole_bytes(), file.is_torn()), (bytes.len() as u64, false));
        for (count, end) in ends.iter().enumerate() {
            prop_assert_eq!(file.changes(*end as u64), Ok(together(&frames[..count])));
        }
    }

    #[test]
    fn what_is_cut_off_ends_what_is_read(frames in proptest::collection::vec(any_changes(), 1..4), at in any::<u16>()) {
        let (bytes, ends) = journal(&frames);
        let len = usize::from(at) % bytes.len();
        let whole = ends.iter().rposition(|end| *end <= len);
        match (JournalFile::open(&bytes[..len], HEADER.share), whole) {
            (Err(error), None) => prop_assert_eq!(error, JournalError::TooShort(len as u64)),
            (Ok(file), Some(whole)) => {
                prop_assert_eq!(file.is_torn(), ends[whole] != len);
                prop_assert_eq!(file.whole_bytes(), ends[whole] as u64);
                prop_assert_eq!(file.changes(file.whole_bytes()), Ok(together(&frames[..whole])));
            }
            (file, whole) => prop_assert!(false, "{:?}, and {:?} frames are whole", file, whole),
        }
    }

    #[test]
    fn what_is_damaged_ends_what_is_read(
        frames in proptest::collection::vec(any_changes(), 1..4),
        at in any::<u16>(),
        bit in 0..8_u8,
    ) {
        let (mut bytes, ends) = journal(&frames);
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= 1 << bit;
        let whole = ends.iter().rposition(|end| *end <= at);
        match (JournalFile::open(&bytes, HEADER.share), whole) {
            (Err(_), None) => {}
            (Ok(file), Some(whole)) => {
                prop_assert!(file.is_torn());
                prop_assert_eq!(file.changes(file.whole_bytes()), Ok(together(&frames[..whole])));
            }
            (file, whole) => prop_assert!(false, "{:?}, and {:?} frames are whole", file, whole),
        }
    }

    #[test]
    fn whatever_bytes_there_are_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut journal, _) = journal(&[]);
        journal.extend(bytes);
        let file = JournalFile::open(&journal, HEADER.share).unwrap();
        prop_assert!(file.changes(file.whole_bytes()).is_ok());
        prop_assert!(file.changes(u64::MAX).is_err());
    }
}

#[test]
fn many_changes_are_one_frame() {
    let at = AtPath { stated: Some(Stated::default()), held: None };
    let path = |number: u32| RelPath::parse(format!("d/{number:0200}").as_bytes()).unwrap();
    let gone = Revision::removed(Dot { author: DeviceTag(1), counter: 1 }.into());
    let at = AtPath { stated: at.stated.map(|stated| Stated { revision: gone, ..stated }), ..at };
    let changes = Changes { paths: (0..5_000).map(|number| (path(number), at.clone())).collect(), standings: None };
    let (bytes, _) = journal(std::slice::from_ref(&changes));
    let file = JournalFile::open(&bytes, HEADER.share).unwrap();
    assert_eq!(file.changes(file.whole_bytes()), Ok(changes));
}

#[test]
fn a_mark_says_how_much_is_durable_and_nothing_else() {
    let (mut bytes, ends) = journal(&[Changes::default(), Changes::default()]);
    let durable = |bytes: &[u8]| JournalFile::open(bytes, HEADER.share).unwrap().durable_bytes();
    assert_eq!(durable(&bytes), JournalHeader::BYTES);
    bytes.extend(encode_mark(ends[0] as u64));
    assert_eq!(durable(&bytes), ends[0] as u64);
    for all in [bytes.len() as u64, u64::MAX] {
        bytes.extend(encode_mark(all));
        assert_eq!(durable(&bytes), bytes.len() as u64, "nothing is lost with the mark itself");
    }
    let len = bytes.len() as u64;
    bytes.extend(encode_changes(&Changes::default()).unwrap());
    assert_eq!(durable(&bytes), len, "it cannot speak of what comes behind it");
    let file = JournalFile::open(&bytes, HEADER.share).unwrap();
    assert_eq!(file.changes(file.whole_bytes()), Ok(Changes::default()));
}

/// The same bytes with one of them changed, and a checksum that is right.
fn forged(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = HEADER.encode();
    bytes[at] = byte;
    let body = bytes.len() - 16;
    let checksum = xxh3_128(&bytes[..body]).to_le_bytes();
    bytes[body..].copy_from_slice(&checksum);
    bytes
}

#[test]
fn each_rule_has_its_error() {
    let error = |bytes: &[u8]| JournalFile::open(bytes, HEADER.share).err();
    assert_eq!(error(&[]), Some(JournalError::TooShort(0)));
    assert_eq!(error(&forged(0, b'X')), Some(JournalError::Magic));
    assert_eq!(error(&forged(4, 9)), Some(JournalError::Version(9)));
    assert_eq!(error(&forged(7, 1)), Some(JournalError::Version(1)));
    assert!(matches!(error(&forged(8, 1)), Some(JournalError::WrongShare(_))));
    let mut damaged = HEADER.encode();
    damaged[30] ^= 1;
    assert_eq!(error(&damaged), Some(JournalError::Checksum));
    // A frame whose checksum is right, and that says what cannot be so.
    let nobody = v1::Standing { peer: vec![1; 31].into(), epoch: 1, seq: 0, settled: 0 };
    let standings = Some(v1::Standings { standings: vec![nobody] });
    let message = v1::JournalBatch { paths: Vec::new(), standings }.encode_to_vec();
    let mut frame = (message.len() as u32 + 4).to_le_bytes().to_vec();
    frame.push(1);
    frame.extend((message.len() as u32).to_le_bytes());
    frame.extend(message);
    frame.extend(xxh3_128(&frame).to_le_bytes());
    let bytes = [HEADER.encode(), frame].concat();
    let file = JournalFile::open(&bytes, HEADER.share).unwrap();
    assert!(!file.is_torn());
    assert_eq!(file.changes(file.whole_bytes()), Err(JournalError::Share(PeerFault::OutOfRange("peer"))));
    assert_eq!(file.changes(file.whole_bytes() - 1), Err(JournalError::Torn(file.whole_bytes() - 1)));
}
