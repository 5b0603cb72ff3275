//! Running something that may panic, and telling what went wrong in a way that can be repeated.

use crate::history::History;
use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// The first panic on this thread since it was last looked at. Everything in one world runs on one thread.
    static FIRST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
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
    let result = panic::catch_unwind(AssertUnwindSafe(|| body(seed, history)));
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

/// Panics are noted instead of printed, on threads that run a world; the first is the one that matters.
fn keep_first_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let noted = tokio::runtime::Handle::try_current().is_ok() && turmoil::in_simulation();
            FIRST_PANIC.with_borrow_mut(|first| {
                first.get_or_insert_with(|| info.to_string());
            });
            if !noted {
                print(info);
            }
        }));
    });
}
