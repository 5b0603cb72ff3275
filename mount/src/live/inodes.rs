//! What the kernel knows of the folder: which files, under which numbers and names, and what it was told of them.
//!
//! A file has one number, however many names it has. The number is the file's own in its file system wherever that is
//! possible, so that programs which remember it (`git`, `tar`) find it again after the next mount.
//!
//! A file is reached through a descriptor (an anchor, opened with `O_PATH`) rather than by its path: it leads to the same
//! file whatever is renamed meanwhile. There are more files than descriptors, so only those used last are kept. A file
//! whose anchor was given up is found again by a name that it had, if it is still there. Files that are open, and those
//! that lost their last name, keep their anchor for as long as the kernel knows them.
//!
//! A file that peers have and the folder has not yet (it is away) has a number of our own, by the engine's number. It keeps
//! that when it comes: whoever has it open, or has remembered its number, goes on with the same file.

mod away;
mod listings;

pub(super) use self::listings::{Kept, Looks};

use self::listings::Listed;
use crate::folder::beneath::InodeId;
use crate::fuse::Owner;
use farshore_engine::Attr;
use farshore_engine::path::{Name, RelPath};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Stat};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number by which the kernel asks for the folder itself.
pub(super) const ROOT: u64 = 1;

/// Numbers from here on are our own: for files of other file systems mounted inside the folder, whose numbers may
/// be taken.
const FIRST_OWN_NUMBER: u64 = 1 << 63;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) parent: u64,
    pub(super) name: Box<[u8]>,
}

impl Place {
    pub(super) fn new(parent: u64, name: &[u8]) -> Place {
        Place { parent, name: name.into() }
    }
}

/// What of a file's attributes shows whether anything has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    changed: (i64, i64),
    modified: (i64, i64),
    size: i64,
    is_symlink: bool,
}

/// Who may do what with a file: its mode and its owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights(u32, u32, u32);

impl Rights {
    fn of(stat: &Stat) -> Rights {
        Rights(stat.st_mode, stat.st_uid, stat.st_gid)
    }
}

impl Told {
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the widths differ between architectures")]
    pub(super) fn of(stat: &Stat) -> Told {
        Told {
            changed: (stat.st_ctime.into(), stat.st_ctime_nsec as i64),
            modified: (stat.st_mtime.into(), stat.st_mtime_nsec as i64),
            size: stat.st_size,
            is_symlink: FileType::from_raw_mode(stat.st_mode) == FileType::Symlink,
        }
    }

    /// Whether the bytes are the same, as far as attributes tell.
    fn has_bytes_of(self, other: Told) -> bool {
        self.modified == other.modified && self.size == other.size
    }
}

/// When a file was last changed, as programs are shown it although the disk says otherwise: what is away comes without
/// having changed, and so has the directory into which it comes. True for as long as nothing else is different.
#[derive(Debug, Clone, Copy)]
struct Unchanged {
    since: (i64, i64),
    modified: (i64, i64),
    rights: Rights,
}

/// What the kernel must be told to forget of a file, because it has changed behind its back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stale {
    /// Nothing.
    Nothing,
    /// What `stat` shows.
    Attributes,
    /// That, and the file's bytes, the directory's list or the link's target.
    Bytes,
}

/// How to reach a file.
#[derive(Debug)]
pub(super) enum Reach {
    /// Through this.
    Anchor(Arc<OwnedFd>),
    /// It is looked for under these names; the last one is the most likely.
    Names(InodeId, Vec<Place>),
    /// It is away, or was when it was last looked at; it had these names.
    Away(Attr, Vec<Place>),
}

/// Where a file is.
#[derive(Debug, Clone, Copy)]
enum Origin {
    /// In the folder.
    Here(InodeId),
    /// Away, as it was when it was last looked at.
    Away(Attr),
}

/// A file that the kernel knows.
#[derive(Debug)]
struct Known {
    origin: Origin,
    /// The names under which it was met and that it may still have; the last one met is last.
    places: Vec<Place>,
    /// What is known in it, if it is a directory.
    children: HashMap<Box<[u8]>, u64>,
    lookups: u64,
    /// Opens and calls that need the anchor to stay.
    pins: u32,
    /// How often it is open to be written.
    writers: u32,
    anchor: Option<Arc<OwnedFd>>,
    /// The anchor was used since it was last considered for giving up.
    is_used: bool,
    told: Told,
    /// What an answer said last. Unlike the rest, not what the kernel was asked to forget.
    rights: Rights,
    unchanged: Option<Unchanged>,
    /// How often peers have edited it while it was away.
    edits: u64,
}

/// All that the kernel knows.
#[derive(Debug)]
pub(super) struct Inodes {
    table: Mutex<Table>,
    owner: Owner,
}

#[derive(Debug)]
struct Table {
    known: HashMap<u64, Known>,
    numbers: HashMap<InodeId, u64>,
    /// The directories among them that were listed, by their numbers.
    listings: HashMap<u64, Listed>,
    device: u64,
    last_own_number: u64,
    /// Those with an anchor, some perhaps more than once, and some without.
    anchored: VecDeque<u64>,
    anchors: usize,
    /// How many anchors are kept of those that can be given up.
    budget: usize,
    /// Whom files belong to that are away.
    owner: Owner,
}

impl Inodes {
    /// Knows the folder itself, open as `root`. Keeps about `budget` descriptors.
    pub(super) fn new(root: OwnedFd, stat: &Stat, budget: usize, owner: Owner) -> Inodes {
        let id = InodeId::of(stat);
        let root = Known {
            lookups: 1,
            pins: 1,
            anchor: Some(Arc::new(root)),
            is_used: true,
            ..Known::new(Origin::Here(id), Told::of(stat), Rights::of(stat))
        };
        let table = Table {
            known: HashMap::from([(ROOT, root)]),
            numbers: HashMap::from([(id, ROOT)]),
            listings: HashMap::new(),
            device: id.device,
            last_own_number: FIRST_OWN_NUMBER,
            anchored: VecDeque::new(),
            anchors: 0,
            budget,
            owner,
        };
        Inodes { table: Mutex::new(table), owner }
    }

    /// The kernel is about to hear that `stat` is what has this name: it knows it once more. Returns its number.
    pub(super) fn met(&self, place: Place, stat: &Stat) -> u64 {
        let mut table = self.lock();
        table.come(&place, stat);
        let number = table.number_for(stat);
        if let Some(known) = table.known.get_mut(&number) {
            known.lookups += 1;
            known.tell(stat);
        }
        table.put(number, place);
        number
    }

    /// When a file shows to have been changed last, if that is not what the disk says.
    pub(super) fn unchanged_since(&self, number: u64, stat: &Stat) -> Option<(i64, i64)> {
        self.lock().known.get(&number)?.unchanged_since(stat)
    }

    /// A file is about to be changed by a program.
    pub(super) fn changes(&self, number: u64) {
        if let Some(known) = self.lock().known.get_mut(&number) {
            known.unchanged = None;
        }
    }

    /// Whether a program has a file open, or a call is about it.
    pub(super) fn is_pinned(&self, number: u64) -> bool {
        self.lock().known.get(&number).is_some_and(|known| known.pins > 0)
    }

    /// The number that a file has, or would have if the kernel came to know it now.
    pub(super) fn number_of(&self, id: InodeId) -> u64 {
        let table = self.lock();
        table.numbers.get(&id).copied().unwrap_or(if id.device == table.device { id.inode } else { FIRST_OWN_NUMBER })
    }

    /// The kernel hears these attributes.
    pub(super) fn told(&self, number: u64, stat: &Stat) {
        if let Some(known) = self.lock().known.get_mut(&number) {
            known.tell(stat);
        }
    }

    /// What was written through the kernel has led to this: it has nothing to forget.
    pub(super) fn written(&self, number: u64, stat: &Stat) {
        if let Some(known) = self.lock().known.get_mut(&number) {
            known.told = Told::of(stat);
        }
    }

    /// Compares what the kernel was told with what is; it counts as told from now on.
    pub(super) fn compare(&self, number: u64, stat: &Stat) -> Stale {
        let mut table = self.lock();
        let Some(known) = table.known.get_mut(&number) else { return Stale::Nothing };
        let now = Told::of(stat);
        let before = std::mem::replace(&mut known.told, now);
        match () {
            () if before == now => Stale::Nothing,
            () if before.has_bytes_of(now) && known.unchanged_since(stat).is_some() => Stale::Nothing,
            () if before.has_bytes_of(now) && !now.is_symlink => Stale::Attributes,
            () => Stale::Bytes,
        }
    }

    /// Whether the kernel was told who may do what with a file as it is now.
    pub(super) fn knows_rights(&self, number: u64, stat: &Stat) -> bool {
        self.lock().known.get(&number).is_some_and(|known| known.rights == Rights::of(stat))
    }

    /// Whether a file's bytes may be other than the kernel was told.
    pub(super) fn has_other_bytes(&self, number: u64, stat: &Stat) -> bool {
        !self.lock().known.get(&number).is_some_and(|known| known.told.has_bytes_of(Told::of(stat)))
    }

    /// The kernel has forgotten `lookups` of the times that it heard of a file.
    pub(super) fn forget(&self, number: u64, lookups: u64) {
        let mut table = self.lock();
        let Some(known) = table.known.get_mut(&number) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        table.reap(number);
    }

    /// How to reach a file that the kernel knows.
    pub(super) fn reach(&self, number: u64) -> Option<Reach> {
        let mut table = self.lock();
        let known = table.known.get_mut(&number)?;
        known.is_used = true;
        Some(match (&known.anchor, known.origin) {
            (Some(anchor), _) => Reach::Anchor(Arc::clone(anchor)),
            (None, Origin::Here(id)) => Reach::Names(id, known.places.clone()),
            (None, Origin::Away(attr)) => Reach::Away(attr, known.places.clone()),
        })
    }

    /// A file was opened again. Returns its anchor, which may be another one if somebody else was faster.
    pub(super) fn keep(&self, number: u64, anchor: OwnedFd) -> Arc<OwnedFd> {
        let mut table = self.lock();
        let Some(known) = table.known.get_mut(&number) else { return Arc::new(anchor) };
        if let Some(before) = &known.anchor {
            return Arc::clone(before);
        }
        let anchor = Arc::new(anchor);
        known.anchor = Some(Arc::clone(&anchor));
        known.is_used = true;
        table.anchors += 1;
        table.anchored.push_back(number);
        table.give_up_some();
        anchor
    }

    /// From now on the anchor of a file stays, if it has one. To be taken back by [`Inodes::unpin`].
    pub(super) fn pin(&self, number: u64) {
        if let Some(known) = self.lock().known.get_mut(&number) {
            known.pins += 1;
        }
    }

    pub(super) fn unpin(&self, number: u64) {
        let mut table = self.lock();
        let Some(known) = table.known.get_mut(&number) else { return };
        known.pins = known.pins.saturating_sub(1);
        table.reap(number);
    }

    /// A program has opened a file to write it.
    pub(super) fn begin_writing(&self, number: u64) {
        if let Some(known) = self.lock().known.get_mut(&number) {
            known.writers += 1;
        }
    }

    /// A program has closed a file that it had open to write it.
    pub(super) fn end_writing(&self, number: u64) {
        if let Some(known) = self.lock().known.get_mut(&number) {
            known.writers = known.writers.saturating_sub(1);
        }
    }

    /// Whether a program has a file open to write it.
    pub(super) fn is_being_written(&self, number: u64) -> bool {
        self.lock().known.get(&number).is_some_and(|known| known.writers > 0)
    }

    /// What is known to have this name; with what it is in the folder, unless it is away.
    pub(super) fn child(&self, parent: u64, name: &[u8]) -> Option<(u64, Option<InodeId>)> {
        let table = self.lock();
        let number = *table.known.get(&parent)?.children.get(name)?;
        Some((number, table.known.get(&number)?.id()))
    }

    /// What is known to be at a path.
    pub(super) fn resolve(&self, names: &[Name]) -> Option<u64> {
        let table = self.lock();
        names.iter().try_fold(ROOT, |at, name| table.known.get(&at)?.children.get(name.as_bytes()).copied())
    }

    /// The names that are known in a directory.
    pub(super) fn names_in(&self, number: u64) -> Vec<Name> {
        let table = self.lock();
        let names = table.known.get(&number).into_iter().flat_map(|known| known.children.keys());
        names.filter_map(|name| Name::new(name).ok()).collect()
    }

    /// Nothing has this name any more.
    pub(super) fn unlinked(&self, parent: u64, name: &[u8]) {
        self.lock().strike(parent, name);
    }

    /// What had the one name, if it is known, has the other one. What had that has it no more.
    pub(super) fn renamed(&self, number: Option<u64>, from: &Place, to: Place) {
        let mut table = self.lock();
        table.strike(from.parent, &from.name);
        match number {
            Some(number) => table.put(number, to),
            None => drop(table.strike(to.parent, &to.name)),
        }
    }

    /// What had the one name has the other one, and the other way round.
    pub(super) fn exchanged(&self, one: &Place, other: &Place) {
        let mut table = self.lock();
        let (first, second) = (table.strike(one.parent, &one.name), table.strike(other.parent, &other.name));
        for (number, place) in [(first, other), (second, one)] {
            if let Some(number) = number {
                table.put(number, place.clone());
            }
        }
    }

    /// The path of a name, by the names of the directories above it. `None` if one of them has lost its name, or if
    /// it is too long for the engine.
    pub(super) fn path(&self, place: &Place) -> Option<RelPath> {
        let table = self.lock();
        let mut names = vec![Name::new(&place.name).ok()?];
        let mut at = place.parent;
        while at != ROOT {
            let place = table.known.get(&at)?.places.last()?;
            names.push(Name::new(&place.name).ok()?);
            at = place.parent;
        }
        names.reverse();
        RelPath::new(names).ok()
    }

    /// The path of a directory, by its names and those above it; as [`Inodes::path`].
    pub(super) fn path_of_dir(&self, number: u64) -> Option<RelPath> {
        if number == ROOT {
            return Some(RelPath::ROOT);
        }
        self.path(self.places(number).last()?)
    }

    /// The names of a file.
    pub(super) fn places(&self, number: u64) -> Vec<Place> {
        self.lock().known.get(&number).map_or_else(Vec::new, |known| known.places.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(origin: Origin, told: Told, rights: Rights) -> Known {
        Known {
            origin,
            places: Vec::new(),
            children: HashMap::new(),
            lookups: 0,
            pins: 0,
            writers: 0,
            anchor: None,
            is_used: false,
            told,
            rights,
            unchanged: None,
            edits: 0,
        }
    }

    /// When it was last changed, if that is not what the disk says.
    fn unchanged_since(&self, stat: &Stat) -> Option<(i64, i64)> {
        let is_so = |kept: &Unchanged| kept.modified == Told::of(stat).modified && kept.rights == Rights::of(stat);
        self.unchanged.filter(is_so).map(|kept| kept.since)
    }

    /// The kernel hears of this.
    fn tell(&mut self, stat: &Stat) {
        self.told = Told::of(stat);
        self.rights = Rights::of(stat);
    }

    /// What it is in the folder.
    fn id(&self) -> Option<InodeId> {
        match self.origin {
            Origin::Here(id) => Some(id),
            Origin::Away(_) => None,
        }
    }
}

impl Table {
    /// The number of what `stat` tells of; it is known from now on.
    fn number_for(&mut self, stat: &Stat) -> u64 {
        let id = InodeId::of(stat);
        if let Some(number) = self.numbers.get(&id) {
            return *number;
        }
        let own = id.inode;
        let is_free =
            id.device == self.device && (ROOT + 1..FIRST_OWN_NUMBER).contains(&own) && !self.known.contains_key(&own);
        let number = if is_free {
            own
        } else {
            self.last_own_number += 1;
            self.last_own_number
        };
        self.known.insert(number, Known::new(Origin::Here(id), Told::of(stat), Rights::of(stat)));
        self.numbers.insert(id, number);
        number
    }

    /// A file has this name, and what had it before has it no more.
    fn put(&mut self, number: u64, place: Place) {
        let before = self.known.get(&place.parent).and_then(|parent| parent.children.get(&place.name)).copied();
        if before == Some(number) {
            return;
        }
        if before.is_some() {
            self.strike(place.parent, &place.name);
        }
        if let Some(parent) = self.known.get_mut(&place.parent) {
            parent.children.insert(place.name.clone(), number);
        }
        if let Some(known) = self.known.get_mut(&number) {
            known.places.push(place);
        }
    }

    /// Takes a name away. Returns whose it was.
    fn strike(&mut self, parent: u64, name: &[u8]) -> Option<u64> {
        let number = self.known.get_mut(&parent)?.children.remove(name)?;
        if let Some(known) = self.known.get_mut(&number) {
            known.places.retain(|place| place.parent != parent || *place.name != *name);
        }
        Some(number)
    }

    /// Lets go of a file that nobody knows any more.
    fn reap(&mut self, number: u64) {
        if number == ROOT || self.known.get(&number).is_none_or(|known| known.lookups > 0 || known.pins > 0) {
            return;
        }
        let Some(known) = self.known.remove(&number) else { return };
        self.listings.remove(&number);
        self.anchors -= usize::from(known.anchor.is_some());
        if let Some(id) = known.id() {
            self.numbers.remove(&id);
        }
        for place in known.places {
            if let Some(parent) = self.known.get_mut(&place.parent)
                && parent.children.get(&place.name) == Some(&number)
            {
                parent.children.remove(&place.name);
            }
        }
    }

    /// Gives up anchors that were not used lately, until there are few enough or all were considered twice.
    fn give_up_some(&mut self) {
        for _ in 0..2 * self.anchored.len() {
            if self.anchors <= self.budget {
                return;
            }
            let Some(number) = self.anchored.pop_front() else { return };
            let Some(known) = self.known.get_mut(&number).filter(|known| known.anchor.is_some()) else { continue };
            if std::mem::take(&mut known.is_used) || known.pins > 0 || known.places.is_empty() {
                self.anchored.push_back(number);
            } else {
                known.anchor = None;
                self.anchors -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    pub(super) struct Rig {
        pub(super) dir: tempfile::TempDir,
        pub(super) inodes: Inodes,
    }

    impl Rig {
        pub(super) fn new(budget: usize) -> Rig {
            let dir = tempfile::tempdir().unwrap();
            let root: OwnedFd = File::open(dir.path()).unwrap().into();
            let stat = rustix::fs::fstat(&root).unwrap();
            Rig { dir, inodes: Inodes::new(root, &stat, budget, Owner { uid: 7, gid: 8 }) }
        }

        pub(super) fn meet(&self, name: &str) -> u64 {
            let path = self.dir.path().join(name);
            let (parent, name) = name.rsplit_once('/').unwrap_or(("", name));
            let names: Vec<Name> = parent
                .split('/')
                .filter(|name| !name.is_empty())
                .map(|name| Name::new(name.as_bytes()).unwrap())
                .collect();
            let parent = self.inodes.resolve(&names).unwrap();
            if !path.exists() {
                File::create(&path).unwrap();
            }
            self.inodes.met(Place::new(parent, name.as_bytes()), &rustix::fs::lstat(&path).unwrap())
        }

        pub(super) fn look(&self, name: &str) -> Stat {
            rustix::fs::lstat(self.dir.path().join(name)).unwrap()
        }

        fn anchor(&self, number: u64, name: &str) {
            self.inodes.keep(number, File::open(self.dir.path().join(name)).unwrap().into());
        }

        fn has_anchor(&self, number: u64) -> bool {
            matches!(self.inodes.reach(number), Some(Reach::Anchor(_)))
        }

        fn path(&self, number: u64) -> Option<String> {
            self.inodes.path(self.inodes.places(number).last()?).map(|path| path.to_string())
        }
    }

    #[test]
    fn a_file_with_two_names_has_one_number() {
        let rig = Rig::new(9);
        let one = rig.meet("one");
        std::fs::hard_link(rig.dir.path().join("one"), rig.dir.path().join("two")).unwrap();
        assert_eq!(rig.meet("two"), one);
        assert_eq!(rig.inodes.places(one).len(), 2);
        rig.inodes.unlinked(ROOT, b"two");
        assert_eq!(rig.path(one).unwrap(), "one");
        rig.inodes.forget(one, 1);
        assert!(rig.inodes.child(ROOT, b"one").is_some(), "the kernel heard of it twice");
        rig.inodes.forget(one, 1);
        assert!(rig.inodes.child(ROOT, b"one").is_none());
        assert!(rig.inodes.reach(one).is_none());
    }

    #[test]
    fn names_follow_a_rename_and_what_is_renamed_over_loses_its_name() {
        let rig = Rig::new(9);
        std::fs::create_dir(rig.dir.path().join("d")).unwrap();
        let (dir, file, over) = (rig.meet("d"), rig.meet("d/file"), rig.meet("over"));
        rig.inodes.renamed(Some(dir), &Place::new(ROOT, b"d"), Place::new(ROOT, b"over"));
        assert_eq!((rig.path(file).unwrap(), rig.path(over)), ("over/file".to_owned(), None));
        assert_eq!(rig.inodes.child(ROOT, b"over").map(|(number, _)| number), Some(dir));
        rig.inodes.exchanged(&Place::new(ROOT, b"over"), &Place::new(dir, b"file"));
        assert_eq!(rig.inodes.child(ROOT, b"over").map(|(number, _)| number), Some(file));
    }

    #[test]
    fn few_anchors_are_kept_but_those_that_are_needed() {
        let rig = Rig::new(2);
        let (open, gone) = (rig.meet("open"), rig.meet("gone"));
        rig.inodes.pin(open);
        rig.anchor(open, "open");
        rig.anchor(gone, "gone");
        rig.inodes.unlinked(ROOT, b"gone");
        let others: Vec<(u64, String)> =
            (0..9).map(|number| format!("f{number}")).map(|name| (rig.meet(&name), name)).collect();
        for (number, name) in &others {
            rig.anchor(*number, name);
        }
        assert!(rig.has_anchor(open) && rig.has_anchor(gone));
        assert!(others.iter().filter(|(number, _)| rig.has_anchor(*number)).count() <= 1);
        rig.inodes.unpin(open);
        rig.inodes.forget(open, 1);
        rig.inodes.forget(gone, 1);
        assert!(!rig.has_anchor(open) && !rig.has_anchor(gone));
    }

    #[test]
    fn what_has_changed_is_noticed_once() {
        let rig = Rig::new(9);
        let number = rig.meet("file");
        let path = rig.dir.path().join("file");
        let look = || rustix::fs::lstat(&path).unwrap();
        assert_eq!(rig.inodes.compare(number, &look()), Stale::Nothing);
        let mut stat = look();
        stat.st_ctime_nsec += 1;
        assert_eq!(rig.inodes.compare(number, &stat), Stale::Attributes);
        assert_eq!(rig.inodes.compare(number, &stat), Stale::Nothing);
        stat.st_size += 1;
        assert!(rig.inodes.has_other_bytes(number, &stat));
        assert_eq!(rig.inodes.compare(number, &stat), Stale::Bytes);
    }
}
