//! What is written down between two saves, and what a process that was killed leaves of it.

use super::names;
use crate::store::suite::{identity, part, path, sample, write};
use crate::store::{DiskStore, Store, Stored};
use bytes::Bytes;
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::record::FileTime;
use farshore_engine::sidecar::Sidecar;
use farshore_engine::{ContentIdentity, Trust, Xattrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LEN: u64 = CHUNK_SIZE * 3 + 5;

/// A store that is in the middle of content number 1.
struct Bench {
    dir: tempfile::TempDir,
    id: ContentIdentity,
    bytes: Bytes,
}

impl Bench {
    fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap(), id: identity(1, LEN), bytes: sample(1, LEN) }
    }

    fn open(&self) -> DiskStore {
        DiskStore::open(self.dir.path()).unwrap()
    }

    fn partial(&self) -> PathBuf {
        self.dir.path().join(".farshore/partial")
    }

    fn soon(&self) -> PathBuf {
        self.partial().join(format!("{}.kdbitmap.soon", self.id.key()))
    }

    /// The chunks that the second sidecar lists.
    fn listed(&self) -> Vec<u64> {
        let Ok(bytes) = std::fs::read(self.soon()) else { return Vec::new() };
        let sidecar = Sidecar::decode(&bytes).unwrap();
        assert!(sidecar.is_unverified());
        sidecar.chunks().map(|(chunk, _)| chunk).collect()
    }

    async fn put(&self, stored: &Arc<dyn Stored>, chunks: &[u64]) {
        for chunk in chunks {
            write(stored, &self.bytes, *chunk).await.unwrap();
        }
    }

    /// Writes chunks until so many are listed.
    async fn put_until_listed(&self, stored: &Arc<dyn Stored>, chunks: &[u64], listed: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.listed().len() < listed {
            assert!(Instant::now() < deadline, "only {:?} are listed", self.listed());
            self.put(stored, chunks).await;
        }
    }

    /// A process that wrote chunks 0 and 1, saved them or not, wrote the others, and was killed.
    async fn killed(&self, is_saved: bool) {
        let store = self.open();
        let stored = store.create(&self.id, &path("docs/letter")).unwrap();
        self.put(&stored, &[0, 1]).await;
        assert_eq!(self.listed(), [0, 1], "the first is written at once");
        if is_saved {
            store.save(vec![Arc::clone(&stored)]).await.unwrap();
            assert!(!self.soon().exists());
        }
        self.put_until_listed(&stored, &[2, 3], 4).await;
    }

    /// The chunks that the next process is offered, with what it may believe.
    async fn offered(&self, store: &DiskStore) -> Option<(Arc<dyn Stored>, Vec<u64>, Trust)> {
        let (stored, resumed) = store.resume(self.id.key(), Some(&self.id)).await.unwrap()?;
        Some((stored, resumed.chunks.present().collect(), resumed.trust))
    }
}

#[tokio::test]
async fn what_was_fetched_between_two_saves_survives_a_kill() {
    for is_saved in [true, false] {
        let bench = Bench::new();
        bench.killed(is_saved).await;
        // Also when the next process is killed at once, and when it has let go of it.
        drop(bench.open());
        let store = bench.open();
        let held = store.held();
        assert_eq!(held.len(), 1, "once, though there may be two sidecars");
        assert_eq!((held[0].stored_bytes, &held[0].path), (LEN, &path("docs/letter")));
        drop(bench.offered(&store).await.unwrap());
        let (stored, chunks, trust) = bench.offered(&store).await.unwrap();
        assert_eq!((chunks, trust), (vec![0, 1, 2, 3], Trust::Hashed));
        for chunk in 0..4 {
            assert!(Arc::clone(&stored).verify(chunk).await.unwrap());
        }
        store.save(vec![Arc::clone(&stored)]).await.unwrap();
        assert!(!bench.soon().exists(), "it is saved now");
        drop(stored);
        store.close().await.unwrap();
        drop(store);
        let (_, chunks, trust) = bench.offered(&bench.open()).await.unwrap();
        assert_eq!((chunks, trust), (vec![0, 1, 2, 3], Trust::Verified));
    }
}

#[tokio::test]
async fn what_nobody_opens_after_a_kill_is_saved_at_the_end() {
    let bench = Bench::new();
    bench.killed(true).await;
    bench.open().close().await.unwrap();
    assert!(!bench.soon().exists());
    let (_, chunks, _) = bench.offered(&bench.open()).await.unwrap();
    assert_eq!(chunks, [0, 1, 2, 3]);
}

#[tokio::test]
async fn damaged_bytes_that_are_listed_are_not_believed() {
    for saves_first in [true, false] {
        let bench = Bench::new();
        bench.killed(true).await;
        let file = bench.partial().join(bench.id.key().to_string());
        let file = std::fs::File::options().write(true).open(file).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"not this", CHUNK_SIZE * 2 + 9).unwrap();
        let store = bench.open();
        let (stored, _, trust) = bench.offered(&store).await.unwrap();
        assert_eq!(trust, Trust::Hashed);
        if saves_first {
            store.save(vec![Arc::clone(&stored)]).await.unwrap();
        }
        let mut right = Vec::new();
        for chunk in 0..4 {
            right.push(Arc::clone(&stored).verify(chunk).await.unwrap());
        }
        assert_eq!(right, [true, true, false, true]);
        drop(stored);
        store.close().await.unwrap();
        drop(store);
        let (_, chunks, trust) = bench.offered(&bench.open()).await.unwrap();
        assert_eq!((chunks, trust), (vec![0, 1, 3], Trust::Verified));
    }
}

#[tokio::test]
async fn a_second_sidecar_that_is_damaged_is_none() {
    let hashes = (0..4).map(|chunk| xxhash_rust::xxh3::xxh3_64(&part(&sample(2, LEN), chunk))).collect();
    let mut all = farshore_engine::bitmap::ChunkBitmap::with_chunk_size(LEN, CHUNK_SIZE).unwrap();
    (0..4).for_each(|chunk| all.set(chunk));
    let other = Sidecar::new(identity(2, LEN), path("a"), all, hashes).unwrap().encode();
    for is_saved in [true, false] {
        for case in 0..4 {
            let bench = Bench::new();
            bench.killed(is_saved).await;
            let whole = std::fs::read(bench.soon()).unwrap();
            let bad = match case {
                0 => Vec::new(),
                1 => whole[..whole.len() - 1].to_vec(),
                2 => whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 90) << 2).collect(),
                _ => other.clone(),
            };
            std::fs::write(bench.soon(), bad).unwrap();
            let store = bench.open();
            assert!(!bench.soon().exists(), "case {case}");
            match bench.offered(&store).await {
                Some((_, chunks, trust)) => {
                    assert_eq!((is_saved, chunks, trust), (true, vec![0, 1], Trust::Hashed), "case {case}");
                }
                None => {
                    assert!(!is_saved, "case {case}");
                    assert!(names(&bench.partial()).is_empty(), "case {case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_second_sidecar_goes_with_what_it_lists() {
    type Ending = (&'static str, bool);
    const ENDINGS: [Ending; 6] =
        [("save", true), ("close", true), ("keep", false), ("discard", false), ("evict", false), ("anew", true)];
    for (ending, leaves_bytes) in ENDINGS {
        let bench = Bench::new();
        let store = bench.open();
        let stored = store.create(&bench.id, &path("a")).unwrap();
        bench.put(&stored, &[0, 1]).await;
        assert_eq!(bench.listed(), [0, 1]);
        match ending {
            "save" => store.save(vec![stored]).await.unwrap(),
            "close" => {
                drop(stored);
                store.close().await.unwrap();
            }
            "keep" => {
                stored.keep(bench.dir.path().join("kept"), 0o600, FileTime::default(), Xattrs::default()).await.unwrap()
            }
            "discard" => {
                stored.discard();
                drop(stored);
            }
            "evict" => {
                drop(stored);
                store.evict(bench.id.key());
            }
            _ => {
                drop(stored);
                let anew = store.create(&bench.id, &path("a")).unwrap();
                bench.put(&anew, &[3]).await;
            }
        }
        assert!(!bench.soon().exists(), "{ending}");
        assert_eq!(!names(&bench.partial()).is_empty(), leaves_bytes, "{ending}");
    }
}

#[tokio::test]
async fn what_is_left_of_second_sidecars_is_removed() {
    let bench = Bench::new();
    bench.killed(true).await;
    let soon = std::fs::read(bench.soon()).unwrap();
    bench.open().close().await.unwrap();
    let sidecar = bench.partial().join(format!("{}.kdbitmap", bench.id.key()));
    let saved = std::fs::read(&sidecar).unwrap();
    let put = |name: &Path| std::fs::write(name, &soon).unwrap();
    put(&bench.soon());
    put(&bench.soon().with_extension("soon.new"));
    let store = bench.open();
    assert_eq!(names(&bench.partial()).len(), 2, "after a clean stop: {:?}", names(&bench.partial()));
    assert_eq!(std::fs::read(&sidecar).unwrap(), saved);
    store.evict(bench.id.key());
    drop(store);
    std::fs::create_dir_all(bench.partial()).unwrap();
    put(&bench.soon());
    put(&bench.soon().with_extension("soon.new"));
    let store = bench.open();
    assert!(names(&bench.partial()).is_empty(), "without its bytes: {:?}", names(&bench.partial()));
    assert_eq!(store.held(), []);
}

#[tokio::test]
async fn a_file_of_one_chunk_has_no_second_sidecar() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let stored = store.create(&identity(1, CHUNK_SIZE), &path("a")).unwrap();
    for _ in 0..5 {
        write(&stored, &sample(1, CHUNK_SIZE), 0).await.unwrap();
    }
    assert_eq!(names(&dir.path().join(".farshore/partial")).len(), 1);
}

#[tokio::test]
async fn second_sidecars_are_not_written_for_each_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let trouble = super::super::trouble::Trouble::none();
    let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
    let (len, begin) = (CHUNK_SIZE * 40, Instant::now());
    let stored = store.create(&identity(1, len), &path("a")).unwrap();
    let bytes = sample(1, len);
    for chunk in 0..40 {
        write(&stored, &bytes, chunk).await.unwrap();
    }
    let is_soon = |done: &super::super::trouble::Done| matches!(done, super::super::trouble::Done::Rename(..));
    let written = trouble.done().iter().filter(|done| is_soon(done)).count() as u128;
    assert!((1..=1 + begin.elapsed().as_millis() / 250).contains(&written), "{written} in {:?}", begin.elapsed());
}
