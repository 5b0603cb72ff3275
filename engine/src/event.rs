//! How a tree travels: a listing of what is there, then events, each with its number and the version that it makes.

use crate::path::RelPath;
use crate::record::Record;
use crate::version::{Revision, Version};

/// Where a follower stands in an owner's events.
///
/// An epoch is one life of the owner's process. A follower from another epoch gets the whole listing again: its
/// sequence numbers mean nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The owner's epoch; zero for a follower that has seen nothing.
    pub epoch: u64,
    /// The number of the last event that was applied.
    pub seq: u64,
}

/// One change of an owner's tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// A path has this record from now on; it may be new.
    Put {
        /// Where.
        path: RelPath,
        /// What is there now.
        record: Record,
        /// Which state of the path that is.
        revision: Revision,
        /// Whether another object stands there now (a file was renamed over this name), rather than the same one
        /// edited: who has the old one open keeps the old one.
        replaced: bool,
    },
    /// A path is gone. What it held was told to be gone before it.
    Remove {
        /// Where.
        path: RelPath,
        /// Which state of the path that is: what was there is older.
        revision: Revision,
    },
    /// A path, with everything below it, has another name. What stood under the new name is gone.
    ///
    /// It is one change of every path that it is about. Each state that was moved comes after the one that it had, the one
    /// that was at its new path, and this change; and so does the removal from its old path, after the one that it had.
    Rename {
        /// The old name.
        from: RelPath,
        /// The new name.
        to: RelPath,
        /// What is there now: a follower that never heard of the old name takes a file or a symlink from this.
        record: Record,
        /// Which state of the new path that is.
        revision: Revision,
        /// The version of the old path, which is gone.
        left: Version,
        /// A digest of all that the change is about: who knows something else of it cannot take it over as a whole.
        digest: u64,
    },
}

/// One message about an owner's tree. A listing is [`TreeUpdate::Begin`], what was removed, entries with every
/// directory before what it holds, [`TreeUpdate::End`]; events follow. A listing may begin anew before it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeUpdate {
    /// A listing begins. What it does not name is gone when it ends.
    Begin {
        /// Where the follower stands when the listing ends. Events since then may be in the listing already; they
        /// come again as events.
        position: Position,
    },
    /// One path of the listing.
    Entry {
        /// Where.
        path: RelPath,
        /// What is there.
        record: Record,
        /// Which state of the path that is.
        revision: Revision,
    },
    /// A path of the listing where something was, and is not any more. These come first, each before what held it.
    Removed {
        /// Where.
        path: RelPath,
        /// Which state of the path that is.
        revision: Revision,
    },
    /// The listing is whole.
    End {
        /// The last event that happened while the listing was made. Those up to it are told again, and may name
        /// what a later one of them removed.
        settled: u64,
    },
    /// One event, numbered one more than the last.
    Event {
        /// Its number.
        seq: u64,
        /// What it says.
        change: Change,
    },
    /// The events up to this one are nothing to whoever is told this: they came from there.
    Skip {
        /// The number of the last one, at least one more than the last.
        seq: u64,
    },
}

/// What the driver sees in its own folder and tells the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// This is there. Files carry [`crate::record::Facts`] by which edits are noticed.
    Found {
        /// Where.
        path: RelPath,
        /// What kind of thing, with everything that peers may know. A file's stamp is the engine's to choose.
        seen: Seen,
    },
    /// Nothing is there (any more).
    Missing {
        /// Where.
        path: RelPath,
    },
    /// The file system said that this was renamed. What is there now is told by a `Found` right after it.
    Moved {
        /// The old name.
        from: RelPath,
        /// The new name.
        to: RelPath,
    },
    /// Whoever did what is told next of this path saw what the tree has there, also where that is not in the folder: it
    /// comes after that, and is not something that was made beside it.
    Sighted {
        /// Where.
        path: RelPath,
    },
    /// A file that is not in the folder yet was given other attributes.
    Amended {
        /// Where.
        path: RelPath,
        /// Permission bits and set-uid, set-gid and sticky, 0 to 0o7777, if they change.
        mode: Option<u16>,
        /// When it was last modified, if that changes.
        modified: Option<crate::record::FileTime>,
        /// All its extended attributes that travel, if any of them changes.
        xattrs: Option<crate::xattrs::Xattrs>,
    },
    /// This could not be looked at: what was known of it, and of all below it, is taken to be so still.
    Unknown {
        /// Where.
        path: RelPath,
    },
    /// From here on until [`Observation::ScanEnd`], everything below `path` is being told by `Found`.
    ScanBegin {
        /// The directory that is read.
        path: RelPath,
    },
    /// What lies below `path` and was not told since [`Observation::ScanBegin`] is gone.
    ScanEnd {
        /// The same directory.
        path: RelPath,
    },
}

/// What the driver saw at one path of its own folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub kind: SeenKind,
    /// Permission bits and set-uid, set-gid and sticky: 0 to 0o7777.
    pub mode: u16,
    /// When it last changed.
    pub modified: crate::record::FileTime,
    /// Its extended attributes that travel; `None` if they could not be read, or there are none on that file system: they are
    /// taken to be what they were.
    pub xattrs: Option<crate::xattrs::Xattrs>,
    /// What else the file system says of it.
    pub facts: crate::record::Facts,
}

/// What kind of thing the driver saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenKind {
    /// An ordinary file of this many bytes.
    File {
        /// Its size.
        size_bytes: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link with this target.
    Symlink {
        /// Its text.
        target: Box<[u8]>,
    },
}
