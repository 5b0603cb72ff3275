//! Replays every message and every file that the fuzzer keeps, on the stable compiler: what was found once is not lost again.
//!
//! The corpora lie in `fuzz/corpus/`; `cargo +nightly fuzz run wire` adds to one. The seeds, whose names begin with
//! `seed`, are written anew by `cargo test -p farshore-proto --test fuzz_corpus -- --ignored`.

use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, FileTime, Kind, Record, Stamp};
use farshore_engine::version::Sibling;
use farshore_engine::{
    AtPath, Change, Changes, DeviceTag, Dot, Entries, InFolder, Memory, PeerId, Position, Revision, Standing, Stated,
    TreeUpdate, Version, Xattrs,
};
use farshore_proto::any::parse_any;
use farshore_proto::hello::encode_watch;
use farshore_proto::testing::{SHARE, fuzz_journal, fuzz_members, fuzz_memory_file};
use farshore_proto::verify::seal;
use farshore_proto::{
    Fetch, Hash, Hashes, Hello, Members, Open, ReadReply, ReadRequest, Refusal, Secret, ShareId, Welcome, Whole,
    batches, encode_changes, encode_members, encode_memory,
};
use prost::Message;
use std::fs;
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// Plays every file of a corpus, of which `body` says whether it was read; the seeds have to be.
fn replay(target: &str, body: fn(&[u8]) -> bool) {
    let files: Vec<PathBuf> = fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4, "the corpus of {target} is nearly empty");
    for file in files {
        let data = fs::read(&file).unwrap();
        let played = std::panic::catch_unwind(|| body(&data));
        let Ok(is_read) = played else {
            panic!("{} fails: run it with `cargo +nightly fuzz run {target} <file>`", file.display())
        };
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!name.starts_with("seed") || is_read, "{name} of {target} is good, and is refused");
    }
}

#[test]
fn every_kept_message_is_parsed_or_refused() {
    replay("wire", |data| data.split_first().is_none_or(|(tag, bytes)| parse_any(*tag, bytes).is_ok()));
}

#[test]
fn every_kept_memory_is_refused_or_says_the_same_again() {
    replay("memory_file", fuzz_memory_file);
}

#[test]
fn every_kept_journal_is_refused_or_says_the_same_again() {
    replay("journal", fuzz_journal);
}

#[test]
fn every_kept_list_of_members_is_refused_or_is_said_again() {
    replay("members", fuzz_members);
}

#[test]
#[ignore = "writes the seeds into the source tree"]
fn write_the_seeds() {
    for (index, (tag, bytes)) in seeds().into_iter().enumerate() {
        let data: Vec<u8> = std::iter::once(tag).chain(bytes).collect();
        fs::write(corpus("wire").join(format!("seed{index:02}")), data).unwrap();
    }
    for (index, memory) in memories().iter().enumerate() {
        // Without its checksum, which the target puts there, so that what is changed is read, too.
        let bytes = encode_memory(SHARE, 7, memory).unwrap();
        fs::write(corpus("memory_file").join(format!("seed{index:02}")), &bytes[..bytes.len() - 16]).unwrap();
        // What a frame says, without its length, its kind and its checksum.
        let bytes = encode_changes(&changes_of(memory)).unwrap();
        fs::write(corpus("journal").join(format!("seed{index:02}")), &bytes[5..bytes.len() - 16]).unwrap();
    }
    let addresses = || vec!["192.0.2.7:7000".to_owned(), "[2001:db8::7]:7000".to_owned(), "nas.local:41234".to_owned()];
    for count in [0, 1, 2, 62] {
        let members = Members::from_iter((2..2 + count).map(|number| (PeerId([number; 32]), addresses())));
        let all = members.into_iter().chain([(PeerId([200; 32]), Vec::new())]).collect();
        let bytes = encode_members(&all, PeerId([200; 32])).encode_to_vec();
        fs::write(corpus("members").join(format!("seed{count:02}")), bytes).unwrap();
    }
}

/// What has changed when all this is known, and was not.
fn changes_of(memory: &Memory) -> Changes {
    let mut changes = Changes { standings: Some(memory.standings().clone()), ..Changes::default() };
    for (path, record, revision) in memory.entries().iter() {
        let stated = Some(Stated { record: Some(record.clone()), revision: revision.clone() });
        changes.paths.insert(path, AtPath { stated, held: None });
    }
    for (path, revision) in memory.removed().iter().cloned() {
        changes.paths.insert(path, AtPath { stated: Some(Stated { record: None, revision }), held: None });
    }
    for (path, held) in memory.held() {
        changes.paths.entry(path).or_default().held = Some(held);
    }
    changes
}

/// What devices remember: nothing, an empty folder, a few things of every kind, and what several have written.
fn memories() -> Vec<Memory> {
    let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
    let record =
        |kind| Record { kind, mode: 0o750, modified: FileTime { seconds: -3, nanos: 999 }, xattrs: Xattrs::default() };
    let file = |stamp| record(Kind::File { size_bytes: 1 << 33 | stamp, stamp: Stamp(stamp) });
    let link = record(Kind::Symlink { target: b"../x".as_slice().into() });
    let dot = |counter| Dot { author: DeviceTag(5), counter };
    let other = |counter| Dot { author: DeviceTag(77), counter };
    let root = || (RelPath::ROOT, record(Kind::Dir), dot(1).into());
    let disputed = Revision {
        others: vec![Sibling { dot: other(2), record: file(2) }].into(),
        ..Revision::after(&other(2).into(), dot(3))
    };
    let held = |record, inode| InFolder {
        record,
        dot: dot(4),
        facts: Facts { inode, changed: FileTime { seconds: 8, nanos: 999_999_999 } },
    };
    let removed = |at: &str, version: Dot| (path(at), Revision::removed(version.into()));
    let some = vec![
        root(),
        (path("d"), record(Kind::Dir), dot(6).into()),
        (path("d/file"), file(1), disputed),
        (path("d/link"), link, dot(9).into()),
        (path("empty"), record(Kind::File { size_bytes: 0, stamp: Stamp(0) }), other(1 << 50).into()),
    ];
    let in_folder =
        vec![(RelPath::ROOT, held(None, 1)), (path("d"), held(None, 3)), (path("d/file"), held(Some(file(2)), 2))];
    let memory = |entries, removed, held| {
        let standing = Standing { position: Position { epoch: 9, seq: 1 << 40 }, settled: 3 };
        let standings = [(PeerId([4; 32]), standing)].into();
        Memory::new(Entries::of(entries).unwrap(), removed, held, standings).unwrap()
    };
    vec![
        Memory::default(),
        memory(vec![root()], vec![], vec![(RelPath::ROOT, held(None, 1))]),
        memory(vec![root()], vec![removed("a/b", dot(7)), removed("e", other(8))], vec![]),
        memory(some.clone(), vec![], in_folder.clone()),
        memory(some, vec![removed("e", dot(8))], in_folder),
    ]
}

/// Good messages of every kind.
fn seeds() -> Vec<(u8, Vec<u8>)> {
    let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
    let record =
        |kind| Record { kind, mode: 0o644, modified: FileTime { seconds: -5, nanos: 7 }, xattrs: Xattrs::default() };
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
        (1, Welcome { version: 5, epoch: 77, calls_back: false }.encode().encode_to_vec()),
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
