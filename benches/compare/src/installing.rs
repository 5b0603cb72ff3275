//! Who can be compared here: what is missing comes from the distribution.

use crate::contender::Contender;
use anyhow::Context;
use clap::ValueEnum;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Those of `among`, or of all if that is empty, that can run here once their packages are installed.
pub(crate) fn available(among: &[Contender], no_install: bool) -> anyhow::Result<Vec<Contender>> {
    let mut wanted = match among {
        [] => Contender::value_variants().to_vec(),
        among => among.to_vec(),
    };
    let missing: BTreeSet<&str> = wanted.iter().flat_map(|contender| lacks(*contender)).collect();
    if !missing.is_empty() && !no_install {
        let packages: Vec<&str> = missing.into_iter().collect();
        eprintln!("installing {} with apt-get; --no-install leaves out who needs them", packages.join(", "));
        apt(&["update", "-qq"])?;
        apt(&[&["install", "-qq", "--yes", "--no-install-recommends"][..], &packages].concat())?;
    }
    wanted.retain(|contender| {
        let lacks: Vec<&str> = lacks(*contender).collect();
        if !lacks.is_empty() {
            eprintln!("{} is left out: install {}", contender.title(), lacks.join(", "));
        }
        lacks.is_empty()
    });
    Ok(wanted)
}

/// The packages that a contender lacks.
fn lacks(contender: Contender) -> impl Iterator<Item = &'static str> {
    contender.needs().iter().filter(|(program, _)| !is_here(program)).map(|(_, package)| *package)
}

fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) || Path::new(program).is_file()
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.status().context("apt-get cannot be run; install sshfs, openssh-server and rclone by hand")?;
    anyhow::ensure!(status.success(), "apt-get {} ended with {status}", arguments.join(" "));
    Ok(())
}
