//! The first figure of each work as bars, in SVG. Each work has its own scale, from zero.

use crate::contender::Contender;
use crate::report::{in_order, short};
use crate::results::{Measured, Results};
use crate::work::{Better, Work};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const NAMES: f64 = 130.0;
const BARS: f64 = 560.0;
const BAR: f64 = 18.0;
const TITLE: f64 = 34.0;
const GAP: f64 = 14.0;

/// The plot of all works.
pub(crate) fn draw(results: &Results) -> String {
    let mut body = String::new();
    let mut y = GAP;
    for (work, measured) in in_order(results) {
        y = panel(&mut body, work, measured, y) + GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// Draws one work from `y` downwards, and returns where it ends.
fn panel(out: &mut String, work: &Work, measured: &Measured, y: f64) -> f64 {
    let metric = work.metrics()[0];
    let better = match metric.better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    let title = escape(&work.title.replace('`', ""));
    let unit = escape(&metric.title.replace('`', ""));
    text(out, 8.0, y + 14.0, &format!("<tspan font-weight=\"bold\">{title}</tspan> ({unit}; {better})"));
    let most = measured.cells.iter().filter_map(|cell| cell.spread(0)).map(|spread| spread.most).fold(0.0, f64::max);
    let x = |value: f64| if most > 0.0 { NAMES + value / most * BARS } else { NAMES };
    let mut top = y + TITLE - 8.0;
    for cell in &measured.cells {
        let middle = top + BAR / 2.0;
        text(out, 8.0, middle + 4.0, cell.contender.title());
        match cell.spread(0) {
            Some(spread) => {
                let (least, median, most) = (x(spread.least), x(spread.median), x(spread.most));
                let color = color(cell.contender);
                line(
                    out,
                    format_args!(
                        "<rect x=\"{NAMES}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{color}\"/>",
                        top + 2.0,
                        median - NAMES,
                        BAR - 4.0
                    ),
                );
                line(
                    out,
                    format_args!(
                        "<path d=\"M{least:.1} {middle:.1}H{most:.1}\" stroke=\"#222\" stroke-width=\"1.5\"/>"
                    ),
                );
                text(out, most.max(median) + 6.0, middle + 4.0, &short(spread.median));
            }
            None => text(out, NAMES + 6.0, middle + 4.0, &escape(&first_words(cell.trouble.as_deref().unwrap_or("–")))),
        }
        top += BAR;
    }
    top
}

fn color(contender: Contender) -> &'static str {
    match contender {
        Contender::Farshore | Contender::FarshoreWritable => "#1f6fb4",
        Contender::Sshfs | Contender::SshfsTuned => "#d98a3d",
        Contender::RcloneHttp | Contender::RcloneSftp => "#6aa84f",
        Contender::Plain | Contender::Stream => "#9a9a9a",
    }
}

fn text(out: &mut String, x: f64, y: f64, content: &str) {
    line(out, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\">{content}</text>"));
}

fn line(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{what}");
}

/// As much of a reason as there is room for.
fn first_words(text: &str) -> String {
    text.chars().take(80).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;
    use crate::results::Cell;

    #[test]
    fn bars_are_as_long_as_their_medians() {
        let cell = |contender, values: &[f64], trouble: Option<&str>| Cell {
            contender,
            rounds: values.iter().map(|value| vec![Some(*value)]).collect(),
            trouble: trouble.map(str::to_owned),
        };
        let measured = Measured {
            date: String::new(),
            command: String::new(),
            scale: Scale::Full,
            cells: vec![
                cell(Contender::Farshore, &[10.0, 20.0, 30.0], None),
                cell(Contender::Plain, &[15.0], None),
                cell(Contender::Sshfs, &[], Some("a < b")),
            ],
        };
        let mut out = String::new();
        panel(&mut out, Work::parse("read-warm").unwrap(), &measured, 0.0);
        assert!(out.contains(&format!("width=\"{:.1}\"", BARS * 20.0 / 30.0)), "{out}");
        assert!(out.contains(&format!("width=\"{:.1}\"", BARS / 2.0)), "{out}");
        assert!(out.contains("a &lt; b"), "{out}");
    }
}
