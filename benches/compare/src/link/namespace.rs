//! A network namespace without a name: it is there for as long as somebody holds or uses it.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;

/// A network of its own: devices, addresses, routes, sockets.
#[derive(Debug)]
pub struct Namespace {
    network: File,
}

impl Namespace {
    /// Makes one, with nothing in it but a loopback device that is down.
    ///
    /// # Errors
    /// If the program `unshare` or the right to make namespaces is missing.
    pub fn new() -> io::Result<Namespace> {
        // A process that begins in a new network, says so, and holds it until we hold it ourselves.
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "sh", "-c", "echo there; read end"]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let network = Namespace::of(&mut holder);
        drop(holder.stdin.take());
        holder.wait()?;
        Ok(Namespace { network: network? })
    }

    fn of(holder: &mut Child) -> io::Result<File> {
        let mut said = String::new();
        if let Some(stdout) = &mut holder.stdout {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        if said != "there\n" {
            return Err(io::Error::other("unshare did not make one"));
        }
        File::open(format!("/proc/{}/ns/net", holder.id()))
    }

    /// Runs something in this network. Sockets that it opens and processes that it starts stay in it.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        // A thread of its own, because the way back is not certain.
        let inside = || {
            move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a process in this network.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn()).flatten()
    }
}
