//! `farshore peers`: the devices that have joined the shares of this one, and how to be rid of one; and those that have a share in
//! folders of their own, as this one has.

use super::Failure;
use super::text::{Plain, time};
use crate::control::{Answer, LinkReport, Reached, Request, Role, ask_all};
use crate::json_path::JsonPath;
use crate::state::{ShareEntry, State};
use clap::{Args, Subcommand};
use farshore_engine::PeerId;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct PeersArgs {
    #[command(subcommand)]
    command: Option<PeersCommand>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum PeersCommand {
    /// Forget a device, hang up on it, and make the tickets that it may have worthless
    Revoke {
        /// Its id, or enough of the beginning
        id: String,
    },
}

/// A device that has joined a share of ours, or that has a share as we have.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    /// Where the share is on this device.
    folder: JsonPath,
    share: String,
    /// `None` if it was not written down.
    first_seen_unix_seconds: Option<u64>,
    connected: bool,
}

pub(super) async fn run(state: Option<PathBuf>, args: PeersArgs) -> Result<(), Failure> {
    let state = State::open(state)?;
    match args.command {
        None => list(&state, args.json).await,
        Some(PeersCommand::Revoke { id }) => revoke(&state, &id).await,
    }
}

async fn list(state: &State, json: bool) -> Result<(), Failure> {
    let (mut connected, mut lines) = (BTreeSet::new(), Vec::new());
    for Reached { answer, .. } in ask_all(state.dir(), &Request::Status {}).await? {
        let Ok(Answer::Status(report)) = answer else { continue };
        match report.role {
            Role::Share(share) => {
                connected.extend(share.peers.into_iter().map(|peer| (share.share.clone(), peer.id)));
            }
            Role::Mount(mount) => lines.extend(mount.others.into_iter().map(|other| Line {
                connected: other.link == LinkReport::Up {},
                id: other.id,
                folder: mount.store.clone(),
                share: mount.share.clone(),
                first_seen_unix_seconds: None,
            })),
        }
    }
    for ShareEntry { path, share, devices, .. } in state.shares()? {
        lines.extend(devices.iter().map(|(id, first_seen)| {
            let (id, share) = (id.to_string(), share.to_string());
            Line {
                connected: connected.contains(&(share.clone(), id.clone())),
                id,
                folder: path.as_path().into(),
                share,
                first_seen_unix_seconds: *first_seen,
            }
        }));
    }
    match print(&lines, json) {
        // Whoever read our output has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

fn print(lines: &[Line], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, lines)?;
        return writeln!(out);
    }
    if lines.is_empty() {
        say!("no device has joined a share of this one");
    }
    for line in lines {
        let seen = line.first_seen_unix_seconds.map_or("-".to_owned(), |seen| time(seen).to_string());
        let connected = if line.connected { "connected" } else { "away" };
        let folder = line.folder.to_string();
        writeln!(out, "{} {seen:<20} {connected:<9} {}", line.id, Plain(&folder))?;
    }
    Ok(())
}

async fn revoke(state: &State, id: &str) -> Result<(), Failure> {
    let peer = find(&state.shares()?, id)?;
    // First of all, so that who is hung up on finds the door closed.
    let changed = state.revoke(peer)?;
    for entry in &changed {
        say!("{peer} may not have {} any more", Plain(&entry.path.to_string_lossy()));
    }
    let mut silent = Vec::new();
    for Reached { socket, answer } in ask_all(state.dir(), &Request::Dismiss { peer: peer.to_string() }).await? {
        match answer {
            Ok(Answer::Dismissed { connections, ticket }) => tell_dismissed(connections, ticket, &changed)?,
            Ok(Answer::Refused { reason }) => silent.push(format!("{socket}: {reason}")),
            Ok(Answer::Status(_) | Answer::Done { .. }) => {
                silent.push(format!("{socket}: it answered another question"))
            }
            Err(error) => silent.push(format!("{socket}: {error}")),
        }
    }
    say!("tickets given out earlier for these folders are worthless; other devices that have joined stay");
    match silent.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(format!(
            "the device is forgotten, but a process could not be told to hang up on it ({}); restart `farshore share`",
            silent.join("; ")
        ))),
    }
}

fn tell_dismissed(connections: u64, ticket: Option<String>, changed: &[ShareEntry]) -> Result<(), Failure> {
    if connections > 0 {
        say!("closed {connections} of its connections");
    }
    let Some(ticket) = ticket else { return Ok(()) };
    let share = crate::ticket::Ticket::parse(&ticket)?.share();
    if let Some(entry) = changed.iter().find(|entry| entry.share == share) {
        say!("the ticket for {} is now:", Plain(&entry.path.to_string_lossy()));
        writeln!(io::stdout(), "{ticket}")?;
    }
    Ok(())
}

/// The one remembered device whose id begins like this.
fn find(shares: &[ShareEntry], beginning: &str) -> Result<PeerId, Failure> {
    let wanted = beginning.to_ascii_lowercase();
    let known: BTreeSet<PeerId> = shares.iter().flat_map(|entry| entry.devices.keys().copied()).collect();
    let mut alike = known.into_iter().filter(|peer| peer.to_string().starts_with(&wanted));
    match (alike.next(), alike.next()) {
        _ if wanted.is_empty() => Err(Failure::usage("name the device to revoke; `farshore peers` lists them")),
        (None, _) => Err(Failure::usage(format!(
            "no device whose id begins with {beginning:?} has joined a share of this one; `farshore peers` lists them"
        ))),
        (Some(peer), None) => Ok(peer),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("several devices have an id that begins with {beginning:?}; give more of it")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::{new_secret, new_share_id};
    use farshore_proto::Members;

    #[test]
    fn the_beginning_of_an_id_is_enough_if_it_is_the_only_one() {
        let device = |first: u8, second: u8| {
            let mut id = [0; 32];
            (id[0], id[1]) = (first, second);
            PeerId(id)
        };
        let share = |devices: &[PeerId]| ShareEntry {
            path: "/folder".into(),
            share: new_share_id(),
            secret: new_secret(),
            devices: devices.iter().map(|peer| (*peer, None)).collect(),
            members: Members::new(),
            unshared: BTreeSet::new(),
        };
        let (one, other) = (device(0xab, 1), device(0xab, 2));
        let shares = [share(&[one, other]), share(&[one])];
        assert_eq!(find(&shares, "ab01").unwrap(), one, "in two shares it is still one device");
        assert_eq!(find(&shares, &other.to_string().to_uppercase()).unwrap(), other);
        for (wrong, reason) in [("ab", "several"), ("ac", "no device"), ("", "name"), ("xyz", "no device")] {
            let failure = find(&shares, wrong).unwrap_err();
            assert!(failure.code == 2 && failure.message.contains(reason), "{wrong}: {failure:?}");
        }
    }
}
