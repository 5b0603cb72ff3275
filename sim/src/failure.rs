//! Running something that may panic, and telling what went wrong in a way that can be repeated.

use crate::history::History;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// The first panic on this thread since it was last looked at. Everything in one world runs on one thread.
    static FIRST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether a world runs on this thread: then the first panic is told with the failure.
    static IN_ATTEMPT: Cell<bool> = const { Cell::new(false) };
}

/// Something that is run with a seed.
pub type Body<'a> = &'a dyn Fn(u64, &History) -> Result<(), String>;

/// A run that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was run: a scenario, or none for a plan.
    pub scenario: Option<&'static str>,
    /// What went wrong.
    pub what: String,
    /// The last lines of its history.
    pub tail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, scenario, what, tail } = self;
        let scenario = scenario.map(|name| format!(" --scenario {name}")).unwrap_or_default();
        writeln!(f, "seed {seed} failed: {what}")?;
        writeln!(f, "the last that happened:\n{tail}")?;
        write!(f, "to see it again:\n  cargo run -p farshore-sim -- run --seed {seed}{scenario} --trace trace.txt")
    }
}

/// Runs `body`. A panic anywhere in it is a failure, not the end of the process.
///
/// # Errors
/// What went wrong.
pub fn attempt(
    seed: u64,
    scenario: Option<&'static str>,
    history: &History,
    body: Body<'_>,
) -> Result<(), Box<Failure>> {
    keep_first_panic();
    FIRST_PANIC.with_borrow_mut(|first| *first = None);
    IN_ATTEMPT.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| body(seed, history)));
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
    Err(Box::new(Failure { seed, scenario, what, tail: history.tail() }))
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
                eprintln!("{}: {info}", std::thread::current().name().unwrap_or("a run"));
            }
        }));
    });
}
