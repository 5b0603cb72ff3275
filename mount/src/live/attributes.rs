//! What `stat` shows of a file, and setting it.

use super::volume::{Caller, Live, Outcome, Seen, path_to};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid,
};
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
}

impl Live {
    pub(super) fn attributes(&self, number: u64) -> Outcome<Seen> {
        let stat = rustix::fs::fstat(&*self.anchor(number)?)?;
        self.inodes.told(number, &stat);
        Ok(Seen { number, stat })
    }

    /// Sets one after the other. The kernel has checked that it may be done, and asks for all that follows from it (the
    /// loss of set-id bits, for one).
    pub(super) fn set_attributes(&self, number: u64, new: NewAttributes) -> Outcome<Seen> {
        let anchor = self.anchor(number)?;
        if let Some(size) = new.size {
            self.truncate(&anchor, new.handle, size)?;
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
        self.tell_of(number);
        Ok(seen)
    }

    fn truncate(&self, anchor: &OwnedFd, handle: Option<u64>, size: u64) -> Outcome<()> {
        let open = handle.and_then(|handle| self.files.get(handle).ok()).filter(|file| file.is_writable);
        match open {
            Some(file) => rustix::fs::ftruncate(&file.file, size),
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
