//! `--daemon`: the same command again in the background, and a word from it when it is ready.
//!
//! The parent starts this program anew with a mark in its environment and waits for one line on its standard output.
//! What the child says on stderr until then is what the parent would have said, and Ctrl-C until then ends both. From
//! then on the child has nothing in common with the terminal, or with whoever waits for the end of the parent's output.

use super::Failure;
use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Set for the process in the background.
const MARK: &str = "FARSHORE_BACKGROUND";

/// What it says when it is ready.
const READY: &str = "ready";

/// Whether this is the process in the background.
pub(super) fn is_background() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts the process in the background, and returns when it is ready or has failed.
pub(super) fn start() -> Result<(), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line.trim_end() == READY {
        return Ok(());
    }
    // It has said why.
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(super::FAILED);
    Err(Failure { code: code.max(super::FAILED), message: String::new() })
}

/// In the background: lets the parent go, and the terminal with it. What is said from now on goes to `log`, which is
/// begun anew.
pub(super) fn tell_ready(log: &Path) -> Result<(), Failure> {
    let file =
        File::create(log).map_err(|error| Failure::failed(format!("cannot write {}: {error}", log.display())))?;
    setsid().map_err(Failure::failed)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    dup2_stderr(&file).map_err(Failure::failed)?;
    dup2_stdout(&file).map_err(Failure::failed)
}
