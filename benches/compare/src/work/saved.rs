//! Saving on one side, and seeing it on the other.

use super::many::copied_files;
use super::{Metric, Values, one};
use crate::contender::Contender;
use crate::folders::Content;
use crate::helpers::this_program;
use crate::stage::Stage;
use crate::stopping::{Trouble, wait_for};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub(super) const METRICS: [Metric; 4] = [
    Metric::lower("ms, saved on the mount"),
    Metric::lower("ms, the slowest of these"),
    Metric::lower("ms, saved in the owner's folder"),
    Metric::lower("s, the whole tree"),
];

/// So many files are saved one after the other in each direction.
const SAVED: u64 = 21;

pub(super) fn saved(
    contender: Contender,
    stage: &Stage<'_>,
    content: Content,
    limit: Duration,
) -> Result<Values, Trouble> {
    let folder = stage.new_dir("own")?;
    let (_owner, mounted) = contender.together(stage, &folder)?;
    let there = save(stage, mounted.root(), &folder, limit)?;
    let here = save(stage, &folder, mounted.root(), limit)?;
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(stage.folder).arg(mounted.root().join("tree"));
    let begun = Instant::now();
    stage.start_reader(copy, "cp")?.end(limit)?;
    let copied = folder.join("tree");
    wait_for(limit, || Ok((copied.exists() && copied_files(&copied, content)? == content.files()).then_some(())))?;
    let whole = begun.elapsed().as_secs_f64();
    let ms = |took: &[f64], at: usize| took.get(at).map(|seconds| seconds * 1e3);
    let (middle, last) = (there.len() / 2, there.len().saturating_sub(1));
    Ok(vec![ms(&there, middle), ms(&there, last), ms(&here, here.len() / 2), Some(whole)])
}

/// How long each took, in seconds, the fastest first.
fn save(stage: &Stage<'_>, from: &Path, to: &Path, limit: Duration) -> Result<Vec<f64>, Trouble> {
    let mut save = this_program()?;
    save.arg("save").arg(from).arg(to).arg(SAVED.to_string());
    let mut took: Vec<f64> = one::answer(stage.start_reader(save, "save")?, limit)?;
    took.sort_by(f64::total_cmp);
    Ok(took)
}
