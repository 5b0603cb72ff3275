//! `farshore get`: fetches files of a share into a folder, without mounting.
//!
//! A file appears under its own name when it is whole, verified and on disk, with its mode, its time and its extended attributes. What is there
//! already is not overwritten: the same size and time counts as fetched, anything else is told and left alone.

mod unfinished;

use self::unfinished::UnfinishedDirs;
use super::ls::parse_path;
use super::{Failure, interruptible, prepare, stop_signal};
use crate::joining::{Absence, join};
use crate::node::Node;
use crate::store::{DiskStore, KEPT_MODE_BITS, PRIVATE, Store};
use clap::Args;
use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Kind, Record};
use farshore_engine::{Config, Errno, Ino, Reply, Request};
use futures_util::TryFutureExt;
use futures_util::stream::{self, StreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, utimensat};
use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Files that are asked for at once: as many small ones as the engine fetches at once.
const AT_ONCE: usize = 64;

/// How often the progress bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// What `farshore share` printed
    ticket: String,
    /// Paths in the share; directories are fetched with all that they hold [default: everything]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The folder to put them into
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
}

/// One thing to fetch.
struct Wanted {
    path: RelPath,
    ino: Ino,
    record: Record,
}

/// How it went, counted over all files.
#[derive(Default)]
struct Tally {
    fetched_files: AtomicU64,
    /// Of files that are through, whatever became of them.
    done_bytes: AtomicU64,
    present_files: AtomicU64,
    failed: AtomicU64,
}

pub(super) async fn run(state: Option<PathBuf>, args: GetArgs) -> Result<(), Failure> {
    let (ticket, _, transport) = prepare(state, &args.ticket)?;
    let tops = match args.paths.is_empty() {
        true => vec![RelPath::ROOT],
        false => args.paths.iter().map(|path| parse_path(Some(path))).collect::<Result<_, _>>()?,
    };
    fs::create_dir_all(&args.output)
        .map_err(|error| Failure::failed(format!("cannot make {}: {error}", args.output.display())))?;
    let output = args.output.canonicalize()?;
    let store = Arc::new(DiskStore::open(&output).map_err(Failure::failed)?);
    let mut stop = pin!(stop_signal());
    let joined = join(&ticket, transport, store.clone() as Arc<dyn Store>, Config::default(), Absence::IsAnError);
    let node = match interruptible(stop.as_mut(), joined.map_err(Failure::from)).await {
        Ok(joined) => joined.node,
        Err(failure) => {
            // Nothing was changed: what is stored need not be looked through for that at the next start.
            store.close().await?;
            return Err(failure);
        }
    };
    let result = interruptible(stop, fetch(&node, &tops, &output)).await;
    node.shut_down().await;
    result
}

async fn fetch(node: &Arc<Node>, tops: &[RelPath], output: &Path) -> Result<(), Failure> {
    let wanted = list(node, tops)?;
    let total_bytes: u64 = wanted.iter().filter(|one| matches!(one.record.kind, Kind::File { .. })).map(size).sum();
    let tally = Tally::default();
    let unfinished = UnfinishedDirs::open(output)?;
    let bar = progress_bar(total_bytes);
    let draw = async {
        loop {
            tokio::time::sleep(DRAW_EVERY).await;
            let under_way: u64 = node.view(|view| {
                view.contents().filter(|one| one.waiters > 0).map(|one| one.download.downloaded_bytes()).sum()
            });
            bar.set_position(tally.done_bytes.load(Ordering::Relaxed) + under_way);
        }
    };
    let (dirs, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|one| one.record.kind == Kind::Dir);
    let work = async {
        let is_new = |path: &&RelPath| !unfinished.has(path) && fs::symlink_metadata(target(output, path)).is_err();
        unfinished.add(dirs.iter().map(|dir| &dir.path).filter(is_new))?;
        let mut made = Vec::new();
        for dir in &dirs {
            let outcome = make_dir(output, unfinished.has(&dir.path), dir);
            if matches!(outcome, Ok(Outcome::Fetched)) {
                made.push(dir);
            }
            note(&tally, &bar, dir, outcome);
        }
        let one = |one| async move { (one, fetch_one(node, output, one).await) };
        let mut through = stream::iter(others.iter().copied().map(one)).buffer_unordered(AT_ONCE);
        while let Some((one, result)) = through.next().await {
            tally.done_bytes.fetch_add(size(one), Ordering::Relaxed);
            note(&tally, &bar, one, result);
        }
        // Last, innermost first: putting something into a directory changes its time, and it may forbid to. What was
        // there before is not touched.
        for dir in made.iter().rev() {
            note(&tally, &bar, dir, set_meta(output, dir));
        }
        unfinished.forget(output)
    };
    tokio::select! {
        forgotten = work => forgotten?,
        () = draw => {}
    }
    bar.finish_and_clear();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (fetched, present, failed) = (count(&tally.fetched_files), count(&tally.present_files), count(&tally.failed));
    say!("fetched {fetched} files into {}; {present} were there already", output.display());
    match failed {
        0 => Ok(()),
        failed => Err(Failure::failed(format!("{failed} entries could not be fetched"))),
    }
}

fn size(wanted: &Wanted) -> u64 {
    wanted.record.size_bytes()
}

/// Everything at and below `tops`, directories before what they hold.
fn list(node: &Node, tops: &[RelPath]) -> Result<Vec<Wanted>, Failure> {
    node.view(|view| {
        if let Some(missing) = tops.iter().find(|top| view.resolve(top).is_none()) {
            return Err(Failure::failed(format!("the share has nothing named {missing}")));
        }
        let is_wanted = |path: &RelPath| tops.iter().any(|top| top.is_prefix_of(path) || path.is_prefix_of(top));
        let mut found: Vec<Wanted> = view
            .tree()
            .filter(|(path, record)| {
                // Directories above what is wanted are made, but nothing else of them is fetched.
                is_wanted(path) && (record.kind == Kind::Dir || tops.iter().any(|top| top.is_prefix_of(path)))
            })
            .filter_map(|(path, record)| Some(Wanted { ino: view.resolve(&path)?, record: record.clone(), path }))
            .collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    })
}

/// What one entry came to.
enum Outcome {
    Fetched,
    WasThere,
}

fn note(tally: &Tally, bar: &ProgressBar, wanted: &Wanted, result: Result<Outcome, String>) {
    let is_file = u64::from(matches!(wanted.record.kind, Kind::File { .. }));
    match result {
        Ok(Outcome::Fetched) => tally.fetched_files.fetch_add(is_file, Ordering::Relaxed),
        Ok(Outcome::WasThere) => tally.present_files.fetch_add(is_file, Ordering::Relaxed),
        Err(reason) => {
            bar.suspend(|| say!("farshore: {}: {reason}", wanted.path));
            tally.failed.fetch_add(1, Ordering::Relaxed)
        }
    };
}

async fn fetch_one(node: &Node, output: &Path, wanted: &Wanted) -> Result<Outcome, String> {
    let path = target(output, &wanted.path);
    check_name(&wanted.path)?;
    check_parents(output, &wanted.path)?;
    match fs::symlink_metadata(&path) {
        Ok(there) if is_same(&path, &there, &wanted.record) => return Ok(Outcome::WasThere),
        Ok(_) => return Err("something else is there already; it was left alone".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.to_string()),
    }
    let modified = wanted.record.modified;
    match &wanted.record.kind {
        Kind::Dir => Ok(Outcome::WasThere),
        Kind::Symlink { target: text } => {
            std::os::unix::fs::symlink(OsString::from_vec(text.to_vec()), &path).map_err(|error| error.to_string())?;
            set_time(&path, modified)?;
            Ok(Outcome::Fetched)
        }
        Kind::File { .. } => fetch_file(node, wanted, path).await,
    }
}

async fn fetch_file(node: &Node, wanted: &Wanted, path: PathBuf) -> Result<Outcome, String> {
    let Record { mode, modified, xattrs, .. } = wanted.record.clone();
    let opened = node.reply(Request::Open { ino: wanted.ino, write: false, whole_from: None }).await.map_err(say)?;
    let Reply::Opened(opened) = opened else { return Err(say(Errno::Io)) };
    let fetched = node.reply(Request::FetchAll { handle: opened.handle }).await;
    let kept = match fetched {
        Ok(Reply::Fetched(content)) => {
            node.keep(content, path, mode, modified, xattrs).await.map_err(|e| e.to_string())
        }
        Ok(_) => Err(say(Errno::Io)),
        Err(errno) => Err(say(errno)),
    };
    // It was just opened, so this cannot fail.
    let _released = node.reply(Request::Release { handle: opened.handle }).await;
    kept.map(|()| Outcome::Fetched)
}

/// What an error means to somebody who fetches.
fn say(errno: Errno) -> String {
    match errno {
        Errno::Stale | Errno::NoEntry => "the owner changed it or does not share it any more; try again",
        Errno::NoSpace => "the disk is full",
        Errno::Io
        | Errno::BadHandle
        | Errno::NotDir
        | Errno::IsDir
        | Errno::Invalid
        | Errno::ReadOnly
        | Errno::TooMany => "its bytes could not be had from the owner in time",
    }
    .to_owned()
}

fn target(output: &Path, path: &RelPath) -> PathBuf {
    output.join(OsString::from_vec(path.to_bytes()))
}

/// Downloads that are under way lie in a directory of the output folder, which is nobody else's while they do.
fn check_name(path: &RelPath) -> Result<(), String> {
    match path.names().first() {
        Some(top) if top.as_bytes() == PRIVATE.as_bytes() => {
            Err(format!("the name {PRIVATE} is used for the download itself; it was left out"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Makes sure that every directory above `path` really is one: a symlink there would lead out of the folder.
fn check_parents(output: &Path, path: &RelPath) -> Result<(), String> {
    let mut at = output.to_owned();
    for name in path.split_last().map_or(&[][..], |(parents, _)| parents) {
        at.push(OsString::from_vec(name.as_bytes().to_vec()));
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(format!("{} is not a directory", at.display())),
            Err(error) => return Err(format!("{}: {error}", at.display())),
        }
    }
    Ok(())
}

/// Makes a directory. If there is one, it may be left of an earlier life that was interrupted: then it `is_ours`.
fn make_dir(output: &Path, is_ours: bool, wanted: &Wanted) -> Result<Outcome, String> {
    check_name(&wanted.path)?;
    check_parents(output, &wanted.path)?;
    let path = target(output, &wanted.path);
    match fs::create_dir(&path) {
        Ok(()) => Ok(Outcome::Fetched),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                true if is_ours => Ok(Outcome::Fetched),
                true => Ok(Outcome::WasThere),
                false => Err("something that is not a directory is there already; it was left alone".to_owned()),
            }
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Gives a directory that we made its mode, without the bits that would lend somebody its group, its extended attributes and its
/// time.
fn set_meta(output: &Path, wanted: &Wanted) -> Result<Outcome, String> {
    check_parents(output, &wanted.path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = target(output, &wanted.path);
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| error.to_string())?;
    crate::xattrs::set(&directory, &wanted.record.xattrs);
    let mode = Mode::from_raw_mode(u32::from(wanted.record.mode & KEPT_MODE_BITS));
    rustix::fs::fchmod(&directory, mode).map_err(|error| error.to_string())?;
    rustix::fs::futimens(&directory, &times(wanted.record.modified)).map_err(|error| error.to_string())?;
    Ok(Outcome::Fetched)
}

fn times(modified: FileTime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanos.into() },
    }
}

fn set_time(path: &Path, modified: FileTime) -> Result<(), String> {
    let times = times(modified);
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| error.to_string())
}

/// Whether what is there looks like what is wanted: it was fetched before.
fn is_same(path: &Path, there: &fs::Metadata, record: &Record) -> bool {
    let same_time = (there.mtime(), there.mtime_nsec()) == (record.modified.seconds, record.modified.nanos.into());
    match &record.kind {
        Kind::File { size_bytes, .. } => there.is_file() && there.len() == *size_bytes && same_time,
        Kind::Dir => there.is_dir(),
        Kind::Symlink { target } => {
            there.is_symlink() && fs::read_link(path).is_ok_and(|text| text.into_os_string().into_vec() == **target)
        }
    }
}

/// A bar on a terminal, and nothing in a pipe.
fn progress_bar(total_bytes: u64) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(total_bytes), target);
    let template = "{bar:30} {percent:>3}% {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
