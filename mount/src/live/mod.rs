//! The mount of one's own folder: what is done on the mount is done in the folder itself, at once.
//!
//! The folder's file system is the only truth here: every answer to the kernel is what the disk says at that moment, and
//! every error number is the disk's own. The engine hears of what was done by looking at the result, in the
//! same order as from the thread that watches the folder, and tells those who follow. It is not asked for anything.
//!
//! What the kernel remembers of the folder is taken back when the folder changes from behind the mount.
//!
//! Where the folder is one of several that are kept the same, files that peers have and it has not yet are shown beside
//! what it has ([`Away`]). They are read from where they are, come when they are to be changed, and are renamed and removed
//! where they are.

mod attributes;
mod away;
mod extended;
mod files;
mod filesystem;
mod inodes;
mod listing;
mod mapped;
mod names;
mod news;
mod renames;
mod stat;
mod volume;
mod waiting;

pub use away::{Away, Read, Then};
pub use filesystem::mount;
pub use volume::Live;
