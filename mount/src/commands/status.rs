//! `farshore status`: asks every process of this device how it is doing.

use super::text::{Plain, short_id, time};
use super::{Failure, prometheus, stop_signal};
use crate::control::{
    Answer, FetchReport, FuseReport, LinkReport, MountReport, Reached, Report, Request, Role, ShareReport, ask_all,
};
use crate::json_path::JsonPath;
use crate::state::State;
use clap::Args;
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{MissedTickBehavior, interval};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// One JSON document; with --watch one a line
    #[arg(long)]
    json: bool,
    /// Look again each second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// As Prometheus reads it
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    prometheus: bool,
}

/// All processes of one state directory, at one moment.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    /// When, in milliseconds since 1970.
    pub(super) unix_milliseconds: u64,
    /// Those that answered, the oldest first.
    pub(super) processes: Vec<Known>,
    /// Those that did not.
    pub(super) unanswered: Vec<Unanswered>,
}

/// A process that answered.
#[derive(Debug, Serialize)]
pub(super) struct Known {
    #[serde(flatten)]
    pub(super) report: Report,
    /// Since the last look; `None` at the first.
    pub(super) rates: Option<Rates>,
}

/// What is done in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Rates {
    fetched_bytes_per_second: u64,
    read_bytes_per_second: u64,
}

/// A process that did not answer.
#[derive(Debug, Serialize)]
pub(super) struct Unanswered {
    /// The name of its socket in the directory `run` of the state directory.
    pub(super) socket: String,
    pub(super) reason: String,
}

pub(super) async fn run(state: Option<PathBuf>, args: StatusArgs) -> Result<(), Failure> {
    let state = State::open(state)?;
    let mut stop = pin!(stop_signal());
    let mut interval = interval(WATCH_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Status> = None;
    loop {
        let look = async {
            interval.tick().await;
            look(state.dir(), last.as_ref()).await
        };
        let status = tokio::select! {
            biased;
            stopped = stop.as_mut() => return Ok(stopped?),
            status = look => status?,
        };
        match print(&status, &args, state.dir()) {
            // Whoever read our output has had enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            printed => printed?,
        }
        if !args.watch {
            return Ok(());
        }
        last = Some(status);
    }
}

async fn look(state: &Path, last: Option<&Status>) -> Result<Status, Failure> {
    let reached = ask_all(state, &Request::Status {}).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut status =
        Status { unix_milliseconds: now.as_millis() as u64, processes: Vec::new(), unanswered: Vec::new() };
    for Reached { socket, answer } in reached {
        let reason = match answer {
            Ok(Answer::Status(report)) => {
                let rates = last.and_then(|last| rates(&report, last));
                status.processes.push(Known { report: *report, rates });
                continue;
            }
            Ok(Answer::Refused { reason }) => reason,
            Ok(Answer::Dismissed { .. } | Answer::Done { .. }) => "it answered another question".to_owned(),
            Err(error) => error.to_string(),
        };
        status.unanswered.push(Unanswered { socket, reason });
    }
    status.processes.sort_by_key(|known| (known.report.since_unix_seconds, known.report.pid));
    Ok(status)
}

/// What a process has done since the last look, for each second.
fn rates(now: &Report, last: &Status) -> Option<Rates> {
    let is_it =
        |before: &&Known| before.report.pid == now.pid && before.report.since_unix_seconds == now.since_unix_seconds;
    let before = &last.processes.iter().find(is_it)?.report;
    let milliseconds = now.uptime_milliseconds.checked_sub(before.uptime_milliseconds).filter(|passed| *passed > 0)?;
    let per_second = |now: u64, before: u64| {
        let bytes = u128::from(now.saturating_sub(before));
        u64::try_from(bytes * 1000 / u128::from(milliseconds)).unwrap_or(u64::MAX)
    };
    let read = |report: &Report| report.fuse.as_ref().map_or(0, |fuse| fuse.read_bytes);
    Some(Rates {
        fetched_bytes_per_second: per_second(now.totals.fetched_bytes, before.totals.fetched_bytes),
        read_bytes_per_second: per_second(read(now), read(before)),
    })
}

fn print(status: &Status, args: &StatusArgs, state: &Path) -> io::Result<()> {
    let mut text = String::new();
    if args.json {
        text = match args.watch {
            true => serde_json::to_string(status)?,
            false => serde_json::to_string_pretty(status)?,
        };
        text.push('\n');
    } else if args.prometheus {
        text = prometheus::text(status);
    } else {
        if args.watch && io::stdout().is_terminal() {
            // To the upper left, and nothing below.
            text.push_str("\x1b[H\x1b[2J");
        }
        // Writing to a string does not fail.
        let _ = write_text(&mut text, status, state);
        if args.watch {
            text.push('\n');
        }
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn write_text(out: &mut String, status: &Status, state: &Path) -> std::fmt::Result {
    if status.processes.is_empty() && status.unanswered.is_empty() {
        return writeln!(out, "nothing runs with the state directory {}", Plain(&state.to_string_lossy()));
    }
    for (number, known) in status.processes.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        write_process(out, known)?;
    }
    for silent in &status.unanswered {
        writeln!(out, "\na process that listens at run/{} cannot be asked: {}", silent.socket, silent.reason)?;
    }
    Ok(())
}

fn write_process(out: &mut String, Known { report, rates }: &Known) -> std::fmt::Result {
    match &report.role {
        Role::Share(share) => write_share(out, report, share)?,
        Role::Mount(mount) => write_mount(out, report, mount)?,
    }
    if report.open_handles > 0 {
        let files: Vec<_> = report
            .open_files
            .iter()
            .map(|file| {
                let path = file.path.as_ref().map_or("(removed)".to_owned(), plain);
                if file.opens == 1 { path } else { format!("{path} ({} times)", file.opens) }
            })
            .collect();
        row(out, "open", format_args!("{}{}", files.join(", "), left_out(report.open_files_left_out)))?;
    }
    if let Some(fuse) = &report.fuse {
        write_reads(out, report, fuse)?;
    }
    if let Some(rates) = rates {
        let (fetched, read) = (rates.fetched_bytes_per_second, rates.read_bytes_per_second);
        row(out, "now", format_args!("{}/s fetched, {}/s read", BinaryBytes(fetched), BinaryBytes(read)))?;
    }
    for (number, fetch) in report.fetching.iter().enumerate() {
        row(out, if number == 0 { "on the way" } else { "" }, format_args!("{}", fetch_line(fetch)))?;
    }
    if report.fetching_left_out > 0 {
        row(out, "", format_args!("and {} more", report.fetching_left_out))?;
    }
    for (number, event) in report.events.iter().enumerate() {
        let times = if event.times == 1 { String::new() } else { format!(" ({} times)", event.times) };
        let line = format_args!("{} {}{times}", time(event.unix_seconds), Plain(&event.text));
        row(out, if number == 0 { "lately" } else { "" }, line)?;
    }
    Ok(())
}

fn write_share(out: &mut String, report: &Report, share: &ShareReport) -> std::fmt::Result {
    writeln!(out, "share of {}  {}", plain(&share.folder), process(report))?;
    row(out, "listens at", format_args!("{}; tickets lead to {}", share.listening, share.addresses.join(", ")))?;
    let peers: Vec<_> = share.peers.iter().map(|peer| short_id(&peer.id)).collect();
    let connected = if peers.is_empty() { "nobody".to_owned() } else { peers.join(", ") };
    row(out, "connected", format_args!("{connected}"))?;
    row(out, "entries", format_args!("{}", HumanCount(report.entries)))?;
    match &report.mountpoint {
        Some(mountpoint) => row(out, "mounted on", format_args!("{}", plain(mountpoint))),
        None => Ok(()),
    }
}

fn write_mount(out: &mut String, report: &Report, mount: &MountReport) -> std::fmt::Result {
    let mountpoint = report.mountpoint.as_ref().map_or_else(String::new, plain);
    writeln!(out, "mount of {} on {mountpoint}  {}", short_id(&mount.owner), process(report))?;
    row(out, "link", format_args!("{} ({})", link(mount.link), mount.addresses.join(", ")))?;
    if let Some(listening) = &mount.listening {
        row(out, "listens at", format_args!("{listening}"))?;
    }
    for (number, other) in mount.others.iter().enumerate() {
        let name = if number == 0 { "others" } else { "" };
        let at = if other.addresses.is_empty() { "not listening".to_owned() } else { other.addresses.join(", ") };
        row(out, name, format_args!("{} {} ({at})", short_id(&other.id), link(other.link)))?;
    }
    row(out, "entries", format_args!("{}", HumanCount(report.entries)))?;
    let (kept, store) = (BinaryBytes(report.cache_bytes), plain(&mount.store));
    match mount.writable {
        true => row(out, "folder", format_args!("{store}, and {kept} of files that are not whole yet")),
        false => row(out, "kept", format_args!("{kept} in {store}; read-only")),
    }
}

fn write_reads(out: &mut String, report: &Report, fuse: &FuseReport) -> std::fmt::Result {
    let totals = &report.totals;
    let (read, fetched) = (BinaryBytes(fuse.read_bytes), BinaryBytes(totals.fetched_bytes));
    let resumed = BinaryBytes(totals.resumed_bytes);
    let answers = format_args!("{} at once, {} after waiting", totals.read_hits, totals.read_misses);
    row(out, "so far", format_args!("{read} read, {fetched} fetched, {resumed} resumed; reads answered: {answers}"))?;
    if fuse.passthrough_opens > 0 {
        let opens = HumanCount(fuse.passthrough_opens);
        row(out, "passed through", format_args!("{opens} opens of whole files, whose reads are not counted"))?;
    }
    let failures = totals.failed_fetches
        + totals.store_failures
        + totals.damaged_chunks
        + totals.peer_faults
        + totals.failed_requests;
    if failures == 0 {
        return Ok(());
    }
    let failed = format_args!(
        "{} fetches, {} writes to the store, {} waiting requests; {} chunks of the store were damaged, {} rules broken \
         by the peer",
        totals.failed_fetches, totals.store_failures, totals.failed_requests, totals.damaged_chunks, totals.peer_faults
    );
    row(out, "failed", failed)
}

fn row(out: &mut String, name: &str, text: std::fmt::Arguments<'_>) -> std::fmt::Result {
    writeln!(out, "  {name:<11} {text}")
}

fn process(report: &Report) -> String {
    format!("[process {}, since {}]", report.pid, time(report.since_unix_seconds))
}

fn fetch_line(fetch: &FetchReport) -> String {
    let percent = (fetch.have_chunks * 100).checked_div(fetch.total_chunks).unwrap_or(100);
    let waiting = match fetch.waiters {
        0 => String::new(),
        count => format!(", {count} waiting"),
    };
    let chunks = format!("{}/{} chunks", fetch.have_chunks, fetch.total_chunks);
    format!("{percent:>3} % {chunks}{waiting}  {}", plain(&fetch.path))
}

fn link(link: LinkReport) -> String {
    let since = |down: Option<u64>| down.map_or_else(String::new, |down| format!(", down since {}", time(down)));
    match link {
        LinkReport::Up {} => "up".to_owned(),
        LinkReport::Connecting { down_since_unix_seconds } => format!("connecting{}", since(down_since_unix_seconds)),
        LinkReport::Waiting { retry_in_milliseconds, down_since_unix_seconds } => {
            let seconds = retry_in_milliseconds.div_ceil(1000);
            format!("connecting again in {seconds} s{}", since(down_since_unix_seconds))
        }
        LinkReport::Unreachable {} => "away".to_owned(),
        LinkReport::Ended {} => "ending".to_owned(),
    }
}

fn left_out(count: u64) -> String {
    if count == 0 { String::new() } else { format!(", and {count} more") }
}

fn plain(path: &JsonPath) -> String {
    Plain(&path.to_string()).to_string()
}
