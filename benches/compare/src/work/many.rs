//! Works on many small files.

use super::{Metric, Values, used_by_both};
use crate::contender::Contender;
use crate::folders::Content;
use crate::stage::{Stage, drop_caches};
use crate::stopping::Trouble;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub(super) const COPY_METRICS: [Metric; 3] =
    [Metric::higher("files/s"), Metric::lower("KB on the wire per file"), Metric::lower("CPU ms per file")];

pub(super) const WALK_METRICS: [Metric; 4] = [
    Metric::lower("s, `find`"),
    Metric::lower("s, `ls -lR`"),
    Metric::lower("s, `find` again"),
    Metric::lower("s, `ls -lR` again"),
];

pub(super) fn copy(
    contender: Contender,
    stage: &Stage<'_>,
    content: Content,
    limit: Duration,
) -> Result<Values, Trouble> {
    drop_caches()?;
    let owner = contender.serve(stage)?;
    let reader = contender.mount(&owner, stage)?;
    let used = || used_by_both(&owner, Some(&reader));
    let used_before = used()?;
    let carried = || stage.link.map(|link| link.carried_bytes());
    let before = carried();
    let mut copy = Command::new("cp");
    let to = stage.scratch.join("copy");
    copy.arg("-r").arg(reader.root(stage)).arg(&to);
    let begun = Instant::now();
    let ended = stage.start_reader(copy, "cp")?.end(limit);
    let took = begun.elapsed().as_secs_f64();
    let wire = before.zip(carried()).map(|(before, after)| (after - before) as f64 / 1e3);
    let used_after = used()?;
    let files = copied_files(&to, content)?;
    match ended {
        // A copy that lacks something was not made faster; what was copied until the time was over is a measure.
        Ok(_) if files != content.files() => {
            return Err(Trouble::Failed(format!("{files} of {} files were copied", content.files())));
        }
        Err(Trouble::TooLong) if files > 0 => {}
        ended => drop(ended?),
    }
    let files = files as f64;
    let cpu = used_before.zip(used_after).map(|(before, after)| after.cpu.saturating_sub(before.cpu).as_secs_f64());
    Ok(vec![Some(files / took), wire.map(|kilobytes| kilobytes / files), cpu.map(|seconds| seconds * 1e3 / files)])
}

/// How many files were copied whole.
pub(super) fn copied_files(copy: &Path, content: Content) -> Result<u64, Trouble> {
    let Content::Tree { bytes, .. } = content else { return Ok(0) };
    let mut files = 0;
    for dir in std::fs::read_dir(copy)? {
        for file in std::fs::read_dir(dir?.path())? {
            files += u64::from(file?.metadata()?.len() == bytes);
        }
    }
    Ok(files)
}

pub(super) fn walk(
    contender: Contender,
    stage: &Stage<'_>,
    content: Content,
    limit: Duration,
) -> Result<Values, Trouble> {
    drop_caches()?;
    let owner = contender.serve(stage)?;
    let reader = contender.mount(&owner, stage)?;
    let root = reader.root(stage);
    if contender == Contender::Plain {
        // What made the folder, or walked it before, must not help.
        drop_caches()?;
    }
    let mut values = Values::new();
    for _ in 0..2 {
        values.push(Some(find(stage, root, content, limit)?));
        values.push(Some(list(stage, root, limit)?));
    }
    Ok(values)
}

pub(super) fn find(stage: &Stage<'_>, root: &Path, content: Content, limit: Duration) -> Result<f64, Trouble> {
    let mut find = Command::new("find");
    find.arg(root);
    let begun = Instant::now();
    let found = stage.start_reader(find, "find")?.end(limit)?;
    let took = begun.elapsed().as_secs_f64();
    let (found, expected) = (found.lines().count() as u64, content.entries() + 1);
    match found == expected {
        true => Ok(took),
        false => Err(Trouble::Failed(format!("find has found {found} of {expected}"))),
    }
}

pub(super) fn list(stage: &Stage<'_>, root: &Path, limit: Duration) -> Result<f64, Trouble> {
    let mut list = Command::new("ls");
    // Names of users come from elsewhere and are not what is measured.
    list.arg("-lnR").arg(root);
    let begun = Instant::now();
    stage.start_reader(list, "ls")?.end(limit)?;
    Ok(begun.elapsed().as_secs_f64())
}
