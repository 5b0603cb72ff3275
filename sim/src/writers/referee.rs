//! Whether all devices hold the same: each folder what its engine says, and all engines the same.

use super::world::Device;
use farshore::node::Node;
use farshore_engine::path::RelPath;
use farshore_engine::record::{Kind, Record};
use farshore_engine::{Link, Seen, SeenKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long it has to stay so.
const STABLE: Duration = Duration::from_secs(3);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);

/// What an engine says.
type Tree = BTreeMap<RelPath, Record>;

/// Waits, for at most `limit`, until all devices hold the same and go on doing so.
///
/// # Panics
/// If they do not; and if what they hold is not what was written.
pub async fn settled(team: &[Device], limit: Duration) {
    let began = Instant::now();
    let mut since = began;
    while since.elapsed() < STABLE {
        tokio::time::sleep(LOOK).await;
        if let Some(difference) = difference(team) {
            assert!(began.elapsed() < limit, "waited {limit:?} for the same everywhere: {difference}");
            since = Instant::now();
        }
    }
    let [first, ..] = team else { return };
    first.folder.works().check(&first.folder.places());
}

/// What is not the same; `None` if all is.
#[must_use]
pub fn difference(team: &[Device]) -> Option<String> {
    let mut trees: Vec<(&Device, Tree)> = Vec::new();
    for device in team {
        let Some(node) = device.running.get() else { return Some(format!("{} does not run", device.host)) };
        if let Some(what) = unconnected(&node) {
            return Some(format!("{}: {what}", device.host));
        }
        let tree = node.view(|view| view.tree().map(|(path, record)| (path, record.clone())).collect());
        if let Some(what) = unlike_folder(device, &tree, team) {
            return Some(format!("{}: {what}", device.host));
        }
        trees.push((device, tree));
    }
    let (first, tree) = trees.first()?;
    let is_there = |path: &RelPath| !tree.get(path).is_some_and(|record| is_in_name_only(record, tree, team));
    for (other, others) in &trees[1..] {
        for path in tree.keys().chain(others.keys()) {
            let (ours, theirs) = (tree.get(path), others.get(path));
            if ours != theirs {
                return Some(format!("{path} is {ours:?} on {}, and {theirs:?} on {}", first.host, other.host));
            }
        }
        let (ours, theirs) = (first.folder.places(), other.folder.places());
        let is_other = |path: &&RelPath| ours.get(*path) != theirs.get(*path) && is_there(path);
        if let Some(path) = ours.keys().chain(theirs.keys()).find(is_other) {
            return Some(format!("{path} has other bytes on {} than on {}", first.host, other.host));
        }
    }
    None
}

/// Whether it is a file of which nobody has the bytes. MERGING.md says when that may be: who had them has removed them, or written
/// over them, while somebody gave them another name or other attributes who had not got them; or has lost them, and does not know
/// it.
fn is_in_name_only(record: &Record, tree: &Tree, team: &[Device]) -> bool {
    let (Kind::File { stamp, .. }, [first, ..]) = (&record.kind, team) else { return false };
    let works = first.folder.works();
    let is_possible = |version| works.is_forgetful() || works.is_ended(version) || works.is_handled(version);
    let has_it = |(path, named): (&RelPath, &Record)| {
        let is_the_same = matches!(named.kind, Kind::File { stamp: other, .. } if other == *stamp);
        let holds = |device: &Device| {
            let is_there = device.folder.seen(path).is_some_and(|seen| is_like(&seen, named));
            let knows_it = || device.running.get().is_some_and(|node| node.view(|view| view.is_in_folder(path)));
            // Who has forgotten what it had does not know that it is what others mean.
            is_there && (!works.is_forgetful() || knows_it())
        };
        is_the_same && team.iter().any(holds)
    };
    works.by_stamp(*stamp).is_some_and(is_possible) && !tree.iter().any(has_it)
}

fn unconnected(node: &Arc<Node>) -> Option<String> {
    node.view(|view| {
        let away = view.peers().find(|peer| !peer.listed || !matches!(peer.link, Link::Up(_)));
        away.map(|peer| format!("{:?} is away", peer.peer))
    })
}

fn unlike_folder(device: &Device, tree: &Tree, team: &[Device]) -> Option<String> {
    for (path, record) in tree {
        let seen = device.folder.seen(path);
        if seen.as_ref().is_none_or(|seen| !is_like(seen, record)) && is_in_name_only(record, tree, team) {
            continue;
        }
        let Some(seen) = seen else { return Some(format!("{path} is not in the folder")) };
        if !is_like(&seen, record) {
            return Some(format!("{path} is {seen:?} in the folder, and should be {record:?}"));
        }
    }
    let more = device.folder.paths().into_iter().find(|(path, _)| !tree.contains_key(path));
    more.map(|(path, _)| format!("{path} is in the folder, and in no tree"))
}

fn is_like(seen: &Seen, record: &Record) -> bool {
    let is_same_kind = match (&record.kind, &seen.kind) {
        (Kind::File { size_bytes, .. }, SeenKind::File { size_bytes: there }) => size_bytes == there,
        (Kind::Dir, SeenKind::Dir) => true,
        (Kind::Symlink { target }, SeenKind::Symlink { target: there }) => target == there,
        (Kind::File { .. } | Kind::Dir | Kind::Symlink { .. }, _) => false,
    };
    is_same_kind && record.mode == seen.mode && record.modified == seen.modified
}
