//! Noticing that somebody goes through a tree and reads one small file after the other, and fetching what comes next.
//!
//! `cp -r`, `tar` and `grep -r` read a directory's files in the order of its listing, and go into the directories
//! between them as they come to them. A file of one chunk costs them a round trip, however small it is, unless it is
//! here before they open it.

use crate::chunk::CHUNK_SIZE;
use crate::content::Content;
use crate::engine::Engine;
use crate::ids::{ContentId, Ino};
use crate::kept::Opening;
use crate::output::{Effect, Output};
use crate::record::Kind;
use crate::time::Time;
use crate::timers::Timer;
use crate::tree::{Origin, Tree};
use core::time::Duration;
use std::collections::VecDeque;

/// How many walks are followed at once. One more, and one that has not got anywhere is forgotten.
const MAX_WALKS: usize = 8;

/// How many entries a walk may pass over, or come back by: `grep` leaves out what does not fit, and programs that read
/// with several threads overtake themselves.
const SLACK_ENTRIES: u64 = 16;

/// What one walk may have fetched ahead and not read yet, in bytes (8 MiB).
const WALK_BYTES: u64 = 16 * CHUNK_SIZE;

/// Of the space that what was fetched may take, what all that nobody has asked for yet may take is this part at most.
const CACHE_SHARE: u64 = 4;

/// Files fetched ahead in other directories than the one that is being read. Who reads all of a directory may stop at its
/// end; it is doubled each time that it goes on.
const BEYOND_DIR: usize = 16;

/// Entries that one read looks at, at most, to find files to fetch ahead: most may be empty, large or here.
const LOOKED_AT_ONCE: usize = 64;

/// How far from the last file read is looked for files to fetch ahead, in entries.
const LEAD_ENTRIES: u64 = 4096;

/// A walk that reads nothing for this long, although nothing keeps it waiting, has ended.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// The walks that are under way.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    walks: Vec<Walk>,
    /// When it is looked for walks that have ended. Not set if there is none that has anything fetched ahead.
    pub(crate) idle_at: Option<Time>,
}

/// Somebody who reads small files in the order of listings. Positions count the entries that it came by.
#[derive(Debug)]
struct Walk {
    /// The file that was read last.
    at: Ino,
    at_position: u64,
    read_at: Time,
    /// Files that were read, not counting the first, without those that were fetched ahead for nothing.
    run: usize,
    /// Files that were fetched ahead and passed over. They may still be read: readers overtake one another.
    passed_over: usize,
    /// How often it came into another directory.
    crossings: u32,
    /// The last entry that was looked at to be fetched ahead.
    reached: Ino,
    reached_position: u64,
    /// What was fetched ahead and not read yet, in order.
    ahead: VecDeque<Ahead>,
    ahead_bytes: u64,
}

/// A file that was fetched ahead, or is about to be.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    ino: Ino,
    dir: Ino,
    position: u64,
    content: ContentId,
    bytes: u64,
}

/// What a read is to a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is the next file, which has this position.
    Forward { position: u64 },
    /// It is one that was read before, or overtaken.
    Back,
}

impl Walk {
    fn new(at: Ino, now: Time) -> Walk {
        Walk {
            at,
            at_position: 0,
            read_at: now,
            run: 0,
            passed_over: 0,
            crossings: 0,
            reached: at,
            reached_position: 0,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
        }
    }

    /// What a read of `ino` is to this walk; `None` if it has nothing to do with it.
    fn step_to(&self, ino: Ino, tree: &Tree) -> Option<Step> {
        if self.at == ino {
            return Some(Step::Back);
        }
        if let Some(ahead) = self.ahead.iter().find(|ahead| ahead.ino == ino) {
            return Some(Step::Forward { position: ahead.position });
        }
        let mut next = self.at;
        for steps in 1..=SLACK_ENTRIES {
            let Some(entry) = tree.next_in_walk(next) else { break };
            if entry == ino {
                return Some(Step::Forward { position: self.at_position + steps });
            }
            next = entry;
        }
        let mut before = tree.siblings_before(self.at).zip(0..SLACK_ENTRIES.min(self.at_position));
        before.any(|(entry, _)| entry == ino).then_some(Step::Back)
    }

    /// The next file, `ino`, is read.
    fn advance(&mut self, ino: Ino, position: u64, tree: &Tree) {
        let passed = self.ahead.iter().take_while(|ahead| ahead.position <= position).count();
        let passed_over = self.ahead.drain(..passed).fold(0, |count, ahead| {
            self.ahead_bytes -= ahead.bytes;
            count + usize::from(ahead.ino != ino)
        });
        self.run = self.run.saturating_add(1).saturating_sub(passed_over);
        self.passed_over = self.passed_over.saturating_add(passed_over);
        self.crossings = self.crossings.saturating_add(u32::from(tree.dir_of(ino) != tree.dir_of(self.at)));
        (self.at, self.at_position) = (ino, position);
        let is_lost = tree.dir_of(self.reached).is_none();
        if is_lost || self.reached_position < position {
            (self.reached, self.reached_position) = (ino, position);
        }
    }

    /// A file that was overtaken is read.
    fn go_back(&mut self, ino: Ino) {
        if ino != self.at && self.passed_over > 0 {
            self.passed_over -= 1;
            self.run = self.run.saturating_add(1);
        }
    }

    /// Whether as much was fetched ahead as may be. A walk has to prove itself: there is nothing ahead of its first file,
    /// and never more than twice what it has read.
    fn is_full(&self, most_files: u32, most_bytes: u64) -> bool {
        let window = self.run.saturating_mul(2).min(most_files as usize);
        let is_far = self.reached_position - self.at_position >= LEAD_ENTRIES;
        self.ahead.len() >= window || self.ahead_bytes >= most_bytes || is_far
    }

    /// How many files may be fetched ahead in other directories than that of the last file read.
    fn window_beyond(&self) -> usize {
        BEYOND_DIR.saturating_mul(1_usize.checked_shl(self.crossings).unwrap_or(usize::MAX))
    }
}

impl Walks {
    /// For [`Engine::check`].
    pub(crate) fn check(&self) {
        assert!(self.walks.len() <= MAX_WALKS, "{} walks are followed", self.walks.len());
        for walk in &self.walks {
            let bytes: u64 = walk.ahead.iter().map(|ahead| ahead.bytes).sum();
            assert_eq!(walk.ahead_bytes, bytes, "what is fetched ahead of a walk is miscounted");
            assert!(walk.ahead.is_empty() || self.idle_at.is_some(), "a walk that does not go on never ends");
        }
    }
}

impl Engine {
    /// A file is read from its first byte on. Queues what comes next, if it is one of several small files that are read
    /// one after the other.
    pub(crate) fn walk_on(&mut self, ino: Ino, out: &mut Vec<Output>) {
        if self.config.walk_ahead_files == 0 || self.stopping {
            return;
        }
        let is_small = self.tree.get(ino).is_some_and(|node| node.record.size_bytes() <= CHUNK_SIZE);
        if !is_small {
            return;
        }
        let now = self.now;
        let steps = self.walks.walks.iter().enumerate();
        let found = steps.filter_map(|(index, walk)| Some((index, walk.step_to(ino, &self.tree)?))).next();
        let Some((index, step)) = found else { return self.begin_walk(ino, out) };
        let Some(walk) = self.walks.walks.get_mut(index) else { return };
        walk.read_at = now;
        match step {
            Step::Forward { position } => walk.advance(ino, position, &self.tree),
            Step::Back => walk.go_back(ino),
        }
        self.extend_walk(index, out);
    }

    fn begin_walk(&mut self, ino: Ino, out: &mut Vec<Output>) {
        let walks = &self.walks.walks;
        if walks.len() >= MAX_WALKS {
            // `false` comes first: one that has only begun may be a read here and there.
            let least = walks.iter().enumerate().min_by_key(|(_, walk)| (walk.run > 0, walk.read_at));
            if let Some(index) = least.map(|(index, _)| index) {
                self.end_walk(index, out);
            }
        }
        self.walks.walks.push(Walk::new(ino, self.now));
    }

    /// Queues the files that come next, as many as may be.
    fn extend_walk(&mut self, index: usize, out: &mut Vec<Output>) {
        let most_files = self.config.walk_ahead_files;
        let most_bytes = self.config.cache_bytes.map_or(WALK_BYTES, |limit| WALK_BYTES.min(limit / CACHE_SHARE));
        let Some(walk) = self.walks.walks.get(index) else { return };
        let here = self.tree.dir_of(walk.at);
        let mut beyond = walk.ahead.iter().filter(|ahead| Some(ahead.dir) != here).count();
        for _ in 0..LOOKED_AT_ONCE {
            let Some(walk) = self.walks.walks.get(index) else { return };
            let Some(next) = self.tree.next_in_walk(walk.reached) else { break };
            let dir = self.tree.dir_of(next);
            let is_beyond = dir != here;
            if walk.is_full(most_files, most_bytes) || is_beyond && beyond >= walk.window_beyond() {
                break;
            }
            let fetched = self.fetch_ahead_of_walk(next, out);
            let Some(walk) = self.walks.walks.get_mut(index) else { return };
            walk.reached = next;
            walk.reached_position += 1;
            if let Some((dir, (content, bytes))) = dir.zip(fetched) {
                beyond += usize::from(is_beyond);
                walk.ahead.push_back(Ahead { ino: next, dir, position: walk.reached_position, content, bytes });
                walk.ahead_bytes += bytes;
            }
        }
        self.look_for_idle_walks();
    }

    /// Queues all of a small file. `None` if there is nothing to fetch of it, or somebody sees to that already.
    fn fetch_ahead_of_walk(&mut self, ino: Ino, out: &mut Vec<Output>) -> Option<(ContentId, u64)> {
        let node = self.tree.get(ino)?;
        let (Kind::File { size_bytes, .. }, Origin::Peer(peer)) = (&node.record.kind, node.origin) else { return None };
        let size_bytes = *size_bytes;
        if !(1..=CHUNK_SIZE).contains(&size_bytes) || node.content.is_some() || self.link_to(peer).is_none() {
            return None;
        }
        // What the store holds from an earlier life is as good as here.
        let is_held = self.identity_of(ino).is_some_and(|identity| self.cache.holds(&identity.key()));
        if is_held {
            return None;
        }
        let content = self.content_of(ino, out)?;
        self.queue(content, 0);
        Some((content, size_bytes))
    }

    /// Sets the timer that looks for walks that have ended, if there are any that may.
    fn look_for_idle_walks(&mut self) {
        let has_any = self.walks.walks.iter().any(|walk| !walk.ahead.is_empty());
        if has_any && self.walks.idle_at.is_none() {
            let at = self.now + IDLE_AFTER;
            self.walks.idle_at = Some(at);
            self.timers.set(at, Timer::WalkIdle);
        }
    }

    pub(crate) fn on_walk_idle(&mut self, out: &mut Vec<Output>) {
        self.walks.idle_at = None;
        for index in (0..self.walks.walks.len()).rev() {
            let walk = &self.walks.walks[index];
            let waits = |ino: Ino| {
                let content = self.tree.get(ino).and_then(|node| self.contents.get(&node.content?));
                content.is_some_and(|content| !content.waiters.is_empty())
            };
            let is_waiting = waits(walk.at) || walk.ahead.iter().any(|ahead| waits(ahead.ino));
            if !is_waiting && walk.read_at + IDLE_AFTER <= self.now {
                self.end_walk(index, out);
            }
        }
        self.look_for_idle_walks();
    }

    /// A walk has ended: what is still on its way for nobody is given up.
    fn end_walk(&mut self, index: usize, out: &mut Vec<Output>) {
        for Ahead { content, .. } in self.walks.walks.swap_remove(index).ahead {
            self.give_up_unread(content, out);
        }
    }

    /// Nothing can be fetched ahead now. Who reads on begins anew.
    pub(crate) fn end_walks(&mut self, out: &mut Vec<Output>) {
        while !self.walks.walks.is_empty() {
            self.end_walk(0, out);
        }
        if let Some(at) = self.walks.idle_at.take() {
            self.timers.unset(at, Timer::WalkIdle);
        }
    }

    fn give_up_unread(&mut self, id: ContentId, out: &mut Vec<Output>) {
        let is_on_its_way = |content: &Content| content.opening == Opening::Done && !content.chunks.is_empty();
        if self.contents.get(&id).is_some_and(is_on_its_way) && !self.is_of_use(id) {
            self.abandon_fetches(id, out);
            self.effect_unreported(Effect::CloseStreams { content: id }, out);
        }
    }
}
