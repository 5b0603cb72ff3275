//! `farshore ls`: lists what a share holds, without mounting it and without fetching a byte of content.

use super::text::{Plain, moment};
use super::{Failure, interruptible, prepare, stop_signal};
use crate::joining::{Absence, join};
use crate::net::tls::TlsTransport;
use crate::store::MemoryStore;
use crate::ticket::Ticket;
use clap::Args;
use farshore_engine::path::RelPath;
use farshore_engine::record::{Kind, Record};
use farshore_engine::{Config, Ino};
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// What `farshore share` printed
    ticket: String,
    /// A path in the share [default: all of it]
    path: Option<PathBuf>,
    /// List what directories hold, too, all the way down
    #[arg(short = 'R', long)]
    recursive: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Bytes that are not UTF-8 are replaced.
    path: &'a str,
    kind: &'static str,
    size_bytes: u64,
    mode: String,
    modified_seconds: i64,
    modified_nanos: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
}

pub(super) async fn run(state: Option<PathBuf>, args: LsArgs) -> Result<(), Failure> {
    let (ticket, _, transport) = prepare(state, &args.ticket)?;
    let wanted = parse_path(args.path.as_deref())?;
    interruptible(pin!(stop_signal()), list(&ticket, transport, wanted, args)).await
}

async fn list(ticket: &Ticket, transport: Arc<TlsTransport>, wanted: RelPath, args: LsArgs) -> Result<(), Failure> {
    let store = Arc::new(MemoryStore::default());
    let node = join(ticket, transport, store, Config::default(), Absence::IsAnError).await?.node;
    let listed = node.view(|view| {
        let top = view.resolve(&wanted)?;
        let mut found: Vec<(RelPath, Record)> = view
            .tree()
            .filter(|(path, _)| is_listed(path, &wanted, top, args.recursive))
            .map(|(path, record)| (path, record.clone()))
            .collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Some(found)
    });
    node.shut_down().await;
    let Some(listed) = listed else {
        return Err(Failure::failed(format!("the share has nothing named {wanted}")));
    };
    // Whoever reads our output may take their time.
    let printed = tokio::task::spawn_blocking(move || print(&listed, args.json)).await;
    match printed.map_err(Failure::failed)? {
        // Whoever read our output has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

/// A path on the command line, as the share knows it. Leading and trailing slashes mean nothing.
pub(super) fn parse_path(path: Option<&std::path::Path>) -> Result<RelPath, Failure> {
    let bytes = path.map_or(&b""[..], |path| path.as_os_str().as_bytes());
    let trimmed = match bytes.iter().position(|byte| *byte != b'/') {
        Some(start) => &bytes[start..=bytes.iter().rposition(|byte| *byte != b'/').unwrap_or(start)],
        None => b"",
    };
    RelPath::parse(trimmed).map_err(|error| Failure::usage(format!("this is no path in a share: {error}")))
}

fn is_listed(path: &RelPath, wanted: &RelPath, top: Ino, recursive: bool) -> bool {
    let is_top = path == wanted && top != Ino::ROOT;
    let depth = path.names().len() - wanted.names().len().min(path.names().len());
    is_top || wanted.is_prefix_of(path) && (depth == 1 || recursive && depth > 0)
}

fn print(listed: &[(RelPath, Record)], json: bool) -> io::Result<()> {
    let terminal = io::stdout().is_terminal();
    let mut out = BufWriter::new(io::stdout().lock());
    for (path, record) in listed {
        if json {
            print_json(&mut out, path, record)?;
        } else {
            print_text(&mut out, path, record, terminal)?;
        }
    }
    out.flush()
}

fn print_json(out: &mut impl Write, path: &RelPath, record: &Record) -> io::Result<()> {
    let path = path.to_bytes();
    let target = match &record.kind {
        Kind::Symlink { target } => Some(String::from_utf8_lossy(target)),
        Kind::File { .. } | Kind::Dir => None,
    };
    let line = Line {
        path: &String::from_utf8_lossy(&path),
        kind: match record.kind {
            Kind::File { .. } => "file",
            Kind::Dir => "directory",
            Kind::Symlink { .. } => "symlink",
        },
        size_bytes: record.size_bytes(),
        mode: format!("{:04o}", record.mode),
        modified_seconds: record.modified.seconds,
        modified_nanos: record.modified.nanos,
        target: target.as_deref(),
    };
    serde_json::to_writer(&mut *out, &line)?;
    writeln!(out)
}

fn print_text(out: &mut impl Write, path: &RelPath, record: &Record, terminal: bool) -> io::Result<()> {
    let kind = match record.kind {
        Kind::File { .. } => '-',
        Kind::Dir => 'd',
        Kind::Symlink { .. } => 'l',
    };
    let modified = humantime::format_rfc3339_seconds(moment(record.modified.seconds));
    write!(out, "{kind}{} {:>14} {modified} ", permissions(record.mode), record.size_bytes())?;
    write_name(out, &path.to_bytes(), terminal)?;
    if let Kind::Symlink { target } = &record.kind {
        write!(out, " -> ")?;
        write_name(out, target, terminal)?;
    }
    writeln!(out)
}

/// A name as it is; on a terminal without what the terminal would take for commands.
fn write_name(out: &mut impl Write, name: &[u8], terminal: bool) -> io::Result<()> {
    if !terminal {
        return out.write_all(name);
    }
    write!(out, "{}", Plain(&String::from_utf8_lossy(name)))
}

/// As `ls -l` writes them, without the sticky and set-id letters' finer points.
fn permissions(mode: u16) -> String {
    let letters = ['r', 'w', 'x'];
    (0..9).map(|bit| if mode >> (8 - bit) & 1 == 1 { letters[bit % 3] } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_on_the_command_line_may_have_slashes_around_them() {
        let parse = |text: &str| parse_path(Some(std::path::Path::new(text)));
        assert_eq!(parse("/a/b/").unwrap().to_bytes(), b"a/b");
        assert!(parse("/").unwrap().is_root());
        assert!(parse_path(None).unwrap().is_root());
        assert_eq!(parse("a/../b").unwrap_err().code, 2);
    }

    #[test]
    fn one_level_or_all() {
        let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
        let dir = Ino(20);
        assert!(is_listed(&path("a"), &RelPath::ROOT, Ino::ROOT, false));
        assert!(!is_listed(&path("a/b"), &RelPath::ROOT, Ino::ROOT, false));
        assert!(is_listed(&path("a/b"), &RelPath::ROOT, Ino::ROOT, true));
        assert!(is_listed(&path("a/b"), &path("a"), dir, false));
        assert!(!is_listed(&path("ab"), &path("a"), dir, true));
        assert_eq!(permissions(0o644), "rw-r--r--");
    }

    #[test]
    fn a_terminal_is_not_given_commands() {
        let written = |terminal| {
            let mut out = Vec::new();
            write_name(&mut out, "caf\u{e9}\x1b[2J\n".as_bytes(), terminal).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(true), "caf\u{e9}\\u{1b}[2J\\n");
        assert_eq!(written(false), "caf\u{e9}\x1b[2J\n");
    }
}
