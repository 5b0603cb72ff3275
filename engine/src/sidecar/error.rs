//! Why a sidecar is refused: one variant for each rule.

use super::MAGIC;
use crate::bitmap::BitmapError;
use crate::chunk::MAX_FILE_BYTES;
use crate::ids::PeerId;
use crate::path::PathError;
use crate::record::{FileTime, Stamp};

/// Why a sidecar is refused. The texts go on after the name of its file and a colon; they say what is wrong with it,
/// and what to do where people have to do something. Otherwise the download just starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SidecarError {
    /// It does not begin with the magic.
    #[error("this is not a chunk bitmap: it does not begin with {}", MAGIC.escape_ascii())]
    NotASidecar,
    /// A version of the format before the one that is read here.
    #[error("it is in version {found} of the format, older than version {read}, which is read here")]
    OlderFormat {
        /// The version that it is in.
        found: u8,
        /// The version that is read.
        read: u8,
    },
    /// A version of the format after the one that is read here.
    #[error(
        "it is in version {found} of the format, newer than version {read}, which is read here; \
         use a newer Farshore to go on with this download"
    )]
    NewerFormat {
        /// The version that it is in.
        found: u8,
        /// The version that is read.
        read: u8,
    },
    /// Fewer bytes than its counts say.
    #[error("it ends too early: it has {found} of at least {needed} bytes")]
    Truncated {
        /// How many bytes there should be at least.
        needed: u64,
        /// How many there are.
        found: u64,
    },
    /// More bytes than its counts say.
    #[error("it goes on after its end: it has {found} bytes and should have {needed}")]
    TooLong {
        /// How many bytes there should be.
        needed: u64,
        /// How many there are.
        found: u64,
    },
    /// The checksum is not that of the bytes before it.
    #[error("it is damaged: its checksum does not match")]
    Damaged,
    /// Flags are set that have no meaning.
    #[error("it has flags that have no meaning in its version of the format: {0:02x}")]
    Flags(u8),
    /// What stands where the path of the file should be is none, or is that of the share itself.
    #[error("it says nothing of where its owner has the file: {0}")]
    Path(#[from] PathError),
    /// A billion nanoseconds or more.
    #[error("its modification time has {0} nanoseconds, and a second has a billion")]
    Nanos(u32),
    /// A file above [`MAX_FILE_BYTES`].
    #[error("it is of a file of {0} bytes, and files end at {MAX_FILE_BYTES}")]
    FileTooLarge(u64),
    /// There is no bitmap for such a file: it is empty, or the size of a chunk is out of its limits, or there are too
    /// many.
    #[error("there is no such bitmap: {0}")]
    Bitmap(#[from] BitmapError),
    /// The number of chunks is not what the sizes of the file and of a chunk make it.
    #[error("it says that the file has {stated} chunks, and its size makes it {chunks}")]
    ChunkCount {
        /// What it says.
        stated: u64,
        /// What follows from the size.
        chunks: u64,
    },
    /// A bit is set for a chunk that the file does not have.
    #[error("it marks a chunk as present behind the last of {chunks}")]
    BeyondTheEnd {
        /// Chunks of the file.
        chunks: u64,
    },
    /// The number of chunks that are present is not the number of bits that are set.
    #[error("it says that {stated} chunks are present, and marks {present}")]
    PresentCount {
        /// What it says.
        stated: u64,
        /// Bits that are set.
        present: u64,
    },
    /// More or fewer hashes than chunks that are present.
    #[error("there are {hashes} hashes for {present} chunks that are present")]
    HashCount {
        /// Chunks that are present.
        present: u64,
        /// Hashes that were given.
        hashes: u64,
    },
    /// It tells about a file of another device.
    #[error("it is of a file of device {found}, and this one belongs to {expected}")]
    WrongOwner {
        /// Whose file it should be.
        expected: PeerId,
        /// Whose it is.
        found: PeerId,
    },
    /// It tells about a file of another size.
    #[error("it is of a file of {found} bytes, and this one has {expected}")]
    WrongSize {
        /// How many bytes the file has.
        expected: u64,
        /// How many it was of.
        found: u64,
    },
    /// It tells about a version that was modified at another time.
    #[error("it is of a version modified at {}, and this one was at {}", seconds(.found), seconds(.expected))]
    WrongTime {
        /// When the file was modified.
        expected: FileTime,
        /// When the one that it is of was.
        found: FileTime,
    },
    /// It tells about another version, which looks the same in size and time.
    #[error("it is of another version of the same size and time ({:016x}, not {:016x})", .found.0, .expected.0)]
    WrongStamp {
        /// The version that the file is in.
        expected: Stamp,
        /// The version that it is of.
        found: Stamp,
    },
    /// Its chunks have another size than those that are used.
    #[error("it counts in chunks of {found} bytes, and {expected} are used")]
    WrongChunkSize {
        /// What is used, in bytes.
        expected: u64,
        /// What it counts in.
        found: u64,
    },
}

/// Seconds since 1970, as a person can compare them.
fn seconds(time: &FileTime) -> String {
    const NANOS: i128 = 1_000_000_000;
    let nanos = i128::from(time.seconds) * NANOS + i128::from(time.nanos);
    let sign = if nanos < 0 { "-" } else { "" };
    format!("{sign}{}.{:09} s", nanos.abs() / NANOS, nanos.abs() % NANOS)
}
