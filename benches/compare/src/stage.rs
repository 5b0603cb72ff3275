//! Where one measurement takes place: two machines that are one, with a line between them or none.

use crate::process::Process;
use crate::stopping::{Trouble, wait_for};
use farshore_compare::link::{Link, Namespace};
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a server or a mount may take to be there, a share of a million files included.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(120);

/// The two sides, a directory for what one measurement leaves behind, and the programs.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    /// The line; `None` for the loopback device.
    pub(crate) link: Option<&'a Link>,
    /// For this measurement alone; empty when it begins.
    pub(crate) scratch: &'a Path,
    /// The farshore program.
    pub(crate) farshore: &'a Path,
    /// What the owner offers.
    pub(crate) folder: &'a Path,
}

impl Stage<'_> {
    /// Where the owner is reached.
    pub(crate) fn owner_address(&self) -> IpAddr {
        self.link.map_or(Ipv4Addr::LOCALHOST, |link| link.far.address).into()
    }

    /// Starts a process on the owner's side.
    pub(crate) fn start_owner(&self, command: Command, name: &str) -> Result<Process, Trouble> {
        self.start(command, name, self.link.map(|link| &link.far.namespace))
    }

    /// Starts a process on the reader's side.
    pub(crate) fn start_reader(&self, command: Command, name: &str) -> Result<Process, Trouble> {
        self.start(command, name, self.link.map(|link| &link.near.namespace))
    }

    fn start(&self, command: Command, name: &str, inside: Option<&Namespace>) -> Result<Process, Trouble> {
        Process::start(command, self.scratch, name, |command| match inside {
            Some(namespace) => namespace.spawn(command),
            None => command.spawn(),
        })
    }

    /// A new directory.
    pub(crate) fn new_dir(&self, name: &str) -> Result<PathBuf, Trouble> {
        let path = self.scratch.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

/// A mount and its process. Dropping it takes both down.
#[derive(Debug)]
pub(crate) struct Mounted {
    root: PathBuf,
    process: Option<Process>,
}

impl Mounted {
    /// Waits until something is mounted on `root` and its first listing has come.
    pub(crate) fn wait(process: Process, root: PathBuf, stage: &Stage<'_>) -> Result<Mounted, Trouble> {
        let mounted = Mounted::wait_for_any(process, root)?;
        let mut list = Command::new("ls");
        list.arg("-U").arg(&mounted.root);
        // In a process of its own, because it may never come.
        let listing = stage.start_reader(list, "first listing")?.end(START_LIMIT)?;
        if listing.is_empty() {
            return Err(Trouble::Failed("the mount is empty".to_owned()));
        }
        Ok(mounted)
    }

    /// Waits until something is mounted on `root`, which may be empty.
    pub(crate) fn wait_for_any(process: Process, root: PathBuf) -> Result<Mounted, Trouble> {
        let mut mounted = Mounted { root, process: Some(process) };
        let Mounted { root, process } = &mut mounted;
        if let Some(process) = process {
            process.wait_for(START_LIMIT, |_| Ok(is_mounted(root)?.then_some(())))?;
        }
        Ok(mounted)
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The process that serves it.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Takes it down in an orderly way, so that what it keeps is there for the next.
    pub(crate) fn stop(mut self) -> Result<(), Trouble> {
        self.process.take().map_or(Ok(()), Process::stop)?;
        let root = self.root.clone();
        wait_for(START_LIMIT, || Ok((!is_mounted(&root)?).then_some(())))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // First, because it would end by itself and leave its own processes behind.
        drop(self.process.take());
        // Detached at once, whoever uses it; not mounted is as good.
        let _ = unmount(&self.root, UnmountFlags::DETACH);
    }
}

fn is_mounted(root: &Path) -> Result<bool, Trouble> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // Our directories have no characters in their names that the table would write otherwise.
    Ok(table.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == root)))
}

/// Forgets what the kernel has cached of any file.
pub(crate) fn drop_caches() -> Result<(), Trouble> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").map_err(|error| format!("cannot drop the page cache: {error}").into())
}

/// Says what is missing before anything is made.
pub(crate) fn check_machine() -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "network namespaces and page caches need root; run it as root"
    );
    for device in ["/dev/fuse", "/dev/net/tun"] {
        let opened = fs::File::options().read(true).write(true).open(device);
        opened.map_err(|error| anyhow::anyhow!("this needs {device}, which is not there for us: {error}"))?;
    }
    Ok(())
}
