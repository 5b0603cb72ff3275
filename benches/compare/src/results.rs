//! What came out: kept as a file, so that one work can be measured again without the others.

use crate::Scale;
use crate::contender::Contender;
use crate::machine::Machine;
use crate::work::{Better, Metric, Values};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that is known, from one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    /// By the name of the work.
    pub(crate) works: BTreeMap<String, Measured>,
}

/// One work, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// When, as YYYY-MM-DD.
    pub(crate) date: String,
    /// The command that made it.
    pub(crate) command: String,
    pub(crate) scale: Scale,
    pub(crate) cells: Vec<Cell>,
}

/// One contender at one work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) contender: Contender,
    /// One for each round that went well.
    pub(crate) rounds: Vec<Values>,
    /// Why there are no more.
    pub(crate) trouble: Option<String>,
}

/// The middle of some values, and the ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Cell {
    /// What came out for the metric at `index` of the work's.
    pub(crate) fn spread(&self, index: usize) -> Option<Spread> {
        let values = self.rounds.iter().filter_map(|values| *values.get(index)?);
        Spread::of(values.collect())
    }
}

impl Spread {
    /// `None` of no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Spread { least, median, most })
    }

    /// How many times better `self` is than `other`.
    pub(crate) fn times_better(self, other: Spread, metric: Metric) -> f64 {
        match metric.better {
            Better::Higher => self.median / other.median,
            Better::Lower => other.median / self.median,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0, 9.0]), Some(Spread { least: 1.0, median: 3.0, most: 9.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]), Some(Spread { least: 1.0, median: 2.5, most: 4.0 }));
    }

    #[test]
    fn better_is_faster_or_less() {
        let [two, six] = [2.0, 6.0].map(|value| Spread::of(vec![value]).unwrap());
        assert_eq!(six.times_better(two, Metric { title: "MB/s", better: Better::Higher }), 3.0);
        assert_eq!(six.times_better(two, Metric { title: "s", better: Better::Lower }), 1.0 / 3.0);
    }
}
