//! What `stat` shows of a file, and setting it.

use super::away::{Absent, Found};
use super::volume::{Caller, Live, Look, Outcome, Seen, open_in, path_to};
use super::waiting::{Tried, Turn};
use farshore_engine::Observation;
use farshore_engine::record::FileTime;
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid,
};
use rustix::io::Errno;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A time to be set.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum NewTime {
    /// It stays.
    #[default]
    Omitted,
    /// This moment.
    Now,
    At(SystemTime),
}

impl NewTime {
    fn to_timespec(self) -> Timespec {
        let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        match self {
            NewTime::Omitted => special(UTIME_OMIT),
            NewTime::Now => special(UTIME_NOW),
            NewTime::At(time) => timespec(time),
        }
    }

    /// What peers are told of it; `None` if it stays.
    fn to_file_time(self) -> Option<FileTime> {
        let spec = match self {
            NewTime::Omitted => return None,
            NewTime::Now => timespec(SystemTime::now()),
            NewTime::At(time) => timespec(time),
        };
        // Nanoseconds of a time within its second fit.
        Some(FileTime { seconds: spec.tv_sec, nanos: spec.tv_nsec as u32 })
    }
}

/// What is to be set; the rest stays.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NewAttributes {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) accessed: NewTime,
    pub(super) modified: NewTime,
    /// The open file through which it is asked.
    pub(super) handle: Option<u64>,
    /// Whoever asks may not keep set-id bits of what they change.
    pub(super) loses_set_ids: bool,
}

impl NewAttributes {
    /// So the kernel asks for the loss of set-id bits, before a program writes that may not keep them.
    fn is_nothing(&self) -> bool {
        let NewAttributes { mode, uid, gid, size, accessed, modified, handle: _, loses_set_ids: _ } = self;
        let has_times = !matches!((accessed, modified), (NewTime::Omitted, NewTime::Omitted));
        mode.is_none() && uid.is_none() && gid.is_none() && size.is_none() && !has_times
    }
}

impl Live {
    pub(super) fn attributes(&self, number: u64) -> Outcome<Seen> {
        match self.find(number)? {
            Found::Here(anchor) => {
                let stat = rustix::fs::fstat(&*anchor)?;
                self.inodes.told(number, &stat);
                Ok(self.seen(number, Look::Here(stat)))
            }
            Found::Away(absent) => {
                self.inodes.told_away(number, &absent.attr);
                Ok(self.seen_away(number, &absent))
            }
        }
    }

    /// Sets one after the other. The kernel has checked that it may be done. A change of owner costs set-id bits on any disk.
    pub(super) fn set_attributes(&self, number: u64, new: NewAttributes, turn: Turn) -> Tried<Seen> {
        let anchor = match self.find(number)? {
            Found::Here(anchor) => anchor,
            Found::Away(absent) if new.size == Some(0) => self.make_empty(number, &absent, turn)?,
            Found::Away(absent) if new.size.is_some() || new.uid.is_some() || new.gid.is_some() => {
                return Err(absent.is_needed());
            }
            Found::Away(absent) => return self.amend(number, &absent, new, turn),
        };
        self.inodes.changes(number);
        if let Some(size) = new.size {
            self.truncate(&anchor, new.handle, size)?;
        }
        if new.loses_set_ids && (new.size.is_some() || new.is_nothing()) {
            lose_set_ids(&anchor)?;
        }
        if new.uid.is_some() || new.gid.is_some() {
            chown(&anchor, new.uid, new.gid)?;
        }
        if let Some(mode) = new.mode {
            chmod(&anchor, mode)?;
        }
        if !matches!((new.accessed, new.modified), (NewTime::Omitted, NewTime::Omitted)) {
            let times =
                Timestamps { last_access: new.accessed.to_timespec(), last_modification: new.modified.to_timespec() };
            rustix::fs::utimensat(&*anchor, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        let seen = self.attributes(number)?;
        // Who has it open to write it will tell of it, with what is written.
        if !self.inodes.is_being_written(number) {
            self.tell_of(number);
        }
        Ok(seen)
    }

    /// Sets the mode and the time of a file that is away. When it was last read is not kept of it.
    fn amend(&self, number: u64, absent: &Absent, new: NewAttributes, turn: Turn) -> Tried<Seen> {
        let (place, path) = absent.named()?;
        let mode = new.mode.map(|mode| (mode & 0o7777) as u16);
        let modified = new.modified.to_file_time();
        if mode.is_some() || modified.is_some() {
            turn.must_be_ours()?;
            self.teller.hear(vec![Observation::Amended { path: path.clone(), mode, modified, xattrs: None }]);
        }
        let (_, attr) = self.away_at(place).ok_or(Errno::STALE)?;
        self.inodes.amended_away(number, &attr);
        Ok(self.seen_away(number, &Absent { attr, ..absent.clone() }))
    }

    /// Puts an empty file where one is away: whoever cuts it wants nothing of it. Returns it.
    pub(super) fn make_empty(&self, number: u64, absent: &Absent, turn: Turn) -> Tried<Arc<OwnedFd>> {
        let (place, path) = absent.named()?;
        turn.must_be_ours()?;
        let directory = self.directory(place.parent, &place.name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&directory, &*place.name, flags, Mode::RUSR | Mode::WUSR);
        let made = made.map_err(|error| if error == Errno::EXIST { absent.is_needed() } else { error.into() })?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(absent.attr.mode.into()))?;
        let stat = rustix::fs::fstat(&made)?;
        if !self.inodes.came(number, &stat) {
            return Err(Errno::STALE.into());
        }
        self.inodes.told(number, &stat);
        let anchor = self.inodes.keep(number, open_in(&directory, &place.name)?);
        self.teller.tell_now(vec![Observation::Sighted { path: path.clone() }], [path]);
        Ok(anchor)
    }

    fn truncate(&self, anchor: &OwnedFd, handle: Option<u64>, size: u64) -> Outcome<()> {
        let open = handle.and_then(|handle| self.files.get(handle).ok()).filter(|file| file.is_writable);
        match open.as_ref().and_then(|open| self.here(open).ok().flatten()) {
            Some(file) => rustix::fs::ftruncate(file, size),
            None => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                rustix::fs::ftruncate(rustix::fs::open(path_to(anchor), flags, Mode::empty())?, size)
            }
        }
    }

    /// Gives what was just made in `directory` to whoever asked for it, with the mode that they asked for: this process's own
    /// user and file mode mask are not theirs. Only root can give it to others.
    pub(super) fn hand_over(
        &self,
        made: &OwnedFd,
        directory: &OwnedFd,
        caller: Caller,
        mode: Option<u32>,
    ) -> Outcome<Stat> {
        let stat = rustix::fs::fstat(made)?;
        let is_foreign = self.is_root && (caller.uid != stat.st_uid || caller.gid != stat.st_gid);
        if is_foreign {
            let inherits = rustix::fs::fstat(directory)?.st_mode & Mode::SGID.bits() != 0;
            chown(made, Some(caller.uid), (!inherits).then_some(caller.gid))?;
        }
        // Set-id bits go with a change of owner; a directory has that of its parent.
        let bits = |mode: u32| mode & 0o7777;
        let wanted =
            mode.map(bits).map(|mode| if is_dir(&stat) { mode & 0o1777 | stat.st_mode & 0o2000 } else { mode });
        let lost = wanted.filter(|wanted| is_foreign && wanted & 0o6000 != 0 || bits(stat.st_mode) != *wanted);
        if let Some(mode) = lost {
            chmod(made, mode)?;
        }
        if is_foreign || lost.is_some() { rustix::fs::fstat(made) } else { Ok(stat) }
    }
}

/// Takes set-id bits from a file, as the disk does when a program writes to it that may not keep them. It would not do so for us:
/// root may. Returns whether there were any.
pub(super) fn lose_set_ids(file: &OwnedFd) -> Outcome<bool> {
    let stat = rustix::fs::fstat(file)?;
    // Where the group may not run the file its bit gives no rights, and stays.
    let group = if stat.st_mode & Mode::XGRP.bits() == 0 { Mode::empty() } else { Mode::SGID };
    let lost = stat.st_mode & (Mode::SUID | group).bits();
    if lost == 0 || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    chmod(file, stat.st_mode & !lost)?;
    Ok(true)
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn chown(anchor: &OwnedFd, uid: Option<u32>, gid: Option<u32>) -> Outcome<()> {
    rustix::fs::chownat(anchor, c"", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)
}

fn chmod(anchor: &OwnedFd, mode: u32) -> Outcome<()> {
    rustix::fs::chmodat(CWD, path_to(anchor), Mode::from_raw_mode(mode as RawMode & 0o7777), AtFlags::empty())
}

/// A time as the system calls want it, which count nanoseconds forward also before 1970. The library that reads the kernel's
/// messages (fuser 0.18) counts them backward there: its 1.2 seconds before 1970 were second -1 and 0.2.
fn timespec(time: SystemTime) -> Timespec {
    let (seconds, rest) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs() as i64, after),
        Err(before) => (-(before.duration().as_secs() as i64), before.duration()),
    };
    Timespec { tv_sec: seconds, tv_nsec: rest.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_before_1970_are_those_that_the_kernel_sent() {
        let at = |time: SystemTime| {
            let spec = timespec(time);
            (spec.tv_sec, spec.tv_nsec)
        };
        assert_eq!(at(UNIX_EPOCH + Duration::new(5, 7)), (5, 7));
        assert_eq!(at(UNIX_EPOCH - Duration::new(5, 0)), (-5, 0));
        assert_eq!(at(UNIX_EPOCH - Duration::new(1, 200_000_000)), (-1, 200_000_000));
    }
}
