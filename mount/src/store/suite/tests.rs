//! The laws, held against the stores that are here.

use super::{Kept, Subject, identity, path};
use crate::store::{DiskStore, MemoryStore, Store};
use farshore_engine::ContentKey;
use farshore_engine::record::FileTime;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Memory(MemoryStore);

impl Subject for Memory {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }
    fn restart(&mut self) {
        self.0 = self.0.next_life();
    }
    fn damage(&mut self, key: ContentKey, offset: u64) {
        assert!(self.0.damage(key, offset), "nothing is saved there");
    }
    fn contents(&self) -> usize {
        self.0.contents().len()
    }
    fn target(&self, name: &str) -> Option<PathBuf> {
        Some(Path::new("/kept").join(name))
    }
    fn kept(&self, target: &Path) -> Option<Kept> {
        self.0.kept(target).map(|file| (file.bytes.to_vec(), file.mode, file.modified))
    }
    fn knows_holes(&self) -> bool {
        true
    }
}

struct Disk {
    /// `None` only in the middle of a restart.
    store: Option<Arc<DiskStore>>,
    dir: tempfile::TempDir,
    /// Where kept files go, if not into the directory of the store.
    elsewhere: Option<tempfile::TempDir>,
}

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::tempdir().unwrap();
        Disk { store: Some(Arc::new(DiskStore::open(dir.path()).unwrap())), dir, elsewhere: None }
    }
}

impl Subject for Disk {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }
    fn restart(&mut self) {
        self.store = None;
        self.store = Some(Arc::new(DiskStore::open(self.dir.path()).expect("nobody uses it any more")));
    }
    fn damage(&mut self, key: ContentKey, offset: u64) {
        let path = self.dir.path().join(".farshore/partial").join(key.to_string());
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    }
    fn contents(&self) -> usize {
        let names = std::fs::read_dir(self.dir.path().join(".farshore/partial")).unwrap();
        names.filter(|entry| entry.as_ref().unwrap().path().extension().is_none()).count()
    }
    fn target(&self, name: &str) -> Option<PathBuf> {
        Some(self.elsewhere.as_ref().unwrap_or(&self.dir).path().join(name))
    }
    fn kept(&self, target: &Path) -> Option<Kept> {
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

crate::store_laws!(subjects);

#[tokio::test]
async fn a_full_memory_store_says_so_and_goes_on_when_there_is_room() {
    let store = MemoryStore::with_room(1_000);
    let content = |number| store.create(&identity(number, 800), &path("file")).unwrap();
    let write = |number| content(number).write(0, vec![vec![7; 800].into()]);
    write(1).await.unwrap();
    assert_eq!(write(2).await.unwrap_err().kind(), ErrorKind::StorageFull);
    write(1).await.unwrap();
    store.set_room(2_000);
    write(2).await.unwrap();
    assert_eq!((store.used_bytes(), store.space().unwrap().free_bytes), (1_600, 400));
    store.evict(identity(1, 800).key());
    store.evict(identity(2, 800).key());
    assert_eq!(store.used_bytes(), 0);
}
