//! What only a disk does: leftovers, locks, full file systems, faults, crashes.

mod crashes;
mod faults;
mod noting;
mod refused_notes;
mod soon;

use super::{DiskStore, OpenError, Verdict, VerifiedFile};
use crate::store::suite::{identity, known_tree, path, sample, write};
use crate::store::{Store, Stored};
use bytes::Bytes;
use farshore_engine::bitmap::ChunkBitmap;
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::record::FileTime;
use farshore_engine::sidecar::Sidecar;
use farshore_engine::{PeerId, Trust, Xattrs};
use farshore_proto::{ShareId, TreeId};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Everything below `dir`.
fn names(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            names.extend(self::names(&entry.path()));
        }
    }
    names
}

#[test]
fn nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&dir.path().join("new/store")).unwrap();
    let stored = store.create(&identity(1, 10), &path("a")).unwrap();
    drop(store);
    let error = DiskStore::open(&dir.path().join("new/store")).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "a content in use keeps the store");
    drop(stored);
    assert_eq!(names(dir.path()), ["new", "store"]);
    let store = DiskStore::open(dir.path()).unwrap();
    std::fs::write(dir.path().join(".farshore/index"), b"something else").unwrap();
    drop(store);
    assert_eq!(names(&dir.path().join(".farshore")), ["index"], "what is not the store's stays");
}

#[tokio::test]
async fn nothing_is_left_of_what_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let (id, bytes) = (identity(1, 70), sample(1, 70));
    let stored = store.create(&id, &path("a")).unwrap();
    write(&stored, &bytes, 0).await.unwrap();
    store.save(vec![Arc::clone(&stored)]).await.unwrap();
    stored.keep(dir.path().join("kept"), 0o600, FileTime::default(), Xattrs::default()).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert_eq!(names(dir.path()), ["kept"]);
}

#[tokio::test]
async fn contents_are_private_and_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let id = identity(7, 1 << 40);
    let stored = store.create(&id, &path("a")).unwrap();
    stored.clone().write(0, vec![vec![1; CHUNK_SIZE as usize].into()]).await.unwrap();
    let meta = std::fs::metadata(dir.path().join(".farshore/partial").join(id.key().to_string())).unwrap();
    assert_eq!((meta.len(), meta.mode() & 0o7777), (1 << 40, 0o600));
    assert!(meta.blocks() < 2_000, "{} blocks of 512 bytes", meta.blocks());
    assert_eq!(std::fs::metadata(dir.path().join(".farshore")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn what_nobody_can_go_on_with_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let partial = dir.path().join(".farshore/partial");
    std::fs::create_dir_all(partial.join("1234")).unwrap();
    let (first, second) = (identity(1, 3).key().to_string(), identity(2, 3).key().to_string());
    let leftovers = ["1", "18446744073709551615", &first, &format!("{first}-3"), &format!("{second}.kdbitmap")];
    let others = ["not a content", "1.kdbitmap", "index"];
    for name in leftovers.into_iter().chain(others).chain([format!("{second}.kdbitmap.new").as_str()]) {
        std::fs::write(partial.join(name), b"old").unwrap();
    }
    let store = DiskStore::open(dir.path()).unwrap();
    let mut left = names(&partial);
    left.sort();
    assert_eq!(left, ["1.kdbitmap", "1234", "index", "not a content"]);
    assert_eq!(store.held(), []);
    store.create(&identity(1, 3), &path("a")).unwrap();
}

#[tokio::test]
async fn a_store_has_one_user_who_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let id = identity(1, 3);
    let stored = store.create(&id, &path("a")).unwrap();
    stored.clone().write(0, vec![vec![1; 3].into()]).await.unwrap();
    let error = DiskStore::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains(&format!("process {};", std::process::id())), "{error}");
    let file = dir.path().join(".farshore/partial").join(id.key().to_string());
    assert!(file.exists(), "and nothing of it is touched");
}

#[test]
fn a_lock_of_a_process_that_is_gone_does_not_hold() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".farshore")).unwrap();
    std::fs::write(dir.path().join(".farshore/lock"), b"1\n").unwrap();
    let _store = DiskStore::open(dir.path()).unwrap();
    let text = std::fs::read_to_string(dir.path().join(".farshore/lock")).unwrap();
    assert_eq!(text.trim(), std::process::id().to_string());
}

#[test]
fn the_private_place_is_never_somewhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), dir.path().join(".farshore")).unwrap();
    let error = DiskStore::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains(".farshore"), "{error}");
    assert!(names(elsewhere.path()).is_empty());
}

#[tokio::test]
async fn a_file_kept_elsewhere_leaves_no_copy_behind_when_it_fails() {
    // On most machines this is another file system; where it is not, the law holds all the same.
    let other = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let stored = store.create(&identity(1, 5), &path("a")).unwrap();
    Arc::clone(&stored).write(0, vec![Bytes::from_static(b"bytes")]).await.unwrap();
    let target = other.path().join("taken");
    std::fs::write(&target, b"mine").unwrap();
    let time = FileTime { seconds: 1, nanos: 0 };
    let kept = Arc::clone(&stored).keep(target.clone(), 0o600, time, Xattrs::default()).await;
    assert_eq!(kept.unwrap_err().kind(), ErrorKind::AlreadyExists);
    symlink("nowhere", other.path().join("link")).unwrap();
    let kept = Arc::clone(&stored).keep(other.path().join("link"), 0o600, time, Xattrs::default()).await;
    assert_eq!(kept.unwrap_err().kind(), ErrorKind::AlreadyExists, "not even a link that leads nowhere");
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    let mut left = names(other.path());
    left.sort();
    assert_eq!(left, ["link", "taken"]);
}

/// A small file system of its own, unmounted when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None` where mounting is not allowed.
    fn new(size: &str) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status();
        status.is_ok_and(|status| status.success()).then_some(Tmpfs(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = Tmpfs::new("1m") else {
        eprintln!("not run: this user may not mount");
        return;
    };
    let store = DiskStore::open(disk.0.path()).unwrap();
    let stored = store.create(&identity(1, 8 << 20), &path("a")).unwrap();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 640 << 10]).unwrap();
    let write = || Arc::clone(&stored).write(0, vec![Bytes::from(vec![7; 512 << 10])]);
    assert_eq!(write().await.unwrap_err().kind(), ErrorKind::StorageFull);
    std::fs::remove_file(&ballast).unwrap();
    write().await.unwrap();
    let mut into = vec![0; 512 << 10];
    stored.read(0, &mut into).unwrap();
    assert!(into.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn the_last_bytes_of_a_disk_are_left_to_others() {
    let Some(disk) = Tmpfs::new("64m") else {
        eprintln!("not run: this user may not mount");
        return;
    };
    let store = DiskStore::open(disk.0.path()).unwrap();
    let stored = store.create(&identity(1, 64 << 20), &path("a")).unwrap();
    let write = |chunk| Arc::clone(&stored).write(chunk, vec![Bytes::from(vec![7; CHUNK_SIZE as usize])]);
    let mut chunk = 0;
    let error = loop {
        match write(chunk).await {
            Ok(()) => chunk += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let free = store.space().unwrap().free_bytes;
    let reserve = (64 << 20) / 100 * 5;
    assert!((reserve..reserve + (2 << 20)).contains(&free), "{free} bytes are left");
    store.save(vec![Arc::clone(&stored)]).await.unwrap();
    assert_eq!(store.held()[0].stored_bytes, chunk * CHUNK_SIZE, "what is there can still be saved");
}

#[test]
fn a_full_or_read_only_disk_is_told_at_the_start() {
    let Some(disk) = Tmpfs::new("256k") else {
        eprintln!("not run: this user may not mount");
        return;
    };
    std::fs::create_dir(disk.0.path().join(".farshore")).unwrap();
    while let Ok(()) = std::fs::write(disk.0.path().join("ballast"), vec![1; 4 << 20]) {}
    let error = DiskStore::open(disk.0.path()).unwrap_err();
    assert!(matches!(error, OpenError::Full { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("is full") && text.contains(disk.0.path().to_str().unwrap()), "{text}");
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.0.path()).status().unwrap();
    assert!(remounted.success());
    let error = DiskStore::open(disk.0.path()).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    assert!(error.to_string().contains("cannot be written"), "{error}");
}

/// A store in `dir` that holds content number 1, of which all chunks were saved and whose last stop was clean.
async fn with_one(dir: &Path, len: u64) -> String {
    let store = DiskStore::open(dir).unwrap();
    let (id, bytes) = (identity(1, len), sample(1, len));
    let stored = store.create(&id, &path("docs/letter")).unwrap();
    for chunk in 0..len.div_ceil(CHUNK_SIZE) {
        write(&stored, &bytes, chunk).await.unwrap();
    }
    store.close().await.unwrap();
    id.key().to_string()
}

#[tokio::test]
async fn a_sidecar_that_is_no_good_means_a_clean_start() {
    let (id, len) = (identity(1, CHUNK_SIZE + 5), CHUNK_SIZE + 5);
    let whole = {
        let dir = tempfile::tempdir().unwrap();
        let key = with_one(dir.path(), len).await;
        std::fs::read(dir.path().join(".farshore/partial").join(key + ".kdbitmap")).unwrap()
    };
    let mut flipped = whole.clone();
    flipped[90] ^= 4;
    let mut newer = whole.clone();
    newer[4] = 3;
    let other = {
        let sidecar = Sidecar::decode(&whole).unwrap();
        let hashes = sidecar.chunks().map(|(_, hash)| hash).collect();
        Sidecar::new(identity(2, len), path("a"), sidecar.bitmap().clone(), hashes).unwrap().encode()
    };
    let small_chunks = {
        let bitmap = ChunkBitmap::with_chunk_size(len, 4096).unwrap();
        Sidecar::new(id, path("a"), bitmap, Vec::new()).unwrap().encode()
    };
    let bad = [Vec::new(), whole[..50].to_vec(), b"PK".to_vec(), flipped, newer, other, small_chunks];
    for (number, bytes) in bad.into_iter().enumerate() {
        for reads_all in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let key = with_one(dir.path(), len).await;
            let partial = dir.path().join(".farshore/partial");
            std::fs::write(partial.join(format!("{key}.kdbitmap")), &bytes).unwrap();
            std::fs::write(partial.join("mine"), b"mine").unwrap();
            let store = DiskStore::open(dir.path()).unwrap();
            if reads_all {
                assert_eq!(store.held(), [], "case {number}");
            }
            assert!(store.resume(id.key(), Some(&id)).await.unwrap().is_none(), "case {number}");
            assert_eq!(names(&partial), ["mine"], "case {number}");
            let stored = store.create(&id, &path("a")).unwrap();
            write(&stored, &sample(1, len), 0).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_file_that_is_too_short_holds_no_more_than_it_does() {
    let len = CHUNK_SIZE * 3 + 5;
    let dir = tempfile::tempdir().unwrap();
    let key = with_one(dir.path(), len).await;
    let file = std::fs::File::options().write(true).open(dir.path().join(".farshore/partial").join(key)).unwrap();
    file.set_len(CHUNK_SIZE * 2 + 1).unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let id = identity(1, len);
    let (stored, resumed) = store.resume(id.key(), Some(&id)).await.unwrap().unwrap();
    assert_eq!(resumed.chunks.present().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(file.metadata().unwrap().len(), len);
    drop(stored);
    store.close().await.unwrap();
    drop(store);
    let store = DiskStore::open(dir.path()).unwrap();
    let (_, resumed) = store.resume(id.key(), None).await.unwrap().unwrap();
    assert_eq!((resumed.chunks.have(), resumed.trust), (2, Trust::Verified), "and that is what is saved");
}

#[tokio::test]
async fn what_version_1_claims_is_compared_with_what_the_owner_has() {
    let (id, bytes) = (identity(1, CHUNK_SIZE + 5), sample(1, CHUNK_SIZE + 5));
    let dir = tempfile::tempdir().unwrap();
    let partial = dir.path().join(".farshore/partial");
    std::fs::create_dir_all(&partial).unwrap();
    let mut wrong = bytes.to_vec();
    wrong[CHUNK_SIZE as usize] ^= 1;
    std::fs::write(partial.join(id.key().to_string()), wrong).unwrap();
    let mut sidecar = b"KDBM\x01".to_vec();
    sidecar.extend(id.size_bytes.to_le_bytes());
    for count in [2, 2, CHUNK_SIZE as u32] {
        sidecar.extend(count.to_le_bytes());
    }
    sidecar.extend(3_u64.to_le_bytes());
    std::fs::write(partial.join(format!("{}.kdbitmap", id.key())), sidecar).unwrap();

    let store = DiskStore::open(dir.path()).unwrap();
    assert_eq!(store.held()[0].key, id.key());
    assert!(store.resume(id.key(), None).await.unwrap().is_none(), "it does not say of what it is");
    let (stored, resumed) = store.resume(id.key(), Some(&id)).await.unwrap().unwrap();
    assert_eq!((resumed.chunks.have(), resumed.trust), (2, Trust::Claimed));
    assert_eq!(stored.hash_of(0), None);
    let hash = |chunk| xxhash_rust::xxh3::xxh3_64(&crate::store::suite::part(&bytes, chunk));
    assert!(Arc::clone(&stored).verify_against(0, hash(0)).await.unwrap());
    assert!(!Arc::clone(&stored).verify_against(1, hash(1)).await.unwrap());
    drop(stored);
    store.close().await.unwrap();
    drop(store);
    let store = DiskStore::open(dir.path()).unwrap();
    let (_, resumed) = store.resume(id.key(), None).await.unwrap().unwrap();
    assert_eq!((resumed.chunks.present().collect::<Vec<_>>(), resumed.trust), (vec![0], Trust::Verified));
}

#[tokio::test]
async fn verifying_a_store_finds_what_is_damaged_and_forgets_it() {
    let len = CHUNK_SIZE * 2 + 5;
    let dir = tempfile::tempdir().unwrap();
    let key = with_one(dir.path(), len).await;
    let partial = dir.path().join(".farshore/partial");
    let verify = |store: &DiskStore| {
        let mut found: Vec<VerifiedFile> = Vec::new();
        store.verify(|file| found.push(file)).unwrap();
        found
    };
    let store = DiskStore::open(dir.path()).unwrap();
    let found = verify(&store);
    assert!(matches!(&found[..], [VerifiedFile { right_chunks: 3, verdict: Verdict::Right, .. }]), "{found:?}");
    assert_eq!(found[0].path, Some(path("docs/letter")));
    store.close().await.unwrap();
    drop(store);

    let file = std::fs::File::options().write(true).open(partial.join(&key)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"not this", CHUNK_SIZE + 9).unwrap();
    file.set_len(len - 1).unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let found = verify(&store);
    let Verdict::Damaged(chunks) = &found[0].verdict else { panic!("{found:?}") };
    assert_eq!((chunks.as_slice(), found[0].right_chunks), (&[1, 2][..], 1));
    store.close().await.unwrap();
    drop(store);

    let store = DiskStore::open(dir.path()).unwrap();
    let found = verify(&store);
    assert!(matches!(&found[..], [VerifiedFile { right_chunks: 1, verdict: Verdict::Right, .. }]), "{found:?}");
    std::fs::write(partial.join(format!("{key}.kdbitmap")), b"KDBM").unwrap();
    let found = verify(&store);
    assert!(matches!(&found[..], [VerifiedFile { verdict: Verdict::Unusable(_), .. }]), "{found:?}");
    assert!(verify(&store).is_empty(), "it was removed");
}

#[tokio::test]
async fn only_what_has_changed_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let trouble = super::trouble::Trouble::none();
    let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
    let contents: Vec<Arc<dyn Stored>> =
        (0..3).map(|number| store.create(&identity(number, 9), &path("a")).unwrap()).collect();
    for (number, stored) in (0..).zip(&contents) {
        write(stored, &sample(number, 9), 0).await.unwrap();
    }
    store.save(contents.clone()).await.unwrap();
    let before = trouble.done().len();
    store.save(contents.clone()).await.unwrap();
    assert_eq!(trouble.done().len(), before);
    contents[1].note_path(&path("b"));
    store.save(contents).await.unwrap();
    let renamed = |done: &super::trouble::Done| matches!(done, super::trouble::Done::Rename(..));
    assert_eq!(trouble.done()[before..].iter().filter(|done| renamed(done)).count(), 1);
    let synced = |done: &super::trouble::Done| matches!(done, super::trouble::Done::Sync(name) if name.len() == 32);
    assert!(!trouble.done()[before..].iter().any(synced), "its bytes were durable already");
}

#[tokio::test]
async fn a_tree_that_is_no_good_is_left_out_and_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let id = TreeId { owner: PeerId([7; 32]), share: ShareId([1; 16]) };
    let file = dir.path().join(".farshore/tree");
    let store = DiskStore::open(dir.path()).unwrap();
    store.save_tree(known_tree(id, 1, 50)).await.unwrap();
    let good = std::fs::read(&file).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    let mut newer = good.clone();
    newer[4] += 1;
    for bad in [&good[..good.len() - 1], &flipped, &newer, b"", b"something else"] {
        std::fs::write(&file, bad).unwrap();
        assert_eq!(store.tree(id), None);
    }
    std::fs::File::options().write(true).open(&file).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(store.tree(id), None, "and no room was made for it");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(store.tree(id), None);
    std::fs::remove_dir(&file).unwrap();
    assert_eq!(store.tree(id), None);
    store.save_tree(known_tree(id, 1, 50)).await.unwrap();
    assert!(store.tree(id).is_some());
}
