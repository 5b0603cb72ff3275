//! What a peer can do wrong. Each broken rule is one value that a test can compare; none of them panics.

use crate::path::PathError;
use crate::record::RecordError;

/// A rule that a peer broke. The connection it came over is closed, and the log names the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// A path that is not a plain list of names inside the share.
    #[error("it sent a path that is not allowed: {0}")]
    Path(#[from] PathError),
    /// A record with a value outside its range.
    #[error("it sent a record that is not allowed: {0}")]
    Record(#[from] RecordError),
    /// A message that lacks a field which gives it its meaning, or has a value that means nothing.
    #[error("it sent a message without `{0}`")]
    Missing(&'static str),
    /// A number outside its documented range.
    #[error("it sent a value out of range in `{0}`")]
    OutOfRange(&'static str),
    /// More items than one message may hold.
    #[error("it sent more than {0} items in one message")]
    TooMany(usize),
    /// Bytes that do not match the hash sent with them.
    #[error("it sent bytes that do not match their hash")]
    WrongHash,
    /// Bytes that were not the ones asked for.
    #[error("it sent bytes that were not asked for")]
    WrongRange,
    /// More bytes than were asked for.
    #[error("it sent more than was asked for")]
    TooMuch,
    /// Said that an answer was whole when bytes were missing.
    #[error("it sent less than was asked for")]
    TooLittle,
    /// An answer to a question that was never asked.
    #[error("it answered a request that was not made")]
    Unasked,
    /// Tree events before a listing began, or a listing's end without a beginning.
    #[error("it sent tree events out of place")]
    OutOfPlace,
    /// A sequence number that does not follow the one before.
    #[error("it left a gap in its events")]
    Gap,
    /// An entry below something that is not a directory.
    #[error("it put an entry below a file")]
    BelowFile,
    /// An entry below a directory that it never announced.
    #[error("it put an entry into a directory it never announced")]
    NoParent,
    /// The root made into something else, removed or renamed.
    #[error("it changed what the root of the share is")]
    Root,
    /// A directory renamed to a place inside itself, or something renamed over a directory that holds it.
    #[error("it renamed a directory into itself, or over what it is in")]
    IntoItself,
    /// A version without a device, with too many of them or out of their order, with a number out of range, or without the
    /// device that is said to have made it.
    #[error("it sent a version that is not allowed")]
    Version,
    /// It offers to tell changes to an owner who has said that nobody changes the share.
    #[error("it wants to change what it may only read")]
    MayOnlyRead,
    /// More entries than one share may have.
    #[error("it announced more than {0} entries")]
    TooManyEntries(u64),
}
