//! The laws of a store, held against every kind of store.

use super::{DiskStore, MemoryStore, Store, Stored};
use bytes::Bytes;
use farshore_engine::ContentId;
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE, chunk_range};
use farshore_engine::record::FileTime;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MODIFIED: FileTime = FileTime { seconds: 1_234_567_890, nanos: 123_456_789 };

/// A store under test, and what can be found out about it from outside.
trait Subject {
    fn store(&self) -> &dyn Store;
    /// How many contents it holds.
    fn contents(&self) -> usize;
    /// Where a file may be kept.
    fn target(&self, name: &str) -> PathBuf;
    /// A file that was kept.
    fn kept(&self, target: &Path) -> Option<(Vec<u8>, u16, FileTime)>;
    /// Whether reading what was never written is noticed. A disk has zeros there.
    fn knows_holes(&self) -> bool;
}

struct Memory(MemoryStore);

impl Subject for Memory {
    fn store(&self) -> &dyn Store {
        &self.0
    }
    fn contents(&self) -> usize {
        self.0.contents().len()
    }
    fn target(&self, name: &str) -> PathBuf {
        Path::new("/kept").join(name)
    }
    fn kept(&self, target: &Path) -> Option<(Vec<u8>, u16, FileTime)> {
        self.0.kept(target).map(|file| (file.bytes.to_vec(), file.mode, file.modified))
    }
    fn knows_holes(&self) -> bool {
        true
    }
}

struct Disk {
    store: DiskStore,
    dir: tempfile::TempDir,
    /// Where kept files go, if not into the directory of the store.
    elsewhere: Option<tempfile::TempDir>,
}

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::tempdir().unwrap();
        Disk { store: DiskStore::open(dir.path()).unwrap(), dir, elsewhere: None }
    }
}

impl Subject for Disk {
    fn store(&self) -> &dyn Store {
        &self.store
    }
    fn contents(&self) -> usize {
        std::fs::read_dir(self.dir.path().join(".farshore/partial")).unwrap().count()
    }
    fn target(&self, name: &str) -> PathBuf {
        self.elsewhere.as_ref().unwrap_or(&self.dir).path().join(name)
    }
    fn kept(&self, target: &Path) -> Option<(Vec<u8>, u16, FileTime)> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::symlink_metadata(target).ok()?;
        let modified = FileTime { seconds: meta.mtime(), nanos: u32::try_from(meta.mtime_nsec()).unwrap() };
        let mode = u16::try_from(meta.mode() & 0o7777).unwrap();
        Some((std::fs::read(target).unwrap(), mode, modified))
    }
    fn knows_holes(&self) -> bool {
        false
    }
}

/// Every kind of store.
fn subjects() -> Vec<Box<dyn Subject>> {
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(Memory(MemoryStore::default())), Box::new(Disk::new())];
    // On most machines this is another file system than the one for temporary files.
    if let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") {
        subjects.push(Box::new(Disk { elsewhere: Some(elsewhere), ..Disk::new() }));
    }
    subjects
}

/// Bytes that differ from place to place and from content to content.
fn sample(content: u64, len: u64) -> Bytes {
    (0..len).map(|at| at.wrapping_mul(2_654_435_761).wrapping_add(content * 97).to_le_bytes()[2]).collect()
}

fn frames(bytes: &Bytes) -> Vec<Bytes> {
    let len = bytes.len();
    let frame = usize::try_from(FRAME_SIZE).unwrap();
    (0..len).step_by(frame).map(|start| bytes.slice(start..(start + frame).min(len))).collect()
}

async fn write_chunk(stored: &Arc<dyn Stored>, bytes: &Bytes, chunk: u64) {
    let range = chunk_range(chunk, bytes.len() as u64);
    let part = bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
    Arc::clone(stored).write(range.start, frames(&part)).await.unwrap();
}

async fn whole(subject: &dyn Subject, content: u64, len: u64) -> (Arc<dyn Stored>, Bytes) {
    let bytes = sample(content, len);
    let stored = subject.store().create(ContentId(content), len).unwrap();
    for chunk in 0..len.div_ceil(CHUNK_SIZE) {
        write_chunk(&stored, &bytes, chunk).await;
    }
    (stored, bytes)
}

fn read(stored: &Arc<dyn Stored>, offset: u64, len: usize) -> Vec<u8> {
    let mut into = vec![0xee; len];
    stored.read(offset, &mut into).unwrap();
    into
}

#[tokio::test]
async fn what_was_written_is_read() {
    for subject in subjects() {
        let (stored, bytes) = whole(&*subject, 1, CHUNK_SIZE * 2 + 12_345).await;
        assert_eq!(read(&stored, 0, bytes.len()), bytes);
        for (offset, len) in [(0, 0), (0, 1), (CHUNK_SIZE - 1, 2), (CHUNK_SIZE - 70_000, 600_000), (1_060_920, 1)] {
            let start = usize::try_from(offset).unwrap();
            assert_eq!(read(&stored, offset, len), bytes[start..start + len]);
        }
    }
}

#[tokio::test]
async fn chunks_may_come_in_any_order_and_twice() {
    for subject in subjects() {
        let bytes = sample(1, CHUNK_SIZE * 5 + 1);
        let stored = subject.store().create(ContentId(1), bytes.len() as u64).unwrap();
        for (done, chunk) in [3, 5, 0, 3, 4, 1, 2, 5].into_iter().enumerate() {
            write_chunk(&stored, &bytes, chunk).await;
            let range = chunk_range(chunk, bytes.len() as u64);
            let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
            assert_eq!(read(&stored, range.start, end - start), bytes[start..end], "step {done}");
        }
        assert_eq!(read(&stored, 0, bytes.len()), bytes);
    }
}

#[tokio::test]
async fn contents_do_not_mix() {
    for subject in subjects() {
        let (first, first_bytes) = whole(&*subject, 1, CHUNK_SIZE + 5).await;
        let (second, second_bytes) = whole(&*subject, 2, CHUNK_SIZE + 5).await;
        assert_ne!(first_bytes, second_bytes);
        assert_eq!(read(&first, 0, first_bytes.len()), first_bytes);
        assert_eq!(read(&second, 0, second_bytes.len()), second_bytes);
        let error = subject.store().create(ContentId(1), 9).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "one content, one place");
        assert_eq!(read(&first, 0, first_bytes.len()), first_bytes);
    }
}

#[tokio::test]
async fn nothing_lies_beyond_the_end() {
    for subject in subjects() {
        let (stored, _) = whole(&*subject, 1, 1_000).await;
        let mut into = [0; 10];
        for offset in [991, 1_000, u64::MAX - 4, u64::MAX] {
            assert_eq!(stored.read(offset, &mut into).unwrap_err().kind(), ErrorKind::UnexpectedEof);
            let written = Arc::clone(&stored).write(offset, vec![Bytes::from_static(&[1; 10])]).await;
            assert_eq!(written.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        if subject.knows_holes() {
            let holey = subject.store().create(ContentId(2), 1_000).unwrap();
            Arc::clone(&holey).write(0, vec![Bytes::from_static(b"12345")]).await.unwrap();
            assert_eq!(holey.read(0, &mut into).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
    }
}

#[tokio::test]
async fn a_write_of_many_small_frames_is_whole() {
    for subject in subjects() {
        let bytes = sample(1, 5_000);
        let stored = subject.store().create(ContentId(1), 5_000).unwrap();
        let crumbs = bytes.chunks(2).map(|crumb| bytes.slice_ref(crumb)).chain([Bytes::new()]).collect();
        Arc::clone(&stored).write(0, crumbs).await.unwrap();
        assert_eq!(read(&stored, 0, 5_000), bytes);
        Arc::clone(&stored).write(5_000, Vec::new()).await.unwrap();
    }
}

#[tokio::test]
async fn the_last_reference_removes_a_content() {
    for subject in subjects() {
        let (stored, bytes) = whole(&*subject, 1, 70_000).await;
        let (other, _) = whole(&*subject, 2, 70_000).await;
        let second = Arc::clone(&stored);
        drop(stored);
        assert_eq!(subject.contents(), 2);
        assert_eq!(read(&second, 0, bytes.len()), bytes);
        drop(second);
        assert_eq!(subject.contents(), 1);
        drop(other);
        assert_eq!(subject.contents(), 0);
        drop(whole(&*subject, 1, 10).await);
    }
}

#[tokio::test]
async fn a_kept_content_is_an_ordinary_file_and_still_read() {
    for subject in subjects() {
        let (stored, bytes) = whole(&*subject, 1, CHUNK_SIZE + 77).await;
        let target = subject.target("kept");
        Arc::clone(&stored).keep(target.clone(), 0o640, MODIFIED).await.unwrap();
        assert_eq!(subject.kept(&target), Some((bytes.to_vec(), 0o640, MODIFIED)));
        assert_eq!(read(&stored, 0, bytes.len()), bytes);
        drop(stored);
        assert_eq!(subject.kept(&target), Some((bytes.to_vec(), 0o640, MODIFIED)));
        assert_eq!(subject.contents(), 0);
    }
}

#[tokio::test]
async fn keeping_never_overwrites() {
    for subject in subjects() {
        let (first, first_bytes) = whole(&*subject, 1, 500).await;
        let (second, second_bytes) = whole(&*subject, 2, 600).await;
        let target = subject.target("kept");
        first.keep(target.clone(), 0o600, MODIFIED).await.unwrap();
        let error = Arc::clone(&second).keep(target.clone(), 0o644, MODIFIED).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(subject.kept(&target), Some((first_bytes.to_vec(), 0o600, MODIFIED)));
        assert_eq!(read(&second, 0, 600), second_bytes);
        let other = subject.target("other");
        second.keep(other.clone(), 0o644, MODIFIED).await.unwrap();
        assert_eq!(subject.kept(&other), Some((second_bytes.to_vec(), 0o644, MODIFIED)));
    }
}

#[tokio::test]
async fn a_full_memory_store_says_so_and_goes_on_when_there_is_room() {
    let store = MemoryStore::with_room(1_000);
    let stored = store.create(ContentId(1), 2_000).unwrap();
    let write = |offset| Arc::clone(&stored).write(offset, vec![Bytes::from(vec![7; 800])]);
    write(0).await.unwrap();
    assert_eq!(write(800).await.unwrap_err().kind(), ErrorKind::StorageFull);
    write(0).await.unwrap();
    store.set_room(2_000);
    write(800).await.unwrap();
    assert_eq!(store.used_bytes(), 1_600);
    drop(stored);
    assert_eq!(store.used_bytes(), 0);
}
