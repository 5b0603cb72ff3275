//! Does the same work with Farshore and with others, in turns, and writes down what it took.

mod contender;
mod folders;
mod helpers;
mod installing;
mod machine;
mod plot;
mod process;
mod processes;
mod report;
mod results;
mod round;
mod stage;
mod stopping;
mod stream;
mod work;

use clap::{Args, Parser, ValueEnum};
use contender::Contender;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use work::Work;

/// The limit of the small scale, in seconds: all of it together is to take less than a minute.
const SMALL_LIMIT_SECONDS: u64 = 10;

/// The limit of the full scale, in seconds: so long is long enough to know how fast something is.
const FULL_LIMIT_SECONDS: u64 = 60;

/// Measures Farshore and others at the same work, and writes docs/BENCHMARKS.md. Needs root, /dev/fuse and /dev/net/tun.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    helper: Option<helpers::Helper>,
    #[command(flatten)]
    options: Options,
}

/// What is measured, and how.
#[derive(Debug, Args)]
struct Options {
    /// Only this work; may be given several times [default: all]
    #[arg(long, value_name = "WORK", value_parser = Work::parse)]
    only: Vec<&'static Work>,
    /// Only these, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    among: Vec<Contender>,
    /// How large files and folders are
    #[arg(long, value_enum, default_value_t = Scale::Full)]
    scale: Scale,
    /// How often each work is done by each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long one of them may take for one work, in seconds; rates are measured for no longer [default: 60, and 10 at the
    /// small scale]
    #[arg(long, value_name = "S")]
    limit: Option<u64>,
    /// Where BENCHMARKS.md and what belongs to it is written
    #[arg(long, value_name = "DIR", default_value = "docs")]
    out: PathBuf,
    /// Where test files are kept meanwhile: on a disk, with room for four times the largest [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// The farshore program [default: built now, for release]
    #[arg(long, value_name = "PATH")]
    farshore: Option<PathBuf>,
    /// Install nothing; who is not here is left out
    #[arg(long)]
    no_install: bool,
    /// Print the names of all works and end
    #[arg(long)]
    list: bool,
}

/// How large files and folders are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Scale {
    /// To see that everything runs, in less than a minute
    Small,
    /// To be believed
    Full,
}

impl Options {
    fn limit(&self) -> Duration {
        let usual = match self.scale {
            Scale::Small => SMALL_LIMIT_SECONDS,
            Scale::Full => FULL_LIMIT_SECONDS,
        };
        Duration::from_secs(self.limit.unwrap_or(usual))
    }
}

fn main() -> ExitCode {
    let CommandLine { helper, options } = CommandLine::parse();
    let outcome = match helper {
        Some(helper) => helper.run(),
        None if options.list => {
            work::ALL.iter().for_each(|work| println!("{:16} {}", work.name, work.title));
            Ok(())
        }
        None => measure(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farshore-compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> anyhow::Result<()> {
    stopping::listen()?;
    stage::check_machine()?;
    let farshore = match &options.farshore {
        Some(path) => path.canonicalize()?,
        None => build_farshore()?,
    };
    let contenders = installing::available(&options.among, options.no_install)?;
    let machine = machine::Machine::look(&farshore)?;
    let rounds = round::Rounds::new(options, &farshore, &contenders)?;
    rounds.run(|work, measured| report::write(&options.out, [(work.name.to_owned(), measured)].into(), machine.clone()))
}

/// Builds the release binary, so that nobody measures an old one.
fn build_farshore() -> anyhow::Result<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command.args(["build", "--release", "--package", "farshore"]).current_dir(root);
    anyhow::ensure!(command.status()?.success(), "farshore could not be built");
    let this = std::env::current_exe()?;
    let target =
        this.ancestors().nth(2).ok_or_else(|| anyhow::anyhow!("{} has no target directory", this.display()))?;
    Ok(target.join("release/farshore"))
}
