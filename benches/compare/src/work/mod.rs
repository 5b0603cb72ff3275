//! The works: what is to be done, over which line, with which files, by whom, and what is measured of it.

mod many;
mod one;
mod own;
mod saved;
mod start;

use self::own::OwnTask;
use crate::contender::Contender::{
    self, Farshore, FarshoreWritable, Plain, RcloneHttp, RcloneSftp, Sshfs, SshfsTuned, Stream,
};
use crate::contender::{Owner, Reader};
use crate::folders::Content;
use crate::processes::{Usage, usage};
use crate::stage::Stage;
use crate::stopping::Trouble;
use farshore_compare::link::Shape;
use std::time::Duration;

/// One work.
#[derive(Debug)]
pub(crate) struct Work {
    /// What it is called on the command line and in links.
    pub(crate) name: &'static str,
    /// What it is called by people.
    pub(crate) title: &'static str,
    /// What has to be known to read its table.
    pub(crate) note: &'static str,
    pub(crate) line: Line,
    pub(crate) content: Content,
    task: Task,
    pub(crate) among: &'static [Contender],
}

/// What is between the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// The loopback device.
    Loopback,
    /// A shaped line.
    Shaped { round_trip_ms: u64, megabits: u64 },
}

impl Line {
    pub(crate) fn shape(self) -> Option<Shape> {
        match self {
            Line::Loopback => None,
            Line::Shaped { round_trip_ms, megabits } => {
                Some(Shape::new(Duration::from_millis(round_trip_ms), megabits * 1_000_000))
            }
        }
    }
}

/// What is done. Each has a file of its own or shares one with its likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// A file is read from front to back, for the first time.
    Read,
    /// The same once more.
    ReadAgain,
    /// A few bytes are read here and there.
    Probe,
    /// A tree is copied out of the mount.
    Copy,
    /// A tree is listed.
    Walk,
    /// A tree is offered and mounted, and nothing else.
    Start,
    /// Files are saved on one side, and looked for on the other.
    Saved,
    /// Something in the mount of one's own folder.
    Own(OwnTask),
}

/// Something that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metric {
    /// What it is, with its unit.
    pub(crate) title: &'static str,
    pub(crate) better: Better,
}

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Metric {
    const fn higher(title: &'static str) -> Metric {
        Metric { title, better: Better::Higher }
    }

    const fn lower(title: &'static str) -> Metric {
        Metric { title, better: Better::Lower }
    }
}

/// One measurement: a value for each metric of the work, where there is one.
pub(crate) type Values = Vec<Option<f64>>;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

const ALL_READERS: &[Contender] =
    &[Farshore, FarshoreWritable, Sshfs, SshfsTuned, RcloneHttp, RcloneSftp, Plain, Stream];
const OVER_A_LINE: &[Contender] = &[Farshore, Sshfs, SshfsTuned, RcloneHttp, RcloneSftp, Stream];
const MOUNTS: &[Contender] = &[Farshore, FarshoreWritable, Sshfs, SshfsTuned, RcloneHttp, RcloneSftp];
const MOUNTS_AND_PLAIN: &[Contender] = &[Farshore, FarshoreWritable, Sshfs, SshfsTuned, RcloneHttp, RcloneSftp, Plain];

const OWN: &[Contender] = &[Farshore, Plain];

const fn own(name: &'static str, title: &'static str, note: &'static str, content: Content, task: OwnTask) -> Work {
    Work { name, title, note, line: Line::Loopback, content, task: Task::Own(task), among: OWN }
}

const fn cold_read(name: &'static str, title: &'static str, round_trip_ms: u64, megabits: u64) -> Work {
    Work {
        name,
        title,
        note: "Headers of IP and TCP take 4 % of the line, those of TLS and HTTP/2 a little more.",
        line: Line::Shaped { round_trip_ms, megabits },
        content: Content::File(256 * MIB),
        task: Task::Read,
        among: OVER_A_LINE,
    }
}

/// All works, in the order of the report.
pub(crate) static ALL: &[Work] = &[
    Work {
        name: "read-loopback",
        title: "Cold read of 1 GiB over loopback",
        note: "Nothing is cached on either side, so the owner's disk is part of it. CPU seconds are those of both sides' \
               processes, without the kernel's own threads.",
        line: Line::Loopback,
        content: Content::File(GIB),
        task: Task::Read,
        among: ALL_READERS,
    },
    Work {
        name: "read-warm",
        title: "The same file read again",
        note: "Right after the first time, in the same mount.",
        line: Line::Loopback,
        content: Content::File(GIB),
        task: Task::ReadAgain,
        among: MOUNTS_AND_PLAIN,
    },
    cold_read("read-5ms", "Cold read of 256 MiB, 5 ms round trip, 1 Gbit/s", 5, 1000),
    cold_read("read-24ms", "Cold read of 256 MiB, 24 ms round trip, 1 Gbit/s", 24, 1000),
    cold_read("read-100ms", "Cold read of 256 MiB, 100 ms round trip, 1 Gbit/s", 100, 1000),
    cold_read("read-200ms", "Cold read of 256 MiB, 200 ms round trip, 200 Mbit/s", 200, 200),
    Work {
        name: "probe-24ms",
        title: "100 reads of 4 KiB anywhere in a cold file of 1 GiB, 24 ms round trip",
        note: "Bytes on the wire are counted in both directions, with all headers, from the opening of the file on.",
        line: Line::Shaped { round_trip_ms: 24, megabits: 1000 },
        content: Content::File(GIB),
        task: Task::Probe,
        among: MOUNTS,
    },
    Work {
        name: "copy-24ms",
        title: "`cp -r` of 10,000 files of 4 KiB, cold, 24 ms round trip",
        note: "Who is not done when the time is over is measured by what was copied until then.",
        line: Line::Shaped { round_trip_ms: 24, megabits: 1000 },
        content: Content::Tree { dirs: 100, files: 100, bytes: 4096 },
        task: Task::Copy,
        among: MOUNTS,
    },
    Work {
        name: "copy-loopback",
        title: "`cp -r` of 10,000 files of 4 KiB, cold, over loopback",
        note: "What a small file costs without the line. CPU milliseconds are those of both sides' processes.",
        line: Line::Loopback,
        content: Content::Tree { dirs: 100, files: 100, bytes: 4096 },
        task: Task::Copy,
        among: MOUNTS_AND_PLAIN,
    },
    Work {
        name: "walk-24ms",
        title: "`find` and `ls -lR` over 100,000 files, 24 ms round trip",
        note: "`find` comes first, then `ls -lR`, then both again. The plain folder begins with nothing cached, too.",
        line: Line::Shaped { round_trip_ms: 24, megabits: 1000 },
        content: Content::Tree { dirs: 1000, files: 100, bytes: 0 },
        task: Task::Walk,
        among: MOUNTS_AND_PLAIN,
    },
    Work {
        name: "start-million",
        title: "Sharing and mounting 1,000,000 files",
        note: "Times until a ticket is printed, and until the first listing of the root has come. The second mount has the \
               state of the first. Memory is what is resident then, divided by the number of files.",
        line: Line::Loopback,
        content: Content::Tree { dirs: 1000, files: 1000, bytes: 0 },
        task: Task::Start,
        among: MOUNTS,
    },
    Work {
        name: "saved-24ms",
        title: "Seeing on one side what was saved on the other, 24 ms round trip",
        note: "From the moment in which a file of 4 KiB was closed until it can be read, whole, on the other side; the median \
               of 21. The tree are 10,000 such files, from the beginning of `cp -r` onto the mount until all are in the \
               owner's folder.",
        line: Line::Shaped { round_trip_ms: 24, megabits: 1000 },
        content: Content::Tree { dirs: 100, files: 100, bytes: 4096 },
        task: Task::Saved,
        among: &[Farshore],
    },
    own(
        "own-write",
        "Writing 1 GiB into the mount of one's own folder",
        "A new file, in blocks of 1 MiB, until the last one is taken; not synced.",
        Content::File(GIB),
        OwnTask::Write,
    ),
    own(
        "own-read",
        "Warm read of 1 GiB in the mount of one's own folder",
        "The second read of the same file.",
        Content::File(GIB),
        OwnTask::Read,
    ),
    own(
        "own-untar",
        "Unpacking 50,000 files of 4 KiB into the mount of one's own folder",
        "`tar xf` of an archive that is in memory.",
        Content::Tree { dirs: 500, files: 100, bytes: 4096 },
        OwnTask::Unpack,
    ),
    own(
        "own-git",
        "`git status` in a repository of 50,000 files in the mount of one's own folder",
        "The second one.",
        Content::Tree { dirs: 500, files: 100, bytes: 4096 },
        OwnTask::GitStatus,
    ),
    own(
        "own-walk",
        "`find` and `ls -lR` over 100,000 files in the mount of one's own folder",
        "Both for the second time.",
        Content::Tree { dirs: 1000, files: 100, bytes: 0 },
        OwnTask::Walk,
    ),
];

/// What both sides' processes have used, if both have some that last.
fn used_by_both(owner: &Owner, reader: Option<&Reader>) -> Result<Option<Usage>, Trouble> {
    let pids = owner.pid().zip(reader.and_then(Reader::pid));
    Ok(pids.map(|(owner, reader)| usage(&[owner, reader])).transpose()?)
}

impl Work {
    /// The work of this name.
    pub(crate) fn parse(name: &str) -> Result<&'static Work, String> {
        ALL.iter().find(|work| work.name == name).ok_or_else(|| {
            let names: Vec<&str> = ALL.iter().map(|work| work.name).collect();
            format!("there is no such work; there are {}", names.join(", "))
        })
    }

    /// What is measured; the first is what contenders are compared by.
    pub(crate) fn metrics(&self) -> &'static [Metric] {
        match self.task {
            Task::Read => &one::READ_METRICS,
            Task::ReadAgain => &one::READ_AGAIN_METRICS,
            Task::Probe => &one::PROBE_METRICS,
            Task::Copy => &many::COPY_METRICS,
            Task::Walk => &many::WALK_METRICS,
            Task::Start => &start::METRICS,
            Task::Saved => &saved::METRICS,
            Task::Own(task) => task.metrics(),
        }
    }

    /// Has it done by one contender, once.
    pub(crate) fn measure(
        &self,
        contender: Contender,
        stage: &Stage<'_>,
        content: Content,
        limit: Duration,
    ) -> Result<Values, Trouble> {
        match self.task {
            Task::Read => one::read(contender, stage, limit),
            Task::ReadAgain => one::read_again(contender, stage, limit),
            Task::Probe => one::probe(contender, stage, limit),
            Task::Copy => many::copy(contender, stage, content, limit),
            Task::Walk => many::walk(contender, stage, content, limit),
            Task::Start => start::start(contender, stage, content),
            Task::Saved => saved::saved(contender, stage, content, limit),
            Task::Own(task) => task.measure(contender, stage, content, limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_are_found_by_their_names() {
        for work in ALL {
            assert!(std::ptr::eq(Work::parse(work.name).unwrap(), work));
        }
        assert!(Work::parse("read").unwrap_err().contains("read-24ms"));
    }
}
