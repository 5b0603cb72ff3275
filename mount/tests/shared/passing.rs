//! Whether this machine can show what the tests of passthrough are about.

use std::fs;

/// Why this process may not have the kernel read files by itself; `None` if it may.
pub(crate) fn reason_against() -> Option<&'static str> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (release, map) = (read("/proc/sys/kernel/osrelease"), read("/proc/self/uid_map"));
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(9)) {
        return Some("needs Linux 6.9");
    }
    // Root of the whole machine, and not of a namespace of its own.
    let is_root = rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"]);
    if is_root { None } else { Some("needs root") }
}
