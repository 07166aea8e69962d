//! What it was measured on.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use group_redis::testing::TestRedis;
use serde_json::{Value, json};
use tokio::process::Command;

use super::rounds::Programs;
use crate::way::Outcome;

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What stands behind that word, in a file of such lines.
fn entry(path: &str, word: &str) -> Option<String> {
    let text = read(path);
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    Some(rest.trim_matches([' ', '\t', ':', '=', '"']).to_owned())
}

async fn said_by(program: &Path, word: &str) -> Option<String> {
    let output = Command::new(program).arg(word).kill_on_drop(true).output().await.ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

pub(super) async fn about(programs: &Programs) -> Outcome<Value> {
    let server = TestRedis::start().await?;
    let peers = match &programs.peers {
        Some(peers) => said_by(peers, "--versions").await.and_then(|said| serde_json::from_str(&said).ok()),
        None => None,
    };
    let mut about = json!({
        "at": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        "machine": {
            "cpu": entry("/proc/cpuinfo", "model name"),
            "cores": std::thread::available_parallelism()?.get(),
            "memory": entry("/proc/meminfo", "MemTotal"),
            "system": entry("/etc/os-release", "PRETTY_NAME"),
            "kernel": read("/proc/sys/kernel/osrelease").trim(),
            "load before": read("/proc/loadavg").split(' ').next(),
        },
        "versions": {
            "redis": server.version(),
            "rustc": said_by(Path::new("rustc"), "--version").await,
        },
    });
    if let (Some(Value::Object(peers)), Some(versions)) = (peers, about["versions"].as_object_mut()) {
        versions.extend(peers);
    }
    Ok(about)
}
