//! The directories that `get` has made and not given their modes and times yet, which comes last.
//!
//! They are written down until then: a `get` that goes on where another one was interrupted or killed must be able to tell
//! them from those that were there before, which are left alone.

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
    /// Open once something was added in this life.
    file: Option<File>,
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
        Ok(UnfinishedDirs { at, found: whole.map(<[u8]>::to_vec).collect(), file: None })
    }

    /// Whether an earlier life was about to make this directory.
    pub(super) fn has(&self, dir: &RelPath) -> bool {
        self.found.contains(&dir.to_bytes())
    }

    /// This directory is about to be made.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn add(&mut self, dir: &RelPath) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::options().create(true).append(true).open(&self.at)?),
        };
        let mut line = dir.to_bytes();
        line.push(END);
        file.write_all(&line)
    }

    /// All of them have their modes and times.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn forget(self) -> io::Result<()> {
        match fs::remove_file(&self.at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}
