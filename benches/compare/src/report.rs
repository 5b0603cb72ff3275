//! BENCHMARKS.md: what people wrote in it stays, what was measured is written anew.

use crate::machine::Machine;
use crate::plot;
use crate::results::{Cell, Measured, Results, Spread};
use crate::work::{self, Work};
use crate::{Scale, contender::Contender};
use anyhow::Context;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

const REPORT: &str = "BENCHMARKS.md";
const RESULTS: &str = "benchmarks.json";
const PLOT: &str = "benchmarks.svg";

/// Between these lines of the report everything is ours.
const BEGIN: &str = "<!-- measured: from here on written by farshore-compare -->";
const END: &str = "<!-- end of what was measured -->";

/// What a report begins with that nobody has written anything in.
const BLANK: &str = "# Benchmarks\n\n";

/// Writes the report of what was measured now, and of what was measured earlier on the same machine.
pub(crate) fn write(dir: &Path, measured: BTreeMap<String, Measured>, machine: Machine) -> anyhow::Result<()> {
    fs::create_dir_all(dir)?;
    let kept = read(&dir.join(RESULTS))?;
    let mut works = match kept.map(|text| serde_json::from_str::<Results>(&text)).transpose() {
        Ok(Some(earlier)) if earlier.machine == machine => earlier.works,
        // Figures of another machine, or of another time, are not to be compared with these.
        Ok(_) | Err(_) => BTreeMap::new(),
    };
    works.extend(measured);
    let results = Results { machine, works };
    let path = dir.join(REPORT);
    let report = put_between(read(&path)?.as_deref().unwrap_or(BLANK), &render(&results))?;
    fs::write(&path, report).with_context(|| format!("cannot write {}", path.display()))?;
    fs::write(dir.join(RESULTS), serde_json::to_string_pretty(&results)? + "\n")?;
    fs::write(dir.join(PLOT), plot::draw(&results))?;
    eprintln!("written to {}", path.display());
    Ok(())
}

/// `None` if there is no such file.
fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The report with what is between the marks replaced; appended if there are none.
fn put_between(report: &str, measured: &str) -> anyhow::Result<String> {
    let (before, after) = match (report.split_once(BEGIN), report.split_once(END)) {
        (Some((before, _)), Some((_, after))) => (before, after),
        (None, None) => (report, "\n"),
        (Some(_), None) | (None, Some(_)) => {
            anyhow::bail!("{REPORT} has only one of the lines {BEGIN:?} and {END:?}; put the other one back")
        }
    };
    Ok(format!("{before}{BEGIN}\n\n{measured}\n{END}{after}"))
}

/// The works that were measured, in the order of the list.
pub(crate) fn in_order(results: &Results) -> impl Iterator<Item = (&'static Work, &Measured)> {
    work::ALL.iter().filter_map(|work| Some((work, results.works.get(work.name)?)))
}

fn render(results: &Results) -> String {
    let Machine { processor, cores, memory_gib, kernel, tcp, programs } = &results.machine;
    let tcp: Vec<String> = tcp.iter().map(|(name, value)| format!("`{name}` {value}")).collect();
    let mut text = format!(
        "Measured on {cores} cores of {processor}, {memory_gib} GiB of memory, Linux {kernel}, both sides on this one \
         machine; {}; {}.\n\nA figure is the median of all rounds, with the least and the most in parentheses. The last \
         column says how many times better Farshore's first figure is.\n\n![the first figure of each table]({PLOT})\n",
        programs.join(", "),
        tcp.join(", ")
    );
    for (work, measured) in in_order(results) {
        table(&mut text, work, measured);
    }
    text
}

fn table(text: &mut String, work: &Work, measured: &Measured) {
    let metrics = work.metrics();
    let mut line = |cells: &[String]| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", cells.join(""));
    };
    line(&[format!("\n## {}\n", work.title)]);
    if !work.note.is_empty() {
        line(&[format!("{}\n", work.note)]);
    }
    let titles = metrics.iter().map(|metric| format!(" {} |", metric.title));
    line(&[vec!["| |".to_owned()], titles.collect(), vec![" Farshore is |".to_owned()]].concat());
    line(&[format!("|---|{}---:|", "---:|".repeat(metrics.len()))]);
    let ours = measured.cells.iter().find(|cell| cell.contender == Contender::Farshore);
    let ours = ours.and_then(|cell| cell.spread(0));
    for cell in &measured.cells {
        let mut cells = vec![format!("| {} |", cell.contender.title())];
        cells.extend((0..metrics.len()).map(|index| format!(" {} |", figure(cell, index))));
        let ratio = ours.zip(cell.spread(0)).filter(|_| cell.contender != Contender::Farshore);
        let ratio = ratio.map(|(ours, theirs)| format!(" {} x |", short(ours.times_better(theirs, metrics[0]))));
        cells.push(ratio.unwrap_or_else(|| " |".to_owned()));
        line(&cells);
    }
    let scale = match measured.scale {
        Scale::Small => "; at the small scale, which proves nothing",
        Scale::Full => "",
    };
    line(&[format!("\n{}, `{}`{scale}", measured.date, measured.command)]);
}

/// What stands in one field: the figure, or why there is none.
fn figure(cell: &Cell, index: usize) -> String {
    match (cell.spread(index), &cell.trouble) {
        (Some(Spread { least, median, most }), trouble) => {
            let of_all = match cell.rounds.len() {
                1 => String::new(),
                _ => format!(" ({}–{})", short(least), short(most)),
            };
            let then = trouble.as_ref().filter(|_| index == 0).map(|trouble| format!(", then {}", inline(trouble)));
            format!("{}{of_all}{}", short(median), then.unwrap_or_default())
        }
        (None, Some(trouble)) if index == 0 => inline(trouble),
        (None, _) => "–".to_owned(),
    }
}

/// As it may stand in a table.
fn inline(text: &str) -> String {
    text.replace('|', "/").replace('\n', " ")
}

/// Three digits that count.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(cells: Vec<Cell>) -> Results {
        let machine = Machine {
            processor: "a processor".to_owned(),
            cores: 2,
            memory_gib: 4,
            kernel: "6.1".to_owned(),
            tcp: vec![("tcp_wmem".to_owned(), "1 2 3".to_owned())],
            programs: vec!["farshore 0.1".to_owned()],
        };
        let measured =
            Measured { date: "2001-02-03".to_owned(), command: "the command".to_owned(), scale: Scale::Full, cells };
        Results { machine, works: [("read-warm".to_owned(), measured)].into() }
    }

    fn cell(contender: Contender, rounds: &[[f64; 2]], trouble: Option<&str>) -> Cell {
        let rounds = rounds.iter().map(|values| values.map(Some).to_vec()).collect();
        Cell { contender, rounds, trouble: trouble.map(str::to_owned) }
    }

    #[test]
    fn a_table_has_medians_spreads_ratios_and_troubles() {
        let text = render(&results(vec![
            cell(Contender::Farshore, &[[300.0, 1.0], [100.0, 2.0], [200.0, 3.0]], None),
            cell(Contender::Sshfs, &[[50.0, 4.0]], Some("failed: a | b")),
            cell(Contender::Plain, &[], Some("over 9 s")),
        ]));
        for expected in [
            "2 cores of a processor, 4 GiB",
            "\n| | MB/s | CPU s per GiB | Farshore is |\n|---|---:|---:|---:|\n",
            "\n| Farshore | 200 (100–300) | 2.00 (1.00–3.00) | |\n",
            "\n| sshfs | 50.0, then failed: a / b | 4.00 | 4.00 x |\n",
            "\n| plain folder | over 9 s | – | |\n",
            "\n2001-02-03, `the command`\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in {text}");
        }
    }

    #[test]
    fn what_people_wrote_stays() {
        let first = put_between("# Title\n\nWords.\n\n", "one").unwrap();
        let second = put_between(&format!("{first}More words.\n"), "two").unwrap();
        assert_eq!(second, format!("# Title\n\nWords.\n\n{BEGIN}\n\ntwo\n{END}\nMore words.\n"));
        assert!(put_between(BEGIN, "three").is_err());
    }

    #[test]
    fn works_that_are_not_measured_again_keep_their_figures() {
        let dir = tempfile::tempdir().unwrap();
        let first = results(vec![cell(Contender::Farshore, &[[1.0, 1.0]], None)]);
        write(dir.path(), first.works.clone(), first.machine.clone()).unwrap();
        let more = [("walk-24ms".to_owned(), first.works["read-warm"].clone())];
        write(dir.path(), more.clone().into(), first.machine.clone()).unwrap();
        let kept =
            |dir: &Path| -> Results { serde_json::from_str(&fs::read_to_string(dir.join(RESULTS)).unwrap()).unwrap() };
        assert_eq!(kept(dir.path()).works.len(), 2);
        let other = Machine { cores: 3, ..first.machine };
        write(dir.path(), more.into(), other).unwrap();
        assert_eq!(kept(dir.path()).works.len(), 1, "another machine");
    }

    #[test]
    fn three_digits_are_enough() {
        let cases = [(1234.5, "1234"), (99.96, "100"), (12.34, "12.3"), (1.234, "1.23"), (0.01234, "0.012")];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }
}
