//! What this machine offers for mounting, for who wants to know before a mount fails.

use super::device;
use super::mountinfo::{self, Mount};
use super::mountpoint::is_stale;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a mount may take to show that it lives.
const PATIENCE: Duration = Duration::from_secs(2);

/// A mount of ours, of any process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Where.
    pub path: PathBuf,
    /// How it is.
    pub health: Health,
}

/// How a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Its process answers.
    Alive,
    /// Its process is gone.
    Stale,
    /// Its process says nothing for two seconds.
    Silent,
}

/// Whether this user can open the kernel's FUSE device.
///
/// # Errors
/// Why not.
pub fn open_device() -> io::Result<()> {
    device::open().map(drop).map_err(device::device_error)
}

/// Whether fusermount3 is there and runs: what it says of its version.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if it is not installed.
pub fn helper_version() -> io::Result<String> {
    let output = device::spawn_helper(|command| command.arg("-V").output())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where Farshore is mounted, by any process: absolute, without symlinks. Touches none of the mounts.
///
/// # Errors
/// The kernel does not tell.
pub fn mountpoints() -> io::Result<Vec<PathBuf>> {
    Ok(mountinfo::all()?.into_iter().filter(Mount::is_farshore).map(|mount| mount.path).collect())
}

/// All mounts of ours, each looked at; one that hangs does not hang the caller.
///
/// # Errors
/// The kernel does not tell.
pub fn probe_mounts() -> io::Result<Vec<Probed>> {
    Ok(mountpoints()?.into_iter().map(|path| Probed { health: health(path.clone()), path }).collect())
}

fn health(path: PathBuf) -> Health {
    let (sender, answer) = mpsc::channel();
    // If it hangs, it is left behind: it ends with this process, or when the mount is taken down.
    thread::spawn(move || {
        // Whoever asked may have given up.
        let _ = sender.send(is_stale(&path));
    });
    match answer.recv_timeout(PATIENCE) {
        Ok(true) => Health::Stale,
        Ok(false) => Health::Alive,
        Err(_) => Health::Silent,
    }
}
