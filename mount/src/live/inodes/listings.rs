//! Whether the kernel may list a directory from what it has kept of an earlier listing.
//!
//! It keeps what one program lists for the next one, and nobody is asked any more. That is so as long as the directory looks as it
//! did when the listing began that was kept: it is compared each time that the directory is opened.
//!
//! Only one program at a time lists a directory in this way: what another one adds that began earlier may be older than what the
//! directory is compared with. And who goes on with a listing while another program's takes its place in the kernel's memory
//! looks in that one for where it stood, which may not be there any more.

use super::{Inodes, Told};
use rustix::fs::Stat;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the kernel may do with what it keeps of a directory that is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::live) enum Kept {
    /// List it.
    Good,
    /// Forget it, and keep what is listed now.
    Old,
    /// Leave it alone: somebody else is listing it.
    Others,
}

/// A directory that was listed since the kernel came to know it.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// How often it is open.
    opens: u32,
    /// How it looked when the listing began that the kernel keeps.
    was: Option<Looks>,
}

/// How a directory looks. Two that look alike have the same list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::live) struct Looks {
    told: Told,
    /// A mark of what is away in it.
    away: u64,
}

/// The clock of a disk may stand still for so long: what changes twice in that time may look the same.
const TICK: Duration = Duration::from_millis(20);

impl Looks {
    /// How it looks at this moment; `None` if it was changed so short a time ago that it may change once more without looking
    /// otherwise.
    pub(in crate::live) fn new(stat: &Stat, away: u64, now: SystemTime) -> Option<Looks> {
        let told = Told::of(stat);
        let (seconds, nanos) = told.changed;
        let changed = Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?);
        let is_settled = changed + TICK < now.duration_since(UNIX_EPOCH).ok()?;
        is_settled.then_some(Looks { told, away })
    }
}

impl Inodes {
    /// A directory is opened that looks like this, as far as its looks can be relied on. To be taken back by
    /// [`Inodes::end_listing`].
    pub(in crate::live) fn begin_listing(&self, number: u64, looks: Option<Looks>) -> Kept {
        let mut table = self.lock();
        let listed = table.listings.entry(number).or_default();
        listed.opens += 1;
        if listed.opens > 1 {
            return Kept::Others;
        }
        let is_as_before = looks.is_some() && listed.was == looks;
        listed.was = looks;
        if is_as_before { Kept::Good } else { Kept::Old }
    }

    /// It is closed.
    pub(in crate::live) fn end_listing(&self, number: u64) {
        if let Some(listed) = self.lock().listings.get_mut(&number) {
            listed.opens = listed.opens.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ROOT;
    use super::super::tests::Rig;
    use super::*;

    fn looks(rig: &Rig, name: &str, away: u64) -> Option<Looks> {
        Looks::new(&rig.look(name), away, SystemTime::now() + 2 * TICK)
    }

    #[test]
    fn a_listing_is_good_until_the_directory_looks_otherwise() {
        let rig = Rig::new(9);
        let list = |away| {
            let kept = rig.inodes.begin_listing(ROOT, looks(&rig, "", away));
            rig.inodes.end_listing(ROOT);
            kept
        };
        assert_eq!([list(0), list(0), list(0)], [Kept::Old, Kept::Good, Kept::Good]);
        std::fs::create_dir(rig.dir.path().join("new")).unwrap();
        assert_eq!([list(0), list(0)], [Kept::Old, Kept::Good]);
        // Other files are away.
        assert_eq!([list(1), list(1)], [Kept::Old, Kept::Good]);
    }

    #[test]
    fn who_lists_a_directory_at_the_same_time_leaves_the_listing_alone() {
        let rig = Rig::new(9);
        let begin = || rig.inodes.begin_listing(ROOT, looks(&rig, "", 0));
        assert_eq!([begin(), begin()], [Kept::Old, Kept::Others]);
        // What the first one keeps began before this.
        std::fs::create_dir(rig.dir.path().join("new")).unwrap();
        assert_eq!(begin(), Kept::Others);
        for _ in 0..3 {
            rig.inodes.end_listing(ROOT);
        }
        assert_eq!(begin(), Kept::Old);
    }

    #[test]
    fn what_was_changed_this_moment_is_listed_anew_each_time() {
        let rig = Rig::new(9);
        let stat = rig.look("");
        let changed = UNIX_EPOCH + Duration::new(stat.st_ctime as u64, stat.st_ctime_nsec as u32);
        for now in [changed - TICK, changed, changed + TICK] {
            assert_eq!(rig.inodes.begin_listing(ROOT, Looks::new(&stat, 0, now)), Kept::Old);
            rig.inodes.end_listing(ROOT);
        }
        assert!(Looks::new(&stat, 0, changed + 2 * TICK).is_some());
    }

    #[test]
    fn nothing_is_remembered_of_a_directory_that_the_kernel_has_forgotten() {
        let rig = Rig::new(9);
        std::fs::create_dir(rig.dir.path().join("d")).unwrap();
        let dir = rig.meet("d");
        rig.inodes.begin_listing(dir, looks(&rig, "d", 0));
        rig.inodes.end_listing(dir);
        rig.inodes.forget(dir, 1);
        assert!(rig.inodes.lock().listings.is_empty());
    }
}
