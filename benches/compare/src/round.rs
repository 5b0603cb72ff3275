//! Doing the works in turns: each round all contenders, so that a slow minute of the machine meets them all.

use crate::contender::{self, Contender};
use crate::folders::{Content, Folders};
use crate::results::{Cell, Measured};
use crate::stage::Stage;
use crate::stopping::{Trouble, is_stopped};
use crate::work::{self, Values, Work};
use crate::{Options, Scale};
use anyhow::Context;
use farshore_compare::link::Link;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Rounds<'a> {
    works: Vec<&'static Work>,
    contenders: &'a [Contender],
    scale: Scale,
    rounds: u32,
    limit: Duration,
    farshore: &'a Path,
    scratch: TempDir,
}

impl<'a> Rounds<'a> {
    pub(crate) fn new(
        options: &Options,
        farshore: &'a Path,
        contenders: &'a [Contender],
    ) -> anyhow::Result<Rounds<'a>> {
        let dir = options.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let scratch = tempfile::Builder::new().prefix("farshore-compare-").tempdir_in(&dir);
        Ok(Rounds {
            works: match options.only.as_slice() {
                [] => work::ALL.iter().collect(),
                only => only.to_vec(),
            },
            contenders,
            scale: options.scale,
            rounds: options.rounds,
            limit: options.limit(),
            farshore,
            scratch: scratch.with_context(|| format!("no directory for test files in {}", dir.display()))?,
        })
    }

    /// Does it all, and hands over what came out of each work as soon as it is known.
    pub(crate) fn run(self, mut keep: impl FnMut(&Work, Measured) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let root = self.scratch.path().canonicalize()?;
        let mut folders = Folders::new(root.join("folders"));
        for work in &self.works {
            let content = work.content.at(self.scale);
            let folder = folders.get(content)?;
            let cells = self.turns(work, content, &folder, &root.join("turn"))?;
            let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
            let command = format!("cargo run --release -p farshore-compare -- {command}");
            let command = command.trim_end_matches(" -- ").to_owned();
            keep(work, Measured { date: today()?, command, scale: self.scale, cells })?;
        }
        Ok(())
    }

    fn turns(&self, work: &Work, content: Content, folder: &Path, scratch: &Path) -> anyhow::Result<Vec<Cell>> {
        let those = work.among.iter().filter(|contender| self.contenders.contains(contender));
        let mut cells: Vec<Cell> =
            those.map(|contender| Cell { contender: *contender, rounds: Vec::new(), trouble: None }).collect();
        for round in 1..=self.rounds {
            // Who has failed, or was too slow, is not waited for again.
            for cell in cells.iter_mut().filter(|cell| cell.trouble.is_none()) {
                anyhow::ensure!(!is_stopped(), "stopped");
                eprint!("{}, round {round} of {}, {}: ", work.name, self.rounds, cell.contender.title());
                match self.turn(work, content, cell.contender, folder, scratch) {
                    Ok(values) => {
                        eprintln!("{}", told(work, &values));
                        cell.rounds.push(values);
                    }
                    Err(Trouble::Stopped) => anyhow::bail!("stopped"),
                    Err(Trouble::TooLong) => cell.trouble = Some(format!("over {} s", self.limit.as_secs())),
                    Err(Trouble::Failed(why)) => cell.trouble = Some(format!("failed: {why}")),
                }
                if let Some(trouble) = &cell.trouble {
                    eprintln!("{trouble}");
                }
            }
        }
        Ok(cells)
    }

    /// One work, one contender, once; on a line of its own, because the kernel remembers how fast one was.
    fn turn(
        &self,
        work: &Work,
        content: Content,
        contender: Contender,
        folder: &Path,
        scratch: &Path,
    ) -> Result<Values, Trouble> {
        fs::create_dir_all(scratch)?;
        let link = work.line.shape().map(Link::new).transpose()?;
        let stage = Stage { link: link.as_ref(), scratch, farshore: self.farshore, folder };
        let values = work.measure(contender, &stage, content, self.limit);
        fs::remove_dir_all(scratch)?;
        contender::tidy(folder)?;
        values
    }
}

fn told(work: &Work, values: &Values) -> String {
    let told = work.metrics().iter().zip(values).filter_map(|(metric, value)| {
        let value = (*value)?;
        Some(format!("{value:.3} {}", metric.title))
    });
    told.collect::<Vec<_>>().join("; ")
}

fn today() -> anyhow::Result<String> {
    let output = std::process::Command::new("date").args(["-u", "+%F"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
