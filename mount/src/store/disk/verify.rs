//! Looking at everything that a store holds: is it what was written?

use super::DiskStore;
use super::home::{Home, LoadError};
use super::stored::{DiskStored, Purpose};
use farshore_engine::ContentKey;
use farshore_engine::path::RelPath;
use std::io;
use std::sync::Arc;

/// One content that was looked at.
#[derive(Debug)]
pub struct VerifiedFile {
    /// Under which key it is stored.
    pub key: ContentKey,
    /// Where its owner has it, if that can be told.
    pub path: Option<RelPath>,
    /// How many chunks are stored that are right.
    pub right_chunks: u64,
    /// What was found.
    pub verdict: Verdict,
}

/// What was found.
#[derive(Debug)]
pub enum Verdict {
    /// All that is stored is what was written.
    Right,
    /// These chunks are not what was written, or cannot be read. They do not count as stored any more.
    Damaged(Vec<u64>),
    /// Nothing can be made of it, for this reason. It was removed, if it is damaged.
    Unusable(String),
    /// It says nothing that could be compared.
    Unknown(String),
}

impl DiskStore {
    /// Reads everything that is stored and compares it with the hashes that were written down. What is damaged is not
    /// counted as stored any more, so that it is fetched again. Takes as long as reading all of it; blocks.
    ///
    /// To be called before anything is opened: what is open is left out.
    ///
    /// # Errors
    /// What is stored cannot be listed.
    pub fn verify(&self, mut each: impl FnMut(VerifiedFile)) -> io::Result<()> {
        let keys = self.home.keys()?;
        keys.into_iter().filter_map(|key| verify(&self.home, key)).for_each(&mut each);
        Ok(())
    }
}

fn verify(home: &Arc<Home>, key: ContentKey) -> Option<VerifiedFile> {
    let reserved = home.reserve(key)?;
    let mut marked = Vec::new();
    let mut path = None;
    let opened = home.load(key, None).and_then(|loaded| {
        marked = loaded.ledger.chunks().collect();
        path = Some(loaded.ledger.path().clone());
        DiskStored::open(home, reserved, loaded, Purpose::LookAfter)
    });
    let stored = match opened {
        Ok(stored) => stored,
        Err(LoadError::Missing) => return None,
        Err(error) => {
            let reason = error.to_string();
            let verdict = match error {
                LoadError::Nameless => Verdict::Unknown(reason),
                LoadError::Io(_)
                | LoadError::NoBytes
                | LoadError::Refused(_)
                | LoadError::Misnamed(_)
                | LoadError::TooLong(_) => Verdict::Unusable(reason),
                LoadError::Missing => return None,
            };
            home.give_up(key, &error);
            return Some(VerifiedFile { key, path, right_chunks: 0, verdict });
        }
    };
    let total = marked.len() as u64;
    marked.retain(|chunk| !matches!(stored.verify_now(*chunk, None), Ok(true)));
    // Also those that cannot be read.
    marked.iter().for_each(|chunk| stored.ledger().forget(*chunk));
    let right_chunks = total - marked.len() as u64;
    let verdict = if marked.is_empty() { Verdict::Right } else { Verdict::Damaged(marked) };
    Some(VerifiedFile { key, path, right_chunks, verdict })
}
