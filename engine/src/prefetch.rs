//! Whole files that are fetched although nobody waits for them: those that are pinned, and, if that is set, those that
//! are opened. A few at a time, and always behind what somebody waits for.

use crate::chunk::CHUNK_SIZE;
use crate::content::Content;
use crate::engine::Engine;
use crate::folder::stamp_of;
use crate::ids::{ContentId, Ino};
use crate::input::FetchError;
use crate::output::{Effect, Output};
use crate::path::RelPath;
use crate::record::Stamp;
use crate::replica::NOBODY;
use crate::time::Time;
use crate::timers::Timer;
use crate::tree::Origin;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Files that one step looks at, at most, to find one that has to be fetched.
const LOOKED_AT_ONCE: usize = 256;

/// The pause until the next are looked at: others have their turn.
const REST_AFTER: Duration = Duration::from_millis(1);

/// How long a file that could not be had is left alone: nobody waits for it, and nobody else would try again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How long a file is left alone of which nobody has all bytes yet: at first, and, if it is so again and again, at most.
const NOT_YET_AGAIN_AFTER: Duration = Duration::from_secs(1);
const NOT_YET_AGAIN_AT_MOST: Duration = Duration::from_secs(60);

/// How often something could not be had until it is asked for under another name.
const ELSEWHERE_AFTER: u32 = 3;

/// Files to be fetched whole.
#[derive(Debug, Default)]
pub(crate) struct Prefetch {
    /// Those that are being fetched: at most [`crate::Config::max_prefetches`] that have more than one chunk, and at most
    /// [`crate::Config::max_small_prefetches`] in all, if that is more.
    active: BTreeSet<ContentId>,
    /// Those of them that have more than one chunk.
    large: BTreeSet<ContentId>,
    /// Those whose turn has not come, each once. One that is gone, or here, when it comes is passed over.
    queue: VecDeque<Ino>,
    queued: BTreeSet<Ino>,
    /// When the rest of the queue is looked at, if it was too long for one step.
    pub(crate) rest_at: Option<Time>,
    /// Those that could not be had, and when they are queued again.
    given_up: BTreeSet<Ino>,
    pub(crate) again_at: Option<Time>,
    /// How often in a row that came to nothing.
    pub(crate) in_vain: u32,
    /// Other entries that have the bytes of those that could not be had again and again.
    elsewhere: BTreeMap<Stamp, Ino>,
    /// Those whose bytes our own folder has under another name, from which they are to be renamed.
    passed: BTreeMap<Stamp, BTreeSet<Ino>>,
}

impl Prefetch {
    fn push_back(&mut self, ino: Ino) {
        if self.queued.insert(ino) {
            self.queue.push_back(ino);
        }
    }

    fn begin(&mut self, id: ContentId, is_large: bool) {
        self.active.insert(id);
        if is_large {
            self.large.insert(id);
        }
    }

    fn end(&mut self, id: ContentId) -> bool {
        self.large.remove(&id);
        self.active.remove(&id)
    }

    /// Those that are being fetched.
    pub(crate) fn active(&self) -> impl Iterator<Item = ContentId> {
        self.active.iter().copied()
    }

    fn pop_front(&mut self) -> Option<Ino> {
        let ino = self.queue.pop_front()?;
        self.queued.remove(&ino);
        Some(ino)
    }
}

impl Engine {
    /// Has every file at and below an entry fetched.
    pub(crate) fn prefetch_below(&mut self, top: Ino) {
        for ino in self.tree.within(top) {
            if self.identity_of(ino).is_some() {
                self.prefetch.push_back(ino);
            }
        }
    }

    /// Has a file fetched before those that only are pinned.
    pub(crate) fn prefetch_first(&mut self, ino: Ino) {
        if self.prefetch.queued.insert(ino) {
            self.prefetch.queue.push_front(ino);
        }
    }

    /// Has every file at and below an entry fetched if that is pinned: it is new there, or its bytes are.
    pub(crate) fn prefetch_if_pinned(&mut self, ino: Ino) {
        if (self.cache.has_pins() || self.config.keeps_folder) && self.is_pinned_now(ino) {
            self.prefetch_below(ino);
        }
    }

    /// A peer is there (again): what could not be had is tried at once.
    pub(crate) fn prefetch_again_at_once(&mut self) {
        if let Some(at) = self.prefetch.again_at {
            self.timers.unset(at, Timer::PrefetchAgain);
            self.on_prefetch_again();
        }
        self.prefetch.in_vain = 0;
    }

    /// Whether one more file may be fetched whole beside so many, so many of which have more than one chunk. A file of one
    /// chunk costs a round trip as a large one does, and hardly anything else.
    pub(crate) fn may_be_fetched_whole(&self, large: usize, all: usize) -> bool {
        let most = self.config.max_prefetches;
        large < most && all < self.config.max_small_prefetches.max(most)
    }

    /// Whether a file has more than one chunk.
    pub(crate) fn is_large(&self, id: ContentId) -> bool {
        self.contents.get(&id).is_none_or(|content| content.size_bytes > CHUNK_SIZE)
    }

    /// Takes files off the queue while there are fewer under way than may be.
    pub(crate) fn fill_prefetch(&mut self, out: &mut Vec<Output>) {
        let mut looked_at = 0;
        while self.may_be_fetched_whole(self.prefetch.large.len(), self.prefetch.active.len())
            && self.prefetch.rest_at.is_none()
        {
            looked_at += 1;
            if looked_at > LOOKED_AT_ONCE && !self.prefetch.queue.is_empty() {
                let at = self.now + REST_AFTER;
                self.prefetch.rest_at = Some(at);
                return self.timers.set(at, Timer::Prefetch);
            }
            let Some(ino) = self.prefetch.pop_front() else { return };
            let wanted = self.tree.get(ino).is_some_and(|node| node.opens.count() > 0 && self.config.prefetch_on_open)
                || self.is_pinned_now(ino);
            // Of what is remembered, and nobody is there who may have it, there is nothing to be fetched yet.
            let is_orphan = self.tree.get(ino).is_some_and(|node| node.origin == Origin::Peer(NOBODY));
            if !wanted || is_orphan {
                continue;
            }
            if let Some(stamp) = self.stamp_in_folder(ino) {
                self.prefetch.passed.entry(stamp).or_default().insert(ino);
                continue;
            }
            let Some(id) = self.content_of(ino, out) else { continue };
            if self.contents.get(&id).is_some_and(Content::is_complete) {
                continue;
            }
            if self.config.keeps_folder && self.source_of(id, true).is_none() {
                // Others may be there who have something else.
                self.prefetch_later(ino, FetchError::NotYet);
                self.note_empty(id);
                continue;
            }
            self.prefetch.begin(id, self.is_large(id));
        }
    }

    /// Our folder has lost these bytes: who was to get them from there has to fetch them.
    pub(crate) fn prefetch_passed(&mut self, stamp: Stamp) {
        for ino in self.prefetch.passed.remove(&stamp).unwrap_or_default() {
            self.prefetch.push_back(ino);
        }
    }

    /// Whether a content is being fetched whole for nobody in particular.
    pub(crate) fn is_prefetched(&self, id: ContentId) -> bool {
        self.prefetch.active.contains(&id)
    }

    /// A content cannot be had now. If it is pinned, it is tried again later; what is only open has whoever reads it. Nobody
    /// else may be there to close what was opened for it.
    pub(crate) fn give_up_prefetch(&mut self, id: ContentId, error: FetchError, out: &mut Vec<Output>) {
        if !self.prefetch.end(id) {
            return;
        }
        if let Some(ino) = self.contents.get(&id).map(|content| content.ino) {
            self.prefetch_later(ino, error);
        }
        if !self.is_open(id) {
            self.effect_unreported(Effect::CloseStreams { content: id }, out);
        }
    }

    fn prefetch_later(&mut self, ino: Ino, error: FetchError) {
        if !self.is_pinned_now(ino) {
            return;
        }
        self.prefetch.given_up.insert(ino);
        let not_yet = NOT_YET_AGAIN_AFTER.saturating_mul(1 << self.prefetch.in_vain.min(6)).min(NOT_YET_AGAIN_AT_MOST);
        let at = self.now + if error == FetchError::NotYet { not_yet } else { AGAIN_AFTER };
        if self.prefetch.again_at.is_none_or(|again_at| again_at > at) {
            if let Some(later) = self.prefetch.again_at.replace(at) {
                self.timers.unset(later, Timer::PrefetchAgain);
            }
            self.timers.set(at, Timer::PrefetchAgain);
        }
    }

    /// What only waits for a peer that is away gives its place to what others have.
    pub(crate) fn let_others_be_prefetched(&mut self, out: &mut Vec<Output>) {
        let is_stuck = |id: &ContentId| {
            let is_waited_for = self.contents.get(id).is_some_and(|content| !content.waiters.is_empty());
            !is_waited_for && self.source_of(*id, true).is_none()
        };
        let stuck: Vec<ContentId> = self.prefetch.active.iter().copied().filter(is_stuck).collect();
        for id in stuck {
            self.give_up_prefetch(id, FetchError::NotYet, out);
            if !self.is_open(id) {
                self.abandon_fetches(id, out);
            }
            self.note_empty(id);
        }
    }

    /// What could not be had is queued again. What nobody wants any more is passed over when its turn comes.
    pub(crate) fn on_prefetch_again(&mut self) {
        self.prefetch.in_vain = self.prefetch.in_vain.saturating_add(1);
        self.prefetch.again_at = None;
        if self.prefetch.in_vain >= ELSEWHERE_AFTER {
            self.look_elsewhere();
        }
        for ino in std::mem::take(&mut self.prefetch.given_up) {
            self.prefetch.push_back(ino);
        }
    }

    /// Looks for other entries with the bytes of those that nobody has under the name that they have here: whoever gave them that
    /// name may not have had them, and who had them may have them under another one.
    fn look_elsewhere(&mut self) {
        let given_up = &self.prefetch.given_up;
        let wanted: BTreeSet<Stamp> = given_up.iter().filter_map(|ino| stamp_of(self.tree.get(*ino)?)).collect();
        let others = self.tree.iter().filter(|(ino, _)| !given_up.contains(ino));
        let others =
            others.filter_map(|(ino, node)| Some((stamp_of(node).filter(|stamp| wanted.contains(stamp))?, ino)));
        self.prefetch.elsewhere = others.collect();
    }

    /// Another path with these bytes, if they could not be had again and again under the one that they are wanted at.
    pub(crate) fn elsewhere(&self, stamp: Stamp) -> Option<RelPath> {
        let ino = *self.prefetch.elsewhere.get(&stamp)?;
        self.tree.get(ino).filter(|node| stamp_of(node) == Some(stamp)).and_then(|_| self.tree.path_of(ino))
    }

    /// A content is whole, or gone, or cannot be had.
    pub(crate) fn stop_prefetch(&mut self, id: ContentId) {
        self.prefetch.end(id);
        self.note_empty(id);
    }

    /// The last handle on a content was released: it is fetched on only if it is pinned. Returns whether it is.
    pub(crate) fn prefetch_goes_on(&mut self, id: ContentId) -> bool {
        let pinned = self.contents.get(&id).is_some_and(|content| self.is_pinned_now(content.ino));
        if !pinned {
            self.stop_prefetch(id);
        }
        pinned && self.is_prefetched(id)
    }

    /// Ends what was under way only because of a pin that is not there any more.
    pub(crate) fn stop_unpinned(&mut self, out: &mut Vec<Output>) {
        let unused = |id: &ContentId| {
            let ino = self.contents.get(id).map(|content| content.ino);
            ino.is_some_and(|ino| {
                !self.is_pinned_now(ino) && self.tree.get(ino).is_some_and(|node| node.opens.count() == 0)
            })
        };
        let ended: Vec<ContentId> = self.prefetch.active.iter().copied().filter(unused).collect();
        for id in ended {
            self.stop_prefetch(id);
            self.abandon_fetches(id, out);
            self.effect_unreported(Effect::CloseStreams { content: id }, out);
        }
    }

    pub(crate) fn end_prefetch(&mut self) {
        self.prefetch = Prefetch::default();
    }

    /// Whether an entry has a name that is pinned, or our own folder has another version of it, which it takes the place of.
    pub(crate) fn is_pinned_now(&self, ino: Ino) -> bool {
        let stays = |path| self.cache.is_pinned(&path) || self.replica.folder.behind.contains(&path);
        self.tree.path_of(ino).is_some_and(stays)
    }
}
