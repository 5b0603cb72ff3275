//! Replicas as plain maps from names to what is said of them, which tell each other everything now and then. Whatever was
//! written, removed and exchanged in whatever order: in the end all hold the same, nothing that was written without
//! knowledge of something else is lost, and nothing that was removed is there.

use farshore_engine::merge::{Stated, conflict_name, merge};
use farshore_engine::path::Name;
use farshore_engine::record::{FileTime, Kind, Record, Stamp};
use farshore_engine::version::Sibling;
use farshore_engine::{DeviceTag, Dot, Xattrs};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy)]
enum Op {
    /// A replica writes a name; the last is how late it believes it to be.
    Write(usize, u8, i64),
    /// It writes a name again as it was when this was last done anywhere: a copy with its times.
    Chmod(usize, u8, u16),
    SetXattr(usize, u8, u8),
    Remove(usize, u8),
    MakeDir(usize, u8),
    /// The first tells the second all that it knows.
    Tell(usize, usize),
}

#[derive(Debug, Default)]
struct World {
    replicas: Vec<BTreeMap<Name, Stated>>,
    last: u64,
    is_settling: bool,
    written: BTreeSet<Stamp>,
    /// What somebody replaced or removed, having seen it.
    written_over: BTreeSet<Stamp>,
    /// The changes that somebody wrote over, having seen them, with the names at which they were seen.
    undone: BTreeSet<(Name, Dot)>,
}

fn name(index: u8) -> Name {
    Name::new(&[b'a' + index % 3]).unwrap()
}

impl World {
    fn change(&mut self, at: usize, name: Name, record: impl FnOnce(Option<Record>, u64) -> Option<Record>) {
        self.last += 1;
        let before = self.replicas[at].get(&name).cloned().unwrap_or_default();
        let dot = Dot { author: DeviceTag(at as u64 + 1), counter: self.last };
        let after = record(before.record.clone(), self.last);
        if after == before.record {
            return;
        }
        let is_kept = |stamp| after.as_ref().and_then(stamp_of) == Some(stamp);
        if let Some(stamp) = before.record.as_ref().and_then(stamp_of).filter(|stamp| !is_kept(*stamp)) {
            self.written_over.insert(stamp);
        }
        if before.record.is_some() {
            self.undone.insert((name.clone(), before.revision.dot));
        }
        self.written.extend(after.as_ref().and_then(stamp_of));
        let after = match after {
            Some(record) => before.after(dot, record, &[before.revision.dot]),
            None => before.without(before.revision.dot),
        };
        self.replicas[at].insert(name, after);
    }

    fn play(&mut self, op: Op) {
        let count = self.replicas.len();
        match op {
            Op::Write(at, index, seconds) => self.change(at % count, name(index), |_, number| {
                let kind = Kind::File { size_bytes: 1, stamp: Stamp(number) };
                let modified = FileTime { seconds, nanos: 0 };
                Some(Record { kind, mode: 0o644, modified, xattrs: Xattrs::default() })
            }),
            Op::Chmod(at, index, mode) => {
                self.change(at % count, name(index), |before, _| before.map(|record| Record { mode, ..record }));
            }
            Op::SetXattr(at, index, value) => self.change(at % count, name(index), |before, _| {
                before.map(|record| Record { xattrs: record.xattrs.with(b"user.a", &[value]), ..record })
            }),
            Op::Remove(at, index) => {
                // Also conflict copies are removed.
                let live = |(name, said): (&Name, &Stated)| said.record.is_some().then(|| name.clone());
                let live: Vec<Name> = self.replicas[at % count].iter().filter_map(live).collect();
                if !live.is_empty() {
                    self.change(at % count, live[usize::from(index) % live.len()].clone(), |_, _| None);
                }
            }
            Op::MakeDir(at, index) => self.change(at % count, name(index), |before, number| {
                before.or(Some(Record {
                    kind: Kind::Dir,
                    mode: 0o755,
                    modified: FileTime { seconds: (number % 3) as i64, nanos: 0 },
                    xattrs: Xattrs::default(),
                }))
            }),
            Op::Tell(from, to) => self.tell(from % count, to % count),
        }
    }

    /// What loses its name at a replica gets another one there: all have all bytes that they know of.
    fn tell(&mut self, from: usize, to: usize) {
        for (name, theirs) in self.replicas[from].clone() {
            let ours = self.replicas[to].get(&name).cloned().unwrap_or_default();
            let mut merged = merge(&ours, &theirs);
            let others: Vec<Sibling> = merged.revision.others.iter().cloned().collect();
            for other in others {
                // Whoever has it keeps the copy, and only then says that it does not stand here any more.
                let is_here = ours.written().iter().any(|sibling| sibling.dot == other.dot);
                if is_here && self.may_resolve(to, &other) {
                    self.keep_copy(to, &name, &other);
                    merged = merged.without(other.dot);
                }
            }
            if self.is_settling {
                merged = merged.tidied();
            }
            self.replicas[to].insert(name, merged);
        }
    }

    /// Not at once, and not everybody.
    fn may_resolve(&self, at: usize, other: &Sibling) -> bool {
        self.is_settling || (self.last + at as u64 + other.dot.counter).is_multiple_of(3)
    }

    fn keep_copy(&mut self, at: usize, name: &Name, lost: &Sibling) {
        let copy = |nth| conflict_name(name, &lost.record, lost.dot.author, nth);
        let said = |name: &Name| self.replicas[at].get(name).cloned().unwrap_or_default();
        let mut names = (0..).map(copy).map(|name| (said(&name), name));
        let Some((before, name)) =
            names.find(|(before, _)| before.record.as_ref().is_none_or(|there| there.kind == lost.record.kind))
        else {
            return;
        };
        if before.record.is_some() {
            return;
        }
        self.last += 1;
        let dot = Dot { author: DeviceTag(at as u64 + 1), counter: self.last };
        self.replicas[at].insert(name, before.after(dot, lost.record.clone(), &[]));
    }

    fn is_disputed(&self) -> bool {
        self.replicas.iter().flat_map(BTreeMap::values).any(|said| !said.revision.others.is_empty())
    }

    fn check(&mut self) {
        let count = self.replicas.len();
        self.is_settling = true;
        let mut rounds = 0;
        while self.replicas.windows(2).any(|pair| pair[0] != pair[1]) || self.is_disputed() {
            for from in 0..count {
                (0..count).filter(|to| *to != from).for_each(|to| self.tell(from, to));
            }
            rounds += 1;
            assert!(rounds <= 4, "they do not agree after {rounds} rounds: {:#?}", self.replicas);
        }
        let alive: BTreeSet<Stamp> =
            self.replicas[0].values().filter_map(|said| said.record.as_ref().and_then(stamp_of)).collect();
        let kept: BTreeSet<Stamp> = alive.union(&self.written_over).copied().collect();
        let lost: Vec<&Stamp> = self.written.difference(&kept).collect();
        assert!(lost.is_empty(), "{lost:?} were written and are nowhere: {:#?}", self.replicas[0]);
        for (name, said) in &self.replicas[0] {
            let is_back = said.record.is_some() && self.undone.contains(&(name.clone(), said.revision.dot));
            assert!(!is_back, "{name:?} is {:?} again: {:#?}", said.record, self.replicas[0]);
        }
    }
}

fn stamp_of(record: &Record) -> Option<Stamp> {
    match record.kind {
        Kind::File { stamp, .. } => Some(stamp),
        Kind::Dir | Kind::Symlink { .. } => None,
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let at = || 0..5_usize;
    let op = prop_oneof![
        4 => (at(), any::<u8>(), 0..4_i64).prop_map(|(at, index, seconds)| Op::Write(at, index, seconds)),
        1 => (at(), any::<u8>(), 0..3_u16).prop_map(|(at, index, mode)| Op::Chmod(at, index, mode)),
        1 => (at(), any::<u8>(), 0..3_u8).prop_map(|(at, index, value)| Op::SetXattr(at, index, value)),
        2 => (at(), any::<u8>()).prop_map(|(at, index)| Op::Remove(at, index)),
        1 => (at(), any::<u8>()).prop_map(|(at, index)| Op::MakeDir(at, index)),
        5 => (at(), at()).prop_map(|(from, to)| Op::Tell(from, to)),
    ];
    proptest::collection::vec(op, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_and_exchanged_all_agree_and_nothing_is_lost(count in 2..6_usize, ops in ops()) {
        let mut world = World { replicas: vec![BTreeMap::new(); count], ..World::default() };
        ops.into_iter().for_each(|op| world.play(op));
        world.check();
    }
}
