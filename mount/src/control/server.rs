//! The side that is asked: takes connections on its socket, and answers line by line.

use super::protocol::{ANSWER_BYTES_MAX, Answer, REQUEST_BYTES_MAX, Request};
use super::run_dir::{RunDir, RunDirError};
use futures_util::future::BoxFuture;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// How many are answered at once; the others wait to be taken.
const CLIENTS_MAX: usize = 32;

/// How long a client may take to send a line, and to read an answer, each.
const CLIENT_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer may take to be found.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait when no client can be taken, for example because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Knows the answers.
pub trait Answers: Send + Sync + 'static {
    /// The answer to one request.
    fn answer(&self, request: Request) -> BoxFuture<'static, Answer>;
}

/// A socket that is listened to. When it is dropped, connections are closed and nothing of it stays behind.
#[derive(Debug)]
pub struct Control {
    run: RunDir,
    name: String,
    task: JoinHandle<()>,
}

impl Control {
    /// Begins to listen in the state directory `state`, and answers on the current runtime.
    ///
    /// # Errors
    /// The directory of the sockets cannot be used.
    pub fn start(state: &Path, answers: Arc<dyn Answers>) -> Result<Control, RunDirError> {
        let run = RunDir::open(state)?;
        let (listener, name) = run.listen()?;
        match UnixListener::from_std(listener) {
            Ok(listener) => Ok(Control { run, name, task: tokio::spawn(accept(listener, answers)) }),
            Err(source) => {
                run.remove(&name);
                Err(RunDirError::Io { path: state.to_owned(), source })
            }
        }
    }

    /// As [`Control::start`]. A process that cannot be asked does its work all the same, and says so once.
    #[must_use]
    pub fn start_if_possible(state: &Path, answers: Arc<dyn Answers>) -> Option<Control> {
        Control::start(state, answers)
            .inspect_err(|error| tracing::warn!("`farshore status` will not find this process: {error}"))
            .ok()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.run.remove(&self.name);
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, answers: Arc<dyn Answers>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut clients = JoinSet::new();
    // Nobody closes the semaphore.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = answers.clone();
                clients.spawn(async move {
                    if let Err(error) = serve(stream, &*answers).await {
                        tracing::debug!("a client of the control socket went away: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("the control socket takes nobody: {error}; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while clients.try_join_next().is_some() {}
    }
}

/// Answers one client until it has had enough, says nothing for too long, or goes on too long.
async fn serve(stream: UnixStream, answers: &dyn Answers) -> io::Result<()> {
    // The directory is closed to others; this holds even if somebody opens it by mistake.
    let caller = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    if caller != rustix::process::geteuid().as_raw() && caller != 0 {
        return send(&mut writer, &refused("this process answers only to the user who started it")).await;
    }
    let mut reader = BufReader::new(reader);
    while let Ok(line) = timeout(CLIENT_LIMIT, next_line(&mut reader)).await {
        let answer = match line? {
            Line::End => return Ok(()),
            Line::TooLong => {
                // What comes next is the rest of it.
                let reason = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
                return send(&mut writer, &refused(&reason)).await;
            }
            Line::Whole(line) => match serde_json::from_slice(&line) {
                Ok(request) => timeout(ANSWER_LIMIT, answers.answer(request))
                    .await
                    .unwrap_or_else(|_| refused("it takes too long; try again")),
                Err(error) => refused(&format!("this is no request that farshore knows: {error}")),
            },
        };
        send(&mut writer, &answer).await?;
    }
    Ok(())
}

fn refused(reason: &str) -> Answer {
    Answer::Refused { reason: reason.to_owned() }
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
    End,
}

async fn next_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Line> {
    let mut line = Vec::new();
    let count = reader.take(REQUEST_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
    Ok(match line.last() {
        Some(b'\n') => Line::Whole(line),
        Some(_) if count == REQUEST_BYTES_MAX => Line::TooLong,
        // A line that was cut off says nothing.
        Some(_) | None => Line::End,
    })
}

async fn send(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    if line.len() >= ANSWER_BYTES_MAX {
        line = serde_json::to_vec(&refused("the answer is too long to be sent"))?;
    }
    line.push(b'\n');
    timeout(CLIENT_LIMIT, writer.write_all(&line)).await?
}
