//! An owner's folder in memory: what a file system would say, and which version of which file has which bytes.

use super::bytes::bytes_of;
use crate::chunk::chunk_range;
use crate::event::{Seen, SeenKind};
use crate::output::{Apply, ApplyError, ServedFile};
use crate::path::{Name, RelPath};
use crate::record::{Facts, FileTime};
use crate::xattrs::Xattrs;
use std::collections::BTreeMap;

/// Something in a folder, whatever its name is.
#[derive(Debug, Clone)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// Permission bits.
    pub mode: u16,
    /// When its bytes last changed.
    pub modified: FileTime,
    /// When anything of it last changed.
    pub changed: FileTime,
    /// Its extended attributes.
    pub xattrs: Xattrs,
}

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectKind {
    /// A file; its bytes follow from its version.
    File {
        /// Never used for other bytes.
        version: u64,
        /// Its size.
        size_bytes: u64,
    },
    /// A directory.
    Dir,
    /// A symlink.
    Symlink(Vec<u8>),
}

/// What a watcher of the folder should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Something changed here.
    Path(RelPath),
    /// A directory has to be read, with everything below it.
    Scan(RelPath),
    /// This was renamed.
    Moved {
        /// The old name.
        from: RelPath,
        /// The new name.
        to: RelPath,
        /// What was renamed.
        inode: u64,
    },
}

/// A folder in memory. A clone is what a copy of the disk would hold.
#[derive(Debug, Clone)]
pub struct Folder {
    names: BTreeMap<RelPath, u64>,
    /// Objects stay when they have lost their names: whoever has one open still reads it.
    objects: BTreeMap<u64, Object>,
    clock: i64,
    last_inode: u64,
    last_version: u64,
}

impl Default for Folder {
    fn default() -> Folder {
        let mut folder =
            Folder { names: BTreeMap::new(), objects: BTreeMap::new(), clock: 1_000, last_inode: 0, last_version: 0 };
        let root = folder.object(ObjectKind::Dir, 0o755);
        folder.names.insert(RelPath::ROOT, root);
        folder
    }
}

impl Folder {
    /// What stands at `path`.
    #[must_use]
    pub fn at(&self, path: &RelPath) -> Option<&Object> {
        self.objects.get(self.names.get(path)?)
    }

    /// The number of what stands at `path`.
    #[must_use]
    pub fn inode_at(&self, path: &RelPath) -> Option<u64> {
        self.names.get(path).copied()
    }

    /// An object, whether it has a name or not.
    #[must_use]
    pub fn object_of(&self, inode: u64) -> Option<&Object> {
        self.objects.get(&inode)
    }

    /// Every path but the root, each directory before what it holds.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.names.keys().filter(|path| !path.is_root())
    }

    /// Every directory, the root first.
    pub fn dirs(&self) -> impl Iterator<Item = &RelPath> {
        self.names.iter().filter(|(_, inode)| self.objects[inode].kind == ObjectKind::Dir).map(|(path, _)| path)
    }

    /// Every ordinary file.
    pub fn files(&self) -> impl Iterator<Item = &RelPath> {
        let is_file = |inode: &u64| matches!(self.objects[inode].kind, ObjectKind::File { .. });
        self.names.iter().filter(move |(_, inode)| is_file(inode)).map(|(path, _)| path)
    }

    /// What stands directly in a directory.
    #[must_use]
    pub fn children(&self, dir: &RelPath) -> Vec<RelPath> {
        let depth = dir.names().len() + 1;
        self.below(dir).into_iter().filter(|path| path.names().len() == depth).collect()
    }

    /// What `stat` says of `path`.
    #[must_use]
    pub fn seen(&self, path: &RelPath) -> Option<Seen> {
        let inode = self.inode_at(path)?;
        let object = &self.objects[&inode];
        let kind = match &object.kind {
            ObjectKind::File { size_bytes, .. } => SeenKind::File { size_bytes: *size_bytes },
            ObjectKind::Dir => SeenKind::Dir,
            ObjectKind::Symlink(target) => SeenKind::Symlink { target: target.as_slice().into() },
        };
        let facts = Facts { inode, changed: object.changed };
        let xattrs = Some(object.xattrs.clone());
        Some(Seen { kind, mode: object.mode, modified: object.modified, xattrs, facts })
    }

    /// Makes a file, or puts a new one over what stands there. `None` if its directory is not there, or if a directory
    /// stands there.
    pub fn create(&mut self, path: &RelPath, size_bytes: u64) -> Option<Vec<Look>> {
        if !self.is_free_for_file(path) {
            return None;
        }
        let version = self.next_version();
        let inode = self.object(ObjectKind::File { version, size_bytes }, 0o644);
        self.put(path, inode);
        Some(vec![Look::Path(path.clone())])
    }

    /// Gives a file new bytes in place. `keep_modified` sets its modification time back afterwards.
    pub fn edit(&mut self, path: &RelPath, size_bytes: u64, keep_modified: bool) -> Option<Vec<Look>> {
        let version = self.next_version();
        let now = self.tick();
        let object = self.objects.get_mut(self.names.get(path)?)?;
        if !matches!(object.kind, ObjectKind::File { .. }) {
            return None;
        }
        object.kind = ObjectKind::File { version, size_bytes };
        object.changed = now;
        if !keep_modified {
            object.modified = now;
        }
        Some(vec![Look::Path(path.clone())])
    }

    /// Makes a file, or gives the one that stands there new bytes in place: those of a version that whoever writes has chosen.
    /// `None` if there is no place for a file.
    pub fn write(&mut self, path: &RelPath, version: u64, size_bytes: u64) -> Option<Vec<Look>> {
        if !self.is_free_for_file(path) {
            return None;
        }
        let (now, kind) = (self.tick(), ObjectKind::File { version, size_bytes });
        match self.names.get(path).and_then(|inode| self.objects.get_mut(inode)) {
            Some(object) if matches!(object.kind, ObjectKind::File { .. }) => {
                (object.kind, object.modified, object.changed) = (kind, now, now);
            }
            Some(_) | None => {
                let inode = self.object(kind, 0o644);
                self.put(path, inode);
            }
        }
        Some(vec![Look::Path(path.clone())])
    }

    /// It holds what it held `earlier`. Its clock and its numbers go on.
    pub fn go_back_to(&mut self, earlier: &Folder) {
        self.names.clone_from(&earlier.names);
        self.objects.clone_from(&earlier.objects);
    }

    /// Makes a directory.
    pub fn make_dir(&mut self, path: &RelPath) -> Option<Vec<Look>> {
        if !self.is_dir_of(path) || self.names.contains_key(path) {
            return None;
        }
        let inode = self.object(ObjectKind::Dir, 0o755);
        self.put(path, inode);
        Some(vec![Look::Scan(path.clone())])
    }

    /// Makes a symlink.
    pub fn symlink(&mut self, path: &RelPath, target: &[u8]) -> Option<Vec<Look>> {
        if !self.is_free_for_file(path) {
            return None;
        }
        let inode = self.object(ObjectKind::Symlink(target.to_vec()), 0o777);
        self.put(path, inode);
        Some(vec![Look::Path(path.clone())])
    }

    /// Sets permission bits.
    pub fn chmod(&mut self, path: &RelPath, mode: u16) -> Option<Vec<Look>> {
        let now = self.tick();
        let object = self.objects.get_mut(self.names.get(path)?)?;
        object.mode = mode;
        object.changed = now;
        Some(vec![Look::Path(path.clone())])
    }

    /// Sets an extended attribute, or removes it.
    pub fn set_xattr(&mut self, path: &RelPath, name: &[u8], value: Option<&[u8]>) -> Option<Vec<Look>> {
        let now = self.tick();
        let object = self.objects.get_mut(self.names.get(path)?)?;
        object.xattrs = match value {
            Some(value) => object.xattrs.with(name, value),
            None => object.xattrs.without(name),
        };
        object.changed = now;
        Some(vec![Look::Path(path.clone())])
    }

    /// Removes what stands at `path`, with everything below it.
    pub fn remove(&mut self, path: &RelPath) -> Option<Vec<Look>> {
        if path.is_root() || !self.names.contains_key(path) {
            return None;
        }
        for gone in self.within(path) {
            self.unlink(&gone);
        }
        Some(vec![Look::Path(path.clone())])
    }

    /// Renames, over a file that stands there if what is renamed is a file too.
    pub fn rename(&mut self, from: &RelPath, to: &RelPath) -> Option<Vec<Look>> {
        let inode = self.inode_at(from)?;
        if from.is_root() || from == to || from.is_prefix_of(to) || !self.is_dir_of(to) {
            return None;
        }
        let is_dir = self.objects[&inode].kind == ObjectKind::Dir;
        if let Some(over) = self.at(to) {
            let over_dir = over.kind == ObjectKind::Dir;
            if over_dir != is_dir || over_dir && !self.below(to).is_empty() {
                return None;
            }
            self.unlink(to);
        }
        for old in self.within(from) {
            let names = to.names().iter().chain(&old.names()[from.names().len()..]).cloned().collect();
            let inode = self.names.remove(&old)?;
            self.names.insert(RelPath::new(names).ok()?, inode);
        }
        let now = self.tick();
        self.objects.get_mut(&inode)?.changed = now;
        Some(vec![Look::Moved { from: from.clone(), to: to.clone(), inode }])
    }

    /// Has its files hold other bytes than those of any other folder.
    pub(super) fn begin_versions_at(&mut self, version: u64) {
        self.last_version = version;
    }

    /// Does an operation, of a file with this version and size, if it finds what it expects.
    ///
    /// # Errors
    /// [`ApplyError::Changed`] and [`ApplyError::Same`].
    pub fn apply(&mut self, op: &Apply, file: Option<(u64, u64)>) -> Result<Facts, ApplyError> {
        let there = |path: &RelPath| self.seen(path).map(|seen| (seen.facts, seen.kind == SeenKind::Dir));
        let is_as_expected = |path: &RelPath, expect: &Facts| {
            there(path).is_some_and(|(facts, is_dir)| facts == *expect || is_dir && facts.inode == expect.inode)
        };
        let can_place = |path: &RelPath, expect: &Option<Facts>| {
            let is_free = match expect {
                Some(expect) => is_as_expected(path, expect) && there(path).is_some_and(|(_, is_dir)| !is_dir),
                None => there(path).is_none(),
            };
            self.is_dir_of(path) && is_free
        };
        let is_possible = match op {
            Apply::MakeDir { path, .. } => can_place(path, &None),
            Apply::MakeSymlink { path, expect, .. } | Apply::Publish { path, expect, .. } => can_place(path, expect),
            Apply::Remove { path, expect } => is_as_expected(path, expect) && self.below(path).is_empty(),
            Apply::Rename { from, to, expect, over, .. } => is_as_expected(from, expect) && can_place(to, over),
            Apply::KeepCopy { path, to, expect, .. } => is_as_expected(path, expect) && can_place(to, &None),
            Apply::SetAttributes { path, expect: Some(expect), .. } => is_as_expected(path, expect),
            Apply::SetAttributes { path, expect: None, .. } => there(path).is_some_and(|(_, is_dir)| is_dir),
        };
        if !is_possible {
            return Err(ApplyError::Changed);
        }
        if let Apply::KeepCopy { path, unless: Some(_), .. } = op {
            let is_same = |object: &Object| match object.kind {
                ObjectKind::File { version, size_bytes } => file == Some((version, size_bytes)),
                ObjectKind::Dir | ObjectKind::Symlink(_) => false,
            };
            if self.at(path).is_some_and(is_same) {
                return Err(ApplyError::Same);
            }
        }
        match op {
            Apply::MakeDir { path, .. } => self.make_dir(path),
            Apply::MakeSymlink { path, target, .. } => self.symlink(path, target),
            Apply::Remove { path, .. } => self.remove(path),
            Apply::Rename { from, to, .. } | Apply::KeepCopy { path: from, to, .. } => self.rename(from, to),
            Apply::SetAttributes { path, .. } => self.chmod(path, 0),
            Apply::Publish { path, .. } => {
                let (version, size_bytes) = file.unwrap_or_default();
                let inode = self.object(ObjectKind::File { version, size_bytes }, 0);
                self.put(path, inode);
                Some(Vec::new())
            }
        };
        let (path, mode, modified, xattrs) = match op {
            Apply::Remove { .. } => return Ok(Facts::default()),
            Apply::KeepCopy { to, .. } => return self.seen(to).map(|seen| seen.facts).ok_or(ApplyError::Changed),
            Apply::MakeDir { path, mode, modified, xattrs } | Apply::Publish { path, mode, modified, xattrs, .. } => {
                (path, *mode, *modified, Some(xattrs))
            }
            Apply::SetAttributes { path, mode, modified, xattrs, .. } => (path, *mode, *modified, xattrs.as_ref()),
            Apply::MakeSymlink { path, modified, .. } => (path, 0o777, *modified, None),
            Apply::Rename { to, mode, modified, xattrs, .. } => (to, *mode, *modified, Some(xattrs)),
        };
        let object = self.names.get(path).and_then(|inode| self.objects.get_mut(inode));
        if let Some(object) = object {
            (object.mode, object.modified) = (mode, modified);
            object.xattrs = xattrs.unwrap_or(&object.xattrs).clone();
        }
        self.seen(path).map(|seen| seen.facts).ok_or(ApplyError::Changed)
    }

    /// Bytes of a file, by its number.
    #[must_use]
    pub fn read(&self, inode: u64, offset: u64, len: u64) -> Option<Vec<u8>> {
        match self.objects.get(&inode)?.kind {
            ObjectKind::File { version, size_bytes } => {
                let len = len.min(size_bytes.saturating_sub(offset));
                Some(bytes_of(version, offset.min(size_bytes), len))
            }
            ObjectKind::Dir | ObjectKind::Symlink(_) => None,
        }
    }

    /// The bytes of a chunk of a file that still is what is said of it.
    pub(super) fn chunk_of(&self, file: &ServedFile, chunk: u64) -> Option<Vec<u8>> {
        let seen = self.seen(&file.path)?;
        let is_as_told = seen.facts == file.facts && seen.modified == file.modified;
        let range = chunk_range(chunk, file.size_bytes);
        self.read(seen.facts.inode, range.start, range.end - range.start).filter(|_| is_as_told)
    }

    /// What stands below `path`, each directory before what it holds.
    #[must_use]
    pub fn below(&self, path: &RelPath) -> Vec<RelPath> {
        self.within(path).into_iter().filter(|inner| inner != path).collect()
    }

    fn within(&self, path: &RelPath) -> Vec<RelPath> {
        self.names.range(path.clone()..).map(|(inner, _)| inner.clone()).take_while(|i| path.is_prefix_of(i)).collect()
    }

    fn unlink(&mut self, path: &RelPath) {
        let now = self.tick();
        if let Some(object) = self.names.remove(path).and_then(|inode| self.objects.get_mut(&inode)) {
            object.changed = now;
        }
    }

    fn put(&mut self, path: &RelPath, inode: u64) {
        self.unlink(path);
        self.names.insert(path.clone(), inode);
    }

    fn is_dir_of(&self, path: &RelPath) -> bool {
        let Some((parents, _)) = path.split_last() else { return false };
        let parents: Vec<Name> = parents.to_vec();
        RelPath::new(parents).ok().and_then(|dir| self.at(&dir)).is_some_and(|object| object.kind == ObjectKind::Dir)
    }

    fn is_free_for_file(&self, path: &RelPath) -> bool {
        self.is_dir_of(path) && self.at(path).is_none_or(|object| object.kind != ObjectKind::Dir)
    }

    fn object(&mut self, kind: ObjectKind, mode: u16) -> u64 {
        let now = self.tick();
        self.last_inode += 1;
        self.objects
            .insert(self.last_inode, Object { kind, mode, modified: now, changed: now, xattrs: Xattrs::default() });
        self.last_inode
    }

    fn next_version(&mut self) -> u64 {
        self.last_version += 1;
        self.last_version
    }

    fn tick(&mut self) -> FileTime {
        self.clock += 1;
        FileTime { seconds: self.clock, nanos: 0 }
    }
}
