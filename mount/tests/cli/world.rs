//! The devices and directories of one test, and the things that people do with them.

use crate::process::{Ended, Process};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The program under test.
pub(crate) const FARSHORE: &str = env!("CARGO_BIN_EXE_farshore");

/// A directory for everything of one test. When it is dropped, nothing may be mounted in it any more and the temporary
/// directory of the processes must be empty.
pub(crate) struct World {
    dir: Option<TempDir>,
}

impl World {
    pub(crate) fn new() -> World {
        let world = World { dir: Some(tempfile::Builder::new().prefix("farshore cli ").tempdir().unwrap()) };
        fs::create_dir(world.path("tmp")).unwrap();
        world
    }

    /// `None`, and a loud word about it, if this machine has no FUSE.
    pub(crate) fn with_fuse() -> Option<World> {
        match fs::File::options().read(true).write(true).open("/dev/fuse") {
            Ok(_) => Some(World::new()),
            Err(error) => {
                skipped(&format!("no /dev/fuse ({error})"));
                None
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.as_ref().unwrap().path().canonicalize().unwrap().join(name)
    }

    /// A new directory.
    pub(crate) fn new_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// `farshore` on the device of this name, which begins to exist with its first command.
    pub(crate) fn farshore(&self, device: &str, arguments: &[&str]) -> Command {
        let state = self.path(&format!("state of {device}"));
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&state).unwrap();
        let mut command = Command::new(FARSHORE);
        command.env_remove("FARSHORE_STATE").env_remove("FARSHORE_LOG").env_remove("FARSHORE_BACKGROUND");
        command.env("TMPDIR", self.path("tmp")).current_dir(self.path(""));
        command.arg("--state").arg(state).args(arguments);
        command
    }

    /// Runs `farshore` to its end.
    pub(crate) fn run(&self, device: &str, arguments: &[&str]) -> Ended {
        Process::run(self.farshore(device, arguments))
    }

    /// The owner shares a folder, at a port that is free.
    pub(crate) fn share(&self, folder: &Path) -> Share {
        self.share_at(folder, "127.0.0.1:0", &[])
    }

    /// The owner shares a folder at an address of its own.
    pub(crate) fn share_at(&self, folder: &Path, address: &str, more: &[&str]) -> Share {
        let mut command = self.farshore("owner", &["share", "--listen", address]);
        command.arg(folder).args(more);
        let process = Process::start(command);
        let said = process.says("sharing ");
        let address = said.rsplit(" at ").next().unwrap().split(';').next().unwrap().to_owned();
        Share { ticket: process.first_line(), process, address }
    }

    /// The reader mounts on `mnt`, a directory that is made if it is not there, to look at what is there.
    pub(crate) fn mount(&self, share: &Share, more: &[&str]) -> Mount {
        self.mount_on(&self.path("mnt"), &share.ticket, more)
    }

    pub(crate) fn mount_on(&self, mountpoint: &Path, ticket: &str, more: &[&str]) -> Mount {
        self.mount_as("reader", mountpoint, ticket, more)
    }

    /// The same for a device of this name.
    pub(crate) fn mount_as(&self, device: &str, mountpoint: &Path, ticket: &str, more: &[&str]) -> Mount {
        self.join_as(device, mountpoint, ticket, &[&["--read-only"], more].concat())
    }

    /// The reader mounts on `mnt`, to change what is there.
    pub(crate) fn join(&self, share: &Share, more: &[&str]) -> Mount {
        self.join_as("reader", &self.path("mnt"), &share.ticket, more)
    }

    /// The same for a device of this name, on a directory that is made if it is not there.
    pub(crate) fn join_as(&self, device: &str, mountpoint: &Path, ticket: &str, more: &[&str]) -> Mount {
        fs::create_dir_all(mountpoint).unwrap();
        let mount = self.begin_to_mount_as(device, mountpoint, ticket, more);
        mount.wait_until_ready();
        mount
    }

    /// The reader begins to mount on a directory that is there, to look at what is there.
    pub(crate) fn begin_to_mount_on(&self, mountpoint: &Path, ticket: &str, more: &[&str]) -> Mount {
        self.begin_to_mount_as("reader", mountpoint, ticket, &[&["--read-only"], more].concat())
    }

    fn begin_to_mount_as(&self, device: &str, mountpoint: &Path, ticket: &str, more: &[&str]) -> Mount {
        let mut command = self.farshore(device, &["mount", ticket]);
        command.arg(mountpoint).args(more);
        Mount { process: Some(Process::start(command)), path: mountpoint.to_owned() }
    }

    /// What the stores of the reader's mounts hold of files, all shares together: all but their locks and their trees.
    pub(crate) fn stored_files(&self) -> Vec<PathBuf> {
        let mut files = files_below(&self.path("state of reader/store"));
        files.retain(|file| !file.ends_with(".farshore/lock") && !file.ends_with(".farshore/tree"));
        files
    }
}

/// Says that a test was skipped, past the harness, which shows what a test prints only when it fails.
pub(crate) fn skipped(reason: &str) {
    let _ = writeln!(io::stderr(), "\n*** SKIPPED: {reason} ***\n");
}

impl Drop for World {
    fn drop(&mut self) {
        let dir = self.dir.take().unwrap();
        let inside = dir.path().canonicalize().unwrap();
        let running = processes_about(&inside);
        for pid in &running {
            // It may have ended by itself meanwhile.
            let _ = kill_process(*pid, Signal::KILL);
        }
        let left: Vec<_> = mounts().into_iter().filter(|mount| mount.starts_with(&inside)).collect();
        left.iter().for_each(|mount| take_down(mount));
        make_removable(&inside);
        if std::thread::panicking() {
            return;
        }
        assert!(running.is_empty(), "still running: {running:?}");
        assert!(left.is_empty(), "still mounted: {left:?}");
        let temporary: Vec<_> = fs::read_dir(inside.join("tmp")).unwrap().collect();
        assert!(temporary.is_empty(), "temporary files stay behind: {temporary:?}");
        dir.close().unwrap();
    }
}

/// A folder that is being shared.
pub(crate) struct Share {
    pub(crate) process: Process,
    pub(crate) ticket: String,
    /// Where it listens.
    pub(crate) address: String,
}

/// A mount in the foreground. When it is dropped, its process is killed and the mount taken down.
pub(crate) struct Mount {
    process: Option<Process>,
    path: PathBuf,
}

impl Mount {
    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    pub(crate) fn process_mut(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    pub(crate) fn wait_until_ready(&self) {
        self.process().says("; stop with Ctrl-C");
    }

    pub(crate) fn root(&self) -> &Path {
        &self.path
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.path.join(below)
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn stop(self) {
        self.stop_by(Signal::INT).went_well();
    }

    pub(crate) fn stop_by(mut self, signal: Signal) -> Ended {
        let ended = self.process.take().unwrap().stop(signal);
        assert!(!is_mounted(&self.path), "the mount stays behind");
        ended
    }

    /// Kills it so that it can do nothing about it. What it had mounted is left behind.
    pub(crate) fn kill_and_leave(mut self) {
        self.process_mut().kill();
        self.path = PathBuf::new();
    }

    /// Waits for its end, which somebody else has brought about.
    pub(crate) fn end(mut self) -> Ended {
        self.process.take().unwrap().end()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(self.process.take());
        take_down(&self.path);
    }
}

/// Takes a mount down, if there is one, whoever uses it.
pub(crate) fn take_down(mountpoint: &Path) {
    while is_mounted(mountpoint) {
        if unmount(mountpoint, UnmountFlags::DETACH).is_err() {
            let helped = Command::new("fusermount3").args(["-u", "-z", "--"]).arg(mountpoint).status();
            assert!(helped.is_ok_and(|status| status.success()), "cannot unmount {}", mountpoint.display());
        }
    }
}

/// Whether anything is mounted on `path`.
pub(crate) fn is_mounted(path: &Path) -> bool {
    mounts().iter().any(|mount| mount == path)
}

/// The processes with a path at or below this one on their command line.
pub(crate) fn processes_about(path: &Path) -> Vec<Pid> {
    let names = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| Pid::from_raw(name.to_str()?.parse().ok()?));
    let is_about = |pid: &Pid| {
        // It may end while we look; one that has ended has no command line.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| Path::new(OsStr::from_bytes(word)).starts_with(path))
    };
    pids.filter(is_about).collect()
}

/// All mountpoints that this process sees.
fn mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(|point| point.replace("\\040", " ").into()).collect()
}

/// Lets this user empty every directory below `path`, whatever its mode was.
fn make_removable(path: &Path) {
    for entry in fs::read_dir(path).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o700)).unwrap();
            make_removable(&entry.path());
        }
    }
}

/// All that is at or below `path` and is not a directory. Nothing if there is no `path`.
pub(crate) fn files_below(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files_below(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}
