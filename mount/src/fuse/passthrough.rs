//! Files that the kernel reads by itself, and writes where they may be written: it is given the file that holds their bytes when
//! they are opened, and neither their reads and writes nor their page faults come here any more.
//!
//! The kernel wants all opens of an inode to be alike: as long as one is open, either all name the same backing file or
//! none names any; whatever else is answered fails with EIO. So what the first open of an inode was answered is noted, and
//! given to all others until the last release. What was opened before an inode's bytes were all here stays in the page
//! cache until then, which is why an open asks the engine first: it alone knows that in the same moment
//! in which it notes the open.
//!
//! A handle is taken off here before the engine hears of its release, and put down here after the engine has heard of
//! its open. So an open that the engine has counted as the first of an inode finds nothing here of those before.

use super::filesystem::refused;
use farshore_engine::{Handle, Ino};
use fuser::{BackingId, InitFlags, KernelConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many file systems may lie one on the other below a file that the kernel reads by itself: one. Then this one can
/// itself be the lower layer of an overlay.
const MAX_STACK_DEPTH: u32 = 1;

/// What the kernel reads by itself. `Id` is what it calls a backing file; it is closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Passthrough<Id> {
    /// Smaller files are not worth it, in bytes.
    from_bytes: u64,
    /// Whether this kernel lets this process do it, as far as is known.
    is_allowed: AtomicBool,
    inodes: Mutex<BTreeMap<Ino, Inode<Id>>>,
}

/// An inode that is open.
#[derive(Debug)]
struct Inode<Id> {
    /// What the kernel reads; `None` if it asks us.
    backing: Option<Arc<Id>>,
    handles: BTreeSet<Handle>,
}

impl Passthrough<BackingId> {
    /// Tells the kernel that it is wanted, as a mount begins. It may not know how.
    ///
    /// # Errors
    /// The kernel does not take what it has offered.
    pub(crate) fn offer(&self, config: &mut KernelConfig) -> io::Result<()> {
        if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() {
            config.set_max_stack_depth(MAX_STACK_DEPTH).map_err(|nearest| refused("stack depth", nearest))?;
            self.allow();
        }
        Ok(())
    }
}

impl<Id> Passthrough<Id> {
    /// For files of at least `from_bytes`. Not allowed yet.
    pub(crate) fn new(from_bytes: u64) -> Passthrough<Id> {
        Passthrough { from_bytes, is_allowed: AtomicBool::new(false), inodes: Mutex::default() }
    }

    /// The kernel knows how.
    fn allow(&self) {
        self.is_allowed.store(true, Ordering::Relaxed);
    }

    /// From which size on, in bytes, it can be done; `None` if it cannot.
    pub(super) fn smallest_bytes(&self) -> Option<u64> {
        self.is_allowed.load(Ordering::Relaxed).then_some(self.from_bytes)
    }

    /// What to answer to the open `handle` of `ino`, whose bytes are those of `file`: the backing file, or `None` if the
    /// kernel is to ask us. `file` is asked for only if need be, and told from how many bytes on it is worth while; `register`
    /// makes it known to the kernel.
    pub(crate) fn open<F>(
        &self,
        ino: Ino,
        handle: Handle,
        file: impl FnOnce(u64) -> Option<F>,
        register: impl FnOnce(&F) -> io::Result<Id>,
    ) -> Option<Arc<Id>> {
        if let Some(inode) = self.lock().get_mut(&ino) {
            return inode.join(handle);
        }
        // This may open a file, which is nothing to hold up others for.
        let file = self.smallest_bytes().and_then(file);
        let mut inodes = self.lock();
        // Somebody else may have opened it meanwhile.
        let inode = inodes.entry(ino).or_insert_with(|| {
            let backing = file.and_then(|file| self.registered(register(&file)));
            Inode { backing, handles: BTreeSet::new() }
        });
        inode.join(handle)
    }

    fn registered(&self, result: io::Result<Id>) -> Option<Arc<Id>> {
        match result {
            Ok(id) => Some(Arc::new(id)),
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied && self.is_allowed.swap(false, Ordering::Relaxed) {
                    tracing::debug!("only root may let the kernel read files by itself; they are read through us");
                } else {
                    tracing::debug!(%error, "the kernel does not read a file by itself; it is read through us");
                }
                None
            }
        }
    }

    /// The open `handle` of `ino` is over. Nothing happens if it was never told.
    pub(crate) fn release(&self, ino: Ino, handle: Handle) {
        let mut inodes = self.lock();
        let Some(inode) = inodes.get_mut(&ino) else { return };
        inode.handles.remove(&handle);
        let last = if inode.handles.is_empty() { inodes.remove(&ino) } else { None };
        drop(inodes);
        // Closing a file may take a while; nobody waits for it.
        drop(last);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Ino, Inode<Id>>> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Id> Inode<Id> {
    fn join(&mut self, handle: Handle) -> Option<Arc<Id>> {
        self.handles.insert(handle);
        self.backing.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that counts what is registered with it.
    #[derive(Default)]
    struct Kernel(Arc<()>);

    impl Kernel {
        fn registered(&self) -> usize {
            Arc::strong_count(&self.0) - 1
        }
    }

    /// A file of so many bytes, if that is enough.
    fn file(len: u64) -> impl FnOnce(u64) -> Option<u64> {
        move |from_bytes| (len >= from_bytes).then_some(len)
    }

    fn allowed(from_bytes: u64) -> Passthrough<Arc<()>> {
        let passthrough = Passthrough::new(from_bytes);
        passthrough.allow();
        passthrough
    }

    const INO: Ino = Ino(20);

    #[test]
    fn all_opens_of_an_inode_have_one_backing_file_until_the_last_release() {
        let (passthrough, kernel) = (allowed(10), Kernel::default());
        let open =
            |ino, handle| passthrough.open(ino, Handle(handle), file(10), |_| Ok(Arc::clone(&kernel.0))).is_some();
        assert!(open(INO, 1) && open(INO, 2) && open(Ino(21), 3));
        assert_eq!(kernel.registered(), 2);
        passthrough.release(INO, Handle(1));
        assert_eq!(kernel.registered(), 2);
        passthrough.release(INO, Handle(2));
        passthrough.release(INO, Handle(2));
        assert_eq!(kernel.registered(), 1, "closed with the last one");
        assert!(open(INO, 4));
        assert_eq!(kernel.registered(), 2);
    }

    #[test]
    fn what_was_refused_once_is_not_tried_again_beside_it() {
        let (passthrough, kernel) = (allowed(0), Kernel::default());
        let refuse = |_: &u64| Err(io::ErrorKind::InvalidInput.into());
        assert!(passthrough.open(INO, Handle(1), file(1), refuse).is_none());
        let accept = || passthrough.open(INO, Handle(2), file(1), |_| Ok(Arc::clone(&kernel.0)));
        assert!(accept().is_none(), "the kernel would refuse it beside the first");
        passthrough.release(INO, Handle(1));
        passthrough.release(INO, Handle(2));
        assert!(accept().is_some());
    }

    #[test]
    fn who_may_not_is_not_asked_again() {
        let passthrough = allowed(0);
        let deny = |_: &u64| Err(io::ErrorKind::PermissionDenied.into());
        assert!(passthrough.open(INO, Handle(1), file(1), deny).is_none());
        assert_eq!(passthrough.smallest_bytes(), None);
        assert!(
            passthrough
                .open(Ino(21), Handle(2), |_| -> Option<u64> { panic!("no file is needed") }, |_| Ok(Arc::default()))
                .is_none()
        );
    }

    #[test]
    fn small_files_and_those_without_a_file_are_left_alone() {
        let passthrough = allowed(10);
        let never = |_: &u64| -> io::Result<Arc<()>> { panic!("nothing to register") };
        assert!(passthrough.open(INO, Handle(1), file(9), never).is_none());
        assert!(passthrough.open(Ino(21), Handle(2), |_| None, never).is_none());
    }
}
