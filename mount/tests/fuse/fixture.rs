//! One mount per test, and proof that nothing stays behind.

use crate::tree::Tree;
use farshore::fuse::{Ended, MountOptions, Mounted};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything that should happen soon may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Only one mount at a time, so that a thread or a mount left behind has one possible cause.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A mounted tree. Dropping it unmounts, also when the test panics.
pub(crate) struct Fixture {
    pub(crate) tree: Arc<Tree>,
    mounted: Option<Mounted>,
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Fixture {
    /// Mounts `tree`; `None` if this machine has no FUSE.
    pub(crate) fn new(tree: Tree) -> Option<Fixture> {
        Fixture::with(tree, MountOptions::default())
    }

    pub(crate) fn with(tree: Tree, options: MountOptions) -> Option<Fixture> {
        let alone = alone()?;
        let dir = tempfile::Builder::new().prefix("farshore fuse ").tempdir().unwrap();
        let tree = Arc::new(tree);
        let mounted = Mounted::mount(Arc::clone(&tree), dir.path(), options).unwrap();
        let path = mounted.mountpoint().clone();
        Some(Fixture { tree, mounted: Some(mounted), dir: Some(dir), path, _alone: alone })
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.path.join(below)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.path
    }

    pub(crate) fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().unwrap()
    }

    /// Unmounts, and says how long that took.
    pub(crate) fn unmount(&mut self) -> Duration {
        let begun = Instant::now();
        self.mounted.take().unwrap().unmount().unwrap();
        begun.elapsed()
    }

    /// Waits for somebody else's unmount.
    pub(crate) fn wait(&mut self) -> Ended {
        self.mounted.take().unwrap().wait()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let lost = self.mounted.as_ref().map_or(0, Mounted::lost_replies);
        drop(self.mounted.take());
        self.tree.release_all();
        if std::thread::panicking() {
            return;
        }
        assert_eq!(lost, 0, "replies were lost");
        assert!(!is_mounted(&self.path), "a mount stays behind");
        eventually("threads stay behind", || our_threads().is_empty());
        self.dir.take().unwrap().close().unwrap();
    }
}

/// The right to mount; `None` if this machine has no FUSE.
pub(crate) fn alone() -> Option<MutexGuard<'static, ()>> {
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = device {
        eprintln!("\n*** SKIPPED: no /dev/fuse ({error}) ***\n");
        return None;
    }
    Some(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Whether this process may do what only root may; says loudly if not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("\n*** SKIPPED: needs root ***\n");
    }
    root
}

/// Whether this process may cut a connection that a program still uses; says loudly if not.
pub(crate) fn may_cut() -> bool {
    let may = rustix::process::geteuid().is_root() || is_mounted(Path::new("/sys/fs/fuse/connections"));
    if !may {
        eprintln!("\n*** SKIPPED: needs root or /sys/fs/fuse/connections ***\n");
    }
    may
}

/// Whether anything is mounted on `path`.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let escaped = path.to_str().unwrap().replace(' ', "\\040");
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == Some(&escaped))
}

/// The names of the threads that serve mounts.
pub(crate) fn our_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("fuser-") || name.starts_with("farshore-")).collect()
}

/// Waits until `condition` holds, and fails saying `otherwise` if it does not within [`SOON`].
pub(crate) fn eventually(otherwise: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
