//! The `farshore` binary: reads the command line, runs one command, and ends with its exit code.

use clap::Parser;
use farshore::commands::{self, Failure};
use rustix::process::{Resource, Rlimit};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let line = commands::CommandLine::parse();
    let filter = EnvFilter::try_from_env("FARSHORE_LOG").unwrap_or_else(|_| EnvFilter::new("warn,farshore=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        // When nobody reads stderr any more, to say so there would end the thread that wanted to log.
        .log_internal_errors(false)
        .init();
    allow_open_files();
    match commands::run(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            if !message.is_empty() {
                // There is nobody left to tell that nobody listens.
                let _ = writeln!(std::io::stderr(), "farshore: {message}");
            }
            ExitCode::from(code)
        }
    }
}

/// Lets this process have as many files open as the system allows: each reader of a share keeps the files open that it
/// reads, and the usual limit is for programs that open a few. If it cannot be raised, it stays as it is.
fn allow_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if let Err(error) = raised {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
}
