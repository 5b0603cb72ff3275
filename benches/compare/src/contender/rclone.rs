//! rclone, which serves a folder and mounts it, with its cache of whole files.

use super::{Owner, free_port, wait_for_port};
use crate::process::Process;
use crate::stage::{START_LIMIT, Stage};
use crate::stopping::Trouble;
use std::path::Path;
use std::process::Command;

/// What its two sides speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Sftp,
}

/// Who asks, and what proves it.
const USER: &str = "reader";
const PASSWORD: &str = "only for a moment";

pub(super) fn serve(stage: &Stage<'_>, protocol: Protocol) -> Result<Owner, Trouble> {
    let port = free_port()?;
    let mut command = rclone(stage, "owner")?;
    let address = format!("{}:{port}", stage.owner_address());
    match protocol {
        Protocol::Http => command.args(["serve", "http"]),
        Protocol::Sftp => command.args(["serve", "sftp", "--user", USER, "--pass", PASSWORD]),
    };
    command.args(["--read-only", "--addr", &address]).arg(stage.folder);
    let mut process = stage.start_owner(command, "rclone serve")?;
    wait_for_port(&mut process, stage, port)?;
    Ok(Owner { process: Some(process), at: port.to_string() })
}

pub(super) fn mount(owner: &Owner, root: &Path, stage: &Stage<'_>, protocol: Protocol) -> Result<Process, Trouble> {
    let mut obscure = rclone(stage, "reader")?;
    obscure.args(["obscure", PASSWORD]);
    let password = stage.start_reader(obscure, "rclone obscure")?.end(START_LIMIT)?;
    let mut command = rclone(stage, "reader")?;
    command.arg("mount");
    let address = stage.owner_address();
    match protocol {
        Protocol::Http => command.args([":http:", "--http-url", &format!("http://{address}:{}", owner.at)]),
        Protocol::Sftp => command.args([
            ":sftp:/",
            "--sftp-host",
            &address.to_string(),
            "--sftp-port",
            &owner.at,
            "--sftp-user",
            USER,
            "--sftp-pass",
            password.trim(),
        ]),
    };
    command.arg(root).args(["--read-only", "--vfs-cache-mode", "full", "--dir-cache-time", "1h"]);
    stage.start_reader(command, "rclone mount")
}

/// rclone without a configuration of this machine's, and with a cache of its own.
fn rclone(stage: &Stage<'_>, side: &str) -> Result<Command, Trouble> {
    let cache = stage.new_dir(&format!("cache of {side}"))?;
    let mut command = Command::new("rclone");
    command.args(["--config", "/dev/null", "--cache-dir"]).arg(&cache).env("XDG_CACHE_HOME", &cache);
    Ok(command)
}
