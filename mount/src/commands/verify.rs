//! `farshore verify`: looks at everything that was fetched and is stored, and says what is not what it was.
//!
//! What is damaged does not count as stored any more: it is fetched again when somebody reads it.

use super::mount::place;
use super::{Failure, USAGE, interruptible, stop_signal};
use crate::state::State;
use crate::store::disk::{Verdict, VerifiedFile};
use crate::store::{DiskStore, PRIVATE, Store};
use clap::Args;
use farshore_engine::path::RelPath;
use serde::Serialize;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The store to look at, as given to `mount --store` [default: all in the state directory]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// One JSON object a line: one for each damaged file, and one with the sums
    #[arg(long)]
    json: bool,
}

/// What was found in all stores.
#[derive(Debug, Default, Serialize)]
struct Sums {
    stores: u64,
    files: u64,
    right_chunks: u64,
    damaged_files: u64,
    damaged_chunks: u64,
}

/// One line of `--json` about a file that is not all right.
#[derive(Debug, Serialize)]
struct Line<'a> {
    store: String,
    key: String,
    /// Bytes that are not UTF-8 are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    damaged_chunks: &'a [u64],
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

pub(super) async fn run(state: Option<PathBuf>, args: VerifyArgs) -> Result<(), Failure> {
    let stores = match args.store {
        Some(store) if store.join(PRIVATE).is_dir() => vec![store],
        Some(store) => {
            let message = format!("there is no store in {}: nothing was fetched into it", store.display());
            return Err(Failure { code: USAGE, message });
        }
        None => {
            let parents = place::parents(&State::open(state)?);
            parents.iter().map(|dir| stores_below(dir)).collect::<io::Result<Vec<_>>>()?.concat()
        }
    };
    // If it is interrupted, the store was not closed: what it holds is hashed again before it is believed.
    interruptible(pin!(stop_signal()), verify_all(stores, args.json)).await
}

async fn verify_all(stores: Vec<PathBuf>, json: bool) -> Result<(), Failure> {
    let mut sums = Sums::default();
    let mut is_refused = false;
    for dir in stores {
        let store = match DiskStore::open(&dir) {
            Ok(store) => store,
            Err(error) => {
                say!("farshore: {error}");
                is_refused = true;
                continue;
            }
        };
        let work = move || verify(&store, &dir, json, sums).map(|sums| (sums, store));
        let (so_far, store) = tokio::task::spawn_blocking(work).await.map_err(Failure::failed)??;
        sums = so_far;
        store.close().await?;
    }
    tell_sums(&sums, json)?;
    if is_refused || sums.damaged_files > 0 { Err(Failure::failed(conclusion(&sums))) } else { Ok(()) }
}

/// Directories that hold a store.
fn stores_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut stores = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    stores.retain(|store| store.join(PRIVATE).is_dir());
    stores.sort();
    Ok(stores)
}

fn verify(store: &DiskStore, dir: &Path, json: bool, mut sums: Sums) -> io::Result<Sums> {
    sums.stores += 1;
    let mut told = Ok(());
    store.verify(|file| {
        sums.files += 1;
        sums.right_chunks += file.right_chunks;
        let (chunks, reason) = match &file.verdict {
            Verdict::Right => return,
            Verdict::Damaged(chunks) => (chunks.as_slice(), None),
            Verdict::Unusable(reason) => (&[][..], Some(reason.as_str())),
            Verdict::Unknown(reason) => {
                say!("{}: {}: {reason}", dir.display(), name(&file));
                return;
            }
        };
        sums.damaged_files += 1;
        sums.damaged_chunks += chunks.len() as u64;
        let line = if json { json_line(dir, &file, chunks, reason) } else { text_line(dir, &file, chunks, reason) };
        // Whoever read our output may have had enough; the work goes on.
        told = std::mem::replace(&mut told, Ok(())).and_then(|()| writeln!(io::stdout(), "{line}"));
    })?;
    match told {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Ok(()) | Err(_) => Ok(sums),
    }
}

/// What a person knows the file by.
fn name(file: &VerifiedFile) -> String {
    file.path.as_ref().map_or_else(|| file.key.to_string(), RelPath::to_string)
}

fn text_line(dir: &Path, file: &VerifiedFile, chunks: &[u64], reason: Option<&str>) -> String {
    let what = match reason {
        Some(reason) => format!("{reason}; all of it is fetched again"),
        None => format!("damaged in {}; that is fetched again", spans(chunks)),
    };
    format!("{}: {}: {what}", dir.display(), name(file))
}

fn json_line(dir: &Path, file: &VerifiedFile, chunks: &[u64], reason: Option<&str>) -> String {
    let path = file.path.as_ref().map(|path| String::from_utf8_lossy(&path.to_bytes()).into_owned());
    let store = dir.display().to_string();
    let line = Line { store, key: file.key.to_string(), path, damaged_chunks: chunks, reason };
    serde_json::to_string(&line).unwrap_or_default()
}

/// Chunk numbers, as a person writes them: `chunks 1, 4-7`.
fn spans(chunks: &[u64]) -> String {
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for chunk in chunks {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == *chunk => *last = *chunk,
            Some(_) | None => spans.push((*chunk, *chunk)),
        }
    }
    let text = |(first, last): &(u64, u64)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let word = if chunks.len() == 1 { "chunk" } else { "chunks" };
    format!("{word} {}", spans.iter().map(text).collect::<Vec<_>>().join(", "))
}

fn tell_sums(sums: &Sums, json: bool) -> io::Result<()> {
    let line = if json {
        serde_json::to_string(sums).unwrap_or_default()
    } else {
        let Sums { stores, files, right_chunks, damaged_files, damaged_chunks } = sums;
        format!(
            "{stores} stores, {files} files: {right_chunks} chunks are right, \
             {damaged_chunks} are damaged, in {damaged_files} files"
        )
    };
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        told => told,
    }
}

fn conclusion(sums: &Sums) -> String {
    match sums.damaged_files {
        0 => "not everything could be looked at".to_owned(),
        files => format!("{files} files were damaged; what is damaged does not count as stored any more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_told_in_spans() {
        assert_eq!(spans(&[3]), "chunk 3");
        assert_eq!(spans(&[0, 1, 2, 5, 7, 8]), "chunks 0-2, 5, 7-8");
    }
}
