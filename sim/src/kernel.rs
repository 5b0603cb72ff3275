//! The fake kernel: asks the node what the real one would ask on behalf of programs, and checks every answer.
//!
//! What it insists on, whatever the network and the disks do: a question about names is answered at once; a read is
//! answered by its deadline; a read that succeeds has every byte that was asked for up to the end of the file, all of
//! one version, and that version is one that the reader's tree showed between question and answer.

use crate::folder::{SimFolder, Version, name};
use crate::history::History;
use farshore::node::{Answer, Node};
use farshore_engine::path::RelPath;
use farshore_engine::{Attr, ContentId, DirEntry, DirEntryName, Errno, Handle, Ino, Reply, Request};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The clock of the simulated world counts whole milliseconds, so a deadline may be seen this much late.
const CLOCK_STEP: Duration = Duration::from_millis(2);

/// What one call of `readdir` takes, in bytes.
const READDIR_BYTES: u32 = 32 * 1024;

/// The fake kernel of one reader. Clones share it.
#[derive(Clone)]
pub struct Kernel {
    node: Arc<Node>,
    folder: SimFolder,
    history: History,
    host: &'static str,
    read_timeout: Duration,
    /// Lookups that were counted and not forgotten yet.
    known: Arc<Mutex<BTreeMap<Ino, u64>>>,
}

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFile {
    /// Its inode.
    pub ino: Ino,
    /// This open of it.
    pub handle: Handle,
}

/// The answer to a read: bytes that were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// How many bytes.
    pub len: u64,
    /// Of which version they are.
    pub version: Version,
    /// How long it took.
    pub took: Duration,
}

impl Kernel {
    /// A kernel that asks `node`, whose reads are answered within `read_timeout`, and compares with `folder`.
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        folder: SimFolder,
        history: History,
        host: &'static str,
        read_timeout: Duration,
    ) -> Kernel {
        Kernel { node, folder, history, host, read_timeout, known: Arc::default() }
    }

    /// The node that is asked.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Asks what must be answered at once.
    ///
    /// # Errors
    /// What the node answers.
    fn ask_now(&self, request: Request) -> Result<Reply, Errno> {
        let answered = Arc::new(Mutex::new(None));
        let slot = answered.clone();
        self.node.ask(request.clone(), move |result| *lock(&slot) = Some(result));
        let taken = lock(&answered).take();
        match taken {
            Some(Ok(Answer::Reply(reply))) => Ok(reply),
            Some(Err(errno)) => Err(errno),
            Some(Ok(Answer::Bytes(_))) => panic!("bytes in answer to {request:?}"),
            None => panic!("{request:?} waits, and must not"),
        }
    }

    /// What is known of an entry.
    ///
    /// # Errors
    /// What the node answers.
    pub fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        let reply = self.ask_now(Request::GetAttr { ino })?;
        let Reply::Attr(attr) = reply else { panic!("{reply:?} in answer to getattr") };
        Ok(attr)
    }

    /// Looks up every name of a path.
    ///
    /// # Errors
    /// What the node answers for the first name that it does not know.
    pub fn lookup(&self, path: &str) -> Result<Attr, Errno> {
        let mut at = self.attr(Ino::ROOT)?;
        for part in path.split('/') {
            let reply = self.ask_now(Request::Lookup { parent: at.ino, name: name(part) })?;
            let Reply::Entry(attr) = reply else { panic!("{reply:?} in answer to lookup") };
            at = attr;
            *self.known().entry(at.ino).or_default() += 1;
        }
        Ok(at)
    }

    /// Looks up a file and opens it.
    ///
    /// # Errors
    /// What the node answers.
    pub fn open(&self, path: &str) -> Result<OpenFile, Errno> {
        let ino = self.lookup(path)?.ino;
        let reply = self.ask_now(Request::Open { ino, write: false, whole_from: None })?;
        let Reply::Opened(opened) = reply else { panic!("{reply:?} in answer to open") };
        assert_eq!(opened.local, None, "{path} is not in a folder of the reader's");
        Ok(OpenFile { ino, handle: opened.handle })
    }

    /// Closes a file.
    pub fn release(&self, file: OpenFile) {
        let released = self.ask_now(Request::Release { handle: file.handle });
        assert_eq!(released, Ok(Reply::Released), "releasing {file:?}");
    }

    /// Forgets an entry.
    pub fn forget(&self, ino: Ino) {
        let lookups = self.known().remove(&ino);
        if let Some(lookups) = lookups {
            self.node.forget(ino, lookups);
        }
    }

    /// Forgets everything, as an unmount does.
    pub fn forget_all(&self) {
        let known = std::mem::take(&mut *self.known());
        for (ino, lookups) in known {
            self.node.forget(ino, lookups);
        }
    }

    /// Reads, and checks what it gets.
    ///
    /// # Errors
    /// What the node answers.
    ///
    /// # Panics
    /// If the answer is late, short, or holds a wrong byte.
    pub async fn read(&self, file: OpenFile, offset: u64, len: u32) -> Result<Checked, Errno> {
        let before = self.attr(file.ino)?;
        let asked_at = Instant::now();
        let request = Request::Read { handle: file.handle, offset, len };
        let answer = tokio::time::timeout(self.read_timeout + CLOCK_STEP, self.node.ask_and_wait(request)).await;
        let took = asked_at.elapsed();
        let what = format!("read of {len} at {offset} of {} through handle {}", file.ino, file.handle);
        let answer = answer.unwrap_or_else(|_| panic!("no answer within {:?} to a {what}", self.read_timeout));
        let bytes = match answer {
            Ok(Answer::Bytes(bytes)) => bytes,
            Ok(Answer::Reply(reply)) => panic!("{reply:?} in answer to a {what}"),
            Err(errno) => {
                self.history.note(self.host, format_args!("{errno:?} after {took:?}: {what}"));
                return Err(errno);
            }
        };
        let mut buffer = vec![0; bytes.len()];
        if let Err(error) = bytes.read_into(&mut buffer) {
            panic!("an answer without bytes ({error}) to a {what}");
        }
        let after = self.attr(file.ino)?;
        let candidates = self.folder.versions_between(&before, &after);
        // Versions may have bytes in common.
        let right = candidates.iter().filter(|version| is_right(version, offset, len, &buffer));
        let Some(version) = right.max_by_key(|version| version.order) else {
            let wrong: Vec<_> =
                candidates.iter().map(|v| (v.text, v.size_bytes, v.text.first_difference(offset, &buffer))).collect();
            panic!(
                "{} bytes that no version holds, in answer to a {what}; (version, size, first wrong byte): {wrong:?}",
                buffer.len()
            );
        };
        let hash = xxhash_rust::xxh3::xxh3_64(&buffer);
        let got = buffer.len();
        self.history.note(self.host, format_args!("{got} bytes {hash:016x} after {took:?}: {what}"));
        Ok(Checked { len: got as u64, version: *version, took })
    }

    /// Reads a file from front to back in pieces of `piece` bytes. Returns how many bytes it has.
    ///
    /// # Errors
    /// The first that the node answers.
    pub async fn read_to_end(&self, file: OpenFile, piece: u32) -> Result<u64, Errno> {
        let mut at = 0;
        loop {
            let read = self.read(file, at, piece).await?;
            at += read.len;
            if read.len < u64::from(piece) {
                return Ok(at);
            }
        }
    }

    /// Opens a file, reads all of it, checks that this is the newest version, and closes it.
    ///
    /// # Errors
    /// The first that the node answers.
    pub async fn read_file(&self, path: &str, piece: u32) -> Result<u64, Errno> {
        let file = self.open(path)?;
        let result = self.read_to_end(file, piece).await;
        self.release(file);
        result
    }

    /// Has all bytes of a file fetched and kept, as `farshore get` does.
    ///
    /// # Errors
    /// What the node answers.
    pub async fn fetch_all(&self, file: OpenFile) -> Result<ContentId, Errno> {
        let reply = self.node.reply(Request::FetchAll { handle: file.handle }).await?;
        let Reply::Fetched(content) = reply else { panic!("{reply:?} in answer to a whole-file fetch") };
        Ok(content)
    }

    /// Has a file, or all that a directory holds, fetched, and keeps it.
    ///
    /// # Errors
    /// What the node answers.
    pub fn pin(&self, path: RelPath) -> Result<(), Errno> {
        let reply = self.ask_now(Request::Pin { path })?;
        assert_eq!(reply, Reply::Pinned);
        Ok(())
    }

    /// Takes a pin back.
    ///
    /// # Errors
    /// What the node answers.
    pub fn unpin(&self, path: RelPath) -> Result<(), Errno> {
        let reply = self.ask_now(Request::Unpin { path })?;
        assert_eq!(reply, Reply::Unpinned);
        Ok(())
    }

    /// Lets go of what is stored of a file, or of all that a directory holds. Returns how many bytes that were.
    ///
    /// # Errors
    /// What the node answers.
    pub fn evict(&self, path: RelPath) -> Result<u64, Errno> {
        let reply = self.ask_now(Request::Evict { path })?;
        let Reply::Evicted { freed_bytes, .. } = reply else { panic!("{reply:?} in answer to evict") };
        Ok(freed_bytes)
    }

    /// Lists a directory in as many calls as that takes, with attributes; `between` runs between the calls.
    ///
    /// # Errors
    /// What the node answers.
    pub fn list(&self, ino: Ino, mut between: impl FnMut()) -> Result<Vec<DirEntry>, Errno> {
        let mut listed: Vec<DirEntry> = Vec::new();
        loop {
            let after = listed.last().map_or(0, |entry| entry.cookie);
            let request = Request::ReadDir { ino, after, budget_bytes: READDIR_BYTES, plus: true };
            let reply = self.ask_now(request)?;
            let Reply::Entries(entries) = reply else { panic!("{reply:?} in answer to readdir") };
            if entries.is_empty() {
                return Ok(listed);
            }
            for entry in &entries {
                if matches!(entry.name, DirEntryName::Name(_)) {
                    *self.known().entry(entry.attr.ino).or_default() += 1;
                }
            }
            listed.extend(entries);
            between();
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Ino, u64>> {
        lock(&self.known)
    }
}

/// Whether `got` is all that a version has of a range.
fn is_right(version: &Version, offset: u64, len: u32, got: &[u8]) -> bool {
    let end = (offset + u64::from(len)).min(version.size_bytes);
    got.len() as u64 == end.saturating_sub(offset) && version.text.first_difference(offset, got).is_none()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
