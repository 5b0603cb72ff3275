//! A mount from its beginning to its end.
//!
//! It ends when it is unmounted by us or by anybody else, when its connection is cut, or when its threads fail. The
//! end is the same in every case: nothing stays in the mount table, all threads end, and whoever waits hears of it.

use super::device;
use super::error::MountError;
use super::filesystem::FileSystem;
use super::host::Host;
use super::mountinfo::Mount;
use super::mountpoint;
use super::notifier::{Notifier, Sending};
use super::options::MountOptions;
use super::stats::Stats;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long [`Mounted::unmount`] waits for the threads to end. They end at once, unless this user may not cut the
/// connection and a program keeps a file open.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(2);

/// A mount that is up. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    mount: Mount,
    notifier: Notifier,
    stats: Arc<Stats>,
    ending: Arc<Ending>,
    /// Waits for all others. Taken when it has been joined.
    thread: Option<JoinHandle<()>>,
}

/// How a mount ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was unmounted, by us or by somebody else, or its connection was cut.
    Unmounted,
    /// Its threads could not go on, for this reason.
    Failed(String),
}

impl Mounted {
    /// Mounts what `host` has on `mountpoint`, an empty directory, and serves it in threads of its own.
    ///
    /// # Errors
    /// What is wrong with the mountpoint or with the machine, and what to do about it.
    pub fn mount<H: Host>(host: Arc<H>, mountpoint: &Path, options: MountOptions) -> Result<Mounted, MountError> {
        let for_notices = Arc::clone(&host);
        let passthrough_from_bytes = options.passthrough_from_bytes;
        let owner = options.owner;
        let make = move |stats| FileSystem::new(host, owner, passthrough_from_bytes, stats);
        Mounted::serve(mountpoint, options, make, move |notifier| for_notices.mounted(notifier))
    }

    /// Mounts what `make` makes, and tells `mounted`, before the first request, where to put what the kernel must not
    /// believe any more.
    ///
    /// # Errors
    /// As [`Mounted::mount`].
    pub(crate) fn serve<F: fuser::Filesystem>(
        mountpoint: &Path,
        options: MountOptions,
        make: impl FnOnce(Arc<Stats>) -> F,
        mounted: impl FnOnce(Notifier),
    ) -> Result<Mounted, MountError> {
        let path = mountpoint::prepare(mountpoint)?;
        let connection = device::mount(&path, &options)?;
        let Some(mount) = mountpoint::find(&path)?.filter(Mount::is_farshore) else {
            // Somebody was quick to unmount it, or to mount over it.
            return Err(MountError::NotMounted(path));
        };
        match start(make, mounted, connection, &mount, &options) {
            Ok(mounted) => {
                raise_read_ahead(&mount, options.read_ahead_kib);
                Ok(mounted)
            }
            Err(error) => {
                mountpoint::detach(&mount)?;
                Err(MountError::System { doing: "serve", path, error })
            }
        }
    }

    /// Where it is mounted: absolute, without symlinks.
    #[must_use]
    pub fn mountpoint(&self) -> &PathBuf {
        &self.mount.path
    }

    /// Where to put what the kernel must not believe any more; the same as [`Host::mounted`] was given.
    #[must_use]
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// How many requests the host never answered, so far. Each was answered with EIO and is a defect of the host.
    #[must_use]
    pub fn lost_replies(&self) -> u64 {
        self.stats.lost_replies()
    }

    /// What was done so far. Stays readable after the end of the mount.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Waits until the mount has ended, whoever ends it.
    #[must_use]
    pub fn wait(&self) -> Ended {
        self.ending.wait()
    }

    /// Has `then` called when the mount has ended, by the thread that served it; now, if it has already.
    pub fn on_end(&self, then: impl FnOnce(Ended) + Send + 'static) {
        self.ending.then(Box::new(then));
    }

    /// Takes the mount down and returns promptly, whoever uses it: reads that wait fail, and so does whatever is done
    /// with files that are still open.
    ///
    /// # Errors
    /// What the system says; then it is still mounted.
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), MountError> {
        if !self.ending.has_ended() && mountpoint::is_up(&self.mount)? {
            mountpoint::detach(&self.mount)?;
        }
        if self.ending.wait_for(UNMOUNT_PATIENCE) {
            self.join();
        } else {
            let path = self.mount.path.display();
            tracing::warn!(%path, "unmounted, but programs keep files of it open; it is served until they close them");
        }
        Ok(())
    }

    /// Waits for the thread that has announced the end, unless it is this one, which drops the mount as it ends.
    fn join(&mut self) {
        let other = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id());
        if other.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that served the mount panicked");
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the mount stays behind");
        }
    }
}

/// Greets the kernel and starts every thread.
fn start<F: fuser::Filesystem>(
    make: impl FnOnce(Arc<Stats>) -> F,
    mounted: impl FnOnce(Notifier),
    connection: std::os::fd::OwnedFd,
    mount: &Mount,
    options: &MountOptions,
) -> io::Result<Mounted> {
    let stats = Arc::new(Stats::default());
    let filesystem = make(Arc::clone(&stats));
    let acl = if options.allow_other { fuser::SessionACL::All } else { fuser::SessionACL::Owner };
    let mut config = fuser::Config::default();
    config.acl = acl;
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = device::can_open();
    let session = fuser::Session::from_fd(filesystem, connection, acl, config)?;

    let notifier = Notifier::default();
    let sending = notifier.start(&session.notifier())?;
    mounted(notifier.clone());
    let ending = Arc::new(Ending::default());
    let serving = Serving { mount: mount.clone(), sending, ending: Arc::clone(&ending) };
    let serve = move || {
        let result = session.run();
        serving.finish(result);
    };
    let thread = thread::Builder::new().name("farshore-fuse".to_owned()).spawn(serve)?;
    Ok(Mounted { mount: mount.clone(), notifier, stats, ending, thread: Some(thread) })
}

/// What is left to do when the last thread that took requests has ended.
struct Serving {
    mount: Mount,
    sending: Sending,
    ending: Arc<Ending>,
}

impl Serving {
    fn finish(self, result: io::Result<()>) {
        // A connection that was cut leaves a mount behind which only says "not connected".
        if mountpoint::is_up(&self.mount).unwrap_or(false)
            && let Err(error) = mountpoint::detach(&self.mount)
        {
            tracing::error!(%error, "the mount stays behind");
        }
        self.sending.stop();
        self.ending.set(match result {
            Ok(()) => Ended::Unmounted,
            // The kernel says so if it is unmounted before the first request was answered.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ended::Unmounted,
            Err(error) => {
                tracing::error!(%error, path = %self.mount.path.display(), "serving the mount failed");
                Ended::Failed(error.to_string())
            }
        });
    }
}

/// Lets the kernel read ahead further than the 128 KiB that FUSE may ask for. Only root can; it is no loss of
/// correctness if it does not work.
fn raise_read_ahead(mount: &Mount, kib: u32) {
    let (major, minor) = mount.device;
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, kib.to_string()) {
        tracing::debug!(%error, path, "the kernel's read-ahead stays as it is");
    }
}

/// The end of a mount, for those who wait for it.
#[derive(Debug, Default)]
struct Ending {
    state: Mutex<State>,
    changed: Condvar,
}

type Then = Box<dyn FnOnce(Ended) + Send>;

enum State {
    Up(Vec<Then>),
    Down(Ended),
}

impl Default for State {
    fn default() -> State {
        State::Up(Vec::new())
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Up(waiting) => write!(f, "Up({} wait)", waiting.len()),
            State::Down(ended) => write!(f, "Down({ended:?})"),
        }
    }
}

impl Ending {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, ended: Ended) {
        let before = std::mem::replace(&mut *self.lock(), State::Down(ended.clone()));
        self.changed.notify_all();
        match before {
            State::Up(waiting) => waiting.into_iter().for_each(|then| then(ended.clone())),
            State::Down(_) => {}
        }
    }

    fn then(&self, then: Then) {
        let ended = match &mut *self.lock() {
            State::Up(waiting) => return waiting.push(then),
            State::Down(ended) => ended.clone(),
        };
        then(ended);
    }

    fn has_ended(&self) -> bool {
        matches!(*self.lock(), State::Down(_))
    }

    fn wait(&self) -> Ended {
        let mut state = self.lock();
        loop {
            match &*state {
                State::Down(ended) => return ended.clone(),
                State::Up(_) => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Whether the end came within `patience`.
    fn wait_for(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while let State::Up(_) = &*state {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
