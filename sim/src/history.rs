//! The history of a run: one line for each thing that happens. Two runs of one seed have the same.

use farshore_engine::view::Totals;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Lines that are kept in memory, to be shown when a run fails.
const TAIL_LINES: usize = 40;

/// Where lines go. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    file: Option<BufWriter<File>>,
    tail: VecDeque<String>,
    /// Lines in all.
    count: u64,
    /// Log lines of level ERROR: each is a bug.
    errors: Vec<String>,
    /// The time of what happens outside of all hosts.
    now: Duration,
    /// What the processes of readers have done, each by its host and by which of its processes it is.
    totals: BTreeMap<(&'static str, u64), Totals>,
    same_chunks: u64,
}

/// What all readers of a run have done, in all of their processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Processes.
    pub lives: u64,
    /// Verified bytes that came from the owner.
    pub fetched_bytes: u64,
    /// Bytes that the store had, from an earlier life or another version.
    pub resumed_bytes: u64,
    /// Chunks that the store had, and that were damaged.
    pub damaged_chunks: u64,
    /// Chunks that were the same in another version.
    pub same_chunks: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { lives, fetched_bytes, resumed_bytes, damaged_chunks, same_chunks } = self;
        write!(f, "{lives} processes of readers, {fetched_bytes} bytes fetched, {resumed_bytes} found in the store, ")?;
        write!(f, "{damaged_chunks} chunks damaged, {same_chunks} the same in another version")
    }
}

impl History {
    /// A history of which only the end is kept, and not every step.
    #[must_use]
    pub fn short() -> History {
        History::default()
    }

    /// A history that is written to `path`, with every step of every engine.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn to_file(path: &Path) -> io::Result<History> {
        let history = History::default();
        history.inner().file = Some(BufWriter::new(File::create(path)?));
        Ok(history)
    }

    /// Whether every step is wanted.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.inner().file.is_some()
    }

    /// Adds a line about `host`.
    pub fn note(&self, host: &str, what: fmt::Arguments<'_>) {
        // While a host is being torn down there is no runtime, and without one the clock on the wall would be asked.
        let inside = tokio::runtime::Handle::try_current().ok().and_then(|_| turmoil::sim_elapsed());
        let mut inner = self.inner();
        let line = Inner::line(inside.unwrap_or(inner.now), host, what);
        inner.add(line);
    }

    /// Adds a line if every step is wanted.
    pub fn note_step(&self, host: &str, what: fmt::Arguments<'_>) {
        if self.is_whole() {
            self.note(host, what);
        }
    }

    /// What time it is between the steps of the simulation.
    pub fn set_now(&self, now: Duration) {
        self.inner().now = now;
    }

    /// What a process of a reader has done so far: all in all, and how many chunks have just been found to be the same in
    /// another version.
    pub fn count(&self, host: &'static str, life: u64, totals: Totals, same_chunks: u64) {
        let mut inner = self.inner();
        inner.totals.insert((host, life), totals);
        inner.same_chunks += same_chunks;
    }

    /// What all readers have done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let inner = self.inner();
        let sum = |of: fn(&Totals) -> u64| inner.totals.values().map(of).sum();
        Tally {
            lives: inner.totals.len() as u64,
            fetched_bytes: sum(|totals| totals.fetched_bytes),
            resumed_bytes: sum(|totals| totals.resumed_bytes),
            damaged_chunks: sum(|totals| totals.damaged_chunks),
            same_chunks: inner.same_chunks,
        }
    }

    /// The last lines, oldest first.
    #[must_use]
    pub fn tail(&self) -> String {
        self.inner().tail.iter().fold(String::new(), |mut tail, line| {
            // Writing into memory does not fail.
            let _ = writeln!(tail, "  {line}");
            tail
        })
    }

    /// Log lines of level ERROR so far.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        self.inner().errors.clone()
    }

    /// Writes what is still in memory to the file, and says how many lines there were.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(&self) -> io::Result<u64> {
        let mut inner = self.inner();
        if let Some(file) = &mut inner.file {
            file.flush()?;
        }
        Ok(inner.count)
    }

    /// Runs `body` with everything that is logged in it going into this history.
    pub fn capture<T>(&self, body: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(Log(self.clone()), body)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn line(now: Duration, host: &str, what: fmt::Arguments<'_>) -> String {
        format!("{:>6}.{:03} {host:<8} {what}", now.as_secs(), now.subsec_millis())
    }

    fn add(&mut self, line: String) {
        self.count += 1;
        if let Some(file) = &mut self.file {
            // A full disk shows at the latest in `finish`.
            let _ = writeln!(file, "{line}");
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

/// Takes the log of one thread.
struct Log(History);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("farshore") && *metadata.level() <= Level::INFO;
        metadata.is_event() && (ours || *metadata.level() == Level::ERROR)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let level = *event.metadata().level();
        self.0.note("log", format_args!("{level}{}", text.0));
        if level == Level::ERROR {
            self.0.inner().errors.push(text.0);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into memory does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
