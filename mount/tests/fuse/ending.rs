//! How mounts end, and what is left of those that ended badly.

use crate::fixture::{Fixture, SOON, alone, eventually, is_mounted, is_root, may_cut, our_threads};
use crate::tree::{Tree, pattern};
use farshore::fuse::{Ended, MountError, MountOptions, Mounted, unmount};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// What counts as prompt, with room for a busy machine; far below the time that a read may wait.
const PROMPT: Duration = Duration::from_secs(5);

#[test]
fn it_is_in_the_mount_table_under_its_name() {
    let options = MountOptions { exec: false, ..MountOptions::default() };
    let Some(fixture) = Fixture::with(Tree::new(), options) else { return };
    let device = fs::metadata(fixture.root()).unwrap().dev();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let number = format!("0:{}", libc::minor(device));
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&number)).unwrap();
    assert!(line.contains(" - fuse.farshore farshore "), "{line}");
    let flags: Vec<_> = line.split(' ').nth(5).unwrap().split(',').collect();
    assert!(["ro", "nosuid", "nodev", "noexec"].iter().all(|flag| flags.contains(flag)), "{line}");
    assert!(line.contains("default_permissions"), "{line}");
    if !is_root() {
        return;
    }
    let ahead = fs::read_to_string(format!("/sys/class/bdi/{number}/read_ahead_kb")).unwrap();
    assert_eq!(ahead.trim(), MountOptions::default().read_ahead_kib.to_string());
}

#[test]
fn unmounting_does_not_wait_for_open_files() {
    if !may_cut() {
        return;
    }
    let tree = Tree::new();
    tree.file(1, b"file", pattern(100, 1));
    let Some(mut fixture) = Fixture::new(tree) else { return };
    let mut open = File::open(fixture.path("file")).unwrap();
    assert!(fixture.unmount() < PROMPT);
    assert!(!is_mounted(fixture.root()));
    assert!(our_threads().is_empty(), "{:?}", our_threads());
    assert!(open.read(&mut [0; 10]).is_err());
    assert_eq!(fs::read_dir(fixture.root()).unwrap().count(), 0, "the directory below shows again");
}

#[test]
fn unmounting_does_not_wait_for_reads_and_they_fail() {
    if !may_cut() {
        return;
    }
    let tree = Tree::new();
    let ino = tree.file(1, b"file", pattern(3_000_000, 1));
    tree.hold(ino);
    let Some(mut fixture) = Fixture::new(tree) else { return };
    let (done, result) = mpsc::channel();
    let path = fixture.path("file");
    let reader = std::thread::spawn(move || done.send(fs::read(path)).unwrap());
    eventually("the read does not reach the host", || fixture.tree.waiting(ino) > 0);
    assert!(fixture.unmount() < PROMPT);
    assert!(result.recv_timeout(SOON).unwrap().is_err());
    reader.join().unwrap();
    assert!(our_threads().is_empty(), "{:?}", our_threads());
    // Answers that come after the end go nowhere, and hurt nobody.
    fixture.tree.release_all();
}

#[test]
fn an_unmount_by_somebody_else_is_noticed() {
    if !is_root() {
        return;
    }
    let Some(mut fixture) = Fixture::new(Tree::new()) else { return };
    let (ended, end) = mpsc::channel();
    fixture.mounted().on_end(move |how| ended.send(how).unwrap());
    rustix::mount::unmount(fixture.root(), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(end.recv_timeout(SOON), Ok(Ended::Unmounted));
    assert_eq!(fixture.wait(), Ended::Unmounted);
}

#[test]
fn the_unmount_command_ends_it_though_a_read_waits() {
    if !may_cut() {
        return;
    }
    let tree = Tree::new();
    let ino = tree.file(1, b"file", pattern(100, 1));
    tree.hold(ino);
    let Some(mut fixture) = Fixture::new(tree) else { return };
    let path = fixture.path("file");
    let reader = std::thread::spawn(move || fs::read(path));
    eventually("the read does not reach the host", || fixture.tree.waiting(ino) > 0);
    unmount(fixture.root()).unwrap();
    assert_eq!(fixture.wait(), Ended::Unmounted);
    assert!(reader.join().unwrap().is_err());
    assert!(matches!(unmount(fixture.root()), Err(MountError::NotMounted(_))));
}

#[test]
fn a_second_mount_on_the_same_place_is_refused() {
    let Some(fixture) = Fixture::new(Tree::new()) else { return };
    let error = Mounted::mount(Arc::new(Tree::new()), fixture.root(), MountOptions::default()).unwrap_err();
    assert!(matches!(&error, MountError::AlreadyMounted { what, .. } if what == "fuse.farshore"), "{error}");
    assert_eq!(fs::metadata(fixture.root()).unwrap().ino(), 1, "the first one is still there");
}

#[test]
fn a_place_can_be_mounted_on_again_and_again() {
    let Some(_alone) = alone() else { return };
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let tree = Tree::new();
        tree.file(1, b"file", pattern(1000, round));
        let mounted = Mounted::mount(Arc::new(tree), dir.path(), MountOptions::default()).unwrap();
        assert!(fs::read(dir.path().join("file")).unwrap() == pattern(1000, round));
        mounted.unmount().unwrap();
        assert!(our_threads().is_empty(), "{:?}", our_threads());
    }
    assert!(!is_mounted(dir.path()));
}

/// The control file system, which lets connections be cut; mounted for the test where the machine has not done so.
struct Control {
    dir: PathBuf,
    ours: Option<tempfile::TempDir>,
}

impl Control {
    fn new() -> Control {
        let usual = Path::new("/sys/fs/fuse/connections");
        if is_mounted(usual) {
            return Control { dir: usual.to_owned(), ours: None };
        }
        let dir = tempfile::tempdir().unwrap();
        rustix::mount::mount("fusectl", dir.path(), "fusectl", rustix::mount::MountFlags::empty(), None).unwrap();
        Control { dir: dir.path().to_owned(), ours: Some(dir) }
    }

    fn cut(&self, device: u64) {
        fs::write(self.dir.join(libc::minor(device).to_string()).join("abort"), b"1").unwrap();
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(dir) = &self.ours {
            rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
}

#[test]
fn a_cut_connection_leaves_no_mount_behind() {
    if !is_root() {
        return;
    }
    let tree = Tree::new();
    let ino = tree.file(1, b"file", pattern(100, 1));
    tree.hold(ino);
    let Some(mut fixture) = Fixture::new(tree) else { return };
    let device = fs::metadata(fixture.root()).unwrap().dev();
    let path = fixture.path("file");
    let reader = std::thread::spawn(move || fs::read(path));
    eventually("the read does not reach the host", || fixture.tree.waiting(ino) > 0);
    Control::new().cut(device);
    assert_eq!(fixture.wait(), Ended::Unmounted);
    assert!(reader.join().unwrap().is_err());
    assert!(!is_mounted(fixture.root()));
}

/// Mounts as a process that then dies without unmounting: a connection that nobody serves any more.
fn leave_stale(dir: &Path, source: &str, subtype: &str) {
    let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&device);
    let data = format!("fd={number},rootmode=40000,user_id=0,group_id=0,subtype={subtype}");
    let data = std::ffi::CString::new(data).unwrap();
    rustix::mount::mount(source, dir, "fuse", rustix::mount::MountFlags::empty(), data.as_c_str()).unwrap();
    drop(device);
    let error = fs::metadata(dir).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN), "{error}");
}

#[test]
fn what_a_dead_process_left_mounted_is_recovered() {
    if !is_root() {
        return;
    }
    let Some(_alone) = alone() else { return };
    let dir = tempfile::Builder::new().prefix("left behind ").tempdir().unwrap();
    leave_stale(dir.path(), "farshore", "farshore");
    let tree = Tree::new();
    tree.file(1, b"file", b"alive".to_vec());
    let mounted = Mounted::mount(Arc::new(tree), dir.path(), MountOptions::default()).unwrap();
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"alive");
    mounted.unmount().unwrap();
    assert!(!is_mounted(dir.path()));

    leave_stale(dir.path(), "farshore", "farshore");
    unmount(dir.path()).unwrap();
    assert!(!is_mounted(dir.path()));
}

#[test]
fn what_another_program_left_mounted_is_named_and_left_alone() {
    if !is_root() {
        return;
    }
    let Some(_alone) = alone() else { return };
    let dir = tempfile::tempdir().unwrap();
    leave_stale(dir.path(), "farshore", "other");
    let mount = Mounted::mount(Arc::new(Tree::new()), dir.path(), MountOptions::default());
    let taken_down = unmount(dir.path());
    let still_there = is_mounted(dir.path());
    rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(still_there);
    assert!(matches!(mount.unwrap_err(), MountError::Stale { what, .. } if what == "fuse.other"));
    assert!(matches!(taken_down.unwrap_err(), MountError::NotOurs { what, .. } if what == "fuse.other"));
}
