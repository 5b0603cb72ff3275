//! `farshore doctor`: whether this machine has what Farshore needs, and what to do where it does not.

use super::Failure;
use super::text::Plain;
use crate::control::RunDir;
use crate::fuse::{self, Health};
use crate::identity::{Identity, KEY_FILE};
use crate::state::State;
use clap::Args;
use rustix::process::{Resource, geteuid, getrlimit};
use serde::Serialize;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Since this version the kernel has openat2, without which nothing is shared.
const KERNEL_NEEDED: (u32, u32) = (5, 6);

/// Since this version a complete file can be read past FUSE.
const KERNEL_WITH_PASSTHROUGH: (u32, u32) = (6, 9);

/// One for each directory of a shared folder.
const WATCHES_WANTED: u64 = 65_536;

/// One for each shared folder; other programs need some, too.
const INSTANCES_WANTED: u64 = 64;

/// A share holds open what its readers read.
const OPEN_FILES_WANTED: u64 = 4096;

/// The capability to mount, as a bit of `CapEff` in `/proc/self/status`.
const CAP_SYS_ADMIN: u32 = 21;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// How things stand with one of the things that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// As it should be.
    Ok,
    /// Something will not work, or not well.
    Warn,
    /// Farshore cannot do its work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    level: Level,
    found: String,
    /// What to do about it, unless it is well.
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, level: Level::Ok, found: found.into(), advice: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, level: Level::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn bad(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, level: Level::Bad, found: found.into(), advice: Some(advice.into()) }
    }
}

pub(super) fn run(state: Option<PathBuf>, args: &DoctorArgs) -> Result<(), Failure> {
    let is_root = geteuid().is_root();
    let mounts_directly = is_root && has_capability(&read("/proc/self/status"), CAP_SYS_ADMIN);
    let mut checks = vec![
        kernel(&rustix::system::uname().release().to_string_lossy()),
        device(fuse::open_device(), mounts_directly),
        helper(fuse::helper_version(), mounts_directly),
        allow_other(&read("/etc/fuse.conf"), is_root),
        limit("inotify watches", "fs.inotify.max_user_watches", WATCHES_WANTED),
        limit("inotify instances", "fs.inotify.max_user_instances", INSTANCES_WANTED),
        open_files(getrlimit(Resource::Nofile).maximum),
    ];
    checks.extend(state_directory(state));
    checks.extend(mounts());
    let is_bad = checks.iter().any(|check| check.level == Level::Bad);
    match print(&checks, args.json) {
        // Whoever read our output has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    match is_bad {
        true => Err(Failure { code: super::FAILED, message: String::new() }),
        false => Ok(()),
    }
}

fn print(checks: &[Check], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &serde_json::json!({ "checks": checks }))?;
        return writeln!(out);
    }
    for check in checks {
        let level = match check.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Bad => "BAD ",
        };
        writeln!(out, "{level}  {:<18} {}", check.name, Plain(&check.found))?;
        if let Some(advice) = &check.advice {
            writeln!(out, "      {:<18} -> {}", "", Plain(advice))?;
        }
    }
    Ok(())
}

/// What is in a file that the system keeps; nothing if it cannot be read.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn kernel(release: &str) -> Check {
    let name = "kernel";
    let Some(version) = version(release) else {
        return Check::warn(name, format!("{release:?} tells no version"), "make sure that it is Linux 5.6 or later");
    };
    let found = format!("Linux {release}");
    if version < KERNEL_NEEDED {
        return Check::bad(name, found, "Farshore needs Linux 5.6 or later (for openat2)");
    }
    if version < KERNEL_WITH_PASSTHROUGH {
        return Check::warn(name, found, "all works; Linux 6.9 or later also lets complete files be read past FUSE");
    }
    Check::ok(name, found)
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn device(opened: io::Result<()>, mounts_directly: bool) -> Check {
    let name = "/dev/fuse";
    match opened {
        Ok(()) => Check::ok(name, "can be opened"),
        // The helper may open what this user may not.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !mounts_directly => {
            Check::warn(name, error.to_string(), "mounting is left to fusermount3; or: chmod 666 /dev/fuse")
        }
        Err(error) => Check::bad(
            name,
            error.to_string(),
            "run `modprobe fuse`; a container needs `--device /dev/fuse --cap-add SYS_ADMIN`. Sharing, listing and \
             fetching work without it",
        ),
    }
}

fn helper(version: io::Result<String>, mounts_directly: bool) -> Check {
    let name = "fusermount3";
    match version {
        Ok(version) => Check::ok(name, version),
        Err(_) if mounts_directly => Check::ok(name, "not needed: this user may mount directly"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::bad(
            name,
            "not installed, and this user may not mount directly",
            "install the package `fuse3`, or run as root (in a container with the capability SYS_ADMIN)",
        ),
        Err(error) => Check::bad(name, format!("does not run: {error}"), "reinstall the package `fuse3`"),
    }
}

/// Whether the status of a process has this capability in effect.
fn has_capability(status: &str, capability: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|bits| bits >> capability & 1 == 1)
}

fn allow_other(conf: &str, is_root: bool) -> Check {
    let name = "allow_other";
    if is_root {
        return Check::ok(name, "root may always use it");
    }
    match conf.lines().any(|line| line.trim() == "user_allow_other") {
        true => Check::ok(name, "allowed to everybody in /etc/fuse.conf"),
        false => Check::warn(
            name,
            "mounts are for this user alone",
            "to let others in with `-o allow_other`, put the line `user_allow_other` into /etc/fuse.conf",
        ),
    }
}

fn limit(name: &'static str, key: &str, wanted: u64) -> Check {
    let text = read(&format!("/proc/sys/{}", key.replace('.', "/")));
    match text.trim().parse::<u64>() {
        Ok(allowed) if allowed >= wanted => Check::ok(name, format!("{allowed} allowed")),
        Ok(allowed) => Check::warn(
            name,
            format!("only {allowed} allowed; in larger shares changes show late"),
            format!("sysctl {key}={}", wanted * 8),
        ),
        Err(_) => Check::warn(name, format!("{key} does not tell"), "is /proc mounted?"),
    }
}

/// `None` is no limit.
fn open_files(hard_limit: Option<u64>) -> Check {
    let name = "open files";
    match hard_limit {
        Some(limit) if limit < OPEN_FILES_WANTED => Check::warn(
            name,
            format!("a process may open only {limit}; a share holds open what its readers read"),
            format!("raise the hard limit: ulimit -Hn {OPEN_FILES_WANTED}, or `nofile` in /etc/security/limits.conf"),
        ),
        Some(limit) => Check::ok(name, format!("{limit} allowed")),
        None => Check::ok(name, "no limit"),
    }
}

fn state_directory(state: Option<PathBuf>) -> Vec<Check> {
    let name = "state directory";
    let state = match State::open(state) {
        Ok(state) => state,
        // What to do is part of the message.
        Err(error) => return vec![Check::bad(name, "cannot be used", error.to_string())],
    };
    let dir = state.dir();
    let writable = match tempfile::tempfile_in(dir) {
        Ok(_) => Check::ok(name, dir.display().to_string()),
        Err(error) => {
            let found = format!("{} cannot be written in: {error}", dir.display());
            Check::bad(name, found, "make room on its disk and see to its permissions, or give another with --state")
        }
    };
    vec![writable, device_key(dir), shares(&state), sockets(dir)]
}

fn device_key(dir: &Path) -> Check {
    let name = "device key";
    if !dir.join(KEY_FILE).exists() {
        return Check::ok(name, "not made yet");
    }
    match Identity::open(dir) {
        Ok(identity) => Check::ok(name, identity.id().to_string()),
        Err(error) => Check::bad(name, "cannot be used", error.to_string()),
    }
}

fn shares(state: &State) -> Check {
    let name = "list of shares";
    match state.shares() {
        Ok(shares) => Check::ok(name, format!("{} known", shares.len())),
        Err(error) => Check::bad(name, "cannot be used", error.to_string()),
    }
}

fn sockets(dir: &Path) -> Check {
    let name = "running processes";
    match RunDir::existing(dir).and_then(|run| run.map(|run| run.sockets()).transpose()) {
        Ok(None) => Check::ok(name, "none"),
        Ok(Some(sockets)) if sockets.removed == 0 => Check::ok(name, sockets.alive.len().to_string()),
        Ok(Some(sockets)) => Check::ok(
            name,
            format!("{}; removed {} sockets that killed ones had left", sockets.alive.len(), sockets.removed),
        ),
        Err(error) => Check::warn(name, error.to_string(), "until then `farshore status` finds nothing"),
    }
}

fn mounts() -> Vec<Check> {
    let name = "mounts";
    let probed = match fuse::probe_mounts() {
        Ok(probed) => probed,
        Err(error) => {
            return vec![Check::warn(name, format!("the kernel does not tell: {error}"), "is /proc mounted?")];
        }
    };
    if probed.is_empty() {
        return vec![Check::ok(name, "none")];
    }
    let check = |fuse::Probed { path, health }: fuse::Probed| {
        let shown = path.display();
        match health {
            Health::Alive => Check::ok(name, shown.to_string()),
            Health::Stale => {
                Check::warn(name, format!("{shown}: its process is gone"), format!("farshore unmount {path:?}"))
            }
            Health::Silent => {
                Check::warn(name, format!("{shown}: its process does not answer"), format!("farshore unmount {path:?}"))
            }
        }
    };
    probed.into_iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(check: &Check) -> Level {
        assert_eq!(check.advice.is_none(), check.level == Level::Ok, "what is not well has an advice: {check:?}");
        check.level
    }

    #[test]
    fn kernels_are_told_apart() {
        for (release, expected) in [
            ("6.18.5-fc", Level::Ok),
            ("6.9.0", Level::Ok),
            ("6.8.12-generic", Level::Warn),
            ("5.6.0", Level::Warn),
            ("5.4.0-150", Level::Bad),
            ("nonsense", Level::Warn),
        ] {
            assert_eq!(level(&kernel(release)), expected, "{release}");
        }
    }

    #[test]
    fn who_may_not_mount_needs_the_helper() {
        let missing = || Err(io::ErrorKind::NotFound.into());
        let no_device = Err(io::ErrorKind::NotFound.into());
        assert_eq!(level(&helper(missing(), true)), Level::Ok);
        assert_eq!(level(&helper(missing(), false)), Level::Bad);
        assert_eq!(level(&helper(Ok("fusermount3 version: 3.14.0".into()), false)), Level::Ok);
        assert_eq!(level(&device(no_device, true)), Level::Bad);
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(level(&device(denied(), false)), Level::Warn);
        assert_eq!(level(&device(denied(), true)), Level::Bad);
        assert!(has_capability("Name:\tx\nCapEff:\t0000000000200000\n", CAP_SYS_ADMIN));
        assert!(!has_capability("CapEff:\t00000000001fffff\n", CAP_SYS_ADMIN));
        assert!(!has_capability("", CAP_SYS_ADMIN));
    }

    #[test]
    fn limits_that_are_too_low_are_told() {
        assert_eq!(level(&open_files(None)), Level::Ok);
        assert_eq!(level(&open_files(Some(1024))), Level::Warn);
        assert_eq!(level(&limit("l", "fs.inotify.max_user_watches", 1)), Level::Ok);
        assert_eq!(level(&limit("l", "fs.inotify.max_user_watches", u64::MAX / 8)), Level::Warn);
        assert_eq!(level(&limit("l", "fs.no.such.key", 1)), Level::Warn);
        assert_eq!(level(&allow_other("# user_allow_other\n", false)), Level::Warn);
        assert_eq!(level(&allow_other("mount_max = 1\n  user_allow_other\n", false)), Level::Ok);
        assert_eq!(level(&allow_other("", true)), Level::Ok);
    }

    #[test]
    fn a_state_directory_that_others_write_in_is_bad() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let levels = |checks: Vec<Check>| checks.iter().map(level).collect::<Vec<_>>();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(levels(state_directory(Some(dir.path().into()))), [Level::Ok; 4]);
        fs::write(dir.path().join("shares.json"), "nonsense").unwrap();
        assert_eq!(levels(state_directory(Some(dir.path().into())))[2], Level::Bad);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(levels(state_directory(Some(dir.path().into()))), [Level::Bad]);
    }
}
