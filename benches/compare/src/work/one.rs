//! Works on one large file.

use super::{GIB, Metric, Values, used_by_both};
use crate::contender::{Contender, Owner, Reader};
use crate::folders::FILE;
use crate::helpers::{Took, this_program};
use crate::process::Process;
use crate::processes::Usage;
use crate::stage::{Stage, drop_caches};
use crate::stopping::Trouble;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const READ_METRICS: [Metric; 3] =
    [Metric::higher("MB/s"), Metric::higher("MB/s after 1 s"), Metric::lower("CPU s per GiB")];

pub(super) const READ_AGAIN_METRICS: [Metric; 2] = [Metric::higher("MB/s"), Metric::lower("CPU s per GiB")];

pub(super) const PROBE_METRICS: [Metric; 3] =
    [Metric::lower("ms, median"), Metric::lower("ms, slowest"), Metric::lower("MB on the wire")];

/// How many probes there are.
const PROBES: u64 = 100;

const MEGA: f64 = 1e6;

pub(super) fn read(contender: Contender, stage: &Stage<'_>, limit: Duration) -> Result<Values, Trouble> {
    let file = File::cold(contender, stage)?;
    let before = file.used()?;
    let took = file.read(limit)?;
    Ok(vec![Some(rate(took)), took.late_rate.map(|rate| rate / MEGA), file.cpu_per_gib(before, took)?])
}

pub(super) fn read_again(contender: Contender, stage: &Stage<'_>, limit: Duration) -> Result<Values, Trouble> {
    let file = File::cold(contender, stage)?;
    file.read(limit)?;
    let before = file.used()?;
    let took = file.read(limit)?;
    Ok(vec![Some(rate(took)), file.cpu_per_gib(before, took)?])
}

pub(super) fn probe(contender: Contender, stage: &Stage<'_>, limit: Duration) -> Result<Values, Trouble> {
    let file = File::cold(contender, stage)?;
    let carried = || stage.link.map(|link| link.carried_bytes());
    let before = carried();
    let mut probe = this_program()?;
    probe.arg("probe").arg(file.path()?).arg(PROBES.to_string());
    let mut took: Vec<f64> = answer(stage.start_reader(probe, "probe")?, limit)?;
    took.sort_by(f64::total_cmp);
    let wire = before.zip(carried()).map(|(before, after)| (after - before) as f64 / MEGA);
    let ms = |at: usize| took.get(at).map(|seconds| seconds * 1000.0);
    Ok(vec![ms(took.len() / 2), ms(took.len().saturating_sub(1)), wire])
}

pub(super) fn rate(took: Took) -> f64 {
    took.bytes as f64 / took.seconds / MEGA
}

/// A file of the owner's that nobody has read yet. The reader's side goes first.
struct File<'a> {
    contender: Contender,
    stage: &'a Stage<'a>,
    reader: Option<Reader>,
    owner: Owner,
}

impl<'a> File<'a> {
    fn cold(contender: Contender, stage: &'a Stage<'a>) -> Result<File<'a>, Trouble> {
        drop_caches()?;
        let owner = contender.serve(stage)?;
        let reader = match contender {
            Contender::Stream => None,
            Contender::Farshore
            | Contender::FarshoreWritable
            | Contender::Sshfs
            | Contender::SshfsTuned
            | Contender::RcloneHttp
            | Contender::RcloneSftp
            | Contender::Plain => Some(contender.mount(&owner, stage)?),
        };
        Ok(File { contender, stage, reader, owner })
    }

    fn path(&self) -> Result<PathBuf, Trouble> {
        let reader = self.reader.as_ref().ok_or("a stream has no path")?;
        Ok(reader.root(self.stage).join(FILE))
    }

    fn read(&self, limit: Duration) -> Result<Took, Trouble> {
        if self.reader.is_none() {
            return answer(self.contender.fetch(&self.owner, self.stage)?, limit);
        }
        let mut read = this_program()?;
        read.arg("read").arg(self.path()?).arg(limit.as_secs().to_string());
        // It ends by itself, unless a read does not come back.
        answer(self.stage.start_reader(read, "read")?, 2 * limit)
    }

    fn used(&self) -> Result<Option<Usage>, Trouble> {
        used_by_both(&self.owner, self.reader.as_ref())
    }

    fn cpu_per_gib(&self, before: Option<Usage>, took: Took) -> Result<Option<f64>, Trouble> {
        let gibibytes = took.bytes as f64 / GIB as f64;
        let used = before.zip(self.used()?);
        Ok(used.map(|(before, after)| after.cpu.saturating_sub(before.cpu).as_secs_f64() / gibibytes))
    }
}

/// What a helper has printed when it has ended.
pub(super) fn answer<T: DeserializeOwned>(helper: Process, limit: Duration) -> Result<T, Trouble> {
    Ok(serde_json::from_str(&helper.end(limit)?)?)
}
