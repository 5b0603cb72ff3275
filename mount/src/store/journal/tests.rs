//! Which of what was noted counts in the next life.

use super::{Journals, LEAST_BYTES, MOST_BYTES, RecallError, Recalled};
use farshore_engine::event::Position;
use farshore_engine::path::RelPath;
use farshore_engine::{AtPath, Changes, DeviceTag, Dot, Memory, PeerId, Revision, Standing, Stated};
use farshore_proto::{Boot, ShareId, encode_memory};
use std::collections::BTreeMap;

const SHARE: ShareId = ShareId([1; 16]);

/// What lies on a disk, and who writes it.
struct Disk {
    copy: Option<Vec<u8>>,
    files: BTreeMap<u64, Vec<u8>>,
    journals: Journals,
    remembered: Option<Memory>,
}

/// Something that is noted has been removed at `number`, and the device stands there.
fn change(number: u64) -> Changes {
    let path = RelPath::parse(format!("{number:04}").as_bytes()).unwrap();
    let gone = Revision::removed(Dot { author: DeviceTag(7), counter: number }.into());
    let at = AtPath { stated: Some(Stated { record: None, revision: gone }), held: None };
    let standing = Standing { position: Position { epoch: 3, seq: number }, settled: 0 };
    Changes { paths: [(path, at)].into(), standings: Some([(PeerId([9; 32]), standing)].into()) }
}

impl Disk {
    fn new() -> Disk {
        let (copy, files) = (None, BTreeMap::new());
        let Recalled { journals, memory } = Journals::recall(SHARE, boot(1), false, None, &files).unwrap();
        Disk { copy, files, journals, remembered: memory }
    }

    fn append(&mut self, frame: &[u8]) {
        self.begin_journal();
        self.journals.note_appended(frame.len());
        self.files.get_mut(&self.journals.number()).unwrap().extend(frame);
    }

    fn begin_journal(&mut self) {
        let Some(beginning) = self.journals.beginning().unwrap() else { return };
        self.journals.note_appended(beginning.len());
        // As whoever begins one removes what is left behind it.
        self.files.split_off(&self.journals.number());
        self.files.insert(self.journals.number(), beginning);
    }

    /// A change of one's own while no peer is there: nothing is said of where the device stands.
    fn note_own(&mut self, number: u64) {
        let frame = self.journals.frame_of(&Changes { standings: None, ..change(number) }).unwrap();
        self.append(&frame);
    }

    fn note(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let frame = self.journals.frame_of(&change(number)).unwrap();
            self.append(&frame);
        }
    }

    fn mark(&mut self) {
        self.begin_journal();
        let mark = self.journals.mark_of(self.journals.number(), self.journals.len_bytes()).unwrap();
        self.append(&mark);
    }

    fn copy(&mut self, number: u64) {
        let memory = self.known();
        let bytes = encode_memory(SHARE, number, &memory).unwrap();
        self.journals.note_copied(number, bytes.len());
        self.copy = Some(bytes);
        self.files.retain(|journal, _| *journal >= number);
    }

    /// All that was noted in this life and is on the disk.
    fn known(&self) -> Memory {
        let boot = self.journals.boot;
        Journals::recall(SHARE, boot, false, self.copy.clone(), &self.files).unwrap().memory.unwrap_or_default()
    }

    /// The next life, in which the machine runs for the time `boot`.
    fn begin(&mut self, boot: u8, was_closed: bool) {
        let recalled = Journals::recall(SHARE, self::boot(boot), was_closed, self.copy.clone(), &self.files).unwrap();
        (self.journals, self.remembered) = (recalled.journals, recalled.memory);
    }

    /// What is remembered: the numbers of all that was noted, and where the device stands.
    fn remembers(&self) -> (Vec<u64>, Option<u64>) {
        let Some(memory) = &self.remembered else { return (Vec::new(), None) };
        let number = |(path, _): &(RelPath, Revision)| path.to_string().parse().unwrap();
        let stands = memory.standings().values().map(|standing| standing.position.seq).next();
        (memory.removed().iter().map(number).collect(), stands)
    }
}

fn boot(number: u8) -> Boot {
    Boot([number; 16])
}

#[test]
fn after_a_kill_all_counts() {
    let mut disk = Disk::new();
    assert_eq!(disk.remembered, None);
    disk.note(1..4);
    disk.mark();
    disk.note(4..6);
    disk.begin(1, false);
    assert_eq!(disk.remembers(), (vec![1, 2, 3, 4, 5], Some(5)));
    disk.note(6..8);
    disk.begin(1, false);
    assert_eq!(disk.remembers(), (vec![1, 2, 3, 4, 5, 6, 7], Some(7)));
    // That somebody only looked at it changes nothing.
    disk.begin(1, false);
    assert_eq!(disk.remembers(), (vec![1, 2, 3, 4, 5, 6, 7], Some(7)));
}

#[test]
fn after_the_machine_has_stopped_what_was_durable_counts_and_not_where_the_device_stood() {
    let mut disk = Disk::new();
    disk.note(1..4);
    disk.mark();
    disk.note(4..6);
    disk.begin(2, false);
    assert_eq!(disk.remembers(), (vec![1, 2, 3], None));
    // What it notes then follows that, and not what was lost.
    disk.note(7..9);
    disk.begin(2, false);
    assert_eq!(disk.remembers(), (vec![1, 2, 3, 7, 8], Some(8)));
    // Of this life nothing is known to be durable; what was believed before it still is.
    disk.begin(3, false);
    assert_eq!(disk.remembers(), (vec![1, 2, 3], None));
}

#[test]
fn what_was_durable_in_a_journal_before_counts_when_nothing_of_the_last_is() {
    let mut disk = Disk::new();
    disk.note(1..3);
    disk.mark();
    disk.note(3..5);
    disk.journals.begin_next();
    disk.note(5..7);
    disk.begin(2, false);
    assert_eq!(disk.remembers(), (vec![1, 2], None));
    disk.note(9..10);
    disk.begin(2, false);
    assert_eq!(disk.remembers(), (vec![1, 2, 9], Some(9)));
}

#[test]
fn after_a_clean_stop_it_does_not_matter_when_the_machine_runs_again() {
    let mut disk = Disk::new();
    disk.note(1..3);
    let number = disk.journals.begin_next();
    disk.copy(number);
    disk.begin(2, true);
    assert_eq!(disk.remembers(), (vec![1, 2], Some(2)));
    let mut disk = Disk::new();
    disk.note(1..3);
    disk.begin(2, true);
    assert_eq!(disk.remembers(), (vec![], None), "it was not copied, and nothing says that it is durable");
}

#[test]
fn a_machine_that_does_not_say_how_often_it_has_begun_to_run_is_taken_to_have_stopped() {
    let mut disk = Disk::new();
    disk.begin(0, false);
    disk.note(1..2);
    disk.mark();
    disk.note(2..3);
    disk.begin(0, false);
    assert_eq!(disk.remembers(), (vec![1], None));
}

#[test]
fn what_is_cut_off_ends_what_counts_and_is_gone_on_from_there() {
    let mut disk = Disk::new();
    disk.note(1..4);
    disk.files.get_mut(&0).unwrap().pop();
    disk.begin(1, false);
    assert_eq!(disk.remembers(), (vec![1, 2], None), "it may have told the third");
    disk.note(5..6);
    disk.begin(1, false);
    assert_eq!(disk.remembers(), (vec![1, 2, 5], Some(5)));
}

#[test]
fn nothing_that_follows_what_is_missing_counts() {
    for damage in 0..3 {
        let mut disk = Disk::new();
        disk.note(1..3);
        disk.journals.begin_next();
        disk.note(3..5);
        disk.journals.begin_next();
        disk.note(5..7);
        match damage {
            0 => drop(disk.files.remove(&1)),
            1 => disk.files.get_mut(&1).unwrap()[20] ^= 1,
            _ => drop(disk.files.get_mut(&1).unwrap().pop()),
        }
        disk.begin(1, false);
        let expected = if damage == 2 { vec![1, 2, 3] } else { vec![1, 2] };
        assert_eq!(disk.remembers(), (expected, None), "damage {damage}");
    }
}

#[test]
fn at_each_step_of_a_copy_all_is_there() {
    for step in 0..4 {
        let mut disk = Disk::new();
        disk.note(1..3);
        let number = disk.journals.begin_next();
        if step > 0 {
            disk.note(3..5);
        }
        let left = disk.files.clone();
        if step > 1 {
            disk.copy(number);
        }
        if step > 2 {
            // The old ones could not be removed any more.
            disk.files.extend(left);
        }
        disk.begin(1, false);
        let expected = if step == 0 { 3 } else { 5 };
        assert_eq!(disk.remembers(), ((1..expected).collect(), Some(expected - 1)), "step {step}");
    }
}

#[test]
fn behind_what_could_not_be_noted_nothing_counts_until_it_is_copied() {
    let mut disk = Disk::new();
    disk.note(1..3);
    assert!(!disk.journals.is_long());
    disk.journals.note_failed();
    assert!(disk.journals.frame_of(&change(3)).is_err());
    assert!(disk.journals.is_long());
    let number = disk.journals.begin_next();
    disk.note(4..6);
    let mut killed = Disk { copy: None, files: disk.files.clone(), remembered: None, ..Disk::new() };
    killed.begin(1, false);
    assert_eq!(killed.remembers(), (vec![1, 2], None));
    disk.copy(number);
    assert!(!disk.journals.is_long());
    disk.note(6..7);
    disk.begin(1, false);
    assert_eq!(disk.remembers(), (vec![1, 2, 4, 5, 6], Some(6)));
}

#[test]
fn what_cannot_be_used_is_said_and_begun_anew() {
    let mut disk = Disk::new();
    disk.note(1..3);
    let number = disk.journals.begin_next();
    disk.copy(number);
    disk.note(3..4);
    disk.copy.as_mut().unwrap()[40] ^= 1;
    let recalled = Journals::recall(SHARE, boot(1), true, disk.copy.clone(), &disk.files);
    assert!(matches!(recalled, Err(RecallError::Memory(_))));
    disk.journals = Journals::anew(SHARE, boot(1), 1);
    assert!(disk.journals.is_long(), "only a copy helps");
    disk.note(4..5);
    assert_eq!(disk.journals.number(), 2);
    let number = disk.journals.begin_next();
    disk.copy = None;
    disk.files.clear();
    disk.copy(number);
    assert!(!disk.journals.is_long());
}

#[test]
fn a_journal_is_long_when_it_has_outgrown_half_of_the_copy() {
    let mut journals = Disk::new().journals;
    journals.note_appended(LEAST_BYTES as usize);
    assert!(!journals.is_long());
    journals.note_appended(1);
    assert!(journals.is_long());
    let number = journals.begin_next();
    journals.note_copied(number, 3 * LEAST_BYTES as usize);
    journals.note_appended(LEAST_BYTES as usize + 1);
    assert!(!journals.is_long(), "the copy is larger");
    journals.note_appended(LEAST_BYTES as usize / 2);
    assert!(journals.is_long());
}

#[test]
fn where_the_device_stood_does_not_count_again_in_a_later_life() {
    // Half of what was noted is lost with the power, or a part of the last frame.
    for is_power in [true, false] {
        let mut disk = Disk::new();
        disk.note(1..4);
        disk.mark();
        disk.note(4..6);
        let boot = if is_power {
            2
        } else {
            disk.files.get_mut(&0).unwrap().pop();
            1
        };
        disk.begin(boot, false);
        assert_eq!(disk.remembers().1, None);
        disk.note_own(7);
        disk.begin(boot, false);
        assert_eq!(disk.remembers().1, None, "{is_power}");
        disk.begin(boot, true);
        assert_eq!(disk.remembers().1, None, "{is_power}");
        disk.note(8..9);
        disk.begin(boot, false);
        assert_eq!(disk.remembers().1, Some(8), "it stands somewhere again");
    }
}

#[test]
fn where_the_device_stood_does_not_count_after_a_life_that_noted_nothing() {
    let mut disk = Disk::new();
    disk.note(1..3);
    let number = disk.journals.begin_next();
    disk.copy(number);
    disk.begin(1, true);
    assert!(disk.journals.is_copied() && disk.journals.is_told());
    disk.note(3..6);
    // The power fails before the disk has anything of that.
    disk.files.clear();
    disk.begin(2, false);
    assert_eq!(disk.remembers(), (vec![1, 2], None));
    assert!(!disk.journals.is_copied() && !disk.journals.is_told(), "the copy says where it stood");
    disk.mark();
    assert!(disk.journals.is_told());
    disk.begin(2, true);
    assert_eq!(disk.remembers(), (vec![1, 2], None));
    let number = disk.journals.begin_next();
    disk.copy(number);
    assert!(disk.journals.is_copied() && disk.journals.is_told());
}

#[test]
fn what_a_killed_life_has_noted_is_made_durable_by_one_that_notes_nothing() {
    let mut disk = Disk::new();
    disk.note(1..3);
    disk.begin(1, false);
    assert!(!disk.journals.is_copied());
    disk.mark();
    disk.begin(2, false);
    assert_eq!(disk.remembers(), (vec![1, 2], None));
    let mut disk = Disk::new();
    disk.note(1..3);
    disk.mark();
    disk.begin(2, true);
    assert_eq!(disk.remembers(), (vec![1, 2], Some(2)), "it is durable, the mark included");
}

#[test]
fn a_journal_that_is_full_is_gone_on_with_in_the_next_also_without_a_copy() {
    let mut journals = Disk::new().journals;
    journals.note_appended(MOST_BYTES as usize);
    assert!(!journals.is_full());
    journals.note_appended(1);
    assert!(journals.is_full());
    assert_eq!(journals.begin_next(), 1);
    assert!(!journals.is_full() && journals.is_long());
}
