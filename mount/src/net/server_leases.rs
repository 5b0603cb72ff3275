//! Which files are held open for whom.
//!
//! A lease is an opened file, in the version that a peer asked for. All streams of that peer on that version share it,
//! so what was opened stays readable although the file is renamed, removed or renamed over meanwhile: whoever holds a
//! lease is served from it, and the tree is not asked again. A stream that its reader closes lets go of its lease at
//! once. One that is lost with its connection leaves it behind for a while, so that the reader can go on when it is back.

use super::line::raised;
use crate::folder::{ServeError, ServedBytes};
use farshore_engine::PeerId;
use farshore_engine::path::RelPath;
use farshore_engine::record::Stamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, oneshot, watch};
use tokio::time::sleep;

/// How long a file is kept open for a reader whose connection was lost.
pub const LEASE_GRACE: Duration = Duration::from_secs(600);

/// How many files are kept open without a connection for one peer; beyond that, the oldest are closed.
const MAX_KEPT_PER_PEER: usize = 256;

/// The same for all peers together: each costs a descriptor, and where the limit of those cannot be raised it is 1,024.
const MAX_KEPT: usize = 512;

/// Who reads which version. The path is not part of it: the stamp names these bytes, whatever they are called by now.
type Key = (PeerId, Stamp);

/// An opened file, once it is open.
type OpenedFile = Arc<OnceCell<Arc<dyn ServedBytes>>>;

/// The leases of a server.
pub struct Leases {
    grace: Duration,
    table: Mutex<Table>,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct Table {
    leases: BTreeMap<Key, Lease>,
    /// The number of the last one that was kept.
    last_kept: u64,
    has_ended: bool,
}

struct Lease {
    file: OpenedFile,
    /// How many streams hold it. If none does, it is kept for a reader that may come back.
    holders: usize,
    /// When it was kept: a lower number is longer ago.
    kept: u64,
    /// Dropped when it is not kept any more, whatever the reason: who waits for the end of the grace need not.
    waiting: Option<oneshot::Sender<()>>,
}

/// One stream's hold on a lease. Dropping it lets go at once.
pub(super) struct Held {
    leases: Arc<Leases>,
    key: Key,
    file: OpenedFile,
    /// Whether it still counts among the holders.
    counts: bool,
}

impl Default for Leases {
    fn default() -> Leases {
        Leases::new(LEASE_GRACE)
    }
}

impl Leases {
    /// No leases yet; those that will be lost with a connection are kept for `grace`.
    #[must_use]
    pub fn new(grace: Duration) -> Leases {
        Leases { grace, table: Mutex::default(), ended: watch::Sender::new(false) }
    }

    /// How many files are kept open for readers who have no connection.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.lock().kept().count()
    }

    /// Closes what is kept open for `peer` without a connection: it may not come in any more.
    pub fn forget(&self, peer: PeerId) {
        let mut table = self.lock();
        let kept: Vec<Key> = table.kept().map(|(key, _)| *key).filter(|(of, _)| *of == peer).collect();
        let closed: Vec<Option<Lease>> = kept.iter().map(|key| table.leases.remove(key)).collect();
        // Closing a file may take a while; nobody waits for it under the lock.
        drop(table);
        drop(closed);
    }

    /// Closes everything that no stream holds, and keeps nothing from now on.
    pub(super) fn end(&self) {
        let mut table = self.lock();
        table.has_ended = true;
        let closed = std::mem::take(&mut table.leases);
        drop(table);
        drop(closed);
        self.ended.send_replace(true);
    }

    /// The lease of `peer` on a version of a file; `open` opens it unless that peer has a lease on it already.
    pub(super) async fn hold<F>(
        self: &Arc<Self>,
        peer: PeerId,
        path: RelPath,
        stamp: Stamp,
        open: impl FnOnce(RelPath) -> F,
    ) -> Result<Held, ServeError>
    where
        F: Future<Output = Result<Arc<dyn ServedBytes>, ServeError>>,
    {
        let held = self.join((peer, stamp));
        held.file.get_or_try_init(|| open(path)).await?;
        Ok(held)
    }

    fn join(self: &Arc<Self>, key: Key) -> Held {
        let mut table = self.lock();
        let lease = table.leases.entry(key).or_insert_with(|| Lease {
            file: Arc::default(),
            holders: 0,
            kept: 0,
            waiting: None,
        });
        lease.holders += 1;
        lease.waiting = None;
        Held { leases: self.clone(), key, file: lease.file.clone(), counts: true }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Those that nobody holds.
    fn kept(&self) -> impl Iterator<Item = (&Key, &Lease)> {
        self.leases.iter().filter(|(_, lease)| lease.holders == 0)
    }

    /// One holder less. Returns what that closes, and, if it is kept, what ends when it is not any more.
    fn let_go(&mut self, key: Key, file: &OpenedFile, keep: bool) -> (Vec<Lease>, Option<oneshot::Receiver<()>>) {
        // At the end of the server all of them are taken away, whoever holds them.
        let Some(lease) = self.leases.get_mut(&key).filter(|lease| Arc::ptr_eq(&lease.file, file)) else {
            return (Vec::new(), None);
        };
        lease.holders -= 1;
        if lease.holders > 0 {
            return (Vec::new(), None);
        }
        if !keep || self.has_ended || !lease.file.initialized() {
            return (self.leases.remove(&key).into_iter().collect(), None);
        }
        self.last_kept += 1;
        lease.kept = self.last_kept;
        let (waiting, ended) = oneshot::channel();
        lease.waiting = Some(waiting);
        let (peer, _) = key;
        let mut closed = Vec::new();
        closed.extend(self.close_oldest(MAX_KEPT_PER_PEER, |of| of == peer));
        closed.extend(self.close_oldest(MAX_KEPT, |_| true));
        (closed, Some(ended))
    }

    /// Takes away the one that was kept first of those of such peers, if there are more than `most`.
    fn close_oldest(&mut self, most: usize, of: impl Fn(PeerId) -> bool) -> Option<Lease> {
        let kept = || self.kept().filter(|((peer, _), _)| of(*peer));
        if kept().count() <= most {
            return None;
        }
        let oldest = kept().min_by_key(|(_, lease)| lease.kept).map(|(key, _)| *key)?;
        self.leases.remove(&oldest)
    }
}

impl Held {
    /// The opened file.
    pub(super) fn bytes(&self) -> Option<Arc<dyn ServedBytes>> {
        self.file.get().cloned()
    }

    /// Lets go because the connection is lost: if this was the last one to hold it, the lease stays for the grace. Ends
    /// when that is over, or the lease is held again, or the server ends.
    pub(super) async fn keep(mut self) {
        let Some(mut over) = self.let_go(true) else { return };
        let (leases, key) = (Arc::downgrade(&self.leases), self.key);
        let (ended, grace) = (self.leases.ended.subscribe(), self.leases.grace);
        // Neither the file nor the table is held while it waits.
        drop(self);
        tokio::select! {
            biased;
            () = raised(ended) => return,
            _ = &mut over => return,
            () = sleep(grace) => {}
        }
        let Some(leases) = leases.upgrade() else { return };
        let mut table = leases.lock();
        // Held or taken away at this very moment, and perhaps kept again since.
        let is_over = over.try_recv() == Err(oneshot::error::TryRecvError::Empty);
        let closed = if is_over { table.leases.remove(&key) } else { None };
        drop(table);
        drop(closed);
    }

    fn let_go(&mut self, keep: bool) -> Option<oneshot::Receiver<()>> {
        if !std::mem::replace(&mut self.counts, false) {
            return None;
        }
        let (closed, over) = self.leases.lock().let_go(self.key, &self.file, keep);
        drop(closed);
        over
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use std::ops::Range;

    struct Nothing;

    impl ServedBytes for Nothing {
        fn read(self: Arc<Self>, _: Range<u64>) -> BoxFuture<'static, Result<Bytes, ServeError>> {
            Box::pin(async { Err(ServeError::Io) })
        }
    }

    fn peer(number: usize) -> PeerId {
        PeerId([u8::try_from(number).unwrap(); 32])
    }

    async fn hold(leases: &Arc<Leases>, of: usize, stamp: usize) -> Held {
        let open = |_| async { Ok(Arc::new(Nothing) as Arc<dyn ServedBytes>) };
        leases.hold(peer(of), RelPath::parse(b"a").unwrap(), Stamp(stamp as u64), open).await.unwrap()
    }

    fn is_same(one: &Held, other: &Held) -> bool {
        Arc::ptr_eq(&one.file, &other.file)
    }

    /// Loses the connection of a holder, and lets the lease be kept.
    async fn lose(held: Held) {
        tokio::spawn(held.keep());
        tokio::task::yield_now().await;
    }

    #[tokio::test]
    async fn a_file_is_opened_once_per_peer_and_version_and_forgotten_with_its_last_holder() {
        let leases = Arc::new(Leases::default());
        let first = hold(&leases, 1, 1).await;
        let second = hold(&leases, 1, 1).await;
        assert!(is_same(&first, &second));
        assert!(!is_same(&first, &hold(&leases, 2, 1).await), "another peer");
        assert!(!is_same(&first, &hold(&leases, 1, 2).await), "another version");
        drop(first);
        assert_eq!(leases.lock().leases.len(), 1);
        drop(second);
        assert!(leases.lock().leases.is_empty());
    }

    #[tokio::test]
    async fn a_failure_to_open_is_not_remembered() {
        let leases = Arc::new(Leases::default());
        let path = RelPath::parse(b"a").unwrap();
        let failed = leases.hold(peer(1), path, Stamp(1), |_| async { Err(ServeError::Gone) }).await;
        assert_eq!(failed.err(), Some(ServeError::Gone));
        assert!(leases.lock().leases.is_empty());
        hold(&leases, 1, 1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_with_its_connection_is_kept_until_its_reader_is_back_or_the_grace_is_over() {
        let leases = Arc::new(Leases::default());
        let (first, second) = (hold(&leases, 1, 1).await, hold(&leases, 1, 1).await);
        let file = first.file.clone();
        lose(first).await;
        assert_eq!(leases.kept(), 0, "another stream holds it");
        lose(second).await;
        assert_eq!(leases.kept(), 1);
        sleep(LEASE_GRACE / 2).await;
        let back = hold(&leases, 1, 1).await;
        assert!(Arc::ptr_eq(&back.file, &file), "the same opened file");
        assert_eq!(leases.kept(), 0);
        lose(back).await;
        sleep(LEASE_GRACE * 3 / 4).await;
        assert_eq!(leases.kept(), 1, "the grace begins anew with each loss");
        sleep(LEASE_GRACE / 2).await;
        assert_eq!(leases.kept(), 0);
        assert_eq!(Arc::strong_count(&file), 1, "it is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_kept_and_the_oldest_go_first() {
        let leases = Arc::new(Leases::default());
        for stamp in 0..=MAX_KEPT_PER_PEER {
            lose(hold(&leases, 1, stamp).await).await;
        }
        assert_eq!(leases.kept(), MAX_KEPT_PER_PEER);
        assert!(!leases.lock().leases.contains_key(&(peer(1), Stamp(0))));
        for of in 2..10 {
            for stamp in 0..100 {
                lose(hold(&leases, of, stamp).await).await;
            }
        }
        assert_eq!(leases.kept(), MAX_KEPT);
        assert!(leases.lock().kept().all(|((of, _), _)| *of != peer(1)), "they were the oldest");
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_come_in_any_more_and_the_end_of_the_server_cost_the_leases() {
        let leases = Arc::new(Leases::default());
        for of in 1..=2 {
            lose(hold(&leases, of, 1).await).await;
        }
        leases.forget(peer(1));
        assert!(leases.lock().kept().map(|((of, _), _)| *of).eq([peer(2)]));
        let held = hold(&leases, 3, 1).await;
        let file = held.file.clone();
        leases.end();
        assert_eq!(leases.kept(), 0);
        lose(held).await;
        assert_eq!((leases.kept(), Arc::strong_count(&file)), (0, 1), "nothing is kept after the end");
    }
}
