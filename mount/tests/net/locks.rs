//! Locks, taken by many at once: files are opened, read and closed while their owner removes them and makes them again.

use crate::memory::{Memory, OWNER};
use crate::owner::hello;
use crate::table::{Anybody, Owning, look_up, open, until};
use farshore::node::{Node, Parts, Route};
use farshore::store::{DiskStore, Store};
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::{Config, Request};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

const FILES: usize = 4;
const READERS: usize = 8;
const ROUNDS: usize = 6;

/// Two locks that are taken in two orders stop everybody who comes after that.
const LIMIT: Duration = Duration::from_secs(180);

fn write(folder: &Path, file: usize, round: usize) {
    fs::write(folder.join(file.to_string()), vec![round as u8; 2 * CHUNK_SIZE as usize]).unwrap();
}

/// What readers share.
#[derive(Default)]
struct Readers {
    are_done: AtomicBool,
    /// How many files they have read to the end.
    whole: AtomicUsize,
}

/// Opens, reads and closes files until it is told to stop.
async fn read_on(node: Arc<Node>, mut file: usize, readers: Arc<Readers>) {
    while !readers.are_done.load(Ordering::Acquire) {
        file = (file + 1) % FILES;
        let Ok(attr) = look_up(&node, &file.to_string()).await else {
            tokio::task::yield_now().await;
            continue;
        };
        if let Ok(handle) = open(&node, attr.ino).await {
            let read = |chunk| node.ask_and_wait(Request::Read { handle, offset: chunk * CHUNK_SIZE, len: 1 << 19 });
            let both = [read(0).await.map(drop), read(1).await.map(drop)];
            readers.whole.fetch_add(usize::from(both == [Ok(()), Ok(())]), Ordering::AcqRel);
            node.reply(Request::Release { handle }).await.unwrap();
        }
        node.forget(attr.ino, 1);
    }
}

async fn play() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    (0..FILES).for_each(|file| write(&folder, file, 0));
    let network = Memory::new();
    let mut owner = Owning::start(&folder, &network, 1).await;
    let store: Arc<dyn Store> = Arc::new(DiskStore::open(&dir.path().join("store")).unwrap());
    let reader = Node::start(Parts {
        call_back: None,
        remembered: None,
        // What is gone is found to be gone soon.
        config: Config { retry_base: Duration::from_millis(1), max_retries: 2, ..Config::default() },
        seed: 1,
        transport: Arc::new(network.clone()),
        store: store.clone(),
        folder: None,
        admission: Arc::new(Anybody),
        peers: BTreeMap::from([(OWNER, Route { addresses: vec!["owner".into()], hello: hello() })]),
    });
    reader.follow_peers();
    let shown = || reader.view(|view| view.tree().count());
    until("the reader has heard of the files", || shown() == FILES).await;
    let readers = Arc::new(Readers::default());
    let tasks: Vec<_> =
        (0..READERS).map(|first| tokio::spawn(read_on(reader.clone(), first, readers.clone()))).collect();
    for round in 1..=ROUNDS {
        until("some have been read", || readers.whole.load(Ordering::Acquire) >= round * READERS).await;
        for file in 0..FILES {
            fs::remove_file(folder.join(file.to_string())).unwrap();
        }
        until("the files are gone", || shown() == 0).await;
        (0..FILES).for_each(|file| write(&folder, file, round));
        until("the files are there", || shown() == FILES).await;
    }
    readers.are_done.store(true, Ordering::Release);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(reader.view(|view| view.open_handles()), 0);
    reader.shut_down().await;
    store.close().await.unwrap();
    owner.end().await;
}

#[test]
fn closing_what_is_gone_while_others_open_what_is_new_stops_nobody() {
    let (tell, told) = channel();
    // The runtime is watched from outside: who waits for a lock takes its thread along, and its clock.
    let playing = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        runtime.block_on(play());
        tell.send(()).unwrap();
    });
    match told.recv_timeout(LIMIT) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => playing.join().unwrap(),
        Err(RecvTimeoutError::Timeout) => panic!("everything has stood still"),
    }
}
