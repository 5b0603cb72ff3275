//! Paths where something happened, waiting for a quiet moment to be looked at.
//!
//! A path is due [`QUIET`] after the last thing that happened to it, but never later than [`PATIENCE`] after the
//! first. A file that a program has open and writes to is due when it has been at [`REST`], or again and again meanwhile, as
//! whoever watches wants it ([`WhileWritten`]). A file that was written and closed is due much sooner, unless much happens at once, or to that file again and again:
//! somebody has saved it and may want to see it elsewhere. When a path is due, every path that began to wait before it goes first, so that order is kept: a file that
//! was written before another one is never told after it.

use super::WhileWritten;
use farshore_engine::path::RelPath;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// How long nothing must happen to a path before it is looked at.
pub(super) const QUIET: Duration = Duration::from_millis(50);

/// How long a path to which things keep happening waits at most.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// How long a file that is open must not have been written to before it is looked at, unless somebody wants it.
const REST: Duration = Duration::from_secs(1);

/// How long a file that is written without rest waits at most.
const HELD: Duration = Duration::from_secs(5);

/// How long a file that is being written waits at most if it is to be seen meanwhile.
const PUSHED: Duration = Duration::from_millis(200);

/// How long nothing must happen to a file that was written and closed before it is looked at: enough for whoever sets its mode
/// and times after that.
const SAVED: Duration = Duration::from_millis(5);

/// If more paths than these wait, much happens at once, and all of it is looked at together.
const FEW: usize = 32;

/// The waiting paths. Its size is bounded by the number of paths to which something happens within [`PATIENCE`].
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// In the order in which they began to wait.
    waiting: BTreeMap<u64, Waiting>,
    turns: HashMap<RelPath, u64>,
    due: BTreeSet<(Instant, u64)>,
    next_turn: u64,
    /// The files that were looked at soon after they had been closed, and until when that is not done again.
    saved: BTreeMap<RelPath, Instant>,
    while_written: WhileWritten,
}

#[derive(Debug)]
struct Waiting {
    path: RelPath,
    first: Instant,
    due: Instant,
    renewed: bool,
    /// It is being written.
    is_open: bool,
    /// Somebody waits for it to be looked at.
    is_wanted: bool,
}

impl Waiting {
    /// When it is due if something happens `now`.
    fn due_after(&self, now: Instant, while_written: WhileWritten) -> Instant {
        match while_written {
            WhileWritten::Held if self.is_open && !self.is_wanted => (now + REST).min(self.first + HELD),
            WhileWritten::Pushed if self.is_open => (now + QUIET).min(self.first + PUSHED),
            WhileWritten::Held | WhileWritten::Pushed => (now + QUIET).min(self.first + PATIENCE),
        }
    }
}

impl Pending {
    pub(super) fn new(while_written: WhileWritten) -> Pending {
        Pending { while_written, ..Pending::default() }
    }

    /// Something happened at `path`. `renewed` if another thing may stand there now, or nothing.
    pub(super) fn note(&mut self, path: RelPath, renewed: bool, now: Instant) {
        self.change(path, now, |waiting| {
            waiting.renewed |= renewed;
            waiting.is_open = false;
        });
    }

    /// Somebody has to hear what is at `path`, whatever goes on there.
    pub(super) fn note_wanted(&mut self, path: RelPath, now: Instant) {
        self.change(path, now, |waiting| waiting.is_wanted = true);
    }

    fn change(&mut self, path: RelPath, now: Instant, change: impl FnOnce(&mut Waiting)) {
        let turn = *self.turns.entry(path.clone()).or_insert(self.next_turn);
        self.next_turn = self.next_turn.max(turn + 1);
        let waiting = self.waiting.entry(turn).or_insert_with(|| Waiting {
            path,
            first: now,
            due: now,
            renewed: false,
            is_open: false,
            is_wanted: false,
        });
        self.due.remove(&(waiting.due, turn));
        change(waiting);
        waiting.due = waiting.due_after(now, self.while_written);
        self.due.insert((waiting.due, turn));
    }

    /// The file at `path` is being written.
    pub(super) fn note_written(&mut self, path: RelPath, now: Instant) {
        self.change(path, now, |waiting| waiting.is_open = true);
    }

    /// The file at `path` was written, and is closed now.
    pub(super) fn note_closed(&mut self, path: RelPath, now: Instant) {
        self.note(path.clone(), false, now);
        if self.saved.len() > FEW {
            self.saved.retain(|_, until| *until > now);
        }
        let Some(turn) = self.turns.get(&path).copied() else { return };
        // What began earlier goes first, and is not told in the middle of being written.
        let is_behind_others = self.waiting.range(..turn).any(|(_, waiting)| waiting.is_open);
        let is_told_again = self.saved.get(&path).is_some_and(|until| *until > now);
        let Some(waiting) = self.waiting.get_mut(&turn) else { return };
        if self.turns.len() > FEW || is_behind_others || is_told_again {
            return;
        }
        self.due.remove(&(waiting.due, turn));
        waiting.due = waiting.due.min(now + SAVED);
        self.due.insert((waiting.due, turn));
        self.saved.insert(path, now + PATIENCE);
    }

    /// Whether another thing may stand at `path` than was told last.
    pub(super) fn is_renewed(&self, path: &RelPath) -> bool {
        self.turns.get(path).and_then(|turn| self.waiting.get(turn)).is_some_and(|waiting| waiting.renewed)
    }

    /// When the first path is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes the paths that are to be looked at now, in order.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<RelPath> {
        let last = self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, turn)| *turn).max();
        let mut taken = Vec::new();
        while let Some(first) = self.waiting.first_entry()
            && last.is_some_and(|last| *first.key() <= last)
        {
            let (turn, waiting) = first.remove_entry();
            self.due.remove(&(waiting.due, turn));
            self.turns.remove(&waiting.path);
            taken.push(waiting.path);
        }
        taken
    }

    /// Takes all paths, in order.
    pub(super) fn take_all(&mut self) -> Vec<RelPath> {
        let waiting = std::mem::take(&mut self.waiting);
        self.due.clear();
        self.turns.clear();
        waiting.into_values().map(|waiting| waiting.path).collect()
    }

    /// Takes the paths at or below `path`, each with whether another thing may stand there now.
    pub(super) fn take_below(&mut self, path: &RelPath) -> Vec<(RelPath, bool)> {
        let below = self.waiting.iter().filter(|(_, waiting)| path.is_prefix_of(&waiting.path));
        let turns: Vec<u64> = below.map(|(turn, _)| *turn).collect();
        let taken = turns.into_iter().filter_map(|turn| {
            let waiting = self.waiting.remove(&turn)?;
            self.due.remove(&(waiting.due, turn));
            self.turns.remove(&waiting.path);
            Some((waiting.path, waiting.renewed))
        });
        taken.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_path_is_due_when_it_has_been_quiet() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.note(path("a"), false, start);
        pending.note(path("a"), false, start + ms(30));
        assert_eq!(pending.next_due(), Some(start + ms(80)));
        assert!(pending.take_due(start + ms(79)).is_empty());
        assert_eq!(pending.take_due(start + ms(80)), [path("a")]);
        assert_eq!(pending.next_due(), None);
    }

    #[test]
    fn a_path_that_never_is_quiet_waits_half_a_second() {
        let start = Instant::now();
        let mut pending = Pending::default();
        let mut told = Vec::new();
        for step in 0..200 {
            let now = start + ms(10 * step);
            if !pending.take_due(now).is_empty() {
                told.push(10 * step);
            }
            pending.note(path("a"), false, now);
        }
        assert_eq!(told, [500, 1_000, 1_500]);
    }

    #[test]
    fn a_file_that_was_saved_is_due_soon_and_not_so_soon_again() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.note(path("a"), true, start);
        pending.note_closed(path("a"), start + ms(10));
        assert_eq!(pending.take_due(start + ms(15)), [path("a")]);
        // Somebody who opens and closes it for each line.
        for at in [20, 30, 40] {
            pending.note_closed(path("a"), start + ms(at));
        }
        assert_eq!(pending.next_due(), Some(start + ms(90)));
        assert_eq!(pending.take_due(start + ms(90)), [path("a")]);
        pending.note_closed(path("a"), start + ms(600));
        assert_eq!(pending.next_due(), Some(start + ms(605)));
        // Whoever sets its time after that is waited for.
        pending.note(path("a"), false, start + ms(602));
        assert_eq!(pending.next_due(), Some(start + ms(652)));
    }

    #[test]
    fn a_file_that_is_saved_does_not_hasten_one_that_is_being_written() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.note_written(path("large"), start);
        pending.note_closed(path("small"), start + ms(10));
        assert_eq!(pending.next_due(), Some(start + ms(60)));
        pending.note_closed(path("large"), start + ms(20));
        pending.note_closed(path("another"), start + ms(20));
        assert_eq!(pending.next_due(), Some(start + ms(25)));
    }

    #[test]
    fn where_much_happens_all_of_it_is_looked_at_together() {
        let start = Instant::now();
        let mut pending = Pending::default();
        for file in 0..100 {
            pending.note(path(&format!("{file:03}")), true, start);
        }
        pending.note_closed(path("099"), start);
        assert_eq!(pending.next_due(), Some(start + ms(50)));
        assert_eq!(pending.take_due(start + ms(50)).len(), 100);
        assert!(pending.saved.is_empty());
    }

    /// When a file is due that is written every 10 ms for this many ms and then rests.
    fn due_while_written(
        while_written: WhileWritten,
        millis: u64,
        begin: impl FnOnce(&mut Pending, Instant),
    ) -> Vec<u64> {
        let start = Instant::now();
        let mut pending = Pending::new(while_written);
        begin(&mut pending, start);
        let mut told = Vec::new();
        for step in 0..1_000 {
            let now = start + ms(10 * step);
            if !pending.take_due(now).is_empty() {
                told.push(10 * step);
            }
            if 10 * step < millis {
                pending.note_written(path("a"), now);
            }
        }
        told
    }

    #[test]
    fn a_file_that_is_being_written_waits_until_it_rests_or_is_seen_meanwhile() {
        let created = |pending: &mut Pending, now| pending.note(path("a"), true, now);
        assert_eq!(due_while_written(WhileWritten::Held, 2_000, created), [2_990]);
        assert_eq!(due_while_written(WhileWritten::Held, 7_000, created), [5_000, 7_990], "but not for ever");
        assert_eq!(due_while_written(WhileWritten::Pushed, 1_000, created), [200, 400, 600, 800, 1_000]);
    }

    #[test]
    fn a_file_that_is_being_written_does_not_wait_if_somebody_wants_it_or_it_is_gone() {
        let wanted = due_while_written(WhileWritten::Held, 2_000, |pending, now| pending.note_wanted(path("a"), now));
        assert_eq!(wanted, [500, 2_990]);
        let wanted = due_while_written(WhileWritten::Pushed, 500, |pending, now| pending.note_wanted(path("a"), now));
        assert_eq!(wanted, [200, 400, 540], "that is no reason to wait for longer");
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.note_written(path("a"), start);
        pending.note(path("a"), true, start + ms(10));
        assert_eq!(pending.next_due(), Some(start + ms(60)));
    }

    #[test]
    fn a_file_that_is_being_written_goes_before_what_was_done_after_it() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.note_written(path("data"), start);
        pending.note(path("done"), true, start + ms(10));
        pending.note_written(path("data"), start + ms(50));
        assert_eq!(pending.take_due(start + ms(60)), [path("data"), path("done")]);
    }

    #[test]
    fn what_began_earlier_goes_first() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.note(path("data"), false, start);
        pending.note(path("done"), false, start + ms(10));
        pending.note(path("later"), false, start + ms(20));
        pending.note(path("data"), false, start + ms(50));
        assert_eq!(pending.take_due(start + ms(60)), [path("data"), path("done")]);
        assert_eq!(pending.take_all(), [path("later")]);
    }

    #[test]
    fn what_waits_below_a_directory_is_taken_alone() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.note(path("a/x"), true, start);
        pending.note(path("ab"), false, start);
        pending.note(path("a"), false, start + ms(10));
        assert!(pending.is_renewed(&path("a/x")));
        assert_eq!(pending.take_below(&path("a")), [(path("a/x"), true), (path("a"), false)]);
        assert!(!pending.is_renewed(&path("a/x")));
        assert_eq!(pending.take_due(start + ms(60)), [path("ab")]);
        assert_eq!(pending.next_due(), None);
    }
}
