//! Which files are held open for whom.
//!
//! All streams of one peer on the same version of the same file share one opened file. So a stream that is opened
//! after the file lost its name still works, as long as another one holds it.

use crate::folder::{ServeError, ServedBytes};
use farshore_engine::PeerId;
use farshore_engine::path::RelPath;
use farshore_engine::record::Stamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::OnceCell;

/// Who reads which version of what.
type Key = (PeerId, Stamp, RelPath);

/// The leases of a server.
#[derive(Default)]
pub(super) struct Leases(Mutex<BTreeMap<Key, Weak<Lease>>>);

/// An opened file, for as long as somebody holds this.
pub(super) struct Lease {
    key: Key,
    table: Arc<Leases>,
    bytes: OnceCell<Arc<dyn ServedBytes>>,
}

impl Leases {
    /// The lease of `peer` on a file; `open` opens it unless that peer holds it already.
    pub(super) async fn hold<F>(
        self: &Arc<Self>,
        peer: PeerId,
        path: RelPath,
        stamp: Stamp,
        open: impl FnOnce(RelPath) -> F,
    ) -> Result<Arc<Lease>, ServeError>
    where
        F: Future<Output = Result<Arc<dyn ServedBytes>, ServeError>>,
    {
        let lease = self.find(peer, path.clone(), stamp);
        lease.bytes.get_or_try_init(|| open(path)).await?;
        Ok(lease)
    }

    fn find(self: &Arc<Self>, peer: PeerId, path: RelPath, stamp: Stamp) -> Arc<Lease> {
        let key = (peer, stamp, path);
        let mut table = self.lock();
        if let Some(lease) = table.get(&key).and_then(Weak::upgrade) {
            return lease;
        }
        let lease = Arc::new(Lease { key: key.clone(), table: self.clone(), bytes: OnceCell::new() });
        table.insert(key, Arc::downgrade(&lease));
        lease
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Weak<Lease>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The opened file.
    pub(super) fn bytes(&self) -> Option<Arc<dyn ServedBytes>> {
        self.bytes.get().cloned()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        // Another one may have taken the place in the meantime.
        if table.get(&self.key).is_some_and(|lease| lease.strong_count() == 0) {
            table.remove(&self.key);
        }
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

    async fn hold(leases: &Arc<Leases>, peer: u8, stamp: u64) -> Result<Arc<Lease>, ServeError> {
        let open = |_| async { Ok(Arc::new(Nothing) as Arc<dyn ServedBytes>) };
        leases.hold(PeerId([peer; 32]), RelPath::parse(b"a").unwrap(), Stamp(stamp), open).await
    }

    #[tokio::test]
    async fn a_file_is_opened_once_per_peer_and_version_and_forgotten_with_its_last_holder() {
        let leases = Arc::new(Leases::default());
        let first = hold(&leases, 1, 1).await.unwrap();
        let second = hold(&leases, 1, 1).await.unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &hold(&leases, 2, 1).await.unwrap()), "another peer");
        assert!(!Arc::ptr_eq(&first, &hold(&leases, 1, 2).await.unwrap()), "another version");
        drop(first);
        assert_eq!(leases.lock().len(), 1);
        drop(second);
        assert!(leases.lock().is_empty());
    }

    #[tokio::test]
    async fn a_failure_to_open_is_not_remembered() {
        let leases = Arc::new(Leases::default());
        let path = RelPath::parse(b"a").unwrap();
        let failed = leases.hold(PeerId([1; 32]), path, Stamp(1), |_| async { Err(ServeError::Gone) }).await;
        assert_eq!(failed.err(), Some(ServeError::Gone));
        assert!(leases.lock().is_empty());
        assert!(hold(&leases, 1, 1).await.is_ok());
    }
}
