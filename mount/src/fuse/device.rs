//! Makes the kernel mount: by itself for root, through fusermount3 for everybody else.

use super::error::MountError;
use super::mountinfo::NAME;
use super::options::MountOptions;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::ffi::{CString, OsStr};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Where the kernel offers FUSE.
const DEVICE: &str = "/dev/fuse";

/// Where the helper may be: where the shell finds it, or where distributions put it.
const HELPERS: [&str; 4] = ["fusermount3", "/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3"];

/// Mounts on `path`, which is absolute and without symlinks, and returns the connection over which the kernel asks.
pub(super) fn mount(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    match open() {
        Ok(device) => match mount_directly(&device, path, options) {
            Ok(()) => Ok(device),
            Err(Errno::PERM) => mount_with_helper(path, options),
            Err(Errno::NODEV) => Err(MountError::NoFuse(Errno::NODEV.into())),
            Err(error) => Err(MountError::System { doing: "mount on", path: path.to_owned(), error: error.into() }),
        },
        // The helper may open what this user may not.
        Err(Errno::ACCESS | Errno::PERM) if !rustix::process::geteuid().is_root() => mount_with_helper(path, options),
        Err(error) => Err(MountError::NoFuse(device_error(error))),
    }
}

/// Whether further connections to the same mount can be opened, so that each thread has its own.
pub(super) fn can_open() -> bool {
    open().is_ok()
}

/// Runs fusermount3 with `arguments`.
pub(super) fn helper(path: &Path, arguments: &[&OsStr]) -> Result<(), MountError> {
    let output = spawn_helper(|command| command.args(arguments).stdin(Stdio::null()).output())
        .map_err(|error| helper_error(path, error))?;
    check_helper(path, &output)
}

pub(super) fn open() -> Result<OwnedFd, Errno> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn device_error(error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{DEVICE} cannot be opened: {error}"))
}

fn mount_directly(device: &OwnedFd, path: &Path, options: &MountOptions) -> Result<(), Errno> {
    let mut words = vec![
        format!("fd={}", device.as_raw_fd()),
        "rootmode=40000".to_owned(),
        format!("user_id={}", rustix::process::getuid().as_raw()),
        format!("group_id={}", rustix::process::getgid().as_raw()),
    ];
    words.extend(options.fuse_words().into_iter().map(str::to_owned));
    let data = CString::new(words.join(",")).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(NAME, path, "fuse", options.flags(), data.as_c_str())
}

/// Has fusermount3 mount, and takes the connection from it. It sends that over a socket whose number it finds in its
/// environment; ours is its standard input, so that no other child can inherit it.
fn mount_with_helper(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let system = |error| MountError::System { doing: "talk to fusermount3 about", path: path.to_owned(), error };
    let mut words = options.words();
    words.extend(options.fuse_words());
    let words = format!("fsname={NAME},{}", words.join(","));
    let (ours, theirs) = UnixStream::pair().map_err(system)?;
    let child = spawn_helper(|command| {
        let input = theirs.try_clone()?;
        command.arg("-o").arg(&words).arg("--").arg(path);
        command
            .env("_FUSE_COMMFD", "0")
            .stdin(OwnedFd::from(input))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    })
    .map_err(|error| helper_error(path, error))?;
    drop(theirs);
    let received = receive_fd(&ours);
    drop(ours);
    let output = child.wait_with_output().map_err(system)?;
    check_helper(path, &output)?;
    received.map_err(system)
}

/// Runs the first helper that is there and that this user may run.
pub(super) fn spawn_helper<T>(mut run: impl FnMut(&mut Command) -> io::Result<T>) -> io::Result<T> {
    for helper in HELPERS {
        match run(&mut Command::new(helper)) {
            // A directory of the search path that this user may not look into says "denied" as well.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
            other => return other,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn helper_error(path: &Path, error: io::Error) -> MountError {
    if error.kind() == io::ErrorKind::NotFound {
        return MountError::NoHelper;
    }
    MountError::System { doing: "run fusermount3 for", path: path.to_owned(), error }
}

fn check_helper(path: &Path, output: &Output) -> Result<(), MountError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("user_allow_other") {
        return Err(MountError::AllowOther);
    }
    let reason = if said.trim().is_empty() { output.status.to_string() } else { said.trim().to_owned() };
    Err(MountError::Helper { path: path.to_owned(), reason })
}

/// Waits for one message with a file descriptor in it.
fn receive_fd(socket: &impl AsFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    loop {
        let mut parts = [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        RecvAncillaryMessage::ScmCredentials(_) | _ => None,
    });
    received.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it sent no connection"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use std::io::{IoSlice, Read, Seek, SeekFrom, Write};
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_descriptor_travels_over_the_socket() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        let fds = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(&theirs, &[IoSlice::new(&[0])], &mut control, SendFlags::empty()).unwrap();
        let mut received = std::fs::File::from(receive_fd(&ours).unwrap());
        received.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_helper_that_ends_without_a_word_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(receive_fd(&ours).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_the_helper_says_is_passed_on() {
        let output = |stderr: &str| Output {
            status: std::process::ExitStatus::from_raw(256),
            stdout: Vec::new(),
            stderr: stderr.as_bytes().to_vec(),
        };
        let said = "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf\n";
        assert!(matches!(check_helper(Path::new("/m"), &output(said)), Err(MountError::AllowOther)));
        let error = check_helper(Path::new("/m"), &output("fusermount3: no\n")).unwrap_err();
        assert_eq!(error.to_string(), "fusermount3 refuses /m: fusermount3: no");
    }
}
