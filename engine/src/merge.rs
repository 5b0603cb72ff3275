//! What becomes of one path of which two replicas say different things: the same on every replica, in whatever order they
//! hear of it. `docs/MERGING.md` has the rules as a user needs them.

use crate::path::{NAME_MAX_BYTES, Name};
use crate::record::{FileTime, Kind, Record};
use crate::version::{DeviceTag, Dot, MAX_SIBLINGS, Revision, Sibling, Version};
use core::cmp::Ordering;
use xxhash_rust::xxh3::xxh3_64;

/// The longest end of a name, with its dot, that a conflict copy keeps at its end.
const EXTENSION_MAX_BYTES: usize = 16;

/// The last second of the year 9999: a date has four digits for its year.
const LAST_SECOND: i64 = 253_402_300_799;

/// What a replica says of one path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stated {
    /// What is there; `None` if nothing is there any more.
    pub record: Option<Record>,
    /// Which state of the path that is.
    pub revision: Revision,
}

impl Stated {
    /// What stands at a path of which `version` is known, if all this was written there and none of it written over: what
    /// goes before all else keeps the path. Of more than can be said, what goes last is forgotten.
    #[must_use]
    pub fn of(version: Version, mut written: Vec<Sibling>) -> Stated {
        written.sort_by(|a, b| compare(b, a));
        written.truncate(1 + MAX_SIBLINGS);
        if written.is_empty() {
            return Stated { record: None, revision: Revision::removed(version) };
        }
        let Sibling { dot, record } = written.remove(0);
        written.sort_by_key(|sibling| sibling.dot);
        Stated { record: Some(record), revision: Revision { version, dot, others: written.into() } }
    }

    /// What is left of it once who has what stands there has dropped all beside it that nothing would be lost of: the same
    /// with other attributes, and empty files.
    ///
    /// This is a change: it is not for everybody who merges to do, since somebody else may be removing just what is kept.
    #[must_use]
    pub fn tidied(&self) -> Stated {
        let mut written = self.written();
        written.retain(|sibling| {
            let is_empty = matches!(sibling.record.kind, Kind::File { size_bytes: 0, .. });
            let is_twin = self.record.as_ref().is_some_and(|record| record.kind == sibling.record.kind);
            sibling.dot == self.revision.dot || !is_empty && !is_twin
        });
        Stated::of(self.revision.version.clone(), written)
    }

    /// All that was written at the path and not written over: what stands there, and what stands beside it.
    #[must_use]
    pub fn written(&self) -> Vec<Sibling> {
        let standing = self.record.iter().map(|record| Sibling { dot: self.revision.dot, record: record.clone() });
        standing.chain(self.revision.others.iter().cloned()).collect()
    }

    /// What becomes of it with one more change, which was made by somebody who saw what the changes `over` had made, and wrote
    /// over that.
    #[must_use]
    pub fn after(&self, dot: Dot, record: Record, over: &[Dot]) -> Stated {
        let mut written = self.written();
        written.retain(|sibling| !over.contains(&sibling.dot));
        written.push(Sibling { dot, record });
        Stated::of(self.revision.version.with(dot), written)
    }

    /// What becomes of it if what `gone` made is not there any more.
    #[must_use]
    pub fn without(&self, gone: Dot) -> Stated {
        let mut written = self.written();
        written.retain(|sibling| sibling.dot != gone);
        Stated::of(self.revision.version.clone(), written)
    }
}

/// Merges what two replicas say of one path. What one of them has and the other one does not stays if the other one has never
/// heard of it, and goes if it has: then it was written over, or removed.
///
/// So the merge is commutative, associative and idempotent: all replicas come to say the same, in whatever order and however
/// often they hear of each other.
#[must_use]
pub fn merge(ours: &Stated, theirs: &Stated) -> Stated {
    let (a, b) = (ours.written(), theirs.written());
    let has = |written: &[Sibling], dot| written.iter().any(|sibling| sibling.dot == dot);
    let mut written = Vec::with_capacity(a.len() + b.len());
    for sibling in &a {
        let twin = b.iter().find(|other| other.dot == sibling.dot);
        match twin {
            // Nobody says two things of one change; if somebody does, all believe the same.
            Some(twin) => written.push(if compare(sibling, twin).is_lt() { twin } else { sibling }.clone()),
            None if !theirs.revision.version.covers(sibling.dot) => written.push(sibling.clone()),
            None => {}
        }
    }
    let is_new = |sibling: &&Sibling| !has(&a, sibling.dot) && !ours.revision.version.covers(sibling.dot);
    written.extend(b.iter().filter(is_new).cloned());
    Stated::of(ours.revision.version.join(&theirs.revision.version), written)
}

/// Which of two goes before the other: one total order over all that can be said of a path. A directory goes before everything
/// else, then what was modified last.
fn compare(a: &Sibling, b: &Sibling) -> Ordering {
    let (one, other) = (&a.record, &b.record);
    (one.kind == Kind::Dir)
        .cmp(&(other.kind == Kind::Dir))
        .then(one.modified.cmp(&other.modified))
        .then(a.dot.author.cmp(&b.dot.author))
        .then_with(|| compare_kinds(&one.kind, &other.kind))
        .then(one.mode.cmp(&other.mode))
        .then_with(|| one.xattrs.cmp(&other.xattrs))
        .then(a.dot.counter.cmp(&b.dot.counter))
}

fn compare_kinds(a: &Kind, b: &Kind) -> Ordering {
    match (a, b) {
        (Kind::File { size_bytes, stamp }, Kind::File { size_bytes: other_bytes, stamp: other }) => {
            stamp.cmp(other).then(size_bytes.cmp(other_bytes))
        }
        (Kind::Symlink { target }, Kind::Symlink { target: other }) => target.cmp(other),
        (Kind::Dir, Kind::Dir) => Ordering::Equal,
        (Kind::File { .. } | Kind::Dir | Kind::Symlink { .. }, _) => number_of(a).cmp(&number_of(b)),
    }
}

fn number_of(kind: &Kind) -> u8 {
    match kind {
        Kind::Symlink { .. } => 0,
        Kind::File { .. } => 1,
        Kind::Dir => 2,
    }
}

/// The name of a conflict copy, beside the name that it lost: who made it, when it was last modified, and six digits that
/// follow from what it holds, before the end of the name that says what kind of file it is. Cut so that it is a name.
///
/// If `nth` is not zero, the digits are others: for when something else has that name already.
#[must_use]
pub fn conflict_name(name: &Name, record: &Record, author: DeviceTag, nth: u32) -> Name {
    let (date, digest) = (date_of(record.modified), digest_of(&record.kind));
    let with_digest = |digest: u64| with_mark(name, format!(".conflict-{author}-{date}-{:06x}", digest >> 40));
    let copy = match nth {
        0 => with_digest(digest),
        nth => with_digest(xxh3_64(&[digest.to_le_bytes(), u64::from(nth).to_le_bytes()].concat())),
    };
    // A name that is as long as names may be can be cut to what it was.
    if copy == *name { with_digest(!digest) } else { copy }
}

/// Two copies of one second by one device are told apart by what they hold.
fn digest_of(kind: &Kind) -> u64 {
    match kind {
        Kind::File { size_bytes, stamp } => xxh3_64(&[stamp.0.to_le_bytes(), size_bytes.to_le_bytes()].concat()),
        Kind::Symlink { target } => xxh3_64(target),
        Kind::Dir => 0,
    }
}

fn with_mark(name: &Name, mark: String) -> Name {
    let bytes = name.as_bytes();
    let dot =
        bytes.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0 && bytes.len() - at <= EXTENSION_MAX_BYTES);
    let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let mut end = stem.len().min(NAME_MAX_BYTES - mark.len() - extension.len());
    // Not in the middle of a character, where it is text.
    while end > 1 && end < stem.len() && stem[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    let copy = [&stem[..end], mark.as_bytes(), extension].concat();
    Name::new(&copy).unwrap_or_else(|_| name.clone())
}

/// A time as `yyyymmdd-hhmmss` UTC; what is before 1970 or after 9999 is shown as the first or last second between.
fn date_of(time: FileTime) -> String {
    let seconds = time.seconds.clamp(0, LAST_SECOND);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March end with the day that leap years have more; 400 of them have 146,097 days.
    let since_0000_03_01 = day + 719_468;
    let era = since_0000_03_01 / 146_097;
    let day_of_era = since_0000_03_01 % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day_of_month:02}-{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Stamp;
    use crate::xattrs::Xattrs;
    use proptest::prelude::*;

    fn record(kind: Kind, seconds: i64) -> Record {
        Record { kind, mode: 0o644, modified: FileTime { seconds, nanos: 0 }, xattrs: Xattrs::default() }
    }

    fn file(stamp: u64, seconds: i64) -> Record {
        record(Kind::File { size_bytes: 1, stamp: Stamp(stamp) }, seconds)
    }

    fn dot(author: u64, counter: u64) -> Dot {
        Dot { author: DeviceTag(author), counter }
    }

    /// One device's first state of a path.
    fn made(author: u64, record: &Record) -> Stated {
        Stated::default().after(dot(author, 1), record.clone(), &[])
    }

    /// What stands there once both know of both, and how much stands beside it.
    fn merged(one: &Stated, other: &Stated) -> (Option<Record>, usize) {
        let here = merge(one, other);
        assert_eq!(here, merge(other, one), "both sides agree");
        assert_eq!(here, merge(&here, other), "twice is once");
        (here.record.clone(), here.revision.others.len())
    }

    #[test]
    fn what_is_newer_replaces_whatever_its_date() {
        let (late, early) = (file(1, 900), file(2, 100));
        let old = made(1, &late);
        let new = old.after(dot(2, 2), early.clone(), &[dot(1, 1)]);
        assert_eq!(merged(&old, &new), (Some(early), 0));
        assert_eq!(merged(&old, &old.without(dot(1, 1))), (None, 0));
    }

    #[test]
    fn of_two_writings_the_later_keeps_the_name_and_the_other_lives_on() {
        let (one, two) = (made(1, &file(1, 5)), made(2, &file(2, 6)));
        assert_eq!(merged(&one, &two), (Some(file(2, 6)), 1));
        let (one, two) = (made(1, &file(1, 6)), made(2, &file(2, 6)));
        assert_eq!(merged(&one, &two), (Some(file(2, 6)), 1), "by author");
        let link = record(Kind::Symlink { target: b"x"[..].into() }, 9);
        assert_eq!(merged(&one, &made(2, &link)), (Some(link), 1));
        let dir = record(Kind::Dir, 1);
        assert_eq!(merged(&made(1, &dir), &two), (Some(dir), 1));
        // Until who has it has put it elsewhere, and said so.
        let resolved = merge(&one, &two).without(dot(1, 1));
        assert_eq!(merged(&merge(&one, &two), &resolved), (Some(file(2, 6)), 0));
        assert_eq!(merged(&one, &resolved), (Some(file(2, 6)), 0));
    }

    #[test]
    fn what_was_written_over_on_one_side_does_not_live_on() {
        let (one, two) = (made(1, &file(1, 5)), made(2, &file(2, 6)));
        let again = one.after(dot(1, 2), file(3, 4), &[dot(1, 1)]);
        let (_, others) = merged(&merge(&one, &two), &again);
        assert_eq!(others, 1);
        assert_eq!(merge(&merge(&one, &two), &again), merge(&two, &again), "whatever was heard of first");
    }

    #[test]
    fn of_what_is_the_same_one_is_enough() {
        let tidied = |one: &Stated, other: &Stated| {
            let tidied = merge(one, other).tidied();
            (tidied.record, tidied.revision.others.len())
        };
        let other_mode = Record { mode: 0o600, ..file(1, 5) };
        assert_eq!(tidied(&made(1, &file(1, 5)), &made(2, &other_mode)), (Some(other_mode), 0));
        let (late, early) = (record(Kind::Dir, 8), record(Kind::Dir, 2));
        assert_eq!(tidied(&made(1, &late), &made(2, &early)), (Some(late), 0));
        let empty = record(Kind::File { size_bytes: 0, stamp: Stamp(8) }, 1);
        assert_eq!(tidied(&made(1, &file(1, 5)), &made(2, &empty)), (Some(file(1, 5)), 0), "there is nothing in it");
        assert_eq!(tidied(&made(1, &file(1, 5)), &made(2, &file(2, 6))), (Some(file(2, 6)), 1));
    }

    #[test]
    fn what_lives_goes_before_what_was_removed_at_the_same_time() {
        let one = made(1, &file(1, 5));
        let edited = one.after(dot(2, 2), file(2, 6), &[dot(1, 1)]);
        assert_eq!(merged(&one.without(dot(1, 1)), &edited), (Some(file(2, 6)), 0));
        // But not before a removal by somebody who had seen it, although a third one removed it too.
        assert_eq!(merged(&one.without(dot(1, 1)), &merge(&one, &made(3, &file(3, 9)).without(dot(3, 1)))), (None, 0));
    }

    #[test]
    fn a_copy_is_named_after_who_made_it_and_when() {
        let copy = |name: &[u8]| {
            let name = conflict_name(&Name::new(name).unwrap(), &file(1, 1_700_000_000), DeviceTag(0xab), 0);
            name.as_bytes().escape_ascii().to_string()
        };
        assert_eq!(copy(b"a.txt"), "a.conflict-00000000000000ab-20231114-221320-6ca7f9.txt");
        assert_eq!(copy(b"a"), "a.conflict-00000000000000ab-20231114-221320-6ca7f9");
        assert_eq!(copy(b".profile"), ".profile.conflict-00000000000000ab-20231114-221320-6ca7f9");
        assert_eq!(copy(b"a.tar.gz"), "a.tar.conflict-00000000000000ab-20231114-221320-6ca7f9.gz");
        assert_eq!(
            copy(b"a.b c d e f g h i j"),
            "a.b c d e f g h i j.conflict-00000000000000ab-20231114-221320-6ca7f9"
        );
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = Name::new("ü".repeat(126).as_bytes()).unwrap();
        let copy = conflict_name(&long, &file(1, 0), DeviceTag(1), 0);
        let text = core::str::from_utf8(copy.as_bytes()).unwrap();
        assert!(
            text.ends_with(".conflict-0000000000000001-19700101-000000-6ca7f9") && text.len() <= NAME_MAX_BYTES,
            "{text}"
        );
        // A copy of a copy of that name, with other bytes of the same second, is still another name.
        let again = conflict_name(&copy, &file(2, 0), DeviceTag(1), 0);
        assert_ne!(conflict_name(&again, &file(0x99, 0), DeviceTag(1), 0), again);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |seconds| date_of(FileTime { seconds, nanos: 0 });
        assert_eq!(date(951_782_399), "20000228-235959");
        assert_eq!(date(951_782_400), "20000229-000000");
        assert_eq!(date(4_107_542_400), "21000301-000000");
        assert_eq!(date(-5), "19700101-000000");
        assert_eq!(date(i64::MAX), "99991231-235959");
    }

    /// What a replica can come to say: changes of three devices, of which each saw some of the others'.
    fn any_states() -> impl Strategy<Value = [Stated; 3]> {
        let kinds = prop_oneof![
            Just(Kind::Dir),
            (0..3_u64).prop_map(|stamp| Kind::File { size_bytes: stamp, stamp: Stamp(stamp) }),
            (0..2_u8).prop_map(|target| Kind::Symlink { target: [b'a' + target][..].into() }),
        ];
        let xattrs = (0..2_u8).prop_map(|value| Xattrs::default().with(b"user.a", &[value]));
        let records = (kinds, 0..2_i64, 0..2_u16, xattrs).prop_map(|(kind, seconds, mode, xattrs)| Record {
            xattrs: if matches!(kind, Kind::Symlink { .. }) { Xattrs::default() } else { xattrs },
            kind,
            mode,
            modified: FileTime { seconds, nanos: 0 },
        });
        let changes = proptest::collection::vec((0..3_usize, 0..4_usize, proptest::option::of(records)), 0..12);
        changes.prop_map(|changes| {
            let mut states: [Stated; 3] = Default::default();
            for (index, (at, from, record)) in changes.into_iter().enumerate() {
                if let Some(theirs) = states.get(from).cloned() {
                    states[at] = merge(&states[at], &theirs);
                }
                let seen = states[at].revision.dot;
                states[at] = match record {
                    Some(record) => states[at].after(dot(at as u64, index as u64 + 1), record, &[seen]),
                    None => states[at].without(seen),
                };
            }
            states
        })
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent([a, b, c] in any_states()) {
            prop_assert_eq!(merge(&a, &b), merge(&b, &a));
            prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
            prop_assert_eq!(merge(&a, &a), a.clone());
            let all = merge(&merge(&a, &b), &c);
            if all.record.is_some() {
                prop_assert_eq!(all.revision.check(), Ok(()));
            }
        }

        #[test]
        fn a_conflict_copy_always_has_a_name(name in proptest::collection::vec(1..=255_u8, 1..=255), seconds: i64) {
            if let Ok(name) = Name::new(&name) {
                prop_assert_ne!(conflict_name(&name, &file(7, seconds), DeviceTag(1), 0), name);
            }
        }
    }
}
