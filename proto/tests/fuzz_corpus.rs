//! Replays every message that the fuzzer keeps, on the stable compiler: what was found once is not lost again.
//!
//! The corpus lies in `fuzz/corpus/wire/`; `cargo +nightly fuzz run wire` adds to it. The seeds, whose names begin with
//! `seed`, are written anew by `cargo test -p farshore-proto --test fuzz_corpus -- --ignored`.

use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Kind, Record, Stamp};
use farshore_engine::{Change, DeviceTag, Dot, PeerId, Position, Revision, TreeUpdate, Version};
use farshore_proto::any::{KINDS, parse_any};
use farshore_proto::hello::encode_watch;
use farshore_proto::verify::seal;
use farshore_proto::{
    Fetch, Hash, Hashes, Hello, Members, Open, ReadReply, ReadRequest, Refusal, Secret, ShareId, Welcome, Whole,
    batches, encode_members,
};
use prost::Message;
use std::fs;
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/wire")
}

#[test]
fn every_kept_message_is_parsed_or_refused() {
    let files: Vec<PathBuf> = fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= usize::from(KINDS), "the corpus is nearly empty");
    for file in files {
        let data = fs::read(&file).unwrap();
        let Some((tag, bytes)) = data.split_first() else { continue };
        let parsed = std::panic::catch_unwind(|| parse_any(*tag, bytes));
        let Ok(parsed) = parsed else { panic!("{} makes the parser panic", file.display()) };
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!name.starts_with("seed") || parsed.is_ok(), "{name} is a good message, but {parsed:?}");
    }
}

#[test]
#[ignore = "writes the seeds into the source tree"]
fn write_the_seeds() {
    for (index, (tag, bytes)) in seeds().into_iter().enumerate() {
        let data: Vec<u8> = std::iter::once(tag).chain(bytes).collect();
        fs::write(corpus().join(format!("seed{index:02}")), data).unwrap();
    }
}

/// Good messages of every kind.
fn seeds() -> Vec<(u8, Vec<u8>)> {
    let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
    let record = |kind| Record { kind, mode: 0o644, modified: FileTime { seconds: -5, nanos: 7 } };
    let file = || record(Kind::File { size_bytes: 1 << 40, stamp: Stamp(9) });
    let link = || record(Kind::Symlink { target: b"../x".as_slice().into() });
    let event = |seq, change| TreeUpdate::Event { seq, change };
    let dot = |author| Dot { author: DeviceTag(author), counter: 1 << 50 | author };
    let revision = |devices: u64| {
        let version = Version::new((1..=devices).map(dot).collect()).unwrap();
        Revision::after(&version, dot(devices))
    };
    let (from, to, left) = (path("docs"), path("d"), revision(2).version);
    let rename = Change::Rename { from, to, record: record(Kind::Dir), revision: revision(2), left, digest: 77 };
    let listing = [
        TreeUpdate::Begin { position: Position { epoch: 3, seq: 4 } },
        TreeUpdate::Removed { path: path("docs/b"), revision: revision(3) },
        TreeUpdate::Entry { path: RelPath::ROOT, record: record(Kind::Dir), revision: revision(1) },
        TreeUpdate::Entry { path: path("docs"), record: record(Kind::Dir), revision: revision(1) },
        TreeUpdate::Entry { path: path("docs/a b"), record: file(), revision: revision(4) },
        TreeUpdate::End { settled: 6 },
    ];
    let events = [
        event(5, Change::Put { path: path("docs/c"), record: link(), revision: revision(1), replaced: true }),
        event(6, rename),
        TreeUpdate::Skip { seq: 8 },
        event(9, Change::Remove { path: path("d/c"), revision: revision(2) }),
    ];
    let share = ShareId([1; 16]);
    let mut seeds = vec![
        (0, Hello::new(share, Some(Secret([2; 16])), "farshore 0.1").encode().encode_to_vec()),
        (0, Hello::new(share, None, "").encode().encode_to_vec()),
        (1, Welcome { version: 2, epoch: 77, calls_back: false }.encode().encode_to_vec()),
        (2, encode_watch(Position { epoch: 3, seq: 500 }).encode_to_vec()),
    ];
    for updates in [&listing[..], &events[..], &[]] {
        seeds.extend(batches(updates).into_iter().map(|batch| (3, batch.encode_to_vec())));
    }
    let requests = [
        ReadRequest::Open(Open { path: path("docs/a b"), stamp: Stamp(9), size_bytes: 3 * CHUNK_SIZE + 1 }),
        ReadRequest::Fetch(Fetch { request: 1, chunk: 2, frames: 1..4, urgent: true }),
        ReadRequest::Cancel { request: 1 },
        ReadRequest::Hash(Hash { request: 2, chunks: 1..4, urgent: false }),
    ];
    seeds.extend(requests.iter().map(|request| (4, request.encode().encode_to_vec())));
    let replies = [
        // The last chunk of the file that `parse_any` asks for has one byte.
        ReadReply::Frame(seal(1, 0, vec![5].into())),
        ReadReply::Done { request: 1 },
        ReadReply::Refused { request: 1, reason: Refusal::Gone },
        ReadReply::OpenRefused { reason: Refusal::Stale },
        ReadReply::Hashes(Hashes { request: 2, first_chunk: 1, xxh3: vec![1, 2, 3] }),
    ];
    seeds.extend(replies.into_iter().map(|reply| (5, reply.encode().encode_to_vec())));
    let file = Open { path: path("docs/c"), stamp: Stamp(8), size_bytes: 7 };
    seeds.push((4, ReadRequest::Whole(Whole { request: 3, file }).encode().encode_to_vec()));
    let addresses = vec!["192.0.2.7:7000".to_owned(), "[2001:db8::7]:7000".to_owned()];
    let members = Members::from([1, 2, 3].map(|number| (PeerId([number; 32]), addresses.clone())));
    seeds.push((6, encode_members(&members, PeerId([2; 32])).encode_to_vec()));
    seeds.push((0, Hello::new(share, None, "").of_member(addresses).encode().encode_to_vec()));
    seeds
}
