//! Works in the mount of one's own folder, beside the same in a folder that is not mounted.

use super::many::{find, list};
use super::one;
use super::{Metric, Values};
use crate::contender::Contender;
use crate::folders::{Content, FILE};
use crate::helpers::{Took, this_program};
use crate::stage::Stage;
use crate::stopping::Trouble;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnTask {
    /// A file is written from front to back.
    Write,
    /// A file is read that was read before.
    Read,
    /// An archive is unpacked.
    Unpack,
    /// git looks at all files of a repository.
    GitStatus,
    /// A tree is listed that was listed before.
    Walk,
}

const RATE: [Metric; 1] = [Metric::higher("MB/s")];
const FILES: [Metric; 1] = [Metric::higher("files/s")];
const STATUS: [Metric; 1] = [Metric::lower("s, `git status`")];
const WALK: [Metric; 2] = [Metric::lower("s, `find`"), Metric::lower("s, `ls -lR`")];

impl OwnTask {
    pub(super) fn metrics(self) -> &'static [Metric] {
        match self {
            OwnTask::Write | OwnTask::Read => &RATE,
            OwnTask::Unpack => &FILES,
            OwnTask::GitStatus => &STATUS,
            OwnTask::Walk => &WALK,
        }
    }

    pub(super) fn measure(
        self,
        contender: Contender,
        stage: &Stage<'_>,
        content: Content,
        limit: Duration,
    ) -> Result<Values, Trouble> {
        // Nobody's bytes are still on their way to the disk.
        rustix::fs::sync();
        match self {
            OwnTask::Write => write(contender, stage, content, limit),
            OwnTask::Read => read(contender, stage, limit),
            OwnTask::Unpack => unpack(contender, stage, content, limit),
            OwnTask::GitStatus => git_status(contender, stage, limit),
            OwnTask::Walk => walk(contender, stage, content, limit),
        }
    }
}

fn write(contender: Contender, stage: &Stage<'_>, content: Content, limit: Duration) -> Result<Values, Trouble> {
    let Content::File(bytes) = content else { return Err(Trouble::Failed("there is no file".to_owned())) };
    let own = contender.own_folder(stage, &stage.new_dir("own")?)?;
    let mut write = this_program()?;
    write.arg("write").arg(own.root().join(FILE)).arg(bytes.to_string());
    let took: Took = one::answer(stage.start_reader(write, "write")?, limit)?;
    Ok(vec![Some(one::rate(took))])
}

fn read(contender: Contender, stage: &Stage<'_>, limit: Duration) -> Result<Values, Trouble> {
    let own = contender.own_folder(stage, stage.folder)?;
    let read = || -> Result<Took, Trouble> {
        let mut read = this_program()?;
        read.arg("read").arg(own.root().join(FILE)).arg(limit.as_secs().to_string());
        one::answer(stage.start_reader(read, "read")?, 2 * limit)
    };
    read()?;
    Ok(vec![Some(one::rate(read()?))])
}

fn unpack(contender: Contender, stage: &Stage<'_>, content: Content, limit: Duration) -> Result<Values, Trouble> {
    let archive = stage.scratch.join("archive.tar");
    run(stage, limit, Path::new("/"), "tar", &["cf", utf8(&archive)?, "-C", utf8(stage.folder)?, "."])?;
    let own = contender.own_folder(stage, &stage.new_dir("own")?)?;
    let took = run(stage, limit, Path::new("/"), "tar", &["xf", utf8(&archive)?, "-C", utf8(own.root())?])?;
    Ok(vec![Some(content.files() as f64 / took)])
}

fn git_status(contender: Contender, stage: &Stage<'_>, limit: Duration) -> Result<Values, Trouble> {
    let folder = stage.new_dir("own")?;
    let copied = format!("{}/.", utf8(stage.folder)?);
    run(stage, limit, Path::new("/"), "cp", &["-r", &copied, utf8(&folder)?])?;
    let nobody = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"];
    for arguments in [&["init", "-q"][..], &["add", "-A"], &[&nobody[..], &["commit", "-q", "-m", "all"]].concat()] {
        run(stage, limit, &folder, "git", arguments)?;
    }
    let own = contender.own_folder(stage, &folder)?;
    let status = || run(stage, limit, own.root(), "git", &["status"]);
    // The first looks at every file anew.
    status()?;
    Ok(vec![Some(status()?)])
}

fn walk(contender: Contender, stage: &Stage<'_>, content: Content, limit: Duration) -> Result<Values, Trouble> {
    let own = contender.own_folder(stage, stage.folder)?;
    find(stage, own.root(), content, limit)?;
    list(stage, own.root(), limit)?;
    Ok(vec![Some(find(stage, own.root(), content, limit)?), Some(list(stage, own.root(), limit)?)])
}

/// Runs a program in a directory. Returns how many seconds it took.
fn run(stage: &Stage<'_>, limit: Duration, inside: &Path, program: &str, arguments: &[&str]) -> Result<f64, Trouble> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(inside);
    let begun = Instant::now();
    stage.start_reader(command, program)?.end(limit)?;
    Ok(begun.elapsed().as_secs_f64())
}

fn utf8(path: &Path) -> Result<&str, Trouble> {
    path.to_str().ok_or_else(|| Trouble::Failed(format!("{} is no text", path.display())))
}
