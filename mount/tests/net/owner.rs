//! An owner in memory, behind the real server.

use crate::memory::{Memory, OWNER};
use bytes::Bytes;
use farshore::folder::{ServeError, ServedBytes};
use farshore::net::transport::Transport;
use farshore::net::{Callbacks, Guests, Host, Leases, Link, cancel_pair, serve_with};
use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Stamp};
use farshore_engine::{ContentId, DialError, Errno, FetchError, PeerFault, PeerId, TreeUpdate, Wanted, WatchCursor};
use farshore_proto::{Hello, Members, Secret, ShareId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, oneshot, watch};

pub(crate) const EPOCH: u64 = 77;
pub(crate) const SECRET: Secret = Secret([5; 16]);

/// What an owner has and what happened to it.
pub(crate) struct Owner {
    pub(crate) files: Mutex<BTreeMap<RelPath, (Stamp, Arc<Served>)>>,
    pub(crate) opens: Mutex<u32>,
    pub(crate) hellos: Mutex<Vec<(PeerId, Hello)>>,
    pub(crate) news: Mutex<VecDeque<Result<Vec<TreeUpdate>, Errno>>>,
    pub(crate) told: Notify,
    pub(crate) cursors: Mutex<Vec<WatchCursor>>,
    /// Set if it calls its callers back.
    pub(crate) callbacks: Option<Arc<Callbacks>>,
    /// Which rules were broken.
    pub(crate) faults: Mutex<Vec<(PeerId, PeerFault)>>,
    /// Set if it introduces those to each other who have its share.
    pub(crate) members: Option<watch::Receiver<Members>>,
    /// How long it takes to answer a greeting.
    pub(crate) greets_after: Duration,
}

/// A file: its bytes follow from where they stand. One permit of `gate` lets one read through.
pub(crate) struct Served {
    pub(crate) size_bytes: u64,
    pub(crate) reads: Mutex<Vec<Range<u64>>>,
    pub(crate) gate: Semaphore,
    pub(crate) failure: Mutex<Option<ServeError>>,
}

impl ServedBytes for Served {
    fn read(self: Arc<Self>, range: Range<u64>) -> BoxFuture<'static, Result<Bytes, ServeError>> {
        async move {
            self.reads.lock().unwrap().push(range.clone());
            self.gate.acquire().await.unwrap().forget();
            match *self.failure.lock().unwrap() {
                Some(failure) => Err(failure),
                None => Ok(content(range.start..range.end.min(self.size_bytes))),
            }
        }
        .boxed()
    }
}

/// The bytes of every file.
pub(crate) fn content(range: Range<u64>) -> Bytes {
    range.map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56).to_le_bytes()[0]).collect()
}

impl Owner {
    pub(crate) fn new() -> Arc<Owner> {
        Owner::calling(None)
    }

    /// One that calls its callers back.
    pub(crate) fn calling(callbacks: Option<Arc<Callbacks>>) -> Arc<Owner> {
        Arc::new(Owner { callbacks, ..Owner::alone() })
    }

    /// One that says who these are.
    pub(crate) fn introducing(members: watch::Receiver<Members>) -> Arc<Owner> {
        Arc::new(Owner { members: Some(members), ..Owner::alone() })
    }

    /// One whose answers take so long.
    pub(crate) fn far(greets_after: Duration) -> Arc<Owner> {
        Arc::new(Owner { greets_after, ..Owner::alone() })
    }

    fn alone() -> Owner {
        Owner {
            files: Mutex::default(),
            opens: Mutex::default(),
            hellos: Mutex::default(),
            news: Mutex::default(),
            told: Notify::new(),
            cursors: Mutex::default(),
            callbacks: None,
            members: None,
            greets_after: Duration::ZERO,
            faults: Mutex::default(),
        }
    }

    /// A file that can be read as often as one likes.
    pub(crate) fn put(&self, path: &str, stamp: u64, size_bytes: u64) -> Arc<Served> {
        let file = self.put_gated(path, stamp, size_bytes);
        file.gate.add_permits(Semaphore::MAX_PERMITS / 2);
        file
    }

    /// A file that can be read when its gate is opened.
    pub(crate) fn put_gated(&self, path: &str, stamp: u64, size_bytes: u64) -> Arc<Served> {
        let served = Served { size_bytes, reads: Mutex::default(), gate: Semaphore::new(0), failure: Mutex::default() };
        let served = Arc::new(served);
        self.files.lock().unwrap().insert(name(path), (Stamp(stamp), served.clone()));
        served
    }

    pub(crate) fn remove(&self, path: &str) {
        self.files.lock().unwrap().remove(&name(path));
    }

    pub(crate) fn tell(&self, news: Result<Vec<TreeUpdate>, Errno>) {
        self.news.lock().unwrap().push_back(news);
        self.told.notify_one();
    }
}

impl Host for Owner {
    fn greet(&self, peer: PeerId, hello: Hello) -> BoxFuture<'static, Result<u64, ()>> {
        let answer = if hello.secret == Some(SECRET) { Ok(EPOCH) } else { Err(()) };
        self.hellos.lock().unwrap().push((peer, hello));
        let greets_after = self.greets_after;
        async move {
            tokio::time::sleep(greets_after).await;
            answer
        }
        .boxed()
    }

    fn watch(
        &self,
        _: PeerId,
        cursor: WatchCursor,
    ) -> BoxFuture<'static, Result<(Vec<TreeUpdate>, WatchCursor), Errno>> {
        self.cursors.lock().unwrap().push(cursor.clone());
        let next = self.news.lock().unwrap().pop_front();
        async move {
            match next {
                Some(news) => news.map(|updates| (updates, cursor)),
                None => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok((Vec::new(), cursor))
                }
            }
        }
        .boxed()
    }

    fn open(
        &self,
        _: PeerId,
        path: RelPath,
        stamp: Stamp,
    ) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>> {
        *self.opens.lock().unwrap() += 1;
        let opened = match self.files.lock().unwrap().get(&path) {
            None => Err(ServeError::Gone),
            Some((now, _)) if *now != stamp => Err(ServeError::Stale),
            Some((_, file)) => Ok(file.clone() as Arc<dyn ServedBytes>),
        };
        async move { opened }.boxed()
    }

    fn callbacks(&self) -> Option<Arc<Callbacks>> {
        self.callbacks.clone()
    }

    fn broke_rule(&self, peer: PeerId, fault: PeerFault) {
        self.faults.lock().unwrap().push((peer, fault));
    }

    fn members(&self) -> Option<watch::Receiver<Members>> {
        self.members.clone()
    }
}

pub(crate) fn name(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// Which bytes to ask for.
pub(crate) fn wanted(content: u64, path: &str, stamp: u64, size_bytes: u64) -> Wanted {
    let (owner, modified) = (OWNER, FileTime::default());
    Wanted { content: ContentId(content), path: name(path), owner, stamp: Stamp(stamp), size_bytes, modified }
}

/// A server that runs until this is dropped.
pub(crate) struct Running {
    pub(crate) network: Memory,
    pub(crate) guests: Arc<Guests>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn start(owner: Arc<Owner>) -> Running {
    start_with(owner, Arc::default()).await
}

/// A server that keeps its leases where they can be looked at.
pub(crate) async fn start_with(owner: Arc<Owner>, leases: Arc<Leases>) -> Running {
    let network = Memory::new();
    let listener = network.listen("owner").await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let guests = Arc::new(Guests::new(leases));
    let task = tokio::spawn(serve_with(listener, owner, guests.clone(), stopped.map(drop)));
    Running { network, guests, stop: Some(stop), task }
}

pub(crate) fn hello() -> Hello {
    Hello::new(ShareId([3; 16]), Some(SECRET), "test")
}

pub(crate) async fn dial(network: &Memory) -> Result<Link, DialError> {
    Link::dial(network, &["owner".into()], OWNER, &hello()).await
}

/// Fetches frames, checks that they come in order, and gives their bytes.
pub(crate) async fn fetch(
    link: &Link,
    wanted: &Wanted,
    chunk: u64,
    frames: Range<u32>,
    urgent: bool,
) -> Result<Vec<u8>, FetchError> {
    let (_canceller, cancel) = cancel_pair();
    let mut bytes = Vec::new();
    let mut next = frames.start;
    let on_frame = |frame: u32, data: Bytes| {
        assert_eq!(frame, next);
        next += 1;
        bytes.extend_from_slice(&data);
    };
    link.fetch(wanted, chunk, frames, urgent, cancel, on_frame).await?;
    Ok(bytes)
}

/// Lets everything run until `condition` holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let held = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), held).await.expect("the condition never held");
}
