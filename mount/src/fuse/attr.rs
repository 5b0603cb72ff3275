//! How an entry looks to `stat`, and for how long the kernel may remember it.

use super::options::Owner;
use farshore_engine::chunk::FILESYSTEM_BLOCK_SIZE;
use farshore_engine::record::FileTime;
use farshore_engine::{Attr, AttrKind};
use fuser::{FileAttr, FileType, Generation, INodeNo};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the kernel may remember names, attributes and the absence of names. What changes is invalidated as it
/// changes; this only bounds how long a lost invalidation could matter.
pub(crate) const TTL: Duration = Duration::from_secs(3600);

/// Inode numbers are never reused, so one generation is enough.
pub(crate) const GENERATION: Generation = Generation(0);

/// The unit of `st_blocks`, in bytes, by definition.
const STAT_BLOCK_BYTES: u64 = 512;

/// What the kernel is told of an entry.
pub(crate) fn file_attr(attr: &Attr, owner: Owner) -> FileAttr {
    let modified = system_time(attr.modified);
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size_bytes,
        blocks: attr.size_bytes.div_ceil(STAT_BLOCK_BYTES),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.links,
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        blksize: FILESYSTEM_BLOCK_SIZE,
        flags: 0,
    }
}

/// What the kernel is told of a name that is not there, so that it remembers that too: inode number zero.
pub(crate) fn no_entry(owner: Owner) -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        blksize: FILESYSTEM_BLOCK_SIZE,
        flags: 0,
    }
}

/// The kernel's word for a kind.
pub(super) fn file_type(kind: AttrKind) -> FileType {
    match kind {
        AttrKind::File => FileType::RegularFile,
        AttrKind::Dir => FileType::Directory,
        AttrKind::Symlink => FileType::Symlink,
    }
}

/// A time as the library wants it. One that it cannot hold becomes 1970.
pub(crate) fn system_time(time: FileTime) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_engine::Ino;

    const OWNER: Owner = Owner { uid: 7, gid: 8 };

    fn attr(size_bytes: u64, modified: FileTime) -> Attr {
        Attr { ino: Ino(9), kind: AttrKind::File, size_bytes, mode: 0o4755, modified, links: 1 }
    }

    #[test]
    fn blocks_are_rounded_up_and_the_mode_keeps_its_high_bits() {
        let blocks = |size_bytes| file_attr(&attr(size_bytes, FileTime::default()), OWNER).blocks;
        assert_eq!([blocks(0), blocks(1), blocks(512), blocks(513)], [0, 1, 1, 2]);
        let seen = file_attr(&attr(1, FileTime::default()), OWNER);
        assert_eq!((seen.perm, seen.uid, seen.gid, seen.blksize), (0o4755, 7, 8, 256 * 1024));
    }

    #[test]
    fn times_before_1970_and_beyond_reason_do_not_fail() {
        let before = system_time(FileTime { seconds: -2, nanos: 500_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(before).unwrap(), Duration::from_millis(1500));
        let after = system_time(FileTime { seconds: 2, nanos: 5 });
        assert_eq!(after.duration_since(UNIX_EPOCH).unwrap(), Duration::new(2, 5));
        system_time(FileTime { seconds: i64::MIN, nanos: 0 });
        assert_eq!(system_time(FileTime { seconds: i64::MAX, nanos: 1_999_999_999 }), UNIX_EPOCH);
    }
}
