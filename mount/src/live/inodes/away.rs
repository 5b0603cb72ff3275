//! What the kernel knows of files that peers have and the folder has not yet, and of them when they have come.

use super::{Inodes, Known, Origin, Place, Rights, Stale, Table, Told, Unchanged};
use crate::folder::beneath::InodeId;
use crate::fuse::Owner;
use farshore_engine::{Attr, Ino};
use rustix::fs::{FileType, Stat};

/// Numbers from here on are those of files that are away, or were when the kernel came to know them.
const FIRST_AWAY_NUMBER: u64 = 3 << 62;

impl Inodes {
    /// As [`Inodes::met`], of a file that is away.
    pub(in crate::live) fn met_away(&self, place: Place, attr: &Attr) -> u64 {
        let mut table = self.lock();
        let number = table.number_for_away(&place, attr);
        table.tell_away(number, attr);
        if let Some(known) = table.known.get_mut(&number) {
            known.lookups += 1;
        }
        // A file that is away has one name.
        for before in table.known.get(&number).map_or_else(Vec::new, |known| known.places.clone()) {
            if before != place {
                table.strike(before.parent, &before.name);
            }
        }
        if let Some(parent) = table.known.get_mut(&place.parent) {
            let (Told { changed, modified, .. }, rights) = (parent.told, parent.rights);
            if parent.unchanged.is_none_or(|kept| kept.modified != modified) {
                parent.unchanged = Some(Unchanged { since: changed, modified, rights });
            }
        }
        table.put(number, place);
        number
    }

    /// The number that a listing shows for a file that is away.
    pub(in crate::live) fn number_of_away(&self, place: &Place, ino: Ino) -> u64 {
        let table = self.lock();
        table.away_child(place, ino).unwrap_or(FIRST_AWAY_NUMBER + ino.0)
    }

    /// Where the kernel knows a file to be that is away, if it does.
    pub(in crate::live) fn places_of_away(&self, ino: Ino) -> Vec<Place> {
        let table = self.lock();
        let known = table.known.get(&(FIRST_AWAY_NUMBER + ino.0)).filter(|known| known.is_away(ino));
        known.map_or_else(Vec::new, |known| known.places.clone())
    }

    /// The kernel hears these attributes of a file that is away.
    pub(in crate::live) fn told_away(&self, number: u64, attr: &Attr) {
        self.lock().tell_away(number, attr);
    }

    /// As [`Inodes::told_away`]: what is different was set here, and is no edit.
    pub(in crate::live) fn amended_away(&self, number: u64, attr: &Attr) {
        let mut table = self.lock();
        if let Some(known) = table.known.get_mut(&number) {
            known.told = Told::of_away(attr);
        }
        table.tell_away(number, attr);
    }

    /// How often peers have edited a file while it was away, as far as was noticed.
    pub(in crate::live) fn edits(&self, number: u64) -> u64 {
        self.lock().known.get(&number).map_or(0, |known| known.edits)
    }

    /// What was away is in the folder now, and is this. Returns whether it could be taken for that: not if it is known
    /// under another number already.
    pub(in crate::live) fn came(&self, number: u64, stat: &Stat) -> bool {
        self.lock().bind(number, stat)
    }

    /// As [`Inodes::came`], if it looks like what was away.
    pub(in crate::live) fn came_unchanged(&self, number: u64, stat: &Stat) -> bool {
        let mut table = self.lock();
        table.looks_like(number, stat) && table.bind(number, stat)
    }

    /// Whether a file was away when it was last looked at.
    pub(in crate::live) fn is_away(&self, number: u64) -> bool {
        self.lock().known.get(&number).is_some_and(|known| matches!(known.origin, Origin::Away(_)))
    }

    /// As [`Inodes::compare`], of a file that is away.
    pub(in crate::live) fn compare_away(&self, number: u64, attr: &Attr) -> Stale {
        let mut table = self.lock();
        let owner = table.owner;
        let Some(known) = table.known.get_mut(&number) else { return Stale::Nothing };
        let (rights, now) = (Rights::of_away(attr, owner), Told::of_away(attr));
        let (before, had_rights) = (std::mem::replace(&mut known.told, now), known.rights);
        known.origin = Origin::Away(*attr);
        known.edits += u64::from(!before.has_bytes_of(now));
        match () {
            () if !before.has_bytes_of(now) => Stale::Bytes,
            () if before == now && had_rights == rights => Stale::Nothing,
            () => Stale::Attributes,
        }
    }

    /// As [`Inodes::knows_rights`], of a file that is away.
    pub(in crate::live) fn knows_rights_of_away(&self, number: u64, attr: &Attr) -> bool {
        let table = self.lock();
        let rights = Rights::of_away(attr, table.owner);
        table.known.get(&number).is_some_and(|known| known.rights == rights)
    }

    /// As [`Inodes::has_other_bytes`], of a file that is away.
    pub(in crate::live) fn has_other_bytes_away(&self, number: u64, attr: &Attr) -> bool {
        !self.lock().known.get(&number).is_some_and(|known| known.told.has_bytes_of(Told::of_away(attr)))
    }

    /// Whom files belong to that are away.
    pub(in crate::live) fn owner(&self) -> Owner {
        self.owner
    }
}

impl Table {
    /// The number of a file that is away; it is known from now on.
    fn number_for_away(&mut self, place: &Place, attr: &Attr) -> u64 {
        if let Some(number) = self.away_child(place, attr.ino) {
            return number;
        }
        let mut number = FIRST_AWAY_NUMBER + attr.ino.0;
        match self.known.get(&number) {
            Some(known) if known.is_away(attr.ino) => return number,
            // What had come is away again, as another file, while somebody still has the one that was here.
            Some(_) => {
                self.last_own_number += 1;
                number = self.last_own_number;
            }
            None => {}
        }
        let (told, rights) = (Told::of_away(attr), Rights::of_away(attr, self.owner));
        self.known.insert(number, Known::new(Origin::Away(*attr), told, rights));
        number
    }

    /// What has this name, if that is this file, away.
    fn away_child(&self, place: &Place, ino: Ino) -> Option<u64> {
        let number = *self.known.get(&place.parent)?.children.get(&place.name)?;
        self.known.get(&number).filter(|known| known.is_away(ino)).map(|_| number)
    }

    fn tell_away(&mut self, number: u64, attr: &Attr) {
        let rights = Rights::of_away(attr, self.owner);
        if let Some(known) = self.known.get_mut(&number).filter(|known| known.is_away(attr.ino)) {
            let now = Told::of_away(attr);
            known.edits += u64::from(!known.told.has_bytes_of(now));
            known.origin = Origin::Away(*attr);
            known.told = now;
            known.rights = rights;
        }
    }

    /// If what was away under this name is in the folder now, and is this, it keeps its number.
    pub(super) fn come(&mut self, place: &Place, stat: &Stat) {
        let child = self.known.get(&place.parent).and_then(|parent| parent.children.get(&place.name)).copied();
        if let Some(number) = child.filter(|number| self.looks_like(*number, stat)) {
            self.bind(number, stat);
        }
    }

    /// Whether a file of the folder is what was away: published files have the size and the time that were told of them.
    fn looks_like(&self, number: u64, stat: &Stat) -> bool {
        match self.known.get(&number).map(|known| known.origin) {
            Some(Origin::Away(attr)) => {
                FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    && Told::of(stat).has_bytes_of(Told::of_away(&attr))
            }
            Some(Origin::Here(_)) | None => false,
        }
    }

    fn bind(&mut self, number: u64, stat: &Stat) -> bool {
        let id = InodeId::of(stat);
        if self.numbers.contains_key(&id) {
            return self.numbers.get(&id) == Some(&number);
        }
        let Some(known) = self.known.get_mut(&number).filter(|known| matches!(known.origin, Origin::Away(_))) else {
            return false;
        };
        known.origin = Origin::Here(id);
        let modified = known.told.modified;
        known.unchanged = Some(Unchanged { since: modified, modified, rights: Rights::of(stat) });
        self.numbers.insert(id, number);
        true
    }
}

impl Known {
    fn is_away(&self, ino: Ino) -> bool {
        matches!(self.origin, Origin::Away(attr) if attr.ino == ino)
    }
}

impl Rights {
    fn of_away(attr: &Attr, owner: Owner) -> Rights {
        Rights(FileType::RegularFile.as_raw_mode() | u32::from(attr.mode), owner.uid, owner.gid)
    }
}

impl Told {
    pub(in crate::live) fn of_away(attr: &Attr) -> Told {
        let modified = (attr.modified.seconds, i64::from(attr.modified.nanos));
        Told { changed: modified, modified, size: attr.size_bytes.cast_signed(), is_symlink: false }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ROOT;
    use super::*;
    use farshore_engine::AttrKind;
    use farshore_engine::record::FileTime;
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;
    use tempfile::TempDir;

    const INO: Ino = Ino(7);

    fn knows_nothing() -> (TempDir, Inodes) {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap().into();
        let stat = rustix::fs::fstat(&root).unwrap();
        (dir, Inodes::new(root, &stat, 9, Owner::current()))
    }

    /// Makes a file of the folder.
    fn make(dir: &TempDir, name: &str, text: &str) -> Stat {
        fs::write(dir.path().join(name), text).unwrap();
        rustix::fs::lstat(dir.path().join(name)).unwrap()
    }

    /// What peers tell of a file that looks like this one.
    fn attr(dir: &TempDir, name: &str) -> Attr {
        let meta = fs::metadata(dir.path().join(name)).unwrap();
        let modified = FileTime { seconds: meta.mtime(), nanos: u32::try_from(meta.mtime_nsec()).unwrap() };
        Attr { ino: INO, kind: AttrKind::File, size_bytes: meta.len(), mode: 0o644, modified, links: 1 }
    }

    #[test]
    fn what_comes_keeps_its_number_and_what_only_has_its_name_does_not() {
        let (dir, inodes) = knows_nothing();
        let (stat, place) = (make(&dir, "file", "text"), Place::new(ROOT, b"file"));
        let number = inodes.met_away(place.clone(), &attr(&dir, "file"));
        assert_eq!(inodes.number_of_away(&place, INO), number);
        assert_ne!(inodes.met(place.clone(), &make(&dir, "other", "another")), number);
        assert_eq!(inodes.met_away(place.clone(), &attr(&dir, "file")), number);
        assert_eq!(inodes.met(place.clone(), &stat), number);
        assert!(!inodes.is_away(number));
        assert_eq!(inodes.number_of(InodeId::of(&stat)), number);
        assert_eq!(inodes.compare(number, &stat), Stale::Nothing, "it has not changed");
        inodes.forget(number, 3);
        assert_eq!(inodes.number_of(InodeId::of(&stat)), stat.st_ino, "nobody remembers that it was away");
    }

    #[test]
    fn what_is_away_again_is_another_file_for_who_has_the_one_that_was_here() {
        let (dir, inodes) = knows_nothing();
        let (stat, place) = (make(&dir, "file", "text"), Place::new(ROOT, b"file"));
        let number = inodes.met_away(place.clone(), &attr(&dir, "file"));
        inodes.pin(number);
        inodes.met(place.clone(), &stat);
        inodes.unlinked(ROOT, b"file");
        let again = inodes.met_away(place, &attr(&dir, "file"));
        assert_ne!(again, number);
        assert!(inodes.is_away(again) && !inodes.is_away(number));
    }

    #[test]
    fn what_is_away_has_one_name() {
        let (dir, inodes) = knows_nothing();
        make(&dir, "file", "text");
        let number = inodes.met_away(Place::new(ROOT, b"one"), &attr(&dir, "file"));
        assert_eq!(inodes.met_away(Place::new(ROOT, b"two"), &attr(&dir, "file")), number);
        assert!(inodes.child(ROOT, b"one").is_none());
        assert_eq!(inodes.places_of_away(INO), [Place::new(ROOT, b"two")]);
        let edited = Attr { size_bytes: 9, ..attr(&dir, "file") };
        assert!(inodes.has_other_bytes_away(number, &edited));
        assert_eq!(inodes.compare_away(number, &edited), Stale::Bytes);
        assert_eq!(inodes.compare_away(number, &Attr { mode: 0o600, ..edited }), Stale::Attributes);
    }
}
