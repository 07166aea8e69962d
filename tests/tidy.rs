//! The house's invariants, read off the source text. Each violation is named by file and line.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it")]

use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path from the root of the crate, and its lines.
struct Source {
    path: String,
    lines: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str, extension: &str) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                walk(&entry.path(), found);
            } else {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    let mut sources = Vec::new();
    for path in found.into_iter().filter(|path| path.extension().is_some_and(|is| is == extension)) {
        let lines = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        sources.push(Source { path, lines });
    }
    assert!(!sources.is_empty(), "no .{extension} below {folder}");
    sources
}

/// Lines of code, without comments, that hold one of the words.
fn holding<'a>(sources: &'a [Source], words: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    sources.iter().flat_map(move |source| {
        source.lines.iter().enumerate().filter_map(move |(number, line)| {
            let code = line.split("//").next().unwrap_or_default();
            let word = words.iter().find(|word| code.contains(**word))?;
            Some(format!("{}:{}: {word:?} in {:?}", source.path, number + 1, line.trim()))
        })
    })
}

fn check(rule: &str, violations: impl Iterator<Item = String>) {
    let violations: Vec<_> = violations.collect();
    assert!(violations.is_empty(), "{rule}\n{}", violations.join("\n"));
}

fn library() -> Vec<Source> {
    sources("src", "rs")
}

/// The library without what is for tests: the model of the server, and the test server.
fn shipped() -> Vec<Source> {
    let is_test = |path: &str| {
        path.starts_with("src/proto/simulation/")
            || path.contains("transcripts")
            || path.starts_with("src/engine/model/")
    };
    library().into_iter().filter(|source| !is_test(&source.path) && !source.path.starts_with("src/testing/")).collect()
}

fn below<'a>(sources: &'a mut Vec<Source>, folders: &[&str]) -> &'a [Source] {
    sources.retain(|source| folders.iter().any(|folder| source.path.starts_with(folder)));
    sources
}

fn outside<'a>(sources: &'a mut Vec<Source>, places: &[&str]) -> &'a [Source] {
    sources.retain(|source| !places.iter().any(|place| source.path.starts_with(place)));
    sources
}

/// The rooms of the house, from the ground up. A room may use those before it in this list, and none after it.
const ROOMS: [&str; 18] = [
    "mutant",
    "error",
    "model",
    "wire",
    "settings",
    "proto",
    "clock",
    "backoff",
    "scripts",
    "cache",
    "transport",
    "engine",
    "data",
    "lock",
    "membership",
    "connector",
    "fuzz",
    "bench",
];

#[test]
fn rooms_use_only_rooms_below() {
    let floor = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut upwards = Vec::new();
    for source in library().iter().filter(|source| !source.path.starts_with("src/testing/")) {
        let room = source.path.trim_start_matches("src/").split(['/', '.']).next().unwrap();
        if room == "lib" {
            continue;
        }
        let own = floor(room).unwrap_or_else(|| panic!("{}: the room {room:?} has no place in ROOMS", source.path));
        for (number, line) in source.lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            let used = code.split("crate::").skip(1).filter_map(|rest| {
                let used = rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next()?;
                floor(used).filter(|used| *used > own)
            });
            upwards.extend(used.map(|used| format!("{}:{}: {room} uses {}", source.path, number + 1, ROOMS[used])));
        }
    }
    check("a room uses only rooms below it", upwards.into_iter());
}

#[test]
fn the_pure_core_has_no_io_no_clock_no_executor_and_no_randomness() {
    let mut sources = shipped();
    let impure =
        ["async ", ".await", "tokio", "redis::", "Instant", "SystemTime", "clock::", "fastrand", "rand::", "uuid"];
    check("proto/ and wire/ are pure", holding(below(&mut sources, &["src/proto/", "src/wire/"]), &impure));
}

#[test]
fn scripts_are_called_by_the_transport_alone() {
    let mut sources = shipped();
    let io = ["async ", ".await", "tokio", "invoke_async", "query_async", "load_async"];
    check("scripts/ sends nothing", holding(below(&mut sources, &["src/scripts/"]), &io));
}

#[test]
fn only_the_transport_speaks_redis() {
    let mut sources = shipped();
    let allowed = ["src/transport/", "src/scripts/", "src/error", "src/connector/"];
    check(
        "redis is spoken in transport/, scripts/, the constructors and error.rs",
        holding(outside(&mut sources, &allowed), &["redis::"]),
    );
}

#[test]
fn only_the_clock_reads_a_clock() {
    let mut sources = shipped();
    let reading = ["Instant::now", "SystemTime::now", "clock_gettime", ".elapsed()"];
    check("clock.rs alone reads a clock", holding(outside(&mut sources, &["src/clock.rs"]), &reading));
}

#[test]
fn only_the_driver_owns_the_writer_and_the_machine() {
    let mut sources = shipped();
    let owners = ["src/engine/driver.rs", "src/engine/publish.rs", "src/cache/", "src/proto/", "src/bench.rs"];
    check("the driver owns them", holding(outside(&mut sources, &owners), &["ViewWriter", "Machine"]));
}

#[test]
fn tasks_are_spawned_through_the_tracker() {
    let sources = shipped();
    let spawns = holding(&sources, &["spawn("]).filter(|line| !line.contains("tracker.spawn"));
    // The one thread for heartbeats, which ends with the last that holds it.
    check("tasks are tracked", spawns.filter(|line| !line.contains(".spawn(move || runtime.block_on(")));
}

#[test]
fn every_channel_is_bounded_but_the_release_lane() {
    let sources = shipped();
    let unbounded: Vec<_> = holding(&sources, &["unbounded_channel("]).collect();
    assert!(
        matches!(&unbounded[..], [one] if one.starts_with("src/engine/caller.rs") && one.contains("released")),
        "{unbounded:?}"
    );
}

#[test]
fn no_guard_lives_across_an_await() {
    // clippy::await_holding_lock sees the standard guards; DashMap's it does not know.
    let sources = shipped();
    let guards = ["members.get(", "members.iter(", "members.entry(", ".lock()"];
    check("no guard beside an await", holding(&sources, &guards).filter(|line| line.contains(".await")));
}

#[test]
fn every_script_says_what_it_takes_and_is_used_and_documented() {
    let protocol = fs::read_to_string(root().join("docs/PROTOCOL.md")).expect("docs/PROTOCOL.md");
    let callers = sources("src/scripts", "rs");
    let mut tests = sources("tests/real", "rs");
    tests.retain(|source| source.path.starts_with("tests/real/scripts"));
    let tested: String = tests.into_iter().flat_map(|source| source.lines).collect();
    for script in sources("src/scripts", "lua") {
        let name = script.path.rsplit('/').next().unwrap().to_owned();
        // These are put before the others.
        if ["prelude.lua", "ownership.lua", "server_run.lua"].contains(&&*name) {
            continue;
        }
        let header: String = script.lines.iter().take_while(|line| line.starts_with("--")).cloned().collect();
        for part in ["KEYS", "ARGV", "Answer"] {
            assert!(header.contains(part), "{}:1: its header has no {part}", script.path);
        }
        let stem = name.trim_end_matches(".lua");
        // Beside what calls it: `lock_break.lua` in `lock.rs`.
        let caller = format!("src/scripts/{}.rs", stem.split('_').next().unwrap());
        let used: Vec<_> = holding(&callers, &[&format!("\"{name}\"")]).collect();
        assert!(matches!(&used[..], [one] if one.starts_with(&caller)), "{} is used in {used:?}", script.path);
        assert!(protocol.contains(&format!("`{stem}`")), "{} is not in PROTOCOL.md", script.path);
        assert!(tested.contains(&format!("\"{stem}\"")), "{} has no test of its own", script.path);
    }
}

#[test]
fn every_mutant_is_in_the_table_of_who_catches_it_and_in_the_script_that_looks() {
    let table = fs::read_to_string(root().join("docs/TESTING.md")).expect("docs/TESTING.md");
    let script = fs::read_to_string(root().join("scripts/mutants")).expect("scripts/mutants");
    let mut names: Vec<String> = Vec::new();
    for source in library() {
        let text = source.lines.join("\n");
        let asked = ["mutant::is(\"", "mutant::is_again(\""].into_iter().flat_map(|begins| text.split(begins).skip(1));
        names.extend(asked.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        if source.path == "src/mutant.rs" {
            let list = text.split_once("IN_SCRIPTS").expect("the list").1.split_once("];").expect("its end").0;
            names.extend(list.split("\n    (").skip(1).filter_map(|entry| entry.split('"').nth(1)).map(str::to_owned));
        }
    }
    assert!(names.len() >= 12, "{names:?}");
    let missing =
        names.iter().filter(|name| !table.contains(&format!("| `{name}`")) || !script.contains(&format!("[{name}]=")));
    check("mutants are in docs/TESTING.md and in scripts/mutants", missing.cloned());
}

#[test]
fn every_public_async_fn_documents_errors_and_cancel_safety() {
    check(
        "what is awaited is documented",
        library().iter().flat_map(|source| {
            source
                .lines
                .iter()
                .enumerate()
                .filter(|(_, line)| line.trim().starts_with("pub async fn "))
                .filter_map(|(number, line)| {
                    let above = source.lines[..number].iter().rev();
                    let docs: Vec<_> = above.take_while(|line| line.trim().starts_with(['/', '#'])).collect();
                    let signature: String = source.lines[number..number + 8.min(source.lines.len() - number)].join(" ");
                    let answers = signature.split('{').next().unwrap_or_default().contains("-> Result");
                    let lacks = |heading: &str| !docs.iter().any(|line| line.contains(heading));
                    let missing = lacks("# Cancel safety") || (answers && lacks("# Errors"));
                    missing.then(|| format!("{}:{}: {}", source.path, number + 1, line.trim()))
                })
                .collect::<Vec<_>>()
        }),
    );
}

#[test]
fn files_do_one_thing() {
    let all = ["src", "tests", "examples"].iter().flat_map(|folder| sources(folder, "rs"));
    check(
        "a file over 500 lines is two things",
        all.filter(|source| source.lines.len() > 500).map(|source| format!("{}: {}", source.path, source.lines.len())),
    );
}

#[test]
fn nothing_is_left_for_later() {
    let mut sources: Vec<_> = ["src", "tests", "examples"].iter().flat_map(|folder| sources(folder, "rs")).collect();
    let later = ["todo!", "unimplemented!", "dbg!", "#[ignore", "allow("];
    let found = holding(outside(&mut sources, &["tests/tidy.rs"]), &later);
    // What a test starts in a process of its own is no test by itself.
    check("nothing is left for later", found.filter(|line| !line.contains("played by other tests")));
}
