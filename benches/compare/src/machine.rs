//! The machine that the figures are from.

use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What has to be known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// Settings of the kernel that decide about TCP over long lines: name and value.
    pub(crate) tcp: Vec<(String, String)>,
    /// Programs and their versions.
    pub(crate) programs: Vec<String>,
}

impl Machine {
    pub(crate) fn look(farshore: &Path) -> anyhow::Result<Machine> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let field = |text: &str, name: &str| -> Option<String> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib = field(&memory, "MemTotal").and_then(|total| total.split(' ').next()?.parse::<u64>().ok());
        let sysctl = |name: &str| {
            let value = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
            Some((name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        };
        let farshore = farshore.to_string_lossy();
        let versions = [[&farshore, "--version"], ["sshfs", "--version"], ["ssh", "-V"], ["rclone", "version"]];
        Ok(Machine {
            processor: field(&processors, "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: kib.unwrap_or(0).div_ceil(1024 * 1024),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            tcp: ["tcp_congestion_control", "tcp_rmem", "tcp_wmem"].into_iter().filter_map(sysctl).collect(),
            programs: versions.iter().filter_map(|[program, argument]| version(program, argument)).collect(),
        })
    }
}

/// The line in which a program tells its version; `None` if it is not here.
fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let name = Path::new(program).file_name()?.to_str()?;
    let is_about = |line: &&str| line.to_lowercase().starts_with(name) || line.starts_with("OpenSSH");
    said.lines().find(is_about).map(|line| line.split(',').next().unwrap_or(line).to_owned())
}
