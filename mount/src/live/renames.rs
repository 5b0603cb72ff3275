//! Renames: of what is in the folder, of what is away, and of the one over the other.

use super::inodes::Place;
use super::volume::{Live, Outcome};
use super::waiting::{Held, Tried, Turn};
use crate::folder::beneath::stat_in;
use farshore_engine::Observation;
use farshore_engine::path::RelPath;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, RenameFlags, Stat};
use rustix::io::Errno;
use std::sync::PoisonError;

/// What has a name that a rename is about.
enum End {
    /// Something in the folder.
    Here(Stat),
    /// A file that is away, and its path.
    Away(RelPath),
    Nothing,
}

impl End {
    fn is_dir(&self) -> bool {
        matches!(self, End::Here(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }
}

impl Live {
    pub(super) fn rename(&self, from: &Place, to: &Place, flags: RenameFlags, turn: Turn) -> Tried<()> {
        let (source, target) = (self.directory(from.parent, &from.name)?, self.directory(to.parent, &to.name)?);
        if self.away.is_none() {
            return Ok(self.rename_here(from, to, (&source, &target), flags)?);
        }
        match (self.end(&source, from)?, self.end(&target, to)?) {
            (End::Nothing, _) => Err(Errno::NOENT.into()),
            (_, End::Nothing) if flags.contains(RenameFlags::EXCHANGE) => Err(Errno::NOENT.into()),
            (_, End::Away(_)) if flags.contains(RenameFlags::NOREPLACE) => Err(Errno::EXIST.into()),
            (_, End::Away(path)) if flags.contains(RenameFlags::EXCHANGE) => Err(Held::ForFile(path)),
            (over, End::Away(_)) if over.is_dir() => Err(Errno::NOTDIR.into()),
            // A directory takes what is away in it along.
            (End::Here(_), End::Away(_)) => self.rename_in_turn(from, to, (&source, &target), flags, turn),
            (over, _) if over.is_dir() => self.rename_in_turn(from, to, (&source, &target), flags, turn),
            (End::Here(_), _) => Ok(self.rename_here(from, to, (&source, &target), flags)?),
            (End::Away(_), over) if over.is_dir() => Err(Errno::ISDIR.into()),
            (End::Away(_), End::Here(_)) if flags.contains(RenameFlags::NOREPLACE) => Err(Errno::EXIST.into()),
            // It is replaced in one go only by what is here too.
            (End::Away(path), End::Here(_)) => Err(Held::ForFile(path)),
            (End::Away(path), End::Away(_) | End::Nothing) => self.rename_away(from, path, to, turn),
        }
    }

    fn end(&self, directory: &OwnedFd, place: &Place) -> Outcome<End> {
        match stat_in(directory.as_fd(), &*place.name) {
            Ok(stat) => Ok(End::Here(stat)),
            Err(Errno::NOENT) => Ok(self.away_at(place).map_or(End::Nothing, |(path, _)| End::Away(path))),
            Err(error) => Err(error),
        }
    }

    /// Renames in the folder, and tells when there is time for it.
    fn rename_here(
        &self,
        from: &Place,
        to: &Place,
        (source, target): (&OwnedFd, &OwnedFd),
        flags: RenameFlags,
    ) -> Outcome<()> {
        self.holding(from, |moved| {
            self.holding(to, |_| {
                let paths = (self.inodes.path(from), self.inodes.path(to));
                rustix::fs::renameat_with(source, &*from.name, target, &*to.name, flags)?;
                if flags.contains(RenameFlags::EXCHANGE) {
                    self.inodes.exchanged(from, to);
                    self.tell(from);
                    self.tell(to);
                } else if !self.is_one_file(from, to) {
                    self.inodes.renamed(moved, from, to.clone());
                    self.tell_rename(paths.0, paths.1);
                }
                Ok(())
            })
        })
    }

    /// Renames in the folder, and tells at once: what is away has its new path when this returns, or is replaced.
    fn rename_in_turn(
        &self,
        from: &Place,
        to: &Place,
        directories: (&OwnedFd, &OwnedFd),
        flags: RenameFlags,
        turn: Turn,
    ) -> Tried<()> {
        turn.must_be_ours()?;
        let over = self.away_at(to).map(|(path, _)| Observation::Sighted { path });
        let (source, target) = directories;
        self.holding(from, |moved| {
            self.holding(to, |_| {
                let _moving = self.moving.write().unwrap_or_else(PoisonError::into_inner);
                let paths = self.inodes.path(from).zip(self.inodes.path(to));
                rustix::fs::renameat_with(source, &*from.name, target, &*to.name, flags)?;
                if flags.contains(RenameFlags::EXCHANGE) {
                    self.inodes.exchanged(from, to);
                } else {
                    self.inodes.renamed(moved, from, to.clone());
                }
                let Some((from, to)) = paths else { return Ok(()) };
                if flags.contains(RenameFlags::EXCHANGE) {
                    self.teller.tell_now(Vec::new(), [&to, &from]);
                } else {
                    // With all that is in it, here or away.
                    let sighted = Observation::Sighted { path: from.clone() };
                    self.teller.tell_moved(over.into_iter().chain([sighted]).collect(), &from, &to);
                }
                Ok(())
            })
        })
    }

    /// Renames what is away, over nothing or what is away too.
    fn rename_away(&self, from: &Place, path: RelPath, to: &Place, turn: Turn) -> Tried<()> {
        if from == to {
            return Ok(());
        }
        let target = self.inodes.path(to).ok_or(Errno::NAMETOOLONG)?;
        turn.must_be_ours()?;
        self.must_stay_away(&path)?;
        // What is there without being shown, because the folder held something older a moment ago, was seen by nobody.
        let over = self.away_at(to).map(|_| Observation::Sighted { path: target.clone() });
        if over.is_some() {
            self.must_stay_away(&target)?;
        }
        let sighted = Observation::Sighted { path: path.clone() };
        let moved = Observation::Moved { from: path.clone(), to: target };
        self.teller.hear([sighted].into_iter().chain(over).chain([moved]).collect());
        if self.away_at(to).is_none() || self.away_at(from).is_some() {
            // What several have made of these names is not moved before it is settled: the file comes, and is renamed here.
            return Err(Held::ForFile(path));
        }
        let moved = self.inodes.child(from.parent, &from.name).map(|(number, _)| number);
        self.inodes.renamed(moved, from, to.clone());
        Ok(())
    }

    /// Whether a rename has done nothing, because both are names of one file.
    fn is_one_file(&self, from: &Place, to: &Place) -> bool {
        let (from_id, to_id) = (self.inodes.child(from.parent, &from.name), self.inodes.child(to.parent, &to.name));
        from_id.is_some()
            && from_id == to_id
            && self.anchor(from.parent).is_ok_and(|parent| stat_in(parent.as_fd(), &*from.name).is_ok())
    }
}
