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
use farshore_engine::path::RelPath;
use farshore_engine::record::Kind;
use farshore_engine::{Errno, Reply, Request};
use futures_util::FutureExt;
use futures_util::future::ready;
use indicatif::HumanBytes;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
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
        let is_running = match tell_share(&state, command, &place).await {
            Err(Untold::Refused(reason)) if !undo => {
                // Written down, it would keep the next `farshore share` from beginning.
                state.share_again(&path)?;
                return Err(Failure::failed(reason));
            }
            told => told?,
        };
        let shown = place.folder.join(OsStr::from_bytes(&place.path.to_bytes()));
        writeln!(io::stdout(), "{} {}", shown.display(), if is_running { now } else { later })?;
    }
    Ok(())
}

/// Why a running share does not act on what was written down.
enum Untold {
    /// It cannot, for this reason.
    Refused(String),
    /// It is not known whether it does.
    Unreached(Failure),
}

impl From<Untold> for Failure {
    fn from(untold: Untold) -> Failure {
        match untold {
            Untold::Refused(reason) => Failure::failed(format!("the running share did not take note: {reason}")),
            Untold::Unreached(failure) => failure,
        }
    }
}

/// Has the process that offers the share act on what was written down. Returns whether there is one.
async fn tell_share(state: &State, command: FileCommand, place: &InShare) -> Result<bool, Untold> {
    let unreached = |message: String| Untold::Unreached(Failure::failed(message));
    let share = place.share.to_string();
    let is_it = |report: &Report| matches!(&report.role, Role::Share(it) if it.share == share);
    let reached = ask_all(state.dir(), &ControlRequest::Status {}).await;
    let reached = reached.map_err(|error| unreached(error.to_string()))?;
    // One that does not answer may be the one that offers it.
    let silent = reached.iter().find_map(|one| one.answer.as_ref().err()).map(ToString::to_string);
    let running = reached.into_iter().find(|one| matches!(&one.answer, Ok(Answer::Status(report)) if is_it(report)));
    if let (None, Some(error)) = (&running, silent) {
        return Err(unreached(format!(
            "it is written down for the next start, but a running process could not be told: {error}"
        )));
    }
    let run = RunDir::existing(state.dir()).map_err(|error| unreached(error.to_string()))?;
    let (Some(running), Some(run)) = (running, run) else { return Ok(false) };
    let path = JsonPath::from_bytes(&place.path.to_bytes());
    match ask(&run, &running.socket, &ControlRequest::File(FileRequest { command, path })).await {
        Ok(Answer::Done { .. }) => Ok(true),
        Ok(Answer::Refused { reason }) => Err(Untold::Refused(reason)),
        Ok(Answer::Status(_) | Answer::Dismissed { .. }) => {
            Err(unreached("the running share answered another question".to_owned()))
        }
        Err(error) => Err(unreached(format!("the running share cannot be told: {error}"))),
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

/// What a mount does with single paths. Its `folder`, if the share is changed there, holds whole files as plain files.
pub(super) fn of_mount(node: Arc<Node>, folder: Option<PathBuf>) -> FileHandler {
    Box::new(move |command, path| {
        let at = path.clone();
        let request = match command {
            FileCommand::Pin => Request::Pin { path },
            FileCommand::Unpin => Request::Unpin { path },
            FileCommand::Evict => Request::Evict { path },
            FileCommand::Unshare | FileCommand::Reshare => {
                return ready(Err("it belongs to another device, which alone can share it or not".to_owned())).boxed();
            }
        };
        let (node, folder) = (node.clone(), folder.clone());
        async move {
            let reply = node.reply(request).await.map_err(|errno| why(command, errno))?;
            match folder {
                Some(folder) => told_of_folder(command, &reply, &folder, files_in_folder(&node, &at)),
                None => Ok(told(command, &reply)),
            }
        }
        .boxed()
    })
}

/// How many files at and below a path are in the folder that `node` keeps.
fn files_in_folder(node: &Node, path: &RelPath) -> usize {
    node.view(|view| {
        let below = view.tree().filter(|(at, _)| path.is_prefix_of(at));
        below.filter(|(at, record)| matches!(record.kind, Kind::File { .. }) && view.own_inode(at).is_some()).count()
    })
}

/// What is whole is in the folder, and nothing of that is let go of: it is the user's.
fn told_of_folder(command: FileCommand, reply: &Reply, folder: &Path, whole_files: usize) -> Result<String, String> {
    match (command, reply) {
        (FileCommand::Evict, Reply::Evicted { freed_bytes: 0, .. }) if whole_files > 0 => Err(format!(
            "whole files of a share that can be changed here are plain files in {}, and stay there: {whole_files} of them; \
             a mount with `--read-only` keeps only what there is room for",
            folder.display()
        )),
        (FileCommand::Evict, _) if whole_files > 0 => {
            Ok(format!("{}; {whole_files} that are whole stay in {}", told(command, reply), folder.display()))
        }
        (FileCommand::Unpin, _) => {
            Ok(format!("what is in {} stays there; the rest comes when it is read", folder.display()))
        }
        (FileCommand::Pin | FileCommand::Evict | FileCommand::Unshare | FileCommand::Reshare, _) => {
            Ok(told(command, reply))
        }
    }
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
