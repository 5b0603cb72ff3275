//! `farshore mount`: joins a share and mounts it until it is unmounted or told to stop.

pub(super) mod place;
mod reach;
mod writable;

use self::place::{Access, Place};
use self::reach::ReachArgs;
use self::writable::Writing;
use super::{Failure, daemon, interruptible, paths, prepare, stop_signal, text, while_written};
use crate::control::{Control, Part, Process};
use crate::fuse::{self, Ended, MountOptions, Mounted};
use crate::joining::{Bridged, Joined, join};
use crate::kernel_host::KernelHost;
use crate::live;
use crate::node::Node;
use crate::sharing::fresh_config;
use crate::store::{DiskStore, Store};
use clap::{Args, ValueEnum};
use farshore_engine::{Config, OnDisconnect};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

#[derive(Debug, Args)]
pub(super) struct MountArgs {
    /// What `farshore share` printed
    ticket: String,
    /// An empty directory to mount on
    #[arg(value_name = "MNT")]
    mountpoint: PathBuf,
    /// The folder in which you have the share: plain files, which you can change there as on the mount; what lies in it already
    /// becomes part of the share. Of a mount that is read-only, where fetched bytes are kept [default: where it was last, or
    /// a directory for this share in the state directory]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Only look at it: nothing can be changed, and what was fetched may go again. It is always so if the owner shares it
    /// with --read-only
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    reach: ReachArgs,
    /// What a read does while the owner cannot be reached
    #[arg(long, value_enum, default_value_t = WhenAway::Wait, value_name = "WHAT")]
    on_disconnect: WhenAway,
    /// How long a read waits for bytes before it fails, in seconds
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    read_timeout: u64,
    /// How much of what was fetched is kept, in bytes; K, M, G and T count as in 64G. Whole files that are in your folder are
    /// yours and do not count [default: all that there is room for]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    cache_size: Option<u64>,
    /// Fetch files whole when they are opened, eight at once
    #[arg(long)]
    prefetch_on_open: bool,
    /// Let others see what is written to a file while it is still open, every 200 ms. Without this they see it when the file is
    /// closed or fsynced, was not written to for a second, or after five seconds
    #[arg(long, conflicts_with = "read_only")]
    push_on_write: bool,
    /// Mount options as in mount(8): ro, rw, allow_other, dev, suid, noexec, noatime, ...
    #[arg(short = 'o', value_name = "OPTS")]
    options: Vec<String>,
    /// Return when it is mounted, and go on in the background
    #[arg(long)]
    daemon: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WhenAway {
    /// Wait, until the read's time is over
    Wait,
    /// Fail at once
    Fail,
}

impl MountArgs {
    /// Whether the work is to be left to a process in the background, and this is not that process.
    pub(super) fn wants_daemon(&self) -> bool {
        self.daemon && !daemon::is_background()
    }

    /// What the person wants to do with the share.
    fn access(&self) -> Result<Access, Failure> {
        let asked = self.options.iter().rev().find_map(|list| MountOptions::asks_to_write(list));
        match (self.read_only, asked) {
            (true, Some(true)) => {
                Err(Failure::usage("`--read-only` and `-o rw` contradict each other; leave out one of them"))
            }
            (true, Some(false) | None) | (false, Some(false)) => Ok(Access::Read),
            (false, Some(true)) => Ok(Access::Write),
            (false, None) => Ok(Access::AsShared),
        }
    }
}

pub(super) async fn run(state: Option<PathBuf>, args: MountArgs) -> Result<(), Failure> {
    let (ticket, state, transport) = prepare(state, &args.ticket)?;
    let reach = args.reach.reach()?;
    let mut options = MountOptions::default();
    for list in &args.options {
        options.apply(list)?;
    }
    let access = args.access()?;
    // Before anything else is set up: a bad mountpoint is the most likely slip.
    let mountpoint = fuse::prepare(&args.mountpoint)?;
    let own = state.identity().map_err(Failure::failed)?.id();
    let mut stop = pin!(stop_signal());
    let choosing = place::choose((&state, own), &ticket, &*transport, access, args.store);
    let Place { dir: store_dir, mut writing, absence } = interruptible(stop.as_mut(), choosing).await?;
    options.read_only = writing.is_none();
    if let Some(writing) = &mut writing {
        place::check_apart(&store_dir, &mountpoint)?;
        writing.tell(while_written(args.push_on_write));
    }
    let store = Arc::new(DiskStore::open(&store_dir).map_err(Failure::failed)?);
    let config = Config {
        read_timeout: Duration::from_secs(args.read_timeout),
        on_disconnect: match args.on_disconnect {
            WhenAway::Wait => OnDisconnect::Wait,
            WhenAway::Fail => OnDisconnect::Fail,
        },
        cache_bytes: args.cache_size,
        prefetch_on_open: args.prefetch_on_open,
        ..fresh_config(&own)
    };
    let joining = async {
        let store = store.clone() as Arc<dyn Store>;
        match &mut writing {
            Some(writing) => {
                writing.join(&ticket, transport, store, config, (store_dir.clone(), absence), &reach).await
            }
            None => Ok(join(&ticket, transport, store, config, absence).await?),
        }
    };
    let Joined { node, bridged } = match interruptible(stop.as_mut(), joining).await {
        Ok(joined) => joined,
        Err(failure) => {
            // Nothing was changed: what is stored need not be looked through for that at the next start.
            store.close().await?;
            return Err(failure);
        }
    };
    let mounted = match mount(&node, writing.as_ref(), &store_dir, &mountpoint, options).await {
        Ok(mounted) => mounted,
        Err(failure) => {
            node.shut_down().await;
            return Err(failure);
        }
    };
    let folder = writing.is_some().then(|| store_dir.clone());
    let circle = writing.as_ref().and_then(Writing::circle);
    let part = Part::Mount { ticket: ticket.clone(), store: store_dir.clone(), circle: circle.clone() };
    let process = Process::new(node.clone(), part).mounted(&mounted).handling(paths::of_mount(node.clone(), folder));
    let _control = Control::start_if_possible(state.dir(), Arc::new(process));
    let entries = node.view(|view| view.entries()) - 1;
    if let Some(Bridged { known_unix_seconds, is_connected }) = bridged {
        let why = if is_connected { "has not told yet what is there" } else { "cannot be reached" };
        let known = match known_unix_seconds {
            Some(time) => format!("what was there at {}", text::time(time)),
            None => format!("what {} holds", store_dir.display()),
        };
        say!("the owner {why}; showing {known}; what is not here yet has to wait");
    }
    if writing.is_some() {
        say!("what you have of it is in {}, as plain files, which you can change there as well", store_dir.display());
    }
    if let Some(address) = circle.as_ref().and_then(|circle| circle.listening()) {
        say!("the other devices of this share reach this one at {address}; --no-listen turns that off");
    }
    let shown = mounted.mountpoint().display();
    if daemon::is_background() {
        let log = state.dir().join(format!("mount-{}-{}.log", ticket.share(), std::process::id()));
        say!("mounted {entries} entries on {shown}; unmount it to stop; what happens is told in {}", log.display());
        daemon::tell_ready(&log)?;
    } else {
        say!("mounted {entries} entries on {shown}; stop with Ctrl-C");
    }
    let (sender, ended) = oneshot::channel();
    mounted.on_end(move |how| {
        // This command may be ending already.
        let _ = sender.send(how);
    });
    let result = tokio::select! {
        stopped = &mut stop => stopped.map_err(Failure::from),
        how = ended => match how {
            Ok(Ended::Failed(reason)) => Err(Failure::failed(format!("the mount ended by itself: {reason}"))),
            Ok(Ended::Unmounted) | Err(_) => Ok(()),
        },
        failure = vanished(writing.as_mut()) => Err(failure),
    };
    let unmounted = tokio::task::spawn_blocking(move || mounted.unmount()).await;
    node.shut_down().await;
    if let Some(writing) = writing {
        writing.end().await;
    }
    unmounted.map_err(Failure::failed)??;
    result
}

/// Mounts what `node` follows: the folder in which the share is changed, if there is one, and otherwise what peers have.
async fn mount(
    node: &Arc<Node>,
    writing: Option<&Writing>,
    store: &Path,
    mountpoint: &Path,
    options: MountOptions,
) -> Result<Mounted, Failure> {
    let mountpoint = mountpoint.to_owned();
    let mounted = match writing.map(Writing::live).transpose()?.flatten() {
        Some(folder) => tokio::task::spawn_blocking(move || live::mount(folder, &mountpoint, options)),
        None => {
            let host = Arc::new(KernelHost::new(node.clone(), store.to_owned()));
            tokio::task::spawn_blocking(move || Mounted::mount(host, &mountpoint, options))
        }
    };
    Ok(mounted.await.map_err(Failure::failed)??)
}

/// Waits until the folder is gone in which a share is changed, if it is.
async fn vanished(writing: Option<&mut Writing>) -> Failure {
    match writing {
        Some(writing) => writing.vanished().await,
        None => std::future::pending().await,
    }
}

/// A number of bytes: `1000`, or with a unit that counts in 1024s, `64G` or `64GiB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let power = match text[digits.len()..].trim_end_matches("iB") {
        "" => 0,
        "K" | "k" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        unit => return Err(format!("{unit:?} is no unit; use K, M, G or T, as in 64G")),
    };
    let number: u64 = digits.parse().map_err(|_| "this is no number of bytes, as in 64G".to_owned())?;
    number.checked_mul(1 << (10 * power)).ok_or_else(|| "this is more than there can be".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_size_has_a_unit_or_counts_in_bytes() {
        let good = [
            ("0", 0),
            ("1000", 1000),
            ("4k", 4096),
            ("4K", 4096),
            ("3MiB", 3 << 20),
            ("64G", 64 << 30),
            ("2T", 2 << 40),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "1X", "1 G", "99999999999T", "1iB2"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
