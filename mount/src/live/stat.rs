//! How a file looks to `stat`.

use super::volume::{Look, Seen};
use crate::fuse::attr::{file_attr as attr_of_away, system_time};
use farshore_engine::chunk::FILESYSTEM_BLOCK_SIZE;
use farshore_engine::record::FileTime;
use fuser::{FileAttr, FileType, INodeNo};
use rustix::fs::Stat;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the kernel is told of a file. Nothing is here of one that is away.
pub(super) fn file_attr(seen: &Seen) -> FileAttr {
    match &seen.look {
        Look::Here(stat) => {
            let attr = attr_of(seen.number, stat);
            let ctime = seen.changed.map_or(attr.ctime, |(seconds, nanos)| time(seconds, nanos as u32));
            FileAttr { ctime, ..attr }
        }
        Look::Away(attr) => FileAttr { ino: INodeNo(seen.number), blocks: 0, ..attr_of_away(attr, seen.owner) },
    }
}

/// What the disk says, but for the number.
#[allow(clippy::unnecessary_cast, reason = "the widths of these fields differ between architectures")]
fn attr_of(number: u64, stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: stat.st_size.cast_unsigned(),
        blocks: stat.st_blocks.cast_unsigned(),
        atime: time(stat.st_atime, stat.st_atime_nsec as u32),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec as u32),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec as u32),
        crtime: UNIX_EPOCH,
        kind: file_type(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: kernel_device(stat),
        blksize: FILESYSTEM_BLOCK_SIZE,
        flags: 0,
    }
}

/// The number of a device as the kernel writes it in 32 bits.
fn kernel_device(stat: &Stat) -> u32 {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn time(seconds: i64, nanos: u32) -> SystemTime {
    system_time(FileTime { seconds, nanos })
}

pub(super) fn file_type(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        rustix::fs::FileType::RegularFile | rustix::fs::FileType::Unknown => FileType::RegularFile,
    }
}
