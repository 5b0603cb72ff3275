//! Many seeds, several at once; the failures at the end, each with the command that repeats it.

use crate::failure::{Failure, attempt};
use crate::history::History;
use crate::plan;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the progress is shown.
const PROGRESS: Duration = Duration::from_millis(500);

/// Runs every seed of `seeds`, `jobs` at once, and prints what came of it. Returns how many failed.
pub fn sweep(seeds: Range<u64>, jobs: usize) -> usize {
    let began = Instant::now();
    let failures = run(&seeds, jobs);
    for failure in &failures {
        println!("{failure}\nits plan:\n{}\n", plan::Plan::draw(failure.seed));
    }
    let count = seeds.end - seeds.start;
    let passed = count - failures.len() as u64;
    let per_minute = count as f64 * 60.0 / began.elapsed().as_secs_f64();
    println!("{passed} passed, {} failed ({per_minute:.0} seeds per minute)", failures.len());
    failures.len()
}

fn run(seeds: &Range<u64>, jobs: usize) -> Vec<Failure> {
    let next = AtomicU64::new(seeds.start);
    let done = AtomicU64::new(0);
    let failures: Mutex<Vec<Failure>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if let Err(failure) = attempt(seed, None, &History::short(), &plan::run) {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(*failure);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        show_progress(seeds, &done, &failures);
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|failure| failure.seed);
    failures
}

/// Shows how far it is, on a terminal, until all is done.
fn show_progress(seeds: &Range<u64>, done: &AtomicU64, failures: &Mutex<Vec<Failure>>) {
    let mut terminal = std::io::stderr();
    if !terminal.is_terminal() {
        return;
    }
    let count = seeds.end - seeds.start;
    loop {
        let now = done.load(Ordering::Relaxed);
        let failed = failures.lock().unwrap_or_else(PoisonError::into_inner).len();
        // Nobody is told less if the terminal is gone.
        let _ = write!(terminal, "\r{now} of {count} seeds, {failed} failed ");
        let _ = terminal.flush();
        if now >= count {
            let _ = writeln!(terminal);
            return;
        }
        thread::sleep(PROGRESS);
    }
}
