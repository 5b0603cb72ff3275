//! `farshore unshare`, `pin`, `unpin` and `evict`: what a person says about one path, to the process that has it.

use super::Failure;
use crate::control::{
    Answer, FileCommand, FileHandler, FileRequest, Report, Request as ControlRequest, Role, RunDir, ask, ask_all,
    do_with_path,
};
use crate::json_path::JsonPath;
use crate::node::Node;
use crate::sharing::Offer;
use crate::state::{InShare, State};
use clap::Args;
use farshore_engine::{Errno, Reply, Request};
use futures_util::FutureExt;
use futures_util::future::ready;
use indicatif::HumanBytes;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Args)]
pub(super) struct UnshareArgs {
    /// A file or a directory in a folder that this device shares; it need not exist
    path: PathBuf,
    /// Offer it again
    #[arg(long)]
    undo: bool,
}

#[derive(Debug, Args)]
pub(super) struct PathArgs {
    /// A file or a directory in a mount
    path: PathBuf,
}

/// Leaves a path out of its share, or takes it in again: for good, and at once if the share runs.
pub(super) async fn unshare(state: Option<PathBuf>, args: UnshareArgs) -> Result<(), Failure> {
    let UnshareArgs { path, undo } = args;
    let state = State::open(state)?;
    let command = if undo { FileCommand::Reshare } else { FileCommand::Unshare };
    let found = if undo { state.share_again(&path)? } else { state.unshare(&path)? };
    let (now, later) = match undo {
        true => ("is offered again", "is offered again from the next `farshore share` on"),
        false => ("is not offered any more", "is not offered from the next `farshore share` on"),
    };
    for place in found {
        let is_running = tell_share(&state, command, &place).await?;
        let shown = place.folder.join(OsStr::from_bytes(&place.path.to_bytes()));
        writeln!(io::stdout(), "{} {}", shown.display(), if is_running { now } else { later })?;
    }
    Ok(())
}

/// Has the process that offers the share act on what was written down. Returns whether there is one.
async fn tell_share(state: &State, command: FileCommand, place: &InShare) -> Result<bool, Failure> {
    let share = place.share.to_string();
    let is_it = |report: &Report| matches!(&report.role, Role::Share(it) if it.share == share);
    let reached = ask_all(state.dir(), &ControlRequest::Status {}).await.map_err(Failure::failed)?;
    // One that does not answer may be the one that offers it.
    let silent = reached.iter().find_map(|one| one.answer.as_ref().err()).map(ToString::to_string);
    let running = reached.into_iter().find(|one| matches!(&one.answer, Ok(Answer::Status(report)) if is_it(report)));
    if let (None, Some(error)) = (&running, silent) {
        return Err(Failure::failed(format!(
            "it is written down for the next start, but a running process could not be told: {error}"
        )));
    }
    let (Some(running), Some(run)) = (running, RunDir::existing(state.dir()).map_err(Failure::failed)?) else {
        return Ok(false);
    };
    let path = JsonPath::from_bytes(&place.path.to_bytes());
    match ask(&run, &running.socket, &ControlRequest::File(FileRequest { command, path })).await {
        Ok(Answer::Done { .. }) => Ok(true),
        Ok(Answer::Refused { reason }) => {
            Err(Failure::failed(format!("the running share did not take note: {reason}")))
        }
        Ok(Answer::Status(_) | Answer::Dismissed { .. }) => {
            Err(Failure::failed("the running share answered another question"))
        }
        Err(error) => Err(Failure::failed(format!("the running share cannot be told: {error}"))),
    }
}

/// Has the process that has `path` mounted do something with it.
pub(super) async fn in_mount(state: Option<PathBuf>, args: PathArgs, command: FileCommand) -> Result<(), Failure> {
    let state = State::open(state)?;
    let text = do_with_path(state.dir(), &args.path, command).await.map_err(Failure::failed)?;
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// What a share does with single paths.
pub(super) fn of_share(offer: Offer) -> FileHandler {
    Box::new(move |command, _| match command {
        // What is not offered is written down already: it has to be read.
        FileCommand::Unshare | FileCommand::Reshare => {
            let offer = offer.clone();
            async move { offer.reload().await.map(|()| String::new()).map_err(|error| error.to_string()) }.boxed()
        }
        FileCommand::Pin | FileCommand::Unpin | FileCommand::Evict => {
            ready(Err("this is a folder of this device: all of it is here anyway".to_owned())).boxed()
        }
    })
}

/// What a mount does with single paths.
pub(super) fn of_mount(node: Arc<Node>) -> FileHandler {
    Box::new(move |command, path| {
        let request = match command {
            FileCommand::Pin => Request::Pin { path },
            FileCommand::Unpin => Request::Unpin { path },
            FileCommand::Evict => Request::Evict { path },
            FileCommand::Unshare | FileCommand::Reshare => {
                return ready(Err("it belongs to another device, which alone can share it or not".to_owned())).boxed();
            }
        };
        let node = node.clone();
        async move { node.reply(request).await.map(|reply| told(command, &reply)).map_err(|errno| why(command, errno)) }
            .boxed()
    })
}

fn told(command: FileCommand, reply: &Reply) -> String {
    if let Reply::Evicted { files, kept_files, freed_bytes } = reply {
        let stays = match kept_files {
            0 => String::new(),
            count => format!("; {count} stay, because they are open, pinned or on their way"),
        };
        return format!("let go of {files} files, {}{stays}", HumanBytes(*freed_bytes));
    }
    match command {
        FileCommand::Pin => "it is fetched now, and stays".to_owned(),
        FileCommand::Unpin | FileCommand::Evict | FileCommand::Unshare | FileCommand::Reshare => {
            "it may go when room is needed".to_owned()
        }
    }
}

fn why(command: FileCommand, errno: Errno) -> String {
    match (command, errno) {
        (FileCommand::Unpin, Errno::NoEntry) => {
            "it is not pinned by itself; `farshore status` counts the pins, and what is above it may be one".to_owned()
        }
        (_, Errno::TooMany) => {
            "as many paths are pinned as can be; pin a directory instead of what is in it".to_owned()
        }
        (_, Errno::NoEntry) => "the share has nothing of that name".to_owned(),
        (_, errno) => format!("it could not be done: {errno:?}"),
    }
}
