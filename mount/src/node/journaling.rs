//! Noting what changes of what is known of a share that is kept in a folder, before anybody is told of it: so whoever is killed
//! knows in the next life all that it has told, and where it stood in the events of its peers.
//!
//! Under the lock what has changed is only taken; the disk is waited for without it, by whoever is about to tell. Of what nobody is
//! told yet, a task takes care, and of what it takes a whole copy to shorten.

use super::Node;
use farshore_engine::{Changes, Collected, Memory, Remembering as Collecting};
use farshore_proto::ShareId;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

/// So soon what has changed is noted, if nobody is told of it before.
const NOTED_WITHIN: Duration = Duration::from_millis(200);

/// The time between two looks at whether something is to be made durable, or copied.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The pause after a copy that could not be made is doubled so often at most: it is tried every ten minutes then.
const MOST_DOUBLINGS: u32 = 7;

/// For so much of the time at most, one part in so many, this is done.
const MOST_OF_THE_TIME: u32 = 20;

/// So many entries are copied at once under the lock: a millisecond or less.
const AT_ONCE: usize = 4_096;

/// How often what is known is collected anew when something happens that makes a collection worthless.
const MOST_ATTEMPTS: usize = 3;

/// What is noted of a share.
pub(super) struct Journaling {
    share: ShareId,
    /// Rung when something has changed.
    news: Arc<Notify>,
    /// Held by who notes: who comes next waits until what was taken before is written.
    noted: Arc<Mutex<Noted>>,
    /// Held by who writes down all: before what is noted is locked.
    copied: Mutex<()>,
}

#[derive(Default)]
struct Noted {
    /// Something was noted in this life, or in one before that has not copied it.
    is_used: bool,
    /// Something was noted since it was made durable.
    is_undurable: bool,
    /// It is time for a copy.
    wants_copy: bool,
    /// So many copies could not be made one after the other.
    failed_copies: u32,
    /// Before that, none is tried again.
    retry_at: Option<Instant>,
    /// The disk has refused something, and that was told.
    is_failing: bool,
    /// Nothing is written any more.
    is_over: bool,
}

/// What is known at a moment.
struct Known {
    memory: Memory,
    /// What of it is not noted.
    changes: Changes,
    /// The right to note what changes from then on.
    noted: OwnedMutexGuard<Noted>,
}

impl Journaling {
    pub(super) fn new(share: ShareId) -> Journaling {
        Journaling { share, news: Arc::default(), noted: Arc::default(), copied: Mutex::default() }
    }

    pub(super) fn note_news(&self) {
        self.news.notify_one();
    }
}

impl Noted {
    /// Whether a copy is to be made now.
    fn is_copy_due(&self, now: Instant) -> bool {
        self.wants_copy && self.retry_at.is_none_or(|at| at <= now)
    }

    /// A copy was made, or could not be. Each try begins a journal and looks at all there is: so the pauses become longer.
    fn note_copy(&mut self, is_saved: bool, now: Instant) {
        self.wants_copy |= !is_saved;
        self.failed_copies = if is_saved { 0 } else { self.failed_copies.saturating_add(1) };
        let pause = LOOK_INTERVAL.saturating_mul(1 << self.failed_copies.min(MOST_DOUBLINGS));
        self.retry_at = (!is_saved).then(|| now + pause);
    }

    fn note(&mut self, noted: std::io::Result<bool>) {
        self.is_used = true;
        self.is_undurable = true;
        match noted {
            Ok(wants_copy) => self.wants_copy |= wants_copy,
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(
                        "what changes cannot be written down: {error}; it is tried again, and whoever is killed until then has to \
                         compare the folder with its peers"
                    );
                }
                self.wants_copy = true;
            }
        }
    }
}

impl Node {
    /// What an earlier life has noted, and not copied, is for this one to look after, also if it has nothing to note.
    pub(super) fn begin_journaling(&self) {
        let Some(journaling) = &self.journaling else { return };
        // Nobody notes yet.
        if let Ok(mut noted) = journaling.noted.try_lock() {
            noted.is_used = !self.store.is_copied(journaling.share);
            noted.is_undurable = noted.is_used;
        }
    }

    /// Notes what has changed. When it returns, all that the engine knew before is written, or cannot be.
    pub(super) async fn note_changes(&self) {
        let Some(journaling) = &self.journaling else { return };
        let noted = journaling.noted.clone().lock_owned().await;
        if noted.is_over || !self.view(|view| view.has_changes()) {
            return;
        }
        let Some(node) = self.this.upgrade() else { return };
        // To its end, also if nobody waits for it any more: what was taken is nowhere else.
        let written = self.runtime.spawn(async move {
            let mut noted = noted;
            let changes = node.lock().engine.take_changes();
            node.write_changes(&mut noted, changes).await;
        });
        // It ends early only with the runtime.
        let _ended = written.await;
    }

    async fn write_changes(&self, noted: &mut Noted, changes: Changes) {
        let Some(journaling) = self.journaling.as_ref().filter(|_| !changes.is_empty()) else { return };
        noted.note(self.store.note(journaling.share, changes).await);
    }

    /// Makes durable what was noted, if anything was.
    async fn sync_journal(&self, journaling: &Journaling) {
        if !std::mem::take(&mut journaling.noted.lock().await.is_undurable) {
            return;
        }
        let synced = self.store.sync_journal(journaling.share).await;
        let mut noted = journaling.noted.lock().await;
        match synced {
            Ok(wants_copy) => noted.wants_copy |= wants_copy,
            Err(error) => {
                tracing::warn!("what was written down of the share may not survive a power failure: {error}");
                noted.is_undurable = true;
            }
        }
    }

    /// Writes down all that is known, if that is possible now. Says whether it did.
    async fn copy_memory(&self, journaling: &Journaling) -> bool {
        let _copied = journaling.copied.lock().await;
        let Some(Known { memory, changes, mut noted }) = self.known_memory(journaling).await else { return false };
        // It is in the copy; until that is there it has to be noted all the same.
        self.write_changes(&mut noted, changes).await;
        let number = self.store.begin_journal(journaling.share).await;
        noted.wants_copy = false;
        drop(noted);
        let saved = match number {
            Ok(number) => self.store.save_memory(journaling.share, number, memory).await,
            Err(error) => Err(error),
        };
        let mut noted = journaling.noted.lock().await;
        noted.note_copy(saved.is_ok(), Instant::now());
        let was_failing = std::mem::replace(&mut noted.is_failing, saved.is_err());
        if let (Err(error), false) = (&saved, was_failing) {
            tracing::warn!("what is known of the share cannot be written down for a later start: {error}");
        }
        saved.is_ok()
    }

    /// All that is known of the folder, if that is whole.
    async fn known_memory(&self, journaling: &Journaling) -> Option<Known> {
        for _ in 0..MOST_ATTEMPTS {
            let mut part = self.view(|view| view.begin_memory())?;
            loop {
                let noted = journaling.noted.clone().lock_owned().await;
                let (collected, changes) = self.collect_memory(part);
                part = match collected {
                    Collected::Part(part) => part,
                    Collected::Whole(memory) => return Some(Known { memory, changes, noted }),
                    Collected::Overtaken => break,
                };
                drop(noted);
                yield_now().await;
            }
        }
        // Something happens all the time: then at once, or what is noted would grow without end.
        let noted = journaling.noted.clone().lock_owned().await;
        let (memory, changes) = self.memory_now()?;
        Some(Known { memory, changes, noted })
    }

    /// Looks at some more of what is known. If that is all, with what of it is not noted.
    fn collect_memory(&self, part: Collecting) -> (Collected<Collecting, Memory>, Changes) {
        let mut core = self.lock();
        let collected = core.engine.view().collect_memory(part, AT_ONCE);
        let is_whole = matches!(collected, Collected::Whole(_));
        let changes = if is_whole { core.engine.take_changes() } else { Changes::default() };
        (collected, changes)
    }

    /// All that is known at this moment, with what of it is not noted.
    fn memory_now(&self) -> Option<(Memory, Changes)> {
        let mut core = self.lock();
        let memory = core.engine.view().memory()?;
        Some((memory, core.engine.take_changes()))
    }

    /// Writes down all that is known at the end, and nothing after that.
    pub(super) async fn end_journaling(&self) {
        let Some(journaling) = &self.journaling else { return };
        self.note_changes().await;
        let is_used = journaling.noted.lock().await.is_used;
        if is_used && !self.copy_memory(journaling).await {
            self.sync_journal(journaling).await;
        }
        journaling.noted.lock().await.is_over = true;
        // The task looks whether there is anything left to do.
        journaling.note_news();
    }
}

/// Notes what has changed and nobody was told of, until the node is gone or has ended.
pub(super) async fn run_noting(node: Weak<Node>) {
    let Some(news) = node.upgrade().and_then(|node| Some(node.journaling.as_ref()?.news.clone())) else { return };
    loop {
        // Not held while it waits: a node that nobody else holds goes.
        news.notified().await;
        sleep(NOTED_WITHIN).await;
        let Some(node) = node.upgrade() else { return };
        if node.lock().has_ended {
            return;
        }
        node.note_changes().await;
    }
}

/// Makes durable what was noted, and copies all when that has become long, until the node is gone or has ended.
pub(super) async fn run_copying(node: Weak<Node>) {
    let mut pause = LOOK_INTERVAL;
    loop {
        sleep(pause).await;
        let Some(node) = node.upgrade() else { return };
        let Some(journaling) = node.journaling.as_ref().filter(|_| !node.lock().has_ended) else { return };
        let began = Instant::now();
        let is_copy_due = journaling.noted.lock().await.is_copy_due(began);
        if is_copy_due {
            node.copy_memory(journaling).await;
        }
        node.sync_journal(journaling).await;
        pause = LOOK_INTERVAL.max(began.elapsed() * MOST_OF_THE_TIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_cannot_be_made_is_tried_less_and_less_often() {
        let (mut noted, mut now) = (Noted::default(), Instant::now());
        assert!(!noted.is_copy_due(now), "there is nothing to copy");
        let mut pauses = Vec::new();
        for _ in 0..9 {
            noted.note_copy(false, now);
            pauses.push(noted.retry_at.unwrap() - now);
            assert!(!noted.is_copy_due(now));
            now = noted.retry_at.unwrap();
            assert!(noted.is_copy_due(now));
        }
        let seconds: Vec<u64> = pauses.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 320, 640, 640, 640]);
        noted.wants_copy = false;
        noted.note_copy(true, now);
        assert!(!noted.is_copy_due(now));
        noted.wants_copy = true;
        assert!(noted.is_copy_due(now), "nothing is left of the pauses");
    }
}
