//! The documents hold together: every link between them leads somewhere, and the README stays short.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let folders = ["", "docs", "docs/decisions"].map(|folder| fs::read_dir(root().join(folder)).expect("a folder"));
    let files = folders.into_iter().flatten().map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|ext| ext == "md")).collect()
}

/// The lines that are no code.
fn prose(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let is_prose = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    };
    text.lines().filter(is_prose).collect()
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).into_iter().filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    };
    titles.map(|title| title.chars().filter_map(kept).collect()).collect()
}

fn targets(text: &str) -> Vec<String> {
    let prose = prose(text).join("\n");
    let links = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let pictures = ["src=\"", "srcset=\""].into_iter().flat_map(|attribute| prose.split(attribute).skip(1));
    let pictures = pictures.filter_map(|rest| rest.split('"').next());
    let all = links.chain(pictures).map(str::to_owned);
    all.filter(|target| !target.starts_with("http")).collect()
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    assert!(documents.len() > 25, "{documents:?}");
    let mut broken = Vec::new();
    for document in &documents {
        let text = fs::read_to_string(document).expect("a text");
        for target in targets(&text) {
            let (file, anchor) = target.split_once('#').map_or((&*target, None), |(file, at)| (file, Some(at)));
            let path = if file.is_empty() { document.clone() } else { document.parent().expect("a folder").join(file) };
            let leads = match (fs::read_to_string(&path), anchor) {
                (Ok(text), Some(anchor)) => anchors(&text).contains(anchor),
                (found, _) => found.is_ok(),
            };
            if !leads {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let lines = readme.lines().count();
    assert!(lines <= 150, "{lines} lines: what does not fit goes into docs/");
    let words = prose(&readme).join(" ").split_whitespace().count();
    assert!(words <= 750, "{words} words: read aloud they take longer than five minutes");
}
