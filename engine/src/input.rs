//! What the engine is told.

use crate::bitmap::ChunkBitmap;
use crate::chunk::FrameSet;
use crate::event::{Observation, Position, TreeUpdate};
use crate::fault::PeerFault;
use crate::ids::{ContentId, EffectId, Handle, Ino, LinkId, PeerId, ReqId};
use crate::output::ApplyError;
use crate::path::{Name, RelPath};
use crate::record::{Facts, FileTime, Stamp};
use crate::remembered::Remembered;
use crate::stored::{Held, Resumed};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Somebody asks; exactly one [`crate::Output::Reply`] answers. The number was never used before.
    Request(ReqId, Request),
    /// The kernel forgets `lookups` of the times that a reply told it about `ino`. Nothing answers this.
    Forget {
        /// Which entry.
        ino: Ino,
        /// How many of its lookups.
        lookups: u64,
    },
    /// Frames of a fetch have arrived, were verified, and are held in memory by the driver until they are stored.
    Arrived(EffectId, FrameSet),
    /// An effect has ended; exactly once each, also after it was cancelled.
    Done(EffectId, Done),
    /// The network told us something.
    Peer(PeerId, PeerEvent),
    /// What the store holds from an earlier life, and which paths were pinned. Told once, before anybody is followed.
    Held {
        /// What it holds.
        held: Vec<Held>,
        /// Paths that stay.
        pins: Vec<RelPath>,
    },
    /// The driver saw something in its own folder.
    Observed(Observation),
    /// A person wants something.
    Command(Command),
    /// Time has passed. A tick too many changes nothing.
    Tick,
    /// What was known in an earlier life of a share that is kept in a folder. Told once, before anything is observed and before
    /// anybody is followed.
    Recalled(crate::memory::Memory),
    /// What was known of a peer's tree in an earlier life. Told once, before the peer is followed.
    Remembered {
        /// Whose tree.
        peer: PeerId,
        /// What was known.
        remembered: Remembered,
    },
}

/// What is asked, by the kernel, by the program itself, or by a peer that reads our folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A name in a directory. A hit counts as one lookup, until [`Input::Forget`].
    Lookup {
        /// The directory.
        parent: Ino,
        /// The name in it.
        name: Name,
    },
    /// What is known of an entry.
    GetAttr {
        /// Which.
        ino: Ino,
    },
    /// A symlink's target.
    ReadLink {
        /// Which.
        ino: Ino,
    },
    /// The extended attributes of an entry.
    Xattrs {
        /// Which.
        ino: Ino,
    },
    /// Opens a file for reading.
    Open {
        /// Which.
        ino: Ino,
        /// Whether anything but reading is wanted.
        write: bool,
        /// A file of a peer of at least so many bytes, all of which are here, the driver can read by itself, past the
        /// engine: the answer says which bytes these are. `None` if it cannot.
        whole_from: Option<u64>,
    },
    /// Bytes of an open file. The answer has all of them, except at the end of the file.
    Read {
        /// Which open.
        handle: Handle,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        len: u32,
    },
    /// Ends an open; exactly once each.
    Release {
        /// Which open.
        handle: Handle,
    },
    /// Entries of a directory, in an order that stays the same while the directory changes.
    ReadDir {
        /// Which directory.
        ino: Ino,
        /// The cookie of the last entry that was taken; zero to begin.
        after: u64,
        /// The size of the answer as the kernel counts it, in bytes.
        budget_bytes: u32,
        /// With attributes; each entry but `.` and `..` then counts as one lookup.
        plus: bool,
    },
    /// All bytes of a file, to be kept. Answered when the last one is stored; the handle keeps the content alive.
    FetchAll {
        /// Which open.
        handle: Handle,
    },
    /// A file that peers have is to be in our folder, whole. Answered when it is, as long as that gets on.
    Bring {
        /// Where.
        path: RelPath,
    },
    /// A person wants a file, or all that a directory holds, to be fetched and to stay.
    Pin {
        /// Where.
        path: RelPath,
    },
    /// A person takes that back.
    Unpin {
        /// Where; exactly what was pinned.
        path: RelPath,
    },
    /// A person wants what is stored of a file, or of all that a directory holds, to go now.
    Evict {
        /// Where.
        path: RelPath,
    },
    /// A peer wants to read a file of ours at a path, in the version that it names.
    PeerOpen {
        /// Who.
        peer: PeerId,
        /// Where.
        path: RelPath,
        /// Which bytes.
        stamp: Stamp,
    },
    /// A peer wants to know what happens in our tree. Waits, within its deadline, until there is something to tell.
    PeerWatch {
        /// Who.
        peer: PeerId,
        /// Where the peer stands.
        cursor: WatchCursor,
    },
}

/// Where a peer that follows our tree stands, listing included. Opaque to drivers: hand back the last one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchCursor {
    /// What the peer has applied or will have applied when the listing has ended.
    pub(crate) position: Position,
    /// What was told last, while a listing is under way; the root before the first.
    pub(crate) listing: Option<ToldUpTo>,
    /// How far the listing has got with what was removed, which comes before that; everything if there is none.
    pub(crate) removed: Option<Option<RelPath>>,
    /// Whether the peer was told that this is all, once. After that it is told only what happens.
    pub(crate) is_told_all: bool,
    /// Whether the peer itself said that it stands there.
    pub(crate) is_said: bool,
    /// Whether whoever asks only looks on, although the same device may have the share in a folder of its own as well.
    pub(crate) looks_on: bool,
}

/// How far a listing has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToldUpTo {
    /// The last path told.
    pub(crate) path: RelPath,
    /// Whether it was told to be a directory. What lies below it by now, although it was not, comes by events.
    pub(crate) is_dir: bool,
}

impl WatchCursor {
    /// For a peer that says that it stands at `position`.
    #[must_use]
    pub fn at(position: Position) -> WatchCursor {
        WatchCursor { position, is_said: true, ..WatchCursor::default() }
    }

    /// The same for one that only looks on: it is told also what its device has changed in a folder of its own, and in turn.
    #[must_use]
    pub fn looking_on(self) -> WatchCursor {
        WatchCursor { looks_on: true, ..self }
    }
}

/// How an effect ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Of [`crate::Effect::Dial`].
    Dialed(Result<(), DialError>),
    /// Of [`crate::Effect::Watch`]: it ends only when something ends it.
    WatchEnded,
    /// Of [`crate::Effect::Fetch`]. `Ok` after the last frame was told by [`Input::Arrived`].
    Fetched(Result<(), FetchError>),
    /// Of [`crate::Effect::Store`].
    Stored(Result<(), StoreError>),
    /// Of [`crate::Effect::Resume`]: what could be opened. What could not be used is gone, and the driver has said why.
    Resumed {
        /// What there is of these bytes.
        own: Option<Resumed>,
        /// Which chunks there are of the other version, by where they are in that.
        base: Option<ChunkBitmap>,
    },
    /// Of [`crate::Effect::Verify`]: whether the chunk has its hash. One that cannot be read has not.
    Verified(bool),
    /// Of [`crate::Effect::Compare`]: the chunks that are the same, in order. They are stored.
    Compared(Result<Vec<u64>, FetchError>),
    /// Of [`crate::Effect::Apply`]: for each operation, in their order, what the file system says of what is there now.
    /// What it says of what was removed does not matter.
    Applied(Vec<Result<Facts, ApplyError>>),
    /// Of [`crate::Effect::Save`]. Not `Ok` means that any of them may be as it was before.
    Saved(Result<(), StoreError>),
}

/// Why a peer could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialError {
    /// Nobody answers, or somebody else does. Worth trying again.
    Unreachable,
    /// The peer does not let us in: the ticket is revoked or for another share.
    Denied,
    /// The peer speaks no version that we speak.
    Incompatible,
}

/// Why a fetch brought less than it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchError {
    /// The connection is gone, and everything on it.
    LinkLost,
    /// This stream is gone; the connection may be well.
    StreamLost,
    /// It was cancelled by [`crate::Output::Cancel`].
    Cancelled,
    /// The owner has other bytes under that path now, or is still taking note of a change.
    Stale,
    /// The owner does not share that path any more.
    Gone,
    /// The owner cannot read the file.
    OwnerIo,
    /// Whoever was asked knows these bytes, and has not got them, yet.
    NotYet,
    /// The peer broke a rule: wrong hash, wrong range, too much, too little.
    Fault(PeerFault),
}

/// Why a chunk could not be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// The disk is full.
    NoSpace,
    /// The disk failed.
    Io,
}

/// What the network told us unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// A connection that we dialled is gone.
    LinkDown {
        /// Which one; news of an older one is ignored.
        link: LinkId,
    },
    /// Updates of the peer's tree, in the order in which they were sent.
    Tree {
        /// The connection they came over; those of an older one are ignored.
        link: LinkId,
        /// What happened, oldest first.
        updates: Vec<TreeUpdate>,
    },
    /// The peer sent something that could not even be parsed.
    Fault {
        /// The connection it came over.
        link: LinkId,
        /// The rule that it broke.
        fault: PeerFault,
    },
    /// There is a way to the peer that there was not before: if it is followed and not connected, it is dialled at once.
    Reachable,
}

/// What a person, or the program on behalf of one, wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Follow this peer's tree, and reconnect for ever.
    Follow {
        /// Who.
        peer: PeerId,
    },
    /// Follow this peer no longer, and forget it: it is hung up on, and nobody waits for it any more. What only it is known to
    /// have is asked of the others.
    Unfollow {
        /// Who.
        peer: PeerId,
    },
    /// The network may be back (an interface came up, the machine woke): try every peer that is down at once.
    NetworkChanged,
    /// End everything: waiting requests are answered, effects are cancelled, nothing new begins.
    Shutdown,
    /// Do not offer this path of our own folder any more, nor what is below it: it is announced as removed, and whatever
    /// is seen there is ignored. Who is reading it keeps what it has open. The root cannot be left out.
    Unshare {
        /// Where.
        path: RelPath,
    },
    /// The disk of our own folder has not taken an extended attribute that a peer gave. From here on one that is not there
    /// counts as one that it does not take, not as one that was removed, for as long as the process lives.
    LacksXattrs,
    /// Takes back [`Command::Unshare`] of this very path. What is there is offered again once it is observed.
    Share {
        /// Where.
        path: RelPath,
    },
}

/// Which version of which bytes a fetch is about, for the driver to ask the owner for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Our name for these bytes.
    pub content: ContentId,
    /// Where the owner has them.
    pub path: RelPath,
    /// Who names these bytes, which need not be who is asked for them.
    pub owner: PeerId,
    /// The owner's name for these bytes.
    pub stamp: Stamp,
    /// How many bytes the whole file has.
    pub size_bytes: u64,
    /// When the owner's file was last modified.
    pub modified: FileTime,
}
