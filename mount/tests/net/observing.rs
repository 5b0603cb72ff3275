//! What is told of a folder that changes: of a directory that was renamed, everything that it holds is known afterwards.

use crate::both_ways::node;
use crate::memory::Memory;
use crate::owner::name;
use farshore::folder::{Folder, ServeError, ServedBytes};
use farshore::node::Node;
use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, FileTime};
use farshore_engine::{Config, Observation, Seen, SeenKind, ServedFile};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::sync::{Arc, Mutex};

/// Which paths were to be looked at, and which inode was known there.
type Looks = Arc<Mutex<Vec<(RelPath, Option<u64>)>>>;

/// A folder that only hears where to look.
struct Looked(Looks);

impl Folder for Looked {
    fn open(&self, _: ServedFile) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>> {
        ready(Err(ServeError::Gone)).boxed()
    }

    fn look_at(&self, path: &RelPath, known: Option<u64>) {
        self.0.lock().unwrap().push((path.clone(), known));
    }
}

/// A node whose folder holds the directories `a` (inode 1, with a file) and `b` (inode 2, with a file).
fn with_directories() -> (Arc<Node>, Looks) {
    let looks = Looks::default();
    let folder = Arc::new(Looked(looks.clone()));
    let node = node(&Memory::new(), 1, |parts| {
        parts.folder = Some(folder);
        parts.config = Config { keeps_folder: true, ..parts.config.clone() };
    });
    let root = RelPath::ROOT;
    let dir = SeenKind::Dir;
    node.observe(vec![Observation::ScanBegin { path: root.clone() }, found("", dir.clone(), 9)]);
    for (path, kind, inode) in [("a", &dir, 1), ("a/f", &FILE, 3), ("b", &dir, 2), ("b/g", &FILE, 4)] {
        node.observe(vec![found(path, kind.clone(), inode)]);
    }
    node.observe(vec![Observation::ScanEnd { path: root }]);
    looks.lock().unwrap().clear();
    (node, looks)
}

const FILE: SeenKind = SeenKind::File { size_bytes: 5 };

fn found(path: &str, kind: SeenKind, inode: u64) -> Observation {
    let modified = FileTime { seconds: 1, nanos: 0 };
    let path = RelPath::parse(path.as_bytes()).unwrap_or(RelPath::ROOT);
    let facts = Facts { inode, changed: modified };
    Observation::Found { path, seen: Seen { kind, mode: 0o755, modified, xattrs: None, facts } }
}

fn moved(from: &str, to: &str, inode: u64) -> Vec<Observation> {
    vec![Observation::Moved { from: name(from), to: name(to) }, found(to, SeenKind::Dir, inode)]
}

#[tokio::test]
async fn a_directory_that_was_renamed_is_not_read_again_however_often_that_is_told() {
    let (node, looks) = with_directories();
    for _ in 0..2 {
        node.observe(moved("a", "c", 1));
        assert!(node.view(|view| view.own_inode(&name("c/f")) == Some(3) && view.resolve(&name("a")).is_none()));
    }
    assert_eq!(*looks.lock().unwrap(), []);
    node.shut_down().await;
}

/// Under the old name is something else by now, as far as is known: a peer's change of it has been heard of.
#[tokio::test]
async fn one_that_is_not_what_was_known_under_the_old_name_is_read_as_a_whole() {
    let (node, looks) = with_directories();
    node.observe(moved("a", "c", 7));
    assert_eq!(*looks.lock().unwrap(), [(name("c"), None)]);
    node.shut_down().await;
}

/// What stood under the new name cannot have been renamed over: something has not been heard of yet.
#[tokio::test]
async fn one_that_cannot_be_moved_with_all_that_it_holds_is_read_as_a_whole() {
    let (node, looks) = with_directories();
    node.observe(moved("a", "b", 1));
    assert_eq!(node.view(|view| view.own_inode(&name("b"))), Some(1));
    let mut looks = looks.lock().unwrap().clone();
    looks.sort();
    assert_eq!(looks, [(name("a"), Some(1)), (name("b"), None)]);
    node.shut_down().await;
}
