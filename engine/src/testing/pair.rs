//! An owner and a follower that is connected and has heard everything.

use super::app::path;
use super::folder::Folder;
use super::host::HostId;
use super::world::World;
use crate::config::Config;
use crate::ids::{Handle, ReqId};
use crate::output::{Errno, Notice};
use core::ops::{Deref, DerefMut};
use core::time::Duration;

/// Two engines: one that owns a folder, one that follows it. Everything that a [`World`] can do, it can.
#[derive(Debug)]
pub struct Pair {
    /// The world that they live in.
    pub world: World,
}

impl Deref for Pair {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Pair {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Pair {
    /// The owner.
    pub const OWNER: HostId = 0;

    /// The follower.
    pub const FOLLOWER: HostId = 1;

    /// An owner with these files, each of a size in bytes, and a follower that has heard of them.
    #[must_use]
    pub fn new(files: &[(&str, u64)]) -> Pair {
        Pair::with(Config::default(), files)
    }

    /// The same, with a configuration for both.
    #[must_use]
    pub fn with(config: Config, files: &[(&str, u64)]) -> Pair {
        let mut world = World::new(7);
        let owner = world.add(config.clone());
        let follower = world.add(config);
        let mut pair = Pair { world };
        for (file, size_bytes) in files {
            pair.create(file, *size_bytes);
        }
        pair.drive();
        pair.world.follow(follower, owner);
        let heard = |world: &World| world.hosts[Pair::FOLLOWER].engine.view().peers().any(|peer| peer.listed);
        assert!(pair.drive_bounded(Duration::from_secs(10), heard), "the follower is told nothing");
        pair.drive();
        pair.check_converged();
        pair
    }

    /// Changes the owner's folder. Nobody has noticed yet.
    ///
    /// # Panics
    /// If the folder does not allow it.
    pub fn change(&mut self, change: impl FnOnce(&mut Folder) -> Option<Vec<super::Look>>) {
        assert!(self.world.change(Pair::OWNER, change), "that change is not possible");
    }

    /// Makes a file, and the directories that lead to it.
    pub fn create(&mut self, file: &str, size_bytes: u64) {
        let file = path(file);
        for depth in 1..file.names().len() {
            if let Ok(dir) = crate::path::RelPath::new(file.names()[..depth].to_vec())
                && self.world.hosts[Pair::OWNER].folder.at(&dir).is_none()
            {
                self.change(|folder| folder.make_dir(&dir));
            }
        }
        self.change(|folder| folder.create(&file, size_bytes));
    }

    /// Edits a file in place.
    pub fn edit(&mut self, file: &str, size_bytes: u64) {
        self.change(|folder| folder.edit(&path(file), size_bytes, false));
    }

    /// Removes a file or a directory.
    pub fn remove(&mut self, gone: &str) {
        self.change(|folder| folder.remove(&path(gone)));
    }

    /// Does not offer something any more.
    pub fn unshare(&mut self, gone: &str) {
        self.world.unshare(Pair::OWNER, path(gone));
    }

    /// Renames.
    pub fn rename(&mut self, from: &str, to: &str) {
        self.change(|folder| folder.rename(&path(from), &path(to)));
    }

    /// What the owner has in a file now.
    #[must_use]
    pub fn owner_bytes(&self, file: &str) -> Vec<u8> {
        let folder = &self.world.hosts[Pair::OWNER].folder;
        let inode = folder.inode_at(&path(file));
        inode.and_then(|inode| folder.read(inode, 0, u64::MAX)).unwrap_or_else(|| panic!("{file} is no file"))
    }

    /// Opens a file on the follower.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn open(&mut self, file: &str) -> Handle {
        self.world.open(Pair::FOLLOWER, &path(file)).unwrap_or_else(|errno| panic!("{file}: {errno:?}"))
    }

    /// Begins a read on the follower.
    pub fn read(&mut self, handle: Handle, offset: u64, len: u32) -> ReqId {
        self.world.read(Pair::FOLLOWER, handle, offset, len)
    }

    /// Reads on the follower.
    ///
    /// # Errors
    /// What the application gets.
    pub fn read_now(&mut self, handle: Handle, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
        self.world.read_now(Pair::FOLLOWER, handle, offset, len)
    }

    /// How a read on the follower ended, if it has.
    #[must_use]
    pub fn answer(&self, read: ReqId) -> Option<Result<Vec<u8>, Errno>> {
        self.world.answer(Pair::FOLLOWER, read).cloned()
    }

    /// Cuts the network between the two.
    pub fn cut(&mut self) {
        self.world.cut(Pair::OWNER, Pair::FOLLOWER);
    }

    /// Mends it.
    pub fn heal(&mut self) {
        self.world.heal(Pair::OWNER, Pair::FOLLOWER);
    }

    /// What the follower's driver was told, oldest first, since the last time this was asked.
    pub fn notices(&mut self) -> Vec<Notice> {
        self.world.hosts[Pair::FOLLOWER].kernel.notices.drain(..).collect()
    }
}
