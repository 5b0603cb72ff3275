//! Files that programs may be writing through a memory map.
//!
//! What a program writes into a map of a file that the kernel writes by itself nobody hears of: not the kernel, as far as it
//! remembers the file's attributes for us, and not who watches the folder. So as long as a program has such a file open for
//! reading and writing, which a map that can be written takes, it is looked at from time to time. When it is closed,
//! or the last map of it is gone, there is a notice like for any other.

use super::files::OpenFile;
use super::volume::Live;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long nobody looks.
const PAUSE: Duration = Duration::from_millis(500);

/// The files that are looked at, by their handles.
#[derive(Default)]
pub(super) struct Mapped {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: BTreeMap<u64, Arc<OpenFile>>,
    /// There was nothing to look at for a while, and whoever looks waits to be woken.
    is_resting: bool,
    has_ended: bool,
}

impl Mapped {
    /// From now on a file is looked at.
    pub(super) fn add(&self, handle: u64, file: Arc<OpenFile>) {
        let mut state = self.lock();
        state.open.insert(handle, file);
        if std::mem::take(&mut state.is_resting) {
            self.changed.notify_all();
        }
    }

    /// Not any more.
    pub(super) fn remove(&self, handle: u64) {
        self.lock().open.remove(&handle);
    }

    /// Waits until it is time to look. Returns at what; `None` when it is over.
    fn next(&self) -> Option<Vec<Arc<OpenFile>>> {
        let mut state = self.lock();
        let (waited, _) = self
            .changed
            .wait_timeout_while(state, PAUSE, |state| !state.has_ended)
            .unwrap_or_else(PoisonError::into_inner);
        state = waited;
        state.is_resting = state.open.is_empty();
        state = self
            .changed
            .wait_while(state, |state| state.is_resting && !state.has_ended)
            .unwrap_or_else(PoisonError::into_inner);
        (!state.has_ended).then(|| state.open.values().cloned().collect())
    }

    fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that looks. Dropping it ends it.
pub(super) struct Looking {
    folder: Arc<Live>,
    thread: Option<JoinHandle<()>>,
}

impl Looking {
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(folder: Arc<Live>) -> io::Result<Looking> {
        // An earlier attempt to mount it may have failed.
        folder.mapped.lock().has_ended = false;
        let looked_at = Arc::clone(&folder);
        let look = move || {
            while let Some(files) = looked_at.mapped.next() {
                files.iter().for_each(|file| looked_at.tell_if_untold(file));
            }
        };
        let thread = thread::Builder::new().name("farshore-maps".to_owned()).spawn(look)?;
        Ok(Looking { folder, thread: Some(thread) })
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.folder.mapped.end();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that looks at mapped files panicked");
        }
    }
}
