//! Where our own folder may have to be made like the tree, and which bytes are wanted in it.

use crate::blocked::{Blocked, Blocker};
use crate::engine::Engine;
use crate::ids::Ino;
use crate::path::RelPath;
use crate::record::{Kind, Record, Stamp};
use crate::tree::{Node, Origin, Tree};
use crate::version::Sibling;
use core::ops::Bound;
use std::collections::BTreeSet;

/// So many notes of files that are not wanted any more do no harm.
const HARMLESS: usize = 1_024;

/// The paths at which something may have to be done, and nothing is being done.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Where something changed since [`Engine::sort_due`].
    news: BTreeSet<RelPath>,
    /// Where the tree has something.
    there: BTreeSet<RelPath>,
    /// Where it has nothing.
    gone: BTreeSet<RelPath>,
    /// Where something else has to happen before.
    blocked: Blocked,
    /// Nothing can be done at any of the others until something changes.
    is_stuck: bool,
    /// The files that peers have and our folder has not, by their bytes. Some may not be so any more.
    wanted: BTreeSet<(Stamp, Ino)>,
    /// The files that stand beside what the tree has somewhere, by their bytes. Some may not do so any more.
    beside: BTreeSet<(Stamp, Ino)>,
}

impl Due {
    pub(crate) fn insert(&mut self, path: RelPath) {
        self.news.insert(path);
    }

    pub(crate) fn append(&mut self, paths: &mut BTreeSet<RelPath>) {
        self.news.append(paths);
    }

    pub(crate) fn remove(&mut self, path: &RelPath) {
        self.there.remove(path);
        self.gone.remove(path);
        self.blocked.remove(path);
    }

    /// Nothing can be done at a path before one of these has happened.
    pub(crate) fn block(&mut self, path: &RelPath, blockers: Vec<Blocker>) {
        self.remove(path);
        self.blocked.insert(path.clone(), blockers);
    }

    pub(crate) fn blocked(&self) -> impl Iterator<Item = &RelPath> {
        self.blocked.paths()
    }

    pub(crate) fn contains(&self, path: &RelPath) -> bool {
        let Due { news, there, gone, blocked, .. } = self;
        news.contains(path) || there.contains(path) || gone.contains(path) || blocked.contains(path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.news.is_empty() && self.there.is_empty() && self.gone.is_empty() && self.blocked.is_empty()
    }

    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Something changed that may make something possible.
    pub(crate) fn unstick(&mut self) {
        self.is_stuck = false;
    }

    pub(crate) fn note_stuck(&mut self) {
        self.is_stuck = true;
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// The paths behind `after` where the tree has something: a directory comes before what it holds.
    pub(crate) fn there_after(&self, after: Option<&RelPath>, most: usize) -> Vec<RelPath> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.there.range((from, Bound::Unbounded)).take(most).cloned().collect()
    }

    /// The paths before `before` where the tree has nothing, the last one first: what a directory held comes before it.
    pub(crate) fn gone_before(&self, before: Option<&RelPath>, most: usize) -> Vec<RelPath> {
        let until = before.map_or(Bound::Unbounded, Bound::Excluded);
        self.gone.range((Bound::Unbounded, until)).rev().take(most).cloned().collect()
    }
}

impl Engine {
    /// The tree has something new. If that is a file, and its bytes are nowhere here, nothing can be done before they have come,
    /// and then it is due: until then it is enough to know what it wants. Most of a large share is such, and a path for each
    /// would cost as much as the tree.
    pub(crate) fn note_new(&mut self, ino: Ino) {
        let Some(node) = self.tree.get(ino) else { return };
        let folder = &mut self.replica.folder;
        let waits = node.content.is_none() && node.revision.others.is_empty() && folder.behind.is_empty();
        if let Some(stamp) = wanted_by(node).filter(|_| waits) {
            folder.due.wanted.insert((stamp, ino));
        } else if let Some(path) = self.tree.path_of(ino) {
            folder.note_due(path);
        }
    }

    /// Finds out for each path at which something changed, and for those that waited for that, whether the tree has something
    /// there. Returns the paths at which something changed.
    pub(crate) fn sort_due(&mut self) -> BTreeSet<RelPath> {
        let news = std::mem::take(&mut self.replica.folder.due.news);
        for path in &news {
            let is_ready = self.is_ready_for_more(path);
            let blocked = &mut self.replica.folder.due.blocked;
            let mut freed = blocked.take(&Blocker::Change(path.clone()));
            if is_ready {
                freed.append(&mut blocked.take(&Blocker::Directory(path.clone())));
            }
            freed.insert(path.clone());
            freed.into_iter().for_each(|path| self.sort(path));
        }
        let tree = &self.tree;
        let are_many = |noted: usize| noted > HARMLESS && noted as u64 > 2 * tree.len();
        if are_many(self.replica.folder.due.wanted.len()) {
            let is_so = |(stamp, ino): &(Stamp, Ino)| tree.get(*ino).and_then(wanted_by) == Some(*stamp);
            self.replica.folder.due.wanted.retain(is_so);
        }
        if are_many(self.replica.folder.due.beside.len()) {
            let is_so = |(stamp, ino): &(Stamp, Ino)| sibling_with(tree, *ino, *stamp).is_some();
            self.replica.folder.due.beside.retain(is_so);
        }
        news
    }

    fn sort(&mut self, path: RelPath) {
        let ino = self.tree.resolve(path.names());
        let node = ino.and_then(|ino| self.tree.get(ino));
        let wanted = node.and_then(wanted_by).zip(ino);
        let others = node.map(|node| node.revision.others.iter()).into_iter().flatten();
        let beside: Vec<(Stamp, Ino)> = others.filter_map(|other| bytes_of(&other.record)).zip(ino).collect();
        let due = &mut self.replica.folder.due;
        due.is_stuck = false;
        due.remove(&path);
        let sorted = if ino.is_some() { &mut due.there } else { &mut due.gone };
        sorted.insert(path);
        due.wanted.extend(wanted);
        due.beside.extend(beside);
    }

    /// The files that have these bytes and stand beside what the tree says of a path.
    pub(crate) fn standing_beside(&self, stamp: Stamp) -> impl Iterator<Item = (RelPath, &Sibling)> {
        let noted = self.replica.folder.due.beside.range((stamp, Ino(0))..=(stamp, Ino(u64::MAX)));
        noted.filter_map(move |(_, ino)| Some((self.tree.path_of(*ino)?, sibling_with(&self.tree, *ino, stamp)?)))
    }

    /// The files that are to have these bytes and do not have them in our folder.
    pub(crate) fn wanted_at(&self, stamp: Stamp) -> impl Iterator<Item = (Ino, RelPath)> {
        let noted = self.replica.folder.due.wanted.range((stamp, Ino(0))..=(stamp, Ino(u64::MAX)));
        noted.filter_map(move |(_, ino)| {
            let is_so = self.tree.get(*ino).and_then(wanted_by) == Some(stamp);
            Some((*ino, self.tree.path_of(*ino).filter(|_| is_so)?))
        })
    }
}

/// What stands beside what the tree says of an entry, and has these bytes.
fn sibling_with(tree: &Tree, ino: Ino, stamp: Stamp) -> Option<&Sibling> {
    let mut others = tree.get(ino)?.revision.others.iter();
    others.find(|other| bytes_of(&other.record) == Some(stamp))
}

/// Which bytes it is that something has, if it has any.
fn bytes_of(record: &Record) -> Option<Stamp> {
    match record.kind {
        Kind::File { size_bytes: 1.., stamp } => Some(stamp),
        Kind::File { .. } | Kind::Dir | Kind::Symlink { .. } => None,
    }
}

/// The bytes of a file that our folder has not.
pub(crate) fn wanted_by(node: &Node) -> Option<Stamp> {
    match node.origin {
        Origin::Peer(_) => bytes_of(&node.record),
        Origin::Local(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::event::{Change, Observation, Position, SeenKind, TreeUpdate};
    use crate::ids::PeerId;
    use crate::input::{Command, Done, Input, PeerEvent};
    use crate::output::{Apply, ApplyError, Effect, Output};
    use crate::record::{Facts, FileTime, Record};
    use crate::testing::{Hand, dir_record, path};
    use crate::version::{DeviceTag, Dot, Revision};
    use core::time::Duration;

    const MANY: u64 = 60;

    /// A device with an empty folder, which follows a peer that has told all.
    fn following() -> Hand {
        let mut hand = Hand::new(Config { keeps_folder: true, ..Config::default() });
        for observation in
            [Observation::ScanBegin { path: RelPath::ROOT }, Observation::ScanEnd { path: RelPath::ROOT }]
        {
            hand.give(Input::Observed(observation));
            hand.found("", SeenKind::Dir, 0o755, 1, (1, 1));
        }
        let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
        hand.connect(&out);
        let begin = TreeUpdate::Begin { position: Position { epoch: 1, seq: 0 } };
        hand.tell(vec![begin, TreeUpdate::End { settled: 0 }]);
        hand.tell(Vec::new());
        hand
    }

    /// Does what is to be done in the folder, but for what the disk refuses. Says what was done.
    fn do_all(hand: &mut Hand, mut out: Vec<Output>, is_refused: fn(&Apply) -> bool) -> Vec<Apply> {
        let mut all = Vec::new();
        let facts = Facts { inode: 40, changed: FileTime::default() };
        loop {
            let applied = out.iter().find_map(|output| match output {
                Output::Effect(effect, Effect::Apply { ops }) => Some((*effect, ops.clone())),
                Output::Effect(..) | Output::Reply(..) | Output::Cancel(_) | Output::Notice(_) => None,
            });
            let Some((effect, ops)) = applied else { return all };
            let results = ops.iter().map(|op| if is_refused(op) { Err(ApplyError::Io) } else { Ok(facts) }).collect();
            out = hand.give(Input::Done(effect, Done::Applied(results)));
            all.extend(ops.into_iter().filter(|op| !is_refused(op)));
        }
    }

    fn is_stuck(hand: &Hand) -> bool {
        let due = &hand.engine.replica.folder.due;
        due.there.is_empty() && due.gone.is_empty() && due.blocked().count() as u64 >= MANY
    }

    #[test]
    fn what_lies_below_a_directory_that_the_disk_refuses_is_looked_at_again_when_that_is_there() {
        let is_refused = |op: &Apply| op.target().to_string().starts_with('d');
        let mut hand = following();
        let inner = |number| format!("d/{number}");
        for at in core::iter::once("d".to_owned()).chain((0..MANY).map(inner)) {
            let out = hand.put(&at, dir_record(), false);
            do_all(&mut hand, out, is_refused);
        }
        assert!(is_stuck(&hand));
        for at in ["e", "d/0", "z"] {
            let out = hand.put(at, Record { mode: 0o700, ..dir_record() }, false);
            do_all(&mut hand, out, is_refused);
            assert!(is_stuck(&hand), "after news of {at}");
        }
        let out = hand.pass(Duration::from_secs(60));
        let made = do_all(&mut hand, out, |_| false);
        assert_eq!(made.iter().filter(|op| matches!(op, Apply::MakeDir { .. })).count() as u64, MANY + 1);
        assert!(hand.engine.replica.folder.is_idle());
    }

    /// Files of ours in a directory, all of which the peer removes. It is cut off before it has told all.
    fn cut_off_in_a_removal() -> Hand {
        let mut hand = following();
        hand.found("d", SeenKind::Dir, 0o755, 1, (50, 1));
        let files: Vec<String> = (0..MANY).map(|number| format!("d/{number}")).collect();
        for (inode, at) in (100..).zip(&files) {
            hand.found(at, SeenKind::File { size_bytes: 9 }, 0o644, 1, (inode, 1));
        }
        for at in files.iter().map(String::as_str).chain(["d"]) {
            let dot = Dot { author: DeviceTag::of(&Hand::PEER), counter: 1 << 20 };
            let revision = Revision::removed(hand.engine.version_at(path(at).names()).with(dot));
            let out = hand.event(Change::Remove { path: path(at), revision });
            assert!(do_all(&mut hand, out, |_| false).is_empty(), "the peer may want it elsewhere");
        }
        let link = hand.link;
        hand.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
        hand
    }

    fn removals(ops: &[Apply]) -> u64 {
        ops.iter().filter(|op| matches!(op, Apply::Remove { .. })).count() as u64
    }

    #[test]
    fn what_a_peer_removed_that_was_cut_off_is_looked_at_again_when_it_is_back() {
        let mut hand = cut_off_in_a_removal();
        assert!(is_stuck(&hand));
        let out = hand.found("z", SeenKind::Dir, 0o755, 1, (2, 1));
        assert!(do_all(&mut hand, out, |_| false).is_empty() && is_stuck(&hand));
        let is_dial = |output: &Output| matches!(output, Output::Effect(_, Effect::Dial { .. }));
        let mut out = Vec::new();
        while !out.iter().any(is_dial) {
            out = hand.pass(Duration::from_millis(100));
        }
        hand.connect(&out);
        let out = hand.tell(Vec::new());
        assert_eq!(removals(&do_all(&mut hand, out, |_| false)), MANY + 1);
        assert!(hand.engine.replica.folder.is_idle());
    }

    #[test]
    fn what_a_peer_removed_that_does_not_come_back_goes_when_it_is_followed_no_longer() {
        let mut hand = cut_off_in_a_removal();
        let out = hand.give(Input::Command(Command::Unfollow { peer: PeerId([77; 32]) }));
        assert!(do_all(&mut hand, out, |_| false).is_empty(), "that is somebody else");
        let out = hand.give(Input::Command(Command::Unfollow { peer: Hand::PEER }));
        assert_eq!(removals(&do_all(&mut hand, out, |_| false)), MANY + 1);
        assert!(hand.engine.replica.folder.is_idle());
    }
}
