//! Running something that may panic, and telling what went wrong in a way that can be repeated.

use crate::drawn::Kind;
use crate::history::History;
use crate::sabotage::Sabotage;
use clap::ValueEnum;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// The first panic on this thread since it was last looked at. Everything in one world runs on one thread.
    static FIRST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether a world runs on this thread: then the first panic is told with the failure.
    static IN_ATTEMPT: Cell<bool> = const { Cell::new(false) };
}

/// What is run: enough to run it again.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// All chance.
    pub seed: u64,
    /// A scenario, or none for what the seed draws.
    pub scenario: Option<String>,
    /// Of which kind the run is that the seed means; of the one that goes with the seed, if none is named.
    pub kind: Option<Kind>,
    /// A planted bug.
    pub sabotage: Option<Sabotage>,
}

impl Case {
    /// The arguments of `sim run` that run it.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--seed".to_owned(), self.seed.to_string()];
        if let Some(scenario) = &self.scenario {
            arguments.extend(["--scenario".to_owned(), scenario.clone()]);
        }
        if let Some(kind) = self.kind.and_then(|kind| kind.to_possible_value()) {
            arguments.extend(["--kind".to_owned(), kind.get_name().to_owned()]);
        }
        if let Some(sabotage) = self.sabotage.and_then(|sabotage| sabotage.to_possible_value()) {
            arguments.extend(["--sabotage".to_owned(), sabotage.get_name().to_owned()]);
        }
        arguments
    }

    /// The one command that shows it again, with its whole history.
    #[must_use]
    pub fn command(&self) -> String {
        format!("cargo run -p farshore-sim -- run {} --trace target/trace.txt", self.arguments().join(" "))
    }
}

/// A run that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What was run.
    pub case: Case,
    /// What went wrong.
    pub what: String,
    /// The last lines of its history.
    pub tail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} failed: {}", self.case.seed, self.what)?;
        writeln!(f, "the last that happened:\n{}", self.tail)?;
        write!(f, "to see it again:\n  {}", self.case.command())
    }
}

/// Runs `body`. A panic anywhere in it is a failure, not the end of the process.
///
/// # Errors
/// What went wrong.
pub fn attempt(
    case: &Case,
    history: &History,
    body: impl FnOnce(&History) -> Result<(), String>,
) -> Result<(), Box<Failure>> {
    keep_first_panic();
    FIRST_PANIC.with_borrow_mut(|first| *first = None);
    IN_ATTEMPT.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| body(history)));
    IN_ATTEMPT.set(false);
    let first = FIRST_PANIC.with_borrow_mut(Option::take);
    let what = match (result, first) {
        (Ok(Ok(())), None) => return Ok(()),
        // A runtime may have caught it.
        (Ok(Ok(())), Some(panic)) => format!("a panic that was caught: {panic}"),
        (Ok(Err(what)), None) => what,
        (Ok(Err(what)), Some(panic)) => format!("{what}; first of all {panic}"),
        (Err(_), first) => first.unwrap_or_else(|| "a panic without a message".into()),
    };
    Err(Box::new(Failure { case: case.clone(), what, tail: history.tail() }))
}

/// The first panic on a thread that runs a world is noted, and told with the failure. It is printed as well, in one
/// line: when a task of the node itself panics, tokio may abort the process while it shuts that down.
fn keep_first_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IN_ATTEMPT.get() {
                return print(info);
            }
            let is_first = FIRST_PANIC.with_borrow_mut(|first| {
                let is_first = first.is_none();
                first.get_or_insert_with(|| info.to_string());
                is_first
            });
            if is_first {
                // Not `eprintln`, which a test keeps to itself until it ends.
                let _ = writeln!(std::io::stderr(), "{}: {info}", std::thread::current().name().unwrap_or("a run"));
            }
        }));
    });
}
