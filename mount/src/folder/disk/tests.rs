//! Only the version that was asked for is served.

use super::*;
use crate::folder::FolderEvent;
use crate::folder::look::{Sight, look_in};
use crate::folder::watch::Watcher;
use farshore_engine::event::SeenKind;
use rustix::fd::AsFd;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

struct Rig {
    dir: TempDir,
    folder: DiskFolder,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let folder = DiskFolder::open(dir.path(), None).unwrap();
        Rig { dir, folder }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// What the engine knows of a file after it was seen.
    fn seen(&self, name: &str) -> ServedFile {
        let Sight::There(there) = look_in(self.folder.beneath.root().as_fd(), name) else { panic!("{name}") };
        let SeenKind::File { size_bytes } = there.seen.kind else { panic!("{name}") };
        let path = RelPath::parse(name.as_bytes()).unwrap();
        ServedFile { path, size_bytes, modified: there.seen.modified, facts: there.seen.facts }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> ServedFile {
        fs::write(self.at(name), bytes).unwrap();
        self.seen(name)
    }

    async fn open(&self, served: &ServedFile) -> Result<Arc<dyn ServedBytes>, ServeError> {
        Folder::open(&self.folder, served.clone()).await
    }
}

#[tokio::test]
async fn ranges_are_served_exactly() {
    let rig = Rig::new();
    let bytes: Vec<u8> = (0..CHUNK_SIZE + 1_000).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let file = rig.open(&rig.write("f", &bytes)).await.unwrap();
    for (start, end) in [(0, 0), (0, 1), (0, CHUNK_SIZE), (CHUNK_SIZE, CHUNK_SIZE + 1_000), (7, 70_000)] {
        let served = Arc::clone(&file).read(start..end).await.unwrap();
        assert_eq!(served, bytes[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()]);
    }
}

#[tokio::test]
async fn a_file_that_is_not_what_was_seen_is_stale() {
    let rig = Rig::new();
    let seen = rig.write("f", b"bytes");
    assert!(rig.open(&seen).await.is_ok());
    let mut others = vec![seen.clone(); 4];
    others[0].size_bytes += 1;
    others[1].modified.nanos ^= 1;
    others[2].facts.inode += 1;
    others[3].facts.changed.nanos ^= 1;
    for other in others {
        assert_eq!(rig.open(&other).await.err(), Some(ServeError::Stale), "{other:?}");
    }
    fs::write(rig.at("other"), b"bytes").unwrap();
    fs::rename(rig.at("other"), rig.at("f")).unwrap();
    assert_eq!(rig.open(&seen).await.err(), Some(ServeError::Stale));
}

#[tokio::test]
async fn what_is_not_an_ordinary_file_inside_is_gone() {
    let rig = Rig::new();
    let outside = tempfile::NamedTempFile::new().unwrap();
    let seen = rig.write("f", b"");
    fs::remove_file(rig.at("f")).unwrap();
    assert_eq!(rig.open(&seen).await.err(), Some(ServeError::Gone));
    symlink(outside.path(), rig.at("f")).unwrap();
    assert_eq!(rig.open(&seen).await.err(), Some(ServeError::Gone), "a link");
    fs::remove_file(rig.at("f")).unwrap();
    fs::create_dir(rig.at("f")).unwrap();
    assert_eq!(rig.open(&seen).await.err(), Some(ServeError::Gone), "a directory");
    fs::remove_dir(rig.at("f")).unwrap();
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, rig.at("f"), FileType::Fifo, mode, 0).unwrap();
    assert_eq!(rig.open(&seen).await.err(), Some(ServeError::Gone), "a pipe, without waiting for its other end");
    let below = ServedFile { path: RelPath::parse(b"f/x").unwrap(), ..seen };
    assert_eq!(rig.open(&below).await.err(), Some(ServeError::Gone));
}

#[tokio::test]
async fn an_open_file_is_served_without_its_name() {
    let rig = Rig::new();
    let file = rig.open(&rig.write("f", b"bytes")).await.unwrap();
    fs::rename(rig.at("f"), rig.at("g")).unwrap();
    assert_eq!(Arc::clone(&file).read(1..3).await.unwrap(), &b"yt"[..]);
    fs::set_permissions(rig.at("g"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(Arc::clone(&file).read(1..3).await.unwrap(), &b"yt"[..]);
    fs::remove_file(rig.at("g")).unwrap();
    assert_eq!(file.read(0..5).await.unwrap(), &b"bytes"[..]);
}

#[tokio::test]
async fn an_edit_of_an_open_file_ends_its_serving() {
    let edits: [fn(&fs::File); 4] = [
        |file| file.write_all_at(b"BYTES", 0).unwrap(),
        |file| file.set_len(3).unwrap(),
        |mut file| file.write_all(b"in place, and longer").unwrap(),
        |file| file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(5)).unwrap(),
    ];
    for (number, edit) in edits.iter().enumerate() {
        let rig = Rig::new();
        let seen = rig.write("f", b"bytes");
        let file = rig.open(&seen).await.unwrap();
        // The clock of the file system ticks every few milliseconds; an edit in the same tick shows no other time.
        while rig.write("clock", b"").modified == seen.modified {
            std::thread::yield_now();
        }
        edit(&fs::OpenOptions::new().write(true).open(rig.at("f")).unwrap());
        assert_eq!(file.read(0..5).await.err(), Some(ServeError::Stale), "edit {number}");
    }
}

#[tokio::test]
async fn a_stale_file_is_looked_at_again() {
    let base = tempfile::tempdir().unwrap();
    let share = base.path().join("share");
    fs::create_dir(&share).unwrap();
    fs::write(share.join("f"), b"1").unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let watcher = Watcher::start(&share, move |event| drop(tell.send(event))).unwrap();
    let wait = || told.recv_timeout(Duration::from_secs(30)).unwrap();
    while !matches!(wait(), FolderEvent::Ready) {}
    let folder = DiskFolder::open(&share, Some(watcher.recheck())).unwrap();
    let rig = Rig { dir: tempfile::tempdir().unwrap(), folder };
    let seen = rig.seen("f");
    // An edit under a name outside of the folder, of which the kernel tells nothing.
    fs::hard_link(share.join("f"), base.path().join("outside")).unwrap();
    fs::write(base.path().join("outside"), b"22").unwrap();
    assert_eq!(rig.open(&seen).await.err(), Some(ServeError::Stale));
    let FolderEvent::Observed(observed) = wait() else { panic!() };
    let farshore_engine::Observation::Found { path, seen: fresh } = &observed[0] else { panic!("{observed:?}") };
    assert_eq!((path, &fresh.kind), (&seen.path, &SeenKind::File { size_bytes: 2 }));
}

#[tokio::test]
async fn files_that_are_read_as_a_whole_are_those_that_are_known_each_for_itself() {
    let rig = Rig::new();
    let files: Vec<ServedFile> =
        ["a", "b", "c", "d"].map(|name| rig.write(name, format!("bytes of {name}").as_bytes())).into();
    fs::write(rig.at("b"), "others").unwrap();
    fs::remove_file(rig.at("c")).unwrap();
    let read = rig.folder.read_whole(files).await;
    let expected = [
        Ok(Bytes::from_static(b"bytes of a")),
        Err(ServeError::Stale),
        Err(ServeError::Gone),
        Ok(Bytes::from_static(b"bytes of d")),
    ];
    assert_eq!(read, expected);
    assert!(rig.folder.read_whole(Vec::new()).await.is_empty());
}
