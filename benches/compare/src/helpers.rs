//! Work that this program does in a process of its own, so that it can be killed when it takes too long, and can run on
//! either side of the line.

use crate::stopping::Trouble;
use crate::{folders, stream};
use anyhow::Context;
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How much one read of a whole file asks for, in bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// How much a probe reads, in bytes.
const PROBE_BYTES: usize = 4096;

/// The first part of a transfer, in which a connection finds out how fast it may be.
const FIRST_PART: Duration = Duration::from_secs(1);

/// How soon somebody looks again for what was saved.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

const BETWEEN_SAVES: Duration = Duration::from_millis(100);

/// One piece of work. For this program alone.
#[derive(Debug, Subcommand)]
pub(crate) enum Helper {
    /// Read a file from front to back, or for so many seconds, and print what it took
    #[command(hide = true)]
    Read { file: PathBuf, limit_seconds: u64 },
    /// Write a file of so many bytes from front to back, and print what it took
    #[command(hide = true)]
    Write { file: PathBuf, bytes: u64 },
    /// Read a file here and there, and print how long each read took
    #[command(hide = true)]
    Probe { file: PathBuf, count: u64 },
    /// Save so many files one after the other in one directory, and print how long it took until each was whole in another
    #[command(hide = true)]
    Save { from: PathBuf, to: PathBuf, count: u64 },
    /// Send a file to whoever calls
    #[command(hide = true)]
    Send { address: String, keys: PathBuf, file: PathBuf },
    /// Fetch what is sent
    #[command(hide = true)]
    Receive { address: String, owner_keys: PathBuf, keys: PathBuf, to: PathBuf },
}

impl Helper {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Helper::Read { file, limit_seconds } => {
                let took =
                    read(&file, Duration::from_secs(limit_seconds)).with_context(|| file.display().to_string())?;
                println!("{}", serde_json::to_string(&took)?);
                Ok(())
            }
            Helper::Write { file, bytes } => {
                let took = write(&file, bytes).with_context(|| file.display().to_string())?;
                println!("{}", serde_json::to_string(&took)?);
                Ok(())
            }
            Helper::Probe { file, count } => {
                let took = probe(&file, count).with_context(|| file.display().to_string())?;
                println!("{}", serde_json::to_string(&took)?);
                Ok(())
            }
            Helper::Save { from, to, count } => {
                let took = save(&from, &to, count).with_context(|| from.display().to_string())?;
                println!("{}", serde_json::to_string(&took)?);
                Ok(())
            }
            Helper::Send { address, keys, file } => stream::run_server(&address, &keys, &file),
            Helper::Receive { address, owner_keys, keys, to } => stream::run_client(&address, &owner_keys, &keys, &to),
        }
    }
}

/// A command that is this program.
pub(crate) fn this_program() -> Result<Command, Trouble> {
    Ok(Command::new(std::env::current_exe()?))
}

/// What a transfer took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Took {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Bytes a second after the first second; `None` if that was all there was.
    pub(crate) late_rate: Option<f64>,
}

/// Counts the bytes of a transfer.
#[derive(Debug)]
pub(crate) struct Meter {
    begun: Instant,
    bytes: u64,
    /// When the first part was over, and how much had come by then.
    first: Option<(Duration, u64)>,
}

impl Meter {
    pub(crate) fn start() -> Meter {
        Meter { begun: Instant::now(), bytes: 0, first: None }
    }

    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let now = self.elapsed();
        if self.first.is_none() && now >= FIRST_PART {
            self.first = Some((now, self.bytes));
        }
    }

    pub(crate) fn stop(self) -> Took {
        Took::of(self.bytes, self.elapsed(), self.first)
    }
}

impl Took {
    fn of(bytes: u64, time: Duration, first: Option<(Duration, u64)>) -> Took {
        let late = first.filter(|(_, early)| *early < bytes);
        let late_rate = late.map(|(before, early)| (bytes - early) as f64 / (time - before).as_secs_f64());
        Took { bytes, seconds: time.as_secs_f64(), late_rate }
    }
}

/// Reads until the end of the file, or the block in which the time is over: then that is as good a measure.
fn read(file: &Path, limit: Duration) -> anyhow::Result<Took> {
    let mut meter = Meter::start();
    let mut file = File::open(file)?;
    let size = file.metadata()?.len();
    let mut block = vec![0; BLOCK_BYTES];
    while meter.elapsed() < limit {
        match file.read(&mut block)? {
            0 => {
                let took = meter.stop();
                anyhow::ensure!(took.bytes == size, "{} of {size} bytes were read", took.bytes);
                return Ok(took);
            }
            count => meter.add(count),
        }
    }
    Ok(meter.stop())
}

/// Writes a new file and closes it.
fn write(file: &Path, bytes: u64) -> anyhow::Result<Took> {
    let mut block = vec![0; BLOCK_BYTES];
    folders::fill(&mut block, 0);
    let mut meter = Meter::start();
    let mut file = File::create_new(file)?;
    let mut left = bytes;
    while left > 0 {
        let count = left.min(BLOCK_BYTES as u64) as usize;
        file.write_all(&block[..count])?;
        meter.add(count);
        left -= count as u64;
    }
    drop(file);
    Ok(meter.stop())
}

/// How long each probe took, in seconds.
fn probe(file: &Path, count: u64) -> anyhow::Result<Vec<f64>> {
    let file = File::open(file)?;
    let pages = file.metadata()?.len() / PROBE_BYTES as u64;
    let mut buffer = [0; PROBE_BYTES];
    let mut expected = [0; PROBE_BYTES];
    let mut took = Vec::new();
    for index in 0..count {
        // Any order without a pattern does, if it is the same each time.
        let offset = folders::mix(index) % pages.max(1) * PROBE_BYTES as u64;
        let begun = Instant::now();
        file.read_exact_at(&mut buffer, offset)?;
        took.push(begun.elapsed().as_secs_f64());
        folders::fill(&mut expected, offset);
        anyhow::ensure!(buffer == expected, "other bytes at {offset} than are in the owner's file");
    }
    Ok(took)
}

/// How long it took until each file was whole in the other directory, in seconds.
fn save(from: &Path, to: &Path, count: u64) -> anyhow::Result<Vec<f64>> {
    let mut bytes = [0; PROBE_BYTES];
    folders::fill(&mut bytes, 0);
    let mut took = Vec::new();
    for number in 0..count {
        let name = format!("saved {number} in {}", from.file_name().unwrap_or_default().display());
        fs::write(from.join(&name), bytes)?;
        let begun = Instant::now();
        while fs::read(to.join(&name)).ok().as_deref() != Some(&bytes) {
            thread::sleep(LOOK_AGAIN);
        }
        took.push(begun.elapsed().as_secs_f64());
        // The next one meets nothing of this one.
        thread::sleep(BETWEEN_SAVES);
    }
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_end_or_for_a_time() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[1; 3_000_000]).unwrap();
        assert_eq!(read(file.path(), Duration::from_secs(60)).unwrap().bytes, 3_000_000);
        assert_eq!(read(file.path(), Duration::ZERO).unwrap().bytes, 0);
    }

    #[test]
    fn a_file_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(write(&path, 3_000_000).unwrap().bytes, 3_000_000);
        assert_eq!(path.metadata().unwrap().len(), 3_000_000);
        assert!(write(&path, 1).is_err(), "it is there already");
    }

    #[test]
    fn what_is_saved_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(save(dir.path(), dir.path(), 2).unwrap().len(), 2);
        assert!(save(&dir.path().join("nowhere"), dir.path(), 1).is_err());
    }

    #[test]
    fn the_late_rate_is_that_after_the_first_second() {
        let second = Duration::from_secs(1);
        assert_eq!(Took::of(500, 5 * second, Some((second, 100))).late_rate, Some(100.0));
        assert_eq!(Took::of(500, second / 2, None).late_rate, None);
        assert_eq!(Took::of(500, second, Some((second, 500))).late_rate, None);
    }
}
