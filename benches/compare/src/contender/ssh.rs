//! sshfs with a server of its own: other keys, another port and no configuration of this machine's.

use super::{Owner, free_port, wait_for_port};
use crate::process::Process;
use crate::stage::{START_LIMIT, Stage};
use crate::stopping::Trouble;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What makes sshfs fastest for files that do not change: the cipher that processors help with, as many connections as
/// Farshore has streams, and caches that last.
pub(super) const TUNED: [&str; 7] = [
    "Ciphers=aes128-gcm@openssh.com",
    "max_conns=4",
    "kernel_cache",
    "dcache_timeout=3600",
    "entry_timeout=3600",
    "attr_timeout=3600",
    "negative_timeout=3600",
];

const SERVER: &str = "/usr/sbin/sshd";

pub(super) fn serve(stage: &Stage<'_>) -> Result<Owner, Trouble> {
    let (host_key, user_key) = (new_key(stage, "host key")?, new_key(stage, "user key")?);
    let keys = stage.scratch.join("authorized");
    fs::copy(user_key.with_extension("pub"), &keys)?;
    let port = free_port()?;
    let config = stage.scratch.join("sshd_config");
    let address = stage.owner_address();
    fs::write(
        &config,
        format!(
            "ListenAddress {address}:{port}\nHostKey \"{}\"\nAuthorizedKeysFile \"{}\"\nPidFile none\nStrictModes no\n\
             UsePAM no\nPermitRootLogin prohibit-password\nUseDNS no\nSubsystem sftp internal-sftp\n",
            host_key.display(),
            keys.display()
        ),
    )?;
    // The server wants it and leaves it to the init system to make it.
    fs::create_dir_all("/run/sshd")?;
    let mut command = Command::new(SERVER);
    command.args(["-D", "-e", "-f"]).arg(config);
    let mut process = stage.start_owner(command, "sshd")?;
    wait_for_port(&mut process, stage, port)?;
    Ok(Owner { process: Some(process), at: port.to_string() })
}

pub(super) fn mount(owner: &Owner, root: &Path, stage: &Stage<'_>, more: &[&str]) -> Result<Process, Trouble> {
    let mut command = Command::new("sshfs");
    command.arg(format!("root@{}:{}", stage.owner_address(), stage.folder.display())).arg(root);
    let key = stage.scratch.join("user_key");
    let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ssh_command=ssh -F none"];
    command.args(["-f", "-p", &owner.at, "-o", &format!("IdentityFile={}", key.display())]);
    options.iter().chain(more).for_each(|option| {
        command.args(["-o", option]);
    });
    stage.start_reader(command, "sshfs")
}

/// A key without a passphrase.
fn new_key(stage: &Stage<'_>, name: &str) -> Result<std::path::PathBuf, Trouble> {
    let path = stage.scratch.join(name.replace(' ', "_"));
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path);
    stage.start_owner(command, "ssh-keygen")?.end(START_LIMIT)?;
    Ok(path)
}
