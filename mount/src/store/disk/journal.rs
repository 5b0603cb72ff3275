//! What is remembered of a share that is kept in a folder: a whole copy in a file of its own, and beside it journals of what has
//! changed since. `docs/TREE.md` has both.

use super::home::Home;
use super::known;
use crate::store::journal::{Journals, RecallError, Recalled};
use farshore_engine::{Changes, Memory};
use farshore_proto::{Boot, ShareId, encode_memory};
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// The copy.
pub(super) const MEMORY: &str = "memory";

/// What journals are called, before their number.
const JOURNAL: &str = "journal-";

/// Where Linux says which time it is that it is running: 32 hex digits with dashes between them.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is known of the journals, and the one that is written.
#[derive(Debug, Default)]
pub(super) struct Noting {
    /// `None` until somebody asks what is remembered.
    journals: Option<Journals>,
    file: Option<Arc<File>>,
}

/// What is remembered of `share`; `None` if nothing ever was. What cannot be used is told in the log.
pub(super) fn load(home: &Home, share: ShareId) -> Option<Memory> {
    let mut noting = home.noting.lock();
    let boot = boot();
    let numbers = numbers(home);
    let last = numbers.as_ref().ok().and_then(|numbers| numbers.last().copied());
    let recalled = numbers.map_err(RecallError::Io).and_then(|numbers| {
        let files = numbers.iter().filter_map(|number| Some((*number, read(home, *number).transpose()?)));
        let files = files.map(|(number, bytes)| bytes.map(|bytes| (number, bytes))).collect::<io::Result<_>>()?;
        Journals::recall(share, boot, home.was_closed, known::load(home, MEMORY)?, &files)
    });
    let Recalled { journals, memory } = recalled.unwrap_or_else(|error| {
        tracing::warn!(
            "what was remembered of the share is of no use, and the folder is compared with its peers anew: {error}"
        );
        Recalled { journals: Journals::anew(share, boot, last.unwrap_or(0)), memory: None }
    });
    // What is written goes on.
    noting.journals.get_or_insert(journals);
    memory
}

/// Whether the copy alone is all that is remembered of `share`.
pub(super) fn is_copied(home: &Home, share: ShareId) -> bool {
    home.noting.lock().of(share).is_ok_and(|journals| journals.is_copied())
}

/// Appends what has changed. A kill does not undo that. Says whether it is time for a new copy.
pub(super) fn note(home: &Home, share: ShareId, changes: &Changes) -> io::Result<bool> {
    let _open = home.enter()?;
    let mut noting = home.noting.lock();
    if noting.of(share)?.is_full() {
        noting.begin_next(share)?;
    }
    noting.append(home, share, |journals| journals.frame_of(changes))?;
    Ok(noting.of(share)?.is_long())
}

/// Makes durable what was noted, in earlier lives too, and what the folder held then. Says whether it is time for a new copy.
pub(super) fn sync(home: &Home, share: ShareId) -> io::Result<bool> {
    let _open = home.enter()?;
    let (number, len_bytes) = {
        let mut noting = home.noting.lock();
        // It stands for what it follows, too.
        noting.append(home, share, |_| Ok(Vec::new()))?;
        let journals = noting.of(share)?;
        (journals.number(), journals.len_bytes())
    };
    // Nobody waits for this, and for the mark to be durable, who has something to note.
    home.private.sync_all()?;
    let (file, is_long) = {
        let mut noting = home.noting.lock();
        let Some(mark) = noting.of(share)?.mark_of(number, len_bytes) else { return Ok(noting.of(share)?.is_long()) };
        noting.append(home, share, |_| Ok(mark))?;
        (noting.file.clone(), noting.of(share)?.is_long())
    };
    if let Some(file) = file {
        home.private.sync(&name(number), &file)?;
    }
    Ok(is_long)
}

/// What is noted from now on follows what [`save`] is given with the number that this returns.
pub(super) fn begin(home: &Home, share: ShareId) -> io::Result<u64> {
    let _open = home.enter()?;
    home.noting.lock().begin_next(share)
}

/// Replaces the copy, unless there is a newer one. Durable when it returns: there is always a whole one with all that follows it,
/// this one or the one before.
pub(super) fn save(home: &Home, share: ShareId, number: u64, memory: &Memory) -> io::Result<()> {
    let bytes =
        encode_memory(share, number, memory).map_err(|error| io::Error::new(io::ErrorKind::FileTooLarge, error))?;
    let open = home.enter()?;
    if home.noting.lock().of(share)?.is_outdated(number) {
        return Ok(());
    }
    // It says what the folder held: that must not be lost by what it is remembered through.
    home.private.sync_all()?;
    known::save(home, &open, MEMORY, &bytes)?;
    home.noting.lock().of(share)?.note_copied(number, bytes.len());
    numbers(home)?.into_iter().filter(|old| *old < number).try_for_each(|old| home.private.remove(&name(old)))
}

impl Noting {
    /// The journals of `share`.
    fn of(&mut self, share: ShareId) -> io::Result<&mut Journals> {
        let other = || io::Error::new(io::ErrorKind::InvalidInput, "nobody has asked what is remembered of this share");
        self.journals.as_mut().filter(|journals| journals.share() == share).ok_or_else(other)
    }

    /// Whether the next life may believe where the device stands in what lies there, if the store is closed now.
    pub(super) fn is_told(&self) -> bool {
        self.journals.is_none_or(|journals| journals.is_told())
    }

    /// What is noted from now on is in the next journal. Returns its number.
    fn begin_next(&mut self, share: ShareId) -> io::Result<u64> {
        self.file = None;
        Ok(self.of(share)?.begin_next())
    }

    /// Appends to the journal. If that fails, nothing is appended to it any more.
    fn append(
        &mut self,
        home: &Home,
        share: ShareId,
        frame: impl FnOnce(&Journals) -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        let appended = self.try_append(home, share, frame);
        if appended.is_err()
            && let Some((number, until)) = self.of(share)?.note_failed()
            && let Err(error) = Noting::spoil(home, number, until)
        {
            tracing::warn!("whoever is killed now does not know that not all was written down: {error}");
        }
        appended
    }

    /// Something could not be noted, and peers are told of it all the same: the next life must not take them to know less.
    fn spoil(home: &Home, number: u64, until: u64) -> io::Result<()> {
        let name = name(number);
        let spoiled = home.private.open(&name).and_then(|file| home.private.set_len(&name, &file, until + 1));
        // Behind a gap nothing counts either.
        spoiled.or_else(|_| home.private.rename(&name, &self::name(number + 1)))
    }

    /// The journal is begun if there is none yet.
    fn try_append(
        &mut self,
        home: &Home,
        share: ShareId,
        frame: impl FnOnce(&Journals) -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        let journals = self.of(share)?;
        let frame = frame(journals)?;
        let name = name(journals.number());
        if let Some(beginning) = journals.beginning()? {
            // What is left of a life of which not all is believed.
            for left in numbers(home)?.into_iter().filter(|number| *number > journals.number()) {
                home.private.remove(&self::name(left))?;
            }
            let file = home.private.create(&name)?;
            home.private.write_all(&name, &file, &beginning)?;
            journals.note_appended(beginning.len());
            self.file = Some(Arc::new(file));
        }
        let Noting { journals: Some(journals), file: Some(file) } = self else { return Ok(()) };
        write_at(home, &name, file, &frame, journals.len_bytes())?;
        journals.note_appended(frame.len());
        Ok(())
    }
}

fn write_at(home: &Home, name: &str, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match home.private.write(name, file, &[IoSlice::new(&bytes[done..])], offset + done as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => done += count,
        }
    }
    Ok(())
}

/// The bytes of a journal; `None` if it is gone. One that is longer than any can be is none from its beginning on: what is before it
/// counts.
fn read(home: &Home, number: u64) -> io::Result<Option<Vec<u8>>> {
    match known::load(home, &name(number)) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(Some(Vec::new())),
        read => read,
    }
}

fn name(number: u64) -> String {
    format!("{JOURNAL}{number}")
}

/// The numbers of the journals that lie there, in order.
fn numbers(home: &Home) -> io::Result<Vec<u64>> {
    let names = home.private.names()?;
    let numbers = names.iter().filter_map(|name| name.to_str().ok()?.strip_prefix(JOURNAL)?.parse().ok());
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Which time it is that the machine is running.
fn boot() -> Boot {
    let id = std::fs::read_to_string(BOOT_ID).ok();
    let number = id.and_then(|id| u128::from_str_radix(&id.trim().replace('-', ""), 16).ok());
    number.map_or(Boot::UNKNOWN, |number| Boot(number.to_be_bytes()))
}
