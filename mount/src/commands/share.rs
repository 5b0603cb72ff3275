//! `farshore share`: offers a folder until it is told to stop.

use super::{Failure, paths, stop_signal, while_written};
use crate::control::{Control, Hosting, Part, Process};
use crate::fuse::{self, MountOptions, Mounted};
use crate::live;
use crate::sharing::{DEFAULT_LISTEN, ShareOptions, Sharing};
use crate::state::State;
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Args)]
pub(super) struct ShareArgs {
    /// The folder to offer, in place
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where to listen, as host:port
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_LISTEN)]
    listen: String,
    /// Where others reach this machine, as host:port; may be given several times [default: what this machine knows]
    #[arg(long, value_name = "ADDR")]
    advertise: Vec<String>,
    /// Mount the folder here as well, on this empty directory; what is done there is done in the folder
    #[arg(long, value_name = "MNT")]
    mount: Option<PathBuf>,
    /// Options of that mount as in mount(8): ro, allow_other, dev, suid, noexec, noatime, ...
    #[arg(short = 'o', value_name = "OPTS", requires = "mount")]
    options: Vec<String>,
    /// Those who join may only look at what is in the folder. Without this they may change it as you do, and all of you have
    /// the same. The mount is then read-only, too, unless you say `-o rw`
    #[arg(long)]
    read_only: bool,
    /// Let others see what is written to a file while it is still open, every 200 ms. Without this they see it when the file is
    /// closed, was not written to for a second, or after five seconds
    #[arg(long)]
    push_on_write: bool,
    /// Make all earlier tickets of this folder worthless, and forget the devices that joined with them
    #[arg(long)]
    new_ticket: bool,
}

pub(super) async fn run(state: Option<PathBuf>, args: ShareArgs) -> Result<(), Failure> {
    let ShareArgs { folder, listen, advertise, mount, options, read_only, push_on_write, new_ticket } = args;
    if let Some(mountpoint) = &mount {
        check_outside(mountpoint, &folder)?;
    }
    let mut mount_options = MountOptions { read_only, ..MountOptions::default() };
    for list in &options {
        mount_options.apply(list)?;
    }
    let options = ShareOptions {
        folder,
        listen,
        advertise,
        new_ticket,
        writable: !read_only,
        while_written: while_written(push_on_write),
    };
    // From the first moment: a stop during the first scan is a stop too.
    let stop = stop_signal();
    tokio::pin!(stop);
    let state = State::open(state)?;
    let mut sharing = tokio::select! {
        started = Sharing::start(state.clone(), options.clone()) => started?,
        stopped = &mut stop => return Ok(stopped?),
    };
    let entries = sharing.node().view(|view| view.entries()) - 1;
    let mounted = match mount {
        Some(mountpoint) => match mount_own(&sharing, mountpoint, mount_options).await {
            Ok(mounted) => Some(mounted),
            Err(failure) => {
                sharing.stop().await;
                return Err(failure);
            }
        },
        None => None,
    };
    let _control = Control::start_if_possible(state.dir(), Arc::new(process(&sharing, &state, mounted.as_ref())));
    say!("sharing {} ({entries} entries) at {}; stop with Ctrl-C", options.folder.display(), sharing.address());
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", sharing.ticket().encode())?;
    stdout.flush()?;
    let result = tokio::select! {
        stopped = stop => stopped.map_err(Failure::from),
        () = sharing.vanished() => {
            Err(Failure::failed(format!("the folder {} is gone; nothing is shared any more", options.folder.display())))
        }
    };
    if let Some(mounted) = mounted {
        tokio::task::spawn_blocking(move || mounted.unmount()).await.map_err(Failure::failed)??;
    }
    sharing.stop().await;
    result
}

/// What can be asked of this process.
fn process(sharing: &Sharing, state: &State, mounted: Option<&Mounted>) -> Process {
    let hosting = Hosting {
        folder: sharing.folder().to_owned(),
        listening: sharing.address().to_owned(),
        ticket: sharing.ticket().clone(),
        guests: sharing.guests().clone(),
        state: state.clone(),
        roster: sharing.roster().clone(),
    };
    let process =
        Process::new(sharing.node().clone(), Part::Share(hosting)).handling(paths::of_share(sharing.offer().clone()));
    match mounted {
        Some(mounted) => process.mounted(mounted),
        None => process,
    }
}

/// A mount inside the folder would share itself.
fn check_outside(mountpoint: &Path, folder: &Path) -> Result<(), Failure> {
    let mountpoint = fuse::prepare(mountpoint)?;
    match folder.canonicalize() {
        Ok(folder) if mountpoint.starts_with(&folder) => Err(Failure::usage(format!(
            "{} lies in the folder that is shared; choose a mountpoint outside of it",
            mountpoint.display()
        ))),
        // What is wrong with the folder is said where it is shared.
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn mount_own(sharing: &Sharing, mountpoint: PathBuf, options: MountOptions) -> Result<Mounted, Failure> {
    let folder = sharing.live().map_err(Failure::failed)?;
    let mounted = tokio::task::spawn_blocking(move || live::mount(folder, &mountpoint, options));
    Ok(mounted.await.map_err(Failure::failed)??)
}
