//! The simulator's command line: one run, many runs, or one run twice.

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use farshore_sim::drawn::{Drawn, Kind};
use farshore_sim::failure::{Case, attempt};
use farshore_sim::history::History;
use farshore_sim::sabotage::Sabotage;
use farshore_sim::{meta, scenarios, sweep};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs Farshore in a simulated world, with faults. One seed gives one history.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed
    Run {
        /// All chance in the simulated world
        #[arg(long)]
        seed: u64,
        /// A named scenario instead of what the seed draws; `sim list` names them
        #[arg(long)]
        scenario: Option<String>,
        /// Write the whole history here, a line for each thing that happens
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Which kind of run the seed means; if it is not named, all write with every fourth seed
        #[arg(long)]
        kind: Option<Kind>,
        /// Plant a bug, which must be caught
        #[arg(long)]
        sabotage: Option<Sabotage>,
    },
    /// Run many seeds, and say how to repeat those that failed
    Sweep {
        /// From this seed up to, not including, that one: `0..200`
        #[arg(long, value_parser = range)]
        seeds: Range<u64>,
        /// How many at once
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Which kind of run the seed means; if it is not named, all write with every fourth seed
        #[arg(long)]
        kind: Option<Kind>,
        /// Plant a bug, which must be caught
        #[arg(long)]
        sabotage: Option<Sabotage>,
    },
    /// Run one seed twice, in two processes, and compare the histories line by line
    Meta {
        /// All chance in the simulated world
        #[arg(long)]
        seed: u64,
        /// A named scenario instead of what the seed draws
        #[arg(long)]
        scenario: Option<String>,
        /// Which kind of run the seed means; if it is not named, all write with every fourth seed
        #[arg(long)]
        kind: Option<Kind>,
        /// Plant a bug, which must be caught
        #[arg(long)]
        sabotage: Option<Sabotage>,
    },
    /// Name the scenarios
    List,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.filter(|range| !range.is_empty()).ok_or_else(|| "two numbers, such as 0..200, are needed".into())
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { seed, scenario, trace, kind, sabotage } => {
            run_one(&Case { seed, scenario, kind, sabotage }, trace)
        }
        Command::Sweep { seeds, jobs, kind, sabotage } => {
            let failed = sweep::sweep(seeds, jobs.max(1), kind, sabotage)?;
            if failed > 0 {
                bail!("{failed} of the seeds failed");
            }
            Ok(())
        }
        Command::Meta { seed, scenario, kind, sabotage } => {
            let lines = meta::compare(&Case { seed, scenario, kind, sabotage })?;
            println!("seed {seed}: two runs, the same {lines} lines");
            Ok(())
        }
        Command::List => {
            for scenario in scenarios::all() {
                println!("{:<20} {}", scenario.name, scenario.about);
            }
            Ok(())
        }
    }
}

fn run_one(case: &Case, trace: Option<PathBuf>) -> anyhow::Result<()> {
    let history = match &trace {
        Some(path) => History::to_file(path).with_context(|| format!("cannot write {}", path.display()))?,
        None => History::short(),
    };
    let drawn = Drawn::draw(case.seed, case.kind);
    println!("seed {}", case.seed);
    let result = match &case.scenario {
        Some(name) => {
            let Some(scenario) = scenarios::find(name) else {
                bail!("there is no scenario {name}; `sim list` names them");
            };
            if case.sabotage.is_some() {
                bail!("bugs can be planted in what a seed draws, not in scenarios");
            }
            attempt(case, &history, |history| (scenario.run)(case.seed, history))
        }
        None => {
            println!("{drawn}");
            attempt(case, &history, |history| drawn.run(history, case.sabotage))
        }
    };
    let lines = history.finish().context("cannot write the history")?;
    if let Err(failure) = result {
        bail!("{failure}");
    }
    println!("ended well after {lines} lines of history: {}", history.tally());
    Ok(())
}
