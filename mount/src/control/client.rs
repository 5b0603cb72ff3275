//! The side that asks.

use super::protocol::{ANSWER_BYTES_MAX, Answer, Request};
use super::run_dir::{RunDir, RunDirError};
use futures_util::future::join_all;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a process may take to do something: longer than it gives itself.
const PATIENCE: Duration = Duration::from_secs(12);

/// How long it may take to say how it is, which takes it a moment. Whoever looks at many does not want to wait for one.
const STATUS_PATIENCE: Duration = Duration::from_secs(3);

/// What became of a question to one process.
#[derive(Debug)]
pub struct Reached {
    /// The name of its socket.
    pub socket: String,
    /// What it says.
    pub answer: Result<Answer, AskError>,
}

/// Why a process did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It has ended meanwhile.
    #[error("it has ended")]
    Ended,
    /// It is stopped, or hangs.
    #[error("it does not answer; is it stopped?")]
    Silent,
    /// Another version, or no Farshore at all.
    #[error("its answer makes no sense ({0}); is it of another version?")]
    Nonsense(serde_json::Error),
    /// The system says no.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> AskError {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, WouldBlock};
        if matches!(error.kind(), ConnectionRefused | NotFound | BrokenPipe | ConnectionReset) {
            AskError::Ended
        } else if error.kind() == WouldBlock {
            AskError::Silent
        } else {
            AskError::Io(error)
        }
    }
}

/// Asks every process of a state directory, all at once. Those that have ended meanwhile are left out.
///
/// # Errors
/// The directory of the sockets cannot be used.
pub async fn ask_all(state: &Path, request: &Request) -> Result<Vec<Reached>, RunDirError> {
    let Some(run) = RunDir::existing(state)? else { return Ok(Vec::new()) };
    let asked = run.sockets()?.alive.into_iter().map(|socket| {
        let run = &run;
        async move { Reached { answer: ask(run, &socket, request).await, socket } }
    });
    let mut reached = join_all(asked).await;
    reached.retain(|reached| !matches!(reached.answer, Err(AskError::Ended)));
    Ok(reached)
}

/// Asks one process.
///
/// # Errors
/// Why it did not answer. That it does not want to do what it is asked is an answer.
pub async fn ask(run: &RunDir, socket: &str, request: &Request) -> Result<Answer, AskError> {
    let patience = match request {
        Request::Status {} => STATUS_PATIENCE,
        Request::Dismiss { .. } | Request::File(_) => PATIENCE,
    };
    timeout(patience, exchange(run, socket, request)).await.unwrap_or(Err(AskError::Silent))
}

async fn exchange(run: &RunDir, socket: &str, request: &Request) -> Result<Answer, AskError> {
    let mut stream = UnixStream::from_std(run.connect(socket)?)?;
    let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    BufReader::new(stream).take(ANSWER_BYTES_MAX as u64).read_until(b'\n', &mut answer).await?;
    if answer.is_empty() {
        return Err(AskError::Ended);
    }
    serde_json::from_slice(&answer).map_err(AskError::Nonsense)
}
