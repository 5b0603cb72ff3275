//! The simulator's command line: one run, many runs, or one run twice.

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use farshore_sim::failure::attempt;
use farshore_sim::history::History;
use farshore_sim::{meta, plan, scenarios, sweep};
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
    },
    /// Run many seeds, and say how to repeat those that failed
    Sweep {
        /// From this seed up to, not including, that one: `0..200`
        #[arg(long, value_parser = range)]
        seeds: Range<u64>,
        /// How many at once
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Run one seed twice, in two processes, and compare the histories line by line
    Meta {
        /// All chance in the simulated world
        #[arg(long)]
        seed: u64,
        /// A named scenario instead of what the seed draws
        #[arg(long)]
        scenario: Option<String>,
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
        Command::Run { seed, scenario, trace } => run_one(seed, scenario.as_deref(), trace),
        Command::Sweep { seeds, jobs } => {
            let failures = sweep::sweep(seeds, jobs.max(1));
            if failures > 0 {
                bail!("{failures} of the seeds failed");
            }
            Ok(())
        }
        Command::Meta { seed, scenario } => {
            let lines = meta::compare(seed, scenario.as_deref())?;
            println!("seed {seed}: two runs, the same {lines} lines");
            Ok(())
        }
        Command::List => {
            for scenario in scenarios::all() {
                println!("{:<32} {}", scenario.name, scenario.about);
            }
            Ok(())
        }
    }
}

fn run_one(seed: u64, scenario: Option<&str>, trace: Option<PathBuf>) -> anyhow::Result<()> {
    let history = match &trace {
        Some(path) => History::to_file(path).with_context(|| format!("cannot write {}", path.display()))?,
        None => History::short(),
    };
    let result = match scenario {
        Some(name) => {
            let Some(scenario) = scenarios::find(name) else {
                bail!("there is no scenario {name}; `sim list` names them");
            };
            println!("scenario {name}, seed {seed}");
            attempt(seed, Some(scenario.name), &history, &scenario.run)
        }
        None => {
            println!("seed {seed}\n{}", plan::Plan::draw(seed));
            attempt(seed, None, &history, &plan::run)
        }
    };
    let lines = history.finish().context("cannot write the history")?;
    if let Err(failure) = result {
        bail!("{failure}");
    }
    println!("ended well after {lines} lines of history");
    Ok(())
}
