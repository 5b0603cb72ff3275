//! What processes use, with all that they have started: read from /proc. Who was started may have lost its parent, but not
//! the process group; or have left the group, but not its parent.

use anyhow::Context;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// What some processes and their children have used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// Time on a processor, in the kernel too, children that have ended included.
    pub(crate) cpu: Duration,
    /// What of their memory is in RAM now, in bytes.
    pub(crate) resident_bytes: u64,
}

/// What the processes `roots` and everything below them have used.
pub(crate) fn usage(roots: &[u32]) -> anyhow::Result<Usage> {
    let table = Table::read()?;
    let (mut ticks, mut pages) = (0, 0);
    for stat in table.below(roots).iter().filter_map(|pid| table.stats.get(pid)) {
        ticks += stat.cpu_ticks;
        pages += stat.resident_pages;
    }
    let cpu = Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1));
    Ok(Usage { cpu, resident_bytes: pages * rustix::param::page_size() as u64 })
}

/// The process `root`, its group and everything below them.
pub(crate) fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    Ok(Table::read()?.below(&[root]))
}

/// All processes.
struct Table {
    stats: BTreeMap<u32, Stat>,
}

impl Table {
    fn read() -> anyhow::Result<Table> {
        let mut stats = BTreeMap::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // It may end while we look.
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            stats.insert(pid, Stat::parse(&text).with_context(|| format!("/proc/{pid}/stat"))?);
        }
        Ok(Table { stats })
    }

    /// `roots`, their process groups and their children, and theirs.
    fn below(&self, roots: &[u32]) -> Vec<u32> {
        let mut found = roots.to_vec();
        let mut at = 0;
        while let Some(root) = found.get(at).copied() {
            let below = self.stats.iter().filter(|(_, stat)| stat.parent == root || stat.group == root);
            let new: Vec<u32> = below.map(|(pid, _)| *pid).filter(|pid| !found.contains(pid)).collect();
            found.extend(new);
            at += 1;
        }
        found
    }
}

/// What we want of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    group: u32,
    cpu_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> anyhow::Result<Stat> {
        // The name stands in parentheses and may hold any character, so the fields are counted from its end.
        let (_, fields) = text.rsplit_once(") ").context("no name")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |at: usize| -> anyhow::Result<u64> { Ok(fields.get(at).context("too short")?.parse()?) };
        // proc_pid_stat(5): utime, stime, cutime, cstime are fields 14 to 17 of all, rss is field 24.
        let cpu_ticks = (11..15).map(number).sum::<anyhow::Result<u64>>()?;
        let [parent, group] = [u32::try_from(number(1)?)?, u32::try_from(number(2)?)?];
        Ok(Stat { parent, group, cpu_ticks, resident_pages: number(21)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let text = "7 (a) b c) S 3 6 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 99 8192 55 18446744073709551615 1";
        assert_eq!(Stat::parse(text).unwrap(), Stat { parent: 3, group: 6, cpu_ticks: 100, resident_pages: 55 });
        assert!(Stat::parse("7 (a) S 3").is_err());
    }

    #[test]
    fn a_tree_has_all_generations() {
        let stat = |parent, group| Stat { parent, group, cpu_ticks: 0, resident_pages: 0 };
        let all = [(1, 0, 1), (5, 1, 5), (2, 5, 5), (7, 2, 7), (8, 5, 5), (9, 1, 9), (10, 1, 5), (11, 1, 7)];
        let stats = all.map(|(pid, parent, group)| (pid, stat(parent, group)));
        assert_eq!(Table { stats: stats.into() }.below(&[5]), [5, 2, 8, 10, 7, 11]);
    }

    #[test]
    fn a_process_uses_memory_and_time() {
        let used = usage(&[std::process::id()]).unwrap();
        assert!(used.resident_bytes > 100_000, "{used:?}");
        let begun = used.cpu;
        let mut sum = 0_u64;
        while usage(&[std::process::id()]).unwrap().cpu == begun {
            sum = (0..1_000_000).fold(sum, |sum, next| std::hint::black_box(sum ^ next));
        }
    }
}
