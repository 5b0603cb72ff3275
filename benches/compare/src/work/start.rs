//! Beginning to share and to mount a large tree, and what it costs to have it.

use super::{Metric, Values};
use crate::contender::{Contender, Reader};
use crate::folders::Content;
use crate::processes::usage;
use crate::stage::{Stage, drop_caches};
use crate::stopping::Trouble;
use std::time::Instant;

pub(super) const METRICS: [Metric; 5] = [
    Metric::lower("s until mounted"),
    Metric::lower("s until mounted again"),
    Metric::lower("s until shared"),
    Metric::lower("bytes per file, reader"),
    Metric::lower("bytes per file, owner"),
];

pub(super) fn start(contender: Contender, stage: &Stage<'_>, content: Content) -> Result<Values, Trouble> {
    drop_caches()?;
    let begun = Instant::now();
    let owner = contender.serve(stage)?;
    let shared = begun.elapsed();
    let begun = Instant::now();
    let reader = contender.mount(&owner, stage)?;
    let mounted = begun.elapsed();
    let per_file = |pid: Option<u32>| -> Result<Option<f64>, Trouble> {
        let used = pid.map(|pid| usage(&[pid])).transpose()?;
        Ok(used.map(|used| used.resident_bytes as f64 / content.files() as f64))
    };
    let (reader_bytes, owner_bytes) = (per_file(reader.pid())?, per_file(owner.pid())?);
    let again = match reader {
        Reader::Plain => None,
        Reader::Mounted(mounted) => {
            mounted.stop()?;
            let begun = Instant::now();
            let _reader = contender.mount(&owner, stage)?;
            Some(begun.elapsed().as_secs_f64())
        }
    };
    Ok(vec![Some(mounted.as_secs_f64()), again, Some(shared.as_secs_f64()), reader_bytes, owner_bytes])
}
