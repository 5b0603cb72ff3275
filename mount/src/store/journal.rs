//! What is remembered of a share, as a store keeps it: a whole copy, and journals that follow it and say what has changed since.
//!
//! A new journal is begun before each copy is made, so that nobody waits for the copy who has something to note: what is in the
//! copies and journals before is needed until it is durable, and not longer. After a kill all that was noted counts. After the
//! machine has stopped, only what had been made durable with all that it says of the folder does: of the rest nobody knows what
//! the folder has kept, and what is not in it would look as if it had been removed.

use farshore_engine::{Changes, Memory};
use farshore_proto::tree_file::MAX_TREE_BYTES;
use farshore_proto::{
    Boot, JournalError, JournalFile, JournalHeader, MemoryFileError, ShareId, decode_memory, encode_changes,
    encode_mark,
};
use std::collections::BTreeMap;
use std::io;

/// Journals that are longer than half of the copy that they follow are replaced by a new one, unless they are shorter than this.
const LEAST_BYTES: u64 = 4 << 20;

/// What is noted when a journal is longer than this is in the next one: so none becomes too long to be read, also if no copy can be
/// made.
const MOST_BYTES: u64 = MAX_TREE_BYTES / 4;

/// So many journals are replaced by a copy in any case: each life begins one.
const MOST_JOURNALS: u64 = 16;

/// Why what was written down cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecallError {
    /// The copy breaks a rule.
    #[error("what was written down as a whole cannot be used: {0}")]
    Memory(#[from] MemoryFileError),
    /// A journal does.
    #[error("what was noted since then cannot be used: {0}")]
    Journal(#[from] JournalError),
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is known of the journals that follow the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Journals {
    share: ShareId,
    boot: Boot,
    /// The first one that follows the copy.
    first: u64,
    /// The one that is written, or that will be.
    number: u64,
    /// How many bytes of the one before that count.
    follows_bytes: u64,
    /// Bytes in the one that is written; 0 if it has not been begun.
    len_bytes: u64,
    /// Bytes in those before.
    before_bytes: u64,
    /// How long the copy is.
    copy_bytes: u64,
    /// The last one in which something could not be noted: only a copy helps that is followed by later ones.
    lost: Option<u64>,
    /// What lies there says where the device stood, which does not count, and nothing there says that yet.
    drops_standings: bool,
}

/// What is remembered, and where it is gone on.
pub(super) struct Recalled {
    pub(super) journals: Journals,
    /// `None` if nothing was ever written down.
    pub(super) memory: Option<Memory>,
}

impl Journals {
    /// The journals of a share of which nothing can be used that was written down, the last of it in a journal with this number.
    pub(super) fn anew(share: ShareId, boot: Boot, last: u64) -> Journals {
        Journals {
            share,
            boot,
            first: last,
            number: last.saturating_add(1),
            follows_bytes: 0,
            len_bytes: 0,
            before_bytes: 0,
            copy_bytes: 0,
            lost: Some(last),
            drops_standings: false,
        }
    }

    /// What is remembered of `share`: the copy, and the journals by their numbers. `was_closed` if the store was closed by whoever
    /// had it before.
    ///
    /// # Errors
    /// Why nothing of it can be used.
    pub(super) fn recall(
        share: ShareId,
        boot: Boot,
        was_closed: bool,
        copy: Option<Vec<u8>>,
        files: &BTreeMap<u64, Vec<u8>>,
    ) -> Result<Recalled, RecallError> {
        let copy_bytes = copy.as_ref().map_or(0, Vec::len) as u64;
        let is_new = copy.is_none() && files.is_empty();
        let (first, memory) = copy.map(|bytes| decode_memory(&bytes, share)).transpose()?.unwrap_or_default();
        let is_running = |header: JournalHeader| header.boot == boot && boot != Boot::UNKNOWN;
        let Chain { journals, is_all } = Chain::of(share, first, files, is_running);
        let mut changes = Changes::default();
        let mut before_bytes = 0;
        for (journal, until) in &journals {
            changes.extend(journal.changes(*until)?);
            before_bytes += until;
        }
        let is_same_boot = journals.last().is_some_and(|(journal, _)| is_running(journal.header()));
        // Whoever may have told more than is known here is not told that again.
        let knows_what_was_told = is_all && (is_same_boot || was_closed);
        let memory = if changes.is_empty() { memory } else { memory.after(changes).map_err(JournalError::Share)? };
        let drops_standings = !knows_what_was_told && !memory.standings().is_empty();
        let memory = if drops_standings { memory.without_standings() } else { memory };
        let follows_bytes = journals.last().map_or(0, |(_, until)| *until);
        let number = first + journals.len() as u64;
        let journals = Journals {
            share,
            boot,
            first,
            number,
            follows_bytes,
            len_bytes: 0,
            before_bytes,
            copy_bytes,
            lost: None,
            drops_standings,
        };
        Ok(Recalled { journals, memory: (!is_new).then_some(memory) })
    }

    pub(super) fn share(&self) -> ShareId {
        self.share
    }

    /// The number of the journal that is written, or will be.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes it has.
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The bytes that it begins with, if it has not been begun: also that where the device stood before does not count, if it
    /// does not. Otherwise the next life would believe it.
    ///
    /// # Errors
    /// As for [`Journals::frame_of`].
    pub(super) fn beginning(&self) -> io::Result<Option<Vec<u8>>> {
        if self.len_bytes > 0 {
            return Ok(None);
        }
        let Journals { share, number, boot, .. } = *self;
        // Behind what is missing, nothing counts.
        let is_behind = self.lost.is_some_and(|lost| lost < number && lost >= self.first);
        let follows_bytes = if is_behind { u64::MAX } else { self.follows_bytes };
        let mut beginning = JournalHeader { share, number, follows_bytes, boot }.encode();
        if self.drops_standings {
            beginning.extend(frame(&Changes { standings: Some(BTreeMap::new()), ..Changes::default() })?);
        }
        Ok(Some(beginning))
    }

    /// The bytes that are to be appended to note changes.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] if they are too many, and if something could not be noted before.
    pub(super) fn frame_of(&self, changes: &Changes) -> io::Result<Vec<u8>> {
        if self.lost == Some(self.number) {
            return Err(io::Error::other("what was to be noted before could not be"));
        }
        frame(changes)
    }

    /// The bytes that are to be appended when so many of journal `number` were made durable; `None` if that is not written any
    /// more.
    pub(super) fn mark_of(&self, number: u64, durable_bytes: u64) -> Option<Vec<u8>> {
        let is_so = number == self.number && durable_bytes > 0 && self.lost != Some(number);
        is_so.then(|| encode_mark(durable_bytes))
    }

    /// So many bytes were appended.
    pub(super) fn note_appended(&mut self, bytes: usize) {
        self.len_bytes += bytes as u64;
        self.drops_standings = false;
    }

    /// Nobody knows what was appended, or nothing was. Returns which journal is to end there and be one byte longer, which looks
    /// cut off to the next life, and takes no room on a full disk; `None` if one does already, or there is none.
    pub(super) fn note_failed(&mut self) -> Option<(u64, u64)> {
        if self.lost.replace(self.number) == Some(self.number) {
            return None;
        }
        match self.len_bytes {
            0 => (self.number > self.first && self.follows_bytes > 0).then(|| (self.number - 1, self.follows_bytes)),
            len_bytes => Some((self.number, len_bytes)),
        }
    }

    /// Whether what comes next has to be in the next journal.
    pub(super) fn is_full(&self) -> bool {
        self.len_bytes > MOST_BYTES && self.lost != Some(self.number)
    }

    /// What is noted from now on is in the next journal. Returns its number.
    pub(super) fn begin_next(&mut self) -> u64 {
        if self.len_bytes > 0 || self.lost == Some(self.number) {
            self.before_bytes += self.len_bytes;
            self.follows_bytes = self.len_bytes;
            self.len_bytes = 0;
            self.number += 1;
        }
        self.number
    }

    /// Whether a copy that the journals from `number` on follow would be older than the one that is there.
    pub(super) fn is_outdated(&self, number: u64) -> bool {
        number < self.first
    }

    /// A copy of so many bytes is there, which the journals from `number` on follow.
    pub(super) fn note_copied(&mut self, number: u64, copy_bytes: usize) {
        self.first = number;
        self.copy_bytes = copy_bytes as u64;
        self.before_bytes = 0;
        self.drops_standings = false;
    }

    /// Whether the copy alone is all that is remembered: then there is nothing to be made durable, and none to be made at the end.
    pub(super) fn is_copied(&self) -> bool {
        self.number == self.first && self.len_bytes == 0 && self.is_told()
    }

    /// Whether the next life may believe where the device stands in what lies there, if the store is closed now.
    pub(super) fn is_told(&self) -> bool {
        !self.is_lost() && !self.drops_standings
    }

    fn is_lost(&self) -> bool {
        self.lost.is_some_and(|lost| lost >= self.first)
    }

    /// Whether it is time for a new copy.
    pub(super) fn is_long(&self) -> bool {
        let bytes = self.before_bytes + self.len_bytes;
        let is_outgrown = bytes > LEAST_BYTES && bytes > self.copy_bytes / 2;
        self.is_lost() || is_outgrown || self.number - self.first >= MOST_JOURNALS
    }
}

fn frame(changes: &Changes) -> io::Result<Vec<u8>> {
    let too_long = |error| io::Error::new(io::ErrorKind::FileTooLarge, error);
    let frame = encode_changes(changes).map_err(too_long)?;
    let len_bytes = frame.len() as u64;
    // It has to fit behind all that a journal holds that is not full.
    if len_bytes > MAX_TREE_BYTES / 2 { Err(too_long(JournalError::TooLong(len_bytes))) } else { Ok(frame) }
}

/// The journals that follow a copy.
struct Chain<'a> {
    /// Each with how many bytes of it count.
    journals: Vec<(JournalFile<'a>, u64)>,
    /// All that was noted counts.
    is_all: bool,
}

impl<'a> Chain<'a> {
    fn of(
        share: ShareId,
        first: u64,
        files: &'a BTreeMap<u64, Vec<u8>>,
        is_running: impl Fn(JournalHeader) -> bool,
    ) -> Chain<'a> {
        let mut chain = Chain { journals: Vec::new(), is_all: true };
        for (number, (found, bytes)) in (first..).zip(files.range(first..)) {
            let journal = JournalFile::open(bytes, share).ok().filter(|journal| journal.header().number == number);
            let Some(journal) = journal.filter(|_| *found == number) else { return chain.cut(number) };
            let follows_bytes = journal.header().follows_bytes;
            match chain.journals.last_mut() {
                Some((before, until)) if follows_bytes <= before.whole_bytes() => *until = follows_bytes,
                Some(_) => return chain.cut(number),
                None => {}
            }
            chain.journals.push((journal, journal.whole_bytes()));
        }
        let Some((last, _)) = chain.journals.last().copied() else { return chain };
        if last.is_torn() {
            let (at, number) = (last.whole_bytes(), last.header().number);
            tracing::warn!("what was noted of the share last is cut off: journal {number} ends at byte {at}");
            chain.is_all = false;
        }
        if !is_running(last.header()) {
            chain.forget_what_was_not_durable(last.header());
        }
        chain
    }

    /// The machine has stopped since the last journal was written.
    fn forget_what_was_not_durable(&mut self, last: JournalHeader) {
        // Whoever began after an earlier stop believed what is before that, and compared the folder with it.
        while let Some((journal, until)) = self.journals.pop_if(|(journal, _)| journal.header().boot == last.boot) {
            let durable_bytes = journal.durable_bytes();
            self.is_all &= durable_bytes == until;
            if durable_bytes > JournalHeader::BYTES {
                return self.journals.push((journal, durable_bytes));
            }
        }
    }

    /// The journal with this number cannot be used, and nothing that follows it.
    fn cut(mut self, number: u64) -> Chain<'a> {
        tracing::warn!("what was noted of the share last is of no use from journal {number} on");
        self.is_all = false;
        self
    }
}

#[cfg(test)]
mod tests;
