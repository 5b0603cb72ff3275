//! What a scan tells, in which order, and what it leaves out.

use super::*;
use farshore_engine::event::SeenKind;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Something done to a folder.
type Act = fn(&Path);

/// Writes down what a scan tells.
#[derive(Default)]
struct Notes {
    batches: Vec<usize>,
    told: Vec<Observation>,
    entered: Vec<String>,
    linked: Vec<String>,
    lost: Vec<String>,
    skipped: Vec<Skipped>,
    /// What to do when a directory is entered.
    on_enter: Option<(String, Act)>,
    root: std::path::PathBuf,
    stop_at: Option<String>,
}

impl Visitor for Notes {
    fn is_private(&self, directory: &RelPath, name: &[u8]) -> bool {
        directory.is_root() && name == b"private"
    }

    fn enter(&mut self, path: &RelPath, _: BorrowedFd<'_>, _: InodeId) -> Result<(), Stopped> {
        let path = path.to_string();
        if let Some((at, act)) = &self.on_enter
            && *at == path
        {
            act(&self.root);
        }
        if self.stop_at.as_ref() == Some(&path) {
            return Err(Stopped);
        }
        self.entered.push(path);
        Ok(())
    }
    fn observed(&mut self, observations: Vec<Observation>) {
        self.batches.push(observations.len());
        self.told.extend(observations);
    }
    fn linked(&mut self, path: &RelPath, _: &There) {
        self.linked.push(path.to_string());
    }
    fn lost(&mut self, path: &RelPath) {
        self.lost.push(path.to_string());
    }
    fn skipped(&mut self, skipped: Skipped) {
        self.skipped.push(skipped);
    }
}

impl Notes {
    fn scan(mut self, root: &Path) -> Notes {
        self.root = root.to_owned();
        let stopped = self.stop_at.is_some();
        let scanned = scan(&Beneath::open(root).unwrap(), &RelPath::ROOT, None, &mut self);
        assert_eq!(scanned.is_err(), stopped);
        self
    }

    /// The paths that were found.
    fn found(&self) -> Vec<String> {
        let paths = self.told.iter().filter_map(|told| match told {
            Observation::Found { path, .. } => Some(path.to_string()),
            Observation::Missing { .. }
            | Observation::Moved { .. }
            | Observation::Sighted { .. }
            | Observation::Amended { .. }
            | Observation::Unknown { .. }
            | Observation::ScanBegin { .. }
            | Observation::ScanEnd { .. } => None,
        });
        paths.collect()
    }
}

fn fill(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.ends_with('/') { fs::create_dir_all(path).unwrap() } else { fs::write(path, name).unwrap() }
    }
}

#[test]
fn directories_come_before_what_they_hold_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &["b/z", "b/a/x", "b.txt", "a", "c/", "b/a.txt"]);
    let notes = Notes::default().scan(folder.path());
    assert_eq!(notes.found(), ["a", "b", "b/a", "b/a/x", "b/a.txt", "b/z", "b.txt", "c"]);
    assert_eq!(notes.told.first(), Some(&Observation::ScanBegin { path: RelPath::ROOT }));
    assert_eq!(notes.told.last(), Some(&Observation::ScanEnd { path: RelPath::ROOT }));
    assert_eq!(notes.entered, ["", "b", "b/a", "c"]);
}

#[test]
fn batches_are_full_but_the_last() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..2_500 {
        fs::write(folder.path().join(number.to_string()), b"").unwrap();
    }
    assert_eq!(Notes::default().scan(folder.path()).batches, [1_024, 1_024, 454]);
}

#[test]
fn a_tree_deeper_than_open_files_and_stacks_allow_is_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join(vec!["d"; 2_000].join("/"))).unwrap();
    let notes = Notes::default().scan(folder.path());
    assert_eq!(notes.found().len(), 2_000);
    assert!(notes.skipped.is_empty());
}

#[test]
fn a_stopped_scan_never_says_that_the_rest_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &["a/x", "b/x"]);
    let notes = Notes { stop_at: Some("b".into()), ..Notes::default() }.scan(folder.path());
    assert!(!notes.told.contains(&Observation::ScanEnd { path: RelPath::ROOT }));
}

#[test]
fn a_directory_exchanged_for_a_link_is_not_followed() {
    let base = tempfile::tempdir().unwrap();
    fill(base.path(), &["share/a/x", "share/b/x", "share/b/sub/x", "outside/secret", "outside/sub/secret"]);
    let swap = |root: &Path| {
        fs::remove_dir_all(root.join("b")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("b")).unwrap();
    };
    let notes = Notes { on_enter: Some(("a".into(), swap)), ..Notes::default() }.scan(&base.path().join("share"));
    assert_eq!(notes.found(), ["a", "a/x", "b"]);
    assert_eq!(notes.lost, ["b"]);
    let swap = |root: &Path| {
        fs::rename(root.join("b"), root.join("moved")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("b")).unwrap();
    };
    fs::remove_file(base.path().join("share/b")).unwrap();
    fill(base.path(), &["share/b/sub/x"]);
    let notes = Notes { on_enter: Some(("b".into(), swap)), ..Notes::default() }.scan(&base.path().join("share"));
    assert_eq!(notes.found(), ["a", "a/x", "b", "b/sub"]);
    assert_eq!(notes.lost, ["b/sub"], "it was told, and could not be read");
}

#[test]
fn a_directory_replaced_by_another_is_not_read_in_its_place() {
    let base = tempfile::tempdir().unwrap();
    fill(base.path(), &["share/a/x", "share/b/x", "other/y"]);
    let swap = |root: &Path| {
        fs::rename(root.join("b"), root.join("../was")).unwrap();
        fs::rename(root.join("../other"), root.join("b")).unwrap();
    };
    let notes = Notes { on_enter: Some(("a".into(), swap)), ..Notes::default() }.scan(&base.path().join("share"));
    assert_eq!(notes.found(), ["a", "a/x", "b"]);
    assert_eq!(notes.lost, ["b"]);
}

#[test]
fn a_directory_is_told_as_it_is_once_the_visitor_knows_of_it() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &["a/"]);
    let act = |root: &Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o711)).unwrap();
    };
    let notes = Notes { on_enter: Some(("a".into(), act)), ..Notes::default() }.scan(folder.path());
    let modes = notes.told.iter().filter_map(|told| match told {
        Observation::Found { seen, .. } => Some((seen.kind.clone(), seen.mode)),
        Observation::Missing { .. } | Observation::Moved { .. } => None,
        Observation::Sighted { .. } | Observation::Amended { .. } | Observation::Unknown { .. } => None,
        Observation::ScanBegin { .. } | Observation::ScanEnd { .. } => None,
    });
    assert_eq!(modes.collect::<Vec<_>>(), [(SeenKind::Dir, 0o711)]);
}

#[test]
fn other_names_and_strange_things_are_pointed_out() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &["a", "d/x"]);
    fs::hard_link(folder.path().join("a"), folder.path().join("d/a")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("d/s")).unwrap();
    let notes = Notes::default().scan(folder.path());
    assert_eq!(notes.linked, ["a", "d/a"]);
    assert_eq!(notes.skipped, [Skipped { path: "d/s".into(), reason: SkipReason::Socket }]);
    assert_eq!(notes.skipped[0].to_string(), "not shared: d/s: it is a socket");
}

/// Runs `work` in a thread with no rights over files of others; `false` if this user cannot give rights up.
fn without_rights(work: impl FnOnce() + Send) -> bool {
    use rustix::process::{Uid, geteuid};
    if !geteuid().is_root() {
        work();
        return true;
    }
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let nobody = Uid::from_raw(65_534);
            let changed = rustix::thread::set_thread_res_uid(nobody, nobody, nobody).is_ok();
            if changed {
                work();
            }
            changed
        });
        worker.join().unwrap()
    })
}

#[test]
fn what_may_not_be_read_is_reported_and_the_rest_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fill(folder.path(), &["a/x", "closed/x", "no search/x", "secret", "z"]);
    for (name, mode) in [("closed", 0o311), ("no search", 0o644), ("secret", 0o000)] {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut notes = Notes::default();
    if !without_rights(|| notes = Notes::default().scan(folder.path())) {
        eprintln!("not run: this user cannot give up its rights");
        return;
    }
    assert_eq!(notes.found(), ["a", "a/x", "closed", "no search", "secret", "z"]);
    let closed =
        |path: &str| Skipped { path: path.into(), reason: SkipReason::Unreadable(Errno::ACCESS.raw_os_error()) };
    assert_eq!(notes.skipped, [closed("closed"), closed("no search")]);
    for name in ["closed", "no search"] {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// A directory mounted at a second place; unmounted when dropped.
struct Bind(std::path::PathBuf);

impl Drop for Bind {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_folder_mounted_inside_itself_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &["a/b/", "x"]);
    let inner = folder.path().join("a/b");
    if !Command::new("mount").arg("--bind").arg(folder.path()).arg(&inner).status().is_ok_and(|status| status.success())
    {
        eprintln!("not run: this user may not mount");
        return;
    }
    let _bind = Bind(inner);
    let notes = Notes::default().scan(folder.path());
    assert_eq!(notes.found(), ["a", "a/b", "x"]);
    assert_eq!(notes.skipped, [Skipped { path: "a/b".into(), reason: SkipReason::Loop }]);
    assert_eq!(notes.entered, ["", "a"]);
}

#[test]
fn the_private_place_is_passed_over_and_what_has_its_name_elsewhere_is_not() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &["private/inner/", "other/private/"]);
    let notes = Notes::default().scan(folder.path());
    assert_eq!(notes.found(), ["other", "other/private"]);
    assert_eq!(notes.entered, ["", "other", "other/private"]);
}
