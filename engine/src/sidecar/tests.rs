//! What is written is read, and nothing else is.

use super::*;
use crate::bitmap::{BitmapError, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES};
use crate::chunk::CHUNK_SIZE;
use proptest::prelude::*;

/// A file of 66 chunks, the last of 7 bytes; the first, two at the border of the words, and the last are present.
fn example() -> Sidecar {
    let size_bytes = 65 * CHUNK_SIZE + 7;
    let mut bitmap = ChunkBitmap::new(size_bytes).unwrap();
    [0, 63, 64, 65].into_iter().for_each(|chunk| bitmap.set(chunk));
    let hashes = vec![0x1111_1111_1111_1111, 0x2222_2222_2222_2222, 0x3333_3333_3333_3333, 0x0123_4567_89ab_cdef];
    Sidecar::new(identity(size_bytes), path(), bitmap, hashes).unwrap()
}

fn path() -> RelPath {
    RelPath::parse(b"docs/a.txt").unwrap()
}

fn identity(size_bytes: u64) -> ContentIdentity {
    ContentIdentity {
        owner: PeerId(core::array::from_fn(|index| 0xa0 + index as u8)),
        stamp: Stamp(0x0807_0605_0403_0201),
        size_bytes,
        modified: FileTime { seconds: -2, nanos: 999_999_999 },
    }
}

/// The bytes of [`example`]. They never change: sidecars that were written yesterday are read tomorrow.
const EXAMPLE: &str = "
    4b44424d 02 00 0a00
    a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf
    0102030405060708 0700080200000000
    feffffffffffffff ffc99a3b
    00000800 42000000 04000000
    0100000000000080 0300000000000000
    1111111111111111 2222222222222222 3333333333333333 efcdab8967452301
    646f63732f612e747874
    7e044e09391e4c9e349a79ce0df66777
";

/// The same file in version 1.
const EXAMPLE_V1: &str = "
    4b44424d 01
    0700080200000000 42000000 04000000 00000800
    0100000000000080 0300000000000000
";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The example with the bytes at `offset` replaced, and a checksum that is right again.
fn forged(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut body = example().encode();
    body.truncate(body.len() - CHECKSUM_BYTES);
    body[offset..offset + bytes.len()].copy_from_slice(bytes);
    seal(body)
}

fn forged_v1(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut body = hex(EXAMPLE_V1);
    body[offset..offset + bytes.len()].copy_from_slice(bytes);
    body
}

#[test]
fn the_bytes_of_the_format_are_frozen() {
    let bytes = hex(EXAMPLE);
    assert_eq!(example().encode(), bytes);
    assert_eq!(Sidecar::decode(&bytes), Ok(example()));
    assert_eq!(Sidecar::decode_for(&bytes, &identity(65 * CHUNK_SIZE + 7), CHUNK_SIZE), Ok(example()));
    assert_eq!(bytes.len() as u64, encoded_bytes(66, 4, 10));
}

#[test]
fn the_document_is_true() {
    let document = include_str!("../../../docs/SIDECAR.md");
    let example = document.split("```").find_map(|block| block.strip_prefix("sidecar\n")).unwrap();
    let mut bytes = Vec::new();
    for line in example.lines() {
        let (offset, rest) = line.trim_start().split_once(' ').unwrap();
        assert_eq!(offset.parse(), Ok(bytes.len()), "{line}");
        // What is behind three spaces is for people.
        bytes.extend(hex(rest.trim_start().split("   ").next().unwrap()));
    }
    assert_eq!(bytes, hex(EXAMPLE));

    let variants = include_str!("error.rs").lines().filter_map(|line| line.strip_prefix("    "));
    let variants: Vec<&str> = variants
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .filter_map(|line| line.split([' ', '(', ',']).next())
        .collect();
    assert!(variants.len() >= 19, "{variants:?}");
    for variant in variants {
        assert!(document.contains(&format!("`{variant}`")), "the document does not tell of {variant}");
    }
}

#[test]
fn a_sidecar_lies_beside_its_file() {
    assert_eq!(bitmap_path(Path::new("partial/17")), Path::new("partial/17.kdbitmap"));
    assert_eq!(bitmap_path(Path::new("a.tar.gz")), Path::new("a.tar.gz.kdbitmap"));
}

#[test]
fn every_bit_is_guarded() {
    let bitmap = ChunkBitmap::from_words(5, CHUNK_SIZE, [1]).unwrap();
    let whole = Sidecar::new(identity(5), path(), bitmap, vec![7]).unwrap().with_unverified(true);
    let empty = Sidecar::new(identity(5), path(), ChunkBitmap::new(5).unwrap(), Vec::new()).unwrap();
    for sidecar in [example(), whole, empty] {
        let bytes = sidecar.encode();
        assert_eq!(Sidecar::decode(&bytes), Ok(sidecar));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Sidecar::decode(&flipped).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn nothing_may_be_missing_and_nothing_added() {
    let bytes = example().encode();
    for len in 0..bytes.len() {
        let error = Sidecar::decode(&bytes[..len]).unwrap_err();
        let SidecarError::Truncated { needed, found } = error else { panic!("{len}: {error:?}") };
        assert!(found == len as u64 && needed > found, "{len}: {error:?}");
    }
    for more in 1..100_u64 {
        for filler in [0, 0xff, b'K'] {
            let mut longer = bytes.clone();
            longer.resize(bytes.len() + more as usize, filler);
            let (needed, found) = (bytes.len() as u64, bytes.len() as u64 + more);
            assert_eq!(Sidecar::decode(&longer), Err(SidecarError::TooLong { needed, found }));
        }
    }
    let twice = [&bytes[..], &bytes[..]].concat();
    assert!(matches!(Sidecar::decode(&twice), Err(SidecarError::TooLong { .. })));
}

#[test]
fn each_broken_rule_has_its_name() {
    let told = |bytes: &[u8]| Sidecar::decode(bytes).unwrap_err();
    let len = example().encode().len() as u64;
    assert_eq!(told(b"PK\x03\x04, and so on"), SidecarError::NotASidecar);
    assert_eq!(told(b"x"), SidecarError::NotASidecar);
    assert_eq!(told(b""), SidecarError::Truncated { needed: 5, found: 0 });
    assert_eq!(told(&hex(EXAMPLE_V1)), SidecarError::OlderFormat { found: 1, read: 2 });
    assert_eq!(told(&forged(4, &[3])), SidecarError::NewerFormat { found: 3, read: 2 });
    assert_eq!(told(&[b"KDBM\x02\0\0\0", &[0; 80][..]].concat()), SidecarError::Truncated { needed: 96, found: 88 });
    assert_eq!(told(&forged(5, &[0x83])), SidecarError::Flags(0x82));
    assert_eq!(told(&forged(6, &[11, 0])), SidecarError::Truncated { needed: len + 1, found: len });
    assert_eq!(told(&forged(6, &[9, 0])), SidecarError::TooLong { needed: len - 1, found: len });
    let named = |path: &[u8]| {
        let mut body = example().encode();
        body.truncate(128);
        body[6..8].copy_from_slice(&(path.len() as u16).to_le_bytes());
        told(&seal([&body[..], path].concat()))
    };
    let long = [[b'x'; 256]; 16].map(|mut name| {
        name[255] = b'/';
        name
    });
    assert_eq!(named(b""), SidecarError::Path(PathError::EmptyPath));
    assert_eq!(named(b"/etc/passwd"), SidecarError::Path(PathError::EmptyName));
    assert_eq!(named(b"../.ssh"), SidecarError::Path(PathError::DotName));
    assert_eq!(named(&[long.as_flattened(), b"y"].concat()), SidecarError::Path(PathError::PathTooLong));
    assert_eq!(named(&[b'x'; 256]), SidecarError::Path(PathError::NameTooLong));
    assert_eq!(told(&forged(48, &u64::MAX.to_le_bytes())), SidecarError::FileTooLarge(u64::MAX));
    assert_eq!(told(&forged(64, &1_000_000_000_u32.to_le_bytes())), SidecarError::Nanos(1_000_000_000));
    assert_eq!(told(&forged(48, &[0; 8])), SidecarError::Bitmap(BitmapError::Empty));
    for chunk_bytes in [0, MIN_CHUNK_BYTES as u32 - 1, MAX_CHUNK_BYTES as u32 + 1, u32::MAX] {
        let refused = BitmapError::ChunkSize(u64::from(chunk_bytes));
        assert_eq!(told(&forged(68, &chunk_bytes.to_le_bytes())), SidecarError::Bitmap(refused));
    }
    let tiny = [MAX_FILE_BYTES.to_le_bytes().as_slice(), &[0; 12], &(MIN_CHUNK_BYTES as u32).to_le_bytes()].concat();
    assert_eq!(told(&forged(48, &tiny)), SidecarError::Bitmap(BitmapError::TooManyChunks(MAX_FILE_BYTES)));
    assert_eq!(told(&forged(72, &[67])), SidecarError::ChunkCount { stated: 67, chunks: 66 });
    assert_eq!(told(&forged(72, &[65])), SidecarError::ChunkCount { stated: 65, chunks: 66 });
    assert_eq!(told(&forged(88, &[7])), SidecarError::BeyondTheEnd { chunks: 66 });
    assert_eq!(told(&forged(95, &[0x83])), SidecarError::BeyondTheEnd { chunks: 66 });
    assert_eq!(told(&forged(88, &[1])), SidecarError::PresentCount { stated: 4, present: 3 });
    assert_eq!(told(&forged(80, &[3])), SidecarError::PresentCount { stated: 4, present: 5 });
    // One hash more than before, and a count that agrees with it.
    assert_eq!(told(&forged(76, &[5])), SidecarError::Truncated { needed: len + 8, found: len });
    assert_eq!(told(&forged(76, &[3])), SidecarError::TooLong { needed: len - 8, found: len });
    let mut damaged = example().encode();
    damaged[100] ^= 0x10;
    assert_eq!(told(&damaged), SidecarError::Damaged);
}

#[test]
fn another_content_is_refused_and_named() {
    let bytes = example().encode();
    let right = *example().identity();
    let told = |expected: &ContentIdentity| Sidecar::decode_for(&bytes, expected, CHUNK_SIZE).unwrap_err();
    let owner = PeerId([1; 32]);
    let size_bytes = right.size_bytes + 1;
    let modified = FileTime { nanos: 0, ..right.modified };
    let stamp = Stamp(right.stamp.0 ^ 1);
    let wrong_owner = SidecarError::WrongOwner { expected: owner, found: right.owner };
    let wrong_size = SidecarError::WrongSize { expected: size_bytes, found: right.size_bytes };
    let wrong_time = SidecarError::WrongTime { expected: modified, found: right.modified };
    let wrong_stamp = SidecarError::WrongStamp { expected: stamp, found: right.stamp };
    assert_eq!(told(&ContentIdentity { owner, ..right }), wrong_owner);
    assert_eq!(told(&ContentIdentity { size_bytes, ..right }), wrong_size);
    assert_eq!(told(&ContentIdentity { modified, ..right }), wrong_time);
    assert_eq!(told(&ContentIdentity { stamp, ..right }), wrong_stamp);
    assert_eq!(told(&ContentIdentity { stamp, modified, size_bytes, ..right }), wrong_size, "what people can see");
    assert_eq!(
        Sidecar::decode_for(&bytes, &right, CHUNK_SIZE / 2),
        Err(SidecarError::WrongChunkSize { expected: CHUNK_SIZE / 2, found: CHUNK_SIZE })
    );
}

#[test]
fn only_what_agrees_with_itself_can_be_written() {
    let (right, path, bitmap) = (*example().identity(), path(), example().bitmap().clone());
    let hashes: Vec<u64> = example().chunks().map(|(_, hash)| hash).collect();
    let made = |identity, hashes: &[u64]| Sidecar::new(identity, path.clone(), bitmap.clone(), hashes.to_vec());
    let nowhere = Sidecar::new(right, RelPath::ROOT, bitmap.clone(), hashes.clone());
    assert_eq!(nowhere, Err(SidecarError::Path(PathError::EmptyPath)));
    assert_eq!(made(right, &hashes), Ok(example()));
    assert_eq!(made(right, &hashes[..3]), Err(SidecarError::HashCount { present: 4, hashes: 3 }));
    let larger = ContentIdentity { size_bytes: right.size_bytes + 1, ..right };
    let wrong_size = SidecarError::WrongSize { expected: larger.size_bytes, found: right.size_bytes };
    assert_eq!(made(larger, &hashes), Err(wrong_size));
    let late = FileTime { seconds: 0, nanos: u32::MAX };
    assert_eq!(made(ContentIdentity { modified: late, ..right }, &hashes), Err(SidecarError::Nanos(u32::MAX)));
    let huge = MAX_FILE_BYTES + 1;
    let bitmap = ChunkBitmap::with_chunk_size(huge, MAX_CHUNK_BYTES).unwrap();
    assert_eq!(Sidecar::new(identity(huge), path, bitmap, Vec::new()), Err(SidecarError::FileTooLarge(huge)));
}

#[test]
fn a_terabyte_takes_one_pass() {
    let size_bytes = 1 << 40;
    let total = size_bytes / CHUNK_SIZE;
    let mut bitmap = ChunkBitmap::new(size_bytes).unwrap();
    bitmap.set_range(0, size_bytes);
    let sidecar = Sidecar::new(identity(size_bytes), path(), bitmap, (0..total).collect()).unwrap();
    let bytes = sidecar.encode();
    assert_eq!(bytes.len(), 80 + 2 * 1024 * 1024 / 8 + 2 * 1024 * 1024 * 8 + 10 + 16);
    assert!(bytes.len() == bytes.capacity() || bytes.capacity() < bytes.len() + 64, "grown while it was written");
    assert_eq!(Sidecar::decode(&bytes), Ok(sidecar));
}

#[test]
fn version_1_is_read_as_a_claim() {
    let size_bytes = 65 * CHUNK_SIZE + 7;
    let claimed = decode_v1(&hex(EXAMPLE_V1), size_bytes).unwrap();
    assert_eq!(claimed.chunk_size_bytes(), CHUNK_SIZE);
    assert_eq!(claimed.chunks().collect::<Vec<_>>(), [0, 63, 64, 65]);
}

#[test]
fn version_1_is_refused_unless_all_of_it_agrees() {
    let size_bytes = 65 * CHUNK_SIZE + 7;
    let told = |bytes: &[u8]| decode_v1(bytes, size_bytes).unwrap_err();
    let bytes = hex(EXAMPLE_V1);
    for len in 0..bytes.len() {
        let error = told(&bytes[..len]);
        let SidecarError::Truncated { needed, found } = error else { panic!("{len}: {error:?}") };
        assert!(found == len as u64 && needed > found, "{len}: {error:?}");
    }
    for more in 1..40 {
        let longer = [&bytes[..], &vec![0; more]].concat();
        assert_eq!(told(&longer), SidecarError::TooLong { needed: 41, found: 41 + more as u64 });
    }
    // Any chunk size that makes as many chunks agrees as well; every other bit is guarded.
    for bit in (0..bytes.len() * 8).filter(|bit| !(21 * 8..25 * 8).contains(bit)) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_v1(&flipped, size_bytes).is_err(), "bit {bit}");
    }
    assert_eq!(told(b"GIF89a"), SidecarError::NotASidecar);
    assert_eq!(told(&forged_v1(4, &[0])), SidecarError::OlderFormat { found: 0, read: 1 });
    assert_eq!(told(&example().encode()), SidecarError::NewerFormat { found: 2, read: 1 });
    assert_eq!(told(&forged_v1(5, &(-1_i64).to_le_bytes())), SidecarError::FileTooLarge(u64::MAX));
    assert_eq!(told(&forged_v1(5, &[0; 8])), SidecarError::Bitmap(BitmapError::Empty));
    assert_eq!(told(&forged_v1(21, &[0; 4])), SidecarError::Bitmap(BitmapError::ChunkSize(0)));
    assert_eq!(told(&forged_v1(13, &[70])), SidecarError::ChunkCount { stated: 70, chunks: 66 });
    assert_eq!(told(&forged_v1(33, &[7])), SidecarError::BeyondTheEnd { chunks: 66 });
    assert_eq!(told(&forged_v1(17, &[5])), SidecarError::PresentCount { stated: 5, present: 4 });
    assert_eq!(told(&forged_v1(33, &[1])), SidecarError::PresentCount { stated: 4, present: 3 });
    assert_eq!(
        decode_v1(&bytes, size_bytes + 1),
        Err(SidecarError::WrongSize { expected: size_bytes + 1, found: size_bytes })
    );
}

#[test]
fn errors_are_for_people() {
    let says = |error: SidecarError, words: &str| assert_eq!(error.to_string(), words);
    says(SidecarError::NotASidecar, "this is not a chunk bitmap: it does not begin with KDBM");
    says(
        SidecarError::NewerFormat { found: 3, read: 2 },
        "it is in version 3 of the format, newer than version 2, which is read here; \
         use a newer Farshore to go on with this download",
    );
    let (expected, found) = (FileTime { seconds: 5, nanos: 1 }, FileTime { seconds: -1, nanos: 500_000_000 });
    says(
        SidecarError::WrongTime { expected, found },
        "it is of a version modified at -0.500000000 s, and this one was at 5.000000001 s",
    );
    says(
        SidecarError::WrongStamp { expected: Stamp(1), found: Stamp(2) },
        "it is of another version of the same size and time (0000000000000002, not 0000000000000001)",
    );
    let no_chunks = "there is no such bitmap: an empty file has no chunks";
    says(SidecarError::Bitmap(BitmapError::Empty), no_chunks);
}

fn sidecars() -> impl Strategy<Value = Sidecar> {
    let chunk_bytes = prop_oneof![Just(CHUNK_SIZE), Just(MAX_CHUNK_BYTES), MIN_CHUNK_BYTES..2 * CHUNK_SIZE];
    let sizes = chunk_bytes.prop_flat_map(|chunk_bytes| (1..200 * chunk_bytes, Just(chunk_bytes)));
    let chunks = sizes.prop_flat_map(|(size_bytes, chunk_bytes)| {
        let total = size_bytes.div_ceil(chunk_bytes);
        (Just(size_bytes), Just(chunk_bytes), proptest::collection::btree_map(0..total, any::<u64>(), 0..40))
    });
    let names = (any::<[u8; 32]>(), any::<u64>(), any::<i64>(), 0..1_000_000_000_u32);
    let path = proptest::collection::vec("[a-z ]{1,9}", 1..5);
    (chunks, names, path, any::<bool>()).prop_map(|(chunks, names, path, is_unverified)| {
        let ((size_bytes, chunk_bytes, chunks), (owner, stamp, seconds, nanos)) = (chunks, names);
        let modified = FileTime { seconds, nanos };
        let identity = ContentIdentity { owner: PeerId(owner), stamp: Stamp(stamp), size_bytes, modified };
        let mut bitmap = ChunkBitmap::with_chunk_size(size_bytes, chunk_bytes).unwrap();
        chunks.keys().for_each(|chunk| bitmap.set(*chunk));
        let path = RelPath::parse(path.join("/").as_bytes()).unwrap();
        let sidecar = Sidecar::new(identity, path, bitmap, chunks.into_values().collect()).unwrap();
        sidecar.with_unverified(is_unverified)
    })
}

proptest! {
    /// What is written is read, and it is as long as it says.
    #[test]
    fn what_is_written_is_read(sidecar in sidecars()) {
        let bytes = sidecar.encode();
        let (total, have) = (sidecar.bitmap().total(), sidecar.bitmap().have());
        prop_assert_eq!(bytes.len() as u64, encoded_bytes(total, have, sidecar.path().len_bytes() as u64));
        prop_assert_eq!(Sidecar::decode(&bytes), Ok(sidecar.clone()));
        let chunk_bytes = sidecar.bitmap().chunk_size_bytes();
        prop_assert_eq!(Sidecar::decode_for(&bytes, sidecar.identity(), chunk_bytes), Ok(sidecar.clone()));
    }

    /// Whatever happens to the bytes, they are refused; also when it happens to several at once.
    #[test]
    fn damage_is_refused(sidecar in sidecars(), at in any::<proptest::sample::Index>(), noise in any::<[u8; 9]>()) {
        let mut bytes = sidecar.encode();
        let at = at.index(bytes.len());
        bytes.iter_mut().skip(at).zip(noise).for_each(|(byte, noise)| *byte ^= noise);
        let read = Sidecar::decode(&bytes);
        prop_assert!(read.is_err() || bytes == sidecar.encode());
    }
}
