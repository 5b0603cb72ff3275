//! A folder whose other half is far away: files in memory that peers have, and which come when they are asked for. It hears
//! what a mount tells, and does to its files what the engine would do.

use crate::fixture::{alone, eventually, is_mounted, our_threads};
use farshore::fuse::{MountOptions, Mounted, Readable, Stats};
use farshore::live::{self, Away, Live, Read, Then};
use farshore_engine::path::{Name, RelPath};
use farshore_engine::record::FileTime;
use farshore_engine::{Attr, AttrKind, Errno, Handle, Ino, Observation, Xattrs};
use rustix::fs::{CWD, RenameFlags, Timespec, Timestamps, futimens, renameat_with};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// When the files were modified that are away, plus their number of seconds.
const MODIFIED: i64 = 1_000_000_000;

#[derive(Clone)]
struct FarFile {
    ino: u64,
    bytes: Arc<Vec<u8>>,
    mode: u16,
    modified: FileTime,
    xattrs: Xattrs,
}

impl FarFile {
    fn attr(&self) -> Attr {
        let size_bytes = self.bytes.len() as u64;
        let (mode, modified) = (self.mode, self.modified);
        Attr { ino: Ino(self.ino), kind: AttrKind::File, size_bytes, mode, modified, links: 1 }
    }
}

type Waiting = Box<dyn FnOnce() + Send>;
type Listener = Box<dyn Fn(&RelPath) + Send>;

#[derive(Default)]
struct State {
    files: BTreeMap<RelPath, FarFile>,
    handles: BTreeMap<u64, Arc<Vec<u8>>>,
    last: u64,
    /// Whether nothing comes over for now, neither reads nor files.
    is_cut: bool,
    /// Whether what is asked for fails.
    is_broken: bool,
    waiting: Vec<Waiting>,
    /// Files that come when somebody asks whether they are away.
    about_to_come: BTreeSet<RelPath>,
    /// Files that are just being put into the folder: they are there when that has been waited for.
    coming: BTreeSet<RelPath>,
    sighted: BTreeSet<RelPath>,
    /// What the mount told, and how often something was fetched.
    told: Vec<String>,
    brought: Vec<String>,
    reads: usize,
}

/// What peers have.
pub(crate) struct Far {
    state: Mutex<State>,
    folder: PathBuf,
    /// On the folder's file system, outside of it.
    aside: PathBuf,
    listener: Mutex<Option<Listener>>,
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

impl Far {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Peers have a file from now on, in place of what they had there.
    pub(crate) fn put(&self, at: &str, bytes: &[u8]) {
        self.put_unheard(at, bytes);
        self.announce(at);
    }

    /// The same, but the mount has not heard of it yet.
    pub(crate) fn put_unheard(&self, at: &str, bytes: &[u8]) {
        let mut state = self.lock();
        state.last += 1;
        let ino = state.last + 100;
        let modified = FileTime { seconds: MODIFIED + ino as i64, nanos: 7 };
        let file = FarFile { ino, bytes: Arc::new(bytes.to_vec()), mode: 0o640, modified, xattrs: Xattrs::default() };
        state.files.insert(path(at), file);
    }

    /// A peer edits a file.
    pub(crate) fn edit(&self, at: &str, bytes: &[u8]) {
        {
            let mut state = self.lock();
            let file = state.files.get_mut(&path(at)).unwrap();
            file.bytes = Arc::new(bytes.to_vec());
            file.modified.seconds += 1_000;
        }
        self.announce(at);
    }

    /// A peer removes a file.
    pub(crate) fn remove(&self, at: &str) {
        self.lock().files.remove(&path(at)).unwrap();
        self.announce(at);
    }

    /// A peer renames a file.
    pub(crate) fn rename(&self, from: &str, to: &str) {
        {
            let mut state = self.lock();
            let file = state.files.remove(&path(from)).unwrap();
            state.files.insert(path(to), file);
        }
        self.announce(to);
    }

    fn announce(&self, at: &str) {
        if let Some(heard) = &*self.listener.lock().unwrap_or_else(PoisonError::into_inner) {
            heard(&path(at));
        }
    }

    /// A file comes into the folder, as it does when it was fetched.
    pub(crate) fn come(&self, at: &str) {
        let mut state = self.lock();
        let file = state.files.get(&path(at)).unwrap().clone();
        let aside = self.aside.join(file.ino.to_string());
        let mut made = File::create(&aside).unwrap();
        made.write_all(&file.bytes).unwrap();
        made.set_permissions(PermissionsExt::from_mode(file.mode.into())).unwrap();
        let time = Timespec { tv_sec: file.modified.seconds, tv_nsec: file.modified.nanos.into() };
        futimens(&made, &Timestamps { last_access: time, last_modification: time }).unwrap();
        renameat_with(CWD, &aside, CWD, self.folder.join(at), RenameFlags::NOREPLACE).unwrap();
        state.files.remove(&path(at));
        state.coming.remove(&path(at));
    }

    /// A file comes after who asks for it has looked into the folder, and before the answer.
    pub(crate) fn come_when_asked(&self, at: &str) {
        self.lock().about_to_come.insert(path(at));
    }

    /// A file is just being put into the folder, and is there as soon as somebody waits for it.
    pub(crate) fn begin_to_come(&self, at: &str) {
        self.lock().coming.insert(path(at));
    }

    /// From now on nothing comes over.
    pub(crate) fn cut(&self) {
        self.lock().is_cut = true;
    }

    /// All that waits comes over, and all that follows.
    pub(crate) fn heal(&self) {
        let waiting = {
            let mut state = self.lock();
            state.is_cut = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|waiting| waiting());
    }

    pub(crate) fn break_down(&self) {
        self.lock().is_broken = true;
    }

    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    pub(crate) fn open_handles(&self) -> usize {
        self.lock().handles.len()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().files.keys().map(ToString::to_string).collect()
    }

    pub(crate) fn bytes(&self, at: &str) -> Vec<u8> {
        self.lock().files[&path(at)].bytes.to_vec()
    }

    /// What was told since the last time.
    pub(crate) fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().told)
    }

    /// Waits until this was told, as what was written is when the kernel has noticed that it was closed.
    pub(crate) fn has_told(&self, what: &str) {
        eventually("it is not told", || self.lock().told.iter().any(|told| told == what));
    }

    /// What was brought so far.
    pub(crate) fn brought(&self) -> Vec<String> {
        self.lock().brought.clone()
    }

    pub(crate) fn reads(&self) -> usize {
        self.lock().reads
    }

    fn hear(&self, observations: Vec<Observation>) {
        let mut state = self.lock();
        for observation in observations {
            state.told.push(match &observation {
                Observation::Found { path, .. } => format!("found {path}"),
                Observation::Missing { path } => format!("missing {path}"),
                Observation::Moved { from, to } => format!("moved {from} to {to}"),
                Observation::Sighted { path } => format!("sighted {path}"),
                Observation::Amended { path, .. } => format!("amended {path}"),
                Observation::ScanBegin { .. } | Observation::ScanEnd { .. } | Observation::Unknown { .. } => {
                    panic!("nobody scans")
                }
            });
            state.take(observation);
        }
    }

    /// Does something now, or when the link is back.
    fn now_or_later(self: &Arc<Far>, work: Waiting) {
        let mut state = self.lock();
        if state.is_cut {
            state.waiting.push(work);
        } else {
            drop(state);
            work();
        }
    }
}

impl State {
    fn take(&mut self, observation: Observation) {
        match observation {
            Observation::Sighted { path } => drop(self.sighted.insert(path)),
            Observation::Found { path, .. } => {
                let is_sighted = self.sighted.remove(&path);
                assert!(self.files.remove(&path).is_none() || is_sighted, "{path} is made beside what is away");
            }
            Observation::Missing { path } => {
                if self.sighted.remove(&path) {
                    assert!(!self.coming.contains(&path), "{path} is just coming");
                    self.files.remove(&path);
                }
            }
            Observation::Moved { from, to } => {
                assert!([&from, &to].iter().all(|path| !self.coming.contains(*path)), "{from} or {to} is just coming");
                let saw = [&from, &to].map(|path| self.sighted.remove(path));
                assert!(self.files.remove(&to).is_none() || saw[1], "{to} was not sighted");
                let moved: Vec<RelPath> = self.files.keys().filter(|path| from.is_prefix_of(path)).cloned().collect();
                assert!(moved.is_empty() || saw[0], "{from} was not sighted");
                for path in moved {
                    let names = to.names().iter().chain(&path.names()[from.names().len()..]).cloned().collect();
                    let file = self.files.remove(&path).unwrap();
                    self.files.insert(RelPath::new(names).unwrap(), file);
                }
            }
            Observation::Amended { path, mode, modified, xattrs } => {
                let file = self.files.get_mut(&path).unwrap();
                file.mode = mode.unwrap_or(file.mode);
                file.modified = modified.unwrap_or(file.modified);
                file.xattrs = xattrs.unwrap_or(std::mem::take(&mut file.xattrs));
            }
            Observation::ScanBegin { .. } | Observation::ScanEnd { .. } | Observation::Unknown { .. } => {}
        }
    }
}

/// The other half, as the mount asks it.
struct Asked(Arc<Far>);

impl Away for Asked {
    fn at(&self, path: &RelPath) -> Option<Attr> {
        if self.0.lock().about_to_come.remove(path) {
            self.0.come(&path.to_string());
        }
        self.0.lock().files.get(path).map(FarFile::attr)
    }

    fn within(&self, dir: &RelPath) -> Vec<(Name, Attr)> {
        let state = self.0.lock();
        let inside = state.files.iter().filter_map(|(path, file)| {
            let (parents, name) = path.split_last()?;
            (parents == dir.names()).then(|| (name.clone(), file.attr()))
        });
        inside.collect()
    }

    fn xattrs(&self, path: &RelPath) -> Xattrs {
        self.0.lock().files.get(path).map(|file| file.xattrs.clone()).unwrap_or_default()
    }

    fn is_coming(&self, path: &RelPath) -> bool {
        self.0.lock().coming.contains(path)
    }

    fn open(&self, ino: Ino) -> Result<Handle, Errno> {
        let mut state = self.0.lock();
        let bytes = state.files.values().find(|file| file.ino == ino.0).ok_or(Errno::NoEntry)?.bytes.clone();
        state.last += 1;
        let handle = state.last;
        state.handles.insert(handle, bytes);
        Ok(Handle(handle))
    }

    fn read(&self, handle: Handle, offset: u64, len: u32, then: Then<Read>) {
        let far = Arc::clone(&self.0);
        self.0.now_or_later(Box::new(move || {
            let read = {
                let mut state = far.lock();
                state.reads += 1;
                match (state.is_broken, state.handles.get(&handle.0).cloned()) {
                    (true, _) => Err(Errno::Io),
                    (false, None) => Err(Errno::BadHandle),
                    (false, Some(bytes)) => {
                        let start = (offset as usize).min(bytes.len());
                        let end = (start + len as usize).min(bytes.len());
                        Ok(Box::new(Slice { bytes, range: start..end }) as Box<dyn Readable>)
                    }
                }
            };
            then(read);
        }));
    }

    fn release(&self, handle: Handle) {
        assert!(self.0.lock().handles.remove(&handle.0).is_some(), "released twice");
    }

    fn bring(&self, path: &RelPath, then: Then<Result<(), Errno>>) {
        let (far, path) = (Arc::clone(&self.0), path.clone());
        self.0.now_or_later(Box::new(move || {
            drop(thread::spawn(move || {
                if far.lock().is_broken {
                    return then(Err(Errno::Io));
                }
                if far.lock().files.contains_key(&path) {
                    far.lock().brought.push(path.to_string());
                    far.come(&path.to_string());
                }
                then(Ok(()));
            }));
        }));
    }

    fn listen(&self, heard: Box<dyn Fn(&RelPath) + Send>) {
        *self.0.listener.lock().unwrap() = Some(heard);
    }
}

struct Slice {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Readable for Slice {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn read_into(&self, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.bytes[self.range.clone()]);
        Ok(())
    }
}

/// A folder with its other half, mounted. Dropping it unmounts, also when the test panics.
pub(crate) struct Halves {
    pub(crate) far: Arc<Far>,
    mounted: Option<Mounted>,
    dir: Option<tempfile::TempDir>,
    root: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Halves {
    /// `None` if this machine has no FUSE.
    pub(crate) fn new() -> Option<Halves> {
        Halves::with(MountOptions { read_only: false, ..MountOptions::default() })
    }

    pub(crate) fn with(options: MountOptions) -> Option<Halves> {
        let alone = alone()?;
        let dir = tempfile::Builder::new().prefix("farshore halves ").tempdir().unwrap();
        let at = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (folder, aside, root) = (at("folder"), at("aside"), at("mnt"));
        let state = Mutex::default();
        let far = Arc::new(Far { state, folder: folder.clone(), aside, listener: Mutex::default() });
        let ears = Arc::clone(&far);
        let asked = Arc::new(Asked(Arc::clone(&far)));
        let live = Live::over(&folder, asked, move |observations| ears.hear(observations)).unwrap();
        let mounted = live::mount(live, &root, options).unwrap();
        let root = mounted.mountpoint().clone();
        Some(Halves { far, mounted: Some(mounted), dir: Some(dir), root, _alone: alone })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn stats(&self) -> &Stats {
        self.mounted.as_ref().unwrap().stats()
    }

    /// On the mount.
    pub(crate) fn here(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// In the folder.
    pub(crate) fn there(&self, below: &str) -> PathBuf {
        self.far.folder.join(below)
    }

    pub(crate) fn unmount(&mut self) {
        self.mounted.take().unwrap().unmount().unwrap();
    }

    /// What the mount lists, sorted.
    pub(crate) fn list(&self, below: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.here(below))
            .unwrap()
            .map(|entry| String::from_utf8_lossy(entry.unwrap().file_name().as_bytes()).into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Halves {
    fn drop(&mut self) {
        let lost = self.mounted.as_ref().map_or(0, Mounted::lost_replies);
        drop(self.mounted.take());
        self.far.heal();
        if std::thread::panicking() {
            return;
        }
        assert_eq!(lost, 0, "replies were lost");
        assert!(!is_mounted(&self.root), "a mount stays behind");
        eventually("threads stay behind", || our_threads().is_empty());
        eventually("handles stay open", || self.far.open_handles() == 0);
        self.dir.take().unwrap().close().unwrap();
    }
}
