//! The simulator's own test: the same seed twice, in two processes, must give the same history.

use crate::failure::Case;
use anyhow::{Context, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Lines that are shown before the first difference.
const CONTEXT_LINES: usize = 8;

/// Runs a case twice. Returns how many lines the history has.
///
/// # Errors
/// The first difference; or a run that could not be made.
pub fn compare(case: &Case) -> anyhow::Result<u64> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let traces = Traces::new(&case.arguments().concat());
    // Whether the run succeeds is not the question here, but both must end in the same way.
    let first = run(&program, case, &traces.first)?;
    let second = run(&program, case, &traces.second)?;
    let lines = compare_files(&traces.first, &traces.second)?;
    if first != second {
        bail!("one run of seed {} succeeded and the other failed", case.seed);
    }
    Ok(lines)
}

/// Two files for histories, removed at the end.
struct Traces {
    first: PathBuf,
    second: PathBuf,
}

impl Traces {
    fn new(about: &str) -> Traces {
        let folder = std::env::temp_dir();
        let name = |turn| folder.join(format!("farshore-sim-{}{about}-{turn}.trace", std::process::id()));
        Traces { first: name(1), second: name(2) }
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        for path in [&self.first, &self.second] {
            // It may never have been made.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn run(program: &Path, case: &Case, trace: &Path) -> anyhow::Result<bool> {
    let mut command = Command::new(program);
    command.arg("run").args(case.arguments()).arg("--trace").arg(trace);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(status.with_context(|| format!("cannot run {}", program.display()))?.success())
}

fn compare_files(first: &Path, second: &Path) -> anyhow::Result<u64> {
    let (mut first, mut second) = (lines(first)?, lines(second)?);
    let mut before: Vec<String> = Vec::new();
    for number in 1.. {
        let (ours, theirs) = (first.next().transpose()?, second.next().transpose()?);
        match (ours, theirs) {
            (None, None) => return Ok(number - 1),
            (Some(ours), Some(theirs)) if ours == theirs => {
                if before.len() == CONTEXT_LINES {
                    before.remove(0);
                }
                before.push(ours);
            }
            (ours, theirs) => {
                let end = || "(the end)".to_owned();
                bail!(
                    "the two runs differ from line {number} on:\n  {}\n- {}\n+ {}",
                    before.join("\n  "),
                    ours.unwrap_or_else(end),
                    theirs.unwrap_or_else(end)
                );
            }
        }
    }
    Ok(0)
}

fn lines(path: &Path) -> anyhow::Result<Lines<BufReader<File>>> {
    let file = File::open(path).with_context(|| format!("a run left no history at {}", path.display()))?;
    Ok(BufReader::new(file).lines())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(first: &str, second: &str) -> Result<u64, String> {
        let name = std::thread::current().name().unwrap_or_default().replace("::", "-");
        let traces = Traces::new(&name);
        std::fs::write(&traces.first, first).unwrap();
        std::fs::write(&traces.second, second).unwrap();
        compare_files(&traces.first, &traces.second).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_difference_is_shown_with_what_came_before() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), Ok(2));
        let shown = difference("a\nb\nc\n", "a\nb\nd\n").unwrap_err();
        assert!(shown.contains("line 3") && shown.contains("  b\n- c\n+ d"), "{shown}");
        assert!(difference("a\n", "a\nb\n").unwrap_err().contains("- (the end)\n+ b"));
    }
}
