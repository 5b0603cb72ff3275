//! What applications do on a host of a [`World`], and the end of every test: everything agrees, everything is read,
//! everything is let go of.

use super::host::HostId;
use super::world::World;
use crate::ids::{Handle, Ino, ReqId};
use crate::input::{Input, Request};
use crate::output::{Attr, DirEntry, Errno, Opened, Reply};
use crate::path::RelPath;
use core::time::Duration;

/// Bytes asked for with one read by those who read everything.
const READ_LEN: u32 = 1024 * 1024;

/// A path from text, for tests.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

impl World {
    /// Looks up a path, one name after the other, as the kernel does.
    ///
    /// # Errors
    /// What the first name that is not found says.
    pub fn lookup(&mut self, at: HostId, path: &RelPath) -> Result<Attr, Errno> {
        let mut found = self.stat(at, Ino::ROOT)?;
        for name in path.names() {
            let request = Request::Lookup { parent: found.ino, name: name.clone() };
            match self.ask_now(at, request)? {
                Reply::Entry(attr) => found = attr,
                other => panic!("a lookup was answered with {other:?}"),
            }
        }
        Ok(found)
    }

    /// Asks for attributes.
    ///
    /// # Errors
    /// What the engine says.
    pub fn stat(&mut self, at: HostId, ino: Ino) -> Result<Attr, Errno> {
        match self.ask_now(at, Request::GetAttr { ino })? {
            Reply::Attr(attr) => Ok(attr),
            other => panic!("a stat was answered with {other:?}"),
        }
    }

    /// Looks up a path and opens what is there.
    ///
    /// # Errors
    /// What the engine says.
    pub fn open(&mut self, at: HostId, path: &RelPath) -> Result<Handle, Errno> {
        let ino = self.lookup(at, path)?.ino;
        self.open_ino(at, ino)
    }

    /// Opens an entry that was looked up before.
    ///
    /// # Errors
    /// What the engine says.
    pub fn open_ino(&mut self, at: HostId, ino: Ino) -> Result<Handle, Errno> {
        match self.ask_now(at, Request::Open { ino, write: false, whole_from: self.whole_from })? {
            Reply::Opened(Opened { handle, .. }) => Ok(handle),
            other => panic!("an open was answered with {other:?}"),
        }
    }

    /// Begins a read.
    pub fn read(&mut self, at: HostId, handle: Handle, offset: u64, len: u32) -> ReqId {
        self.ask(at, Request::Read { handle, offset, len })
    }

    /// How a read ended, if it has.
    #[must_use]
    pub fn answer(&self, at: HostId, read: ReqId) -> Option<&Result<Vec<u8>, Errno>> {
        self.hosts[at].kernel.reads.get(&read)
    }

    /// Reads, and lets time pass until the answer is there.
    ///
    /// # Errors
    /// What the engine says.
    pub fn read_now(&mut self, at: HostId, handle: Handle, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
        let id = self.read(at, handle, offset, len);
        let answered = self.drive_bounded(Duration::from_secs(120), |world| world.answer(at, id).is_some());
        assert!(answered, "a read was never answered");
        self.hosts[at].kernel.reads.remove(&id).unwrap_or(Err(Errno::Io))
    }

    /// Reads a file from its beginning to its end.
    ///
    /// # Errors
    /// What the first read that fails says.
    pub fn read_whole(&mut self, at: HostId, handle: Handle) -> Result<Vec<u8>, Errno> {
        let mut bytes = Vec::new();
        loop {
            let more = self.read_now(at, handle, bytes.len() as u64, READ_LEN)?;
            if more.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&more);
        }
    }

    /// Begins to fetch a whole file.
    pub fn fetch_all(&mut self, at: HostId, handle: Handle) -> ReqId {
        self.ask(at, Request::FetchAll { handle })
    }

    /// Lists a directory, with answers of at most `budget_bytes`.
    ///
    /// # Errors
    /// What the engine says.
    pub fn list(&mut self, at: HostId, ino: Ino, budget_bytes: u32, plus: bool) -> Result<Vec<DirEntry>, Errno> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            match self.ask_now(at, Request::ReadDir { ino, after, budget_bytes, plus })? {
                Reply::Entries(entries) => match entries.last() {
                    Some(last) => {
                        after = last.cookie;
                        all.extend(entries);
                    }
                    None => return Ok(all),
                },
                other => panic!("a listing was answered with {other:?}"),
            }
        }
    }

    /// Closes a handle.
    ///
    /// # Errors
    /// What the engine says.
    pub fn release(&mut self, at: HostId, handle: Handle) -> Result<(), Errno> {
        self.hosts[at].kernel.releasing = Some(handle);
        let released = self.ask_now(at, Request::Release { handle }).map(drop);
        self.hosts[at].kernel.releasing = None;
        released
    }

    /// Has the kernel forget an entry, if nothing of it is open.
    pub fn forget(&mut self, at: HostId, ino: Ino) {
        if self.hosts[at].kernel.handles.values().any(|open| open.ino == ino) {
            return;
        }
        let lookups = self.hosts[at].kernel.forget(ino);
        if lookups > 0 {
            self.input(at, Input::Forget { ino, lookups });
        }
    }

    /// Closes every handle and forgets every entry.
    pub fn let_go(&mut self, at: HostId) {
        let handles: Vec<Handle> = self.hosts[at].kernel.handles.keys().copied().collect();
        for handle in handles {
            let released = self.release(at, handle);
            assert_eq!(released, Ok(()), "handle {handle} of host {at}");
        }
        let inos: Vec<Ino> = self.hosts[at].kernel.lookups.keys().copied().collect();
        for ino in inos {
            self.forget(at, ino);
        }
    }

    /// Mends everything, waits until all is quiet, and then asks for everything: all hosts agree, every byte of every
    /// file can be read and is right, and nothing is left behind.
    pub fn settle(&mut self) {
        self.heal_all();
        let rest = self.aftermath_ends() - self.now + Duration::from_secs(1);
        self.drive_for(rest);
        self.drive();
        self.check_converged();
        for (follower, owner) in self.follows.clone() {
            self.read_everything(follower, owner);
        }
        self.drive();
        self.check_converged();
        for at in 0..self.hosts.len() {
            self.let_go(at);
        }
        self.drive();
        self.check_converged();
        self.check_let_go();
    }

    fn read_everything(&mut self, follower: HostId, owner: HostId) {
        let files: Vec<RelPath> =
            self.hosts[owner].folder.files().filter(|path| self.hosts[owner].offers(path)).cloned().collect();
        for (index, path) in files.iter().enumerate() {
            let Some(inode) = self.hosts[owner].folder.inode_at(path) else { continue };
            let expected = self.hosts[owner].folder.read(inode, 0, u64::MAX).unwrap_or_default();
            let handle = self.open(follower, path).unwrap_or_else(|errno| panic!("{path} cannot be opened: {errno:?}"));
            if index % 2 == 0 {
                let id = self.fetch_all(follower, handle);
                self.drive();
                let fetched = self.hosts[follower].kernel.fetches.get(&id);
                assert!(matches!(fetched, Some(Ok(_))), "{path} cannot be fetched: {fetched:?}");
            }
            let bytes = self.read_whole(follower, handle);
            let bytes = bytes.unwrap_or_else(|errno| panic!("{path} cannot be read: {errno:?}"));
            assert!(bytes == expected, "{path} has other bytes on host {follower} than on host {owner}");
            let released = self.release(follower, handle);
            assert_eq!(released, Ok(()));
        }
    }
}
