//! From rounds to a line of the table.

use super::subject::{Goal, Reading, Row};
use crate::way::Figures;

/// The rounds of each contestant, by its label, or why there are none.
pub(super) type Measured = Vec<(String, Result<Vec<Figures>, String>)>;

/// The median of the rounds, with the least and the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

pub(super) struct Line {
    pub(super) what: String,
    pub(super) of: Reading,
    pub(super) base: Option<Reading>,
    pub(super) base_name: Option<String>,
    pub(super) goal: Goal,
    /// Or why there is nothing.
    pub(super) found: Result<Found, String>,
}

pub(super) struct Found {
    pub(super) figure: Spread,
    pub(super) base: Option<Spread>,
    pub(super) ratio: Option<Spread>,
}

impl Line {
    pub(super) fn is_met(&self) -> Option<bool> {
        let found = self.found.as_ref().ok()?;
        self.goal.is_met(found.ratio.unwrap_or(found.figure).median)
    }
}

fn at(sorted: &[f64], percentile: usize) -> Option<f64> {
    let value = |number: usize| sorted.get(number).copied();
    match sorted.len() {
        // Two rounds have no one in the middle.
        even if percentile == 50 && even.is_multiple_of(2) => {
            Some(f64::midpoint(value((even / 2).checked_sub(1)?)?, value(even / 2)?))
        }
        count => value((count * percentile).div_ceil(100).max(1) - 1),
    }
}

/// The percentile, and between what all lie.
fn spread(mut values: Vec<f64>, percentile: usize) -> Option<Spread> {
    values.sort_unstable_by(f64::total_cmp);
    Some(Spread { median: at(&values, percentile)?, min: *values.first()?, max: *values.last()? })
}

fn rounds<'a>(measured: &'a Measured, reading: &Reading) -> Option<Result<Vec<&'a Vec<f64>>, String>> {
    let (_, rounds) = measured.iter().find(|(label, _)| *label == reading.label)?;
    let figure = |figures: &'a Figures| {
        figures.get(&reading.figure).ok_or_else(|| format!("{} has not measured {}", reading.label, reading.figure))
    };
    let failed = |reason: &String| format!("{}: {reason}", reading.label);
    Some(rounds.as_ref().map_err(failed).and_then(|rounds| rounds.iter().map(figure).collect()))
}

/// One value a round.
fn each(rounds: &[&Vec<f64>], percentile: usize) -> Option<Vec<f64>> {
    rounds.iter().map(|samples| Some(spread((*samples).clone(), percentile)?.median)).collect()
}

fn found(figure: &[&Vec<f64>], base: Option<&[&Vec<f64>]>, percentile: usize) -> Option<Found> {
    let Some(base) = base else {
        let all = figure.iter().flat_map(|samples| samples.iter().copied()).collect();
        return Some(Found { figure: spread(all, percentile)?, base: None, ratio: None });
    };
    let (figure, base) = (each(figure, percentile)?, each(base, percentile)?);
    let ratios = figure.iter().zip(&base).map(|(figure, base)| figure / base).collect();
    Some(Found { ratio: Some(spread(ratios, 50)?), figure: spread(figure, 50)?, base: Some(spread(base, 50)?) })
}

/// None at all where one of both was not asked for.
pub(super) fn judge(row: &Row, measured: &Measured) -> Option<Line> {
    let figure = rounds(measured, &row.of)?;
    let base = match &row.against {
        Some(reading) => Some(rounds(measured, reading)?),
        None => None,
    };
    let found = figure.and_then(|figure| {
        let base = base.transpose()?;
        found(&figure, base.as_deref(), row.percentile).ok_or_else(|| "nothing was measured".to_owned())
    });
    Some(Line {
        what: row.what.clone(),
        of: row.of.clone(),
        base: row.against.clone(),
        base_name: row.base_name.clone(),
        goal: row.goal,
        found,
    })
}
