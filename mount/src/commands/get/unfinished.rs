//! The directories that `get` has made and not given their modes and times yet, which comes last.
//!
//! They are written down until then: a `get` that goes on where another one was interrupted, killed or switched off must be
//! able to tell them from those that were there before, which are left alone.

use crate::store::PRIVATE;
use farshore_engine::path::RelPath;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Behind each path. No name has it.
const END: u8 = 0;

pub(super) struct UnfinishedDirs {
    /// Where they are written down, in the directory of the download itself.
    at: PathBuf,
    /// Of earlier lives.
    found: BTreeSet<Vec<u8>>,
}

impl UnfinishedDirs {
    /// What earlier lives have left in this output folder, whose store is open.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn open(output: &Path) -> io::Result<UnfinishedDirs> {
        let at = output.join(PRIVATE).join("unfinished");
        let bytes = match fs::read(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes?,
        };
        // The last one may have been cut off: then it was not made.
        let whole = bytes.split_inclusive(|byte| *byte == END).filter_map(|path| path.strip_suffix(&[END]));
        Ok(UnfinishedDirs { at, found: whole.map(<[u8]>::to_vec).collect() })
    }

    /// Whether an earlier life was about to make this directory.
    pub(super) fn has(&self, dir: &RelPath) -> bool {
        self.found.contains(&dir.to_bytes())
    }

    /// These directories are about to be made. Returns when that is known also after a power failure, which may keep the
    /// directories themselves.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn add<'a>(&self, dirs: impl Iterator<Item = &'a RelPath>) -> io::Result<()> {
        let mut lines = Vec::new();
        for dir in dirs {
            lines.extend(dir.to_bytes());
            lines.push(END);
        }
        if lines.is_empty() {
            return Ok(());
        }
        let mut file = File::options().create(true).append(true).open(&self.at)?;
        file.write_all(&lines)?;
        file.sync_data()?;
        self.at.parent().map_or(Ok(()), |private| File::open(private)?.sync_all())
    }

    /// All of them have their modes and times. Those come to the disk before this is forgotten, which takes as long as it
    /// takes to write out everything in `output`.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn forget(self, output: &Path) -> io::Result<()> {
        if !self.at.try_exists()? {
            return Ok(());
        }
        rustix::fs::syncfs(File::open(output)?)?;
        fs::remove_file(&self.at)
    }
}
