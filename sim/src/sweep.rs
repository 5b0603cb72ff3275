//! Many seeds, several at once, each in a process of its own: a run that aborts or hangs is a failure like any other.

use crate::drawn::Kind;
use crate::failure::Case;
use crate::sabotage::Sabotage;
use anyhow::Context;
use std::io::{IsTerminal, PipeReader, Read, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the progress is shown.
const PROGRESS: Duration = Duration::from_millis(500);

/// A run takes seconds. One that takes this long on the clock on the wall will never end.
const HUNG: Duration = Duration::from_secs(240);

/// How often a run is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);

/// A seed that failed, and what its run said.
struct Failed {
    case: Case,
    said: String,
}

/// Runs every seed of `seeds`, `jobs` at once, and prints what came of it. Returns how many failed.
///
/// # Errors
/// Runs cannot be started.
pub fn sweep(seeds: Range<u64>, jobs: usize, kind: Option<Kind>, sabotage: Option<Sabotage>) -> anyhow::Result<usize> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let began = Instant::now();
    let failures = run(&program, &seeds, jobs, &|seed| Case { seed, scenario: None, kind, sabotage })?;
    for Failed { case, said } in &failures {
        println!("{}\n\nto see seed {} again:\n  {}\n", said.trim_end(), case.seed, case.command());
    }
    let count = seeds.end - seeds.start;
    let passed = count - failures.len() as u64;
    let per_minute = count as f64 * 60.0 / began.elapsed().as_secs_f64();
    println!("{passed} passed, {} failed ({per_minute:.0} seeds per minute)", failures.len());
    Ok(failures.len())
}

fn run(
    program: &Path,
    seeds: &Range<u64>,
    jobs: usize,
    case_of: &(dyn Fn(u64) -> Case + Sync),
) -> anyhow::Result<Vec<Failed>> {
    let next = AtomicU64::new(seeds.start);
    let done = AtomicU64::new(0);
    let failures: Mutex<Vec<Failed>> = Mutex::default();
    let worker = || -> anyhow::Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(());
            }
            let case = case_of(seed);
            if let Some(said) = run_case(program, &case)? {
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(Failed { case, said });
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(PROGRESS.min(POLL * 10));
            show_progress(seeds, &done, &failures);
        }
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|failed| failed.case.seed);
    Ok(failures)
}

/// Runs a case in a process of its own. Returns what it said if it failed.
fn run_case(program: &Path, case: &Case) -> anyhow::Result<Option<String>> {
    let (mut reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut command = Command::new(program);
    command.arg("run").args(case.arguments()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    // It holds the ends that are written to; the reader would wait for ours.
    drop(command);
    thread::scope(|scope| {
        let said = scope.spawn(|| read(&mut reader));
        let ended = wait(&mut child)?;
        let said = said.join().unwrap_or_default();
        Ok(match ended {
            Ended::Well => None,
            Ended::Badly => Some(said),
            Ended::Hung => Some(format!("{said}\nseed {} hung: it was stopped after {HUNG:?}", case.seed)),
        })
    })
}

fn read(reader: &mut PipeReader) -> String {
    let mut said = Vec::new();
    // What was read before an error is said all the same.
    let _ = reader.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

enum Ended {
    Well,
    Badly,
    Hung,
}

fn wait(child: &mut Child) -> anyhow::Result<Ended> {
    let began = Instant::now();
    loop {
        match child.try_wait().context("cannot wait for a run")? {
            Some(status) if status.success() => return Ok(Ended::Well),
            Some(_) => return Ok(Ended::Badly),
            None if began.elapsed() > HUNG => {
                child.kill().context("cannot stop a run")?;
                child.wait().context("cannot wait for a run")?;
                return Ok(Ended::Hung);
            }
            None => thread::sleep(POLL),
        }
    }
}

/// Shows how far it is, on a terminal.
fn show_progress(seeds: &Range<u64>, done: &AtomicU64, failures: &Mutex<Vec<Failed>>) {
    let mut terminal = std::io::stderr();
    if !terminal.is_terminal() {
        return;
    }
    let failed = failures.lock().unwrap_or_else(PoisonError::into_inner).len();
    let (done, count) = (done.load(Ordering::Relaxed), seeds.end - seeds.start);
    // Nobody is told less if the terminal is gone.
    let _ = write!(terminal, "\r{done} of {count} seeds, {failed} failed ");
    let _ = terminal.flush();
}
