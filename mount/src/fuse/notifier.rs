//! Tells the kernel to drop what it caches.
//!
//! The kernel may hold up such a message: dropping bytes waits for reads of them that are under way, dropping a name
//! waits for calls in its directory. So messages are sent from threads that do nothing else, and never from one
//! that answers requests. There are two, because a read can wait for the network for long, and names and attributes of
//! other files shall not wait with it.
//!
//! What is waiting to be sent is kept once, however often it is asked for: the queue never holds more than there are
//! names and inodes. Dropping attributes is repeated a while later: a lookup whose answer left before the change, but
//! which the kernel had not noted yet when the first message came, would otherwise be believed for its whole TTL.

use farshore_engine::Ino;
use farshore_engine::path::Name;
use fuser::INodeNo;
use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::hash::Hash;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// When dropping attributes is repeated: long after any lookup that was under way has been noted.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// Something that the kernel must not believe any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Invalidation {
    /// The attributes of an inode, and with `data` its bytes (a directory's listing, a symlink's target) too.
    Inode {
        /// Which.
        ino: Ino,
        /// Whether the bytes changed.
        data: bool,
    },
    /// What stands under a name, or that nothing does.
    Entry {
        /// In which directory.
        parent: Ino,
        /// Which name.
        name: Name,
    },
}

/// Where invalidations are put. Clones put them into the same queue.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    shared: Arc<Shared>,
}

impl Notifier {
    /// Queues `invalidation` and returns at once. After the mount has ended it does nothing.
    pub fn send(&self, invalidation: Invalidation) {
        let mut queue = self.shared.lock();
        if queue.closed {
            return;
        }
        queue.push(invalidation);
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Starts the threads that send, with `kernel`. They end with [`Sending::stop`].
    pub(super) fn start(&self, kernel: &fuser::Notifier) -> io::Result<Sending> {
        let mut sending = Sending { shared: Arc::clone(&self.shared), threads: Vec::new() };
        for lane in [Lane::Names, Lane::Bytes] {
            let (shared, kernel) = (Arc::clone(&self.shared), kernel.clone());
            let run = move || {
                while let Some(message) = shared.next(lane) {
                    message.send(&kernel);
                }
            };
            sending.threads.push(thread::Builder::new().name(lane.thread_name().to_owned()).spawn(run)?);
        }
        Ok(sending)
    }
}

/// The threads that send. Dropping it stops them.
#[derive(Debug)]
pub(super) struct Sending {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Sending {
    /// Ends the threads and waits for them. What is still queued is dropped. Only once the kernel's side is gone, so
    /// that no message can be held up.
    pub(super) fn stop(self) {}
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.shared.lock().close();
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that sends invalidations panicked");
            }
        }
    }
}

/// Which messages wait for each other.
#[derive(Debug, Clone, Copy)]
enum Lane {
    /// Names and attributes: quick.
    Names,
    /// Bytes: may have to wait for a read.
    Bytes,
}

impl Lane {
    fn thread_name(self) -> &'static str {
        match self {
            Lane::Names => "farshore-names",
            Lane::Bytes => "farshore-bytes",
        }
    }
}

/// One message to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Message {
    Entry(Ino, Name),
    Attributes(Ino),
    Bytes(Ino),
}

impl Message {
    fn send(&self, kernel: &fuser::Notifier) {
        let sent = match self {
            Message::Entry(parent, name) => kernel.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name.as_bytes())),
            // A negative offset leaves the bytes alone.
            Message::Attributes(ino) => kernel.inval_inode(INodeNo(ino.0), -1, 0),
            Message::Bytes(ino) => kernel.inval_inode(INodeNo(ino.0), 0, 0),
        };
        // That the kernel does not know the inode or the name is no error. What else it says comes with the end of
        // the mount.
        if let Err(error) = sent {
            tracing::debug!(%error, message = ?self, "the kernel did not take an invalidation");
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next message of `lane`; `None` when there will be none any more.
    fn next(&self, lane: Lane) -> Option<Message> {
        let mut queue = self.lock();
        while !queue.closed {
            let now = Instant::now();
            if let Some(message) = queue.pop(lane, now) {
                return Some(message);
            }
            queue = match (lane, queue.next_repeat()) {
                (Lane::Names, Some(due)) => {
                    let wait = due.saturating_duration_since(now);
                    self.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                (Lane::Names, None) | (Lane::Bytes, _) => {
                    self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
        None
    }
}

/// What is to be sent.
#[derive(Debug, Default)]
struct Queue {
    entries: Once<(Ino, Name)>,
    attributes: Once<Ino>,
    bytes: Once<Ino>,
    /// Attributes that are dropped once more, the earliest first.
    repeats: Once<Ino>,
    /// When each of `repeats` is due, in the same order.
    due: VecDeque<Instant>,
    closed: bool,
}

impl Queue {
    fn push(&mut self, invalidation: Invalidation) {
        match invalidation {
            Invalidation::Entry { parent, name } => {
                self.entries.push((parent, name));
            }
            Invalidation::Inode { ino, data } => {
                // Attributes go first, also for bytes: as soon as the kernel sees new ones it drops the bytes itself.
                self.attributes.push(ino);
                if data {
                    self.bytes.push(ino);
                }
            }
        }
    }

    fn pop(&mut self, lane: Lane, now: Instant) -> Option<Message> {
        match lane {
            Lane::Bytes => self.bytes.pop().map(Message::Bytes),
            Lane::Names => {
                if let Some((parent, name)) = self.entries.pop() {
                    return Some(Message::Entry(parent, name));
                }
                if let Some(ino) = self.attributes.pop() {
                    if self.repeats.push(ino) {
                        self.due.push_back(now + REPEAT_AFTER);
                    }
                    return Some(Message::Attributes(ino));
                }
                self.next_repeat().filter(|due| *due <= now)?;
                self.due.pop_front();
                self.repeats.pop().map(Message::Attributes)
            }
        }
    }

    fn next_repeat(&self) -> Option<Instant> {
        self.due.front().copied()
    }

    fn close(&mut self) {
        *self = Queue { closed: true, ..Queue::default() };
    }
}

/// A queue in which everything stands at most once.
#[derive(Debug)]
struct Once<T> {
    order: VecDeque<T>,
    present: HashSet<T>,
}

impl<T> Default for Once<T> {
    fn default() -> Once<T> {
        Once { order: VecDeque::new(), present: HashSet::new() }
    }
}

impl<T: Clone + Eq + Hash> Once<T> {
    /// Whether it was not there yet.
    fn push(&mut self, item: T) -> bool {
        let is_new = self.present.insert(item.clone());
        if is_new {
            self.order.push_back(item);
        }
        is_new
    }

    fn pop(&mut self) -> Option<T> {
        let item = self.order.pop_front()?;
        self.present.remove(&item);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn everything_waits_once_and_names_go_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for _ in 0..1000 {
            queue.push(Invalidation::Inode { ino: Ino(5), data: false });
            queue.push(Invalidation::Inode { ino: Ino(5), data: true });
            queue.push(Invalidation::Entry { parent: Ino(1), name: name("a") });
        }
        assert_eq!(queue.pop(Lane::Names, now), Some(Message::Entry(Ino(1), name("a"))));
        assert_eq!(queue.pop(Lane::Names, now), Some(Message::Attributes(Ino(5))));
        assert_eq!(queue.pop(Lane::Names, now), None);
        assert_eq!(queue.pop(Lane::Bytes, now), Some(Message::Bytes(Ino(5))));
        assert_eq!(queue.pop(Lane::Bytes, now), None);
    }

    #[test]
    fn what_was_sent_can_be_queued_again() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for _ in 0..2 {
            queue.push(Invalidation::Entry { parent: Ino(1), name: name("a") });
            assert!(queue.pop(Lane::Names, now).is_some());
        }
    }

    #[test]
    fn attributes_are_dropped_once_more_later() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(Invalidation::Inode { ino: Ino(5), data: false });
        assert_eq!(queue.pop(Lane::Names, now), Some(Message::Attributes(Ino(5))));
        assert_eq!(queue.pop(Lane::Names, now), None);
        assert_eq!(queue.next_repeat(), Some(now + REPEAT_AFTER));
        assert_eq!(queue.pop(Lane::Names, now + REPEAT_AFTER), Some(Message::Attributes(Ino(5))));
        assert_eq!(queue.next_repeat(), None, "only once");
        assert_eq!(queue.pop(Lane::Names, now + REPEAT_AFTER * 9), None);
    }

    #[test]
    fn nothing_is_kept_after_the_end() {
        let notifier = Notifier::default();
        notifier.send(Invalidation::Inode { ino: Ino(5), data: true });
        notifier.shared.lock().close();
        notifier.send(Invalidation::Inode { ino: Ino(6), data: true });
        assert_eq!(notifier.shared.next(Lane::Bytes), None);
        assert_eq!(notifier.shared.lock().bytes.order.len(), 0);
    }
}
