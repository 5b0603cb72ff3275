//! Every system call goes wrong once, in every way that there is: whoever asked is told, nothing is believed that is not
//! right, and the next attempt succeeds.

use super::super::trouble::{Fault, Trouble};
use super::super::{DiskStore, OpenError};
use crate::store::suite::{identity, known_tree, path, sample, write};
use crate::store::{Store, Stored};
use bytes::Bytes;
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::record::FileTime;
use farshore_engine::{ContentIdentity, PeerId, Trust, Xattrs};
use farshore_proto::{ShareId, TreeId};
use rustix::io::Errno;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How often anything was told to have failed.
#[derive(Default)]
struct Told(Vec<String>);

/// A disk that may break at any time, and whoever works with it: what failed is tried once more after the disk was
/// mended, and must succeed then.
struct Bench<'a> {
    trouble: Trouble,
    dir: &'a Path,
    errno: Option<Errno>,
    told: Told,
}

impl Bench<'_> {
    fn check(&mut self, error: &io::Error) {
        let errno = self.errno.expect("nothing fails that did not");
        let expected = io::Error::from(errno).kind();
        assert!(error.kind() == expected || error.kind() == io::ErrorKind::StorageFull, "{error:?} for {errno:?}");
        self.told.0.push(error.to_string());
        assert!(self.trouble.heal(), "{error} came from nowhere");
    }

    fn open(&mut self) -> DiskStore {
        let error = match DiskStore::open_with(self.dir, &self.trouble) {
            Ok(store) => return store,
            Err(error) => error,
        };
        match &error {
            OpenError::Full { source, .. } | OpenError::ReadOnly { source, .. } | OpenError::Io { source, .. } => {
                self.check(source);
            }
            OpenError::InUse { .. } => panic!("{error}"),
        }
        DiskStore::open_with(self.dir, &self.trouble).expect("the disk was mended")
    }

    fn create(&mut self, store: &DiskStore, identity: &ContentIdentity) -> Arc<dyn Stored> {
        match store.create(identity, &path("a/b")) {
            Ok(stored) => stored,
            Err(error) => {
                self.check(&error);
                store.create(identity, &path("a/b")).expect("the disk was mended")
            }
        }
    }

    async fn attempt<T, F: Future<Output = io::Result<T>>>(&mut self, work: impl Fn() -> F) -> T {
        match work().await {
            Ok(value) => value,
            Err(error) => {
                self.check(&error);
                work().await.expect("the disk was mended")
            }
        }
    }
}

const LEN: u64 = CHUNK_SIZE * 2 + 700;
const TREE: TreeId = TreeId { owner: PeerId([3; 32]), share: ShareId([4; 16]) };

/// Two lives of a store, of which the first ends well or not.
async fn two_lives(bench: &mut Bench<'_>, bytes: &Bytes, ends_well: bool) {
    let id = identity(1, LEN);
    let small: Vec<ContentIdentity> = (2..12).map(|number| identity(number, 40)).collect();
    {
        let store = bench.open();
        let stored = bench.create(&store, &id);
        bench.attempt(|| write(&stored, bytes, 1)).await;
        // The second one is written down at once, which may fail and nobody is told.
        bench.attempt(|| write(&stored, bytes, 2)).await;
        bench.attempt(|| store.save(vec![Arc::clone(&stored)])).await;
        // More at once than are saved one by one.
        let mut many = vec![Arc::clone(&stored)];
        for id in &small {
            let stored = bench.create(&store, id);
            let bytes = sample(id.stamp.0, 40);
            bench.attempt(|| write(&stored, &bytes, 0)).await;
            many.push(stored);
        }
        bench.attempt(|| write(&stored, bytes, 0)).await;
        bench.attempt(|| store.save(many.clone())).await;
        for seq in [1, 2] {
            bench.attempt(|| store.save_tree(known_tree(TREE, seq, 3))).await;
        }
        if ends_well {
            bench.attempt(|| store.close()).await;
        }
    }
    let store = bench.open();
    let tree = store.tree(TREE).or_else(|| {
        assert!(bench.trouble.heal(), "the tree is gone");
        bench.told.0.push("the tree cannot be read".to_owned());
        store.tree(TREE)
    });
    assert_eq!(tree.expect("it was saved").tree.position().seq, 2);
    for id in small.iter().chain([&id]) {
        let bytes = if id.stamp.0 == 1 { bytes.clone() } else { sample(id.stamp.0, id.size_bytes) };
        let found = bench.attempt(|| store.resume(id.key(), Some(id))).await;
        let (stored, resumed) = found.expect("it was saved");
        assert!(resumed.chunks.is_complete());
        let trust = if ends_well { Trust::Verified } else { Trust::Hashed };
        assert!(resumed.trust == trust || !bench.told.0.is_empty(), "{:?}", resumed.trust);
        for chunk in 0..id.size_bytes.div_ceil(CHUNK_SIZE) {
            let right = bench.attempt(|| Arc::clone(&stored).verify(chunk)).await;
            assert!(right, "chunk {chunk} of {id:?}");
        }
        let mut into = vec![0; bytes.len()];
        match stored.read(0, &mut into) {
            Ok(()) => {}
            Err(error) => {
                bench.check(&error);
                stored.read(0, &mut into).expect("the disk was mended");
            }
        }
        assert_eq!(into, bytes);
    }
    bench.attempt(|| store.close()).await;
}

async fn every_call(fault: Fault, ends_well: bool) -> usize {
    let bytes = sample(1, LEN);
    for at in 0.. {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let trouble = Trouble::none();
        let errno = match fault {
            Fault::Error(errno) => Some(errno),
            Fault::Short(_) => None,
        };
        let mut bench = Bench { trouble: trouble.clone(), dir: dir.path(), errno, told: Told::default() };
        trouble.plan(at, fault);
        two_lives(&mut bench, &bytes, ends_well).await;
        if !trouble.has_struck() {
            return at;
        }
    }
    unreachable!("the numbers do not end")
}

#[tokio::test]
async fn an_error_of_any_call_is_told_and_the_next_attempt_succeeds() {
    for errno in [Errno::IO, Errno::NOSPC] {
        for ends_well in [true, false] {
            let calls = every_call(Fault::Error(errno), ends_well).await;
            assert!(calls > 100, "only {calls} calls were tried");
        }
    }
}

#[tokio::test]
async fn short_reads_and_writes_are_gone_on_with() {
    for most in [1, 100, 1_000] {
        every_call(Fault::Short(most), true).await;
    }
}

/// What was kept has its bytes elsewhere: nothing but its sidecar is left then, if that cannot be removed.
#[tokio::test]
async fn a_sidecar_that_could_not_be_removed_goes_before_the_content_is_stored_anew() {
    let (id, mut was_left) = (identity(1, 40), false);
    for at in 0.. {
        let (dir, trouble) = (tempfile::tempdir().unwrap(), Trouble::none());
        let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
        let stored = store.create(&id, &path("a")).unwrap();
        write(&stored, &sample(1, 40), 0).await.unwrap();
        store.save(vec![stored.clone()]).await.unwrap();
        trouble.plan(at, Fault::Error(Errno::IO));
        let kept = stored.clone().keep(dir.path().join("kept"), 0o600, FileTime::default(), Xattrs::default()).await;
        if !trouble.has_struck() {
            break;
        }
        trouble.heal();
        drop(stored);
        let sidecar = dir.path().join(".farshore/partial").join(format!("{}.kdbitmap", id.key()));
        if kept.is_ok() && sidecar.exists() {
            was_left = true;
            let again = store.create(&id, &path("a")).unwrap();
            write(&again, &sample(1, 40), 0).await.unwrap();
            assert!(!sidecar.exists(), "it says of bytes that were not there when it was written");
        }
    }
    assert!(was_left, "no call left a sidecar");
}
