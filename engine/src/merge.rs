//! What becomes of one path of which two replicas say different things: the same on every replica, in whatever order they
//! hear of it. `docs/MERGING.md` has the rules as a user needs them.

use crate::path::{NAME_MAX_BYTES, Name};
use crate::record::{FileTime, Kind, Record};
use crate::version::{DeviceTag, Order, Revision};
use core::cmp::Ordering;
use xxhash_rust::xxh3::xxh3_64;

/// The longest end of a name, with its dot, that a conflict copy keeps at its end.
const EXTENSION_MAX_BYTES: usize = 16;

/// The last second of the year 9999: a date has four digits for its year.
const LAST_SECOND: i64 = 253_402_300_799;

/// What a replica says of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State<'a> {
    /// What is there; `None` if something was there, and was removed.
    pub record: Option<&'a Record>,
    /// Which state of the path that is.
    pub revision: &'a Revision,
}

/// One of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What this replica says.
    Ours,
    /// What the other one says.
    Theirs,
}

/// What becomes of two states of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Which of the two stands at the path.
    pub kept: Side,
    /// Which state of the path that is.
    pub revision: Revision,
    /// Whether both were written without knowledge of the other, so that the one that is not kept has to live on as a
    /// conflict copy, see [`conflict_name`]. The one that is kept has the version that it had: only a device that holds the
    /// bytes of the other one can say that it has made the copy, by joining the versions when it has.
    pub is_conflict: bool,
}

/// Merges what two replicas say of one path.
#[must_use]
pub fn merge(ours: State<'_>, theirs: State<'_>) -> Merged {
    let (a, b) = (ours.revision, theirs.revision);
    let seen = |by: &Revision, dot| by.version.covers(dot);
    let (kept, is_conflict) = match a.version.compare(&b.version) {
        Order::Newer => (Side::Ours, false),
        Order::Older => (Side::Theirs, false),
        Order::Same if is_same(ours, theirs) => (Side::Ours, false),
        Order::Same | Order::Concurrent => match (seen(b, a.dot()), seen(a, b.dot())) {
            // Who made theirs had seen ours, and wrote over it.
            (true, false) => (Side::Theirs, false),
            (false, true) => (Side::Ours, false),
            (false, false) => (higher(ours, theirs), conflicts(ours, theirs)),
            // Both were known to both. The lower one would not have been kept beside the higher one, unless that had been
            // written over.
            (true, true) => (other(higher(ours, theirs)), conflicts(ours, theirs)),
        },
    };
    let winner = match kept {
        Side::Ours => a,
        Side::Theirs => b,
    };
    let version = if is_conflict { winner.version.clone() } else { a.version.join(&b.version) };
    Merged { kept, revision: Revision { version, author: winner.author }, is_conflict }
}

/// Whether two states are one: nothing of what follows can tell them apart.
fn is_same(ours: State<'_>, theirs: State<'_>) -> bool {
    ours.record == theirs.record && ours.revision.author == theirs.revision.author
}

fn other(side: Side) -> Side {
    match side {
        Side::Ours => Side::Theirs,
        Side::Theirs => Side::Ours,
    }
}

/// Whether something would be lost if only one of two were kept.
fn conflicts(ours: State<'_>, theirs: State<'_>) -> bool {
    let (Some(ours), Some(theirs)) = (ours.record, theirs.record) else { return false };
    match (&ours.kind, &theirs.kind) {
        (Kind::Dir, Kind::Dir) => false,
        (Kind::File { .. }, Kind::File { .. }) | (Kind::Symlink { .. }, Kind::Symlink { .. }) => {
            ours.kind != theirs.kind
        }
        (Kind::File { .. } | Kind::Dir | Kind::Symlink { .. }, _) => true,
    }
}

/// Which of two goes before the other: one total order over all that can be said of a path. What lives goes before what
/// was removed, a directory before everything else, then what was modified last.
fn higher(ours: State<'_>, theirs: State<'_>) -> Side {
    if compare(ours, theirs).is_lt() { Side::Theirs } else { Side::Ours }
}

fn compare(a: State<'_>, b: State<'_>) -> Ordering {
    let by_author = a.revision.author.cmp(&b.revision.author);
    match (a.record, b.record) {
        (None, None) => by_author,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(one), Some(other)) => (one.kind == Kind::Dir)
            .cmp(&(other.kind == Kind::Dir))
            .then(one.modified.cmp(&other.modified))
            .then(by_author)
            .then_with(|| compare_kinds(&one.kind, &other.kind))
            .then(one.mode.cmp(&other.mode)),
    }
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
#[must_use]
pub fn conflict_name(name: &Name, record: &Record, author: DeviceTag) -> Name {
    let (date, digest) = (date_of(record.modified), digest_of(&record.kind));
    let with_digest = |digest: u64| with_mark(name, format!(".conflict-{author}-{date}-{:06x}", digest >> 40));
    let copy = with_digest(digest);
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
    use crate::version::{Dot, Version};
    use proptest::prelude::*;

    fn record(kind: Kind, seconds: i64) -> Record {
        Record { kind, mode: 0o644, modified: FileTime { seconds, nanos: 0 } }
    }

    fn file(stamp: u64, seconds: i64) -> Record {
        record(Kind::File { size_bytes: 1, stamp: Stamp(stamp) }, seconds)
    }

    fn revision(dots: &[(u64, u64)], author: u64) -> Revision {
        let pairs =
            dots.iter().map(|(author, counter)| Dot { author: DeviceTag(*author), counter: *counter }).collect();
        Revision { version: Version::new(pairs).unwrap(), author: DeviceTag(author) }
    }

    fn merged(ours: (Option<&Record>, &Revision), theirs: (Option<&Record>, &Revision)) -> (Side, bool) {
        let state = |(record, revision)| State { record, revision };
        let (one, two) = (state(ours), state(theirs));
        let (here, there) = (merge(one, two), merge(two, one));
        assert_eq!((&here.revision, here.is_conflict), (&there.revision, there.is_conflict), "both sides agree");
        assert!(is_same(one, two) || here.kept != there.kept, "both sides keep the same");
        (here.kept, here.is_conflict)
    }

    #[test]
    fn what_is_newer_replaces_whatever_its_date() {
        let (old, new) = (revision(&[(1, 1)], 1), revision(&[(1, 1), (2, 2)], 2));
        let (late, early) = (file(1, 900), file(2, 100));
        assert_eq!(merged((Some(&late), &old), (Some(&early), &new)), (Side::Theirs, false));
        assert_eq!(merged((Some(&late), &old), (None, &new)), (Side::Theirs, false));
        assert_eq!(merged((None, &new), (Some(&late), &old)), (Side::Ours, false));
    }

    #[test]
    fn of_two_writings_the_later_keeps_the_name_and_the_other_lives_on() {
        let (one, two) = (revision(&[(1, 1)], 1), revision(&[(2, 1)], 2));
        assert_eq!(merged((Some(&file(1, 5)), &one), (Some(&file(2, 6)), &two)), (Side::Theirs, true));
        assert_eq!(merged((Some(&file(1, 6)), &one), (Some(&file(2, 6)), &two)), (Side::Theirs, true), "by author");
        let link = record(Kind::Symlink { target: b"x"[..].into() }, 9);
        assert_eq!(merged((Some(&file(1, 5)), &one), (Some(&link), &two)), (Side::Theirs, true));
        assert_eq!(merged((Some(&record(Kind::Dir, 1)), &one), (Some(&file(2, 6)), &two)), (Side::Ours, true));
    }

    #[test]
    fn what_is_the_same_makes_no_copy() {
        let (one, two) = (revision(&[(1, 1)], 1), revision(&[(2, 1)], 2));
        let other_mode = Record { mode: 0o600, ..file(1, 5) };
        assert_eq!(merged((Some(&file(1, 5)), &one), (Some(&other_mode), &two)), (Side::Theirs, false));
        assert_eq!(
            merged((Some(&record(Kind::Dir, 8)), &one), (Some(&record(Kind::Dir, 2)), &two)),
            (Side::Ours, false)
        );
    }

    #[test]
    fn what_lives_goes_before_what_was_removed_at_the_same_time() {
        let (one, two) = (revision(&[(1, 1)], 1), revision(&[(2, 1)], 2));
        assert_eq!(merged((None, &one), (Some(&file(1, 5)), &two)), (Side::Theirs, false));
        // But not before a removal by somebody who had seen it, although a third one removed it too.
        let (kept, seen) = (revision(&[(1, 1), (3, 1)], 1), revision(&[(1, 1), (2, 2)], 2));
        assert_eq!(merged((Some(&file(1, 5)), &kept), (None, &seen)), (Side::Theirs, false));
    }

    #[test]
    fn a_copy_is_named_after_who_made_it_and_when() {
        let copy = |name: &[u8]| {
            let name = conflict_name(&Name::new(name).unwrap(), &file(1, 1_700_000_000), DeviceTag(0xab));
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
        let copy = conflict_name(&long, &file(1, 0), DeviceTag(1));
        let text = core::str::from_utf8(copy.as_bytes()).unwrap();
        assert!(
            text.ends_with(".conflict-0000000000000001-19700101-000000-6ca7f9") && text.len() <= NAME_MAX_BYTES,
            "{text}"
        );
        // A copy of a copy of that name, with other bytes of the same second, is still another name.
        let again = conflict_name(&copy, &file(2, 0), DeviceTag(1));
        assert_ne!(conflict_name(&again, &file(0x99, 0), DeviceTag(1)), again);
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

    fn any_state() -> impl Strategy<Value = (Option<Record>, Revision)> {
        let kinds = prop_oneof![
            Just(Kind::Dir),
            (0..3_u64).prop_map(|stamp| Kind::File { size_bytes: stamp, stamp: Stamp(stamp) }),
            (0..2_u8).prop_map(|target| Kind::Symlink { target: [b'a' + target][..].into() }),
        ];
        let records = (kinds, 0..2_i64, 0..2_u16).prop_map(|(kind, seconds, mode)| Record {
            kind,
            mode,
            modified: FileTime { seconds, nanos: 0 },
        });
        let dots = proptest::collection::btree_map(0..3_u64, 1..3_u64, 1..4);
        (proptest::option::of(records), dots, any::<proptest::sample::Index>()).prop_map(|(record, dots, author)| {
            let dots: Vec<(u64, u64)> = dots.into_iter().collect();
            let author = dots[author.index(dots.len())].0;
            (record, revision(&dots, author))
        })
    }

    proptest! {
        #[test]
        fn both_sides_agree_whatever_they_are_told(a in any_state(), b in any_state()) {
            merged((a.0.as_ref(), &a.1), (b.0.as_ref(), &b.1));
        }

        #[test]
        fn a_conflict_copy_always_has_a_name(name in proptest::collection::vec(1..=255_u8, 1..=255), seconds: i64) {
            if let Ok(name) = Name::new(&name) {
                prop_assert_ne!(conflict_name(&name, &file(7, seconds), DeviceTag(1)), name);
            }
        }
    }
}
