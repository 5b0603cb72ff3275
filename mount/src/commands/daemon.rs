//! `--daemon`: the same command again in the background, and a word from it when it is ready.
//!
//! The parent starts this program anew with a mark in its environment and waits for one line on its standard output.
//! What the child says on stderr until then is what the parent would have said.

use super::Failure;
use std::io::{BufRead, BufReader, Write};
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

/// In the background: leaves the terminal's session, so that closing it or Ctrl-C does not reach us.
pub(super) fn detach() -> Result<(), Failure> {
    if is_background() {
        rustix::process::setsid().map_err(Failure::failed)?;
    }
    Ok(())
}

/// In the background: lets the parent go.
pub(super) fn tell_ready() -> Result<(), Failure> {
    if is_background() {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{READY}")?;
        stdout.flush()?;
    }
    Ok(())
}
