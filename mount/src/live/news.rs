//! Telling of changes: those made on the mount to the engine, and those made behind it to the kernel.

use super::inodes::{Place, ROOT, Stale};
use super::volume::{Live, Look};
use crate::folder::beneath::{Beneath, InodeId};
use crate::folder::look::{Sight, look_in};
use crate::folder::order::Order;
use crate::fuse::Invalidation;
use farshore_engine::path::{Name, RelPath};
use farshore_engine::{Ino, Observation};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::sync::Arc;

type Hear = Box<dyn Fn(Vec<Observation>) + Send + Sync>;

/// Looks where something was done on the mount, and tells what is there now.
pub(super) struct Teller {
    beneath: Beneath,
    pub(super) order: Arc<Order>,
    hear: Hear,
}

impl Teller {
    pub(super) fn new(
        beneath: Beneath,
        order: Arc<Order>,
        hear: impl Fn(Vec<Observation>) + Send + Sync + 'static,
    ) -> Teller {
        Teller { beneath, order, hear: Box::new(hear) }
    }

    /// Tells what needs no look.
    pub(super) fn hear(&self, news: Vec<Observation>) {
        (self.hear)(news);
    }

    /// Tells `news`, and what is at these paths now. Only for who has the turn.
    pub(super) fn tell_now<'a>(&self, mut news: Vec<Observation>, paths: impl IntoIterator<Item = &'a RelPath>) {
        news.extend(paths.into_iter().filter_map(|path| self.look(path)));
        self.hear(news);
    }

    /// Tells `news`, and that what had the one path has the other one, if it still has. Only for who has the turn.
    pub(super) fn tell_moved(&self, mut news: Vec<Observation>, from: &RelPath, to: &RelPath) {
        let moved = self.look(to);
        if matches!(moved, Some(Observation::Found { .. })) {
            news.push(Observation::Moved { from: from.clone(), to: to.clone() });
        }
        news.extend(moved);
        self.tell_now(news, [from]);
    }

    fn look(&self, path: &RelPath) -> Option<Observation> {
        let (_, name) = path.split_last()?;
        // If the directory is not there, whoever moved it has told, or will.
        let directory = self.beneath.parent(path).ok()?;
        Some(match look_in(directory.as_fd(), name.as_bytes()) {
            Sight::There(there) => Observation::Found { path: path.clone(), seen: there.seen },
            Sight::Skip(reason) if reason.is_trouble() => Observation::Unknown { path: path.clone() },
            Sight::Nothing | Sight::Skip(_) => Observation::Missing { path: path.clone() },
        })
    }
}

impl Live {
    /// Something was done to what has this name, or has it no more.
    pub(super) fn tell(&self, place: &Place) {
        let Some(path) = self.inodes.path(place) else { return };
        let teller = Arc::clone(&self.teller);
        self.teller.order.now_or_next(move || teller.tell_now(Vec::new(), [&path]));
    }

    /// Something was done to a file, under whatever name.
    pub(super) fn tell_of(&self, number: u64) {
        for place in self.inodes.places(number) {
            self.tell(&place);
        }
    }

    /// What had the one path has the other one.
    pub(super) fn tell_rename(&self, from: Option<RelPath>, to: Option<RelPath>) {
        let teller = Arc::clone(&self.teller);
        self.teller.order.now_or_next(move || match (&from, &to) {
            (Some(from), Some(to)) => teller.tell_moved(Vec::new(), from, to),
            (from, to) => teller.tell_now(Vec::new(), from.iter().chain(to)),
        });
    }

    /// Something was seen in the folder, whoever has done it: the kernel forgets what is not so any more. What was done
    /// on the mount it knows already.
    pub(crate) fn heard(&self, observations: &[Observation]) {
        for observation in observations {
            match observation {
                Observation::Found { path, .. } | Observation::Missing { path } => self.review(path),
                Observation::Moved { from, to } => {
                    self.review(from);
                    self.review(to);
                    self.review_away_in(to);
                }
                Observation::ScanBegin { .. }
                | Observation::Sighted { .. }
                | Observation::Amended { .. }
                | Observation::Unknown { .. } => {}
                // What was not found again was told by nobody.
                Observation::ScanEnd { path } => self.review_all_in(path),
            }
        }
    }

    /// Reviews all that the kernel knows below a directory.
    fn review_all_in(&self, path: &RelPath) {
        let Some(number) = self.inodes.resolve(path.names()) else { return };
        for path in self.inodes.names_in(number).into_iter().filter_map(|name| path.join(name).ok()) {
            self.review(&path);
            self.review_all_in(&path);
        }
    }

    fn review(&self, path: &RelPath) {
        let Some((parents, name)) = path.split_last() else {
            if let Ok(stat) = self.anchor(ROOT).and_then(|root| rustix::fs::fstat(&*root)) {
                self.invalidate(ROOT, self.inodes.compare(ROOT, &stat));
            }
            return;
        };
        // In a directory that the kernel does not know it knows no name.
        let Some(parent) = self.inodes.resolve(parents) else { return };
        let Ok(directory) = self.anchor(parent) else { return };
        let (place, known) = (Place::new(parent, name.as_bytes()), self.inodes.child(parent, name.as_bytes()));
        if self.is_private(parent, name.as_bytes()) {
            return;
        }
        match (self.look(&directory, &place), known) {
            (Ok(Look::Here(stat)), Some((number, Some(id)))) if InodeId::of(&stat) == id => {
                self.invalidate(number, self.inodes.compare(number, &stat));
            }
            (Ok(Look::Here(stat)), Some((number, None))) if self.came(number, &stat) => {}
            (Ok(Look::Away(attr)), Some((number, None))) if self.inodes.number_of_away(&place, attr.ino) == number => {
                self.invalidate(number, self.inodes.compare_away(number, &attr));
            }
            (look @ (Ok(_) | Err(Errno::NOENT)), known) => {
                if known.is_some() {
                    self.inodes.unlinked(parent, name.as_bytes());
                } else if look.is_err() {
                    // The kernel may remember that nothing is there, and that is right.
                    return;
                }
                self.send(Invalidation::Entry { parent: Ino(parent), name: name.clone() });
                if let Some((number, _)) = known {
                    // It has a name less, if it has others.
                    self.send(Invalidation::Inode { ino: Ino(number), data: false });
                }
                if let Ok(Look::Away(attr)) = look {
                    self.forget_places(attr.ino);
                }
            }
            (Err(_), _) => {}
        }
    }

    /// What is away has another name: the kernel forgets those that it had.
    fn forget_places(&self, ino: Ino) {
        for place in self.inodes.places_of_away(ino) {
            self.inodes.unlinked(place.parent, &place.name);
            if let Ok(name) = Name::new(&place.name) {
                self.send(Invalidation::Entry { parent: Ino(place.parent), name });
            }
        }
    }

    /// Something that is away, or was, is not as it was.
    pub(super) fn heard_of_away(&self, path: &RelPath) {
        let Some((parents, name)) = path.split_last() else { return };
        let Some(parent) = self.inodes.resolve(parents) else { return };
        let place = Place::new(parent, name.as_bytes());
        let was_away = self.inodes.child(parent, name.as_bytes()).is_some_and(|(_, id)| id.is_none());
        if was_away || self.away_at(&place).is_some() {
            self.review(path);
        }
    }

    /// Reviews what is away below a directory that has another name: the kernel may remember that it is not there.
    fn review_away_in(&self, path: &RelPath) {
        let Some(number) = self.inodes.resolve(path.names()) else { return };
        for (name, _) in self.away_in(number) {
            if let Ok(path) = path.join(name) {
                self.review(&path);
            }
        }
        for path in self.inodes.names_in(number).into_iter().filter_map(|name| path.join(name).ok()) {
            self.review_away_in(&path);
        }
    }

    fn invalidate(&self, number: u64, stale: Stale) {
        match stale {
            Stale::Nothing => {}
            Stale::Attributes => self.send(Invalidation::Inode { ino: Ino(number), data: false }),
            Stale::Bytes => self.send(Invalidation::Inode { ino: Ino(number), data: true }),
        }
    }

    pub(super) fn send(&self, invalidation: Invalidation) {
        if let Some(notifier) = self.notifier.get() {
            notifier.send(invalidation);
        }
    }
}
