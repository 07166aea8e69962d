//! What this dependency adds to the build of a program, and to the program.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::fs;
use tokio::process::Command;

use crate::clock;
use crate::harness::{Goal, Scale, Subject, base as by_base, ours as by_ours, row};
use crate::way::{Figures, Outcome, Way, figures};

pub(crate) fn subject(scale: Scale) -> Subject {
    let of = |what: &str, figure: &str| row(format!("hello crate, {what}"), "ours", figure);
    Subject::new("hello", scale.pick(1, 2))
        .compares([by_ours("ours", "hello:ours"), by_base("redis alone", "hello:redis")])
        .rows([
            of("clean release build", "build").against("redis alone", "build", Goal::AtMost(1.6)),
            of("binary", "size").against("redis alone", "size", Goal::AtMost(1.5)),
            of("clean release build", "build").against_before(Goal::None),
            of("binary", "size").against_before(Goal::None),
        ])
}

const WITH_OURS: &str = r#"
#[tokio::main]
async fn main() -> Result<(), group_redis::Error> {
    let group = group_redis::GroupConnector::builder("redis://127.0.0.1/").connect().await?;
    group.join("hello").await?;
    println!("{} members", group.members().len());
    group.close().await
}
"#;

const WITH_REDIS: &str = r#"
#[tokio::main]
async fn main() -> Result<(), redis::RedisError> {
    let mut connection = redis::Client::open("redis://127.0.0.1/")?.get_multiplexed_async_connection().await?;
    redis::cmd("SET").arg("hello").arg("world").query_async::<()>(&mut connection).await?;
    let value: String = redis::cmd("GET").arg("hello").query_async(&mut connection).await?;
    println!("{value}");
    Ok(())
}
"#;

/// A crate in a folder of its own, with the versions of this repository.
pub(crate) struct Hello(TempDir);

impl Hello {
    pub(crate) async fn begin(with: &str) -> Outcome<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (dependency, code) = match with {
            "ours" => (format!("group-redis = {{ path = {root:?} }}"), WITH_OURS),
            _ => {
                let redis =
                    r#"redis = { version = "1", default-features = false, features = ["tokio-comp", "script"] }"#;
                (redis.to_owned(), WITH_REDIS)
            }
        };
        let hello = Self(tempfile::tempdir()?);
        let folder = hello.0.path();
        let manifest = format!(
            "[package]\nname = \"hello\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
             {dependency}\ntokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n"
        );
        fs::create_dir(folder.join("src")).await?;
        fs::write(folder.join("Cargo.toml"), manifest).await?;
        fs::write(folder.join("src/main.rs"), code).await?;
        fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).await?;
        hello.cargo(&["fetch"]).await?;
        Ok(hello)
    }

    async fn cargo(&self, words: &[&str]) -> Outcome<()> {
        let folder = self.0.path();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(words).arg("--quiet").current_dir(folder).env("CARGO_TARGET_DIR", folder.join("target"));
        let done = cargo.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).status().await?;
        if done.success() { Ok(()) } else { Err(format!("cargo {}: {done}", words.join(" ")).into()) }
    }
}

impl Way for Hello {
    async fn round(&mut self) -> Outcome<Figures> {
        self.cargo(&["clean"]).await?;
        let began = clock::now();
        self.cargo(&["build", "--release", "--offline"]).await?;
        let took = clock::now() - began;
        let program = fs::metadata(self.0.path().join("target/release/hello")).await?;
        Ok(figures([("build", vec![took]), ("size", vec![program.len() as f64])]))
    }
}
