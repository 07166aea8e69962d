//! One way of doing what a row compares, in a process of its own, which the harness asks for round after round.
//!
//! Such a process says `ready` when all is set up. Then it answers each line of its input with one line: what it has
//! measured, by name, as JSON. It ends with its input.

use std::collections::BTreeMap;
use std::io::Write;

use tokio::io::{AsyncBufReadExt, BufReader, stdin};

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What a round has measured, by name: a `rate` is one a second, a `share` is of a core, `bytes` and a `size` are bytes, and all others are
/// seconds.
pub(crate) type Figures = BTreeMap<String, Vec<f64>>;

pub(crate) trait Way: Send {
    fn round(&mut self) -> impl Future<Output = Outcome<Figures>> + Send;
}

pub(crate) async fn serve(mut way: impl Way) -> Outcome<()> {
    say("ready")?;
    let mut asked = BufReader::new(stdin()).lines();
    while asked.next_line().await?.is_some() {
        let figures = way.round().await?;
        say(&serde_json::to_string(&figures)?)?;
    }
    Ok(())
}

/// A line for the process that has started this one, at once.
pub(crate) fn say(line: &str) -> Outcome<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

pub(crate) fn figures<const N: usize>(named: [(&str, Vec<f64>); N]) -> Figures {
    named.into_iter().map(|(name, samples)| (name.to_owned(), samples)).collect()
}
