//! Draws what the demo measured: one lane for each process, for light and for dark pages.
//!
//! `scripts/demo --json | cargo run --example draw_demo -- docs` writes `demo-light.svg` and `demo-dark.svg` there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead as _;
use std::path::PathBuf;

use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const LEFT: f64 = 56.0;
const TOP: f64 = 58.0;
const LANE: f64 = 36.0;
/// How wide a step from one moment to the next is drawn: so much, and more where more time passes.
const STEP: f64 = 22.0;
const STEP_EACH: f64 = 13.0;

/// What a process is from some moment on.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Member,
    Waits,
    Holds,
    /// Killed or frozen, and nobody has been told yet.
    Silent,
    Gone,
}

struct Moment {
    at: f64,
    process: String,
    stage: Stage,
    label: String,
}

#[derive(Default)]
struct Play {
    moments: Vec<Moment>,
    holder: Option<String>,
    /// The holder before, the next holder, and when the lock went.
    handed_on: Vec<(String, String, f64)>,
    outage: Option<(f64, f64, String)>,
    server: String,
}

impl Play {
    fn say(&mut self, at: f64, process: &str, stage: Stage, label: String) {
        self.moments.push(Moment { at, process: process.to_owned(), stage, label });
    }

    fn take(&mut self, line: &Value) {
        let number = |name: &str| line[name].as_f64();
        let at = number("at_ms").unwrap_or_default();
        let who = line["member"].as_str().unwrap_or_default();
        match line["act"].as_str() {
            Some("server") => self.server = format!("Redis {}", line["redis"].as_str().unwrap_or_default()),
            Some("join") => self.say(at, who, Stage::Member, format!("joined: {}", millis(number("ms")))),
            Some("leave") => self.say(at, who, Stage::Gone, format!("left: {}", millis(number("ms")))),
            Some("crash") => {
                let after = number("ms_after_kill");
                self.say(at - after.unwrap_or_default(), who, Stage::Silent, "kill -9".to_owned());
                self.say(at, who, Stage::Gone, format!("reported after {}", millis(after)));
            }
            Some("freeze") if line["rejoined"] == true => {
                let label = format!("resumed, a member again after {}", millis(number("ms_after_resume")));
                self.say(at, who, Stage::Member, label);
            }
            Some("freeze") => {
                self.say(at - number("ms_frozen").unwrap_or_default(), who, Stage::Silent, "frozen".to_owned());
                self.say(at, who, Stage::Gone, format!("reported: ttl + {}", millis(number("ms_past_deadline"))));
            }
            Some("wait") => self.say(at, who, Stage::Waits, "waits".to_owned()),
            Some("hold") => {
                self.say(at, who, Stage::Holds, "holds the lock".to_owned());
                self.holder = Some(who.to_owned());
            }
            Some("locks") => self.hand_on(at, who, line),
            Some("release") => self.say(at, who, Stage::Gone, String::new()),
            Some("restart") if line["skipped"] != true => {
                let back = number("converged_ms");
                let began = at - back.unwrap_or_default() - number("down_ms").unwrap_or_default();
                self.outage = Some((began, at, format!("server restarts empty, all back after {}", millis(back))));
            }
            _ => {}
        }
    }

    fn hand_on(&mut self, at: f64, to: &str, line: &Value) {
        let from = self.holder.replace(to.to_owned()).unwrap_or_default();
        let label = if let Some(after) = line["ms_after_kill"].as_f64() {
            self.say(at - after, &from, Stage::Silent, "kill -9".to_owned());
            format!("takes over after {}", millis(Some(after)))
        } else {
            format!("handed on: {}", millis(line["handover_ms"].as_f64()))
        };
        self.say(at, &from, Stage::Gone, String::new());
        self.say(at, to, Stage::Holds, label);
        self.handed_on.push((from, to.to_owned(), at));
    }
}

fn millis(number: Option<f64>) -> String {
    number.map_or_else(|| "?".to_owned(), |ms| if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") })
}

struct Colours {
    name: &'static str,
    text: &'static str,
    faint: &'static str,
    member: &'static str,
    holds: &'static str,
    gone: &'static str,
}

const COLOURS: [Colours; 2] = [
    Colours { name: "light", text: "#1f2328", faint: "#8c959f", member: "#0969da", holds: "#bc4c00", gone: "#cf222e" },
    Colours { name: "dark", text: "#e6edf3", faint: "#848d97", member: "#58a6ff", holds: "#f0883e", gone: "#ff7b72" },
];

/// Where each moment is drawn. Microseconds and seconds would not both be seen on a scale that is even.
fn scale(play: &Play) -> (impl Fn(f64) -> f64, f64) {
    let mut times: Vec<f64> = play.moments.iter().map(|moment| moment.at).collect();
    times.extend(play.outage.iter().flat_map(|(from, to, _)| [*from, *to]));
    times.sort_by(f64::total_cmp);
    times.dedup_by(|later, sooner| *later - *sooner < 0.05);
    let mut places = Vec::new();
    let mut x = LEFT + 6.0;
    for (number, time) in times.iter().enumerate() {
        if number > 0 {
            x += STEP + STEP_EACH * (1.0 + time - times[number - 1]).log10() * 2.0;
        }
        places.push((*time, x));
    }
    let place = move |at: f64| {
        places.iter().min_by(|a, b| (a.0 - at).abs().total_cmp(&(b.0 - at).abs())).map_or(LEFT, |(_, x)| *x)
    };
    (place, x + 130.0)
}

fn draw(play: &Play, colours: &Colours) -> Result<String, std::fmt::Error> {
    let Colours { text, faint, member, holds, gone, .. } = colours;
    let (place, width) = scale(play);
    let mut lanes: Vec<&str> = Vec::new();
    let mut by_process: BTreeMap<&str, Vec<&Moment>> = BTreeMap::new();
    for moment in &play.moments {
        if !by_process.contains_key(&*moment.process) {
            lanes.push(&moment.process);
        }
        by_process.entry(&moment.process).or_default().push(moment);
    }
    let height = |process: &str| {
        TOP + LANE * lanes.iter().position(|lane| *lane == process).map_or(0.0, |number| number as f64 + 0.5)
    };
    let bottom = TOP + LANE * lanes.len() as f64;
    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {:.0}" font-family="system-ui, sans-serif" font-size="11.5">"#,
        bottom + 30.0
    )?;
    writeln!(svg, "<title>What ./scripts/demo measured: nine processes over time</title>")?;
    let key =
        [(member, 4, "member"), (faint, 2, "waits for the lock"), (holds, 8, "holds the lock"), (gone, 2, "silent")];
    for (number, (colour, thick, what)) in key.into_iter().enumerate() {
        let x = LEFT + 6.0 + 150.0 * number as f64;
        let dashes = if *what == *"silent" { r#" stroke-dasharray="4 3""# } else { "" };
        writeln!(
            svg,
            r#"<path d="M{x:.0} 20h26" stroke="{colour}" stroke-width="{thick}"{dashes}/><text x="{:.0}" y="24" fill="{text}">{what}</text>"#,
            x + 34.0
        )?;
    }
    if let Some((from, to, label)) = &play.outage {
        let (from, to) = (place(*from), place(*to));
        writeln!(
            svg,
            r#"<rect x="{from:.0}" y="{:.0}" width="{:.0}" height="{:.0}" fill="{gone}" opacity="0.18"/><text x="{:.0}" y="{:.0}" text-anchor="end" fill="{gone}">{label}</text>"#,
            TOP - 6.0,
            to - from,
            bottom - TOP + 12.0,
            width - 8.0,
            TOP - 12.0,
        )?;
    }
    for (from, to, at) in &play.handed_on {
        let x = place(*at);
        writeln!(
            svg,
            r#"<path d="M{x:.0} {:.0}V{:.0}" stroke="{holds}" stroke-width="1.5"/>"#,
            height(from),
            height(to)
        )?;
    }
    let end = play.outage.as_ref().map_or(width - 120.0, |(_, to, _)| place(*to)) + 40.0;
    for lane in &lanes {
        let y = height(lane);
        writeln!(svg, r#"<text x="8" y="{:.0}" fill="{text}" font-weight="600">{lane}</text>"#, y + 4.0)?;
        let moments = &by_process[lane];
        for (number, moment) in moments.iter().enumerate() {
            let (x, next) = (place(moment.at), moments.get(number + 1).map_or(end, |next| place(next.at)));
            let (colour, thick, dashes) = match moment.stage {
                Stage::Member => (member, 4, ""),
                Stage::Waits => (faint, 2, ""),
                Stage::Holds => (holds, 8, ""),
                Stage::Silent | Stage::Gone => (gone, 2, r#" stroke-dasharray="4 3""#),
            };
            if moment.stage == Stage::Gone {
                let (up, low) = (y - 5.0, y + 5.0);
                writeln!(svg, r#"<path d="M{x:.0} {up:.0}V{low:.0}" stroke="{colour}" stroke-width="2.5"/>"#)?;
            } else {
                writeln!(
                    svg,
                    r#"<path d="M{x:.0} {y:.0}H{next:.0}" stroke="{colour}" stroke-width="{thick}"{dashes}/>"#
                )?;
                writeln!(svg, r#"<circle cx="{x:.0}" cy="{y:.0}" r="4" fill="{colour}"/>"#)?;
            }
            let above = if number % 2 == 0 { y - 8.0 } else { y + 16.0 };
            writeln!(svg, r#"<text x="{:.0}" y="{above:.0}" fill="{text}">{}</text>"#, x - 3.0, moment.label)?;
        }
    }
    writeln!(
        svg,
        r#"<text x="{:.0}" y="{:.0}" fill="{faint}">{}, one machine. Time runs to the right, steps are not to scale; each figure is from the cause to the watcher or the next holder.</text>"#,
        LEFT + 6.0,
        bottom + 22.0,
        play.server
    )?;
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn main() -> Outcome<()> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("draw_demo FOLDER <what the demo said")?);
    let mut play = Play::default();
    for line in std::io::stdin().lock().lines() {
        play.take(&serde_json::from_str(&line?)?);
    }
    // A cause is told together with its effect, which is later.
    play.moments.sort_by(|a, b| a.at.total_cmp(&b.at));
    for colours in &COLOURS {
        std::fs::write(folder.join(format!("demo-{}.svg", colours.name)), draw(&play, colours)?)?;
    }
    Ok(())
}
