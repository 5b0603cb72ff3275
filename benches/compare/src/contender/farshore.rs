//! Farshore itself.

use super::Owner;
use crate::process::Process;
use crate::stage::{Mounted, START_LIMIT, Stage};
use crate::stopping::Trouble;
use std::path::Path;
use std::process::Command;

/// What tells both sides that the folder is only looked at.
pub(super) const LOOKED_AT: &[&str] = &["--read-only"];

/// What tells them that it may be changed: nothing.
pub(super) const WRITABLE: &[&str] = &[];

pub(super) fn serve(stage: &Stage<'_>, folder: &Path, how: &[&str]) -> Result<Owner, Trouble> {
    let mut command = farshore(stage, "owner")?;
    command.args(["share", "--listen", &format!("{}:0", stage.owner_address())]).args(how).arg(folder);
    let mut process = stage.start_owner(command, "farshore share")?;
    let at = process.first_line(START_LIMIT)?;
    Ok(Owner { process: Some(process), at })
}

pub(super) fn mount(owner: &Owner, root: &Path, stage: &Stage<'_>, how: &[&str]) -> Result<Process, Trouble> {
    let mut command = farshore(stage, "reader")?;
    command.arg("mount").args(how).arg(&owner.at).arg(root);
    stage.start_reader(command, "farshore mount")
}

/// Shares a folder, and mounts it on the reader's side, where it has a folder of its own.
pub(super) fn together(stage: &Stage<'_>, folder: &Path) -> Result<(Owner, Mounted), Trouble> {
    let owner = serve(stage, folder, WRITABLE)?;
    let root = stage.new_dir("mnt")?;
    let mounted = Mounted::wait_for_any(mount(&owner, &root, stage, WRITABLE)?, root)?;
    Ok((owner, mounted))
}

/// Removes what Farshore keeps in a folder that all change, so that nobody else offers it or finds it.
pub(crate) fn tidy(folder: &Path) -> Result<(), Trouble> {
    match std::fs::remove_dir_all(folder.join(".farshore")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => Ok(removed?),
    }
}

/// Shares a folder and mounts it for its owner.
pub(super) fn own_folder(stage: &Stage<'_>, folder: &Path) -> Result<Mounted, Trouble> {
    let root = stage.new_dir("mnt")?;
    let mut command = farshore(stage, "owner")?;
    command.args(["share", "--listen", &format!("{}:0", stage.owner_address()), "--mount"]).arg(&root).arg(folder);
    let mut process = stage.start_owner(command, "farshore share")?;
    process.first_line(START_LIMIT)?;
    Mounted::wait_for_any(process, root)
}

fn farshore(stage: &Stage<'_>, device: &str) -> Result<Command, Trouble> {
    let mut command = Command::new(stage.farshore);
    command.env_remove("FARSHORE_LOG").arg("--state").arg(private_dir(stage, device)?);
    Ok(command)
}

/// A state directory has to be its owner's alone.
fn private_dir(stage: &Stage<'_>, device: &str) -> Result<std::path::PathBuf, Trouble> {
    use std::os::unix::fs::DirBuilderExt;
    let path = stage.scratch.join(format!("state of {device}"));
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&path)?;
    Ok(path)
}
