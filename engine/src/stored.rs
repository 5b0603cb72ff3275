//! What a store tells of what it holds from an earlier life.

use crate::bitmap::ChunkBitmap;
use crate::identity::ContentKey;
use crate::path::RelPath;

/// Something that a store holds from an earlier life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which bytes.
    pub key: ContentKey,
    /// Where their owner had them when that was last written down: to find the version before this one, and for people.
    pub path: RelPath,
    /// How many bytes of it are stored, whole chunks counted.
    pub stored_bytes: u64,
    /// The higher, the later it was last used. Only the order counts.
    pub last_used: u64,
}

/// What a store has of one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The chunks.
    pub chunks: ChunkBitmap,
    /// How far they can be believed.
    pub trust: Trust,
}

/// How far stored chunks can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// They were verified, and the last life of the store ended well: they are present.
    Verified,
    /// The last life of the store was cut off. A chunk is present once its bytes were read and have the hash that was
    /// written down ([`crate::Effect::Verify`]).
    Hashed,
    /// No hash was written down: a chunk is present once its bytes were compared with what the owner has.
    Claimed,
}
