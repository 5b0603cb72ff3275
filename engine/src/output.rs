//! What the engine wants.

use crate::event::{Position, TreeUpdate};
use crate::fault::PeerFault;
use crate::identity::{ContentIdentity, ContentKey};
use crate::ids::{ContentId, EffectId, Handle, Ino, LinkId, PeerId, ReqId};
use crate::input::{DialError, FetchError, Wanted, WatchCursor};
use crate::path::{Name, RelPath};
use crate::record::{Facts, FileTime, Record};
use crate::xattrs::Xattrs;

/// One consequence of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ends a request.
    Reply(ReqId, Result<Reply, Errno>),
    /// Please do this, and report [`crate::Input::Done`] exactly once.
    Effect(EffectId, Effect),
    /// This effect is not needed any more. Advice: its `Done` still comes.
    Cancel(EffectId),
    /// Something that is worth knowing, and needs no answer.
    Notice(Notice),
}

/// The errors that an application can see. The driver maps each to the number of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Errno {
    /// `ENOENT`: no such entry.
    NoEntry,
    /// `EIO`: the bytes cannot be had.
    Io,
    /// `ESTALE`: the owner no longer has, or no longer shares, these bytes.
    Stale,
    /// `EBADF`: no such handle.
    BadHandle,
    /// `ENOTDIR`: a directory is needed.
    NotDir,
    /// `EISDIR`: a directory cannot be read like a file.
    IsDir,
    /// `EINVAL`: the request makes no sense for this entry.
    Invalid,
    /// `EROFS`: the share is read-only.
    ReadOnly,
    /// `ENOSPC`: the disk of the store is full.
    NoSpace,
    /// `ENOBUFS`: there are as many of these as there can be.
    TooMany,
}

/// A successful answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`crate::Request::Lookup`].
    Entry(Attr),
    /// To [`crate::Request::GetAttr`].
    Attr(Attr),
    /// To [`crate::Request::ReadLink`].
    Target(Box<[u8]>),
    /// To [`crate::Request::Open`].
    Opened(Opened),
    /// To [`crate::Request::Xattrs`].
    Xattrs(Xattrs),
    /// To [`crate::Request::Read`]: these bytes are here, in the store or in memory. An empty range is end of file.
    Read(Span),
    /// To [`crate::Request::Release`].
    Released,
    /// To [`crate::Request::ReadDir`]; an empty list is the end.
    Entries(Vec<DirEntry>),
    /// To [`crate::Request::FetchAll`].
    Fetched(ContentId),
    /// To [`crate::Request::Bring`]: it is in our folder.
    Brought,
    /// To [`crate::Request::Pin`].
    Pinned,
    /// To [`crate::Request::Unpin`].
    Unpinned,
    /// To [`crate::Request::Evict`].
    Evicted {
        /// Files of which nothing is stored any more.
        files: u64,
        /// Files that stay, because they are open, pinned or on their way.
        kept_files: u64,
        /// What that freed, in bytes.
        freed_bytes: u64,
    },
    /// To [`crate::Request::PeerOpen`]: read it there, if the file still is what `facts` say.
    PeerOpened(ServedFile),
    /// To [`crate::Request::PeerOpen`]: others have these bytes, and our folder has not, yet.
    NotHereYet,
    /// To [`crate::Request::PeerWatch`]: at most [`crate::share::WATCH_BATCH`] updates, none if there is no news.
    Watched {
        /// What to tell the peer, in this order.
        updates: Vec<TreeUpdate>,
        /// What to ask with next.
        cursor: WatchCursor,
    },
}

/// Where the bytes of an answered read are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where to take the bytes from.
    pub source: Source,
    /// The first byte, counted from the start of the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// In the folder itself, opened by the driver when it got [`Reply::Opened`].
    Local(Handle),
    /// In the store or in memory, as content.
    Content(ContentId),
    /// There are none: the file is empty, or the read began at its end.
    Nothing,
}

/// What an open file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its handle, never used before.
    pub handle: Handle,
    /// Where to open it, if its bytes are in our own folder.
    pub local: Option<RelPath>,
    /// The bytes that it has for as long as it is open, all of them in the store, if the driver can read it by itself:
    /// it need not ask, but may. Until the last release, every open of this entry says the same.
    pub whole: Option<ContentId>,
}

/// A file that a peer may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedFile {
    /// Where it is.
    pub path: RelPath,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was last modified.
    pub modified: FileTime,
    /// What else the file system must say of it.
    pub facts: Facts,
}

/// What `stat` shows of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: AttrKind,
    /// Bytes of a file, or of a symlink's target; zero for a directory.
    pub size_bytes: u64,
    /// Permission bits and set-uid, set-gid and sticky.
    pub mode: u16,
    /// When it last changed.
    pub modified: FileTime,
    /// Names that it has; a directory has two and one more for each directory in it.
    pub links: u32,
}

/// What an entry is, without what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttrKind {
    /// An ordinary file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
}

/// One entry of a directory listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// What to pass as `after` to go on behind this entry.
    pub cookie: u64,
    /// Its name; `.` and `..` are not names, so this is bytes.
    pub name: DirEntryName,
    /// What it is.
    pub attr: Attr,
}

/// The name of an entry in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirEntryName {
    /// The directory itself.
    Dot,
    /// Its parent.
    DotDot,
    /// An entry in it.
    Name(Name),
}

impl DirEntryName {
    /// The bytes that a listing shows.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            DirEntryName::Dot => b".",
            DirEntryName::DotDot => b"..",
            DirEntryName::Name(name) => name.as_bytes(),
        }
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make a connection to a peer and greet it. Ends with [`crate::Done::Dialed`]; once that was `Ok`, the end of
    /// the connection is told once, by [`crate::PeerEvent::LinkDown`].
    Dial {
        /// Who.
        peer: PeerId,
        /// The name of this connection.
        link: LinkId,
    },
    /// Follow the peer's tree from a position on. What comes is told by [`crate::PeerEvent::Tree`].
    Watch {
        /// Who.
        peer: PeerId,
        /// Over which connection.
        link: LinkId,
        /// From where on.
        position: Position,
    },
    /// Bring frames of one chunk. Each is told by [`crate::Input::Arrived`] as it comes.
    Fetch {
        /// From whom.
        peer: PeerId,
        /// Over which connection.
        link: LinkId,
        /// Of which file.
        wanted: Wanted,
        /// Which chunk.
        chunk: u64,
        /// Which neighbouring frames of it.
        frames: core::ops::Range<u32>,
        /// Somebody waits for it: it goes before what nobody waits for yet.
        urgent: bool,
    },
    /// Write a chunk whose frames are all in memory into the store, and then let go of the memory. If the store
    /// refuses it, the frames stay in memory until the next attempt, or until they are dropped.
    Store {
        /// Of which content.
        content: ContentId,
        /// How many bytes the whole content has.
        size_bytes: u64,
        /// Which chunk.
        chunk: u64,
    },
    /// Open what the store holds of a content from an earlier life, and of another version of the same file.
    Resume {
        /// Which content it is from now on.
        content: ContentId,
        /// Which bytes.
        identity: ContentIdentity,
        /// Where the owner has them.
        path: RelPath,
        /// Whether the store holds any of these bytes.
        own: bool,
        /// What it holds of another version.
        base: Option<ContentKey>,
    },
    /// Read a chunk that was opened by [`Effect::Resume`] and compare it with the hash that was written down.
    Verify {
        /// Of which content.
        content: ContentId,
        /// Which chunk.
        chunk: u64,
    },
    /// Ask the owner for the hashes of chunks, compare them with what the store or our folder has of the other version, and
    /// store those that are the same as chunks of this one.
    Compare {
        /// Whom to ask.
        peer: PeerId,
        /// Over which connection.
        link: LinkId,
        /// Of which file.
        wanted: Wanted,
        /// Which chunks, at most 16.
        chunks: core::ops::Range<u64>,
        /// The other version, if it is a file of our own folder.
        in_folder: Option<ServedFile>,
    },
    /// Do these operations in our own folder, in this order, and report each. There is never more than one batch. An
    /// operation that finds something else than it expects does nothing; those behind it are done all the same.
    Apply {
        /// At most 256.
        ops: Vec<Apply>,
    },
    /// Write down what is stored of these contents, so that it is known after whatever happens.
    Save {
        /// Which; one that is gone meanwhile is passed over.
        contents: Vec<ContentId>,
    },
    /// The file has other bytes now. What the store has of those before is kept for [`Effect::Compare`]; the content before
    /// is gone as with [`Effect::Discard`]. Needs no `Done`.
    Rebase {
        /// The bytes as they are now.
        content: ContentId,
        /// Which bytes that are.
        identity: ContentIdentity,
        /// Where the owner has them.
        path: RelPath,
        /// The bytes before.
        from: ContentId,
        /// Of those before nothing is stored; it is the version before them that is kept.
        older: bool,
    },
    /// What the store has of another version of this content is not needed any more. Needs no `Done`.
    DropBase {
        /// Which.
        content: ContentId,
    },
    /// The owner has a content elsewhere now: whoever looks into the store is to find it so. Needs no `Done`.
    Moved {
        /// Which content.
        content: ContentId,
        /// Where it is.
        path: RelPath,
    },
    /// Remove what the store holds from an earlier life under this key. Needs no `Done`.
    Evict {
        /// Which bytes.
        key: ContentKey,
    },
    /// Let go of the frames of a chunk that are in memory: it will not be completed now.
    /// Needs no `Done`; it is an effect so that its order among the others is kept.
    DropFrames {
        /// Of which content.
        content: ContentId,
        /// Which chunk.
        chunk: u64,
    },
    /// Nothing more of a content is asked for now: what was opened towards the peer for it can be closed. A later fetch
    /// opens it again. Needs no `Done`.
    CloseStreams {
        /// Of which content.
        content: ContentId,
    },
    /// Remove a content from the store and from memory; nobody will ask for it again. Needs no `Done`.
    Discard {
        /// Which.
        content: ContentId,
    },
    /// Close a connection that was dialled. Needs no `Done`; the link is down already as far as the engine goes.
    HangUp {
        /// Who.
        peer: PeerId,
        /// Which connection.
        link: LinkId,
    },
    /// Open a stream for a content at once, if none is open: by that the owner keeps its bytes readable, whatever
    /// becomes of the file's name, also before anything of it is asked for. [`Effect::CloseStreams`] ends it. Needs no
    /// `Done`.
    OpenStreams {
        /// To whom.
        peer: PeerId,
        /// Over which connection.
        link: LinkId,
        /// Of which file.
        wanted: Wanted,
    },
}

impl Effect {
    /// Whether a [`crate::Done`] must come for it.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        match self {
            Effect::Dial { .. }
            | Effect::Watch { .. }
            | Effect::Fetch { .. }
            | Effect::Store { .. }
            | Effect::Resume { .. }
            | Effect::Verify { .. }
            | Effect::Compare { .. }
            | Effect::Apply { .. }
            | Effect::Save { .. } => true,
            Effect::DropFrames { .. }
            | Effect::Rebase { .. }
            | Effect::DropBase { .. }
            | Effect::Moved { .. }
            | Effect::Evict { .. }
            | Effect::CloseStreams { .. }
            | Effect::Discard { .. }
            | Effect::HangUp { .. }
            | Effect::OpenStreams { .. } => false,
        }
    }
}

/// Something to do in our own folder. What is expected at a path is said by the facts that were last seen of it: the
/// operation is done only if they are the same, for a directory only if its inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Apply {
    /// Make a directory where there is nothing.
    MakeDir {
        /// Where.
        path: RelPath,
        /// Permission bits.
        mode: u16,
        /// When it was last modified.
        modified: FileTime,
        /// Its extended attributes.
        xattrs: Xattrs,
    },
    /// Make a symlink.
    MakeSymlink {
        /// Where.
        path: RelPath,
        /// Its text.
        target: Box<[u8]>,
        /// When it was last modified.
        modified: FileTime,
        /// What is there now and goes; nothing if `None`.
        expect: Option<Facts>,
    },
    /// Remove a file, a symlink, or a directory that is empty.
    Remove {
        /// Where.
        path: RelPath,
        /// What is there.
        expect: Facts,
    },
    /// Give a file another name.
    Rename {
        /// Where it is.
        from: RelPath,
        /// Where it will be.
        to: RelPath,
        /// Its permission bits then.
        mode: u16,
        /// When it was last modified, then.
        modified: FileTime,
        /// Its extended attributes, then.
        xattrs: Xattrs,
        /// What is there.
        expect: Facts,
        /// What is where it will be, and goes; nothing if `None`.
        over: Option<Facts>,
    },
    /// Give a file or a symlink that lost its name in a conflict another name, where nothing is. Its mode and time stay.
    KeepCopy {
        /// Where it is.
        path: RelPath,
        /// Where it will be.
        to: RelPath,
        /// What is there.
        expect: Facts,
        /// Nothing is done if it holds the same bytes as this content, all of which is stored: that is
        /// [`ApplyError::Same`].
        unless: Option<ContentId>,
    },
    /// Set permission bits, time and extended attributes of what is there.
    SetAttributes {
        /// Where.
        path: RelPath,
        /// Permission bits.
        mode: u16,
        /// When it was last modified.
        modified: FileTime,
        /// All its extended attributes that travel; they stay as they are if `None`.
        xattrs: Option<Xattrs>,
        /// What is there; any directory if `None`.
        expect: Option<Facts>,
    },
    /// Put a content, all of which is stored, there as a file. It stays in the store until it is discarded.
    Publish {
        /// Where.
        path: RelPath,
        /// Which content; `None` for an empty file.
        content: Option<ContentId>,
        /// Permission bits.
        mode: u16,
        /// When it was last modified.
        modified: FileTime,
        /// Its extended attributes.
        xattrs: Xattrs,
        /// What is there now and goes; nothing if `None`.
        expect: Option<Facts>,
    },
}

impl Apply {
    /// Where its result is, or where nothing is any more.
    #[must_use]
    pub fn target(&self) -> &RelPath {
        match self {
            Apply::MakeDir { path, .. }
            | Apply::MakeSymlink { path, .. }
            | Apply::Remove { path, .. }
            | Apply::Rename { to: path, .. }
            | Apply::KeepCopy { to: path, .. }
            | Apply::SetAttributes { path, .. }
            | Apply::Publish { path, .. } => path,
        }
    }

    /// The one or two paths that it is about.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        let from = match self {
            Apply::Rename { from, .. } | Apply::KeepCopy { path: from, .. } => Some(from),
            Apply::MakeDir { .. }
            | Apply::MakeSymlink { .. }
            | Apply::Remove { .. }
            | Apply::SetAttributes { .. }
            | Apply::Publish { .. } => None,
        };
        from.into_iter().chain([self.target()])
    }
}

/// Why an operation in our folder was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyError {
    /// There is something else than was expected, or its directory is gone.
    Changed,
    /// Of a conflict copy: it holds the same bytes as what took its name.
    Same,
    /// The disk is full.
    NoSpace,
    /// The disk failed, or it is not allowed.
    Io,
}

/// Something worth knowing: for the kernel's caches, a log, a progress bar or a test's oracle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The kernel must drop what it caches of an entry: attributes, and the bytes too if `data`.
    InvalidateInode {
        /// Which.
        ino: Ino,
        /// Whether its bytes (or, for a directory, its listing) changed.
        data: bool,
    },
    /// The kernel must drop what it knows of a name, also that there is nothing under it.
    InvalidateEntry {
        /// In which directory.
        parent: Ino,
        /// Which name.
        name: Name,
    },
    /// A connection was made.
    LinkUp {
        /// To whom.
        peer: PeerId,
    },
    /// A connection was lost.
    LinkDown {
        /// To whom.
        peer: PeerId,
    },
    /// An attempt to connect failed; the next one is at `retry_at`.
    DialFailed {
        /// To whom.
        peer: PeerId,
        /// Why.
        error: DialError,
    },
    /// A peer's listing is whole, or the peer has told all that happened since its tree was remembered: the tree shows all
    /// of it.
    Listed {
        /// Whose.
        peer: PeerId,
    },
    /// A peer broke a rule and was hung up on.
    PeerFault {
        /// Who.
        peer: PeerId,
        /// Which rule.
        fault: PeerFault,
    },
    /// A chunk could not be had after all retries, or not at all. Whoever waited for it got an error.
    FetchFailed {
        /// From whom.
        peer: PeerId,
        /// Which file.
        path: RelPath,
        /// Which chunk.
        chunk: u64,
        /// What went wrong the last time.
        error: FetchError,
    },
    /// The store refused a chunk; downloads go on by themselves when it takes one again.
    StoreFailed {
        /// Which content.
        content: ContentId,
        /// Why.
        error: crate::input::StoreError,
    },
    /// What is stored could not be written down; it is tried again.
    SaveFailed {
        /// Why.
        error: crate::input::StoreError,
    },
    /// The paths that stay are others now: [`crate::View::pins`]. Whoever drives writes them down.
    PinsChanged,
    /// The driver is asked to look at a path of our own folder, and to tell what is there, also if that is nothing. A directory
    /// that the engine has not heard of is read as a whole.
    LookAt {
        /// Where.
        path: RelPath,
    },
    /// What a peer changed could not be done in our own folder; it is tried again.
    ApplyFailed {
        /// Where.
        path: RelPath,
        /// Why.
        error: ApplyError,
    },
    /// Something in our own folder cannot be shared as it is.
    NotShared {
        /// Where.
        path: RelPath,
        /// Which limit it breaks.
        reason: crate::record::RecordError,
    },
    /// A path in our own folder changed, and those who follow were told (for logs and tests).
    Announced {
        /// Where.
        path: RelPath,
        /// What it is now; `None` if it is gone.
        record: Option<Record>,
    },
}
