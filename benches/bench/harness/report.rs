//! The table, and the same as JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::judge::{Found, Line, Measured, Spread};
use super::subject::Goal;
use super::{Order, samples};

pub(super) struct Report {
    json: bool,
    head: Value,
    left_out: Vec<String>,
    lines: Vec<Line>,
    samples: Map<String, Value>,
}

impl Report {
    pub(super) fn begin(order: &Order, mut head: Value) -> Self {
        head["quick"] = json!(order.scale.name() == "quick");
        head["versions"]["group-redis"] = json!(env!("CARGO_PKG_VERSION"));
        head["versions"]["revision"] = json!(order.revision);
        head["versions"]["before"] = json!(order.before_revision);
        let (left_out, lines, samples) = (order.left_out.clone(), Vec::new(), Map::new());
        Self { json: order.json, head, left_out, lines, samples }
    }

    pub(super) fn leave_out(&mut self, why: String) {
        self.left_out.push(why);
    }

    pub(super) fn add(&mut self, subject: &str, lines: Vec<Line>, measured: &Measured) {
        self.lines.extend(lines);
        self.samples.insert(subject.to_owned(), samples(measured));
    }

    #[expect(clippy::print_stdout, reason = "its output is what it is for")]
    pub(super) fn end(mut self, took: Duration) {
        self.head["seconds"] = json!(took.as_secs());
        if !self.json {
            print!("{}", self.table());
            return;
        }
        self.head["rows"] = self.lines.iter().map(as_json).collect();
        self.head["left_out"] = json!(self.left_out);
        self.head["samples"] = Value::Object(self.samples);
        println!("{}", self.head);
    }

    fn table(&self) -> String {
        let mut table = String::new();
        for part in ["machine", "versions"] {
            let about = self.head[part].as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
            let about = about.map(|(name, value)| format!("{name} {}", value.to_string().trim_matches('"')));
            table += &format!("{part}: {}\n", about.collect::<Vec<_>>().join(", "));
        }
        table += "each figure: median of the rounds; each ratio: median (least .. greatest)\n";
        let head = ["what", "figure", "base", "ratio", "goal", ""].map(str::to_owned);
        let rows: Vec<[String; 6]> = std::iter::once(head).chain(self.lines.iter().map(cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..6).map(width).collect();
        for row in &rows {
            let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            table += &format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end());
        }
        for why in &self.left_out {
            table += &format!("left out: {why}\n");
        }
        table += &format!("took {} s\n", self.head["seconds"]);
        table
    }
}

fn cells(line: &Line) -> [String; 6] {
    let figure = &line.of.figure;
    let base_name = line.base_name.clone().or_else(|| Some(line.base.as_ref()?.label.clone())).unwrap_or_default();
    let verdict = match line.is_met() {
        Some(true) => "ok",
        Some(false) => "misses",
        None => "",
    };
    let label = if line.of.label == "ours" { String::new() } else { format!("{} ", line.of.label) };
    match &line.found {
        Err(why) => [line.what.clone(), "none".to_owned(), base_name, String::new(), goal(line), why.clone()],
        Ok(Found { figure: of, base, ratio }) => {
            let base = base.map_or_else(String::new, |base| format!("{base_name} {}", number(figure, base.median)));
            let ratio = ratio.map_or_else(String::new, |ratio| {
                format!("{:.2}x ({:.2} .. {:.2})", ratio.median, ratio.min, ratio.max)
            });
            [line.what.clone(), label + &number(figure, of.median), base, ratio, goal(line), verdict.to_owned()]
        }
    }
}

fn goal(line: &Line) -> String {
    let value = |value: f64| match &line.base {
        Some(_) => format!("{value}x"),
        None => number(&line.of.figure, value),
    };
    match line.goal {
        Goal::AtMost(most) => format!("<= {}", value(most)),
        Goal::AtLeast(least) => format!(">= {}", value(least)),
        Goal::None => String::new(),
    }
}

/// By what the figure is called: see `way::Figures`.
fn number(figure: &str, value: f64) -> String {
    match figure {
        "rate" => format!("{value:.0}/s"),
        "share" => format!("{:.2} % of a core", value * 100.0),
        "bytes" => format!("{value:.0} B"),
        "size" => format!("{:.2} MB", value / 1e6),
        _ if value < 1e-6 => format!("{:.1} ns", value * 1e9),
        _ if value < 1e-3 => format!("{:.1} us", value * 1e6),
        _ if value < 1.0 => format!("{:.2} ms", value * 1e3),
        _ => format!("{value:.2} s"),
    }
}

fn as_json(line: &Line) -> Value {
    let spread = |spread: &Spread| json!({ "median": spread.median, "min": spread.min, "max": spread.max });
    let goal = match line.goal {
        Goal::AtMost(most) => json!({ "at_most": most }),
        Goal::AtLeast(least) => json!({ "at_least": least }),
        Goal::None => Value::Null,
    };
    let found = line.found.as_ref().ok();
    json!({
        "what": line.what,
        "of": line.of.label,
        "name": line.of.figure,
        "figure": found.map(|found| spread(&found.figure)),
        "base": line.base_name.as_ref().or(line.base.as_ref().map(|base| &base.label)),
        "base_figure": found.and_then(|found| found.base.as_ref().map(spread)),
        "ratio": found.and_then(|found| found.ratio.as_ref().map(spread)),
        "goal": goal,
        "verdict": line.is_met().map(|is_met| if is_met { "ok" } else { "misses" }),
        "failed": line.found.as_ref().err(),
    })
}
