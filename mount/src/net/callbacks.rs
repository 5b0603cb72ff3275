//! Connections over which we can call devices that cannot be reached: they dial us a second time, and are the server there.
//!
//! Only a device that is let in over a connection of the usual kind has one, one at a time: a newer one takes the place of
//! an older one, of which we may not know yet that it is dead. It ends with the right to be here, and when nobody takes
//! it in time: whoever has made it does not wait for ever either.

use super::line::{Line, raised};
use super::transport::{Conn, Role};
use farshore_engine::PeerId;
use futures_util::FutureExt;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// How long a connection waits for somebody to take it.
const TAKE_LIMIT: Duration = Duration::from_secs(10);

/// The connections, and who is told when there is a new one.
pub struct Callbacks {
    table: Mutex<Table>,
    tell: Box<dyn Fn(PeerId, Callability) + Send + Sync>,
}

/// What is heard of a device that makes such connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callability {
    /// It can be called from now on.
    Callable,
    /// It was shown the door before anybody heard that it can be called: there is nothing to call it for.
    Dismissed,
}

#[derive(Default)]
struct Table {
    /// How many there have been.
    came: u64,
    of: BTreeMap<PeerId, Callback>,
}

struct Callback {
    number: u64,
    /// Until it is taken.
    line: Option<Line<()>>,
    /// Dropping it hangs up.
    _alive: watch::Sender<bool>,
}

/// A connection's place in the table. Dropping it hangs up.
struct Place<'a> {
    callbacks: &'a Callbacks,
    peer: PeerId,
    number: u64,
}

impl Callbacks {
    /// No connections yet. `tell` hears of each device that can be called from now on; it must not wait.
    #[must_use]
    pub fn new(tell: impl Fn(PeerId, Callability) + Send + Sync + 'static) -> Callbacks {
        Callbacks { table: Mutex::default(), tell: Box::new(tell) }
    }

    /// The connection over which `peer` can be called, if there is one that nobody has taken.
    #[must_use]
    pub fn take(&self, peer: PeerId) -> Option<Conn> {
        let line = self.lock().of.get_mut(&peer)?.line.take()?;
        Some(Conn { io: Box::new(line), peer, role: Role::Client })
    }

    /// Keeps a connection until it ends, somebody makes another one for the same device, nobody takes it in time, or
    /// `gone` ends: the device has no right to it any more. Hangs up then, also if this is dropped.
    pub(super) async fn keep(&self, conn: Conn, gone: impl Future<Output = ()>, is_dismissed: impl Fn() -> bool) {
        let peer = conn.peer;
        let (alive, ended) = watch::channel(false);
        let (line, end) = Line::new(conn.io, |_| (), raised(ended).boxed());
        let place = self.put(peer, line, alive);
        (self.tell)(peer, Callability::Callable);
        // Whoever shows a device the door ends after that what there is with it: once that is done, it must not begin anew.
        if is_dismissed() {
            return (self.tell)(peer, Callability::Dismissed);
        }
        let untaken = async {
            sleep(TAKE_LIMIT).await;
            if !place.is_waiting() {
                std::future::pending().await
            }
        };
        tokio::select! {
            biased;
            () = gone => {}
            () = end.closed() => {}
            () = untaken => tracing::debug!("{peer:?} could be called, and nobody did within {TAKE_LIMIT:?}"),
        }
    }

    fn put(&self, peer: PeerId, line: Line<()>, alive: watch::Sender<bool>) -> Place<'_> {
        let mut table = self.lock();
        table.came += 1;
        let number = table.came;
        let older = table.of.insert(peer, Callback { number, line: Some(line), _alive: alive });
        // Hung up on without the lock.
        drop(table);
        drop(older);
        Place { callbacks: self, peer, number }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    fn is_waiting(&self) -> bool {
        let table = self.callbacks.lock();
        table.of.get(&self.peer).is_some_and(|callback| callback.number == self.number && callback.line.is_some())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut table = self.callbacks.lock();
        let is_ours = table.of.get(&self.peer).is_some_and(|callback| callback.number == self.number);
        let gone = if is_ours { table.of.remove(&self.peer) } else { None };
        drop(table);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    const PEER: PeerId = PeerId([7; 32]);

    type Told = Arc<Mutex<Vec<(PeerId, Callability)>>>;

    /// A table, and how often it has told of whom.
    fn callbacks() -> (Arc<Callbacks>, Told) {
        let told = Told::default();
        let heard = told.clone();
        (Arc::new(Callbacks::new(move |peer, can| heard.lock().unwrap().push((peer, can)))), told)
    }

    /// A connection that `peer` made: its own end, the task that keeps ours, and what ends its right to it.
    async fn come(callbacks: &Arc<Callbacks>, peer: PeerId) -> (DuplexStream, JoinHandle<()>, watch::Sender<bool>) {
        let (near, far) = duplex(64);
        let (right, lost) = watch::channel(false);
        let conn = Conn { io: Box::new(near), peer, role: Role::Client };
        let callbacks = callbacks.clone();
        let kept = tokio::spawn(async move { callbacks.keep(conn, raised(lost), || false).await });
        tokio::task::yield_now().await;
        (far, kept, right)
    }

    /// That this end was hung up on.
    async fn is_cut(far: &mut DuplexStream) -> bool {
        far.read(&mut [0]).await.is_ok_and(|read| read == 0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_taken_once_and_carries_bytes() {
        let (callbacks, told) = callbacks();
        assert!(callbacks.take(PEER).is_none());
        let (mut far, kept, _right) = come(&callbacks, PEER).await;
        assert_eq!(*told.lock().unwrap(), [(PEER, Callability::Callable)]);
        assert!(callbacks.take(PeerId([8; 32])).is_none(), "that is somebody else");
        let mut near = callbacks.take(PEER).unwrap();
        assert_eq!((near.peer, near.role), (PEER, Role::Client));
        assert!(callbacks.take(PEER).is_none());
        sleep(TAKE_LIMIT * 9).await;
        near.io.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello", "who was taken in time stays");
        drop(near);
        kept.await.unwrap();
        assert!(callbacks.lock().of.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_one_takes_the_place_of_an_older_one_whether_that_was_taken_or_not() {
        for is_taken in [false, true] {
            let (callbacks, told) = callbacks();
            let (mut older, kept, _right) = come(&callbacks, PEER).await;
            let taken = is_taken.then(|| callbacks.take(PEER).unwrap());
            let (_other, _kept, _right) = come(&callbacks, PeerId([8; 32])).await;
            let (mut newer, _kept, _right) = come(&callbacks, PEER).await;
            assert_eq!(told.lock().unwrap().len(), 3);
            if let Some(mut taken) = taken {
                assert!(taken.io.read(&mut [0]).await.is_err(), "hung up on");
            }
            assert!(is_cut(&mut older).await);
            kept.await.unwrap();
            let mut near = callbacks.take(PEER).expect("the end of the older one is not that of the newer one");
            newer.write_all(b"x").await.unwrap();
            assert_eq!(near.io.read_u8().await.unwrap(), b'x');
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_right_to_be_here() {
        for is_taken in [false, true] {
            let (callbacks, _) = callbacks();
            let (mut far, kept, right) = come(&callbacks, PEER).await;
            let taken = is_taken.then(|| callbacks.take(PEER).unwrap());
            right.send_replace(true);
            kept.await.unwrap();
            if let Some(mut taken) = taken {
                assert!(taken.io.read(&mut [0]).await.is_err(), "hung up on");
            }
            assert!(is_cut(&mut far).await && callbacks.take(PEER).is_none());
        }
    }

    /// The device is shown the door while its connection is on its way, and whoever did that has ended all that there is with it.
    #[tokio::test(start_paused = true)]
    async fn who_was_dismissed_before_it_could_be_called_is_not_followed_from_then_on() {
        let (callbacks, told) = callbacks();
        let (near, mut far) = duplex(64);
        let conn = Conn { io: Box::new(near), peer: PEER, role: Role::Client };
        callbacks.keep(conn, std::future::pending(), || true).await;
        assert_eq!(*told.lock().unwrap(), [(PEER, Callability::Callable), (PEER, Callability::Dismissed)]);
        assert!(is_cut(&mut far).await && callbacks.take(PEER).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_takes_in_time_is_hung_up_on_and_so_are_all_at_the_end() {
        let (callbacks, _) = callbacks();
        let (mut far, kept, _right) = come(&callbacks, PEER).await;
        sleep(TAKE_LIMIT - Duration::from_secs(1)).await;
        assert!(!kept.is_finished());
        kept.await.unwrap();
        assert!(is_cut(&mut far).await && callbacks.take(PEER).is_none());
        let (mut far, kept, _right) = come(&callbacks, PEER).await;
        kept.abort();
        assert!(kept.await.is_err() && is_cut(&mut far).await && callbacks.take(PEER).is_none());
    }
}
