//! Real folders, real notices: whatever is done to a folder, what is told of it leads to what it holds.

use super::{Watcher, WhileWritten};
use crate::folder::look::{SkipReason, Skipped};
use crate::folder::{FolderError, FolderEvent};
use farshore_engine::event::{Seen, SeenKind};
use farshore_engine::path::{Name, RelPath};
use farshore_engine::record::{Facts, FileTime};
use farshore_engine::{Observation, Xattrs};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

mod asked;
mod renames;
mod stress;

/// How long a condition may take to become true on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(30);

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

type Tree = BTreeMap<RelPath, Seen>;

/// What a listener who believes everything knows.
#[derive(Default)]
struct Heard {
    tree: Tree,
    /// The scan under way, and what it has named.
    scan: Option<(RelPath, BTreeSet<RelPath>)>,
    log: Vec<(Instant, Observation)>,
    skipped: Vec<Skipped>,
    unwatched: Vec<String>,
    ready: bool,
    vanished: bool,
}

impl Heard {
    fn hear(&mut self, event: FolderEvent) {
        assert!(!self.vanished, "nothing follows the end");
        match event {
            FolderEvent::Observed(observations) => {
                assert!((1..=1_024).contains(&observations.len()));
                observations.into_iter().for_each(|observation| self.observe(observation));
            }
            FolderEvent::Skipped(skipped) => self.skipped.push(skipped),
            FolderEvent::Ready => self.ready = true,
            FolderEvent::Unwatched(error) => self.unwatched.push(error.to_string()),
            FolderEvent::Vanished => self.vanished = true,
        }
    }

    fn observe(&mut self, observation: Observation) {
        if let Some((_, Observation::Moved { to, .. })) = self.log.last() {
            let Observation::Found { path, .. } = &observation else { panic!("{observation:?} after a rename") };
            assert_eq!(path, to);
        }
        self.log.push((Instant::now(), observation.clone()));
        match observation {
            Observation::Found { path, seen } => self.found(path, seen),
            Observation::Missing { path } => {
                assert!(self.scan.is_none());
                self.forget(&path);
            }
            Observation::Moved { from, to } => {
                assert!(self.scan.is_none());
                if !self.tree.contains_key(&from) {
                    return;
                }
                self.forget(&to);
                for (old, seen) in self.forget(&from) {
                    let names = [to.names(), &old.names()[from.names().len()..]].concat();
                    self.tree.insert(RelPath::new(names).unwrap(), seen);
                }
            }
            Observation::Unknown { .. } => {}
            Observation::Sighted { .. } | Observation::Amended { .. } => panic!("a watcher sees no more than a folder"),
            Observation::ScanBegin { path } => assert!(self.scan.replace((path, BTreeSet::new())).is_none()),
            Observation::ScanEnd { path } => {
                let (begun, named) = self.scan.take().unwrap();
                assert_eq!(begun, path);
                self.tree.retain(|other, _| *other == path || !path.is_prefix_of(other) || named.contains(other));
            }
        }
    }

    fn found(&mut self, path: RelPath, seen: Seen) {
        let parent = RelPath::new(path.split_last().unwrap().0.to_vec()).unwrap();
        let known = parent.is_root() || self.tree.get(&parent).is_some_and(|seen| seen.kind == SeenKind::Dir);
        assert!(known, "{path} was told before the directory that holds it");
        if let Some((at, named)) = &mut self.scan {
            assert!(at.is_prefix_of(&path) && *at != path);
            assert!(named.last().is_none_or(|last| *last < path), "in the order of names");
            named.insert(path.clone());
        }
        if seen.kind != SeenKind::Dir {
            self.forget(&path);
        }
        self.tree.insert(path, seen);
    }

    /// Takes out what is at `path` and below it, which stands together in the order of paths: thousands of files are told
    /// one by one, and looking through all of them each time would take longer than the tests wait.
    fn forget(&mut self, path: &RelPath) -> Tree {
        let below = self.tree.range(path.clone()..).take_while(|(other, _)| path.is_prefix_of(other));
        let below: Vec<RelPath> = below.map(|(other, _)| other.clone()).collect();
        below.into_iter().filter_map(|other| self.tree.remove_entry(&other)).collect()
    }
}

/// What the folder holds, found out in another way.
fn truth(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![(RelPath::ROOT, root.to_owned())];
    while let Some((rel, directory)) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let rel = rel.join(Name::new(entry.file_name().as_bytes()).unwrap()).unwrap();
            let meta = entry.metadata().unwrap();
            let kind = if meta.is_dir() {
                todo.push((rel.clone(), entry.path()));
                SeenKind::Dir
            } else if meta.is_symlink() {
                let target = fs::read_link(entry.path()).unwrap().into_os_string().into_vec();
                SeenKind::Symlink { target: target.into() }
            } else if meta.is_file() {
                SeenKind::File { size_bytes: meta.len() }
            } else {
                continue;
            };
            let time = |seconds, nanos: i64| FileTime { seconds, nanos: u32::try_from(nanos).unwrap() };
            let seen = Seen {
                kind,
                mode: u16::try_from(meta.mode() & 0o7777).unwrap(),
                modified: time(meta.mtime(), meta.mtime_nsec()),
                xattrs: Some(Xattrs::default()),
                facts: Facts { inode: meta.ino(), changed: time(meta.ctime(), meta.ctime_nsec()) },
            };
            tree.insert(rel, seen);
        }
    }
    tree
}

/// A watched folder, and somewhere outside of it on the same file system.
struct Rig {
    watcher: Option<Watcher>,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    base: TempDir,
}

impl Rig {
    /// An empty folder.
    fn new() -> Rig {
        Rig::with(|_| {})
    }

    /// A folder that holds something before it is watched.
    fn with(fill: impl FnOnce(&Rig)) -> Rig {
        let rig = Rig::beside(None, fill);
        rig.settle();
        rig
    }

    /// The same, in which a name is passed over.
    fn beside(private: Option<&'static str>, fill: impl FnOnce(&Rig)) -> Rig {
        Rig::watched(private, WhileWritten::default(), fill)
    }

    fn watched(private: Option<&'static str>, while_written: WhileWritten, fill: impl FnOnce(&Rig)) -> Rig {
        let base = tempfile::tempdir().unwrap();
        let mut rig = Rig { watcher: None, heard: Arc::default(), base };
        fs::create_dir(rig.root()).unwrap();
        fs::create_dir(rig.outside("")).unwrap();
        fill(&rig);
        let heard = Arc::clone(&rig.heard);
        let sink = move |event| {
            heard.0.lock().unwrap().hear(event);
            heard.1.notify_all();
        };
        rig.watcher = Some(Watcher::start_beside(&rig.root(), private, while_written, sink).unwrap());
        rig.wait("the folder is told", |heard| heard.ready);
        rig
    }

    fn root(&self) -> PathBuf {
        self.base.path().join("share")
    }

    fn at(&self, text: &str) -> PathBuf {
        self.root().join(text)
    }

    fn outside(&self, text: &str) -> PathBuf {
        self.base.path().join("outside").join(text)
    }

    fn write(&self, text: &str, bytes: &[u8]) {
        fs::write(self.at(text), bytes).unwrap();
    }

    fn mkdir(&self, text: &str) {
        fs::create_dir_all(self.at(text)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    /// Waits until what was heard fulfils `condition`.
    fn wait(&self, what: &str, condition: impl Fn(&Heard) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut heard = self.heard.0.lock().unwrap();
        while !condition(&heard) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {DEADLINE:?}: {what}; heard last: {:#?}", heard.log.last());
            heard = self.heard.1.wait_timeout(heard, left).unwrap().0;
        }
    }

    /// Waits until what was heard is what is there.
    fn settle(&self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let truth = truth(&self.root());
            let heard = self.heard.0.lock().unwrap();
            if heard.tree == truth && heard.scan.is_none() {
                return;
            }
            if Instant::now() > deadline {
                let wrong: Vec<_> = heard.tree.iter().filter(|(path, seen)| truth.get(path) != Some(seen)).collect();
                let lacking: Vec<_> = truth.iter().filter(|(path, seen)| heard.tree.get(path) != Some(seen)).collect();
                panic!("not settled; heard but not there: {wrong:#?}\nthere but not heard: {lacking:#?}");
            }
            drop(self.heard.1.wait_timeout(heard, Duration::from_millis(20)).unwrap());
        }
    }

    /// All that was told.
    fn log(&self) -> Vec<Observation> {
        self.heard.0.lock().unwrap().log.iter().map(|(_, observation)| observation.clone()).collect()
    }

    fn moves(&self) -> Vec<(RelPath, RelPath)> {
        let moves = self.log().into_iter().filter_map(|observation| match observation {
            Observation::Moved { from, to } => Some((from, to)),
            Observation::Found { .. }
            | Observation::Missing { .. }
            | Observation::Sighted { .. }
            | Observation::Amended { .. }
            | Observation::Unknown { .. }
            | Observation::ScanBegin { .. }
            | Observation::ScanEnd { .. } => None,
        });
        moves.collect()
    }

    fn skipped(&self) -> Vec<Skipped> {
        self.heard.0.lock().unwrap().skipped.clone()
    }
}

#[test]
fn what_is_there_at_the_beginning_is_told() {
    let rig = Rig::with(|rig| {
        rig.mkdir("docs/deep/er");
        rig.write("docs/a", b"aa");
        rig.write("docs.txt", b"");
        rig.write("docs/deep/er/b", b"b");
        symlink("../nowhere", rig.at("docs/link")).unwrap();
    });
    assert_eq!(rig.heard.0.lock().unwrap().tree.len(), 7);
}

#[test]
fn edits_are_told_however_small() {
    let rig = Rig::new();
    rig.write("f", b"one");
    rig.settle();
    rig.write("f", b"two");
    rig.settle();
    fs::OpenOptions::new().append(true).open(rig.at("f")).unwrap().write_all(b"more").unwrap();
    rig.settle();
    fs::OpenOptions::new().write(true).open(rig.at("f")).unwrap().set_len(1).unwrap();
    rig.settle();
    fs::set_permissions(rig.at("f"), fs::Permissions::from_mode(0o600)).unwrap();
    rig.settle();
    let file = fs::File::open(rig.at("f")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5)).unwrap();
    rig.settle();
    fs::remove_file(rig.at("f")).unwrap();
    rig.settle();
}

#[test]
fn symlinks_are_told_as_symlinks() {
    let rig = Rig::with(|rig| fs::write(rig.outside("secret"), b"secret").unwrap());
    symlink(rig.outside(""), rig.at("way")).unwrap();
    rig.settle();
    fs::remove_file(rig.at("way")).unwrap();
    symlink("elsewhere", rig.at("way")).unwrap();
    rig.settle();
    rig.mkdir("way2");
    rig.write("way2/inside", b"1");
    rig.settle();
    fs::remove_dir_all(rig.at("way2")).unwrap();
    symlink(rig.outside(""), rig.at("way2")).unwrap();
    rig.settle();
    assert!(rig.heard.0.lock().unwrap().tree.keys().all(|path| !path.to_string().contains("secret")));
}

#[test]
fn directories_come_and_go_with_what_they_hold() {
    let rig = Rig::new();
    rig.mkdir("a/b/c");
    rig.write("a/b/c/f", b"f");
    rig.settle();
    rig.write("a/b/g", b"g");
    fs::set_permissions(rig.at("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
    rig.settle();
    fs::remove_dir_all(rig.at("a/b")).unwrap();
    rig.settle();
    fs::create_dir(rig.at("a/b")).unwrap();
    rig.settle();
    rig.write("a/b/again", b"");
    rig.settle();
    fs::remove_dir_all(rig.at("a")).unwrap();
    rig.write("a", b"a file now");
    rig.settle();
    fs::remove_file(rig.at("a")).unwrap();
    rig.mkdir("a/x");
    rig.settle();
}

#[test]
fn files_made_right_after_their_directories_are_not_missed() {
    let rig = Rig::new();
    for round in 0..30 {
        let deep = format!("r{round}/a/b/c/d/e");
        let mut at = String::new();
        for part in deep.split('/') {
            at = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
            fs::create_dir(rig.at(&at)).unwrap();
            rig.write(&format!("{at}/file"), part.as_bytes());
        }
    }
    rig.settle();
    for round in 0..30 {
        rig.write(&format!("r{round}/a/b/c/d/e/later"), b"they are watched");
    }
    rig.settle();
}

#[test]
fn a_burst_of_a_thousand_files_is_told() {
    let rig = Rig::new();
    for number in 0..1_000 {
        rig.write(&format!("f{number}"), &[1]);
    }
    rig.settle();
    for number in (0..1_000).step_by(2) {
        fs::remove_file(rig.at(&format!("f{number}"))).unwrap();
    }
    rig.settle();
}

#[test]
fn names_need_not_be_text() {
    let rig = Rig::new();
    let name = OsStr::from_bytes(b"caf\xe9 \xff\n");
    fs::create_dir(rig.root().join(name)).unwrap();
    fs::write(rig.root().join(name).join(name), b"x").unwrap();
    rig.settle();
    fs::rename(rig.root().join(name), rig.at("plain")).unwrap();
    rig.settle();
}

/// A folder belongs to whoever shares it, also one into which `farshore get` has fetched something.
#[test]
fn names_that_the_store_uses_are_names_like_others() {
    const NAMES: [&str; 4] = [".farshore/partial/1", ".farshore/lock", "a.kdbitmap", ".farshore-1-0.tmp"];
    let rig = Rig::with(|rig| {
        rig.mkdir(".farshore/partial");
        NAMES.iter().for_each(|name| rig.write(name, b"mine"));
    });
    let told: Vec<RelPath> = rig.heard.0.lock().unwrap().tree.keys().cloned().collect();
    assert!(NAMES.iter().all(|name| told.contains(&path(name))), "{told:?}");
    assert!(rig.skipped().is_empty());
}

/// What is told of a path that is about to be looked at must not come after its end.
#[test]
fn an_edit_right_before_a_removal_leaves_no_ghost() {
    let rig = Rig::with(|rig| {
        rig.mkdir("d");
        rig.write("f", b"1");
        rig.write("d/g", b"1");
    });
    for _ in 0..5 {
        rig.write("f", b"22");
        rig.write("d/g", b"22");
        fs::remove_file(rig.at("f")).unwrap();
        fs::remove_dir_all(rig.at("d")).unwrap();
        rig.settle();
        assert!(rig.heard.0.lock().unwrap().tree.is_empty());
        rig.mkdir("d");
        rig.write("d/g", b"new");
        rig.write("f", b"new");
        rig.settle();
    }
}

#[test]
fn pipes_and_sockets_are_left_out_and_reported_once() {
    let rig = Rig::with(|rig| {
        rig.mkdir("d");
        let _socket = std::os::unix::net::UnixListener::bind(rig.at("d/socket")).unwrap();
    });
    let pipe = rig.at("d/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let reported = |path: &str, reason| Skipped { path: path.into(), reason };
    let both = [reported("d/socket", SkipReason::Socket), reported("d/pipe", SkipReason::Pipe)];
    rig.wait("both are reported", |heard| heard.skipped == both);
    fs::set_permissions(&pipe, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(rig.at("d"), fs::Permissions::from_mode(0o700)).unwrap();
    rig.write("d/after", b"");
    rig.settle();
    assert_eq!(rig.skipped(), both, "once each");
    fs::remove_file(&pipe).unwrap();
    fs::write(&pipe, b"a file").unwrap();
    rig.settle();
}

#[test]
fn a_path_that_is_too_long_is_reported_and_the_rest_is_told() {
    let rig = Rig::new();
    let name = "d".repeat(255);
    let mut at = rustix::fs::open(rig.root(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..17 {
        rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    rig.write("z", b"beside");
    rig.wait("the deep one is reported", |heard| heard.skipped.len() == 1);
    rig.wait("the others are told", |heard| heard.tree.len() == 17 && heard.tree.contains_key(&path("z")));
    rig.mkdir("other");
    rig.wait("it goes on", |heard| heard.tree.contains_key(&path("other")));
}

#[test]
fn a_file_that_never_rests_is_told_now_and_then() {
    let rig = Rig::watched(None, WhileWritten::Pushed, |_| {});
    let mut file = fs::File::create(rig.at("log")).unwrap();
    let begun = Instant::now();
    let mut written = 0;
    while begun.elapsed() < Duration::from_millis(2_500) {
        file.write_all(b"line\n").unwrap();
        written += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    rig.settle();
    assert!(written > 20, "this machine is too busy to say anything");
    let heard = rig.heard.0.lock().unwrap();
    let log = path("log");
    let told: Vec<Instant> = heard
        .log
        .iter()
        .filter(|(_, told)| matches!(told, Observation::Found { path, .. } if *path == log))
        .map(|(at, _)| *at)
        .collect();
    assert!(told.len() >= 4, "every 200 ms, were it not for other work: {}", told.len());
    assert!(told.windows(2).all(|pair| pair[1] - pair[0] > Duration::from_millis(45)), "not too often");
}

#[test]
fn all_names_of_a_file_change_together() {
    let rig = Rig::with(|rig| {
        rig.mkdir("d");
        rig.write("a", b"one");
    });
    fs::hard_link(rig.at("a"), rig.at("d/b")).unwrap();
    rig.settle();
    rig.write("d/b", b"three");
    rig.settle();
    fs::hard_link(rig.at("a"), rig.at("c")).unwrap();
    rig.settle();
    fs::remove_file(rig.at("d/b")).unwrap();
    rig.settle();
    fs::remove_file(rig.at("c")).unwrap();
    rig.settle();
}

#[test]
fn what_the_kernel_does_not_tell_is_seen_when_asked_for() {
    let rig = Rig::with(|rig| rig.write("a", b"1"));
    fs::hard_link(rig.at("a"), rig.outside("b")).unwrap();
    fs::write(rig.outside("b"), b"22").unwrap();
    rig.watcher.as_ref().unwrap().recheck().look_at(&path("a"));
    rig.settle();
}

#[test]
fn a_directory_is_told_with_all_that_it_holds_when_that_is_asked_for() {
    let rig = Rig::with(|rig| {
        fs::create_dir_all(rig.at("d/e")).unwrap();
        rig.write("d/e/a", b"1");
    });
    rig.heard.0.lock().unwrap().tree.retain(|at, _| *at != path("d/e") && *at != path("d/e/a"));
    rig.watcher.as_ref().unwrap().recheck().look_anew_at(&path("d"));
    rig.settle();
}

#[test]
fn lost_notices_are_made_up_for() {
    let (open_gate, gate) = std::sync::mpsc::channel::<()>();
    let (arrive, arrived) = std::sync::mpsc::channel();
    let base = tempfile::tempdir().unwrap();
    let heard: Arc<(Mutex<Heard>, Condvar)> = Arc::default();
    let hearing = Arc::clone(&heard);
    let sink = move |event| {
        if hearing.0.lock().unwrap().ready {
            // The thread stands still until the gate is gone.
            let _ = arrive.send(());
            let _ = gate.recv();
        }
        hearing.0.lock().unwrap().hear(event);
        hearing.1.notify_all();
    };
    fs::create_dir(base.path().join("share")).unwrap();
    fs::create_dir(base.path().join("share/d")).unwrap();
    let watcher = Watcher::start(&base.path().join("share"), sink).unwrap();
    let rig = Rig { watcher: Some(watcher), heard, base };
    rig.wait("it is told", |heard| heard.ready);
    rig.write("first", b"");
    arrived.recv_timeout(DEADLINE).unwrap();
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // Two notices each, and neighbours that differ, so that the kernel cannot merge them.
    for number in 0..limit / 2 + 500 {
        rig.write(&format!("d/{number}"), b"");
    }
    fs::remove_file(rig.at("first")).unwrap();
    rig.mkdir("d/late");
    rig.write("d/late/f", b"");
    drop(open_gate);
    rig.settle();
    let scans = rig.log().iter().filter(|told| **told == Observation::ScanBegin { path: RelPath::ROOT }).count();
    assert_eq!(scans, 2, "the folder was read again, once");
    rig.write("d/late/f", b"it is watched again");
    rig.settle();
}

#[test]
fn a_folder_that_is_removed_or_replaced_has_vanished() {
    let ends: [fn(&Rig); 4] = [
        |rig| fs::remove_dir_all(rig.root()).unwrap(),
        |rig| fs::rename(rig.root(), rig.outside("moved")).unwrap(),
        |rig| {
            fs::remove_dir_all(rig.root()).unwrap();
            fs::create_dir(rig.root()).unwrap();
        },
        |rig| {
            fs::rename(rig.root(), rig.outside("moved")).unwrap();
            symlink("outside/moved", rig.base.path().join("target")).unwrap();
            fs::write(rig.root(), b"a file").unwrap();
        },
    ];
    for end in ends {
        let rig = Rig::with(|rig| {
            rig.mkdir("d");
            rig.write("d/f", b"");
        });
        end(&rig);
        rig.wait("it has vanished", |heard| heard.vanished);
    }
}

#[test]
fn nothing_is_told_after_the_watcher_is_gone() {
    let mut rig = Rig::new();
    rig.write("a", b"");
    rig.settle();
    let shared = Arc::downgrade(&rig.watcher.as_ref().unwrap().shared);
    let begun = Instant::now();
    drop(rig.watcher.take());
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(shared.strong_count(), 0, "its thread has ended");
    assert_eq!(Arc::strong_count(&rig.heard), 1, "and let go of the listener");
}

/// Runs this very test again where only a few directories can be watched.
fn with_few_watches(test: &str, watches: u32) {
    let script = format!("echo {watches} > /proc/sys/user/max_inotify_watches || exit 77; exec \"$0\" --exact {test}");
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    match command.env("FEW_WATCHES", "yes").output() {
        Ok(output)
            if output.status.code() == Some(77) || String::from_utf8_lossy(&output.stderr).contains("unshare") =>
        {
            eprintln!("not run: this user may not make user namespaces");
        }
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => eprintln!("not run: unshare: {error}"),
    }
}

#[test]
fn a_folder_with_too_many_directories_is_read_again_and_again() {
    if std::env::var_os("FEW_WATCHES").is_none() {
        let test = "folder::watch::tests::a_folder_with_too_many_directories_is_read_again_and_again";
        return with_few_watches(test, 5);
    }
    let rig = Rig::with(|rig| (0..20).for_each(|number| rig.mkdir(&format!("d{number}/sub"))));
    let told = rig.heard.0.lock().unwrap().unwatched.clone();
    assert_eq!(told.len(), 1, "once");
    assert!(told[0].contains("sysctl fs.inotify.max_user_watches"), "{told:?}");
    for number in 0..20 {
        rig.write(&format!("d{number}/sub/f"), b"");
    }
    rig.settle();
    rig.write("d19/sub/g", b"");
    rig.rename("d18/sub", "d3/sub2");
    rig.settle();
    fs::write("/proc/sys/user/max_inotify_watches", "1000").unwrap();
    rig.write("d19/sub/h", b"");
    rig.settle();
    assert_eq!(rig.heard.0.lock().unwrap().unwatched.len(), 1);
}

#[test]
fn a_folder_that_cannot_be_watched_at_all_says_what_to_do() {
    if std::env::var_os("FEW_WATCHES").is_none() {
        let test = "folder::watch::tests::a_folder_that_cannot_be_watched_at_all_says_what_to_do";
        return with_few_watches(test, 0);
    }
    let base = tempfile::tempdir().unwrap();
    let error = Watcher::start(base.path(), |_| {}).unwrap_err();
    assert!(matches!(error, FolderError::WatchLimit { .. }));
    assert!(error.to_string().contains("sysctl fs.inotify.max_user_watches"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_opened_says_so() {
    let base = tempfile::tempdir().unwrap();
    let error = Watcher::start(&base.path().join("none"), |_| {}).unwrap_err();
    assert!(matches!(error, FolderError::Open { .. }));
    assert!(error.to_string().contains("none"), "{error}");
    fs::write(base.path().join("file"), b"").unwrap();
    assert!(Watcher::start(&base.path().join("file"), |_| {}).is_err());
}
