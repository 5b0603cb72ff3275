//! The protocol over real sockets, and the directory in which they are.

use super::*;
use crate::json_path::JsonPath;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all, ready};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as BlockingListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long anything may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Does what it is asked to with files, in words.
struct Parrot;

impl Answers for Parrot {
    fn answer(&self, request: Request) -> BoxFuture<'static, Answer> {
        match request {
            Request::File(file) => ready(Answer::Done { text: format!("{:?} {}", file.command, file.path) }).boxed(),
            // Never.
            Request::Dismiss { .. } | Request::Status {} => std::future::pending().boxed(),
        }
    }
}

fn pin(path: &str) -> Request {
    Request::File(FileRequest { command: FileCommand::Pin, path: JsonPath::Text(path.into()) })
}

fn pinned(path: &str) -> Answer {
    Answer::Done { text: format!("Pin {path}") }
}

/// A state directory that is listened in.
struct Place {
    dir: tempfile::TempDir,
    control: Control,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::start(dir.path(), Arc::new(Parrot)).unwrap();
        Place { dir, control }
    }

    fn state(&self) -> &Path {
        self.dir.path()
    }

    fn run(&self) -> RunDir {
        RunDir::existing(self.state()).unwrap().unwrap()
    }

    async fn connect(&self) -> UnixStream {
        let [socket] = &sockets_in(self.state())[..] else { panic!("not one socket") };
        UnixStream::connect(socket).await.unwrap()
    }

    /// Sends bytes as they are, and reads so many lines.
    async fn says(&self, bytes: &[u8], lines: usize) -> Vec<Answer> {
        let mut stream = self.connect().await;
        // It may hang up before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut said = Vec::new();
        while said.iter().filter(|byte| **byte == b'\n').count() < lines {
            let count = timeout(SOON, stream.read_buf(&mut said)).await.unwrap().unwrap();
            assert!(count > 0, "it hung up after {:?}", String::from_utf8_lossy(&said));
        }
        let lines = said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }
}

fn sockets_in(state: &Path) -> Vec<PathBuf> {
    fs::read_dir(state.join("run")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[track_caller]
fn is_refused(answer: &Answer, reason: &str) {
    assert!(matches!(answer, Answer::Refused { reason: why } if why.contains(reason)), "{answer:?}");
}

#[tokio::test]
async fn a_bad_line_is_answered_and_hurts_nothing() {
    let place = Place::new();
    let mut good = serde_json::to_vec(&pin("a")).unwrap();
    good.push(b'\n');
    for bad in [
        "",
        "hello",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"ask":"fly"}"#,
        r#"{"ask":"dismiss"}"#,
        r#"{"ask":"dismiss","peer":7}"#,
        r#"{"ask":"status","more":1}"#,
        r#"{"ask":"file","command":"pin"}"#,
        r#"{"ask":"file","command":"eat","path":"a"}"#,
        "\u{0}\u{ff}",
    ] {
        let both = [bad.as_bytes(), b"\n", &good].concat();
        let answers = place.says(&both, 2).await;
        is_refused(&answers[0], "no request");
        assert_eq!(answers[1], pinned("a"), "the next line after {bad:?} is answered");
    }
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_ends_the_connection() {
    let place = Place::new();
    let longest = "a".repeat(REQUEST_BYTES_MAX - serde_json::to_vec(&pin("")).unwrap().len() - 1);
    assert_eq!(ask_one(&place, &pin(&longest)).await.unwrap(), pinned(&longest));
    let mut stream = place.connect().await;
    let rest = vec![b'a'; REQUEST_BYTES_MAX];
    stream.write_all(&rest).await.unwrap();
    let mut said = Vec::new();
    timeout(SOON, stream.read_to_end(&mut said)).await.expect("it hangs up").unwrap();
    is_refused(&serde_json::from_slice(&said).unwrap(), "at most");
    assert_eq!(ask_one(&place, &pin("b")).await.unwrap(), pinned("b"), "others are answered");
}

#[tokio::test]
async fn a_line_that_is_cut_off_is_no_request() {
    let place = Place::new();
    let mut stream = place.connect().await;
    stream.write_all(&serde_json::to_vec(&pin("a")).unwrap()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = Vec::new();
    timeout(SOON, stream.read_to_end(&mut said)).await.unwrap().unwrap();
    assert!(said.is_empty());
}

async fn ask_one(place: &Place, request: &Request) -> Result<Answer, AskError> {
    let run = place.run();
    ask(&run, &run.sockets().unwrap().alive[0], request).await
}

#[tokio::test]
async fn many_are_answered_at_once_while_others_say_nothing() {
    let place = Place::new();
    // These take places and never come to the point.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(place.connect().await);
    }
    let run = place.run();
    let name = run.sockets().unwrap().alive.remove(0);
    let requests: Vec<_> = (0..50).map(|number| pin(&number.to_string())).collect();
    let answers = timeout(SOON, join_all(requests.iter().map(|request| ask(&run, &name, request)))).await.unwrap();
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), pinned(&number.to_string()));
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_hung_up_on_and_no_answer_is_waited_for_for_ever() {
    let place = Place::new();
    let mut silent = place.connect().await;
    let mut said = Vec::new();
    silent.read_to_end(&mut said).await.unwrap();
    assert!(said.is_empty());
    let peer = String::new();
    is_refused(&ask_one(&place, &Request::Dismiss { peer }).await.unwrap(), "too long");
    assert!(matches!(ask_one(&place, &Request::Status {}).await, Err(AskError::Silent)));
}

#[tokio::test]
async fn nothing_stays_behind() {
    let place = Place::new();
    let mut stream = place.connect().await;
    let Place { dir, control } = place;
    drop(control);
    assert!(sockets_in(dir.path()).is_empty());
    let closed = timeout(SOON, stream.read(&mut [0])).await.expect("connections are closed");
    assert!(closed.is_err() || closed.is_ok_and(|count| count == 0), "and nothing is said");
    assert!(ask_all(dir.path(), &pin("a")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_stale_socket_is_removed_and_a_living_one_is_not() {
    let place = Place::new();
    let stale = place.state().join("run/stale.sock");
    drop(BlockingListener::bind(&stale).unwrap());
    let other = place.state().join("run/something else");
    fs::write(&other, "").unwrap();
    let reached = ask_all(place.state(), &pin("a")).await.unwrap();
    assert_eq!(reached.len(), 1);
    assert!(!stale.exists() && other.exists());
    drop(BlockingListener::bind(&stale).unwrap());
    let second = Control::start(place.state(), Arc::new(Parrot)).unwrap();
    assert!(!stale.exists(), "who begins to listen tidies up");
    assert_eq!(ask_all(place.state(), &pin("a")).await.unwrap().len(), 2);
    drop(second);
    assert_eq!(ask_all(place.state(), &pin("a")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_directory_is_for_this_user_alone() {
    let place = Place::new();
    let run = place.state().join("run");
    assert_eq!(fs::metadata(&run).unwrap().permissions().mode() & 0o7777, 0o700);
    fs::set_permissions(&run, Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(RunDir::existing(place.state()), Err(RunDirError::Exposed { mode: 0o755, .. })));
    assert!(Control::start(place.state(), Arc::new(Parrot)).is_err());
    fs::set_permissions(&run, Permissions::from_mode(0o700)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert!(RunDir::existing(dir.path()).unwrap().is_none());
    std::os::unix::fs::symlink(&run, dir.path().join("run")).unwrap();
    assert!(matches!(RunDir::existing(dir.path()), Err(RunDirError::Io { .. })), "a symlink leads elsewhere");
}

#[tokio::test]
async fn a_deep_state_directory_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("deep".repeat(20)).join("deeper".repeat(20));
    fs::create_dir_all(&deep).unwrap();
    assert!(BlockingListener::bind(deep.join("x")).is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput));
    let control = Control::start(&deep, Arc::new(Parrot)).unwrap();
    let reached = ask_all(&deep, &pin("a")).await.unwrap();
    assert_eq!(reached[0].answer.as_ref().unwrap(), &pinned("a"));
    drop(control);
    assert!(sockets_in(&deep).is_empty());
}

#[tokio::test]
async fn who_answers_nonsense_is_told_apart_from_who_has_ended() {
    let place = Place::new();
    let run = place.run();
    for (says, is_expected) in [
        (&b"nonsense\n"[..], (|error| matches!(error, AskError::Nonsense(_))) as fn(&AskError) -> bool),
        (b"", |error| matches!(error, AskError::Ended)),
    ] {
        let listener = BlockingListener::bind(place.state().join("run/odd.sock")).unwrap();
        let says = says.to_vec();
        let odd = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            assert!(stream.read(&mut asked).unwrap() > 0);
            stream.write_all(&says).unwrap();
        });
        let error = ask(&run, "odd.sock", &pin("a")).await.unwrap_err();
        assert!(is_expected(&error), "{error:?}");
        odd.join().unwrap();
        fs::remove_file(place.state().join("run/odd.sock")).unwrap();
    }
    assert!(matches!(ask(&run, "gone.sock", &pin("a")).await, Err(AskError::Ended)));
    drop(place.control);
}
