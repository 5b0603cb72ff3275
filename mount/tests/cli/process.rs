//! One process, watched: what it says is read as it says it, and it never outlives the test.

use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything that should happen soon may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A running process. When it is dropped it is killed, reaped, and must not have logged an error.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
    /// Errors in the log are what the test is about.
    may_log_errors: bool,
}

/// How a process ended, and all that it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Process {
    /// Starts `command`, with nothing on its standard input.
    pub(crate) fn start(mut command: Command) -> Process {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = Output::read(child.stdout.take().unwrap());
        let stderr = Output::read(child.stderr.take().unwrap());
        Process { name, child, stdout, stderr, may_log_errors: false }
    }

    /// Starts `command` and waits for its end.
    pub(crate) fn run(command: Command) -> Ended {
        Process::start(command).end()
    }

    /// From now on it may log errors.
    pub(crate) fn may_log_errors(&mut self) {
        self.may_log_errors = true;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line of stdout, when it is there.
    pub(crate) fn first_line(&self) -> String {
        self.wait_for_line(&self.stdout, "")
    }

    /// The first line of stdout with `text` in it, when it is there.
    pub(crate) fn prints(&self, text: &str) -> String {
        self.wait_for_line(&self.stdout, text)
    }

    /// The first line of stderr with `text` in it, when it is there.
    pub(crate) fn says(&self, text: &str) -> String {
        self.wait_for_line(&self.stderr, text)
    }

    /// How many lines of stderr have `text` in them by now.
    pub(crate) fn said(&self, text: &str) -> usize {
        self.stderr.text().lines().filter(|line| line.contains(text)).count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it so that it can do nothing about it, and reaps it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn stop(self, signal: Signal) -> Ended {
        self.signal(signal);
        self.end()
    }

    /// Waits until it has ended, and nobody holds its outputs open any more.
    pub(crate) fn end(self) -> Ended {
        self.end_within(SOON)
    }

    /// The same, for a process that has much to do.
    pub(crate) fn end_within(mut self, limit: Duration) -> Ended {
        let begun = Instant::now();
        let deadline = begun + limit;
        while self.is_running() {
            self.check_in_time(deadline, "it did not end");
            thread::sleep(Duration::from_millis(2));
        }
        let took = begun.elapsed();
        for output in [&self.stdout, &self.stderr] {
            if !output.wait(deadline, |heard| heard.is_over) {
                panic!("{} ended, but somebody keeps its output open", self.name);
            }
        }
        let (stdout, stderr) = (self.stdout.bytes(), self.stderr.text());
        Ended { status: self.child.wait().unwrap(), stdout, stderr, took }
    }

    fn wait_for_line(&self, output: &Output, text: &str) -> String {
        let deadline = Instant::now() + SOON;
        output.wait(deadline, |heard| heard.is_over || heard.line(text).is_some());
        match output.heard(|heard| heard.line(text)) {
            Some(line) => line,
            None => panic!("it never said {text:?}: {}", self.transcript()),
        }
    }

    fn check_in_time(&self, deadline: Instant, otherwise: &str) {
        assert!(Instant::now() < deadline, "{otherwise}: {}", self.transcript());
    }

    fn transcript(&self) -> String {
        let stdout = self.stdout.bytes();
        format!("{}\n{}{}", self.name, String::from_utf8_lossy(&stdout), self.stderr.text())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let before = self.child.try_wait();
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {before:?}: {}", self.transcript());
        } else if !self.may_log_errors {
            self.stderr.wait(Instant::now() + Duration::from_secs(1), |heard| heard.is_over);
            let said = self.stderr.text();
            let wrong = |line: &str| line.starts_with("ERROR") || line.contains("panicked");
            assert!(!said.lines().any(wrong), "an error was logged: {}", self.transcript());
        }
    }
}

impl Ended {
    /// It ended well.
    #[track_caller]
    pub(crate) fn went_well(self) -> Ended {
        self.has_code(0)
    }

    /// It ended by itself, with this code.
    #[track_caller]
    pub(crate) fn has_code(self, code: i32) -> Ended {
        assert_eq!(self.status.code(), Some(code), "signal {:?}: {}", self.status.signal(), self.all());
        self
    }

    /// It said nothing on stdout, and one line with all of `texts` in it on stderr.
    #[track_caller]
    pub(crate) fn only_says(self, texts: &[&str]) -> Ended {
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.all());
        assert!(self.stdout.is_empty(), "{}", self.all());
        self.also_says(texts)
    }

    /// One of its lines on stderr begins as our own complaints do and has all of `texts` in it.
    #[track_caller]
    pub(crate) fn also_says(self, texts: &[&str]) -> Ended {
        let is_it = |line: &str| line.starts_with("farshore: ") && texts.iter().all(|text| line.contains(text));
        assert!(self.stderr.lines().any(is_it), "no line with {texts:?}: {}", self.all());
        self
    }

    /// It ended promptly, from the moment on in which its end was awaited.
    #[track_caller]
    pub(crate) fn within(self, limit: Duration) -> Ended {
        assert!(self.took < limit, "it took {:?}: {}", self.took, self.all());
        self
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    fn all(&self) -> String {
        format!("{}\n{}{}", self.status, String::from_utf8_lossy(&self.stdout), self.stderr)
    }
}

/// One of the outputs of a process, read by a thread until nobody can write to it any more.
struct Output(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    is_over: bool,
}

impl Output {
    fn read(mut from: impl Read + Send + 'static) -> Output {
        let shared = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let output = Output(shared.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = from.read(&mut buffer).unwrap_or(0);
                let mut heard = shared.0.lock().unwrap();
                heard.bytes.extend(&buffer[..count]);
                heard.is_over = count == 0;
                shared.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        output
    }

    /// Whether `condition` came true in time.
    fn wait(&self, deadline: Instant, condition: impl Fn(&Heard) -> bool) -> bool {
        let (heard, changed) = &*self.0;
        let left = deadline.saturating_duration_since(Instant::now());
        let (heard, _) = changed.wait_timeout_while(heard.lock().unwrap(), left, |heard| !condition(heard)).unwrap();
        condition(&heard)
    }

    fn heard<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.0.0.lock().unwrap())
    }

    fn bytes(&self) -> Vec<u8> {
        self.heard(|heard| heard.bytes.clone())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Heard {
    /// The first whole line with `text` in it.
    fn line(&self, text: &str) -> Option<String> {
        let said = String::from_utf8_lossy(&self.bytes);
        let whole = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        whole.into_iter().find(|line| line.contains(text)).map(str::to_owned)
    }
}

/// What a condition that is polled says: whether it holds, or why not yet.
pub(crate) trait Outcome {
    fn why_not(self) -> Option<String>;
}

impl Outcome for bool {
    fn why_not(self) -> Option<String> {
        (!self).then(String::new)
    }
}

impl Outcome for Result<(), String> {
    fn why_not(self) -> Option<String> {
        self.err()
    }
}

/// Polls until `condition` holds, and fails if it does not within `limit`. `what` says what it is.
#[track_caller]
pub(crate) fn within<T: Outcome>(limit: Duration, what: &str, mut condition: impl FnMut() -> T) {
    let deadline = Instant::now() + limit;
    while let Some(reason) = condition().why_not() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}. {reason}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Polls until `condition` holds, and fails if it never does.
#[track_caller]
pub(crate) fn eventually<T: Outcome>(what: &str, condition: impl FnMut() -> T) {
    within(SOON, what, condition);
}
