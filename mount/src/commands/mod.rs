//! The commands: what each is told, and what it ends with.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 when all was done, 1 when something could not be done, 2 when the
//! command line, the ticket or the mountpoint was no good, 130 after Ctrl-C in the middle of a piece of work.

/// Says something on stderr. If nobody hears it any more (a pipe whose reader is gone), that is no reason to stop.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod daemon;
mod demo;
mod doctor;
mod get;
mod link_cutter;
mod ls;
mod mount;
mod paths;
mod peers;
mod prometheus;
mod share;
mod status;
mod text;
mod verify;

use crate::control::{FileCommand, RunDirError};
use crate::folder::WhileWritten;
use crate::fuse::{MountError, OptionError};
use crate::identity::IdentityError;
use crate::joining::JoinError;
use crate::net::tls::TlsTransport;
use crate::sharing::ShareError;
use crate::state::{State, StateError};
use crate::ticket::{Ticket, TicketError};
use clap::{Args, Parser, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Something could not be done.
const FAILED: u8 = 1;
/// What was said on the command line is no good.
const USAGE: u8 = 2;
/// Ctrl-C.
const INTERRUPTED: u8 = 130;

/// How long a command that has ended waits for what it has left running.
const EXIT_LIMIT: Duration = Duration::from_secs(1);

/// Mounts another machine's folder on yours.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct CommandLine {
    /// Where this device keeps its key, its shares and what it has fetched [default: $XDG_STATE_HOME/farshore]
    #[arg(long, global = true, value_name = "DIR", env = "FARSHORE_STATE")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the id of this device
    Id,
    /// Offer a folder to others, and print the ticket to join it
    Share(share::ShareArgs),
    /// Join a share and mount it
    Mount(mount::MountArgs),
    /// List what a share holds, without mounting it
    Ls(ls::LsArgs),
    /// Fetch files of a share, without mounting it
    Get(get::GetArgs),
    /// Show what runs on this device: shares, mounts, links, files on their way, errors
    Status(status::StatusArgs),
    /// List the devices that have joined the shares of this device, or revoke one
    Peers(peers::PeersArgs),
    /// Say what is wrong with the set-up of this machine, and how to mend it
    Doctor(doctor::DoctorArgs),
    /// Look at everything that was fetched and is stored, and say what is damaged
    Verify(verify::VerifyArgs),
    /// Stop offering a file or a directory of a shared folder; whoever has it open reads on
    Unshare(paths::UnshareArgs),
    /// Fetch a file or a directory of a mount, and keep it here
    Pin(paths::PathArgs),
    /// Let what was pinned go when room is needed
    Unpin(paths::PathArgs),
    /// Let go of what was fetched of a file or a directory of a mount
    Evict(paths::PathArgs),
    /// Take a mount down
    Unmount(UnmountArgs),
    /// A tour on one machine with two devices: share, mount, cut the link, heal it, compare
    Demo(demo::DemoArgs),
}

#[derive(Debug, Args)]
struct UnmountArgs {
    /// Where it is mounted
    #[arg(value_name = "MNT")]
    mountpoint: PathBuf,
}

/// A command that did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What happened, to what, and what to do; empty if it was said already.
    pub message: String,
}

impl Failure {
    fn failed(message: impl ToString) -> Failure {
        Failure { code: FAILED, message: message.to_string() }
    }

    fn usage(message: impl ToString) -> Failure {
        Failure { code: USAGE, message: message.to_string() }
    }

    fn interrupted() -> Failure {
        Failure { code: INTERRUPTED, message: "interrupted".to_owned() }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Failure {
        Failure::failed(error)
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Failure {
        Failure::failed(error)
    }
}

impl From<TicketError> for Failure {
    fn from(error: TicketError) -> Failure {
        Failure::usage(error)
    }
}

impl From<OptionError> for Failure {
    fn from(error: OptionError) -> Failure {
        Failure::usage(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::failed(error)
    }
}

impl From<ShareError> for Failure {
    fn from(error: ShareError) -> Failure {
        match error {
            ShareError::NotAFolder { .. } | ShareError::Ticket(_) => Failure::usage(error),
            ShareError::State(_)
            | ShareError::Identity(_)
            | ShareError::Folder(_)
            | ShareError::Listen(_)
            | ShareError::Store(_)
            | ShareError::Vanished(_) => Failure::failed(error),
        }
    }
}

impl From<RunDirError> for Failure {
    fn from(error: RunDirError) -> Failure {
        Failure::failed(error)
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Failure {
        match error {
            JoinError::Denied => Failure::usage(error),
            JoinError::Incompatible
            | JoinError::Unreachable { .. }
            | JoinError::Stalled
            | JoinError::Broken(_)
            | JoinError::Vanished(_) => Failure::failed(error),
        }
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Failure {
        match error {
            MountError::Missing(_)
            | MountError::NotDirectory(_)
            | MountError::NotEmpty { .. }
            | MountError::AlreadyMounted { .. }
            | MountError::Stale { .. }
            | MountError::NotMounted(_)
            | MountError::NotOurs { .. } => Failure::usage(error),
            MountError::NoFuse(_)
            | MountError::NoHelper
            | MountError::Helper { .. }
            | MountError::AllowOther
            | MountError::System { .. } => Failure::failed(error),
        }
    }
}

/// Runs what the command line asks for.
///
/// # Errors
/// Why it was not done, and the exit code for that.
pub fn run(line: CommandLine) -> Result<(), Failure> {
    let CommandLine { state, command } = line;
    match command {
        Command::Id => {
            let id = State::open(state)?.identity()?.id();
            Ok(writeln!(io::stdout(), "{id}")?)
        }
        Command::Unmount(UnmountArgs { mountpoint }) => Ok(crate::fuse::unmount(&mountpoint)?),
        Command::Mount(args) if args.wants_daemon() => daemon::start(),
        Command::Share(args) => in_runtime(share::run(state, args)),
        Command::Mount(args) => in_runtime(mount::run(state, args)),
        Command::Ls(args) => in_runtime(ls::run(state, args)),
        Command::Get(args) => in_runtime(get::run(state, args)),
        Command::Status(args) => in_runtime(status::run(state, args)),
        Command::Peers(args) => in_runtime(peers::run(state, args)),
        Command::Doctor(args) => doctor::run(state, &args),
        Command::Unshare(args) => in_runtime(paths::unshare(state, args)),
        Command::Pin(args) => in_runtime(paths::in_mount(state, args, FileCommand::Pin)),
        Command::Unpin(args) => in_runtime(paths::in_mount(state, args, FileCommand::Unpin)),
        Command::Evict(args) => in_runtime(paths::in_mount(state, args, FileCommand::Evict)),
        Command::Verify(args) => in_runtime(verify::run(state, args)),
        Command::Demo(args) => in_runtime(demo::run(args)),
    }
}

fn in_runtime<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // What tasks still hold (files that must not stay behind, say) is let go of. A thread that waits for a disk must
    // not keep the command from ending.
    runtime.shutdown_timeout(EXIT_LIMIT);
    result
}

/// The ticket, and what this device needs to use it.
fn prepare(state: Option<PathBuf>, ticket: &str) -> Result<(Ticket, State, Arc<TlsTransport>), Failure> {
    let ticket = Ticket::parse(ticket)?;
    let state = State::open(state)?;
    let transport = Arc::new(TlsTransport::new(state.identity()?));
    Ok((ticket, state, transport))
}

/// Does a piece of work that `stop` interrupts: one [`stop_signal`] for all pieces, so that none is missed in between.
async fn interruptible<T>(
    stop: Pin<&mut impl Future<Output = io::Result<()>>>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        // Listened for from the beginning.
        biased;
        stopped = stop => stopped.map_err(Failure::from).and(Err(Failure::interrupted())),
        result = work => result,
    }
}

/// What `--push-on-write` means.
fn while_written(push: bool) -> WhileWritten {
    if push { WhileWritten::Pushed } else { WhileWritten::Held }
}

/// Waits for Ctrl-C or a polite kill. From now on, and not only from when this is first waited for, none is missed.
fn stop_signal() -> impl Future<Output = io::Result<()>> {
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    async move {
        let [interrupt, terminate, hang_up] = signals;
        let (mut interrupt, mut terminate, mut hang_up) = (interrupt?, terminate?, hang_up?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        Ok(())
    }
}
