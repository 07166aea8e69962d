//! Who is compared with whom, round after round, and what comes of it.

mod judge;
mod machine;
mod report;
mod rounds;
mod subject;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::way::Outcome;
use judge::{Measured, judge};
use report::Report;
use rounds::Programs;
pub(crate) use subject::{Goal, Scale, Subject, base, ours, peer, row};

/// For all that is measured; building comes before.
const FULL: Duration = Duration::from_secs(15 * 60);
const QUICK: Duration = Duration::from_secs(2 * 60);

/// What the harness is asked for.
#[derive(Default)]
pub(crate) struct Order {
    pub(crate) scale: Scale,
    pub(crate) json: bool,
    pub(crate) only: Vec<String>,
    pub(crate) before: Option<PathBuf>,
    pub(crate) peers: Option<PathBuf>,
    /// What the caller knows: the revisions that are compared, and what could not be built or installed.
    pub(crate) revision: Option<String>,
    pub(crate) before_revision: Option<String>,
    pub(crate) left_out: Vec<String>,
}

pub(crate) async fn run(mut order: Order, subjects: Vec<Subject>) -> Outcome<()> {
    let began = Instant::now();
    let end = began + order.scale.pick(QUICK, FULL);
    let programs = Programs::new(order.before.take(), order.peers.take())?;
    let mut report = Report::begin(&order, machine::about(&programs).await?);
    for subject in subjects {
        if !order.only.is_empty() && !order.only.contains(&subject.name) {
            continue;
        }
        if Instant::now() >= end {
            report.leave_out(format!("{}: no time was left", subject.name));
            continue;
        }
        eprintln!("bench: {}, {:.0} s", subject.name, began.elapsed().as_secs_f64());
        let measured = rounds::measure(&subject, &programs, order.scale, end).await?;
        let lines = subject.rows.iter().filter_map(|row| judge(row, &measured)).collect();
        report.add(&subject.name, lines, &measured);
    }
    report.end(began.elapsed());
    Ok(())
}

fn samples(measured: &Measured) -> Value {
    let each = measured.iter().map(|(label, rounds)| {
        let value = match rounds {
            Ok(rounds) => json!(rounds),
            Err(reason) => json!({ "failed": reason }),
        };
        (label.clone(), value)
    });
    Value::Object(each.collect())
}
