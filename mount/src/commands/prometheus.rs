//! The status as Prometheus reads it: one line for each number, with a head for each name.

use super::status::{Known, Status};
use crate::control::{LinkReport, OperationReport, Report, Role};
use std::fmt::Write;

/// A number that a process tells, under one name.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// `None` if this process has no such number.
    value: fn(&Report) -> Option<u64>,
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Report) -> Option<u64>) -> Metric {
    Metric { name, kind: "counter", help, value }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Report) -> Option<u64>) -> Metric {
    Metric { name, kind: "gauge", help, value }
}

const METRICS: [Metric; 20] = [
    gauge("farshore_start_time_seconds", "When the process began, in seconds since 1970.", |report| {
        Some(report.since_unix_seconds)
    }),
    gauge("farshore_entries", "Files, directories and symlinks.", |report| Some(report.entries)),
    gauge("farshore_open_handles", "Opens that have not been closed.", |report| Some(report.open_handles)),
    gauge("farshore_fetching_files", "Files of which bytes are on their way.", |report| {
        Some(report.fetching.len() as u64 + report.fetching_left_out)
    }),
    gauge("farshore_cache_bytes", "Fetched bytes that are kept.", |report| Some(report.cache_bytes)),
    gauge("farshore_pins", "Paths that are pinned.", |report| Some(report.pins)),
    gauge("farshore_link_up", "Whether the owner of a mount is connected.", |report| match &report.role {
        Role::Mount(mount) => Some(u64::from(mount.link == LinkReport::Up {})),
        Role::Share(_) => None,
    }),
    gauge("farshore_connected_peers", "Devices that are connected to a share.", |report| match &report.role {
        Role::Share(share) => Some(share.peers.len() as u64),
        Role::Mount(_) => None,
    }),
    counter("farshore_fetched_bytes_total", "Verified bytes that came from peers.", |report| {
        Some(report.totals.fetched_bytes)
    }),
    counter("farshore_resumed_bytes_total", "Bytes that the store had already.", |report| {
        Some(report.totals.resumed_bytes)
    }),
    counter("farshore_damaged_chunks_total", "Chunks of the store that were damaged.", |report| {
        Some(report.totals.damaged_chunks)
    }),
    counter("farshore_read_hits_total", "Reads that were answered at once.", |report| Some(report.totals.read_hits)),
    counter("farshore_read_misses_total", "Reads that had to wait for bytes.", |report| {
        Some(report.totals.read_misses)
    }),
    counter("farshore_failed_fetches_total", "Attempts to fetch a chunk that failed.", |report| {
        Some(report.totals.failed_fetches)
    }),
    counter("farshore_store_failures_total", "Chunks that the store refused.", |report| {
        Some(report.totals.store_failures)
    }),
    counter("farshore_peer_faults_total", "Rules that peers broke.", |report| Some(report.totals.peer_faults)),
    counter("farshore_failed_requests_total", "Waiting requests that ended with an error.", |report| {
        Some(report.totals.failed_requests)
    }),
    counter(
        "farshore_fuse_read_bytes_total",
        "Bytes that programs have read through the mount, without what the kernel had cached or read by itself.",
        |report| Some(report.fuse.as_ref()?.read_bytes),
    ),
    counter(
        "farshore_fuse_passthrough_opens_total",
        "Files that were opened for the kernel to read by itself.",
        |report| Some(report.fuse.as_ref()?.passthrough_opens),
    ),
    counter("farshore_fuse_lost_replies_total", "Replies to the kernel that were lost.", |report| {
        Some(report.fuse.as_ref()?.lost_replies)
    }),
];

/// The whole text.
pub(super) fn text(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut out, status);
    out
}

fn write_all(out: &mut String, status: &Status) -> std::fmt::Result {
    for metric in &METRICS {
        head(out, metric.name, metric.kind, metric.help)?;
        for Known { report, .. } in &status.processes {
            if let Some(value) = (metric.value)(report) {
                writeln!(out, "{}{{{}}} {value}", metric.name, labels(report))?;
            }
        }
    }
    let operations = "farshore_fuse_operations_total";
    write_operations(out, status, operations, "Answers to the kernel.", |counted| counted.count.to_string())?;
    let errors = "farshore_fuse_operation_errors_total";
    write_operations(out, status, errors, "Answers to the kernel that were errors.", |counted| {
        counted.errors.to_string()
    })?;
    let seconds = "farshore_fuse_operation_seconds_total";
    write_operations(out, status, seconds, "Time from the kernel's questions to the answers.", |counted| {
        let (whole, nanos) = (counted.time_nanoseconds / 1_000_000_000, counted.time_nanoseconds % 1_000_000_000);
        format!("{whole}.{nanos:09}")
    })
}

fn write_operations(
    out: &mut String,
    status: &Status,
    name: &str,
    help: &str,
    value: impl Fn(&OperationReport) -> String,
) -> std::fmt::Result {
    head(out, name, "counter", help)?;
    for Known { report, .. } in &status.processes {
        for counted in report.fuse.iter().flat_map(|fuse| &fuse.operations) {
            let operation = escape(&counted.operation);
            writeln!(out, "{name}{{{},operation=\"{operation}\"}} {}", labels(report), value(counted))?;
        }
    }
    Ok(())
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// What tells processes apart over their restarts: what they do, and where.
fn labels(report: &Report) -> String {
    let (role, share, place) = match &report.role {
        Role::Share(share) => ("share", &share.share, Some(&share.folder)),
        Role::Mount(mount) => ("mount", &mount.share, report.mountpoint.as_ref()),
    };
    let place = place.map_or_else(String::new, |place| escape(&place.to_string()));
    format!("role=\"{role}\",share=\"{}\",path=\"{place}\"", escape(share))
}

/// A label's value as the format wants it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_label_is_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
