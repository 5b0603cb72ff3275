//! Whether all devices hold the same: each folder what its engine says, and all engines the same.

use super::world::Device;
use farshore::node::Node;
use farshore_engine::path::RelPath;
use farshore_engine::record::{Kind, Record};
use farshore_engine::{Link, SeenKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long it has to stay so.
const STABLE: Duration = Duration::from_secs(3);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);

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
    let mut trees: Vec<(&Device, BTreeMap<RelPath, Record>)> = Vec::new();
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
    for (other, others) in &trees[1..] {
        for path in tree.keys().chain(others.keys()) {
            let (ours, theirs) = (tree.get(path), others.get(path));
            if ours != theirs {
                return Some(format!("{path} is {ours:?} on {}, and {theirs:?} on {}", first.host, other.host));
            }
        }
        let (ours, theirs) = (first.folder.places(), other.folder.places());
        if ours != theirs {
            let path = ours.iter().find(|(path, version)| theirs.get(*path) != Some(*version)).map(|(path, _)| path);
            return Some(format!("{path:?} has other bytes on {} than on {}", first.host, other.host));
        }
    }
    None
}

/// Whether it is a file that nobody has any more: who told of it has lost it, and no longer knows that.
fn is_in_name_only(path: &RelPath, record: &Record, team: &[Device]) -> bool {
    let is_nowhere = || team.iter().all(|device| device.folder.seen(path).is_none());
    let is_forgetful = team.first().is_some_and(|device| device.folder.works().is_forgetful());
    is_forgetful && matches!(record.kind, Kind::File { .. }) && is_nowhere()
}

fn unconnected(node: &Arc<Node>) -> Option<String> {
    node.view(|view| {
        let away = view.peers().find(|peer| !peer.listed || !matches!(peer.link, Link::Up(_)));
        away.map(|peer| format!("{:?} is away", peer.peer))
    })
}

fn unlike_folder(device: &Device, tree: &BTreeMap<RelPath, Record>, team: &[Device]) -> Option<String> {
    for (path, record) in tree {
        let Some(seen) = device.folder.seen(path) else {
            if is_in_name_only(path, record, team) {
                continue;
            }
            return Some(format!("{path} is not in the folder"));
        };
        let same_kind = match (&record.kind, &seen.kind) {
            (Kind::File { size_bytes, .. }, SeenKind::File { size_bytes: there }) => size_bytes == there,
            (Kind::Dir, SeenKind::Dir) => true,
            (Kind::Symlink { target }, SeenKind::Symlink { target: there }) => target == there,
            (Kind::File { .. } | Kind::Dir | Kind::Symlink { .. }, _) => false,
        };
        if !same_kind || record.mode != seen.mode || record.modified != seen.modified {
            return Some(format!("{path} is {seen:?} in the folder, and should be {record:?}"));
        }
    }
    let more = device.folder.paths().into_iter().find(|(path, _)| !tree.contains_key(path));
    more.map(|(path, _)| format!("{path} is in the folder, and in no tree"))
}
