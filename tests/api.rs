//! The public API: what its types promise of threads, and every name of it, so that growth is seen in a diff.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use group_redis::*;

fn shared<T: Send + Sync + Unpin + 'static>() {}
fn sent<T: Send + Unpin + 'static>() {}

#[test]
fn types_are_send_sync_and_unpin() {
    shared::<GroupConnector>();
    shared::<GroupConnectorBuilder>();
    shared::<Membership>();
    shared::<Member>();
    shared::<MemberId>();
    shared::<View>();
    shared::<State>();
    shared::<StateWatch>();
    shared::<Status>();
    shared::<Event>();
    shared::<Error>();
    shared::<Lock>();
    shared::<LockGuard>();
    shared::<LockContext>();
    shared::<LockHolder>();
    shared::<LockWaiter>();
    shared::<NamedLocks>();
    shared::<Fenced<'static>>();
    shared::<Election>();
    shared::<Leadership>();
    shared::<Leader>();
    shared::<Ephemeral>();
    shared::<Persistent>();
    shared::<DataValue>();
    shared::<WatchEvent>();
    sent::<Join>();
    sent::<Events>();
    sent::<MemberChanges>();
    sent::<Watch>();
    sent::<LeaderWatch>();
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => sources(&path, found),
            path if path.extension().is_some_and(|is| is == "rs") => found.push(path),
            _ => {}
        }
    }
}

/// Each public item of the library, with the type that it belongs to: what stands behind `pub`, without its body.
fn items() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut items) = (Vec::new(), BTreeSet::new());
    sources(&root, &mut found);
    for path in found.iter().filter(|path| !path.ends_with("fuzz.rs") && !path.ends_with("bench.rs")) {
        let (text, mut of) = (fs::read_to_string(path).unwrap(), String::new());
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let inner = line.starts_with("    ") && !line.starts_with("     ");
            if let Some(rest) = line.strip_prefix("impl").filter(|_| !inner) {
                let rest = rest.split_once(" for ").map_or(rest, |(_, rest)| rest);
                of = rest.trim_start_matches(|c| c != ' ').trim().trim_end_matches('{').trim().to_owned();
            }
            let Some(rest) = line.trim_start().strip_prefix("pub ").filter(|rest| !rest.starts_with("use ")) else {
                continue;
            };
            let mut item = rest.to_owned();
            // A signature ends with its body; whatever else is public stands on one line.
            for line in &lines[number + 1..] {
                if !item.contains("fn ") || item.ends_with(['{', ';', '}']) {
                    break;
                }
                item = format!("{item} {}", line.trim());
            }
            let item = item.split(" {").next().unwrap().split(';').next().unwrap().trim_end_matches(',');
            let item = item.replace("( ", "(").replace(", )", ")");
            items.insert(if inner && !of.is_empty() { format!("{of}: {item}") } else { item });
            if !inner {
                of = rest.split(['{', '(', ';']).next().unwrap().trim().rsplit(' ').next().unwrap().to_owned();
            }
        }
    }
    items
}

#[test]
fn every_public_name_is_in_the_list() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api.txt");
    let now: Vec<String> = items().into_iter().collect();
    if std::env::var_os("UPDATE_API").is_some() {
        fs::write(&path, now.join("\n") + "\n").unwrap();
    }
    let listed = fs::read_to_string(&path).unwrap_or_default();
    let listed: BTreeSet<&str> = listed.lines().collect();
    let now: BTreeSet<&str> = now.iter().map(String::as_str).collect();
    let (new, gone): (Vec<_>, Vec<_>) = (now.difference(&listed).collect(), listed.difference(&now).collect());
    assert!(
        new.is_empty() && gone.is_empty(),
        "the public API has changed; if that is wanted, say so in CHANGELOG.md and run UPDATE_API=1 cargo test --test api\n\
         new: {new:#?}\ngone: {gone:#?}"
    );
}
