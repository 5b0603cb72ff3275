//! The folders that are offered. Their bytes look random, so that nobody gains by compressing them, and follow from
//! their place, so that they can be checked.

use crate::Scale;
use crate::stopping::is_stopped;
use anyhow::Context;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The name of the file in a folder that holds only one.
pub(crate) const FILE: &str = "file.bin";

/// What is in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Content {
    /// One file of so many bytes.
    File(u64),
    /// So many directories, with so many files in each, of so many bytes each.
    Tree { dirs: u32, files: u32, bytes: u64 },
}

impl Content {
    /// The same, but as much smaller as the scale is.
    pub(crate) fn at(self, scale: Scale) -> Content {
        match (scale, self) {
            (Scale::Full, _) => self,
            (Scale::Small, Content::File(bytes)) => Content::File(bytes / 64),
            (Scale::Small, Content::Tree { dirs, files, bytes }) => {
                Content::Tree { dirs: dirs.div_ceil(10), files: files.div_ceil(10), bytes }
            }
        }
    }

    /// Its files.
    pub(crate) fn files(self) -> u64 {
        match self {
            Content::File(_) => 1,
            Content::Tree { dirs, files, .. } => u64::from(dirs) * u64::from(files),
        }
    }

    /// Its entries: files and directories.
    pub(crate) fn entries(self) -> u64 {
        match self {
            Content::File(_) => 1,
            Content::Tree { dirs, .. } => self.files() + u64::from(dirs),
        }
    }

    fn make(self, folder: &Path) -> anyhow::Result<()> {
        match self {
            Content::File(bytes) => make_file(&folder.join(FILE), bytes),
            Content::Tree { dirs, files, bytes } => {
                for dir in 0..dirs {
                    let path = folder.join(format!("directory {dir:04}"));
                    fs::create_dir(&path)?;
                    anyhow::ensure!(!is_stopped(), "stopped");
                    for file in 0..files {
                        make_file(&path.join(format!("file {file:04}.txt")), bytes)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// The folders that were made so far.
#[derive(Debug)]
pub(crate) struct Folders {
    dir: PathBuf,
    made: BTreeMap<Content, PathBuf>,
}

impl Folders {
    /// Folders in the directory `dir`.
    pub(crate) fn new(dir: PathBuf) -> Folders {
        Folders { dir, made: BTreeMap::new() }
    }

    /// The folder with this content, made if there is none yet.
    pub(crate) fn get(&mut self, content: Content) -> anyhow::Result<PathBuf> {
        if let Some(path) = self.made.get(&content) {
            return Ok(path.clone());
        }
        let path = self.dir.join(format!("folder {}", self.made.len()).replace(' ', "_"));
        fs::create_dir_all(&path)?;
        content.make(&path).with_context(|| format!("cannot make test files in {}", path.display()))?;
        self.made.insert(content, path.clone());
        Ok(path)
    }
}

fn make_file(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut block = [0; 4096];
    let mut at = 0;
    while at < bytes {
        let count = (bytes - at).min(block.len() as u64) as usize;
        fill(&mut block[..count], at);
        file.write_all(&block[..count])?;
        at += count as u64;
    }
    file.flush()?;
    Ok(())
}

/// The bytes that stand at `offset`, a multiple of eight, in every file.
pub(crate) fn fill(block: &mut [u8], offset: u64) {
    for (index, word) in block.chunks_mut(8).enumerate() {
        let value = mix(offset / 8 + index as u64).to_le_bytes();
        word.copy_from_slice(&value[..word.len()]);
    }
}

/// A number without a visible relation to this one (the finaliser of SplitMix64).
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_from_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut folders = Folders::new(dir.path().to_owned());
        let folder = folders.get(Content::File(10_000)).unwrap();
        assert_eq!(folders.get(Content::File(10_000)).unwrap(), folder, "made once");
        let bytes = fs::read(folder.join(FILE)).unwrap();
        assert_eq!(bytes.len(), 10_000);
        let mut expected = [0; 100];
        fill(&mut expected, 4000);
        assert_eq!(bytes[4000..4100], expected);
    }

    #[test]
    fn a_tree_has_its_entries() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Content::Tree { dirs: 3, files: 4, bytes: 5 };
        let folder = Folders::new(dir.path().to_owned()).get(tree).unwrap();
        let dirs: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let files = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap()).map(|entry| entry.unwrap());
        let sizes: Vec<u64> = files.map(|file| file.metadata().unwrap().len()).collect();
        assert_eq!((sizes.len() as u64, (dirs.len() + sizes.len()) as u64), (tree.files(), tree.entries()));
        assert!(sizes.iter().all(|size| *size == 5));
    }
}
