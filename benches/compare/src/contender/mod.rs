//! Who does the work: each has a way to offer a folder, and a way to have it on the other side.

mod farshore;
mod rclone;
mod ssh;

pub(crate) use self::farshore::tidy;

use crate::process::Process;
use crate::stage::{Mounted, Stage};
use crate::stopping::Trouble;
use crate::stream;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// Farshore, as a mount that is only looked at, as those of the others are
    Farshore,
    /// Farshore, as it comes: what is in the mount can be changed
    FarshoreWritable,
    /// sshfs, as it comes
    Sshfs,
    /// sshfs with its fastest cipher, four connections, and its caches on for an hour
    SshfsTuned,
    /// rclone mount over `rclone serve http`, not encrypted
    RcloneHttp,
    /// rclone mount over `rclone serve sftp`
    RcloneSftp,
    /// The folder itself
    Plain,
    /// One gRPC stream over TLS into a file, and nothing else
    Stream,
}

/// The owner's side of a contender.
#[derive(Debug)]
pub(crate) struct Owner {
    process: Option<Process>,
    /// How it is reached: a ticket, a port, or nothing.
    at: String,
}

impl Owner {
    /// The process that serves, if there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }
}

/// The reader's side of a contender.
#[derive(Debug)]
pub(crate) enum Reader {
    /// The folder itself, on the owner's disk.
    Plain,
    /// It is mounted.
    Mounted(Mounted),
}

impl Reader {
    /// Where the folder is seen.
    pub(crate) fn root<'a>(&'a self, stage: &'a Stage<'_>) -> &'a Path {
        match self {
            Reader::Plain => stage.folder,
            Reader::Mounted(mounted) => mounted.root(),
        }
    }

    /// The process that serves it, if there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Reader::Plain => None,
            Reader::Mounted(mounted) => mounted.pid(),
        }
    }
}

/// A folder of one's own.
#[derive(Debug)]
pub(crate) enum OwnFolder {
    /// As it is.
    Plain(PathBuf),
    /// By way of its mount.
    Mounted(Mounted),
}

impl OwnFolder {
    /// Where it is seen.
    pub(crate) fn root(&self) -> &Path {
        match self {
            OwnFolder::Plain(path) => path,
            OwnFolder::Mounted(mounted) => mounted.root(),
        }
    }
}

impl Contender {
    /// What it is called in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Contender::Farshore => "Farshore",
            Contender::FarshoreWritable => "Farshore, writable",
            Contender::Sshfs => "sshfs",
            Contender::SshfsTuned => "sshfs, tuned",
            Contender::RcloneHttp => "rclone, http",
            Contender::RcloneSftp => "rclone, sftp",
            Contender::Plain => "plain folder",
            Contender::Stream => "raw TLS stream",
        }
    }

    /// The programs that it needs, and the packages that have them.
    pub(crate) fn needs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Contender::Farshore | Contender::FarshoreWritable | Contender::Plain | Contender::Stream => &[],
            Contender::Sshfs | Contender::SshfsTuned => &[("sshfs", "sshfs"), ("/usr/sbin/sshd", "openssh-server")],
            Contender::RcloneHttp | Contender::RcloneSftp => &[("rclone", "rclone"), ("fusermount3", "fuse3")],
        }
    }

    /// Offers the folder.
    pub(crate) fn serve(self, stage: &Stage<'_>) -> Result<Owner, Trouble> {
        match self {
            Contender::Farshore => farshore::serve(stage, stage.folder, farshore::LOOKED_AT),
            Contender::FarshoreWritable => farshore::serve(stage, stage.folder, farshore::WRITABLE),
            Contender::Sshfs | Contender::SshfsTuned => ssh::serve(stage),
            Contender::RcloneHttp => rclone::serve(stage, rclone::Protocol::Http),
            Contender::RcloneSftp => rclone::serve(stage, rclone::Protocol::Sftp),
            Contender::Plain => Ok(Owner { process: None, at: String::new() }),
            Contender::Stream => stream::serve(stage).map(|(process, at)| Owner { process: Some(process), at }),
        }
    }

    /// Mounts what `owner` offers.
    pub(crate) fn mount(self, owner: &Owner, stage: &Stage<'_>) -> Result<Reader, Trouble> {
        let root = stage.new_dir("mnt")?;
        let process = match self {
            Contender::Farshore => farshore::mount(owner, &root, stage, farshore::LOOKED_AT),
            Contender::FarshoreWritable => farshore::mount(owner, &root, stage, farshore::WRITABLE),
            Contender::Sshfs => ssh::mount(owner, &root, stage, &[]),
            Contender::SshfsTuned => ssh::mount(owner, &root, stage, &ssh::TUNED),
            Contender::RcloneHttp => rclone::mount(owner, &root, stage, rclone::Protocol::Http),
            Contender::RcloneSftp => rclone::mount(owner, &root, stage, rclone::Protocol::Sftp),
            Contender::Plain => return Ok(Reader::Plain),
            Contender::Stream => Err(Trouble::Failed("a stream cannot be mounted".to_owned())),
        };
        Ok(Reader::Mounted(Mounted::wait(process?, root, stage)?))
    }

    /// Shares a folder that both sides may change, and mounts it on the reader's. Only [`Contender::Farshore`] tells each side
    /// of the other's changes.
    pub(crate) fn together(self, stage: &Stage<'_>, folder: &Path) -> Result<(Owner, Mounted), Trouble> {
        match self {
            Contender::Farshore => farshore::together(stage, folder),
            Contender::FarshoreWritable
            | Contender::Sshfs
            | Contender::SshfsTuned
            | Contender::RcloneHttp
            | Contender::RcloneSftp
            | Contender::Plain
            | Contender::Stream => Err(Trouble::Failed("it tells nobody of changes".to_owned())),
        }
    }

    /// Works in a folder of its own. Only [`Contender::Farshore`] has a mount for that, and only [`Contender::Plain`] needs none.
    pub(crate) fn own_folder(self, stage: &Stage<'_>, folder: &Path) -> Result<OwnFolder, Trouble> {
        match self {
            Contender::Farshore => farshore::own_folder(stage, folder).map(OwnFolder::Mounted),
            Contender::Plain => Ok(OwnFolder::Plain(folder.to_owned())),
            Contender::FarshoreWritable
            | Contender::Sshfs
            | Contender::SshfsTuned
            | Contender::RcloneHttp
            | Contender::RcloneSftp
            | Contender::Stream => Err(Trouble::Failed("it is for folders of others".to_owned())),
        }
    }

    /// Fetches a file of the owner's into another without mounting. Only [`Contender::Stream`] does that.
    pub(crate) fn fetch(self, owner: &Owner, stage: &Stage<'_>) -> Result<Process, Trouble> {
        stream::fetch(&owner.at, stage)
    }
}

/// A port of the owner's that nobody uses.
fn free_port() -> Result<u16, Trouble> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until somebody answers at a port of the owner's.
fn wait_for_port(process: &mut Process, stage: &Stage<'_>, port: u16) -> Result<(), Trouble> {
    let address = SocketAddr::new(stage.owner_address(), port);
    let knock = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
    process.wait_for(crate::stage::START_LIMIT, |_| {
        let answered = match stage.link {
            Some(link) => link.far.namespace.run(knock)?,
            None => knock(),
        };
        Ok(answered.then_some(()))
    })
}
