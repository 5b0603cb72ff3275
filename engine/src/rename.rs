//! A directory that is renamed is one event, whatever it holds. Who hears of it has to know of the same things, or else
//! what it makes of the event would be something else: both make a digest of what the event is about, and compare.

use crate::engine::Engine;
use crate::ids::Ino;
use crate::path::{Name, RelPath};
use crate::record::Kind;
use crate::version::{Dot, Revision, Version};
use xxhash_rust::xxh3::Xxh3;

/// What an event is about, as it is collected.
#[derive(Default)]
struct Digest(Xxh3);

impl Digest {
    fn path(&mut self, names: &[Name]) {
        for name in names {
            self.number(name.as_bytes().len() as u64);
            self.0.update(name.as_bytes());
        }
        // No name has no bytes.
        self.number(0);
    }

    fn version(&mut self, version: &Version) {
        self.number(version.dots().len() as u64);
        for dot in version.dots() {
            self.dot(*dot);
        }
    }

    fn revision(&mut self, revision: &Revision) {
        self.version(&revision.version);
        for dot in core::iter::once(revision.dot).chain(revision.others.iter().map(|other| other.dot)) {
            self.dot(dot);
        }
        // No device has this number.
        self.number(u64::MAX);
    }

    fn dot(&mut self, dot: Dot) {
        self.number(dot.author.0);
        self.number(dot.counter);
    }

    fn kind(&mut self, kind: &Kind) {
        self.number(match kind {
            Kind::File { .. } => 1,
            Kind::Dir => 2,
            Kind::Symlink { .. } => 3,
        });
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }
}

impl Engine {
    /// A digest of all that a rename of `from` to `to` is about: everything that is moved, with what is known of the path to
    /// which it comes, and what it stands over. Zero if there is nothing at `from`.
    pub(crate) fn rename_digest(&self, from: &RelPath, to: &RelPath) -> u64 {
        let Some(top) = self.tree.resolve(from.names()) else { return 0 };
        let mut digest = Digest::default();
        for (names, ino) in self.below(top) {
            let Some(node) = self.tree.get(ino) else { continue };
            digest.path(&names);
            digest.kind(&node.record.kind);
            digest.revision(&node.revision);
            let over = [to.names(), &names].concat();
            digest.version(&self.version_at(&over));
        }
        // No path is this.
        digest.number(u64::MAX);
        for (names, ino) in self.tree.resolve(to.names()).map(|over| self.below(over)).unwrap_or_default() {
            digest.path(&names);
            digest.revision(&self.tree.get(ino).map(|node| node.revision.clone()).unwrap_or_default());
        }
        digest.0.digest()
    }

    /// An entry and everything below it, in the order of their paths from there.
    pub(crate) fn below(&self, top: Ino) -> Vec<(Vec<Name>, Ino)> {
        let depth = |path: &RelPath| path.names().len();
        let Some(above) = self.tree.path_of(top).map(|path| depth(&path)) else { return Vec::new() };
        let path_of = |ino| Some((self.tree.path_of(ino)?.names()[above..].to_vec(), ino));
        let mut below: Vec<(Vec<Name>, Ino)> = self.tree.within(top).into_iter().filter_map(path_of).collect();
        below.sort();
        below
    }
}
