//! What the disk refuses again and again, so that a person hears of it once.

use super::{Outcome, Refusal};
use farshore_engine::path::RelPath;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

/// The most paths that are remembered; what is beyond is told each time.
const TROUBLES_MAX: usize = 1_024;

/// What the disk said last, by path.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<RelPath, Errno>>);

impl Troubles {
    /// Says what came of an operation, if that is trouble and was not said before.
    pub(super) fn note<T>(&self, path: &RelPath, done: &Outcome<T>) {
        if let Some(error) = self.news(path, done) {
            let error = io::Error::from(error);
            tracing::warn!("{path} cannot be made what a peer made it: {error}; it is tried again every few seconds");
        }
    }

    fn news<T>(&self, path: &RelPath, done: &Outcome<T>) -> Option<Errno> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match done {
            Err(Refusal::Disk(error)) => {
                let before = match known.len() {
                    TROUBLES_MAX.. => known.get(path).copied(),
                    _ => known.insert(path.clone(), *error),
                };
                (before != Some(*error)).then_some(*error)
            }
            Ok(_) | Err(Refusal::Changed | Refusal::Same) => {
                known.remove(path);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_told_once_until_it_is_over() {
        let (troubles, path) = (Troubles::default(), RelPath::parse(b"a").unwrap());
        let refused = |error| Err::<(), _>(Refusal::Disk(error));
        assert_eq!(troubles.news(&path, &refused(Errno::NOSPC)), Some(Errno::NOSPC));
        assert_eq!(troubles.news(&path, &refused(Errno::NOSPC)), None);
        assert_eq!(troubles.news(&path, &refused(Errno::ACCESS)), Some(Errno::ACCESS));
        assert_eq!(troubles.news(&path, &Ok(())), None);
        assert_eq!(troubles.news(&path, &refused(Errno::ACCESS)), Some(Errno::ACCESS));
    }
}
