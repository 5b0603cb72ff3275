//! The laws of a store, held against the simulated disk; and what is true only of it.

use super::{Bug, SimStore};
use farshore::store::suite::{Kept, Subject, identity, path, sample, write};
use farshore::store::{Store, Stored};
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::{ContentKey, Trust};
use futures_util::FutureExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

impl Subject for SimStore {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }
    fn restart(&mut self) {
        self.next_life();
    }
    fn damage(&mut self, key: ContentKey, offset: u64) {
        assert!(SimStore::damage(self, key, offset), "nothing is saved there");
    }
    fn contents(&self) -> usize {
        SimStore::contents(self)
    }
    fn target(&self, name: &str) -> Option<PathBuf> {
        Some(Path::new("/kept").join(name))
    }
    fn kept(&self, target: &Path) -> Option<Kept> {
        self.memory().kept(target).map(|file| (file.bytes.to_vec(), file.mode, file.modified))
    }
    fn knows_holes(&self) -> bool {
        true
    }
}

fn subjects() -> Vec<Box<dyn Subject>> {
    vec![Box::new(SimStore::default())]
}

farshore::store_laws!(subjects);

/// Content number `number`, of which the first of two chunks is saved and the second only written.
async fn half_saved(store: &SimStore, number: u64) -> Arc<dyn Stored> {
    let bytes = sample(number, 2 * CHUNK_SIZE);
    let stored = store.create(&identity(number, bytes.len() as u64), &path("f")).unwrap();
    write(&stored, &bytes, 0).await.unwrap();
    store.save(vec![stored.clone()]).await.unwrap();
    write(&stored, &bytes, 1).await.unwrap();
    stored
}

/// How many chunks are held after a crash, of each of two contents.
fn held(store: &SimStore) -> Vec<u64> {
    store.next_life();
    let mut held = store.held();
    held.sort_by_key(|held| held.key);
    held.iter().map(|held| held.stored_bytes / CHUNK_SIZE).collect()
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_of_a_save_leaves_the_old_or_the_new() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let store = SimStore::new(seed);
        let contents = vec![half_saved(&store, 1).await, half_saved(&store, 2).await];
        let cut_off = tokio::time::timeout(Duration::from_millis(seed % 60), store.save(contents));
        let has_ended = cut_off.await.is_ok();
        let held = held(&store);
        assert!(!has_ended || held == [2, 2], "a save that has ended is not undone");
        seen.insert(held);
    }
    let order_of_keys = identity(1, 2 * CHUNK_SIZE).key() < identity(2, 2 * CHUNK_SIZE).key();
    let first_only = if order_of_keys { vec![2, 1] } else { vec![1, 2] };
    assert_eq!(seen, [vec![1, 1], first_only, vec![2, 2]].into());
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_of_the_end_is_a_crash_or_a_clean_stop() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let store = SimStore::new(seed);
        let stored = half_saved(&store, 1).await;
        let closed = store.close().now_or_never();
        assert!(closed.is_none_or(|closed| closed.is_ok()));
        drop(stored);
        store.next_life();
        let key = identity(1, 2 * CHUNK_SIZE).key();
        let (_, resumed) = store.resume(key, None).await.unwrap().unwrap();
        seen.insert((resumed.chunks.have(), resumed.trust));
    }
    assert_eq!(seen, [(1, Trust::Hashed), (2, Trust::Verified)].into());
}

#[tokio::test]
async fn a_disk_that_is_full_or_fails_saves_nothing_and_then_does() {
    let store = SimStore::default();
    let stored = half_saved(&store, 1).await;
    store.set_full(true);
    assert_eq!(store.save(vec![stored.clone()]).await.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    store.set_full(false);
    store.set_failing(true);
    assert!(store.save(vec![stored.clone()]).await.is_err() && store.close().await.is_err());
    store.set_failing(false);
    store.save(vec![stored]).await.unwrap();
    assert_eq!(held(&store), [2]);
}

#[tokio::test]
async fn each_planted_bug_is_a_lie() {
    let id = identity(1, 2 * CHUNK_SIZE);
    for bug in [Bug::ForgetsCrashes, Bug::ClaimsTooMuch, Bug::NeverLooks] {
        let store = SimStore::default();
        store.plant(bug);
        drop(half_saved(&store, 1).await);
        store.lose_power();
        store.next_life();
        let (stored, resumed) = store.resume(id.key(), Some(&id)).await.unwrap().unwrap();
        match bug {
            Bug::ForgetsCrashes => assert_eq!((resumed.chunks.have(), resumed.trust), (1, Trust::Verified)),
            Bug::ClaimsTooMuch => assert_eq!((resumed.chunks.have(), resumed.trust), (2, Trust::Hashed)),
            Bug::NeverLooks | Bug::Corrupts | Bug::Hangs | Bug::KeepsAll | Bug::RemembersTooSoon => {
                assert!(stored.clone().verify(0).await.unwrap());
                let mut first = [0; 1];
                stored.read(0, &mut first).unwrap();
                assert_ne!(first[0], sample(1, id.size_bytes)[0]);
            }
        }
    }
}
