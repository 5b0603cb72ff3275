//! What is known of one path: kind, size, mode, times, extended attributes, and which bytes it holds.

use crate::chunk::MAX_FILE_BYTES;
use crate::path::PATH_MAX_BYTES;
use crate::version::DeviceTag;
use crate::xattrs::{XATTR_NAME_MAX_BYTES, XATTR_VALUE_MAX_BYTES, XATTRS_MAX_BYTES, Xattrs};
use xxhash_rust::xxh3::xxh3_64;

/// A file time: seconds since 1970 (negative before), and nanoseconds within the second.
///
/// It takes no more than its twelve bytes: in the sixteen that it would take otherwise every [`Record`] has room for its
/// [`Xattrs`]. So its fields can be copied, and not borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(Rust, packed(4))]
pub struct FileTime {
    /// Whole seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// Which bytes a file holds, as its owner names them: two stamps that differ mean that the bytes may differ.
///
/// The owner derives it from what the file system says of the file ([`Facts`]), so that it survives a restart of
/// the owner. To everybody else it is opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

/// What the owner's file system says of a file, besides its record; enough to notice that its bytes may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Facts {
    /// The owner's inode number. Used to tell "edited" from "replaced", never as an identity towards peers.
    pub inode: u64,
    /// The last change of the inode: a program can set back a file's mtime, but not this.
    pub changed: FileTime,
}

impl Facts {
    /// The stamp that `device` gives to a file of `size_bytes`, last modified at `modified`, with these facts. Stamps of two
    /// devices do not meet.
    #[must_use]
    pub fn stamp(&self, device: DeviceTag, size_bytes: u64, modified: FileTime) -> Stamp {
        let mut bytes = [0; 48];
        bytes[0..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.changed.seconds.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.changed.nanos.to_le_bytes());
        bytes[20..28].copy_from_slice(&size_bytes.to_le_bytes());
        bytes[28..36].copy_from_slice(&modified.seconds.to_le_bytes());
        bytes[36..40].copy_from_slice(&modified.nanos.to_le_bytes());
        bytes[40..48].copy_from_slice(&device.0.to_le_bytes());
        Stamp(xxh3_64(&bytes))
    }
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An ordinary file.
    File {
        /// Its size in bytes, at most [`MAX_FILE_BYTES`].
        size_bytes: u64,
        /// Which bytes they are.
        stamp: Stamp,
    },
    /// A directory.
    Dir,
    /// A symbolic link; its target is text for whoever follows it, and is never followed here.
    Symlink {
        /// 1 to [`PATH_MAX_BYTES`] bytes, without NUL.
        target: Box<[u8]>,
    },
}

/// What is known of one path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// Permission bits and set-uid, set-gid and sticky: 0 to 0o7777.
    pub mode: u16,
    /// When its bytes (or a directory's entries) last changed.
    pub modified: FileTime,
    /// Its extended attributes, as far as they travel; a symlink has none.
    pub xattrs: Xattrs,
}

/// Which rule a record breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A size above [`MAX_FILE_BYTES`].
    #[error("a file is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// Mode bits outside 0o7777.
    #[error("a mode has bits outside 0o7777")]
    Mode,
    /// A billion nanoseconds or more.
    #[error("a time has a billion nanoseconds or more")]
    Nanos,
    /// A symlink target that is empty, too long or holds a NUL byte.
    #[error("a symlink's target is empty, longer than {PATH_MAX_BYTES} bytes, or holds a NUL byte")]
    Target,
    /// An extended attribute that is not `user.` and something, is too long or holds a NUL byte.
    #[error(
        "the name of an extended attribute is not user.*, longer than {XATTR_NAME_MAX_BYTES} bytes, or holds a NUL byte"
    )]
    XattrName,
    /// An extended attribute that is too long.
    #[error("the value of an extended attribute is longer than {XATTR_VALUE_MAX_BYTES} bytes")]
    XattrValue,
    /// More extended attributes than there is room for, or any of a symlink.
    #[error("the extended attributes of a file take more than {XATTRS_MAX_BYTES} bytes, or a symlink has any")]
    Xattrs,
}

impl Record {
    /// Checks the limits of every field.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), RecordError> {
        match &self.kind {
            Kind::File { size_bytes, .. } if *size_bytes > MAX_FILE_BYTES => return Err(RecordError::TooLarge),
            Kind::Symlink { target } if target.is_empty() || target.len() > PATH_MAX_BYTES || target.contains(&0) => {
                return Err(RecordError::Target);
            }
            Kind::Symlink { .. } if !self.xattrs.is_empty() => return Err(RecordError::Xattrs),
            Kind::File { .. } | Kind::Dir | Kind::Symlink { .. } => {}
        }
        if self.mode > 0o7777 {
            return Err(RecordError::Mode);
        }
        if self.modified.nanos >= 1_000_000_000 {
            return Err(RecordError::Nanos);
        }
        self.xattrs.check()
    }

    /// The size that `stat` shows: a file's bytes, a symlink's target length, zero for a directory.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        match &self.kind {
            Kind::File { size_bytes, .. } => *size_bytes,
            Kind::Dir => 0,
            Kind::Symlink { target } => target.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size_bytes: u64) -> Record {
        let (modified, xattrs) = (FileTime::default(), Xattrs::default());
        Record { kind: Kind::File { size_bytes, stamp: Stamp(1) }, mode: 0o644, modified, xattrs }
    }

    #[test]
    fn limits_are_checked() {
        assert_eq!(file(MAX_FILE_BYTES).check(), Ok(()));
        assert_eq!(file(MAX_FILE_BYTES + 1).check(), Err(RecordError::TooLarge));
        assert_eq!(file(u64::MAX).check(), Err(RecordError::TooLarge));
        assert_eq!(Record { mode: 0o10000, ..file(0) }.check(), Err(RecordError::Mode));
        let late = FileTime { seconds: 0, nanos: 1_000_000_000 };
        assert_eq!(Record { modified: late, ..file(0) }.check(), Err(RecordError::Nanos));
        for target in [&b""[..], b"a\0b", &[b'x'; PATH_MAX_BYTES + 1]] {
            let link = Record { kind: Kind::Symlink { target: target.into() }, ..file(0) };
            assert_eq!(link.check(), Err(RecordError::Target));
        }
        let xattrs = Xattrs::default().with(b"user.a", b"");
        let link = Record { kind: Kind::Symlink { target: b"x"[..].into() }, xattrs, ..file(0) };
        assert_eq!(link.check(), Err(RecordError::Xattrs));
    }

    #[test]
    fn extended_attributes_have_room_where_there_was_none_used() {
        assert_eq!(size_of::<Record>(), 48, "every file of a share has one");
    }

    #[test]
    fn a_stamp_changes_with_every_fact() {
        let ours = DeviceTag(3);
        let time = |nanos| FileTime { seconds: 5, nanos };
        let facts = Facts { inode: 7, changed: time(1) };
        let base = facts.stamp(ours, 10, time(2));
        assert_eq!(base, facts.stamp(ours, 10, time(2)));
        assert_ne!(base, facts.stamp(ours, 11, time(2)));
        assert_ne!(base, facts.stamp(ours, 10, time(3)), "an edit that keeps the size");
        assert_ne!(
            base,
            Facts { inode: 8, ..facts }.stamp(ours, 10, time(2)),
            "another file of the same size and time"
        );
        assert_ne!(
            base,
            Facts { changed: time(9), ..facts }.stamp(ours, 10, time(2)),
            "an edit whose mtime was set back"
        );
        assert_ne!(base, facts.stamp(DeviceTag(4), 10, time(2)), "a file of another device");
    }
}
