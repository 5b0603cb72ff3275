//! One process that belongs to a measurement: what it says goes to files, and it never outlives us.

use crate::processes;
use crate::stopping::{Trouble, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long a process may take to end when it is asked to.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How much of what a process said is told when it failed, in bytes.
const TOLD_BYTES: usize = 300;

/// A running process and all that it has started. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts a command by `spawn`. What it says goes to files in `dir` that begin with `name`.
    pub(crate) fn start(
        mut command: Command,
        dir: &Path,
        name: &str,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> Result<Process, Trouble> {
        let (stdout, stderr) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?).process_group(0);
        let child = spawn(&mut command)
            .map_err(|error| Trouble::Failed(format!("cannot start {}: {error}", command.get_program().display())))?;
        Ok(Process { name: name.to_owned(), child, stdout, stderr })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `look` finds something, and fails when the process ends before that.
    pub(crate) fn wait_for<T>(
        &mut self,
        limit: Duration,
        mut look: impl FnMut(&mut Process) -> Result<Option<T>, Trouble>,
    ) -> Result<T, Trouble> {
        wait_for(limit, || {
            if let Some(found) = look(self)? {
                return Ok(Some(found));
            }
            match self.ended()? {
                Some(status) => {
                    Err(Trouble::Failed(format!("{} ended with {status}: {}", self.name, self.complaint())))
                }
                None => Ok(None),
            }
        })
    }

    /// The first line of stdout.
    pub(crate) fn first_line(&mut self, limit: Duration) -> Result<String, Trouble> {
        self.wait_for(limit, |process| {
            let said = fs::read_to_string(&process.stdout)?;
            Ok(said.split_once('\n').map(|(line, _)| line.to_owned()))
        })
    }

    /// Waits until it has ended well. What it printed.
    pub(crate) fn end(mut self, limit: Duration) -> Result<String, Trouble> {
        let status = wait_for(limit, || self.ended())?;
        if !status.success() {
            return Err(Trouble::Failed(format!("{} ended with {status}: {}", self.name, self.complaint())));
        }
        Ok(fs::read_to_string(&self.stdout)?)
    }

    /// Asks it to end, and waits for that. Some programs call that a failure of theirs.
    pub(crate) fn stop(mut self) -> Result<(), Trouble> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        wait_for(STOP_LIMIT, || self.ended()).map(drop)
    }

    /// Kills it, if it has not ended, and everything it has started and left behind, as sshfs does with ssh.
    fn kill_all(&mut self) {
        let all = processes::tree(self.pid()).unwrap_or_default();
        // Does nothing if it has ended: its number may be another's by now.
        let _ = self.child.kill();
        for pid in all.into_iter().filter(|pid| *pid != self.pid()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// How it has ended, if it has. Then nothing that it has started is left, either.
    fn ended(&mut self) -> Result<Option<ExitStatus>, Trouble> {
        let ended = self.child.try_wait()?;
        if ended.is_some() {
            self.kill_all();
        }
        Ok(ended)
    }

    /// The end of what it said.
    fn complaint(&self) -> String {
        let said = fs::read(&self.stderr).unwrap_or_default();
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(TOLD_BYTES)..]).replace('\n', " ");
        said.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill_all();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::tree;

    /// Orphans are reaped by whoever has adopted them.
    fn is_gone(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    }

    #[test]
    fn nothing_of_a_process_outlives_it_even_in_a_session_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "setsid sleep 1000 & echo there; wait"]);
        let mut process = Process::start(command, dir.path(), "shell", Command::spawn).unwrap();
        let limit = Duration::from_secs(30);
        assert_eq!(process.first_line(limit).unwrap(), "there");
        let all = tree(process.pid()).unwrap();
        assert!(all.len() > 1, "{all:?}");
        drop(process);
        wait_for(limit, || Ok(all.iter().all(|pid| is_gone(*pid)).then_some(()))).unwrap();
    }

    #[test]
    fn what_a_process_leaves_to_others_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "(sleep 1000 & echo $!)"]);
        let process = Process::start(command, dir.path(), "shell", Command::spawn).unwrap();
        let limit = Duration::from_secs(30);
        let orphan: u32 = process.end(limit).unwrap().trim().parse().unwrap();
        wait_for(limit, || Ok(is_gone(orphan).then_some(()))).unwrap();
    }

    #[test]
    fn a_process_that_fails_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let process = Process::start(command, dir.path(), "shell", Command::spawn).unwrap();
        let Err(Trouble::Failed(why)) = process.end(Duration::from_secs(30)) else { panic!("it did not fail") };
        assert!(why.contains("3") && why.contains("no such thing"), "{why}");
    }

    #[test]
    fn a_process_that_takes_too_long_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let process = Process::start(command, dir.path(), "sleep", Command::spawn).unwrap();
        assert_eq!(process.end(Duration::from_millis(10)), Err(Trouble::TooLong));
    }
}
